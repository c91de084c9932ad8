"""Qiskit: `Statevector` and `DensityMatrix`. Qubit 0 is the least significant digit of an index."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from quantum_memory.interop.shared import MAX_BYTES, class_of, dense
from quantum_memory.state.quantum_state import DensityMatrix, StateVector

if TYPE_CHECKING:
    from quantum_memory.state.document import QuantumState

PACKAGES = ("qiskit",)
_CLASSES = ("Statevector", "DensityMatrix")


def recognizes(value: object) -> bool:
    """Tell whether this is a `Statevector` or a `DensityMatrix`."""
    return class_of(value, "qiskit", _CLASSES) is not None


def take(value: Any) -> QuantumState:
    """Return a state of Qiskit; the array is not copied."""
    if class_of(value, "qiskit", _CLASSES) == "Statevector":
        return StateVector(value.data, qubit_order="little", dims=value.dims())
    return DensityMatrix(value.data, qubit_order="little", dims=value.dims())


def give(state: QuantumState, *, max_bytes: int = MAX_BYTES) -> Any:
    """Return a `qiskit.quantum_info.Statevector` or `DensityMatrix`.

    They are of complex128; one of another dtype is converted by Qiskit. Labels are lost: Qiskit's states have none.

    Parameters
    ----------
    max_bytes
        The largest size that a matrix product state may be contracted to.
    """
    from qiskit import quantum_info  # noqa: PLC0415

    found = dense(state, "little", "Qiskit", max_bytes=max_bytes)
    if isinstance(found, StateVector):
        return quantum_info.Statevector(found.amplitudes, dims=found.dims)
    return quantum_info.DensityMatrix(found.matrix, dims=found.dims)
