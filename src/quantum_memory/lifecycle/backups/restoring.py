"""Give back what a backup holds: every byte is compared with what was saved before anything is replaced.

A file is written beside its target and takes its place in one step. A folder is built beside its target, whole and
durable, and then changes places with it: what stood there is kept beside it, under a name that says so.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from quantum_memory.compression.cores import on_all_cores
from quantum_memory.durability.atomic import DurableFile, is_leftover, sync_folder, temporary_name
from quantum_memory.durability.chunk_store import ChunkStore, is_store, make_folder
from quantum_memory.durability.files import close_quietly, current, is_unsupported
from quantum_memory.errors import (
    RESTORE,
    ConflictError,
    IntegrityError,
    MissingError,
    QuantumMemoryError,
    StorageError,
)
from quantum_memory.lifecycle.backups.manifest import FILE, FOLDER
from quantum_memory.lifecycle.repository.chunks import check_name, read_chunk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from quantum_memory.durability.files import Files
    from quantum_memory.lifecycle.backups.folder import BackupFolder
    from quantum_memory.lifecycle.backups.manifest import BackupManifest, Entry

_WRITABLE = 0o700


@dataclass
class Restored:
    """What was given back.

    Attributes
    ----------
    path
        Where it is.
    files, nbytes
        How many files, and their bytes.
    replaced
        Where a folder is that stood there before; None where none did.
    left_out
        What is not there, and why: what could not be read, of a backup that is partly damaged, and links of a backup
        that was imported, where they lead out of it.
    """

    path: str
    files: int = 0
    nbytes: int = 0
    replaced: str | None = None
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
        done = Restored(target)
        first = self._made.entries[0]
        if first.type == FILE:
            if os.path.isdir(target):
                raise ConflictError(
                    "a folder is in the place of this file", path=target, next_step="give the path of a file"
                )
            self._file(first, target, overwrite=overwrite)
            done.files, done.nbytes = 1, first.size
        else:
            self._tree(target, done, overwrite=overwrite)
        return done

    # --- files

    def chunks(self, entry: Entry) -> Iterator[memoryview]:
        """Give the bytes of a file, each chunk compared with its name.

        Raises
        ------
        IntegrityError, MissingError, StorageError
        """
        store, sealer = self._folder.store, self._folder.sealer

        def read(index: int) -> memoryview:
            name = entry.chunk(index)
            raw = memoryview(bytearray(store.place(name)[1].raw))
            read_chunk(store, name, raw, sealer)
            if not check_name(name, raw, sealer):
                store.distrust([name])
                raise IntegrityError("a chunk of it is not what its name says", next_step=RESTORE)
            return raw

        length = 0
        for raw in on_all_cores(read, range(entry.count)):
            length += len(raw)
            yield raw
            if self._progress is not None:
                self._progress(len(raw))
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
            error.next_step = "qmem backup verify --full, then restore another backup, or with --salvage what is whole"
            raise

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
        staged = os.path.join(above, temporary_name(os.path.basename(target)))
        make_folder(staged, durable=False, mode=_WRITABLE)
        fd = files.open(staged, os.O_RDONLY)
        try:
            files.try_lock(fd)  # so that nobody takes it for a leftover
            try:
                self._fill(staged, done)
                held, done.replaced = self._place(target)
            except BaseException:
                shutil.rmtree(staged, ignore_errors=True)
                raise
            with held:
                self._publish(staged, target, done.replaced)
        except OSError as error:
            if isinstance(error, QuantumMemoryError):
                raise
            raise StorageError.from_os_error(error, "put the folder in its place", target) from error
        finally:
            close_quietly(files, fd)

    def _sweep(self, above: str, name: str) -> None:
        """Remove what restores that were killed have left of a folder of this name."""
        files = current()
        with contextlib.suppress(OSError):
            for one in files.names(above):
                path = os.path.join(above, one)
                if (
                    is_leftover(one)
                    and one.startswith(f".{name}.")
                    and os.path.isdir(path)
                    and not os.path.islink(path)
                ):
                    fd = files.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
                    try:
                        if files.try_lock(fd):
                            shutil.rmtree(path)
                    finally:
                        close_quietly(files, fd)

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
            for entry in reversed(entries):  # what is in a folder before the folder
                if entry.type == FOLDER:
                    self._describe(files, os.path.join(staged, entry.path), entry)
        except OSError as error:
            if isinstance(error, QuantumMemoryError):
                raise
            raise StorageError.from_os_error(error, "restore into", staged) from error

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
            close_quietly(files, fd)
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
            close_quietly(files, fd)

    def _place(self, target: str) -> tuple[contextlib.ExitStack, str | None]:
        """Return the locks of what stands where a folder is to be, and the name that it gets; None where none does."""
        held = contextlib.ExitStack()
        if not os.path.lexists(target):
            return held, None
        replaced = f"{target}.before-{self._made.backup.id}"
        if os.path.lexists(replaced):
            raise ConflictError(
                "what was there before an earlier restore of this backup is still there",
                path=replaced,
                next_step="look whether you need it, and remove it",
            )
        if is_store(target):  # nobody may be saving into what is about to go
            held.enter_context(ChunkStore(target).alone())
        return held, replaced

    def _publish(self, staged: str, target: str, replaced: str | None) -> None:
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
                files.rename(replaced, staged)
                if error.errno != errno.ENOSYS and not is_unsupported(error):
                    raise
                files.rename(target, replaced)  # this file system has no way to do both at once
                files.rename(staged, target)
        if self._durable:
            sync_folder(files, os.path.dirname(target))


def _write(files: Files, fd: int, raw: memoryview) -> None:
    done = 0
    while done < len(raw):
        done += files.write(fd, raw[done:])
