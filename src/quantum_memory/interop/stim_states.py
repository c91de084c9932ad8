"""Stim: stabiliser states, as tableaus and in its simulator."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from quantum_memory.errors import InvalidStateError
from quantum_memory.interop.shared import MAX_BYTES, class_of, only_qubits, vector
from quantum_memory.state.stabilizer_state import StabilizerState

if TYPE_CHECKING:
    from quantum_memory.state.document import QuantumState

PACKAGES = ("stim",)
_CLASSES = ("Tableau", "TableauSimulator")
_TOLERANCE = 1e-5  # what Stim gives is in single precision


def recognizes(value: object) -> bool:
    """Tell whether this is a `Tableau` or a `TableauSimulator`."""
    return class_of(value, "stim", _CLASSES) is not None


def take(value: Any) -> StabilizerState:
    """Return the state of a simulator, or the one that a tableau makes of zeros, with its whole tableau."""
    if class_of(value, "stim", _CLASSES) == "TableauSimulator":
        value = value.current_inverse_tableau().inverse()
    x2x, x2z, z2x, z2z, x_signs, z_signs = value.to_numpy()
    return StabilizerState(np.block([[x2x, x2z, x_signs[:, None]], [z2x, z2z, z_signs[:, None]]]))


def give(state: QuantumState, *, max_bytes: int = MAX_BYTES) -> Any:
    """Return the `stim.Tableau` of a stabiliser state, or one that makes a dense state, without its global phase.

    Raises
    ------
    InvalidStateError
        It is no stabiliser state, or no tableau.
    """
    import stim  # noqa: PLC0415

    if isinstance(state, StabilizerState):
        n, table = state.n_sites, np.asarray(state.tableau)
        try:
            return stim.Tableau.from_numpy(
                x2x=table[:n, :n], x2z=table[:n, n:-1], x_signs=table[:n, -1],
                z2x=table[n:, :n], z2z=table[n:, n:-1], z_signs=table[n:, -1],
            )  # fmt: skip
        except ValueError as error:
            raise InvalidStateError(f"Stim does not take it: {error}", next_step="see state.problems()") from error
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
