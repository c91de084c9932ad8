"""Change a file in place so that a change is wholly there or not at all, and stays there once it is said to be.

A file has a *committed length*, which its first bytes state (an HDF5 file says in its superblock where it ends). What
is behind that is garbage that nobody looks at. A transaction therefore writes what it appends straight into the file,
and keeps what it overwrites in memory (`overlay`). The commit, each step with the accident that it is there for:

1. Write the pages to be overwritten behind the end of the file, with a checksum (`redo_log`), and ``fsync``. This is
   the commit point. A crash before it leaves the old bytes, with garbage behind them: a part of a log fails its
   checksum. What was appended is synced before the log is written, or covered by its checksum where it is short: the
   disk may write in any order, and a log without the appended bytes would commit what is not there.
2. Overwrite the pages and ``fsync``. A crash in here leaves any mixture of old and new, torn pages too, and the whole
   log. Whoever opens the file next sees the log before anything else and overwrites the same pages once more, so that
   it does not matter how often that is done, nor how often it is interrupted.
3. Cut the log off. This needs no ``fsync``: should a power cut bring the log back, then it is either whole, and what it
   overwrites is what is there already, since the next transaction overwrites nothing before its own log is durable and
   with it this cut; or the next transaction has appended over a part of it, and it fails its checksum.

The log is in the file and not beside it. It can thus be neither lost nor found beside another file when the file is
copied, renamed or replaced; it needs no ``fsync`` of the folder and no permission to write there; and a commit takes
two ``fsync`` calls, or three when much was appended.

A new file is written under a temporary name and gets its own at the commit (`atomic.NewFile`). The same is done to
replace a file that is there: those who read it keep the old one, while nobody changes it (`locks`). Somebody else may
replace it first, though, and others then write to the new file: the name is taken only from the file that was there at
the beginning, with the folder locked so that nobody gets in between.

What this does not promise: more than `atomic` does, nor anything to programs that do not take the locks. A file whose
last writer was interrupted in step 2 can be read by other programs only after it was opened here once.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from quantum_memory.durability.atomic import NewFile, forked, real_path
from quantum_memory.durability.changes import ChangedFile
from quantum_memory.durability.file_object import FileObject
from quantum_memory.durability.files import Buffer, Files, current, is_at
from quantum_memory.durability.locks import locked_folder, open_locked
from quantum_memory.durability.redo_log import RedoLog, find_log
from quantum_memory.errors import (
    RESTORE,
    ConflictError,
    IntegrityError,
    InvalidStateError,
    MissingFileError,
    QuantumMemoryError,
    StorageError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType


class TransactionFile(FileObject):
    """A file that is read, and changed in transactions; use it as a context manager.

    Leaving the block commits what was changed, an exception abandons it. It is a `Readable`, and a file object for
    h5py: what is written is seen by whoever reads through the same object, and by nobody else before the commit.

    Parameters
    ----------
    path
        The file. Symbolic links are followed.
    write
        Lock out everybody else, for changes; otherwise lock out writers only.
    create
        Make the file if there is none. It appears with the first commit.
    replace
        Write a new file, which takes the place of the one that is there (if any) with the first commit.
    overwrite
        With `replace`. False: a file that exists is a `ConflictError`.
    committed_length
        Given the first `head_bytes` bytes, returns the length of the file that they state, or raises one of our
        errors. When it is asked before a commit, this must be the length that the file then has.
    timeout
        How many seconds to wait for others.
    durable
        False leaves out every ``fsync``: safe from a killed process, but a power cut may damage the whole file.

    Attributes
    ----------
    name : str
        The path as it was given.
    size : int
        The length with all changes.
    is_new : bool
        Whether this object made the file.
    failure : BaseException or None
        The first error, or interrupt, that a read or write had. A library that calls back may report it as something
        else, or not at all; nothing is committed after it.

    Raises
    ------
    MissingFileError, UnsafeError, StorageError, ConflictError
        There is no such file, it is not a regular one, it cannot be opened, others have it.
    IntegrityError
        It is shorter than its first bytes say.
    """

    # Here, since an interrupt may come as an object begins, and it is closed all the same.
    _new: NewFile | None = None  # until it has its name
    _fd = -1
    _replaced = -1  # the file to be replaced, which nobody is to change meanwhile; none: nobody makes it

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        write: bool,
        committed_length: Callable[[bytes], int],
        create: bool = False,
        replace: bool = False,
        overwrite: bool = True,
        head_bytes: int = 64,
        timeout: float = 30.0,
        durable: bool = True,
    ) -> None:
        super().__init__()
        self.name = os.fspath(path)
        self.is_new = False
        self.failure: BaseException | None = None
        self._target = real_path(self.name)
        self._write = write
        self._committed_length = committed_length
        self._head_bytes = head_bytes
        self._timeout = timeout
        self._durable = durable
        self._files: Files = current()
        self._pid = os.getpid()
        self._over = False  # a commit failed: only to be closed
        try:
            if replace:
                self._bytes = self._replace(overwrite=overwrite)
            else:
                self._bytes = self._open(create=write and create)
        except BaseException:
            self._close()
            raise

    def __enter__(self) -> TransactionFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None and self._write and self._fd >= 0:
                self.commit()
        finally:
            self.close()

    def commit(self) -> None:
        """Make the changes durable; the next transaction begins.

        Raises
        ------
        StorageError, ConflictError
            Nothing was committed, or (the error says so) the next one to open the file finishes it. This object can
            then only be closed.
        InvalidStateError
            The first bytes do not state the length of the file. The transaction goes on.
        BaseException
            The `failure` that there was before; the transaction was abandoned.
        """
        self._check_writable()
        if self.failure is not None:
            failure = self.failure
            self.abandon()
            raise failure
        if self._new is None and not self._bytes.is_changed:
            return
        length = self._stated_length(self._bytes)
        if length != self.size:
            raise InvalidStateError(
                f"its first bytes state a length of {length} bytes, and it has {self.size}",
                path=self.name,
                next_step="write them before the commit",
            )
        # Whatever stops a commit, what this object holds is then no longer what is in the file.
        self._over = True
        if self._new is not None:
            self._publish(self._new)
        else:
            self._commit_in_place()
        self._over = False

    def abandon(self) -> None:
        """Forget the changes since the last commit. A file that was never committed is removed, and the object closed.

        Raises
        ------
        StorageError
            What was appended cannot be cut off. It does no harm, but this object can only be closed.
        """
        if self._new is not None:
            self._close()
        elif self._write and self._fd >= 0 and not self._over and os.getpid() == self._pid:
            try:
                self._bytes.abandon()
            except OSError as error:
                self._over = True
                raise StorageError.from_os_error(error, "cut off what was appended", self.name) from error
            self.failure = None

    def close(self) -> None:
        """Abandon what was not committed, and give up the lock."""
        failure = self.failure
        try:
            with contextlib.suppress(StorageError):  # the next one to open the file for writing cuts it off
                self.abandon()
        finally:
            self.failure = failure
            self._close()

    def __del__(self) -> None:
        self._close()  # an interrupt came as it was to be closed

    @property
    def size(self) -> int:
        """The length with all changes."""
        return self._bytes.size

    def read_into(self, buffer: memoryview, offset: int) -> None:
        """Fill `buffer` with the bytes from `offset` on, from any thread.

        Raises
        ------
        IntegrityError
            When the file ends before the buffer is full.
        StorageError
            When the operating system cannot read it.
        """
        self._check_inside(offset, len(buffer))
        with self._noted(f"read at byte {offset}"):
            self._bytes.read_into(buffer, offset)

    def read(self, offset: int, length: int) -> bytes:
        """Return `length` bytes from `offset` on; see `read_into`. The caller has checked that they can exist."""
        buffer = bytearray(length)
        self.read_into(memoryview(buffer), offset)
        return bytes(buffer)

    def map(self, offset: int, length: int) -> memoryview:
        """Return bytes of the file as memory that is read when it is touched; writing to it changes a private copy.

        Raises
        ------
        IntegrityError, StorageError
            The file ends before; the operating system cannot map it.
        """
        self._check_inside(offset, length)
        with self._noted("map the file into memory"):
            return self._bytes.map(offset, length, self.name)

    def write_at(self, data: Buffer, offset: int) -> int:
        """Write `data` at `offset`, from any thread, and return its length in bytes."""
        self._check_writable()
        view = memoryview(data).cast("B")
        with self._noted(f"write at byte {offset}"):
            self._bytes.write_at(view, offset)
        return len(view)

    def set_length(self, length: int) -> None:
        """Cut the file off, or extend it with zeros."""
        self._check_writable()
        with self._noted(f"make it {length} bytes long"):
            self._bytes.truncate(length)

    def flush(self) -> None:
        """Do nothing: who reads through this object sees all that was written, and `commit` makes it durable."""

    def _open(self, *, create: bool) -> ChangedFile:
        try:
            log = self._open_locked()
        except MissingFileError:
            if not create:
                raise
            return self._create(overwrite=False)
        if log is not None and not self._write:
            self._close()
            # Finished by a writer, at once or not at all, it is whole for everybody. Where others read it, or it cannot
            # be written to, this reader reads as if it were.
            with contextlib.suppress(QuantumMemoryError):
                TransactionFile(
                    self.name,
                    write=True,
                    committed_length=self._committed_length,
                    head_bytes=self._head_bytes,
                    timeout=0,
                ).close()
            log = self._open_locked()
        with self._noted("open"):
            if log is not None and self._write:
                log.replay(self._files, self._fd)
                log = None
            there = self._files.fstat(self._fd).st_size if log is None else log.after
            length = self._stated_length(ChangedFile(self._files, self._fd, there, durable=False, log=log))
            if length > there:
                raise IntegrityError(
                    f"it ends at byte {there}, and should have {length} bytes", path=self.name, next_step=RESTORE
                )
            if self._write and there > length:
                self._files.truncate(self._fd, length)
        return ChangedFile(self._files, self._fd, length, durable=self._durable, log=log)

    def _open_locked(self) -> RedoLog | None:
        self._fd = open_locked(self._files, self._target, self.name, write=self._write, timeout=self._timeout)
        with self._noted("open"):
            size = self._files.fstat(self._fd).st_size
            log = find_log(self._files, self._fd, size)
            # What was committed may end like a log, since anybody may have made the data in it.
            return None if log is None or self._is_committed(size) else log

    def _is_committed(self, size: int) -> bool:
        """Tell whether all `size` bytes of the file are committed; a first page that is torn says nothing."""
        content = ChangedFile(self._files, self._fd, size, durable=False)
        try:
            return self._stated_length(content) >= size
        except QuantumMemoryError:
            return False

    def _replace(self, *, overwrite: bool) -> ChangedFile:
        if overwrite:
            with contextlib.suppress(MissingFileError):  # then there is nothing to be replaced
                self._replaced = open_locked(self._files, self._target, self.name, write=False, timeout=self._timeout)
        return self._create(overwrite=overwrite)

    def _create(self, *, overwrite: bool) -> ChangedFile:
        new = NewFile(self.name, overwrite=overwrite, durable=self._durable)
        new.create(os.O_RDWR)
        self._new, self._fd = new, new.fd
        self.is_new = True
        return ChangedFile(self._files, self._fd, 0, durable=self._durable)

    def _stated_length(self, content: ChangedFile) -> int:
        head = bytearray(min(self._head_bytes, content.size))
        with self._noted("read its first bytes"):
            content.read_into(memoryview(head), 0)
        try:
            return self._committed_length(bytes(head))
        except QuantumMemoryError as error:
            raise error.at(self.name)  # noqa: B904 - it is the same error

    def _publish(self, new: NewFile) -> None:
        with locked_folder(self._files, os.path.dirname(self._target), self.name, timeout=self._timeout):
            self._check_unreplaced()
            new.publish()
        self._new, new.fd = None, -1  # it is this object's now
        if self._replaced >= 0:
            fd, self._replaced = self._replaced, -1
            self._files.closerange(fd, fd + 1)
        self._bytes.begin(self.size)

    def _check_unreplaced(self) -> None:
        with self._noted("look at the file that it replaces"):
            same = self._is_unreplaced()
        if not same:
            raise ConflictError(
                "the file exists already, or is another one than it was: somebody else wrote it meanwhile",
                path=self.name,
                next_step="look at it, and try again",
            )

    def _is_unreplaced(self) -> bool:
        if self._replaced >= 0:
            return is_at(self._files, self._replaced, self._target)
        try:
            self._files.stat(self._target)
        except FileNotFoundError:
            return True
        return False

    def _commit_in_place(self) -> None:
        with self._noted("commit the changes"):
            log = self._bytes.prepare()
        try:
            self._bytes.finish(log)
        except OSError as error:
            made = StorageError.from_os_error(error, "finish a commit that is durable", self.name)
            made.next_step = "open the file again, which finishes it"
            raise made from error

    def _check_inside(self, offset: int, length: int) -> None:
        if length and offset + length > self.size:
            raise IntegrityError(
                f"it ends at byte {self.size}, inside data that should be there", path=self.name, next_step=RESTORE
            )

    def _check_writable(self) -> None:
        if os.getpid() != self._pid:
            raise forked(self.name)
        if self._over or self._fd < 0 or not self._write:
            why = "a commit failed" if self._over else "it is closed" if self._fd < 0 else "it was opened for reading"
            raise ConflictError(f"{why}, so it cannot be written to", path=self.name, next_step="open it again")

    @contextlib.contextmanager
    def _noted(self, doing: str) -> Iterator[None]:
        """Raise one of our errors in the place of a plain `OSError`, and keep the first."""
        try:
            yield
        except QuantumMemoryError as error:
            self.failure = self.failure or error.at(self.name)
            raise
        except OSError as error:
            made = StorageError.from_os_error(error, doing, self.name)
            self.failure = self.failure or made
            raise made from error
        except BaseException as error:
            self.failure = self.failure or error
            raise

    def _close(self) -> None:
        """Close everything. In a process that was forked, file and locks go on as those of the other one."""
        if self._new is not None:
            if os.getpid() == self._pid:
                self._new.discard()
            else:
                self._new.leave()
            self._new, self._fd = None, -1
        fd, self._fd = self._fd, -1
        if fd >= 0:
            self._files.closerange(fd, fd + 1)
        fd, self._replaced = self._replaced, -1
        if fd >= 0:
            self._files.closerange(fd, fd + 1)
