"""Small files beside a repository: who is writing to it, and what was last cleaned or acknowledged.

They are objects under ``quantum-memory/`` in the prefix of the repository, or files in its folder, written durably.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any, Protocol

from obstore.exceptions import AlreadyExistsError, PreconditionError

from quantum_memory.cloud.folder_lock import locked
from quantum_memory.cloud.others_first import TRIES, pause, too_often
from quantum_memory.durability.atomic import DurableFile, is_leftover, sync_folder
from quantum_memory.durability.files import ReadableFile, current
from quantum_memory.errors import MissingFileError, StorageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from obstore.store import S3Store

FOLDER = "quantum-memory"


class Notes(Protocol):
    """Small texts by name."""

    def write(self, name: str, text: bytes, *, durable: bool = True) -> None:
        """Write a note, which replaces one of the same name."""

    def read(self, name: str) -> bytes | None:
        """Return a note, None where there is none."""

    def change(self, name: str, change: Callable[[bytes | None], bytes]) -> None:
        """Replace a note by what is made of it; nobody else changes it meanwhile.

        Parameters
        ----------
        change
            Is called again, with what others have made of it, where they were quicker.

        Raises
        ------
        ConflictError
            Others were, all the time.
        """

    def remove(self, name: str) -> None:
        """Remove a note, if it is there."""

    def names(self, folder: str) -> list[str]:
        """Return the names of the notes whose name begins with ``folder/``."""


class ObjectNotes:
    """Notes as objects."""

    def __init__(self, store: S3Store) -> None:
        self._store = store

    def write(self, name: str, text: bytes, *, durable: bool = True) -> None:  # noqa: ARG002 - an object always is
        self._store.put(f"{FOLDER}/{name}", text)

    def read(self, name: str) -> bytes | None:
        try:
            return bytes(self._store.get(f"{FOLDER}/{name}").bytes())
        except FileNotFoundError:
            return None

    def change(self, name: str, change: Callable[[bytes | None], bytes]) -> None:
        for attempt in range(TRIES):
            try:
                found = self._store.get(f"{FOLDER}/{name}")
                before, mark = bytes(found.bytes()), found.meta["e_tag"]
            except FileNotFoundError:
                before, mark = None, None
            text = change(before)
            # Some want the tag without its quotes.
            marks = () if mark is None else dict.fromkeys([mark, mark.strip('"')])
            modes: list[Any] = [{"e_tag": one} for one in marks] or ["create"]
            for mode in modes:
                with contextlib.suppress(AlreadyExistsError, PreconditionError):
                    self._store.put(f"{FOLDER}/{name}", text, mode=mode)
                    return
            pause(attempt)
        raise too_often()

    def remove(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._store.delete(f"{FOLDER}/{name}")

    def names(self, folder: str) -> list[str]:
        found = self._store.list_with_delimiter(f"{FOLDER}/{folder}")["objects"]
        return sorted(f"{folder}/{one['path'].rpartition('/')[2]}" for one in found)


class FileNotes:
    """Notes as files, each of which is there as a whole, or not, after a power cut."""

    def __init__(self, root: str) -> None:
        self._root = os.path.join(root, FOLDER)

    def write(self, name: str, text: bytes, *, durable: bool = True) -> None:
        path = os.path.join(self._root, name)
        self._make(os.path.dirname(path))
        with DurableFile(path, overwrite=True, durable=durable) as file:
            file.write(text)

    def read(self, name: str) -> bytes | None:
        try:
            with ReadableFile(os.path.join(self._root, name)) as file:
                return file.read(0, file.size)
        except MissingFileError:
            return None

    def change(self, name: str, change: Callable[[bytes | None], bytes]) -> None:
        with locked(os.path.dirname(self._root)):
            self.write(name, change(self.read(name)))

    def remove(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            current().unlink(os.path.join(self._root, name))

    def names(self, folder: str) -> list[str]:
        try:
            found = current().names(os.path.join(self._root, folder))
        except FileNotFoundError:
            return []
        return sorted(f"{folder}/{name}" for name in found if not is_leftover(name))

    def _make(self, folder: str) -> None:
        files = current()
        try:
            for made in (self._root, folder):
                with contextlib.suppress(FileExistsError):
                    files.mkdir(made)
                    sync_folder(files, os.path.dirname(made))
        except OSError as error:
            raise StorageError.from_os_error(error, "make a folder", folder) from error
