"""The manifest of a checkpoint (`repository.manifest_file`).

The text is document and record of the memory, and dtype and shape of each array; the names of their chunks follow in
the order of the paths. ``docs/checkpoint_format.md`` is the specification.
"""

from __future__ import annotations

import datetime
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from quantum_memory.errors import IntegrityError
from quantum_memory.formats.reader import nbytes_of
from quantum_memory.lifecycle.repository import manifest_file
from quantum_memory.lifecycle.repository.folder import ID
from quantum_memory.lifecycle.repository.manifest_file import DIGEST_BYTES, Kind, most_values
from quantum_memory.lifecycle.repository.signed_json import said_by, signed
from quantum_memory.state.arrays import STORABLE, chunk_count, combine_digests
from quantum_memory.state.document import MAX_DIMENSIONS, ArrayIdentity, array_paths, content_id, well_formed
from quantum_memory.state.json_text import check_record, from_json, max_nodes, to_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from quantum_memory.durability.files import Readable

KIND = Kind(b"\x89QMC\r\n\x1a\n", "checkpoint")
_NOT_FINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}
_TYPES: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("id", "branch", "created_at", "name", "description", "kind", "content_id", "writer"), (str,)),
    **dict.fromkeys(("number", "arrays", "raw_bytes", "new_bytes"), (int,)),
    **dict.fromkeys(("automatic", "finished"), (bool,)),
    **dict.fromkeys(("metrics", "parameters"), (dict,)),
    "parent": (str, type(None)),
}
_KEYS = {*_TYPES, "progress"}
NOTED = "checkpoint"
"""Where, in what is noted of a version, stands which checkpoint it is."""


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
    paths = sorted(manifest.arrays)
    text = to_json(
        {
            "document": manifest.document,
            "record": manifest.record,
            "arrays": [[path, manifest.arrays[path].dtype, list(manifest.arrays[path].shape)] for path in paths],
        }
    )
    chunks = b"".join(manifest.arrays[path].chunks for path in paths)
    return manifest_file.written(KIND, to_json(said), manifest_file.packed_text(text), len(text), chunks)


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
    with well_formed(source.name):
        return _checkpoint(manifest_file.read_head(source, KIND))


def read_manifest(source: Readable) -> Manifest:
    """Return a manifest, every byte of it checked; whether its chunks are there is not looked at.

    Raises
    ------
    IntegrityError, UnsafeError, UnsupportedVersionError, StorageError
    """
    head, body = manifest_file.read_whole(source, KIND)
    with well_formed(source.name):
        checkpoint = _checkpoint(head)
        text = manifest_file.unpacked_text(body.packed, body.text_bytes)
        content = from_json(text, max_nodes=most_values(len(body.packed)))
        document, record, listed = content["document"], content["record"], content["arrays"]
        arrays = _arrays(listed, body.chunks)
        if set(arrays) != array_paths(document):
            raise IntegrityError("its document names other arrays than it has")
        if content_id(document, {path: array.identity for path, array in arrays.items()}) != checkpoint.content_id:
            raise IntegrityError("its content does not match its content_id")
        return Manifest(checkpoint, document, record, arrays)


def noting(checkpoint: Checkpoint) -> dict[str, str]:
    """Return what is noted of a version that is a checkpoint: what is said of that, signed."""
    return {NOTED: signed({NOTED: as_json(checkpoint)}).decode()}


def noted_head(noted: Mapping[str, Any], where: str = "") -> Checkpoint | None:
    """Return the checkpoint of which `noting` gave this; None where there is none.

    Parameters
    ----------
    where
        What errors call it.

    Raises
    ------
    IntegrityError, UnsupportedVersionError
    """
    text = noted.get(NOTED)
    if not isinstance(text, str):
        return None
    said = said_by(text.encode(), where, {NOTED})[NOTED]
    with well_formed(where):
        return _described(said)


def _checkpoint(text: bytes) -> Checkpoint:
    return _described(from_json(text, max_nodes=max_nodes(len(text))))


def _described(said: Any) -> Checkpoint:
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
