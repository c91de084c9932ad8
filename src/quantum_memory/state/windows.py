"""Arrays of one axis of which a run of items is read at a time, wherever they are; see `arrays.Windows`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from quantum_memory.state.arrays import AnyArray, Windows


def windows_of(array: Any) -> Windows | None:
    """Return an array that is elsewhere as one of which a run is read at a time; None for any other value."""
    if isinstance(array, np.ndarray) or not hasattr(array, "ndim") or not hasattr(array, "dtype"):
        return None
    if callable(getattr(array, "items", None)):
        found: Windows = array
        return found
    return DaskRow(array) if type(array).__module__.partition(".")[0] == "dask" else None


class InMemory:
    """Amplitudes in memory, for code that reads a run of items at a time.

    Parameters
    ----------
    array
        All of them.
    start, stop
        Those that are kept.
    """

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


class DaskRow:
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
        self.array = array
        self.dtype, self.shape, self.ndim, self.nbytes = array.dtype, array.shape, array.ndim, array.nbytes
        self.step = int(max(array.chunks[0], default=1)) if array.ndim else 1

    def items(self, start: int, stop: int) -> AnyArray:
        """Return items ``start:stop``, little-endian."""
        found = np.asarray(self.array[start:stop].compute())
        return np.ascontiguousarray(found, found.dtype.newbyteorder("<"))

    def blocks(self, size: int) -> list[Any]:
        """Return the items, `size` at a time, as delayed values of Dask."""
        return list(self.array.rechunk(size).to_delayed().ravel())
