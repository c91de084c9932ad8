"""Where files of a folder of backups go that are damaged, and that nobody but people removes."""

from __future__ import annotations

import os
from itertools import count
from typing import TYPE_CHECKING, Literal

from quantum_memory.durability.atomic import sync_folder
from quantum_memory.durability.chunk_store import make_folder
from quantum_memory.durability.files import current
from quantum_memory.errors import StorageError

if TYPE_CHECKING:
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
