"""What a `QuantumClassicalInterface` says in figures of its state, its readings and its saves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from quantum_memory.state.emotional_state import Trajectory

if TYPE_CHECKING:
    from collections.abc import Sequence

    from quantum_memory.formats.verbs import Saved
    from quantum_memory.state.emotional_state import Emotion

RECENT = 10
"""How many of the last readings and emotions are named one by one."""

_COMPLEX128_BYTES = 16


def dense_bytes(n_qubits: int) -> int:
    """Return the bytes of a state vector in complex128."""
    return _COMPLEX128_BYTES << n_qubits


def fidelity_metrics(of_state: float | None, of_readings: Sequence[float]) -> dict[str, Any]:
    """Return the fidelity of the state to what was encoded, and those of the readings to the state."""
    return {
        "definition": "|<a|b>|^2 of the held state and the encoded one",
        "state_fidelity": of_state,
        "measurement_definition": "Bhattacharyya fidelity of measured and exact Hamming weights, mean of the axes",
        "measurement_fidelities": of_readings[-RECENT:],
        "average_fidelity": sum(of_readings) / len(of_readings) if of_readings else None,
        "min_fidelity": min(of_readings, default=None),
        "max_fidelity": max(of_readings, default=None),
    }


def compression_metrics(n_qubits: int, nbytes: int) -> dict[str, Any]:
    """Return what the state takes, against its vector as plain binary numbers."""
    dense = dense_bytes(n_qubits)
    return {
        "definition": "bytes of the state vector in complex128, and of the tensors that are held",
        "original_size_bytes": dense,
        "compressed_size_bytes": nbytes,
        "compression_ratio": 1 - nbytes / dense,
        "compression_percentage": 100 * (1 - nbytes / dense),
    }


def save_figures(saved: Saved, n_qubits: int) -> dict[str, Any]:
    """Return what a save made of the state; see `QuantumClassicalInterface.save_history`."""
    dense = dense_bytes(n_qubits)
    return {
        "path": saved.path,
        "format": saved.format,
        "file_bytes": saved.bytes,
        "raw_bytes": saved.raw_bytes,
        "dense_bytes": dense,
        "ratio": dense / saved.bytes,
        "bits_per_real": 8 * saved.bytes / (2 << n_qubits),
    }


def stability(emotions: Sequence[Emotion]) -> float | None:
    """Return the stability of emotions (see `Trajectory.stability`), None for fewer than two."""
    return Trajectory(np.array([emotion.pad for emotion in emotions])).stability() if len(emotions) > 1 else None
