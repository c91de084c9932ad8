"""Arrays that are mostly zero: where the others are, and what they are.

Numbers count as bit patterns: -0.0 is not zero here, and comes back. Where the others are is a row of gaps or a mask of
one bit for each number, whichever is smaller: gaps where they are scattered, the mask where they follow a pattern.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from bisect import bisect_left
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from quantum_memory.compression.cores import on_all_cores
from quantum_memory.compression.forms.base import Effort, Packed, malformed, part_of
from quantum_memory.compression.forms.dictionary import BYTES_BLOCK, Bytes, ByteWriter, Same
from quantum_memory.compression.forms.plain import (
    LEVELS,
    PIECE,
    bits_of,
    real_type,
    reals_in,
    reals_of,
    sample,
    whole_number,
)
from quantum_memory.compression.forms.views import Recent, View
from quantum_memory.compression.numbers import BLOCK, Numbers, NumberWriter

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    from quantum_memory.compression.forms.base import Json, Part
    from quantum_memory.state.arrays import AnyArray

_MOST_NON_ZERO = 0.6
_HOPELESS_IN_SAMPLE = 0.8
_GAPS_UP_TO = 1 / 8
_LONGEST_WITH_GAPS = 1 << 32


_QUICKLY, _MOST_RATIO = 1 << 30, 64
"""So many bytes of places are unpacked in a second or two; more of them are to be worth it."""


@dataclass(frozen=True)
class Sparse:
    """The numbers that are not zero, and their places.

    Facts: how many are ``nonzero`` (0: there are no parts) and their ``places``, ``gaps`` or ``mask``. Parts: the row
    ``values`` of numbers; the row ``gaps`` of u32, how many zeros are before each; the row ``mask`` of bytes, the first
    number in the lowest bit.
    """

    name: ClassVar[str] = "sparse"

    def pack(self, array: AnyArray, effort: Effort) -> Packed | None:
        bits, reals = bits_of(array), reals_of(array)
        some = sample(bits)
        if np.count_nonzero(some) > _HOPELESS_IN_SAMPLE * len(some):
            return None
        count = _non_zero(bits)
        if count is None:
            return None
        if not count:
            return Packed(self.name, {"nonzero": 0})
        scattered = count <= _GAPS_UP_TO * len(bits) and len(bits) <= _LONGEST_WITH_GAPS
        level = LEVELS[effort]
        mask = ByteWriter(effort)
        with NumberWriter(reals.dtype, level) as values, NumberWriter("<u4", level) as gaps:
            last = -1
            for start in range(0, len(bits), PIECE):
                here = bits[start : start + PIECE] != 0
                mask.append(np.packbits(here, bitorder="little"))
                values.append(reals[start : start + PIECE][here])
                if scattered:
                    places = start + np.flatnonzero(here.view(np.bool_))
                    gaps.append((np.diff(places, prepend=last) - 1).astype("<u4"))
                    last = int(places[-1]) if len(places) else last
            rows = {"mask": mask.parts("mask")} | ({"gaps": gaps.parts("gaps")} if scattered else {})
            places_in = min(rows, key=lambda row: sum(part.nbytes for part in rows[row].values()))
            facts = {"nonzero": count, "places": places_in}
            return Packed(self.name, facts, {**rows[places_in], **values.parts("values")})

    def view(
        self, facts: Mapping[str, Json], parts: Mapping[str, Part], dtype: np.dtype[Any], shape: tuple[int, ...]
    ) -> View:
        size = math.prod(shape)
        count = whole_number(facts, "nonzero", size * reals_in(dtype))
        if not count:
            return Same(dtype, size, np.zeros(1, f"<u{real_type(dtype).itemsize}"))
        places = facts.get("places")
        if places == "gaps":
            _check_work(parts, "gaps", 4 * count)
            return _ByGaps(parts, dtype, size, count)
        if places == "mask":
            _check_work(parts, "mask", size * reals_in(dtype) // 8)
            return _ByMask(parts, dtype, size, count)
        raise malformed("there are no such places of numbers")


def _check_work(parts: Mapping[str, Part], name: str, nbytes: int) -> None:
    """Refuse places that take long to go through, which is done once, while hardly anything is stored of them."""
    if nbytes > max(_QUICKLY, _MOST_RATIO * part_of(parts, name, np.uint8).shape[0]):
        raise malformed(f"its places take {nbytes} bytes, out of all proportion to what is stored of them")


def _non_zero(bits: NDArray[Any]) -> int | None:
    """Return how many bit patterns are not zero, or None as soon as they are too many."""
    count = 0
    for start in range(0, len(bits), PIECE):
        count += int(np.count_nonzero(bits[start : start + PIECE]))
        if count > _MOST_NON_ZERO * len(bits):
            return None
    return count


class _Scattered(View):
    """Zeros, and the row `values` of other numbers."""

    def __init__(self, parts: Mapping[str, Part], dtype: np.dtype[Any], size: int, count: int) -> None:
        self._each = reals_in(dtype)
        super().__init__(dtype, size, range(0, size, PIECE // self._each))
        self._numbers = size * self._each
        self._values = Numbers(parts, "values", real_type(dtype), count)

    def window(self, index: int, out: AnyArray) -> None:
        bits = bits_of(out)
        bits[:] = 0
        for first, where in self._places(self.starts[index] * self._each, len(bits)):
            values: AnyArray = np.empty(len(where), self._values.dtype)
            self._values.read(first, values)
            bits[where] = bits_of(values)

    @abstractmethod
    def _places(self, start: int, count: int) -> Iterator[tuple[int, NDArray[np.int64]]]:
        """Yield which value is the first of some that lie together in a window, and where in it they are."""


class _ByGaps(_Scattered):
    """A window is searched for among the places at which blocks of gaps begin and end."""

    def __init__(self, parts: Mapping[str, Part], dtype: np.dtype[Any], size: int, count: int) -> None:
        super().__init__(parts, dtype, size, count)
        self._gaps = Numbers(parts, "gaps", "<u4", count)
        self._steps = Recent(self._summed)
        self._first: list[int] = []
        self._last: list[int] = []
        last = -1
        for first, length in on_all_cores(self._reach, range(len(self._gaps.starts))):
            self._first.append(last + first)
            last += length
            self._last.append(last)
            if last >= self._numbers:
                raise malformed("a number is beyond the end of the array")

    def _summed(self, block: int) -> NDArray[np.int64]:
        """Return how far each place of a block of gaps is from the last one of the block before."""
        gaps: AnyArray = np.empty(min(BLOCK, self._gaps.size - self._gaps.starts[block]), self._gaps.dtype)
        self._gaps.window(block, gaps)
        steps = gaps.astype(np.int64)
        steps += 1
        return np.cumsum(steps, out=steps)

    def _reach(self, block: int) -> tuple[int, int]:
        steps = self._steps[block]
        return int(steps[0]), int(steps[-1])

    def _places(self, start: int, count: int) -> Iterator[tuple[int, NDArray[np.int64]]]:
        for block in range(bisect_left(self._last, start), bisect_left(self._first, start + count)):
            steps = self._steps[block]
            offset = self._last[block] - int(steps[-1]) - start
            low, high = np.searchsorted(steps, (-offset, count - offset)).tolist()
            yield block * BLOCK + low, steps[low:high] + offset


class _ByMask(_Scattered):
    """How many numbers are marked before each block of a mask is counted once; within a block, when it is unpacked."""

    def __init__(self, parts: Mapping[str, Part], dtype: np.dtype[Any], size: int, count: int) -> None:
        super().__init__(parts, dtype, size, count)
        self._mask = Bytes(parts, "mask", -(-self._numbers // 8))
        self._blocks = Recent(self._counted)
        self._before = [0]
        for marked in on_all_cores(self._marked, range(len(self._mask.starts))):
            self._before.append(self._before[-1] + marked)
        if self._before[-1] != count:
            raise malformed("a mask marks more or fewer numbers than there are")

    def _counted(self, block: int) -> tuple[NDArray[np.uint8], list[int]]:
        """Return a block of the mask in rows, one for each window, and how many numbers are marked before each row."""
        count = min(8 * BYTES_BLOCK, self._numbers - 8 * self._mask.starts[block])
        length, row = -(-count // 8), PIECE // 8
        mask = np.zeros((-(-length // row), row), np.uint8)
        self._mask.window(block, mask.reshape(-1)[:length])
        if int(mask.reshape(-1)[length - 1]) >> ((count - 1) % 8 + 1):
            raise malformed("a mask marks a number beyond the end of the array")
        marked = np.bitwise_count(mask.view("<u8")).sum(axis=1, dtype=np.int64)
        return mask, [0, *np.cumsum(marked).tolist()]

    def _marked(self, block: int) -> int:
        return self._blocks[block][1][-1]

    def _places(self, start: int, count: int) -> Iterator[tuple[int, NDArray[np.int64]]]:
        block, row = divmod(start // PIECE, 8 * BYTES_BLOCK // PIECE)
        mask, before = self._blocks[block]
        here = np.unpackbits(mask[row], count=count, bitorder="little")
        yield self._before[block] + before[row], np.flatnonzero(here.view(np.bool_))
