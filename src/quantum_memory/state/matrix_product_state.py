"""Matrix product states: states of many sites whose entanglement is limited, in memory that grows with it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, NoReturn, TypeAlias

import numpy as np

from quantum_memory.errors import InvalidStateError
from quantum_memory.state import tensor_chain
from quantum_memory.state.arrays import same_bits
from quantum_memory.state.quantum_state import DensityMatrix, StateVector
from quantum_memory.state.sites import (
    check_budget,
    checked_array,
    checked_cut,
    checked_digits,
    checked_labels,
    checked_operator,
    checked_shots,
    checked_sites,
    default_tolerance,
    double,
    generator,
    kept_real,
    shannon_entropy,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import ArrayLike, DTypeLike, NDArray

    from quantum_memory.state.dense_array import QubitOrder
    from quantum_memory.state.sites import Array, Digits, Sites

CanonicalForm: TypeAlias = Literal["left", "right", "mixed"]


class MatrixProductState:
    """An immutable matrix product state with open boundaries.

    The amplitude of the digits ``s_0 ... s_{n-1}`` is ``exp(log_scale) A_0[:, s_0, :] @ ... @ A_{n-1}[:, s_{n-1}, :]``.
    Site i is qubit i, so a qubit order is needed only where the state is made dense.

    Numbers (inner products, entropies, probabilities) are computed in double precision; a state that is computed is
    rounded once, at the end, to the dtype of the state that it came from.

    Parameters
    ----------
    tensors
        One array of shape (left bond, physical, right bond) per site, site 0 first, all of one dtype (float16,
        float32, float64, complex64 or complex128); the outer bonds have dimension 1. Arrays are not copied; the views
        kept here are read-only.
    labels
        A distinct name for each site.
    canonical_form
        A claim, which `problems` checks: every tensor left of the orthogonality center is a left isometry, every one
        right of it a right isometry. "left" puts the center at the last site, "right" at the first.
    orthogonality_center
        The site of the center; needed for "mixed", otherwise it follows.
    log_scale
        Natural logarithm of a factor in front of the contraction.

    Attributes
    ----------
    tensors : tuple of ndarray
    labels : tuple of str or None
    canonical_form : {"left", "right", "mixed"} or None
    orthogonality_center : int or None
    log_scale : float

    Raises
    ------
    InvalidStateError
        When the tensors do not form a chain, or the claims contradict each other.
    """

    __hash__ = None  # type: ignore[assignment]

    def __init__(
        self,
        tensors: Sequence[ArrayLike],
        *,
        labels: Sequence[str] | None = None,
        canonical_form: CanonicalForm | None = None,
        orthogonality_center: int | None = None,
        log_scale: float = 0.0,
    ) -> None:
        self.tensors: Final = tuple(array.view() for array in tensor_chain.checked_chain(tensors))
        for view in self.tensors:
            view.flags.writeable = False
        self.labels: Final = checked_labels(labels, len(self.tensors))
        self.canonical_form: Final = canonical_form
        self.orthogonality_center: Final = _checked_center(canonical_form, orthogonality_center, len(self.tensors))
        self.log_scale: Final = float(log_scale)
        if not math.isfinite(self.log_scale):
            raise InvalidStateError(f"log_scale is {log_scale}", next_step="pass the logarithm of a finite factor")

    @classmethod
    def from_product(cls, vectors: Sequence[ArrayLike]) -> MatrixProductState:
        """Return the product state of one vector per site (bond dimension 1)."""
        return cls([checked_array(v, 1, f"the vector of site {i}")[None, :, None] for i, v in enumerate(vectors)])

    @classmethod
    def from_dense(cls, state: StateVector, *, max_bond: int | None = None, cutoff: float = 0.0) -> MatrixProductState:
        """Return `state` as a left-canonical matrix product state, by a sweep of singular value decompositions.

        Works in the precision of the state (half in single), in a few times its memory.

        Parameters
        ----------
        state
            Its qubit order must be stated; site i becomes site i.
        max_bond, cutoff
            As for `truncate`.
        """
        if not isinstance(state, StateVector):
            raise InvalidStateError(f"a {type(state).__name__} is no state vector", next_step="give a StateVector")
        tensor = state.site_tensor().astype(np.result_type(state.dtype, np.float32), order="C", copy=False)
        tensor_chain.refuse_non_finite([tensor])
        chain = tensor_chain.factorize(tensor, tensor_chain.Limit(state.dtype, max_bond, cutoff))
        return cls([t.astype(state.dtype, copy=False) for t in chain], labels=state.labels, canonical_form="left")

    @classmethod
    def superpose(cls, weights: Sequence[complex], states: Sequence[MatrixProductState]) -> MatrixProductState:
        """Return ``sum_k weights[k] states[k]`` exactly: bonds add up, nothing is compressed or normalised.

        Raises
        ------
        InvalidStateError
            When dims, dtypes or labels differ, or complex weights meet a real dtype.
        """
        if not states or len(weights) != len(states):
            raise InvalidStateError("a superposition needs one weight per state", next_step="pass lists of one length")
        first = states[0]
        if any((s.dims, s.dtype, s.labels) != (first.dims, first.dtype, first.labels) for s in states):
            raise InvalidStateError(
                "only states of the same dims, dtype and labels can be superposed", next_step="convert with astype"
            )
        log_scale = max(s.log_scale for s in states)
        factors = np.asarray(weights) * np.exp([s.log_scale - log_scale for s in states])
        factors = kept_real(factors, first.dtype, "weights").astype(first.dtype)
        tensors = tensor_chain.direct_sum([s.tensors for s in states], factors)
        return cls(tensors, labels=first.labels, log_scale=log_scale)

    @property
    def n_sites(self) -> int:
        """Number of sites."""
        return len(self.tensors)

    @property
    def dims(self) -> tuple[int, ...]:
        """Physical dimension of each site."""
        return tuple(t.shape[1] for t in self.tensors)

    @property
    def bond_dims(self) -> tuple[int, ...]:
        """Dimension of each of the `n_sites` - 1 bonds."""
        return tuple(t.shape[2] for t in self.tensors[:-1])

    @property
    def max_bond_dim(self) -> int:
        """The largest bond dimension, 1 for a single site."""
        return max(self.bond_dims, default=1)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The one dtype of all tensors."""
        return self.tensors[0].dtype

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(t.nbytes for t in self.tensors)

    def __repr__(self) -> str:
        return f"MatrixProductState({self.n_sites} sites, bond dimension {self.max_bond_dim}, {self.dtype})"

    def __array__(self, *_: Any, **__: Any) -> NoReturn:
        raise InvalidStateError("a matrix product state is no array", next_step='state.to_dense(qubit_order="big")')

    def __eq__(self, other: object) -> bool:
        """Tell whether tensors, labels, claims and log_scale agree in every bit; states are not hashable."""
        if not isinstance(other, MatrixProductState):
            return NotImplemented
        return (
            self.n_sites == other.n_sites
            and self.labels == other.labels
            and self.canonical_form == other.canonical_form
            and self.orthogonality_center == other.orthogonality_center
            and self.log_scale.hex() == other.log_scale.hex()
            and all(same_bits(a, b) for a, b in zip(self.tensors, other.tensors, strict=True))
        )

    def astype(self, dtype: DTypeLike) -> MatrixProductState:
        """Return the state with tensors of another dtype; complex to real is refused."""
        target = np.dtype(dtype)
        if self.dtype.kind == "c" and target.kind != "c":
            raise InvalidStateError(
                f"{self.dtype} to {target} would drop imaginary parts", next_step="choose a complex dtype"
            )
        return self._replaced([t.astype(target) for t in self.tensors])

    def canonicalize(self, center: int = 0) -> MatrixProductState:
        """Return the state in canonical form about `center`, where its norm then lives; `log_scale` is kept.

        The form is "right" about the first site, "left" about the last, "mixed" elsewhere.
        """
        (site,) = checked_sites(center, self.n_sites)
        tensors = self._double()
        tensor_chain.orthogonalize(tensors, site)
        return self._rounded(tensors, site)

    def truncate(self, max_bond: int | None = None, cutoff: float = 0.0, renormalize: bool = False) -> Truncation:
        """Discard the smallest Schmidt values of every cut; the result is left-canonical.

        Parameters
        ----------
        max_bond
            Largest bond dimension to keep; None for no limit.
        cutoff
            Weight (sum of squared Schmidt values relative to the total) that may be discarded at each cut. Values
            within rounding of zero always go.
        renormalize
            Give the result the norm that the state had; otherwise it is the projection, which is shorter.

        Returns
        -------
        Truncation
            The sweep is a sequence of nested orthogonal projections, so that ``prod (1 - w)`` over the discarded
            weights is the fidelity with the original, up to the rounding of `dtype`.
        """
        tensors = self._double()
        weights = tensor_chain.truncate(tensors, tensor_chain.Limit(self.dtype, max_bond, cutoff))
        bound = math.prod(1 - weight for weight in weights)
        if renormalize:
            tensors[-1] = tensors[-1] / math.sqrt(bound)
        return Truncation(self._rounded(tensors, self.n_sites - 1), weights, bound)

    def log_norm(self) -> float:
        """Return the natural logarithm of the norm, -inf for the zero state; it never overflows."""
        tensors = self._double()
        mantissa, log = tensor_chain.log_inner(tensors, tensors)
        return self.log_scale + (math.log(mantissa.real) + log) / 2 if mantissa.real > 0 else -math.inf

    def norm(self) -> float:
        """Return the norm ``sqrt(<self|self>)``."""
        return tensor_chain.exp(self.log_norm())

    def normalized(self) -> MatrixProductState:
        """Return the state with norm 1; only `log_scale` changes, the tensors stay as they are."""
        log_norm = self.log_norm()
        if log_norm == -math.inf:
            raise InvalidStateError("the zero state cannot be normalised", next_step="check how the state was made")
        return self._replaced(self.tensors, log_scale=self.log_scale - log_norm)

    def inner(self, other: MatrixProductState) -> complex:
        """Return ``<self|other>``."""
        if self.dims != other.dims:
            raise InvalidStateError(
                f"states of dims {self.dims} and {other.dims} have no inner product", next_step="compare like with like"
            )
        mantissa, log = tensor_chain.log_inner(self._double(), other._double())
        return mantissa * tensor_chain.exp(log + self.log_scale + other.log_scale)

    def expectation(self, operator: ArrayLike, sites: Sites) -> complex:
        """Return ``<psi|O|psi> / <psi|psi>``.

        Parameters
        ----------
        operator
            Matrix on `sites`, the first of them the most significant digit of its rows and columns; or an `Operator`,
            whose sites are `sites`.
        sites
            One site or several different ones, adjacent or not.
        """
        where = checked_sites(sites, self.n_sites)
        matrix = checked_operator(operator, [self.dims[site] for site in where])
        return complex((matrix * tensor_chain.reduced(self._double(), where).T).sum())

    def reduced_density_matrix(self, sites: Sites, *, dtype: DTypeLike | None = None) -> DensityMatrix:
        """Return the partial trace of ``|psi><psi|`` over all but `sites`; its trace is the squared norm.

        The result is "big", its sites are `sites` in the order given; it is computed in double precision and rounded
        to `dtype`, by default that of this state.
        """
        where = checked_sites(sites, self.n_sites)
        matrix = tensor_chain.reduced(self._double(), where) * tensor_chain.exp(2 * self.log_norm())
        kind = np.dtype(self.dtype if dtype is None else dtype)
        return DensityMatrix.on_sites(kept_real(matrix, kind, "entries").astype(kind), where, self.dims, self.labels)

    def sample(self, shots: int, seed: Any = None) -> NDArray[np.uint8]:
        """Draw measurement outcomes of all sites, exactly, from the normalised state.

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
        rng = generator(seed)
        return tensor_chain.sample(self._double(), checked_shots(shots, self.dims), rng)

    def schmidt_values(self, cut: int) -> NDArray[np.float64]:
        """Return the Schmidt coefficients of the normalised state, largest first; their squares sum to 1.

        Parameters
        ----------
        cut
            Number of sites on the left of the cut, 1 to `n_sites` - 1.
        """
        center = checked_cut(cut, self.n_sites) - 1
        tensors = self._double()
        tensor_chain.normalize(tensors, center)
        matrix = tensors[center].reshape(-1, tensors[center].shape[2])
        values: NDArray[np.float64] = np.linalg.svd(matrix, compute_uv=False)
        return values

    def entropy(self, cut: int, base: float = 2) -> float:
        """Return the entanglement entropy across `cut` (see `schmidt_values`), in logarithms to `base`."""
        return shannon_entropy(self.schmidt_values(cut) ** 2, base)

    def entropies(self, base: float = 2) -> NDArray[np.float64]:
        """Return the entanglement entropies across the cuts 1 to `n_sites` - 1, in one sweep."""
        return np.array([shannon_entropy(s**2, base) for s in tensor_chain.schmidt_values(self._double())])

    def amplitude(self, digits: Digits) -> complex:
        """Return the amplitude of one basis state; digit k belongs to site k."""
        where = checked_digits(digits, self.dims)
        chosen = [tensor[:, digit : digit + 1] for tensor, digit in zip(self._double(), where, strict=True)]
        mantissa, log = tensor_chain.log_inner([np.ones((1, 1, 1))] * self.n_sites, chosen)
        return mantissa * tensor_chain.exp(log + self.log_scale)

    def amplitude_blocks(self, *, qubit_order: QubitOrder, max_bytes: int = 1 << 30) -> Iterator[Array]:
        """Yield all amplitudes in the order of their index, in double precision, in blocks of bounded size.

        Parameters
        ----------
        qubit_order
            "little": site 0 is the least significant digit of the index; "big": the most significant.
        max_bytes
            Largest size of the two halves that the state is contracted to, each about the square root of the whole.

        Raises
        ------
        BudgetError
            Before anything is allocated, when the halves are larger.
        """
        if qubit_order not in {"little", "big"}:
            raise InvalidStateError(
                f"a dense form has a qubit order, and {qubit_order!r} is none", next_step='pass "little" or "big"'
            )
        half = self.n_sites // 2
        rows = math.prod(self.dims[:half]) + math.prod(self.dims[half:])
        needed = rows * self.tensors[half].shape[0] * double(self.dtype).itemsize
        check_budget(needed, max_bytes, "contracting the state to two halves")
        tensors = self._double()
        if qubit_order == "little":
            tensors = [t.transpose(2, 1, 0) for t in reversed(tensors)]
        return tensor_chain.amplitude_blocks(tensors, self.log_scale)

    def to_dense(self, *, qubit_order: QubitOrder, max_bytes: int = 1 << 30) -> StateVector:
        """Return all amplitudes as a `StateVector`, which is nearly all the memory that this needs.

        Parameters
        ----------
        qubit_order
            "little": site 0 is the least significant digit of the index; "big": the most significant.
        max_bytes
            Largest size of the result, in bytes.

        Raises
        ------
        BudgetError
            Before anything is allocated, when the result is larger.
        """
        size = math.prod(self.dims)
        check_budget(size * self.dtype.itemsize, max_bytes, f"the dense form of {self.n_sites} sites in {self.dtype}")
        blocks = self.amplitude_blocks(qubit_order=qubit_order, max_bytes=max_bytes)
        amplitudes = np.empty(size, self.dtype)
        start = 0
        for block in blocks:
            amplitudes[start : start + len(block)] = block
            start += len(block)
        return StateVector(amplitudes, qubit_order=qubit_order, dims=self.dims, labels=self.labels)

    def apply(
        self, gate: ArrayLike, sites: int | tuple[int, int], *, max_bond: int | None = None, cutoff: float = 0.0
    ) -> MatrixProductState:
        """Return the state after a gate on one site, or on any two different ones; it need not be unitary.

        Distant sites are brought together by exchanging neighbours, and back. Without `max_bond` and `cutoff` the
        result is exact up to rounding.

        Parameters
        ----------
        gate
            Matrix on `sites`, the first of them the most significant digit of its rows and columns; or an `Operator`,
            whose sites are `sites`.
        sites
            One site or two.
        max_bond, cutoff
            As for `truncate`, at each bond that the gate or an exchange changes.

        Raises
        ------
        InvalidStateError
            When a complex gate meets a real dtype: convert the state with `astype` first.
        """
        where = checked_sites(sites, self.n_sites)
        dims = [self.dims[site] for site in where]
        matrix = kept_real(checked_operator(gate, dims), self.dtype, "gate")
        tensors = self._double()
        if len(where) == 1:
            (site,) = where
            tensors[site] = np.tensordot(tensors[site], matrix, (1, 1)).transpose(0, 2, 1)
            return self._rounded(tensors, site if site == self.orthogonality_center else None)
        if len(where) > 2:
            raise InvalidStateError(f"a gate acts on one site or two, not {len(where)}", next_step="decompose the gate")
        legs = matrix.reshape(dims * 2)
        low, high = sorted(where)
        legs = legs if where == (low, high) else legs.transpose(1, 0, 3, 2)
        tensor_chain.apply_to_pair(tensors, legs, low, high, tensor_chain.Limit(self.dtype, max_bond, cutoff))
        return self._rounded(tensors, high)

    def problems(self, atol: float | None = None) -> list[str]:
        """Say in plain sentences what is unphysical or falsely claimed; an empty list means nothing is.

        Parameters
        ----------
        atol
            How far the norm may be from 1 and an isometry from one; by default what `dtype` can be expected to keep.
        """
        bad = sum(int(np.count_nonzero(~np.isfinite(t))) for t in self.tensors)
        if bad:
            return [f"{bad} of the tensors' entries are not finite"]
        found = []
        tolerance = default_tolerance(self.dtype, math.prod(self.dims)) if atol is None else atol
        log_norm = self.log_norm()
        if abs(math.expm1(min(log_norm, 1.0))) > tolerance:
            found.append(f"the norm is exp({log_norm:.9g}), not 1")
        if self.orthogonality_center is not None:
            found += [
                f"tensor {site} is not the {side} isometry that the canonical form claims"
                for site, side, matrix in tensor_chain.claimed_isometries(self._double(), self.orthogonality_center)
                if np.abs(matrix.conj().T @ matrix - np.eye(matrix.shape[1])).max() > tolerance
            ]
        return found

    def _replaced(self, tensors: Sequence[Array], **changes: Any) -> MatrixProductState:
        """Return `tensors` with the labels, claims and log_scale of this state, but for `changes`."""
        kept = {
            "labels": self.labels,
            "canonical_form": self.canonical_form,
            "orthogonality_center": self.orthogonality_center,
            "log_scale": self.log_scale,
        }
        return MatrixProductState(tensors, **(kept | changes))

    def _rounded(self, tensors: Sequence[Array], center: int | None) -> MatrixProductState:
        """Return computed tensors in the dtype of this state, canonical about `center` if there is one."""
        forms = {None: None, self.n_sites - 1: "left", 0: "right"}
        return self._replaced(
            [t.astype(self.dtype, copy=False) for t in tensors],
            canonical_form=forms.get(center, "mixed"),
            orthogonality_center=center,
        )

    def _double(self) -> list[Array]:
        """Return the tensors in double precision, all finite."""
        tensor_chain.refuse_non_finite(self.tensors)
        return [t.astype(double(self.dtype), copy=False) for t in self.tensors]


class Truncation(NamedTuple):
    """What `MatrixProductState.truncate` returns."""

    state: MatrixProductState
    """The truncated state."""
    discarded_weights: tuple[float, ...]
    """For each cut, the sum of the discarded squared Schmidt values relative to their total."""
    fidelity_bound: float
    """``prod (1 - w)`` over the cuts: the fidelity with the original, up to rounding."""


def _checked_center(form: CanonicalForm | None, center: int | None, n_sites: int) -> int | None:
    """Return the orthogonality center that the claims amount to."""
    if form is None and center is None:
        return None
    implied = {"left": n_sites - 1, "right": 0, "mixed": center}.get(str(form))
    if implied is None or center not in {None, implied} or not 0 <= implied < n_sites:
        raise InvalidStateError(
            f"canonical_form {form!r} and orthogonality_center {center} do not fit {n_sites} sites together",
            next_step='"left" has its center at the last site, "right" at the first, "mixed" where you say',
        )
    return implied
