"""The file object that h5py calls back: a position, over reads and writes at any offset."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from quantum_memory.durability.files import Buffer


class FileObject(ABC):
    """What HDF5 needs of a file, for one thread; the methods that take an offset may be for any."""

    def __init__(self) -> None:
        self._position = 0

    @property
    @abstractmethod
    def size(self) -> int:
        """The length with all changes."""

    @abstractmethod
    def read_into(self, buffer: memoryview, offset: int) -> None:
        """Fill `buffer` with the bytes from `offset` on."""

    @abstractmethod
    def write_at(self, data: Buffer, offset: int) -> int:
        """Write `data` at `offset`, and return its length in bytes."""

    @abstractmethod
    def set_length(self, length: int) -> None:
        """Cut the file off, or extend it with zeros."""

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Set the position of `readinto` and `write`, and return it."""
        position = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.size}[whence]
        if position < 0:
            raise ValueError("before the beginning of the file")
        self._position = position
        return position

    def tell(self) -> int:
        """Return the position."""
        return self._position

    def readinto(self, buffer: Buffer) -> int:
        """Read at the position and return how many bytes there were; the rest of `buffer` becomes zeros."""
        view = memoryview(buffer).cast("B")
        there = max(0, min(len(view), self.size - self._position))
        self.read_into(view[:there], self._position)
        view[there:] = bytes(len(view) - there)
        self._position += there
        return there

    def write(self, data: Buffer) -> int:
        """Write at the position and return the length in bytes."""
        length = self.write_at(data, self._position)
        self._position += length
        return length

    def truncate(self, size: int | None = None) -> int:
        """Cut the file off at `size` (by default at the position) or extend it with zeros, and return its length."""
        length = self._position if size is None else size
        self.set_length(length)
        return length
