"""Write a file so that it is wholly there or not at all, and stays there once it is said to be.

The protocol, each step with the accident that it is there for:

1. Create a temporary file in the folder of the target (``O_CREAT | O_EXCL``, a random name) and lock it. The same
   folder, since a rename across file systems is a copy; the lock, since a temporary file that nobody locks is a
   leftover of a process that died, and may be removed.
2. Write everything, looping over short writes.
3. ``fsync`` the file. Without it a power cut leaves a file of the right length full of zeros. A failed ``fsync`` is
   never tried again: the kernel has dropped the pages and would call the second try a success.
4. ``rename`` over the target (``link`` where the target must not exist yet). Readers see the old file or the new one.
5. ``fsync`` the folder. Without it the new name itself can be lost.
6. Only now does the caller's ``with`` block end without an error: the save is acknowledged.

On any failure, an interrupt from the keyboard included, the temporary file is removed and the target is what it was.

What this does not promise: that the disk tells the truth when it says that it has flushed its cache, or that the file
system is not a network mount with rules of its own.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import stat
import weakref
from typing import TYPE_CHECKING

from quantum_memory.durability.files import Buffer, Files, current, is_at, is_unsupported
from quantum_memory.errors import (
    ConflictError,
    InvalidStateError,
    MissingFileError,
    QuantumMemoryError,
    StorageError,
    UnsafeError,
)

if TYPE_CHECKING:
    from types import TracebackType

_LEFTOVER = re.compile(r"\..+\.[0-9a-f]{16}\.qmtmp", re.DOTALL)
_LONGEST_STEM = 200  # a name may have 255 bytes, and the temporary one adds some
WRITEBACK_BYTES = 8 << 20
_swept: set[tuple[int, int]] = set()


class NewFile:
    """A file that is written under a temporary name beside its target, and then takes the target's name.

    Parameters
    ----------
    path
        The target. A symbolic link is followed, so that what it points at is replaced and not the link.
    overwrite, durable, mode
        As for `DurableFile`.

    Attributes
    ----------
    name : str
        The target as it was given.
    target : str
        The target itself, past all symbolic links.
    fd : int
        The open descriptor, or -1.
    is_there : bool
        Whether the file has its name.
    """

    fd = -1

    def __init__(self, path: str | os.PathLike[str], *, overwrite: bool, durable: bool, mode: int = 0o666) -> None:
        self.name = os.fspath(path)
        self.target = real_path(self.name)
        self.is_there = False
        self._overwrite = overwrite
        self._durable = durable
        self._mode = mode
        self._files: Files = current()
        self._folder = os.path.dirname(self.target)
        self._temporary: str | None = None
        self._at_the_end: weakref.finalize[[Files, str, int], NewFile] | None = None

    def create(self, access: int) -> None:
        """Open the temporary file, with ``O_WRONLY`` or ``O_RDWR``, and lock it."""
        try:
            mode = self._mode_of_target()
            _sweep_once(self._files, self._folder)
            self._create(access, self._mode if mode is None else mode & 0o777)
            if mode is not None:
                self._files.fchmod(self.fd, mode)
        except BaseException as error:
            self.discard()
            self._explain(error, "create a file in its folder")
            raise

    def publish(self) -> None:
        """Give the file its name, for good; it stays open and locked. On failure it is discarded."""
        try:
            self._publish()
        except BaseException as failure:
            swept = isinstance(failure, FileNotFoundError) and not self.is_there and os.path.isdir(self._folder)
            self.discard()
            if swept:
                raise StorageError(
                    "its temporary file was removed while it was being written",
                    path=self.name,
                    next_step="save it again",
                ) from failure
            if self.is_there and isinstance(failure, OSError):
                made = StorageError.from_os_error(failure, "make its new name durable", self.name)
                made.next_step = "save it again: until then a power cut may bring back what was there before"
                raise made from failure
            self._explain(failure, "make the file durable")
            raise

    def close(self) -> None:
        """Close the file, and with it give up the lock."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            try:
                self._files.close(fd)
            except OSError as error:
                raise StorageError.from_os_error(error, "close", self.name) from error

    def __del__(self) -> None:
        if self.fd >= 0:  # an interrupt came as it was to be closed
            self._files.closerange(self.fd, self.fd + 1)

    def discard(self) -> None:
        """Close the file, and remove it if it has no name yet. What went wrong before matters more than this."""
        if self._temporary is not None:
            with contextlib.suppress(OSError):
                self._files.unlink(self._temporary)
        self.leave()

    def leave(self) -> None:
        """Close this process's copy of the descriptor: file and lock may be those of the process that forked it."""
        self._forget_temporary()
        with contextlib.suppress(OSError):
            self.close()

    def _mode_of_target(self) -> int | None:
        """Permission bits of the file to be replaced, which the new one inherits; None when there is none."""
        try:
            facts = self._files.stat(self.target)
        except FileNotFoundError:
            return None
        if not self._overwrite:
            raise ConflictError("the file exists already", path=self.name, next_step="choose another name")
        if not stat.S_ISREG(facts.st_mode):
            raise UnsafeError(
                "this is not a regular file, so it is not replaced", path=self.name, next_step="choose another name"
            )
        return stat.S_IMODE(facts.st_mode)

    def _create(self, access: int, mode: int) -> None:
        """Create the temporary file with `mode`, less what the umask takes: never wider than the target's."""
        while True:
            self._temporary = os.path.join(self._folder, temporary_name(os.path.basename(self.target)))
            # An interrupt may come just before a block is entered, or just as it is left: then nobody else removes it.
            self._at_the_end = weakref.finalize(self, _remove, self._files, self._temporary, os.getpid())
            flags = access | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
            self.fd = self._files.open(self._temporary, flags, mode)
            # Until it is locked, a sweep in another process may take the file for a leftover and remove it.
            if self._lock() and is_at(self._files, self.fd, self._temporary):
                return
            fd, self.fd = self.fd, -1
            self._forget_temporary()
            self._files.close(fd)

    def _lock(self) -> bool:
        """Lock the temporary file; False when a sweep has it, which is then about to remove it."""
        try:
            return self._files.try_lock(self.fd)
        except OSError:
            return True  # this file system has no locks, and so no sweeps

    def _publish(self) -> None:
        if self._temporary is None:
            raise AssertionError("publishing without a temporary file")
        if self._durable:
            self._files.fsync(self.fd)
        # The descriptor stays open, and with it the lock, until the name is the target's: see _create.
        if self._overwrite:
            self._files.rename(self._temporary, self.target)
        else:
            self._link(self._temporary)
            with contextlib.suppress(OSError):  # the target is there, and a sweep removes what stays
                self._files.unlink(self._temporary)
        self._forget_temporary()
        self.is_there = True
        if self._durable:
            sync_folder(self._files, self._folder)

    def _forget_temporary(self) -> None:
        self._temporary = None
        if self._at_the_end is not None:
            self._at_the_end.detach()

    def _link(self, temporary: str) -> None:
        try:
            self._files.link(temporary, self.target)
        except OSError as error:
            if error.errno != errno.EPERM and not is_unsupported(error):
                raise
            made = StorageError(
                "its file system has no hard links, which creating a file without replacing one takes",
                path=self.name,
                next_step="save with overwrite=True, where there is no such file yet",
            )
            made.errno = error.errno
            raise made from error

    def _explain(self, error: BaseException, doing: str) -> None:
        """Raise one of our errors in the place of a plain `OSError`."""
        if not isinstance(error, OSError) or isinstance(error, QuantumMemoryError):
            return
        if isinstance(error, FileExistsError):
            raise ConflictError("the file exists already", path=self.name, next_step="choose another name") from error
        if isinstance(error, FileNotFoundError):
            raise MissingFileError(
                "its folder does not exist", path=self.name, next_step=f"mkdir -p {self._folder}"
            ) from error
        raise StorageError.from_os_error(error, doing, self.name) from error


