"""A saved memory, opened but not read: parts of it are read, and checked, when they are touched."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from quantum_memory.errors import InvalidStateError, MissingError
from quantum_memory.formats import info as facts
from quantum_memory.formats.reader import (
    AMPLITUDES,
    check_budget,
    check_verify,
    look_up,
    new_array,
    outline,
    read_memory,
)
from quantum_memory.formats.select import select
from quantum_memory.state.arrays import CHUNK_BYTES, STORABLE
from quantum_memory.state.document import array_paths, unflatten, well_formed
from quantum_memory.state.matrix_product_state import MatrixProductState
from quantum_memory.state.quantum_state import StateVector

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

    from quantum_memory.formats.reader import Reader, Verify
    from quantum_memory.state.arrays import AnyArray
    from quantum_memory.state.memory_state import MemoryState


class _Opened:
    """A reader, until it is closed."""

    def __init__(self, reader: Reader) -> None:
        self.name = reader.name
        self._reader: Reader | None = reader

    @property
    def reader(self) -> Reader:
        if self._reader is None:
            raise InvalidStateError("the file has been closed", path=self.name, next_step="open it again")
        return self._reader

    def close(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.close()


class LazyArray:
    """An array in a file. Indexing reads the chunks that the first index touches, checks them, and returns an array.

    Its items come as they are stored: little-endian, and of the dtypes that no format stores directly (text, dates,
    bfloat16, ...) the integers that hold their bytes. `StateFile.load` returns what was saved.
    """

    def __init__(self, opened: _Opened, path: str) -> None:
        self._opened = opened
        self.path = path
        self._entry = look_up(opened.reader.entries, path, opened.name)

    @property
    def _reader(self) -> Reader:
        return self._opened.reader

    @property
    def shape(self) -> tuple[int, ...]:
        """Length of each axis."""
        return self._entry.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Element type, as stored."""
        return np.dtype(STORABLE[self._entry.dtype])

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes that it would take in memory."""
        return self._entry.nbytes

    def read(self, *, verify: Verify = "fast", progress: Callable[[int], object] | None = None) -> AnyArray:
        """Return the whole array, checked, in memory of its own; see `quantum_memory.load` for the arguments."""
        # The reader may keep its array: what the caller changes must not reach the next reading.
        out = new_array(self._entry, self.path, self._reader.name)
        return self._reader.read(self.path, out=out, verify=verify, progress=progress)

    def items(self, start: int, stop: int) -> AnyArray:
        """Return items ``start:stop`` in C order, checked."""
        return self._reader.read_items(self.path, start, stop)

    def map(self) -> AnyArray:
        """Return the array as a private view of the file, checked, without a copy where it is stored as it is."""
        return self._reader.map(self.path)

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("len() of an array without axes")
        return self.shape[0]

    def __getitem__(self, key: Any) -> Any:
        keys = key if isinstance(key, tuple) else (key,)
        first, rest = (keys[0], keys[1:]) if keys else (Ellipsis, ())
        rows = self._rows(first)
        if rows is None:
            return self.read()[keys]
        if isinstance(rows, int):
            return self._block(rows, rows + 1)[(0, *rest)]
        if isinstance(rows, range) and rows.step == 1:
            return self._block(rows.start, max(rows.start, rows.stop))[(slice(None), *rest)]
        return self._gathered(np.asarray(rows, np.int64))[(slice(None), *rest)]

    def _rows(self, first: Any) -> int | range | AnyArray | None:
        """Return which rows an index along the first axis touches; None for one that is left to NumPy."""
        if not self.shape or isinstance(first, bool):
            return None
        if isinstance(first, slice):
            return range(*first.indices(len(self)))
        single = isinstance(first, (int, np.integer))
        rows = np.asarray(first) if single or isinstance(first, (list, np.ndarray)) else np.empty(0)
        if rows.dtype.kind not in "iu" or rows.ndim > 1:
            return None
        rows = rows.astype(np.int64)
        wrapped = np.where(rows < 0, rows + len(self), rows)
        if rows.size and not (wrapped.min() >= 0 and wrapped.max() < len(self)):
            raise IndexError(f"index {first!r:.60} is out of bounds for {self.path} with {len(self)} rows")
        return int(wrapped) if rows.ndim == 0 else wrapped

    def _block(self, low: int, high: int) -> AnyArray:
        """Return rows ``low:high``."""
        row = math.prod(self.shape[1:])
        return self._reader.read_items(self.path, low * row, high * row).reshape(high - low, *self.shape[1:])

    def _gathered(self, rows: AnyArray) -> AnyArray:
        """Return rows in any order, reading those that share a chunk together and no other chunk."""
        gathered = np.empty((len(rows), *self.shape[1:]), self.dtype)
        order = np.argsort(rows, kind="stable")
        chunk = rows[order] * (math.prod(self.shape[1:]) * self.dtype.itemsize) // CHUNK_BYTES
        for part in np.split(order, np.flatnonzero(np.diff(chunk)) + 1):
            if part.size:
                low = int(rows[part[0]])
                gathered[part] = self._block(low, int(rows[part[-1]]) + 1)[rows[part] - low]
        return gathered

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> AnyArray:
        if copy is False:
            raise ValueError("an array in a file cannot be had without a copy")
        return self.read() if dtype is None else self.read().astype(dtype, copy=False)

    def __repr__(self) -> str:
        return f"LazyArray({self.path!r}, shape={self.shape}, dtype={self.dtype})"


class _Arrays(Mapping[str, LazyArray]):
    def __init__(self, opened: _Opened) -> None:
        self._opened = opened

    def __getitem__(self, path: str) -> LazyArray:
        return LazyArray(self._opened, path)

    def __iter__(self) -> Iterator[str]:
        return iter(self._opened.reader.entries)

    def __len__(self) -> int:
        return len(self._opened.reader.entries)


class StateFile:
    """A saved memory that is open for reading; use it as a context manager.

    Attributes
    ----------
    arrays
        Every array of the memory by path, as `LazyArray`.
    document, record
        What the memory says of itself, and what was noted when it was saved.
    """

    def __init__(self, reader: Reader) -> None:
        self._opened = _Opened(reader)
        self.arrays: Mapping[str, LazyArray] = _Arrays(self._opened)
        self.document = reader.document
        self.record = reader.record

    @property
    def _reader(self) -> Reader:
        return self._opened.reader

    @property
    def amplitudes(self) -> LazyArray:
        """The amplitudes of the state vector.

        Raises
        ------
        MissingError
            The file holds no state vector.
        """
        if AMPLITUDES not in self.arrays:
            raise MissingError(
                f"it holds {self._said_kind()}, not a state vector",
                path=self._reader.name,
                next_step="use .amplitude(digits), or .load().quantum.to_dense(...)",
            )
        return self.arrays[AMPLITUDES]

    def amplitude(self, digits: str | Sequence[int]) -> complex:
        """Return the amplitude of one basis state.

        Of a state vector only the chunk that it is in is read, of a matrix product state all sites.

        Parameters
        ----------
        digits
            For a state vector: most significant first, as the framework of its qubit order prints bit strings. For a
            matrix product state: digit k is that of site k.
        """
        if self._kind() == "matrix_product_state":
            return self.quantum_sites().amplitude(digits)
        state = outline(self._reader)
        if not isinstance(state, StateVector):
            raise InvalidStateError(
                f"it holds {self._said_kind()}, of which no single amplitude is read",
                path=self._reader.name,
                next_step="use .load().quantum",
            )
        return complex(self.amplitudes[state.index(digits)])

    def quantum_sites(self) -> MatrixProductState:
        """Return the matrix product state that the file holds, without the rest of the memory."""
        with well_formed(self._reader.name):
            state = unflatten(self.document.get("quantum_data"), {path: a[...] for path, a in self._quantum().items()})
        if not isinstance(state, MatrixProductState):
            raise InvalidStateError("the file holds no matrix product state", path=self._reader.name)
        return state

    def select(
        self,
        pattern: str,
        *,
        verify: Verify = "fast",
        max_bytes: int | None = None,
        mmap: bool = False,
        progress: Callable[[int], object] | None = None,
    ) -> dict[str, Any]:
        """Return what matches a pattern of names, as it was saved; nothing else is read. See `quantum_memory.load`.

        Parameters
        ----------
        mmap
            Map arrays that are stored as they are, instead of copying them; others are read.

        Raises
        ------
        MissingError
            Nothing matches.
        BudgetError
            Its arrays need more than `max_bytes`; nothing has been allocated for them.
        """
        check_verify(verify)
        reader = self._reader
        nodes = select(self.document, pattern, reader.name)
        lazy = [self.arrays[path] for path in sorted(array_paths(list(nodes.values())))]
        mapped = {array.path for array in lazy if mmap and reader.is_mapped(array.path)}
        check_budget(sum(array.nbytes for array in lazy if array.path not in mapped), max_bytes, reader.name)
        arrays = {
            array.path: reader.map(array.path, verify=verify, progress=progress)
            if array.path in mapped
            else array.read(verify=verify, progress=progress)
            for array in lazy
        }
        with well_formed(reader.name):
            return dict(zip(nodes, unflatten(list(nodes.values()), arrays), strict=True))

    def info(self) -> dict[str, Any]:
        """Return what `quantum_memory.info` returns."""
        return facts.of_reader(self._reader)

    def load(self, *, max_bytes: int | None = None, mmap: bool = False) -> MemoryState:
        """Return the whole memory, checking every byte of the file; see `quantum_memory.load`."""
        return read_memory(self._reader, max_bytes=max_bytes, mmap=mmap)

    def close(self) -> None:
        """Close the file; its arrays cannot be read after that."""
        self._opened.close()

    def __enter__(self) -> StateFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"StateFile({self._opened.name!r}, {self._kind()}, {len(array_paths(self.document))} arrays)"

    def _kind(self) -> str | None:
        return self._node().get("kind")

    def _said_kind(self) -> str:
        kind = str(self._kind() or "no quantum state").replace("_", " ")
        return kind if kind.startswith("no ") else f"an {kind}" if kind.startswith("o") else f"a {kind}"

    def _node(self) -> dict[str, Any]:
        """Return what the document says of the quantum state; nothing when there is none."""
        part = self.document.get("quantum_data")
        node = part.get("$state") if isinstance(part, dict) else None
        return node if isinstance(node, dict) else {}

    def _quantum(self) -> dict[str, LazyArray]:
        return {path: self.arrays[path] for path in self.arrays if path.startswith("quantum/")}
