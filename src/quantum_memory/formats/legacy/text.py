"""The text of legacy files: JSON as Python writes it, NaN and all, and what is packed with zlib or LZ4."""

from __future__ import annotations

import json
import math
import struct
import zlib
from typing import TYPE_CHECKING, Any

from quantum_memory.errors import RESTORE, BudgetError, IntegrityError, UnsafeError
from quantum_memory.formats.json_format import MAX_PACKED_TEXT_BYTES, MAX_RATIO, MAX_TEXT_BYTES
from quantum_memory.state.json_text import count_nodes, max_nodes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from quantum_memory.compression.codecs import Buffer

ZLIB, LZ4 = "zlib", "lz4"
MAX_HEADER_BYTES = 1 << 20
_PIECE = 1 << 20


def from_text(text: bytes | bytearray, *, file_bytes: int | None = None, numbers: bool = True) -> Any:
    """Read JSON text in which NaN and Infinity may stand, within the limits of text in every format.

    Parameters
    ----------
    file_bytes
        Length of the file that the text was packed in; by default its own.
    numbers
        Whether floats are read, which takes most of the time; without it each is True, and not checked.

    Raises
    ------
    IntegrityError, UnsafeError
    """
    check_length(len(text), MAX_TEXT_BYTES)
    most = max_nodes(len(text) if file_bytes is None else file_bytes)
    if len(text) > most and count_nodes(text) > most:  # a value has at least one byte
        raise UnsafeError(f"its JSON text holds more than {most} values", next_step="do not trust this file")
    try:
        return json.loads(text.decode("utf-8"), object_pairs_hook=_unique, parse_float=_float if numbers else bool)
    except RecursionError:
        raise UnsafeError("its JSON text is nested too deeply", next_step="do not trust this file") from None
    except IntegrityError:
        raise
    except ValueError as error:
        raise IntegrityError(f"its JSON text is damaged or cut short: {error}", next_step=RESTORE) from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise IntegrityError("its JSON text has a key twice", next_step=RESTORE)
    return made


def _float(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise IntegrityError(f"its JSON text has the number {digits:.40}, which no float64 is", next_step=RESTORE)
    return value


def check_length(length: int, most: int) -> None:
    """Refuse text that is longer than it may be."""
    if length > most:
        raise UnsafeError(
            f"its text has {length} bytes, and is read up to {most}",
            next_step="no release writes so long a text: do not trust this file",
        )


def from_object(text: bytes | bytearray, what: str) -> dict[str, Any]:
    """Read JSON text that has to be an object."""
    value = from_text(text)
    if not isinstance(value, dict):
        raise IntegrityError(f"{what} is not an object", next_step=RESTORE)
    return value


def header_of(data: bytes) -> tuple[bytes, int]:
    """Return the header that follows its length in 4 bytes, and where what follows it begins.

    Raises
    ------
    IntegrityError
        The data end before it does.
    """
    if len(data) < 4:
        raise IntegrityError("it is cut short", next_step=RESTORE)
    (length,) = struct.unpack_from("<I", data)
    if length > min(MAX_HEADER_BYTES, len(data) - 4):
        raise IntegrityError(f"its header is said to have {length} bytes, which it cannot have", next_step=RESTORE)
    return data[4 : 4 + length], 4 + length


def unpacked_text(data: bytes) -> bytearray:
    """Return the text of a ``.json.zlib`` file: length of the header, the header, one zlib stream."""
    head, start = header_of(data)
    facts = from_object(head, "its header")
    size, packed = facts.get("original_size"), facts.get("compressed_size")
    if type(size) is not int or size < 0 or packed != len(data) - start:
        raise IntegrityError("its header does not fit the length of the file", next_step=RESTORE)
    check_length(size, most_text(len(data)))
    return unpacked(memoryview(data)[start:], size, ZLIB)


def most_text(file_bytes: int) -> int:
    """Return how long the text in a packed file of this length may be."""
    return min(MAX_TEXT_BYTES, MAX_PACKED_TEXT_BYTES + MAX_RATIO * file_bytes)


def unpacked(stream: Buffer, size: int, codec: str) -> bytearray:
    """Return the `size` bytes that a zlib stream or an LZ4 frame holds.

    Raises
    ------
    IntegrityError
        It holds another number of bytes, is cut short, or something follows it.
    """
    made = _expanded(stream, size, codec)
    if len(made) != size:
        raise IntegrityError(f"another number of bytes than {size} is packed in it", next_step=RESTORE)
    return made


def unpacked_at_most(stream: Buffer, most: int, codec: str) -> bytearray:
    """Return what a zlib stream or an LZ4 frame holds, if that is not more than `most` bytes.

    Raises
    ------
    IntegrityError, BudgetError
    """
    made = _expanded(stream, most, codec)
    if len(made) > most:
        raise BudgetError(
            f"more than {most} bytes are packed in it", next_step="do not trust this file, or allow more bytes"
        )
    return made


def _expanded(stream: Buffer, most: int, codec: str) -> bytearray:
    """Return all that is packed, or no more than a piece beyond `most` bytes of it."""
    made = bytearray()
    try:
        for piece in _pieces_of_zlib(stream) if codec == ZLIB else _pieces_of_lz4(stream):
            made += piece
            if len(made) > most:
                break
    except (zlib.error, RuntimeError) as error:  # lz4 raises RuntimeError
        raise IntegrityError(f"it is not packed as the {codec} encoder does: {error}", next_step=RESTORE) from error
    return made


def _pieces_of_zlib(stream: Buffer) -> Iterator[bytes]:
    decoder = zlib.decompressobj()
    rest: Buffer = stream
    while not decoder.eof:
        piece = decoder.decompress(rest, _PIECE)
        rest = decoder.unconsumed_tail
        if not piece and not decoder.eof:
            raise IntegrityError("its zlib stream is cut short", next_step=RESTORE)
        yield piece
    if decoder.unused_data:
        raise IntegrityError("something follows its zlib stream", next_step=RESTORE)


def _pieces_of_lz4(stream: Buffer) -> Iterator[bytes]:
    import lz4.frame  # noqa: PLC0415 - when first used

    decoder = lz4.frame.LZ4FrameDecompressor()
    rest: Buffer = stream
    while not decoder.eof:
        piece: bytes = decoder.decompress(rest, _PIECE)
        rest = b""
        if not piece and not decoder.eof:
            raise IntegrityError("its LZ4 frame is cut short", next_step=RESTORE)
        yield piece
    if decoder.unused_data:
        raise IntegrityError("something follows its LZ4 frame", next_step=RESTORE)
