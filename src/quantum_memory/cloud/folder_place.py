"""A folder on a local disk, as a place for a repository."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
from typing import TYPE_CHECKING

import icechunk

from quantum_memory.cloud.errors import branch_exists, moved, quiet, tag_exists
from quantum_memory.cloud.folder_lock import locked
from quantum_memory.cloud.notes import FOLDER, FileNotes, Notes
from quantum_memory.cloud.references import FILE, REFS, REMOVED, References, references_in
from quantum_memory.durability.atomic import DurableFile, is_leftover, remove_leftovers, sync_folder, temporary_name
from quantum_memory.durability.files import current, is_at
from quantum_memory.durability.locks import only_one
from quantum_memory.durability.write_back import WriteBack, sync_file_system
from quantum_memory.errors import ConflictError, MissingFileError, StorageError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from quantum_memory.formats.urls import URL

_IN_THE_WAY = {errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR}
_REFERENCE = "reference"
_RANDOM_PART = len("0123456789abcdef.qmtmp")


class FolderPlace:
    """A folder on a local disk."""

    def __init__(self, url: URL) -> None:
        self._url = url
        self._root = os.path.realpath(url.key)
        self.notes: Notes = FileNotes(self._root)

    def storage(self) -> icechunk.Storage:
        quiet()
        return icechunk.local_filesystem_storage(self._root)

    def exists(self) -> bool:
        # Icechunk makes the folder that it is to look into, and panics where it cannot.
        try:
            mode = current().stat(self._root).st_mode
        except FileNotFoundError:
            return False
        except OSError as error:
            raise StorageError.from_os_error(error, "look into its folder", self._root) from error
        if not stat.S_ISDIR(mode):
            raise ConflictError("it is no folder", next_step="give the folder of a repository, or a name that is free")
        return icechunk.Repository.exists(self.storage())

    def create(self) -> None:
        files, parent = current(), os.path.dirname(self._root)
        try:
            os.makedirs(parent, exist_ok=True)
            self._remove_unfinished(parent)
            with _locked_folder_in(parent, os.path.basename(self._root)) as made:
                try:
                    self.make(made)
                    sync_file_system(made)
                    files.rename(made, self._root)  # which is there, or is not
                except BaseException:
                    shutil.rmtree(made, ignore_errors=True)
                    raise
                sync_folder(files, parent)
        except OSError as error:
            if error.errno not in _IN_THE_WAY:
                raise StorageError.from_os_error(error, "make a repository in this folder", self._root) from error
            if not self.exists():
                raise ConflictError(
                    "there is something else in this folder, and no repository",
                    next_step="choose a folder that is empty, or not there yet",
                ) from error

    @staticmethod
    def make(folder: str) -> None:
        """Make an empty repository in an empty folder."""
        quiet()
        icechunk.Repository.create(icechunk.local_filesystem_storage(folder))

    def _remove_unfinished(self, parent: str) -> None:
        """Remove what was to become this repository, and whose makers have died; those who live hold its lock."""
        files, begin = current(), temporary_name(os.path.basename(self._root))[:-_RANDOM_PART]
        for name in files.names(parent):
            path = os.path.join(parent, name)
            if not is_leftover(name) or name[:-_RANDOM_PART] != begin or not os.path.isdir(path):
                continue
            with contextlib.suppress(OSError):
                fd = files.open(path, os.O_RDONLY)
                try:
                    if files.try_lock(fd):
                        shutil.rmtree(path, ignore_errors=True)
                finally:
                    files.close(fd)

    def check_writable(self) -> None:
        pass  # the lock says it

    def write_back(self) -> WriteBack:
        return WriteBack(self._root)

    def move(
        self,
        repository: icechunk.Repository,
        branch: str,
        to: str,
        *,
        seen: str,
        durable: bool = True,
        written: WriteBack | None = None,
    ) -> None:
        with self._locked():
            if repository.lookup_branch(branch) != seen:
                raise moved()
            if durable:
                self._sync(written)
            self._write_reference(f"branch.{branch}", to, durable=durable)

    def keep(self) -> None:
        sync_file_system(self._root)

    def tag(
        self,
        repository: icechunk.Repository,  # noqa: ARG002 - as the other has
        name: str,
        snapshot: str,
        *,
        durable: bool = True,
        written: WriteBack | None = None,
    ) -> None:
        with self._locked():
            if durable:
                self._sync(written)
            if not self._new_reference(f"tag.{name}", snapshot):
                raise tag_exists(name)

    def branch(self, repository: icechunk.Repository, name: str, snapshot: str) -> None:  # noqa: ARG002 - as above
        with self._locked():
            sync_file_system(self._root)
            if not self._new_reference(f"branch.{name}", snapshot):
                raise branch_exists(name)

    def untag(self, name: str) -> None:
        with contextlib.suppress(MissingFileError):  # it has gone, and what was left of it as well
            path = os.path.join(self._root, REFS, f"tag.{name}", REMOVED)
            with DurableFile(path, overwrite=True, durable=False):
                pass

    def tag_again(self, name: str) -> None:
        folder = os.path.join(self._root, REFS, f"tag.{name}")
        with contextlib.suppress(FileNotFoundError):
            current().unlink(os.path.join(folder, REMOVED))
            sync_folder(current(), folder)

    def references(self) -> References:
        files, refs = current(), os.path.join(self._root, REFS)
        found = list[tuple[str, str]]()
        for folder in files.names(refs):
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                found += [(folder, name) for name in files.names(os.path.join(refs, folder))]
        return references_in(found)

    def forget(self, tags: Collection[str]) -> None:
        if not tags:
            return
        files, folders = current(), [os.path.join(self._root, REFS, f"tag.{name}") for name in tags]
        for file in (FILE, REMOVED):
            for folder in folders:
                with contextlib.suppress(FileNotFoundError):
                    files.unlink(os.path.join(folder, file))
            sync_file_system(self._root)  # a tag of which only the second was gone would be there again
        for folder in folders:
            with contextlib.suppress(OSError):
                files.rmdir(folder)

    def sweep(self) -> list[str]:
        with self._locked():
            self._remove_unmade()
            folders = [folder for part in ("refs", FOLDER) for folder, _, _ in os.walk(os.path.join(self._root, part))]
            found: list[str] = []
            for folder in folders:
                with contextlib.suppress(MissingFileError):
                    found += remove_leftovers(folder)
            return found

    def end(self, repository: icechunk.Repository, branch: str) -> None:
        files, folder = current(), os.path.join(self._root, "refs", f"branch.{branch}")
        with contextlib.suppress(icechunk.IcechunkError):
            repository.delete_branch(branch)
        with contextlib.suppress(OSError):
            files.unlink(os.path.join(folder, "ref.json"))  # which Icechunk leaves where it cannot read it
        with contextlib.suppress(OSError):
            files.rmdir(folder)  # and this always

    def mend(self) -> None:
        if not os.path.isdir(self._held):
            return
        try:
            with only_one(self._root, 0):
                self._put_back()
        except (ConflictError, StorageError, OSError):
            pass  # somebody is at it, or this user may only read; what is read tells

    @contextlib.contextmanager
    def cleaning(self) -> Iterator[None]:
        folder = os.path.join(self._root, FOLDER)
        os.makedirs(folder, exist_ok=True)
        try:
            with only_one(folder, 0):
                yield
        except ConflictError as error:
            raise ConflictError("somebody else is removing something", next_step="wait for it") from error

    @contextlib.contextmanager
    def expiring(self) -> Iterator[None]:
        """Hold on to every snapshot by a second name, since Icechunk replaces some without making them durable."""
        files = current()
        with self._locked():
            self._put_back()
            os.makedirs(self._held, exist_ok=True)
            for name in files.names(self._snapshots):
                files.link(os.path.join(self._snapshots, name), os.path.join(self._held, name))
            for folder in (self._held, os.path.dirname(self._held), self._root):
                sync_folder(files, folder)
            yield  # where it fails, or is cut off, who comes next puts back what was there
            sync_file_system(self._root)
            shutil.rmtree(self._held)
            sync_folder(files, os.path.dirname(self._held))

    def _put_back(self) -> None:
        """Give snapshots back that were held on to, if there are any."""
        files = current()
        if not os.path.isdir(self._held):
            return
        for name in files.names(self._held):
            # Of two names of one file this does nothing, and leaves both.
            files.rename(os.path.join(self._held, name), os.path.join(self._snapshots, name))
        sync_folder(files, self._snapshots)
        shutil.rmtree(self._held)
        sync_folder(files, os.path.dirname(self._held))

    @property
    def _snapshots(self) -> str:
        return os.path.join(self._root, "snapshots")

    @property
    def _held(self) -> str:
        return os.path.join(self._root, FOLDER, "expiring")

    def _sync(self, written: WriteBack | None) -> None:
        if written is None:
            sync_file_system(self._root)
        else:
            written.finish()

    def _locked(self) -> contextlib.AbstractContextManager[None]:
        return locked(self._root)

    def _new_reference(self, name: str, snapshot: str) -> bool:
        """Make a reference that is there as a whole, or not, and return False where there is one, or has been one."""
        files, refs = current(), os.path.join(self._root, "refs")
        self._remove_unmade()
        made = os.path.join(self._root, temporary_name(_REFERENCE))
        try:
            files.mkdir(made)
            self._write(made, snapshot, overwrite=False)
            files.rename(made, os.path.join(refs, name))
            sync_folder(files, refs)
        except OSError as error:
            shutil.rmtree(made, ignore_errors=True)
            if error.errno in _IN_THE_WAY:
                return False
            raise StorageError.from_os_error(error, "make a reference", self._root) from error
        return True

    def _remove_unmade(self) -> None:
        """Remove references that were never made: whoever holds the lock knows that their makers have died."""
        for name in current().names(self._root):
            if is_leftover(name) and name.startswith(f".{_REFERENCE}."):
                shutil.rmtree(os.path.join(self._root, name), ignore_errors=True)

    def _write_reference(self, name: str, snapshot: str, *, durable: bool) -> None:
        """Write what Icechunk's own ``refs/NAME/ref.json`` is, which it replaces without making anything durable."""
        self._write(os.path.join(self._root, "refs", name), snapshot, overwrite=True, durable=durable)

    @staticmethod
    def _write(folder: str, snapshot: str, *, overwrite: bool, durable: bool = True) -> None:
        with DurableFile(os.path.join(folder, "ref.json"), overwrite=overwrite, durable=durable) as file:
            file.write(f'{{"snapshot":"{snapshot}"}}'.encode())


@contextlib.contextmanager
def _locked_folder_in(parent: str, name: str) -> Iterator[str]:
    """Make a folder for what is to get a name in another folder, and hold its lock for a block."""
    files = current()
    while True:
        made = os.path.join(parent, temporary_name(name))
        files.mkdir(made)
        fd = files.open(made, os.O_RDONLY)
        try:
            # Until it is locked, somebody may take it for a leftover, and remove it.
            if _may_lock(fd) and is_at(files, fd, made):
                yield made
                return
        finally:
            files.closerange(fd, fd + 1)


def _may_lock(fd: int) -> bool:
    """Lock a folder; where there are no locks, there is nobody who would remove it either."""
    try:
        return current().try_lock(fd)
    except OSError:
        return True
