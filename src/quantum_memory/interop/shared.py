"""What adapters have in common: which class a value is of, and a state in the form that a library takes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from quantum_memory.errors import BudgetError, InvalidStateError
from quantum_memory.state.dense_array import DenseArray
from quantum_memory.state.matrix_product_state import MatrixProductState
from quantum_memory.state.operator import Operator
from quantum_memory.state.quantum_state import DensityMatrix, StateVector
from quantum_memory.state.sites import default_tolerance
from quantum_memory.state.stabilizer_state import StabilizerState

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from quantum_memory.state.dense_array import QubitOrder
    from quantum_memory.state.document import QuantumState

_Dense = TypeVar("_Dense", bound=DenseArray)

MAX_BYTES = 1 << 34
"""Bytes that a state may take when a library wants it dense, and it is not, unless its caller allows more."""


def class_of(value: object, package: str, classes: Collection[str]) -> str | None:
    """Return the first of some names that a class of a value has which comes from a package, or None."""
    for kind in type(value).__mro__:
        if kind.__module__.partition(".")[0] == package and kind.__name__ in classes:
            return kind.__name__
    return None


def dense(
    state: QuantumState, order: QubitOrder, library: str, *, max_bytes: int = MAX_BYTES
) -> StateVector | DensityMatrix:
    """Return a state as it is, or contracted, with its qubits in an order.

    Raises
    ------
    InvalidStateError
        Nobody has said in which order they are, or it is an operator.
    BudgetError
        A matrix product state or a tableau would take more than `max_bytes`.
    """
    if isinstance(state, MatrixProductState | StabilizerState):
        return state.to_dense(qubit_order=order, max_bytes=max_bytes)
    if isinstance(state, Operator):
        raise InvalidStateError(f"{library} takes states here, and this is an operator")
    return _in_order(state, order, library)


def dense_or_operator(
    state: QuantumState, order: QubitOrder, library: str, *, max_bytes: int = MAX_BYTES
) -> StateVector | DensityMatrix | Operator:
    """Return an operator with its qubits in an order, and a state as `dense` does."""
    if isinstance(state, Operator):
        return _in_order(state, order, library)
    return dense(state, order, library, max_bytes=max_bytes)


def _in_order(state: _Dense, order: QubitOrder, library: str) -> _Dense:
    if state.qubit_order == "unstated":
        raise InvalidStateError(
            f"its qubit order is unstated, and {library} has one",
            next_step=f'say which it has: state.with_qubit_order("{order}"), or the other',
        )
    return state.reordered(order)


def vector(state: QuantumState, order: QubitOrder, library: str, *, max_bytes: int = MAX_BYTES) -> StateVector:
    """Return a pure state as a vector; see `dense`."""
    found = dense(state, order, library, max_bytes=max_bytes)
    if not isinstance(found, StateVector):
        raise InvalidStateError(f"{library} takes state vectors here, and this is a density matrix")
    return found


def chain(
    state: QuantumState,
    library: str,
    *,
    max_bond: int | None = None,
    cutoff: float = 0.0,
    max_bytes: int = MAX_BYTES,
) -> MatrixProductState:
    """Return a pure state as a matrix product state.

    Parameters
    ----------
    max_bond, cutoff
        As for `MatrixProductState.from_dense`, for a state vector.
    max_bytes
        What the vector of a tableau may take on the way.
    """
    if isinstance(state, MatrixProductState):
        return state
    found = dense(state, "big", library, max_bytes=max_bytes) if isinstance(state, StabilizerState) else state
    if not isinstance(found, StateVector):
        kind = "an operator" if isinstance(found, Operator) else "a density matrix"
        raise InvalidStateError(f"{library} takes pure states here, and this is {kind}")
    return MatrixProductState.from_dense(found, max_bond=max_bond, cutoff=cutoff)


def matrix_of(array: Any, order: QubitOrder, *, atol: float | None = None, **facts: Any) -> DensityMatrix | Operator:
    """Return a square matrix of which a library does not say what it is: Hermitian of trace 1, it is a density matrix.

    Parameters
    ----------
    atol
        Within what it has to be that; by default what `dtype` gives.
    facts
        Its dims and labels.
    """
    found = DensityMatrix(array, qubit_order=order, **facts)
    tolerance = default_tolerance(found.dtype, len(found.matrix)) if atol is None else atol
    if abs(found.trace() - 1) <= tolerance and found.is_hermitian(tolerance):
        return found
    return Operator(array, qubit_order=order, **facts)


def check_dense_operator(dims: Sequence[int], what: str) -> None:
    """Refuse to make a matrix of more than `MAX_BYTES` of an operator that is none yet."""
    check_made(16 * math.prod(dims) ** 2, f"the matrix of {what}", "keep what it is made of: its terms, or a circuit")


def check_made(needed: int, what: str, next_step: str) -> None:
    """Refuse to make what takes more than `MAX_BYTES` of what is given; `save` has no option that would allow more."""
    if needed > MAX_BYTES:
        raise BudgetError(f"{what} needs {needed} bytes, and no more than {MAX_BYTES} are made", next_step=next_step)


def checked_tableau(state: StabilizerState, library: str) -> StabilizerState:
    """Return a stabiliser state whose tableau is one, which a library would find out too late or not at all."""
    if problems := state.problems():
        raise InvalidStateError(f"{library} does not take it: {problems[0]}", next_step="see state.problems()")
    return state


def only_qubits(state: QuantumState, library: str) -> None:
    """Refuse a state of anything else than qubits."""
    if set(state.dims) != {2}:
        raise InvalidStateError(f"{library} has qubits only, and the sites have the dimensions {state.dims}")


def scaled(state: MatrixProductState) -> list[Any]:
    """Return the tensors with the factor of `log_scale` in that of the orthogonality center, or in the first."""
    tensors = list(state.tensors)
    if state.log_scale:
        site = state.orthogonality_center or 0
        tensors[site] = (tensors[site] * np.exp(state.log_scale)).astype(state.dtype)
    return tensors


def unique(names: list[str]) -> list[str] | None:
    """Return names as labels, or None where two are the same, or they say nothing more than the numbers."""
    plain = [str(index) for index in range(len(names))]
    return None if len(set(names)) < len(names) or names == plain else names


def array_of(state: QuantumState, order: QubitOrder | None, library: str, *, max_bytes: int = MAX_BYTES) -> Any:
    """Return a dense state as an array of native byte order, its qubits in an order, or in the one that it has."""
    if order is None:
        if isinstance(state, MatrixProductState | StabilizerState):
            raise InvalidStateError(
                f"{library} has arrays, and {state} has no qubit order before it is made dense",
                next_step='say one: to(..., qubit_order="big")',
            )
        array = np.asarray(state)
    else:
        array = np.asarray(dense_or_operator(state, order, library, max_bytes=max_bytes))
    return array.astype(array.dtype.newbyteorder("="), copy=False)
