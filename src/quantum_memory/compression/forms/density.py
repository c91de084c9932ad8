r"""Form ``low_rank_density``: a density matrix as a factor A of few integers, of which ``A A^H`` is the matrix.

A is either tall, lower triangular and rounded entry by entry (`columns`), or taken as a state vector and rounded as a
matrix product state (`chain`): a tall one, or the square root of the matrix with the binary digits of rows and columns
next to one another, which for a thermal state of a chain has low bonds.

**The certificate** bounds 1 - F for the fidelity of Uhlmann, ``F = (tr sqrt(sqrt(rho) sigma sqrt(rho)))**2`` of the
normalised matrices, eigenvalues below zero taken as zero. Let B be what is unpacked for A, and sigma what is computed
for ``B B^H``. ``C = sqrt(1 - F)`` obeys the triangle inequality (A. Gilchrist, N. K. Langford and M. A. Nielsen, Phys.
Rev. A 71, 062310 (2005)), so three steps are added up:

1. ``C(rho, A A^H)``. Let S be the difference. ``A A^H`` is positive, so the trace norm of the negative part of rho is
   at most ``||S||_1``, and the positive part is within ``2 ||S||_1`` of ``A A^H``. The trace distance T is half of
   that, and normalising at most doubles it: ``T <= 2 ||S||_1 / tr``. As ``sqrt F >= 1 - T`` (C. A. Fuchs and J. van de
   Graaf, IEEE Trans. Inf. Theory 45, 1216 (1999)), ``C**2 <= 2 T <= 4 sqrt(d) ||S||_F / tr``. S is computed, and what
   its rounding may be is added.
2. ``C(A A^H, B B^H)``. A and B, as vectors, are purifications, so F is at least their squared overlap (A. Uhlmann, Rep.
   Math. Phys. 9, 273 (1976)), which `certificate.Overlap` bounds.
3. ``C(B B^H, sigma)``. As in the first step, with what the product may be wrong by on any machine.

In double precision the first and the third step allow infidelities down to about 1e-11. A matrix of single precision is
not known, and cannot be given back, well enough for less than about 1e-6 to 1e-5.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from quantum_memory.compression.certificate import overlap, scale_of
from quantum_memory.compression.forms import cholesky, columns
from quantum_memory.compression.forms.base import Packed, malformed, nested, under
from quantum_memory.compression.forms.mps import MatrixProduct, contraction_of
from quantum_memory.compression.forms.products import multiply
from quantum_memory.compression.forms.splitting import matrix_of, sketch
from quantum_memory.compression.forms.views import View, WholeView
from quantum_memory.compression.lossy import Certified

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from quantum_memory.compression.forms.base import Effort, Json, Part
    from quantum_memory.compression.forms.contraction import Contraction
    from quantum_memory.compression.forms.products import Array

_SMALLEST = 16
"""Rows of the smallest matrix that is tried."""

_DENSE = 1 << 10
"""Up to so many rows, a factor may be square; of a larger matrix it has at most `_TALL` columns."""

_TALL = 256
_CHAIN = 8
"""Columns of a factor, at most, that is tried as a matrix product state, besides a square root."""

_ROOT_RANK = 48
"""A square root is tried where the matrix, rows and columns interleaved, has at most this rank in the middle."""

_TRIES = 5
_USED, _AIM, _LEAST, _EXACT = 0.94, 0.98, 0.02, 1e-6
"""Shares of what is allowed: enough, what is aimed at, what rounding the factor must be left with, and what is reached
only by factors that are kept exactly."""


class LowRankDensity:
    """A factor of a density matrix, rounded."""

    name: ClassVar[str] = "low_rank_density"
    exact: ClassVar[bool] = False

    def pack(self, array: Array, infidelity: float, effort: Effort) -> Certified | None:
        """Return a matrix that is Hermitian and positive up to round-off; see `LossyForm`."""
        if array.ndim != 2 or array.shape[0] != array.shape[1] or len(array) < _SMALLEST:
            return None
        with np.errstate(all="ignore"):
            total = float(np.sum([np.vecdot(row, row) for row in array.view(array.real.dtype)], dtype=np.float64))
        if not 1e-12 < total < 1e12:
            scale_of(array.reshape(-1))  # refuses a matrix that is zero or not finite
            return None
        if not _looks_hermitian(array, infidelity):
            return None
        real = not (np.iscomplexobj(array) and array.imag.any())
        factor = cholesky.factor_of(array, _most(len(array)), real=real)
        if factor is None or not len(factor.pivots):
            return None
        target = _Target(array, infidelity)
        found = [_as_columns(factor, target)]
        if len(array) & (len(array) - 1) == 0:
            found += [_as_chain(A, target, effort) for A in _chain_candidates(factor, array, infidelity, effort)]
        smallest = min(filter(None, found), key=lambda one: one.packed.nbytes, default=None)
        return smallest if smallest and smallest.packed.nbytes < array.nbytes else None

    def view(
        self, facts: Mapping[str, Json], parts: Mapping[str, Part], dtype: np.dtype[Any], shape: tuple[int, ...]
    ) -> View:
        if len(shape) != 2 or shape[0] != shape[1]:
            raise malformed("a factor of a density matrix is none of a matrix that is not square")
        chain = None if facts.get("chain") is None else _chain_of(facts, parts, shape[0])

        def fill(out: Array) -> None:
            # Only now: it may be large, and so is the matrix then.
            factor = chain.factor() if chain else columns.unpack_columns(facts, parts, len(out), _most(len(out)))
            if (np.iscomplexobj(factor) and not np.iscomplexobj(out)) or not np.isfinite(factor).all():
                raise malformed("a factor is complex while the matrix is not, or not finite")
            with np.errstate(all="ignore"):  # numbers may be anything
                cholesky.fill(factor, out)

        return WholeView(dtype, shape, fill)


def _most(height: int) -> int:
    """Return how many columns a factor may have."""
    return height if height <= _DENSE else _TALL


def _looks_hermitian(matrix: Array, infidelity: float) -> bool:
    """Tell from a few rows whether a matrix is Hermitian, to about what the certificate needs."""
    rows = np.arange(0, len(matrix), max(1, len(matrix) // 8))
    difference = matrix[rows] - matrix[:, rows].conj().T
    return float(np.linalg.norm(difference)) <= infidelity * float(np.linalg.norm(matrix[rows]))


class _Target:
    """A density matrix, and what is allowed."""

    def __init__(self, matrix: Array, infidelity: float) -> None:
        self._matrix = matrix
        self.infidelity = infidelity

    def start(self, factor: Array) -> _Budget:
        """Return what a factor A leaves to its rounding."""
        first = _gap(factor, cholesky.distance(factor, self._matrix))
        return _Budget(first, max(math.sqrt(self.infidelity) - first - self._third(factor), 0.0) ** 2)

    def reached(self, budget: _Budget, second: float, factor: Array) -> float:
        """Return what is certified for a rounded factor B, of which 1 - F to A, as vectors, is at most `second`."""
        gap = budget.first + math.sqrt(second) + self._third(factor)
        return min(1.0, gap * gap * (1 + 2.0**-40))

    def _third(self, factor: Array) -> float:
        """Return ``C(B B^H, sigma)``."""
        wrong = cholesky.rounding(factor)
        if self._matrix.real.itemsize == 4:
            wrong += 1.01 * 2.0**-24 * float(np.linalg.norm(multiply(factor.conj().T, factor)))
        return _gap(factor, wrong)


class _Budget(NamedTuple):
    """What is known of a factor A of a density matrix, and left to its rounding."""

    first: float
    """``C(rho, A A^H)``."""
    second: float
    """The largest ``1 - F`` of A and B as vectors."""


def _gap(factor: Array, distance: float) -> float:
    """Return a bound of C between ``A A^H`` and a matrix at a distance in the Frobenius norm; see above."""
    trace = float(np.linalg.norm(factor)) ** 2
    return 2 * math.sqrt(math.sqrt(len(factor)) * distance / trace) if trace else 1.0


def _as_columns(factor: cholesky.Factor, target: _Target) -> Certified | None:
    """Round a factor entry by entry."""
    budget = target.start(factor.columns)
    tall = np.ascontiguousarray(factor.columns.T)
    allowed = _AIM * budget.second
    best: Certified | None = None
    for _ in range(_TRIES if budget.second > _LEAST * target.infidelity else 0):
        rounded = columns.quantise(factor, allowed * float(np.linalg.norm(tall)) ** 2)
        if rounded is None:
            break
        kept = np.zeros_like(tall)
        kept[: rounded.columns.shape[1]] = rounded.columns.T
        second = overlap(tall.reshape(-1), kept.reshape(-1)).infidelity()
        reached = target.reached(budget, second, rounded.columns)
        if reached <= target.infidelity and (best is None or reached > best.infidelity):
            best = Certified(Packed(LowRankDensity.name, rounded.facts, rounded.parts), reached)
        if _USED * target.infidelity < reached <= target.infidelity or second < _EXACT * budget.second:
            break
        allowed *= min(max(_AIM * budget.second / second, 0.2), 5.0)
    return best


class _Start(NamedTuple):
    """A factor to be rounded as a matrix product state."""

    factor: Array
    interleaved: bool


def _chain_candidates(factor: cholesky.Factor, matrix: Array, infidelity: float, effort: Effort) -> Iterator[_Start]:
    """Yield what may have low bonds as a vector."""
    height, rank = factor.columns.shape
    if rank <= _CHAIN:
        padded = np.zeros((height, 1 << (rank - 1).bit_length()), factor.columns.dtype)
        padded[:, :rank] = factor.columns
        yield _Start(padded, interleaved=False)
    elif height <= _DENSE and effort != "fast":
        seen = sketch(matrix_of(_interleave(matrix)), infidelity / 64, 2 * _ROOT_RANK)
        if 0 < seen.rank <= _ROOT_RANK:
            hermitian = matrix.astype(factor.columns.dtype) if np.iscomplexobj(factor.columns) else matrix.real
            values, vectors = np.linalg.eigh(hermitian)
            yield _Start(multiply(vectors * np.sqrt(np.maximum(values, 0.0)), vectors.conj().T), interleaved=True)


def _as_chain(start: _Start, target: _Target, effort: Effort) -> Certified | None:
    """Round a factor as a matrix product state."""
    budget = target.start(start.factor)
    if budget.second <= _LEAST * target.infidelity:
        return None
    vector = _interleave(start.factor) if start.interleaved else start.factor.reshape(-1)
    chain = MatrixProduct().pack(vector, _AIM * budget.second, effort)
    if chain is None:
        return None
    facts: dict[str, Json] = {
        "chain": chain.packed.facts,
        "columns": start.factor.shape[1],
        "interleaved": start.interleaved,
    }
    packed = Packed(LowRankDensity.name, facts, dict(under("chain", chain.packed.parts)))
    reached = target.reached(budget, chain.infidelity, _chain_of(facts, packed.parts, len(start.factor)).factor())
    return Certified(packed, reached) if reached <= target.infidelity else None


class _Chain(NamedTuple):
    """A factor that was rounded as a matrix product state."""

    contraction: Contraction
    shape: tuple[int, int]
    interleaved: bool

    def factor(self) -> Array:
        """Return the factor."""
        vector = np.empty(self.contraction.size, self.contraction.dtype)
        self.contraction.fill(vector)
        if not self.interleaved:
            return vector.reshape(self.shape)
        qubits = self.shape[0].bit_length() - 1
        axes = [*range(0, 2 * qubits, 2), *range(1, 2 * qubits, 2)]
        return vector.reshape([2] * 2 * qubits).transpose(axes).reshape(self.shape)


def _chain_of(facts: Mapping[str, Json], parts: Mapping[str, Part], height: int) -> _Chain:
    chain, width, interleaved = facts["chain"], facts.get("columns"), facts.get("interleaved")
    if type(chain) is not dict or type(width) is not int or type(interleaved) is not bool:
        raise malformed("a factor without a chain of tensors")
    if not (height == width <= _DENSE if interleaved else 0 < width <= _CHAIN):
        raise malformed("a factor has other columns than any that is made")
    dtype = np.dtype(np.complex128 if chain.get("real") is False else np.float64)
    contraction = contraction_of(chain, nested(parts, "chain"), height * width, dtype)
    return _Chain(contraction, (height, width), interleaved)


def _interleave(matrix: Array) -> Array:
    """Return a matrix as a vector, the binary digits of its rows and columns next to one another."""
    qubits = len(matrix).bit_length() - 1
    axes = [axis for row in range(qubits) for axis in (row, row + qubits)]
    return np.ascontiguousarray(matrix.reshape([2] * 2 * qubits).transpose(axes)).reshape(-1)
