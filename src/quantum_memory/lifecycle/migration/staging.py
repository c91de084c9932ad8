"""Make the new file of an old one, in the place where new files wait for their names, and compare the two.

This is the part that takes time, and can be done by any `concurrent.futures.Executor`.
"""

from __future__ import annotations

import os
import stat
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from contextvars import copy_context
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from quantum_memory._version import __version__
from quantum_memory.durability.files import ReadableFile, current
from quantum_memory.errors import ConflictError, IntegrityError, QuantumMemoryError
from quantum_memory.formats import legacy
from quantum_memory.formats.legacy import stores
from quantum_memory.formats.legacy.windows import prepared
from quantum_memory.formats.registry import SaveOptions
from quantum_memory.formats.verbs import load, write
from quantum_memory.formats.verbs import open as open_state
from quantum_memory.lifecycle.migration.digests import checksum_of, digest_of
from quantum_memory.lifecycle.migration.names import new_ids
from quantum_memory.lifecycle.migration.survey import Inline
from quantum_memory.lifecycle.migration.workplace import check_inside, drop, explained
from quantum_memory.lifecycle.version_manager import VersionManager
from quantum_memory.state.arrays import CHUNK_BYTES, chunk_items, dtype_name
from quantum_memory.state.document import content_id, identify

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from quantum_memory.formats.legacy import Legacy
    from quantum_memory.formats.prepared import Prepared
    from quantum_memory.lifecycle.migration.entries import Entry, Source
    from quantum_memory.state.arrays import AnyArray, Windows

T = TypeVar("T")

