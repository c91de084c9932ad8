"""What every format gives to a reader: a document, a record, and arrays by path, each checked when it is read.

`load`, `open`, `info`, `verify` and `compare` know nothing else of a file, so that a format is one module that writes
memories and makes a `Reader`. Formats that are read in one piece (text, MessagePack, ...) make a `WholeReader`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar, get_args

import numpy as np

from quantum_memory.durability.files import physical_memory
from quantum_memory.errors import RESTORE, BudgetError, IntegrityError, InvalidStateError, MissingError
from quantum_memory.formats.form_nodes import Forms
from quantum_memory.state.arrays import CHUNK_BYTES, STORABLE, chunk_count, chunk_items
from quantum_memory.state.document import (
    ArrayIdentity,
    content_id,
    identify,
    state_from_node,
    well_formed,
)
from quantum_memory.state.dtypes import from_stored
from quantum_memory.state.memory_state import MemoryState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from quantum_memory.state.arrays import AnyArray
    from quantum_memory.state.document import Json, QuantumState

AMPLITUDES = "quantum/amplitudes"
"""Path of the amplitudes of a state vector."""

PACKED = (AMPLITUDES, "quantum/matrix")
"""Paths of the arrays that are written in a form where it pays: state vectors and density matrices."""

Verify = Literal["fast", "full"]
"""How stored bytes are checked on reading: "fast" against their checksum (which a SHA-256 vouches for), "full" against
the SHA-256 of the raw bytes as well."""


class Entry(Protocol):
    """An array in a file: what is known of it before it is read."""

    @property
    def dtype(self) -> str:
        """Name of its element type, one of `STORABLE`."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Length of each axis."""

    @property
    def nbytes(self) -> int:
        """Raw bytes."""

    @property
    def identity(self) -> ArrayIdentity:
        """Name of its content."""


class Reader(Protocol):
    """An open memory.

    Attributes
    ----------
    format, version
        Which format the file has, and which version of it.
    name, size
        The path of the file, as it is to be said, and its bytes.
    member
        Which memory of the file, where it may hold several; otherwise "".
    document, record
        What the memory says of itself, and what was noted when it was saved.
    notes
        What is odd about the file, which was read all the same.
    entries
        The arrays by path.
    """

    document: dict[str, Any]
    record: dict[str, Any]
    notes: list[str]
    member: str
    name: str

    @property
    def format(self) -> str: ...
    @property
    def version(self) -> int | str: ...
    @property
    def size(self) -> int: ...
    @property
    def entries(self) -> Mapping[str, Entry]: ...

    def facts(self, path: str) -> dict[str, Any]:
        """Return what only this format says of an array: how it is stored."""

    def read(
        self,
        path: str,
        *,
        out: AnyArray | None = None,
        verify: Verify = "fast",
        progress: Callable[[int], object] | None = None,
    ) -> AnyArray:
        """Return one array, checked; see `check_out` for `out`."""

    def read_items(self, path: str, start: int, stop: int) -> AnyArray:
        """Return items ``start:stop`` of an array in C order, checked."""

    def map(self, path: str, *, verify: Verify = "fast", progress: Callable[[int], object] | None = None) -> AnyArray:
        """Return one array, checked, as a view of the file, without a copy where it is stored as it is."""

    def is_mapped(self, path: str) -> bool:
        """Tell whether `map` returns a view of the file."""

    def check_rest(self) -> None:
        """Check the bytes of the file that belong to no array."""

    def check_everything(
        self,
        progress: Callable[[int], object] | None = None,
        look: Callable[[str, AnyArray], object] | None = None,
    ) -> int:
        """Check every byte of the file against every digest there is; return the number of chunks.

        `look` is called with the path and the items of each chunk, in any order and from several threads.
        """

    def share(self) -> None:
        """Take note that arrays are read more than once, and must not be the same memory each time."""

    def close(self) -> None:
        """Close the file."""


@dataclass(frozen=True)
class WholeEntry:
    """An array that has been read already."""

    identity: ArrayIdentity
    nbytes: int

    @property
    def dtype(self) -> str:
        """Name of its element type."""
        return self.identity.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """Length of each axis."""
        return self.identity.shape