def _remove(files: Files, temporary: str, pid: int) -> None:
    if os.getpid() == pid:
        with contextlib.suppress(OSError):
            files.unlink(temporary)


class DurableFile:
    """A file being written; use it as a context manager.

    The target appears when the block ends without an exception, and is untouched when it does not.

    Parameters
    ----------
    path
        The target. A symbolic link is followed, so that what it points at is replaced and not the link.
    overwrite
        False: a file that exists is a `ConflictError`, decided by the operating system and not by a look beforehand.
    durable
        False leaves out every ``fsync``: as atomic against a killed process, but a power cut may lose or tear it.
    mode
        Permission bits of a new file, less what the umask takes. One that is replaced gives its own on.

    Raises
    ------
    MissingFileError
        The folder does not exist.
    ConflictError
        The target exists and `overwrite` is False.
    StorageError
        No space, no permission, an I/O error.

    Examples
    --------
    >>> with DurableFile("state.qms") as sink:  # doctest: +SKIP
    ...     sink.write(b"...")
    """

    def __init__(
        self, path: str | os.PathLike[str], *, overwrite: bool = True, durable: bool = True, mode: int = 0o666
    ) -> None:
        self._new = NewFile(path, overwrite=overwrite, durable=durable, mode=mode)
        self.name = self._new.name
        self.length = 0
        self._durable = durable
        self._files: Files = current()
        self._pid = 0
        self._flushed = 0

    def __enter__(self) -> DurableFile:
        self._pid = os.getpid()
        self._new.create(os.O_WRONLY)
        return self

    def write(self, data: Buffer) -> int:
        """Append `data` and return its length in bytes."""
        view = memoryview(data).cast("B")
        done = 0
        while done < len(view):
            try:
                written = self._files.write(self._new.fd, view[done:])
            except OSError as error:
                raise StorageError.from_os_error(error, f"write past byte {self.length + done}", self.name) from error
            if written == 0:
                raise StorageError(
                    f"the file takes nothing past byte {self.length + done}",
                    path=self.name,
                    next_step="check the disk, and try again",
                )
            done += written
        self.length += done
        if self._durable and self.length - self._flushed >= WRITEBACK_BYTES:
            # The disk works while the next chunks are being prepared; the fsync then finds little left to do.
            self._files.start_writeback(self._new.fd, self._flushed, self.length - self._flushed)
            self._flushed = self.length
        return done

    def describe(self, mode: int, modified_ns: int) -> None:
        """Give the file permission bits and a time of modification, when all is written.

        Raises
        ------
        StorageError
        """
        try:
            self._files.fchmod(self._new.fd, mode)
            self._files.set_time(self._new.fd, modified_ns)
        except OSError as error:
            raise StorageError.from_os_error(error, "set mode and time", self.name) from error

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if os.getpid() != self._pid:
            self._new.leave()
            if error is None:
                raise forked(self.name)
        elif error is not None:
            self._new.discard()
        else:
            self._new.publish()
            self._new.close()


