"""Read one memory of an HDF5 store: all of it on all cores, or only what is touched."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import xxhash

from quantum_memory.errors import IntegrityError
from quantum_memory.formats import hdf5_guard as guard
from quantum_memory.formats.form_nodes import Forms
from quantum_memory.formats.hdf5_layout import (
    ALIGNMENT,
    DIGEST_BYTES,
    FILTER_NUMBERS,
    FILTERS,
    Place,
    compression_arguments,
    on_chunks,
    summary,
)
from quantum_memory.formats.hdf5_packed import PackedArray
from quantum_memory.formats.reader import check_out, damaged, look_up, nbytes_of, new_array, parts_of_chunks
from quantum_memory.state.arrays import CHUNK_BYTES, STORABLE, bytes_of, chunk_count
from quantum_memory.state.document import MAX_DIMENSIONS, content_id
from quantum_memory.state.json_text import MAX_DOCUMENT_BYTES, from_json, max_nodes

if TYPE_CHECKING:
    from collections.abc import Callable

    from quantum_memory.durability.transaction import TransactionFile
    from quantum_memory.formats.reader import Verify
    from quantum_memory.state.arrays import AnyArray


class StateReader:
    """One memory in an HDF5 store; see `reader.Reader`.

    Parameters
    ----------
    file
        The store.
    group
        The group of the memory.

    Attributes
    ----------
    on_close
        Called when the reader is closed.

    Raises
    ------
    IntegrityError
        What the group says of itself does not match its SHA-256, or does not fit together.
    """

    format = "h5"
    version = "2.0"

    def __init__(self, file: TransactionFile, group: h5py.Group) -> None:
        self._file = file
        self._group = group
        self.on_close: Callable[[], object] | None = None
        self._datasets: dict[str, h5py.Dataset] = {}
        self._packed: dict[str, PackedArray] = {}
        self.name = file.name
        self.member = str(group.name).rpartition("/")[2]
        self.size = file.size
        self.notes: list[str] = []
        with guard.guarded(self.name):
            text, digests = self._sealed()
            self._parse(text, digests)

    def _sealed(self) -> tuple[bytes, bytes]:
        """Return the text and the digests of the group, having compared them with its SHA-256."""
        text = self._bytes("metadata", MAX_DOCUMENT_BYTES)
        digests = self._bytes("digests", self.size) if guard.has(self._group, "digests") else b""
        if hashlib.sha256(text + digests).hexdigest() != guard.text_attribute(self._group, "sha256", 64):
            raise IntegrityError(f"the metadata of its state {self.member!r} do not match their SHA-256")
        return text, digests

    def _bytes(self, name: str, most: int) -> bytes:
        """Return the items of a dataset of bytes or of one text."""
        dataset = guard.child(self._group, name)
        plain = isinstance(dataset, h5py.Dataset) and dataset.dtype.kind == "S"
        dtypes = [dataset.dtype if plain else np.dtype(np.uint8)]
        array = guard.read_dataset(dataset, max_bytes=most, dtypes=dtypes, file_bytes=self.size)
        return array.tobytes()

    def _parse(self, text: bytes, digests: bytes) -> None:
        """Take what the group says of the memory, having seen that it fits together."""
        parts = from_json(text, max_nodes=max_nodes(self.size))
        if set(parts) - {"forms"} != {"document", "record", "arrays", "content_id"}:
            raise IntegrityError("its metadata are not those of a memory")
        position, places = 0, {}
        for path, node in parts["arrays"].items():
            shape = tuple(node["shape"])
            if (
                not all(type(length) is int and 0 <= length < 1 << 63 for length in shape)
                or len(shape) > MAX_DIMENSIONS
            ):
                raise IntegrityError(f"its array {path[:80]!r} has a shape that no array has")
            length = DIGEST_BYTES * chunk_count(nbytes_of(node["dtype"], shape))
            if "digest" in node:
                own = bytes.fromhex(node["digest"])
            else:
                own, position = digests[position : position + length], position + length
            if len(own) != length:
                raise IntegrityError(f"its array {path[:80]!r} has not the digests that its length asks for")
            places[path] = Place(str(node["at"]), node["dtype"], shape, own)
        forms = Forms.from_json(parts.get("forms"), places)
        if position != len(digests) or forms.stored_paths(parts["document"]) != set(places):
            raise IntegrityError("its document and its arrays do not fit together")
        stored = {path: place.identity for path, place in places.items()}
        named = content_id(parts["document"], forms.identities(stored))
        if named != parts["content_id"] or named != guard.text_attribute(self._group, "content_id", 64):
            raise IntegrityError("its content does not match its content_id")
        self.document, self.record, self.entries, self.content = parts["document"], parts["record"], places, named
        self.forms = forms

    def summary(self) -> dict[str, Any]:
        """Return what the index says of the memory."""
        named = self.forms.identities({path: place.identity for path, place in self.entries.items()})
        return summary(self.document, self.content, sum(nbytes_of(one.dtype, one.shape) for one in named.values()))

    def facts(self, path: str) -> dict[str, Any]:
        place = look_up(self.entries, path, self.name)
        dataset = self._dataset(path)
        numbers = guard.filters_of(dataset)
        codec = next((name for name, number in FILTER_NUMBERS.items() if number in numbers), "none")
        stored = int(dataset.id.get_storage_size())
        return {"stored_bytes": stored, "chunks": len(place.digests) // DIGEST_BYTES, "codecs": [codec]}

    def read(
        self,
        path: str,
        *,
        out: AnyArray | None = None,
        verify: Verify = "fast",
        progress: Callable[[int], object] | None = None,
    ) -> AnyArray:
        place = look_up(self.entries, path, self.name)
        array = new_array(place, path, self.name) if out is None else check_out(out, place, path, self.name)
        flat = array.reshape(-1)
        per_chunk = CHUNK_BYTES // flat.itemsize

        def fill(index: int) -> None:
            items = flat[index * per_chunk : (index + 1) * per_chunk]
            self._fill(path, index, items, verify)
            if progress is not None:
                progress(items.nbytes)

        on_chunks(fill, chunk_count(place.nbytes), parallel=self._is_parallel(path))
        return array

    def read_items(self, path: str, start: int, stop: int) -> AnyArray:
        place = look_up(self.entries, path, self.name)
        dtype = np.dtype(STORABLE[place.dtype])
        total = place.nbytes // dtype.itemsize
        if not 0 <= start <= stop <= total:
            raise IndexError(f"items {start}:{stop} are not within {path}")
        items = np.empty(stop - start, dtype)
        per_chunk = CHUNK_BYTES // dtype.itemsize
        for index, there, here in parts_of_chunks(dtype, start, stop):
            length = min(per_chunk, total - index * per_chunk)
            whole = there == slice(0, length)
            chunk = items[here] if whole else np.empty(length, dtype)
            self._fill(path, index, chunk, "fast")
            if not whole:
                items[here] = chunk[there]
        return items

    def is_mapped(self, path: str) -> bool:
        return self.entries[path].nbytes > 0 and (self._offset(path) or 1) % ALIGNMENT == 0

    def map(self, path: str, *, verify: Verify = "fast", progress: Callable[[int], object] | None = None) -> AnyArray:
        place = look_up(self.entries, path, self.name)
        offset = self._offset(path)
        if offset is None or not self.is_mapped(path):
            return self.read(path, verify=verify, progress=progress)
        view = self._file.map(offset, place.nbytes)

        def check(index: int) -> None:
            with view[index * CHUNK_BYTES : (index + 1) * CHUNK_BYTES] as raw:
                self._check(path, index, raw, verify)
                if progress is not None:
                    progress(len(raw))

        try:
            on_chunks(check, chunk_count(place.nbytes), parallel=True)
        except BaseException:
            view.release()  # it holds the lock, and the error, which somebody may hold on to, would hold it
            raise
        array: AnyArray = np.frombuffer(view, STORABLE[place.dtype]).reshape(place.shape)
        return array

    def check_rest(self) -> None:
        """Do nothing: what else is in the group was read when it was opened."""

    def check_everything(
        self,
        progress: Callable[[int], object] | None = None,
        look: Callable[[str, AnyArray], object] | None = None,
    ) -> int:
        for path, place in self.entries.items():
            dtype = np.dtype(STORABLE[place.dtype])
            per_chunk = CHUNK_BYTES // dtype.itemsize
            total = place.nbytes // dtype.itemsize

            def check(
                index: int,
                path: str = path,
                dtype: np.dtype[Any] = dtype,
                per_chunk: int = per_chunk,
                total: int = total,
            ) -> None:
                items = np.empty(min(per_chunk, total - index * per_chunk), dtype)
                self._fill(path, index, items, "full")
                if look is not None:
                    look(path, items)
                if progress is not None:
                    progress(items.nbytes)

            on_chunks(check, chunk_count(place.nbytes), parallel=self._is_parallel(path))
            if not place.nbytes:
                self._dataset(path)
        return sum(chunk_count(place.nbytes) for place in self.entries.values())

    def share(self) -> None:
        """Do nothing: each read makes an array of its own."""

    def close(self) -> None:
        self._datasets.clear()
        self._packed.clear()
        if self.on_close is not None:
            self.on_close()

    def _dataset(self, path: str) -> h5py.Dataset:
        """Return the dataset of an array, having seen that it is what `metadata` says."""
        if path not in self._datasets:
            place = self.entries[path]
            dtype = np.dtype(STORABLE[place.dtype])
            with guard.guarded(self.name):
                dataset: Any = self._group
                for part in place.at.split("/"):
                    dataset = guard.child(dataset, part)
                # With szip, complex numbers are pairs of floats.
                pairs = np.dtype(f"<f{dtype.itemsize // 2}") if dtype.kind == "c" else dtype
                shape = guard.checked_dataset(
                    dataset,
                    max_bytes=place.nbytes,
                    dtypes={dtype, pairs},
                    filters=FILTERS,
                    file_bytes=self.size,
                )
                if shape != ((*place.shape, 2) if dataset.dtype != dtype else place.shape):
                    raise IntegrityError(f"its array {path[:80]!r} has another shape than its metadata say")
                if guard.BITSHUFFLE in guard.filters_of(dataset):
                    compression_arguments("bitshuffle")  # which makes the filter known to HDF5
                if dataset.chunks is not None:
                    self._packed[path] = PackedArray(self._file, dataset)
            self._datasets[path] = dataset
        return self._datasets[path]

    def _offset(self, path: str) -> int | None:
        """Return where an array that is stored as it is begins in the file."""
        dataset = self._dataset(path)
        if dataset.chunks is not None:
            return None
        offset = dataset.id.get_offset()
        nbytes = self.entries[path].nbytes
        if offset is None or not 0 < offset <= self.size - nbytes:
            if nbytes:
                raise damaged(f"its array {path!r} is outside the file", self.name)
            return 0
        return int(offset)

    def _is_parallel(self, path: str) -> bool:
        return self._offset(path) is not None or self._packed[path].parallel

    def _fill(self, path: str, index: int, items: AnyArray, verify: Verify) -> None:
        """Read one chunk into `items` and check it."""
        offset = self._offset(path)
        raw = bytes_of(items)
        if offset is not None:
            self._file.read_into(raw, offset + index * CHUNK_BYTES)
        else:
            with guard.guarded(self.name):
                self._packed[path].read_into(raw, index * CHUNK_BYTES)
        self._check(path, index, raw, verify)

    def _check(self, path: str, index: int, raw: memoryview, verify: Verify) -> None:
        digest = self.entries[path].digests[index * DIGEST_BYTES : (index + 1) * DIGEST_BYTES]
        good = xxhash.xxh3_64_intdigest(raw).to_bytes(8, "little") == digest[:8]
        if not good or (verify == "full" and hashlib.sha256(raw).digest() != digest[8:]):
            raise damaged(f"the array {path!r} of its state {self.member!r} is damaged in chunk {index}", self.name)
