"""What a legacy file held, put into the parts of a memory: nothing is lost, and nothing is made up."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from quantum_memory.errors import InvalidStateError, UnsafeError
from quantum_memory.formats.legacy import emotion
from quantum_memory.state.matrix_product_state import MatrixProductState
from quantum_memory.state.memory_state import MemoryState
from quantum_memory.state.quantum_state import StateVector

if TYPE_CHECKING:
    from quantum_memory.formats.legacy.windows import StoredArray
    from quantum_memory.state.arrays import AnyArray
    from quantum_memory.state.document import QuantumState
    from quantum_memory.state.emotional_state import EmotionalContext

MAX_LEVELS = 100
"""Levels of nesting of a tree: fewer than a document may have, since it goes into one."""

NO_CHECKSUM = "the format has no checksum: damage inside its numbers cannot be seen"


@dataclass(frozen=True)
class Legacy:
    """A file of the first implementation, read.

    Attributes
    ----------
    kind
        Which of its formats it is.
    version
        The version that the file gives, None where the format has none.
    memory
        What it held. `memory.record` says kind and version, too.
    notes
        What somebody should know about it, a sentence each: what the format cannot say, and what is odd.
    windows
        The arrays that stay in the file, by the `windows.address` of what stands in their place in `memory`.
    """

    kind: str
    version: str | None
    memory: MemoryState
    notes: list[str]
    windows: dict[int, StoredArray] = field(default_factory=dict)


@dataclass
class Found:
    """The parts of a memory while a file is read.

    Amplitudes are "big": in all files of the first implementation, tensor 0 of a chain and the first character of a
    bit string are the most significant bit of the index of an amplitude.
    """

    classical: dict[str, Any] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    quantum: QuantumState | None = None
    windows: dict[int, StoredArray] = field(default_factory=dict)

    def keep(self, name: str, value: Any) -> None:
        """Keep something in the classical part, under its own name or, if that is taken, under one with a stroke."""
        while name in self.classical:
            name += "'"
        self.classical[name] = value

    def keep_metadata(self, value: Any) -> None:
        """Keep what the file calls its metadata."""
        if isinstance(value, dict):
            self.metadata = value
        else:
            self.keep("metadata", value)

    def take_vector(self, amplitudes: Any) -> None:
        """Take the array of amplitudes; one that is no state vector goes into the classical part."""
        size = amplitudes.size
        qubits = size >= 2 and size & (size - 1) == 0
        try:
            vector = StateVector(self._here(amplitudes), qubit_order="big", dims=None if qubits else (size,))
        except InvalidStateError as error:
            self.keep("state_vector", self._here(amplitudes))
            self.notes.append(f"its state_vector is kept as an array, for it is no state vector: {error.message}")
            return
        self.quantum = vector
        with np.errstate(over="ignore"):  # amplitudes of 1e200 are among the problems
            self.notes += (vector if isinstance(amplitudes, np.ndarray) else amplitudes).problems()

    def take_tensors(self, tensors: list[Any]) -> None:
        """Take the tensors of a chain: as the quantum state where there is no vector, otherwise beside it."""
        tensors = [self._here(tensor) for tensor in tensors]
        if self.quantum is None:
            try:
                self.quantum = MatrixProductState(tensors)
                return
            except (InvalidStateError, TypeError, ValueError) as error:
                why = getattr(error, "message", error)
                self.notes.append(f"its mps_tensors are kept as they are, for they form no chain: {why!s:.200}")
        else:
            self.notes.append("it has a state vector and mps_tensors; the tensors are kept in the classical part")
        self.keep("mps_tensors", tensors)

    def _here(self, array: Any) -> AnyArray:
        """Return an array that is in memory; of one that stays in the file, what stands in its place."""
        if isinstance(array, np.ndarray):
            return array
        from quantum_memory.formats.legacy.windows import address  # noqa: PLC0415 - only for large states

        outline: AnyArray = array.outline()
        self.windows[address(outline)] = array
        return outline

    def legacy(self, kind: str, version: str | None) -> Legacy:
        """Return the memory, with its kind and version in the record."""
        check_depth([self.classical, self.metadata])
        record = {"legacy": {"kind": kind, "version": version}}
        memory = MemoryState(self.quantum, self.classical, self._emotion(), self.metadata, record)
        return Legacy(kind, version, memory, self.notes, self.windows)

    def _emotion(self) -> EmotionalContext | None:
        try:
            return emotion.converted(self.classical)
        except InvalidStateError as error:
            self.notes.append(f"its emotions are kept as they are, and not converted: {error.message}")
            return None


def check_depth(tree: Any) -> None:
    """Refuse a tree that is nested more deeply than a document may be."""
    level, count = [tree], -1
    while level:
        count += 1
        if count > MAX_LEVELS:
            raise UnsafeError(
                f"it is nested more deeply than {MAX_LEVELS} levels",
                next_step="do not trust this file: no release writes one like it",
            )
        level = [
            item
            for node in level
            if isinstance(node, (dict, list, tuple))
            for item in (node.values() if isinstance(node, dict) else node)
            if isinstance(item, (dict, list, tuple))
        ]


def as_array(value: Any) -> Any:
    """Return nested lists of floats as an array with the same bits: of float32 where that has them all, else float64.

    Anything else, ragged lists among it, is returned as it is.
    """
    if not isinstance(value, list):
        return value
    flat, shape = flat_list(value)
    if flat is None or not all(type(item) is float for item in flat) or not flat:
        return value
    double = np.array(flat, np.float64)
    with np.errstate(over="ignore"):
        single = double.astype(np.float32)
    exact = single.astype(np.float64).view(np.uint64) == double.view(np.uint64)
    return (single if exact.all() else double).reshape(shape)


def flat_list(value: list[Any]) -> tuple[list[Any] | None, tuple[int, ...]]:
    """Return the items of nested lists of one shape, and the shape; None for the items when they have no shape."""
    items: list[Any] = value
    shape = [len(value)]
    while items and all(type(item) is list for item in items):
        lengths = {len(item) for item in items}
        if len(lengths) != 1 or len(shape) > MAX_LEVELS:
            return None, ()
        shape.append(lengths.pop())
        items = [inner for item in items for inner in item]
    return (None, ()) if any(type(item) is list for item in items) else (items, tuple(shape))
