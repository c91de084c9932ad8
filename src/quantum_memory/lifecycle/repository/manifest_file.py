"""The file of a manifest: what one checkpoint or backup is, over chunks that are in packs.

::

    prefix (128 bytes) | head | text, with zlib | names of chunks, 32 bytes each

The head says what a list shows, and can be read without the rest. Head and text are JSON, and may be sealed with a key
by whoever writes them; here they are bytes. ``docs/checkpoint_format.md`` is the specification.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from quantum_memory.durability.pack import check_reader, sealed
from quantum_memory.errors import RESTORE, IntegrityError, InvalidStateError, UnsafeError
from quantum_memory.state.json_text import MAX_DOCUMENT_BYTES, check_values, count_nodes, max_nodes

if TYPE_CHECKING:
    from quantum_memory.durability.files import Buffer, Readable

VERSION = 1
MINIMUM_READER = 1
PREFIX_BYTES = 128
DIGEST_BYTES = 32
MAX_HEAD_BYTES = 1 << 20
MAX_CHUNKS = 1 << 24
"""Chunks of one manifest: of 16 TiB."""

_PREFIX = struct.Struct("<8sIIIIII32s32s24xQ")
_CHECKED = PREFIX_BYTES - 8
_LEVEL = 1
_FIRST_BYTES = 4096
_WEIGHT = 8  # of a byte of packed text, where others count the bytes of a file with its arrays


@dataclass(frozen=True)
class Kind:
    """A kind of manifest.

    Attributes
    ----------
    signature
        Its first 8 bytes.
    what
        What it is of: "checkpoint", "backup".
    """

    signature: bytes
    what: str


@dataclass(frozen=True)
class Body:
    """What follows the head.

    Attributes
    ----------
    packed
        The text, as it is stored.
    text_bytes
        Its length when it is unpacked.
    chunks
        Names of the chunks, one after another.
    """

    packed: memoryview
    text_bytes: int
    chunks: memoryview

    def chunk_names(self) -> set[bytes]:
        """Return the names of the chunks."""
        return {bytes(self.chunks[at : at + DIGEST_BYTES]) for at in range(0, len(self.chunks), DIGEST_BYTES)}


def written(kind: Kind, head: bytes, packed: bytes, text_bytes: int, chunks: bytes) -> bytes:
    """Return the bytes of a manifest.

    Raises
    ------
    InvalidStateError
        It is too long.
    """
    if len(head) > MAX_HEAD_BYTES or text_bytes > MAX_DOCUMENT_BYTES:
        raise InvalidStateError(
            f"what is said of the {kind.what} makes {max(len(head), text_bytes)} bytes of text, too many",
            next_step="give long lists of numbers as arrays, and large trees in parts",
        )
    body = packed + chunks
    prefix = _PREFIX.pack(
        kind.signature, VERSION, MINIMUM_READER, len(head), len(packed), text_bytes, len(chunks) // DIGEST_BYTES,
        hashlib.sha256(head).digest(), hashlib.sha256(body).digest(), 0,
    )  # fmt: skip
    return sealed(prefix) + head + body


def packed_text(text: bytes) -> bytes:
    """Return JSON text as a manifest has it.

    Raises
    ------
    InvalidStateError
        It has more values than a reader takes.
    """
    packed = zlib.compress(text, _LEVEL)
    if count_nodes(text) > most_values(len(packed)):
        packed = zlib.compress(text, 0)  # as it is: a short file cannot hold many values
        check_values(text, _WEIGHT * len(packed))
    return packed


def unpacked_text(packed: Buffer, length: int) -> bytes:
    """Return text that `packed_text` has packed.

    Raises
    ------
    IntegrityError
    """
    decoder = zlib.decompressobj()
    try:
        text = decoder.decompress(packed, length) if length else b""
        if len(text) != length or decoder.decompress(decoder.unconsumed_tail, 1) or decoder.unused_data:
            raise IntegrityError("its text has another length than it says")
    except zlib.error as error:
        raise IntegrityError(f"its text is not packed as zlib does it: {error}") from error
    if not decoder.eof:
        raise IntegrityError("its text is cut short")
    return text


def most_values(packed: int) -> int:
    """Return how many values text may hold that takes so many bytes."""
    return max_nodes(_WEIGHT * packed)


def read_head(source: Readable, kind: Kind) -> bytes:
    """Return the head, compared with its SHA-256; of the rest of the file only the length is looked at.

    Raises
    ------
    IntegrityError, UnsafeError, UnsupportedVersionError, StorageError
    """
    return _read_head(source, kind)[0]


def read_whole(source: Readable, kind: Kind) -> tuple[bytes, Body]:
    """Return the head and what follows, every byte of the file checked.

    Raises
    ------
    IntegrityError, UnsafeError, UnsupportedVersionError, StorageError
    """
    head, (packed, length, count), digest = _read_head(source, kind)
    body = memoryview(source.read(source.size - packed - count * DIGEST_BYTES, packed + count * DIGEST_BYTES))
    if hashlib.sha256(body).digest() != digest:
        raise damaged(source, "it does not match its SHA-256")
    return head, Body(body[:packed], length, body[packed:])


def read_damaged(source: Readable, kind: Kind) -> tuple[bytes, Body]:
    """Return the head of a manifest that is damaged behind it, and what follows as it is; zeros where that is cut off.

    One of which more than half is cut off is given up.

    Raises
    ------
    IntegrityError, UnsafeError, UnsupportedVersionError, StorageError
    """
    head, (packed, length, count), _ = _read_head(source, kind, whole=False)
    start, wanted = PREFIX_BYTES + len(head), packed + count * DIGEST_BYTES
    body = memoryview(source.read(start, min(wanted, source.size - start)).ljust(wanted, b"\0"))
    return head, Body(body[:packed], length, body[packed:])


def _read_head(source: Readable, kind: Kind, *, whole: bool = True) -> tuple[bytes, tuple[int, int, int], bytes]:
    if source.size < PREFIX_BYTES:
        raise damaged(source, "it is cut short")
    block = source.read(0, min(_FIRST_BYTES, source.size))  # which has the head of nearly every manifest
    prefix = block[:PREFIX_BYTES]
    signature, version, minimum, head, packed, text, count, head_digest, digest, _ = _PREFIX.unpack(prefix)
    if signature != kind.signature:
        raise damaged(source, f"it does not begin like a {kind.what}")
    if sealed(prefix) != prefix or any(prefix[96:_CHECKED]):
        raise damaged(source, "its first bytes do not match their checksum")
    check_reader(minimum, version, VERSION, f"{kind.what}s", source.name)
    wanted = PREFIX_BYTES + head + packed + count * DIGEST_BYTES
    if wanted != source.size if whole else not PREFIX_BYTES + head <= source.size >= wanted // 2:
        raise damaged(source, "it has another length than it says: it is cut short or damaged")
    if head > MAX_HEAD_BYTES or text > MAX_DOCUMENT_BYTES or count > MAX_CHUNKS:
        raise UnsafeError(
            "its text is longer than any that is written",
            path=source.name,
            next_step="do not trust this file: no release writes one like it",
        )
    end = PREFIX_BYTES + head
    said = block[PREFIX_BYTES:end] if end <= len(block) else source.read(PREFIX_BYTES, head)
    if hashlib.sha256(said).digest() != head_digest:
        raise damaged(source, "its head does not match its SHA-256")
    return said, (packed, text, count), digest


def damaged(source: Readable, what: str) -> IntegrityError:
    """Return the error of a manifest that is not as it was written."""
    return IntegrityError(what, path=source.name, next_step=RESTORE)
