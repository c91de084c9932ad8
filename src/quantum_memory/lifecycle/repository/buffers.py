"""Memory for chunks that is used again and again."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from quantum_memory.durability.files import Buffer

_LEAST = 16
_KEPT = 8 << 20


class Buffers:
    """Memory for chunks, used again and again by any number of threads.

    Memory that a process takes anew, or gave back and takes again, costs a fault for each of its pages: for a chunk
    that is more time than it takes to read it.
    """

    def __init__(self) -> None:
        # What codecs take and give back for each chunk stays with the process, too: glibc keeps up to twice as much as
        # the longest memory of its own that was ever given back. No page of this is touched.
        bytes(_KEPT)
        self._free: dict[int, list[memoryview]] = {}

    def take(self, length: int) -> memoryview:
        """Return memory of a length, which anything may be in."""
        size = max(_LEAST, (length - 1).bit_length())
        try:
            return self._free[size].pop()[:length]
        except (KeyError, IndexError):
            return memoryview(bytearray(1 << size))[:length]

    def give(self, buffer: Buffer) -> None:
        """Take back what `take` has returned, when nobody uses it any more; anything else that is no view is let be."""
        if isinstance(buffer, memoryview):
            whole = memoryview(buffer.obj)
            self._free.setdefault(len(whole).bit_length() - 1, []).append(whole)
