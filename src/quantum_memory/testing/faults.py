"""An operating system that is recorded, fails, or dies: for code that writes through `durability.files.Files`.

Each wraps another implementation, the real one unless told otherwise, and is put in force with
`durability.files.using`. A thorough test makes every call of an operation fail in turn, and looks at what is left:

>>> import errno
>>> from quantum_memory.durability import files
>>> k = 0
>>> while True:  # doctest: +SKIP
...     faulty = FaultyFiles(k, errno.EIO)
...     with files.using(faulty):
...         try:
...             save(state, path)
...         except StorageError:
...             assert path.read_bytes() in (old, new)
...     if not faulty.failed:
...         break  # the operation makes no more than k calls
...     k += 1
"""

from __future__ import annotations

import contextlib
import os
import warnings
from typing import TYPE_CHECKING, Any, NamedTuple

from quantum_memory.durability.files import Buffer, Files, RealFiles

if TYPE_CHECKING:
    from collections.abc import Callable

WRITES = {"write", "write_at"}
"""The calls that put bytes into files."""

UNCHANGING = {"stat", "fstat", "read_into", "names", "try_lock", "close", "start_writeback", "forget"}
"""The calls that change nothing: an accident at one of them leaves what one at the next leaves."""

KILLED = 137
"""Exit status of a process that `KillingFiles` has ended."""


class PassingFiles:
    """Passes every call on to another implementation, by way of `call`, which is there to be overridden.

    Parameters
    ----------
    inner
        The other implementation; by default the real operating system.
    """

    def __init__(self, inner: Files | None = None) -> None:
        self.inner: Files = inner or RealFiles()

    def call(self, name: str, *arguments: Any) -> Any:
        """Make the call `name`."""
        return getattr(self.inner, name)(*arguments)

    def open(self, path: str, flags: int, mode: int = 0o666) -> int:
        descriptor: int = self.call("open", path, flags, mode)
        return descriptor

    def close(self, fd: int) -> None:
        self.call("close", fd)

    def closerange(self, first: int, end: int) -> None:
        for fd in range(first, end):
            with contextlib.suppress(OSError):
                self.close(fd)

    def fstat(self, fd: int) -> os.stat_result:
        facts: os.stat_result = self.call("fstat", fd)
        return facts

    def stat(self, path: str) -> os.stat_result:
        facts: os.stat_result = self.call("stat", path)
        return facts

    def fchmod(self, fd: int, mode: int) -> None:
        self.call("fchmod", fd, mode)

    def try_lock(self, fd: int, shared: bool = False) -> bool:
        # Left out where it says nothing, so that an implementation that knows one kind of lock will do.
        locked: bool = self.call("try_lock", fd, *([shared] if shared else []))
        return locked

    def write(self, fd: int, data: Buffer) -> int:
        written: int = self.call("write", fd, data)
        return written

    def write_at(self, fd: int, data: Buffer, offset: int) -> int:
        written: int = self.call("write_at", fd, data, offset)
        return written

    def truncate(self, fd: int, length: int) -> None:
        self.call("truncate", fd, length)

    def start_writeback(self, fd: int, offset: int, length: int) -> None:
        self.call("start_writeback", fd, offset, length)

    def read_into(self, fd: int, buffer: memoryview, offset: int) -> int:
        got: int = self.call("read_into", fd, buffer, offset)
        return got

    def fsync(self, fd: int) -> None:
        self.call("fsync", fd)

    def rename(self, source: str, target: str) -> None:
        self.call("rename", source, target)

    def link(self, source: str, target: str) -> None:
        self.call("link", source, target)

    def unlink(self, path: str) -> None:
        self.call("unlink", path)

    def mkdir(self, path: str, mode: int = 0o777) -> None:
        self.call("mkdir", path, mode)

    def rmdir(self, path: str) -> None:
        self.call("rmdir", path)

    def symlink(self, target: str, path: str) -> None:
        self.call("symlink", target, path)

    def exchange(self, one: str, other: str) -> None:
        self.call("exchange", one, other)

    def set_time(self, fd: int, modified_ns: int) -> None:
        self.call("set_time", fd, modified_ns)

    def forget(self, fd: int, offset: int, length: int) -> None:
        self.call("forget", fd, offset, length)

    def names(self, folder: str) -> list[str]:
        listed: list[str] = self.call("names", folder)
        return listed


class Call(NamedTuple):
    """One call that was made.

    Attributes
    ----------
    name, arguments
        What was called; the bytes that are written or read are replaced by their number.
    result
        What it returned, or the exception that it raised.
    """

    name: str
    arguments: tuple[Any, ...]
    result: Any


