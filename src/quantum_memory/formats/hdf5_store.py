"""An HDF5 store as a file: opened for one transaction or for reading, with what every store has at its root."""

from __future__ import annotations

import contextlib
import os
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import h5py
import numpy as np

from quantum_memory.durability.interrupts import uninterrupted
from quantum_memory.durability.transaction import TransactionFile
from quantum_memory.errors import RESTORE, ConflictError, IntegrityError, UnsupportedVersionError
from quantum_memory.formats import hdf5_guard as guard
from quantum_memory.formats.foreign import foreign
from quantum_memory.formats.hdf5_index import INDEX_ROW
from quantum_memory.formats.hdf5_layout import ALIGNED_FROM, ALIGNMENT, new_dataset, new_group
from quantum_memory.formats.stated_version import check_version

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

VERSION = "2.0"
FORMAT = "quantum-memory"
STATES, SERIES, CHECKPOINTS, INDEX = "quantum_states", "time_series", "checkpoints", "index"
LOCK_TIMEOUT = 30.0
"""Seconds that one process waits for another."""

_INDEX_CHUNK = 64
_SUPERBLOCK = 48
_CHUNK_CACHE = 8 << 20


T = TypeVar("T")


@dataclass
class Store:
    """An open store.

    Attributes
    ----------
    file
        The bytes: what HDF5 reads and writes through, and the lock.
    root
        The same, as HDF5 sees it.
    driver
        What HDF5 calls.
    interrupted
        Tells whether Ctrl-C waits for the end of the block.
    """

    file: TransactionFile
    root: h5py.File
    driver: _Driver
    interrupted: Callable[[], bool]

    @property
    def states(self) -> h5py.Group:
        """The group of the states."""
        return guard.child(self.root, STATES)

    @property
    def index(self) -> h5py.Dataset:
        """The index, oldest state first."""
        return guard.child(guard.child(self.root, INDEX), "chronological")

    def state(self, state_id: str) -> h5py.Group:
        """Return the group of a state."""
        return guard.child(self.states, state_id)

    def check(self) -> None:
        """Raise what has gone wrong so far, of which HDF5 knows nothing: what it has read since is not what is there.

        So it is with Ctrl-C, while something is written. Otherwise that is raised when the block of the store ends.
        """
        if self.driver.error is not None:
            raise self.driver.error
        if self.interrupted():
            raise KeyboardInterrupt


def committed_length(head: bytes) -> int:
    """Return the length of the file that an HDF5 superblock states.

    Only version 3 (HDF5 1.10) is written to in place: all its metadata have checksums.

    Raises
    ------
    IntegrityError, UnsupportedVersionError
    """
    if len(head) < _SUPERBLOCK or not head.startswith(b"\x89HDF\r\n\x1a\n"):
        raise foreign(head) or IntegrityError("it does not begin like an HDF5 file", next_step=RESTORE)
    if head[8] != 3 or head[9:11] != b"\x08\x08":
        raise UnsupportedVersionError(
            f"its HDF5 superblock has version {head[8]}, and stores are kept in version 3",
            next_step="qmem convert reads a store of the first implementation; others are read with h5py",
        )
    (length,) = struct.unpack_from("<Q", head, 28)
    return int(length)


@contextlib.contextmanager
def reading(path: str, timeout: float = LOCK_TIMEOUT) -> Iterator[Store]:
    """Open a store for reading, for as long as the block lasts. Readers do not wait for one another."""
    with (
        TransactionFile(path, write=False, committed_length=committed_length, timeout=timeout) as file,
        _opened(file, "r") as store,
    ):
        check_root(store.root)
        yield store


@contextlib.contextmanager
def writing(path: str, *, timeout: float = LOCK_TIMEOUT, durable: bool = True, create: bool = True) -> Iterator[Store]:
    """Open a store for one transaction: what the block does is there wholly when it ends, or not at all."""
    file = TransactionFile(
        path,
        write=True,
        create=create,
        replace=create and os.path.exists(path) and is_free(path),  # noqa: PTH110 - a path may be text here
        committed_length=committed_length,
        timeout=timeout,
        durable=durable,
    )
    with file, _opened(file, "w" if file.is_new else "r+") as store:
        if file.is_new:
            prepare_root(store.root)
        check_root(store.root)
        yield store


@contextlib.contextmanager
def replacing(
    path: str, *, timeout: float = LOCK_TIMEOUT, durable: bool = True, overwrite: bool = True
) -> Iterator[Store]:
    """Write a store anew; it takes the place of the one that is there when the block ends."""
    file = TransactionFile(
        path,
        write=True,
        create=True,
        replace=True,
        overwrite=overwrite,
        committed_length=committed_length,
        timeout=timeout,
        durable=durable,
    )
    with file, _opened(file, "w") as store:
        prepare_root(store.root)
        yield store


def is_free(path: str) -> bool:
    """Tell whether a store can begin at a path: nothing is there, or an empty file, which holds nothing to be lost."""
    try:
        return os.path.getsize(path) == 0  # noqa: PTH202 - a path may be text here
    except (OSError, ValueError):  # whatever is wrong with it, opening it says so
        return True


@contextlib.contextmanager
def saying_how_to_go_on() -> Iterator[None]:
    """Save to a file that is there already: when it is none that one can save to, say what to do about it."""
    try:
        yield
    except (IntegrityError, UnsupportedVersionError) as error:
        error.next_step = f"{error.next_step or RESTORE}; otherwise delete it, or choose another name"
        raise


