"""How bytes become chunks of a store, named, packed and, with a key, sealed; and how these are read back."""

from __future__ import annotations

import hashlib
import struct
from typing import TYPE_CHECKING, NamedTuple, Protocol

from quantum_memory.compression.codecs import NONE, codec_with_id, encode_if_smaller
from quantum_memory.durability.pack import checksum
from quantum_memory.errors import RESTORE, IntegrityError

if TYPE_CHECKING:
    from quantum_memory.compression.codecs import Codec
    from quantum_memory.durability.chunk_store import ChunkStore
    from quantum_memory.durability.files import Buffer
    from quantum_memory.durability.pack import Place
    from quantum_memory.encryption.sealing import Sealer
    from quantum_memory.lifecycle.repository.buffers import Buffers

_KIND = b"chunk"
_HOW = struct.Struct("<BI")


class Known(Protocol):
    """Names of the chunks that are there."""

    def __contains__(self, chunk: bytes, /) -> bool: ...


class Chunk(NamedTuple):
    """A chunk, ready to be written.

    Attributes
    ----------
    name
        What it is called.
    stored, check, codec
        Its bytes as they are stored, None where they are there already; their checksum, and what packed them.
    raw
        How many bytes it is of.
    """

    name: bytes
    stored: Buffer | None
    check: int
    codec: int
    raw: int


def prepared(known: Known, raw: Buffer, codec: Codec, sealer: Sealer | None = None) -> Chunk:
    """Name a chunk, and pack and seal it unless it is there.

    Parameters
    ----------
    known
        Names of the chunks that are there.
    raw
        Its bytes, which nobody may change meanwhile.
    codec
        What packs it, where that pays.
    sealer
        What seals it, and gives it its name; without one the name is the SHA-256 of the bytes.
    """
    name = name_of(raw, sealer)
    if name in known:
        return Chunk(name, None, 0, 0, len(raw))
    used, packed = encode_if_smaller(codec, raw)
    return sealed_chunk(name, packed, used.id, len(raw), sealer)


def sealed_chunk(name: bytes, packed: Buffer, codec: int, raw: int, sealer: Sealer | None) -> Chunk:
    """Return a chunk that was packed already, sealed where there is what seals it."""
    stored = packed if sealer is None else sealer.seal(packed, _KIND, _sealed_name(name, codec, raw))
    return Chunk(name, stored, checksum(stored), codec, raw)


def _sealed_name(name: bytes, codec: int, raw: int) -> bytes:
    """Return what a chunk is sealed under: with what the index of its pack says of it, which is not sealed."""
    return name + _HOW.pack(codec, raw)


def read_chunk(store: ChunkStore, name: bytes, raw: memoryview, sealer: Sealer | None = None) -> None:
    """Read a chunk into a buffer of exactly its length; its stored bytes are compared with their checksum.

    Raises
    ------
    MissingError, IntegrityError, StorageError
    """
    _, place = store.place(name)
    if place.raw != len(raw) or (sealer is None and place.codec == NONE.id and place.stored != place.raw):
        raise IntegrityError(f"a chunk of it has another length: {place.raw} bytes, not {len(raw)}", next_step=RESTORE)
    as_it_is = sealer is None and place.codec == NONE.id
    stored = raw if as_it_is else memoryview(bytearray(max(place.stored, len(raw))))
    found = store.read_into(name, stored)
    if not as_it_is or found.codec != NONE.id:  # another copy may be packed in another way
        raw[:] = _opened(name, found, bytes(stored[: found.stored]) if as_it_is else stored[: found.stored], sealer)


def _opened(name: bytes, place: Place, stored: Buffer, sealer: Sealer | None) -> Buffer:
    return codec_with_id(place.codec).decode(_unsealed(name, place, stored, sealer), place.raw)


def _unsealed(name: bytes, place: Place, stored: Buffer, sealer: Sealer | None) -> Buffer:
    return stored if sealer is None else sealer.open(stored, _KIND, _sealed_name(name, place.codec, place.raw))


def checked(name: bytes, place: Place, stored: Buffer, sealer: Sealer | None = None) -> tuple[Buffer, Buffer]:
    """Return a stored chunk without what seals it, and its bytes, which were compared with its name.

    Raises
    ------
    IntegrityError, UnsupportedVersionError
    """
    packed = _unsealed(name, place, stored, sealer)
    raw = codec_with_id(place.codec).decode(packed, place.raw)
    if len(raw) != place.raw or not check_name(name, raw, sealer):
        raise IntegrityError("a chunk of it is not what its name says", next_step=RESTORE)
    return packed, raw


def fetched(store: ChunkStore, name: bytes, buffers: Buffers, sealer: Sealer | None = None) -> Buffer:
    """Return the bytes of a chunk, which were compared with its name.

    Parameters
    ----------
    buffers
        Where memory comes from, and where the caller gives the bytes when they are not needed any more.

    Raises
    ------
    MissingError, IntegrityError, StorageError, UnsupportedVersionError
    """
    _, place = store.place(name)
    buffer = buffers.take(max(place.stored, place.raw))  # another copy may be packed in another way
    found = store.read_into(name, buffer)
    stored = buffer[: found.stored]
    _, raw = checked(name, found, stored, sealer)
    if raw is not stored:
        buffers.give(buffer)
    return raw


def check_name(name: bytes, raw: Buffer, sealer: Sealer | None = None) -> bool:
    """Tell whether bytes are those that a chunk was named for."""
    return name == name_of(raw, sealer)


def name_of(raw: Buffer, sealer: Sealer | None = None) -> bytes:
    """Return the name of a chunk."""
    return hashlib.sha256(raw).digest() if sealer is None else sealer.name(raw)
