"""A `Readable` as a file object, for libraries that want one."""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING, Any

from quantum_memory.errors import StorageError

if TYPE_CHECKING:
    from quantum_memory.durability.files import Readable


class Stream(io.RawIOBase):
    """Read an open file front to back or at any place. It ends where the file ended when it was opened.

    Parameters
    ----------
    source
        What is read. Closing the stream leaves it open.

    Attributes
    ----------
    failure : StorageError or None
        What the operating system refused last: libraries say something else of it.
    """

    def __init__(self, source: Readable) -> None:
        self._source = source
        self._position = 0
        self.failure: StorageError | None = None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._source.size}[whence]
        if base + offset < 0:
            raise ValueError("before the beginning of the file")
        self._position = base + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        wanted = memoryview(buffer).cast("B")
        part = wanted[: max(0, min(len(wanted), self._source.size - self._position))]
        try:
            self._source.read_into(part, self._position)
        except StorageError as error:
            self.failure = error
            raise
        self._position += len(part)
        return len(part)
