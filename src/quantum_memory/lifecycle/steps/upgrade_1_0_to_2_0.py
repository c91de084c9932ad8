"""States of the interface from version 1.0 to 2.0: nothing is lost, and nothing is made up.

What 2.0 has beyond 1.0 is computed where it follows from the measurements. Times, devices and checksums that 1.0 does
not have stay away, and so do a mean, a least and a greatest of no measurements.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import numpy as np

from quantum_memory.errors import InvalidStateError
from quantum_memory.lifecycle.versions.step import Step
from quantum_memory.lifecycle.versions.tree import ABSENT, Document
from quantum_memory.state.pad import AXES, PADScale

CARRIED = ("interface_config", "measurement_cache", "classical_network_state")
"""Members that both versions have, and that mean the same in both."""

HISTORY = "migration_info"
"""Where in ``metadata`` stands what was migrated before."""

UNRECOGNISED = "unrecognised"
"""Where in a document of version 2.0 members of 1.0 stand that neither version knows."""

_RECENT = 10
_UNMEASURABLE = 1e100
"""Fidelities, confidences and PAD values are of the order of 1. From such numbers, and NaN, nothing follows."""


def upgrade(document: Document) -> Document:
    """Return a document of version 2.0 with what one of version 1.0 holds."""
    rest = {name: value for name, value in document.items() if name not in {*CARRIED, "version"}}
    history = _take_metadata(rest)
    cache = document.get("measurement_cache")
    states = _states(cache) if isinstance(cache, list) else None
    metadata: Document = {"version": "2.0"}
    if states is not None:
        metadata["n_measurements_cached"] = len(states)
    config = document.get("interface_config")
    if isinstance(config, dict) and "device" in config:
        metadata["device"] = config["device"]
    if any("pad_values" in state for state in states or []):
        metadata["pad_scales"] = {axis: list(ends) for axis, ends in zip(AXES, PADScale.MIXED.bounds, strict=True)}
    if history is not ABSENT:
        metadata[HISTORY] = history
    return {
        "metadata": metadata,
        "compression_metrics": {},
        "fidelity_metrics": {} if states is None else _fidelity_metrics(states),
        "emotional_context": {} if states is None else _emotional_context(states),
        **{name: document[name] for name in CARRIED if name in document},
        "tensor_memory_stats": {},
        **({UNRECOGNISED: rest} if rest else {}),
    }


def _take_metadata(rest: Document) -> Any:
    """Take out of what 1.0 does not know what is known in its ``metadata``, and return the history of migrations."""
    metadata = rest.get("metadata")
    if not isinstance(metadata, dict):
        return ABSENT
    left = {name: value for name, value in metadata.items() if name not in {"version", HISTORY}}
    if left or not metadata:
        rest["metadata"] = left
    else:
        del rest["metadata"]
    return metadata.get(HISTORY, ABSENT)


def _states(cache: list[Any]) -> list[Document]:
    """Return the states of the measurements, oldest first; empty ones stand for what is no state."""
    found = [item.get("state") if isinstance(item, dict) else None for item in cache]
    return [state if isinstance(state, dict) else {} for state in found]


def _fidelity_metrics(states: list[Document]) -> Document:
    """Return the last fidelities, and the mean, the least and the greatest of all."""
    values = [state["measurement_fidelity"] for state in states if "measurement_fidelity" in state]
    made: Document = {"measurement_fidelities": values[-_RECENT:]} if len(values) == len(states) else {}
    numbers = _numbers(values, len(states))
    if numbers is None:
        return made
    figures = {"average_fidelity": _mean(numbers), "min_fidelity": min(numbers), "max_fidelity": max(numbers)}
    return made | figures


def _emotional_context(states: list[Document]) -> Document:
    """Return the last emotions, the mean of their confidence, and how little they change."""
    recent = states[-_RECENT:]
    made: Document = {"recent_emotions": [_emotion(state) for state in recent]}
    confidence = _numbers([state.get("confidence") for state in recent], len(recent))
    if confidence is not None:
        made["average_confidence"] = _mean(confidence)
    points = [_numbers(state.get("pad_values"), len(AXES)) for state in recent]
    if len(points) >= 2 and None not in points:  # of one emotion alone nobody can say whether it is stable
        made["emotional_stability"] = 1.0 - float(np.mean(np.var(np.array(points), axis=0)))
    return made


def _emotion(state: Document) -> Document:
    """Return the emotion of a measurement: its PAD values as they are and, where they are on their scale, bipolar."""
    keys = ("pad_values", "timestamp", "confidence")
    made: Document = {key: state[key] for key in keys if key in state}
    point = _numbers(state.get("pad_values"), len(AXES))
    if point is not None:
        with suppress(InvalidStateError):
            made["pad_bipolar"] = PADScale.MIXED.to_bipolar(point).tolist()
    return made


def _numbers(values: Any, count: int) -> list[float] | None:
    """Return so many numbers as floats; None where there are none, others, or such as are no measured values."""
    if not isinstance(values, list) or not values or len(values) != count:
        return None
    if not all(type(value) in {int, float} and abs(value) < _UNMEASURABLE for value in values):
        return None
    return [float(value) for value in values]


def _mean(numbers: list[float]) -> float:
    return float(np.mean(numbers))


STEP = Step("1.0", "2.0", upgrade)
