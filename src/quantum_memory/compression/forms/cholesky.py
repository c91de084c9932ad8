"""A density matrix as the product of a tall matrix with its adjoint: the factor, the product, and its errors.

The factor comes from a Cholesky decomposition with pivoting, which stops when nothing is left: its columns get smaller
about as fast as the eigenvalues do, and it needs only the diagonal and as many columns of the matrix as its rank is.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from quantum_memory.compression.forms.products import multiply

if TYPE_CHECKING:
    from collections.abc import Iterator

    from quantum_memory.compression.forms.products import Array

COLUMNS = 32
"""Columns of a factor that are multiplied at a time; the products are added up in their order. Sums that are made in
parts have smaller error bounds."""

_BLOCK_BYTES = 1 << 20
_UNIT = 2.0**-53
_NOISE = 2.0
"""Diagonal elements below so many units in the last place of the largest are round-off."""
_SPACE = 1.01
"""For the rounding of the bounds themselves."""


class Factor(NamedTuple):
    """A matrix A, of which ``A A^H`` is a density matrix about."""

    columns: Array
    """Of shape (d, k), float64 or complex128; lower triangular in the rows that `pivots` says, with a real diagonal."""
    pivots: Array
    """A row for each column; in those before it, the column is zero."""


def factor_of(matrix: Array, most: int, *, real: bool) -> Factor | None:
    """Return a factor of a positive matrix, or None where it would have more than `most` columns.

    Parameters
    ----------
    matrix
        Of shape (d, d), Hermitian up to round-off.
    most
        The largest number of columns.
    real
        Whether to leave imaginary parts out.
    """
    rest = matrix.diagonal().real.astype(np.float64)
    noise = _NOISE * float(np.finfo(matrix.dtype).eps) * float(rest.max())
    columns: Array = np.empty((len(matrix), 0), np.float64 if real else np.complex128)
    pivots = np.empty(0, np.int64)
    while True:
        rows = np.argsort(-rest, kind="stable")[:COLUMNS]
        rows = rows[rest[rows] > noise]
        if not len(rows):
            return Factor(columns, pivots)
        block: Array = (matrix[:, rows].astype(np.complex128) + matrix[rows].conj().T) / 2
        block = (block.real if real else block) - multiply(columns, columns[rows].conj().T)
        order, corner = _corner(block[rows], noise)
        if len(pivots) + len(order) > most:
            return None
        added = np.linalg.solve(corner, block[:, order].conj().T).conj().T
        added[pivots] = 0
        added[rows[order]] = corner
        columns = np.concatenate([columns, added], axis=1)
        pivots = np.concatenate([pivots, rows[order]])
        rest -= np.vecdot(added, added).real
        rest[rows] = np.minimum(rest[rows], noise)  # those that were left out as well


def _corner(block: Array, noise: float) -> tuple[list[int], Array]:
    """Return the pivots of a small positive matrix, in order, and the lower triangular factor of its part there."""
    rest = block.copy()
    order: list[int] = []
    columns = []
    for _ in block:
        diagonal = rest.diagonal().real.copy()
        diagonal[order] = -1.0
        row = int(diagonal.argmax())
        if diagonal[row] <= noise:
            break
        order.append(row)
        columns.append(rest[:, row] / math.sqrt(diagonal[row]))
        rest -= np.outer(columns[-1], columns[-1].conj())
    lower = np.tril(np.stack(columns, axis=1)[order]) if order else np.empty((0, 0), block.dtype)
    np.fill_diagonal(lower, lower.diagonal().real)
    return order, lower


def row_blocks(columns: Array) -> Iterator[slice]:
    """Yield the rows of ``A A^H`` in blocks of a few MiB."""
    count = len(columns)
    rows = max(1, _BLOCK_BYTES // (count * columns.itemsize))
    yield from (slice(start, min(start + rows, count)) for start in range(0, count, rows))


def product(columns: Array, rows: slice, start: int = 0) -> Array:
    """Return rows of ``A A^H``, from column `start` on."""
    total = np.zeros((rows.stop - rows.start, len(columns) - start), columns.dtype)
    for first in range(0, columns.shape[1], COLUMNS):
        piece = columns[:, first : first + COLUMNS]
        total += multiply(piece[rows], piece[start:].conj().T)
    return total


def fill(columns: Array, out: Array) -> None:
    """Compute ``A A^H`` in `out`, Hermitian to the bit."""
    for rows in row_blocks(columns):
        block = product(columns, rows, rows.start)
        corner = np.triu(block[:, : len(block)])
        block[:, : len(block)] = corner + np.triu(corner, 1).conj().T
        np.fill_diagonal(block, block.diagonal().real)
        out[rows, rows.start :] = block
        out[rows.start :, rows] = block.conj().T


def rounding(columns: Array) -> float:
    """Return a bound of how wrong ``A A^H`` may be computed, in the Frobenius norm.

    A product of complex matrices with inner dimension c is within ``sqrt 2 gamma_2c |A| |A|^H``, in each entry, and
    each of the K sums within u times the partial sums, which are at most ``|A| |A|^H``, whose Frobenius norm is at most
    the square of that of A (see `contraction.Contraction.margin`).
    """
    sums = -(-columns.shape[1] // COLUMNS)
    norm = float(np.linalg.norm(columns))
    return float((3 * COLUMNS + 3 + sums) * _UNIT * norm * norm * _SPACE)


def distance(columns: Array, matrix: Array) -> float:
    """Return a bound of the Frobenius norm of ``matrix - A A^H``."""
    squares = 0.0
    for rows in row_blocks(columns):
        difference = matrix[rows] - product(columns, rows)
        squares += float(np.vecdot(difference, difference).real.sum())
    return math.sqrt(squares) * _SPACE + rounding(columns)
