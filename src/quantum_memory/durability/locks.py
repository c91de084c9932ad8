"""Locks between processes: one that writes, or any number that read.

The lock is on the open file itself (``flock``), so that it ends with the process that held it, however that ended.
Whoever waited for it may find that the file was replaced meanwhile, and then waits for the new one.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from typing import TYPE_CHECKING

from quantum_memory.durability.files import current, is_at, is_unsupported, open_regular
from quantum_memory.errors import ConflictError, StorageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from quantum_memory.durability.files import Files

_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.001, 0.05


def open_locked(files: Files, path: str, name: str, *, write: bool, timeout: float) -> int:
    """Open the file that is at `path`, lock it, and return the descriptor.

    Parameters
    ----------
    files
        The operating system.
    path, name
        Where the file is, and what errors call it.
    write
        Open it for writing and lock out everybody; otherwise for reading, and lock out writers.
    timeout
        How many seconds to wait for the lock.

    Raises
    ------
    MissingFileError, UnsafeError, StorageError
        It is not there, no regular file, or cannot be opened; for writing: its file system has no locks.
    ConflictError
        Others held it all that time.
    """
    deadline = time.monotonic() + timeout
    while True:
        fd, _ = open_regular(files, path, name, os.O_RDWR if write else os.O_RDONLY)
        try:
            _lock(files, fd, name, write=write, deadline=deadline, timeout=timeout)
            if is_at(files, fd, path):
                return fd
        except OSError as error:
            files.closerange(fd, fd + 1)
            if isinstance(error, (ConflictError, StorageError)):
                raise
            raise StorageError.from_os_error(error, "lock", name) from error
        except BaseException:
            files.closerange(fd, fd + 1)
            raise
        files.closerange(fd, fd + 1)


@contextlib.contextmanager
def locked(path: str, name: str, *, write: bool, timeout: float) -> Iterator[int]:
    """Hold the lock of the file that is at `path` for a block, and give its descriptor; see `open_locked`."""
    files = current()
    fd = open_locked(files, path, name, write=write, timeout=timeout)
    try:
        yield fd
    finally:
        files.closerange(fd, fd + 1)


@contextlib.contextmanager
def locked_folder(files: Files, folder: str, name: str, *, timeout: float) -> Iterator[None]:
    """Lock out all others who take a name in a folder this way; where folders cannot be locked, nobody.

    Parameters
    ----------
    name
        What errors call the file that is to get its name.
    """
    try:
        fd = files.open(folder, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
    except OSError:
        fd = -1
    try:
        if fd >= 0:
            _lock_folder(files, fd, name, timeout)
        yield
    finally:
        if fd >= 0:
            files.closerange(fd, fd + 1)


@contextlib.contextmanager
def only_one(folder: str, timeout: float) -> Iterator[None]:
    """Be the only one who changes a folder, for a block.

    Raises
    ------
    ConflictError
        Somebody else still is, after so many seconds.
    StorageError
        Its file system has no locks.
    """
    files = current()
    try:
        fd = files.open(folder, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
    except OSError as error:
        raise StorageError.from_os_error(error, "open the folder to lock it", folder) from error
    try:
        try:
            _lock(files, fd, folder, write=True, deadline=time.monotonic() + timeout, timeout=timeout)
        except (ConflictError, StorageError):
            raise
        except OSError as error:
            raise StorageError.from_os_error(error, "lock the folder", folder) from error
        yield
    finally:
        files.closerange(fd, fd + 1)


def _lock_folder(files: Files, fd: int, name: str, timeout: float) -> None:
    try:
        _lock(files, fd, name, write=True, deadline=time.monotonic() + timeout, timeout=timeout)
    except ConflictError:
        raise
    except OSError:
        pass  # no locks here, or for writing only on what is open for that


def _lock(files: Files, fd: int, name: str, *, write: bool, deadline: float, timeout: float) -> None:
    pause = _SHORTEST_PAUSE
    try:
        while not files.try_lock(fd, not write):
            left = deadline - time.monotonic()
            if left <= 0:
                read = write and files.try_lock(fd, True)
                raise ConflictError(
                    f"somebody else is {'reading it' if read else 'writing to it'}; waited {timeout:g} s",
                    path=name,
                    next_step="close it there, in another process or in this one, or allow more time",
                )
            time.sleep(min(pause, left))
            pause = min(2 * pause, _LONGEST_PAUSE)
    except OSError as error:
        if error.errno != errno.ENOLCK and not is_unsupported(error):
            raise
        if write:
            raise StorageError(
                "its file system has no locks, without which it is not changed in place",
                path=name,
                next_step="keep it on a local disk",
            ) from error
        # Nobody changes a file here, for the same want of locks, and so it can be read.
