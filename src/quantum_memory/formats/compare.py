"""Compare two memories: what is the same, what differs, and how far apart their quantum states are."""

from __future__ import annotations

import math
import os
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from quantum_memory.errors import InvalidStateError
from quantum_memory.formats.registry import is_sealed
from quantum_memory.formats.verbs import load
from quantum_memory.state import metrics
from quantum_memory.state.document import content_id, identify
from quantum_memory.state.json_text import to_json
from quantum_memory.state.matrix_product_state import MatrixProductState
from quantum_memory.state.memory_state import MemoryState, as_memory_state
from quantum_memory.state.operator import Operator
from quantum_memory.state.quantum_state import StateVector

if TYPE_CHECKING:
    from quantum_memory.encryption.keys import OneKey
    from quantum_memory.formats.registry import Path
    from quantum_memory.state.document import QuantumState

PathOrState = Any


@dataclass(frozen=True)
class Comparison:
    """What `compare` found.

    Attributes
    ----------
    first, second
        What was compared: path, and id of the state where one was given.
    same_content
        Every bit of the two agrees: they have one `content_id`.
    differences
        What differs, by path: arrays of other bytes, shape or dtype, and parts of the document.
    fidelity, trace_distance, bures_distance
        Of the normalised quantum states, by the definitions in `definitions`; None where they cannot be had.
    max_difference
        Largest absolute difference of two entries, where dtype and shape allow; global phase and norm count.
    norms
        Norm of each state vector or matrix product state, trace of each density matrix.
    global_phase
        Angle in radians by which the second must be turned to be closest to the first; None for mixed states.
    pad_distance
        Euclidean distance of the PAD points.
    why_not
        Why there is no fidelity, where there is none.
    """

    first: str
    second: str
    same_content: bool
    content_ids: tuple[str, str]
    differences: list[str] = field(default_factory=list)
    fidelity: float | None = None
    trace_distance: float | None = None
    bures_distance: float | None = None
    max_difference: float | None = None
    norms: tuple[float | None, float | None] = (None, None)
    global_phase: float | None = None
    pad_distance: float | None = None
    why_not: str | None = None
    definitions: dict[str, str] = field(
        default_factory=lambda: {
            "fidelity": "|<a|b>|^2 of the normalised states; of density matrices (Tr sqrt(sqrt(a) b sqrt(a)))^2",
            "trace_distance": "Tr|a - b| / 2",
            "bures_distance": "sqrt(2 - 2 sqrt(fidelity))",
        }
    )

    def to_dict(self) -> dict[str, Any]:
        """Return the comparison as a plain dict."""
        return asdict(self)


def compare(
    a: PathOrState,
    b: PathOrState,
    *,
    state_id_a: str | None = None,
    state_id_b: str | None = None,
    max_bytes: int | None = None,
    allow_pickle: bool = False,
    key: OneKey | None = None,
) -> Comparison:
    """Compare two memories, each a path or anything that `save` takes; files are verified as they are read.

    Parameters
    ----------
    a, b
        The memories. A path is one that `quantum_memory.load` takes: of a file, an address, or a name.
    state_id_a, state_id_b
        Which state of each file, where that is a store that holds several.
    max_bytes, allow_pickle
        See `quantum_memory.load`, for each file.
    key
        The same, for those that are encrypted.

    Raises
    ------
    IntegrityError
        One of the files is damaged.
    InvalidStateError
        Something is no state; or a store holds several, and which was not said.
    """
    reading = {"max_bytes": max_bytes, "allow_pickle": allow_pickle}
    first, name_a = _memory(a, "the first", state_id_a, key, **reading)
    second, name_b = _memory(b, "the second", state_id_b, key, **reading)
    flat_a, flat_b = first.flatten(), second.flatten()
    arrays_a, arrays_b = identify(flat_a.arrays), identify(flat_b.arrays)
    ids = content_id(flat_a.document, arrays_a), content_id(flat_b.document, arrays_b)
    differences = [
        *(f"{path}: {_how(arrays_a.get(path), arrays_b.get(path))}" for path in sorted({*arrays_a, *arrays_b})
          if arrays_a.get(path) != arrays_b.get(path)),
        *_differing(flat_a.document, flat_b.document, ""),
    ]  # fmt: skip
    return Comparison(
        name_a, name_b, ids[0] == ids[1], ids, differences,
        **_between(first.quantum, second.quantum), pad_distance=_pad_distance(first, second),
    )  # fmt: skip


