"""Objects that a checkpoint keeps: what is stored of each, how it is made again, and how it is given back in place."""

from __future__ import annotations

import copy
import random
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from quantum_memory.lifecycle.checkpoints.paths import Path, different
from quantum_memory.lifecycle.checkpoints.randomness import (
    BIT_GENERATORS,
    bit_generator,
    legacy_generator,
    python_plain,
    python_state,
    torch_plain,
    torch_state,
)
from quantum_memory.lifecycle.checkpoints.torch_loading import check_state, is_module, load_state
from quantum_memory.state import tensors
from quantum_memory.state.document import QuantumState
from quantum_memory.state.emotional_state import Emotion, EmotionalContext, Trajectory
from quantum_memory.state.memory_state import MemoryState
from quantum_memory.state.pad import PAD


@runtime_checkable
class Remembering(Protocol):
    """Whatever gives what it holds as a memory, and takes it back."""

    def to_memory(self) -> MemoryState:
        """Return what it holds."""

    def restore_memory(self, memory: MemoryState) -> None:
        """Hold what `to_memory` gave."""


@dataclass(frozen=True)
class Functions:
    """A part of a checkpoint of which two functions know what it holds.

    Parameters
    ----------
    save
        Returns what is to be kept: a tree of plain values, arrays and tensors.
    load
        Takes what `save` returned, in memory of its own.
    """

    save: Callable[[], Any]
    load: Callable[[Any], object]


@dataclass(frozen=True)
class Kind:
    """What is done with objects of one kind.

    Parameters
    ----------
    name
        Stands in the checkpoint.
    called
        In messages.
    fits
        Tells whether a value is one.
    plain
        Returns its state as plain values, which may share memory with it.
    made
        Returns one of a plain state. None: only a target can take that state, which may then be any tree.
    give
        Gives one a plain state, of which it keeps no memory. None: it cannot be altered, another takes its place.
    check
        Raises `InvalidStateError` when one, which stands at a path, would not take a plain state.
    """

    name: str
    called: str
    fits: Callable[[Any], bool]
    plain: Callable[[Any], Any]
    made: Callable[[Any], Any] | None = None
    give: Callable[[Any, Any], object] | None = None
    check: Callable[[Any, Any, Path], None] = lambda target, plain, path: None  # noqa: ARG005


PLAIN = frozenset({type(None), bool, int, float, complex, str, bytes})
"""Types of the plain values that are no containers."""

_NO_OBJECTS = PLAIN | {dict, list, tuple}


def is_leaf(value: object) -> bool:
    """Tell whether a value stands in a tree for itself: plain, an array, a tensor or a quantum state."""
    return type(value) in PLAIN or isinstance(value, (np.ndarray, np.generic, QuantumState)) or tensors.is_tensor(value)


def kind_of(value: object) -> Kind | None:
    """Return the kind of an object; None for leaves, containers, and what is no such object."""
    if type(value) in _NO_OBJECTS or is_leaf(value):
        return None
    return next((kind for kind in KINDS.values() if kind.fits(value)), None)


def memory_plain(value: MemoryState | Remembering) -> dict[str, Any]:
    """Return the parts of a memory that are there, with its record, which the one who remembers may need."""
    memory = value if isinstance(value, MemoryState) else value.to_memory()
    parts = {
        "quantum": memory.quantum,
        "classical": memory.classical,
        "emotion": None if memory.emotion is None else memory.emotion.to_tree(),
        "metadata": memory.metadata or None,
        "record": memory.record or None,
    }
    return {name: part for name, part in parts.items() if part is not None}


def _memory_made(plain: dict[str, Any]) -> MemoryState:
    parts = dict(plain)
    emotion = parts.pop("emotion", None)
    return MemoryState(emotion=None if emotion is None else EmotionalContext.from_tree(emotion), **parts)


def _memory_given(target: Any, plain: dict[str, Any]) -> None:
    memory = _memory_made(copy.deepcopy(plain))
    if not isinstance(target, MemoryState):
        target.restore_memory(memory)
        return
    for name in MemoryState.__slots__:
        setattr(target, name, getattr(memory, name))


def _is_generator(value: object) -> bool:
    return isinstance(value, np.random.Generator) and type(value.bit_generator) in BIT_GENERATORS.values()


def _generator_plain(value: np.random.Generator) -> dict[str, Any]:
    source = value.bit_generator
    seeds: Any = source.seed_seq  # none where it was seeded with a key
    known = {"seeds": seeds.state} if type(seeds) is np.random.SeedSequence else {}
    return {"source": source.state, **known}


def _generator_made(plain: dict[str, Any]) -> np.random.Generator:
    made = np.random.Generator(bit_generator(plain["source"]["bit_generator"]))
    _generator_given(made, plain)
    return made


