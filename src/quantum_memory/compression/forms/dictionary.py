"""Arrays of few distinct bit patterns: a table of them, and for each number its place in the table.

The places, here called symbols, take 1, 2, 4, 8 or 16 bits each and go through zstd, which finds what repeats in them,
or through pcodec where that is smaller. Rows of bytes in zstd blocks are here too; other forms use them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from quantum_memory.compression.codecs.zstandard import Zstd
from quantum_memory.compression.forms.base import Effort, Packed, RowBlocks, Stream, malformed, part_of, row_parts
from quantum_memory.compression.forms.plain import LEVELS, PIECE, bits_of, real_type, reals_in, sample, whole_number
from quantum_memory.compression.forms.views import View
from quantum_memory.compression.numbers import Numbers, NumberWriter

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from quantum_memory.compression.forms.base import Json, Part
    from quantum_memory.state.arrays import AnyArray

BYTES_BLOCK = 1 << 22
"""Bytes in a block of a packed row of bytes: what repeats is found within one. It is part of the format."""

LARGEST_TABLE = 1 << 16
"""Bit patterns in a table at most."""

_ZSTD = {"fast": Zstd(3), "balanced": Zstd(9), "max": Zstd(19)}
_GOLDEN = 0x9E3779B97F4A7C15
_MULTIPLIERS = 16
_SLOT_BITS = 18
_DISTINCT_IN_SAMPLE = 0.15
_DISTINCT = 1 / 8


class ByteWriter:
    """Packs a row of bytes that comes in pieces, in zstd blocks; a block that does not shrink is stored as it is."""

    def __init__(self, effort: Effort) -> None:
        self._codec = _ZSTD[effort]
        self._stream = Stream()
        self._lengths: list[int] = []
        self._rest = bytearray()

    def append(self, piece: AnyArray) -> None:
        """Take all of `piece`, contiguous."""
        self._rest += piece.tobytes()
        while len(self._rest) >= BYTES_BLOCK:
            self._put(bytes(self._rest[:BYTES_BLOCK]))
            del self._rest[:BYTES_BLOCK]

    def parts(self, name: str) -> dict[str, AnyArray]:
        """Return the row as parts (see `row_parts`); nothing can be appended after that."""
        if self._rest:
            self._put(bytes(self._rest))
        return row_parts(name, self._stream, self._lengths)

    def _put(self, block: bytes) -> None:
        packed = self._codec.encode(block)
        stored = packed if len(packed) < len(block) else block
        self._stream.append(bytes(stored))
        self._lengths.append(len(stored))


class Bytes(View):
    """A row of bytes that a `ByteWriter` packed, whose windows are its blocks.

    Parameters
    ----------
    parts, name
        Where it is.
    count, dtype
        What it holds: so many items, of one byte or two.

    Raises
    ------
    IntegrityError
        The parts cannot be such a row.
    """

    def __init__(self, parts: Mapping[str, Part], name: str, count: int, dtype: Any = np.uint8) -> None:
        dtype = np.dtype(dtype)
        super().__init__(dtype, count, range(0, count, BYTES_BLOCK // dtype.itemsize))
        self._blocks = RowBlocks(parts, name, len(self.starts), BYTES_BLOCK)

    def window(self, index: int, out: AnyArray) -> None:
        out[...] = self._made(index)

    def _made(self, index: int) -> AnyArray:
        """Return a block as the decoder makes it, without a copy."""
        first, last = self._bounds(index)
        size = (last - first) * self.dtype.itemsize
        stored = self._blocks[index].tobytes()
        if len(stored) > size:
            raise malformed("a block of bytes is longer than its bytes are")
        raw = stored if len(stored) == size else _ZSTD["fast"].decode(stored, size)
        return np.frombuffer(raw, self.dtype)


@dataclass(frozen=True)
class Dictionary:
    """A table of bit patterns in ascending order, and symbols that refer to it.

    Facts: ``bits`` of a symbol (0: the table has one entry, and there are no symbols) and ``coder`` of the symbols,
    ``zstd`` or ``numbers``. Parts: ``table``, and the row ``symbols``, the first symbol of a byte in its lowest bits.
    """

    name: ClassVar[str] = "dictionary"

    def pack(self, array: AnyArray, effort: Effort) -> Packed | None:
        bits = bits_of(array)
        table = _table(bits)
        if table is None:
            return None
        width = next(width for width in (0, 1, 2, 4, 8, 16) if len(table) <= 1 << width)
        if not width:
            return Packed(self.name, {"bits": 0}, {"table": table})
        coders = _smaller_coder(bits, table, width, effort)
        symbols = _packed_symbols(bits, table, width, effort, coders)
        return Packed(self.name, {"bits": width, "coder": coders}, {"table": table, **symbols})

    def view(
        self, facts: Mapping[str, Json], parts: Mapping[str, Part], dtype: np.dtype[Any], shape: tuple[int, ...]
    ) -> View:
        width, each = whole_number(facts, "bits", 16), reals_in(dtype)
        table = part_of(parts, "table", f"<u{real_type(dtype).itemsize}")
        if width not in (0, 1, 2, 4, 8, 16) or not 1 <= table.shape[0] <= 1 << width:
            raise malformed("symbols and table do not fit together")
        size = math.prod(shape)
        if not width:
            return Same(dtype, size, table[:])
        return _Symbols(dtype, size, table[:], width, _symbols_in(facts.get("coder"), parts, width, size * each))


class _Lookup:
    """Finds numbers in a table in ascending order.

    In a small table each number has a slot of its own, which some bits of a product say; in a large one it is searched.
    """

    def __init__(self, table: NDArray[Any]) -> None:
        self.table = table
        self._slots: NDArray[np.uint16] | None = None
        self._shift = 8 * table.itemsize - min(_SLOT_BITS, 2 * len(table).bit_length() + 2)
        for odd in range(1, 2 * _MULTIPLIERS, 2):
            self._multiplier = table.dtype.type(_GOLDEN * odd % (1 << 8 * table.itemsize))
            slots = self._slot(table)
            if len(np.unique(slots)) == len(table):
                self._slots = np.zeros(1 << (8 * table.itemsize - self._shift), np.uint16)
                self._slots[slots] = np.arange(len(table))
                break

    def symbols(self, piece: NDArray[Any]) -> NDArray[np.uint16]:
        """Return the place of each number; of one that is not there, the place of any other."""
        if self._slots is None:
            return np.searchsorted(self.table[:-1], piece).astype(np.uint16)
        return self._slots[self._slot(piece)]

    def _slot(self, piece: NDArray[Any]) -> NDArray[np.intp]:
        slots: NDArray[np.intp] = ((piece * self._multiplier) >> self._shift).astype(np.intp)
        return slots


def _table(bits: NDArray[Any]) -> NDArray[Any] | None:
    """Return the distinct values in ascending order, or None when there are too many."""
    some = sample(bits)
    table = np.unique(some)
    most = min(LARGEST_TABLE, int(_DISTINCT * len(bits)))
    if not len(table) or len(table) > min(most, _DISTINCT_IN_SAMPLE * len(some)):
        return None
    lookup = _Lookup(table)
    for start in range(0, len(bits) if len(some) < len(bits) else 0, PIECE):
        piece = bits[start : start + PIECE]
        new = piece[lookup.table[lookup.symbols(piece)] != piece]
        if len(new):
            lookup = _Lookup(np.union1d(lookup.table, new))
            if len(lookup.table) > most:
                return None
    return lookup.table


def pack_bits(symbols: NDArray[Any], width: int) -> NDArray[np.uint8]:
    """Return symbols of `width` bits, 1 to 8, as bytes, the first of each byte in its lowest bits."""
    per_byte = 8 // width
    padded = np.zeros(-(-len(symbols) // per_byte) * per_byte, np.uint8)
    padded[: len(symbols)] = symbols
    packed = padded[::per_byte].copy()
    for index in range(1, per_byte):
        packed |= padded[index::per_byte] << np.uint8(index * width)
    return packed


def _smaller_coder(bits: NDArray[Any], table: NDArray[Any], width: int, effort: Effort) -> str:
    """Return which coder makes less of a sample; only symbols of 16 bits may go through pcodec, which has none of 8."""
    if width < 16:
        return "zstd"
    some = sample(bits)
    sizes = {
        coder: sum(part.nbytes for part in _packed_symbols(some, table, width, effort, coder).values())
        for coder in ("zstd", "numbers")
    }
    return min(sizes, key=lambda coder: sizes[coder])


def _packed_symbols(
    bits: NDArray[Any], table: NDArray[Any], width: int, effort: Effort, coder: str
) -> dict[str, AnyArray]:
    lookup = _Lookup(table)
    symbols = (lookup.symbols(bits[start : start + PIECE]) for start in range(0, len(bits), PIECE))
    if coder == "numbers":
        with NumberWriter("<u2", LEVELS[effort]) as numbers:
            for piece in symbols:
                numbers.append(piece)
            return numbers.parts("symbols")
    row = ByteWriter(effort)
    for piece in symbols:
        row.append(piece if width == 16 else pack_bits(piece, width))
    return row.parts("symbols")


def _symbols_in(coder: Json, parts: Mapping[str, Part], width: int, count: int) -> View:
    """Return the row that has `count` symbols: of u2 where they take 16 bits, otherwise of u1."""
    if coder == "zstd":
        items, dtype = (count, "<u2") if width == 16 else (-(-count * width // 8), "u1")
        return Bytes(parts, "symbols", items, dtype)
    if coder == "numbers" and width == 16:
        return Numbers(parts, "symbols", "<u2", count)
    raise malformed("there is no such coder of symbols")


class Same(View):
    """An array of one number: `pattern` has its bits."""

    def __init__(self, dtype: np.dtype[Any], size: int, pattern: AnyArray) -> None:
        super().__init__(dtype, size, range(0, size, PIECE * real_type(dtype).itemsize // dtype.itemsize))
        self._pattern = pattern

    def window(self, index: int, out: AnyArray) -> None:  # noqa: ARG002
        bits_of(out)[:] = self._pattern


class _Symbols(View):
    """What symbols stand for. All symbols of a byte are looked up at once, in a table of what each byte stands for."""

    def __init__(self, dtype: np.dtype[Any], size: int, table: AnyArray, width: int, symbols: View) -> None:
        self._each = reals_in(dtype)
        super().__init__(dtype, size, range(0, size, PIECE // self._each))
        self._symbols = symbols
        self._per_item = max(1, 8 // width)
        self._invalid: NDArray[np.bool_] | None = None
        self._meaning = table[:, None]
        self._size = len(table)
        if self._per_item > 1:
            places = (np.arange(256)[:, None] >> (width * np.arange(self._per_item))) & ((1 << width) - 1)
            self._invalid = np.any(places >= len(table), axis=1)
            self._meaning = table[np.minimum(places, len(table) - 1)]

    def window(self, index: int, out: AnyArray) -> None:
        bits = bits_of(out)
        symbols: NDArray[Any] = np.empty(-(-len(bits) // self._per_item), self._symbols.dtype)
        self._symbols.read(self.starts[index] * self._each // self._per_item, symbols)
        wrong = symbols.max() >= self._size if self._invalid is None else self._invalid.take(symbols).any()
        if wrong:
            raise malformed("a symbol is not in the table")
        whole = len(symbols) * self._per_item == len(bits)
        numbers = bits if whole else np.empty(len(symbols) * self._per_item, bits.dtype)
        # They are in the table, so that nothing is clipped; to raise, it would need another array.
        self._meaning.take(symbols, axis=0, out=numbers.reshape(-1, self._per_item), mode="clip")
        if not whole:
            bits[:] = numbers[: len(bits)]
