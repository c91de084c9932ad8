"""Append samples to a time series of an HDF5 store, one at a time; see `hdf5_series` for how they are stored."""

from __future__ import annotations

import math
import time as clock
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from quantum_memory.errors import InvalidStateError
from quantum_memory.formats import hdf5_guard as guard
from quantum_memory.formats.hdf5_layout import hdf5_chunks, new_dataset, new_group
from quantum_memory.formats.hdf5_series import BLOCK, TIMES, Series, block_digest, seal
from quantum_memory.formats.hdf5_store import SERIES, Store, changed
from quantum_memory.state.arrays import dtype_name
from quantum_memory.state.document import flatten
from quantum_memory.state.json_text import to_json
from quantum_memory.state.pad import PAD
from quantum_memory.state.quantum_state import StateVector

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from types import TracebackType

    import h5py

    from quantum_memory.state.arrays import AnyArray

BLOCK_ROWS = 8192
"""Samples that are kept in memory before they are written, at most."""

BLOCK_BYTES = 8 << 20
FLUSH_SECONDS = 1.0
"""After so long the samples in memory are written when the next one is appended."""

_BLOCKS_PER_CHUNK = 64
_CHUNK_BYTES = 1 << 16


class _Columns(NamedTuple):
    """What is appended; `ends` is that of records, `times` may not be known."""

    values: AnyArray
    ends: AnyArray | None
    times: AnyArray | None


class SeriesWriter:
    """Appends samples to one series; use it as a context manager.

    `append` returns at once. Samples are durable when `flush` or the end of the block returns, when `BLOCK_ROWS` of
    them have come together, and when one is appended more than `FLUSH_SECONDS` after the last write.

    Parameters
    ----------
    writing
        Opens the store for one transaction.
    name
        Of the series.
    """

    def __init__(self, writing: Callable[[], AbstractContextManager[Store]], name: str, path: str) -> None:
        self._writing = writing
        self._name = name
        self._path = path
        self._kind: str | None = None
        self._facts: dict[str, Any] = {}
        self._like: AnyArray | None = None
        self._samples: list[Any] = []
        self._times: list[int | float] = []
        self._timed: np.dtype[Any] | None = None
        self._bytes = 0
        self._flushed = clock.monotonic()
        self._tried: tuple[bytes, int] | None = None  # digest and samples of a block of unknown fate

    def append(self, sample: object, time: int | float | None = None) -> None:
        """Append one sample.

        Parameters
        ----------
        sample
            A `PAD` or its three numbers, a `StateVector`, an array, a number, or a dict of plain values; all of one
            series are of one kind, dtype and shape.
        time
            int: nanoseconds; float: seconds. All samples have one, or none has.

        Raises
        ------
        InvalidStateError
            It is not like the first.
        StorageError, ConflictError
            What has come together could not be written; see `flush`. This sample is among what is kept.
        """
        kind, facts, row = _as_row(sample)
        time = _as_time(time)
        timed = None if time is None else TIMES[isinstance(time, float)]
        if self._kind is None:
            self._kind, self._facts, self._timed = kind, facts, timed
            self._like = row if isinstance(row, np.ndarray) else None
        like = self._like
        same = kind == self._kind and timed is self._timed and facts == self._facts
        if not same or (like is not None and (row.dtype != like.dtype or row.shape != like.shape)):
            raise InvalidStateError(
                f"a sample of the series {self._name!r} is of another kind, dtype or shape than the first, or only one "
                "of them has a time",
                path=self._path,
                next_step="append it to a series of its own",
            )
        self._samples.append(row)
        if time is not None:
            self._times.append(time)
        self._bytes += row.nbytes if isinstance(row, np.ndarray) else len(row)
        due = clock.monotonic() - self._flushed > FLUSH_SECONDS
        if due or len(self._samples) >= BLOCK_ROWS or self._bytes >= BLOCK_BYTES:
            self.flush()

    def flush(self) -> None:
        """Make everything durable that has been appended.

        Raises
        ------
        StorageError, ConflictError
            It could not be written; the samples are kept, and the next flush tries again.
        """
        if self._samples:
            changed(self._path, self._writing, self._write)
            self._tried = None
            self._samples.clear()
            self._times.clear()
            self._bytes = 0
        self._flushed = clock.monotonic()

    def _write(self, store: Store) -> None:
        """Append the samples, less those of an attempt that failed but was committed all the same."""
        if self._tried is not None and _holds(store, self._name, self._tried[0]):
            del self._samples[: self._tried[1]], self._times[: self._tried[1]]
        self._tried = None
        if not self._samples:
            return
        times = None if self._timed is None else np.array(self._times, self._timed)
        if self._kind == "record":
            ends = np.cumsum([len(sample) for sample in self._samples], dtype=np.uint64)
            columns = _Columns(np.frombuffer(b"".join(self._samples), np.uint8), ends, times)
        else:
            columns = _Columns(np.stack(self._samples), None, times)
        about = to_json({"kind": self._kind, "facts": self._facts}, canonical=True)
        self._tried = _append(store, self._name, about, columns), len(self._samples)

    def __enter__(self) -> SeriesWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.flush()


def _as_row(sample: object) -> tuple[str, dict[str, Any], Any]:
    """Return kind, facts and one row of the values of a sample: an array of its own, or the JSON of a record."""
    if type(sample) is np.ndarray:
        return "array", {}, _storable(sample)
    if isinstance(sample, (PAD, tuple, list)):
        return "array", {}, _storable(_as_floats(tuple(sample)))
    if isinstance(sample, Mapping):
        document, arrays = flatten({"record": ("record", dict(sample))})
        if arrays:
            raise InvalidStateError(
                f"a record of a time series holds an array at {next(iter(arrays))}",
                next_step="append the array to a series of its own",
            )
        return "record", {}, to_json(document["record"])
    if isinstance(sample, StateVector):
        facts = {"qubit_order": sample.qubit_order, "dims": list(sample.dims)}
        return "state", facts, _storable(sample.amplitudes)
    if isinstance(sample, (bool, int, float, complex, np.generic)):
        return "array", {}, _storable(np.asarray(sample))
    raise InvalidStateError(
        f"a {type(sample).__name__} is no sample of a time series", next_step="give numbers, an array or a dict"
    )


