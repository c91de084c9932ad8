"""Chunks of an array on their way to Zarr and back, with their digests."""

from __future__ import annotations

import asyncio
import hashlib
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import google_crc32c
import numpy as np
import xxhash
import zarr
from zarr.abc.store import RangeByteRequest
from zarr.buffer import cpu
from zarr.codecs import BytesCodec, Crc32cCodec

from quantum_memory.cloud.layout import DIGEST_BYTES, DIGEST_ROWS, DIGESTS, Place
from quantum_memory.formats.record import squared_norm
from quantum_memory.state.arrays import CHUNK_BYTES, STORABLE, bytes_of

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable

    from zarr.abc.store import Store

    from quantum_memory.state.arrays import AnyArray

T = TypeVar("T")

IN_FLIGHT = 4
"""Chunks that are written or read at the same time."""

_CRC_BYTES = 4


def digests_of(items: AnyArray) -> bytes:
    """Return the rows of digests of the items of a chunk, a contiguous little-endian array of one axis."""
    raw = bytes_of(items)
    return b"".join(_digest(raw[start : start + CHUNK_BYTES]) for start in range(0, len(raw), CHUNK_BYTES))


def squares_of(items: AnyArray) -> list[float]:
    """Return the squared norm of each MiB of a chunk."""
    step = CHUNK_BYTES // items.itemsize
    return [squared_norm(items[start : start + step]) for start in range(0, len(items), step)]


def is_zero(items: AnyArray) -> bool:
    """Tell whether all bits are zero."""
    raw = items.view(np.uint8)
    if raw[:4096].any():
        return False
    whole = len(raw) - len(raw) % 8
    return not (raw[:whole].view(np.uint64).any() or raw[whole:].any())


def zero_digests(nbytes: int) -> bytes:
    """Return the rows of digests of so many bytes that are zero."""
    whole, rest = divmod(nbytes, CHUNK_BYTES)
    return _zero_digest(CHUNK_BYTES) * whole + (_zero_digest(rest) if rest else b"")


def is_right(items: AnyArray, rows: bytes, *, full: bool) -> bool:
    """Tell whether the items of a chunk are those that its digests are of.

    Parameters
    ----------
    full
        Compare the SHA-256 as well as the quick checksum.
    """
    raw = bytes_of(items)
    for index, start in enumerate(range(0, len(raw), CHUNK_BYTES)):
        part, row = raw[start : start + CHUNK_BYTES], rows[index * DIGEST_BYTES : (index + 1) * DIGEST_BYTES]
        if xxhash.xxh3_64_intdigest(part).to_bytes(8, "little") != row[:8]:
            return False
        if full and hashlib.sha256(part).digest() != row[8:]:
            return False
    return True


class Outgoing:
    """A copy of the items of a chunk, with room for the CRC that goes to storage with them.

    Icechunk makes no copy of what it is given: nobody changes it afterwards.

    Parameters
    ----------
    given
        The items, of one axis.

    Attributes
    ----------
    items
        The same, little-endian, in one run.
    """

    def __init__(self, given: AnyArray) -> None:
        little = given.dtype.newbyteorder("<")
        self._whole = np.empty(given.size * little.itemsize + _CRC_BYTES, np.uint8)
        self.items: AnyArray = self._whole[:-_CRC_BYTES].view(little)
        self.items[...] = given

    def encoded(self) -> _Encoded:
        """Return it as the codecs make it that `Rows.create` names."""
        raw: Any = self._whole[:-_CRC_BYTES]
        self._whole[-_CRC_BYTES:] = np.frombuffer(google_crc32c.value(raw).to_bytes(_CRC_BYTES, "little"), np.uint8)
        return _Encoded(self._whole)


class _Encoded(cpu.Buffer):
    """Bytes that are given away as they are: `bytes` would be one more copy."""

    def to_bytes(self) -> Any:
        return self.as_numpy_array()


