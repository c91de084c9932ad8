"""Measures of states and of how far apart two of them are, by their textbook definitions.

Every function takes state vectors, density matrices and matrix product states, mixed as one likes wherever the
definition makes sense. States need not be normalised: **each measure is that of the normalised states**. Qubit orders
are reconciled; a state whose order is unstated can be compared only with another such.

Two matrix product states are compared without making either dense, state vectors block by block. Where a matrix is
needed it is made in double precision, if it fits in `max_bytes`.

Below, rho and sigma are the density matrices of a and b, and ``F`` is the squared (Jozsa) fidelity.

References
----------
M. A. Nielsen and I. L. Chuang, Quantum Computation and Quantum Information, chapter 9.
I. Bengtsson and K. Zyczkowski, Geometry of Quantum States, chapters 9 and 14.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from quantum_memory.errors import InvalidStateError
from quantum_memory.state import products, tensor_chain
from quantum_memory.state.matrix_product_state import MatrixProductState
from quantum_memory.state.quantum_state import DensityMatrix, StateVector
from quantum_memory.state.sharded_state import ShardedStateVector
from quantum_memory.state.sites import (
    check_budget,
    checked_sites,
    checked_total,
    default_tolerance,
    double,
    parts,
    reversed_blocks,
    shannon_entropy,
)
from quantum_memory.state.stabilizer_state import StabilizerState
from quantum_memory.state.windows import InMemory

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import ArrayLike, NDArray

    from quantum_memory.state.dense_array import QubitOrder
    from quantum_memory.state.sites import Array, Sites

PureState: TypeAlias = StateVector | MatrixProductState | StabilizerState
QuantumState: TypeAlias = PureState | DensityMatrix

_Amplitudes: TypeAlias = StateVector | MatrixProductState

_MAX_BYTES = 1 << 30


def overlap(a: PureState, b: PureState, *, executor: Any = None) -> complex:
    """Return ``<a|b> / (|a| |b|)``, accumulated in double precision.

    Parameters
    ----------
    executor
        See `fidelity`.
    """
    if isinstance(a, DensityMatrix) or isinstance(b, DensityMatrix):
        raise InvalidStateError("only pure states have an overlap", next_step="use fidelity")
    if isinstance(a, StabilizerState) or isinstance(b, StabilizerState):
        raise InvalidStateError("a tableau has no global phase, so no overlap", next_step="use fidelity")
    _common_order(a, b)
    if isinstance(a, MatrixProductState) and isinstance(b, MatrixProductState):
        return a.normalized().inner(b.normalized())
    if isinstance(a, StateVector) and isinstance(b, StateVector) and a.qubit_order == b.qubit_order:
        first, second = (x.shards if isinstance(x, ShardedStateVector) else InMemory(x.amplitudes) for x in (a, b))
        found = products.products(first, second, executor, step=products.vectors_step(first, second))
        return found.ab / (checked_total(math.sqrt(found.aa)) * checked_total(math.sqrt(found.bb)))
    inner, aa, bb = 0j, 0.0, 0.0
    for left, right in _aligned_blocks(a, b):
        inner += complex(np.vdot(left, right))
        aa += float(np.vdot(left, left).real)
        bb += float(np.vdot(right, right).real)
    return inner / (checked_total(math.sqrt(aa)) * checked_total(math.sqrt(bb)))


def fidelity(
    a: QuantumState, b: QuantumState, *, squared: bool = True, max_bytes: int = _MAX_BYTES, executor: Any = None
) -> float:
    """Return the Uhlmann fidelity ``F = (Tr sqrt(sqrt(rho) sigma sqrt(rho)))^2``.

    For pure states this is ``|<a|b>|^2``, for one pure state ``<a|sigma|a>``. Rounding above 1 is cut off.

    Parameters
    ----------
    a, b
        The states.
    squared
        With False, the root fidelity ``sqrt(F)``, which QuTiP calls fidelity.
    max_bytes
        Largest matrix to make.
    executor
        A `concurrent.futures.Executor`, or a client of Dask, which does the work for two state vectors of one qubit
        order. Its tasks read the amplitudes of a `ShardedStateVector` where they are; by default this thread does,
        and nothing is gathered either.

    Raises
    ------
    InvalidStateError
        When a state is zero, not finite, or a matrix that is not Hermitian or not positive; when dims, labels or
        orders do not fit together.
    """
    root = min(1.0, _root_fidelity(a, b, max_bytes, executor))
    return root**2 if squared else root


def trace_distance(a: QuantumState, b: QuantumState, *, max_bytes: int = _MAX_BYTES) -> float:
    """Return ``1/2 Tr |rho - sigma|``, between 0 and 1.

    For pure states this is ``sqrt(1 - F)``, computed as the length of the part of b that is orthogonal to a, which
    keeps its digits where F rounds to 1.
    """
    if isinstance(a, DensityMatrix) or isinstance(b, DensityMatrix):
        return min(1.0, float(np.abs(np.linalg.eigvalsh(_difference(a, b, max_bytes))).sum()) / 2)
    return _sine(a, b)


def bures_distance(a: QuantumState, b: QuantumState, *, max_bytes: int = _MAX_BYTES) -> float:
    """Return ``sqrt(2 (1 - sqrt F))``, between 0 and sqrt 2."""
    root, sine = _root_and_sine(a, b, max_bytes)
    return sine * math.sqrt(2 / (1 + root))  # 1 - r = (1 - r^2) / (1 + r)


def bures_angle(a: QuantumState, b: QuantumState, *, max_bytes: int = _MAX_BYTES) -> float:
    """Return ``arccos sqrt F`` in radians, between 0 and pi/2; for pure states the Fubini-Study angle."""
    root, sine = _root_and_sine(a, b, max_bytes)
    return math.atan2(sine, root)


def hilbert_schmidt_distance(a: QuantumState, b: QuantumState, *, max_bytes: int = _MAX_BYTES) -> float:
    """Return ``sqrt(Tr (rho - sigma)^2)``, the Frobenius norm of the difference (QuTiP gives its square)."""
    if isinstance(a, DensityMatrix) or isinstance(b, DensityMatrix):
        return float(np.linalg.norm(_difference(a, b, max_bytes)))
    return math.sqrt(2) * _sine(a, b)


def purity(a: QuantumState, sites: Sites | None = None, *, max_bytes: int = _MAX_BYTES) -> float:
    """Return ``Tr rho^2`` of the state, or of its reduced state on `sites`."""
    return float(np.linalg.norm(_marginal(a, sites, max_bytes)) ** 2)


def von_neumann_entropy(
    a: QuantumState, *, base: float = 2, sites: Sites | None = None, max_bytes: int = _MAX_BYTES
) -> float:
    """Return ``-Tr rho log rho`` of the state, or of its reduced state on `sites`, in logarithms to `base`."""
    return shannon_entropy(np.linalg.eigvalsh(_marginal(a, sites, max_bytes)), base)


def schmidt_spectrum(a: PureState, cut: int) -> NDArray[np.float64]:
    """Return the squared Schmidt coefficients across `cut`, largest first: the spectrum of either reduced state.

    Parameters
    ----------
    a
        A pure state.
    cut
        Number of sites on the left of the cut, 1 to n - 1.
    """
    return a.schmidt_values(cut) ** 2


def l1_coherence(a: QuantumState) -> float:
    """Return the l1 norm of coherence ``sum_{i != j} |rho_ij|``; for a pure state ``(sum |c|)^2 - 1``.

    See T. Baumgratz, M. Cramer and M. B. Plenio, Phys. Rev. Lett. 113, 140401 (2014).
    """
    if isinstance(a, DensityMatrix):
        matrix = _matrix(a, a.qubit_order, _MAX_BYTES)
        return float(np.abs(matrix).sum() - np.abs(matrix.diagonal()).sum())
    total, squares = 0.0, 0.0
    for block in _blocks(a):
        total += float(np.abs(block).sum())
        squares += float(np.vdot(block, block).real)
    return max(0.0, (total / checked_total(math.sqrt(squares))) ** 2 - 1)


def meyer_wallach(a: PureState) -> float:
    """Return ``Q = 2 (1 - mean of Tr rho_k^2)`` over the qubits: 0 for product states, 1 for GHZ states.

    See D. A. Meyer and N. R. Wallach, J. Math. Phys. 43, 4273 (2002), in the form of G. K. Brennen (2003).
    """
    if isinstance(a, DensityMatrix) or set(a.dims) != {2}:
        raise InvalidStateError("the Meyer-Wallach measure is one of pure states of qubits", next_step="use purity")
    return 2 * (1 - math.fsum(purity(a, site) for site in range(a.n_sites)) / a.n_sites)


def classical_fidelity(p: ArrayLike, q: ArrayLike) -> float:
    """Return ``(sum sqrt(p_i q_i))^2``, the squared Bhattacharyya coefficient of two distributions.

    It is the fidelity of diagonal density matrices; it says nothing about phases.

    Parameters
    ----------
    p, q
        Non-negative weights (probabilities or counts) of the same shape; each is divided by its sum.
    """
    first, second = np.asarray(p, np.float64), np.asarray(q, np.float64)
    if first.shape != second.shape or not all((x >= 0).all() and 0 < x.sum() < np.inf for x in (first, second)):
        raise InvalidStateError(
            "these are not two distributions over the same outcomes",
            next_step="pass arrays of one shape, without negative or missing values, that do not sum to zero",
        )
    return min(1.0, float(np.sqrt(first / first.sum()).ravel() @ np.sqrt(second / second.sum()).ravel()) ** 2)


def _root_fidelity(a: QuantumState, b: QuantumState, max_bytes: int, executor: Any = None) -> float:
    """Return ``sqrt F``, with its rounding."""
    if isinstance(a, StabilizerState) and isinstance(b, StabilizerState):
        _common_order(a, b)
        return math.sqrt(a.fidelity(b))
    a, b = _without_tableaus(a, b, max_bytes)
    if not isinstance(a, DensityMatrix):
        if not isinstance(b, DensityMatrix):
            return abs(overlap(a, b, executor=executor))
        a, b = b, a
    order = _common_order(a, b)
    if isinstance(b, DensityMatrix):
        # The singular values of sqrt(rho) sqrt(sigma), with both roots replaced by A, B where rho = A A^H.
        roots = [_root_factor(x, order, max_bytes) for x in (a, b)]
        return float(np.linalg.svd(roots[0].conj().T @ roots[1], compute_uv=False).sum())
    vector = _vector(b, order, max_bytes)
    return math.sqrt(max(0.0, float(np.vdot(vector, _matrix(a, order, max_bytes) @ vector).real)))


def _root_and_sine(a: QuantumState, b: QuantumState, max_bytes: int) -> tuple[float, float]:
    """Return ``sqrt F`` and ``sqrt(1 - F)``, each with all the digits that it can have."""
    root = min(1.0, _root_fidelity(a, b, max_bytes))
    if isinstance(a, DensityMatrix) or isinstance(b, DensityMatrix):
        return root, math.sqrt((1 - root) * (1 + root))
    return root, _sine(a, b)


def _sine(a: PureState, b: PureState) -> float:
    """Return ``sqrt(1 - |<a|b>|^2)`` as the norm of ``b - <a|b> a``."""
    if isinstance(a, StabilizerState) and isinstance(b, StabilizerState):
        _common_order(a, b)
        return math.sqrt(1 - a.fidelity(b))
    return _sine_of_amplitudes(*_without_tableaus(a, b, _MAX_BYTES))


def _sine_of_amplitudes(a: _Amplitudes, b: _Amplitudes) -> float:
    cosine = overlap(a, b)
    if isinstance(a, MatrixProductState) and isinstance(b, MatrixProductState):
        rest = tensor_chain.direct_sum([_unit_chain(b), _unit_chain(a)], np.array([1, -cosine]))
        # In canonical form the cancellation is in the center tensor itself, not in a difference of squares.
        tensor_chain.orthogonalize(rest, 0)
        return min(1.0, float(np.linalg.norm(rest[0])))
    norms = [x.norm() for x in (a, b)]
    squares = 0.0
    for left, right in _aligned_blocks(a, b):
        orthogonal = right / norms[1] - left * (cosine / norms[0])
        squares += float(np.vdot(orthogonal, orthogonal).real)
    return min(1.0, math.sqrt(squares))


def _common_order(a: QuantumState, b: QuantumState) -> QubitOrder:
    """Return the qubit order in which both states can be compared, after checking that they can."""
    for state in (a, b):
        if not isinstance(state, QuantumState):
            raise InvalidStateError(
                f"a {type(state).__name__} is not a quantum state",
                next_step="wrap an array in StateVector(...) or DensityMatrix(...), and take .quantum of a memory",
            )
    if a.dims != b.dims:
        raise InvalidStateError(
            f"states of dims {a.dims} and {b.dims} cannot be compared", next_step="compare states of the same sites"
        )
    if a.labels is not None and b.labels is not None and a.labels != b.labels:
        raise InvalidStateError(
            f"the sites are labelled {a.labels} and {b.labels}",
            next_step="bring them into one order, or drop the labels",
        )
    orders: list[QubitOrder] = [x.qubit_order for x in (a, b) if isinstance(x, (StateVector, DensityMatrix))]
    if "unstated" in orders and orders != ["unstated", "unstated"]:
        raise InvalidStateError(
            "one state has an unstated qubit order", next_step='say it: state.with_qubit_order("big")'
        )
    return orders[0] if orders else "big"


def _without_tableaus(a: Any, b: Any, max_bytes: int) -> tuple[Any, Any]:
    """Return two states, of which one at most is a tableau, with that one made dense in the order of the other."""
    order = _common_order(a, b)
    if isinstance(a, StabilizerState):
        return a.to_dense(qubit_order=order, max_bytes=max_bytes), b
    return a, b.to_dense(qubit_order=order, max_bytes=max_bytes) if isinstance(b, StabilizerState) else b


def _unit_chain(a: MatrixProductState) -> list[Array]:
    """Return tensors of the normalised state in double precision."""
    tensors = [tensor.astype(np.complex128) for tensor in a.tensors]
    tensor_chain.normalize(tensors, 0)
    return tensors


def _blocks(a: PureState) -> Iterator[Array]:
    """Yield the amplitudes in double precision, in the order of their index."""
    if isinstance(a, StabilizerState):
        yield a.to_dense(qubit_order="big").amplitudes
    elif isinstance(a, MatrixProductState):
        yield from a.amplitude_blocks(qubit_order="big")
    else:
        for part in parts(math.prod(a.dims)):
            yield a.block(part.start, part.stop).astype(double(a.dtype), copy=False)


def _aligned_blocks(a: _Amplitudes, b: _Amplitudes) -> Iterator[tuple[Array, Array]]:
    """Yield the same amplitudes of both states in double precision; one of them is a state vector."""
    if isinstance(a, MatrixProductState):
        yield from ((x, y) for y, x in _aligned_blocks(b, a))
        return
    if isinstance(b, MatrixProductState):
        blocks = b.amplitude_blocks(qubit_order=a.qubit_order)
    elif a.qubit_order == b.qubit_order:
        blocks = (b.block(part.start, part.stop) for part in parts(math.prod(b.dims)))
    else:
        blocks = reversed_blocks(b.amplitudes, b.dims if b.qubit_order == "big" else b.dims[::-1])
    start = 0
    for block in blocks:
        other = a.block(start, start + len(block))
        start += len(block)
        yield other.astype(double(other.dtype), copy=False), block.astype(double(block.dtype), copy=False)


def _vector(a: PureState, order: QubitOrder, max_bytes: int) -> Array:
    """Return the normalised amplitudes in double precision."""
    dense = a if isinstance(a, StateVector) else a.to_dense(qubit_order=order, max_bytes=max_bytes)
    dense = dense if dense.qubit_order == order else dense.reordered(order)
    amplitudes: Array = dense.amplitudes.astype(double(dense.dtype)) / checked_total(dense.norm())
    return amplitudes


def _matrix(a: QuantumState, order: QubitOrder, max_bytes: int) -> Array:
    """Return the normalised density matrix in double precision, checked to be Hermitian."""
    dimension = math.prod(a.dims)
    check_budget(dimension**2 * double(a.dtype).itemsize, max_bytes, "a density matrix in double precision")
    if not isinstance(a, DensityMatrix):
        vector = _vector(a, order, max_bytes)
        return vector[:, None] * vector.conj()
    trace = checked_total(a.trace().real)
    if not a.is_hermitian(default_tolerance(a.dtype, dimension) * max(1.0, trace)):
        raise InvalidStateError("the matrix is not Hermitian", next_step="see state.problems()")
    dense = a if a.qubit_order == order else a.reordered(order)
    matrix: Array = dense.matrix.astype(double(a.dtype)) / trace
    return matrix


def _root_factor(a: DensityMatrix, order: QubitOrder, max_bytes: int) -> Array:
    """Return A with ``rho = A A^H``; eigenvalues below zero by rounding are taken as zero."""
    values, vectors = np.linalg.eigh(_matrix(a, order, max_bytes))
    if values[0] < -default_tolerance(a.dtype, len(values)):
        raise InvalidStateError(f"the matrix has the eigenvalue {values[0]:.3g}", next_step="see state.problems()")
    factor: Array = vectors * np.sqrt(np.maximum(values, 0))
    return factor


def _difference(a: QuantumState, b: QuantumState, max_bytes: int) -> Array:
    """Return ``rho - sigma`` in double precision."""
    order = _common_order(a, b)
    return _matrix(a, order, max_bytes) - _matrix(b, order, max_bytes)


def _marginal(a: QuantumState, sites: Sites | None, max_bytes: int) -> Array:
    """Return a Hermitian matrix with the non-zero spectrum of the normalised reduced state on `sites` (None: all).

    The two sides of a pure state have the same spectrum, so that the smaller one is taken.
    """
    if isinstance(a, DensityMatrix):
        rho = a if sites is None else a.reduced_density_matrix(sites)
        return _matrix(rho, rho.qubit_order, max_bytes)
    kept = sorted(range(a.n_sites) if sites is None else checked_sites(sites, a.n_sites))
    traced = [site for site in range(a.n_sites) if site not in kept]
    if not traced:
        return np.ones((1, 1)) if isinstance(a, StabilizerState) else np.full((1, 1), abs(overlap(a, a)))
    if isinstance(a, MatrixProductState):
        for side in (kept, traced):
            if side == list(range(len(side))):
                return np.diag(a.schmidt_values(len(side)) ** 2)
    smaller = min(kept, traced, key=lambda side: math.prod(a.dims[site] for site in side))
    dimension = math.prod(a.dims[site] for site in smaller)
    check_budget(dimension**2 * double(a.dtype).itemsize, max_bytes, "the reduced density matrix")
    rho = a.reduced_density_matrix(smaller, dtype=None if isinstance(a, StabilizerState) else double(a.dtype))
    return _matrix(rho, "big", max_bytes)
