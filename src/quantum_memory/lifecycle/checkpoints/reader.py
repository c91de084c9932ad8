"""Read a checkpoint as every other memory is read: all of it on all cores, or only what is touched."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np

from quantum_memory.compression.codecs import NONE, codec_with_id
from quantum_memory.compression.cores import for_all_parts
from quantum_memory.durability.pack import checksum
from quantum_memory.errors import QuantumMemoryError
from quantum_memory.formats.reader import check_out, damaged, look_up, new_array, parts_of_chunks
from quantum_memory.lifecycle.repository.chunks import read_chunk
from quantum_memory.lifecycle.repository.manifest_file import VERSION
from quantum_memory.state.arrays import CHUNK_BYTES, STORABLE, bytes_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from quantum_memory.durability.chunk_store import ChunkStore
    from quantum_memory.durability.pack import Place
    from quantum_memory.formats.reader import Verify
    from quantum_memory.lifecycle.checkpoints.manifest import Checkpoint, Chunked, Manifest
    from quantum_memory.state.arrays import AnyArray


class CheckpointReader:
    """An open checkpoint; the store has to be held while it is read.

    A chunk is compared with the checksum that the index of its pack gives, and that index has a SHA-256 of its own;
    "full" compares the raw bytes with the name of the chunk as well, which is their SHA-256.

    Parameters
    ----------
    manifest
        What it is.
    store
        Where its chunks are.
    name, size
        The path of the manifest, and the bytes of it and of the chunks.

    Attributes
    ----------
    on_close
        Called when it is closed.
    """

    format = "checkpoint"
    version = VERSION
    member = ""

    def __init__(self, manifest: Manifest, store: ChunkStore, name: str, size: int) -> None:
        self.manifest = manifest
        self.document, self.record = manifest.document, manifest.record
        self.entries = manifest.arrays
        self.notes: list[str] = []
        self.name = name
        self.size = size
        self.on_close: Callable[[], object] | None = None
        self._store = store
        self._maps: dict[str, memoryview] = {}

    @property
    def checkpoint(self) -> Checkpoint:
        """What is said of it."""
        return self.manifest.checkpoint

    def facts(self, path: str) -> dict[str, Any]:
        """Return how an array is stored."""
        entry = self.entries[path]
        places = [self._place(entry, index)[1] for index in range(entry.count)]
        return {
            "stored_bytes": sum(place.stored for place in places),
            "chunks": len(places),
            "codecs": sorted({codec_with_id(place.codec).name for place in places}),
        }

    def read(
        self,
        path: str,
        *,
        out: AnyArray | None = None,
        verify: Verify = "fast",
        progress: Callable[[int], object] | None = None,
    ) -> AnyArray:
        """Return one array, checked; see `check_out` for `out`."""
        entry = look_up(self.entries, path, self.name)
        array = new_array(entry, path, self.name) if out is None else check_out(out, entry, path, self.name)
        raw = bytes_of(array.reshape(-1)) if array.nbytes else memoryview(b"")

        def fill(index: int) -> None:
            part = raw[index * CHUNK_BYTES : (index + 1) * CHUNK_BYTES]
            self._fill(path, entry, index, part, verify)
            if progress is not None:
                progress(len(part))

        for_all_parts(fill, entry.count)
        return array

    def read_items(self, path: str, start: int, stop: int) -> AnyArray:
        """Return items ``start:stop`` of an array in C order; only the chunks that they are in are read and checked."""
        entry = look_up(self.entries, path, self.name)
        dtype = np.dtype(STORABLE[entry.dtype])
        if not 0 <= start <= stop <= entry.nbytes // dtype.itemsize:
            raise IndexError(f"items {start}:{stop} are not within {path}")
        items = np.empty(stop - start, dtype)
        for index, there, here in parts_of_chunks(dtype, start, stop):
            raw = np.empty(min(CHUNK_BYTES, entry.nbytes - index * CHUNK_BYTES), np.uint8)
            self._fill(path, entry, index, raw.data, "fast")
            items[here] = raw.view(dtype)[there]
        return items

    def is_mapped(self, path: str) -> bool:
        """Tell whether an array lies in one piece in one pack, as it is."""
        return self._piece(self.entries[path]) is not None

    def map(
        self,
        path: str,
        *,
        verify: Verify = "fast",
        progress: Callable[[int], object] | None = None,
    ) -> AnyArray:
        """Return one array as a private view of its pack, all its chunks checked; one in several pieces is read."""
        entry = look_up(self.entries, path, self.name)
        piece = self._piece(entry)
        if piece is None:
            return self.read(path, verify=verify, progress=progress)
        pack_name, start = piece
        if pack_name not in self._maps:
            self._maps[pack_name] = self._store.map(pack_name)
        view = self._maps[pack_name][start : start + entry.nbytes]

        def check(index: int) -> None:
            part = view[index * CHUNK_BYTES : (index + 1) * CHUNK_BYTES]
            if checksum(part) != self._place(entry, index)[1].check:
                raise damaged(f"its array {path!r} does not match its checksum in chunk {index}", self.name)
            if verify == "full":
                self._check(path, entry, index, part)
            if progress is not None:
                progress(len(part))

        for_all_parts(check, entry.count)
        array: AnyArray = np.frombuffer(view, STORABLE[entry.dtype]).reshape(entry.shape)
        return array

    def check_rest(self) -> None:
        """Do nothing: the manifest was checked when it was read, and the packs are those of others as well."""

    def check_everything(
        self,
        progress: Callable[[int], object] | None = None,
        look: Callable[[str, AnyArray], object] | None = None,
        *,
        known: dict[bytes, int] | None = None,
    ) -> int:
        """Check every chunk against both of its digests, and return how many there are.

        Parameters
        ----------
        progress
            Called with the raw bytes of each chunk that is done.
        look
            Called with the path of an array and the items of each chunk of it.
        known
            Raw bytes of each chunk that was found whole a moment ago, in this or in other checkpoints: it is not read
            again. What is found whole now is added.
        """
        whole = {} if known is None else known
        for path, entry in self.entries.items():
            dtype = np.dtype(STORABLE[entry.dtype])

            def check(index: int, path: str = path, entry: Chunked = entry, dtype: np.dtype[Any] = dtype) -> None:
                nbytes = min(CHUNK_BYTES, entry.nbytes - index * CHUNK_BYTES)
                self._place(entry, index)  # it may have gone since
                if look is not None or whole.get(entry.chunk(index)) != nbytes:
                    raw = np.empty(nbytes, np.uint8)
                    self._fill(path, entry, index, raw.data, "full")
                    whole[entry.chunk(index)] = nbytes
                    if look is not None:
                        look(path, raw.view(dtype))
                if progress is not None:
                    progress(nbytes)

            for_all_parts(check, entry.count)
        return sum(entry.count for entry in self.entries.values())

    def share(self) -> None:
        """Do nothing: each read makes an array of its own."""

    def close(self) -> None:
        """Let go of what was mapped; arrays that were made of it keep it."""
        self._maps.clear()
        if self.on_close is not None:
            self.on_close()

    def _place(self, entry: Chunked, index: int) -> tuple[str, Place]:
        try:
            return self._store.place(entry.chunk(index))
        except QuantumMemoryError as error:
            error.path = self.name
            raise

    def _piece(self, entry: Chunked) -> tuple[str, int] | None:
        """Return the pack and the offset at which all of an array stands as it is; None where it does not."""
        first: tuple[str, int] | None = None
        for index in range(entry.count):
            name, place = self._place(entry, index)
            begin = place.offset - index * CHUNK_BYTES
            if place.codec != NONE.id or (first is not None and first != (name, begin)):
                return None
            first = (name, begin)
        return first

    def _fill(self, path: str, entry: Chunked, index: int, raw: memoryview, verify: Verify) -> None:
        """Read, check and decode one chunk into `raw`."""
        self._place(entry, index)  # names the checkpoint, where it is missing
        try:
            read_chunk(self._store, entry.chunk(index), raw)
        except QuantumMemoryError as error:
            raise error.at(self.name) from error.__cause__
        if verify == "full":
            self._check(path, entry, index, raw)

    def _check(self, path: str, entry: Chunked, index: int, raw: memoryview) -> None:
        if hashlib.sha256(raw).digest() != entry.chunk(index):
            raise damaged(f"its array {path!r} does not match its SHA-256 in chunk {index}", self.name)
