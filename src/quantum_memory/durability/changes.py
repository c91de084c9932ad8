"""An open file with the changes of one transaction, of which the file itself shows nothing before the commit point."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING

from quantum_memory.durability.atomic import WRITEBACK_BYTES
from quantum_memory.durability.files import map_privately, read_up_to, write_all_at
from quantum_memory.durability.overlay import Overlay
from quantum_memory.durability.redo_log import RedoLog, write_log
from quantum_memory.errors import RESTORE, IntegrityError

if TYPE_CHECKING:
    from quantum_memory.durability.files import Files


class ChangedFile:
    """The bytes of a file, and the changes to them. It raises `OSError` as the operating system does.

    Parameters
    ----------
    files, fd
        The open file.
    base
        Its committed length.
    durable
        Whether to ``fsync``.
    log
        A log that could not be applied to the file, and counts as if it had been; such a file is only read.

    Attributes
    ----------
    base, size : int
        The committed length, and the length with the changes.
    """

    def __init__(self, files: Files, fd: int, base: int, *, durable: bool, log: RedoLog | None = None) -> None:
        self._files = files
        self._fd = fd
        self._durable = durable
        self._log = log
        self._lock = threading.Lock()  # of the size and the overlay; not held while bytes are appended
        self.begin(base)

    def begin(self, base: int) -> None:
        """Begin a transaction on a file of `base` bytes."""
        self.base = self.size = self._flushed = base
        self._torn = 0  # how far a write that failed may have come
        self._overlay = Overlay(base, self._fill)

    @property
    def is_changed(self) -> bool:
        """Whether there is anything to be committed."""
        return bool(self._overlay) or self.size != self.base

    def read_into(self, view: memoryview, offset: int) -> None:
        """Fill `view` with bytes that are there."""
        below = max(0, min(self.base - offset, len(view))) if self._overlay else 0
        if below:
            with self._lock:
                self._overlay.read_into(view[:below], offset)
        self._fill(view[below:], offset + below)

    def map(self, offset: int, length: int, name: str) -> memoryview:
        """Return bytes that are there as memory; see `ReadableFile.map`."""
        if self._overlay or not length:
            copy = memoryview(bytearray(length))
            self.read_into(copy, offset)
            return copy
        view = map_privately(self._fd, offset + length, name)[offset:]
        if self._log is not None:
            self._log.patch(self._files, self._fd, view, offset)
        return view

    def write_at(self, view: memoryview, offset: int) -> None:
        """Write into the overlay what is below the committed length, and the rest into the file."""
        below = max(0, min(self.base - offset, len(view)))
        if below:
            with self._lock:
                self._overlay.write(view[:below], offset)
                self.size = max(self.size, offset + below)
        # In pieces, so that the disk begins with the first ones while the others are still being copied.
        for start in range(below, len(view), WRITEBACK_BYTES):
            piece = view[start : start + WRITEBACK_BYTES]
            try:
                write_all_at(self._files, self._fd, piece, offset + start)
            except BaseException:
                self._torn = max(self._torn, offset + start + len(piece))
                raise
            self._grow(offset + start + len(piece))

    def truncate(self, length: int) -> None:
        """Change the length; what is added is zeros."""
        with self._lock:
            if length < self.size:
                self._overlay.cut(length)
            self._set_length(max(length, self.base))
            self.size = length
            self._flushed = min(self._flushed, length)

    def prepare(self) -> RedoLog:
        """Make the changes durable behind the end of the file: the commit point. A failure takes them back."""
        try:
            return write_log(self._files, self._fd, self._overlay, self.size, durable=self._durable)
        except BaseException as error:
            with contextlib.suppress(OSError):  # the first error is the one that counts
                self._files.truncate(self._fd, self.base)
                # After an interrupt the log may be whole and on the disk: nobody is to find it behind what is appended
                # later. After an error it is not whole, or else it was the fsync that failed, which is not tried again.
                if self._durable and not isinstance(error, OSError):
                    self._files.fsync(self._fd)
            raise

    def finish(self, log: RedoLog) -> None:
        """Put the changes in their place, and begin the next transaction."""
        log.apply(self._files, self._fd)
        if self._durable:
            self._files.fsync(self._fd)
        self._files.truncate(self._fd, log.after)
        self.begin(log.after)

    def abandon(self) -> None:
        """Forget the changes, and begin the next transaction."""
        self._set_length(self.base)
        self.begin(self.base)

    def _set_length(self, length: int) -> None:
        """Change the length of the file itself, which is never shorter than what was committed."""
        there = max(self.size, self.base)
        if self._torn > there:  # a write that failed left a part of its bytes where zeros are expected later
            self._files.truncate(self._fd, there)
            self._torn = 0
        if length != there:
            self._files.truncate(self._fd, length)

    def _fill(self, view: memoryview, offset: int) -> None:
        """Fill `view` from the file itself."""
        got = read_up_to(self._files, self._fd, view, offset)
        if got < len(view):
            raise IntegrityError(f"it now ends at byte {offset + got}", next_step=RESTORE)
        if self._log is not None:
            self._log.patch(self._files, self._fd, view, offset)

    def _grow(self, end: int) -> None:
        """Take note that bytes were written up to `end`, and let the disk begin with them."""
        with self._lock:
            self.size = max(self.size, end)
            start, length = self._flushed, self.size - self._flushed
            if not self._durable or length < WRITEBACK_BYTES:
                return
            self._flushed = self.size
        self._files.start_writeback(self._fd, start, length)
