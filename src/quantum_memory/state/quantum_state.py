"""Dense quantum states: state vectors and density matrices, with the order of their qubits written beside them."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import numpy as np

from quantum_memory.errors import InvalidStateError
from quantum_memory.state.dense_array import DenseArray, SquareMatrix
from quantum_memory.state.sites import (
    BLOCK,
    check_budget,
    checked_array,
    checked_cut,
    checked_operator,
    checked_shots,
    checked_sites,
    checked_total,
    default_tolerance,
    double,
    generator,
    kept_real,
    parts,
    positions,
    shannon_entropy,
    vector_problems,
)
from quantum_memory.state.windows import windows_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, DTypeLike, NDArray

    from quantum_memory.state.dense_array import QubitOrder
    from quantum_memory.state.sites import Array, Digits, Sites

_LARGEST_CHECKED = 1 << 11  # dimension up to which `DensityMatrix.problems` computes eigenvalues


class _DenseState(DenseArray, ABC):
    """What state vectors and density matrices share: what is measured on them."""

    def probabilities(self) -> NDArray[np.float64]:
        """Return the measurement probability of each basis state, as it stands: nothing is normalised."""
        probabilities = np.empty(len(self._array))
        for part in parts(len(probabilities)):
            probabilities[part] = self._weights(part)
        return probabilities

    def sample(self, shots: int, seed: Any = None) -> NDArray[np.uint8]:
        """Draw measurement outcomes of all sites from the normalised state.

        Parameters
        ----------
        shots
            Number of outcomes.
        seed
            Anything that `numpy.random.default_rng` takes.

        Returns
        -------
        ndarray of uint8, shape (shots, n_sites)
            Column i belongs to site i.
        """
        significant = self._significant_dims()
        # First the block of each outcome, then its place there, so that no cumulative sum of the whole is kept.
        slices = list(parts(len(self._array)))
        upper = np.cumsum([self._positive_weights(part).sum() for part in slices])
        total = checked_total(float(upper[-1]))
        draws = generator(seed).random(checked_shots(shots, self.dims)) * total
        blocks = positions(upper, draws)
        indices = np.empty(len(draws), np.int64)
        for block in np.unique(blocks):
            here = blocks == block
            below = upper[block - 1] if block else 0.0
            within = positions(self._positive_weights(slices[block]).cumsum(), draws[here] - below)
            indices[here] = slices[block].start + within
        digits = np.stack(np.unravel_index(indices, significant), axis=1).astype(np.uint8)
        return digits if self.qubit_order == "big" else np.ascontiguousarray(digits[:, ::-1])

    def reduced_density_matrix(self, sites: Sites, *, dtype: DTypeLike | None = None) -> DensityMatrix:
        """Return the partial trace over all but `sites`, as it stands: its trace is that of this state.

        The result is "big", its sites are `sites` in the order given; it is computed in double precision and rounded
        to `dtype`, by default that of this state.
        """
        where = checked_sites(sites, self.n_sites)
        kind = np.dtype(self.dtype if dtype is None else dtype)
        matrix = kept_real(self._reduced(where), kind, "entries")
        return DensityMatrix.on_sites(matrix.astype(kind), where, self.dims, self.labels)

    def expectation(self, operator: ArrayLike, sites: Sites) -> complex:
        """Return the expectation value ``Tr(O rho) / Tr(rho)`` of an operator on a few sites.

        Parameters
        ----------
        operator
            Matrix on `sites`, the first of them the most significant digit of its rows and columns; or an `Operator`,
            whose sites are `sites`.
        sites
            One site or several different ones.
        """
        where = checked_sites(sites, self.n_sites)
        matrix = checked_operator(operator, [self.dims[site] for site in where])
        reduced = self._reduced(where)
        checked_total(abs(reduced.trace()))
        return complex((matrix * reduced.T).sum() / reduced.trace())

    def _positive_weights(self, part: slice) -> NDArray[np.float64]:
        """Return the weights of outcomes in `part`; those below zero by rounding are taken as zero."""
        weights = self._weights(part)
        if weights.min() < -default_tolerance(self.dtype, len(self._array)):
            raise InvalidStateError("there are negative probabilities", next_step="see state.problems()")
        return np.maximum(weights, 0)

    @abstractmethod
    def _weights(self, part: slice) -> NDArray[np.float64]:
        """Return the probabilities, as they stand, of the basis states in `part`."""

    @abstractmethod
    def _reduced(self, sites: tuple[int, ...]) -> Array:
        """Return the partial trace over all but `sites`, in their order, in double precision."""


class StateVector(_DenseState):
    """A pure state: one amplitude for each basis state.

    Parameters
    ----------
    amplitudes
        1-D array of float16, float32, float64, complex64 or complex128, of any byte order and stride. It is not copied
        and not checked: what is given is what is kept. `problems` says what is unphysical. Of an array of Dask, or of
        another that is not in memory, a `ShardedStateVector` is made.
    qubit_order
        See `QubitOrder`.
    dims
        Dimension of each site, site 0 first. By default the sites are qubits.
    labels
        A distinct name for each site.

    Attributes
    ----------
    qubit_order : {"little", "big", "unstated"}
    dims : tuple of int
    labels : tuple of str or None

    Raises
    ------
    InvalidStateError
        When dtype, shape, dims or labels do not describe a state vector.
    """

    def __new__(cls, amplitudes: Any = None, **options: Any) -> StateVector:  # noqa: ARG004 - another class
        """Make one that leaves its amplitudes where they are, of amplitudes that are elsewhere."""
        if cls is StateVector and windows_of(amplitudes) is not None:
            from quantum_memory.state.sharded_state import ShardedStateVector  # noqa: PLC0415 - it is one of these

            return super().__new__(ShardedStateVector)
        return super().__new__(cls)

    def __init__(
        self,
        amplitudes: ArrayLike,
        *,
        qubit_order: QubitOrder,
        dims: Sequence[int] | None = None,
        labels: Sequence[str] | None = None,
    ) -> None:
        super().__init__(self._checked(amplitudes), qubit_order, dims, labels)

    @property
    def amplitudes(self) -> Array:
        """The array of amplitudes, shape (dimension,)."""
        return self._array

    def block(self, start: int, stop: int) -> Array:
        """Return amplitudes ``start:stop``."""
        return self._array[start:stop]

    def norm(self) -> float:
        """Return the norm ``sqrt(sum |c|^2)``, accumulated in double precision."""
        return math.sqrt(math.fsum(self._weights(part).sum() for part in parts(len(self._array))))

    def normalized(self) -> StateVector:
        """Return a new state: the amplitudes divided by their norm, in the same dtype."""
        norm = checked_total(self.norm())
        whole = self._whole()
        return self._like(np.divide(whole, norm, out=np.empty_like(whole)), self.qubit_order)

    def amplitude(self, digits: Digits) -> complex:
        """Return the amplitude of one basis state; see `index` for the order of the digits."""
        return complex(self._array[self.index(digits)])

    def schmidt_values(self, cut: int) -> NDArray[np.float64]:
        """Return the Schmidt coefficients of the normalised state, largest first; their squares sum to 1.

        Parameters
        ----------
        cut
            Number of sites on the left of the cut, 1 to `n_sites` - 1.
        """
        number = checked_cut(cut, self.n_sites)
        rows = math.prod(self.dims[:number])
        if self._significant_dims() is self.dims:
            matrix = self._whole().reshape(rows, -1)
        else:
            matrix = self._whole().reshape(-1, rows)
        norm = checked_total(self.norm())
        values: NDArray[np.float64] = np.linalg.svd(matrix.astype(double(self.dtype)), compute_uv=False)
        return values / norm

    def entropy(self, cut: int, base: float = 2) -> float:
        """Return the entanglement entropy across `cut` (see `schmidt_values`), in logarithms to `base`."""
        return shannon_entropy(self.schmidt_values(cut) ** 2, base)

    def to_density_matrix(self, max_bytes: int = 1 << 30) -> DensityMatrix:
        """Return ``|psi><psi|``.

        Raises
        ------
        BudgetError
            Before anything is allocated, when the matrix is larger than `max_bytes`.
        """
        check_budget(len(self._array) * self.nbytes, max_bytes, "the density matrix")
        whole = self._whole()
        matrix = np.empty((len(whole), len(whole)), self.dtype)
        np.multiply(whole[:, None], whole.conj(), out=matrix)
        return DensityMatrix(matrix, qubit_order=self.qubit_order, dims=self.dims, labels=self.labels)

    def problems(self, atol: float | None = None) -> list[str]:
        """Say in plain sentences what is unphysical; an empty list means nothing is.

        Parameters
        ----------
        atol
            How far the norm may be from 1; by default what `dtype` can be expected to keep.
        """
        bad = sum(int(np.count_nonzero(~np.isfinite(self._array[part]))) for part in parts(len(self._array)))
        norm = math.nan if bad else self.norm()
        return vector_problems(bad, norm, self.dtype, len(self._array), atol)

    @staticmethod
    def _checked(amplitudes: Any) -> Array:
        return checked_array(amplitudes, 1, "a state vector")

    def _weights(self, part: slice) -> NDArray[np.float64]:
        block = self._array[part].astype(double(self.dtype))
        weights: NDArray[np.float64] = block.real**2 + block.imag**2
        return weights

    def _reduced(self, sites: tuple[int, ...]) -> Array:
        others = [site for site in range(self.n_sites) if site not in sites]
        kept = math.prod(self.dims[site] for site in sites)
        tensor = self.site_tensor().transpose([*others, *sites])
        outer = 0  # leading axes to loop over, so that what is left fits in a block
        while outer < len(others) and math.prod(tensor.shape[outer:]) > BLOCK:
            outer += 1
        matrix = np.zeros((kept, kept), double(self.dtype))
        for position in np.ndindex(tensor.shape[:outer]):
            rows = tensor[position].reshape(-1, kept).astype(matrix.dtype, copy=False)
            matrix += rows.T @ rows.conj()
        return matrix


class DensityMatrix(SquareMatrix, _DenseState):
    """A mixed state: a square matrix over the basis states.

    Neither trace, Hermiticity nor positivity is required: what is given is what is kept, and `problems` says what is
    unphysical.

    Parameters
    ----------
    matrix
        Square 2-D array of float16, float32, float64, complex64 or complex128; not copied.
    qubit_order, dims, labels
        As for `StateVector`; rows and columns have the same.

    Attributes
    ----------
    qubit_order : {"little", "big", "unstated"}
    dims : tuple of int
    labels : tuple of str or None

    Raises
    ------
    InvalidStateError
        When dtype, shape, dims or labels do not describe a density matrix.
    """

    _WHAT = "a density matrix"

    @classmethod
    def on_sites(
        cls, matrix: Array, sites: Sequence[int], dims: Sequence[int], labels: Sequence[str] | None
    ) -> DensityMatrix:
        """Return `matrix` as a "big" density matrix of `sites` of a state with `dims` and `labels`."""
        names = None if labels is None else [labels[site] for site in sites]
        return cls(matrix, qubit_order="big", dims=[dims[site] for site in sites], labels=names)

    def problems(self, atol: float | None = None) -> list[str]:
        """Say in plain sentences what is unphysical; an empty list means nothing is.

        Eigenvalues are computed up to dimension 2048 only.

        Parameters
        ----------
        atol
            How far the trace may be from 1, entries from their mirror images, eigenvalues below 0; by default what
            `dtype` can be expected to keep.
        """
        if odd := self._not_finite():
            return odd
        found = []
        tolerance, trace = self._tolerance(atol), self.trace()
        if abs(trace - 1) > tolerance:
            found.append(f"the trace is {trace:.9g}, not 1")
        if not self.is_hermitian(tolerance):
            found.append("the matrix is not Hermitian")
        elif len(self._array) <= _LARGEST_CHECKED and (least := self.eigenvalues(tolerance)[0]) < -tolerance:
            found.append(f"there are negative eigenvalues, the least {least:.3g}")
        return found

    def _weights(self, part: slice) -> NDArray[np.float64]:
        return self._array.diagonal()[part].real.astype(np.float64)

    def _reduced(self, sites: tuple[int, ...]) -> Array:
        n = self.n_sites
        columns = [n + site if site in sites else site for site in range(n)]  # a repeated index is summed over
        kept = math.prod(self.dims[site] for site in sites)
        axes = [*sites, *(n + site for site in sites)]
        traced: Array = np.einsum(self.site_tensor(), [*range(n), *columns], axes, dtype=double(self.dtype))
        return traced.reshape(kept, kept)
