"""Qulacs: `QuantumState` and `DensityMatrix`. Qubit 0 is the least significant digit of an index."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from quantum_memory.interop.shared import MAX_BYTES, class_of, dense, only_qubits
from quantum_memory.state.quantum_state import DensityMatrix, StateVector

if TYPE_CHECKING:
    from quantum_memory.state.document import QuantumState

PACKAGES = ("qulacs_core", "qulacs")
_CLASSES = ("QuantumState", "DensityMatrix")


def recognizes(value: object) -> bool:
    """Tell whether this is a `QuantumState` or a `DensityMatrix`."""
    return class_of(value, "qulacs_core", _CLASSES) is not None


def take(value: Any) -> QuantumState:
    """Return a state of Qulacs."""
    if class_of(value, "qulacs_core", _CLASSES) == "QuantumState":
        return StateVector(value.get_vector(), qubit_order="little")
    return DensityMatrix(value.get_matrix(), qubit_order="little")


def give(state: QuantumState, *, max_bytes: int = MAX_BYTES) -> Any:
    """Return a `qulacs.QuantumState` or `DensityMatrix`; they are of complex128.

    Parameters
    ----------
    max_bytes
        The largest size that a matrix product state may be contracted to.
    """
    import qulacs  # noqa: PLC0415

    only_qubits(state, "Qulacs")
    found = dense(state, "little", "Qulacs", max_bytes=max_bytes)
    made: Any = (qulacs.QuantumState if isinstance(found, StateVector) else qulacs.DensityMatrix)(found.n_sites)
    made.load(np.asarray(found).astype(np.complex128, copy=False))
    return made
