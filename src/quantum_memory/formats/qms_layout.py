"""QMS container, version 2: where every byte is. The specification is ``docs/qms_format.md``.

::

    header (64 bytes) | entry data, each from a multiple of 64 on | table | trailer (64 bytes)

Nothing in the table says where data is: entries follow one another in the order of the table, so that they can neither
overlap nor leave holes, and their lengths must add up to the place where the table begins. `read_layout` holds the
whole argument why a file that passes it cannot make a reader go wrong.
"""

from __future__ import annotations

import hashlib
import math
import struct
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from quantum_memory.durability.pack import checksum
from quantum_memory.errors import (
    RESTORE,
    UPGRADE,
    IntegrityError,
    InvalidStateError,
    UnsafeError,
    UnsupportedVersionError,
)
from quantum_memory.formats.foreign import foreign
from quantum_memory.formats.stated_version import check_version
from quantum_memory.state.arrays import CHUNK_BYTES, HIDDEN, STORABLE, chunk_count, combine_digests
from quantum_memory.state.document import MAX_DIMENSIONS, ArrayIdentity

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from quantum_memory.durability.files import Readable

    Offsets = NDArray[np.int64]

SIGNATURE = b"\x89QMS\r\n\x1a\n"
"""As PNG's: its first byte is not ASCII, and a transfer that changes line ends or stops at a control-Z damages it."""

VERSION = 2
MINIMUM_READER = 2
ALIGNMENT = 64
"""Entries begin at multiples of this, so that raw ones can be mapped into memory for any element type."""

HEADER_BYTES = TRAILER_BYTES = 64
MAX_ENTRIES = 1_000_000
MAX_TABLE_BYTES = 64 << 20
MAX_PACKED_DOCUMENT_BYTES = 4 << 20
"""A longer document is stored as it is, so that a short file cannot hold a long one."""

MAX_NAME_BYTES = 1024

REQUIRED = 1
"""Entry flag: a reader that does not know the section refuses the file. Without it the entry may be skipped."""

QUANTUM, CLASSICAL, EMOTION, METADATA, DOCUMENT = 1, 2, 3, 4, 5
SECTION_NAMES = {
    QUANTUM: "quantum",
    CLASSICAL: "classical",
    EMOTION: "emotion",
    METADATA: "metadata",
    DOCUMENT: "document",
}
SECTION_OF = {name: number for number, name in SECTION_NAMES.items()}
TYPE_NAMES = dict(enumerate(STORABLE, start=1))
TYPE_NUMBERS = {name: number for number, name in TYPE_NAMES.items()}

_FACTS = struct.Struct("<HHIII")  # version, oldest reader, flags, bytes per chunk, alignment
_TRAILER = struct.Struct("<QQ32s")  # where the table is, length of the file, root digest
_ENTRY = struct.Struct("<BBBBH")  # section, element type, flags, dimensions, bytes of name
CHUNK_RECORD = np.dtype([("codec", "u1"), ("stored", "<u4"), ("check", "<u8"), ("digest", "u1", 32)])
_REQUIRED_FLAGS = 0xFFFF0000
_DISTRUST = "do not trust this file: no release writes one like it"


@dataclass(frozen=True, eq=False, slots=True)
class Entry:
    """One array in the table.

    Attributes
    ----------
    section, name, dtype, shape, flags
        What it is. `name` is the path of the array in the memory, `dtype` one of `STORABLE`.
    chunks
        One `CHUNK_RECORD` for each chunk: codec, stored length, xxh3 of the stored and SHA-256 of the raw bytes.
    offset
        Where its first chunk begins in the file.
    """

    section: int
    name: str
    dtype: str
    shape: tuple[int, ...]
    flags: int
    chunks: NDArray[np.void]
    offset: int

    @property
    def nbytes(self) -> int:
        """Raw bytes."""
        return math.prod(self.shape) * np.dtype(STORABLE[self.dtype]).itemsize

    @property
    def stored_bytes(self) -> int:
        """Bytes in the file."""
        return int(self.chunks["stored"].sum(dtype=np.uint64))

    @property
    def identity(self) -> ArrayIdentity:
        """Name of its content, from the digests of its chunks."""
        digest = combine_digests(self.chunks["digest"].tobytes(), len(self.chunks))
        return ArrayIdentity(self.dtype, self.shape, digest)

    def raw_length(self, index: int) -> int:
        """Raw bytes of chunk `index`."""
        return min(CHUNK_BYTES, self.nbytes - index * CHUNK_BYTES)

    def chunk_offsets(self) -> Offsets:
        """Where each chunk begins in the file."""
        lengths = self.chunks["stored"].astype(np.int64)
        return self.offset + np.cumsum(lengths) - lengths


class Layout(NamedTuple):
    """The table of a file, and where it is."""

    version: int
    entries: tuple[Entry, ...]
    table_offset: int
    length: int
    root: bytes


