"""Read one memory of a repository: all of it, or only the chunks that are touched."""

from __future__ import annotations

import hashlib
import math
import threading
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr

from quantum_memory.cloud.chunks import IN_FLIGHT, Rows, at_once, is_right, read_digests
from quantum_memory.cloud.errors import told
from quantum_memory.cloud.layout import ATTRIBUTE, DIGEST_BYTES, MOST_CHUNK, VERSION, Place, node_names
from quantum_memory.errors import IntegrityError, InvalidStateError, MissingFileError
from quantum_memory.formats.form_nodes import Forms
from quantum_memory.formats.reader import check_out, damaged, look_up, new_array
from quantum_memory.formats.stated_version import check_version
from quantum_memory.formats.urls import S3
from quantum_memory.state.arrays import CHUNK_BYTES, STORABLE, combine_digests
from quantum_memory.state.document import MAX_DIMENSIONS, content_id, well_formed
from quantum_memory.state.json_text import MAX_DOCUMENT_BYTES, from_json, max_nodes

if TYPE_CHECKING:
    from collections.abc import Callable

    from zarr.abc.store import Store

    from quantum_memory.formats.reader import Verify
    from quantum_memory.state.arrays import AnyArray

_PIECE_BYTES, _LOCAL_PIECE_BYTES = 16 << 20, 2 << 20
"""So much of a long chunk is best read at once: a request takes its time, and a worker has several pieces in memory."""

_FEW_ROWS = 1 << 17
"""So many rows of digests, those of 128 GiB, are compared as a whole with what identifies the array before the first of
its chunks is read; of a longer array only whoever checks all of it does that, and others the rows that they use."""


