"""States of low Schmidt rank without loss: a matrix is predicted from a few of its rows, and what is missing is kept.

Across a cut into two halves, the amplitudes of a weakly entangled state are a matrix of low rank with the round-off of
a simulator. Some rows are stored as they are; the others are stored as their coefficients in terms of those, and as the
difference to what follows from them in units of last place, which takes a few bits for each number. How the rows and
coefficients were found does not matter to who reads them: they are data, and only the recurrence of `prediction` has to
give the same bits everywhere.
"""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple

import numpy as np

from quantum_memory.compression.cores import on_all_cores
from quantum_memory.compression.forms.base import Packed, Stream, malformed, part_of
from quantum_memory.compression.forms.low_rank_plan import WORTH, Solver, find_plan
from quantum_memory.compression.forms.plain import real_type
from quantum_memory.compression.forms.prediction import (
    CONTEXT_COUNT,
    CONTEXTS,
    MAX_DROPPED,
    Field,
    Prediction,
    Room,
    block_rows,
    pack_residuals,
    row_blocks,
    trim,
    unpack_residuals,
    widen,
)
from quantum_memory.compression.forms.views import View
from quantum_memory.compression.numbers import BLOCK, Numbers, pack_numbers

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from quantum_memory.compression.forms.base import Effort, Json, Part
    from quantum_memory.compression.forms.low_rank_plan import Plan
    from quantum_memory.state.arrays import AnyArray

MAX_RANK: Final[dict[Effort, int]] = {"fast": 16, "balanced": 64, "max": 256}

FACTOR_BYTES: Final = 32 << 20
"""Rows and coefficients of at most so many bytes, as float64, are held in memory."""

SMALLEST: Final = 256
"""Shorter arrays are not worth it."""

NARROWEST: Final = 8
"""A matrix with fewer columns has no rank that is low."""


