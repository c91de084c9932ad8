"""The folder in which a migration keeps originals and notes, and the calls that move files durably."""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING

from quantum_memory.durability.files import Files, current, is_unsupported
from quantum_memory.durability.folders import sync_names
from quantum_memory.durability.locks import locked
from quantum_memory.errors import ConflictError, InvalidStateError, MissingError, StorageError, UnsafeError
from quantum_memory.formats.urls import is_url
from quantum_memory.lifecycle.migration.entries import WORKPLACE, Source

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_LOCK_TIMEOUT = 0.2
_REMEMBERED = 1 << 12


class Workplace:
    """The place of one migration: ``.qmem-migration/<plan id>`` in the folder that is migrated.

    Parameters
    ----------
    root
        The folder, without symbolic links.
    plan_id
        Which migration.

    Attributes
    ----------
    plan, journal, staged : str
        Paths of the copy of the plan, of the journal, and of the folder of new files that have no name yet.
    """

    def __init__(self, root: str, plan_id: str) -> None:
        self.root = root
        self._durable: set[str] = set()  # folders whose names are, as far as that is remembered
        self.place = os.path.join(root, WORKPLACE, plan_id)
        self.plan, self.journal, self.staged, self._originals = (
            os.path.join(self.place, name) for name in ("plan.json", "journal.jsonl", "staged", "originals")
        )

    def at(self, source: Source) -> str:
        """Return where a file is in the folder."""
        return os.path.join(self.root, source.path)

    def kept(self, source: Source) -> str:
        """Return where the original of a file is kept."""
        return os.path.join(self._originals, source.path)

    def new(self, number: int, target: str) -> str:
        """Return where a new file is until it gets its name."""
        return os.path.join(self.staged, f"{number}.{target}")

    def remove_unfinished(self) -> None:
        """Remove new files that have no names yet; of one that was killed."""
        files = current()
        with explained("list", self.staged):
            names = files.names(self.staged) if os.path.isdir(self.staged) else []
        for name in names:
            drop(os.path.join(self.staged, name))

    def remove_empty(self) -> None:
        """Remove the folders of new files and of originals where nothing is in them, durably."""
        files = current()
        removed = []
        for folder in (self.staged, self._originals):
            for inner, _, _ in os.walk(folder, topdown=False):
                with contextlib.suppress(OSError):
                    files.rmdir(inner)
                    removed.append(inner)
        self._durable.difference_update(removed)
        sync_folders(one for one in removed if os.path.isdir(os.path.dirname(one)))

    def make_folder(self, path: str) -> None:
        """Make a folder and those above it, down from the root, durably.

        One that is there already may have been made by a process that was killed before it could sync its name.
        """
        new = []
        while path != self.root and path not in self._durable:
            new.append(path)
            path = os.path.dirname(path)
        if len(self._durable) > _REMEMBERED:
            self._durable.clear()
        for folder in reversed(new):
            with explained("make a folder", folder):
                try:
                    current().mkdir(folder)
                except FileExistsError:
                    if not os.path.isdir(folder):
                        raise
            sync_folders([folder])
            self._durable.add(folder)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Lock out every other migration of the folder.

        Raises
        ------
        ConflictError
            There is one.
        """
        files = current()
        path = os.path.join(self.root, WORKPLACE, "lock")
        check_inside(self.root, os.path.relpath(self.place, self.root))
        self.make_folder(os.path.dirname(path))
        with explained("make the lock", path):
            files.close(files.open(path, os.O_RDWR | os.O_CREAT))
        with contextlib.ExitStack() as held:
            try:
                held.enter_context(locked(path, path, write=True, timeout=_LOCK_TIMEOUT))
            except ConflictError as error:
                raise ConflictError(
                    "another migration of this folder is running", path=self.root, next_step="wait until it has ended"
                ) from error
            yield


def migrations(root: str) -> list[str]:
    """Return the ids of the plans that were applied to a folder, the oldest first."""
    place = Path(root, WORKPLACE)
    try:
        found = [item for item in place.iterdir() if (item / "journal.jsonl").exists()]
    except OSError:
        return []
    return [item.name for item in sorted(found, key=lambda item: (item / "plan.json").stat().st_mtime_ns)]


def the_migration(root: str, plan_id: str | None, candidates: list[str]) -> str:
    """Return which migration is meant: the one that an id begins with, or the only one of some.

    Raises
    ------
    MissingError, ConflictError
        There is none, or more than one.
    """
    there = migrations(root)
    found = candidates if plan_id is None else [one for one in there if one.startswith(plan_id)]
    if not found:
        shown = ", ".join(one[:12] for one in there) or "none"
        raise MissingError(
            "there is no such migration" if plan_id else "there is no migration to be rolled back or made final",
            path=root,
            next_step=f"qmem migrate status says which there were: {shown}",
        )
    if len(found) > 1:
        raise ConflictError(
            f"there are {len(found)} migrations",
            path=root,
            next_step=f"say which (--id): {', '.join(one[:12] for one in found)}",
        )
    return found[0]


def real_root(folder: str | os.PathLike[str]) -> str:
    """Return a folder without symbolic links.

    Raises
    ------
    MissingError
        It is no folder.
    InvalidStateError
        It is an address.
    """
    if is_url(folder):
        raise InvalidStateError(
            "nothing of the first implementation is at an address",
            path=folder,
            next_step="qmem convert OLD ADDRESS writes what such a file holds there",
        )
    root = os.path.realpath(folder)
    if not os.path.isdir(root):
        raise MissingError("there is no such folder", path=folder, next_step="check the path")
    return root


def check_inside(root: str, path: str) -> None:
    """Refuse a path that leaves the folder by way of a symbolic link.

    Raises
    ------
    UnsafeError
    """
    full = os.path.join(root, path)
    if os.path.realpath(full) != full:
        raise UnsafeError(
            "a symbolic link is on the way to it", path=full, next_step="make a new plan, which leaves it alone"
        )


@contextlib.contextmanager
def explained(doing: str, path: str) -> Iterator[None]:
    """Make one of our errors of what the operating system refuses."""
    try:
        yield
    except (StorageError, ConflictError):
        raise
    except OSError as error:
        raise StorageError.from_os_error(error, doing, path) from error


def sync_folders(paths: Iterable[str]) -> None:
    """Make the names in the folders of some paths durable."""
    for folder in dict.fromkeys(os.path.dirname(path) for path in paths):
        sync_names(folder)


def drop(path: str) -> None:
    """Remove a file that need not be there."""
    with explained("remove", path), contextlib.suppress(FileNotFoundError):
        current().unlink(path)


def link(source: str, target: str) -> None:
    """Give a file a second name.

    Raises
    ------
    StorageError
        Its file system has no hard links.
    """
    try:
        current().link(source, target)
    except OSError as error:
        if error.errno != errno.EPERM and not is_unsupported(error):
            raise
        raise StorageError(
            "its file system has no hard links, without which a name could be without a file",
            path=source,
            next_step="copy the folder to a file system that has them, and migrate it there",
        ) from error


def exists(files: Files, path: str) -> bool:
    """Tell whether there is a file."""
    try:
        files.stat(path)
    except FileNotFoundError:
        return False
    return True


def same_file(files: Files, path: str, other: str) -> bool:
    """Tell whether two paths are names of one file, which is there."""
    try:
        here, there = files.stat(path), files.stat(other)
    except FileNotFoundError:
        return False
    return (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)
