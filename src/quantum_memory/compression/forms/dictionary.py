"""Arrays of few distinct bit patterns: a table of them, and for each number its place in the table.

The places, here called symbols, take 1, 2, 4, 8 or 16 bits each and go through zstd, which finds what repeats in them,
or through pcodec where that is smaller. Rows of bytes in zstd blocks are here too; other forms use them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from quantum_memory.compression.codecs.zstandard import Zstd
from quantum_memory.compression.forms.base import Effort, Packed, Stream, malformed, part_of
from quantum_memory.compression.forms.plain import LEVELS, PIECE, bits_of, sample, whole_number
from quantum_memory.compression.numbers import Numbers, NumberWriter

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

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
        """Return the row as parts called `name` and `name` + ``.lengths``; nothing can be appended after that."""
        if self._rest:
            self._put(bytes(self._rest))
        return {name: self._stream.array(), f"{name}.lengths": np.array(self._lengths, np.uint32)}

    def _put(self, block: bytes) -> None:
        packed = self._codec.encode(block)
        stored = packed if len(packed) < len(block) else block
        self._stream.append(bytes(stored))
        self._lengths.append(len(stored))


def read_bytes(parts: Mapping[str, Part], name: str, count: int) -> Iterator[NDArray[np.uint8]]:
    """Yield the blocks of a row of `count` bytes that a `ByteWriter` packed.

    Raises
    ------
    IntegrityError
    """
    stream = part_of(parts, name, np.uint8)
    lengths = part_of(parts, f"{name}.lengths", np.uint32, -(-count // BYTES_BLOCK))[:]
    ends = np.cumsum(lengths, dtype=np.int64).tolist()
    if stream.shape[0] != (ends[-1] if ends else 0) or (ends and int(lengths.max()) > BYTES_BLOCK):
        raise malformed(f"the blocks of {name!r} do not have the lengths that are stated")
    for index, end in enumerate(ends):
        stored = stream[end - int(lengths[index]) : end]
        size = min(BYTES_BLOCK, count - index * BYTES_BLOCK)
        if len(stored) > size:
            raise malformed(f"a block of {name!r} is longer than its bytes are")
        raw = stored.tobytes()
        yield np.frombuffer(raw if len(raw) == size else _ZSTD["fast"].decode(raw, size), np.uint8)


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

    def unpack(self, facts: Mapping[str, Json], parts: Mapping[str, Part], out: AnyArray) -> None:
        bits = bits_of(out)
        width = whole_number(facts, "bits", 16)
        stored = part_of(parts, "table", bits.dtype)
        if width not in (0, 1, 2, 4, 8, 16) or not 1 <= stored.shape[0] <= 1 << width:
            raise malformed("symbols and table do not fit together")
        table = stored[:]
        if not width:
            bits[:] = table[0]
        elif width == 16:
            _unpack_wide(facts.get("coder"), parts, table, bits)
        elif facts.get("coder") == "zstd":
            _unpack_bytes(parts, table, width, bits)
        else:
            raise malformed("there is no such coder of symbols")


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


def _unpack_bytes(parts: Mapping[str, Part], table: NDArray[Any], width: int, bits: NDArray[Any]) -> None:
    """Look up all symbols of a byte at once, in a table of what each byte stands for."""
    per_byte = 8 // width
    symbols = (np.arange(256)[:, None] >> (width * np.arange(per_byte))) & ((1 << width) - 1)
    valid = np.all(symbols < len(table), axis=1)
    meaning = table[np.minimum(symbols, len(table) - 1)]
    start = 0
    for block in read_bytes(parts, "symbols", -(-len(bits) // per_byte)):
        for low in range(0, len(block), PIECE // per_byte):
            piece = block[low : low + PIECE // per_byte]
            if not valid[piece].all():
                raise malformed("a symbol is not in the table")
            numbers = meaning[piece].reshape(-1)[: len(bits) - start]
            bits[start : start + len(numbers)] = numbers
            start += len(numbers)


def _unpack_wide(coder: Json, parts: Mapping[str, Part], table: NDArray[Any], bits: NDArray[Any]) -> None:
    if coder == "numbers":
        blocks: Iterator[NDArray[Any]] = (block for _, block in Numbers(parts, "symbols", "<u2", len(bits)).blocks())
    elif coder == "zstd":
        blocks = (block.view("<u2") for block in read_bytes(parts, "symbols", 2 * len(bits)))
    else:
        raise malformed("there is no such coder of symbols")
    start = 0
    for symbols in blocks:
        if symbols.max() >= len(table):
            raise malformed("a symbol is not in the table")
        bits[start : start + len(symbols)] = table[symbols]
        start += len(symbols)
