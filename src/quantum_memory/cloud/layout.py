"""One memory in a snapshot: where its parts are.

::

    /                                     @quantum_memory: {version, metadata, sha256}
        quantum/amplitudes                one Zarr array per array of the memory, at its own path
        classical/...
        emotion/...
        digests/quantum/amplitudes        of arrays of more than 1 MiB: xxh3 and SHA-256 of each MiB, 40 bytes a row

``metadata`` is JSON text: document, record, content_id, and for every array its dtype, shape, digests and how it is cut
into chunks; ``sha256`` is of its bytes. The specification is in ``docs/zarr_layout.md``.

A chunk holds whole MiB of the array in C order, so that the digests that identify an array in every format are also
those by which its chunks are checked, skipped when nothing has changed, and shared out among writers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np

from quantum_memory.formats.reader import nbytes_of
from quantum_memory.state.arrays import CHUNK_BYTES, STORABLE, chunk_count
from quantum_memory.state.document import ArrayIdentity

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

VERSION = "1.0"
ATTRIBUTE = "quantum_memory"
DIGESTS = "digests"
DIGEST_BYTES = 40
"""Of a MiB: xxh3 (8 bytes, little-endian) and SHA-256 of its raw bytes."""

DIGEST_ROWS = 1 << 14
"""Rows of digests in a chunk of them: of 16 GiB."""

LEAST_CHUNK, MOST_CHUNK, MOST_CHUNKS = 8 << 20, 1 << 30, 1 << 20
"""A chunk has at least so many bytes, by default and at most, and an array at most so many chunks where that goes."""


@dataclass(frozen=True)
class Place:
    """An array in a snapshot, as ``metadata`` says.

    Attributes
    ----------
    dtype, shape
        Of the array.
    chunk
        Items in a chunk.
    rows
        Items along the first axis in a chunk, where it is stored with its shape; None: as one long axis.
    sha256
        The digest that identifies it.
    digests
        SHA-256 of its rows of digests; of an array of up to 1 MiB these rows themselves.
    """

    dtype: str
    shape: tuple[int, ...]
    chunk: int
    rows: int | None
    sha256: bytes = b""
    digests: bytes = b""

    @property
    def itemsize(self) -> int:
        """Bytes of an item."""
        return np.dtype(STORABLE[self.dtype]).itemsize

    @property
    def size(self) -> int:
        """Number of items."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Raw bytes."""
        return nbytes_of(self.dtype, self.shape)

    @property
    def identity(self) -> ArrayIdentity:
        """Name of its content."""
        return ArrayIdentity(self.dtype, self.shape, self.sha256)

    @property
    def chunks(self) -> int:
        """Number of chunks."""
        return -(-self.size // self.chunk) if self.size else 0

    @property
    def mebibytes(self) -> int:
        """Number of rows of digests."""
        return chunk_count(self.nbytes)

    @property
    def zarr_shape(self) -> tuple[int, ...]:
        """Shape of the Zarr array."""
        return (self.size,) if self.rows is None else self.shape

    @property
    def zarr_chunks(self) -> tuple[int, ...]:
        """Shape of its chunks."""
        if self.rows is None:
            return (self.chunk,)
        return (self.rows, *(max(1, n) for n in self.shape[1:])) if self.shape else ()

    def items(self, index: int) -> slice:
        """Return which items, in C order, chunk `index` holds."""
        return slice(index * self.chunk, min((index + 1) * self.chunk, self.size))

    def selection(self, index: int) -> Any:
        """Return what of the Zarr array chunk `index` holds."""
        if self.rows is None:
            return self.items(index)
        if not self.shape:
            return ()
        return slice(index * self.rows, min((index + 1) * self.rows, self.shape[0]))

    def shape_of(self, index: int) -> tuple[int, ...]:
        """Return the shape of what `selection` selects."""
        part = self.selection(index)
        if self.rows is None:
            return (part.stop - part.start,)
        return (part.stop - part.start, *self.shape[1:]) if self.shape else ()

    def row_slice(self, index: int) -> slice:
        """Return which rows of digests chunk `index` has."""
        per_chunk = -(-self.chunk * self.itemsize // CHUNK_BYTES)
        return slice(index * per_chunk, min((index + 1) * per_chunk, self.mebibytes))

    def chunks_of(self, start: int, stop: int) -> Iterator[tuple[int, slice, slice]]:
        """Yield the chunks that items ``start:stop`` are in: index, where in the chunk, where in the result."""
        for index in range(start // self.chunk, -(-stop // self.chunk) if start < stop else 0):
            first = index * self.chunk
            low, high = max(start, first), min(stop, first + self.chunk)
            yield index, slice(low - first, high - first), slice(low - start, high - start)

    def to_json(self) -> dict[str, Any]:
        """Return what is written."""
        node = {
            "dtype": self.dtype,
            "shape": list(self.shape),
            "chunk": self.chunk,
            "sha256": self.sha256.hex(),
            "digests": self.digests.hex(),
        }
        return node if self.rows is None else node | {"rows": self.rows}

    @classmethod
    def cut(cls, dtype: str, shape: tuple[int, ...], chunk_bytes: int | None = None) -> Place:
        """Say how an array is cut into chunks.

        Up to one chunk it is in one. Longer ones keep their shape where whole rows make whole MiB, in chunks of up to
        four times as many bytes as are asked for; others are stored as one long axis.
        """
        itemsize = np.dtype(STORABLE[dtype]).itemsize
        size = math.prod(shape)
        wanted = chunk_bytes or default_chunk(size * itemsize)
        if size * itemsize <= wanted or not shape:
            return cls(dtype, shape, max(1, size), max(1, shape[0]) if shape else 1)
        row = itemsize * math.prod(shape[1:])
        unit = CHUNK_BYTES // math.gcd(CHUNK_BYTES, row)
        if unit * row <= min(4 * wanted, MOST_CHUNK):
            rows = unit * max(1, wanted // (unit * row))
            return cls(dtype, shape, rows * math.prod(shape[1:]), rows)
        return cls(dtype, shape, wanted // itemsize, None)


def default_chunk(nbytes: int) -> int:
    """Return how many bytes a chunk has by default: 8 MiB, or a power of two so that there are up to 2**20 chunks."""
    return max(LEAST_CHUNK, 1 << max(0, math.ceil(nbytes / MOST_CHUNKS) - 1).bit_length())


def node_name(path: str) -> str:
    """Return where in a snapshot an array is: its path, with what Zarr gives a meaning to as ``%`` and two digits."""
    return "/".join(_component(part) for part in path.split("/"))


def node_names(paths: Iterable[str]) -> dict[str, str]:
    """Return where in a snapshot each of several arrays is.

    Zarr has nothing below an array. Keys of two types may be spelled the same, so that one is an array and the other a
    dict of arrays: such an array gets a ``%`` at its end, which no other name has there.
    """
    known = set(paths)
    above = {path[:at] for path in known for at, letter in enumerate(path) if letter == "/"}
    return {path: node_name(path) + ("%" if path in above else "") for path in known}


def _component(part: str) -> str:
    quoted = quote(part, safe="~+=:,@() ")
    first = quoted[:1]
    return f"%{ord(first):02X}{quoted[1:]}" if first in {".", "_"} else quoted or "%"
