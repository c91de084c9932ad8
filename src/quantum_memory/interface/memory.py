"""What a `QuantumClassicalInterface` holds, as a memory and back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from quantum_memory.encoding.measurement import MeasurementCache
from quantum_memory.encoding.noise import NoiseModel
from quantum_memory.encoding.pad_encoding import PADEncoding
from quantum_memory.errors import IntegrityError, InvalidStateError
from quantum_memory.interface import first_implementation
from quantum_memory.interface.held import Held
from quantum_memory.lifecycle.version_manager import VersionManager
from quantum_memory.state.emotional_state import EmotionalContext
from quantum_memory.state.matrix_product_state import MatrixProductState
from quantum_memory.state.memory_state import MemoryState
from quantum_memory.state.pad import PAD

if TYPE_CHECKING:
    import os

VERSION = VersionManager.CURRENT_VERSION
"""Version of what the interface keeps; a change that an older release could not read changes it."""


def to_memory(held: Held, state: MatrixProductState, weights: Any, record: dict[str, Any]) -> MemoryState:
    """Return what an interface holds as a memory.

    Parameters
    ----------
    state, weights
        The quantum state, and the tree of the weights of the network; None for no network.
    record
        What is noted beside it, and is no part of the content.

    Raises
    ------
    InvalidStateError
        The metadata of the caller have a key that the interface writes itself.
    """
    config = {
        "encoding": held.encoding.to_json(),
        "noise": None if held.noise is None else held.noise.to_json(),
        "terms": [(weight, tuple(pad)) for weight, pad in held.terms],
    }
    classical: dict[str, Any] = {
        "interface_config": config,
        "measurement_cache": held.cache.to_tree(),
        "measurement_fidelities": held.fidelities,
    }
    if weights is not None:
        classical["network"] = weights
    ours = {"version": VERSION, "n_qubits": held.encoding.n_qubits}
    if taken := ours.keys() & held.metadata.keys():
        raise InvalidStateError(
            f"interface.metadata has the key {min(taken)!r}, which the interface writes itself",
            next_step="give it another name",
        )
    return MemoryState(state, classical, held.emotion, {**ours, **held.metadata}, record)


def from_memory(memory: MemoryState, path: str | os.PathLike[str] | None) -> Held:
    """Return what an interface holds that was saved as a memory, by this release or by the first implementation.

    Raises
    ------
    IntegrityError
        It is not the state of an interface.
    """
    try:
        held = first_implementation.from_memory(memory) if "legacy" in memory.record else _from_memory(memory)
        if not all(0 <= value <= 1 + 1e-9 for value in held.fidelities):
            raise IntegrityError("its fidelities are not those of readings")
    except IntegrityError as error:
        error.next_step = error.next_step or "load it with quantum_memory.load"
        raise (error if path is None else error.at(path)) from None
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise IntegrityError(
            f"it is whole, but not the state of an interface: {error}",
            path=path,
            next_step="load it with quantum_memory.load",
        ) from error
    return held


def _from_memory(memory: MemoryState) -> Held:
    classical, metadata = memory.classical, dict(memory.metadata)
    config, version = classical["interface_config"], metadata.pop("version")
    encoding = PADEncoding.from_json(config["encoding"])
    if version != VERSION or metadata.pop("n_qubits") != encoding.n_qubits:
        raise IntegrityError("its metadata do not fit its state")
    if not isinstance(memory.quantum, MatrixProductState) or memory.quantum.dims != (2,) * encoding.n_qubits:
        raise IntegrityError("its quantum state is not one of its encoding")
    created_at = memory.record["created_at"]
    return Held(
        encoding,
        memory.quantum,
        [(weight, PAD(*pad)) for weight, pad in config["terms"]],
        memory.emotion or EmotionalContext(),
        MeasurementCache.from_tree(classical["measurement_cache"]),
        None if config["noise"] is None else NoiseModel.from_json(config["noise"]),
        classical.get("network"),
        metadata,
        [float(value) for value in classical["measurement_fidelities"]],
        None if created_at is None else str(created_at),
    )
