"""PennyLane: what `state()`, `density_matrix()` and snapshots return, operators, and what prepares a state.

The first wire is the most significant digit of an index. What PennyLane returns is often a plain array, which does not
say that it comes from there: then it is to be said, ``MemoryState.of(array, "pennylane")``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from quantum_memory.errors import InvalidStateError
from quantum_memory.interop.shared import (
    MAX_BYTES,
    check_dense_operator,
    class_of,
    dense_or_operator,
    matrix_of,
    only_qubits,
    unique,
)
from quantum_memory.state.memory_state import MemoryState
from quantum_memory.state.operator import Operator
from quantum_memory.state.quantum_state import DensityMatrix, StateVector
from quantum_memory.state.stabilizer_state import StabilizerState
from quantum_memory.state.tensors import is_tensor, to_stored

if TYPE_CHECKING:
    from quantum_memory.state.document import QuantumState

PACKAGES = ("pennylane",)


def recognizes(value: object) -> bool:
    """Tell whether this is a tensor of PennyLane's own NumPy, or an operator."""
    return class_of(value, "pennylane", ("tensor", "Operator")) is not None


def take(value: Any) -> QuantumState | MemoryState:
    """Return an array as a state of qubits, and snapshots, which are a dict, as a tree in which such arrays are states.

    So are the results of several measurements, which are a tuple. The tableaus of `default.clifford` are states.

    Operations that prepare a state become that state, other operators matrices on their wires, in their order.

    Raises
    ------
    InvalidStateError
        An array has another shape, or an operator has no matrix.
    BudgetError
        The matrix of an operator takes more than 16 GiB.
    """
    if class_of(value, "pennylane", ("Operator",)):
        return _operation(value)
    if isinstance(value, Mapping):
        return MemoryState(classical={key: _snapshot(one) for key, one in value.items()})
    if isinstance(value, (tuple, list)) and any(np.ndim(one) for one in value):  # of several measurements
        return MemoryState(classical=[_snapshot(one) for one in value])
    state = _state(_array(value))
    if state is None:
        raise InvalidStateError(f"an array of shape {np.shape(value)} is no state of qubits")
    return state


def _operation(value: Any) -> QuantumState:
    import pennylane as qml  # noqa: PLC0415

    wires = list(value.wires)
    labels = unique([str(one) for one in wires])
    if value.batch_size is not None:
        raise InvalidStateError(f"{value!r:.80} has values of {value.batch_size} at once", next_step="give one of them")
    if class_of(value, "pennylane", ("StatePrepBase",)):
        return StateVector(_array(value.state_vector()).reshape(-1), qubit_order="big", labels=labels)
    if class_of(value, "pennylane", ("QubitDensityMatrix",)):
        return DensityMatrix(_array(value.parameters[0]), qubit_order="big", labels=labels)
    check_dense_operator([2] * len(wires), f"an operator on {len(wires)} qubits")
    try:
        matrix = _array(qml.matrix(value, wire_order=wires))
    except (qml.exceptions.OperatorPropertyUndefined, qml.exceptions.TransformError, ValueError) as error:
        raise InvalidStateError(f"{value!r:.80} has no matrix: {error}", next_step="keep what it is made of") from error
    if matrix.dtype.kind in "bi":  # of 0, 1 and -1
        matrix = matrix.astype(np.float64)
    return Operator(matrix, qubit_order="big", labels=labels)


def _array(value: Any) -> Any:
    """Return an array of any of PennyLane's interfaces as one of NumPy, without its gradient."""
    if is_tensor(value):
        return to_stored(value, "the tensor")[0]
    return np.asarray(value.toarray() if hasattr(value, "toarray") else value)


def _snapshot(value: Any) -> Any:
    if not isinstance(value, (np.ndarray, np.generic)) and not is_tensor(value):
        return value
    array = _array(value)
    state = _state(array) if array.dtype.kind == "c" or _is_tableau(array) else None
    return array if state is None else state


def _state(array: Any) -> QuantumState | None:
    size = array.shape[0] if array.ndim else 0
    if _is_tableau(array):
        return StabilizerState(array.astype(bool))
    if size < 2 or size & (size - 1):
        return None
    if array.ndim == 1:
        return StateVector(array, qubit_order="big")
    return matrix_of(array, "big") if array.shape == (size, size) else None


def _is_tableau(array: Any) -> bool:
    """Tell whether this is what `default.clifford` returns as a state: a table of zeros and ones, of (2 n, 2 n + 1)."""
    rows = array.shape[0] if array.ndim == 2 else 1
    return rows % 2 == 0 and array.shape[1] == rows + 1 and array.dtype.kind in "biu" and bool((array >> 1 == 0).all())


def give(state: QuantumState, *, wires: Any = None, max_bytes: int = MAX_BYTES) -> Any:
    """Return the operation that prepares a state: `qml.StatePrep`, or `qml.QubitDensityMatrix`; or an operator.

    A unitary operator becomes a `qml.QubitUnitary`, another one that is Hermitian a `qml.Hermitian`.

    Parameters
    ----------
    wires
        By default the numbers from 0, as those of a device of so many wires; `memory.quantum.labels` are names.
    max_bytes
        The largest size that a matrix product state may be contracted to.
    """
    import pennylane as qml  # noqa: PLC0415

    only_qubits(state, "PennyLane")
    found = dense_or_operator(state, "big", "PennyLane", max_bytes=max_bytes)
    where = qml.wires.Wires(range(found.n_sites) if wires is None else wires)
    if len(where) != found.n_sites:
        raise InvalidStateError(f"{len(where)} wires are named for {found.n_sites} qubits", next_step="name as many")
    if isinstance(found, StateVector):
        return qml.StatePrep(found.amplitudes, wires=where, validate_norm=False)
    if isinstance(found, Operator):
        if not (found.is_unitary() or found.is_hermitian()):
            raise InvalidStateError("PennyLane has unitary and Hermitian operators, and this is neither")
        return (qml.QubitUnitary if found.is_unitary() else qml.Hermitian)(found.matrix, wires=where)
    return qml.QubitDensityMatrix(found.matrix, wires=where)
