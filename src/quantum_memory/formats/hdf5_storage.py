"""Many states in one HDF5 file: saved, listed, read in part, deleted, without ever putting the others at risk.

Every change is one transaction of `durability.transaction`: a kill or a power cut leaves the store as it was before the
change or as it is after it. Appending costs what is appended. The schema is in ``docs/storage_architecture.md``.
"""

from __future__ import annotations

import datetime
import os
import re
import time
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from quantum_memory.errors import ConflictError, InvalidStateError, MissingError
from quantum_memory.formats import hdf5_guard as guard
from quantum_memory.formats.form_reader import with_forms
from quantum_memory.formats.hdf5_index import add_state, described, index_row, index_rows, intact_rows, says
from quantum_memory.formats.hdf5_layout import compression_arguments
from quantum_memory.formats.hdf5_series import Series, Window
from quantum_memory.formats.hdf5_series_writer import SeriesWriter
from quantum_memory.formats.hdf5_state_reader import StateReader
from quantum_memory.formats.hdf5_state_writer import StateWriter
from quantum_memory.formats.hdf5_store import (
    CHECKPOINTS,
    INDEX,
    LOCK_TIMEOUT,
    SERIES,
    STATES,
    Store,
    changed,
    copy_foreign,
    reading,
    replacing,
    writing,
)
from quantum_memory.formats.lazy import StateFile
from quantum_memory.formats.packing import packed
from quantum_memory.formats.prepared import Fidelity, Prepared
from quantum_memory.formats.reader import read_memory
from quantum_memory.formats.registry import OpenOptions, SaveOptions, open_reader
from quantum_memory.formats.verbs import write
from quantum_memory.state.memory_state import as_memory_state

if TYPE_CHECKING:
    from quantum_memory.formats.reader import Reader, Verify
    from quantum_memory.formats.registry import Progress, Saved
    from quantum_memory.state.memory_state import MemoryState

    Path = str | os.PathLike[str]

ID_LENGTH = 64
"""How long the id of a state may be."""

_ID = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._+@=-]{{0,{ID_LENGTH - 1}}}")


class BeforeWrite(Protocol):
    """Keeps what is about to be changed (`quantum_memory.BackupManager`)."""

    def before_write(self, path: Path) -> object:
        """Back up a file, if it is there."""


