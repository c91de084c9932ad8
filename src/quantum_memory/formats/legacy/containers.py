"""The two binary layouts with the suffix ``.qms``: sections behind a header, and the export of a store."""

from __future__ import annotations

import hashlib
import math
import struct
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from quantum_memory.errors import RESTORE, IntegrityError, UnsafeError, UnsupportedVersionError
from quantum_memory.formats.json_format import MAX_TEXT_BYTES
from quantum_memory.formats.legacy.found import NO_CHECKSUM, Found
from quantum_memory.formats.legacy.text import (
    LZ4,
    MAX_HEADER_BYTES,
    ZLIB,
    from_object,
    unpacked,
    unpacked_at_most,
)
from quantum_memory.state.sites import check_budget

if TYPE_CHECKING:
    from quantum_memory.durability.files import Readable
    from quantum_memory.formats.legacy.found import Legacy

MAGIC = b"QMS\x01"
EXPORT_HEAD = b'{"format": "QMS_BINARY_v1"'
"""How the header of an export begins, after its length."""

_SECTIONS = ("SVEC", "MPST", "CLAS", "EMOT", "META")
_CODECS = {0: "", 1: ZLIB, 2: LZ4}
_DTYPES = ("complex128", "complex64", "float64", "float32")
_MOST_RATIO = {"": 1, ZLIB: 1100, LZ4: 260}
"""A little more than each can make of anything."""
_PREFIX = struct.Struct("<4sQ")
_ITEM_BYTES = 16
_STORED_BLOCK_BYTES = 23  # around the one block of an LZ4 frame that does not compress
_MAX_STORED_BLOCK = 1 << 16
_LZ4_HEAD_BYTES = 19
_DISTRUST = "do not trust this file: no release writes one like it"


class _Section(NamedTuple):
    id: str
    offset: int
    size: int
    compressed: bool


def read_sections(source: Readable, kind: str, max_bytes: int) -> Legacy:
    """Return the memory in a file of version 1: a header that lists the sections, then those.

    Raises
    ------
    IntegrityError
        It is damaged; or it is one of those whose header was written over the first of its sections. The error says
        which sections are whole.
    """
    header, start = _header(source, len(MAGIC))
    facts = from_object(header, "its header")
    if facts.get("version") != "1.0":
        raise UnsupportedVersionError(
            f"its header says version {facts.get('version')!r:.20}, which the first implementation never wrote",
            next_step="read it with the program that wrote it",
        )
    codec = _CODECS.get(facts.get("compression"))  # type: ignore[arg-type]
    sections = _listed(facts.pop("sections", None))
    if codec is None:
        raise IntegrityError("its header names no compression that there is")
    if sections and source.read(start, min(4, source.size - start)) != sections[0].id.encode():
        raise _overwritten(source, facts, sections, start, codec)
    found = Found(notes=[NO_CHECKSUM])
    found.keep("header", facts)
    position = start
    for section in sections:
        if section.size < _PREFIX.size or section.size > source.size - position:
            raise IntegrityError(f"its section {section.id} runs past the end of the file", next_step=RESTORE)
        prefix = source.read(position, _PREFIX.size)
        if _PREFIX.unpack(prefix) != (section.id.encode(), section.size - _PREFIX.size):
            raise IntegrityError(f"its section {section.id} is not where its header says", next_step=RESTORE)
        body = source.read(position + _PREFIX.size, section.size - _PREFIX.size)
        _take(found, section, body, codec if section.compressed else "", max_bytes)
        position += section.size
    if position != source.size:
        raise IntegrityError(f"{source.size - position} bytes follow its last section", next_step=RESTORE)
    return found.legacy(kind, "1.0")


def _header(source: Readable, at: int) -> tuple[bytes, int]:
    """Return the header whose length is at an offset, and where what follows it begins."""
    if source.size < at + 4:
        raise IntegrityError("it is cut short", next_step=RESTORE)
    (length,) = struct.unpack("<I", source.read(at, 4))
    if length > min(MAX_HEADER_BYTES, source.size - at - 4):
        raise IntegrityError(f"its header is said to have {length} bytes, which it cannot have", next_step=RESTORE)
    return source.read(at + 4, length), at + 4 + length


