"""The packs of a store as files: where they are, and a few of them open."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import threading
from typing import TYPE_CHECKING

from quantum_memory.durability import forks, pack
from quantum_memory.durability.files import ReadableFile, current
from quantum_memory.errors import IntegrityError, StorageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from quantum_memory.durability.pack import Place

_SUFFIX = ".qmpack"
_NAME = re.compile(r"[0-9a-f]{32}\.qmpack")
_OPEN_FILES = 16


class PackFiles:
    """The files of the packs in a folder.

    Parameters
    ----------
    folder
        Where they are.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self._open: dict[str, ReadableFile] = {}
        self._guard = threading.Lock()
        forks.tell(self)

    def forked(self) -> None:
        """Let go of the lock of the process that this one was forked from."""
        self._guard = threading.Lock()

    def names(self) -> set[str]:
        """Return the names of the packs that are there.

        Raises
        ------
        StorageError
        """
        try:
            return {name for name in current().names(self.folder) if _NAME.fullmatch(name)}
        except OSError as error:
            raise StorageError.from_os_error(error, "list", self.folder) from error

    def new_path(self) -> str:
        """Return where a new pack goes, under a name that nobody else is given."""
        return self.path(secrets.token_hex(16) + _SUFFIX)

    def path(self, name: str) -> str:
        """Return where a pack is."""
        return os.path.join(self.folder, name)

    def copy_path(self, name: str) -> str:
        """Return where the copy of the list of a pack is."""
        return self.path(name.removesuffix(_SUFFIX) + pack.COPY_SUFFIX)

    @contextlib.contextmanager
    def opened(self, name: str) -> Iterator[ReadableFile]:
        """Give an open pack. A few stay open, until a collection or `close`, when nobody reads them."""
        with self._guard:
            file = self._open.get(name)
            if file is None and len(self._open) < _OPEN_FILES:
                file = self._open[name] = ReadableFile(self.path(name))
        if file is not None:
            yield file
            return
        with contextlib.closing(ReadableFile(self.path(name))) as file:
            yield file

    def read(self, name: str, place: Place, buffer: memoryview) -> bool:
        """Read the stored bytes of a chunk, and tell whether they fit the buffer and match their checksum.

        What does not match is read once more, from the disk: it may be the memory that is damaged.
        """
        if place.stored > len(buffer):
            return False
        view = buffer[: place.stored]
        with self.opened(name) as file:
            try:
                file.read_into(view, place.offset)
                if pack.checksum(view) != place.check:
                    file.forget(place.offset, place.stored)
                    file.read_into(view, place.offset)
            except IntegrityError:  # the file was cut short since its index was read
                return False
        return pack.checksum(view) == place.check

    def shut(self, name: str) -> None:
        """Close a pack, if it is open."""
        with self._guard:
            if (file := self._open.pop(name, None)) is not None:
                file.close()

    def close(self) -> None:
        """Close all of them, even where one of them is interrupted."""
        with self._guard, contextlib.ExitStack() as each:
            while self._open:
                each.callback(self._open.popitem()[1].close)
