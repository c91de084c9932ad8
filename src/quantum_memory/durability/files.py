"""The operating system, as the few calls that this package makes of it.

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
from typing import TYPE_CHECKING, Any, Protocol

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
    def closerange(self, first: int, end: int) -> None: ...
    def fstat(self, fd: int) -> os.stat_result: ...
    def stat(self, path: str) -> os.stat_result: ...
    def fchmod(self, fd: int, mode: int) -> None: ...
    def try_lock(self, fd: int, shared: bool = False) -> bool: ...
    def write(self, fd: int, data: Buffer) -> int: ...
    def write_at(self, fd: int, data: Buffer, offset: int) -> int: ...
    def truncate(self, fd: int, length: int) -> None: ...
    def start_writeback(self, fd: int, offset: int, length: int) -> None: ...
    def read_into(self, fd: int, buffer: memoryview, offset: int) -> int: ...
    def fsync(self, fd: int) -> None: ...
    def rename(self, source: str, target: str) -> None: ...
    def link(self, source: str, target: str) -> None: ...
    def unlink(self, path: str) -> None: ...
    def mkdir(self, path: str, mode: int = 0o777) -> None: ...
    def rmdir(self, path: str) -> None: ...
    def symlink(self, target: str, path: str) -> None: ...
    def exchange(self, one: str, other: str) -> None: ...
    def set_time(self, fd: int, modified_ns: int) -> None: ...
    def forget(self, fd: int, offset: int, length: int) -> None: ...
    def names(self, folder: str) -> list[str]: ...


class RealFiles:
    """The real operating system.

    Ctrl-C raises its exception when a call of the system returns, or as a function of Python begins. A descriptor that
    it takes away before somebody has noted it, or before it is closed, would stay open, and locked.
    """

    def open(self, path: str, flags: int, mode: int = 0o666) -> int:
        opened: list[int] = []
        try:
            opened.extend(map(os.open, (path,), (flags | os.O_CLOEXEC,), (mode,)))  # noted before it can be interrupted
        except BaseException:
            for fd in opened:
                os.close(fd)
            raise
        return opened[0]

    # These two are the functions of the system themselves: whoever calls them is interrupted afterwards. The second is
    # for files of which nothing is expected any more, and raises nothing.
    close = staticmethod(os.close)
    closerange = staticmethod(os.closerange)

    def fstat(self, fd: int) -> os.stat_result:
        return os.fstat(fd)

    def stat(self, path: str) -> os.stat_result:
        return os.stat(path)

    def fchmod(self, fd: int, mode: int) -> None:
        os.fchmod(fd, mode)

    def try_lock(self, fd: int, shared: bool = False) -> bool:
        """Take a lock for the life of the descriptor, or return False when another one has a lock in its way."""
        try:
            fcntl.flock(fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def write(self, fd: int, data: Buffer) -> int:
        return os.write(fd, data)

    def write_at(self, fd: int, data: Buffer, offset: int) -> int:
        return os.pwrite(fd, data, offset)

    def truncate(self, fd: int, length: int) -> None:
        os.ftruncate(fd, length)

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

    def mkdir(self, path: str, mode: int = 0o777) -> None:
        os.mkdir(path, mode)

    def rmdir(self, path: str) -> None:
        os.rmdir(path)

    def symlink(self, target: str, path: str) -> None:
        os.symlink(target, path)

    def exchange(self, one: str, other: str) -> None:
        """Give two paths each other's file or folder in one step; ENOSYS or EINVAL where the system cannot."""
        if _renameat2 is None:
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS), one)
        if _renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), one)

    def set_time(self, fd: int, modified_ns: int) -> None:
        os.utime(fd, ns=(modified_ns, modified_ns))

    def forget(self, fd: int, offset: int, length: int) -> None:
        """Let the kernel forget what it has in memory of these bytes, so that they are read from the disk. A hint."""
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(fd, offset, length, os.POSIX_FADV_DONTNEED)

    def names(self, folder: str) -> list[str]:
        return os.listdir(folder)