@dataclass
class WholeReader:
    """A memory that was read, and checked, in one piece.

    Parameters
    ----------
    content
        The `content_id` that the file states; None where it states none.
    packed
        What the file says of its arrays that are in a form, as it stands there.

    Attributes
    ----------
    forms
        The same, checked.

    Raises
    ------
    IntegrityError
        The arrays and the document do not have that name, or do not fit together.
    """

    format: str
    version: int | str
    name: str
    size: int
    document: dict[str, Any]
    record: dict[str, Any]
    arrays: Mapping[str, AnyArray]
    content: str | None = None
    notes: list[str] = field(default_factory=list)
    member: str = ""
    packed: Json = None
    forms: Forms = field(init=False)

    def __post_init__(self) -> None:
        self._shared = False
        found = identify(self.arrays)
        self.entries = {path: WholeEntry(one, self.arrays[path].nbytes) for path, one in found.items()}
        with well_formed(self.name):
            self.forms = Forms.from_json(self.packed, self.entries)
            named = self.forms.identities(found)
            if self.content is not None and content_id(self.document, named) != self.content:
                raise IntegrityError("its content does not match its content_id")
            if self.forms.stored_paths(self.document) != set(self.arrays):
                raise IntegrityError("its document names other arrays than it has")

    def facts(self, path: str) -> dict[str, Any]:  # noqa: ARG002 - the text is in one piece
        return {}

    def read(
        self,
        path: str,
        *,
        out: AnyArray | None = None,
        verify: Verify = "fast",  # noqa: ARG002 - both were done
        progress: Callable[[int], object] | None = None,
    ) -> AnyArray:
        entry = look_up(self.entries, path, self.name)
        array = self.arrays[path].copy() if self._shared else self.arrays[path]
        if out is not None:
            check_out(out, entry, path, self.name)[...] = array
        if progress is not None:
            progress(array.nbytes)
        return array if out is None else out

    def read_items(self, path: str, start: int, stop: int) -> AnyArray:
        items: AnyArray = self.arrays[path].reshape(-1)[start:stop].copy()
        return items

    def map(
        self,
        path: str,
        *,
        verify: Verify = "fast",  # noqa: ARG002
        progress: Callable[[int], object] | None = None,  # noqa: ARG002
    ) -> AnyArray:
        raise InvalidStateError(
            f"a .{self.format} file cannot be mapped into memory: {path} is not stored as it is",
            path=self.name,
            next_step="leave mmap out, or save it as .qms",
        )

    def is_mapped(self, path: str) -> bool:  # noqa: ARG002
        return False

    def check_rest(self) -> None:
        pass

    def share(self) -> None:
        self._shared = True

    def check_everything(
        self,
        progress: Callable[[int], object] | None = None,
        look: Callable[[str, AnyArray], object] | None = None,
    ) -> int:
        for path, array in self.arrays.items():
            for index in range(chunk_count(array.nbytes)):
                items = chunk_items(array, index)
                if look is not None:
                    look(path, items)
                if progress is not None:
                    progress(items.nbytes)
        return sum(chunk_count(array.nbytes) for array in self.arrays.values())

    def close(self) -> None:
        pass


def whole_reader(memory: MemoryState, **facts: Any) -> WholeReader:
    """Return a reader of a memory that was made from a file of another shape."""
    document, arrays = memory.flatten()
    return WholeReader(document=document, record=memory.record, arrays=arrays, **facts)


def check_verify(verify: str) -> None:
    """Refuse a way to check that there is not: a mistyped "full" must not become "fast"."""
    if verify not in get_args(Verify):
        raise InvalidStateError(f"verify is {verify!r}", next_step='give "fast" or "full"')


E = TypeVar("E", bound=Entry)


def look_up(entries: Mapping[str, E], path: str, name: str) -> E:
    """Return the entry of an array, or say which there are; `name` is that of the file."""
    try:
        return entries[path]
    except KeyError:
        some = ", ".join(list(entries)[:5])
        raise MissingError(f"it has no array {path!r}", path=name, next_step=f"it has: {some}") from None


def identities(reader: Reader) -> dict[str, ArrayIdentity]:
    """Return the identity of each array, from what the file says of it."""
    return {path: entry.identity for path, entry in reader.entries.items()}


def check_budget(needed: int, allowed: int | None, name: str) -> None:
    """Refuse what takes more memory than is allowed, before any of it is taken.

    Parameters
    ----------
    allowed
        Bytes; None for all the memory of the machine.
    """
    most = physical_memory() if allowed is None else allowed
    if needed > most:
        raise BudgetError(
            f"its arrays need {needed} bytes of memory, and {most} are allowed",
            path=name,
            next_step="raise max_bytes, or read a part of it with quantum_memory.open",
        )


def read_memory(
    reader: Reader,
    *,
    out: AnyArray | None = None,
    verify: Verify = "fast",
    max_bytes: int | None = None,
    mmap: bool = False,
    progress: Callable[[int], object] | None = None,
    leave: Callable[[Reader], Any] | None = None,
) -> MemoryState:
    """Read a whole memory, checking every byte.

    Parameters
    ----------
    out
        Memory for the amplitudes of the state vector: an array of their dtype and shape, or any writable buffer of
        their length.
    max_bytes
        What the other arrays may take; by default all the memory of the machine.
    mmap
        Map the file instead of copying from it.
    leave
        Returns what stands for the amplitudes of a state vector that are to stay where they are, and are read when they
        are used; None where they are to be read.

    Raises
    ------
    BudgetError
        They take more; nothing has been allocated.
    """
    check_verify(verify)
    if mmap and out is not None:
        raise InvalidStateError("out= and mmap=True exclude each other", path=reader.name, next_step="leave one out")
    left = None if leave is None else leave(reader)
    spared = {
        path for path in reader.entries if (reader.is_mapped(path) if mmap else out is not None and path == AMPLITUDES)
    }
    spared |= {AMPLITUDES} if left is not None else set()
    check_budget(
        sum(entry.nbytes for path, entry in reader.entries.items() if path not in spared), max_bytes, reader.name
    )
    reader.check_rest()
    buffers = {} if out is None else {AMPLITUDES: _buffer(reader, out)}
    arrays: dict[str, AnyArray] = {} if left is None else {AMPLITUDES: left}
    if left is not None and progress is not None:
        progress(left.nbytes)  # with which this is done
    for path in [path for path in reader.entries if path not in arrays]:
        if mmap:
            arrays[path] = reader.map(path, verify=verify, progress=progress)
        else:
            arrays[path] = reader.read(path, out=buffers.get(path), verify=verify, progress=progress)
    with well_formed(reader.name):
        return MemoryState.unflatten(reader.document, arrays, reader.record)


