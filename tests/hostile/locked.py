# ruff: noqa: E501 - one case on one line, as in a table
"""Encrypted files that ask for too much or are somebody else's, and files that are to be keys."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import struct
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import quantum_memory as qm
from quantum_memory.encryption.keys import new_slot

from .case import DAMAGED, LATER, UNSAFE, Case

if TYPE_CHECKING:
    from collections.abc import Callable

KEY = Path(__file__).parents[1] / "golden" / "backups" / "key"
FACTS = 40
SCRYPT = {"kdf": "scrypt", "n": 1 << 17, "r": 8, "p": 1}


@functools.cache
def whole(value: float = 1.0) -> bytes:
    """Return an encrypted file."""
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "a.qms"
        qm.save(np.array([value, 0.0]), path, encrypt=qm.Key.from_file(KEY), durable=False)
        return path.read_bytes()


def plain() -> bytes:
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "a.qms"
        qm.save(np.ones(2), path, durable=False)
        return path.read_bytes()


def relocked(change: Callable[[list[dict[str, Any]]], Any], facts: bytes | None = None) -> bytes:
    """Return an encrypted file with other key slots, under the right SHA-256."""
    data = whole()
    (length,) = struct.unpack_from("<I", data, 20)
    slots = change(json.loads(data[FACTS : FACTS + length]))
    text = slots if isinstance(slots, bytes) else json.dumps(slots, separators=(",", ":")).encode()
    head = facts or data[:FACTS]
    head = head[:20] + struct.pack("<I", len(text)) + head[24:]
    return head + text + hashlib.sha256(head + text).digest() + data[FACTS + length + 32 :]


def slot(**facts: Any) -> bytes:
    return relocked(lambda slots: [slots[0] | facts])


def another_slot() -> bytes:
    """Return a file that gives a key another master key than the one of its segments, as whoever has the key can."""
    return relocked(lambda _: [new_slot(bytes(32), qm.Key.from_file(KEY), b"quantum-memory sealed file")])


def start(data: bytes) -> int:
    """Return where the segments begin."""
    return FACTS + int.from_bytes(data[20:24], "little") + 64


def locked(title: str, naive: str, error: str, build: Callable[[], bytes], verbs: str = "state with a key") -> Case:
    return Case(f"encrypted: {title}", naive, error, build, "qms", verbs)


def a_key(title: str, naive: str, error: str, build: Callable[..., Any], *, at_path: bool = False) -> Case:
    return Case(f"a key file: {title}", naive, error, build, "key", "key", at_path=at_path)


WRONG, REFUSED = "WrongKeyError", "InvalidStateError"
LOCKED: list[Case] = [
    locked("a slot that takes 1 TiB of memory", "takes it, for anybody's passphrase", UNSAFE, lambda: slot(**SCRYPT | {"n": 1 << 30}), "state with a passphrase"),
    locked("a slot that takes a year", "computes for a year", UNSAFE, lambda: slot(**SCRYPT | {"p": 1 << 30}), "state with a passphrase"),
    locked("a cost that is no power of two", "crashes", DAMAGED, lambda: slot(**SCRYPT | {"n": 1000}), "state with a passphrase"),
    locked("a cost of -1", "crashes", DAMAGED, lambda: slot(**SCRYPT | {"r": -1}), "state with a passphrase"),
    locked("a cost that is text", "crashes", DAMAGED, lambda: slot(**SCRYPT | {"n": "131072"}), "state with a passphrase"),
    locked("seventeen slots", "tries all of them", UNSAFE, lambda: relocked(lambda slots: slots * 17)),
    locked("no slots", "crashes", UNSAFE, lambda: relocked(lambda _: [])),
    locked("slots that are a dict", "crashes", DAMAGED, lambda: relocked(lambda slots: slots[0])),
    locked("slots of 60,000 levels", "overflows the C stack", DAMAGED, lambda: relocked(lambda _: b"[" * 60_000)),
    locked("a slot of a later release", "says that the key is wrong", LATER, lambda: slot(kdf="argon2id")),
    locked("a salt that is no Base64", "skips what it does not know", DAMAGED, lambda: slot(salt="!" * 44)),
    locked("a label of a mile", "prints it", DAMAGED, lambda: slot(label="x" * 10_000)),
    locked("another label", "believes it", WRONG, lambda: slot(label="mine")),
    locked("another slot for the same key", "opens it with what somebody else chose", DAMAGED, another_slot),
    locked("a cipher that there is not", "takes the first of its list", LATER, lambda: relocked(list, whole()[:12] + b"\x09\0" + whole()[14:FACTS])),
    locked("segments of another length", "allocates 4 GiB for each", DAMAGED, lambda: relocked(list, whole()[:16] + b"\xff" * 4 + whole()[20:FACTS])),
    locked("the segments of another file", "loads them", DAMAGED, lambda: whole()[: start(whole())] + whole(2.0)[start(whole(2.0)) :]),
    locked("no segments", "takes it for an empty file", DAMAGED, lambda: whole()[: start(whole())]),
    locked("a header that is cut short", "crashes", DAMAGED, lambda: whole()[:100]),
    locked("a file that is not encrypted", "reads what anybody can have put there", REFUSED, plain),
    locked("no key given", "asks for one where nobody is", WRONG, whole, "state"),
    a_key("31 bytes", "pads them", REFUSED, lambda: bytes(31)),
    a_key("nothing", "takes the empty key", REFUSED, lambda: b""),
    a_key("line ends", "takes the empty key", REFUSED, lambda: b"\r\n" * 100),
    a_key("2 MiB", "reads it", REFUSED, lambda: bytes(2 << 20)),
    a_key("/dev/zero", "reads until memory is full", UNSAFE, lambda path: path.symlink_to("/dev/zero"), at_path=True),
    a_key("a folder", "crashes", UNSAFE, Path.mkdir, at_path=True),
    a_key("a pipe", "waits for somebody to write", UNSAFE, os.mkfifo, at_path=True),
    a_key("a link to itself", "follows it", "StorageError", lambda path: path.symlink_to(path), at_path=True),
]  # fmt: skip