def aligned(offset: int) -> int:
    """Return the first multiple of `ALIGNMENT` that is not before `offset`."""
    return -(-offset // ALIGNMENT) * ALIGNMENT


def header() -> bytes:
    """Return the header: the same in every file of this version."""
    facts = _FACTS.pack(VERSION, MINIMUM_READER, 0, CHUNK_BYTES, ALIGNMENT)
    head = (SIGNATURE + facts).ljust(HEADER_BYTES - 8, b"\0")
    return head + struct.pack("<Q", checksum(head))


def pack_entry(section: int, name: str, dtype: str, shape: tuple[int, ...], chunks: NDArray[np.void]) -> bytes:
    """Return an entry of the table, refusing what `read_layout` would refuse."""
    if HIDDEN.search(name) or SECTION_OF.get(name.partition("/")[0]) != section:
        raise InvalidStateError(f"the array {name[:80]!r} has a name that no file takes, or is in another section")
    encoded = name.encode("utf-8")
    if len(encoded) > MAX_NAME_BYTES or len(shape) > MAX_DIMENSIONS:
        raise InvalidStateError(f"the array {name[:80]!r} has too long a name or more than {MAX_DIMENSIONS} dimensions")
    head = _ENTRY.pack(section, TYPE_NUMBERS[dtype], REQUIRED, len(shape), len(encoded))
    return head + struct.pack(f"<{len(shape)}Q", *shape) + encoded + chunks.tobytes()


def pack_table(entries: list[bytes]) -> bytes:
    """Return the table, refusing what is past the limits; the entries must be sorted (see `QMSWriter.add`)."""
    table = struct.pack("<I", len(entries)) + b"".join(entries)
    if len(entries) > MAX_ENTRIES or len(table) > MAX_TABLE_BYTES:
        raise InvalidStateError(
            f"{len(entries)} arrays make a table of {len(table)} bytes; a QMS file holds at most {MAX_ENTRIES} arrays "
            f"and {MAX_TABLE_BYTES} bytes of table",
            next_step="save the parts in files of their own",
        )
    return table


def trailer(table: bytes, table_offset: int) -> bytes:
    """Return the trailer: the header's facts again, the length of the file, and the digest of all that describes it."""
    head = header()
    length = table_offset + len(table) + TRAILER_BYTES
    facts = head[len(SIGNATURE) : len(SIGNATURE) + _FACTS.size]
    return facts + _TRAILER.pack(table_offset, length, root_digest(head, table, table_offset, length))


def read_layout(source: Readable) -> Layout:
    """Read and check header, trailer and table.

    After it, these hold: the header, the table and the trailer are those that were written; every length is at least
    zero and at most what the file has; the chunks of all entries, with the padding between them, fill the file from the
    header to the table; and no count in the file makes a reader allocate more than the file's own size.

    Raises
    ------
    IntegrityError
        The file is damaged, or is no QMS file.
    UnsupportedVersionError
        It is whole, and this release does not read it.
    UnsafeError
        It goes past the limits of the format.
    """
    head = source.read(0, min(HEADER_BYTES, source.size))
    _check_signature(head, source)
    version, oldest_reader, flags, chunk_bytes, alignment = _FACTS.unpack_from(head, len(SIGNATURE))
    if struct.unpack_from("<Q", head, HEADER_BYTES - 8)[0] != checksum(head[:-8]):
        raise _damaged("its header does not match its checksum", source)
    if oldest_reader > VERSION or flags & _REQUIRED_FLAGS:
        raise UnsupportedVersionError(
            f"it is a QMS file of version {version} and needs a reader of version {oldest_reader}; this one reads up "
            f"to version {VERSION}",
            path=source.name,
            next_step=UPGRADE,
        )
    if version < VERSION:
        check_version(str(version), str(VERSION), source.name)
    if (head != header() and version <= VERSION) or (chunk_bytes, alignment) != (CHUNK_BYTES, ALIGNMENT):
        raise _damaged("its header has facts that no release writes", source)

    end = source.read(source.size - TRAILER_BYTES, TRAILER_BYTES)
    table_offset, length, root = _TRAILER.unpack_from(end, _FACTS.size)
    if end[: _FACTS.size] != head[len(SIGNATURE) : len(SIGNATURE) + _FACTS.size]:
        raise _damaged(
            f"it does not end with a trailer after {source.size} bytes: it is cut short, or something was appended",
            source,
        )
    if length != source.size:
        raise _damaged(f"it should have {length} bytes and has {source.size}", source)
    table_bytes = length - TRAILER_BYTES - table_offset
    if not HEADER_BYTES <= table_offset <= length - TRAILER_BYTES:
        raise _damaged("its table is said to begin outside the file", source)
    if table_bytes > MAX_TABLE_BYTES:
        raise UnsafeError(
            f"its table has {table_bytes} bytes, more than the limit", path=source.name, next_step=_DISTRUST
        )
    table = source.read(table_offset, table_bytes)
    if root_digest(head, table, table_offset, length) != root:
        raise _damaged("its table does not match its SHA-256", source)
    return Layout(version, _read_table(table, table_offset, source), table_offset, length, root)


def _read_table(table: bytes, table_offset: int, source: Readable) -> tuple[Entry, ...]:
    # The digest has been checked, so what is wrong here was written wrong, by accident or on purpose.
    try:
        (count,) = struct.unpack_from("<I", table)
        position, offset = 4, HEADER_BYTES
        entries: list[Entry] = []
        if count > MAX_ENTRIES:
            raise UnsafeError(f"its table has {count} entries, more than the limit", next_step=_DISTRUST)
        for _ in range(count):
            entry, position = _read_entry(table, position, aligned(offset))
            entries.append(entry)
            offset = entry.offset + entry.stored_bytes
            if offset > table_offset:
                raise _damaged(f"its entry {entry.name!r} runs past the end of the data", source)
    except (struct.error, UnicodeDecodeError, ValueError, KeyError) as error:
        if isinstance(error, (IntegrityError, UnsafeError)):
            error.next_step = error.next_step or RESTORE
            raise error.at(source.name) from None
        raise _damaged("its table is not well formed", source) from error
    if position != len(table) or offset != table_offset:
        raise _damaged("its table does not describe the whole file", source)
    keys = [(entry.section, entry.name.encode()) for entry in entries]
    if any(a >= b for a, b in pairwise(keys)):
        raise _damaged("its table is not sorted, or names an array twice", source)
    return tuple(entries)


def _read_entry(table: bytes, position: int, offset: int) -> tuple[Entry, int]:
    section, kind, flags, dimensions, name_bytes = _ENTRY.unpack_from(table, position)
    position += _ENTRY.size
    if dimensions > MAX_DIMENSIONS or not 0 < name_bytes <= MAX_NAME_BYTES or flags & ~REQUIRED:
        raise IntegrityError("its table has an entry past the limits of the format")
    shape = struct.unpack_from(f"<{dimensions}Q", table, position)
    position += 8 * dimensions
    name = table[position : position + name_bytes].decode("utf-8")
    position += name_bytes
    if HIDDEN.search(name):
        raise IntegrityError(f"its array {name[:80]!r} has a name that no release writes")
    dtype = TYPE_NAMES[kind]  # in sections that are skipped too: the number of chunks follows from it
    itemsize = np.dtype(STORABLE[dtype]).itemsize
    if math.prod(length or 1 for length in shape) * itemsize >= 1 << 63:
        raise IntegrityError(f"its array {name!r} has a shape that no array has")
    nbytes = math.prod(shape) * itemsize
    count = chunk_count(nbytes)
    # A shape of 2**60 items needs 2**40 records of chunks, which the table would have to hold.
    if count * CHUNK_RECORD.itemsize > len(table) - position:
        raise IntegrityError(f"its array {name!r} is said to have {nbytes} bytes, which it cannot have")
    chunks = np.frombuffer(table, CHUNK_RECORD, count, position)
    entry = Entry(section, name, dtype, shape, flags, chunks, offset)
    if count and (int(chunks["stored"].max()) > CHUNK_BYTES or not chunks["stored"].all()):
        raise IntegrityError(f"its array {name!r} has a chunk of a length that no release writes")
    return entry, position + count * CHUNK_RECORD.itemsize


def root_digest(head: bytes, table: bytes, table_offset: int, length: int) -> bytes:
    """Return the SHA-256 of everything that describes a file."""
    return hashlib.sha256(head + struct.pack("<QQ", table_offset, length) + table).digest()


def _check_signature(head: bytes, source: Readable) -> None:
    if source.size >= HEADER_BYTES + TRAILER_BYTES and head.startswith(SIGNATURE):
        return
    if head.startswith(b"QMS\x01"):
        raise UnsupportedVersionError(
            "it is a QMS file of version 1, the layout of the first implementation",
            path=source.name,
            next_step="read the file with quantum_memory.load",
        )
    if (other := foreign(head)) is not None:
        raise other.at(source.name)
    raise _damaged(_looks(head, source.size), source)


def _looks(head: bytes, size: int) -> str:
    """Say what has become of a QMS file that begins with `head`."""
    if head.startswith(SIGNATURE) or SIGNATURE.startswith(head):
        return f"it is cut short: {size} bytes are less than the smallest QMS file has"
    if head.startswith((b"\x89QMS\n", b"\x89QMS\r\r", b"\x89QMS\r\n\x1a\r")):
        return "its line ends were changed: it was transferred as text"
    if head[1:4] == b"QMS":
        return "its signature is damaged"
    return "it does not begin like a QMS file"


def _damaged(what: str, source: Readable) -> IntegrityError:
    return IntegrityError(what, path=source.name, next_step=RESTORE)
