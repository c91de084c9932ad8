"""Changes to a file that are kept in memory, page by page, until they may be written into it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

PAGE = 4096

Fill = Callable[[memoryview, int], None]
"""Fills a buffer with the bytes from an offset on."""


class Overlay:
    """The first `length` bytes of a file, with changes.

    It is right for any order of changes that overlap, begin and end anywhere. A page that has been changed holds all
    its bytes, so that it can be written anew whatever the file has there.

    Parameters
    ----------
    length
        How much of the file it covers.
    read
        Reads what the file itself has there.

    Attributes
    ----------
    length : int
    """

    def __init__(self, length: int, read: Fill) -> None:
        self.length = length
        self._read = read
        self._kept = length  # behind this, the file was cut off at some time: what it has there counts as zeros
        self._pages: dict[int, bytearray] = {}

    def __bool__(self) -> bool:
        return bool(self._pages) or self._kept < self.length

    def read_into(self, view: memoryview, offset: int) -> None:
        """Fill `view`, which must lie within the length that is covered."""
        there = max(0, min(len(view), self._kept - offset))
        if there:
            self._read(view[:there], offset)
        if there < len(view):
            view[there:] = bytes(len(view) - there)
        for page, within, here in parts(offset, len(view)) if self._pages else ():
            if page in self._pages:
                view[here] = self._pages[page][within]

    def write(self, view: memoryview, offset: int) -> None:
        """Change bytes, which must lie within the length that is covered."""
        for page, within, here in parts(offset, len(view)):
            if page not in self._pages:
                whole = within.stop - within.start == PAGE
                self._pages[page] = bytearray(PAGE) if whole else self.page(page)
            self._pages[page][within] = view[here]

    def cut(self, length: int) -> None:
        """Forget everything behind `length`: it counts as zeros from now on."""
        self._kept = min(self._kept, length)
        for page in [page for page in self._pages if (page + 1) * PAGE > length]:
            start = page * PAGE
            if start >= length:
                del self._pages[page]
            else:
                self._pages[page][length - start :] = bytes(start + PAGE - length)

    def page(self, page: int) -> bytearray:
        """Return a copy of a page as it now is; behind the length that is covered it has zeros."""
        buffer = bytearray(PAGE)
        start = page * PAGE
        self.read_into(memoryview(buffer)[: self.length - start], start)
        return buffer

    def changed_pages(self, length: int) -> list[int]:
        """Return the numbers of the pages among the first `length` bytes that are not as the file has them."""
        changed = set(self._pages)
        if self._kept < length:
            changed.update(range(self._kept // PAGE, -(-min(length, self.length) // PAGE)))
        return sorted(page for page in changed if page * PAGE < length)


def parts(offset: int, length: int) -> Iterator[tuple[int, slice, slice]]:
    """Take a range apart at the borders of pages: the page, the slice within it, and the slice within the range."""
    done = 0
    while done < length:
        page, start = divmod(offset + done, PAGE)
        stop = min(PAGE, start + length - done)
        yield page, slice(start, stop), slice(done, done + stop - start)
        done += stop - start
