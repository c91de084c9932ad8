"""Long rows of numbers in blocks, each packed by pcodec: how forms write down their integers and floats.

A row of `count` numbers is a stream of bytes, the blocks of `BLOCK` numbers one after another, and where there are
several a part with the length of each. A block that pcodec does not shrink is stored as it is, which its length says.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

from quantum_memory.compression.forms.base import RowBlocks, Stream, malformed, row_parts
from quantum_memory.compression.forms.views import View
from quantum_memory.state.arrays import worker_count

if TYPE_CHECKING:
    from collections.abc import Mapping

    from quantum_memory.compression.forms.base import Part
    from quantum_memory.state.arrays import AnyArray

BLOCK = 1 << 18
"""Numbers in a block. It is part of the format."""

LEVEL = 8
"""How hard pcodec tries, from 0 to 12: from here on it gains little and takes much longer."""

PACKED_TYPES = frozenset(["<u2", "<u4", "<u8", "<i2", "<i4", "<i8", "<f4", "<f8"])
"""What pcodec packs; other types are viewed as one of these."""


def pack_block(block: AnyArray, level: int = LEVEL) -> bytes:
    """Return a block of numbers packed by pcodec, or as it is where that is not longer."""
    from pcodec import ChunkConfig, DeltaSpec, ModeSpec, standalone  # noqa: PLC0415 - when first used

    config = ChunkConfig(compression_level=level, mode_spec=ModeSpec.classic(), delta_spec=DeltaSpec.no_op())
    packed: bytes = standalone.simple_compress(np.ascontiguousarray(block), config)
    return packed if len(packed) < block.nbytes else block.tobytes()


def unpack_block(packed: AnyArray, out: AnyArray) -> None:
    """Fill `out`, contiguous, from a block.

    Raises
    ------
    IntegrityError
        It is not a block of so many numbers of this type.
    """
    from pcodec import standalone  # noqa: PLC0415 - when first used

    if len(packed) == out.nbytes:
        out.view(np.uint8)[...] = packed
        return
    if len(packed) > out.nbytes:
        raise malformed("a block of numbers is longer than the numbers are")
    try:
        done = standalone.simple_decompress_into(packed.tobytes(), out)
        whole = done.n_processed == len(out) and done.finished
    except (KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except BaseException as error:  # what its code panics with is no Exception
        raise malformed("a block of numbers is not what pcodec writes") from error
    if not whole:
        raise malformed("a block has another number of numbers")


class NumberWriter:
    """Packs a row of numbers that comes in pieces; use it as a context manager.

    Parameters
    ----------
    dtype
        Their type, one of `PACKED_TYPES`.
    """

    def __init__(self, dtype: Any, level: int = LEVEL) -> None:
        self._dtype = np.dtype(dtype)
        self._level = level
        self._stream = Stream()
        self._lengths: list[int] = []
        self._rest = np.empty(0, self._dtype)
        self._pool = ThreadPoolExecutor(worker_count(), "numbers")
        self._ahead: deque[Future[bytes]] = deque()

    def __enter__(self) -> NumberWriter:
        return self

    def __exit__(self, *error: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def append(self, numbers: AnyArray) -> None:
        """Take all of `numbers`, which must not change afterwards."""
        row = np.concatenate([self._rest, numbers]) if len(self._rest) else numbers
        whole = len(row) - len(row) % BLOCK
        for start in range(0, whole, BLOCK):
            self._put(row[start : start + BLOCK])
        self._rest = row[whole:].copy() if whole < len(row) else np.empty(0, self._dtype)

    def parts(self, name: str) -> dict[str, AnyArray]:
        """Return the row as parts (see `row_parts`); nothing can be appended after that."""
        if len(self._rest):
            self._put(self._rest)
        while self._ahead:
            self._take()
        return row_parts(name, self._stream, self._lengths)

    def _put(self, block: AnyArray) -> None:
        self._ahead.append(self._pool.submit(pack_block, block, self._level))
        if len(self._ahead) > 2 * worker_count():
            self._take()

    def _take(self) -> None:
        packed = self._ahead.popleft().result()
        self._stream.append(packed)
        self._lengths.append(len(packed))


def pack_numbers(name: str, numbers: AnyArray, level: int = LEVEL) -> dict[str, AnyArray]:
    """Return a row of numbers as parts; see `row_parts`."""
    with NumberWriter(numbers.dtype, level) as writer:
        writer.append(numbers)
        return writer.parts(name)


class Numbers(View):
    """A packed row of numbers, whose windows are its blocks.

    Parameters
    ----------
    parts, name
        Where it is: see `pack_numbers`.
    dtype, count
        What it holds.

    Raises
    ------
    IntegrityError
        The parts cannot be such a row.
    """

    def __init__(self, parts: Mapping[str, Part], name: str, dtype: Any, count: int) -> None:
        super().__init__(np.dtype(dtype), count, range(0, count, BLOCK))
        self._blocks = RowBlocks(parts, name, len(self.starts), BLOCK * self.dtype.itemsize)

    def window(self, index: int, out: AnyArray) -> None:
        unpack_block(self._blocks[index], out)

    def all(self) -> AnyArray:
        """Return all numbers."""
        out: AnyArray = np.empty(self.size, self.dtype)
        self.fill(out)
        return out