def named(path: Path, state_id: str | None) -> str:
    """Return what a comparison calls a state in a file."""
    return os.fspath(path) if state_id is None else f"{os.fspath(path)}, state {state_id}"


def _memory(
    value: PathOrState, name: str, state_id: str | None, key: OneKey | None, **reading: Any
) -> tuple[MemoryState, str]:
    if isinstance(value, (str, os.PathLike)):
        needed = key if is_sealed(value) else None
        return load(value, state_id=state_id, key=needed, **reading), named(value, state_id)
    if state_id is not None:
        raise InvalidStateError(f"{name} is no file, and has no states by id", next_step="leave its state_id out")
    return as_memory_state(value), name


def _how(a: Any, b: Any) -> str:
    if a is None or b is None:
        return f"only in {'the second' if a is None else 'the first'}"
    if (a.dtype, a.shape) != (b.dtype, b.shape):
        return f"{a.dtype} of shape {a.shape} and {b.dtype} of shape {b.shape}"
    return "other values"


def _differing(a: Any, b: Any, path: str) -> list[str]:
    """Return where two documents differ; as in `content_id`, the order of keys, of a `$dict` too, does not count."""
    if isinstance(a, dict) and isinstance(b, dict) and ("$dict" in a) == ("$dict" in b):
        items_a, items_b = _items(a), _items(b)
        found = []
        for key in sorted({*items_a, *items_b}):
            here = f"{path}.{key}" if path else key
            if key not in items_a or key not in items_b:
                found.append(f"{here}: only in {'the second' if key not in items_a else 'the first'}")
            else:
                found += _differing(items_a[key], items_b[key], here)
        return found
    return [] if content_id(a, {}) == content_id(b, {}) else [f"{path}: {a!r:.60} and {b!r:.60}"]


def _items(node: dict[str, Any]) -> dict[str, Any]:
    """Return the items of a dict's node, by the canonical text of their keys where those are not plain strings."""
    if "$dict" in node:
        return {to_json(key, canonical=True).decode(): item for key, item in node["$dict"]}
    return node


def _between(a: QuantumState | None, b: QuantumState | None) -> dict[str, Any]:
    if a is None or b is None:
        return {
            "why_not": "one of the two has no quantum state"
            if (a is None) != (b is None)
            else "there are no quantum states"
        }
    if isinstance(a, Operator) or isinstance(b, Operator):
        return {
            "max_difference": _max_difference(a, b),
            "why_not": "an operator is no state, of which there are distances",
        }
    found: dict[str, Any] = {"norms": (_size(a), _size(b)), "max_difference": _max_difference(a, b)}
    if a == b and not a.problems(atol=math.inf) and all(found["norms"]):
        return found | {"fidelity": 1.0, "trace_distance": 0.0, "bures_distance": 0.0, "global_phase": 0.0}
    try:
        found["fidelity"] = metrics.fidelity(a, b)
        found["trace_distance"] = metrics.trace_distance(a, b)
        found["bures_distance"] = metrics.bures_distance(a, b)
    except (InvalidStateError, MemoryError) as error:
        found["why_not"] = str(error)
        return found
    if isinstance(a, StateVector | MatrixProductState) and isinstance(b, StateVector | MatrixProductState):
        overlap = metrics.overlap(b, a)
        found["global_phase"] = math.atan2(overlap.imag, overlap.real)
    return found


def _size(state: QuantumState) -> float:
    return float(state.trace().real) if hasattr(state, "trace") else float(state.norm())


def _max_difference(a: QuantumState, b: QuantumState) -> float | None:
    x, y = getattr(a, "amplitudes", getattr(a, "matrix", None)), getattr(b, "amplitudes", getattr(b, "matrix", None))
    if x is None or y is None or x.shape != y.shape or getattr(a, "qubit_order", "") != getattr(b, "qubit_order", ""):
        return None
    flat_x, flat_y = x.reshape(-1), y.reshape(-1)
    block = 1 << 18
    with np.errstate(invalid="ignore", over="ignore"):
        return max(
            float(np.abs(flat_x[i : i + block] - flat_y[i : i + block]).max()) for i in range(0, len(flat_x), block)
        )


def _pad_distance(a: MemoryState, b: MemoryState) -> float | None:
    if a.emotion is None or b.emotion is None or a.emotion.pad is None or b.emotion.pad is None:
        return None
    return a.emotion.pad.distance(b.emotion.pad)