class SnapshotReader:
    """One memory in a snapshot; see `formats.reader.Reader`.

    Parameters
    ----------
    store
        The snapshot, as Zarr reads it.
    name
        Its address, as it was given.
    address
        Its address, with the id of the snapshot.

    Attributes
    ----------
    text
        What it says of itself, as it is written.
    nodes
        Where in the snapshot each array is.
    content
        Its `content_id`.
    version_name
        The name by which the version is known, where it has one.

    Raises
    ------
    MissingFileError
        There is no memory in it.
    IntegrityError
        What it says of itself does not match its SHA-256, or does not fit together.
    """

    format = "zarr"
    version = VERSION
    member = ""

    def __init__(self, store: Store, name: str, address: str) -> None:
        self._store = store
        self.name = name
        self.address = address
        self.notes: list[str] = []
        self._rows: dict[str, bytes] = {}
        self._arrays: dict[str, Rows] = {}
        self._lock = threading.Lock()
        with told(name, "read what it says of itself"):
            self.text = self._text()
        with well_formed(name):
            self._parse(self.text)
        self.size = sum(place.nbytes for place in self.entries.values())

    def _text(self) -> bytes:
        try:
            node = zarr.open_group(self._store, mode="r", zarr_format=3).attrs.get(ATTRIBUTE)
        except FileNotFoundError:
            node = None
        if node is None:
            raise MissingFileError("there is no memory in it", next_step="check the address, or save to it first")
        if not isinstance(node, dict) or not isinstance(text := node.get("metadata"), str):
            raise damaged("what it says of itself is not what a release writes", self.name)
        check_version(str(node.get("version")), VERSION)
        encoded = text.encode("utf-8")
        if len(encoded) > MAX_DOCUMENT_BYTES or hashlib.sha256(encoded).hexdigest() != node.get("sha256"):
            raise damaged("what it says of itself does not match its SHA-256", self.name)
        said = node.get("name")
        self.version_name = said if isinstance(said, str) else None
        return encoded

    def _parse(self, text: bytes) -> None:
        parts = from_json(text, max_nodes=max_nodes(2 * len(text)))
        if set(parts) - {"forms"} != {"document", "record", "arrays", "content_id"}:
            raise IntegrityError("what it says of itself is not what a release writes")
        self.entries = {path: _place(path, node) for path, node in parts["arrays"].items()}
        self.nodes = node_names(self.entries)
        self.document, self.record, self.content = parts["document"], parts["record"], parts["content_id"]
        self.forms = Forms.from_json(parts.get("forms"), self.entries)
        if self.forms.stored_paths(self.document) != set(self.entries):
            raise IntegrityError("its document and its arrays do not fit together")
        stored = {path: place.identity for path, place in self.entries.items()}
        if content_id(self.document, self.forms.identities(stored)) != self.content:
            raise IntegrityError("its content does not match its content_id")

    def facts(self, path: str) -> dict[str, Any]:
        place = look_up(self.entries, path, self.name)
        return {"chunks": place.chunks, "chunk_bytes": place.chunk * place.itemsize, "codecs": ["none"]}

    def rows(self, path: str) -> bytes:
        """Return the rows of digests of an array, having compared them with what identifies it."""
        with self._lock:
            if path not in self._rows:
                self._rows[path] = self._checked_rows(path)
            return self._rows[path]

    def _checked_rows(self, path: str) -> bytes:
        place = look_up(self.entries, path, self.name)
        count = place.mebibytes
        if count <= 1:
            rows, right = place.digests, len(place.digests) == count * DIGEST_BYTES
        else:
            with told(self.name, f"read the digests of {path!r}"):
                rows = read_digests(self._store, self.nodes[path], slice(0, count))
            right = len(rows) == count * DIGEST_BYTES and hashlib.sha256(rows).digest() == place.digests
        whole = b"".join(rows[i * DIGEST_BYTES + 8 : (i + 1) * DIGEST_BYTES] for i in range(count))
        if not right or combine_digests(whole, count) != place.sha256:
            raise damaged(f"the digests of its array {path!r} are not those that identify it", self.name)
        return rows

    def _rows_of(self, path: str, index: int) -> bytes:
        """Return the rows of digests of a chunk."""
        place = self.entries[path]
        part = place.row_slice(index)
        if path in self._rows or place.mebibytes <= _FEW_ROWS:
            return self.rows(path)[part.start * DIGEST_BYTES : part.stop * DIGEST_BYTES]
        with told(self.name, f"read the digests of {path!r}"):
            return read_digests(self._store, self.nodes[path], part)

    def chunk(self, path: str, index: int, *, full: bool = False, out: AnyArray | None = None) -> AnyArray:
        """Return the items of one chunk, checked, as an array of one axis.

        Parameters
        ----------
        full
            Against the SHA-256 and the CRC that Zarr knows, as well as the quick checksum.
        """
        rows = self._rows_of(path, index)
        with told(self.name, f"read chunk {index} of {path!r}"):
            items = self._array(path).read(index, out, crc=full)
        if not is_right(items, rows, full=full):
            raise damaged(f"its array {path!r} is damaged in chunk {index}", self.name)
        return items

    def _array(self, path: str) -> Rows:
        """Return the chunks of an array, having seen that Zarr knows it as ``metadata`` does."""
        with self._lock:
            rows = self._arrays.get(path)
            if rows is None:
                place = look_up(self.entries, path, self.name)
                rows = Rows(self._store, self.nodes[path], place)
                found = rows.array
                said = (place.zarr_shape, place.zarr_chunks, np.dtype(STORABLE[place.dtype]))
                if (found.shape, found.chunks, found.dtype.newbyteorder("<")) != said:
                    raise damaged(f"its array {path!r} is not the one that its metadata describe", self.name)
                self._arrays[path] = rows
            return rows

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

        def fill(index: int) -> None:
            items = self.chunk(path, index, full=verify == "full", out=flat[place.items(index)])
            if progress is not None:
                progress(items.nbytes)

        at_once(fill, range(place.chunks))
        if not place.size:
            self._empty(path)
        return array

    def read_items(self, path: str, start: int, stop: int) -> AnyArray:
        place = look_up(self.entries, path, self.name)
        if not 0 <= start <= stop <= place.size:
            raise IndexError(f"items {start}:{stop} are not within {path}")
        items = np.empty(stop - start, np.dtype(STORABLE[place.dtype]))
        for index, there, here in place.chunks_of(start, stop):
            items[here] = self._part(path, index, there)
        return items

    def read_run(self, path: str, start: int, stop: int) -> AnyArray:
        """Return items ``start:stop`` as `read_items` does, to somebody who does not write to them."""
        place = look_up(self.entries, path, self.name)
        index = start // place.chunk
        first = index * place.chunk
        if 0 <= start < stop <= min(first + place.chunk, place.size):
            return self._part(path, index, slice(start - first, stop - first))
        return self.read_items(path, start, stop)

    def piece_bytes(self, path: str) -> int:
        """Return how many bytes of an array are best read at once: as many as a chunk has, or some of a long one."""
        place = look_up(self.entries, path, self.name)
        whole = place.chunk * place.itemsize
        most = _PIECE_BYTES if self.address.startswith(f"{S3}:") else _LOCAL_PIECE_BYTES
        return whole if whole <= most else math.gcd(whole, most)

    def _part(self, path: str, index: int, part: slice) -> AnyArray:
        """Return some items of a chunk, of which no more is read than the MiB that they are in, checked."""
        place, rows = self.entries[path], self._array(path)
        step = CHUNK_BYTES // place.itemsize
        first, last = part.start // step, -(-part.stop // step)
        if last - first == -(-place.chunk // step) or not rows.is_long(index):
            return self.chunk(path, index)[part]
        digests = self._rows_of(path, index)[first * DIGEST_BYTES : last * DIGEST_BYTES]
        with told(self.name, f"read a part of chunk {index} of {path!r}"):
            items = rows.read_part(index, slice(first * step, min(last * step, place.chunk)))
        if not is_right(items, digests, full=False):
            raise damaged(f"its array {path!r} is damaged in chunk {index}", self.name)
        return items[part.start - first * step : part.stop - first * step]

    def is_mapped(self, path: str) -> bool:  # noqa: ARG002
        return False

    def map(
        self,
        path: str,
        *,
        verify: Verify = "fast",  # noqa: ARG002
        progress: Callable[[int], object] | None = None,  # noqa: ARG002
    ) -> AnyArray:
        raise InvalidStateError(
            f"{path} is not in a file, and cannot be mapped into memory",
            path=self.name,
            next_step="leave mmap out, or read parts of it with quantum_memory.open",
        )

    def check_rest(self) -> None:
        """Do nothing: what else is in the snapshot was read when it was opened."""

    def is_whole(self) -> bool:
        """Tell whether every chunk is there, and is what it was."""
        try:
            for path, place in self.entries.items():
                self.rows(path)
                at_once(partial(self.chunk, path, full=True), range(place.chunks))
                if not place.size:
                    self._empty(path)
        except IntegrityError:
            return False
        return True

    def check_everything(
        self,
        progress: Callable[[int], object] | None = None,
        look: Callable[[str, AnyArray], object] | None = None,
    ) -> int:
        for path, place in self.entries.items():
            self.rows(path)
            self.check_chunks(path, 0, place.chunks, progress, look)
        return sum(place.mebibytes for place in self.entries.values())

    def check_chunks(
        self,
        path: str,
        first: int,
        last: int,
        progress: Callable[[int], object] | None = None,
        look: Callable[[str, AnyArray], object] | None = None,
        *,
        most: int = IN_FLIGHT,
    ) -> None:
        """Check chunks ``first:last`` of an array against every digest there is; see `check_everything`.

        Parameters
        ----------
        most
            How many are read at the same time.
        """

        def check(index: int) -> None:
            items = self.chunk(path, index, full=True)
            step = CHUNK_BYTES // items.itemsize
            for start in range(0, len(items), step):
                part = items[start : start + step]
                if look is not None:
                    look(path, part)
                if progress is not None:
                    progress(part.nbytes)

        at_once(check, range(first, last), most)
        if not self.entries[path].size:
            self._empty(path)

    def _empty(self, path: str) -> None:
        """See that an array without items is there."""
        self.rows(path)
        with told(self.name, f"read {path!r}"):
            self._array(path)

    def share(self) -> None:
        """Do nothing: each read makes an array of its own."""

    def close(self) -> None:
        """Forget what was read; what is asked for later is read again."""
        self._arrays.clear()
        self._rows.clear()


def _place(path: str, node: Any) -> Place:
    """Return where an array is, having seen that it can be there."""
    shape, chunk, rows = tuple(node["shape"]), node["chunk"], node.get("rows")
    numbers = (*shape, chunk, *(() if rows is None else (rows,)))
    if len(shape) > MAX_DIMENSIONS or not all(type(n) is int and 0 <= n < 1 << 63 for n in numbers):
        raise IntegrityError(f"its array {path[:80]!r} has a shape that no array has")
    place = Place(node["dtype"], shape, chunk, rows, bytes.fromhex(node["sha256"]), bytes.fromhex(node["digests"]))
    whole = chunk * place.itemsize
    per_row = place.size // shape[0] if shape and shape[0] else 1
    in_one = chunk == max(1, place.size) and (rows == max(1, shape[0]) if shape else rows == 1)
    cut = whole % CHUNK_BYTES == 0 and (rows is None or (bool(shape) and rows * per_row == chunk))
    if not 0 < whole <= MOST_CHUNK or not (in_one or cut):
        raise IntegrityError(f"its array {path[:80]!r} is cut into chunks as no release cuts it")
    return place
