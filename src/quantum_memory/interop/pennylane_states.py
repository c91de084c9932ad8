"""PennyLane: what `state()`, `density_matrix()` and snapshots return, and the operations that prepare a state.

The first wire is the most significant digit of an index. What PennyLane returns is often a plain array, which does not
say that it comes from there: then it is to be said, ``MemoryState.of(array, "pennylane")``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from quantum_memory.errors import InvalidStateError
from quantum_memory.interop.shared import MAX_BYTES, class_of, dense, only_qubits
from quantum_memory.state.memory_state import MemoryState
from quantum_memory.state.quantum_state import DensityMatrix, StateVector

if TYPE_CHECKING:
    from quantum_memory.state.document import QuantumState

PACKAGES = ("pennylane",)


def recognizes(value: object) -> bool:
    """Tell whether this is a tensor of PennyLane's own NumPy."""
    return class_of(value, "pennylane", ("tensor",)) is not None


def take(value: Any) -> QuantumState | MemoryState:
    """Return an array as a state of qubits, and snapshots, which are a dict, as a tree in which such arrays are states.

    Raises
    ------
    InvalidStateError
        An array has another shape.
    """
    if isinstance(value, Mapping):
        return MemoryState(classical={key: _snapshot(one) for key, one in value.items()})
    state = _state(np.asarray(value))
    if state is None:
        raise InvalidStateError(f"an array of shape {np.shape(value)} is no state of qubits")
    return state


def _snapshot(value: Any) -> Any:
    if not isinstance(value, (np.ndarray, np.generic)):
        return value
    array = np.asarray(value)
    state = _state(array) if array.dtype.kind == "c" else None
    return array if state is None else state


def _state(array: Any) -> QuantumState | None:
    size = array.shape[0] if array.ndim else 0
    if size < 2 or size & (size - 1):
        return None
    if array.ndim == 1:
        return StateVector(array, qubit_order="big")
    return DensityMatrix(array, qubit_order="big") if array.shape == (size, size) else None


def give(state: QuantumState, *, wires: Any = None, max_bytes: int = MAX_BYTES) -> Any:
    """Return the operation that prepares a state: `qml.StatePrep`, or `qml.QubitDensityMatrix`.

    Parameters
    ----------
    wires
        By default the numbers from 0, as those of a device of so many wires; `memory.quantum.labels` are names.
    max_bytes
        The largest size that a matrix product state may be contracted to.
    """
    import pennylane as qml  # noqa: PLC0415

    only_qubits(state, "PennyLane")
    found = dense(state, "big", "PennyLane", max_bytes=max_bytes)
    where = range(found.n_sites) if wires is None else wires
    if isinstance(found, StateVector):
        return qml.StatePrep(found.amplitudes, wires=where, validate_norm=False)
    return qml.QubitDensityMatrix(found.matrix, wires=where)
