"""Density matrices, which are equal to their conjugate transpose up to round-off: half of one, and the round-off.

The upper triangle is packed in any other form. An item below the diagonal is predicted to be the conjugate of its
mirror image; the differences to that, as integers, are a row of small numbers, or nothing at all where the matrix is
exact. Real symmetric matrices are folded in the same way.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from quantum_memory.compression.cores import on_all_cores
from quantum_memory.compression.forms.base import Effort, Packed, malformed
from quantum_memory.compression.forms.plain import LEVELS, PIECE, bits_of, real_type
from quantum_memory.compression.forms.prediction import order
from quantum_memory.compression.forms.views import View, WholeView, scratch
from quantum_memory.compression.numbers import Numbers, NumberWriter

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    from quantum_memory.compression.forms.base import Json, Part
    from quantum_memory.state.arrays import AnyArray

NOT_WITHIN = frozenset({"hermitian_fold"})
"""A triangle is not a matrix."""

_TOLERANCE = 1e-4
_GRID = 64


@dataclass(frozen=True)
class HermitianFold:
    """The upper triangle with the diagonal, row by row, and what the lower triangle differs by.

    Facts: how the ``upper`` triangle is packed, a form and its facts, or null; whether the conjugate of a number whose
    imaginary part is a zero has the other zero (``flips_zeros``) or always +0.0; whether the lower triangle is as
    predicted (``exact``). Parts: those of the upper triangle, or the part ``upper``; unless it is exact, the rows
    ``lower.re`` and, of complex numbers, ``lower.im`` of signed integers: for each number below the diagonal, row by
    row, the order of its bit pattern among all numbers minus that of the prediction, modulo their size.
    """

    name: ClassVar[str] = "hermitian_fold"

    def pack(self, array: AnyArray, effort: Effort) -> Packed | None:
        from quantum_memory.compression.forms.registry import pack_within  # noqa: PLC0415 - it imports this module

        if not _is_square(array.shape) or not _looks_hermitian(array):
            return None
        flips_zeros = _zeros_flip(array)
        exact = True
        with ExitStack() as stack:
            lower = {
                name: stack.enter_context(NumberWriter(_signed(array.dtype), LEVELS[effort]))
                for name in _planes(array.dtype)
            }
            for rows, below in _strips(len(array)):
                predicted = _conjugates(array, rows, flips_zeros=flips_zeros)
                strip = _integers(np.ascontiguousarray(array[rows, : rows.stop]))
                differences = (_ordered(strip) - _ordered(predicted))[below]
                exact = exact and not differences.any()
                for plane, writer in enumerate(lower.values()):
                    writer.append(differences[:, plane])
            parts = {} if exact else {key: part for name in lower for key, part in lower[name].parts(name).items()}
        triangle = scratch(array.dtype, (_triangle(len(array)),))
        for row, start in _row_starts(len(array)):
            triangle[start : start + len(array) - row] = array[row, row:]
        how, upper = pack_within("upper", triangle, effort, NOT_WITHIN)
        return Packed(self.name, {"upper": how, "flips_zeros": flips_zeros, "exact": exact}, {**upper, **parts})

    def view(
        self, facts: Mapping[str, Json], parts: Mapping[str, Part], dtype: np.dtype[Any], shape: tuple[int, ...]
    ) -> View:
        from quantum_memory.compression.forms.registry import view_within  # noqa: PLC0415 - it imports this module

        flips_zeros, exact = facts.get("flips_zeros"), facts.get("exact")
        if not _is_square(shape) or type(flips_zeros) is not bool or type(exact) is not bool:
            raise malformed("a matrix is not folded like this")
        count = _triangle(shape[0] - 1)
        lower = [Numbers(parts, name, _signed(dtype), count) for name in (() if exact else _planes(dtype))]
        upper = view_within("upper", facts.get("upper"), parts, dtype, (_triangle(shape[0]),), exclude=NOT_WITHIN)
        return WholeView(dtype, shape, lambda out: _unfold(upper, lower, out, flips_zeros=flips_zeros))


def _unfold(upper: View, lower: list[Numbers], out: AnyArray, *, flips_zeros: bool) -> None:
    """Fill a matrix from its upper triangle and, unless that is all, what the lower one differs by."""
    items = out.reshape(-1)
    upper.fill(items[: upper.size])
    # The rows of the triangle move to their places, the last first: no row is overwritten before it has moved.
    for row, start in reversed(list(_row_starts(len(out)))):
        out[row, row:] = items[start : start + len(out) - row].copy()

    def mirror(strip: tuple[slice, NDArray[np.bool_]]) -> None:
        rows, below = strip
        predicted = _conjugates(out, rows, flips_zeros=flips_zeros)
        if lower:
            integers = _ordered(predicted)
            differences: NDArray[Any] = np.empty(np.count_nonzero(below), integers.dtype)
            for plane, numbers in enumerate(lower):
                numbers.read(_triangle(rows.start - 1), differences)
                integers[..., plane][below] += differences
            predicted = _ordered(integers)
        items = np.ascontiguousarray(predicted).view(out.dtype)[..., 0]
        out[rows, : rows.stop][below] = items[below]

    for _ in on_all_cores(mirror, _strips(len(out))):  # each reads what is above the diagonal only
        pass


def _is_square(shape: tuple[int, ...]) -> bool:
    return len(shape) == 2 and shape[0] == shape[1] >= 2


def _triangle(size: int) -> int:
    return size * (size + 1) // 2


def _row_starts(size: int) -> Iterator[tuple[int, int]]:
    """Yield each row of a matrix, with where its part of the packed upper triangle starts."""
    for row in range(size):
        yield row, row * size - row * (row - 1) // 2


def _strips(size: int) -> Iterator[tuple[slice, NDArray[np.bool_]]]:
    """Yield a few rows at a time, and which of their items, up to the last one's diagonal, are below the diagonal."""
    step = max(1, PIECE // (2 * size))
    for first in range(0, size, step):
        last = min(first + step, size)
        yield slice(first, last), np.tri(last - first, last, first - 1, dtype=np.bool_)


def _signed(dtype: np.dtype[Any]) -> np.dtype[Any]:
    return np.dtype(f"<i{real_type(dtype).itemsize}")


def _planes(dtype: np.dtype[Any]) -> tuple[str, ...]:
    return ("lower.re", "lower.im") if dtype.kind == "c" else ("lower.re",)


def _integers(strip: AnyArray) -> NDArray[Any]:
    """Return the bit patterns of a contiguous strip, with an axis for the real and the imaginary part."""
    return bits_of(strip).view(_signed(strip.dtype)).reshape(*strip.shape, -1)


def _ordered(integers: NDArray[Any]) -> NDArray[Any]:
    """Return integers in the order of the floats whose bits these are, or the other way round."""
    integers = integers.copy()
    order(integers, np.empty_like(integers))
    return integers


def _conjugates(matrix: AnyArray, rows: slice, *, flips_zeros: bool) -> NDArray[Any]:
    """Return what the items of `rows`, up to the last one's diagonal, would be from those above the diagonal."""
    mirrored = _integers(np.ascontiguousarray(matrix[: rows.stop, rows].T))
    if mirrored.shape[-1] == 2:
        limits = np.iinfo(mirrored.dtype)
        imaginary = mirrored[..., 1]
        zero = (imaginary & limits.max) == 0
        imaginary ^= limits.min
        if not flips_zeros:
            imaginary[zero] = 0
    return mirrored


def _corner(array: AnyArray) -> NDArray[Any]:
    """Return a sample of a matrix: the items where a few of its rows and the same columns cross."""
    places = np.unique(np.arange(_GRID) * (len(array) - 1) // (_GRID - 1))
    corner: NDArray[Any] = array[np.ix_(places, places)]
    return corner


def _looks_hermitian(array: AnyArray) -> bool:
    corner = _corner(array)
    with np.errstate(all="ignore"):
        return bool((np.abs(corner - corner.conj().T) <= _TOLERANCE * np.abs(corner).max()).all())


def _zeros_flip(array: AnyArray) -> bool:
    """Tell whether more imaginary zeros have the other sign in their mirror images than are +0.0 there."""
    if array.dtype.kind != "c":
        return False
    imaginary = _integers(np.ascontiguousarray(_corner(array)))[..., 1]
    above, below = np.triu(imaginary, 1), np.triu(imaginary.T, 1)
    limits = np.iinfo(imaginary.dtype)
    zero = np.triu((above & limits.max) == 0, 1)
    flipped = np.count_nonzero(zero & ((above ^ limits.min) == below))
    return bool(flipped > np.count_nonzero(zero & (below == 0)))
