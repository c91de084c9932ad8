"""A manifest: what one checkpoint is, in one file, over chunks that are in packs.

::

    prefix (128 bytes) | head | text, with zlib | names of chunks, 32 bytes each

The head says what a list of checkpoints shows, and can be read without the rest. The text is document and record
of the memory, and dtype and shape of each array; the names of their chunks follow in the order of the paths.
``docs/checkpoint_format.md`` is the specification.
"""

from __future__ import annotations

import datetime
import hashlib
import math
import re
import struct
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from quantum_memory.durability.pack import check_reader, sealed
from quantum_memory.errors import RESTORE, IntegrityError, InvalidStateError, UnsafeError
from quantum_memory.formats.reader import nbytes_of
from quantum_memory.state.arrays import STORABLE, chunk_count, combine_digests
from quantum_memory.state.document import MAX_DIMENSIONS, ArrayIdentity, array_paths, content_id, well_formed
from quantum_memory.state.json_text import (
    MAX_DOCUMENT_BYTES,
    check_record,
    check_values,
    count_nodes,
    from_json,
    max_nodes,
    to_json,
)

if TYPE_CHECKING:
    from quantum_memory.durability.files import Readable

SIGNATURE = b"\x89QMC\r\n\x1a\n"
VERSION = 1
MINIMUM_READER = 1
PREFIX_BYTES = 128
DIGEST_BYTES = 32
MAX_HEAD_BYTES = 1 << 20
MAX_CHUNKS = 1 << 24
"""Chunks of a checkpoint: of 16 TiB."""

ID = re.compile(r"[a-z0-9][a-z0-9._-]{0,127}")

_PREFIX = struct.Struct("<8sIIIIII32s32s24xQ")
_CHECKED = PREFIX_BYTES - 8
_LEVEL = 1
_FIRST_BYTES = 4096
_WEIGHT = 8  # of a byte of packed text, where others count the bytes of a file with its arrays
_NOT_FINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}
_TYPES: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("id", "branch", "created_at", "name", "description", "kind", "content_id", "writer"), (str,)),
    **dict.fromkeys(("number", "arrays", "raw_bytes", "new_bytes"), (int,)),
    **dict.fromkeys(("automatic", "finished"), (bool,)),
    **dict.fromkeys(("metrics", "parameters"), (dict,)),
    "parent": (str, type(None)),
}
_KEYS = {*_TYPES, "progress"}


@dataclass(frozen=True)
class Checkpoint:
    """What a list of checkpoints shows of one.

    Attributes
    ----------
    id
        Its name in the folder.
    number
        Its place in the order of saving, which is the order even where clocks jump.
    parent
        Id of the checkpoint that it continues; None for the first of a run.
    branch
        Name of the line of checkpoints that it is the newest of, or was.
    created_at
        When, ISO 8601, UTC.
    name, description
        As the caller gave them.
    automatic
        Whether nobody asked for it by name.
    kind
        What was saved: "memory", "quantum" or "tree".
    progress
        How far the run was, as the caller said it: a number, or whatever JSON has.
    metrics
        Figures of that moment by name.
    parameters
        What the run was started with, or went on with.
    finished
        Whether the run had ended.
    content_id
        Name of the content, the same in every format.
    arrays, raw_bytes
        How many arrays it has, and their bytes.
    new_bytes
        Bytes that were written for it, those of the manifest left out.
    writer
        The release that wrote it.
    """

    id: str
    number: int
    parent: str | None
    branch: str
    created_at: str
    name: str
    description: str
    automatic: bool
    kind: str
    progress: Any
    metrics: dict[str, float]
    parameters: dict[str, Any]
    finished: bool
    content_id: str
    arrays: int
    raw_bytes: int
    new_bytes: int
    writer: str

    def to_dict(self) -> dict[str, Any]:
        """Return it as a plain dict."""
        return dict(vars(self))


@dataclass(frozen=True)
class Chunked:
    """An array over chunks.

    Attributes
    ----------
    dtype, shape, nbytes
        What it is.
    chunks
        Names of its chunks, one after another.
    """

    dtype: str
    shape: tuple[int, ...]
    chunks: bytes
    nbytes: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "nbytes", nbytes_of(self.dtype, self.shape))

    @property
    def count(self) -> int:
        """How many chunks it has."""
        return chunk_count(self.nbytes)

    @property
    def identity(self) -> ArrayIdentity:
        """Name of its content."""
        return ArrayIdentity(self.dtype, self.shape, combine_digests(self.chunks, self.count))

    def chunk(self, index: int) -> bytes:
        """Return the name of a chunk."""
        return self.chunks[index * DIGEST_BYTES : (index + 1) * DIGEST_BYTES]


