"""Tell whether every byte of a QMS file is what was written, and look at nothing else.

The trailer vouches for header and table, the table has a checksum of each chunk as it is stored, and the gaps are
zeros: nothing has to be decoded. Whoever is told no asks `QMSReader`, which says what is wrong, and where.
"""

from __future__ import annotations

import math
import struct
from typing import TYPE_CHECKING

import numpy as np

from quantum_memory.compression.cores import for_all_parts
from quantum_memory.durability.files import ReadableFile
from quantum_memory.durability.pack import checksum
from quantum_memory.errors import IntegrityError, QuantumMemoryError, UnsafeError, UnsupportedVersionError
from quantum_memory.formats import qms_layout as layout
from quantum_memory.state.arrays import CHUNK_BYTES, STORABLE, chunk_count
from quantum_memory.state.document import MAX_DIMENSIONS

if TYPE_CHECKING:
    from quantum_memory.durability.files import Readable
    from quantum_memory.formats.registry import Progress

_HEADER = layout.header()
_FACTS = _HEADER[len(layout.SIGNATURE) :][:16]
_TRAILER = struct.Struct("<16sQQ32s")
_COUNT = struct.Struct("<I")
_ENTRY = struct.Struct("<xBxBH")
_SHAPES = tuple(struct.Struct(f"<{dimensions}Q") for dimensions in range(MAX_DIMENSIONS + 1))
_RECORD = struct.Struct("<xIQ32x")
_ITEM_BYTES = {number: np.dtype(STORABLE[name]).itemsize for number, name in layout.TYPE_NAMES.items()}
_ZEROS = bytes(layout.ALIGNMENT)


def length_of_whole(path: str) -> int | None:
    """Return the length of a small file that is whole, in the least time that there is for it.

    None: it is damaged, long, encrypted, of another format, or not there. The usual way to open it tells.
    """
    try:
        with ReadableFile(path) as source:
            if source.size <= CHUNK_BYTES and _is_whole_in_memory(source.read(0, source.size)):
                return source.size
    except QuantumMemoryError:
        pass
    return None


def is_whole(source: Readable, progress: Progress | None = None) -> bool:
    """Tell whether every byte of a file is covered by a checksum that it matches, or is a zero that has to be there.

    A file of a later version is not known to be whole.

    Parameters
    ----------
    progress
        Called with the stored bytes of what is done.

    Raises
    ------
    IntegrityError
        A part of it cannot be read: it has become shorter, or is encrypted, and damaged.
    StorageError
    """
    if source.size > CHUNK_BYTES:
        return _is_whole_by_parts(source, progress)
    data = source.read(0, source.size)
    if progress is not None:
        progress(len(data))
    return _is_whole_in_memory(data)


def _is_whole_in_memory(data: bytes) -> bool:
    """Tell it of a small file, as nearly all are where there are many: nothing is made but a few numbers."""
    try:
        return _add_up(data)
    except (struct.error, LookupError):  # it says that it holds more than it does, or a type that there is not
        return False


def _add_up(data: bytes) -> bool:
    end = len(data) - layout.TRAILER_BYTES
    if end < layout.HEADER_BYTES or not data.startswith(_HEADER):
        return False
    facts, offset, length, root = _TRAILER.unpack_from(data, end)
    if facts != _FACTS or length != len(data) or not layout.HEADER_BYTES <= offset <= end:
        return False
    if layout.root_digest(_HEADER, data[offset:end], offset, length) != root:
        return False
    (count,) = _COUNT.unpack_from(data, offset)
    position, at = offset + _COUNT.size, layout.HEADER_BYTES
    view = memoryview(data)
    for _ in range(count):
        kind, dimensions, name_bytes = _ENTRY.unpack_from(data, position)
        position += _ENTRY.size
        shape = _SHAPES[dimensions].unpack_from(data, position)
        position += 8 * dimensions + name_bytes
        start = layout.aligned(at)
        if view[at:start] != _ZEROS[: start - at]:
            return False
        at = start
        for _ in range(chunk_count(math.prod(shape) * _ITEM_BYTES[kind])):  # each of which has a record, or it ends
            stored, check = _RECORD.unpack_from(data, position)
            position += _RECORD.size
            if checksum(view[at : at + stored]) != check:
                return False
            at += stored
    return bool(position == end and at == offset)


def _is_whole_by_parts(source: Readable, progress: Progress | None) -> bool:
    try:
        entries = layout.read_layout(source).entries
    except (IntegrityError, UnsafeError, UnsupportedVersionError):
        return False
    wrong: list[int] = []
    end = layout.HEADER_BYTES
    for entry in entries:
        offsets = entry.chunk_offsets()

        def check(index: int, entry: layout.Entry = entry, offsets: layout.Offsets = offsets) -> None:
            if wrong:
                return
            stored = np.empty(int(entry.chunks["stored"][index]), np.uint8).data
            source.read_into(stored, int(offsets[index]))
            if checksum(stored) != int(entry.chunks["check"][index]):
                wrong.append(index)
            elif progress is not None:
                progress(len(stored))

        if any(source.read(end, entry.offset - end)):
            return False
        for_all_parts(check, len(offsets))
        if wrong:
            return False
        end = entry.offset + entry.stored_bytes
    return True
