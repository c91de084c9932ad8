"""A part of a form that nobody has in memory: whoever writes some of its bytes packs them then."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from xxhash import xxh3_64_intdigest

from quantum_memory.compression.forms.uniform_blocks import UNIT
from quantum_memory.errors import InvalidStateError
from quantum_memory.state.products import part_of, vectors_step
from quantum_memory.state.windows import carries

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from quantum_memory.compression.forms.uniform_blocks import Quantiser
    from quantum_memory.state.arrays import AnyArray, Windows

_RUN_BYTES = 8 << 20


def unit_of(source: Windows) -> int:
    """Return how many items are read at once: whole steps of the source where they are whole blocks."""
    step = vectors_step(source) if hasattr(source, "step") else _RUN_BYTES // source.dtype.itemsize
    return UNIT * max(1, -(-step // UNIT))


def runs(source: Windows, unit: int, start: int, stop: int) -> Iterator[AnyArray]:
    """Yield items ``start:stop``, so many at a time, contiguous and little-endian."""
    little = source.dtype.newbyteorder("<")
    for low in range(start, stop, unit):
        yield np.ascontiguousarray(source.items(low, min(low + unit, stop)), little)


class PackedRow:
    """A row of bytes made of blocks, each of which is packed from items when it is read; see `state.arrays.Windows`.

    Parameters
    ----------
    source
        The array that is packed.
    quantiser
        How.
    starts
        Where each block begins, and where the last one ends.
    checks
        The checksum (xxh3) that each of them had when it was certified.
    first
        Number of the first block.
    planes
        Whether the blocks are the low bits, and not the rest.

    Attributes
    ----------
    carries
        Whether it takes items along when it is pickled.
    """

    ndim = 1
    dtype = np.dtype(np.uint8)

    def __init__(
        self,
        source: Windows,
        quantiser: Quantiser,
        starts: NDArray[np.int64],
        checks: NDArray[np.uint64],
        first: int = 0,
        *,
        planes: bool,
    ) -> None:
        self._source = source
        self._quantiser = quantiser
        self._starts = starts
        self._checks = checks
        self._first = first
        self._planes = planes
        self._unit = unit_of(source)
        self.carries = carries(source)
        self.nbytes = int(starts[-1])
        self.shape = (self.nbytes,)

    @classmethod
    def of(
        cls,
        source: Windows,
        quantiser: Quantiser,
        lengths: AnyArray,
        checks: AnyArray,
        *,
        planes: bool,
    ) -> PackedRow:
        """Return it, from the length of each block."""
        starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)])
        return cls(source, quantiser, starts, checks.astype(np.uint64, copy=False), planes=planes)

    def part(self, start: int, stop: int) -> PackedRow:
        """Return the same with no more than what bytes ``start:stop`` are made from, to be pickled."""
        low, high = self._between(start, stop)
        begin, end = self._items(low, high)
        made = PackedRow(
            part_of(self._source, begin, end),
            self._quantiser,
            self._starts[low : high + 1],
            self._checks[low:high],
            self._first + low,
            planes=self._planes,
        )
        made.nbytes, made.shape = self.nbytes, self.shape
        return made

    def items(self, start: int, stop: int) -> AnyArray:
        """Return bytes ``start:stop``.

        Raises
        ------
        InvalidStateError
            They are not those that were certified.
        """
        out = np.empty(stop - start, np.uint8)
        low, high = self._between(start, stop)
        for index, block in zip(range(low, high), self._packed(low, high), strict=True):
            at = int(self._starts[index])
            first, last = max(start, at), min(stop, at + len(block))
            out[first - start : last - start] = np.frombuffer(block, np.uint8)[first - at : last - at]
        return out

    def release(self) -> None:
        """Close what the source has opened."""
        release = getattr(self._source, "release", None)
        if release is not None:
            release()

    def _between(self, start: int, stop: int) -> tuple[int, int]:
        """Return which of the blocks here have bytes ``start:stop``."""
        low = int(np.searchsorted(self._starts, start, "right")) - 1
        return low, max(low, int(np.searchsorted(self._starts, stop, "left")))

    def _items(self, low: int, high: int) -> tuple[int, int]:
        """Return which items blocks ``low:high`` are made from."""
        block = self._quantiser.block
        return (self._first + low) * block, min((self._first + high) * block, self._source.shape[0])

    def _packed(self, low: int, high: int) -> Iterator[bytes]:
        begin, end = self._items(low, high)
        size, block = self._source.shape[0], self._quantiser.block
        for at in range(begin // self._unit * self._unit, end, self._unit):
            # All of a unit, of which the source would read all anyway; but it may have no more than it carries.
            first, last = (max(at, begin), end) if self.carries else (at, size)
            for run in runs(self._source, self._unit, first, min(at + self._unit, last)):
                for start in range(max(at, begin), min(at + self._unit, end), block):
                    yield self._checked(run[start - first : start - first + block], start // block - self._first)

    def _checked(self, items: AnyArray, index: int) -> bytes:
        integers = self._quantiser.integers(items)
        packed = self._quantiser.planes(integers) if self._planes else self._quantiser.frame(integers)
        length = int(self._starts[index + 1] - self._starts[index])
        if len(packed) != length or xxh3_64_intdigest(packed) != int(self._checks[index]):
            raise InvalidStateError(
                "what is to be written is not what was certified: the state was changed while it was being packed, "
                "or those who packed it have other releases of zstd or pcodec",
                next_step="save a copy, or when nobody writes to it, and with one release everywhere",
            )
        return packed
