"""Read a QMS file: all of it on all cores, or only what is touched."""

from __future__ import annotations

import hashlib
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from quantum_memory.compression.codecs import NONE, codec_with_id
from quantum_memory.errors import (
    RESTORE,
    BudgetError,
    IntegrityError,
    InvalidStateError,
    MissingError,
    UnsafeError,
    UnsupportedVersionError,
)
from quantum_memory.formats import qms_layout as layout
from quantum_memory.state.arrays import CHUNK_BYTES, STORABLE, bytes_of, worker_count
from quantum_memory.state.document import array_paths
from quantum_memory.state.json_text import from_json, max_nodes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from quantum_memory.durability.files import Readable
    from quantum_memory.state.arrays import AnyArray
    from quantum_memory.state.document import ArrayIdentity

Verify = Literal["fast", "full"]
"""How stored bytes are checked on reading: "fast" against their xxh3 (which the table's SHA-256 vouches for), "full"
against the SHA-256 of the raw bytes as well."""

_CHUNKS_PER_TASK = 8


def check_verify(verify: str) -> None:
    """Refuse a way to check that there is not: a mistyped "full" must not become "fast"."""
    if verify not in get_args(Verify):
        raise InvalidStateError(f"verify is {verify!r}", next_step='give "fast" or "full"')


