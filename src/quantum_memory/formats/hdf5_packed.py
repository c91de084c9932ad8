"""An array of an HDF5 store that is stored in packed chunks, read at any place in bounded memory.

The library would make room for whatever a filter's stream says, or follow lengths that it finds there. What the usual
filters wrote is decoded here, on all cores. Streams of the others are looked at before the library gets to see them.
"""

from __future__ import annotations

import math
import struct
import threading
from typing import TYPE_CHECKING, Any

import numpy as np

from quantum_memory.errors import IntegrityError
from quantum_memory.formats import hdf5_guard as guard
from quantum_memory.formats.hdf5_chunks import unfiltered
from quantum_memory.formats.hdf5_layout import hdf5_chunks

if TYPE_CHECKING:
    import h5py

    from quantum_memory.durability.files import Readable
    from quantum_memory.durability.transaction import TransactionFile

    Raw = bytes | bytearray | memoryview

_DECODED_HERE = frozenset({guard.DEFLATE, guard.SHUFFLE, guard.ZSTD})
_KEPT = 8
"""Chunks that are kept: those of the file and those of the digests need not begin at the same items."""

_SPARE = 4096
_LZ4 = 2


class PackedArray:
    """The bytes of such an array in C order.

    Every chunk holds a run of them, since it has whole last axes (`hdf5_chunks`); the last of each row is padded.

    Parameters
    ----------
    file
        The store.
    dataset
        The dataset, which has been checked to be what it should be.
    chunks
        The shape that its chunks must have, which holds runs, too; by default that which every release gives it.

    Attributes
    ----------
    parallel
        Whether it can be read on several cores.

    Raises
    ------
    IntegrityError
        Its chunks are others than any release writes.
    """

    def __init__(
        self, file: Readable | TransactionFile, dataset: h5py.Dataset, chunks: tuple[int, ...] | None = None
    ) -> None:
        self._file = file
        self._dataset = dataset
        self._name = f"its dataset {dataset.name!s:.80}"
        plan = dataset.id.get_create_plist()
        self._plans = [plan.get_filter(index) for index in range(plan.get_nfilters())]
        self._filters = [one[0] for one in self._plans]
        self.parallel = _DECODED_HERE.issuperset(self._filters)
        shape, self._shape, itemsize = dataset.shape, dataset.chunks, dataset.dtype.itemsize
        if self._shape != (chunks or hdf5_chunks(shape, itemsize)):
            raise IntegrityError(f"{self._name} has chunks of shape {self._shape}, as no release writes them")
        self._run: int = math.prod(self._shape) * itemsize
        axis = next((axis for axis, length in enumerate(self._shape) if length > 1), len(shape) - 1)
        self._row: int = math.prod(shape[axis:]) * itemsize
        strides = [math.prod(shape[axis + 1 :]) * itemsize for axis in range(len(shape))]
        self._chunks: dict[int, Any] = {}
        dataset.id.chunk_iter(lambda info: self._chunks.update({int(np.dot(info.chunk_offset, strides)): info}))
        self._lock = threading.Lock()
        self._kept: dict[int, Raw] = {}

    def read_into(self, raw: memoryview, start: int) -> None:
        """Fill `raw` with bytes of the array from `start` on.

        Raises
        ------
        IntegrityError
            A chunk is not there, or is not what its filters would have written.
        """
        position, end = start, start + len(raw)
        while position < end:
            row = position // self._row * self._row
            first = row + (position - row) // self._run * self._run
            stop = min(first + self._run, row + self._row, end)
            part = memoryview(self._chunk(first))[position - first : stop - first]
            if len(part) != stop - position:
                raise IntegrityError(f"{self._name} has a chunk of another length")
            raw[position - start : stop - start] = part
            position = stop

    def _chunk(self, first: int) -> Raw:
        with self._lock:
            kept = self._kept.get(first)
        if kept is None:
            kept = self._unpacked(first)
            with self._lock:
                self._kept[first] = kept
                while len(self._kept) > _KEPT:
                    del self._kept[next(iter(self._kept))]
        return kept

    def _unpacked(self, first: int) -> Raw:
        info = self._chunks.get(first)
        if info is None or info.byte_offset is None or info.size > 2 * self._run + _SPARE:
            raise IntegrityError(f"{self._name} lacks a chunk, or has one that is longer than any release writes")
        stored = self._file.read(info.byte_offset, info.size)
        itemsize = self._dataset.dtype.itemsize
        if self.parallel:
            return unfiltered(stored, info.filter_mask, self._filters, self._run, itemsize)
        for index, number in enumerate(self._filters):
            if not info.filter_mask >> index & 1:
                self._look_at(stored, number, self._plans[index][2])
        box = tuple(slice(low, low + step) for low, step in zip(info.chunk_offset, self._shape, strict=True))
        items: bytes = self._dataset[box].tobytes()
        return items

    def _look_at(self, stored: bytes, number: int, values: tuple[int, ...]) -> None:
        """Refuse a stream with lengths that the library must not follow. LZF makes 90 times its own length at most."""
        good = number in {guard.LZF, guard.SHUFFLE}
        if number == guard.SZIP:
            good = int.from_bytes(stored[:4], "little") == self._run
        elif number == guard.BITSHUFFLE:
            good = len(values) > 4 and values[4] == _LZ4 and self._are_blocks(stored)
        if not good:
            raise IntegrityError(f"{self._name} has a chunk that filter {number} did not write")

    def _are_blocks(self, stored: bytes) -> bool:
        """Tell whether a chunk is one of bitshuffle with LZ4: lengths, blocks with theirs, and what is left over."""
        if len(stored) < 12:
            return False
        total, block = struct.unpack_from(">QI", stored)
        group = 8 * int(self._dataset.dtype.itemsize)
        if total != self._run or not block or block % group:
            return False
        position, whole = 12, self._run // group * group
        for _ in range(-(-whole // block)):
            position += 4 + int.from_bytes(stored[position : position + 4].ljust(4, b"\xff"), "big")
            if position > len(stored):
                return False
        return len(stored) - position == self._run - whole
