"""Where a file is cut into chunks.

A file of a format of ours is cut where its own chunks begin, so that the arrays in it are found again when what stands
before them has another length, and a pack when it was written anew without some. An HDF5 file is cut every 64 KiB: it
is changed in place, a page here and there. Any other file is cut every MiB.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from quantum_memory.durability import pack
from quantum_memory.errors import QuantumMemoryError
from quantum_memory.formats import qms_layout
from quantum_memory.state.arrays import CHUNK_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from quantum_memory.durability.files import Readable

SMALL = 1 << 16
"""Pieces shorter than this are put together with others that follow."""

LONGEST = CHUNK_BYTES + 4096
"""Bytes of a piece: of a chunk of a file of ours, with what seals it and what follows it up to the next."""

HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"  # formats has it where h5py is imported
_SIGNATURE_BYTES = 8


def pieces(source: Readable) -> Iterator[tuple[int, int]]:
    """Give offset and length of each chunk of a file, none of them much longer than `CHUNK_BYTES`."""
    if source.size > SMALL and source.read(0, _SIGNATURE_BYTES) == HDF5_SIGNATURE:
        yield from _cut(0, source.size, SMALL)
        return
    begun = 0
    for start, stop in _natural(source):
        if stop - start < SMALL:
            if stop - begun >= SMALL:
                yield from _whole_or_cut(begun, stop)
                begun = stop
            continue
        yield from _whole_or_cut(begun, start)
        yield from _whole_or_cut(start, stop)
        begun = stop
    yield from _whole_or_cut(begun, source.size)


def _whole_or_cut(start: int, stop: int) -> Iterator[tuple[int, int]]:
    return _cut(start, stop, stop - start if stop - start <= LONGEST else CHUNK_BYTES)


def _cut(start: int, stop: int, length: int) -> Iterator[tuple[int, int]]:
    for offset in range(start, stop, length or 1):
        yield offset, min(length, stop - offset)


def _natural(source: Readable) -> Iterator[tuple[int, int]]:
    """Give start and stop of the chunks that a file itself has, each with what follows it up to the next one."""
    if source.size <= SMALL:
        return
    try:
        yield from pairwise(_starts(source))
    except QuantumMemoryError:
        return  # it is damaged or of a later release, and copied all the same


def _starts(source: Readable) -> Iterator[int]:
    signature = source.read(0, _SIGNATURE_BYTES)
    if signature == pack.SIGNATURE:
        places = pack.read_index(source).values()
        yield from (place.offset for place in places)
        yield from (pack.aligned(place.offset + place.stored) for place in list(places)[-1:])
    elif signature == qms_layout.SIGNATURE:
        for entry in qms_layout.read_layout(source).entries:
            yield from (entry.offset + np.cumsum([0, *entry.chunks["stored"]], dtype=np.int64)).tolist()
