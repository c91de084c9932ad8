"""Chunks of HDF5 datasets, decoded here: the library would make room for whatever a filter's stream says."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np

from quantum_memory.compression.codecs import Zstd
from quantum_memory.errors import RESTORE, IntegrityError, UnsafeError

DEFLATE, SHUFFLE, SZIP, LZF, BITSHUFFLE, ZSTD = 1, 2, 4, 32000, 32008, 32015
"""Filters, by their numbers in HDF5."""

_SMALL = 1 << 20
_MOST_RATIO = 1100
"""A little more than zlib can make of anything; LZF and bitshuffle make less."""
_STRONGER = {SZIP: 1 << 16, ZSTD: 1 << 16}
"""Filters that can make more."""


def most_ratio(filters: list[int]) -> int:
    """Return how many times longer than what is stored a dataset with these filters can be."""
    return max((_STRONGER.get(number, _MOST_RATIO) for number in filters), default=1)


def read_chunk(dataset: Any, start: tuple[int, ...], filters: list[int], length: int) -> bytes | bytearray:
    """Return the raw bytes of a chunk.

    Parameters
    ----------
    dataset
        A ``h5py.Dataset`` that has been checked.
    start
        Index of the first item of the chunk.
    filters
        Numbers of the dataset's filters, in the order in which they were applied.
    length
        How many bytes there must be.

    Raises
    ------
    IntegrityError
        The chunk is not there, or is not what the filters would have written.
    """
    info = dataset.id.get_chunk_info_by_coord(start)
    if info.byte_offset is None or info.size > max(_SMALL, 2 * length):
        raise IntegrityError(f"its dataset {dataset.name!s:.80} lacks its chunk at {start}", next_step=RESTORE)
    mask, raw = dataset.id.read_direct_chunk(start)
    return unfiltered(raw, mask, filters, length, dataset.dtype.itemsize)


def unfiltered(stored: bytes, mask: int, filters: list[int], length: int, itemsize: int) -> bytes | bytearray:
    """Return the raw bytes of a stored chunk; see `read_chunk`.

    Parameters
    ----------
    mask
        Has a bit for each filter that was left out.
    """
    raw: bytes | bytearray = stored
    for index, number in reversed(list(enumerate(filters))):
        if not mask >> index & 1:
            raw = _unfiltered(raw, number, length, itemsize)
    if len(raw) != length:
        raise IntegrityError("it has a chunk of another length than it should", next_step=RESTORE)
    return raw


def _unfiltered(stored: bytes | bytearray, number: int, length: int, itemsize: int) -> bytes | bytearray:
    if number == LZF:
        return _from_lzf(stored, length)
    if number == ZSTD:
        return bytes(Zstd().decode(stored, length))
    if number == SHUFFLE:
        if len(stored) != length:
            raise IntegrityError("it has a chunk of another length than it should", next_step=RESTORE)
        return np.frombuffer(stored, np.uint8).reshape(itemsize, -1).T.tobytes()
    if number != DEFLATE:
        raise UnsafeError(f"it has a chunk of filter {number}, which is not decoded here", next_step=RESTORE)
    decoder = zlib.decompressobj()
    try:
        raw = decoder.decompress(stored, length + 1)
    except zlib.error as error:
        raise IntegrityError("it has a chunk that is no zlib stream", next_step=RESTORE) from error
    if not decoder.eof:
        raise IntegrityError("it has a chunk that is longer than it says, or cut short", next_step=RESTORE)
    return raw


def _from_lzf(stored: bytes | bytearray, length: int) -> bytearray:
    """Decode LZF, of runs of literal bytes and copies of what came before, up to `length` bytes."""
    made = bytearray()
    position = 0
    while position < len(stored):
        control = stored[position]
        position += 1
        if control < 32:
            made += stored[position : position + control + 1]
            position += control + 1
        else:
            count = control >> 5
            if count == 7:
                count += stored[position]
                position += 1
            distance = ((control & 31) << 8) + stored[position] + 1
            position += 1
            if distance > len(made):
                raise IntegrityError("it has a chunk that copies from before its beginning", next_step=RESTORE)
            pattern = made[len(made) - distance :]
            made += (pattern * (-(-(count + 2) // distance)))[: count + 2]
        if len(made) > length:
            raise IntegrityError("it has a chunk that is longer than it says", next_step=RESTORE)
    if position > len(stored):
        raise IntegrityError("it has a chunk that is cut short", next_step=RESTORE)
    return made
