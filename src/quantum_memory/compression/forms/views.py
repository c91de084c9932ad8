"""An array in a form as it is read: window by window, from any thread, without the whole of it ever being there."""

from __future__ import annotations

import math
import threading
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections import OrderedDict
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

import numpy as np

from quantum_memory.compression.cores import on_all_cores
from quantum_memory.compression.forms.base import temporary_file
from quantum_memory.state.arrays import CHUNK_BYTES, worker_count

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from quantum_memory.compression.forms.base import Json, Part, Unpacks
    from quantum_memory.state.arrays import AnyArray

Made = TypeVar("Made")

IN_MEMORY_BYTES = 16 << 20
"""An array that is needed for a while is kept in a temporary file when it is larger."""


_MOST_KEPT = 8
"""Windows, or blocks, of at most 4 MiB each."""

_AT_A_TIME = 4
"""Windows that a core fills at a time: handing out work takes about as long as a short one."""


class Recent(Generic[Made]):
    """The last few of what is made by number; threads that ask for the same one at the same time make it once.

    Parameters
    ----------
    make
        Makes the one with a number. It is called from any thread.
    """

    def __init__(self, make: Callable[[int], Made]) -> None:
        self._make = make
        self._keep = min(worker_count() + 2, _MOST_KEPT)
        self._made: OrderedDict[int, Future[Made]] = OrderedDict()
        self._lock = threading.Lock()

    def __getitem__(self, index: int) -> Made:
        with self._lock:
            known = self._made.get(index)
            one: Future[Made] = Future() if known is None else known
            self._made[index] = one
            self._made.move_to_end(index)
            while len(self._made) > self._keep:
                self._made.popitem(last=False)
        if known is None:
            try:
                one.set_result(self._make(index))
            except BaseException as error:
                one.set_exception(error)
                with self._lock:
                    self._made.pop(index, None)
                raise
        return one.result()


class View(ABC):
    """An array in a form, as one row of items that are computed in windows.

    Parameters
    ----------
    dtype
        Of the array.
    size
        Items of the array.
    starts
        Where each window begins: 0 and ascending. A `range` where they are equally long, since a file can state any
        size.

    Attributes
    ----------
    is_whole
        Whether a look at any part takes the memory, or a temporary file, for all of it.
    """

    is_whole: ClassVar[bool] = False

    def __init__(self, dtype: np.dtype[Any], size: int, starts: Sequence[int]) -> None:
        self.dtype = dtype
        self.size = size
        self.starts = starts
        self._recent = Recent(self._made)

    @abstractmethod
    def window(self, index: int, out: AnyArray) -> None:
        """Compute all of a window in `out`, a contiguous row of as many items; from any thread.

        Raises
        ------
        IntegrityError
        """

    def read(self, start: int, out: AnyArray) -> None:
        """Compute the items from `start` on in `out`, a contiguous row, in this thread.

        Of a window that is wanted in part, what is left is kept for who asks for it next.
        """
        stop = start + len(out)
        index = bisect_right(self.starts, start) - 1
        while start < stop:
            first, last = self._bounds(index)
            here = out[len(out) - (stop - start) : len(out) - (stop - min(stop, last))]
            if first == start and last <= stop:
                self.window(index, here)
            else:
                here[...] = self._recent[index][start - first : start - first + len(here)]
            start, index = last, index + 1

    def fill(self, out: AnyArray) -> None:
        """Compute all items in `out`, contiguous, on all cores."""
        row = out.reshape(-1)

        def some(index: int) -> None:
            for each in range(index, min(index + _AT_A_TIME, len(self.starts))):
                first, last = self._bounds(each)
                self.window(each, row[first:last])

        for _ in on_all_cores(some, range(0, len(self.starts), _AT_A_TIME)):
            pass

    def _bounds(self, index: int) -> tuple[int, int]:
        last = self.starts[index + 1] if index + 1 < len(self.starts) else self.size
        return self.starts[index], last

    def _made(self, index: int) -> AnyArray:
        first, last = self._bounds(index)
        out: AnyArray = np.empty(last - first, self.dtype)
        self.window(index, out)
        return out


class WholeView(View):
    """An array in a form of which no part can be had without the rest: it is computed at the first look at a part.

    Parameters
    ----------
    fill
        Fills an array of this dtype and shape.
    """

    is_whole: ClassVar[bool] = True

    def __init__(self, dtype: np.dtype[Any], shape: tuple[int, ...], fill: Callable[[AnyArray], object]) -> None:
        size = math.prod(shape)
        super().__init__(dtype, size, range(0, size, CHUNK_BYTES // dtype.itemsize))
        self._shape = shape
        self._fill = fill
        self._whole: AnyArray | None = None
        self._lock = threading.Lock()

    def window(self, index: int, out: AnyArray) -> None:
        with self._lock:
            if self._whole is None:
                whole = scratch(self.dtype, self._shape)
                self._fill(whole)
                self._whole = whole.reshape(-1)
        first = self.starts[index]
        out[...] = self._whole[first : first + len(out)]

    def fill(self, out: AnyArray) -> None:
        self._fill(out.reshape(self._shape))


def unpack(form: Unpacks, facts: Mapping[str, Json], parts: Mapping[str, Part], out: AnyArray) -> None:
    """Fill `out`, contiguous and of the dtype and shape of the array that was packed.

    Raises
    ------
    IntegrityError
        Facts and parts are not what the form makes.
    """
    form.view(facts, parts, out.dtype, out.shape).fill(out)


def scan(
    view: View, look: Callable[[int, AnyArray], object], out: AnyArray | None = None
) -> Iterator[tuple[int, AnyArray]]:
    """Compute all of an array on all cores, and yield it in order, in rows of whole chunks (`CHUNK_BYTES`).

    Parameters
    ----------
    look
        Called with the number of each chunk and its items, in any order and from any thread, before they are yielded.
    out
        A row that is filled.

    Yields
    ------
    start, row
        Where a row begins, and its items: views of `out` if that is given.
    """
    items = CHUNK_BYTES // view.dtype.itemsize
    step = view.starts.step if isinstance(view.starts, range) and len(view.starts) > 1 else items
    step = step if step % items == 0 else items

    whole = out if view.is_whole else None
    if whole is not None:
        view.fill(whole)

    def one(start: int) -> tuple[int, AnyArray]:
        stop = min(start + step, view.size)
        row: AnyArray = np.empty(stop - start, view.dtype) if out is None else out[start:stop]
        if whole is None:
            view.read(start, row)
        for low in range(0, len(row), items):
            look((start + low) // items, row[low : low + items])
        return start, row

    yield from on_all_cores(one, range(0, view.size, step))


def scratch(dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """Return an array to be filled, which is a temporary file without a name when it is large.

    Raises
    ------
    StorageError
        There is no room for it.
    """
    nbytes = dtype.itemsize * math.prod(shape)
    if nbytes <= IN_MEMORY_BYTES:
        return np.empty(shape, dtype)
    with temporary_file(nbytes) as file:
        return np.memmap(file, dtype, "r+", shape=shape)