@dataclass(frozen=True)
class Manifest:
    """A checkpoint: what is said of it, document and record of its memory, and its arrays by path."""

    checkpoint: Checkpoint
    document: dict[str, Any]
    record: dict[str, Any]
    arrays: dict[str, Chunked]

    def chunks(self) -> set[bytes]:
        """Return the names of all chunks that it needs."""
        return {array.chunk(index) for array in self.arrays.values() for index in range(array.count)}


def written(manifest: Manifest) -> bytes:
    """Return the bytes of a manifest.

    Raises
    ------
    InvalidStateError
        What the caller said of it is not JSON, or too long.
    """
    said = as_json(manifest.checkpoint)
    check_record(said)
    head = to_json(said)
    paths = sorted(manifest.arrays)
    text = to_json(
        {
            "document": manifest.document,
            "record": manifest.record,
            "arrays": [[path, manifest.arrays[path].dtype, list(manifest.arrays[path].shape)] for path in paths],
        }
    )
    if len(head) > MAX_HEAD_BYTES or len(text) > MAX_DOCUMENT_BYTES:
        raise InvalidStateError(
            f"what is said of the checkpoint makes {max(len(head), len(text))} bytes of text, too many",
            next_step="give long lists of numbers as arrays",
        )
    chunks = b"".join(manifest.arrays[path].chunks for path in paths)
    packed = zlib.compress(text, _LEVEL)
    if count_nodes(text) > _most_values(len(packed)):
        packed = zlib.compress(text, 0)  # as it is: a short file cannot hold many values
        check_values(text, _WEIGHT * len(packed))
    body = packed + chunks
    prefix = _PREFIX.pack(
        SIGNATURE, VERSION, MINIMUM_READER, len(head), len(packed), len(text), len(chunks) // DIGEST_BYTES,
        hashlib.sha256(head).digest(), hashlib.sha256(body).digest(), 0,
    )  # fmt: skip
    return sealed(prefix) + head + body


