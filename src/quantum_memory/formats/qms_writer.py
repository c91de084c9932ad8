"""Write a QMS file front to back, on all cores, with a few chunks in memory at a time."""

from __future__ import annotations

import hashlib
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from quantum_memory.compression.codecs import Buffer, Codec, encode_if_smaller
from quantum_memory.durability.pack import checksum
from quantum_memory.errors import InvalidStateError
from quantum_memory.formats import qms_layout as layout
from quantum_memory.state.arrays import (
    CHUNK_BYTES,
    bytes_of,
    chunk_count,
    chunk_items,
    combine_digests,
    dtype_name,
    worker_count,
)
from quantum_memory.state.document import ArrayIdentity

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType

    from quantum_memory.formats.registry import Progress, Sink
    from quantum_memory.state.arrays import AnyArray


class _Chunk(NamedTuple):
    codec: Codec
    stored: Buffer
    check: int
    digest: bytes
    tally: float


class QMSWriter:
    """A QMS file being written to a sink; use it as a context manager, which writes table and trailer at the end.

    Entries must be added in the order of the file: by section, then by the bytes of the name.

    Attributes
    ----------
    position
        Bytes written so far.
    identities
        Of the arrays written so far, by path.
    """

    def __init__(self, sink: Sink, progress: Progress | None = None) -> None:
        self._sink = sink
        self._progress = progress
        self._entries: list[bytes] = []
        self.identities: dict[str, ArrayIdentity] = {}
        self._last = (0, b"")
        self.position = 0
        self._pool: ThreadPoolExecutor | None = None

    def __enter__(self) -> QMSWriter:
        self._write(layout.header())
        return self

    def add(
        self, section: int, name: str, array: AnyArray, codec: Codec, tally: Callable[[AnyArray], float] | None = None
    ) -> list[float]:
        """Write one array.

        Parameters
        ----------
        section
            One of the section numbers of `qms_layout`.
        name
            Path of the array in the memory.
        array
            Any array of a storable dtype, in any memory order; it is read chunk by chunk.
        codec
            For each of its chunks, where it pays.
        tally
            A sum to take over its items while they are in the cache, called with the items of each chunk.

        Returns
        -------
        list of float
            The tally of each chunk, 0 without one.
        """
        dtype = dtype_name(array.dtype)
        if dtype is None:
            raise InvalidStateError(f"{name} has dtype {array.dtype}, which is not stored directly")
        before, self._last = self._last, (section, name.encode("utf-8", "replace"))
        if self._last <= before:
            raise InvalidStateError(f"{name!r} is added after {before[1]!r}, and must come before it")
        self._write(b"\0" * (layout.aligned(self.position) - self.position))
        records = np.zeros(chunk_count(array.nbytes), layout.CHUNK_RECORD)
        tallies = []
        for index, chunk in enumerate(self._prepared(array, codec, tally)):
            self._write(chunk.stored)
            record = (chunk.codec.id, len(chunk.stored), chunk.check, np.frombuffer(chunk.digest, np.uint8))
            records[index] = record
            tallies.append(chunk.tally)
            if self._progress is not None:
                self._progress(min(CHUNK_BYTES, array.nbytes - index * CHUNK_BYTES))
        self._entries.append(layout.pack_entry(section, name, dtype, array.shape, records))
        if section != layout.DOCUMENT:
            digest = combine_digests(records["digest"].tobytes(), len(records))
            self.identities[name] = ArrayIdentity(dtype, array.shape, digest)
        return tallies

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
        if error is None:
            table = layout.pack_table(self._entries)
            end = layout.trailer(table, self.position)
            self._write(table)
            self._write(end)

    def _prepared(self, array: AnyArray, codec: Codec, tally: Callable[[AnyArray], float] | None) -> Iterator[_Chunk]:
        """Yield the chunks in order; while one is being written, the next are prepared on the other cores."""
        count = chunk_count(array.nbytes)
        if count <= 1:
            yield from (_prepare(array, index, codec, tally) for index in range(count))
            return
        workers = worker_count()
        if self._pool is None:
            self._pool = ThreadPoolExecutor(workers, "qms-writer")
        ahead: deque[Future[_Chunk]] = deque()
        for index in range(count):
            ahead.append(self._pool.submit(_prepare, array, index, codec, tally))
            if len(ahead) > 2 * workers:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()

    def _write(self, data: Buffer) -> None:
        if len(data):
            self._sink.write(data)
            self.position += len(data)


def _prepare(array: AnyArray, index: int, codec: Codec, tally: Callable[[AnyArray], float] | None) -> _Chunk:
    # A copy of its own: were the caller to change the array meanwhile, digest and data would not fit together. It also
    # costs nothing, since what follows then reads the chunk from the cache.
    items = chunk_items(array, index).copy()
    raw = bytes_of(items)
    used, stored = encode_if_smaller(codec, raw)
    digest = hashlib.sha256(raw).digest()
    return _Chunk(used, stored, checksum(stored), digest, 0.0 if tally is None else tally(items))
