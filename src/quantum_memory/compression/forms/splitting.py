"""How a state vector is split across its bonds: an estimate of the rank, a randomised split, and sweeps of the halves.

The vector of n qubits is seen as a matrix of ``2**(n//2)`` rows, which is what its middle bond connects. Passes over it
go through blocks of rows, so that beside the vector only factors of the size of its sides are held. Everything is
deterministic: random numbers come from a generator with a fixed seed.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from quantum_memory.compression.cores import on_all_cores
from quantum_memory.compression.forms.products import multiply, multiply_real, reals, right_factor

if TYPE_CHECKING:
    from quantum_memory.compression.forms.products import Array

_FULL = 0.7
"""A sketch whose rank is a larger share of the rows that were drawn says only that the rank is high."""

_TOO_MANY, _MANY_ROWS = 0.4, 32
"""A matrix of so many rows with a rank above this share of them has no factors that are much smaller."""

SPARE = 12
"""Columns of the randomised range finder beyond the rank that is looked for."""

_BLOCK_BYTES = 8 << 20
_NARROWEST = 1 << 7
_CORNER = 0.75
_SEED = 20200113
_NOISE = 2.0**-50
"""Eigenvalues below this share of the largest are rounding errors of a Gram matrix in double precision."""


class Sketch(NamedTuple):
    """What a look at some rows of a matrix says."""

    weight: float
    """The sum of the squared absolute values of its entries, to about single precision."""
    rank: int
    """An estimate of how many singular values matter; 0 for too many."""
    real: bool
    """Whether no row that was looked at has an imaginary part."""


def matrix_of(vector: Array) -> Array:
    """View a vector of n qubits as the matrix of its middle bond."""
    qubits = vector.size.bit_length() - 1
    return vector.reshape(1 << qubits // 2, -1)


def sketch(matrix: Array, tolerance: float, rows: int, *, glance: bool = True) -> Sketch:
    """Estimate the rank of a matrix from rows that are drawn with a probability proportional to their weight.

    Rows drawn so and scaled alike have the Gram matrix ``S S^H`` whose eigenvalues are, in expectation, those of the
    matrix (A. Frieze, R. Kannan and S. Vempala, J. ACM 51, 1025 (2004)).

    Parameters
    ----------
    matrix
        Of two axes, contiguous.
    tolerance
        Share of the weight that may be left out.
    rows
        How many rows to draw.
    glance
        Whether to look at a small corner of them first, and to believe it when it says that the rank is high.
    """
    reals = matrix.view(matrix.real.dtype)
    with np.errstate(all="ignore"):
        weights = np.vecdot(reals, reals).astype(np.float64)
        total = float(weights.sum())
    if not 0 < total < math.inf:
        return Sketch(total, 0, real=False)
    random = np.random.default_rng(_SEED)
    chosen = np.flatnonzero(weights)
    scale = np.ones(len(chosen))
    whole = len(chosen) <= rows
    if not whole:
        chosen = random.choice(len(weights), rows, p=weights / total)
        scale = np.sqrt(total / (rows * weights[chosen]))
    real = not np.iscomplexobj(matrix) or not matrix[chosen].imag.any()
    drawn = len(chosen)
    corner = int(_CORNER * drawn)
    if glance and not whole and 2 * corner < matrix.shape[1]:
        columns = random.choice(matrix.shape[1], 4 * corner // 3, replace=False)
        part = _sample(matrix[np.ix_(chosen[:corner], columns)], scale[:corner], real=real)
        gram = multiply(part, part.conj().T)
        usual = total * corner / drawn * len(columns) / matrix.shape[1]
        # A corner that holds less than its share may be one of round-off in a state that lives elsewhere.
        if gram.trace().real > usual / 4 and _rank(gram, tolerance) > _FULL * corner:
            return Sketch(total, 0, real)
    gram = np.zeros((drawn, drawn), np.float64 if real else np.complex128)
    width = max(1, _BLOCK_BYTES // (16 * drawn))
    for start in range(0, matrix.shape[1], width):
        part = _sample(matrix[chosen, start : start + width], scale, real=real)
        gram += multiply(part, part.conj().T)
    rank = _rank(gram, tolerance)
    high = rank > _FULL * drawn and not whole
    high |= len(matrix) >= _MANY_ROWS and rank > _TOO_MANY * len(matrix)
    return Sketch(total, 0 if high else rank, real)


def _sample(rows: Array, scale: Array, *, real: bool) -> Array:
    wide = rows.real.astype(np.float64) if real else rows.astype(np.complex128)
    wide *= scale[:, None]
    return wide


def _rank(gram: Array, tolerance: float) -> int:
    """Return how many pivots of a Cholesky decomposition leave no more than a share of the trace.

    That is hardly more than the number of eigenvalues that do.
    """
    rest = gram.copy()
    left_out = tolerance * float(gram.trace().real)
    for count in range(len(gram)):
        diagonal = rest.diagonal().real
        if diagonal.sum() <= left_out:
            return count
        pivot = int(diagonal.argmax())
        column = rest[:, pivot] / math.sqrt(diagonal[pivot])
        rest -= np.multiply.outer(column, column.conj())
    return len(gram)


def kept(values: Array, allowed: float) -> int:
    """Return how many of the squared singular values, largest first, to keep so that the rest sums to `allowed`."""
    tails = values[::-1].cumsum()[::-1]
    return max(1, int(np.count_nonzero((tails > allowed) & (values > _NOISE * values[0]))))


class Split(NamedTuple):
    """A matrix as ``left @ diag(values) @ right``; the columns of `left` and the rows of `right` are orthonormal."""

    left: Array
    values: Array
    right: Array


def split(matrix: Array, rank: int, allowed: float, work: Any) -> Split:
    """Split a matrix of low rank, by two passes over it.

    The space of its rows is found as that of a few random combinations of them, and the matrix is projected on it: N.
    Halko, P. G. Martinsson and J. A. Tropp, SIAM Review 53, 217 (2011), algorithms 4.1 and 5.1.

    Parameters
    ----------
    matrix
        Of two axes, contiguous.
    rank
        About what rank to look for.
    allowed
        Squared singular values that sum to this are left out.
    work
        The dtype in which the passes multiply: of double precision, or of single where that is enough; real if the
        matrix is to be taken for real. What follows is in double precision.
    """
    work = np.dtype(work)
    basis = _row_space(matrix, min(rank + SPARE + rank // 4, *matrix.shape), work)
    projected = _projected(matrix, basis.astype(work), work)
    weights, vectors = spectrum(multiply(projected.conj().T, projected))
    keep = kept(weights, allowed)
    values = np.sqrt(weights[:keep])
    left = multiply(projected, vectors[:, :keep] / values)
    return Split(left, values, multiply(vectors[:, :keep].conj().T, basis.conj().T))


def _row_space(matrix: Array, dimension: int, work: np.dtype[Any]) -> Array:
    """Return orthonormal columns that span the conjugates of about what the rows of a matrix span."""
    test = np.random.default_rng(_SEED).standard_normal((dimension, len(matrix))).astype(np.finfo(work).dtype)
    combined = np.empty((dimension, matrix.shape[1]), np.result_type(work, np.float64))
    width = max(_NARROWEST, _BLOCK_BYTES // (len(matrix) * work.itemsize))

    def combine(start: int) -> None:
        columns = slice(start, start + width)
        multiply_real(test, reals(_worked(matrix[:, columns], work)), reals(combined[:, columns]))

    for _ in on_all_cores(combine, range(0, matrix.shape[1], width)):
        pass
    basis: Array = np.linalg.qr(combined.conj().T)[0]
    return basis


def _projected(matrix: Array, basis: Array, work: np.dtype[Any]) -> Array:
    """Return the product of a matrix with a few columns."""
    factor = right_factor(basis)
    projected = np.empty((len(matrix), basis.shape[1]), np.result_type(work, np.float64))
    height = max(1, _BLOCK_BYTES // (matrix.shape[1] * work.itemsize))

    def project(start: int) -> None:
        rows = slice(start, start + height)
        multiply_real(reals(_worked(matrix[rows], work)), factor, reals(projected[rows]))

    for _ in on_all_cores(project, range(0, len(matrix), height)):
        pass
    return projected


def _worked(block: Array, work: np.dtype[Any]) -> Array:
    """Return a block in the dtype that is worked in, its rows contiguous."""
    part = block if work.kind == "c" else block.real
    return part if part.dtype == work and part.strides[1] == part.itemsize else part.astype(work)


def spectrum(gram: Array) -> tuple[Array, Array]:
    """Return the eigenvalues of a Gram matrix, largest first, and its eigenvectors."""
    values, vectors = np.linalg.eigh(gram)
    return np.maximum(values[::-1], 0.0), vectors[:, ::-1]


class Chain(NamedTuple):
    """The tensors of a matrix product state, (left bond, physical, right bond).

    Those before the middle bond are isometries from their left side, except that the last of them is multiplied by the
    singular values there; those after it are isometries from their right side.
    """

    tensors: list[Array]
    lost: float
    """The squared norm of what the halves had and the chain has not."""


def chain_of(halves: Split, allowed: float) -> Chain:
    """Split both sides of a split matrix into tensors; each bond leaves out squared singular values of `allowed`."""
    squares = halves.values**2
    keep = kept(squares, allowed)
    values = halves.values[:keep]
    left, left_lost = _sweep(halves.left[:, :keep] * values, allowed)
    # From the right the same sweep sees the qubits, and what is left and right of them, in reverse.
    block = (values[:, None] * halves.right[:keep]).reshape(keep, *[2] * (halves.right.shape[1].bit_length() - 1))
    right, right_lost = _sweep(np.ascontiguousarray(block.T).reshape(-1, keep), allowed)
    mirrored = [tensor.transpose(2, 1, 0) for tensor in right[::-1]]
    mirrored[0] = mirrored[0] / values[:, None, None]
    return Chain([*left, *mirrored], float(squares[keep:].sum()) + left_lost + right_lost)


def _sweep(block: Array, allowed: float) -> tuple[list[Array], float]:
    """Split a block of ``2**k`` rows into k tensors, the last of which carries the weight; say what was left out."""
    tensors: list[Array] = []
    lost = 0.0
    bond, rest = 1, block
    for _ in range(len(block).bit_length() - 2):
        matrix = rest.reshape(2 * bond, -1)
        squares, vectors = spectrum(multiply(matrix, matrix.conj().T))
        keep = kept(squares, allowed)
        lost += float(squares[keep:].sum())
        tensors.append(vectors[:, :keep].reshape(bond, 2, keep))
        bond, rest = keep, multiply(vectors[:, :keep].conj().T, matrix)
    return [*tensors, rest.reshape(bond, 2, block.shape[1])], lost