class Rows:
    """The chunks of one array in a store.

    Parameters
    ----------
    store
        Of a session of Icechunk.
    node
        Where it is; see `layout.node_names`.
    place
        How it is cut.
    """

    def __init__(self, store: Store, node: str, place: Place) -> None:
        self._store = store
        self._name = node
        self.place = place
        self._array: zarr.Array[Any] | None = None
        self._sparse: zarr.Array[Any] | None = None

    def create(self) -> None:
        """Make the array, with nothing in it, in the place of one that is there."""
        place = self.place
        zarr.create_array(
            self._store,
            name=self._name,
            shape=place.zarr_shape,
            chunks=place.zarr_chunks,
            dtype=np.dtype(STORABLE[place.dtype]),
            serializer=BytesCodec(endian="little") if place.itemsize > 1 else BytesCodec(endian=None),
            compressors=[Crc32cCodec()],
            filters=None,
            fill_value=0,
            overwrite=True,
        )

    def read(self, index: int, out: AnyArray | None = None, *, crc: bool = True) -> AnyArray:
        """Return the items of a chunk, as an array of one axis that nobody writes to, or in `out`.

        Zarr would have two copies of a chunk when it is read: long ones go past it.

        Parameters
        ----------
        crc
            Compare a long one with its CRC, which takes longer than all else for who has other checksums of it.
        """
        place, dtype = self.place, np.dtype(STORABLE[self.place.dtype])
        if self.is_long(index):
            found = self._got(index, place.chunk * place.itemsize, crc=crc).view(dtype)
        else:
            found = np.ascontiguousarray(np.asarray(self.array[place.selection(index)]).reshape(-1), dtype)
        if out is None:
            return found
        out[...] = found
        return out

    def read_part(self, index: int, part: slice) -> AnyArray:
        """Return some items of a long chunk as `read` does, without the others, and so without its CRC."""
        itemsize = self.place.itemsize
        wanted = RangeByteRequest(part.start * itemsize, part.stop * itemsize)
        found = self._stored(index, wanted)
        if found is None:
            found = np.zeros(wanted.end - wanted.start, np.uint8)
        if len(found) != wanted.end - wanted.start:
            raise ValueError("it is too short")
        return found.view(np.dtype(STORABLE[self.place.dtype]))

    def _got(self, index: int, nbytes: int, *, crc: bool) -> AnyArray:
        """Return the bytes of a chunk; zeros where nothing is stored."""
        whole = self._stored(index)
        if whole is None:
            return np.zeros(nbytes, np.uint8)
        raw: Any = whole[:-_CRC_BYTES]
        if len(raw) != nbytes:
            raise ValueError("it is not as long as it was")
        if crc and google_crc32c.value(raw) != int.from_bytes(whole[-_CRC_BYTES:].tobytes(), "little"):
            raise ValueError("its stored and its computed CRC do not match")
        return np.asarray(raw)

    def _stored(self, index: int, part: RangeByteRequest | None = None) -> AnyArray | None:
        got = ended(self._store.get(self._key(index), cpu.buffer_prototype, part))
        return None if got is None else np.asarray(got.as_numpy_array())

    def is_long(self, index: int) -> bool:
        """Tell whether a chunk is long, and as long as all are: Zarr fills up the last one."""
        part = self.place.items(index)
        return part.stop - part.start == self.place.chunk and self.place.chunk * self.place.itemsize >= CHUNK_BYTES

    def _key(self, index: int) -> str:
        metadata = self.array.metadata
        assert metadata.zarr_format == 3  # noqa: S101 - see `_opened`
        return f"{self._name}/{metadata.encode_chunk_key((index, *(0,) * (len(self.place.zarr_shape) - 1)))}"

    def write(self, index: int, chunk: Outgoing, *, zero: bool) -> None:
        """Write a chunk; all zero, nothing is stored.

        Zarr would have three copies of a chunk in memory until it is written: long ones go past it.
        """
        if zero or not self.is_long(index):
            array = self._dropping if zero else self.array
            array[self.place.selection(index)] = chunk.items.reshape(self.place.shape_of(index))
        else:
            ended(self._store.set(self._key(index), chunk.encoded()))

    @property
    def array(self) -> zarr.Array[Any]:
        """The Zarr array. It compares no chunk with zero, to which -0.0 would be equal: that is done here, quicker."""
        if self._array is None:
            self._array = self._opened(write_empty_chunks=True)
        return self._array

    @property
    def _dropping(self) -> zarr.Array[Any]:
        if self._sparse is None:
            self._sparse = self._opened(write_empty_chunks=False)
        return self._sparse

    def _opened(self, *, write_empty_chunks: bool) -> zarr.Array[Any]:
        mode: Literal["r", "r+"] = "r" if self._store.read_only else "r+"
        found = zarr.open_array(self._store, path=self._name, mode=mode, zarr_format=3)
        return found.with_config({"write_empty_chunks": write_empty_chunks})  # as an argument of open it is ignored


def write_digests(store: Store, node: str, rows: bytes) -> None:
    """Write the rows of digests of an array of several MiB."""
    table = np.frombuffer(rows, np.uint8).reshape(-1, DIGEST_BYTES)
    array = zarr.create_array(
        store,
        name=f"{DIGESTS}/{node}",
        shape=table.shape,
        chunks=(min(len(table), DIGEST_ROWS), DIGEST_BYTES),
        dtype=np.uint8,
        compressors=[Crc32cCodec()],
        filters=None,
        fill_value=0,
        overwrite=True,
        config={"write_empty_chunks": True},
    )
    array[...] = table


def read_digests(store: Store, node: str, rows: slice) -> bytes:
    """Return some rows of the digests of an array of several MiB."""
    array = zarr.open_array(store, path=f"{DIGESTS}/{node}", mode="r", zarr_format=3)
    return np.asarray(array[rows]).astype(np.uint8, copy=False).tobytes()


def ended(work: Coroutine[Any, Any, T]) -> T:
    """Return what a coroutine does, when it has ended."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return _ended(work)
    with ThreadPoolExecutor(1) as pool:  # in a notebook, whose thread runs a loop of its own
        return pool.submit(_ended, work).result()


def _ended(work: Coroutine[Any, Any, T]) -> T:
    loop = asyncio.new_event_loop()  # `asyncio.run` would forget the one that a program has made for itself
    try:
        return loop.run_until_complete(work)
    finally:
        loop.close()


def at_once(work: Callable[[T], object], items: Iterable[T], most: int = IN_FLIGHT) -> None:
    """Do some work on each of several things, a few at a time; the first error ends it."""
    each = list(items)
    if len(each) == 1:
        work(each[0])
        return
    with ThreadPoolExecutor(most) as pool:
        running = [pool.submit(work, item) for item in each]
        try:
            for one in running:
                one.result()
        finally:
            for one in running:
                one.cancel()


def _digest(raw: memoryview) -> bytes:
    return xxhash.xxh3_64_intdigest(raw).to_bytes(8, "little") + hashlib.sha256(raw).digest()


@lru_cache(maxsize=8)
def _zero_digest(nbytes: int) -> bytes:
    return _digest(memoryview(bytes(nbytes)))
