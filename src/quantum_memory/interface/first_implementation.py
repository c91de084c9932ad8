"""States that the interface of the first implementation saved, as what an interface of today holds.

What has a counterpart is taken over: tensors, emotions, measurements and their fidelities, and the weights of the
network. Everything else is kept in the metadata, as it was, in a document of the current version. The noise model is
among it: its rates are not those of channels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from quantum_memory.encoding.measurement import MeasurementCache, MeasurementRecord
from quantum_memory.encoding.pad_encoding import PADEncoding
from quantum_memory.errors import IntegrityError
from quantum_memory.interface.held import Held
from quantum_memory.lifecycle.version_manager import VersionManager
from quantum_memory.state.emotional_state import EmotionalContext
from quantum_memory.state.matrix_product_state import MatrixProductState
from quantum_memory.state.pad import PAD

if TYPE_CHECKING:
    from quantum_memory.state.memory_state import MemoryState

KEPT = "first_implementation"
"""Where in the metadata stands what has no counterpart."""

REGISTERS = {27: (10, 9, 8)}
"""How it shared its qubits among the axes, where that is not as evenly as possible."""

_NETWORK = "classical_network_state"
_MAX_QUBITS = 1000
_MAX_SHOTS = 1 << 20
"""Shots of a measurement that are unpacked; the first implementation made a thousand."""


def from_memory(memory: MemoryState) -> Held:
    """Return what an interface holds after this memory was loaded.

    The quantum state is that of the archive of tensors. Without one it is the code of the point that was measured last,
    as the emotion that the file is about.

    Raises
    ------
    IntegrityError
        It is not the state of an interface.
    """
    document = {"metadata": memory.metadata, **memory.classical} if memory.metadata else dict(memory.classical)
    if not isinstance(document.get("interface_config"), dict):
        raise IntegrityError("it is no state of an interface")
    beside = {name: document.pop(name) for name in ("_quantum.npz", "mps_tensors") if name in document}
    weights = document.get(_NETWORK)
    if isinstance(weights, dict):
        document[_NETWORK] = {name: _listed(one) for name, one in weights.items()}
    migrated = VersionManager().migrate(document)
    migrated.pop(_NETWORK, None)
    metadata = migrated.pop("metadata")
    metadata.pop("version")
    if "n_qubits" in metadata:
        migrated["metadata"] = {"n_qubits": metadata.pop("n_qubits")}
    n_qubits = document["interface_config"]["n_qubits"]
    if type(n_qubits) is not int or n_qubits > _MAX_QUBITS:
        raise IntegrityError(f"it says that it has {n_qubits!r:.40} qubits")
    encoding = PADEncoding(n_qubits, REGISTERS.get(n_qubits))
    emotion = memory.emotion or EmotionalContext()
    state, terms = _state(memory, encoding, emotion)
    cache = document.get("measurement_cache") or []
    fidelities = [item["state"]["measurement_fidelity"] for item in cache if "measurement_fidelity" in item["state"]]
    return Held(
        encoding,
        state,
        terms,
        emotion,
        MeasurementCache(records=[_record(item, n_qubits) for item in cache]),
        network=weights or None,
        metadata={**metadata, KEPT: migrated | beside},
        fidelities=[float(value) for value in fidelities],
    )


def _listed(weights: Any) -> Any:
    """Return an array as the nested lists that it was read from."""
    return weights.tolist() if isinstance(weights, np.ndarray) else weights


def _state(
    memory: MemoryState, encoding: PADEncoding, emotion: EmotionalContext
) -> tuple[MatrixProductState | None, list[tuple[complex, PAD]]]:
    """Return the quantum state, and what was encoded, as far as that is known."""
    if memory.quantum is not None:
        if not isinstance(memory.quantum, MatrixProductState) or memory.quantum.dims != (2,) * encoding.n_qubits:
            raise IntegrityError("the archive of tensors beside it holds no state of its qubits")
        return memory.quantum, []
    if not emotion.recent_emotions:
        return None, [(1.0, PAD(0.0, 0.0, 0.0))]
    last = PAD(*emotion.recent_emotions[-1].pad)
    return encoding.encode(last), [(1.0, last)]


def _record(item: dict[str, Any], n_qubits: int) -> MeasurementRecord:
    """Return the outcomes of a measurement; in which order they came is not in the file."""
    outcomes, counts = list(item["measurements"]), list(item["measurements"].values())
    if any(type(count) is not int or count < 1 for count in counts) or not 0 < sum(counts) <= _MAX_SHOTS:
        raise IntegrityError("its measurements do not count outcomes")
    if any(len(bits) != n_qubits or set(bits) - {"0", "1"} for bits in outcomes):
        raise IntegrityError(f"its measurements are not those of {n_qubits} qubits")
    rows = np.array([[bit == "1" for bit in bits] for bits in outcomes], np.uint8)
    timestamp = item["state"].get("timestamp")
    return MeasurementRecord.of(
        np.repeat(rows, counts, axis=0), timestamp=timestamp if isinstance(timestamp, str) else None
    )