_AT_FDCWD, _RENAME_EXCHANGE = -100, 2


def _find(name: str, *arguments: Any) -> ctypes._NamedFuncPointer | None:
    """Return a function of the C library that Python does not know, where this one has it."""
    call = getattr(ctypes.CDLL(None, use_errno=True), name, None)
    if call is not None:
        call.argtypes = arguments
    return call


_sync_file_range = _find("sync_file_range", ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
_renameat2 = _find("renameat2", ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
_syncfs = _find("syncfs", ctypes.c_int)
_in_force: ContextVar[Files] = ContextVar("files", default=RealFiles())  # noqa: B039 - it has no state


def syncfs(fd: int, folder: str) -> None:
    """Write back everything that the file system of an open folder has in memory; `OSError` as the system says it."""
    if _syncfs is None:
        os.sync()
    elif _syncfs(fd):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), folder)


def current() -> Files:
    """Return the implementation in force."""
    return _in_force.get()


@contextlib.contextmanager
def using(files: Files) -> Iterator[None]:
    """Put another implementation in force for a block (in this thread or task)."""
    before, others = _in_force.get(), False
    try:
        _in_force.set(files)
        yield
    except GeneratorExit:  # an interrupt has kept this from being left in its turn: blocks around it may have been
        others = _in_force.get() is not files
        raise
    finally:
        if not others:
            _in_force.set(before)


