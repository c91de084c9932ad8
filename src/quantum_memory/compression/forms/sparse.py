"""Arrays that are mostly zero: where the others are, and what they are.

Numbers count as bit patterns: -0.0 is not zero here, and comes back. Where the others are is a row of gaps or a mask of
one bit for each number, whichever is smaller: gaps where they are scattered, the mask where they follow a pattern.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from quantum_memory.compression.forms.base import Effort, Packed, malformed
from quantum_memory.compression.forms.dictionary import ByteWriter, read_bytes
from quantum_memory.compression.forms.plain import LEVELS, PIECE, InOrder, bits_of, reals_of, sample, whole_number
from quantum_memory.compression.numbers import Numbers, NumberWriter

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from quantum_memory.compression.forms.base import Json, Part
    from quantum_memory.state.arrays import AnyArray

_MOST_NON_ZERO = 0.6
_HOPELESS_IN_SAMPLE = 0.8
_GAPS_UP_TO = 1 / 8
_LONGEST_WITH_GAPS = 1 << 32


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
                    places = start + np.flatnonzero(here)
                    gaps.append((np.diff(places, prepend=last) - 1).astype("<u4"))
                    last = int(places[-1]) if len(places) else last
            rows = {"mask": mask.parts("mask")} | ({"gaps": gaps.parts("gaps")} if scattered else {})
            places_in = min(rows, key=lambda row: sum(part.nbytes for part in rows[row].values()))
            facts = {"nonzero": count, "places": places_in}
            return Packed(self.name, facts, {**rows[places_in], **values.parts("values")})

    def unpack(self, facts: Mapping[str, Json], parts: Mapping[str, Part], out: AnyArray) -> None:
        bits = bits_of(out)
        count = whole_number(facts, "nonzero", len(bits))
        bits[:] = 0
        if not count:
            return
        values = Numbers(parts, "values", reals_of(out).dtype, count)
        places = facts.get("places")
        if places == "gaps":
            _fill_by_gaps(Numbers(parts, "gaps", "<u4", count), values, bits)
        elif places == "mask":
            _fill_by_mask(parts, values, bits)
        else:
            raise malformed("there are no such places of numbers")


def _non_zero(bits: NDArray[Any]) -> int | None:
    """Return how many bit patterns are not zero, or None as soon as they are too many."""
    count = 0
    for start in range(0, len(bits), PIECE):
        count += int(np.count_nonzero(bits[start : start + PIECE]))
        if count > _MOST_NON_ZERO * len(bits):
            return None
    return count


def _fill_by_gaps(gaps: Numbers, values: Numbers, bits: NDArray[Any]) -> None:
    last = -1
    for (_, some), (_, numbers) in zip(gaps.blocks(), values.blocks(), strict=True):
        places = last + np.cumsum(some.astype(np.int64) + 1)
        last = int(places[-1])
        if last >= len(bits):
            raise malformed("a number is beyond the end of the array")
        bits[places] = numbers.view(bits.dtype)


def _fill_by_mask(parts: Mapping[str, Part], values: Numbers, bits: NDArray[Any]) -> None:
    numbers = InOrder(values)
    start, left = 0, values.count
    for block in read_bytes(parts, "mask", -(-len(bits) // 8)):
        for low in range(0, len(block), PIECE // 8):
            piece = bits[start : start + PIECE]
            here = np.unpackbits(block[low : low + PIECE // 8], count=len(piece), bitorder="little").view(np.bool_)
            found = int(np.count_nonzero(here))
            start, left = start + len(piece), left - found
            if left < 0:
                raise malformed("a mask marks more numbers than there are")
            piece[here] = numbers.take(found).view(bits.dtype)
    if left:
        raise malformed("a mask marks fewer numbers than there are")