def outline(reader: Reader) -> QuantumState | None:
    """Return the quantum state of a file over arrays of its shapes that take no memory; what is in them is undefined.

    Raises
    ------
    IntegrityError, UnsupportedVersionError, UnsafeError
        Its parts do not fit together, so that loading would refuse it as well.
    """

    def fetch(node: dict[str, Any]) -> AnyArray:
        entry = reader.entries[node["$array"]]
        item = from_stored(np.zeros([1] * len(entry.shape), STORABLE[entry.dtype]), node)
        return np.broadcast_to(item, entry.shape)

    part = reader.document.get("quantum_data")
    with well_formed(reader.name):
        return None if part is None else state_from_node(part["$state"], fetch)


def new_array(entry: Entry, path: str, name: str) -> AnyArray:
    """Return an array for an entry, its items undefined."""
    try:
        return np.empty(entry.shape, STORABLE[entry.dtype])
    except (MemoryError, OverflowError, ValueError):
        raise BudgetError(
            f"its array {path!r} needs {entry.nbytes} bytes of memory, which there are not",
            path=name,
            next_step="read a part of it with quantum_memory.open",
        ) from None


def check_out(out: AnyArray, entry: Entry, path: str, name: str) -> AnyArray:
    """Return `out` when an array can be read straight into it."""
    dtype = np.dtype(STORABLE[entry.dtype])
    if out.dtype != dtype or out.shape != entry.shape or not out.flags.c_contiguous or not out.flags.writeable:
        kept = "C-contiguous" if out.flags.c_contiguous else "strided"
        raise InvalidStateError(
            f"out is a {kept if out.flags.writeable else 'read-only'} array of {out.dtype} and shape {out.shape}; "
            f"{path} has {dtype} and shape {entry.shape}",
            path=name,
            next_step=f"give numpy.empty({entry.shape}, {str(dtype)!r})",
        )
    return out


def parts_of_chunks(dtype: np.dtype[Any], start: int, stop: int) -> Iterable[tuple[int, slice, slice]]:
    """Yield the chunks that items ``start:stop`` are in: index, where they are in the chunk, where in the result."""
    per_chunk = CHUNK_BYTES // dtype.itemsize
    for index in range(start // per_chunk, -(-stop // per_chunk)):
        first = index * per_chunk
        low, high = max(start, first), min(stop, first + per_chunk)
        yield index, slice(low - first, high - first), slice(low - start, high - start)


def nbytes_of(dtype: str, shape: tuple[int, ...]) -> int:
    """Return the raw bytes of an array of a storable type."""
    return math.prod(shape) * np.dtype(STORABLE[dtype]).itemsize


def _buffer(reader: Reader, out: Any) -> AnyArray:
    """Return memory of the caller as an array for the amplitudes."""
    entry = look_up(reader.entries, AMPLITUDES, reader.name)
    if reader.document["quantum_data"]["$state"]["amplitudes"].get("order") == ">":
        raise InvalidStateError(
            "its amplitudes are big-endian, and are not read into memory of yours",
            path=reader.name,
            next_step="leave out=",
        )
    if isinstance(out, np.ndarray):
        return out
    try:
        view = memoryview(out)
    except TypeError:
        view = memoryview(b"")  # no buffer at all, and so none that fits
    if view.nbytes != entry.nbytes or view.readonly or not view.c_contiguous:
        raise InvalidStateError(
            f"out is a {'read-only ' if view.readonly else ''}{type(out).__name__} of {view.nbytes} bytes, and "
            f"{AMPLITUDES} needs {entry.nbytes} in one piece that can be written to",
            path=reader.name,
            next_step=f"give a writable buffer of {entry.nbytes} bytes",
        )
    array: AnyArray = np.frombuffer(view.cast("B"), STORABLE[entry.dtype]).reshape(entry.shape)
    return array


def damaged(what: str, name: str) -> IntegrityError:
    """Return the error of a damaged file."""
    return IntegrityError(what, path=name, next_step=RESTORE)
