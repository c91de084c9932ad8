"""Arrays as bytes: what an array's logical bytes are, in which blocks they are read, and their digest.

The *logical bytes* of an array are its items in C order, little-endian. They are what is stored, hashed and compared;
neither strides nor the byte order of the machine are part of them.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    AnyArray = NDArray[np.generic]

CHUNK_BYTES = 1 << 20
"""Logical bytes per chunk: the unit of digests, of checks on reading and of work for one core.

It is part of the identity of every array that is larger, so it is the same in every format and never changes.
"""

STORABLE = {
    "bool": "?", "i8": "i1", "i16": "<i2", "i32": "<i4", "i64": "<i8", "u8": "u1", "u16": "<u2", "u32": "<u4",
    "u64": "<u8", "f16": "<f2", "f32": "<f4", "f64": "<f8", "c64": "<c8", "c128": "<c16",
}  # fmt: skip
"""Names of the element types that every format stores, and NumPy's name for each. Any other dtype is stored as one of
these."""

HIDDEN = re.compile("[\\x00-\\x1f\\x7f-\\x9f\\u061c\\u200e\\u200f\\u2028-\\u202e\\u2066-\\u2069\\ud800-\\udfff]")
"""Characters that no path of an array has: controls, line separators, marks that turn the direction of text and
surrogates. They are listed here, and not taken from Python's tables, which grow with Unicode: paths are part of the
identity."""

_NAME_OF = {np.dtype(code): name for name, code in STORABLE.items()}


class Windows(Protocol):
    """An array that is elsewhere, and of which a run of items is read at a time."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Element type."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Length of each axis."""

    @property
    def ndim(self) -> int:
        """Number of axes."""

    @property
    def nbytes(self) -> int:
        """Bytes that it would take in memory."""

    def items(self, start: int, stop: int) -> AnyArray:
        """Return items ``start:stop`` in C order, as a contiguous little-endian array of their own."""


def is_elsewhere(array: object) -> bool:
    """Tell whether an array is not in memory: `Windows`, or what stands for them."""
    return not isinstance(array, np.ndarray)


def whole_copy(array: AnyArray | Windows) -> AnyArray:
    """Return an array of its own, in memory."""
    return (
        array.copy() if isinstance(array, np.ndarray) else array.items(0, math.prod(array.shape)).reshape(array.shape)
    )


def dtype_name(dtype: np.dtype[np.generic]) -> str | None:
    """Return the stored name of `dtype` in either byte order, or None when no format stores it directly."""
    return _NAME_OF.get(dtype.newbyteorder("<"))


def worker_count() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def chunk_count(nbytes: int) -> int:
    """Return how many chunks `nbytes` logical bytes make."""
    return -(-nbytes // CHUNK_BYTES)


def chunk_items(array: AnyArray | Windows, index: int) -> AnyArray:
    """Return the items of chunk `index` as a contiguous little-endian 1-D array, without a copy where there is no need.

    Parameters
    ----------
    array
        Any array whose item size divides `CHUNK_BYTES`.
    index
        Which chunk, from 0.
    """
    per_chunk = CHUNK_BYTES // array.dtype.itemsize
    if not isinstance(array, np.ndarray):
        return array.items(index * per_chunk, min((index + 1) * per_chunk, array.nbytes // array.dtype.itemsize))
    items = slice(index * per_chunk, (index + 1) * per_chunk)
    flat = array.reshape(-1)[items] if array.flags.c_contiguous else array.flat[items]
    little = flat.dtype.newbyteorder("<")
    return flat if flat.dtype == little else flat.astype(little)


def chunk_bytes(array: AnyArray | Windows, index: int) -> memoryview:
    """Return the logical bytes of chunk `index` of `array`."""
    return bytes_of(chunk_items(array, index))


def bytes_of(items: AnyArray) -> memoryview:
    """Return the bytes of a contiguous 1-D array, without a copy."""
    return items.view(np.uint8).data


def combine_digests(digests: bytes, count: int) -> bytes:
    """Return the digest of an array from the concatenated SHA-256 digests of its `count` chunks.

    One chunk: its own digest. None: the digest of nothing. More: SHA-256 of the concatenation, so that chunks can be
    hashed on all cores and a part can be verified without the rest.
    """
    return digests if count == 1 else hashlib.sha256(digests).digest()


def array_digest(array: AnyArray | Windows) -> bytes:
    """Return the SHA-256 that identifies the logical bytes of `array` (see `combine_digests`)."""
    count = chunk_count(array.nbytes)

    def digest(index: int) -> bytes:
        return hashlib.sha256(chunk_bytes(array, index)).digest()

    if count <= 1:
        return combine_digests(b"".join(map(digest, range(count))), count)
    with ThreadPoolExecutor(worker_count()) as pool:
        return combine_digests(b"".join(pool.map(digest, range(count))), count)


def same_bits(a: AnyArray | Windows, b: AnyArray | Windows) -> bool:
    """Tell whether two arrays agree in dtype, byte order, shape and every bit (NaN payloads and -0.0 count)."""
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    return a is b or all(
        np.array_equal(chunk_items(a, index).view(np.uint8), chunk_items(b, index).view(np.uint8))
        for index in range(chunk_count(a.nbytes))
    )
