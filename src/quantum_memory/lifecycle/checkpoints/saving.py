"""Save a checkpoint: what was taken of a target, under what is said of it."""

from __future__ import annotations

import copy
import datetime
import threading
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from quantum_memory._version import __version__
from quantum_memory.durability import forks
from quantum_memory.errors import InvalidStateError
from quantum_memory.lifecycle.checkpoints.manifest import Checkpoint
from quantum_memory.lifecycle.repository.folder import check_name, new_id, now, stamp
from quantum_memory.state.json_text import check_record

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from quantum_memory.lifecycle.checkpoints.home import CheckpointHome
    from quantum_memory.state.arrays import AnyArray
    from quantum_memory.state.memory_state import MemoryState


@dataclass(frozen=True)
class Said:
    """What is said of a checkpoint before it is saved; see `Checkpoint`.

    Its number is given when the state is taken, and not when it is written: what was taken later is the newer one.
    """

    name: str = ""
    description: str = ""
    automatic: bool = False
    progress: Any = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict)
    finished: bool = False
    branch: str = "main"
    parent: str | None = None
    id: str = ""
    number: int = 0
    created_at: datetime.datetime = datetime.datetime.min

    def __post_init__(self) -> None:
        check_name(self.branch, "branch")
        for text in (self.name, self.description):
            if not isinstance(text, str):
                raise InvalidStateError(f"a name is text, not {text!r:.40}", next_step="give a str")
        for name, value in self.metrics.items():
            if not isinstance(name, str) or not is_number(value):
                raise InvalidStateError(
                    f"the metric {name!r:.40} is {value!r:.40}, not a number", next_step="give float(value)"
                )

    def head(self, flat: Flat, content_id: str, raw_bytes: int, new_bytes: int) -> Checkpoint:
        """Return what is said of the checkpoint when it has been written.

        Parameters
        ----------
        flat
            What was written.
        content_id
            The name of that.
        raw_bytes, new_bytes
            Of its arrays, and what of these had to be written.
        """
        return Checkpoint(
            id=self.id,
            number=self.number,
            parent=self.parent,
            branch=self.branch,
            created_at=stamp(self.created_at),
            name=self.name,
            description=self.description,
            automatic=self.automatic,
            kind=flat.kind,
            progress=self.progress,
            metrics={name: plain_number(value) for name, value in self.metrics.items()},
            parameters=dict(self.parameters),
            finished=self.finished,
            content_id=content_id,
            arrays=len(flat.arrays),
            raw_bytes=raw_bytes,
            new_bytes=new_bytes,
            writer=f"quantum-memory {__version__}",
        )


@dataclass(frozen=True)
class Flat:
    """A memory taken apart, and what kind of target it was taken from."""

    kind: str
    document: dict[str, Any]
    arrays: Mapping[str, AnyArray]
    record: Mapping[str, Any]


def flat_of(kind: str, memory: MemoryState) -> Flat:
    """Return a memory taken apart.

    Raises
    ------
    InvalidStateError
        It has a part that cannot be kept exactly, or its record is not JSON.
    """
    if memory.record:
        check_record(memory.record)
    document, arrays = memory.flatten()
    return Flat(kind, document, arrays, copy.deepcopy(memory.record))


class Saver:
    """Saves into a folder; any number of threads may use one at once.

    Parameters
    ----------
    folder
        Where to.
    compression
        Name of a codec for the chunks.
    """

    def __init__(self, folder: CheckpointHome, compression: str = "none") -> None:
        self.folder = folder
        self.compression = compression
        self._numbers = threading.Lock()
        self._number = 0
        forks.tell(self)

    def forked(self) -> None:
        """Let go of the lock of the process that this one was forked from."""
        self._numbers = threading.Lock()

    def numbered(self, said: Said) -> Said:
        """Return what is said of a checkpoint with its id, its number, which is above all others, and the time."""
        listed, _ = self.folder.listed()
        with self._numbers:
            self._number = max(self._number, *(one.number for one in listed), 0) + 1
            when = now()
            return replace(said, id=new_id(when), number=self._number, created_at=when)

    def save(
        self,
        flat: Flat,
        said: Said,
        *,
        taken: Callable[[], object] | None = None,
        progress: Callable[[int], object] | None = None,
    ) -> Checkpoint:
        """Save a checkpoint, durably.

        Parameters
        ----------
        taken
            Called when the arrays have been read, and may change again.
        progress
            Called with the raw bytes of each chunk that is done.

        Raises
        ------
        InvalidStateError, StorageError
            Nothing is there then that was not there before, but for chunks that the next collection removes.
        """
        said = said if said.id else self.numbered(said)
        return self.folder.write(flat, said, self.compression, taken, progress)


def is_number(value: object) -> bool:
    """Tell whether a value can be a metric: a number that a float can stand for."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    try:
        float(value)
    except OverflowError:
        return False
    return True


def plain_number(value: float) -> float:
    """Return a metric as a number of Python's own."""
    return float(value) if not isinstance(value, int) else int(value)
