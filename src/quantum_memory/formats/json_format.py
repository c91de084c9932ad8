"""Memories as JSON text, plain (``.json``) and with zlib (``.json.zlib``): for people, and for small states.

The text has one line for each part: the parts of the document under their own names, the record, the arrays (base64, C
order, little-endian) and last the SHA-256 of every byte before it. ``docs/json_format.md`` is the specification.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
import struct
from contextlib import closing
from typing import TYPE_CHECKING, Any

import numpy as np

from quantum_memory.compression.codecs import Buffer, Zlib
from quantum_memory.errors import RESTORE, IntegrityError, InvalidStateError, UnsafeError, UnsupportedVersionError
from quantum_memory.formats.foreign import foreign
from quantum_memory.formats.form_reader import with_forms
from quantum_memory.formats.reader import WholeReader, read_memory
from quantum_memory.formats.registry import Handler, SaveOptions
from quantum_memory.formats.seal import FORMAT, VERSION, check_format, digest_of
from quantum_memory.state.arrays import STORABLE, chunk_bytes, chunk_count, whole_copy
from quantum_memory.state.document import identify, well_formed
from quantum_memory.state.json_text import check_values, from_json, max_nodes, to_json
from quantum_memory.state.quantum_state import StateVector

if TYPE_CHECKING:
    from quantum_memory.durability.files import Readable
    from quantum_memory.formats.prepared import Prepared
    from quantum_memory.formats.reader import Reader
    from quantum_memory.formats.registry import OpenOptions, Progress, Sink
    from quantum_memory.state.arrays import AnyArray
    from quantum_memory.state.memory_state import MemoryState

MAX_TEXT_BYTES = 16 << 20
"""Text is made and read in one piece, several times over; this keeps it within the memory that any save may take."""
MAX_READABLE = 1 << 10
"""Dimension of a state vector up to which its amplitudes are also written as numbers, when asked."""
MAX_PACKED_TEXT_BYTES = 6 << 20
MAX_RATIO = 64
"""Text with zlib may have so many bytes, and so many times those of its file: a short file cannot hold a long text."""

MAX_HEADER_BYTES = 1024
HEAD = b'{"format":"quantum-memory"'
"""How every text begins, and so a file of text, whatever its name."""
ZLIB_HEAD = b'{"original_size": '
"""How the header of a ``.json.zlib`` file begins, after its length."""


_PARTS = ("metadata", "quantum_data", "classical_data", "emotional_context")
_HEAD_BYTES = 64
_HEAD = {"format", "version", "content_id"}
_SEAL = re.compile(rb',\n"sha256":"([0-9a-f]{64})"}\n\Z')
_SEAL_BYTES = len(b',\n"sha256":""}\n') + 64


class JSON(Handler):
    """The ``.json`` file, for the registry."""

    def write(self, sink: Sink, memory: Prepared, options: SaveOptions) -> str:
        text, name = self._text(memory, options)
        sink.write(text)
        return name

    def open(self, source: Readable, options: OpenOptions) -> Reader:
        with closing(source):
            return read(source, max_text_bytes=options.max_bytes)

    def check_bytes(self, source: Readable, options: OpenOptions, progress: Progress | None = None) -> str | None:  # noqa: ARG002
        head = source.read(0, min(4, source.size))
        kind, is_whole = ("json.zlib", _is_packed_whole) if is_zlib(head) else ("json", _is_text_whole)
        return kind if is_whole(source, progress) else None

    def _text(self, memory: Prepared, options: SaveOptions) -> tuple[bytes, str]:
        made = to_text(memory, max_text_bytes=options.max_text_bytes, readable=options.readable)
        if options.progress is not None:
            options.progress(sum(array.nbytes for array in memory.arrays.values()))
        return made


class PackedJSON(JSON):
    """The ``.json.zlib`` file, for the registry."""

    compressions = frozenset({"auto", "zlib"})

    def write(self, sink: Sink, memory: Prepared, options: SaveOptions) -> str:
        text, name = self._text(memory, options)
        sink.write(to_zlib(text))
        return name


def to_text(memory: Prepared, *, max_text_bytes: int | None = None, readable: bool = False) -> tuple[bytes, str]:
    """Return a memory as JSON text, and its `content_id`.

    Parameters
    ----------
    memory
        The memory.
    max_text_bytes
        How long the text may become; by default `MAX_TEXT_BYTES`. Several times as much memory is needed.
    readable
        Write the amplitudes of a state vector of dimension up to `MAX_READABLE` as numbers, too, for people.

    Raises
    ------
    InvalidStateError
        The memory is too large for text.
    """
    arrays = memory.arrays
    most = MAX_TEXT_BYTES if max_text_bytes is None else max_text_bytes
    total = sum(array.nbytes for array in arrays.values())
    if total * 4 // 3 > most:
        raise InvalidStateError(
            f"the arrays have {total} bytes, which make more than the {most} bytes of text that JSON is written up to",
            next_step="save it as .qms, or raise max_text_bytes",
        )
    # Copies: were the caller to change an array meanwhile, its digest and its data would not fit together.
    arrays = {path: whole_copy(array) for path, array in arrays.items()}
    identities = identify(arrays)
    listed = {
        path: {
            "dtype": identities[path].dtype,
            "shape": list(array.shape),
            "sha256": identities[path].digest.hex(),
            "data": base64.b64encode(
                b"".join(chunk_bytes(array, i) for i in range(chunk_count(array.nbytes)))
            ).decode(),
        }
        for path, array in arrays.items()
    }
    name = memory.content_id(identities)
    described = memory.parts()
    parts: dict[str, Any] = {"format": FORMAT, "version": VERSION, "content_id": name}
    parts |= {name: memory.document[name] for name in _PARTS if name in memory.document}
    parts |= {name: described[name] for name in ("record", "forms") if name in described}
    if readable:
        parts |= _readable(memory.quantum)
    parts["arrays"] = listed
    body = b"{" + b",\n".join(b'"%b":%b' % (name.encode(), to_json(part)) for name, part in parts.items())
    text = body + b',\n"sha256":"' + hashlib.sha256(body).hexdigest().encode() + b'"}\n'
    if len(text) > most:
        raise InvalidStateError(
            f"the memory makes {len(text)} bytes of text, and JSON is written up to {most}",
            next_step="save it as .qms, or raise max_text_bytes",
        )
    check_values(text, len(text))
    return text, name


def _readable(state: object) -> dict[str, Any]:
    """Return the amplitudes of a small state vector as numbers by basis state, for people; nothing for another state.

    Digits are as the framework of the qubit order prints them, most significant first. Numbers are the shortest
    decimal text that is read back as the same; those that JSON does not have are text.
    """
    if not isinstance(state, StateVector) or math.prod(state.dims) > MAX_READABLE:
        return {}
    numbers = {}
    dims = state.dims[::-1] if state.qubit_order == "little" else state.dims
    separator = "" if max(dims, default=0) <= 10 else ","
    for index, amplitude in enumerate(state.amplitudes.tolist()):
        parts = [amplitude.real, amplitude.imag]
        digits = separator.join(str(digit) for digit in np.unravel_index(index, dims)) if dims else ""
        numbers[digits] = [part if math.isfinite(part) else str(part) for part in parts]
    return {"amplitudes": numbers}


def read(source: Readable, *, max_text_bytes: int | None = None) -> Reader:
    """Read the memory in an open file, with or without zlib, checking every byte.

    Parameters
    ----------
    max_text_bytes
        How long its text may be; by default `MAX_TEXT_BYTES`.

    Raises
    ------
    IntegrityError, UnsupportedVersionError, UnsafeError
    """
    most = MAX_TEXT_BYTES if max_text_bytes is None else max_text_bytes
    _check_length(source.size, most, source.name)
    data = source.read(0, source.size)
    packed = is_zlib(data)
    text = from_zlib(data, source.name, max_text_bytes=most) if packed else data
    with well_formed(source.name):
        return _from_text(text, max_nodes(source.size), source.name, "json.zlib" if packed else "json", source.size)


def _is_text_whole(source: Readable, progress: Progress | None) -> bool:
    """Tell whether the SHA-256 at the end of a text is that of all before it."""
    end = source.size - _SEAL_BYTES
    seal = _SEAL.fullmatch(source.read(end, _SEAL_BYTES)) if end >= 0 else None
    return seal is not None and digest_of(source, 0, end, progress).hex().encode() == seal[1]


def _is_packed_whole(source: Readable, progress: Progress | None) -> bool:
    """Tell whether a packed text has the one header that its stream can have."""
    (length,) = struct.unpack("<I", source.read(0, 4))
    start = 4 + length
    if length > MAX_HEADER_BYTES or start > source.size:
        return False
    header = source.read(4, length)
    try:
        facts = from_json(header, max_nodes=64)
        original = facts["original_size"]
    except (IntegrityError, UnsafeError, KeyError, TypeError):
        return False
    if type(original) is not int or original < 0:
        return False
    # With another version in it, the text would have to be unpacked to see who is right.
    digest = digest_of(source, start, source.size, progress)
    return header == _header_of(original, source.size - start, digest, VERSION)


def from_text(text: bytes, name: str = "<text>", *, file_bytes: int | None = None) -> MemoryState:
    """Read what `to_text` returned, checking every byte.

    Parameters
    ----------
    file_bytes
        Length of the file that the text was packed in, which bounds how many values it may hold; by default its own.

    Raises
    ------
    IntegrityError, UnsupportedVersionError, UnsafeError
    """
    length = len(text) if file_bytes is None else file_bytes
    with well_formed(name):
        return read_memory(_from_text(text, max_nodes(length), name, "json", length))


def _from_text(text: bytes, most: int, name: str, kind: str, size: int) -> Reader:
    seal = _SEAL.search(text, max(0, len(text) - _SEAL_BYTES))
    if seal is None or seal.start() != len(text) - _SEAL_BYTES:
        raise _without_seal(text, most)
    if hashlib.sha256(memoryview(text)[: seal.start()]).hexdigest().encode() != seal[1]:
        raise IntegrityError("its text does not match its SHA-256: it is damaged, or was edited")
    parts = from_json(text, max_nodes=most)
    if not isinstance(parts, dict):
        raise IntegrityError("it is not the JSON text of a memory")
    check_format(parts.get("format"), parts.get("version"))
    if unknown := set(parts) - _HEAD - set(_PARTS) - {"record", "forms", "amplitudes", "arrays", "sha256"}:
        raise IntegrityError(f"it has a part {min(unknown)[:40]!r} that version {VERSION} does not have")
    if not all(isinstance(parts.get(name, {}), dict) for name in ("record", "arrays")):
        raise IntegrityError("it is not the JSON text of a memory")
    document = {part: parts[part] for part in _PARTS if part in parts}
    arrays = {path: _array(path, node) for path, node in parts.get("arrays", {}).items()}
    record, content = parts.get("record", {}), str(parts.get("content_id"))
    stored = WholeReader(kind, VERSION, name, size, document, record, arrays, content, packed=parts.get("forms"))
    reader = with_forms(stored)
    if any(parts["arrays"][path]["sha256"] != entry.identity.digest.hex() for path, entry in stored.entries.items()):
        raise IntegrityError("one of its arrays does not match its SHA-256")
    if "amplitudes" in parts and {"amplitudes": parts["amplitudes"]} != _readable(read_memory(reader).quantum):
        raise IntegrityError("the amplitudes that people read are not those of its arrays")
    return reader


def _array(path: str, node: Any) -> AnyArray:
    try:
        if set(node) != {"dtype", "shape", "sha256", "data"}:
            raise ValueError("it says something else of it")
        dtype, shape = np.dtype(STORABLE[node["dtype"]]), tuple(node["shape"])
        data = base64.b64decode(node["data"], validate=True)
        # First that they are numbers: a text times a large number is a long one.
        if not all(type(n) is int and n >= 0 for n in shape) or math.prod(shape) * dtype.itemsize != len(data):
            raise ValueError("its data have another length")
        array: AnyArray = np.frombuffer(bytearray(data), dtype).reshape(shape)
    except (KeyError, OverflowError, TypeError, ValueError) as error:
        raise IntegrityError(f"its array {path[:80]!r} is not what its shape and dtype say") from error
    return array


def _without_seal(text: bytes, most: int) -> IntegrityError | UnsupportedVersionError | UnsafeError:
    """Say what text without its SHA-256 at the end looks like."""
    if text.startswith(HEAD):
        return IntegrityError("it does not end with its SHA-256: it is cut short, or something was appended")
    if not text.lstrip().startswith(b"{"):
        return foreign(text[:200]) or IntegrityError("it is not the JSON text of a memory")
    try:
        parts = from_json(text, max_nodes=most)
    except (IntegrityError, UnsafeError) as error:
        return error
    if isinstance(parts, dict) and "interface_config" in parts:
        return UnsupportedVersionError(
            "it is a state of the first implementation",
            next_step="read the file with quantum_memory.load",
        )
    return IntegrityError("it is JSON, but not that of a memory")


def to_zlib(text: bytes) -> bytes:
    """Return JSON text compressed: u32 length of the header, the header as JSON, one zlib stream.

    This is the layout of the first implementation, whose header gained the SHA-256 of the stream.

    Raises
    ------
    InvalidStateError
        It is too long, or holds too many plain values, for a file that it makes so short.
    """
    stream = Zlib(level=9).encode(text)
    header = _header(len(text), stream, VERSION)
    packed = struct.pack("<I", len(header)) + header + bytes(stream)
    if len(text) > _max_text_bytes(len(packed)):
        raise InvalidStateError(
            f"its {len(text)} bytes of text make a file of {len(packed)}, which may hold "
            f"{_max_text_bytes(len(packed))}",
            next_step="save it as .qms",
        )
    check_values(text, len(packed))
    return packed


def from_zlib(data: bytes, name: str = "<bytes>", *, max_text_bytes: int = MAX_TEXT_BYTES) -> bytes:
    """Return the text that `to_zlib` was given, checking every byte."""
    if len(data) < 4:
        raise IntegrityError("it is cut short", path=name, next_step=RESTORE)
    (length,) = struct.unpack_from("<I", data)
    header, stream = data[4 : 4 + length], data[4 + length :]
    if length > MAX_HEADER_BYTES or len(header) != length:
        what = "it does not begin like a .json.zlib file: it is damaged or cut short"
        raise IntegrityError(what, path=name, next_step=RESTORE)
    try:
        facts = from_json(header, max_nodes=64)
    except (IntegrityError, UnsafeError) as error:
        raise IntegrityError("its header is damaged", path=name, next_step=RESTORE) from error
    size = facts.get("original_size") if isinstance(facts, dict) else None
    if type(size) is not int or size < 0:
        raise IntegrityError("its header is damaged", path=name, next_step=RESTORE)
    _check_length(size, min(_max_text_bytes(len(data)), max_text_bytes), name)
    if "sha256" not in facts:
        raise UnsupportedVersionError(
            "it is a state of the first implementation",
            path=name,
            next_step="read the file with quantum_memory.load",
        )
    version = facts.get("version")
    if header != _header(size, stream, version):
        what = "its stream does not match its header: it is damaged, cut short or added to"
        raise IntegrityError(what, path=name, next_step=RESTORE)
    try:
        text = bytes(Zlib().decode(stream, size))
    except IntegrityError as error:
        raise error.at(name) from error.__cause__
    # One that is too new is told by its text. A header alone that says so is damaged.
    if version != VERSION and f'"version":"{version}"'.encode(errors="replace") not in text[:_HEAD_BYTES]:
        raise IntegrityError("its header does not match its text", path=name, next_step=RESTORE)
    return text


def _header(original: int, stream: Buffer, version: object = VERSION) -> bytes:
    """Return the one header that a stream can have, so that any other is recognised as damaged."""
    return _header_of(original, len(stream), hashlib.sha256(stream).digest(), version)


def _header_of(original: int, packed: int, digest: bytes, version: object) -> bytes:
    facts = {
        "original_size": original,
        "compressed_size": packed,
        "compression_ratio": 1 - packed / original if original else 0.0,
        "version": version,
        "sha256": digest.hex(),
    }
    return json.dumps(facts).encode("ascii")


def _max_text_bytes(file_bytes: int) -> int:
    """Return how long the text in a ``.json.zlib`` file of this length may be."""
    return MAX_PACKED_TEXT_BYTES + MAX_RATIO * file_bytes


def _check_length(length: int, most: int, name: str) -> None:
    if length > most:
        raise UnsafeError(
            f"its text has {length} bytes, and is read up to {most}",
            path=name,
            next_step="give max_bytes for longer text, and save such states as .qms",
        )


def is_zlib(data: Buffer) -> bool:
    """Tell a ``.json.zlib`` file from JSON text: a length comes first, whose last byte is 0."""
    return len(data) >= 4 and bytes(data[3:4]) == b"\0"
