"""Save a checkpoint, and remove those that a policy does not keep."""

from __future__ import annotations

import copy
import datetime
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from quantum_memory._version import __version__
from quantum_memory.durability import forks
from quantum_memory.errors import ConflictError, InvalidStateError, MissingError
from quantum_memory.lifecycle.checkpoints.folder import check_name, now, stamp
from quantum_memory.lifecycle.checkpoints.manifest import Checkpoint, Manifest
from quantum_memory.lifecycle.checkpoints.writer import write_arrays
from quantum_memory.lifecycle.retention import plan_removal
from quantum_memory.state.document import content_id
from quantum_memory.state.json_text import check_record

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from quantum_memory.durability.chunk_store import Collected
    from quantum_memory.lifecycle.checkpoints.folder import CheckpointFolder, Refs
    from quantum_memory.lifecycle.retention import KeepPolicy, Removal
    from quantum_memory.state.arrays import AnyArray
    from quantum_memory.state.memory_state import MemoryState

_PATIENCE = 5.0
"""Seconds to wait for others before they are left to remove what can go."""


@dataclass(frozen=True)
class Said:
    """What the caller says of a checkpoint; see `Checkpoint`."""

    name: str = ""
    description: str = ""
    automatic: bool = False
    progress: Any = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict)
    finished: bool = False
    branch: str = "main"
    parent: str | None = None

    def __post_init__(self) -> None:
        check_name(self.branch, "branch")
        for text in (self.name, self.description):
            if not isinstance(text, str):
                raise InvalidStateError(f"a name is text, not {text!r:.40}", next_step="give a str")
        for name, value in self.metrics.items():
            if not isinstance(name, str) or not isinstance(value, (int, float)) or isinstance(value, bool):
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

    def save(self, flat: Flat, said: Said, progress: Callable[[int], object] | None = None) -> Checkpoint:
        """Save a checkpoint, durably.

        Raises
        ------
        InvalidStateError, StorageError
            Nothing is there then that was not there before, but for chunks that the next collection removes.
        """
        folder = self.folder
        if not self._made:
            folder.make()
            self._made = True
        when = now()
        with folder.store.shared():
            number = self._next_number()
            with folder.store.writer() as writer:
                arrays = write_arrays(writer, flat.arrays, self.compression, progress)
            identities = {path: array.identity for path, array in arrays.items()}
            checkpoint = Checkpoint(
                id=folder.new_id(when),
                number=number,
                parent=said.parent,
                branch=said.branch,
                created_at=stamp(when),
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
            folder.publish(Manifest(checkpoint, flat.document, dict(flat.record), arrays))
        return checkpoint

    def _next_number(self) -> int:
        """Return a number above all that are there, and above those that this process has given."""
        listed, _ = self.folder.listed()
        with self._numbers:
            self._number = max(self._number, *(one.number for one in listed), 0) + 1
            return self._number


@dataclass(frozen=True)
class Item:
    """A checkpoint as a policy sees it (`retention.Kept`)."""

    checkpoint: Checkpoint
    pinned: bool
    tags: frozenset[str]
    verified: bool
    source: str = ""

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
        Whether the newest counts as one of them, as `prune` reads it back before anything goes.
    """
    listed, _ = folder.listed()
    if ahead and listed:
        verified = verified | {listed[-1].id}
    refs: Refs = folder.refs()
    items = [Item(one, one.id in refs.pins, frozenset(refs.tags_of(one.id)), one.id in verified) for one in listed]
    return plan_removal(items, policy, at_most=at_most, now=now())


def prune(
    folder: CheckpointFolder,
    policy: KeepPolicy,
    at_most: int | None,
    verified: set[str],
    *,
    timeout: float = _PATIENCE,
) -> tuple[Removal[Item], Collected | None]:
    """Remove what a policy does not keep, and the chunks that nobody needs then.

    Before anything goes, the newest checkpoint is read back, every byte of it: an old one is not given up for one that
    cannot be read. When others are at work in the folder all the time, nothing is removed.

    Returns
    -------
    What was planned, and what came of it; None for that when nothing was removed.
    """
    plan = planned(folder, policy, at_most, verified, ahead=True)
    if not plan.goes:
        return plan, None
    try:
        read_back(folder, verified)
        with folder.store.alone(timeout=timeout):
            plan = planned(folder, policy, at_most, verified)
            gone = [item.checkpoint for item in plan.goes]
            folder.remove([one.id for one in gone])
            for one in gone:
                folder.note("removed", checkpoint=one.id, name=one.name or None, why=plan.reasons.get(one.id))
            return plan, folder.collect()
    except ConflictError:
        return plan, None


def read_back(folder: CheckpointFolder, verified: set[str]) -> None:
    """Read the newest checkpoint, every byte of it, unless that was done."""
    while (listed := folder.listed()[0]) and (newest := listed[-1].id) not in verified:
        try:
            folder.verify(newest)
        except MissingError:
            if newest in folder.ids():
                raise
            continue  # others have saved a newer one, and removed it
        verified.add(newest)


def plain_number(value: float) -> float:
    """Return a metric as a number of Python's own."""
    return float(value) if not isinstance(value, int) else int(value)
