"""Arrays of one axis of which a run of items is read at a time, wherever they are; see `arrays.Windows`."""

from __future__ import annotations

import contextlib
import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import numpy as np

from quantum_memory.state.arrays import CHUNK_BYTES, worker_count

if TYPE_CHECKING:
    from collections.abc import Iterator

    from quantum_memory.state.arrays import AnyArray, Windows


def windows_of(array: Any) -> Windows | None:
    """Return an array that is elsewhere as one of which a run is read at a time; None for any other value."""
    if isinstance(array, np.ndarray) or not hasattr(array, "ndim") or not hasattr(array, "dtype"):
        return None
    if hasattr(array, "to_numpy"):  # of pandas, whose items are something else
        return None
    if callable(getattr(array, "items", None)):
        found: Windows = array
        return found
    return DaskRow(array) if type(array).__module__.partition(".")[0] == "dask" else None


def carries(*arrays: Any) -> bool:
    """Tell whether a task that is given a part of one of these carries items, and not just where they are."""
    return any(getattr(array, "carries", hasattr(array, "part")) for array in arrays)


@contextlib.contextmanager
def released(*arrays: Any) -> Iterator[None]:
    """Let arrays that are elsewhere close, when a block ends, what they have opened in it."""
    try:
        yield
    finally:
        for array in arrays:
            release = getattr(array, "release", None)
            if release is not None:
                release()


class InMemory:
    """Amplitudes in memory, for code that reads a run of items at a time.

    Parameters
    ----------
    array
        All of them.
    start, stop
        Those that are kept.
    """

    waits = False

    def __init__(self, array: AnyArray, start: int = 0, stop: int | None = None) -> None:
        self._start = start
        self._array = array[start:stop]
        self.dtype, self.ndim = array.dtype, 1
        self.shape, self.nbytes = array.shape, array.nbytes

    def part(self, start: int, stop: int) -> InMemory:
        """Return the same, with no others in memory than items ``start:stop``, to be pickled."""
        made = InMemory(self._array[:0])
        made._start, made._array = start, self.items(start, stop)
        made.shape, made.nbytes = self.shape, self.nbytes
        return made

    def items(self, start: int, stop: int) -> AnyArray:
        """Return items ``start:stop`` of the whole array."""
        return self._array[start - self._start : stop - self._start]


class Stepped:
    """Windows of which whole steps are read, also for who asks for less: the last few steps are kept for the next one.

    Attributes
    ----------
    dtype
        Element type.
    step
        How many items are read at once.
    piece
        How many of them may be read by themselves; all, unless a subclass says something else.
    """

    dtype: np.dtype[Any]
    step: int
    piece: int | None = None

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._recent: OrderedDict[int, _Step] = OrderedDict()

    def read(self, start: int, stop: int) -> AnyArray:
        """Read items ``start:stop``."""
        raise NotImplementedError

    def items(self, start: int, stop: int) -> AnyArray:
        """Return items ``start:stop``, little-endian, in an array that nobody writes to."""
        low = start // self.step * self.step
        piece = self.piece or self.step
        if start == stop or stop > low + self.step or start % piece == (stop - start) % piece == 0:
            return self.read(start, stop)
        with self._lock:
            one = self._recent.setdefault(low, _Step())
            self._recent.move_to_end(low)
            while len(self._recent) > self._kept:
                self._recent.popitem(last=False)
        with one.lock:
            if one.items is None:
                one.items = self.read(low, min(low + self.step, self._size))
            return one.items[start - low : stop - low].copy()

    @property
    def _size(self) -> int:
        return int(self.shape[0])  # type: ignore[attr-defined] # a subclass has it

    @property
    def _kept(self) -> int:
        """Of so many steps are the MiB that all cores look at together."""
        return 2 + worker_count() * CHUNK_BYTES // (self.step * self.dtype.itemsize)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in {"_lock", "_recent"}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        Stepped.__init__(self)
        self.__dict__ |= state


class _Step:
    """Items that one reads, and others wait for."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.items: AnyArray | None = None


class DaskRow(Stepped):
    """An array of Dask, of which the runs are computed that are read.

    Parameters
    ----------
    array
        A `dask.array.Array` of one axis.

    Attributes
    ----------
    step
        How many items are read at once: those of its longest chunk.
    """

    def __init__(self, array: Any) -> None:
        super().__init__()
        self.array = array
        self.dtype, self.shape, self.ndim, self.nbytes = array.dtype, array.shape, array.ndim, array.nbytes
        self.step = int(max(array.chunks[0], default=1)) if array.ndim else 1

    def read(self, start: int, stop: int) -> AnyArray:
        """Compute items ``start:stop``."""
        found = np.asarray(self.array[start:stop].compute())
        return np.ascontiguousarray(found, found.dtype.newbyteorder("<"))

    def blocks(self, size: int) -> list[Any]:
        """Return the items, `size` at a time, as delayed values of Dask."""
        return list(self.array.rechunk(size).to_delayed().ravel())