def _as_floats(numbers: tuple[Any, ...]) -> AnyArray:
    """Return numbers as float64, in which they must be the same."""
    try:
        array = np.array(numbers, np.float64)
        same = all(_is_float(one) for one in np.array(numbers, object).reshape(-1))
    except (TypeError, ValueError, OverflowError):
        same = False
    if not same:
        raise InvalidStateError(
            f"{numbers!r:.80} is no sample of numbers that float64 holds", next_step="give an array of their dtype"
        )
    return array


def _is_float(number: Any) -> bool:
    """Tell whether a number is one that float64 has, or none."""
    return float(number) == number or math.isnan(number)


def _as_time(time: object) -> int | float | None:
    """Return the time of a sample as it is kept."""
    if time is None:
        return None
    if isinstance(time, (float, np.floating)) and _is_float(time):
        return float(time)
    if isinstance(time, (int, np.integer)) and not isinstance(time, bool) and -(1 << 63) <= time < 1 << 63:
        return int(time)
    raise InvalidStateError(
        f"{time!r:.40} is no time of a sample", next_step="give whole nanoseconds, or seconds as a float"
    )


def _storable(array: AnyArray) -> AnyArray:
    if dtype_name(array.dtype) is None:
        raise InvalidStateError(
            f"a time series keeps no arrays of dtype {array.dtype}", next_step="give numbers of a plain NumPy dtype"
        )
    if not array.size:
        raise InvalidStateError("a sample without items is none", next_step="give at least one number")
    row: AnyArray = array.astype(array.dtype.newbyteorder("<"), order="C", copy=True)
    return row


def _holds(store: Store, name: str, digest: bytes) -> bool:
    """Tell whether a series has a block of this digest, which no other block has."""
    if not guard.has(guard.child(store.root, SERIES), name):
        return False
    return bool((Series(store, name).blocks["sha256"] == np.frombuffer(digest, np.uint8)).all(axis=1).any())


def _append(store: Store, name: str, about: bytes, columns: _Columns) -> bytes:
    """Write one block at the end of a series, which is made when it is not there, and return its digest."""
    values, ends, times = columns
    parent = guard.child(store.root, SERIES)
    fresh = not guard.has(parent, name)
    if fresh:
        group = new_group(parent, name)
        group.attrs["about"] = np.bytes_(about)
        for part, array in (("values", values), ("ends", ends), ("time", times)):
            if array is not None:
                rows = max(1, _CHUNK_BYTES // max(1, array[:1].nbytes))
                chunks = hdf5_chunks((rows, *array.shape[1:]), array.itemsize)
                _create(group, part, array.dtype, array.shape[1:], chunks)
        _create(group, "blocks", BLOCK, (), (_BLOCKS_PER_CHUNK,))
        group.attrs["NX_class"] = np.bytes_("NXdata")
        group.attrs["signal"] = np.bytes_("values")
        if times is not None:
            group.attrs["axes"] = np.array([b"time", *[b"."] * (values.ndim - 1)])
        rows_before, last = 0, bytes(32)
    else:
        series = Series(store, name)
        group, rows_before, last = series.group, series.rows, series.last
        if series.about != about:
            raise InvalidStateError(
                f"the series {name!r} holds samples of another kind",
                path=store.file.name,
                next_step="append them to a series of another name",
            )
    if (times is not None) != guard.has(group, "time"):
        raise InvalidStateError(
            f"the series {name!r} has {'no' if times is not None else 'a'} time for each sample",
            path=store.file.name,
            next_step="append them in the same way, or to a series of another name",
        )
    if ends is not None:
        before = len(guard.child(group, "values"))
        ends = np.asarray(ends, np.uint64) + np.uint64(before)
    for part, array in (("values", values), ("ends", ends), ("time", times)):
        if array is None:
            continue
        dataset = guard.child(group, part)
        if dataset.dtype != array.dtype or dataset.shape[1:] != array.shape[1:]:
            raise InvalidStateError(
                f"the series {name!r} holds {dataset.dtype} of shape {dataset.shape[1:]} per sample, not {array.dtype} "
                f"of shape {array.shape[1:]}",
                path=store.file.name,
                next_step="append them to a series of another name",
            )
        length = len(dataset)
        dataset.resize(length + len(array), axis=0)
        dataset[length:] = array
    count = len(values if ends is None else ends)
    blocks = guard.child(group, "blocks")
    blocks.resize(len(blocks) + 1, axis=0)
    row = np.zeros(1, BLOCK)
    digest = block_digest(last, values, ends, times)
    row["stop"], row["sha256"] = rows_before + count, np.frombuffer(digest, np.uint8)
    blocks[-1:] = row
    group.attrs["rows"] = np.uint64(rows_before + count)
    group.attrs["sha256"] = np.bytes_(seal(about, rows_before + count, digest))
    return digest


def _create(group: h5py.Group, name: str, dtype: np.dtype[Any], row: tuple[int, ...], chunks: tuple[int, ...]) -> None:
    """Create a column. Its chunks are filled: the part that has no rows yet would otherwise be what was in memory."""
    new_dataset(group, name, (0, *row), dtype, maxshape=(None, *row), chunks=chunks, fill_time="alloc")
