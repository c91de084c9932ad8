"""Give back what a backup holds: every byte is compared with what was saved before anything is replaced.

A file is written beside its target and takes its place in one step. A folder is built beside its target, whole and
durable, and then changes places with it: what stood there is kept beside it, under a name that says so.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from quantum_memory.compression.cores import on_all_cores
from quantum_memory.durability.atomic import DurableFile, is_leftover, real_path, sync_folder, temporary_name
from quantum_memory.durability.chunk_store import ChunkStore
from quantum_memory.durability.files import current, is_at, is_unsupported
from quantum_memory.durability.folders import make_folder
from quantum_memory.durability.store_lock import is_store
from quantum_memory.errors import (
    RESTORE,
    ConflictError,
    IntegrityError,
    MissingError,
    QuantumMemoryError,
    StorageError,
    shell_word,
)
from quantum_memory.lifecycle.backups.manifest import FILE, FOLDER
from quantum_memory.lifecycle.repository.buffers import Buffers
from quantum_memory.lifecycle.repository.chunks import fetched

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from quantum_memory.durability.files import Buffer, Files
    from quantum_memory.lifecycle.backups.folder import BackupFolder
    from quantum_memory.lifecycle.backups.manifest import BackupManifest, Entry

_WRITABLE = 0o700
_LONGEST_NAME = 255
_RANDOM_PART = len(".0123456789abcdef.qmtmp")


@dataclass
class Restored:
    """What was given back.

    Attributes
    ----------
    path
        Where it is.
    backup
        Of which backup it is.
    files, nbytes
        How many files, and their bytes.
    replaced
        Where a folder is that stood there before; None where none did.
    saved_as
        The backup of a file that stood there before; None where none did, or it was not to be backed up.
    left_out
        What is not there, and why: what could not be read, of a backup that is partly damaged, and links of a backup
        that was imported, where they lead out of it.
    """

    path: str
    backup: str
    files: int = 0
    nbytes: int = 0
    replaced: str | None = None
    saved_as: str | None = None
    left_out: list[tuple[str, str]] = field(default_factory=list)


class Restorer:
    """Writes the files of one backup; the store has to be held.

    Parameters
    ----------
    folder
        Of the backups.
    made
        The backup.
    durable
        Whether to ``fsync``.
    salvage
        Whether files that cannot be read are left out, and not the end of it.
    progress
        Called with the bytes of each chunk that is done.
    """

    def __init__(
        self,
        folder: BackupFolder,
        made: BackupManifest,
        *,
        durable: bool = True,
        salvage: bool = False,
        progress: Callable[[int], object] | None = None,
    ) -> None:
        self._folder = folder
        self._made = made
        self._durable = durable
        self._salvage = salvage
        self._progress = progress
        self._target = ""
        self._buffers = Buffers()

    def restore(self, target: str, *, overwrite: bool = True) -> Restored:
        """Give back a file or a folder; see `Restored`.

        Parameters
        ----------
        target
            Where it is to be. What it is in must be there.
        overwrite
            False: what is there already is a `ConflictError`.

        Raises
        ------
        IntegrityError, MissingError
            A part of it is damaged, or gone. What was at the target is as it was.
        ConflictError, UnsafeError, StorageError
        """
        done = Restored(target, self._made.backup.id)
        self._target = target
        self._check_target(target)
        first = self._made.entries[0]
        if first.type == FILE:
            if os.path.isdir(target):
                raise ConflictError(
                    "a folder is in the place of this file", path=target, next_step="give the path of a file"
                )
            if not os.path.isdir(above := os.path.dirname(target)):
                make_folder(above, durable=self._durable)
            self._file(first, target, overwrite=overwrite)
            done.files, done.nbytes = 1, first.size
        else:
            self._tree(target, done, overwrite=overwrite)
        return done

    def _check_target(self, target: str) -> None:
        """Refuse a target in which the backups themselves would be moved aside or written over."""
        there, backups = real_path(target), os.path.realpath(self._folder.path)
        if os.path.commonpath([there, backups]) in {there, backups}:
            raise ConflictError(
                "the folder of the backups is in the way: it is in what would be replaced, or that is in it",
                path=target,
                next_step="restore into another folder, and move what you need",
            )

    # --- files

    def chunks(self, entry: Entry) -> Iterator[Buffer]:
        """Give the bytes of a file, each chunk compared with its name, and there until the next one is asked for.

        Raises
        ------
        IntegrityError, MissingError, StorageError
        """
        store, sealer = self._folder.store, self._folder.sealer

        def read(index: int) -> Buffer:
            name = entry.chunk(index)
            try:
                return fetched(store, name, self._buffers, sealer)
            except IntegrityError:
                store.distrust([name])
                raise

        length = 0
        for raw in on_all_cores(read, range(entry.count)):
            length += len(raw)
            yield raw
            if self._progress is not None:
                self._progress(len(raw))
            self._buffers.give(raw)
        if length != entry.size:
            raise IntegrityError(f"its chunks have {length} bytes, and not {entry.size}", next_step=RESTORE)

    def _file(self, entry: Entry, target: str, *, overwrite: bool) -> None:
        with self._naming(entry), DurableFile(target, overwrite=overwrite, durable=self._durable, mode=0o600) as sink:
            for raw in self.chunks(entry):
                sink.write(raw)
            sink.describe(entry.mode, entry.modified_ns)

    @contextlib.contextmanager
    def _naming(self, entry: Entry) -> Iterator[None]:
        """Have errors of the chunks name the file that they are of."""
        try:
            yield
        except (IntegrityError, MissingError) as error:
            what = entry.path or os.path.basename(self._made.backup.source)
            error.message = f"{what!r} of the backup {self._made.backup.id} cannot be restored: {error.message}"
            error.path = error.path or self._folder.path
            error.next_step = self._next_step()
            raise

    def _next_step(self) -> str:
        one, command = self._made.backup.id, self._folder.command
        if self._made.backup.is_folder and self._target:
            to = shell_word(self._target)
            return command(f"restore {one} --to {to} --salvage  # leaves out what is damaged")
        return command("verify --full  # shows which backups are whole; restore another one")

    # --- folders

    def _tree(self, target: str, done: Restored, *, overwrite: bool) -> None:
        is_there = os.path.lexists(target)
        if is_there and (os.path.islink(target) or not os.path.isdir(target)):
            raise ConflictError("something that is no folder is there", path=target, next_step="give another path")
        if is_there and not overwrite and os.listdir(target):
            raise ConflictError("the folder is there already", path=target, next_step="give another path")
        above = os.path.dirname(target)
        files = current()
        self._sweep(above, os.path.basename(target))
        try:
            staged, fd = _staged(files, target)
            try:
                self._fill(staged, done)
                held, replaced = self._place(target)
                with held:
                    self._publish(staged, fd, target, replaced)
            except BaseException:
                if is_at(files, fd, staged):  # otherwise it has its name, and something else may have this one
                    _remove(staged)
                raise
            finally:
                files.closerange(fd, fd + 1)
        except OSError as error:
            if isinstance(error, QuantumMemoryError):
                raise
            raise StorageError.from_os_error(error, "put the folder in its place", target) from error
        done.replaced = replaced

    def _sweep(self, above: str, name: str) -> None:
        """Remove what restores that were killed have left of a folder of this name."""
        files = current()
        begin = temporary_name(name)[:-_RANDOM_PART]
        with contextlib.suppress(OSError):
            for one in files.names(above):
                path = os.path.join(above, one)
                if is_leftover(one) and one[:-_RANDOM_PART] == begin and os.path.isdir(path):
                    fd = files.open(path, os.O_RDONLY | os.O_DIRECTORY | getattr(os, "O_NOFOLLOW", 0))
                    try:
                        if files.try_lock(fd) and is_at(files, fd, path):
                            _remove(path)
                    finally:
                        files.closerange(fd, fd + 1)

    def _fill(self, staged: str, done: Restored) -> None:
        """Write all that there is into a folder that is new, in which nothing leads elsewhere."""
        files = current()
        entries = self._made.entries
        try:
            for entry in entries[1:]:
                path = os.path.join(staged, entry.path)
                if entry.type == FOLDER:
                    files.mkdir(path, _WRITABLE)
                elif entry.type == FILE:
                    self._new_file(entry, path, done)
                elif self._may_link(entry, done):
                    files.symlink(entry.target, path)
                    if os.utime in os.supports_follow_symlinks:
                        os.utime(path, ns=(entry.modified_ns, entry.modified_ns), follow_symlinks=False)
            for entry in reversed(entries):  # what is in a folder before the folder
                if entry.type == FOLDER:
                    self._describe(files, os.path.join(staged, entry.path) if entry.path else staged, entry)
        except OSError as error:
            if isinstance(error, QuantumMemoryError):
                raise
            failed = StorageError.from_os_error(error, "restore into", staged)
            if error.errno == errno.ENAMETOOLONG:
                failed.next_step = "restore into a folder with a shorter path"
            raise failed from error

    def _new_file(self, entry: Entry, path: str, done: Restored) -> None:
        files = current()
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
        fd = files.open(path, flags, 0o600)
        try:
            with self._naming(entry):
                for raw in self.chunks(entry):
                    _write(files, fd, raw)
            files.fchmod(fd, entry.mode)
            files.set_time(fd, entry.modified_ns)
            if self._durable:
                files.fsync(fd)
        except (IntegrityError, MissingError) as error:
            if not self._salvage:
                raise
            files.unlink(path)
            done.left_out.append((entry.path, error.message))
            return
        finally:
            files.closerange(fd, fd + 1)
        done.files += 1
        done.nbytes += entry.size

    def _may_link(self, entry: Entry, done: Restored) -> bool:
        """Tell whether a link is made: not one that leads out of a folder that a stranger may have made."""
        inside = os.path.normpath(os.path.join("/root", os.path.dirname(entry.path), entry.target))
        if not self._made.backup.imported or (not os.path.isabs(entry.target) and inside.startswith("/root/")):
            return True
        done.left_out.append((entry.path, f"it is a link that leads out of the backup, to {entry.target!r:.80}"))
        return False

    def _describe(self, files: Files, path: str, entry: Entry) -> None:
        fd = files.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
        try:
            files.fchmod(fd, entry.mode)
            files.set_time(fd, entry.modified_ns)
            if self._durable:
                files.fsync(fd)
        finally:
            files.closerange(fd, fd + 1)

    def _place(self, target: str) -> tuple[contextlib.ExitStack, str | None]:
        """Return the locks of what stands where a folder is to be, and the name that it gets; None where none does."""
        held = contextlib.ExitStack()
        if not os.path.lexists(target):
            return held, None
        replaced = self._name_beside(target)
        if is_store(target):  # nobody may be saving into what is about to go
            held.enter_context(ChunkStore(target).alone())
        return held, replaced

    def _name_beside(self, target: str) -> str:
        """Return a free name for what stands there."""
        above, name = os.path.split(target)
        for number in itertools.count(1):
            end = f".before-{self._made.backup.id}" + (f"-{number}" if number > 1 else "")
            stem = os.fsdecode(os.fsencode(name)[: _LONGEST_NAME - len(end)])
            if not os.path.lexists(path := os.path.join(above, stem + end)):
                break
        return path

    def _publish(self, staged: str, fd: int, target: str, replaced: str | None) -> None:
        """Give a folder its name; what has it changes places with it. From here on nothing is removed."""
        files = current()
        if replaced is None:
            files.rename(staged, target)
        else:
            # What is under a temporary name may be swept away. So the new folder first takes the name that the old one
            # is to have: the step in which they change places leaves neither under another one.
            files.rename(staged, replaced)
            try:
                files.exchange(replaced, target)
            except OSError as error:
                if is_at(files, fd, replaced):  # it has failed, and not only said so
                    files.rename(replaced, staged)
                if error.errno != errno.ENOSYS and not is_unsupported(error):
                    raise
                _replace(files, staged, target, replaced)
        if self._durable:
            sync_folder(files, os.path.dirname(target))


def _replace(files: Files, staged: str, target: str, replaced: str) -> None:
    """Put a folder in the place of another one where the file system has no way to do both at once."""
    files.rename(target, replaced)
    try:
        files.rename(staged, target)
    except OSError:
        files.rename(replaced, target)
        raise


def _staged(files: Files, target: str) -> tuple[str, int]:
    """Make a folder beside a target, and return it, opened and locked, so that nobody takes it for a leftover."""
    above, name = os.path.split(target)
    while True:
        staged = os.path.join(above, temporary_name(name))
        fd = -1
        try:
            make_folder(staged, durable=False, mode=_WRITABLE)
            fd = files.open(staged, os.O_RDONLY)
            if files.try_lock(fd) and is_at(files, fd, staged):
                return staged, fd
            files.closerange(fd, fd + 1)
        except FileNotFoundError:
            continue  # somebody has just swept it away
        except BaseException:
            if fd >= 0:
                files.closerange(fd, fd + 1)
            with contextlib.suppress(OSError):
                os.rmdir(staged)
            raise


def _remove(folder: str) -> None:
    """Remove a folder of ours with all in it, however deep that is."""
    folders = [folder]
    for one in folders:  # which grow meanwhile
        with contextlib.suppress(OSError):
            os.chmod(one, _WRITABLE)
            with os.scandir(one) as inside:
                for entry in inside:
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                    else:
                        os.unlink(entry.path)
    for one in reversed(folders):
        with contextlib.suppress(OSError):
            os.rmdir(one)


def _write(files: Files, fd: int, raw: Buffer) -> None:
    view, done = memoryview(raw), 0
    while done < len(view):
        written = files.write(fd, view[done:])
        if written == 0:
            raise OSError(errno.EIO, f"the file takes nothing past byte {done}")
        done += written
