"""Stim: stabiliser states, as tableaus and in its simulator."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from quantum_memory.errors import BudgetError, InvalidStateError
from quantum_memory.interop.shared import MAX_BYTES, class_of, only_qubits, vector
from quantum_memory.state.quantum_state import StateVector

if TYPE_CHECKING:
    from quantum_memory.state.document import QuantumState

PACKAGES = ("stim",)
_CLASSES = ("Tableau", "TableauSimulator")
_MOST_QUBITS = 24
_TOLERANCE = 1e-5  # what Stim gives is in single precision


def recognizes(value: object) -> bool:
    """Tell whether this is a `Tableau` or a `TableauSimulator`."""
    return class_of(value, "stim", _CLASSES) is not None


def take(value: Any) -> StateVector:
    """Return the state of a simulator, or the one that a tableau makes of zeros, as Stim gives it, in complex64.

    As a state vector it is a stabiliser state, which a save keeps in a few bytes.

    Raises
    ------
    BudgetError
        It has more than 24 qubits.
    """
    if class_of(value, "stim", _CLASSES) == "Tableau":
        _check_size(len(value))
        return StateVector(value.to_state_vector(endian="little"), qubit_order="little")
    _check_size(value.num_qubits)
    return StateVector(value.state_vector(endian="little"), qubit_order="little")


def _check_size(qubits: int) -> None:
    if qubits > _MOST_QUBITS:
        raise BudgetError(
            f"a tableau of {qubits} qubits has a state vector of 2^{qubits} amplitudes",
            next_step="keep its arrays, of Tableau.to_numpy(), as classical data",
        )


def give(state: QuantumState, *, max_bytes: int = MAX_BYTES) -> Any:
    """Return the `stim.Tableau` that makes a stabiliser state of zeros; its global phase is lost.

    Raises
    ------
    InvalidStateError
        It is no stabiliser state.
    """
    import stim  # noqa: PLC0415

    only_qubits(state, "Stim")
    found = vector(state, "little", "Stim", max_bytes=max_bytes)
    try:
        made = stim.Tableau.from_state_vector(found.amplitudes, endian="little")
    except ValueError as error:
        raise InvalidStateError(f"Stim does not take it: {error}", next_step="give a stabiliser state") from error
    fidelity = abs(np.vdot(made.to_state_vector(endian="little"), found.amplitudes)) ** 2 / found.norm() ** 2
    if fidelity < 1 - _TOLERANCE:  # Stim looks at where the amplitudes are not zero, and not at how large they are
        raise InvalidStateError(
            f"it is no stabiliser state: the nearest that Stim finds has a fidelity of {fidelity:.6g}",
            next_step="give a stabiliser state",
        )
    return made
