"""QMS files as memories: what the seed calls the binary format."""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from quantum_memory.compression.chooser import choose
from quantum_memory.compression.codecs import CODECS, NONE, ZLIB_JSON, codec_named
from quantum_memory.durability.atomic import DurableFile
from quantum_memory.durability.files import Buffer, ReadableBytes, ReadableFile, physical_memory
from quantum_memory.errors import BudgetError, InvalidStateError
from quantum_memory.formats import qms_layout as layout
from quantum_memory.formats.qms_reader import QMSReader, Verify, check_verify
from quantum_memory.formats.qms_writer import Progress, QMSWriter, Sink
from quantum_memory.formats.record import noted, squared_norm
from quantum_memory.state.arrays import STORABLE
from quantum_memory.state.document import state_from_node, well_formed
from quantum_memory.state.dtypes import from_stored
from quantum_memory.state.json_text import check_record, count_nodes, max_nodes, to_json
from quantum_memory.state.memory_state import MemoryState, as_memory_state

if TYPE_CHECKING:
    from quantum_memory.state.arrays import AnyArray
    from quantum_memory.state.document import QuantumState

AMPLITUDES = "quantum/amplitudes"
"""Path of the amplitudes of a state vector."""


class BinaryFormatHandler:
    """Write and read memories as QMS files.

    Parameters
    ----------
    compression_method
        One of the ``COMPRESS_*`` constants, or the name of a codec ("none", "zlib", "lz4", "zstd") or "auto". Each
        chunk that it does not make smaller is stored as it is.

    Examples
    --------
    >>> handler = BinaryFormatHandler(compression_method=BinaryFormatHandler.COMPRESS_LZ4)
    >>> handler.write("state.qms", state_data)  # doctest: +SKIP
    >>> loaded = handler.read("state.qms")  # doctest: +SKIP
    """

    COMPRESS_NONE: ClassVar[int] = 0
    COMPRESS_ZLIB: ClassVar[int] = 1
    COMPRESS_LZ4: ClassVar[int] = 2
    COMPRESS_ZSTD: ClassVar[int] = 3

    def __init__(self, compression_method: int | str = COMPRESS_LZ4) -> None:
        names = {codec.id: codec.name for codec in CODECS}
        if isinstance(compression_method, int) and compression_method not in names:
            raise InvalidStateError(
                f"there is no compression method {compression_method}",
                next_step="use one of the COMPRESS_ constants of BinaryFormatHandler",
            )
        name = names[compression_method] if isinstance(compression_method, int) else compression_method
        if name != "auto":
            codec_named(name)
        self.compression = name

    def write(self, path: str | os.PathLike[str], state_data: object, *, durable: bool = True) -> int:
        """Save a state (see `as_memory_state`) durably and return the length of the file in bytes."""
        with DurableFile(path, durable=durable) as sink:
            write_memory(sink, as_memory_state(state_data), self.compression)
        return sink.length

    def read(self, path: str | os.PathLike[str], *, verify: Verify = "fast") -> MemoryState:
        """Load a state, checking every byte of the file."""
        check_verify(verify)
        with ReadableFile(os.fspath(path)) as source:
            return read_memory(QMSReader(source), verify=verify)

    def to_bytes(self, state_data: object) -> bytes:
        """Return the bytes that `write` would write."""
        sink = io.BytesIO()
        write_memory(sink, as_memory_state(state_data), self.compression)
        return sink.getvalue()

    def from_bytes(self, data: Buffer) -> MemoryState:
        """Read what `to_bytes` returned."""
        return read_memory(QMSReader(ReadableBytes(data)))


def write_memory(sink: Sink, memory: MemoryState, compression: str = "auto", progress: Progress | None = None) -> str:
    """Write a memory as a QMS file and return its `content_id`.

    The same memory gives the same bytes (with the same release, and the same versions of the compression libraries).

    Parameters
    ----------
    sink
        Where to; it is written front to back.
    compression
        Name of a codec, or "auto".
    progress
        Called with the raw bytes of each chunk that is done.
    """
    check_record(memory.record)
    document, arrays = memory.flatten()
    squares = None
    with QMSWriter(sink, progress) as writer:
        for path in sorted(arrays, key=lambda path: (_section(path), path.encode())):
            array = arrays[path]
            sums = writer.add(
                _section(path), path, array, choose(array, compression), squared_norm if path == AMPLITUDES else None
            )
            squares = sums if path == AMPLITUDES else squares
        text = _document_text(document, noted(memory, squares), writer.position)
        plain = compression == "none" or len(text) > layout.MAX_PACKED_DOCUMENT_BYTES
        documents = NONE if plain else ZLIB_JSON
        writer.add(layout.DOCUMENT, "document", np.frombuffer(text, np.uint8), documents)
        return writer.content_id(document)


