"""A memory that is looked for: by its content, or by the bytes of its file."""

from __future__ import annotations

import os
import re
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from quantum_memory.durability.files import ReadableFile
from quantum_memory.errors import IntegrityError, InvalidStateError, UnsafeError, UnsupportedVersionError
from quantum_memory.formats.info import of_reader
from quantum_memory.formats.names import named_in
from quantum_memory.formats.registry import (
    HEAD_BYTES,
    SUFFIXES,
    OpenOptions,
    format_of_head,
    is_sealed,
    open_reader,
    opened,
)
from quantum_memory.formats.urls import is_url, local_path, whole_path
from quantum_memory.lifecycle.backups.cuts import pieces
from quantum_memory.lifecycle.checkpoints import manifest as checkpoints
from quantum_memory.lifecycle.repository.chunks import name_of

if TYPE_CHECKING:
    from quantum_memory.encryption.keys import OneKey
    from quantum_memory.encryption.sealing import Sealer

    AnyPath = str | os.PathLike[str]

BAD = (IntegrityError, UnsafeError, UnsupportedVersionError)
"""Errors of what can be read, and cannot be understood."""

_CONTENT_ID = re.compile(r"[0-9a-f]{64}")


class Held(NamedTuple):
    """Which memories a file holds: their content, and whether it is more than one of them."""

    contents: frozenset[str]
    several: bool


class Wanted:
    """What is looked for.

    Attributes
    ----------
    path, content_id
        Of it; None where they are not known.
    unknown
        Why its content is not known.
    """

    def __init__(self, path: str | None, content_id: str | None, key: OneKey | None, unknown: str = "") -> None:
        self.path, self.content_id, self.key, self.unknown = path, content_id, key, unknown
        self._cut: dict[Sealer | None, bytes] = {}

    @classmethod
    def of(cls, what: AnyPath, key: OneKey | None) -> Wanted:
        """Return what somebody means by a path or a `content_id`."""
        said = os.fspath(what)
        if _CONTENT_ID.fullmatch(said) and not Path(said).exists():
            return cls(None, said, key)
        if is_url(said) or named_in(local_path(said)) is not None:
            with closing(open_reader(said, OpenOptions())) as reader:
                content = of_reader(reader)["content_id"]
            where = f"{said}: a version there" if is_url(said) else said
            return cls(None, content, key, f"{where}, which was only read")
        path = whole_path(said)
        try:
            held = held_by(path, key)
        except BAD as error:
            return cls(path, None, key, f"copies of it in other formats, and checkpoints: {error}")
        if held is not None and held.several:
            raise InvalidStateError(
                "it is a store of several states, or with time series",
                path=path,
                next_step="give the content_id of one, which qmem info lists; or delete the backups of the store",
            )
        if held is None:
            return cls(path, None, key, f"checkpoints: {path} is no saved state, and has no content_id")
        return cls(path, next(iter(held.contents)), key)

    def chunks(self, sealer: Sealer | None) -> bytes:
        """Return the names of the chunks that the file has in a backup; nothing where there is no file."""
        if sealer not in self._cut:
            names = []
            if self.path is not None:
                with ReadableFile(self.path) as source:
                    names = [name_of(source.read(*piece), sealer) for piece in pieces(source)]
            self._cut[sealer] = b"".join(names)
        return self._cut[sealer]


def held_by(path: str, key: OneKey | None) -> Held | None:
    """Return which memories a file holds; None where it is no saved state.

    Raises
    ------
    IntegrityError, UnsafeError, UnsupportedVersionError, WrongKeyError, StorageError
    """
    with ReadableFile(path) as source:
        head = source.read(0, min(HEAD_BYTES, source.size))
        if head.startswith(checkpoints.KIND.signature):
            return Held(frozenset({checkpoints.read_checkpoint(source).content_id}), several=True)
    if not may_be_one(head, path):
        return None
    # Pickles are read with a list of what they may name, and run no code.
    options = OpenOptions(allow_pickle=True, key=key if is_sealed(path) else None)
    file, handler = opened(path, options)
    with closing(file):
        listed = handler.contents(file)
    if listed is not None:
        return Held(frozenset(one["content_id"] for one in listed["states"]), several=True)
    with closing(open_reader(path, options)) as reader:
        return Held(frozenset({of_reader(reader)["content_id"]}), several=False)


def may_be_one(head: bytes, path: str) -> bool:
    """Tell whether a file may be a saved state, by its first bytes or its name."""
    return format_of_head(head) is not None or path.lower().endswith(SUFFIXES)