class HDF5QuantumStorage:
    """Quantum states in one HDF5 file.

    Any number of processes may use one store: they take turns to write, and read side by side. Nothing is kept open
    between calls.

    Parameters
    ----------
    path
        The file; it is made by the first save, which also replaces one that is empty.
    compression
        "gzip", "lzf", "szip", None, and with the package ``hdf5plugin`` "zstd" and "bitshuffle". Arrays of up to 4 KiB
        are stored as they are.
    lock_timeout
        Seconds to wait for another process.
    durable
        False leaves out every ``fsync``: still all or nothing against a kill, not against a power cut.
    backup_before_write
        A `BackupManager`, which backs up the store before each change; where it cannot, nothing is changed.

    Examples
    --------
    >>> storage = HDF5QuantumStorage("quantum_memory.h5", compression="gzip")  # doctest: +SKIP
    >>> state_id = storage.save_quantum_state(state_data)  # doctest: +SKIP
    >>> loaded = storage.load_quantum_state(state_id)  # doctest: +SKIP
    """

    def __init__(
        self,
        path: Path,
        compression: str | None = "gzip",
        *,
        lock_timeout: float = LOCK_TIMEOUT,
        durable: bool = True,
        backup_before_write: BeforeWrite | None = None,
    ) -> None:
        self.path = os.fspath(path)
        self.compression = compression
        self.lock_timeout = lock_timeout
        self.durable = durable
        self.backup_before_write = backup_before_write
        self._arguments = compression_arguments(compression)

    def save_quantum_state(
        self,
        state_data: object,
        state_id: str | None = None,
        *,
        progress: Progress | None = None,
        fidelity: float | None = None,
        effort: str | None = None,
    ) -> str:
        """Append a state durably and return its id.

        Parameters
        ----------
        state_data
            Anything that `quantum_memory.save` takes, or such a thing taken apart.
        state_id
            Its name: up to 64 letters, digits and ``._+@=-``. By default the time, ``YYYYMMDD_HHMMSS_ffffff`` in UTC.
        progress
            Called with the raw bytes of each chunk that is done.
        fidelity, effort
            Save the quantum state in the smallest form that keeps this fidelity, or every bit (see
            `quantum_memory.save`). By default it is stored as it is, for programs that read HDF5.

        Raises
        ------
        ConflictError
            There is a state of that id, or another process holds the store for longer than `lock_timeout`.
        InvalidStateError
            The state cannot be kept exactly, or the id is none; nothing is written.
        IntegrityError, UnsupportedVersionError
            What is there is damaged, or no store that this release writes to; it stays as it is.
        StorageError
            The operating system refused; the store is as it was.
        """
        memory = state_data if isinstance(state_data, Prepared) else Prepared.plain(as_memory_state(state_data))
        asked = Fidelity.asked(fidelity, None, effort)
        return self._append(memory if asked is None else packed(memory, asked, progress), state_id, progress)

    def _append(self, memory: Prepared, state_id: str | None, progress: Progress | None = None) -> str:
        if state_id is not None:
            _checked_id(state_id, "a state")

        def add(store: Store, progress: Progress | None) -> str:
            now = time.time_ns()
            name = _free_id(store, now) if state_id is None else state_id
            if name in store.states:
                raise ConflictError(
                    f"there is a state {name!r} already", path=self.path, next_step="delete it, or choose another id"
                )
            writer = StateWriter(store, self._arguments, progress)
            add_state(store, name, now, lambda group: writer.write(group, memory))
            return name

        return guard.passing(
            progress, lambda calling: changed(self.path, self._writing, lambda store: add(store, calling))
        )

    def load_quantum_state(
        self,
        state_id: str,
        *,
        out: Any = None,
        verify: Verify = "fast",
        max_bytes: int | None = None,
        mmap: bool = False,
        progress: Progress | None = None,
    ) -> MemoryState:
        """Load a state, checking all of its bytes; the parameters are those of `quantum_memory.load`.

        What is mapped keeps the store locked against writers for as long as it is in use.

        Raises
        ------
        MissingError
            There is no such state; the error names some that there are.
        IntegrityError
            It is damaged. The other states can still be loaded.
        """
        with closing(self._reader(state_id)) as reader:
            return read_memory(reader, out=out, verify=verify, max_bytes=max_bytes, mmap=mmap, progress=progress)

    def open_state(self, state_id: str) -> StateFile:
        """Open a state for reading in part, as `quantum_memory.open` does; the store cannot be written until then."""
        return StateFile(self._reader(state_id))

    def list_states(self, limit: int | None = None) -> list[dict[str, Any]]:
        """Return the states, newest first: id, time, kind, sites, bytes and `content_id`.

        Parameters
        ----------
        limit
            At most so many; only that part of the index is read.
        """
        if limit is not None and (type(limit) is not int or limit < 0):
            raise InvalidStateError(f"limit is {limit!r:.40}", path=self.path, next_step="give a number or None")
        if not os.path.exists(self.path):  # noqa: PTH110 - a path may be text here
            return []
        with reading(self.path, self.lock_timeout) as store:
            found: list[dict[str, Any]] = []
            end = len(store.index)
            while end and (limit is None or len(found) < limit):
                start = max(0, end - max(256, 2 * (limit or 0)))
                rows = index_rows(store, start, end)
                found += [described(row) for row in rows[::-1] if row["id"]]
                end = start
            return found if limit is None else found[:limit]

    def delete_state(self, state_id: str) -> None:
        """Remove a state. Its space in the file comes back with `optimize_storage`.

        Raises
        ------
        MissingError
            There is no such state.
        """
        with self._writing(create=False) as store:
            self._check_there(store, state_id)
            index = store.index
            rows = index_rows(store, 0, len(index))
            for number in np.flatnonzero(rows["id"] == state_id.encode()):
                group = guard.child(store.root, INDEX)
                deleted = guard.number_attribute(group, "deleted_bytes") + int(rows[number]["stored_bytes"])
                group.attrs["deleted_bytes"] = np.uint64(deleted)
                index[number : number + 1] = np.zeros(1, rows.dtype)
            del store.states[state_id]

    def get_storage_stats(self) -> dict[str, Any]:
        """Return what the store takes: states, bytes of the file, raw and stored bytes, and what could be reclaimed."""
        with reading(self.path, self.lock_timeout) as store:
            rows = index_rows(store, 0, len(store.index))
            rows = rows[rows["id"] != b""]
            raw, stored = int(rows["raw_bytes"].sum()), int(rows["stored_bytes"].sum())
            kinds, counts = np.unique(rows["kind"], return_counts=True)
            return {
                "path": self.path,
                "states": len(rows),
                "time_series": len(guard.child(store.root, SERIES)),
                "file_bytes": store.file.size,
                "raw_bytes": raw,
                "stored_bytes": stored,
                "deleted_bytes": int(guard.number_attribute(guard.child(store.root, INDEX), "deleted_bytes")),
                "compression": self.compression or "none",
                "compression_ratio": raw / stored if stored else None,
                "by_kind": {
                    kind.decode() or "classical": int(count) for kind, count in zip(kinds, counts, strict=True)
                },
                "oldest": described(rows[0])["created"] if len(rows) else None,
                "newest": described(rows[-1])["created"] if len(rows) else None,
            }

    def optimize_storage(self, *, progress: Progress | None = None) -> dict[str, int]:
        """Write the store anew without the space of deleted states, every state verified, and take its place.

        An index that is damaged is made again from the states; times that only it knew are then not known. What others
        put into the file is copied, but attributes only where they are numbers or text, and references lead nowhere.

        Returns
        -------
        dict
            ``states``, ``bytes_before``, ``bytes_after`` and ``bytes_saved``.

        Raises
        ------
        IntegrityError
            A state is damaged; the store stays as it is.
        """
        return guard.passing(progress, self._optimized)

    def _before_write(self) -> None:
        """Back up the store; before it is locked, since whoever copies it locks it, too."""
        if self.backup_before_write is not None:
            self.backup_before_write.before_write(self.path)

    def _optimized(self, progress: Progress | None) -> dict[str, int]:
        self._before_write()
        with (
            reading(self.path, self.lock_timeout) as store,
            replacing(self.path, timeout=self.lock_timeout, durable=self.durable) as new,
        ):
            before = store.file.size
            guard.check_heaps(store.file)  # what others put there may hold texts, and is copied by HDF5
            rows = intact_rows(store)
            for name in store.states:
                reader = StateReader(store.file, store.state(name))
                reader.check_everything(progress)
                store.root.copy(store.state(name), new.states)
                new.check()
                row = rows.get(name)
                if row is None or not says(row[0], reader.summary()):
                    stored = sum(int(reader.facts(path)["stored_bytes"]) for path in reader.entries)
                    rows[name] = index_row(name, 0, reader.summary(), stored)
            series = guard.child(store.root, SERIES)
            for name in series:
                Series(store, name).check(progress)
                store.root.copy(guard.child(series, name), new.root[SERIES])
            copy_foreign(store.root, new.root)
            for name in (STATES, SERIES, CHECKPOINTS, INDEX):
                copy_foreign(guard.child(store.root, name), new.root[name])
            kept = [row for name, row in rows.items() if name in new.states]
            new.index.resize(len(kept), axis=0)
            if kept:
                new.index[:] = np.concatenate(kept)
            store.check()  # HDF5 copies what it could not read, too, and then the old store would be gone
        after = new.file.size
        return {"states": len(kept), "bytes_before": before, "bytes_after": after, "bytes_saved": before - after}

    def export_to_binary(self, state_id: str, path: Path, *, compression: str = "auto") -> Saved:
        """Save a state of the store as a file of its own, in the format of the suffix; its content stays the same."""
        with closing(self._reader(state_id)) as reader:
            memory = Prepared.of_reader(reader, mapped=False)
        return write(memory, path, SaveOptions(compression, durable=self.durable), None)

    def import_from_binary(
        self,
        path: Path,
        state_id: str | None = None,
        *,
        source_id: str | None = None,
        max_bytes: int | None = None,
        allow_pickle: bool = False,
    ) -> str:
        """Append the state in a file of any format, and return its id.

        Parameters
        ----------
        path
            The file.
        state_id
            Its name in this store; see `save_quantum_state`.
        source_id
            Which state of the file, where that is a store that holds several.
        max_bytes, allow_pickle
            See `quantum_memory.load`.
        """
        with closing(open_reader(path, OpenOptions(max_bytes, allow_pickle, source_id))) as reader:
            # Not mapped, since the file may be this store, which can then not be written to.
            memory = Prepared.of_reader(reader, max_bytes, mapped=False)
        return self._append(memory, state_id)

    def time_series(self, name: str) -> SeriesWriter:
        """Return what appends samples to a time series: `PAD` points, states, arrays, numbers or records.

        Examples
        --------
        >>> with storage.time_series("pad") as series:  # doctest: +SKIP
        ...     series.append((0.1, -0.2, 0.3), time=0.5)
        """
        return SeriesWriter(self._writing, _checked_id(name, "a time series"), self.path)

    def read_series(self, name: str, start: int | None = None, stop: int | None = None) -> Window:
        """Return samples ``start:stop`` of a time series, as Python counts; only the blocks that they are in are read.

        Raises
        ------
        MissingError
            There is no such series.
        IntegrityError
            A block is damaged; the error says which samples it holds.
        """
        with reading(self.path, self.lock_timeout) as store:
            return Series(store, name).window(start, stop)

    def list_series(self) -> list[dict[str, Any]]:
        """Return name, kind and number of samples of every time series."""
        if not os.path.exists(self.path):  # noqa: PTH110
            return []
        with reading(self.path, self.lock_timeout) as store:
            return [Series(store, name).summary() for name in guard.child(store.root, SERIES)]

    def _writing(self, *, create: bool = True) -> Any:
        self._before_write()
        return writing(self.path, timeout=self.lock_timeout, durable=self.durable, create=create)

    def _reader(self, state_id: str) -> Reader:
        with ExitStack() as stack:
            store = stack.enter_context(reading(self.path, self.lock_timeout))
            self._check_there(store, state_id)
            reader = StateReader(store.file, store.state(state_id))
            reader.on_close = stack.pop_all().close
            return with_forms(reader)

    def _check_there(self, store: Store, state_id: str) -> None:
        if not isinstance(state_id, str) or "/" in state_id or not guard.has(store.states, state_id):
            some = [row["id"].decode() for row in index_rows(store, max(0, len(store.index) - 8), len(store.index))]
            there = ", ".join(name for name in some[::-1] if name)
            raise MissingError(
                f"there is no state {state_id!r:.80}", path=self.path, next_step=f"it has: {there or 'none'}"
            )


def is_state_id(name: str) -> bool:
    """Tell whether a state may have this id."""
    return _ID.fullmatch(name) is not None


def _checked_id(name: str, what: str) -> str:
    if not isinstance(name, str) or not is_state_id(name):
        raise InvalidStateError(
            f"{name!r:.80} is no id of {what}", next_step="use up to 64 letters, digits and any of ._+@=-"
        )
    return name


def _free_id(store: Store, now: int) -> str:
    """Return the time as an id that no state has yet."""
    while True:
        moment = datetime.datetime.fromtimestamp(now // 1000 / 1e6, datetime.UTC)
        name = moment.strftime("%Y%m%d_%H%M%S_%f")
        if name not in store.states:
            return name
        now += 1000
