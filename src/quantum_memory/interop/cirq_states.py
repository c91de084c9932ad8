"""Cirq: results of simulations, `QuantumState`, `CliffordTableau`, and operators.

The first qubit is the most significant digit of an index.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from quantum_memory.errors import InvalidStateError
from quantum_memory.interop.shared import (
    MAX_BYTES,
    check_dense_operator,
    checked_tableau,
    class_of,
    dense_or_operator,
    unique,
)
from quantum_memory.state.memory_state import MemoryState
from quantum_memory.state.operator import Operator
from quantum_memory.state.pauli_rows import PauliRows
from quantum_memory.state.quantum_state import DensityMatrix, StateVector
from quantum_memory.state.stabilizer_state import StabilizerState

if TYPE_CHECKING:
    from quantum_memory.state.document import QuantumState

PACKAGES = ("cirq", "qsimcirq")
_STATE, _VECTORS, _MATRICES, _TABLEAU = (
    "QuantumState",
    "StateVectorMixin",
    ("DensityMatrixTrialResult", "DensityMatrixStepResult"),
    "CliffordTableau",
)
_CLIFFORD = ("CliffordTrialResult", "CliffordSimulatorStepResult", "CliffordState", "StabilizerStateChForm")
_OPERATORS = ("PauliSum", "Operation", "Gate")


def recognizes(value: object) -> bool:
    """Tell whether this is a result with a state, a state, or an operator."""
    return class_of(value, "cirq", (_STATE, _VECTORS, *_MATRICES, _TABLEAU, *_CLIFFORD, *_OPERATORS)) is not None


def take(value: Any) -> QuantumState | MemoryState:
    """Return a state, or the one of a simulation at its end or after a step, with measurements and parameters.

    Gates, operations and sums of Pauli strings become operators. Qubits become labels, as they are written: ``q(0)``.
    States of the Clifford simulator become tableaus, which have no global phase. Values of parameters that are
    expressions of SymPy become their text.

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
    state = _simulated(value)
    parameters = value.params.param_dict if hasattr(value, "params") else {}
    said = {
        "measurements": {key: np.asarray(found) for key, found in getattr(value, "measurements", {}).items()},
        "parameters": {
            str(name): str(found) if class_of(found, "sympy", ("Basic",)) else found
            for name, found in parameters.items()
        },
    }
    said = {name: found for name, found in said.items() if found}
    return MemoryState(state, classical=said) if said else state


def _simulated(value: Any) -> QuantumState:
    """Return the state of a simulator, of a step of it, or of its result, with the names of the qubits."""
    kind = class_of(value, "cirq", (_VECTORS, *_MATRICES, *_CLIFFORD))
    if kind == "CliffordTrialResult":
        return _simulated(value.final_state)
    if kind == "CliffordSimulatorStepResult":
        return _simulated(value.state)
    if kind == "StabilizerStateChForm":
        return StabilizerState(_tableau_of(value))
    if kind == "DensityMatrixStepResult":
        qubits = list(value._qubits)  # which it says nowhere else
    else:
        qubits = sorted(value.qubit_map, key=value.qubit_map.__getitem__)
    dims, labels = [one.dimension for one in qubits], unique([str(one) for one in qubits])
    if kind == "CliffordState":
        return StabilizerState(_tableau_of(value.ch_form), labels=labels)
    if kind == _VECTORS:
        vector = value.final_state_vector if hasattr(value, "final_state_vector") else value.state_vector(copy=True)
        return _taken(vector, None, dims, labels)
    ended = kind == "DensityMatrixTrialResult"
    return _taken(None, lambda: value.final_density_matrix if ended else value.density_matrix(copy=True), dims, labels)


def _tableau_of(form: Any) -> Any:
    """Return the tableau of a state ``U_C U_H |s>`` in CH form (S. Bravyi et al., Quantum 3, 181, 2019).

    The form has what ``U_C^H`` makes of each X (F, M, gamma) and of each Z (G). The bits of the inverse are those of
    the inverse of a symplectic matrix, and its phases follow by multiplication.
    """
    n = form.n
    bits = np.block([[form.F, form.M], [np.zeros((n, n), bool), form.G]]).astype(bool)
    images = PauliRows(bits[:, :n], bits[:, n:], np.concatenate([form.gamma, np.zeros(n)]).astype(np.uint8))
    other = np.r_[n : 2 * n, 0:n]
    inverse = bits.T[np.ix_(other, other)]
    products = PauliRows(np.zeros_like(images.x), np.zeros_like(images.z), np.zeros_like(images.phases))
    for row in range(2 * n):
        products.multiply(np.flatnonzero(inverse[:, row]), images, row)
    made = PauliRows(inverse[:, :n], inverse[:, n:], -products.phases % 4)
    turned, sites = np.asarray(form.v, bool), np.arange(n)
    order = np.concatenate([np.where(turned, n + sites, sites), np.where(turned, sites, n + sites)])
    table = np.hstack([made.x, made.z, made.signs()[:, None]])[order]
    table[n:, -1] ^= np.asarray(form.s, bool)
    return table


def _operator(value: Any) -> Operator:
    import cirq  # noqa: PLC0415

    qubits = getattr(value, "qubits", ())
    if class_of(value, "cirq", ("PauliSum",)):  # of which they are in no order
        qubits = sorted(qubits)
        dims = [one.dimension for one in qubits]
    else:
        dims = list(cirq.qid_shape(value))
    if not dims:
        raise InvalidStateError(f"{value!r:.80} acts on no qubits", next_step="keep the number that it is")
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

    Raises
    ------
    InvalidStateError
        It is no tableau, or an operator that is not unitary, or its qubit order is unstated.
    """
    import cirq  # noqa: PLC0415

    if isinstance(state, StabilizerState):
        table, n = checked_tableau(state, "Cirq").tableau, state.n_sites
        made = cirq.CliffordTableau(n)
        made.xs, made.zs, made.rs = table[:, :n], table[:, n:-1], table[:, -1]
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
