"""What the inputs of the fuzzer are made with."""

import functools
import hashlib
import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from quantum_memory.durability.files import ReadableBytes
from quantum_memory.testing.fuzzing import Mutator

from .goldens import goldens

NAME = "input"


def source(data: bytes) -> ReadableBytes:
    return ReadableBytes(data, NAME)


def text_of(node: Any) -> bytes:
    """Return JSON as any program writes it: with lone surrogates, and what is no number."""
    return json.dumps(node, separators=(",", ":")).encode()


def sha(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def changed_text(mutator: Mutator, text: bytes) -> bytes:
    """Return JSON text that was changed as JSON, mostly, or as bytes."""
    return mutator.data(text) if mutator.below(5) == 0 else text_of(mutator.json(json.loads(text)))


@functools.cache
def golden(group: str) -> dict[str, bytes]:
    with TemporaryDirectory() as place:
        return {one.name: one.data for one in goldens(group, Path(place))}