class RecordingFiles(PassingFiles):
    """Keeps a log of every call, and says which rules of durable writing were broken.

    Examples
    --------
    >>> recording = RecordingFiles()
    >>> with files.using(recording):  # doctest: +SKIP
    ...     save(state, path)
    >>> assert recording.violations() == []

    Attributes
    ----------
    log : list of Call
    """

    def __init__(self, inner: Files | None = None) -> None:
        super().__init__(inner)
        self.log: list[Call] = []

    def call(self, name: str, *arguments: Any) -> Any:
        """Make the call and write it down."""
        noted = tuple(len(a) if isinstance(a, (bytes, bytearray, memoryview)) else a for a in arguments)
        try:
            result = super().call(name, *arguments)
        except BaseException as error:
            self.log.append(Call(name, noted, error))
            raise
        self.log.append(Call(name, noted, result))
        return result

    @property
    def bytes_read(self) -> int:
        """Bytes that were read from files."""
        return sum(call.result for call in self.log if call.name == "read_into" and isinstance(call.result, int))

    @property
    def bytes_written(self) -> int:
        """Bytes that were written to files."""
        return sum(call.result for call in self.log if call.name in WRITES and isinstance(call.result, int))

    def violations(self, *, acknowledged: bool = True) -> list[str]:
        """Say which rules the calls have broken, now that the operation has ended.

        1. A file gets the name of the target only after everything written to it was synced.
        2. A file with unsynced bytes is closed only if it is removed, or that was at least tried.
        3. After a file got its name, or a folder was made, the folder that it is in is synced, before the operation is
           acknowledged.
        4. No temporary name is used twice.
        5. A failed ``fsync`` is not tried again on the same file, nor on a folder in which no name was changed since.
        6. No descriptor stays open.

        Parameters
        ----------
        acknowledged
            Whether the operation has ended without an error. Otherwise rule 3 does not apply, and rule 2 goes for new
            files only.
        """
        return _Audit().of(self.log, acknowledged)


class _Audit:
    """The rules of `RecordingFiles.violations`, followed through a log."""

    def __init__(self) -> None:
        self.broken: list[str] = []
        self.path_of: dict[int, str] = {}  # of open descriptors
        self.dirty: dict[str, int] = {}  # path -> the first of the bytes that were not synced
        self.closed_dirty: set[str] = set()
        self.unsynced_folders: dict[str, str] = {}  # folder -> what was done in it
        self.created: set[str] = set()
        self.failed_sync: set[str] = set()

    def of(self, log: list[Call], acknowledged: bool) -> list[str]:
        for call in log:
            follow = getattr(self, f"_{call.name}", None)
            if follow is not None:
                follow(call, isinstance(call.result, BaseException))
        left = self.closed_dirty if acknowledged else self.closed_dirty & self.created
        self.broken += [f"{path} was closed with unsynced bytes and left there" for path in sorted(left)]
        if acknowledged:
            self.broken += [f"{folder} was not synced after {what}" for folder, what in self.unsynced_folders.items()]
        self.broken += [f"{path} is still open" for path in self.path_of.values()]
        return self.broken

    def _open(self, call: Call, failed: bool) -> None:
        path, flags = call.arguments[:2]
        if flags & os.O_EXCL:
            if path in self.created:
                self.broken.append(f"the temporary name {path} was used twice")
            self.created.add(path)
        if not failed:
            self.path_of[call.result] = path

    def _write(self, call: Call, failed: bool) -> None:
        if not failed:
            self.dirty[self.path_of[call.arguments[0]]] = 0

    def _write_at(self, call: Call, failed: bool) -> None:
        fd, _, offset = call.arguments
        if not failed:
            path = self.path_of[fd]
            self.dirty[path] = min(offset, self.dirty.get(path, offset))

    def _truncate(self, call: Call, failed: bool) -> None:
        fd, length = call.arguments
        path = self.path_of[fd]
        if not failed and self.dirty.get(path, -1) >= length:
            del self.dirty[path]  # all that was not synced has been cut off

    def _fsync(self, call: Call, failed: bool) -> None:
        path = self.path_of[call.arguments[0]]
        if path in self.failed_sync:
            self.broken.append(f"fsync was tried again on {path}, where it had failed")
        if isinstance(call.result, OSError):  # and not an interrupt, after which it may be tried again
            self.failed_sync.add(path)
        elif not failed:
            self.dirty.pop(path, None)
            self.unsynced_folders.pop(path, None)

    def _close(self, call: Call, _: bool) -> None:
        path = self.path_of.pop(call.arguments[0])  # closed even when it says that it failed
        if path in self.dirty:
            self.closed_dirty.add(path)

    def _rename(self, call: Call, failed: bool) -> None:
        source, target = call.arguments
        if source in self.dirty:
            self.broken.append(f"{source} was given the name {target} before it was synced")
        if not failed:
            self._changed(target, "got its name")

    _link = _rename

    def _unlink(self, call: Call, _: bool) -> None:
        path = call.arguments[0]
        self.dirty.pop(path, None)
        self.closed_dirty.discard(path)
        self.failed_sync.discard(os.path.dirname(path))

    def _mkdir(self, call: Call, failed: bool) -> None:
        if not failed:
            self._changed(call.arguments[0], "was made")

    def _changed(self, path: str, what: str) -> None:
        folder, name = os.path.split(path)
        self.unsynced_folders[folder] = f"{name} {what}"
        self.failed_sync.discard(folder)

    def _rmdir(self, call: Call, failed: bool) -> None:
        if not failed:
            self.unsynced_folders.pop(call.arguments[0], None)


