"""QMS files as memories: what the seed calls the binary format."""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from quantum_memory.compression.chooser import choose
from quantum_memory.compression.codecs import CODECS, NAMES, NONE, ZLIB_JSON, codec_named
from quantum_memory.durability.atomic import DurableFile
from quantum_memory.durability.files import Buffer, ReadableBytes, ReadableFile
from quantum_memory.errors import InvalidStateError
from quantum_memory.formats import qms_layout as layout
from quantum_memory.formats.form_reader import with_forms
from quantum_memory.formats.prepared import Prepared
from quantum_memory.formats.qms_bytes import is_whole
from quantum_memory.formats.qms_reader import QMSReader
from quantum_memory.formats.qms_writer import QMSWriter
from quantum_memory.formats.reader import AMPLITUDES, read_memory
from quantum_memory.formats.record import squared_norm
from quantum_memory.formats.registry import SEALED, Handler, OpenOptions, SaveOptions
from quantum_memory.state.json_text import document_text
from quantum_memory.state.memory_state import as_memory_state

if TYPE_CHECKING:
    from quantum_memory.compression.forms.base import Effort
    from quantum_memory.durability.files import Readable
    from quantum_memory.encryption.sealed_file import SealedReadable
    from quantum_memory.formats.reader import Reader, Verify
    from quantum_memory.formats.registry import Path, Progress, Sink
    from quantum_memory.state.memory_state import MemoryState


class BinaryFormatHandler:
    """Write and read memories as QMS files.

    Parameters
    ----------
    compression_method
        One of the ``COMPRESS_*`` constants, or the name of a codec ("none", "zlib", "lz4", "zstd", "pcodec") or "auto".
        Each chunk that it does not make smaller is stored as it is.

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
            write_memory(sink, self._prepared(state_data), self.compression)
        return sink.length

    def read(self, path: str | os.PathLike[str], *, verify: Verify = "fast") -> MemoryState:
        """Load a state, checking every byte of the file."""
        with ReadableFile(os.fspath(path)) as source:
            return read_memory(QMS().open(source, OpenOptions()), verify=verify)

    def to_bytes(self, state_data: object) -> bytes:
        """Return the bytes that `write` would write."""
        sink = io.BytesIO()
        write_memory(sink, self._prepared(state_data), self.compression)
        return sink.getvalue()

    def from_bytes(self, data: Buffer) -> MemoryState:
        """Read what `to_bytes` returned."""
        return read_memory(QMS().open(ReadableBytes(data), OpenOptions()))

    def _prepared(self, state_data: object) -> Prepared:
        return Prepared.plain(as_memory_state(state_data))


class QMS(Handler):
    """The ``.qms`` file, for the registry."""

    packs = True
    encrypts = True
    compressions = frozenset({"auto", *NAMES})

    def write(self, sink: Sink, memory: Prepared, options: SaveOptions) -> str:
        return write_memory(sink, memory, options.compression, options.progress, options.effort)

    def save(self, path: Path, memory: Prepared, options: SaveOptions) -> tuple[str, int, str]:
        if options.encrypt is None:
            return super().save(path, memory, options)
        from quantum_memory.encryption.envelope import Lock  # noqa: PLC0415 - few states are encrypted
        from quantum_memory.encryption.sealed_file import SealingSink  # noqa: PLC0415

        lock = options.encrypt if isinstance(options.encrypt, Lock) else Lock.new(options.encrypt)
        with (
            DurableFile(path, overwrite=options.overwrite, durable=options.durable, mode=0o600) as file,
            SealingSink(file, lock) as sink,
        ):
            name = self.write(sink, memory, options)
        return file.name, file.length, name

    def open(self, source: Readable, options: OpenOptions) -> Reader:
        if not _is_sealed(source):
            return with_forms(QMSReader(source), options.max_bytes)
        inside = _unsealed(source, options)
        return with_forms(QMSReader(inside, inside.stored_size), options.max_bytes)

    def check_bytes(self, source: Readable, options: OpenOptions, progress: Progress | None = None) -> str | None:
        # Of one that is sealed, every byte between its header and its end is needed for what is in it.
        found = is_whole(source, progress) or (_is_sealed(source) and is_whole(_unsealed(source, options), progress))
        return QMSReader.format if found else None


def _is_sealed(source: Readable) -> bool:
    return source.read(0, min(len(SEALED), source.size)) == SEALED


def _unsealed(source: Readable, options: OpenOptions) -> SealedReadable:
    from quantum_memory.encryption.keys import key_of  # noqa: PLC0415 - few states are encrypted
    from quantum_memory.encryption.sealed_file import SealedReadable  # noqa: PLC0415

    return SealedReadable(source, key_of(options.key))


def write_memory(
    sink: Sink,
    memory: Prepared,
    compression: str = "auto",
    progress: Progress | None = None,
    effort: Effort = "fast",
) -> str:
    """Write a memory as a QMS file and return its `content_id`.

    The same memory gives the same bytes (with the same release, and the same versions of the compression libraries).

    Parameters
    ----------
    sink
        Where to; it is written front to back.
    compression, effort
        Name of a codec, or "auto", and how long to look for one then.
    progress
        Called with the raw bytes of each chunk that is done.
    """
    arrays = memory.arrays
    squares = None
    with QMSWriter(sink, progress) as writer:
        for path in sorted(arrays, key=lambda path: (_section(path), path.encode())):
            array = arrays[path]
            tally = squared_norm if path == AMPLITUDES else None
            sums = writer.add(_section(path), path, array, choose(array, compression, effort), tally)
            squares = sums if path == AMPLITUDES else squares
        text = document_text(memory.parts(squares), writer.position)
        plain = compression == "none" or len(text) > layout.MAX_PACKED_DOCUMENT_BYTES
        documents = NONE if plain else ZLIB_JSON
        writer.add(layout.DOCUMENT, "document", np.frombuffer(text, np.uint8), documents)
        return memory.content_id(writer.identities)


def _section(path: str) -> int:
    return layout.SECTION_OF[path.partition("/")[0]]
