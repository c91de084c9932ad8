"""Write a pack of chunks: front to back, and without those that are there already."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from quantum_memory.durability import pack
from quantum_memory.durability.atomic import DurableFile

if TYPE_CHECKING:
    from types import TracebackType

    from quantum_memory.durability.chunk_store import ChunkStore
    from quantum_memory.durability.files import Buffer
    from quantum_memory.durability.pack import Place


_TOGETHER = 1 << 20
"""Bytes that are written at once, where single chunks are smaller."""


class PackFile:
    """The bytes of a pack, written to a sink front to back.

    Small chunks are gathered: after each call of the operating system a thread waits for its turn among those that
    prepare the next chunks, and for chunks of a few KiB that is longer than the writing.

    Parameters
    ----------
    sink
        Where they go; it is open.
    signature
        Its first bytes.

    Attributes
    ----------
    written
        The chunks that were written, and where.
    position
        How many bytes were.
    """

    def __init__(self, sink: DurableFile, signature: bytes = pack.SIGNATURE) -> None:
        self._sink = sink
        self._gathered = bytearray()
        self.written: dict[bytes, Place] = {}
        self.position = 0
        self._put(pack.header(signature))

    def write(self, chunk: bytes, stored: Buffer, *, check: int, codec: int, raw: int) -> None:
        """Write a chunk; see `PackWriter.add`."""
        self._align()
        self.written[chunk] = pack.Place(self.position, len(stored), check, codec, raw)
        self._put(stored)

    def end(self) -> tuple[bytes, bytes]:
        """Write the list of the chunks and the end of the pack, and return both."""
        self._align()
        listed = pack.index(self.written)
        end = pack.trailer(listed, self.position)
        self._put(listed)
        self._put(end)
        self._flush()
        return listed, end

    def _align(self) -> None:
        self._put(b"\0" * (pack.aligned(self.position) - self.position))

    def _put(self, data: Buffer) -> None:
        self.position += len(data)
        if len(self._gathered) + len(data) <= _TOGETHER:
            self._gathered += data
        else:
            self._flush()
            if len(data) < _TOGETHER:
                self._gathered += data
            else:
                self._sink.write(data)

    def _flush(self) -> None:
        if self._gathered:
            self._sink.write(self._gathered)
            self._gathered = bytearray()


class PackWriter:
    """A pack being written into a store; use it as a context manager. Without a chunk no file is made.

    Attributes
    ----------
    chunks, new_bytes
        How many chunks were written, and the bytes of the file.
    """

    def __init__(self, store: ChunkStore, path: str, durable: bool, *, mode: int, index_copy: bool) -> None:
        self._store = store
        self._path = path
        self._durable, self._mode, self._index_copy = durable, mode, index_copy
        self._sink = DurableFile(path, durable=durable, mode=mode)
        self._file: PackFile | None = None
        self.new_bytes = 0

    @property
    def chunks(self) -> int:
        """How many chunks were written."""
        return 0 if self._file is None else len(self._file.written)

    def __enter__(self) -> PackWriter:
        return self

    def __contains__(self, chunk: bytes) -> bool:
        return (self._file is not None and chunk in self._file.written) or chunk in self._store

    def add(self, chunk: bytes, stored: Buffer, *, check: int, codec: int, raw: int) -> None:
        """Write a chunk, unless it is there.

        Parameters
        ----------
        chunk
            Its name.
        stored, check
            Its bytes, as they are stored, and `pack.checksum` of them.
        codec, raw
            What packed them, and how many they were before.
        """
        if chunk not in self:
            self._write(chunk, stored, check, codec, raw)

    def copy(self, chunk: bytes, place: Place, stored: Buffer) -> None:
        """Write a chunk that was read from another pack."""
        self._write(chunk, stored, place.check, place.codec, place.raw)

    def _write(self, chunk: bytes, stored: Buffer, check: int, codec: int, raw: int) -> None:
        if self._file is None:
            self._sink.__enter__()
            try:
                self._file = PackFile(self._sink)
            except BaseException as failure:
                self._sink.__exit__(type(failure), failure, None)
                raise
        self._file.write(chunk, stored, check=check, codec=codec, raw=raw)

    def _copy(self, listed: bytes, end: bytes) -> None:
        path = self._path.removesuffix(os.path.splitext(self._path)[1]) + pack.COPY_SUFFIX
        with DurableFile(path, overwrite=False, durable=self._durable, mode=self._mode) as copy:
            copy.write(pack.copy_header() + listed + end)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is None:
            return
        if error is None:
            try:
                listed, end = self._file.end()
                if self._index_copy:  # before the pack, so that none is without it
                    self._copy(listed, end)
            except BaseException as failure:
                self._sink.__exit__(type(failure), failure, None)
                raise
        self._sink.__exit__(kind, error, trace)
        if error is None:
            self.new_bytes = self._file.position
            self._store.added(self._path, self._file.written)