def forked(name: str) -> ConflictError:
    """Return the error of a process that would write what the process that forked it is writing."""
    return ConflictError(
        "it is being written by the process that this one was forked from",
        path=name,
        next_step="leave the block in that process only",
    )


def real_path(name: str) -> str:
    """Return where the symbolic links of a name lead.

    Raises
    ------
    InvalidStateError
        No file can have this name.
    """
    try:
        return os.path.realpath(name)
    except ValueError as error:  # a NUL in the name
        raise InvalidStateError("no file can have this name", path=name, next_step="give another") from error


def is_leftover(name: str) -> bool:
    """Tell whether a name is one that a file, or a folder, has while it is being written."""
    return _LEFTOVER.fullmatch(name) is not None


def temporary_name(name: str) -> str:
    """Return a name for what is to get the name `name` when it is whole; nobody else is given it."""
    stem = os.fsdecode(os.fsencode(name)[:_LONGEST_STEM])
    return f".{stem}.{secrets.token_hex(8)}.qmtmp"


def forget_sweeps() -> None:
    """Let every folder be looked through for leftovers again, as by a process that has just started."""
    _swept.clear()


def remove_leftovers(folder: str | os.PathLike[str]) -> list[str]:
    """Remove the temporary files that dead processes left in `folder`, and return their paths.

    Files that a living process is still writing are locked by it and stay.

    Raises
    ------
    MissingFileError, StorageError
        The folder is not there, or cannot be read.
    """
    try:
        return _sweep(current(), os.fspath(folder))
    except FileNotFoundError as error:
        raise MissingFileError("there is no such folder", path=folder, next_step="check the path") from error
    except OSError as error:
        raise StorageError.from_os_error(error, "remove leftovers", folder) from error


def _sweep_once(files: Files, folder: str) -> None:
    """Sweep a folder the first time that this process writes into it: listing it at every save would cost too much."""
    facts = files.stat(folder)
    key = (facts.st_dev, facts.st_ino)
    if key not in _swept:
        _swept.add(key)
        with contextlib.suppress(OSError):
            _sweep(files, folder)


def _sweep(files: Files, folder: str) -> list[str]:
    removed = []
    for name in files.names(folder):
        if not is_leftover(name):
            continue
        path = os.path.join(folder, name)
        with contextlib.suppress(OSError):  # gone already, not ours to remove, or no locks here
            if remove_if_dead(files, path):
                removed.append(path)
    return removed


def remove_if_dead(files: Files, path: str, *, dry_run: bool = False) -> bool:
    """Remove a temporary file that nobody is writing, and tell whether it is one; raises `OSError` as the system does.

    Parameters
    ----------
    dry_run
        Whether it stays all the same.
    """
    fd = files.open(path, os.O_RDONLY | os.O_NONBLOCK | getattr(os, "O_NOFOLLOW", 0))
    try:
        dead = stat.S_ISREG(files.fstat(fd).st_mode) and files.try_lock(fd) and is_at(files, fd, path)
        if dead and not dry_run:
            files.unlink(path)
        return dead
    finally:
        files.close(fd)


def sync_folder(files: Files, folder: str, *, must: bool = True) -> None:
    """Make the names in a folder durable, where its file system can; it raises `OSError` as the system does.

    Parameters
    ----------
    must
        False: nothing is done where this user may not open it.
    """
    try:
        fd = files.open(folder, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
    except PermissionError:
        if must:
            raise
        return
    try:
        files.fsync(fd)
    except OSError as error:
        if not is_unsupported(error):
            raise
    finally:
        files.close(fd)
