"""Entanglers that cost the reader nothing: permutations of the basis states, times phases on them.

CNOT and X map basis states to basis states by y = M x xor c over GF(2); CZ, CP and Rz multiply them by phases. Whatever
the order of the gates, the outcome y of a Z measurement is as probable after the entangler as x = M^-1 (y xor c) was
before it: phases have modulus 1, and a permutation only renames. So bits are undone after the measurement, without an
inverse circuit and without losing accuracy.
"""

from __future__ import annotations

import cmath
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self, get_args

import numpy as np

from quantum_memory.errors import InvalidStateError
from quantum_memory.state.matrix_product_state import MatrixProductState

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import ArrayLike, NDArray

GateName = Literal["X", "CNOT", "Rz", "CZ", "CP"]

_QUBITS = {"X": 1, "CNOT": 2, "Rz": 1, "CZ": 2, "CP": 2}
_WITH_ANGLE = {"Rz", "CP"}

_BOND_GROWTH, _SMALL_BOND = 4, 16
"""Bonds are compressed when they have grown by this factor and past this dimension; the gates themselves are cheap."""


class Gate(NamedTuple):
    """One gate: its name, its qubits (the control of a CNOT first) and, for Rz and CP, its angle in radians."""

    name: GateName
    qubits: tuple[int, ...]
    angle: float = 0.0

    def inverse(self) -> Gate:
        """Return the gate that undoes this one."""
        return self._replace(angle=-self.angle)

    def operator(self) -> NDArray[Any]:
        """Return the matrix of a gate on one qubit, or the one that the control switches on; real if it can be."""
        match self.name:
            case "X" | "CNOT":
                return np.array([[0.0, 1.0], [1.0, 0.0]])
            case "CZ":
                return np.diag([1.0, -1.0])
            case "CP":
                return np.diag([1, cmath.exp(1j * self.angle)])
            case "Rz":
                return np.diag([cmath.exp(-0.5j * self.angle), cmath.exp(0.5j * self.angle)])


