"""The emotions in files of the first implementation, on the scale that everything else uses.

Its pleasure is in [-1, 1], its arousal and dominance in [0, 1] (`PADScale.MIXED`). They are converted, each number
rounded once; the numbers of the file stay beside them, in the classical part.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from quantum_memory.errors import InvalidStateError
from quantum_memory.state.emotional_state import PAD, EmotionalContext, PADScale

if TYPE_CHECKING:
    from collections.abc import Mapping

_KNOWN = (
    "recent_emotions",
    "average_confidence",
    "emotional_stability",
    "stability",
    "trajectory",
)
_OF_EMOTION = ("pad_values", "timestamp", "confidence")


def converted(classical: Mapping[str, Any]) -> EmotionalContext | None:
    """Return the emotions in the classical part of a file on the bipolar scale; None where there are none.

    Those are what the file calls its emotional context, or else the emotions of its measurements; and the point that a
    store calls its PAD values.

    Raises
    ------
    InvalidStateError
        There are some that are not on the scale of the first implementation, or not well formed.
    """
    said = classical.get("emotional_context")
    if said is not None and not isinstance(said, dict):
        raise InvalidStateError("it is no object")
    values = {name: said[name] for name in _KNOWN if name in said} if said else _of_measurements(classical)
    try:
        recent = values.get("recent_emotions")
        if isinstance(recent, np.ndarray):
            values["recent_emotions"] = recent.tolist()
        context = EmotionalContext.from_dict(values, scale=PADScale.MIXED).to_scale(PADScale.BIPOLAR)
        point = classical.get("pad_values")
        pad = None if point is None else PAD.of(point, PADScale.MIXED)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        if isinstance(error, InvalidStateError):
            raise
        raise InvalidStateError(f"it is not well formed: {error!s:.200}") from error
    if pad is None and not values:
        return None
    return EmotionalContext(
        pad=pad,
        recent_emotions=context.recent_emotions,
        stability=context.stability,
        confidence=context.confidence,
        trajectory=context.trajectory,
    )


def _of_measurements(classical: Mapping[str, Any]) -> dict[str, Any]:
    """Return the emotions that were measured, the oldest first, as an emotional context has them."""
    cache = classical.get("measurement_cache")
    states = [item.get("state") for item in cache if isinstance(item, dict)] if isinstance(cache, list) else []
    emotions = [
        {name: state[name] for name in _OF_EMOTION if name in state}
        for state in states
        if isinstance(state, dict) and "pad_values" in state
    ]
    return {"recent_emotions": emotions} if emotions else {}
