"""What can be checkpointed: whatever it is becomes a memory, and gets its state back from one.

A memory, a quantum state, an object that remembers, or a tree of dicts, lists and tuples with plain values, arrays,
tensors and objects at its ends; docs of `captured` list them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from quantum_memory.errors import RESTORE, IntegrityError, UnsupportedVersionError
from quantum_memory.lifecycle.checkpoints.giving import Giving
from quantum_memory.lifecycle.checkpoints.objects import Functions, Remembering, memory_plain
from quantum_memory.lifecycle.checkpoints.trees import Stored, joined, rebuilt_tree, taken
from quantum_memory.state.document import QuantumState, well_formed
from quantum_memory.state.memory_state import MemoryState

__all__ = ["Captured", "Functions", "Remembering", "captured", "rebuilt", "restore_into"]

_OBJECTS = "objects"
"""Where the metadata of a tree say which of its parts were objects."""


@dataclass(frozen=True)
class Captured:
    """A target at one moment.

    Parameters
    ----------
    kind
        "memory", "quantum" or "tree"; `rebuilt` and `restore_into` want it with the memory.
    memory
        What it holds. It shares its arrays and tensors with the target until it is saved.
    """

    kind: str
    memory: MemoryState


def captured(target: object) -> Captured:
    """Return what a target holds.

    Parameters
    ----------
    target
        A `MemoryState`; a quantum state; a `Remembering`; or a tree: dict, list, tuple or OrderedDict of what a
        `MemoryState` keeps and of these objects, each of which may also be the whole tree. Anything with ``state_dict``
        and ``load_state_dict`` (modules, optimisers and schedulers of torch, `Randomness`), `numpy.random.Generator`
        with a bit generator of NumPy, `numpy.random.RandomState`, `random.Random`, `torch.Generator`, `Remembering`,
        `MemoryState`, `Functions`, `Trajectory`, `EmotionalContext`, `Emotion`, `PAD` and `collections.Counter`.

    Raises
    ------
    InvalidStateError
        A value in the tree is none of these, or an object gives a state with such a value; the error names the path.
    """
    if isinstance(target, MemoryState):
        return Captured("memory", target)
    if isinstance(target, QuantumState):
        return Captured("quantum", MemoryState(target))
    if isinstance(target, Remembering) and not isinstance(target, type):
        return Captured("memory", target.to_memory())
    tree, table = taken(target)
    return Captured("tree", MemoryState(classical=tree, metadata={_OBJECTS: table} if table else None))


def rebuilt(kind: str, memory: MemoryState) -> Any:
    """Return what was captured, as far as that goes without the target: what another process gets.

    Generators of random numbers, memories, emotional values and counters are made again. In the places of objects with
    a ``state_dict``, and of `Functions`, stands their plain state, as does that of a `torch.Generator` of a device that
    is not here. Arrays are those of the memory.

    Raises
    ------
    IntegrityError
        The memory is not one of that kind.
    UnsupportedVersionError
        A newer release wrote it.
    """
    if kind == "memory":
        return memory
    node = _node(kind, memory)
    with well_formed():
        return rebuilt_tree(node)


def restore_into(target: Any, kind: str, memory: MemoryState) -> Any:
    """Give a target what was captured of it, or of one like it, in place: all or nothing.

    Everything is compared first. Objects get their states; of a torch module keys, shapes and dtypes must be those of
    the target, of an optimiser the sizes of its groups. Arrays and tensors are overwritten where they are, and must
    have the same shape and dtype. Other values are assigned; a number takes the place of a number, a text that of a
    text, anything that of None. Dicts must have the same keys, but an empty one is filled. A list may have another
    length when it holds no object: its items are replaced then, as are those of a list that holds nothing but plain
    values.

    When an object does not take its state, or the process is interrupted, all of them get back what they had.

    Parameters
    ----------
    target
        What was captured, or the same in another process.
    kind, memory
        As of `captured`. Nothing of the memory is shared with the target afterwards.

    Returns
    -------
    object
        The target; where it is a value that cannot be altered, such as an int or a `StateVector`, the new one.

    Raises
    ------
    InvalidStateError
        Something does not fit, or does not take its state; the error names the path, and nothing has changed.
    IntegrityError, UnsupportedVersionError
        As of `rebuilt`.
    """
    node = Stored("memory", memory_plain(memory)) if kind == "memory" else _node(kind, memory)
    giving = Giving(target, node)
    giving.do()
    return giving.value


def _node(kind: str, memory: MemoryState) -> Any:
    """Return the tree of a memory, with marks in the places of objects."""
    if kind == "quantum":
        if memory.quantum is None:
            raise IntegrityError("it should hold a quantum state, and has none", next_step=RESTORE)
        return memory.quantum
    if kind != "tree":
        raise UnsupportedVersionError(
            f"it is of kind {kind!r:.40}, which this release does not know",
            next_step="read it with a newer release of quantum-memory",
        )
    with well_formed():
        return joined(memory.classical, memory.metadata.get(_OBJECTS, []))
