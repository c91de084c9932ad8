"""HDF5 files that anybody may have written: the one way in which this package reads them.

The HDF5 library does what a file says: it follows links to other files, reads data from them, loads plugins for
filters, and allocates what a compressed chunk expands to. Here a file is walked one hard link at a time, what a dataset
is has been checked before any of its data are read, and chunks are decoded by code that knows how long they may become.

h5py is imported when it is needed. Whatever it raises about a file becomes an `IntegrityError` (see `guarded`).
"""

from __future__ import annotations

import contextlib
import itertools
import math
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from quantum_memory.errors import RESTORE, BudgetError, IntegrityError, QuantumMemoryError, UnsafeError
from quantum_memory.formats.hdf5_chunks import BITSHUFFLE, DEFLATE, LZF, SHUFFLE, SZIP, ZSTD, most_ratio, read_chunk
from quantum_memory.formats.stream import Stream

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from numpy.typing import NDArray

    from quantum_memory.durability.files import Readable
    from quantum_memory.durability.transaction import TransactionFile
    from quantum_memory.formats.registry import Progress
    from quantum_memory.state.arrays import AnyArray

__all__ = [
    "BITSHUFFLE", "DEFLATE", "LZF", "SHUFFLE", "SIGNATURE", "SZIP", "ZSTD", "attribute_names", "check_heaps",
    "checked_dataset", "child", "guarded", "has", "has_attribute", "interrupt", "is_text", "names", "number_attribute",
    "opened", "passing", "read_dataset", "subgroup", "text_attribute",
]  # fmt: skip

SIGNATURE = b"\x89HDF\r\n\x1a\n"
"""How an HDF5 file begins."""

MAX_AXES = 32
MAX_CHUNKS = 1 << 18
MAX_MEMBERS = 1 << 16
_SMALL = 1 << 20
_MOST_CAUSES = 100
_PIECE = 1 << 18
_HEAP = b"GCOL\1"
_LEAST_HEAP_BYTES = 4096
_MOST_HEAP_BYTES = 16 << 20
_DISTRUST = "do not trust this file: no release writes one like it"

T = TypeVar("T")


def _h5py() -> Any:
    return import_module("h5py")


@contextlib.contextmanager
def guarded(path: str) -> Iterator[None]:
    """Read a part of an HDF5 file: whatever the library says of it is an `IntegrityError` that names the file."""
    try:
        yield
    except QuantumMemoryError as error:
        error.next_step = error.next_step or RESTORE
        error.at(path)
        raise
    except (
        ArithmeticError, AttributeError, EOFError, LookupError, OSError, RuntimeError, SystemError, TypeError,
        ValueError,
    ) as error:  # fmt: skip
        stopped = interrupt(error)
        if stopped is not None:
            raise stopped from error
        raise IntegrityError(f"it is damaged: {error!s:.200}", path=path, next_step=RESTORE) from error


class _Raised(BaseException):
    """What a callback raised, on its way to the caller: no `Exception`, since `guarded` takes those for damage.

    Parameters
    ----------
    error
        The exception itself.
    """

    def __init__(self, error: BaseException) -> None:
        super().__init__(error)
        self.error = error


def passing(progress: Progress | None, work: Callable[[Progress | None], T]) -> T:
    """Return what `work` returns, given a callback in the place of `progress`: what that raises comes out as it is."""
    if progress is None:
        return work(None)

    def call(done: int) -> None:
        try:
            progress(done)
        except BaseException as error:
            raise _Raised(error) from None

    try:
        return work(call)
    except _Raised as raised:
        error = raised.error
    raise error  # not above, where it would get `raised` for its context


def interrupt(error: BaseException) -> BaseException | None:
    """Return the interrupt that an error came from: it may hit while HDF5 calls back, and HDF5 makes it an error."""
    seen: BaseException | None = error
    for _ in range(_MOST_CAUSES):
        if seen is None or not isinstance(seen, Exception):
            return seen
        seen = seen.__cause__ or seen.__context__
    return None


@contextlib.contextmanager
def opened(source: Readable) -> Iterator[Any]:
    """Open an HDF5 file for reading, as its root group; every error inside the block is one of ours."""
    with guarded(source.name):
        check_heaps(source)
        h5py = _h5py()
        with h5py.File(Stream(source), "r") as file:
            yield file


