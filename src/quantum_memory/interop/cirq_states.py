"""Cirq: results of simulations, and `cirq.QuantumState`. The first qubit is the most significant digit of an index."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from quantum_memory.interop.shared import MAX_BYTES, class_of, dense, unique
from quantum_memory.state.memory_state import MemoryState
from quantum_memory.state.quantum_state import DensityMatrix, StateVector

if TYPE_CHECKING:
    from quantum_memory.state.document import QuantumState

PACKAGES = ("cirq", "qsimcirq")
_STATE, _VECTORS, _MATRICES = "QuantumState", "StateVectorMixin", "DensityMatrixTrialResult"


def recognizes(value: object) -> bool:
    """Tell whether this is a result with a state, or a state."""
    return class_of(value, "cirq", (_STATE, _VECTORS, _MATRICES)) is not None


def take(value: Any) -> QuantumState | MemoryState:
    """Return a state, or the final one of a simulation, with what was measured and the values of parameters.

    Qubits become labels, as they are written: ``q(0)``.
    """
    if class_of(value, "cirq", (_STATE,)):
        return _taken(value.state_vector(), value.density_matrix, value.qid_shape, None)
    qubits = sorted(value.qubit_map, key=value.qubit_map.__getitem__)
    vector = value.final_state_vector if class_of(value, "cirq", (_VECTORS,)) else None
    state = _taken(
        vector, lambda: value.final_density_matrix, [one.dimension for one in qubits], unique([str(q) for q in qubits])
    )
    said = {
        "measurements": {key: np.asarray(found) for key, found in value.measurements.items()},
        "parameters": {str(name): found for name, found in value.params.param_dict.items()},
    }
    said = {name: found for name, found in said.items() if found}
    return MemoryState(state, classical=said) if said else state


def _taken(vector: Any, matrix: Any, dims: Any, labels: Any) -> StateVector | DensityMatrix:
    if vector is not None:
        return StateVector(vector, qubit_order="big", dims=dims, labels=labels)
    return DensityMatrix(matrix(), qubit_order="big", dims=dims, labels=labels)


def give(state: QuantumState, *, max_bytes: int = MAX_BYTES) -> Any:
    """Return what ``simulate(circuit, initial_state=...)`` takes: a `cirq.QuantumState`; an array for a density matrix.

    Its dtype is that of the state where Cirq has it. Labels are lost: Cirq's states have none.

    Parameters
    ----------
    max_bytes
        The largest size that a matrix product state may be contracted to.
    """
    import cirq  # noqa: PLC0415

    found = dense(state, "big", "Cirq", max_bytes=max_bytes)
    array = np.asarray(found)
    array = array.astype(np.result_type(array.dtype, np.complex64), copy=False)
    if isinstance(found, DensityMatrix):  # of which a QuantumState is not taken by Cirq's own simulator
        return array
    # Cirq would refuse a norm that is off by more than 1e-7, and it may come from Cirq itself.
    return cirq.QuantumState(array, qid_shape=found.dims, validate=False)
