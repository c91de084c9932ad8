"""Small JSON files beside the manifests, each with the SHA-256 of what it says."""

from __future__ import annotations

import hashlib
import os
from typing import Any

from quantum_memory.durability.atomic import DurableFile
from quantum_memory.durability.files import ReadableFile
from quantum_memory.errors import IntegrityError, MissingFileError, UnsafeError
from quantum_memory.state.document import well_formed
from quantum_memory.state.json_text import from_json, max_nodes, to_json

_MAX_BYTES = 16 << 20


def read_signed(path: str, keys: set[str], version: int = 1) -> dict[str, Any] | None:
    """Return what a file says under these keys, or None when it is not there.

    Raises
    ------
    IntegrityError, StorageError, UnsafeError
    """
    try:
        with ReadableFile(path) as source:
            if source.size > _MAX_BYTES:
                raise IntegrityError("it is longer than any that is written", path=path)
            text = source.read(0, source.size)
    except MissingFileError:
        return None
    with well_formed(path):
        said: dict[str, Any] = from_json(text, max_nodes=max_nodes(8 * len(text)))
        digest = said.pop("sha256")
        if digest != signature(said) or said.pop("version") != version or set(said) != keys:
            raise IntegrityError("it does not match its SHA-256")
        return said


def write_signed(path: str, said: dict[str, Any], *, version: int = 1, durable: bool = True, mode: int = 0o666) -> None:
    """Replace a file.

    Raises
    ------
    UnsafeError
        It is a symbolic link.
    StorageError
    """
    if os.path.islink(path):
        raise UnsafeError("it is a symbolic link", path=path, next_step="put the file itself there")
    said = {"version": version, **said}
    with DurableFile(path, durable=durable, mode=mode) as sink:
        sink.write(to_json({**said, "sha256": signature(said)}))


def signature(said: dict[str, Any]) -> str:
    """Return the SHA-256 of JSON with sorted keys and without spaces, in hexadecimal."""
    return hashlib.sha256(to_json(said, canonical=True)).hexdigest()
