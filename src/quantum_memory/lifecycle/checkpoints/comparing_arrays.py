"""How much two arrays that are somewhere differ, chunk by chunk; chunks of one name are the same, and are not read."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from quantum_memory.compression.cores import on_all_cores
from quantum_memory.errors import UnsupportedVersionError
from quantum_memory.lifecycle.checkpoints.manifest import Chunked
from quantum_memory.state.arrays import CHUNK_BYTES, STORABLE, chunk_count
from quantum_memory.state.dtypes import SMALL_FLOATS, from_stored

if TYPE_CHECKING:
    from collections.abc import Iterable

    from quantum_memory.formats.reader import Entry, Reader
    from quantum_memory.state.arrays import AnyArray
    from quantum_memory.state.document import Json


class Kept(NamedTuple):
    """An array that is in a reader.

    Attributes
    ----------
    reader
        What it is in.
    marker, facts
        How its node of the document begins, and what that says of it, its path left out.
    path
        Its path.
    """

    reader: Reader
    marker: str
    facts: dict[str, Any]
    path: str

    @property
    def entry(self) -> Entry:
        """What is known of it before it is read."""
        return self.reader.entries[self.path]

    @property
    def dtype(self) -> str:
        """Name of its element type, as it was before it was stored."""
        return str(self.facts.get("dtype", self.entry.dtype))

    def __str__(self) -> str:
        """Return type and shape, as a person writes them."""
        shape = " x ".join(map(str, self.entry.shape)) or "scalar"
        return f"{'bytes' if self.marker == '$bytes' else self.dtype} {shape}"


def kept_array(reader: Reader, node: Json) -> Kept | None:
    """Return the array that a leaf is; None for a leaf that is none."""
    if not isinstance(node, dict):
        return None
    marker = next((key for key in ("$array", "$torch", "$bytes") if key in node), None)
    if marker is None:
        return None
    body = node if marker == "$array" else node[marker]
    if not isinstance(body, dict):
        return None  # short bytes, which are in the document
    return Kept(reader, marker, {key: value for key, value in body.items() if key != "$array"}, body["$array"])


class Change(NamedTuple):
    """How much an array has changed.

    Attributes
    ----------
    changed_bytes
        Bytes of the items of which any bit differs.
    max_delta
        Largest absolute difference of two items; NaN where one of two is, and None where items are no numbers.
    """

    changed_bytes: int
    max_delta: float | None


def comparable(first: Kept, second: Kept) -> bool:
    """Tell whether the items of two arrays can be compared one by one."""
    a, b = first.entry, second.entry
    return (first.marker, first.dtype, a.dtype, a.shape) == (second.marker, second.dtype, b.dtype, b.shape)


def same_chunk(a: Entry, b: Entry, index: int) -> bool:
    """Tell whether it is known without reading that two arrays have the same bytes in a chunk."""
    return isinstance(a, Chunked) and isinstance(b, Chunked) and a.chunk(index) == b.chunk(index)


def change(first: Kept, second: Kept) -> Change:
    """Return how much two arrays differ that are `comparable`; only chunks that differ are read."""
    a, b = first.entry, second.entry
    dtype = np.dtype(STORABLE[a.dtype])
    if a.identity == b.identity:
        return Change(0, 0 if _numbers(first, np.empty(0, dtype)) is not None else None)
    per_chunk, size = CHUNK_BYTES // dtype.itemsize, a.nbytes // dtype.itemsize

    def look(index: int) -> Change:
        start, stop = index * per_chunk, min((index + 1) * per_chunk, size)
        left, right = (one.reader.read_items(one.path, start, stop) for one in (first, second))
        differ = _bits(left) != _bits(right)
        differ = differ.any(axis=1) if differ.ndim > 1 else differ
        x, y = _numbers(first, left[differ]), _numbers(second, right[differ])
        delta = None if x is None or y is None else _largest(x, y)
        return Change(int(np.count_nonzero(differ)) * dtype.itemsize, delta)

    found = list(on_all_cores(look, (i for i in range(chunk_count(a.nbytes)) if not same_chunk(a, b, i))))
    return Change(sum(one.changed_bytes for one in found), _worst(one.max_delta for one in found))


def _bits(items: AnyArray) -> AnyArray:
    """Return items as integers that are equal when all bits are."""
    if items.dtype.itemsize == 16:
        return items.view(np.uint64).reshape(-1, 2)
    return items.view(f"u{items.dtype.itemsize}")


def _numbers(kept: Kept, items: AnyArray) -> AnyArray | None:
    """Return stored items as the numbers that they are; None for text, dates, records and bytes."""
    name = kept.facts.get("dtype")
    if kept.marker == "$bytes":
        return None
    if isinstance(name, str) and name in SMALL_FLOATS:
        try:
            return from_stored(items, {"dtype": name}).astype(np.float64)
        except UnsupportedVersionError:  # ml_dtypes is not installed
            return None
    return items if kept.marker == "$torch" or name is None else None


def _largest(x: AnyArray, y: AnyArray) -> float:
    """Return the largest absolute difference of the items of two arrays, without overflow."""
    if not x.size:
        return 0
    if x.dtype.kind in "iu":
        # As integers of 64 bits without sign the difference is right, whatever the signs: they count modulo 2^64.
        wide: Any = np.int64 if x.dtype.kind == "i" else np.uint64
        high, low = np.maximum(x, y).astype(wide), np.minimum(x, y).astype(wide)
        return int((high.view(np.uint64) - low.view(np.uint64)).max())
    if x.dtype.kind == "b":
        return 1
    wide = np.complex128 if x.dtype.kind == "c" else np.float64
    with np.errstate(invalid="ignore", over="ignore"):
        return float(np.abs(x.astype(wide) - y.astype(wide)).max())


def _worst(deltas: Iterable[float | None]) -> float | None:
    """Return the largest of some differences: NaN before any number."""
    known = [one for one in deltas if one is not None]
    return max(known, key=order_of_delta, default=None)


def order_of_delta(delta: float | None) -> tuple[bool, bool, float]:
    """Return a key that sorts differences: none, the smaller ones, the larger ones, NaN."""
    if delta is None:
        return False, False, 0
    return (True, True, 0) if math.isnan(delta) else (True, False, delta)
