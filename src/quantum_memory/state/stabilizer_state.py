"""Stabiliser states of many qubits: what Clifford circuits make, as a tableau of some 4 n^2 bits."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final, NoReturn

import numpy as np

from quantum_memory.errors import InvalidStateError
from quantum_memory.state.arrays import same_bits
from quantum_memory.state.pauli_rows import PauliRows, anticommuting, eliminate
from quantum_memory.state.quantum_state import DensityMatrix, StateVector
from quantum_memory.state.sites import (
    check_budget,
    checked_cut,
    checked_labels,
    checked_operator,
    checked_shots,
    checked_sites,
    generator,
    kept_real,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, DTypeLike, NDArray

    from quantum_memory.state.dense_array import QubitOrder
    from quantum_memory.state.sites import Array, Sites

_ROWS = 1 << 10


class StabilizerState:
    """The state that a Clifford operation makes of zeros, by the tableau of that operation.

    Row i < n of the tableau is what the operation makes of X on qubit i (a destabiliser), row n + i what it makes of Z
    (a stabiliser, of which the state is the +1 eigenstate). See S. Aaronson and D. Gottesman, Phys. Rev. A 70, 052328
    (2004); it is the table of Qiskit's `Clifford` and, in other columns, of Stim's `Tableau`. A tableau has no global
    phase, and site i is qubit i, so a qubit order is needed only where the state is made dense.

    Parameters
    ----------
    tableau
        bool, shape (2 n, 2 n + 1): of each row the X bits of all qubits, the Z bits, and whether its sign is a minus;
        X and Z on one qubit mean Y. Not copied, and not checked: `problems` says whether it is a tableau.
    labels
        A distinct name for each qubit.

    Attributes
    ----------
    tableau : ndarray of bool
    labels : tuple of str or None

    Raises
    ------
    InvalidStateError
        When dtype, shape or labels do not describe one.
    """

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, tableau: ArrayLike, *, labels: Sequence[str] | None = None) -> None:
        table = np.asarray(tableau)
        if table.dtype != np.bool_ or table.ndim != 2 or not table.size:
            raise InvalidStateError(
                f"a tableau is an array of bool with two axes, not of {table.dtype} and shape {table.shape}",
                next_step="give X bits, Z bits and signs, shape (2 n, 2 n + 1)",
            )
        if table.shape[0] % 2 or table.shape[1] != table.shape[0] + 1:
            raise InvalidStateError(
                f"a tableau of n qubits has the shape (2 n, 2 n + 1), not {table.shape}",
                next_step="give destabilisers, then stabilisers, each with X bits, Z bits and its sign",
            )
        self.tableau: Final = table
        self.labels: Final = checked_labels(labels, len(table) // 2)

    @property
    def n_sites(self) -> int:
        """Number of sites."""
        return len(self.tableau) // 2

    @property
    def n_qubits(self) -> int:
        """Number of qubits: all sites are."""
        return self.n_sites

    @property
    def dims(self) -> tuple[int, ...]:
        """Dimension of each site."""
        return (2,) * self.n_sites

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of the tableau."""
        return self.tableau.dtype

    @property
    def nbytes(self) -> int:
        """Bytes of the tableau."""
        return self.tableau.nbytes

    def __repr__(self) -> str:
        return f"StabilizerState({self.n_sites} qubits)"

    def __array__(self, *_: Any, **__: Any) -> NoReturn:
        raise InvalidStateError("a tableau is no array of amplitudes", next_step='state.to_dense(qubit_order="big")')

    def __eq__(self, other: object) -> bool:
        """Tell whether labels and every bit agree; `fidelity` tells whether it is the same state."""
        if not isinstance(other, StabilizerState):
            return NotImplemented
        return self.labels == other.labels and same_bits(self.tableau, other.tableau)

    def stabilizers(self) -> list[str]:
        """Return the generators of the stabiliser group, such as ``"+XZI"``: a letter for each site, site 0 first."""
        n = self.n_sites
        return [
            ("-" if row[-1] else "+") + "".join("IXZY"[x + 2 * z] for x, z in zip(row[:n], row[n:-1], strict=True))
            for row in self.tableau[n:].astype(int)
        ]

    def norm(self) -> float:
        """Return the norm, which is 1."""
        return 1.0

    def problems(self, atol: float | None = None) -> list[str]:  # noqa: ARG002 -- as for other states
        """Say in plain sentences what is unphysical; an empty list means nothing is.

        In a tableau each destabiliser anticommutes with the stabiliser of its qubit, and all other rows commute.
        """
        every, n = PauliRows.of(self.tableau), self.n_sites
        wrong = 0
        for start in range(0, 2 * n, _ROWS):
            found = anticommuting(every[start : start + _ROWS], every)
            here = np.arange(len(found))
            found[here, (start + here + n) % (2 * n)] ^= True
            wrong += int(np.count_nonzero(found))
        return [f"it is no tableau: {wrong // 2} pairs of its rows do not commute as they should"] if wrong else []

    def fidelity(self, other: StabilizerState) -> float:
        """Return ``|<self|other>|^2``, which is zero or a power of a half, in some n^3 steps on bits."""
        if not isinstance(other, StabilizerState):
            raise InvalidStateError(
                f"a {type(other).__name__} is no tableau", next_step="use metrics.fidelity for states of two kinds"
            )
        if self.n_sites != other.n_sites:
            raise InvalidStateError(
                f"states of {self.n_sites} and {other.n_sites} qubits cannot be compared",
                next_step="compare states of the same sites",
            )
        mine, theirs = (PauliRows.of(one.tableau) for one in (self, other))
        destabilizers, stabilizers, rows = mine[: self.n_sites], mine[self.n_sites :], theirs[self.n_sites :]
        rank = eliminate(anticommuting(rows, stabilizers), rows)
        shared = rows[rank:]  # they commute with all of my stabilisers: each is one of their products, or minus that
        factors = anticommuting(shared, destabilizers)
        products = PauliRows(np.zeros_like(shared.x), np.zeros_like(shared.z), np.zeros_like(shared.phases))
        for row in range(self.n_sites):
            products.multiply(np.flatnonzero(factors[:, row]), stabilizers, row)
        return 0.0 if (products.signs() != shared.signs()).any() else 0.5**rank

    def entropy(self, cut: int, base: float = 2) -> float:
        """Return the entanglement entropy across `cut` (see `schmidt_values`), in logarithms to `base`."""
        return self._pairs_across(cut) / math.log2(base)

    def schmidt_values(self, cut: int) -> NDArray[np.float64]:
        """Return the Schmidt coefficients, which are all the same.

        Parameters
        ----------
        cut
            Number of sites on the left of the cut, 1 to `n_sites` - 1.
        """
        pairs = self._pairs_across(cut)
        check_budget(8 << pairs, 1 << 30, f"the {1 << pairs} Schmidt values")
        return np.full(1 << pairs, 2.0 ** (-pairs / 2))

    def sample(self, shots: int, seed: Any = None) -> NDArray[np.uint8]:
        """Draw measurement outcomes of all sites.

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
        rng, moves, origin = generator(seed), *self._support()
        chosen = rng.integers(0, 2, (checked_shots(shots, self.dims), len(moves)), np.uint8)
        # Sums of up to 2^24 ones are exact in single precision, in which products of matrices are quick.
        moved = (chosen.astype(np.float32) @ moves.x.astype(np.float32)).astype(np.int64) % 2
        return moved.astype(np.uint8) ^ origin

    def reduced_density_matrix(self, sites: Sites, *, dtype: DTypeLike | None = None) -> DensityMatrix:
        """Return the partial trace over all but `sites`.

        The result is "big", its sites are `sites` in the order given, its dtype is complex128 unless said otherwise.
        """
        where, n = checked_sites(sites, self.n_sites), self.n_sites
        check_budget(16 << 2 * len(where), 1 << 30, "the reduced density matrix")
        others = [site for site in range(n) if site not in where]
        rows = PauliRows.of(self.tableau[n:])
        rank = eliminate(np.hstack([rows.x[:, others], rows.z[:, others]]), rows)
        inner = rows[rank:]  # the stabilisers that are the identity on all others
        indices = np.arange(1 << len(where))
        matrix = np.eye(len(indices), dtype=np.complex128) / len(indices)
        weights = 1 << np.arange(len(where) - 1, -1, -1)
        for x, z, phase in zip(inner.x[:, where] @ weights, inner.z[:, where] @ weights, inner.phases, strict=True):
            product = np.empty_like(matrix)
            product[indices ^ x] = (1j**phase) * _parity_signs(indices & z)[:, None] * matrix
            matrix += product
        kind = np.dtype(np.complex128 if dtype is None else dtype)
        return DensityMatrix.on_sites(kept_real(matrix, kind, "entries").astype(kind), where, self.dims, self.labels)

    def expectation(self, operator: ArrayLike, sites: Sites) -> complex:
        """Return ``<psi|O|psi>``.

        Parameters
        ----------
        operator
            Matrix on `sites`, the first of them the most significant digit of its rows and columns; or an `Operator`,
            whose sites are `sites`.
        sites
            One site or several different ones.
        """
        where = checked_sites(sites, self.n_sites)
        matrix = checked_operator(operator, [2] * len(where))
        return complex((matrix * self.reduced_density_matrix(where).matrix.T).sum())

    def to_dense(
        self, *, qubit_order: QubitOrder, dtype: DTypeLike = np.complex128, max_bytes: int = 1 << 30
    ) -> StateVector:
        """Return the state vector; its global phase is such that one of the amplitudes is positive.

        Raises
        ------
        BudgetError
            Before anything is allocated, when it is larger than `max_bytes`.
        InvalidStateError
            The order is not "little" or "big", or it is no tableau, or `dtype` is real and the amplitudes are not.
        """
        n = self.n_sites
        if qubit_order not in {"little", "big"}:
            raise InvalidStateError(f"no vector has the order {qubit_order!r}", next_step='pass "little" or "big"')
        check_budget(np.dtype(dtype).itemsize << n, max_bytes, f"a state vector of {n} qubits")
        moves, origin = self._support()
        weights = 1 << (np.arange(n) if qubit_order == "little" else np.arange(n - 1, -1, -1))
        indices, phases = np.array([origin @ weights], np.int64), np.zeros(1, np.uint8)
        for x, z, phase in zip(moves.x @ weights, moves.z @ weights, moves.phases, strict=True):
            turned = (phases + phase + 2 * (np.bitwise_count(indices & z) & 1)) % 4
            indices, phases = np.concatenate([indices, indices ^ x]), np.concatenate([phases, turned])
        amplitudes = np.zeros(1 << n, dtype)
        values = np.array([1, 1j, -1, -1j])[phases] * 2 ** (-len(moves) / 2)
        amplitudes[indices] = kept_real(values, amplitudes.dtype, "amplitudes")
        return StateVector(amplitudes, qubit_order=qubit_order, labels=self.labels)

    def _pairs_across(self, cut: int) -> int:
        """Return how many entangled pairs there are across a cut; see D. Fattal et al., arXiv:quant-ph/0406168."""
        number, n = checked_cut(cut, self.n_sites), self.n_sites
        left = np.r_[0:number, n : n + number]
        return eliminate(self.tableau[n:][:, left]) - number

    def _support(self) -> tuple[PauliRows, Array]:
        """Return stabilisers that lead from one basis state of non-zero amplitude to all of them, and that one."""
        rows = PauliRows.of(self.tableau[self.n_sites :])
        rank = eliminate(rows.x.copy(), rows)
        fixed = rows[rank:]
        keys = fixed.z.copy()
        if eliminate(keys, fixed) < len(fixed):
            raise InvalidStateError("it is no tableau: its stabilisers depend on each other", next_step="verify it")
        origin = np.zeros(self.n_sites, np.uint8)
        origin[keys.argmax(axis=1)] = fixed.signs()
        return rows[:rank], origin


def _parity_signs(values: Array) -> Array:
    return 1.0 - 2.0 * (np.bitwise_count(values) & 1)
