"""Write the arrays of a checkpoint into a store of chunks, on all cores; what is there already is only hashed."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from quantum_memory.compression.codecs import Codec, codec_named
from quantum_memory.compression.cores import on_all_cores
from quantum_memory.errors import InvalidStateError
from quantum_memory.lifecycle.checkpoints.manifest import Chunked
from quantum_memory.lifecycle.repository.chunks import Chunk, prepared
from quantum_memory.state.arrays import CHUNK_BYTES, bytes_of, chunk_count, chunk_items, dtype_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from quantum_memory.durability.pack_writer import PackWriter
    from quantum_memory.state.arrays import AnyArray

_SMALL = CHUNK_BYTES // 4


class _Task(NamedTuple):
    """Chunks to be looked at in one go: a large one, or many small ones."""

    chunks: list[tuple[AnyArray, int, Codec]]


def write_arrays(
    writer: PackWriter,
    arrays: Mapping[str, AnyArray],
    compression: str = "none",
    progress: Callable[[int], object] | None = None,
) -> dict[str, Chunked]:
    """Write the chunks of some arrays that the store has not, and return the arrays as what they are made of.

    Parameters
    ----------
    writer
        Of a new pack.
    arrays
        By path, in any memory order.
    compression
        Name of a codec for each chunk, where it pays.
    progress
        Called with the raw bytes of each chunk that is done.
    """
    paths = sorted(arrays)
    names: dict[str, list[bytes]] = {path: [] for path in paths}
    owners = iter([path for path in paths for _ in range(chunk_count(arrays[path].nbytes))])

    def prepare(task: _Task) -> list[Chunk]:
        return [_prepared(writer, *chunk) for chunk in task.chunks]

    for done in on_all_cores(prepare, _tasks([arrays[path] for path in paths], compression)):
        for chunk in done:
            names[next(owners)].append(chunk.name)
            if chunk.stored is not None:
                writer.add(chunk.name, chunk.stored, check=chunk.check, codec=chunk.codec, raw=chunk.raw)
            if progress is not None:
                progress(chunk.raw)
    return {path: _chunked(path, arrays[path], names[path]) for path in paths}


def _chunked(path: str, array: AnyArray, names: list[bytes]) -> Chunked:
    dtype = dtype_name(array.dtype)
    if dtype is None:
        raise InvalidStateError(f"{path} has dtype {array.dtype}, which is not stored directly")
    return Chunked(dtype, array.shape, b"".join(names))


def _tasks(arrays: list[AnyArray], compression: str) -> Iterator[_Task]:
    small: list[tuple[AnyArray, int, Codec]] = []
    nbytes = 0
    for array in arrays:
        codec = codec_named(compression, array.dtype)
        for index in range(chunk_count(array.nbytes)):
            small.append((array, index, codec))
            nbytes += min(CHUNK_BYTES, array.nbytes - index * CHUNK_BYTES)
            if nbytes >= _SMALL:
                yield _Task(small)
                small, nbytes = [], 0
    if small:
        yield _Task(small)


def _prepared(writer: PackWriter, array: AnyArray, index: int, codec: Codec) -> Chunk:
    # A copy of its own: were the caller to change the array meanwhile, name and data would not fit together. It also
    # costs nothing, since what follows then reads the chunk from the cache.
    return prepared(writer, bytes_of(chunk_items(array, index).copy()), codec)
