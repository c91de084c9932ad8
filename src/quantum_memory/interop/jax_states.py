"""JAX: arrays, which say nothing of qubits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from quantum_memory.errors import InvalidStateError
from quantum_memory.interop.shared import MAX_BYTES, array_of, class_of
from quantum_memory.state.memory_state import as_quantum_state

if TYPE_CHECKING:
    from quantum_memory.state.dense_array import QubitOrder
    from quantum_memory.state.document import QuantumState

PACKAGES = ("jax", "jaxlib")


def recognizes(value: object) -> bool:
    """Tell whether this is an array."""
    return hasattr(value, "__dlpack__")


def take(value: Any) -> QuantumState:
    """Return an array as a state of which the qubit order is unstated.

    Raises
    ------
    InvalidStateError
        It has no values yet: it stands in a function that JAX transforms.
    """
    return as_quantum_state(within(value))


def within(value: Any) -> np.ndarray[Any, Any]:
    """Return an array inside a tree, such as a parameter of a model, as one of NumPy.

    Raises
    ------
    InvalidStateError
        It has no values yet: it stands in a function that JAX transforms.
    """
    if class_of(value, "jax", ("Tracer",)):
        raise InvalidStateError(
            "the array has no values yet, in a function that JAX transforms",
            next_step="save what the function returns, or use jax.debug.callback",
        )
    return np.asarray(value)


def give(state: QuantumState, *, qubit_order: QubitOrder | None = None, max_bytes: int = MAX_BYTES) -> Any:
    """Return a `jax.Array` of the dtype of the state.

    Parameters
    ----------
    qubit_order
        By default the one that it has; a matrix product state has none before it is contracted.
    max_bytes
        The largest size that a matrix product state may be contracted to.

    Raises
    ------
    InvalidStateError
        It is in double precision, which JAX has only where it is told so.
    """
    import jax  # noqa: PLC0415

    array = array_of(state, qubit_order, "JAX", max_bytes=max_bytes)
    made = jax.numpy.array(array)
    if made.dtype != array.dtype:
        raise InvalidStateError(
            f"JAX would make {made.dtype} of {array.dtype}", next_step='jax.config.update("jax_enable_x64", True)'
        )
    return made
