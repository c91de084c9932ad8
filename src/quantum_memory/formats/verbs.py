"""The verbs: save, load, open and describe a memory, whatever the format of its file."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Literal

from quantum_memory.durability.atomic import DurableFile
from quantum_memory.durability.files import ReadableFile
from quantum_memory.errors import IntegrityError, InvalidStateError
from quantum_memory.formats import info as facts
from quantum_memory.formats import json_format, qms_layout
from quantum_memory.formats.binary_format import read_memory, write_memory
from quantum_memory.formats.foreign import foreign
from quantum_memory.formats.lazy import StateFile
from quantum_memory.formats.qms_reader import QMSReader, check_verify
from quantum_memory.state.memory_state import MemoryState, as_memory_state

if TYPE_CHECKING:
    from collections.abc import Callable

    from quantum_memory.formats.qms_reader import Verify

    Path = str | os.PathLike[str]
    Progress = Callable[[int], object]

Format = Literal["qms", "json", "json.zlib"]


@dataclass(frozen=True)
class Saved:
    """What `save` did."""

    path: str
    format: Format
    bytes: int
    content_id: str


def save(
    state: object,
    path: Path,
    *,
    compression: str = "auto",
    overwrite: bool = True,
    durable: bool = True,
    progress: Progress | None = None,
) -> Saved:
    """Save a state so that it survives a kill or a power cut from the moment this returns.

    Parameters
    ----------
    state
        A `StateVector`, `DensityMatrix`, `MatrixProductState`, `MemoryState`, array or dict (see `as_memory_state`).
        It is streamed: beside it, a few MiB of memory are needed.
    path
        Where to; the suffix says the format: ``.qms``, ``.json`` or ``.json.zlib``.
    compression
        For ``.qms``: "none", "lz4", "zlib", "zstd", or "auto" for what pays. All are lossless.
    overwrite
        False: a file that is there already is a `ConflictError`.
    durable
        False leaves out the ``fsync``: still all or nothing against a kill, not against a power cut.
    progress
        Called with the raw bytes of each chunk that is done.

    Raises
    ------
    InvalidStateError
        It cannot be kept exactly; nothing is written.
    StorageError
        The operating system refused; what was there before is untouched.
    """
    memory = as_memory_state(state)
    kind = format_of_suffix(path)
    if kind == "qms":
        with DurableFile(path, overwrite=overwrite, durable=durable) as sink:
            name = write_memory(sink, memory, compression, progress)
        return Saved(sink.name, kind, sink.length, name)
    if compression not in {"auto", "zlib" if kind == "json.zlib" else "none"}:
        raise InvalidStateError(
            f"a .{kind} file has no compression {compression!r}", path=path, next_step="save it as .qms or .json.zlib"
        )
    text, name = json_format.to_text(memory)
    data = json_format.to_zlib(text) if kind == "json.zlib" else text
    with DurableFile(path, overwrite=overwrite, durable=durable) as sink:
        sink.write(data)
    return Saved(sink.name, kind, sink.length, name)


def load(
    path: Path,
    *,
    out: Any = None,
    verify: Verify = "fast",
    max_bytes: int | None = None,
    progress: Progress | None = None,
) -> MemoryState:
    """Load a memory, checking every byte of its file.

    Parameters
    ----------
    path
        The file. Its first bytes say the format.
    out
        Memory for the amplitudes of the state vector, which the loaded state then uses: an array of their dtype and
        shape, or any writable buffer of their length (``.qms`` only). When loading fails, what is in it is undefined.
    verify
        "fast": every stored byte against its xxh3 checksum, and the checksums against the SHA-256 of the table. "full":
        the SHA-256 of the raw bytes as well.
    max_bytes
        What its arrays may take in memory, those that `out` is for left out; by default all the memory of the machine.
        A short file can hold long arrays of zeros. (JSON, which is read up to 16 MiB of text, is bounded already.)
    progress
        Called with the raw bytes of each chunk that is done.

    Raises
    ------
    IntegrityError
        The file is damaged. It says where.
    BudgetError
        Its arrays need more than `max_bytes`; nothing has been allocated for them.
    UnsupportedVersionError, MissingFileError, StorageError, UnsafeError
    """
    check_verify(verify)
    kind, source = opened(path)
    with source:
        if kind == "qms":
            reader = QMSReader(source)
            return read_memory(reader, out=out, verify=verify, max_bytes=max_bytes, progress=progress)
        if out is not None:
            raise InvalidStateError(
                "only .qms files are loaded into memory of yours", path=path, next_step="leave out="
            )
        return json_format.read(source)


def open(path: Path) -> StateFile:  # noqa: A001 - the field's word
    """Open a ``.qms`` file without reading its data: parts are read, and checked, when they are touched.

    Examples
    --------
    >>> with open("big.qms") as f:  # doctest: +SKIP
    ...     f.amplitudes[2**20 : 2**20 + 8]
    """
    kind, source = opened(path)
    try:
        if kind != "qms":
            raise InvalidStateError("only .qms files are read in part", path=path, next_step="use load")
        return StateFile(QMSReader(source))
    except BaseException:
        source.close()
        raise


def info(path: Path) -> dict[str, Any]:
    """Return what a file says of itself; for ``.qms`` this reads its table and document, not its data.

    Metadata are as the document has them: what JSON cannot say is an object such as ``{"$tuple": [...]}`` there.
    """
    kind, source = opened(path)
    with source:
        if kind == "qms":
            return facts.of_reader(QMSReader(source))
        memory = json_format.read(source)
        return facts.of_memory(memory, source.name, kind, json_format.VERSION, source.size)


def format_of_suffix(path: Path) -> Format:
    """Return the format that the suffix of a path asks for."""
    name = PurePath(path).name.lower()
    for kind in ("json.zlib", "json", "qms"):
        if name.endswith(f".{kind}"):
            return kind
    raise InvalidStateError(
        "its suffix does not say a format", path=path, next_step="end the name with .qms, .json or .json.zlib"
    )


def opened(path: Path) -> tuple[Format, ReadableFile]:
    """Open a file and tell its format from its first bytes; where they show none, the suffix decides.

    Raises
    ------
    IntegrityError
        Neither shows one.
    """
    source = ReadableFile(os.fspath(path))
    try:
        return _format_of(source), source
    except BaseException:
        source.close()
        raise


def _format_of(source: ReadableFile) -> Format:
    head = source.read(0, min(64, source.size))
    if head[:4] in {qms_layout.SIGNATURE[:4], b"QMS\x01"}:
        return "qms"
    if head.startswith(json_format.HEAD):
        return "json"
    if head[4:].startswith(json_format.ZLIB_HEAD):
        return "json.zlib"
    try:
        return format_of_suffix(source.name)
    except InvalidStateError:
        unknown = IntegrityError(
            "neither its first bytes nor its suffix are those of a saved state", next_step="give the path of one"
        )
        raise (foreign(head) or unknown).at(source.name) from None
