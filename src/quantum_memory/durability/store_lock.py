"""The lock of a store of chunks: whoever saves or reads has it together with others, whoever collects has it alone.

A lock ends with the process that has it. What is locked is a small file, whatever is in it; it has a signature, so that
a store is known by it, and counts the collections.
"""

from __future__ import annotations

import contextlib
import os
import struct
import time
from typing import TYPE_CHECKING

from quantum_memory.durability import forks, pack
from quantum_memory.durability.atomic import DurableFile
from quantum_memory.durability.files import ReadableFile, current, read_up_to, write_all_at
from quantum_memory.durability.folders import make_folder
from quantum_memory.durability.locks import locked, open_locked
from quantum_memory.errors import ConflictError, IntegrityError, MissingFileError, StorageError, UnsafeError

if TYPE_CHECKING:
    from collections.abc import Iterator

SHARED_TIMEOUT = 600.0
"""Seconds to wait for somebody who collects, which may be copying hundreds of GiB."""

LOCK_TIMEOUT = 30.0
"""Seconds to wait for a lock."""

_NAME = "lock"
_GENERATIONS = 1 << 64
_VERSIONS = 256  # more than there will be: the lock has no checksum
_LAYOUT = struct.Struct("<8sIIQ")
_SIGNATURE = b"\x89QML\r\n\x1a\n"


