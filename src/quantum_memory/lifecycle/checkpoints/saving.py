"""Save a checkpoint, and remove those that a policy does not keep."""

from __future__ import annotations

import copy
import datetime
import threading
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from quantum_memory._version import __version__
from quantum_memory.durability import forks
from quantum_memory.errors import (
    ConflictError,
    IntegrityError,
    InvalidStateError,
    MissingError,
    QuantumMemoryError,
    UnsafeError,
)
from quantum_memory.lifecycle.checkpoints.manifest import Checkpoint, Manifest, written
from quantum_memory.lifecycle.checkpoints.writer import write_arrays
from quantum_memory.lifecycle.repository.folder import check_name, now, stamp
from quantum_memory.lifecycle.retention import plan_removal
from quantum_memory.state.document import content_id
from quantum_memory.state.json_text import check_record

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from quantum_memory.durability.chunk_collection import Collected
    from quantum_memory.lifecycle.checkpoints.folder import CheckpointFolder
    from quantum_memory.lifecycle.repository.folder import Refs
    from quantum_memory.lifecycle.retention import KeepPolicy, Removal
    from quantum_memory.state.arrays import AnyArray
    from quantum_memory.state.memory_state import MemoryState

_PATIENCE = 5.0
"""Seconds to wait for others before they are left to remove what can go."""


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

    def __init__(self, folder: CheckpointFolder, compression: str = "none") -> None:
        self.folder = folder
        self.compression = compression
        self._numbers = threading.Lock()
        self._number = 0
        self._made = False
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
            return replace(said, id=self.folder.new_id(when), number=self._number, created_at=when)

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
        folder = self.folder
        if not self._made:
            folder.make()
            self._made = True
        said = said if said.id else self.numbered(said)
        with folder.store.shared():
            with folder.store.writer() as writer:
                arrays = write_arrays(writer, flat.arrays, self.compression, progress)
                if taken is not None:
                    taken()
            identities = {path: array.identity for path, array in arrays.items()}
            checkpoint = Checkpoint(
                id=said.id,
                number=said.number,
                parent=said.parent,
                branch=said.branch,
                created_at=stamp(said.created_at),
                name=said.name,
                description=said.description,
                automatic=said.automatic,
                kind=flat.kind,
                progress=said.progress,
                metrics={name: plain_number(value) for name, value in said.metrics.items()},
                parameters=dict(said.parameters),
                finished=said.finished,
                content_id=content_id(flat.document, identities),
                arrays=len(arrays),
                raw_bytes=sum(array.nbytes for array in arrays.values()),
                new_bytes=writer.new_bytes,
                writer=f"quantum-memory {__version__}",
            )
            made = Manifest(checkpoint, flat.document, dict(flat.record), arrays)
            folder.store.settle(made.chunks(), written=writer.chunks > 0)
            folder.publish(checkpoint, written(made))
        return checkpoint


@dataclass(frozen=True)
class Item:
    """A checkpoint as a policy sees it (`retention.Kept`)."""

    checkpoint: Checkpoint
    pinned: bool
    tags: frozenset[str]
    verified: bool

    @property
    def source(self) -> str:
        """Its branch: each has a series of its own, so that one takes no place of another."""
        return self.checkpoint.branch

    @property
    def id(self) -> str:
        return self.checkpoint.id

    @property
    def number(self) -> int:
        return self.checkpoint.number

    @property
    def automatic(self) -> bool:
        return self.checkpoint.automatic

    @property
    def created_at(self) -> datetime.datetime:
        return datetime.datetime.fromisoformat(self.checkpoint.created_at)

    @property
    def metrics(self) -> dict[str, float]:
        return {name: float(value) for name, value in self.checkpoint.metrics.items()}


def planned(
    folder: CheckpointFolder, policy: KeepPolicy, at_most: int | None, verified: set[str], *, ahead: bool = False
) -> Removal[Item]:
    """Return what would go and what would stay, each with the reason.

    Parameters
    ----------
    verified
        Ids of checkpoints that were read back whole.
    ahead
        Whether the newest of a branch that something goes of counts as one of them, as `prune` reads it back first.
    """
    listed, _ = folder.listed()
    refs: Refs = folder.refs()

    def plan(read: set[str]) -> Removal[Item]:
        items = [Item(one, one.id in refs.pins, frozenset(refs.tags_of(one.id)), one.id in read) for one in listed]
        return plan_removal(items, policy, at_most=at_most, now=now())

    if not ahead:
        return plan(verified)
    newest = {one.branch: one.id for one in listed}
    losing = {item.source for item in plan(verified | set(newest.values())).goes}
    return plan(verified | {newest[branch] for branch in losing})


def prune(
    folder: CheckpointFolder,
    policy: KeepPolicy,
    at_most: int | None,
    verified: set[str],
    *,
    timeout: float = _PATIENCE,
) -> tuple[Removal[Item], Collected | None]:
    """Remove what a policy does not keep, and the chunks that nobody needs then.

    Before anything of a branch goes, its newest checkpoint is read back, every byte of it: an old one is not given up
    for one that cannot be read. When others are at work in the folder all the time, nothing is removed.

    Returns
    -------
    What was planned, and what came of it; None for that when nothing was removed.

    Raises
    ------
    IntegrityError, MissingError, UnsafeError
        The newest of a branch cannot be read. What goes of other branches is gone by then.
    """
    plan = planned(folder, policy, at_most, verified, ahead=True)
    if not plan.goes:
        return plan, None
    failed: dict[str, QuantumMemoryError] = {}
    try:
        for branch in sorted({item.source for item in plan.goes}):
            try:
                read_back(folder, verified, branch)
            except (IntegrityError, MissingError, UnsafeError) as error:
                failed[branch] = error
        with folder.store.alone(timeout=timeout):
            plan = planned(folder, policy, at_most, verified)
            gone = [item.checkpoint for item in plan.goes if item.source not in failed]
            folder.remove([one.id for one in gone])
            verified.difference_update(one.id for one in gone)
            for one in gone:
                folder.note("removed", checkpoint=one.id, name=one.name or None, why=plan.reasons.get(one.id))
            done = folder.collect()
    except ConflictError:
        return plan, None
    for failure in failed.values():
        raise failure
    return plan, done


def read_back(folder: CheckpointFolder, verified: set[str], branch: str) -> str | None:
    """Read the newest checkpoint of a branch, every byte of it, unless that was done; return its id."""
    while newest := next((one.id for one in reversed(folder.listed()[0]) if one.branch == branch), None):
        if newest in verified:
            break
        try:
            folder.verify(newest)
        except MissingError:
            if newest in folder.ids():
                raise
            continue  # others have saved a newer one, and removed it
        verified.add(newest)
    return newest


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
