"""Files that are wrong on purpose, and whole all the same: every checksum and digest in them is right.

A forged file gets past the outer checks, so that what is behind them is tested.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
import zlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from quantum_memory.formats import json_format, qms_layout
from quantum_memory.formats.seal import FORMAT, VERSION
from quantum_memory.state.arrays import CHUNK_BYTES, dtype_name
from quantum_memory.state.document import ArrayIdentity, content_id

U8, F64 = (qms_layout.TYPE_NUMBERS[name] for name in ("u8", "f64"))


@dataclass
class Chunk:
    """One chunk; `length` is what the table says of its stored length, where that is not the truth."""

    stored: bytes
    raw: bytes
    codec: int = 0
    length: int | None = None

    def record(self) -> bytes:
        check = qms_layout.checksum(self.stored)
        length = len(self.stored) if self.length is None else self.length
        return struct.pack("<BIQ", self.codec, length, check) + hashlib.sha256(self.raw).digest()


@dataclass
class Part:
    """One entry of the table, anything in which may be a lie."""

    section: int
    name: bytes
    kind: int
    shape: tuple[int, ...]
    chunks: list[Chunk] = field(default_factory=list)
    flags: int = 1
    dimensions: int | None = None
    name_bytes: int | None = None

    def entry(self) -> bytes:
        dimensions = len(self.shape) if self.dimensions is None else self.dimensions
        name_bytes = len(self.name) if self.name_bytes is None else self.name_bytes
        head = struct.pack("<BBBBH", self.section, self.kind, self.flags, dimensions, name_bytes)
        shape = struct.pack(f"<{len(self.shape)}Q", *self.shape)
        return head + shape + self.name + b"".join(chunk.record() for chunk in self.chunks)


def array(path: str, values: Any, **lies: Any) -> Part:
    """Return the honest entry of an array, but for the `lies`."""
    values = np.asarray(values)
    kind = qms_layout.TYPE_NUMBERS[dtype_name(values.dtype)]
    section = qms_layout.SECTION_OF[path.partition("/")[0]]
    raw = values.tobytes()
    chunks = [Chunk(raw[i : i + CHUNK_BYTES], raw[i : i + CHUNK_BYTES]) for i in range(0, len(raw), CHUNK_BYTES)]
    return Part(
        **{"section": section, "name": path.encode(), "kind": kind, "shape": values.shape, "chunks": chunks} | lies
    )


def zeros(path: str, shape: tuple[int, ...], dtype: Any = np.float64) -> Part:
    """Return the entry of an array of zeros, a kilobyte for each MiB."""
    nbytes = math.prod(shape) * np.dtype(dtype).itemsize
    raw = [bytes(min(CHUNK_BYTES, nbytes - i)) for i in range(0, nbytes, CHUNK_BYTES)]
    stored = {len(part): zlib.compress(part, 9) for part in raw}
    chunks = [Chunk(stored[len(part)], part, 1) for part in raw]
    return array(path, np.zeros(0, dtype), shape=shape, chunks=chunks)


def document(content: Any, **lies: Any) -> Part:
    """Return the entry of a document; bytes are taken as its text."""
    text = content if isinstance(content, bytes) else json.dumps(content, separators=(",", ":")).encode()
    return array("document", np.frombuffer(text, np.uint8), **lies)


def packed(text: bytes, codec: int = 1) -> Part:
    """Return the entry of a document that is stored with zlib, chunk by chunk."""
    parts = [text[i : i + CHUNK_BYTES] for i in range(0, len(text), CHUNK_BYTES)]
    chunks = [Chunk(zlib.compress(part, 9), part, codec) for part in parts]
    return Part(qms_layout.DOCUMENT, b"document", U8, (len(text),), chunks)


def says(record: Any = None, **parts: Any) -> Part:
    """Return a document that says these parts."""
    return document({"document": parts, "record": {} if record is None else record})


def qms(
    *parts: Part,
    count: int | None = None,
    padding: bytes = b"\0",
    after_table: bytes = b"",
    facts: dict[str, int] | None = None,
) -> bytes:
    """Return a QMS file of these parts, in this order, with header, table and trailer that agree with one another."""
    head = header(**(facts or {}))
    body = bytearray(head)
    for part in parts:
        body += padding * (qms_layout.aligned(len(body)) - len(body))
        for chunk in part.chunks:
            body += chunk.stored
    table = struct.pack("<I", len(parts) if count is None else count)
    table += b"".join(part.entry() for part in parts) + after_table
    return sealed(head, bytes(body), table)


def sealed(head: bytes, body: bytes, table: bytes, **lies: int) -> bytes:
    """Return a file with a right trailer, but for the `lies`: `table_offset` and `length`."""
    table_offset = lies.get("table_offset", len(body))
    length = lies.get("length", len(body) + len(table) + 64)
    root = hashlib.sha256(head + struct.pack("<QQ", table_offset, length) + table).digest()
    return body + table + head[8:24] + struct.pack("<QQ32s", table_offset, length, root)


def header(version: int = 2, oldest: int = 2, flags: int = 0, chunk: int = CHUNK_BYTES, alignment: int = 64) -> bytes:
    """Return a header of any facts, with its checksum."""
    head = (qms_layout.SIGNATURE + struct.pack("<HHIII", version, oldest, flags, chunk, alignment)).ljust(56, b"\0")
    return head + struct.pack("<Q", qms_layout.checksum(head))


def seal(body: bytes) -> bytes:
    """Return JSON text with the SHA-256 of all before it at its end; `body` lacks the last brace."""
    return body + b',\n"sha256":"' + hashlib.sha256(body).hexdigest().encode() + b'"}\n'


def json_file(arrays: dict[str, Any] | None = None, **parts: Any) -> bytes:
    """Return JSON text of these parts with a right content_id, where one can be had, and a right seal."""
    arrays = arrays or {}
    inner = {
        key: value for key, value in parts.items() if key not in {"record", "version", "format", "content_id", "extra"}
    }
    try:
        identities = {
            path: ArrayIdentity(node["dtype"], tuple(node["shape"]), bytes.fromhex(node["sha256"]))
            for path, node in arrays.items()
        }
        name = content_id(inner, identities)
    except (AttributeError, LookupError, TypeError, ValueError):
        name = "0" * 64
    whole = {"format": FORMAT, "version": VERSION, "content_id": name} | parts
    text = json.dumps({**whole, "record": parts.get("record", {}), "arrays": arrays}).encode()
    return seal(text[:-1])


def json_array(values: Any, **lies: Any) -> dict[str, Any]:
    """Return the honest node of an array in JSON, but for the `lies`."""
    import base64

    values = np.asarray(values)
    node = {
        "dtype": dtype_name(values.dtype),
        "shape": list(values.shape),
        "sha256": hashlib.sha256(values.tobytes()).hexdigest(),
        "data": base64.b64encode(values.tobytes()).decode(),
    }
    return node | lies


def zlib_file(text: bytes, **lies: Any) -> bytes:
    """Return a .json.zlib file, with lies in its header."""
    stream = lies.pop("stream", zlib.compress(text, 9))
    facts = json.loads(json_format._header(lies.pop("size", len(text)), stream)) | lies
    head = json.dumps(facts).encode()
    return struct.pack("<I", len(head)) + head + stream
