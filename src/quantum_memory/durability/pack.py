"""A pack: one file with many chunks, written front to back, with a list of them at its end.

::

    header (64 bytes) | chunks, each from a multiple of 64 on | index, 64 bytes a chunk | trailer (64 bytes)

``docs/checkpoint_format.md`` is the specification. Chunks are bytes with a name, which is not looked into here: whoever
writes them gives the SHA-256 of what they mean, and the number of the codec that packed them.
"""

from __future__ import annotations

import hashlib
import struct
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import xxhash

from quantum_memory.errors import RESTORE, UPGRADE, IntegrityError, UnsafeError, UnsupportedVersionError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from quantum_memory.durability.files import Buffer, Readable

SIGNATURE = b"\x89QMP\r\n\x1a\n"
COPY_SIGNATURE = b"\x89QMI\r\n\x1a\n"
COPY_SUFFIX = ".qmindex"
VERSION = 1
MINIMUM_READER = 1
ALIGNMENT = 64
"""Chunks begin at multiples of this, so that raw ones can be mapped into memory for any element type."""

MAX_STORED = 16 << 20
"""Bytes of one chunk."""

MAX_CHUNKS = 1 << 22
HEADER_BYTES = RECORD_BYTES = TRAILER_BYTES = 64

RECORD = np.dtype(
    [
        ("name", "V32"),
        ("offset", "<u8"),
        ("check", "<u8"),
        ("stored", "<u4"),
        ("raw", "<u4"),
        ("codec", "u1"),
        ("zero", "V7"),
    ]
)
_HEADER = struct.Struct("<8sII40xQ")
_TRAILER = struct.Struct("<QQ32s8xQ")
_CHECKED = 56


class Place(NamedTuple):
    """Where a chunk is, and what is known of it.

    Attributes
    ----------
    offset, stored
        Where in the pack, and how many bytes.
    check
        XXH3-64 of those.
    codec, raw
        What packed them, and how many bytes they were before.
    """

    offset: int
    stored: int
    check: int
    codec: int
    raw: int


def checksum(data: Buffer) -> int:
    """Return the XXH3 of stored bytes, 64 bits."""
    return xxhash.xxh3_64_intdigest(data)