@dataclass(frozen=True)
class Entangler:
    """A sequence of X, CNOT, Rz, CZ and CP gates.

    Parameters
    ----------
    n_qubits
        How many qubits it acts on.
    gates
        In the order in which they are applied. Plain tuples `(name, qubits)` or `(name, qubits, angle)` do as well.

    Raises
    ------
    InvalidStateError
        If a gate is not of this class, or its qubits are not distinct qubits of the register, or an angle is missing.
    """

    n_qubits: int
    gates: tuple[Gate, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "gates", tuple(self._checked(*gate) for gate in self.gates))

    def _checked(self, name: str, qubits: Iterable[int], *angles: float) -> Gate:
        if name not in get_args(GateName):
            raise InvalidStateError(
                f"an entangler cannot hold the gate {name!r}", next_step=f"use one of {', '.join(get_args(GateName))}"
            )
        on = tuple(int(qubit) for qubit in qubits)
        if len(on) != _QUBITS[name] or len(set(on)) != len(on) or not all(0 <= q < self.n_qubits for q in on):
            raise InvalidStateError(
                f"{name} on qubits {on} of {self.n_qubits}", next_step=f"name {_QUBITS[name]} distinct qubits, from 0"
            )
        angle = float(angles[0]) if angles else math.nan if name in _WITH_ANGLE else 0.0
        if not math.isfinite(angle) or (angle != 0.0 and name not in _WITH_ANGLE):
            raise InvalidStateError(f"{name} with angle {angle}", next_step="give Rz and CP, and only those, an angle")
        return Gate(name, on, angle)  # type: ignore[arg-type]  # checked against GateName above

    @classmethod
    def none(cls, n_qubits: int) -> Self:
        """Return the entangler without gates: the code stays a product state."""
        return cls(n_qubits)

    @classmethod
    def cnot_chain(cls, n_qubits: int) -> Self:
        """Return CNOT(0, 1), CNOT(1, 2), ...: outcome i is the parity of qubits 0 to i, and the bond dimension is 2."""
        return cls(n_qubits, tuple(Gate("CNOT", (qubit, qubit + 1)) for qubit in range(n_qubits - 1)))

    @property
    def is_real(self) -> bool:
        """Whether real amplitudes stay real."""
        return all(gate.name not in _WITH_ANGLE for gate in self.gates)

    def inverse(self) -> Self:
        """Return the entangler that undoes this one."""
        return type(self)(self.n_qubits, tuple(gate.inverse() for gate in reversed(self.gates)))

    def apply(self, state: MatrixProductState) -> MatrixProductState:
        """Return the entangled `state`, exact up to rounding; its dtype is kept.

        Raises
        ------
        InvalidStateError
            If the number of qubits differs, or a real state would become complex.
        """
        self._check_width(state.n_sites, "the state")
        if not self.is_real and state.dtype.kind != "c":
            raise InvalidStateError(
                "Rz and CP make a real state complex", next_step="convert it first: state.astype('complex128')"
            )
        tensors, compressed = list(state.tensors), state
        for gate in self.gates:
            operator = gate.operator().astype(state.dtype)
            if len(gate.qubits) == 1:
                tensors[gate.qubits[0]] = operator @ tensors[gate.qubits[0]]
            else:
                _apply_controlled(tensors, gate.qubits[0], gate.qubits[1], operator)
            if max(tensor.shape[2] for tensor in tensors) > max(_BOND_GROWTH * compressed.max_bond_dim, _SMALL_BOND):
                compressed = _compressed(tensors, state)
                tensors = list(compressed.tensors)
        return _compressed(tensors, state) if self.gates else state

    def undo_bits(self, bits: ArrayLike) -> NDArray[np.uint8]:
        """Return the outcomes as they would be without the entangler: x = M^-1 (y xor c).

        Parameters
        ----------
        bits
            Outcomes 0 and 1, shape (shots, n_qubits), column i for qubit i.
        """
        undone = np.array(bits, dtype=np.uint8)
        self._check_width(undone.shape[-1] if undone.ndim else 0, "a shot")
        for gate in reversed(self.gates):
            if gate.name == "X":
                undone[..., gate.qubits[0]] ^= 1
            elif gate.name == "CNOT":
                control, target = gate.qubits
                undone[..., target] ^= undone[..., control]
        return undone

    def parity_sets(self) -> list[tuple[tuple[int, ...], int]]:
        """Return for every qubit the measured qubits whose parity, xor a constant, is its bit before entangling."""
        constants = self.undo_bits(np.zeros(self.n_qubits))
        # The map is affine, so that what it makes of unit vectors, less the constants, are the columns of M^-1.
        inverse = (self.undo_bits(np.eye(self.n_qubits)) ^ constants).T
        return [
            (tuple(np.flatnonzero(row).tolist()), int(constant))
            for row, constant in zip(inverse, constants, strict=True)
        ]

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-able description."""
        return {
            "n_qubits": self.n_qubits,
            "gates": [
                [gate.name, list(gate.qubits), *([gate.angle] if gate.name in _WITH_ANGLE else [])]
                for gate in self.gates
            ],
        }

    @classmethod
    def from_json(cls, description: dict[str, Any]) -> Self:
        """Return the entangler that `to_json` described."""
        try:
            return cls(int(description["n_qubits"]), tuple(description["gates"]))
        except (KeyError, OverflowError, TypeError, ValueError) as error:
            if isinstance(error, InvalidStateError):
                raise
            raise InvalidStateError(
                "this does not describe an entangler", next_step="give {'n_qubits': n, 'gates': [[name, qubits], ...]}"
            ) from error

    def _check_width(self, width: int, what: str) -> None:
        if width != self.n_qubits:
            raise InvalidStateError(
                f"{what} has {width} qubits, the entangler {self.n_qubits}", next_step="use an entangler of that width"
            )


def _apply_controlled(tensors: list[NDArray[Any]], control: int, target: int, operator: NDArray[Any]) -> None:
    """Apply |0><0| x I + |1><1| x `operator` in place and exactly: bonds in between double, one half for each term."""
    identity = np.eye(2, dtype=operator.dtype)
    terms = {control: (np.diag(identity[0]), np.diag(identity[1])), target: (identity, operator)}
    low, high = sorted((control, target))
    for site in range(low, high + 1):
        first, second = (term @ tensors[site] for term in terms.get(site, (identity, identity)))
        if site == low:
            tensors[site] = np.concatenate([first, second], axis=2)
        elif site == high:
            tensors[site] = np.concatenate([first, second], axis=0)
        else:
            nothing = np.zeros_like(first)
            tensors[site] = np.block([[[first, nothing]], [[nothing, second]]])


def _compressed(tensors: list[NDArray[Any]], like: MatrixProductState) -> MatrixProductState:
    """Return the state of the tensors, with its bonds as small as they can be without loss."""
    return MatrixProductState(tensors, labels=like.labels, log_scale=like.log_scale).truncate().state
