"""Write one memory into an HDF5 store.

Arrays that are stored as they are have one place in the file. They are written there, on all cores, past the HDF5
library, which works on one: the bytes are the same, and any other program reads them through the library.
"""

from __future__ import annotations

import hashlib
import math
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import xxhash

from quantum_memory.errors import InvalidStateError
from quantum_memory.formats.hdf5_layout import (
    DIGEST_BYTES,
    SMALL,
    Place,
    boxes,
    dataset_names,
    hdf5_chunks,
    new_dataset,
    new_group,
    on_chunks,
    summary,
)
from quantum_memory.formats.reader import AMPLITUDES
from quantum_memory.formats.record import squared_norm
from quantum_memory.state.arrays import CHUNK_BYTES, STORABLE, bytes_of, chunk_count, chunk_items, dtype_name
from quantum_memory.state.json_text import document_text

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from quantum_memory.formats.hdf5_store import Store
    from quantum_memory.formats.prepared import Prepared
    from quantum_memory.formats.registry import Progress
    from quantum_memory.state.arrays import AnyArray


class StateWriter:
    """Writes memories into the groups of an open store.

    Parameters
    ----------
    store
        The store.
    arguments
        Those of `hdf5_layout.compression_arguments`.
    progress
        Called with the raw bytes of each chunk that is done.
    """

    def __init__(self, store: Store, arguments: Mapping[str, Any], progress: Progress | None = None) -> None:
        self._store = store
        self._arguments = arguments
        self._progress = progress

    def write(self, group: h5py.Group, memory: Prepared) -> dict[str, Any]:
        """Write a memory into an empty group and return what the index says of it."""
        document, arrays = memory.document, memory.arrays
        names = dataset_names(arrays)
        for part in ("quantum_data", "classical_data", "emotional_context"):
            if part in document and part not in names.values():  # a part may be one array
                new_group(group, part)
        places: dict[str, Place] = {}
        squares = None
        for path in sorted(arrays):
            places[path], sums = self._write_array(group, names[path], arrays[path], tally=path == AMPLITUDES)
            squares = sums if path == AMPLITUDES else squares
        content = memory.content_id({path: place.identity for path, place in places.items()})
        table = memory.parts(squares) | {"content_id": content}
        raw_bytes = sum(array.nbytes for array in arrays.values())
        _seal(group, table, places, raw_bytes)
        group.attrs["content_id"] = np.bytes_(content)
        _mark_for_viewers(group, document, names)
        return summary(document, content, memory.raw_bytes)

    def _write_array(self, group: h5py.Group, name: str, array: AnyArray, *, tally: bool) -> tuple[Place, list[float]]:
        """Write one array; the digests are of the copies that are written, whatever happens to the array meanwhile."""
        kind = dtype_name(array.dtype)
        if kind is None:
            raise InvalidStateError(f"{name} has dtype {array.dtype}, which is not stored directly")
        count = chunk_count(array.nbytes)
        digests, sums = [b""] * count, [0.0] * count
        packed = array.ndim > 0 and array.nbytes > SMALL and bool(self._arguments)
        put = (self._packed if packed else self._contiguous)(group, name, array.shape, np.dtype(STORABLE[kind]))

        def write(index: int) -> None:
            self._store.check()
            items = chunk_items(array, index)
            if isinstance(array, np.ndarray):  # of others, they are nobody else's already
                items = items.copy()
            raw = bytes_of(items)
            digests[index] = xxhash.xxh3_64_intdigest(raw).to_bytes(8, "little") + hashlib.sha256(raw).digest()
            if tally:
                sums[index] = squared_norm(items)
            put(index, items)
            if self._progress is not None:
                self._progress(len(raw))

        on_chunks(write, count, parallel=not packed)
        return Place(name, kind, array.shape, b"".join(digests)), sums

    def _contiguous(
        self, group: h5py.Group, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]
    ) -> Callable[[int, AnyArray], object]:
        """Create a dataset that has its place in the file at once, and return what writes a chunk of it there."""
        properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        properties.set_layout(h5py.h5d.CONTIGUOUS)
        properties.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
        properties.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
        properties.set_obj_track_times(False)  # the same memory makes the same bytes
        links = h5py.h5p.create(h5py.h5p.LINK_CREATE)
        links.set_create_intermediate_group(True)
        links.set_char_encoding(h5py.h5t.CSET_UTF8)
        space = h5py.h5s.create_simple(shape) if shape else h5py.h5s.create(h5py.h5s.SCALAR)
        kind = h5py.h5t.py_create(dtype, logical=True)
        dataset = h5py.h5d.create(group.id, name.encode(), kind, space, properties, links)
        offset = dataset.get_offset()
        return lambda index, items: self._store.file.write_at(bytes_of(items), offset + index * CHUNK_BYTES)

    def _packed(
        self, group: h5py.Group, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]
    ) -> Callable[[int, AnyArray], object]:
        """Create a dataset that HDF5 packs, and return what writes a chunk of it."""
        # HDF5 refuses szip for compound types: it sees the real and the imaginary parts as a last axis of two.
        pairs = self._arguments.get("compression") == "szip" and dtype.kind == "c"
        kind = np.dtype(f"<f{dtype.itemsize // 2}") if pairs else dtype
        last = (2,) if pairs else ()
        whole = (*shape, *last)
        chunks = hdf5_chunks(whole, kind.itemsize)
        # Filled, since what of a chunk is outside the array would otherwise be what was in memory before.
        dataset = new_dataset(group, name, whole, kind, chunks=chunks, fill_time="alloc", **self._arguments)
        per_chunk = CHUNK_BYTES // dtype.itemsize

        def put(index: int, items: AnyArray) -> None:
            done = 0
            for box in boxes(shape, index * per_chunk, index * per_chunk + items.size):
                lengths = tuple(part.stop - part.start for part in box)
                size = math.prod(lengths)
                dataset[box] = items[done : done + size].view(kind).reshape(*lengths, *last)
                done += size

        return put


