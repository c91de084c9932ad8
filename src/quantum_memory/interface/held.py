"""What a `QuantumClassicalInterface` holds, as plain values."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from quantum_memory.encoding.measurement import MeasurementCache
    from quantum_memory.encoding.noise import NoiseModel
    from quantum_memory.encoding.pad_encoding import PADEncoding
    from quantum_memory.state.emotional_state import EmotionalContext
    from quantum_memory.state.matrix_product_state import MatrixProductState
    from quantum_memory.state.pad import PAD


@dataclass
class Held:
    """What an interface holds.

    Attributes
    ----------
    encoding
        The code.
    state
        The quantum state; None stands for that of the neutral point, which nobody has asked for yet.
    terms
        Weights and points that were encoded; none where that is not known.
    emotion, cache, noise, network, metadata
        See `QuantumClassicalInterface`; the network is one, or the tree of its weights.
    fidelities
        Those of the readings.
    created_at
        When, ISO 8601; None where that is not known.
    """

    encoding: PADEncoding
    state: MatrixProductState | None
    terms: list[tuple[complex, PAD]]
    emotion: EmotionalContext
    cache: MeasurementCache
    noise: NoiseModel | None = None
    network: Any = None
    metadata: dict[str, Any] = field(default_factory=dict)
    fidelities: list[float] = field(default_factory=list)
    created_at: str | None = None