class ReadableFile:
    """A regular file, opened for reading at any offset, by any number of threads. Who forgets it has closed it.

    Parameters
    ----------
    path
        A folder, pipe, socket or device is refused.
    follow
        Whether symbolic links are followed at the end of the path, or refused as well.

    Raises
    ------
    MissingFileError, UnsafeError, StorageError
    """

    _fd = -1

    def __init__(self, path: str, *, follow: bool = True) -> None:
        self._files = current()
        self.name = path
        flags = os.O_RDONLY | (0 if follow else getattr(os, "O_NOFOLLOW", 0))
        self._fd, facts = open_regular(self._files, path, path, flags)
        self.size = facts.st_size

    def facts(self) -> os.stat_result:
        """Return what is known of the file now.

        Raises
        ------
        StorageError
        """
        try:
            return self._files.fstat(self._fd)
        except OSError as error:
            raise StorageError.from_os_error(error, "look at", self.name) from error

    def read_into(self, buffer: memoryview, offset: int) -> None:
        """Fill `buffer` with the bytes from `offset` on.

        Raises
        ------
        IntegrityError
            When the file ends before the buffer is full.
        StorageError
            When the operating system cannot read it.
        """
        try:
            got = read_up_to(self._files, self._fd, buffer, offset)
        except OSError as error:
            raise StorageError.from_os_error(error, "read", self.name) from error
        if got < len(buffer):
            raise IntegrityError(
                f"it ends at byte {offset + got}, inside data that should be there", path=self.name, next_step=RESTORE
            )

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
        return map_privately(self._fd, self.size, self.name)[offset : offset + length]

    def settle(self) -> None:
        """Wait for who is in the middle of a write, and have whatever is written from then on show in the times.

        Where the file system can: one in memory does not know when a file is written to through mapped memory.
        """
        with contextlib.suppress(OSError):
            os.lseek(self._fd, 0, os.SEEK_HOLE)  # which takes the lock that a write has from its beginning to its end
        # Mapped pages that are on their way to the disk are watched again for writes to them.
        self._files.start_writeback(self._fd, 0, self.size)

    def forget(self, offset: int, length: int) -> None:
        """Have these bytes read from the disk the next time."""
        with contextlib.suppress(OSError):
            self._files.forget(self._fd, offset, length)

    def sync(self) -> None:
        """Make durable what anybody has written to the file.

        Raises
        ------
        StorageError
        """
        try:
            self._files.fsync(self._fd)
        except OSError as error:
            raise StorageError.from_os_error(error, "make the file durable", self.name) from error

    def close(self) -> None:
        """Close the file; reading afterwards fails."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            self._files.closerange(fd, fd + 1)  # what was read has been read

    def __del__(self) -> None:
        self.close()  # of who has forgotten to close a manager, which keeps some packs open, or was interrupted

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


class Readable(Protocol):
    """Bytes that are read at any offset: a file, bytes in memory, or what is in a file that is encrypted."""

    name: str
    size: int

    def read_into(self, buffer: memoryview, offset: int) -> None:
        """Fill `buffer` with the bytes from `offset` on."""

    def read(self, offset: int, length: int) -> bytes:
        """Return `length` bytes from `offset` on."""

    def map(self, offset: int, length: int) -> memoryview:
        """Return bytes as memory that can be written to, and that nobody else sees."""

    def close(self) -> None:
        """Let go of the file, or of the bytes."""


def open_regular(files: Files, path: str, name: str, access: int) -> tuple[int, os.stat_result]:
    """Open the regular file at `path`, which errors call `name`, and return the descriptor and what is known of it.

    Raises
    ------
    MissingFileError, UnsafeError, StorageError
    """
    try:
        # Without O_NONBLOCK, opening a pipe that nobody writes to would wait for ever.
        fd = files.open(path, access | os.O_NONBLOCK)
    except FileNotFoundError as error:
        raise MissingFileError("there is no such file", path=name, next_step="check the path") from error
    except IsADirectoryError as error:
        raise _irregular(name) from error
    except OSError as error:
        raise StorageError.from_os_error(error, "open", name) from error
    except ValueError as error:  # a NUL in the name
        raise MissingFileError("no file can have this name", path=name, next_step="check the path") from error
    try:
        facts = files.fstat(fd)
        if not stat.S_ISREG(facts.st_mode):
            raise _irregular(name)
    except BaseException as error:
        files.closerange(fd, fd + 1)
        if isinstance(error, OSError):
            raise StorageError.from_os_error(error, "open", name) from error
        raise
    return fd, facts


def _irregular(name: str) -> UnsafeError:
    return UnsafeError("this is not a regular file", path=name, next_step="give the path of a saved state")


def map_privately(fd: int, length: int, name: str) -> memoryview:
    """Return the first bytes of a file as memory that is read when it is touched, and changed for this process only.

    Raises
    ------
    StorageError
        When the operating system cannot map it.
    """
    try:
        mapped = mmap.mmap(fd, length, flags=_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
    except (OSError, ValueError) as error:
        what = error if isinstance(error, OSError) else OSError(errno.EINVAL, str(error))
        raise StorageError.from_os_error(what, "map the file into memory", name) from error
    return memoryview(mapped)


def read_up_to(files: Files, fd: int, buffer: memoryview, offset: int) -> int:
    """Read into `buffer` from `offset` on, and return how many bytes there were: fewer only at the end of the file."""
    done = 0
    while done < len(buffer):
        got = files.read_into(fd, buffer[done:], offset + done)
        if got == 0:
            break
        done += got
    return done


def write_all_at(files: Files, fd: int, data: memoryview, offset: int) -> None:
    """Write all of `data` at `offset`."""
    done = 0
    while done < len(data):
        written = files.write_at(fd, data[done:], offset + done)
        if written == 0:
            raise OSError(errno.EIO, f"the file takes nothing past byte {offset + done}")
        done += written


def is_at(files: Files, fd: int, path: str) -> bool:
    """Tell whether the open file is still the one at `path`."""
    try:
        there, here = files.stat(path), files.fstat(fd)
    except FileNotFoundError:
        return False
    return (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino)


def physical_memory() -> int:
    """Return the bytes of memory that this machine has, or more than any has where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (OSError, ValueError):
        return sys.maxsize


def is_unsupported(error: OSError) -> bool:
    """Tell whether the file system simply has no such operation (and has not failed at one that it has)."""
    return error.errno in {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}
