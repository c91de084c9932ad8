"""One memory in an HDF5 store: where its parts are.

::

    /quantum_states/{id}                  @content_id, @sha256
        metadata                          JSON text: document, record, and for every array where it is
        quantum_data/amplitudes           one dataset per array; complex numbers are the compound {r, i}
        classical_data/...
        emotional_context/...
        digests                           of the chunks of arrays of more than 1 MiB: xxh3 and SHA-256 of each

``@sha256`` is of ``metadata`` and ``digests``, which hold the digests of everything else. The specification is in
``docs/storage_architecture.md``.

"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple

from quantum_memory.errors import InvalidStateError
from quantum_memory.formats import hdf5_guard as guard
from quantum_memory.formats.reader import nbytes_of
from quantum_memory.state.arrays import CHUNK_BYTES, combine_digests, worker_count
from quantum_memory.state.document import ArrayIdentity

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    import h5py

GROUPS = {
    "quantum": "quantum_data",
    "classical": "classical_data",
    "emotion": "emotional_context",
    "metadata": "metadata_arrays",
}
"""The group of each part of a memory, by the first component of its arrays' paths."""

DIGEST_BYTES = 40
"""Of a chunk: xxh3 (8 bytes, little-endian) and SHA-256 of its raw bytes."""

SMALL = 4096
"""Arrays of up to so many bytes are stored as they are: a chunk of HDF5 costs more than it saves."""

ALIGNED_FROM, ALIGNMENT = 4096, 64
"""Datasets of at least so many bytes begin at a multiple of so many, so that their memory can be mapped."""

COMPRESSIONS: dict[str, dict[str, Any]] = {
    "none": {},
    "gzip": {"compression": "gzip", "compression_opts": 4, "shuffle": True},
    "lzf": {"compression": "lzf", "shuffle": True},
    "szip": {"compression": "szip", "compression_opts": ("nn", 32)},
}
"""What h5py is told for each compression. Those of hdf5plugin are added by `compression_arguments`."""

FILTER_NUMBERS = {
    "gzip": guard.DEFLATE,
    "szip": guard.SZIP,
    "lzf": guard.LZF,
    "bitshuffle": guard.BITSHUFFLE,
    "zstd": guard.ZSTD,
}
"""The filter of each compression."""

FILTERS = frozenset({*FILTER_NUMBERS.values(), guard.SHUFFLE})


class Place(NamedTuple):
    """Where an array is, as ``metadata`` says."""

    at: str
    dtype: str
    shape: tuple[int, ...]
    digests: bytes

    @property
    def nbytes(self) -> int:
        """Raw bytes."""
        return nbytes_of(self.dtype, self.shape)

    @property
    def identity(self) -> ArrayIdentity:
        """Name of its content."""
        count = len(self.digests) // DIGEST_BYTES
        parts = (self.digests[i * DIGEST_BYTES + 8 : (i + 1) * DIGEST_BYTES] for i in range(count))
        return ArrayIdentity(self.dtype, self.shape, combine_digests(b"".join(parts), count))


def compression_arguments(name: str | None) -> dict[str, Any]:
    """Return what h5py is told for a compression.

    Raises
    ------
    InvalidStateError
        There is none of that name, or it takes a package that is not installed.
    """
    key = "none" if name in {None, "auto"} else str(name)
    if key in COMPRESSIONS:
        return COMPRESSIONS[key]
    if key in {"zstd", "bitshuffle"}:
        try:
            import hdf5plugin  # noqa: PLC0415 - an extra
        except ImportError:
            raise InvalidStateError(
                f"the HDF5 filter {key} is in a package that is not installed", next_step="pip install hdf5plugin"
            ) from None
        return dict(hdf5plugin.Zstd(clevel=3)) | {"shuffle": True} if key == "zstd" else dict(hdf5plugin.Bitshuffle())
    raise InvalidStateError(
        f"an HDF5 store has no compression {key!r:.40}",
        next_step=f"use one of {', '.join([*COMPRESSIONS, 'zstd', 'bitshuffle'])}",
    )


def new_group(parent: h5py.Group, name: str) -> h5py.Group:
    """Create a group. What h5py is set to do by default is not asked: the same memory makes the same bytes."""
    return parent.create_group(name, track_order=False)


def new_dataset(parent: h5py.Group, name: str, *args: Any, **arguments: Any) -> h5py.Dataset:
    """Create a dataset, and the groups on the way to it; see `new_group`. The arguments are those of h5py."""
    folder, _, last = name.rpartition("/")
    if folder:
        parent = parent[folder] if folder in parent else new_group(parent, folder)
    return parent.create_dataset(last, *args, track_order=False, **arguments)


def dataset_names(paths: Iterable[str]) -> dict[str, str]:
    """Return the name of the dataset of each array, relative to the group of its memory.

    Names are paths as they are in the memory, but that HDF5 gives a meaning to "." and to nothing between slashes, and
    that no dataset can stand where a group does.
    """
    names = {}
    for path in sorted(paths):
        first, *rest = path.split("/")
        names[path] = "/".join([GROUPS.get(first, first), *({"": "~-", ".": "~."}.get(part, part) for part in rest)])
    folders = {name[:end] for name in names.values() for end, mark in enumerate(name) if mark == "/"}
    for number, (path, name) in enumerate(names.items()):
        if name in folders:
            names[path] = f"{name.partition('/')[0]}/~array{number}"
    return names


def summary(document: Mapping[str, Any], content: str, raw_bytes: int) -> dict[str, Any]:
    """Return what the index says of a memory."""
    state = document.get("quantum_data", {}).get("$state", {})
    return {
        "kind": state.get("kind", ""),
        "sites": len(state["sites"]) if "sites" in state else len(state.get("dims", ())),
        "raw_bytes": raw_bytes,
        "content_id": content,
    }


def hdf5_chunks(shape: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    """Return the shape of the chunks of a packed dataset: whole last axes, up to 1 MiB."""
    left = CHUNK_BYTES // itemsize
    lengths: list[int] = []
    for length in reversed(shape):
        lengths.append(max(1, min(length, left)))
        left //= lengths[-1]
    return tuple(reversed(lengths))


def boxes(shape: tuple[int, ...], start: int, stop: int) -> Iterator[tuple[slice, ...]]:
    """Yield the boxes of indices that items ``start:stop`` in C order make, in their order."""
    if start >= stop:
        return
    if len(shape) <= 1:
        yield (slice(start, stop),) * len(shape)
        return
    row = math.prod(shape[1:])
    first, last = start // row, (stop - 1) // row
    if first == last:
        rest = boxes(shape[1:], start - first * row, stop - first * row)
        yield from ((slice(first, first + 1), *box) for box in rest)
        return
    whole = -(-start // row), stop // row
    yield from boxes(shape, start, whole[0] * row) if start % row else ()
    if whole[0] < whole[1]:
        yield (slice(*whole), *(slice(0, length) for length in shape[1:]))
    yield from boxes(shape, whole[1] * row, stop) if stop % row else ()


def on_chunks(work: Callable[[int], None], count: int, *, parallel: bool) -> None:
    """Call `work` for every chunk, on all cores where that is allowed."""
    if count <= 1 or not parallel:
        for index in range(count):
            work(index)
        return
    with ThreadPoolExecutor(worker_count(), "hdf5") as pool:
        try:
            for _ in pool.map(work, range(count)):
                pass
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
