"""A matrix predicted from a few of its rows, and how far numbers are from what was predicted, in units of last place.

Both are part of the format, and give the same bits on every machine: each product and each sum is one NumPy operation
on float64, which is rounded on its own (IEEE 754), and everything after that works on integers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from quantum_memory.compression.numbers import BLOCK, pack_block, unpack_block

if TYPE_CHECKING:
    from quantum_memory.state.arrays import AnyArray

Floats = NDArray[np.float64]
Integers = NDArray[Any]

TILE: Final = 1 << 15
"""Numbers that are predicted at a time: what an update reads and writes then stays in the cache of a core."""

CONTEXTS: Final = ("none", "level", "partner")
"""What a residual is likely to be depends on the exponent of its prediction, because round-off has one size throughout
a matrix and units of last place have not. ``level`` goes by the exponent below the largest one of a block, ``partner``
by the one below that of the larger of the real and the imaginary part."""

CONTEXT_COUNT: Final = 24
"""So many exponents are told apart; what is below is one with the last."""

MAX_DROPPED: Final = 40
"""Bits of a coefficient that may be missing. It is part of the format."""


@dataclass(frozen=True)
class Field:
    """An array as a matrix of real numbers, a view.

    Attributes
    ----------
    numbers
        Of shape (rows, width): its numbers, of complex ones the real and imaginary parts in turn.
    planes
        2 when these are complex numbers, otherwise 1.
    """

    numbers: NDArray[Any]
    planes: int

    @classmethod
    def of(cls, array: AnyArray, rows: int, *, real: bool) -> Field:
        """View an array as so many rows; where it is `real`, of complex numbers only the real parts."""
        numbers: NDArray[Any] = array.view(np.empty(0, array.dtype).real.dtype).reshape(rows, -1)
        if array.dtype.kind == "f" or not real:
            return cls(numbers, 2 if array.dtype.kind == "c" else 1)
        return cls(numbers[:, ::2], 1)

    @property
    def rows(self) -> int:
        """The number of rows."""
        return int(self.numbers.shape[0])

    @property
    def width(self) -> int:
        """How many real numbers a row has."""
        return int(self.numbers.shape[1])

    @property
    def columns(self) -> int:
        """How many real or complex numbers a row has."""
        return self.width // self.planes

    def wide(self, rows: Any) -> NDArray[Any]:
        """Return some rows as complex128 or float64."""
        return self._widened(self.numbers[rows])

    def part(self, rows: Integers, columns: Integers) -> NDArray[Any]:
        """Return what is in some rows and columns as complex128 or float64."""
        lanes = (self.planes * columns[:, None] + np.arange(self.planes)).reshape(-1)
        return self._widened(self.numbers[np.ix_(rows, lanes)])

    def _widened(self, numbers: NDArray[Any]) -> NDArray[Any]:
        taken = np.ascontiguousarray(numbers, np.float64)
        return taken.view(np.complex128) if self.planes == 2 else taken


class Room:
    """Memory for a block of numbers, to be used again for the next: fresh pages take longer than what is done in them.

    Parameters
    ----------
    count
        How many numbers there are in the largest block.
    dtype
        float32 or float64: their type.
    """

    def __init__(self, count: int, dtype: np.dtype[Any]) -> None:
        integers = np.dtype(f"i{dtype.itemsize}")
        self.wide = np.empty(count)
        self.predicted = self.wide if dtype == np.float64 else np.empty(count, dtype)
        self.actual = np.empty(count, dtype)
        self.terms = np.empty(2 * TILE)
        self.residuals = np.empty(count, integers)
        self.spare = np.empty(count, integers)
        self.keys = np.empty(count, np.uint8)


class Prediction:
    """The product of coefficients and basis rows, by a fixed recurrence.

    P starts at +0.0; for j = 0, 1, ... in order, ``Pr = Pr + (Cr Rr - Ci Ri)`` and ``Pi = Pi + (Cr Ri + Ci Rr)``, each
    product, difference and sum rounded to float64. Without imaginary parts it is ``P = P + C R``.

    Parameters
    ----------
    coefficients
        Of shape (rank, planes, rows): real parts, and where there are two planes imaginary parts.
    basis
        Of shape (rank, width): rows of real numbers, or of real and imaginary parts in turn where there are two planes;
        float32 or float64.
    """

    def __init__(self, coefficients: Floats, basis: NDArray[Any]) -> None:
        self._coefficients = coefficients
        rank, width = basis.shape
        self._basis = np.empty((rank, coefficients.shape[1], width))
        self._basis[:, 0] = basis
        if self._basis.shape[1] == 2:
            # A row times i, so that one kernel serves both parts: a - b and a + (-b) have the same bits.
            np.negative(self._basis[:, 0, 1::2], out=self._basis[:, 1, 0::2])
            self._basis[:, 1, 1::2] = self._basis[:, 0, 0::2]

    def bits(self, start: int, stop: int, room: Room) -> Integers | None:
        """Return the bits of rows ``start:stop``, rounded to the type of `room`, or None where one is not finite.

        They are one axis, and in `room`.
        """
        count = (stop - start) * self._basis.shape[2]
        numbers = room.predicted[:count]
        with np.errstate(all="ignore"):
            self._fill(start, room.wide[:count].reshape(stop - start, -1), room.terms)
            if numbers.dtype != np.float64:
                numbers[...] = room.wide[:count]
        return numbers.view(room.spare.dtype) if np.isfinite(numbers).all() else None

    def _fill(self, start: int, out: Floats, terms: Floats) -> None:
        rank, planes, width = self._basis.shape
        columns = min(width, TILE)
        lines = TILE // columns
        for top in range(0, len(out), lines):
            for left in range(0, width, columns):
                tile = out[top : top + lines, left : left + columns]
                term = terms[: planes * tile.size].reshape(planes, *tile.shape)
                weights = self._coefficients[:, :, start + top : start + top + len(tile), None]
                across = self._basis[:, :, None, left : left + columns]
                tile.fill(0)
                for j in range(rank):
                    np.multiply(weights[j], across[j], out=term)
                    if planes == 2:
                        np.add(term[0], term[1], out=term[0])
                    np.add(tile, term[0], out=tile)


def block_rows(width: int) -> int:
    """Return how many rows of numbers make a block of at most `BLOCK` numbers."""
    return max(1, BLOCK // width)


def row_blocks(rows: int, width: int) -> list[slice]:
    """Cut rows of numbers into blocks."""
    step = block_rows(width)
    return [slice(start, min(start + step, rows)) for start in range(0, rows, step)]


def trim(coefficients: Floats, dropped: int) -> NDArray[np.int64]:
    """Return the bits of coefficients, rounded, without the last ones."""
    half = (1 << dropped) >> 1
    return (np.ascontiguousarray(coefficients).view(np.int64) + half) >> dropped


def widen(trimmed: NDArray[np.int64], dropped: int) -> Floats:
    """Return coefficients from what `trim` leaves of them, in the same memory."""
    return np.left_shift(trimmed, dropped, out=trimmed).view(np.float64)


def order(bits: Integers, spare: Integers) -> None:
    """Replace the bits of floats by integers in the same order: +0.0 gives 0, -0.0 gives -1, and so on.

    It is its own inverse. `spare` is overwritten.
    """
    np.right_shift(bits, 8 * bits.itemsize - 1, out=spare)
    magnitude = spare.view(f"u{bits.itemsize}")
    np.right_shift(magnitude, 1, out=magnitude)  # all ones but the sign where that is set, otherwise nothing
    np.bitwise_xor(bits, spare, out=bits)


def contexts(predicted: Integers, how: str, room: Room) -> NDArray[np.uint8]:
    """Return the context of each number, from 0 to `CONTEXT_COUNT` - 1, by the bits of their predictions."""
    mantissa, mask = (52, 0x7FF) if predicted.itemsize == 8 else (23, 0xFF)
    exponents, keys = room.spare[: predicted.size], room.keys[: predicted.size]
    np.right_shift(predicted, mantissa, out=exponents)
    np.bitwise_and(exponents, mask, out=exponents)
    if how == "level":
        np.subtract(exponents.max(initial=0), exponents, out=exponents)
    else:
        re, im, larger = exponents[::2], exponents[1::2], room.residuals[: predicted.size // 2]
        np.maximum(re, im, out=larger)
        np.subtract(larger, re, out=re)
        np.subtract(larger, im, out=im)
    np.minimum(exponents, CONTEXT_COUNT - 1, out=keys, casting="unsafe")
    return keys


def pack_residuals(actual: Integers, predicted: Integers, how: str, room: Room) -> list[bytes]:
    """Return what is between the bits of numbers and of their predictions: a block of integers for each context.

    Both are overwritten.
    """
    spare = room.spare[: predicted.size]
    keys = None if how == "none" else contexts(predicted, how, room)
    order(actual, spare)
    order(predicted, spare)
    np.subtract(actual, predicted, out=actual)
    if keys is None:
        return [pack_block(actual)]
    np.take(actual, np.argsort(keys, kind="stable"), out=spare, mode="clip")
    ends = np.cumsum(np.bincount(keys, minlength=CONTEXT_COUNT))
    return [pack_block(group) if len(group) else b"" for group in np.split(spare, ends[:-1])]


def unpack_residuals(packed: Integers, lengths: Integers, predicted: Integers, how: str, room: Room) -> None:
    """Replace the bits of predictions by those of the numbers.

    Parameters
    ----------
    packed, lengths
        What `pack_residuals` gave, in one piece, and how many bytes of it are for each context.

    Raises
    ------
    IntegrityError
        It is not the residuals of so many numbers.
    """
    residuals, spare = room.residuals[: predicted.size], room.spare[: predicted.size]
    keys = None if how == "none" else contexts(predicted, how, room)
    counts = [predicted.size] if keys is None else np.bincount(keys, minlength=CONTEXT_COUNT).tolist()
    grouped = residuals if keys is None else spare
    done = read = 0
    for count, length in zip(counts, lengths.tolist(), strict=True):
        unpack_block(packed[read : read + length], grouped[done : done + count])
        done, read = done + count, read + length
    if keys is not None:
        residuals[np.argsort(keys, kind="stable")] = grouped
    order(predicted, spare)
    np.add(predicted, residuals, out=predicted)
    order(predicted, spare)