def check_heaps(source: Readable | TransactionFile) -> None:
    """Refuse a file with a damaged heap of texts: reading it, the library may go round in circles for ever.

    The library takes for such a heap what begins with ``GCOL`` and the version, wherever something points to it. So
    every place is looked at that begins like one and has a length that fits the file.

    Raises
    ------
    IntegrityError, UnsafeError
    """
    head = source.read(0, min(16, source.size))
    sizes = head[9:11] if head[8:9] in {b"\2", b"\3"} else head[13:15]
    if not head.startswith(SIGNATURE) or sizes != b"\x08\x08":
        raise UnsafeError("it is no HDF5 file with lengths of 8 bytes", next_step=_DISTRUST)
    # One buffer for all: new memory takes longer than the look.
    buffer = np.empty(min(_PIECE + len(_HEAP) - 1, source.size), np.uint8)
    for start in range(0, source.size, _PIECE):
        piece = buffer[: source.size - start]
        source.read_into(piece.data, start)
        for at in _heaps_in(piece):
            _check_heap(source, start + at)


def _heaps_in(piece: NDArray[np.uint8]) -> Iterator[int]:
    """Yield where in some bytes a heap may begin.

    Pairs of bytes that stand at even places are compared: half the time of looking for the whole, and without the lock
    of Python, so that another core hashes the file meanwhile.
    """
    pairs = piece[: len(piece) // 2 * 2].view("<u2")
    even, odd = (int.from_bytes(_HEAP[at : at + 2], "little") for at in (0, 1))
    for pair in np.flatnonzero((pairs == even) | (pairs == odd)).tolist():
        at = 2 * pair - (pairs[pair] == odd)
        if at >= 0 and piece[at : at + len(_HEAP)].tobytes() == _HEAP:
            yield int(at)


def _check_heap(source: Readable | TransactionFile, start: int) -> None:
    """Walk the objects of a heap: index, count, reserved, and the length of the data, or of all that is free."""
    length = int.from_bytes(source.read(start + 8, max(0, min(8, source.size - start - 8))), "little")
    if not _LEAST_HEAP_BYTES <= length <= source.size - start:
        return  # the library does not take it for one
    if length > _MOST_HEAP_BYTES:
        raise UnsafeError(f"it has a heap of {length} bytes for texts", next_step=_DISTRUST)
    heap = source.read(start, length)
    position = 16
    while length - position >= 16:
        index, size = int.from_bytes(heap[position : position + 2], "little"), heap[position + 8 : position + 16]
        taken = int.from_bytes(size, "little")
        taken = taken if index == 0 else 16 + -(-taken // 8) * 8
        if not 16 <= taken <= length - position:
            raise IntegrityError("it has a damaged heap of texts", next_step=RESTORE)
        position += taken


def names(group: Any) -> list[str]:
    """Return the names of the members of a group.

    Raises
    ------
    UnsafeError
        There are more than `MAX_MEMBERS`.
    """
    if len(group) > MAX_MEMBERS:
        raise UnsafeError(f"its group {group.name!s:.80} has {len(group)} members", next_step=_DISTRUST)
    found = list(group)
    if not all(type(name) is str for name in found):
        raise IntegrityError(f"its group {group.name!s:.80} has a member whose name is not text", next_step=RESTORE)
    return found


def child(group: Any, name: str) -> Any:
    """Return the member of a group, a ``h5py.Group`` or ``h5py.Dataset``, walking one hard link.

    Raises
    ------
    IntegrityError
        There is none of this name.
    UnsafeError
        It is a soft or an external link, or a type.
    """
    h5py = _h5py()
    encoded = name.encode("utf-8")
    if "/" in name or name in {"", "."} or encoded not in group.id:
        raise IntegrityError(f"its group {group.name!s:.80} has no member {name!r:.80}", next_step=RESTORE)
    if group.id.links.get_info(encoded).type != h5py.h5l.TYPE_HARD:
        raise UnsafeError(f"its member {name!r:.80} is a link to somewhere else", next_step=_DISTRUST)
    found = h5py.h5o.open(group.id, encoded)
    if isinstance(found, h5py.h5g.GroupID):
        return h5py.Group(found)
    if isinstance(found, h5py.h5d.DatasetID):
        return h5py.Dataset(found)
    raise UnsafeError(f"its member {name!r:.80} is neither a group nor a dataset", next_step=_DISTRUST)


def has(group: Any, name: str) -> bool:
    """Tell whether a group has a member of this name, of whatever kind."""
    return "/" not in name and name.encode("utf-8") in group.id


def subgroup(group: Any, name: str) -> Any:
    """Return the member of a group that is a group itself; see `child`."""
    found = child(group, name)
    if not hasattr(found, "keys"):
        raise IntegrityError(f"its member {name!r:.80} is not a group", next_step=RESTORE)
    return found


def checked_dataset(
    dataset: Any,
    *,
    max_bytes: int,
    dtypes: Collection[np.dtype[Any]],
    filters: Collection[int] = (),
    file_bytes: int,
) -> tuple[int, ...]:
    """Check what a dataset is before any of its data are read, and return its shape.

    Parameters
    ----------
    dataset
        What `child` returned.
    max_bytes
        How many bytes its items may have.
    dtypes
        The dtypes that it may have, to the last detail of how HDF5 stores them.
    filters
        The filters that it may be stored with, by their numbers in HDF5.
    file_bytes
        Length of the file, which bounds what can be stored in it.

    Raises
    ------
    IntegrityError, UnsafeError, BudgetError
    """
    h5py = _h5py()
    if not isinstance(dataset, h5py.Dataset):
        raise IntegrityError("it has a group in the place of a dataset", next_step=RESTORE)
    name = f"its dataset {dataset.name!s:.80}"
    plan = dataset.id.get_create_plist()
    layout = plan.get_layout()
    if layout not in {h5py.h5d.COMPACT, h5py.h5d.CONTIGUOUS, h5py.h5d.CHUNKED} or plan.get_external_count():
        raise UnsafeError(f"{name} has its data in another place", next_step=_DISTRUST)
    numbers = filters_of(dataset)
    if not set(filters).issuperset(numbers) or len(numbers) != len(set(numbers)):
        raise UnsafeError(f"{name} is stored with the filters {numbers}", next_step=_DISTRUST)
    if not any(dataset.id.get_type().equal(h5py.h5t.py_create(dtype)) for dtype in dtypes):
        raise IntegrityError(f"{name} has items of another type than it should", next_step=RESTORE)
    shape: tuple[int, ...] | None = dataset.shape
    if shape is None or len(shape) > MAX_AXES:
        raise UnsafeError(f"{name} has no shape that an array has", next_step=_DISTRUST)
    nbytes = math.prod(shape) * dataset.dtype.itemsize
    if nbytes > max_bytes:
        raise BudgetError(
            f"{name} needs {nbytes} bytes, {max_bytes} are allowed",
            next_step=f"pass max_bytes={nbytes} if they are there",
        )
    stored = dataset.id.get_storage_size()
    if stored > file_bytes or nbytes > stored * most_ratio(numbers):
        raise IntegrityError(f"{name} is said to have {nbytes} bytes, which it cannot have", next_step=RESTORE)
    if layout == h5py.h5d.CHUNKED:
        _check_chunks(dataset, name, shape, nbytes)
    return shape


def _check_chunks(dataset: Any, name: str, shape: tuple[int, ...], nbytes: int) -> None:
    chunk = dataset.chunks
    chunk_bytes = math.prod(chunk) * dataset.dtype.itemsize
    if chunk_bytes > max(_SMALL, nbytes) or math.prod(_grid(shape, chunk)) > MAX_CHUNKS:
        raise UnsafeError(f"{name} of shape {shape} has chunks of shape {chunk}", next_step=_DISTRUST)


def _grid(shape: tuple[int, ...], chunk: tuple[int, ...]) -> list[int]:
    """Return how many chunks there are along each axis."""
    return [-(-length // step) for length, step in zip(shape, chunk, strict=True)]


def filters_of(dataset: Any) -> list[int]:
    """Return the numbers of the filters that a dataset is stored with."""
    plan = dataset.id.get_create_plist()
    return [plan.get_filter(index)[0] for index in range(plan.get_nfilters())]


def read_dataset(
    dataset: Any,
    *,
    max_bytes: int,
    dtypes: Collection[np.dtype[Any]],
    filters: Collection[int] = (),
    file_bytes: int,
) -> AnyArray:
    """Check a dataset (see `checked_dataset`), and return all of its items.

    Of the filters, only `DEFLATE`, `SHUFFLE`, `LZF` and `ZSTD` are decoded here.

    Raises
    ------
    IntegrityError, UnsafeError, BudgetError
    """
    shape = checked_dataset(dataset, max_bytes=max_bytes, dtypes=dtypes, filters=filters, file_bytes=file_bytes)
    made = np.empty(shape, dataset.dtype)
    chunk = dataset.chunks
    if chunk is None:
        if made.size:
            dataset.read_direct(made)
        return made
    numbers = filters_of(dataset)
    for place in itertools.product(*(range(count) for count in _grid(shape, chunk))):
        start = tuple(index * step for index, step in zip(place, chunk, strict=True))
        raw = read_chunk(dataset, start, numbers, math.prod(chunk) * made.itemsize)
        items = np.frombuffer(raw, made.dtype).reshape(chunk)
        target = made[tuple(slice(first, first + step) for first, step in zip(start, chunk, strict=True))]
        target[...] = items[tuple(slice(length) for length in target.shape)]
    return made


def text_attribute(obj: Any, name: str, max_bytes: int, *, variable: bool = False) -> str:
    """Return an attribute that is one text.

    Parameters
    ----------
    obj
        A group or a dataset.
    max_bytes
        How long the text may be.
    variable
        Whether its length may vary, so that it is in a heap: only in a file that `check_heaps` has seen, since HDF5
        reads for ever from a damaged one.

    Raises
    ------
    IntegrityError
        There is none, or it is something else.
    UnsafeError
        It is too long.
    """
    h5py = _h5py()
    attribute = _attribute(obj, name)
    kind = attribute.get_type()
    if not isinstance(kind, h5py.h5t.TypeStringID) or (kind.is_variable_str() and not variable):
        raise IntegrityError(f"its attribute {name!r} is not text", next_step=RESTORE)
    value = obj.attrs[name] if kind.is_variable_str() or kind.get_size() <= max_bytes else ""
    text = value.decode("utf-8") if isinstance(value, bytes) else str(value)
    if len(text) > max_bytes or (not kind.is_variable_str() and kind.get_size() > max_bytes):
        raise UnsafeError(f"its attribute {name!r} is longer than {max_bytes} bytes", next_step=_DISTRUST)
    return text


def number_attribute(obj: Any, name: str) -> int | float:
    """Return an attribute that is one integer or one float.

    Raises
    ------
    IntegrityError
        There is none, or it is something else.
    """
    dtype = _attribute(obj, name).dtype
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        raise IntegrityError(f"its attribute {name!r} is not a number", next_step=RESTORE)
    value: int | float = obj.attrs[name].item()
    return value


def attribute_names(obj: Any) -> list[str]:
    """Return the names of the attributes of a group or dataset.

    Raises
    ------
    UnsafeError
        There are more than `MAX_MEMBERS`.
    """
    if len(obj.attrs) > MAX_MEMBERS:
        raise UnsafeError(f"it has {len(obj.attrs)} attributes", next_step=_DISTRUST)
    found = list(obj.attrs)
    if not all(type(name) is str for name in found):
        raise IntegrityError("it has an attribute whose name is not text", next_step=RESTORE)
    return found


def is_text(obj: Any, name: str) -> bool:
    """Tell whether an attribute is text of some kind."""
    return isinstance(_attribute(obj, name).get_type(), _h5py().h5t.TypeStringID)


def has_attribute(obj: Any, name: str) -> bool:
    """Tell whether a group or dataset has an attribute of this name."""
    return name in obj.attrs


def _attribute(obj: Any, name: str) -> Any:
    h5py = _h5py()
    if name not in obj.attrs:
        raise IntegrityError(f"it lacks the attribute {name!r}", next_step=RESTORE)
    attribute = h5py.h5a.open(obj.id, name.encode("utf-8"))
    if attribute.shape != ():
        raise IntegrityError(f"its attribute {name!r} is not one value", next_step=RESTORE)
    return attribute
