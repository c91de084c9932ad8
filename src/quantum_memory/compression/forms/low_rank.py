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
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeVar

import numpy as np

from quantum_memory.compression.cores import on_all_cores
from quantum_memory.compression.forms.base import Packed, Stream, malformed, part_of
from quantum_memory.compression.forms.low_rank_plan import WORTH, Solver, find_plan
from quantum_memory.compression.forms.prediction import (
    CONTEXT_COUNT,
    CONTEXTS,
    MAX_DROPPED,
    Field,
    Prediction,
    Room,
    pack_residuals,
    row_blocks,
    trim,
    unpack_residuals,
    widen,
)
from quantum_memory.compression.numbers import BLOCK, Numbers, pack_numbers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from numpy.typing import NDArray

    from quantum_memory.compression.forms.base import Effort, Json, Part
    from quantum_memory.compression.forms.low_rank_plan import Plan
    from quantum_memory.state.arrays import AnyArray

Result = TypeVar("Result")

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

    def unpack(self, facts: Mapping[str, Json], parts: Mapping[str, Part], out: AnyArray) -> None:
        field, rank, dropped, how = _checked(facts, out)
        pivots = part_of(parts, "pivots", np.uint32, rank)[:].astype(np.int64)
        if pivots.max() >= field.rows or len(np.unique(pivots)) != rank:
            raise malformed("rows are not in the matrix, or are named twice")
        others = _others(field, pivots)
        blocks = row_blocks(len(others), field.width)
        groups = 1 if how == "none" else CONTEXT_COUNT
        lengths: NDArray[Any] = part_of(parts, "residuals.lengths", np.uint32, groups * len(blocks))[:]
        lengths = lengths.reshape(-1, groups)
        sizes = lengths.sum(1, dtype=np.int64)
        ends = np.cumsum(sizes)
        stream = part_of(parts, "residuals", np.uint8, int(ends[-1]))
        if sizes.max() > BLOCK * field.numbers.itemsize:
            raise malformed("a block of residuals is longer than the numbers are")
        stored: NDArray[Any] = Numbers(parts, "rows", field.numbers.dtype, rank * field.width)[:].reshape(rank, -1)
        trimmed: NDArray[Any] = Numbers(parts, "coefficients", np.int64, rank * field.planes * len(others))[:]
        coefficients = widen(trimmed.reshape(rank, field.planes, -1), dropped)
        if not (np.isfinite(coefficients).all() and np.isfinite(stored).all()):
            raise malformed("rows or coefficients are not finite")
        prediction = Prediction(coefficients, stored)

        def fill(index: int, room: Room) -> None:
            rows = blocks[index]
            numbers = prediction.bits(rows.start, rows.stop, room)
            if numbers is None:
                raise malformed("what is predicted is not finite")
            packed = stream[int(ends[index] - sizes[index]) : int(ends[index])]
            unpack_residuals(packed, lengths[index], numbers, how, room)
            field.numbers[others[rows]] = numbers.view(stored.dtype).reshape(-1, field.width)

        for _ in _on_all_cores(fill, range(len(blocks)), field):
            pass
        field.numbers[pivots] = stored
        if out.dtype.kind == "c" and field.planes == 1:
            out.imag[...] = 0


def _pack_planned(field: Field, plan: Plan) -> dict[str, AnyArray] | None:
    """Return the parts, or None where what the plan leads to is not finite."""
    others = _others(field, plan.pivots)
    blocks = row_blocks(len(others), field.width)
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

    def pack(index: int, room: Room) -> list[bytes] | None:
        rows = blocks[index]
        predicted = prediction.bits(rows.start, rows.stop, room)
        if predicted is None:
            return None
        actual = room.actual[: predicted.size]
        actual.reshape(-1, field.width)[...] = field.numbers[others[rows]]
        return pack_residuals(actual.view(predicted.dtype), predicted, plan.how, room)

    stream = Stream()
    lengths: list[int] = []
    for groups in _on_all_cores(pack, range(len(blocks)), field):
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


def _checked(facts: Mapping[str, Json], out: AnyArray) -> tuple[Field, int, int, str]:
    """Return the matrix that `out` is, and the rank, the bits that are missing and the contexts that facts state."""
    shape, real, rank, dropped, how = (facts.get(key) for key in ("shape", "real", "rank", "dropped", "contexts"))
    if not (type(shape) is list and len(shape) == 2 and all(type(count) is int and count > 0 for count in shape)):
        raise malformed("no shape of a matrix is stated")
    rows, columns = shape
    fits = rows * columns == out.size and 2 * columns <= BLOCK and (out.ndim == 1 or out.shape == (rows, columns))
    if not fits or type(real) is not bool or (out.dtype.kind == "f" and not real):
        raise malformed("the shape that is stated is not that of the array")
    field = Field.of(out, rows, real=real)
    if type(rank) is not int or not 1 <= rank <= rank_limit(rows, columns, field.planes):
        raise malformed("there can be no such rank")
    if type(dropped) is not int or not 0 <= dropped <= MAX_DROPPED:
        raise malformed("so many bits of a coefficient cannot be missing")
    if type(how) is not str or how not in CONTEXTS[: field.planes + 1]:
        raise malformed("residuals have no such contexts")
    return field, rank, dropped, how


def _is_real(array: AnyArray) -> bool:
    """Tell whether every imaginary part is +0.0."""
    imaginary = array.reshape(-1).view(f"i{array.itemsize // 2}")[1::2]
    return not any(imaginary[start : start + BLOCK].any() for start in range(0, len(imaginary), BLOCK))


def _others(field: Field, pivots: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.delete(np.arange(field.rows), pivots)


def _on_all_cores(do: Callable[[int, Room], Result], indices: range, field: Field) -> Iterator[Result]:
    """Yield what `do` gives for each block in order, a few being done ahead."""
    here = threading.local()

    def enter() -> None:
        here.room = Room(min(BLOCK, field.numbers.size), field.numbers.dtype)

    return on_all_cores(lambda index: do(index, here.room), indices, enter)
