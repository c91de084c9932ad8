"""Noise as physics has it: Kraus channels on states, stochastic maps on outcomes, and a readout error per qubit.

Closed forms, z being the expectation of Z: depolarizing (1 - p) z; dephasing z; amplitude damping (1 - g) z + g;
readout (1 - e0 - e1) z + (e1 - e0).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self, cast, overload

import numpy as np

from quantum_memory.errors import InvalidStateError
from quantum_memory.state.matrix_product_state import MatrixProductState
from quantum_memory.state.quantum_state import DensityMatrix, StateVector
from quantum_memory.state.sites import checked_sites

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

_TOLERANCE = 1e-12


class KrausChannel:
    """A channel on one qubit: rho -> sum_j K_j rho K_j^dagger.

    Parameters
    ----------
    operators
        The Kraus operators K_j, shape (k, 2, 2).
    name
        What to call it.

    Raises
    ------
    InvalidStateError
        If sum_j K_j^dagger K_j differs from the identity by more than 1e-12: then the trace would not be preserved.
    """

    def __init__(self, operators: ArrayLike, name: str = "custom") -> None:
        self.name = name
        self.operators: NDArray[Any] = np.array(operators, dtype=np.complex128)
        if self.operators.ndim != 3 or self.operators.shape[1:] != (2, 2):
            raise InvalidStateError(
                f"Kraus operators of one qubit have shape (k, 2, 2), not {self.operators.shape}",
                next_step="give a list of 2 by 2 matrices",
            )
        if not self.operators.imag.any():
            self.operators = self.operators.real.copy()  # so that a real state stays real
        total = np.einsum("jba,jbc->ac", self.operators.conj(), self.operators)
        if not np.allclose(total, np.eye(2), rtol=0, atol=_TOLERANCE):
            raise InvalidStateError(
                "the Kraus operators do not preserve the trace: the sum of K^dagger K is not the identity",
                next_step="scale them so that it is",
            )
        self.operators.flags.writeable = False

    @classmethod
    def depolarizing(cls, p: float) -> Self:
        """Return rho -> (1 - p) rho + p I/2: sqrt(1 - 3p/4) I, sqrt(p/4) X, Y and Z.

        Y is written as -i Y = X Z, which is the same channel and real.
        """
        _check_probability(p, "p")
        x, z = np.array([[0.0, 1.0], [1.0, 0.0]]), np.diag([1.0, -1.0])
        weights = np.sqrt([1 - 0.75 * p, p / 4, p / 4, p / 4])
        return cls(weights[:, None, None] * np.stack([np.eye(2), x, x @ z, z]), f"depolarizing({p:g})")

    @classmethod
    def dephasing(cls, l: float) -> Self:  # noqa: E741  # the field's letter is lambda
        """Return the channel that multiplies coherences by 1 - l: sqrt(1 - l/2) I, sqrt(l/2) Z."""
        _check_probability(l, "l")
        return cls([np.sqrt(1 - l / 2) * np.eye(2), np.sqrt(l / 2) * np.diag([1.0, -1.0])], f"dephasing({l:g})")

    @classmethod
    def amplitude_damping(cls, g: float) -> Self:
        """Return decay to |0> with probability g: diag(1, sqrt(1 - g)), sqrt(g) |0><1|."""
        _check_probability(g, "g")
        decay = np.array([[0.0, np.sqrt(g)], [0.0, 0.0]])
        return cls([np.diag([1.0, np.sqrt(1 - g)]), decay], f"amplitude_damping({g:g})")

    def apply(self, rho: DensityMatrix, site: int) -> DensityMatrix:
        """Return `rho` after the channel has acted on qubit `site`; the dtype is kept."""
        operators = self._as(rho.dtype)
        left, right = _around(rho, site)
        matrix = rho.matrix.reshape(left, 2, right, left, 2, right)
        result = sum(
            np.einsum("ab,lbrmds,cd->larmcs", operator, matrix, operator.conj(), optimize=True)
            for operator in operators
        )
        return DensityMatrix(
            np.asarray(result).reshape(rho.matrix.shape),
            qubit_order=rho.qubit_order,
            dims=rho.dims,
            labels=rho.labels,
        )

    @overload
    def trajectory(self, state: StateVector, site: int, rng: np.random.Generator) -> StateVector: ...
    @overload
    def trajectory(self, state: MatrixProductState, site: int, rng: np.random.Generator) -> MatrixProductState: ...

    def trajectory(
        self, state: StateVector | MatrixProductState, site: int, rng: np.random.Generator
    ) -> StateVector | MatrixProductState:
        """Return one normalised random branch: K_j `state` with probability ||K_j state||^2.

        Over many trajectories the mean of |branch><branch| is the density matrix after the channel.
        """
        operators = self._as(state.dtype)
        marginal = np.asarray(state.reduced_density_matrix([site]))
        weights = np.einsum("jab,bc,jac->j", operators, marginal, operators.conj()).real.clip(min=0)
        chosen = operators[rng.choice(len(operators), p=weights / weights.sum())]
        if isinstance(state, MatrixProductState):
            return state.apply(chosen, site).normalized()
        left, right = _around(state, site)
        amplitudes = np.einsum("ab,lbr->lar", chosen, state.amplitudes.reshape(left, 2, right)).reshape(-1)
        return StateVector(amplitudes, qubit_order=state.qubit_order, dims=state.dims, labels=state.labels).normalized()

    def transition_matrix(self) -> NDArray[np.float64]:
        """Return the stochastic matrix P(outcome | outcome without the channel), shape (2, 2), columns adding to 1.

        Raises
        ------
        InvalidStateError
            If the populations after the channel depend on coherences before it, as they do for a rotation.
        """
        mixing = np.einsum("jo,jo->o", self.operators[:, :, 0], self.operators[:, :, 1].conj())
        if np.abs(mixing).max() > _TOLERANCE:
            raise InvalidStateError(
                f"the channel {self.name} turns coherences into populations, so it is no map of outcomes",
                next_step="apply it to the state",
            )
        return cast("NDArray[np.float64]", (np.abs(self.operators) ** 2).sum(axis=0))

    def _as(self, dtype: np.dtype[Any]) -> NDArray[Any]:
        """Return the operators in the dtype of a state."""
        if self.operators.dtype.kind == "c" and dtype.kind != "c":
            raise InvalidStateError(
                f"the channel {self.name} makes a real state complex", next_step="give a complex state"
            )
        return self.operators.astype(dtype)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, KrausChannel):
            return NotImplemented
        return self.name == other.name and np.array_equal(self.operators, other.operators)

    def __hash__(self) -> int:
        return hash((self.name, self.operators.tobytes()))

    def __repr__(self) -> str:
        return f"KrausChannel({self.name})"


@dataclass(frozen=True)
class ReadoutError:
    """A classical flip of each outcome: e0 = P(1 | 0), e1 = P(0 | 1).

    Parameters
    ----------
    e0, e1
        A probability for all qubits, or one for each.
    """

    e0: float | tuple[float, ...]
    e1: float | tuple[float, ...]

    def __post_init__(self) -> None:
        for name in ("e0", "e1"):
            rates = np.asarray(getattr(self, name), dtype=np.float64)
            _check_probability(rates, name)
            object.__setattr__(self, name, float(rates) if rates.ndim == 0 else tuple(rates.tolist()))

    def rates(self, n_qubits: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return e0 and e1 of each qubit, shape (n_qubits,)."""
        try:
            return np.broadcast_to(np.asarray(self.e0), n_qubits), np.broadcast_to(np.asarray(self.e1), n_qubits)
        except ValueError as error:
            raise InvalidStateError(
                f"the readout error is not that of {n_qubits} qubits", next_step="give one rate, or one for each qubit"
            ) from error

    def apply_to_bits(self, bits: ArrayLike, rng: np.random.Generator) -> NDArray[np.uint8]:
        """Return outcomes, shape (shots, n_qubits), each flipped with its probability."""
        array = np.asarray(bits, dtype=np.uint8)
        e0, e1 = self.rates(array.shape[-1])
        return array ^ (rng.random(array.shape) < np.where(array, e1, e0))