def rank_limit(rows: int, columns: int, planes: int) -> int:
    """Return the largest rank of a matrix in this form. It is part of the format."""
    in_memory = FACTOR_BYTES // (8 * planes * (rows + planes * columns))
    return min(max(MAX_RANK.values()), rows // 4, columns // 4, in_memory)


def matrix_shape(array: AnyArray) -> tuple[int, int] | None:
    """Return the shape of the matrix that an array is: its own, or as nearly square as its length allows."""
    if array.size < SMALLEST:
        return None
    if array.ndim == 2:
        rows, columns = array.shape
    else:
        columns = next(width for width in range(math.isqrt(array.size), 0, -1) if array.size % width == 0)
        rows = array.size // columns
    return (rows, columns) if columns >= NARROWEST and 2 * columns <= BLOCK else None


@dataclass(frozen=True)
class LowRank:
    """The form ``low_rank``."""

    name: ClassVar[str] = "low_rank"

    def pack(self, array: AnyArray, effort: Effort) -> Packed | None:
        shape = matrix_shape(array)
        if shape is None:
            return None
        real = array.dtype.kind == "f" or _is_real(array)
        field = Field.of(array, shape[0], real=real)
        limit = min(MAX_RANK[effort], rank_limit(field.rows, field.columns, field.planes))
        with np.errstate(all="ignore"):
            plan = find_plan(field, limit) if limit else None
            parts = None if plan is None else _pack_planned(field, plan)
        if plan is None or parts is None:
            return None
        facts = {"shape": list(shape), "real": real, "rank": len(plan.pivots), "dropped": plan.dropped}
        packed = Packed(self.name, {**facts, "contexts": plan.how}, parts)
        return packed if packed.nbytes < WORTH * field.numbers.size * field.numbers.itemsize else None

    def view(
        self, facts: Mapping[str, Json], parts: Mapping[str, Part], dtype: np.dtype[Any], shape: tuple[int, ...]
    ) -> View:
        return _Predicted(_checked(facts, dtype, shape), parts, dtype)


class _Stated(NamedTuple):
    """What the facts say."""

    rows: int
    columns: int
    real: bool
    rank: int
    dropped: int
    how: str


class _Predicted(View):
    """A matrix row after row. A window is a block of predicted rows, with the stored ones up to the next block."""

    def __init__(self, stated: _Stated, parts: Mapping[str, Part], dtype: np.dtype[Any]) -> None:
        self._real = stated.real and dtype.kind == "c"
        self._columns, self._how = stated.columns, stated.how
        planes = _planes(dtype, real=stated.real)
        width = planes * stated.columns
        count = stated.rows - stated.rank
        # The part with their lengths bounds how many blocks there are, before there is anything for each.
        groups = 1 if stated.how == "none" else CONTEXT_COUNT
        blocks = -(-count // block_rows(width))
        lengths: NDArray[Any] = part_of(parts, "residuals.lengths", np.uint32, groups * blocks)[:]
        self._lengths = lengths.reshape(-1, groups).astype(np.int64)
        sizes = self._lengths.sum(1)
        self._ends = np.cumsum(sizes)
        self._stream = part_of(parts, "residuals", np.uint8, int(self._ends[-1]))
        if sizes.max() > BLOCK * real_type(dtype).itemsize:
            raise malformed("a block of residuals is longer than the numbers are")
        pivots = part_of(parts, "pivots", np.uint32, stated.rank)[:].astype(np.int64)
        if pivots.max() >= stated.rows or len(np.unique(pivots)) != stated.rank:
            raise malformed("rows are not in the matrix, or are named twice")
        self._blocks = row_blocks(count, width)
        self._others = _others(stated.rows, pivots)
        starts = self._others[:: block_rows(width)] * stated.columns
        super().__init__(dtype, stated.rows * stated.columns, [0, *starts[1:].tolist()])
        stored = Numbers(parts, "rows", real_type(dtype), stated.rank * width).all().reshape(stated.rank, -1)
        trimmed: NDArray[Any] = Numbers(parts, "coefficients", np.int64, stated.rank * planes * count).all()
        coefficients = widen(trimmed.reshape(stated.rank, planes, -1), stated.dropped)
        if not (np.isfinite(coefficients).all() and np.isfinite(stored).all()):
            raise malformed("rows or coefficients are not finite")
        self._prediction = Prediction(coefficients, stored)
        order = np.argsort(pivots)
        self._pivots, self._stored = pivots[order], stored[order]
        self._rooms = _Rooms(min(BLOCK, stated.rows * width), stored.dtype)

    def window(self, index: int, out: AnyArray) -> None:
        block, room = self._blocks[index], self._rooms.room
        numbers = self._prediction.bits(block.start, block.stop, room)
        if numbers is None:
            raise malformed("what is predicted is not finite")
        end, lengths = int(self._ends[index]), self._lengths[index]
        unpack_residuals(self._stream[end - int(lengths.sum()) : end], lengths, numbers, self._how, room)
        if self._real:
            out.imag[...] = 0
        first = self.starts[index] // self._columns
        field = Field.of(out, len(out) // self._columns, real=self._real)
        field.numbers[self._others[block] - first] = numbers.view(self._stored.dtype).reshape(-1, field.width)
        here = slice(*np.searchsorted(self._pivots, (first, first + field.rows)).tolist())
        field.numbers[self._pivots[here] - first] = self._stored[here]


class _Rooms(threading.local):
    """A room for each thread."""

    def __init__(self, count: int, dtype: np.dtype[Any]) -> None:
        self.room = Room(count, dtype)


def _pack_planned(field: Field, plan: Plan) -> dict[str, AnyArray] | None:
    """Return the parts, or None where what the plan leads to is not finite."""
    others = _others(field.rows, plan.pivots)
    stored = field.numbers[plan.pivots]
    trimmed = _coefficients(field, plan, others)
    parts = {
        "pivots": plan.pivots.astype(np.uint32),
        **pack_numbers("rows", stored.reshape(-1)),
        **pack_numbers("coefficients", trimmed.reshape(-1)),
    }
    coefficients = widen(trimmed, plan.dropped)
    if not (np.isfinite(coefficients).all() and np.isfinite(stored).all()):
        return None
    prediction = Prediction(coefficients, stored)
    rooms = _Rooms(min(BLOCK, field.numbers.size), stored.dtype)

    def pack(rows: slice) -> list[bytes] | None:
        room = rooms.room
        predicted = prediction.bits(rows.start, rows.stop, room)
        if predicted is None:
            return None
        actual = room.actual[: predicted.size]
        actual.reshape(-1, field.width)[...] = field.numbers[others[rows]]
        return pack_residuals(actual.view(predicted.dtype), predicted, plan.how, room)

    stream = Stream()
    lengths: list[int] = []
    for groups in on_all_cores(pack, row_blocks(len(others), field.width)):
        if groups is None:
            return None
        for group in groups:
            stream.append(group)
            lengths.append(len(group))
    return parts | {"residuals": stream.array(), "residuals.lengths": np.array(lengths, np.uint32)}


def _coefficients(field: Field, plan: Plan, others: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return what is kept of the coefficients of all other rows, of shape (rank, planes, rows)."""
    rank = len(plan.pivots)
    solver = Solver(field, plan.pivots)
    kept = np.empty((rank, field.planes, len(others)), np.int64)
    for rows in row_blocks(len(others), field.width):
        kept[..., rows] = trim(solver.solve(solver.project(others[rows]), rank), plan.dropped)
    return kept


def _checked(facts: Mapping[str, Json], dtype: np.dtype[Any], size: tuple[int, ...]) -> _Stated:
    """Return what facts state, which is possible for an array of this dtype and shape."""
    shape, real, rank, dropped, how = (facts.get(key) for key in ("shape", "real", "rank", "dropped", "contexts"))
    if not (type(shape) is list and len(shape) == 2 and all(type(count) is int and count > 0 for count in shape)):
        raise malformed("no shape of a matrix is stated")
    rows, columns = shape
    fits = size in {(rows, columns), (rows * columns,)} and 2 * columns <= BLOCK
    if not fits or type(real) is not bool or (dtype.kind == "f" and not real):
        raise malformed("the shape that is stated is not that of the array")
    planes = _planes(dtype, real=real)
    if type(rank) is not int or not 1 <= rank <= rank_limit(rows, columns, planes):
        raise malformed("there can be no such rank")
    if type(dropped) is not int or not 0 <= dropped <= MAX_DROPPED:
        raise malformed("so many bits of a coefficient cannot be missing")
    if type(how) is not str or how not in CONTEXTS[: planes + 1]:
        raise malformed("residuals have no such contexts")
    return _Stated(rows, columns, real, rank, dropped, how)


def _planes(dtype: np.dtype[Any], *, real: bool) -> int:
    """Return how many numbers are stored of an item."""
    return 2 if dtype.kind == "c" and not real else 1


def _is_real(array: AnyArray) -> bool:
    """Tell whether every imaginary part is +0.0."""
    imaginary = array.reshape(-1).view(f"i{array.itemsize // 2}")[1::2]
    return not any(imaginary[start : start + BLOCK].any() for start in range(0, len(imaginary), BLOCK))


def _others(rows: int, pivots: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.delete(np.arange(rows), pivots)
