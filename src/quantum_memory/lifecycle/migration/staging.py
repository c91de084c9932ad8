"""Make the new file of an old one, in the place where new files wait for their names, and compare the two.

This is the part that takes time, and can be done by any `concurrent.futures.Executor`.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from quantum_memory._version import __version__
from quantum_memory.durability.files import ReadableFile, current
from quantum_memory.errors import ConflictError, IntegrityError, QuantumMemoryError
from quantum_memory.formats import legacy
from quantum_memory.formats.reader import AMPLITUDES
from quantum_memory.formats.verbs import load, save
from quantum_memory.lifecycle.migration.survey import digest_of
from quantum_memory.lifecycle.migration.workplace import check_inside, drop, explained
from quantum_memory.lifecycle.version_manager import VersionManager

if TYPE_CHECKING:
    from quantum_memory.lifecycle.migration.entries import Entry, Source
    from quantum_memory.state.memory_state import MemoryState


@dataclass(frozen=True)
class Task:
    """One file to be made.

    Attributes
    ----------
    root
        The folder.
    number, entry
        The line of the plan.
    new
        Where to write; "": only read it, and write nothing.
    when
        What is noted as the time of the migration, UTC.
    allow_pickle
        Whether pickles are read.
    """

    root: str
    number: int
    entry: Entry
    new: str
    when: str
    allow_pickle: bool = False


@dataclass(frozen=True)
class Made:
    """What came of it.

    Attributes
    ----------
    number
        Of the line of the plan.
    sha256, bytes
        Of the new file.
    content_ids
        Of its states, by their ids; of a file of one state, by "".
    error
        What went wrong; otherwise None. There is then no new file.
    """

    number: int
    sha256: str = ""
    bytes: int = 0
    content_ids: dict[str, str] = field(default_factory=dict)
    error: QuantumMemoryError | None = None

    def to_line(self, path: str) -> dict[str, Any]:
        """Return what the journal says before the file gets its name."""
        return {
            "event": "replacing", "n": self.number, "path": path, "sha256": self.sha256, "bytes": self.bytes,
            "content_ids": self.content_ids,
        }  # fmt: skip


def make_all(tasks: list[Task]) -> list[Made]:
    """Make new files, one after another."""
    return [make(task) for task in tasks]


def make(task: Task) -> Made:
    """Make one new file; what goes wrong with it is in what is returned."""
    try:
        return _made(task)
    except QuantumMemoryError as error:
        if task.new:
            with suppress(OSError):
                current().unlink(task.new)
        full = os.path.join(task.root, task.entry.path)  # noqa: PTH118
        return Made(task.number, error=error.at(full))


def check_unchanged(root: str, source: Source) -> None:
    """Refuse a file that is not what it was when the plan was made.

    Raises
    ------
    ConflictError, MissingFileError, UnsafeError
    """
    check_inside(root, source.path)
    full = os.path.join(root, source.path)  # noqa: PTH118
    with ReadableFile(full) as file:
        same = _facts(full) == (source.bytes, source.mtime_ns) and digest_of(file) == source.sha256
    if not same:
        raise ConflictError("it was changed since the plan was made", path=full, next_step="make a new plan")


def _made(task: Task) -> Made:
    entry = task.entry
    for old in entry.sources:
        check_unchanged(task.root, old)
    ids: dict[str, str] = {}
    with ReadableFile(os.path.join(task.root, entry.path)) as source:  # noqa: PTH118
        names = legacy.ids(source) if entry.kind == "hdf5-store" else None
        if task.new:
            drop(task.new)
        if task.new and names is not None:
            _begin_store(task.new)
        for name in [None] if names is None else names:
            memory = legacy.read(source, allow_pickle=task.allow_pickle, state_id=name).memory
            memory.record["migration"] = _noted(task)
            ids[name or ""] = memory.content_id
            if task.new:
                _write(memory, task.new, name)
                _compare(memory, ids[name or ""], task.new, name)
    for old in entry.sources:
        full = os.path.join(task.root, old.path)  # noqa: PTH118
        if _facts(full) != (old.bytes, old.mtime_ns):
            raise ConflictError("it was changed while it was read", path=full, next_step="make a new plan")
    if not task.new:
        return Made(task.number, content_ids=ids)
    _finish(os.path.join(task.root, entry.path), task.new)  # noqa: PTH118
    with ReadableFile(task.new) as new:
        return Made(task.number, digest_of(new), new.size, ids)


def _facts(path: str) -> tuple[int, int]:
    with explained("look at", path):
        facts = current().stat(path)
    return facts.st_size, facts.st_mtime_ns


def _noted(task: Task) -> dict[str, Any]:
    """Return what is noted beside the memory: where it came from. It is no part of its content."""
    entry = task.entry
    return {
        "from": {"kind": entry.kind, "version": entry.version},
        "to": {"format": entry.target, "version": VersionManager.CURRENT_VERSION},
        "when": task.when,
        "release": __version__,
        "sha256": entry.sources[0].sha256,
        "sidecars": {os.path.basename(one.path): one.sha256 for one in entry.sidecars},  # noqa: PTH119
    }


def _begin_store(path: str) -> None:
    """Make a store without states, which an old one may be."""
    from quantum_memory.formats.hdf5_store import replacing  # noqa: PLC0415 - only for HDF5

    with replacing(path, durable=False):
        pass


def _write(memory: MemoryState, path: str, state_id: str | None) -> None:
    if state_id is None:
        save(memory, path, durable=False)  # `_finish` does that once, for all states of a store
        return
    from quantum_memory.formats.hdf5_storage import HDF5QuantumStorage  # noqa: PLC0415 - only for HDF5

    HDF5QuantumStorage(path, durable=False).save_quantum_state(memory, state_id)


def _compare(memory: MemoryState, content: str, path: str, state_id: str | None) -> None:
    """Read a state again, every byte checked, and compare it with the memory that was written."""
    written = load(path, state_id=state_id, verify="full", allow_pickle=True)  # we have written it
    old, new = memory.flatten().arrays, written.flatten().arrays
    same = written.content_id == content and all(
        np.array_equal(_bits(old[name]), _bits(new[name])) for name in old if name == AMPLITUDES
    )
    if not same:
        raise IntegrityError(
            "what was written is not what was read, and was removed",
            next_step="check the memory and the disk of this machine, and apply the plan again",
        )


def _bits(array: Any) -> Any:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def _finish(old: str, new: str) -> None:
    """Give the new file the permissions of the old one, and make it durable."""
    files = current()
    with explained("make durable", new):
        mode = stat.S_IMODE(files.stat(old).st_mode)
        fd = files.open(new, os.O_RDWR)
        try:
            files.fchmod(fd, mode)
            files.fsync(fd)
        except BaseException:
            with suppress(OSError):
                files.close(fd)
            raise
        files.close(fd)