@dataclass(frozen=True)
class NoiseModel:
    """The same channels on every qubit, one after another and right before the measurement; then the readout error.

    Parameters
    ----------
    channels
        What happens to each qubit.
    readout
        What happens to each outcome; None for a perfect readout.
    """

    channels: tuple[KrausChannel, ...] = ()
    readout: ReadoutError | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "channels", tuple(self.channels))

    def apply(self, rho: DensityMatrix) -> DensityMatrix:
        """Return `rho` after the channels; the readout error is one of outcomes, not of states."""
        for channel in self.channels:
            for site in range(rho.n_sites):
                rho = channel.apply(rho, site)
        return rho

    def outcome_error(self, n_qubits: int) -> ReadoutError:
        """Return the one error of outcomes that channels and readout make together.

        It is exact: measuring Z after local channels that map populations to populations is measuring Z before them and
        then passing each outcome through its own stochastic map, since each measurement operator |y><y|, pulled back
        through the channels, is a product of diagonal ones. Maps of one outcome multiply.
        """
        e0, e1 = (self.readout or ReadoutError(0.0, 0.0)).rates(n_qubits)
        total = np.array([[1 - e0, e1], [e0, 1 - e1]])  # (after, before, qubit)
        for channel in reversed(self.channels):
            total = np.einsum("abq,bc->acq", total, channel.transition_matrix())
        flips = total.clip(0, 1)  # rounding may leave 1 + 1e-16
        return ReadoutError(tuple(flips[1, 0].tolist()), tuple(flips[0, 1].tolist()))

    def apply_to_bits(self, bits: ArrayLike, rng: np.random.Generator) -> NDArray[np.uint8]:
        """Return outcomes with the noise on them, distributed exactly as if the noisy state had been measured.

        Parameters
        ----------
        bits
            Outcomes of Z measurements of the noiseless state, shape (shots, n_qubits).
        rng
            The source of randomness.
        """
        array = np.asarray(bits, dtype=np.uint8)
        return self.outcome_error(array.shape[-1]).apply_to_bits(array, rng)

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-able description; complex numbers are [re, im]."""
        readout = self.readout
        return {
            "channels": [
                {"name": c.name, "operators": np.stack([c.operators.real, c.operators.imag], axis=-1).tolist()}
                for c in self.channels
            ],
            "readout": None if readout is None else {"e0": _plain(readout.e0), "e1": _plain(readout.e1)},
        }

    @classmethod
    def from_json(cls, description: dict[str, Any]) -> Self:
        """Return the model that `to_json` described."""
        try:
            readout = description["readout"]
            return cls(
                tuple(
                    KrausChannel(np.asarray(c["operators"], dtype=np.float64) @ [1, 1j], str(c["name"]))
                    for c in description["channels"]
                ),
                None if readout is None else ReadoutError(readout["e0"], readout["e1"]),
            )
        except (KeyError, OverflowError, TypeError, ValueError) as error:
            if isinstance(error, InvalidStateError):
                raise
            raise InvalidStateError(
                "this does not describe a noise model", next_step="give what NoiseModel.to_json returned"
            ) from error


def _plain(rates: float | Sequence[float]) -> float | list[float]:
    return rates if isinstance(rates, float) else list(rates)


def _check_probability(value: ArrayLike, name: str) -> None:
    array = np.asarray(value, dtype=np.float64)
    if array.ndim > 1 or not ((array >= 0) & (array <= 1)).all():
        raise InvalidStateError(f"{name} = {array} is not a probability", next_step="give a number from 0 to 1")


def _around(state: StateVector | DensityMatrix, site: int) -> tuple[int, int]:
    """Return the dimensions of more and of less significant qubits than `site`."""
    (qubit,) = checked_sites(site, state.n_qubits)
    before, after = 2**qubit, 2 ** (state.n_qubits - 1 - qubit)
    if state.qubit_order == "unstated":
        raise InvalidStateError(
            "the qubit order of the state is not stated", next_step="say it: state.with_qubit_order('big')"
        )
    return (before, after) if state.qubit_order == "big" else (after, before)
