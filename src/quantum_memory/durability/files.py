"""The operating system, as the dozen calls that this package makes of it.

Everything that writes goes through `Files`, so that a test can make any call fail, record the order of calls, or keep
what a power cut would leave (`quantum_memory.testing`). `using` puts another implementation in force for a block.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import mmap
import os
import stat
import sys
from contextvars import ContextVar
from typing import TYPE_CHECKING, Protocol

from quantum_memory.errors import RESTORE, IntegrityError, MissingFileError, StorageError, UnsafeError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

Buffer = bytes | bytearray | memoryview

_PRIVATE = mmap.MAP_PRIVATE | getattr(mmap, "MAP_NORESERVE", 0x4000 if sys.platform == "linux" else 0)
"""Without reserving memory for the pages that may be written to: a file larger than the memory can be mapped."""


class Files(Protocol):
    """The calls. Each does what the POSIX call of that name does and raises `OSError` as it would."""

    def open(self, path: str, flags: int, mode: int = 0o666) -> int: ...
    def close(self, fd: int) -> None: ...
    def fstat(self, fd: int) -> os.stat_result: ...
    def stat(self, path: str) -> os.stat_result: ...
    def fchmod(self, fd: int, mode: int) -> None: ...
    def try_lock(self, fd: int) -> bool: ...
    def write(self, fd: int, data: Buffer) -> int: ...
    def start_writeback(self, fd: int, offset: int, length: int) -> None: ...
    def read_into(self, fd: int, buffer: memoryview, offset: int) -> int: ...
    def fsync(self, fd: int) -> None: ...
    def rename(self, source: str, target: str) -> None: ...
    def link(self, source: str, target: str) -> None: ...
    def unlink(self, path: str) -> None: ...
    def names(self, folder: str) -> list[str]: ...


class RealFiles:
    """The real operating system."""

    def open(self, path: str, flags: int, mode: int = 0o666) -> int:
        return os.open(path, flags | os.O_CLOEXEC, mode)

    def close(self, fd: int) -> None:
        os.close(fd)

    def fstat(self, fd: int) -> os.stat_result:
        return os.fstat(fd)

    def stat(self, path: str) -> os.stat_result:
        return os.stat(path)

    def fchmod(self, fd: int, mode: int) -> None:
        os.fchmod(fd, mode)

    def try_lock(self, fd: int) -> bool:
        """Take an exclusive lock for the life of the descriptor, or return False when another descriptor has it."""
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def write(self, fd: int, data: Buffer) -> int:
        return os.write(fd, data)

    def start_writeback(self, fd: int, offset: int, length: int) -> None:
        """Ask the kernel to begin writing these bytes to disk now. A hint: it promises nothing and never fails."""
        if _sync_file_range is not None:
            _sync_file_range(fd, offset, length, 2)

    def read_into(self, fd: int, buffer: memoryview, offset: int) -> int:
        return os.preadv(fd, [buffer], offset)

    def fsync(self, fd: int) -> None:
        full = getattr(fcntl, "F_FULLFSYNC", None)  # macOS: fsync alone stops at the drive's cache
        if full is None:
            os.fsync(fd)
        else:
            fcntl.fcntl(fd, full)

    def rename(self, source: str, target: str) -> None:
        os.replace(source, target)

    def link(self, source: str, target: str) -> None:
        os.link(source, target)

    def unlink(self, path: str) -> None:
        os.unlink(path)

    def names(self, folder: str) -> list[str]:
        return os.listdir(folder)


def _find_sync_file_range() -> ctypes._NamedFuncPointer | None:
    call = getattr(ctypes.CDLL(None), "sync_file_range", None)
    if call is not None:
        call.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
    return call


_sync_file_range = _find_sync_file_range()
_in_force: ContextVar[Files] = ContextVar("files", default=RealFiles())  # noqa: B039 - it has no state


def current() -> Files:
    """Return the implementation in force."""
    return _in_force.get()


@contextlib.contextmanager
def using(files: Files) -> Iterator[None]:
    """Put another implementation in force for a block (in this thread or task)."""
    token = _in_force.set(files)
    try:
        yield
    finally:
        _in_force.reset(token)


class ReadableFile:
    """A regular file, opened for reading at any offset, by any number of threads.

    Parameters
    ----------
    path
        Symbolic links are followed; a folder, pipe, socket or device is refused.

    Raises
    ------
    MissingFileError, UnsafeError, StorageError
    """

    def __init__(self, path: str) -> None:
        self._files = current()
        self.name = path
        try:
            # Without O_NONBLOCK, opening a pipe that nobody writes to would wait for ever.
            self._fd = self._files.open(path, os.O_RDONLY | os.O_NONBLOCK)
        except FileNotFoundError as error:
            raise MissingFileError("there is no such file", path=path, next_step="check the path") from error
        except OSError as error:
            raise StorageError.from_os_error(error, "open", path) from error
        except ValueError as error:  # a NUL in the name
            raise MissingFileError("no file can have this name", path=path, next_step="check the path") from error
        try:
            facts = self._files.fstat(self._fd)
        except OSError as error:
            self.close()
            raise StorageError.from_os_error(error, "open", path) from error
        if not stat.S_ISREG(facts.st_mode):
            self.close()
            raise UnsafeError("this is not a regular file", path=path, next_step="give the path of a saved state")
        self.size = facts.st_size

    def read_into(self, buffer: memoryview, offset: int) -> None:
        """Fill `buffer` with the bytes from `offset` on.

        Raises
        ------
        IntegrityError
            When the file ends before the buffer is full.
        StorageError
            When the operating system cannot read it.
        """
        done = 0
        while done < len(buffer):
            try:
                got = self._files.read_into(self._fd, buffer[done:], offset + done)
            except OSError as error:
                raise StorageError.from_os_error(error, "read", self.name) from error
            if got == 0:
                raise IntegrityError(
                    f"it ends at byte {offset + done}, inside data that should be there",
                    path=self.name,
                    next_step=RESTORE,
                )
            done += got

    def read(self, offset: int, length: int) -> bytes:
        """Return `length` bytes from `offset` on; see `read_into`. The caller has checked that they can exist."""
        buffer = bytearray(length)
        self.read_into(memoryview(buffer), offset)
        return bytes(buffer)

    def map(self, offset: int, length: int) -> memoryview:
        """Return bytes of the file as memory that is read when it is touched; writing to it changes a private copy.

        Raises
        ------
        StorageError
            When the operating system cannot map it.
        """
        try:
            mapped = mmap.mmap(self._fd, self.size, flags=_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
        except (OSError, ValueError) as error:
            what = error if isinstance(error, OSError) else OSError(errno.EINVAL, str(error))
            raise StorageError.from_os_error(what, "map the file into memory", self.name) from error
        return memoryview(mapped)[offset : offset + length]

    def close(self) -> None:
        """Close the file; reading afterwards fails."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            with contextlib.suppress(OSError):  # what was read has been read
                self._files.close(fd)

    def __enter__(self) -> ReadableFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class ReadableBytes:
    """Bytes in memory, read like a file."""

    def __init__(self, data: Buffer, name: str = "<bytes>") -> None:
        self._data = memoryview(data).cast("B")
        self.name = name
        self.size = len(self._data)

    def read_into(self, buffer: memoryview, offset: int) -> None:
        """Fill `buffer` with the bytes from `offset` on."""
        part = self._data[offset : offset + len(buffer)]
        if len(part) != len(buffer):
            raise IntegrityError(
                f"it ends at byte {self.size}, inside data that should be there",
                path=self.name,
                next_step="restore the bytes from a copy",
            )
        buffer[:] = part

    def read(self, offset: int, length: int) -> bytes:
        """Return `length` bytes from `offset` on."""
        return bytes(self._data[offset : offset + length])

    def map(self, offset: int, length: int) -> memoryview:
        """Return bytes as memory that can be written to: a copy, since these are somebody else's."""
        return memoryview(bytearray(self._data[offset : offset + length]))

    def close(self) -> None:
        """Let go of the bytes."""
        self._data.release()


Readable = ReadableFile | ReadableBytes


def physical_memory() -> int:
    """Return the bytes of memory that this machine has, or more than any has where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (OSError, ValueError):
        return sys.maxsize


def is_unsupported(error: OSError) -> bool:
    """Tell whether the file system simply has no such operation (and has not failed at one that it has)."""
    return error.errno in {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}
