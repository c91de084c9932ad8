"""Which rows of a matrix predict the others: how the encoder of the form ``low_rank`` finds them.

Nothing here is part of a format. What is found is stored, so sums may be taken in any order, by BLAS and LAPACK.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from quantum_memory.compression.forms.prediction import (
    CONTEXT_COUNT,
    CONTEXTS,
    MAX_DROPPED,
    Prediction,
    Room,
    contexts,
    order,
    row_blocks,
    trim,
    widen,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from quantum_memory.compression.forms.prediction import Field

    Matrix = NDArray[Any]

WORTH: Final = 0.8
"""The share of its bits that a number may take: pcodec alone needs 0.83 to 0.87 of them for amplitudes of any state."""

SAMPLE: Final = 1 << 16
"""So many numbers, in whole rows, tell how well the others are predicted."""

LEADING_BITS: Final = 8.5
"""So many bits of a number, its sign and its exponent, take little."""

BITS_PER_GROUP: Final = 8 * 40
"""What a block of integers takes beside the integers."""


@dataclass(frozen=True)
class Plan:
    """Which rows are stored, and how the others follow from them.

    Attributes
    ----------
    pivots
        The rows that are stored, the most important one first.
    dropped
        How many bits of each coefficient are not kept.
    how
        One of `prediction.CONTEXTS`.
    """

    pivots: NDArray[np.int64]
    dropped: int
    how: str


class Solver:
    """Coefficients of rows in terms of the pivots.

    Attributes
    ----------
    basis
        The pivots, as `Prediction` takes them.
    rank
        How many of them are independent.
    """

    def __init__(self, field: Field, pivots: NDArray[np.int64]) -> None:
        self._field = field
        rows = field.wide(pivots)
        self.basis = rows.view(np.float64)
        self._directions, self._triangle = np.linalg.qr(rows.conj().T)
        sizes = np.abs(np.diagonal(self._triangle))
        independent = sizes > 1e-17 * sizes[0]
        self.rank = len(pivots) if independent.all() else int(independent.argmin())

    def project(self, rows: Any) -> Matrix:
        """Return rows of the matrix in the directions of the pivots."""
        projected: Matrix = self._field.wide(rows) @ self._directions
        return projected

    def solve(self, projected: Matrix, rank: int) -> Matrix:
        """Return coefficients of shape (rank, planes, rows) in terms of the first `rank` pivots."""
        # Elimination leaves a triangle as it is, so this is a substitution, and as exact.
        solved = np.linalg.solve(self._triangle[:rank, :rank], projected[:, :rank].conj().T).conj()
        return np.stack([solved.real, solved.imag], 1) if self._field.planes == 2 else solved[:, None]


def find_plan(field: Field, limit: int) -> Plan | None:
    """Return how to pack a matrix with at most `limit` rows stored, or None where that does not pay."""
    random = np.random.default_rng(0)
    precise = field.numbers.itemsize == 8
    rank = _rank_of_sample(field, limit, 1e-6 if precise else 1e-5, random)
    if not 0 < rank <= limit:
        return None
    pivots = _select(field, min(limit, 6 * rank + 24), 1e-15 if precise else 1e-8, random)
    return _choose(field, pivots, random) if len(pivots) else None


def _rank_of_sample(field: Field, limit: int, noise: float, random: np.random.Generator) -> int:
    """Return about which rank a random submatrix has, so that a matrix of full rank is known at once."""
    side = limit + limit // 4 + 16
    rows, columns = (
        np.sort(random.choice(count, min(side, count), replace=False)) for count in (field.rows, field.columns)
    )
    sample = field.part(rows, columns)
    if not np.isfinite(sample).all():
        return 0
    sizes = np.abs(np.diagonal(np.linalg.qr(sample, mode="r")))
    return int(np.count_nonzero(sizes > noise * sizes.max()))


def _select(field: Field, most: int, noise: float, random: np.random.Generator) -> NDArray[np.int64]:
    """Return rows that span the others, by the Gram-Schmidt process with pivots on a random projection of each row."""
    sketch = np.empty((field.rows, most + 8), np.complex128 if field.planes == 2 else np.float64)
    mixing = random.standard_normal((field.columns, field.planes * (most + 8))).view(sketch.dtype)
    for rows in row_blocks(field.rows, field.width):
        np.matmul(field.wide(rows), mixing, out=sketch[rows])
    scale = np.abs(sketch).max()
    if not (np.isfinite(scale) and scale > 0):
        return np.empty(0, np.int64)
    sketch /= scale
    lanes = sketch.view(np.float64)
    pivots: list[int] = []
    largest = 0.0
    while len(pivots) < most:
        squares = np.einsum("ij,ij->i", lanes, lanes)
        squares[pivots] = 0
        pivot = int(squares.argmax())
        size = math.sqrt(squares[pivot])
        largest = largest or size
        if size <= noise * largest:
            break
        pivots.append(pivot)
        direction = sketch[pivot] / size
        for rows in row_blocks(field.rows, sketch.shape[1]):
            sketch[rows] -= np.outer(sketch[rows] @ direction.conj(), direction)
    return np.array(pivots, np.int64)


def _choose(field: Field, pivots: NDArray[np.int64], random: np.random.Generator) -> Plan | None:
    """Return how many of the pivots to take and how to write down the rest, by what a sample of rows needs."""
    solver = Solver(field, pivots)
    if not solver.rank:
        return None
    others = np.delete(np.arange(field.rows), pivots)
    count = min(len(others), max(16, SAMPLE // field.width))
    sample = np.sort(random.choice(others, count, replace=False))
    projected = solver.project(sample)
    room = Room(count * field.width, field.numbers.dtype)
    actual = np.ascontiguousarray(field.numbers[sample]).reshape(-1).view(room.spare.dtype)
    order(actual, room.spare)
    full = 8 * field.numbers.itemsize
    blocks = len(row_blocks(field.rows, field.width))

    def cost(rank: int, dropped: int, how: str) -> float:
        """Return the bits that a number takes."""
        coefficients = widen(trim(solver.solve(projected, rank), dropped), dropped)
        predicted = Prediction(coefficients, solver.basis[:rank]).bits(0, count, room)
        if predicted is None:
            return math.inf
        keys = np.zeros(actual.shape, np.uint8) if how == "none" else contexts(predicted, how, room)
        order(predicted, room.spare)
        rest, rows, columns = residual_bits(actual - predicted, keys), rank / field.rows, rank / field.columns
        rest += blocks * len(np.unique(keys)) * BITS_PER_GROUP / field.numbers.size
        return rest * (1 - rows) + (full - LEADING_BITS) * rows + (64 - LEADING_BITS - dropped) * columns

    ranks = {r for power in range(9) for r in (1 << power, 3 << power) if r < solver.rank} | {solver.rank}
    usual = 4 if full == 64 else 24
    rank = min(sorted(ranks), key=lambda one: cost(one, usual, "none"))
    dropped = min(range(0, MAX_DROPPED + 1, 4), key=lambda one: cost(rank, one, "none"))
    costs = {how: cost(rank, dropped, how) for how in CONTEXTS[: field.planes + 1]}
    how = min(costs, key=lambda one: costs[one])
    if costs["none"] < 1.01 * costs[how]:  # it takes time to group numbers
        how = "none"
    return Plan(pivots[:rank], dropped, how) if costs[how] < WORTH * full else None


def residual_bits(residuals: Matrix, keys: NDArray[np.uint8]) -> float:
    """Return about how many bits a residual takes: the entropy of its length, and all of them after the first."""
    lengths = np.frexp(np.abs(residuals.astype(np.float64)) + 1)[1] - 1
    counts = np.bincount(keys.astype(np.int64) * 65 + lengths, minlength=65 * CONTEXT_COUNT).reshape(-1, 65)
    entropy = _entropy(counts) - _entropy(counts.sum(1))
    return float(entropy + lengths.mean() + np.count_nonzero(residuals) / residuals.size)


def _entropy(counts: NDArray[np.int64]) -> float:
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log2(shares)).sum())
