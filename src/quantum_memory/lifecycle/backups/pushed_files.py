"""Files of a pushed folder, read back from their parts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quantum_memory.durability import pack
from quantum_memory.durability.files import ReadableBytes
from quantum_memory.durability.pack import COPY_SUFFIX
from quantum_memory.errors import IntegrityError, QuantumMemoryError, UnsafeError
from quantum_memory.lifecycle.backups.pushed import MEND, PART_BYTES, Edition, Part, Pushed, read_part
from quantum_memory.lifecycle.repository.manifest_file import (
    DIGEST_BYTES,
    MAX_CHUNKS,
    MAX_HEAD_BYTES,
    PREFIX_BYTES,
)
from quantum_memory.state.json_text import MAX_DOCUMENT_BYTES

if TYPE_CHECKING:
    from quantum_memory.durability.files import Buffer
    from quantum_memory.lifecycle.backups.targets import Target

_MOST_SMALL = PREFIX_BYTES + MAX_HEAD_BYTES + 2 * MAX_DOCUMENT_BYTES + max(
    MAX_CHUNKS * DIGEST_BYTES, pack.MAX_CHUNKS * pack.RECORD_BYTES
)  # fmt: skip
"""Bytes of the longest manifest, and of the longest list of a pack, that there can be."""


class PartsSource:
    """A file at a target, read like a file; of its parts the last one is kept. See `durability.files.Readable`."""

    def __init__(self, target: Target, name: str, edition: Edition, parts: list[Part]) -> None:
        self._target, self._parts = target, parts
        self.name, self.size = target.where(name), edition.length
        self._last: tuple[int, Buffer] = (-1, b"")

    def read_into(self, buffer: memoryview, offset: int) -> None:
        buffer[:] = self.read(offset, len(buffer))

    def read(self, offset: int, length: int) -> bytes:
        made = bytearray()
        while len(made) < length:
            index, start = divmod(offset + len(made), PART_BYTES)
            if offset + len(made) >= self.size:
                raise IntegrityError(f"it ends at byte {self.size}", path=self.name, next_step=MEND)
            if self._last[0] != index:
                self._last = index, read_part(self._target, self._parts[index])
            made += memoryview(self._last[1])[start : start + length - len(made)]
        return bytes(made)

    def map(self, offset: int, length: int) -> memoryview:
        return memoryview(bytearray(self.read(offset, length)))

    def close(self) -> None:
        pass


def file_at(target: Target, found: Pushed, name: str) -> tuple[Edition, list[Part]]:
    """Return the newest edition of a file, and its parts.

    Raises
    ------
    IntegrityError
        Some of them are not there.
    """
    whole = found.whole(name)
    if whole is None:
        raise IntegrityError("parts of it are not there", path=target.where(name), next_step=MEND)
    return whole


def small_file(target: Target, found: Pushed, name: str) -> bytes:
    """Return the bytes of a manifest, or of the list of a pack.

    Raises
    ------
    IntegrityError, UnsafeError
    """
    edition, parts = file_at(target, found, name)
    if edition.length > _MOST_SMALL:
        raise UnsafeError(
            f"it has {edition.length} bytes, more than there can be",
            path=target.where(name),
            next_step="do not trust this copy: no release writes one like it",
        )
    return b"".join(read_part(target, part) for part in parts)


def chunks_in(target: Target, found: Pushed, name: str) -> set[bytes]:
    """Return the names of the chunks in a pack, by the copy of its list, or by the list at its end.

    Raises
    ------
    IntegrityError, UnsafeError, UnsupportedVersionError
        Neither can be read.
    """
    copy = f"chunks/{name.rpartition('.')[0]}{COPY_SUFFIX}"
    try:
        return set(pack.read_index_copy(ReadableBytes(small_file(target, found, copy), target.where(copy))))
    except QuantumMemoryError:
        whole = f"chunks/{name}"
        return set(pack.read_index(PartsSource(target, whole, *file_at(target, found, whole))))
