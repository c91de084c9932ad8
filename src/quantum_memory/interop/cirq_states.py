"""Cirq: results of simulations, `QuantumState`, `CliffordTableau`, and operators.

The first qubit is the most significant digit of an index.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from quantum_memory.errors import InvalidStateError
from quantum_memory.interop.shared import MAX_BYTES, check_dense_operator, class_of, dense_or_operator, unique
from quantum_memory.state.memory_state import MemoryState
from quantum_memory.state.operator import Operator
from quantum_memory.state.quantum_state import DensityMatrix, StateVector
from quantum_memory.state.stabilizer_state import StabilizerState

if TYPE_CHECKING:
    from quantum_memory.state.document import QuantumState

PACKAGES = ("cirq", "qsimcirq")
_STATE, _VECTORS, _MATRICES, _TABLEAU = (
    "QuantumState",
    "StateVectorMixin",
    "DensityMatrixTrialResult",
    "CliffordTableau",
)
_OPERATORS = ("PauliSum", "Operation", "Gate")


def recognizes(value: object) -> bool:
    """Tell whether this is a result with a state, a state, or an operator."""
    return class_of(value, "cirq", (_STATE, _VECTORS, _MATRICES, _TABLEAU, *_OPERATORS)) is not None


def take(value: Any) -> QuantumState | MemoryState:
    """Return a state, or the final one of a simulation, with what was measured and the values of parameters.

    Gates, operations and sums of Pauli strings become operators. Qubits become labels, as they are written: ``q(0)``.

    Raises
    ------
    InvalidStateError
        A gate is not unitary, or has parameters without values.
    BudgetError
        The matrix of an operator takes more than 16 GiB.
    """
    if class_of(value, "cirq", _OPERATORS):
        return _operator(value)
    if class_of(value, "cirq", (_TABLEAU,)):
        return StabilizerState(np.hstack([value.xs, value.zs, value.rs[:, None]]))
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


def _operator(value: Any) -> Operator:
    import cirq  # noqa: PLC0415

    qubits = getattr(value, "qubits", ())
    if class_of(value, "cirq", ("PauliSum",)):  # of which they are in no order
        qubits = sorted(qubits)
    dims = [one.dimension for one in qubits] or list(cirq.qid_shape(value))
    check_dense_operator(dims, f"an operator on sites of dimensions {dims}")
    matrix = value.matrix(qubits) if hasattr(value, "matrix") and qubits else cirq.unitary(value, None)
    if matrix is None:
        raise InvalidStateError(
            f"{value!r:.80} has no unitary matrix", next_step="give one that is unitary, with values"
        )
    return Operator(matrix, qubit_order="big", dims=dims, labels=unique([str(one) for one in qubits]))


def _taken(vector: Any, matrix: Any, dims: Any, labels: Any) -> StateVector | DensityMatrix:
    if vector is not None:
        return StateVector(vector, qubit_order="big", dims=dims, labels=labels)
    return DensityMatrix(matrix(), qubit_order="big", dims=dims, labels=labels)


def give(state: QuantumState, *, max_bytes: int = MAX_BYTES) -> Any:
    """Return what ``simulate(circuit, initial_state=...)`` takes: a `cirq.QuantumState`; an array for a density matrix.

    Of a stabiliser state it is a `CliffordTableau`, of a unitary operator a `MatrixGate`. The dtype of an array is that
    of the state where Cirq has it. Labels are lost: Cirq's states have none.

    Parameters
    ----------
    max_bytes
        The largest size that a matrix product state may be contracted to.
    """
    import cirq  # noqa: PLC0415

    if isinstance(state, StabilizerState):
        made = cirq.CliffordTableau(state.n_sites)
        n = state.n_sites
        made.xs, made.zs, made.rs = state.tableau[:, :n], state.tableau[:, n:-1], state.tableau[:, -1]
        return made
    found = dense_or_operator(state, "big", "Cirq", max_bytes=max_bytes)
    if isinstance(found, Operator):
        if not found.is_unitary():
            raise InvalidStateError("Cirq has gates of unitary operators", next_step="take np.asarray(memory.quantum)")
        return cirq.MatrixGate(found.matrix, qid_shape=found.dims)
    array = np.asarray(found)
    array = array.astype(np.result_type(array.dtype, np.complex64), copy=False)
    if isinstance(found, DensityMatrix):  # of which a QuantumState is not taken by Cirq's own simulator
        return array
    # Cirq would refuse a norm that is off by more than 1e-7, and it may come from Cirq itself.
    return cirq.QuantumState(array, qid_shape=found.dims, validate=False)