def changed(path: str, writing: Callable[[], AbstractContextManager[Store]], work: Callable[[Store], T]) -> T:
    """Return what `work` returns, done in one transaction; once more where somebody else made the file meanwhile.

    Parameters
    ----------
    writing
        Opens the store at `path` for a transaction.
    """
    is_new = is_free(path)
    with saying_how_to_go_on():
        try:
            with writing() as store:
                return work(store)
        except ConflictError:
            if not is_new:
                raise
        with writing() as store:
            return work(store)


@contextlib.contextmanager
def _opened(file: TransactionFile, mode: str) -> Iterator[Store]:
    """Give HDF5 the file. What HDF5 says of it is one of our errors; when the disk failed, that of the disk."""
    driver = _Driver(file)
    try:
        with (
            guard.guarded(file.name),
            uninterrupted() if mode != "r" else contextlib.nullcontext(lambda: False) as interrupted,
            h5py.File(
                driver,
                mode,
                libver="v110",
                alignment_threshold=ALIGNED_FROM,
                alignment_interval=ALIGNMENT,
                rdcc_nbytes=_CHUNK_CACHE,
                track_order=False,  # whatever h5py is set to do: the same memory makes the same bytes
            ) as root,
        ):
            yield Store(file, root, driver, interrupted)
    except BaseException as error:
        cause = guard.interrupt(driver.error or error) or driver.error
        if cause is None or cause is error:
            raise
    else:
        cause = driver.error
    finally:
        driver.release()
    if cause is not None:
        raise cause  # not for the error that HDF5 made of it, which says nothing more


class _Driver:
    """The file as HDF5 calls it.

    Nothing is raised into the library, which would go on to call back with the exception still set. It is told that all
    went well, and `error` is raised when it is done; by then nothing has been committed.
    """

    def __init__(self, file: TransactionFile) -> None:
        self._file: TransactionFile | None = file
        self.error: BaseException | None = None

    def release(self) -> None:
        """Forget the file and the error.

        HDF5 holds on to this object, an error to the calls that it came through, and these to what h5py opened the file
        with: a ring that Python cannot see, and that crashes HDF5 when the process ends.
        """
        self._file = None
        self.error = None

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._tried(lambda file: file.seek(offset, whence), offset)

    def tell(self) -> int:
        return self._tried(lambda file: file.tell(), 0)

    def read(self, length: int) -> bytes:
        """Return bytes at the position; h5py asks for it to know a file by, and calls `readinto`."""
        buffer = bytearray(length)
        return bytes(buffer[: self.readinto(memoryview(buffer))])

    def readinto(self, buffer: memoryview) -> int:
        return self._tried(lambda file: file.readinto(buffer), len(buffer))

    def write(self, data: memoryview) -> int:
        return self._tried(lambda file: file.write(data), len(data))

    def truncate(self, size: int | None = None) -> int:
        return self._tried(lambda file: file.truncate(size), 0)

    def flush(self) -> None:
        pass

    def _tried(self, work: Callable[[TransactionFile], int], otherwise: int) -> int:
        if self._file is None:  # an interrupt kept HDF5 from closing it: what it still writes is of no interest
            return otherwise
        try:
            return work(self._file)
        except BaseException as error:
            self.error = self.error or error
            return otherwise


def prepare_root(root: h5py.File) -> None:
    """Write what every store has."""
    root.attrs["format"] = np.bytes_(FORMAT)
    root.attrs["version"] = np.bytes_(VERSION)
    root.attrs["NX_class"] = np.bytes_("NXroot")
    for name in (STATES, SERIES, CHECKPOINTS, INDEX):
        new_group(root, name)
    new_dataset(
        root[INDEX], "chronological", (0,), INDEX_ROW, maxshape=(None,), chunks=(_INDEX_CHUNK,), fill_time="alloc"
    )
    root[INDEX].attrs["deleted_bytes"] = np.uint64(0)


def check_root(root: h5py.File) -> None:
    """Refuse a file that is no store of a version that this release reads."""
    if not guard.has_attribute(root, "format") or guard.text_attribute(root, "format", 64) != FORMAT:
        raise IntegrityError("it is an HDF5 file, but no store of quantum-memory", next_step="read it with h5py")
    version = guard.text_attribute(root, "version", 16)
    check_version(version, VERSION)


def has_foreign(path: str) -> bool:
    """Tell whether others have put something at the root of a store, or beside the checkpoints and the index."""
    with reading(path) as store:
        root = store.root
        names = set(root) - {STATES, SERIES, CHECKPOINTS, INDEX}
        attributes = set(guard.attribute_names(root)) - {"format", "version", "NX_class"}
        return bool(names or attributes or len(guard.child(root, CHECKPOINTS)))


def copy_foreign(old: h5py.Group, made: h5py.Group) -> None:
    """Copy into a group of a new store what others put into that of the old one.

    Links stay links, and are not followed. Of the attributes, numbers and text are copied.
    """
    for name in sorted(set(old) - set(made)):
        link = old.get(name, getlink=True)
        if isinstance(link, h5py.HardLink):
            old.copy(name, made, name)
        else:
            made[name] = link
    for name in guard.attribute_names(old):
        attribute = h5py.h5a.open(old.id, name.encode())
        if name not in made.attrs and _is_plain(attribute):
            kind = attribute.get_type().copy()  # a type that the old file gave a name does not belong to the new one
            copied = h5py.h5a.create(made.id, name.encode(), kind, attribute.get_space())
            if attribute.shape is not None:
                value = np.empty(attribute.shape, attribute.dtype)
                attribute.read(value)
                copied.write(value)


def _is_plain(attribute: Any) -> bool:
    try:
        dtype = attribute.dtype
    except TypeError:  # there is nothing like it in NumPy
        return False
    return dtype.kind in "biufcS" or h5py.check_string_dtype(dtype) is not None
