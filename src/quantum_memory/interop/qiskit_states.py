"""Qiskit: the states of `qiskit.quantum_info`, and operators. Qubit 0 is the least significant digit of an index."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from quantum_memory.errors import InvalidStateError
from quantum_memory.interop.shared import MAX_BYTES, check_dense_operator, checked_tableau, class_of, dense_or_operator
from quantum_memory.state.operator import Operator
from quantum_memory.state.quantum_state import DensityMatrix, StateVector
from quantum_memory.state.stabilizer_state import StabilizerState

if TYPE_CHECKING:
    from quantum_memory.state.document import QuantumState

PACKAGES = ("qiskit",)
_CLASSES = ("Statevector", "DensityMatrix", "StabilizerState", "Clifford", "Operator", "SparsePauliOp", "Pauli")


def recognizes(value: object) -> bool:
    """Tell whether this is one of `qiskit.quantum_info`'s states, or an operator."""
    return class_of(value, "qiskit", _CLASSES) is not None


def take(value: Any) -> QuantumState:
    """Return a state or an operator of Qiskit; the array is not copied.

    Of a `Clifford` it is the state that it makes of zeros, with its whole tableau.

    Raises
    ------
    InvalidStateError
        An operator has other sites on the left than on the right.
    BudgetError
        The matrix of a sum of Pauli operators takes more than 16 GiB.
    """
    match class_of(value, "qiskit", _CLASSES):
        case "Statevector":
            return StateVector(value.data, qubit_order="little", dims=value.dims())
        case "DensityMatrix":
            return DensityMatrix(value.data, qubit_order="little", dims=value.dims())
        case "StabilizerState":
            return StabilizerState(value.clifford.tableau)
        case "Clifford":
            return StabilizerState(value.tableau)
        case "SparsePauliOp" | "Pauli":
            check_dense_operator([2] * value.num_qubits, f"an operator on {value.num_qubits} qubits")
            return Operator(value.to_matrix(), qubit_order="little")
    if value.input_dims() != value.output_dims():
        raise InvalidStateError(f"an operator from {value.input_dims()} to {value.output_dims()} is not kept")
    return Operator(value.data, qubit_order="little", dims=value.input_dims())


def give(state: QuantumState, *, max_bytes: int = MAX_BYTES) -> Any:
    """Return a `Statevector`, `DensityMatrix`, `StabilizerState` or `Operator` of `qiskit.quantum_info`.

    They are of complex128; one of another dtype is converted by Qiskit. Labels are lost: Qiskit's states have none.

    Parameters
    ----------
    max_bytes
        The largest size that a matrix product state may be contracted to.

    Raises
    ------
    InvalidStateError
        It is no tableau, or its qubit order is unstated.
    """
    from qiskit import quantum_info  # noqa: PLC0415

    if isinstance(state, StabilizerState):
        return quantum_info.StabilizerState(quantum_info.Clifford(checked_tableau(state, "Qiskit").tableau))
    found = dense_or_operator(state, "little", "Qiskit", max_bytes=max_bytes)
    if isinstance(found, StateVector):
        return quantum_info.Statevector(found.amplitudes, dims=found.dims)
    if isinstance(found, Operator):
        return quantum_info.Operator(found.matrix, input_dims=found.dims, output_dims=found.dims)
    return quantum_info.DensityMatrix(found.matrix, dims=found.dims)