_LARGE = 64 << 20
"""Bytes of a file from which on it is worth a thread to do at once what need not be done in turn."""


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
    checksum, bytes
        Of the new file.
    content_ids
        Of its states, by their ids; of a file of one state, by "". None where nothing was written.
    error
        What went wrong; otherwise None. There is then no new file.
    """

    number: int
    checksum: str = ""
    bytes: int = 0
    content_ids: dict[str, str] = field(default_factory=dict)
    error: QuantumMemoryError | None = None

    def to_line(self, path: str) -> dict[str, Any]:
        """Return what the journal says before the file gets its name."""
        return {
            "event": "replacing", "n": self.number, "path": path, "xxh3": self.checksum, "bytes": self.bytes,
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
        full = os.path.join(task.root, task.entry.path)
        return Made(task.number, error=error.at(full))


def check_unchanged(root: str, source: Source) -> None:
    """Refuse a file that is not what it was when the plan was made.

    Raises
    ------
    ConflictError, MissingFileError, UnsafeError
    """
    check_inside(root, source.path)
    full = os.path.join(root, source.path)
    with ReadableFile(full) as file:
        same = _facts(full) == (source.bytes, source.mtime_ns) and digest_of(file) == source.sha256
    if not same:
        raise ConflictError("it was changed since the plan was made", path=full, next_step="make a new plan")


def _made(task: Task) -> Made:
    sources = task.entry.sources
    with _aside(sources[0].bytes) as aside:
        unchanged = _submit(aside, _check_all_unchanged, task)
        if unchanged.done():
            unchanged.result()
        try:
            made = _copied(task, aside)
        except QuantumMemoryError:
            unchanged.result()  # an error in what was changed meanwhile says nothing
            raise
        unchanged.result()
    for old in sources:
        full = os.path.join(task.root, old.path)
        if _facts(full) != (old.bytes, old.mtime_ns):
            raise ConflictError("it was changed while it was read", path=full, next_step="make a new plan")
    return made


def _check_all_unchanged(task: Task) -> None:
    for old in task.entry.sources:
        check_unchanged(task.root, old)


def _copied(task: Task, aside: Executor) -> Made:
    """Read every state, write it, and compare it. While the last one is compared, the new file is made durable."""
    full, new = os.path.join(task.root, task.entry.path), task.new
    ids: dict[str, str] = {}
    finishing: list[Future[Any]] = []
    with ReadableFile(full) as source, _opened(task, source) as states:
        if new:
            drop(new)
            if task.entry.kind == stores.KIND:
                _begin_store(new)
        for number, (name, read) in enumerate(states, 1):
            old = read()
            old.memory.record["migration"] = _noted(task)
            memory = prepared(old)
            if not new:
                continue
            _write(memory, new, name, _compression(old))
            if number == len(states):
                finishing = _finishing(full, new, aside)
            ids[name or ""] = _compare(memory, new, name)
        if not new:
            return Made(task.number)
        _, (checksum, length) = (one.result() for one in finishing or _finishing(full, new, aside))
        return Made(task.number, checksum, length, ids)


@contextmanager
def _opened(task: Task, source: ReadableFile) -> Iterator[list[tuple[str | None, Callable[[], Legacy]]]]:
    """Open a file, and give the id of each state in the new one, None where that has no ids, and what reads it."""
    if task.entry.kind != stores.KIND:
        yield [(None, partial(legacy.read, source, allow_pickle=task.allow_pickle))]
        return
    # The plan has read all of it, and it has the SHA-256 that the plan says.
    with closing(legacy.Store(source, looked_at=True)) as store:
        yield [(new, partial(store.read, old)) for old, new in new_ids(store.ids).items()]


@contextmanager
def _aside(length: int) -> Iterator[Executor]:
    """Give what does the work that need not wait for its turn: of a short file, this thread."""
    if length < _LARGE:
        yield Inline()
        return
    with ThreadPoolExecutor(2, "migration") as pool:
        yield pool


def _submit(aside: Executor, work: Callable[..., T], *given: Any) -> Future[T]:
    return aside.submit(copy_context().run, work, *given)  # the context says which `Files` is in force


def _finishing(old: str, new: str, aside: Executor) -> list[Future[Any]]:
    """Begin to make a new file durable, and to find out its checksum and its length."""
    return [_submit(aside, _finish, old, new), _submit(aside, _named, new)]


def _named(path: str) -> tuple[str, int]:
    with ReadableFile(path) as file:
        return checksum_of(file), file.size


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
        "sidecars": {os.path.basename(one.path): one.sha256 for one in entry.sidecars},
    }


def _begin_store(path: str) -> None:
    """Make a store without states, which an old one may be."""
    from quantum_memory.formats.hdf5_store import replacing  # noqa: PLC0415 - only for HDF5

    with replacing(path, durable=False):
        pass


def _compression(old: Legacy) -> str | None:
    """Return how a new store packs its arrays: as the old one did, which knew no better than gzip."""
    return {"none": None, "lzf": "lzf"}.get(old.memory.metadata.get("compression", ""), "gzip")


def _write(memory: Prepared, path: str, state_id: str | None, compression: str | None) -> None:
    # Not durable: `_finish` does that once, for all states of a store.
    if state_id is None:
        write(memory, path, SaveOptions(durable=False), None)
        return
    from quantum_memory.formats.hdf5_storage import HDF5QuantumStorage  # noqa: PLC0415 - only for HDF5

    HDF5QuantumStorage(path, compression, durable=False).save_quantum_state(memory, state_id)


def _compare(old: Prepared, path: str, state_id: str | None) -> str:
    """Read a state again, every byte checked, compare it with what was written of it, and return its `content_id`."""
    with _read_again(path, state_id) as (stated, document, arrays):
        same = {name: _what(array) for name, array in arrays.items()} == {
            name: _what(array) for name, array in old.arrays.items()
        }
        if same:
            # What stays in the old file was hashed as it was read and written: to read it once more shows nothing new.
            here = {name: one for name, one in old.arrays.items() if isinstance(one, np.ndarray)}
            digests = identify(
                {name: _Compared(one, here[name]) if name in here else one for name, one in arrays.items()}
            )
            name = content_id(old.document, digests)
            same = content_id(document, digests) == name == stated
    if not same:
        raise _unlike()
    return name


@contextmanager
def _read_again(
    path: str, state_id: str | None
) -> Iterator[tuple[str, dict[str, Any], Mapping[str, AnyArray | Windows]]]:
    """Open what was written, and give the `content_id` that it states, its document and its arrays.

    The arrays of a store are read when they are touched: a state of the first implementation may be large there.
    """
    if state_id is None:
        written = load(path, verify="full", allow_pickle=True)  # we have written it
        yield written.content_id, *written.flatten()
    else:
        with open_state(path, state_id=state_id) as file:
            yield file.info()["content_id"], file.document, file.arrays


class _Compared:
    """An array that was written, compared with the original as it is read.

    Parameters
    ----------
    new, old
        The two, of one type and one shape.
    """

    def __init__(self, new: AnyArray | Windows, old: AnyArray | Windows) -> None:
        self._new = new
        self._old = old
        self.dtype, self.shape, self.ndim, self.nbytes = new.dtype, new.shape, new.ndim, new.nbytes

    def items(self, start: int, stop: int) -> AnyArray:  # noqa: ARG002 - it is asked for chunk by chunk
        """Return items, having seen that they are the same in every bit."""
        index = start * self.dtype.itemsize // CHUNK_BYTES
        new, old = chunk_items(self._new, index), chunk_items(self._old, index)
        words = np.uint64 if new.nbytes % 8 == 0 else np.uint8
        if not np.array_equal(new.view(words), old.view(words)):
            raise _unlike()
        return new


def _what(array: AnyArray | Windows) -> tuple[str | None, tuple[int, ...]]:
    return dtype_name(array.dtype), array.shape


def _unlike() -> IntegrityError:
    return IntegrityError(
        "what was written is not what was read, and was removed",
        next_step="check the memory and the disk of this machine, and apply the plan again",
    )


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