def as_json(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return a checkpoint as JSON has it, which has no infinity, and no number that is none."""
    said = checkpoint.to_dict()
    said["metrics"] = {name: value if math.isfinite(value) else repr(value) for name, value in said["metrics"].items()}
    return said


def metrics_of(said: dict[str, Any]) -> dict[str, float]:
    """Return the metrics of what `as_json` gave."""
    return {name: _NOT_FINITE.get(value, value) for name, value in said.items()}


def read_checkpoint(source: Readable) -> Checkpoint:
    """Return what a list shows of a checkpoint; of the rest of the file only the length is looked at.

    Raises
    ------
    IntegrityError, UnsupportedVersionError, StorageError
    """
    return _read_head(source)[0]


def read_manifest(source: Readable) -> Manifest:
    """Return a manifest, every byte of it checked; whether its chunks are there is not looked at.

    Raises
    ------
    IntegrityError, UnsafeError, UnsupportedVersionError, StorageError
    """
    checkpoint, chunks, (packed, length) = _read_body(source)
    with well_formed(source.name):
        content = from_json(_unpacked(packed, length), max_nodes=_most_values(len(packed)))
        document, record, listed = content["document"], content["record"], content["arrays"]
        arrays = _arrays(listed, chunks)
        if set(arrays) != array_paths(document):
            raise IntegrityError("its document names other arrays than it has")
        if content_id(document, {path: array.identity for path, array in arrays.items()}) != checkpoint.content_id:
            raise IntegrityError("its content does not match its content_id")
        return Manifest(checkpoint, document, record, arrays)


def read_chunk_names(source: Readable) -> set[bytes]:
    """Return the names of the chunks that a manifest needs; its text is compared with its SHA-256, and not parsed.

    Raises
    ------
    IntegrityError, UnsafeError, UnsupportedVersionError, StorageError
    """
    _, body, _ = _read_body(source)
    return {bytes(body[at : at + DIGEST_BYTES]) for at in range(0, len(body), DIGEST_BYTES)}


def _read_head(source: Readable) -> tuple[Checkpoint, tuple[int, int, int], bytes]:
    if source.size < PREFIX_BYTES:
        raise _damaged(source, "it is cut short")
    block = source.read(0, min(_FIRST_BYTES, source.size))  # which has the head of nearly every manifest
    prefix = block[:PREFIX_BYTES]
    signature, version, minimum, head, packed, text, count, head_digest, digest, _ = _PREFIX.unpack(prefix)
    if signature != SIGNATURE:
        raise _damaged(source, "it does not begin like a checkpoint")
    if sealed(prefix) != prefix or any(prefix[96:_CHECKED]):
        raise _damaged(source, "its first bytes do not match their checksum")
    check_reader(minimum, version, VERSION, "checkpoints", source.name)
    if PREFIX_BYTES + head + packed + count * DIGEST_BYTES != source.size:
        raise _damaged(source, "it has another length than it says: it is cut short or damaged")
    if head > MAX_HEAD_BYTES or text > MAX_DOCUMENT_BYTES or count > MAX_CHUNKS:
        raise UnsafeError(
            "its text is longer than any that is written",
            path=source.name,
            next_step="do not trust this file: no release writes one like it",
        )
    end = PREFIX_BYTES + head
    said = block[PREFIX_BYTES:end] if end <= len(block) else source.read(PREFIX_BYTES, head)
    if hashlib.sha256(said).digest() != head_digest:
        raise _damaged(source, "its head does not match its SHA-256")
    with well_formed(source.name):
        return _checkpoint(from_json(said, max_nodes=max_nodes(len(said)))), (packed, text, count), digest


def _read_body(source: Readable) -> tuple[Checkpoint, memoryview, tuple[memoryview, int]]:
    """Return the head, the names of the chunks, and the packed text with its length."""
    checkpoint, (packed, length, count), digest = _read_head(source)
    body = memoryview(source.read(source.size - packed - count * DIGEST_BYTES, packed + count * DIGEST_BYTES))
    if hashlib.sha256(body).digest() != digest:
        raise _damaged(source, "it does not match its SHA-256")
    return checkpoint, body[packed:], (body[:packed], length)


def _checkpoint(said: Any) -> Checkpoint:
    if not isinstance(said, dict) or said.keys() != _KEYS:
        raise IntegrityError("its head is not well formed")
    for name, types in _TYPES.items():
        if type(said[name]) not in types:
            raise IntegrityError(f"in its head, {name} is none that there can be")
    metrics = said["metrics"] = metrics_of(said["metrics"])
    checkpoint = Checkpoint(**said)
    counts = (checkpoint.number, checkpoint.arrays, checkpoint.raw_bytes, checkpoint.new_bytes)
    if not ID.fullmatch(checkpoint.id) or min(counts) < 0 or max(counts) >= 1 << 63:
        raise IntegrityError("its head is not well formed")
    if datetime.datetime.fromisoformat(checkpoint.created_at).utcoffset() != datetime.timedelta():
        raise IntegrityError("its time is not in UTC")
    if not all(type(value) in {int, float} for value in metrics.values()):
        raise IntegrityError("its metrics are no numbers")
    for value in metrics.values():
        float(value)  # an OverflowError is for `well_formed`
    return checkpoint


def _most_values(packed: int) -> int:
    """Return how many values text may hold that takes so many bytes."""
    return max_nodes(_WEIGHT * packed)


def _unpacked(packed: memoryview, length: int) -> bytes:
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


def _arrays(listed: Any, chunks: memoryview) -> dict[str, Chunked]:
    made: dict[str, Chunked] = {}
    position = 0
    for path, dtype, shape in listed:
        if dtype not in STORABLE or len(shape) > MAX_DIMENSIONS or not all(type(n) is int and n >= 0 for n in shape):
            raise IntegrityError(f"its array {path!r:.80} has no dtype or shape that there is")
        if math.prod(shape) >= 1 << 60:
            raise IntegrityError(f"its array {path!r:.80} is larger than any that there is")
        end = position + chunk_count(nbytes_of(dtype, tuple(shape))) * DIGEST_BYTES
        if path in made or end > len(chunks):
            raise IntegrityError("its arrays do not fit its chunks")
        made[path] = Chunked(dtype, tuple(shape), bytes(chunks[position:end]))
        position = end
    if position != len(chunks) or list(made) != sorted(made):
        raise IntegrityError("its arrays do not fit its chunks")
    return made


def _damaged(source: Readable, what: str) -> IntegrityError:
    return IntegrityError(what, path=source.name, next_step=RESTORE)
