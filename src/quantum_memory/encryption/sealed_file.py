"""Read a sealed file as if it were not, and write one front to back."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Protocol

import numpy as np

from quantum_memory.durability.files import ReadableFile
from quantum_memory.encryption.envelope import SEGMENT_BYTES, STORED_BYTES, Lock, Segments, read_lock
from quantum_memory.encryption.primitives import TAG_BYTES
from quantum_memory.errors import RESTORE, IntegrityError

if TYPE_CHECKING:
    from types import TracebackType

    from quantum_memory.durability.files import Buffer, Readable
    from quantum_memory.encryption.keys import Key

_BATCH = 16
"""Segments that are read, or written, with one call."""

_KEPT = 16
"""Decrypted segments that are kept: neighbouring parts are often asked for one after another, by several threads."""


class Sink(Protocol):
    """Where the bytes of a file go, front to back."""

    def write(self, data: Buffer, /) -> object:
        """Take all of `data`."""


class SealedReadable:
    """What is in a sealed file, read at any offset and by any number of threads; what is read has been authenticated.

    Opening it checks its header and its last segment, and so its length. Any other segment is read and checked when
    something in it is asked for.

    Parameters
    ----------
    source
        The file; it belongs to this, which closes it, once it is made.
    key
        One that it was sealed with.

    Attributes
    ----------
    name, size
        Path of the file, and bytes of what is in it.

    Raises
    ------
    WrongKeyError
        It cannot be opened with this key, or no key was given.
    IntegrityError, UnsafeError, UnsupportedVersionError, StorageError
    """

    def __init__(self, source: Readable, key: Key | None) -> None:
        self._source = source
        self.name = source.name
        self.lock, self._segments = read_lock(source, key)
        self._start = len(self._segments.header)
        stored = source.size - self._start
        self._last = max(0, -(-stored // STORED_BYTES) - 1)
        self.size = stored - TAG_BYTES * (self._last + 1)
        if self.size < self._last * SEGMENT_BYTES:
            raise self._damaged(self._last)
        self._kept: OrderedDict[int, bytearray] = OrderedDict()
        self._guard = threading.Lock()
        self._segment(self._last)

    @property
    def stored_size(self) -> int:
        """Bytes of the file itself."""
        return self._source.size

    def read_into(self, buffer: memoryview, offset: int) -> None:
        """Fill `buffer` with the bytes from `offset` on.

        Raises
        ------
        IntegrityError
            Segments that they are in are damaged, or they end before the buffer is full.
        StorageError
        """
        end = offset + len(buffer)
        if end > self.size:
            raise IntegrityError(
                f"what is encrypted in it ends at byte {self.size}, inside data that should be there",
                path=self.name,
                next_step=RESTORE,
            )
        done = 0
        while done < len(buffer):
            number, skipped = divmod(offset + done, SEGMENT_BYTES)
            whole = 0 if skipped else min(_BATCH, (len(buffer) - done) // SEGMENT_BYTES)
            if whole:
                length = whole * SEGMENT_BYTES
                self._open_whole(buffer[done : done + length], number, whole)
            else:
                part = memoryview(self._segment(number))[skipped : skipped + len(buffer) - done]
                length = len(part)
                buffer[done : done + length] = part
            done += length

    def read(self, offset: int, length: int) -> bytes:
        """Return `length` bytes from `offset` on; see `read_into`. The caller has checked that they can exist."""
        buffer = bytearray(length)
        self.read_into(memoryview(buffer), offset)
        return bytes(buffer)

    def map(self, offset: int, length: int) -> memoryview:
        """Return bytes as memory that can be written to: a copy, since in the file they are encrypted."""
        buffer = memoryview(bytearray(length))
        self.read_into(buffer, offset)
        return buffer

    def close(self) -> None:
        """Close the file; reading afterwards fails."""
        with self._guard:
            self._kept.clear()
        self._source.close()

    def _segment(self, number: int) -> bytearray:
        """Return a segment, decrypted, which is not to be changed."""
        with self._guard:
            if number in self._kept:
                self._kept.move_to_end(number)
                return self._kept[number]
        raw = bytearray(min(SEGMENT_BYTES, self.size - number * SEGMENT_BYTES))
        self._open_whole(memoryview(raw), number, 1)
        with self._guard:
            self._kept[number] = raw
            if len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        return raw

    def _open_whole(self, out: memoryview, first: int, count: int) -> None:
        """Decrypt whole segments."""
        stored = np.empty(len(out) + count * TAG_BYTES, np.uint8).data  # a bytearray would be zeroed first
        self._source.read_into(stored, self._start + first * STORED_BYTES)
        for at in range(count):
            part = out[at * SEGMENT_BYTES : (at + 1) * SEGMENT_BYTES]
            sealed = stored[at * STORED_BYTES : (at + 1) * STORED_BYTES]
            if not self._segments.open_into(part, first + at, sealed, last=first + at == self._last):
                raise self._damaged(first + at)

    def _damaged(self, number: int) -> IntegrityError:
        start = self._start + number * STORED_BYTES
        end = min(start + STORED_BYTES, self._source.size) - 1
        return IntegrityError(
            f"its bytes {start} to {end} are not what was written: they are damaged, cut short, or somebody else's",
            path=self.name,
            next_step=RESTORE,
        )


class SealingSink:
    """A sink that encrypts what passes through to another; use it as a context manager, which ends the file.

    It takes a few MiB of memory.

    Parameters
    ----------
    sink
        The other.
    lock
        Which keys open it.
    """

    def __init__(self, sink: Sink, lock: Lock) -> None:
        self._sink = sink
        self._segments = Segments.new(lock)
        self._held = bytearray()
        self._number = 0

    def __enter__(self) -> SealingSink:
        self._sink.write(self._segments.header)
        return self

    def write(self, data: Buffer) -> int:
        """Take all of `data`."""
        view = memoryview(data).cast("B")
        done = 0
        while done < len(view):
            if len(self._held) == _BATCH * SEGMENT_BYTES:  # and there is more, so that its last segment is not the last
                self._pass(last=False)
            part = view[done : done + _BATCH * SEGMENT_BYTES - len(self._held)]
            self._held += part
            done += len(part)
        return done

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self._pass(last=True)

    def _pass(self, *, last: bool) -> None:
        """Encrypt what is held and write it."""
        count = max(1, -(-len(self._held) // SEGMENT_BYTES))
        out = np.empty(len(self._held) + count * TAG_BYTES, np.uint8).data
        with memoryview(self._held) as raw:
            for at in range(count):
                self._segments.seal_into(
                    out[at * STORED_BYTES : (at + 1) * STORED_BYTES],
                    self._number + at,
                    raw[at * SEGMENT_BYTES : (at + 1) * SEGMENT_BYTES],
                    last=last and at == count - 1,
                )
        self._sink.write(out)
        self._number += count
        self._held.clear()


def lock_of(path: str, key: Key | None) -> Lock:
    """Return what a sealed file is sealed with, so that another can be sealed for the same keys.

    Raises
    ------
    WrongKeyError, IntegrityError, MissingFileError, StorageError, UnsafeError, UnsupportedVersionError
    """
    with ReadableFile(path) as source:
        return read_lock(source, key)[0]