def _listed(listed: Any) -> list[_Section]:
    sections = [_Section(item["id"], item["offset"], item["size"], item.get("compressed", False)) for item in listed]
    for one in sections:
        if type(one.size) is not int or type(one.offset) is not int or type(one.compressed) is not bool:
            raise IntegrityError("its header lists a section without place and size", next_step=RESTORE)
    places = [_SECTIONS.index(one.id) for one in sections]
    if places != sorted(set(places)):
        raise IntegrityError("its header does not list its sections in their order", next_step=RESTORE)
    return sections


def _take(found: Found, section: _Section, body: bytes, codec: str, max_bytes: int) -> None:
    """Put what a section holds into its part of the memory."""
    match section.id:
        case "SVEC":
            array, end = _described(body, 0, None, codec, max_bytes)
            if end != len(body):
                raise IntegrityError("something follows the data of its state vector", next_step=RESTORE)
            found.take_vector(array)
        case "MPST":
            found.take_tensors(_tensors(body, codec, max_bytes))
        case "CLAS":
            for name, value in _document(body, codec).items():
                found.keep(name, value)
        case "EMOT":
            found.keep("emotional_context", _document(body, codec))
        case "META":
            found.keep_metadata(_document(body, codec))


def _document(body: bytes, codec: str) -> dict[str, Any]:
    text = unpacked_at_most(body, MAX_TEXT_BYTES, codec) if codec else body
    return from_object(text, "one of its sections")


def _tensors(body: bytes, codec: str, max_bytes: int) -> list[Any]:
    (count,) = struct.unpack_from("<I", body)
    position, tensors, left = 4, [], max_bytes
    for _ in range(count):  # each takes bytes, so that the body ends before a count that is too large
        tensor, position = _described(body, position, 8, codec, left)
        tensors.append(tensor)
        left -= tensor.nbytes
    if position != len(body):
        raise IntegrityError("something follows the last of its tensors", next_step=RESTORE)
    return tensors


def _described(body: bytes, position: int, length_bytes: int | None, codec: str, max_bytes: int) -> tuple[Any, int]:
    """Return the array that begins at a position with its dtype and shape, and where it ends.

    Parameters
    ----------
    length_bytes
        How many bytes say the length of its data; None: they go to the end of the body.
    """
    (name_bytes,) = struct.unpack_from("<I", body, position)
    name = body[position + 4 : position + 4 + name_bytes].decode("ascii")
    if name not in _DTYPES:
        raise IntegrityError(f"it has an array of dtype {name!r:.40}", next_step=RESTORE)
    position += 4 + name_bytes
    (axes,) = struct.unpack_from("<I", body, position)
    if axes > 32:
        raise UnsafeError(f"it has an array of {axes} axes", next_step=_DISTRUST)
    shape = struct.unpack_from(f"<{axes}I", body, position + 4)
    position += 4 + 4 * axes
    end = len(body)
    if length_bytes is not None:
        (length,) = struct.unpack_from("<Q", body, position)
        position += length_bytes
        end = position + length
    dtype = np.dtype(name).newbyteorder("<")
    nbytes = math.prod(shape) * dtype.itemsize
    if end > len(body) or nbytes > _MOST_RATIO[codec] * (end - position):
        raise IntegrityError(f"the shape {shape} of an array does not fit its data", next_step=RESTORE)
    check_budget(nbytes, max_bytes, "its array")
    stored = memoryview(body)[position:end]
    data = unpacked(stored, nbytes, codec) if codec else bytearray(stored)
    if len(data) != nbytes:
        raise IntegrityError(f"the shape {shape} of an array does not fit its data", next_step=RESTORE)
    return np.frombuffer(data, dtype).reshape(shape), end


def _overwritten(
    source: Readable, facts: dict[str, Any], sections: list[_Section], start: int, codec: str
) -> IntegrityError:
    """Say what is left in a file whose header was written over the sections that it begins with."""
    ends = [one.offset + one.size for one in sections]
    if [one.offset for one in sections] != [8, *ends[:-1]] or source.size != max(start, ends[-1]):
        return IntegrityError("its first section does not begin where its header ends", next_step=RESTORE)
    whole = [one.id for one in sections if one.offset >= start and _is_at(source, one)]
    lost = [one.id for one in sections if one.id not in whole]
    first = _first_whole_amplitude(facts, sections[0], start, codec)
    rest = "" if first is None else f" (of SVEC, the amplitudes from {first} on are left)"
    return IntegrityError(
        f"its header was written over the first {start - 8} bytes of its sections, as the first implementation did: "
        f"damaged are {', '.join(lost)}{rest}; whole are {', '.join(whole) or 'none'}",
        next_step="restore the state from a copy in another format",
    )


