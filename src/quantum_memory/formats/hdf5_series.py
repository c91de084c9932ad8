"""Time series in an HDF5 store: samples appended one at a time, made durable block by block, read by window.

::

    /time_series/{name}      @kind, @facts, @rows, @sha256
        values               (T, ...) one row per sample; for records the bytes of their JSON, one after the other
        ends                 (T,) of records: where each ends in values
        time                 (T,) int64 nanoseconds or float64 seconds, when given
        blocks               (B,) rows up to the end of each block, and a SHA-256

The digest of a block is that of the digest before it, its rows and its times, so that a window can be checked without
the rest, and no block can be dropped or moved. ``@sha256`` is of the facts, the rows and the last of them.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from quantum_memory.errors import IntegrityError, InvalidStateError, MissingError
from quantum_memory.formats import hdf5_guard as guard
from quantum_memory.formats.hdf5_store import SERIES, Store
from quantum_memory.state.arrays import dtype_name
from quantum_memory.state.document import unflatten
from quantum_memory.state.json_text import from_json, max_nodes

if TYPE_CHECKING:
    from collections.abc import Callable

    import h5py

    from quantum_memory.state.arrays import AnyArray

BLOCK = np.dtype([("stop", "<u8"), ("sha256", "u1", (32,))])
"""What is noted of a block."""

TIMES = (np.dtype("<i8"), np.dtype("<f8"))
"""Nanoseconds, seconds."""


@dataclass(frozen=True)
class Window:
    """A part of a time series.

    Attributes
    ----------
    start
        Number of its first sample, from 0.
    values
        One row per sample; of records, a list.
    time
        Of each sample; None where none was given.
    facts
        What was said of the samples: ``qubit_order`` and ``dims`` of states.
    """

    start: int
    values: Any
    time: AnyArray | None
    facts: dict[str, Any]

    def __len__(self) -> int:
        return len(self.values)


def block_digest(before: bytes, *arrays: AnyArray | None) -> bytes:
    """Return the digest of a block from that of the block before and its values, ends and times."""
    digest = hashlib.sha256(before)
    for array in arrays:
        if array is not None:
            digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.digest()


def seal(about: bytes, rows: int, last: bytes) -> str:
    """Return the SHA-256 of what a series says of itself."""
    return hashlib.sha256(about + rows.to_bytes(8, "little") + last).hexdigest()


class Series:
    """A series in an open store.

    Raises
    ------
    MissingError
        There is none of that name.
    IntegrityError
        What it says of itself does not match its SHA-256.
    """

    def __init__(self, store: Store, name: str) -> None:
        self.path = store.file.name
        self._size = store.file.size
        with guard.guarded(self.path):
            parent = guard.child(store.root, SERIES)
            if not isinstance(name, str) or not guard.has(parent, name):
                there = ", ".join(list(parent)[:8])
                raise MissingError(f"there is no time series {name!r:.80}", next_step=f"it has: {there or 'none'}")
            self.name = name
            self.group: h5py.Group = guard.child(parent, name)
            self.about = guard.text_attribute(self.group, "about", 1 << 16).encode()
            about = from_json(self.about, max_nodes=max_nodes(0))
            self.kind, self.facts = str(about["kind"]), dict(about["facts"])
            self.rows = int(guard.number_attribute(self.group, "rows"))
            self.blocks = self._part("blocks", BLOCK)[:]
            self.last = self.blocks["sha256"][-1].tobytes() if len(self.blocks) else bytes(32)
            stops = self.blocks["stop"].astype(np.int64)
            if (
                guard.text_attribute(self.group, "sha256", 64) != seal(self.about, self.rows, self.last)
                or (np.diff(stops, prepend=0) <= 0).any()
                or (stops[-1] if len(stops) else 0) != self.rows
            ):
                raise IntegrityError(f"its time series {name!r} does not match its SHA-256")
            self._values = self._part("values")
            self._ends = self._part("ends", np.dtype("<u8")) if self.kind == "record" else None
            self._time = self._part("time", *TIMES) if guard.has(self.group, "time") else None
            for part in (self._values if self._ends is None else self._ends, self._time):
                if part is not None and len(part) != self.rows:
                    raise IntegrityError(f"its time series {name!r} has columns of different lengths")

    def summary(self) -> dict[str, Any]:
        """Return name, kind and number of samples."""
        return {"name": self.name, "kind": self.kind, "samples": self.rows}

    def window(self, start: int | None = None, stop: int | None = None) -> Window:
        """Return samples ``start:stop``, counted as Python does; the blocks that they are in are checked."""
        if not all(one is None or hasattr(one, "__index__") for one in (start, stop)):
            raise InvalidStateError(
                f"{start!r:.40} to {stop!r:.40} are no samples", path=self.path, next_step="give whole numbers, or None"
            )
        low, high, _ = slice(start, stop).indices(self.rows)
        high = max(low, high)
        first, last = (int(np.searchsorted(self.blocks["stop"], row, "right")) for row in (low, max(low, high - 1)))
        with guard.guarded(self.path):
            if low == high:
                return self._made(low, [self._empty()])
            blocks = [self._block(index) for index in range(first, last + 1)]
        at = 0 if first == 0 else int(self.blocks["stop"][first - 1])
        return self._made(low, blocks, low - at, high - at)

    def check(self, progress: Callable[[int], object] | None = None) -> None:
        """Check every block."""
        with guard.guarded(self.path):
            for index in range(len(self.blocks)):
                values = self._block(index)[0]
                if progress is not None:
                    progress(values.nbytes)

    def _part(self, name: str, *dtypes: np.dtype[Any]) -> h5py.Dataset:
        dataset = guard.child(self.group, name)
        if not dtypes:
            little = dataset.dtype.newbyteorder("<")
            if dtype_name(little) is None:
                raise IntegrityError(f"its time series {self.name!r} has values of a type that no release writes")
            dtypes = (little,)
        guard.checked_dataset(dataset, max_bytes=self._size, dtypes=dtypes, file_bytes=self._size)
        return dataset

    def _block(self, index: int) -> tuple[AnyArray, AnyArray | None, AnyArray | None]:
        """Return values, ends and times of a block, checked."""
        start = 0 if index == 0 else int(self.blocks["stop"][index - 1])
        stop = int(self.blocks["stop"][index])
        ends = None if self._ends is None else self._ends[start:stop]
        low, high = start, stop
        if ends is not None and self._ends is not None:
            low, high = (0 if start == 0 else int(self._ends[start - 1])), int(ends[-1])
            if not 0 <= low <= high <= len(self._values) or (np.diff(ends.astype(np.int64), prepend=low) < 0).any():
                raise IntegrityError(f"its time series {self.name!r} is damaged in block {index}")
        values = self._values[low:high]
        times = None if self._time is None else self._time[start:stop]
        before = bytes(32) if index == 0 else self.blocks["sha256"][index - 1].tobytes()
        if block_digest(before, values, ends, times) != self.blocks["sha256"][index].tobytes():
            raise IntegrityError(
                f"its time series {self.name!r} is damaged in block {index}: samples {start} to {stop - 1}"
            )
        return values, None if ends is None else ends - np.uint64(low), times

    def _empty(self) -> tuple[AnyArray, AnyArray | None, AnyArray | None]:
        return (
            self._values[:0],
            None if self._ends is None else self._ends[:0],
            None if self._time is None else self._time[:0],
        )

    def _made(self, start: int, blocks: list[Any], low: int = 0, high: int = 0) -> Window:
        times = None if self._time is None else np.concatenate([block[2] for block in blocks])[low:high]
        if self._ends is None:
            values: Any = np.concatenate([block[0] for block in blocks])[low:high]
        else:
            values = [record for block in blocks for record in _records(block[0], block[1], self.path)][low:high]
        return Window(start, values, times, self.facts)


def _records(values: AnyArray, ends: AnyArray, path: str) -> list[Any]:
    text, made, start = values.tobytes(), [], 0
    with guard.guarded(path):
        for end in ends.tolist():
            part = text[start:end]
            made.append(unflatten(from_json(part, max_nodes=max_nodes(len(part))), {}))
            start = end
    return made