def read_memory(
    reader: QMSReader,
    *,
    out: AnyArray | None = None,
    verify: Verify = "fast",
    max_bytes: int | None = None,
    progress: Progress | None = None,
) -> MemoryState:
    """Read a whole memory, checking every byte.

    Parameters
    ----------
    out
        Memory for the amplitudes of the state vector: an array of their dtype and shape, or any writable buffer of
        their length.
    max_bytes
        What the other arrays may take; by default all the memory of the machine.

    Raises
    ------
    BudgetError
        They take more; nothing has been allocated.
    """
    allowed = physical_memory() if max_bytes is None else max_bytes
    needed = sum(entry.nbytes for path, entry in reader.entries.items() if out is None or path != AMPLITUDES)
    if needed > allowed:
        raise BudgetError(
            f"its arrays need {needed} bytes of memory, and {allowed} are allowed",
            path=reader.source.name,
            next_step="raise max_bytes, or read a part of it with quantum_memory.open",
        )
    reader.check_padding()
    buffers: dict[str, AnyArray] = {}
    if out is not None:
        entry = reader.entry(AMPLITUDES)
        if reader.document["quantum_data"]["$state"]["amplitudes"].get("order") == ">":
            raise InvalidStateError(
                "its amplitudes are big-endian, and are not read into memory of yours",
                path=reader.source.name,
                next_step="leave out=",
            )
        buffers[AMPLITUDES] = out if isinstance(out, np.ndarray) else _as_array(out, entry, reader.source.name)
    arrays = {
        path: reader.read(path, out=buffers.get(path), verify=verify, progress=progress) for path in reader.entries
    }
    with well_formed(reader.source.name):
        return MemoryState.unflatten(reader.document, arrays, reader.record)


def outline(reader: QMSReader) -> QuantumState | None:
    """Return the quantum state of a file over arrays of its shapes that take no memory; what is in them is undefined.

    Raises
    ------
    IntegrityError, UnsupportedVersionError, UnsafeError
        Its parts do not fit together, so that loading would refuse it as well.
    """

    def fetch(node: dict[str, Any]) -> AnyArray:
        entry = reader.entries[node["$array"]]
        item = from_stored(np.zeros([1] * len(entry.shape), STORABLE[entry.dtype]), node)
        return np.broadcast_to(item, entry.shape)

    part = reader.document.get("quantum_data")
    with well_formed(reader.source.name):
        return None if part is None else state_from_node(part["$state"], fetch)


def _section(path: str) -> int:
    return layout.SECTION_OF[path.partition("/")[0]]


def _document_text(document: dict[str, Any], record: dict[str, Any], written: int) -> bytes:
    text = to_json({"document": document, "record": record})
    for what, much, most in (
        ("bytes of JSON", len(text), layout.MAX_DOCUMENT_BYTES),
        ("values", count_nodes(text), max_nodes(written)),
    ):
        if much > most:
            raise InvalidStateError(
                f"the plain values of the tree make {much} {what}, and a document may hold {most}",
                next_step="give long lists of numbers as arrays",
            )
    return text


def _as_array(buffer: Any, entry: layout.Entry, path: str) -> AnyArray:
    try:
        view = memoryview(buffer)
    except TypeError:
        view = memoryview(b"")  # no buffer at all, and so none that fits
    if view.nbytes != entry.nbytes or view.readonly or not view.c_contiguous:
        raise InvalidStateError(
            f"out is a {'read-only ' if view.readonly else ''}{type(buffer).__name__} of {view.nbytes} bytes, and "
            f"{entry.name} needs {entry.nbytes} in one piece that can be written to",
            path=path,
            next_step=f"give a writable buffer of {entry.nbytes} bytes",
        )
    array: AnyArray = np.frombuffer(view.cast("B"), STORABLE[entry.dtype]).reshape(entry.shape)
    return array
