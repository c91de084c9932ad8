"""The redo log: what a transaction overwrites in a file, kept behind the end of the file until it is overwritten.

::

    [0, before)  what was committed      [start, end)  the log
    [before, after)  what was appended        page numbers   count x 8 bytes
                                              pages          count x 4096 bytes
                                              footer         64 bytes, the last of them a checksum

All integers are little-endian; ``start`` is the larger of ``before`` and ``after``. The log is the end of the file, or
there is none: it is found from its footer, the last 64 bytes. The checksum (XXH3, 128 bits) covers the log, and what
was appended too where that is short. So a log whose checksum fits is whole, belongs to the file that it is in, and
finds behind ``before`` what it was written for.
"""

from __future__ import annotations

import itertools
import struct
from bisect import bisect_left
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import xxhash

from quantum_memory.durability.files import read_up_to, write_all_at
from quantum_memory.durability.overlay import PAGE, parts
from quantum_memory.errors import UnsafeError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from quantum_memory.durability.files import Files
    from quantum_memory.durability.overlay import Overlay

MOST_PAGES = 1 << 20
"""What one transaction may overwrite, 4 GiB: a bound also for those who look for a log."""

_FOOTER = struct.Struct("<8sQQQQQ16s")
_MAGIC = b"QMREDO1\n"
_DIGEST_BYTES = 16
_AT_ONCE = 256  # pages: 1 MiB
_SHORT = 1 << 20  # appended bytes that are read back for the checksum, which saves an fsync


@dataclass(frozen=True)
class RedoLog:
    """A whole log in an open file.

    Attributes
    ----------
    before, after
        The length of the file before the transaction, and after it.
    start
        Where the log begins.
    """

    before: int
    after: int
    start: int
    _pages: Sequence[int] = field(repr=False)

    def patch(self, files: Files, fd: int, view: memoryview, offset: int) -> None:
        """Lay what the log has over `view`, into which the file was read from `offset` on."""
        inside = max(0, min(len(view), min(self.before, self.after) - offset))
        for page, within, here in parts(offset, inside):
            index = bisect_left(self._pages, page)
            if index < len(self._pages) and self._pages[index] == page:
                _read_exactly(files, fd, view[here], self._place(index) + within.start)

    def apply(self, files: Files, fd: int) -> None:
        """Overwrite what the transaction overwrites, which may have been done in part before."""
        limit = min(self.before, self.after)
        done = 0
        while done < len(self._pages):
            first, count = self._pages[done], 1
            while count < _AT_ONCE and done + count < len(self._pages) and self._pages[done + count] == first + count:
                count += 1
            buffer = memoryview(bytearray(min(count * PAGE, limit - first * PAGE)))
            _read_exactly(files, fd, buffer, self._place(done))
            write_all_at(files, fd, buffer, first * PAGE)
            done += count

    def replay(self, files: Files, fd: int) -> None:
        """Finish the transaction of a process that is gone."""
        files.fsync(fd)  # that process may have been killed before it did so
        self.apply(files, fd)
        files.fsync(fd)
        files.truncate(fd, self.after)

    def _place(self, index: int) -> int:
        return self.start + len(self._pages) * 8 + index * PAGE


def write_log(files: Files, fd: int, overlay: Overlay, after: int, *, durable: bool) -> RedoLog:
    """Write the log of a transaction behind the end of the file; the transaction is committed when this returns.

    Raises
    ------
    OSError
    UnsafeError
        It overwrites more than a log may hold.
    """
    before = overlay.length
    pages = overlay.changed_pages(after)
    if len(pages) > MOST_PAGES:
        raise UnsafeError(
            f"one transaction overwrites {len(pages) * PAGE} bytes",
            next_step=f"commit after every {MOST_PAGES * PAGE} bytes",
        )
    start = max(before, after)
    short = start - before <= _SHORT
    if durable and not short:
        files.fsync(fd)  # the log must not be there without what was appended, and its checksum does not see to that
    digest = xxhash.xxh3_128()
    if short:
        appended = memoryview(bytearray(start - before))
        _read_exactly(files, fd, appended, before)
        digest.update(appended)
    position = start
    numbers = struct.pack(f"<{len(pages)}Q", *pages)
    groups = (b"".join(map(overlay.page, pages[i : i + _AT_ONCE])) for i in range(0, len(pages), _AT_ONCE))
    for piece in (numbers, *groups):
        digest.update(piece)
        write_all_at(files, fd, memoryview(piece), position)
        position += len(piece)
    facts = (_MAGIC, before if short else start, start, before, after, len(pages))
    digest.update(_FOOTER.pack(*facts, b"")[:-_DIGEST_BYTES])
    write_all_at(files, fd, memoryview(_FOOTER.pack(*facts, digest.digest())), position)
    if durable:
        files.fsync(fd)
    return RedoLog(before, after, start, pages)


def find_log(files: Files, fd: int, size: int) -> RedoLog | None:
    """Return the log at the end of a file of `size` bytes, or None where there is none or a part of one."""
    footer = bytearray(_FOOTER.size)
    if size < len(footer):
        return None
    _read_exactly(files, fd, memoryview(footer), size - len(footer))
    magic, covered, start, before, after, count, digest = _FOOTER.unpack(footer)
    if (
        magic != _MAGIC
        or count > MOST_PAGES
        or start != max(before, after)
        or covered not in {before, start}
        or start - covered > _SHORT
        or start + count * (8 + PAGE) + len(footer) != size
    ):
        return None
    if _digest(files, fd, covered, size - _DIGEST_BYTES) != digest:
        return None
    numbers = bytearray(count * 8)
    _read_exactly(files, fd, memoryview(numbers), start)
    pages = struct.unpack(f"<{count}Q", numbers)
    ordered = all(one < other for one, other in itertools.pairwise(pages))
    if not ordered or (pages and pages[-1] * PAGE >= min(before, after)):
        return None
    return RedoLog(before, after, start, pages)


def _digest(files: Files, fd: int, start: int, stop: int) -> bytes:
    digest = xxhash.xxh3_128()
    buffer = memoryview(bytearray(min(_AT_ONCE * PAGE, stop - start)))
    while start < stop:
        part = buffer[: stop - start]
        _read_exactly(files, fd, part, start)
        digest.update(part)
        start += len(part)
    return digest.digest()


def _read_exactly(files: Files, fd: int, buffer: memoryview, offset: int) -> None:
    """Fill `buffer`, with zeros behind the end of a file that got shorter under us."""
    got = read_up_to(files, fd, buffer, offset)
    buffer[got:] = bytes(len(buffer) - got)
