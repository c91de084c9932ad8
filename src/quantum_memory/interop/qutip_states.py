"""QuTiP: `Qobj`, and what its solvers return. The first subsystem is the most significant digit of an index."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from quantum_memory.errors import InvalidStateError
from quantum_memory.interop.shared import MAX_BYTES, class_of, dense_or_operator, matrix_of
from quantum_memory.state.memory_state import MemoryState
from quantum_memory.state.quantum_state import DensityMatrix, StateVector

if TYPE_CHECKING:
    from quantum_memory.state.document import QuantumState

PACKAGES = ("qutip",)
_TOLERANCE = 1e-6  # what its solvers leave of Hermiticity and trace is no sign of an operator


def recognizes(value: object) -> bool:
    """Tell whether this is a `Qobj`, or what a solver has returned."""
    return class_of(value, "qutip", ("Qobj", "Result", "MultiTrajResult")) is not None


def take(value: Any) -> QuantumState | MemoryState:
    """Return a ket as a state vector, and a square operator as a density matrix where it is one; or a solver's result.

    A `Qobj` does not say which it is: Hermitian of trace 1, it is taken as a density matrix.

    Of a result, the final state is the quantum part; times, states and expectation values that it has are beside it.
    Of many trajectories these are averages, and what is kept of each of them is there as well.
    """
    if class_of(value, "qutip", ("MultiTrajResult",)):
        return _trajectories(value)
    return _result(value) if class_of(value, "qutip", ("Result",)) else _state(value)


def _state(value: Any) -> QuantumState:
    if value.isket:
        return StateVector(np.ascontiguousarray(value.full()[:, 0]), qubit_order="big", dims=_dims(value.dims[0]))
    if value.isoper and value.dims[0] == value.dims[1]:
        return matrix_of(value.full(), "big", atol=_TOLERANCE, dims=_dims(value.dims[0]))
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


def _trajectories(value: Any) -> MemoryState:
    states = [_mean(one) for one in value.average_states or []]
    said: dict[str, Any] = {"times": np.asarray(value.times), "trajectories": int(value.num_trajectories)}
    if states:
        said["states"] = states
    for name in ("average_e_data", "std_e_data", "runs_e_data"):
        if found := getattr(value, name):
            said[name.replace("e_data", "expect")] = {key: np.asarray(one) for key, one in found.items()}
    if value.runs_states:
        said["runs_states"] = [[_state(one) for one in run] for run in value.runs_states]
    elif value.runs_final_states:
        said["runs_final_states"] = [_state(one) for one in value.runs_final_states]
    if class_of(value, "qutip", ("McResult",)):
        said["collapses"] = [[(float(time), int(which)) for time, which in run] for run in value.collapse]
    if value.average_final_state is not None:
        return MemoryState(_mean(value.average_final_state), classical=said)
    return MemoryState(states[-1] if states else None, classical=said)


def _mean(value: Any) -> DensityMatrix:
    """Return a mean of trajectories, which is a state, whatever its trace: stochastic solvers keep no norm."""
    return DensityMatrix(value.full(), qubit_order="big", dims=_dims(value.dims[0]))


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
