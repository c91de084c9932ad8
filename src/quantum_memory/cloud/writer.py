"""Write one memory into a session: what has changed since the version before, and nothing else."""

from __future__ import annotations

import contextlib
import hashlib
import threading
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr

from quantum_memory.cloud.chunks import (
    Outgoing,
    Rows,
    at_once,
    digests_of,
    is_zero,
    squares_of,
    write_digests,
    zero_digests,
)
from quantum_memory.cloud.errors import told
from quantum_memory.cloud.layout import ATTRIBUTE, DIGEST_BYTES, DIGESTS, VERSION, Place, node_names
from quantum_memory.errors import IntegrityError, InvalidStateError
from quantum_memory.formats.reader import AMPLITUDES
from quantum_memory.state.arrays import combine_digests, dtype_name
from quantum_memory.state.json_text import check_values, document_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from zarr.abc.store import Store

    from quantum_memory.cloud.reader import SnapshotReader
    from quantum_memory.durability.write_back import WriteBack
    from quantum_memory.formats.prepared import Prepared
    from quantum_memory.state.arrays import AnyArray, Windows

PARTS = ("quantum", "classical", "emotion", "metadata")
"""What the paths of arrays begin with."""


class _Array:
    """One array on its way: what of it is known, and what of it is new."""

    def __init__(self, path: str, array: AnyArray | Windows, place: Place, old: bytes | None) -> None:
        self.path = path
        self.place = place
        self.old = old
        self._flat = array.reshape(-1) if isinstance(array, np.ndarray) and array.flags.c_contiguous else array
        self.digests: list[bytes] = [b""] * place.chunks
        self.squares: list[list[float]] = [[]] * place.chunks

    def copied(self, index: int) -> Outgoing:
        """Return a copy of the items of a chunk, which nobody changes any more."""
        part = self.place.items(index)
        if isinstance(self._flat, np.ndarray):
            return Outgoing(self._flat[part] if self._flat.ndim == 1 else self._flat.flat[part])
        return Outgoing(self._flat.items(part.start, part.stop))

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
    name
        What errors call it.
    before
        The version that is there already; None where there is none.
    chunk_bytes
        How long chunks are to be; by default as `layout.default_chunk` says.
    progress
        Called with the raw bytes of each chunk that is done.
    anew
        Write all of it, also what has not changed: the version that is there is damaged.
    back
        Told of what is written, so that it has it written back.

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
        name: str,
        before: SnapshotReader | None,
        *,
        chunk_bytes: int | None = None,
        progress: Callable[[int], object] | None = None,
        anew: bool = False,
        back: WriteBack | None = None,
    ) -> None:
        self._store = store
        self._name = name
        self._before = before
        self._chunk_bytes = chunk_bytes
        self._progress = progress
        self._anew = anew
        self._back = back
        self._nodes: dict[str, str] = {}
        self._lock = threading.Lock()
        self.written = self.stored = 0

    def write(self, memory: Prepared) -> str:
        """Write a memory and return its `content_id`."""
        self.make_room(memory.arrays)
        places, squares = self._written(memory.arrays)
        return self.describe(memory, places, squares)

    def write_arrays(self, arrays: Mapping[str, AnyArray]) -> dict[str, Place]:
        """Write arrays, and return where they are."""
        return self._written(arrays)[0]

    def make_room(self, paths: Iterable[str]) -> None:
        """Remove arrays of the version before that this one does not have, before others take their places."""
        self._nodes = node_names(paths)
        if self._before is None:
            return
        kept = set(self._nodes.values())
        with told(self._name, "remove what the version before had"):
            group = zarr.open_group(self._store, mode="r+", zarr_format=3)
            for path, node in self._before.nodes.items():
                if node not in kept:
                    with contextlib.suppress(KeyError):  # it is damaged, and is not there
                        del group[node]
                    if self._before.entries[path].mebibytes > 1:
                        with contextlib.suppress(KeyError):
                            del group[f"{DIGESTS}/{node}"]

    def _written(self, given: Mapping[str, AnyArray]) -> tuple[dict[str, Place], list[float] | None]:
        arrays = [self._planned(path, array) for path, array in sorted(given.items())]
        rows = {one.path: Rows(self._store, self._nodes[one.path], one.place) for one in arrays}
        with told(self._name, "make its arrays"):
            for one in arrays:
                if one.old is None:
                    rows[one.path].create()
                    self._forget_digests(one)

        def write(piece: tuple[_Array, int]) -> None:
            self._write_chunk(rows[piece[0].path], *piece)

        at_once(write, ((one, index) for one in arrays for index in range(one.place.chunks)))
        places = {}
        with told(self._name, "write its digests"):
            for one in arrays:
                digests = b"".join(one.digests)
                places[one.path] = settled(self._store, self._nodes[one.path], one.place, digests, one.old)
        squares = next(([*chain(*one.squares)] for one in arrays if one.path == AMPLITUDES), None)
        return places, squares

    def _forget_digests(self, one: _Array) -> None:
        """Remove the digests of an array that is so short now that it has none of its own."""
        old = None if self._before is None else self._before.entries.get(one.path)
        if old is not None and old.mebibytes > 1 >= one.place.mebibytes:
            forget_digests(self._store, self._nodes[one.path])

    def describe(
        self, memory: Prepared, places: Mapping[str, Place], squares: list[float] | None, name: str | None = None
    ) -> str:
        """Write what the snapshot says of a memory whose arrays are there, and return its `content_id`.

        Parameters
        ----------
        name
            Of the version, where it has one by which it is known; no two have the same.
        """
        content = memory.content_id({path: place.identity for path, place in places.items()})
        arrays = {path: place.to_json() for path, place in sorted(places.items())}
        raw_bytes = sum(place.nbytes for place in places.values())
        table = memory.parts(squares) | {"content_id": content, "arrays": arrays}
        text = document_text(table, raw_bytes)
        check_values(text, 2 * len(text))  # which is what a reader goes by
        # What has a name goes with it, and is not the version of who saves without one.
        if name is None and self._before is not None and (None, text) == (self._before.version_name, self._before.text):
            return content
        node = {"version": VERSION, "metadata": text.decode("ascii"), "sha256": hashlib.sha256(text).hexdigest()}
        if name is not None:
            node["name"] = name
        with told(self._name, "write what it says of itself"):
            group = zarr.open_group(self._store, mode="a", zarr_format=3)
            group.attrs.put({**group.attrs.asdict(), ATTRIBUTE: node})
        return content

    def _planned(self, path: str, array: AnyArray | Windows) -> _Array:
        dtype = dtype_name(array.dtype)
        if dtype is None:
            raise InvalidStateError(f"{path} has dtype {array.dtype}, which is not stored directly")
        place = Place.cut(dtype, tuple(array.shape), self._chunk_bytes)
        return _Array(path, array, place, self._old_rows(path, place))

    def _old_rows(self, path: str, place: Place) -> bytes | None:
        """Return the digests of the version before, where its array is cut in the same way, and they can be read."""
        old = None if self._before is None or self._anew else self._before.entries.get(path)
        if self._before is None or old is None or self._before.nodes[path] != self._nodes[path]:
            return None
        same = (old.dtype, old.shape, old.chunk, old.rows) == (place.dtype, place.shape, place.chunk, place.rows)
        try:
            return self._before.rows(path) if same else None
        except IntegrityError:
            return None

    def _write_chunk(self, rows: Rows, one: _Array, index: int) -> None:
        chunk = one.copied(index)
        items = chunk.items
        zero = is_zero(items)
        one.digests[index] = zero_digests(items.nbytes) if zero else digests_of(items)
        if one.path == AMPLITUDES:
            one.squares[index] = squares_of(items)
        before = one.before(index)
        new = one.digests[index] != before and not (zero and before is None)
        nbytes = items.nbytes
        if new:
            with told(self._name, f"write chunk {index} of {one.path!r}"):
                rows.write(index, chunk, zero=zero)
            if self._back is not None:
                self._back.more(nbytes)
        with self._lock:
            self.written += nbytes if new and not zero else 0
            self.stored += 0 if zero else nbytes
        if self._progress is not None:
            self._progress(nbytes)


def forget_digests(store: Store, node: str) -> None:
    """Remove the digests of an array, if it has any of its own."""
    with contextlib.suppress(KeyError):
        del zarr.open_group(store, mode="r+", zarr_format=3)[f"{DIGESTS}/{node}"]


def clear(store: Store) -> None:
    """Remove all that a memory has in a session, whose version before cannot be read."""
    group = zarr.open_group(store, mode="a", zarr_format=3)
    for name in (*PARTS, DIGESTS):
        with contextlib.suppress(KeyError):
            del group[name]


def settled(store: Store, node: str, place: Place, rows: bytes, old: bytes | None = None) -> Place:
    """Write the digests of an array that has been written, and return its place with what identifies it.

    Parameters
    ----------
    node
        Where the array is.
    old
        The digests that are there already.
    """
    count = len(rows) // DIGEST_BYTES
    whole = b"".join(rows[i * DIGEST_BYTES + 8 : (i + 1) * DIGEST_BYTES] for i in range(count))
    if count > 1 and rows != old:
        write_digests(store, node, rows)
    kept: dict[str, Any] = {"digests": hashlib.sha256(rows).digest() if count > 1 else rows}
    return Place(place.dtype, place.shape, place.chunk, place.rows, combine_digests(whole, count), **kept)