class StoreLock:
    """The lock of a store, whose folders are made with it, when somebody first takes it.

    Parameters
    ----------
    folder, packs_at
        The folder of the store, and the one in it that the packs are in.
    durable
        Whether to ``fsync``.
    folder_mode, file_mode
        Permission bits of folders and files that are made.

    Raises
    ------
    StorageError, IntegrityError, UnsafeError, UnsupportedVersionError
        As its methods do.
    """

    def __init__(self, folder: str, packs_at: str, *, durable: bool, folder_mode: int, file_mode: int) -> None:
        self._folder, self._packs_at = folder, packs_at
        self._path = os.path.join(folder, _NAME)
        self._durable = durable
        self._folder_mode, self._file_mode = folder_mode, file_mode
        self._held: dict[int, StoreLock] = {}  # by descriptor: changed in steps that no interrupt comes between
        forks.tell(self)

    def forked(self) -> None:
        """Let go of the locks of the process that this one was forked from, of which it has copies."""
        for fd in self._held:
            with contextlib.suppress(OSError):
                os.close(fd)
        self._held = {}

    @contextlib.contextmanager
    def shared(self, *, timeout: float) -> Iterator[int]:
        """Have the lock together with others, and give the number of collections.

        Raises
        ------
        ConflictError
            Somebody has it alone.
        """
        with self._locked(write=False, timeout=timeout) as fd:
            yield self._generation_of(fd)

    @contextlib.contextmanager
    def alone(self, *, timeout: float) -> Iterator[int]:
        """Have the lock alone, and give the number of collections, this one included.

        Raises
        ------
        ConflictError
            Others have it.
        """
        with self._locked(write=True, timeout=timeout) as fd:
            generation = (self._generation_of(fd) + 1) % _GENERATIONS
            # Written before anything is removed, so that whoever remembers what was there looks again.
            self._write_generation(fd, generation)
            yield generation

    @contextlib.contextmanager
    def mending(self, *, dry_run: bool, timeout: float) -> Iterator[tuple[int, str | None]]:
        """Have the lock alone even where it is damaged or gone; give the number, and what is wrong with it, or None.

        It is written anew, unless this is a `dry_run`; then nothing is written at all, and nobody has one that is gone.

        Raises
        ------
        ConflictError
            Others have it.
        """
        wrong = None if os.path.lexists(self._path) else "it is gone"
        if dry_run and wrong is not None:
            yield time.time_ns(), wrong
            return
        with self._locked(write=True, timeout=timeout) as fd:
            try:
                generation = (self._generation_of(fd, whole=True) + 1) % _GENERATIONS
            except IntegrityError as error:
                wrong = error.message
                generation = time.time_ns()  # one that no counting has reached
            if not dry_run:
                self._write_generation(fd, generation)
            yield generation, wrong

    def make(self) -> None:
        """Make the folders and the file that is locked, durably, where they are not there."""
        for folder in (self._folder, self._packs_at):
            make_folder(folder, durable=self._durable, mode=self._folder_mode)
        try:
            with DurableFile(self._path, overwrite=False, durable=self._durable, mode=self._file_mode) as sink:
                sink.write(_LAYOUT.pack(_SIGNATURE, pack.VERSION, pack.MINIMUM_READER, 0))
        except ConflictError:
            if self._durable:  # others have made it, and may have left out the sync
                with contextlib.closing(ReadableFile(self._path)) as lock:
                    lock.sync()

    @contextlib.contextmanager
    def _locked(self, *, write: bool, timeout: float) -> Iterator[int]:
        for path in (self._path, self._packs_at):
            if os.path.islink(path):  # whoever made it may mean the files of somebody else
                raise UnsafeError(
                    "a symbolic link stands where a folder of checkpoints has its own files",
                    path=path,
                    next_step="put them there themselves, or link the whole folder",
                )
        files = current()
        try:
            fd = open_locked(files, self._path, self._folder, write=write, timeout=timeout)
        except MissingFileError:
            self.make()
            fd = open_locked(files, self._path, self._folder, write=write, timeout=timeout)
        self._held[fd] = self
        try:
            yield fd
        finally:
            if fd in self._held:  # otherwise this process was forked within the block
                del self._held[fd]
                files.closerange(fd, fd + 1)

    def _generation_of(self, fd: int, *, whole: bool = False) -> int:
        """Return how often the store was collected, having checked that the file which is locked is that of a store.

        Parameters
        ----------
        whole
            Whether another length is damage, too, and versions that cannot be.
        """
        buffer = bytearray(_LAYOUT.size + 1)
        try:
            length = read_up_to(current(), fd, memoryview(buffer), 0)
        except OSError as error:
            raise StorageError.from_os_error(error, "read", self._path) from error
        signature, version, minimum, generation = _LAYOUT.unpack_from(buffer)
        if signature != _SIGNATURE or (whole and (length != _LAYOUT.size or not 0 < minimum <= version < _VERSIONS)):
            raise IntegrityError(
                "this is not the lock of a folder of checkpoints or backups",
                path=self._path,
                next_step="give another folder; if nobody uses this one: qmem backup repair, or remove the file",
            )
        pack.check_reader(minimum, version, pack.VERSION, "folders of checkpoints", self._folder)
        return int(generation)

    def _write_generation(self, fd: int, generation: int) -> None:
        data = memoryview(_LAYOUT.pack(_SIGNATURE, pack.VERSION, pack.MINIMUM_READER, generation))
        try:
            write_all_at(current(), fd, data, 0)
            if current().fstat(fd).st_size > len(data):
                current().truncate(fd, len(data))
            if self._durable:
                current().fsync(fd)
        except OSError as error:
            raise StorageError.from_os_error(error, "write to", self._path) from error


def is_store(folder: str) -> bool:
    """Tell whether a folder is a store of chunks, or has one in it."""
    try:
        with contextlib.closing(ReadableFile(os.path.join(folder, _NAME), follow=False)) as lock:
            return lock.size == _LAYOUT.size and lock.read(0, len(_SIGNATURE)) == _SIGNATURE
    except (MissingFileError, UnsafeError, StorageError):
        return False


def hold_together(folder: str, *, timeout: float) -> contextlib.AbstractContextManager[int]:
    """Hold a store together with others without looking at what is in it: nothing is removed meanwhile.

    Raises
    ------
    ConflictError
        It is being collected.
    """
    return locked(os.path.join(folder, _NAME), folder, write=False, timeout=timeout)
