"""Where files of a folder of backups go that are damaged, and that nobody but people removes."""

from __future__ import annotations

import contextlib
import os
from itertools import count
from typing import TYPE_CHECKING, Literal

from quantum_memory.durability.atomic import sync_folder
from quantum_memory.durability.files import ReadableFile, current
from quantum_memory.durability.folders import make_folder
from quantum_memory.errors import MissingFileError, StorageError, UnsafeError
from quantum_memory.lifecycle.repository.manifest_file import DIGEST_BYTES

if TYPE_CHECKING:
    from collections.abc import Set

    from quantum_memory.lifecycle.backups.folder import BackupFolder

QUARANTINE = "quarantine"


class Quarantine:
    """Where damaged files go."""

    def __init__(self, folder: BackupFolder) -> None:
        self._folder = folder
        self._at = os.path.join(folder.path, QUARANTINE)

    def move(self, path: str) -> None:
        """Move a file, which is given as path in the folder, durably."""
        self.rename(os.path.join(self._folder.path, path), self._free(path))

    def copy(self, path: str) -> None:
        """Give a file a second name, under which it stays when another takes the first one, durably."""
        self._do("link", os.path.join(self._folder.path, path), self._free(path))

    def rename(self, source: str, target: str) -> None:
        """Move a file within the folder, durably."""
        self._do("rename", source, target)

    def _do(self, what: Literal["link", "rename"], source: str, target: str) -> None:
        files = current()
        try:
            (files.link if what == "link" else files.rename)(source, target)
            for folder in (os.path.dirname(target), os.path.dirname(source)):
                if self._folder.durable:
                    sync_folder(files, folder)
        except OSError as error:
            raise StorageError.from_os_error(error, "move aside", source) from error

    def _free(self, path: str) -> str:
        """Return a path that nothing has."""
        make_folder(self._at, durable=self._folder.durable, mode=0o700)
        name = os.path.basename(path)
        numbered = (os.path.join(self._at, f"{name}.{number}" if number else name) for number in count())
        return next(free for free in numbered if not os.path.lexists(free))


def names_set_aside(folder: str, known: Set[bytes]) -> set[bytes]:
    """Return the names of those chunks that are known and that manifests in quarantine name, as far as can be told.

    Raises
    ------
    StorageError
        One cannot be read now: nobody knows what it names.
    """
    at = os.path.join(folder, QUARANTINE)
    try:
        there = current().names(at)
    except FileNotFoundError:
        return set()
    except OSError as error:
        raise StorageError.from_os_error(error, "list", at) from error
    found: set[bytes] = set()
    for name in there:
        if ".qmbk" in name:  # also one with a number behind it
            with contextlib.suppress(MissingFileError, UnsafeError), ReadableFile(os.path.join(at, name)) as source:
                found |= _names_in(source.read(0, source.size), known)
    return found


def _names_in(data: bytes, known: Set[bytes]) -> set[bytes]:
    """Return the names in a manifest that is damaged somewhere: they are at its end, or anywhere if that is cut off."""
    for start in range(DIGEST_BYTES):
        first = (len(data) - start) % DIGEST_BYTES
        if found := known & {data[at : at + DIGEST_BYTES] for at in range(first, len(data) - 31, DIGEST_BYTES)}:
            return set(found)
    return set()