class QMSReader:
    """An open QMS file.

    Opening reads header, trailer, table and document, and no other byte.

    Parameters
    ----------
    source
        The file; it belongs to the reader, which closes it.

    Attributes
    ----------
    layout
        The table.
    entries
        The arrays by path.
    document, record
        What the memory says of itself, and what was noted when it was saved.
    """

    def __init__(self, source: Readable) -> None:
        self.source = source
        self.layout = layout.read_layout(source)
        self.entries: dict[str, layout.Entry] = {}
        document = None
        for entry in self.layout.entries:
            if entry.section in layout.SECTION_NAMES:
                # The section follows from the path, so that no path can be there twice.
                if layout.SECTION_OF.get(entry.name.partition("/")[0]) != entry.section:
                    raise self._damaged(f"its entry {entry.name[:80]!r} is in a section where it does not belong")
                if entry.section != layout.DOCUMENT:
                    self.entries[entry.name] = entry
                elif entry.name == "document":
                    document = entry
                else:
                    raise self._damaged("it has a second document")
            elif entry.flags & layout.REQUIRED:
                raise UnsupportedVersionError(
                    f"it has a section {entry.section} that this release does not know and must not skip",
                    path=source.name,
                    next_step="pip install --upgrade quantum-memory",
                )
        if document is None:
            raise self._damaged("it has no document")
        self._last: tuple[tuple[str, int], AnyArray] | None = None
        self._lock = threading.Lock()
        self.document, self.record = self._read_document(document)

    def close(self) -> None:
        """Close the file."""
        self.source.close()

    def identities(self) -> dict[str, ArrayIdentity]:
        """Identity of each array, from the table alone."""
        return {path: entry.identity for path, entry in self.entries.items()}

    def entry(self, path: str) -> layout.Entry:
        """Return the entry of an array, or say which there are."""
        try:
            return self.entries[path]
        except KeyError:
            some = ", ".join(list(self.entries)[:5])
            raise MissingError(
                f"it has no array {path!r}", path=self.source.name, next_step=f"it has: {some}"
            ) from None

    def read(
        self,
        path: str,
        *,
        out: AnyArray | None = None,
        verify: Verify = "fast",
        progress: Callable[[int], object] | None = None,
        look: Callable[[AnyArray], object] | None = None,
    ) -> AnyArray:
        """Return one array.

        Parameters
        ----------
        out
            Where to put it: a C-contiguous array of the same dtype and shape. When reading fails, its contents are
            undefined.
        verify
            How to check; there is no way not to.
        progress, look
            Called with the raw bytes done, and with the items of each chunk, in any order and from several threads.
        """
        entry = self.entry(path)
        array = self._destination(entry) if out is None else _checked(out, entry, self.source.name)
        flat = array.reshape(-1)
        per_chunk = CHUNK_BYTES // flat.itemsize if flat.itemsize else 0

        def fill(index: int, offset: int) -> None:
            items = flat[index * per_chunk : (index + 1) * per_chunk]
            self._fill(entry, index, offset, bytes_of(items), verify)
            if look is not None:
                look(items)
            if progress is not None:
                progress(items.nbytes)

        self._on_all_chunks(entry, fill)
        return array

    def read_items(self, path: str, start: int, stop: int) -> AnyArray:
        """Return items ``start:stop`` of an array in C order; only the chunks that they are in are read and checked."""
        entry = self.entry(path)
        dtype = np.dtype(STORABLE[entry.dtype])
        per_chunk = CHUNK_BYTES // dtype.itemsize
        if not 0 <= start <= stop <= entry.nbytes // dtype.itemsize:
            raise IndexError(f"items {start}:{stop} are not within {path}")
        items = np.empty(stop - start, dtype)
        offsets = entry.chunk_offsets()
        for index in range(start // per_chunk, -(-stop // per_chunk)):
            first = index * per_chunk
            low, high = max(start, first), min(stop, first + per_chunk)
            chunk = self._chunk(entry, index, int(offsets[index])).view(dtype)
            items[low - start : high - start] = chunk[low - first : high - first]
        return items

    def check_everything(
        self,
        progress: Callable[[int], object] | None = None,
        look: Callable[[str, AnyArray], object] | None = None,
    ) -> int:
        """Check every byte of the file: all chunks against both digests, and the padding; return the number of chunks.

        Nothing is kept, so that the memory needed is a few chunks.
        """
        self.check_padding()
        for entry in self.layout.entries:
            dtype = np.dtype(STORABLE[entry.dtype])

            def check(index: int, offset: int, entry: layout.Entry = entry, dtype: np.dtype[Any] = dtype) -> None:
                buffer = np.empty(entry.raw_length(index), np.uint8)
                self._fill(entry, index, offset, buffer.data, "full")
                if look is not None and self.entries.get(entry.name) is entry:  # a skipped one may have the name
                    look(entry.name, buffer.view(dtype))
                if progress is not None:
                    progress(buffer.nbytes)

            self._on_all_chunks(entry, check)
        return sum(len(entry.chunks) for entry in self.layout.entries)

    def check_padding(self) -> None:
        """Check that the bytes between entries are zero, so that no byte of the file is without a meaning."""
        end = layout.HEADER_BYTES
        for entry in self.layout.entries:
            if any(self.source.read(end, entry.offset - end)):
                raise self._damaged(f"the padding before its array {entry.name!r} is not zero")
            end = entry.offset + entry.stored_bytes

    def _destination(self, entry: layout.Entry) -> AnyArray:
        try:
            return np.empty(entry.shape, STORABLE[entry.dtype])
        except (MemoryError, OverflowError, ValueError):
            raise BudgetError(
                f"its array {entry.name!r} needs {entry.nbytes} bytes of memory, which there are not",
                path=self.source.name,
                next_step="read a part of it with quantum_memory.open",
            ) from None

    def _on_all_chunks(self, entry: layout.Entry, work: Callable[[int, int], None]) -> None:
        """Call `work(index, offset)` for every chunk, on all cores when there are many."""
        offsets = entry.chunk_offsets().tolist()

        def run(indices: Iterable[int]) -> None:
            for index in indices:
                work(index, offsets[index])

        tasks = [
            range(first, min(first + _CHUNKS_PER_TASK, len(offsets)))
            for first in range(0, len(offsets), _CHUNKS_PER_TASK)
        ]
        if len(offsets) <= 1:
            run(range(len(offsets)))
            return
        with ThreadPoolExecutor(worker_count(), "qms-reader") as pool:
            try:
                for _ in pool.map(run, tasks):
                    pass
            except BaseException:
                pool.shutdown(wait=True, cancel_futures=True)
                raise

    def _chunk(self, entry: layout.Entry, index: int, offset: int) -> AnyArray:
        """Return the raw bytes of a chunk, remembering the last: neighbours are often asked for one after another."""
        key = (entry.name, index)
        with self._lock:
            if self._last is not None and self._last[0] == key:
                return self._last[1]
        raw = np.empty(entry.raw_length(index), np.uint8)
        self._fill(entry, index, offset, raw.data, "fast")
        with self._lock:
            self._last = (key, raw)
        return raw

    def _fill(self, entry: layout.Entry, index: int, offset: int, raw: memoryview, verify: Verify) -> None:
        """Read, check and decode one chunk into `raw`. The checksum comes first: no decoder sees damaged bytes."""
        number, stored_length, check, digest = entry.chunks[index].tolist()
        try:
            codec = codec_with_id(number)
        except UnsupportedVersionError as error:
            raise error.at(self.source.name) from None
        direct = codec is NONE and stored_length == len(raw)
        stored = raw if direct else memoryview(bytearray(stored_length))
        self.source.read_into(stored, offset)
        if layout.checksum(stored) != check:
            raise self._damaged(
                f"its array {entry.name!r} is damaged in chunk {index}: bytes {offset} to "
                f"{offset + stored_length - 1} of the file do not match their checksum"
            )
        if not direct:
            try:
                raw[:] = codec.decode(stored, len(raw))
            except IntegrityError as error:
                raise error.at(self.source.name) from None
        if verify == "full" and hashlib.sha256(raw).digest() != bytes(digest):
            raise self._damaged(f"its array {entry.name!r} does not match its SHA-256 in chunk {index}")

    def _read_document(self, entry: layout.Entry) -> tuple[dict[str, Any], dict[str, Any]]:
        if entry.nbytes > layout.MAX_DOCUMENT_BYTES or entry.dtype != "u8" or len(entry.shape) != 1:
            raise self._damaged("its document is past the limits of the format")
        if entry.stored_bytes < entry.nbytes > layout.MAX_PACKED_DOCUMENT_BYTES:
            raise UnsafeError(
                f"its document is packed and has {entry.nbytes} bytes, more than the limit",
                path=self.source.name,
                next_step="do not trust this file: no release writes one like it",
            )
        raw = bytearray(entry.nbytes)
        for index, offset in enumerate(entry.chunk_offsets().tolist()):
            part = memoryview(raw)[index * CHUNK_BYTES : index * CHUNK_BYTES + entry.raw_length(index)]
            self._fill(entry, index, offset, part, "full")
        try:
            content = from_json(raw, max_nodes=max_nodes(self.source.size))
        except (IntegrityError, UnsafeError) as error:
            raise error.at(self.source.name) from error.__cause__
        if (
            not isinstance(content, dict)
            or set(content) != {"document", "record"}
            or not all(isinstance(part, dict) for part in content.values())
        ):
            raise self._damaged("its document is not well formed")
        if array_paths(content["document"]) != set(self.entries):
            raise self._damaged("its document and its table name different arrays")
        return content["document"], content["record"]

    def _damaged(self, what: str) -> IntegrityError:
        return IntegrityError(what, path=self.source.name, next_step=RESTORE)


def _checked(out: AnyArray, entry: layout.Entry, path: str) -> AnyArray:
    """Return `out` when the array can be read straight into it."""
    dtype = np.dtype(STORABLE[entry.dtype])
    if out.dtype != dtype or out.shape != entry.shape or not out.flags.c_contiguous or not out.flags.writeable:
        kept = "C-contiguous" if out.flags.c_contiguous else "strided"
        raise InvalidStateError(
            f"out is a {kept if out.flags.writeable else 'read-only'} array of {out.dtype} and shape {out.shape}; "
            f"{entry.name} has {dtype} and shape {entry.shape}",
            path=path,
            next_step=f"give numpy.empty({entry.shape}, {str(dtype)!r})",
        )
    return out