def _generator_given(target: np.random.Generator, plain: dict[str, Any]) -> None:
    source: Any = target.bit_generator
    if "seeds" in plain:
        # What a pickle does: the children that `spawn` gives next depend on how many there were.
        source.__setstate__((plain["source"], np.random.SeedSequence(**plain["seeds"])))
    else:
        source.state = plain["source"]


def _generator_check(target: np.random.Generator, plain: dict[str, Any], path: Path) -> None:
    _same_source(plain["source"]["bit_generator"], type(target.bit_generator).__name__, path)


def _legacy_check(target: np.random.RandomState, plain: dict[str, Any], path: Path) -> None:
    now: dict[str, Any] = target.get_state(legacy=False)
    _same_source(plain["bit_generator"], now["bit_generator"], path)


def _same_source(saved: object, now: object, path: Path) -> None:
    if saved != now:
        raise different(path, f"draws from {saved!s:.40}", f"from {now}")


def _python_made(plain: dict[str, Any]) -> random.Random:
    made = random.Random()  # noqa: S311 - for whoever saved one
    made.setstate(python_state(plain))
    return made


def _is_torch_generator(value: object) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Generator)


def _torch_made(plain: dict[str, Any]) -> Any:
    """Return a generator on the device that it was on; where there is none here, the plain state."""
    state = np.array(plain["state"], np.uint8)
    try:
        import torch  # noqa: PLC0415 - only for those who use it

        made = torch.Generator(device=plain["device"])
    except (ImportError, RuntimeError):
        return plain
    made.set_state(torch.from_numpy(state))
    return made


def _torch_check(target: Any, plain: dict[str, Any], path: Path) -> None:
    device, size = target.device.type, target.get_state().numel()
    saved = str(plain["device"]).partition(":")[0]
    if saved != device or np.size(plain["state"]) != size:
        raise different(path, f"draws on {saved!s:.40}", f"on {device}")


def _has_state(value: object) -> bool:
    return not isinstance(value, type) and hasattr(value, "state_dict") and hasattr(value, "load_state_dict")


def _state_given(target: Any, state: Any) -> None:
    # A module copies the tensors itself; they may be most of the memory that is there.
    shared = {id(item): item for item in state.values() if tensors.is_tensor(item)} if is_module(target) else {}
    load_state(target, copy.deepcopy(state, shared))


def _state_check(target: Any, state: Any, path: Path) -> None:
    if isinstance(state, Mapping):
        check_state(target, state, path)
    elif is_module(target):
        raise different(path, f"has a {type(state).__name__} for a state", "takes a dict")


def _counter_given(target: Counter[Any], plain: dict[Any, int]) -> None:
    target.clear()
    target.update(plain)


KINDS = {
    kind.name: kind
    for kind in (
        Kind("pad", "a PAD", lambda v: type(v) is PAD, tuple, lambda plain: PAD(*plain)),
        Kind("emotion", "an Emotion", lambda v: type(v) is Emotion, Emotion.to_tree, lambda plain: Emotion(**plain)),
        Kind(
            "trajectory", "a Trajectory", lambda v: type(v) is Trajectory, Trajectory.to_tree,
            lambda plain: Trajectory(**plain),
        ),
        Kind(
            "emotional_context", "an EmotionalContext", lambda v: type(v) is EmotionalContext,
            EmotionalContext.to_tree, EmotionalContext.from_tree,
        ),
        Kind("counter", "a Counter", lambda v: type(v) is Counter, dict, Counter, _counter_given),
        Kind(
            "memory", "a memory",
            lambda v: isinstance(v, (MemoryState, Remembering)) and not isinstance(v, type),
            memory_plain, _memory_made, _memory_given,
        ),
        Kind(
            "functions", "a pair of Functions", lambda v: isinstance(v, Functions), lambda v: v.save(),
            give=lambda v, state: v.load(copy.deepcopy(state)),
        ),
        Kind(
            "numpy_generator", "a numpy.random.Generator", _is_generator, _generator_plain, _generator_made,
            _generator_given, _generator_check,
        ),
        Kind(
            "numpy_random_state", "a numpy.random.RandomState", lambda v: isinstance(v, np.random.RandomState),
            lambda v: v.get_state(legacy=False), legacy_generator, lambda v, plain: v.set_state(plain), _legacy_check,
        ),
        Kind(
            "python_random", "a random.Random",
            lambda v: isinstance(v, random.Random) and not isinstance(v, random.SystemRandom),
            lambda v: python_plain(v.getstate()), _python_made, lambda v, plain: v.setstate(python_state(plain)),
        ),
        Kind(
            "torch_generator", "a torch.Generator", _is_torch_generator,
            lambda v: {"device": str(v.device), "state": torch_plain(v.get_state())},
            _torch_made, lambda v, plain: v.set_state(torch_state(plain["state"])), _torch_check,
        ),
        Kind(
            "state_dict", "an object with a state_dict", _has_state, lambda v: v.state_dict(),
            give=_state_given, check=_state_check,
        ),
    )
}  # fmt: skip
"""Kinds of objects by their names, in the order in which a value is asked."""
