"""Small JSON files beside the manifests, each with the SHA-256 of what it says, which may be sealed."""

from __future__ import annotations

import base64
import hashlib
import os
from typing import TYPE_CHECKING, Any

from quantum_memory.durability.atomic import DurableFile
from quantum_memory.durability.files import ReadableFile
from quantum_memory.errors import UPGRADE, IntegrityError, MissingFileError, UnsafeError, UnsupportedVersionError
from quantum_memory.state.document import well_formed
from quantum_memory.state.json_text import from_json, max_nodes, to_json

if TYPE_CHECKING:
    from quantum_memory.encryption.sealing import Sealer

MAX_BYTES = 16 << 20
SEALED = "sealed"
"""The key that stands in the place of those that are sealed."""


def read_signed(path: str, *keys: set[str], version: int = 1) -> dict[str, Any] | None:
    """Return what a file says, or None when it is not there; see `said_by`.

    Raises
    ------
    IntegrityError, StorageError, UnsafeError, UnsupportedVersionError
    """
    try:
        with ReadableFile(path) as source:
            if source.size > MAX_BYTES:
                raise IntegrityError("it is longer than any that is written", path=path)
            text = source.read(0, source.size)
    except MissingFileError:
        return None
    return said_by(text, path, *keys, version=version)


def said_by(text: bytes, path: str, *keys: set[str], version: int = 1) -> dict[str, Any]:
    """Return what text says that is signed.

    Parameters
    ----------
    path
        What errors call the file that it is of.
    keys
        Those under which it says something; one of several sets.

    Raises
    ------
    IntegrityError, UnsafeError
    """
    with well_formed(path):
        said: dict[str, Any] = from_json(text, max_nodes=max_nodes(8 * len(text)))
        whole = said.pop("sha256") == signature(said)
        written = said.pop("version")
        if whole and isinstance(written, int) and written > version:
            raise UnsupportedVersionError(f"it has version {written}", path=path, next_step=UPGRADE)
        if not whole or written != version or set(said) not in keys:
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
    with DurableFile(path, durable=durable, mode=mode) as sink:
        sink.write(signed(said, version))


def signed(said: dict[str, Any], version: int = 1) -> bytes:
    """Return text that says something, and its SHA-256."""
    said = {"version": version, **said}
    return to_json({**said, "sha256": signature(said)})


def signature(said: dict[str, Any]) -> str:
    """Return the SHA-256 of JSON with sorted keys and without spaces, in hexadecimal."""
    return hashlib.sha256(to_json(said, canonical=True)).hexdigest()


def sealed(said: dict[str, Any], sealer: Sealer | None, kind: bytes) -> dict[str, Any]:
    """Return what is written in the place of something that is said: the same, where nothing is sealed.

    Parameters
    ----------
    kind
        What it is. It is opened as this only.
    """
    if sealer is None:
        return said
    return {SEALED: base64.b64encode(sealer.seal(to_json(said), kind, b"")).decode()}


def unsealed(said: dict[str, Any], sealer: Sealer | None, kind: bytes) -> dict[str, Any]:
    """Return what `sealed` was given.

    Raises
    ------
    IntegrityError
        It was sealed as something else, or elsewhere; or it is not sealed, though all is that is there.
    ValueError, TypeError
        What it is in the place of is none of this.
    """
    if (SEALED in said) != (sealer is not None):
        raise IntegrityError("it is not encrypted as the others are")
    if sealer is None:
        return said
    text = sealer.open(base64.b64decode(said[SEALED], validate=True), kind, b"")
    made: dict[str, Any] = from_json(text, max_nodes=max_nodes(8 * len(text)))
    return made
