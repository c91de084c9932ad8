"""QuTiP: `Qobj`, and what its solvers return. The first subsystem is the most significant digit of an index."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from quantum_memory.errors import InvalidStateError
from quantum_memory.interop.shared import MAX_BYTES, class_of, dense_or_operator, matrix_of
from quantum_memory.state.memory_state import MemoryState
from quantum_memory.state.quantum_state import StateVector

if TYPE_CHECKING:
    from quantum_memory.state.document import QuantumState

PACKAGES = ("qutip",)


def recognizes(value: object) -> bool:
    """Tell whether this is a `Qobj`, or what a solver has returned."""
    return class_of(value, "qutip", ("Qobj", "Result")) is not None


def take(value: Any) -> QuantumState | MemoryState:
    """Return a ket as a state vector, and a square operator as a density matrix where it is one; or a solver's result.

    A `Qobj` does not say which it is: Hermitian of trace 1, it is taken as a density matrix.

    Of a result, the final state is the quantum part; times, states and expectation values that it has are beside it.
    """
    return _result(value) if class_of(value, "qutip", ("Result",)) else _state(value)


def _state(value: Any) -> QuantumState:
    if value.isket:
        return StateVector(np.ascontiguousarray(value.full()[:, 0]), qubit_order="big", dims=_dims(value.dims[0]))
    if value.isoper and value.dims[0] == value.dims[1]:
        return matrix_of(value.full(), "big", dims=_dims(value.dims[0]))
    raise InvalidStateError(
        f"a Qobj of type {value.type} with dims {value.dims} is no state",
        next_step="give a ket (the dag() of a bra), or a density matrix",
    )


def _dims(dims: Any) -> list[int]:
    if not all(isinstance(one, int) for one in dims):
        raise InvalidStateError(f"sites with the dims {dims} are not kept", next_step="make them flat, one number each")
    return list(dims)


def _result(value: Any) -> MemoryState:
    final = value.final_state if value.final_state is not None else (value.states or [None])[-1]
    said: dict[str, Any] = {"times": np.asarray(value.times)}
    if value.states:
        said["states"] = [_state(one) for one in value.states]
    if value.e_data:
        said["expect"] = {name: np.asarray(found) for name, found in value.e_data.items()}
    return MemoryState(None if final is None else _state(final), classical=said)


def give(state: QuantumState, *, max_bytes: int = MAX_BYTES) -> Any:
    """Return a `Qobj`: a ket, or an operator. It is of complex128, as all of QuTiP's.

    Parameters
    ----------
    max_bytes
        The largest size that a matrix product state may be contracted to.
    """
    import qutip  # noqa: PLC0415

    found = dense_or_operator(state, "big", "QuTiP", max_bytes=max_bytes)
    dims = list(found.dims)
    if isinstance(found, StateVector):
        return qutip.Qobj(found.amplitudes.reshape(-1, 1), dims=[dims, [1] * len(dims)])
    return qutip.Qobj(found.matrix, dims=[dims, dims])
