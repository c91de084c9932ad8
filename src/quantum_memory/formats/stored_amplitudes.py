"""The amplitudes of a saved state vector, where they are: pickled, they are an address, and opened again elsewhere."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from quantum_memory.errors import ConflictError
from quantum_memory.formats.form_reader import FormReader
from quantum_memory.formats.reader import AMPLITUDES, WholeReader, look_up
from quantum_memory.formats.registry import OpenOptions, open_reader
from quantum_memory.formats.urls import is_url, whole_path
from quantum_memory.state.arrays import STORABLE
from quantum_memory.state.json_text import to_json
from quantum_memory.state.windows import Stepped

if TYPE_CHECKING:
    from quantum_memory.formats.reader import Reader
    from quantum_memory.formats.registry import Path
    from quantum_memory.state.arrays import AnyArray
    from quantum_memory.state.document import ArrayIdentity

_STEP_BYTES = 8 << 20
_OPEN = 8


@dataclass(frozen=True)
class Source:
    """From where others read what a reader reads here.

    Attributes
    ----------
    path
        An address, a file, or a name of what is in one, which means the same in every folder.
    state_id, allow_pickle
        See `quantum_memory.load`.
    """

    path: str
    state_id: str | None = None
    allow_pickle: bool = False

    @classmethod
    def of(cls, path: Path, state_id: str | None = None, *, allow_pickle: bool = False) -> Source:
        """Return it, from a path as it was given."""
        return cls(os.fspath(whole_path(path)), state_id, allow_pickle)

    def opened(self) -> Reader:
        """Return a reader: of an address that names a snapshot, which never changes, one for all tasks of a process."""
        if is_url(self.path):
            return reader_of(self.path)
        return open_reader(self.path, OpenOptions(None, self.allow_pickle, self.state_id))


def left_there(reader: Reader, source: Source | None = None) -> StoredAmplitudes | None:
    """Return what stands for the amplitudes of a reader that are in several chunks; None where they are to be read.

    Those are read that are big-endian, in another part of the memory as well, or in a form of which no part can be had
    without the rest.

    Parameters
    ----------
    source
        From where they are read elsewhere. Without one only those are left that are at an address.
    """
    text = to_json(reader.document)
    if text.count(to_json({"$array": AMPLITUDES})) != 1 or text.count(to_json(AMPLITUDES)) != 1:
        return None
    return left_array(reader, AMPLITUDES, source) if AMPLITUDES in reader.entries else None


def left_array(reader: Reader, path: str, source: Source | None = None) -> StoredAmplitudes | None:
    """Return what stands for an array of one axis, or for a part of one; see `left_there`."""
    address = getattr(reader, "address", None)
    where = source if address is None else Source(address)
    if where is None:
        return None
    stored = _holder(reader, path)
    if isinstance(stored, FormReader) and path in stored.forms.nodes:
        long = stored.entries[path].nbytes > _STEP_BYTES and stored.in_windows(path)
    elif address is None:
        long = stored.entries[path].nbytes > _STEP_BYTES and not isinstance(_inner(stored), WholeReader)
    else:
        long = stored.facts(path).get("chunks", 1) > 1
    return StoredAmplitudes(where, reader, path) if long else None


def _inner(reader: Reader) -> Reader:
    return reader.inner if isinstance(reader, FormReader) else reader


def _holder(reader: Reader, path: str) -> Reader:
    """Return what reads an array of a memory, or one that is a part of one in a form."""
    return reader if path in reader.entries else _inner(reader)


@lru_cache(maxsize=_OPEN)
def reader_of(address: str) -> Reader:
    """Return a reader of an address that names a snapshot, which never changes: one for all tasks of a process."""
    return open_reader(address, OpenOptions())


class StoredAmplitudes(Stepped):
    """Amplitudes of which a run is read, and checked, at a time; see `state.arrays.Windows`.

    Parameters
    ----------
    source
        Where they are, for good: an address with the id of a snapshot; or for as long as nobody writes the file.
    reader
        What reads them here.
    path
        Which array they are.

    Attributes
    ----------
    step
        How many are read at once.
    piece
        How many are best read at once where they are read one after the other.
    """

    ndim = 1

    def __init__(self, source: Source, reader: Reader, path: str = AMPLITUDES) -> None:
        super().__init__()
        stored = _holder(reader, path)
        entry = look_up(stored.entries, path, reader.name)
        self._source = source
        self._path = path
        self._identity: ArrayIdentity = entry.identity
        self._reader: Reader | None = stored
        self._own: Reader | None = None
        self.waits = is_url(source.path)  # a file is mostly unpacked, for which nobody waits
        self.dtype = np.dtype(STORABLE[entry.dtype])
        self.shape, self.nbytes = entry.shape, entry.nbytes
        chunk_bytes = stored.facts(path).get("chunk_bytes", _STEP_BYTES)
        self.step = min(entry.shape[0], max(1, chunk_bytes // self.dtype.itemsize))
        piece_bytes = getattr(stored, "piece_bytes", None)
        self.piece = self.step if piece_bytes is None else min(self.step, piece_bytes(path) // self.dtype.itemsize)

    @property
    def digest(self) -> bytes:
        """The SHA-256 that identifies them, against which they are read."""
        return self._identity.digest

    def read(self, start: int, stop: int) -> AnyArray:
        """Read items ``start:stop``, checked."""
        reader = self._opened()
        read = getattr(reader, "read_run", reader.read_items)  # which makes no copy of a chunk
        found: AnyArray = read(self._path, start, stop)
        return found

    def read_all(self, out: AnyArray) -> None:
        """Read all of them into an array, several chunks at a time, checked."""
        self._opened().read(self._path, out=out)

    def release(self) -> None:
        """Close the file, if it was opened for this: a task that has ended is not to keep it."""
        with self._lock:
            own, self._own = self._own, None
            if own is not None:
                self._reader = None
                own.close()

    def _opened(self) -> Reader:
        with self._lock:
            if self._reader is None:
                self._reader = self._again()
            return self._reader

    def _again(self) -> Reader:
        reader = self._source.opened()
        try:
            stored = _holder(reader, self._path)
            entry = stored.entries.get(self._path)
            if entry is None or entry.identity != self._identity:
                raise ConflictError(
                    "it holds another state than when work on it began", path=self._source.path, next_step="begin again"
                )
        except BaseException:
            self._drop(reader)
            raise
        self._own = None if is_url(self._source.path) else reader
        return stored

    def _drop(self, reader: Reader) -> None:
        if not is_url(self._source.path):
            reader.close()

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"_reader": None, "_own": None}

    def __repr__(self) -> str:
        return f"StoredAmplitudes({self._source.path!r}, shape={self.shape}, dtype={self.dtype})"
