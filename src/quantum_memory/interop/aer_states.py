"""Qiskit Aer: what a circuit saves into its result, and the instructions that set a simulator to a state.

Aer's matrix product states are in Vidal's form: a tensor (left, right) for each digit of each qubit, and the Schmidt
values of each bond, largest first.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from quantum_memory.errors import InvalidStateError
from quantum_memory.interop import qiskit_states
from quantum_memory.interop.shared import MAX_BYTES, chain, class_of, dense, only_qubits
from quantum_memory.state.document import QuantumState
from quantum_memory.state.matrix_product_state import MatrixProductState
from quantum_memory.state.memory_state import MemoryState
from quantum_memory.state.operator import Operator
from quantum_memory.state.quantum_state import StateVector
from quantum_memory.state.stabilizer_state import StabilizerState
from quantum_memory.state.vidal import from_vidal, to_vidal

PACKAGES = ("qiskit", "qiskit_aer")


def recognizes(value: object) -> bool:
    """Tell whether this is a result."""
    return class_of(value, "qiskit", ("Result",)) is not None


def take(value: Any) -> MemoryState:
    """Return what a circuit has saved in a result.

    One state becomes the quantum part; everything, with its label, is in the classical part when there is more than
    that. Of a result with several experiments there is a list.

    Raises
    ------
    InvalidStateError
        There are no experiments, or one of them has failed or has saved nothing.
    """
    for index, one in enumerate(value.results):
        if not one.success:
            raise InvalidStateError(
                f"experiment {index} of the result has failed: {one.status!s:.200}",
                next_step="run it again, or leave it out",
            )
    saved = [_memory_of(value.data(index)) for index in range(len(value.results))]
    if len(saved) == 1:
        return saved[0]
    if not saved:
        raise InvalidStateError("the result has no experiments", next_step="see result.status")
    return MemoryState(
        classical={"experiments": [one.quantum if one.classical is None else one.classical for one in saved]}
    )


def _memory_of(data: Mapping[str, Any]) -> MemoryState:
    items = {label: _item(value) for label, value in data.items()}
    if not items:
        raise InvalidStateError(
            "the result has nothing in it", next_step="have the circuit save something: circuit.save_statevector()"
        )
    states = [one for one in items.values() if isinstance(one, QuantumState) and not isinstance(one, Operator)]
    if len(states) == 1 and len(items) == 1:
        return MemoryState(states[0])
    return MemoryState(states[0] if len(states) == 1 else None, classical=items)


def _item(value: Any) -> Any:
    if qiskit_states.recognizes(value):
        return qiskit_states.take(value)
    if isinstance(value, tuple) and len(value) == 2 and all(isinstance(part, list) for part in value):
        gammas, lambdas = value
        return take_mps(gammas, lambdas)
    if isinstance(value, list):  # of each shot
        return [_item(one) for one in value]
    if isinstance(value, Mapping):  # of each outcome, or a distribution
        return {key: _item(one) for key, one in value.items()}
    return value


def take_mps(gammas: Any, lambdas: Any) -> MatrixProductState:
    """Return what ``save_matrix_product_state`` has saved: for each qubit two matrices, for each bond its values."""
    return from_vidal([np.stack(site, axis=1) for site in gammas], lambdas)


def give(state: QuantumState, *, max_bond: int | None = None, cutoff: float = 0.0, max_bytes: int = MAX_BYTES) -> Any:
    """Return the instruction that sets Aer's simulator to a state, of all qubits: append it to a circuit.

    Parameters
    ----------
    max_bond, cutoff
        As for `MatrixProductState.truncate`, for a matrix product state; by default nothing but zeros is cut off.
    max_bytes
        Not used for a matrix product state, which stays one.

    Raises
    ------
    InvalidStateError
        It is not normalised, as Aer wants it to 1e-8.
    """
    from qiskit_aer import library  # noqa: PLC0415

    only_qubits(state, "Aer")
    if isinstance(state, MatrixProductState):
        gammas, lambdas = to_vidal(chain(state, "Aer"), max_bond=max_bond, cutoff=cutoff)
        sites = [(np.ascontiguousarray(site[:, 0]), np.ascontiguousarray(site[:, 1])) for site in gammas]
        return library.SetMatrixProductState((sites, lambdas))
    if isinstance(state, StabilizerState):
        return library.SetStabilizer(qiskit_states.give(state).clifford)
    found = dense(state, "little", "Aer", max_bytes=max_bytes)
    kind = library.SetStatevector if isinstance(found, StateVector) else library.SetDensityMatrix
    try:
        return kind(np.asarray(found).astype(np.complex128, copy=False))
    except ValueError as error:
        raise InvalidStateError(
            f"Aer does not take it: {error}", next_step="see state.problems(); state.normalized() has norm 1"
        ) from error
