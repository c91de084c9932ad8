"""PyTorch: tensors, which say nothing of qubits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from quantum_memory.errors import InvalidStateError
from quantum_memory.interop.shared import MAX_BYTES, array_of, class_of
from quantum_memory.state import tensors
from quantum_memory.state.dtypes import SMALL_FLOATS
from quantum_memory.state.memory_state import as_quantum_state

if TYPE_CHECKING:
    from quantum_memory.state.dense_array import QubitOrder
    from quantum_memory.state.document import QuantumState

PACKAGES = ("torch",)


def recognizes(value: object) -> bool:
    """Tell whether this is a tensor."""
    return class_of(value, "torch", ("Tensor",)) is not None


def take(value: Any) -> QuantumState:
    """Return a tensor as a state of which the qubit order is unstated; on the CPU it is not copied.

    Raises
    ------
    InvalidStateError
        It has no dense items, or is of a type that a state has not.
    """
    array, facts = tensors.to_stored(value, "the tensor")
    if facts["dtype"] in SMALL_FLOATS:
        raise InvalidStateError(
            f"a state cannot be of the dtype {facts['dtype']}",
            next_step="convert it, say tensor.float(), or keep it in the classical part",
        )
    return as_quantum_state(array)


def give(state: QuantumState, *, qubit_order: QubitOrder | None = None, max_bytes: int = MAX_BYTES) -> Any:
    """Return a `torch.Tensor` on the CPU, of its own memory and of the dtype of the state.

    Parameters
    ----------
    qubit_order
        By default the one that it has; a matrix product state has none before it is contracted.
    max_bytes
        The largest size that a matrix product state may be contracted to.
    """
    import torch  # noqa: PLC0415

    return torch.from_numpy(np.array(array_of(state, qubit_order, "PyTorch", max_bytes=max_bytes)))
