"""Write one memory into a session: what has changed since the version before, and nothing else."""

from __future__ import annotations

import hashlib
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr

from quantum_memory.cloud.chunks import (
    Rows,
    at_once,
    digests_of,
    is_zero,
    squares_of,
    write_digests,
    zero_digests,
)
from quantum_memory.cloud.layout import ATTRIBUTE, DIGEST_BYTES, DIGESTS, VERSION, Place, node_name
from quantum_memory.errors import InvalidStateError
from quantum_memory.formats.reader import AMPLITUDES
from quantum_memory.state.arrays import combine_digests, dtype_name
from quantum_memory.state.json_text import check_values, document_text

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from zarr.abc.store import Store

    from quantum_memory.cloud.reader import SnapshotReader
    from quantum_memory.formats.prepared import Prepared
    from quantum_memory.state.arrays import AnyArray, Windows


class _Array:
    """One array on its way: what of it is known, and what of it is new."""

    def __init__(self, path: str, array: AnyArray | Windows, place: Place, old: bytes | None) -> None:
        self.path = path
        self.place = place
        self.old = old
        self._flat = array.reshape(-1) if isinstance(array, np.ndarray) and array.flags.c_contiguous else array
        self.digests: list[bytes] = [b""] * place.chunks
        self.squares: list[list[float]] = [[]] * place.chunks

    def items(self, index: int) -> AnyArray:
        """Return the items of a chunk, little-endian, as a copy that nobody changes any more."""
        part = self.place.items(index)
        little = np.dtype(self._flat.dtype).newbyteorder("<")
        if isinstance(self._flat, np.ndarray):
            taken = self._flat[part] if self._flat.ndim == 1 else self._flat.flat[part]
            return np.array(taken, dtype=little, order="C", copy=True)
        return self._flat.items(part.start, part.stop)

    def before(self, index: int) -> bytes | None:
        """Return the digests that the chunk had in the version before."""
        if self.old is None:
            return None
        rows = self.place.row_slice(index)
        return self.old[rows.start * DIGEST_BYTES : rows.stop * DIGEST_BYTES]


class SnapshotWriter:
    """Writes a memory into the store of a session.

    Parameters
    ----------
    store
        Of the session.
    before
        The version that is there already; None where there is none.
    chunk_bytes
        How long chunks are to be; by default as `layout.default_chunk` says.
    progress
        Called with the raw bytes of each chunk that is done.

    Attributes
    ----------
    written
        Bytes of chunks that had to be written.
    stored
        Bytes of chunks that the version has.
    """

    def __init__(
        self,
        store: Store,
        before: SnapshotReader | None,
        chunk_bytes: int | None = None,
        progress: Callable[[int], object] | None = None,
    ) -> None:
        self._store = store
        self._before = before
        self._chunk_bytes = chunk_bytes
        self._progress = progress
        self.written = self.stored = 0

    def write(self, memory: Prepared) -> str:
        """Write a memory and return its `content_id`."""
        places, squares = self._written(memory.arrays)
        self.forget(set(places))
        return self.describe(memory, places, squares)

    def write_arrays(self, arrays: Mapping[str, AnyArray]) -> dict[str, Place]:
        """Write arrays, and return where they are."""
        return self._written(arrays)[0]

    def _written(self, given: Mapping[str, AnyArray]) -> tuple[dict[str, Place], list[float] | None]:
        arrays = [self._planned(path, array) for path, array in sorted(given.items())]
        rows = {one.path: Rows(self._store, one.path, one.place) for one in arrays}
        for one in arrays:
            if one.old is None:
                rows[one.path].create()

        def write(piece: tuple[_Array, int]) -> None:
            self._write_chunk(rows[piece[0].path], *piece)

        at_once(write, ((one, index) for one in arrays for index in range(one.place.chunks)))
        places = {one.path: settled(self._store, one.path, one.place, b"".join(one.digests), one.old) for one in arrays}
        squares = next(([*chain(*one.squares)] for one in arrays if one.path == AMPLITUDES), None)
        return places, squares

    def describe(self, memory: Prepared, places: Mapping[str, Place], squares: list[float] | None) -> str:
        """Write what the snapshot says of a memory whose arrays are there, and return its `content_id`."""
        content = memory.content_id({path: place.identity for path, place in places.items()})
        arrays = {path: place.to_json() for path, place in sorted(places.items())}
        raw_bytes = sum(place.nbytes for place in places.values())
        table = memory.parts(squares) | {"content_id": content, "arrays": arrays}
        text = document_text(table, raw_bytes)
        check_values(text, 2 * len(text))  # which is what a reader goes by
        if self._before is not None and text == self._before.text:
            return content
        node = {"version": VERSION, "metadata": text.decode("ascii"), "sha256": hashlib.sha256(text).hexdigest()}
        group = zarr.open_group(self._store, mode="a", zarr_format=3)
        group.attrs.put({**group.attrs.asdict(), ATTRIBUTE: node})
        return content

    def forget(self, paths: set[str]) -> None:
        """Remove arrays of the version before that this one does not have."""
        if self._before is None:
            return
        group = zarr.open_group(self._store, mode="r+", zarr_format=3)
        kept = {node_name(path) for path in paths}
        for path, place in self._before.entries.items():
            if node_name(path) not in kept:
                del group[node_name(path)]
                if place.mebibytes > 1:
                    del group[f"{DIGESTS}/{node_name(path)}"]

    def _planned(self, path: str, array: AnyArray | Windows) -> _Array:
        dtype = dtype_name(array.dtype)
        if dtype is None:
            raise InvalidStateError(f"{path} has dtype {array.dtype}, which is not stored directly")
        place = Place.cut(dtype, tuple(array.shape), self._chunk_bytes)
        return _Array(path, array, place, self._old_rows(path, place))

    def _old_rows(self, path: str, place: Place) -> bytes | None:
        """Return the digests of the version before, where its array is cut in the same way."""
        old = None if self._before is None else self._before.entries.get(path)
        if self._before is None or old is None:
            return None
        same = (old.dtype, old.shape, old.chunk, old.rows) == (place.dtype, place.shape, place.chunk, place.rows)
        return self._before.rows(path) if same else None

    def _write_chunk(self, rows: Rows, one: _Array, index: int) -> None:
        items = one.items(index)
        zero = is_zero(items)
        one.digests[index] = zero_digests(items.nbytes) if zero else digests_of(items)
        if one.path == AMPLITUDES:
            one.squares[index] = squares_of(items)
        before = one.before(index)
        if one.digests[index] != before and not (zero and before is None):
            rows.write(index, items, zero=zero)
            self.written += 0 if zero else items.nbytes
        self.stored += 0 if zero else items.nbytes
        if self._progress is not None:
            self._progress(items.nbytes)


def settled(store: Store, path: str, place: Place, rows: bytes, old: bytes | None = None) -> Place:
    """Write the digests of an array that has been written, and return its place with what identifies it.

    Parameters
    ----------
    old
        The digests that are there already.
    """
    count = len(rows) // DIGEST_BYTES
    whole = b"".join(rows[i * DIGEST_BYTES + 8 : (i + 1) * DIGEST_BYTES] for i in range(count))
    if count > 1 and rows != old:
        write_digests(store, path, rows)
    kept: dict[str, Any] = {"digests": hashlib.sha256(rows).digest() if count > 1 else rows}
    return Place(place.dtype, place.shape, place.chunk, place.rows, combine_digests(whole, count), **kept)