def _is_at(source: Readable, section: _Section) -> bool:
    end = section.offset + _PREFIX.size
    return end <= source.size and source.read(section.offset, 4) == section.id.encode()


def _first_whole_amplitude(facts: dict[str, Any], section: _Section, start: int, codec: str) -> int | None:
    """Return from which amplitude on a complex128 vector is left, None when none of it is."""
    qubits = facts.get("n_qubits")
    if section.id != "SVEC" or type(qubits) is not int or not 0 < qubits < 48:
        return None
    nbytes = _ITEM_BYTES << qubits
    data_bytes = section.size - 34
    data = section.offset + 34
    if codec == LZ4 and section.compressed:
        if data_bytes != nbytes + _STORED_BLOCK_BYTES or nbytes > _MAX_STORED_BLOCK:
            return None
        data += _LZ4_HEAD_BYTES
    elif section.compressed or data_bytes != nbytes:
        return None
    first = -((data - start) // _ITEM_BYTES)
    return first if first < 1 << qubits else None


def read_export(source: Readable, kind: str, max_bytes: int) -> Legacy:
    """Return the memory in the export of a store: a header, the amplitudes, and the facts about them."""
    header, position = _header(source, 0)
    found = Found()
    found.keep("header", from_object(header, "its header"))
    marker = source.read(position, min(4, source.size - position))
    amplitudes = None
    if marker in {b"RAW ", b"COMP"}:
        amplitudes, position = _exported(source, position, marker, max_bytes)
        found.take_vector(amplitudes)
    if position == source.size and amplitudes is not None:
        found.notes.append("it ends after the state vector, without metadata and checksum")
        return found.legacy(kind, "1")
    text, end = _header(source, position)
    if end != source.size:
        raise IntegrityError("something follows its metadata", next_step=RESTORE)
    found.keep_metadata(from_object(text, "its metadata"))
    check_vector(found, amplitudes, found.metadata.get("checksum"))
    return found.legacy(kind, "1")


def _exported(source: Readable, position: int, marker: bytes, max_bytes: int) -> tuple[Any, int]:
    if source.size - position < 12:
        raise IntegrityError("it is cut short", next_step=RESTORE)
    (length,) = struct.unpack("<Q", source.read(position + 4, 8))
    position += 12
    if length > source.size - position:
        raise IntegrityError("its state vector runs past the end of the file", next_step=RESTORE)
    if marker == b"RAW ":
        check_budget(length, max_bytes, "its state vector")
        data = bytearray(length)
        source.read_into(memoryview(data), position)
    else:
        data = unpacked_at_most(source.read(position, length), max_bytes, ZLIB)
    if len(data) % _ITEM_BYTES:
        raise IntegrityError(f"its state vector has {len(data)} bytes, which are no amplitudes", next_step=RESTORE)
    return np.frombuffer(data, "<c16"), position + length


def check_vector(found: Found, amplitudes: Any, checksum: Any) -> None:
    """Compare the SHA-256 of the amplitudes with the one that the file gives.

    Parameters
    ----------
    amplitudes
        An array, one that stays in the file (`windows.StoredArray`), or None.

    Raises
    ------
    IntegrityError
        They differ.
    """
    if amplitudes is None:
        found.notes.append("it has no state vector")
    elif getattr(amplitudes, "looked_at", False):
        pass
    elif checksum is None:
        found.notes.append("it gives no checksum: damage inside its numbers cannot be seen")
    elif _sha256(amplitudes) != checksum:
        raise IntegrityError("its state vector does not match its SHA-256", next_step=RESTORE)
    else:
        found.notes.append("its state vector matches its SHA-256; the format has no checksum of anything else")


def _sha256(amplitudes: Any) -> str:
    in_memory = isinstance(amplitudes, np.ndarray)
    return hashlib.sha256(amplitudes.data).hexdigest() if in_memory else str(amplitudes.seen.sha256)