class CountingFiles(PassingFiles):
    """Knows when the k-th call comes; hints to the kernel, which cannot fail, are not counted.

    Parameters
    ----------
    at_changes
        Whether only calls that may change something are counted.
    """

    def __init__(self, k: int, inner: Files | None, *, at_changes: bool = False) -> None:
        super().__init__(inner)
        self._left = k
        self._uncounted = UNCHANGING if at_changes else {"start_writeback", "forget"}

    def is_next(self, name: str) -> bool:
        """Tell whether the call `name`, which is about to be made, is the k-th or a later one."""
        if name in self._uncounted:
            return False
        self._left -= 1
        return self._left < 0


class FaultyFiles(CountingFiles):
    """Makes the k-th call fail.

    A descriptor whose ``close`` fails is closed nevertheless, as Linux does it.

    Parameters
    ----------
    k
        Which call fails, from 0.
    error
        With which error number, such as ``errno.ENOSPC``; or what is raised instead, such as ``KeyboardInterrupt``.
    sticky
        Whether every later call fails too, as on a disk that is gone.

    Attributes
    ----------
    failed : list of str
        The names of the calls that were made to fail. When it is empty, the operation makes no more than k calls.

    Examples
    --------
    >>> with files.using(FaultyFiles(3, errno.ENOSPC)):  # doctest: +SKIP
    ...     save(state, path)
    """

    def __init__(
        self,
        k: int,
        error: int | type[BaseException],
        *,
        sticky: bool = False,
        inner: Files | None = None,
        at_changes: bool = False,
    ) -> None:
        super().__init__(k, inner, at_changes=at_changes)
        self.failed: list[str] = []
        self._error = error
        self._sticky = sticky

    def call(self, name: str, *arguments: Any) -> Any:
        """Make the call, or fail."""
        if not self.is_next(name) or (self.failed and not self._sticky):
            return super().call(name, *arguments)
        self.failed.append(name)
        if name == "close":
            super().call(name, *arguments)
        if isinstance(self._error, int):
            raise OSError(self._error, os.strerror(self._error))
        raise self._error


class ShortFiles(PassingFiles):
    """Reads and writes at most `most` bytes in one call, as the operating system may.

    Examples
    --------
    >>> with files.using(ShortFiles(7)):  # doctest: +SKIP
    ...     save(state, path)
    """

    def __init__(self, most: int, inner: Files | None = None) -> None:
        super().__init__(inner)
        self._most = most

    def write(self, fd: int, data: Buffer) -> int:
        return super().write(fd, memoryview(data)[: self._most])

    def write_at(self, fd: int, data: Buffer, offset: int) -> int:
        return super().write_at(fd, memoryview(data)[: self._most], offset)

    def read_into(self, fd: int, buffer: memoryview, offset: int) -> int:
        return super().read_into(fd, buffer[: self._most], offset)


class KillingFiles(CountingFiles):
    """Ends the process at the k-th call, as ``kill -9`` does; a write has then written the first half of its bytes.

    To be used in a child process: see `killed_at`.
    """

    def __init__(self, k: int, inner: Files | None = None, *, at_changes: bool = False) -> None:
        super().__init__(k, inner, at_changes=at_changes)

    def call(self, name: str, *arguments: Any) -> Any:
        """Make the call, or end the process."""
        if self.is_next(name):
            if name in WRITES:
                fd, data, *offset = arguments
                getattr(self.inner, name)(fd, memoryview(data)[: len(data) // 2], *offset)
            os._exit(KILLED)
        return super().call(name, *arguments)


def in_child(work: Callable[[], object]) -> int:
    """Do `work` in a forked child, wait for it, and return its exit status: 0, or 1 when `work` raised.

    Nothing of the child's goes on after `work`: no handler, no buffer, no test that follows.
    """
    with warnings.catch_warnings():
        # Python 3.12 and later warn that a child of a process with threads may wait for ever for a lock.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def killed_at(k: int, work: Callable[[Files], object], dying: Callable[[int], Files] = KillingFiles) -> bool:
    """Do `work` in a child that dies at its k-th call, and tell whether it did; False when `work` ended before.

    Parameters
    ----------
    k
        At which call, from 0.
    work
        What is done, with files in force that die.
    dying
        What makes these of `k`; it ends the process with the status `KILLED`.

    Examples
    --------
    >>> k = 0
    >>> while killed_at(k, lambda dying: save_with(dying, path)):  # doctest: +SKIP
    ...     assert path.read_bytes() in (old, new)
    ...     k += 1
    """
    status = in_child(lambda: work(dying(k)))
    if status not in {0, KILLED}:
        raise RuntimeError(f"the child ended with status {status} before call {k}")
    return status == KILLED