def _seal(group: h5py.Group, table: dict[str, Any], places: Mapping[str, Place], raw_bytes: int) -> None:
    """Write what the group says of itself, with its SHA-256."""
    arrays: dict[str, Any] = {}
    digests = bytearray()
    for path, place in places.items():
        arrays[path] = {"at": place.at, "dtype": place.dtype, "shape": list(place.shape)}
        if len(place.digests) > DIGEST_BYTES:
            digests += place.digests
        else:
            arrays[path]["digest"] = place.digests.hex()
    text = document_text(table | {"arrays": arrays}, raw_bytes)
    new_dataset(group, "metadata", data=np.bytes_(text))
    if digests:
        new_dataset(group, "digests", data=np.frombuffer(digests, np.uint8))
    group.attrs["sha256"] = np.bytes_(hashlib.sha256(text + digests).hexdigest())


def _mark_for_viewers(group: h5py.Group, document: Mapping[str, Any], names: Mapping[str, str]) -> None:
    """Say in the way of NeXus what a viewer should plot: the state, and the path in PAD space."""
    group.attrs["NX_class"] = np.bytes_("NXentry")
    for path, holder in (
        ("quantum/amplitudes", "quantum_data"),
        ("quantum/matrix", "quantum_data"),
        ("emotion/trajectory/pad", "emotional_context/trajectory"),
    ):
        if names.get(path) != f"{holder}/{path.rpartition('/')[2]}":
            continue
        attributes = group[holder].attrs
        attributes["NX_class"] = np.bytes_("NXdata")
        attributes["signal"] = np.bytes_(path.rpartition("/")[2])
        if f"{path.rpartition('/')[0]}/time" in names and holder.endswith("trajectory"):
            attributes["axes"] = np.array([b"time", b"."])
    if "quantum_data" in document:
        group.attrs["default"] = np.bytes_("quantum_data")
