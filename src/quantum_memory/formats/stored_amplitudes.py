"""The amplitudes of a saved state vector, where they are: pickled, they are an address, and opened again elsewhere."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from quantum_memory.errors import ConflictError
from quantum_memory.formats.reader import AMPLITUDES, look_up
from quantum_memory.formats.registry import OpenOptions, open_reader
from quantum_memory.state.arrays import STORABLE
from quantum_memory.state.json_text import to_json
from quantum_memory.state.windows import Stepped

if TYPE_CHECKING:
    from quantum_memory.formats.reader import Reader
    from quantum_memory.state.arrays import AnyArray
    from quantum_memory.state.document import ArrayIdentity

_STEP_BYTES = 8 << 20
_OPEN = 8


def left_there(reader: Reader) -> StoredAmplitudes | None:
    """Return what stands for the amplitudes of a reader that are in several chunks; None where they are to be read.

    Those are read that are in a form, big-endian, or in another part of the memory as well.
    """
    address = getattr(reader, "address", None)
    entry = reader.entries.get(AMPLITUDES)
    if address is None or entry is None or reader.facts(AMPLITUDES).get("chunks", 1) <= 1:
        return None
    text = to_json(reader.document)
    if text.count(to_json({"$array": AMPLITUDES})) != 1 or text.count(to_json(AMPLITUDES)) != 1:
        return None
    return StoredAmplitudes(address, reader)


@lru_cache(maxsize=_OPEN)
def reader_of(address: str) -> Reader:
    """Return a reader of an address that names a snapshot, which never changes: one for all tasks of a process."""
    return open_reader(address, OpenOptions())


class StoredAmplitudes(Stepped):
    """Amplitudes of which a run is read, and checked, at a time; see `state.arrays.Windows`.

    Parameters
    ----------
    path
        Where they are, for good: an address with the id of a snapshot.
    reader
        What reads them.

    Attributes
    ----------
    step
        How many are read at once.
    waits
        Reading waits for the storage, and may be done in any thread: others are read meanwhile.
    """

    ndim = 1
    waits = True

    def __init__(self, path: str, reader: Reader) -> None:
        super().__init__()
        entry = look_up(reader.entries, AMPLITUDES, reader.name)
        self._path = path
        self._identity: ArrayIdentity = entry.identity
        self._reader: Reader | None = reader
        self.dtype = np.dtype(STORABLE[entry.dtype])
        self.shape, self.nbytes = entry.shape, entry.nbytes
        chunk_bytes = reader.facts(AMPLITUDES).get("chunk_bytes", _STEP_BYTES)
        self.step = min(entry.shape[0], max(1, chunk_bytes // self.dtype.itemsize))

    def read(self, start: int, stop: int) -> AnyArray:
        """Read items ``start:stop``, checked."""
        reader = self._opened()
        read = getattr(reader, "read_run", reader.read_items)  # which makes no copy of a chunk
        found: AnyArray = read(AMPLITUDES, start, stop)
        return found

    def read_all(self, out: AnyArray) -> None:
        """Read all of them into an array, several chunks at a time, checked."""
        self._opened().read(AMPLITUDES, out=out)

    def _opened(self) -> Reader:
        with self._lock:
            if self._reader is None:
                self._reader = self._again()
            return self._reader

    def _again(self) -> Reader:
        reader = reader_of(self._path)
        entry = reader.entries.get(AMPLITUDES)
        if entry is None or entry.identity != self._identity:
            raise ConflictError(
                "it holds another state than when work on it began", path=self._path, next_step="begin again"
            )
        return reader

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"_reader": None}

    def __repr__(self) -> str:
        return f"StoredAmplitudes({self._path!r}, shape={self.shape}, dtype={self.dtype})"