def aligned(position: int) -> int:
    """Return the first multiple of `ALIGNMENT` from here on."""
    return -(-position // ALIGNMENT) * ALIGNMENT


def header(signature: bytes = SIGNATURE) -> bytes:
    """Return the first bytes of every pack; other files that are packs but for that begin with another signature."""
    return sealed(_HEADER.pack(signature, VERSION, MINIMUM_READER, 0))


def copy_header() -> bytes:
    """Return the first bytes of a copy of the list of a pack; the list and the end of the pack follow."""
    return header(COPY_SIGNATURE)


def length(chunks: dict[bytes, Place]) -> int:
    """Return how many bytes the file of a pack has."""
    last = next(reversed(chunks.values()), None)
    end = HEADER_BYTES if last is None else aligned(last.offset + last.stored)
    return end + len(chunks) * RECORD_BYTES + TRAILER_BYTES


def index(chunks: dict[bytes, Place]) -> bytes:
    """Return the list of the chunks, in the order in which they stand."""
    records = np.zeros(len(chunks), RECORD)
    for row, (name, place) in enumerate(chunks.items()):
        records[row] = (name, place.offset, place.check, place.stored, place.raw, place.codec, b"")
    return records.tobytes()


def trailer(listed: bytes, position: int) -> bytes:
    """Return the last bytes of a pack whose list, at `position`, is `listed`."""
    return sealed(_TRAILER.pack(position, len(listed) // RECORD_BYTES, hashlib.sha256(listed).digest(), 0))


def read_index(source: Readable, signature: bytes = SIGNATURE) -> dict[bytes, Place]:
    """Return the chunks of a pack, which its header and its list say; both are checked.

    A pack that passes lists chunks that follow one another without a hole or an overlap, so that what they take
    together is no more than the file has.

    Raises
    ------
    IntegrityError, UnsafeError, UnsupportedVersionError, StorageError
    """
    return _read_index(source, signature)


def read_index_copy(source: Readable) -> dict[bytes, Place]:
    """Return the chunks of a pack as a copy of its list says them, every byte of the copy checked.

    Raises
    ------
    IntegrityError, UnsafeError, UnsupportedVersionError, StorageError
    """
    return _read_index(source, COPY_SIGNATURE)


def _read_index(source: Readable, expected: bytes) -> dict[bytes, Place]:
    if source.size < HEADER_BYTES + TRAILER_BYTES:
        raise _damaged(source, "it is cut short")
    head = source.read(0, HEADER_BYTES)
    signature, version, minimum, _ = _HEADER.unpack(head)
    if signature != expected:
        raise _damaged(source, "it does not begin like a pack of chunks")
    if sealed(head) != head:
        raise _damaged(source, "its header does not match its checksum")
    check_reader(minimum, version, VERSION, "packs", source.name)
    tail = source.read(source.size - TRAILER_BYTES, TRAILER_BYTES)
    position, count, digest, _ = _TRAILER.unpack(tail)
    if sealed(tail) != tail:
        raise _damaged(source, "its end does not match its checksum: it is cut short or damaged")
    start = HEADER_BYTES if expected == COPY_SIGNATURE else position
    if count > MAX_CHUNKS or start + count * RECORD_BYTES + TRAILER_BYTES != source.size:
        raise _damaged(source, "its list of chunks is not where its end says")
    if any(head[16:_CHECKED]) or any(tail[48:_CHECKED]):
        raise _damaged(source, "bytes that mean nothing are not zero")
    listed = source.read(start, count * RECORD_BYTES)
    if hashlib.sha256(listed).digest() != digest:
        raise _damaged(source, "its list of chunks does not match its SHA-256")
    records = np.frombuffer(listed, RECORD)
    _check(source, records, position)
    columns = (records[name].tolist() for name in ("offset", "stored", "check", "codec", "raw"))
    places = dict(zip(map(bytes, records["name"].tolist()), map(Place, *columns), strict=True))
    if len(places) != count:
        raise _damaged(source, "its list has a chunk twice")
    return places


def check_everything(source: Readable, look: Callable[[bytes, Place, memoryview], object] | None = None) -> int:
    """Check every byte of a pack, and return how many chunks it has.

    Parameters
    ----------
    look
        Called with the name, the place and the stored bytes of each.

    Raises
    ------
    IntegrityError, UnsafeError, UnsupportedVersionError, StorageError
    """
    chunks = check_frame(source)
    for name, place in chunks.items():
        stored = memoryview(source.read(place.offset, place.stored))
        if checksum(stored) != place.check:
            raise damaged_chunk(source.name, place)
        if look is not None:
            look(name, place, stored)
    return len(chunks)


def check_frame(source: Readable, signature: bytes = SIGNATURE) -> dict[bytes, Place]:
    """Return the chunks of a pack, every byte but those of the chunks themselves checked, zeros between them too.

    Raises
    ------
    IntegrityError, UnsafeError, UnsupportedVersionError, StorageError
    """
    chunks = read_index(source, signature)
    end = HEADER_BYTES
    for place in chunks.values():
        _check_padding(source, end, place.offset)
        end = place.offset + place.stored
    _check_padding(source, end, source.size - TRAILER_BYTES - len(chunks) * RECORD_BYTES)
    return chunks


def _check_padding(source: Readable, start: int, stop: int) -> None:
    if any(source.read(start, stop - start)):
        raise _damaged(source, f"the padding before byte {stop} is not zero")


def damaged_chunk(path: str, place: Place) -> IntegrityError:
    """Return the error of a chunk whose bytes do not match their checksum."""
    last = place.offset + place.stored - 1
    return IntegrityError(
        f"it is damaged: bytes {place.offset} to {last} do not match their checksum", path=path, next_step=RESTORE
    )


def _check(source: Readable, records: NDArray[np.void], position: int) -> None:
    offsets, stored = records["offset"].astype(np.int64), records["stored"].astype(np.int64)
    ends = np.concatenate([[HEADER_BYTES], offsets + stored])
    starts = np.concatenate([offsets, [position]])
    padded = -(-ends // ALIGNMENT) * ALIGNMENT
    if (padded != starts).any() or (records["offset"] > position).any():
        raise _damaged(source, "its chunks do not follow one another")
    if (stored == 0).any() or max(records["stored"].max(initial=0), records["raw"].max(initial=0)) > MAX_STORED:
        raise UnsafeError(
            f"it has a chunk of no bytes or of more than {MAX_STORED}",
            path=source.name,
            next_step="do not trust this file: no release writes one like it",
        )
    if records["zero"].tobytes().strip(b"\0"):
        raise _damaged(source, "bytes that mean nothing are not zero")


def sealed(block: bytes) -> bytes:
    """Return a header or a trailer with the checksum of all before its last 8 bytes in these."""
    return block[:-8] + struct.pack("<Q", checksum(block[:-8]))


def check_reader(minimum: int, version: int, known: int, what: str, path: str) -> None:
    """Refuse what only a later release reads.

    Parameters
    ----------
    minimum, version
        The least version of a reader, and the version, as the file says them.
    known
        The version that this release reads.
    what
        What has versions, in the plural.

    Raises
    ------
    UnsupportedVersionError
    """
    if minimum > known:
        raise UnsupportedVersionError(
            f"it has version {version} and needs a release that reads version {minimum} of {what}",
            path=path,
            next_step=UPGRADE,
        )


def _damaged(source: Readable, what: str) -> IntegrityError:
    return IntegrityError(what, path=source.name, next_step=RESTORE)
