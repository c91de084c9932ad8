"""Large arrays of an old store, which stay in the file: they are read a run of items at a time."""

from __future__ import annotations

import functools
import hashlib
import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np

from quantum_memory.compression.cores import on_all_cores
from quantum_memory.errors import RESTORE, IntegrityError
from quantum_memory.formats import hdf5_guard as guard
from quantum_memory.formats.hdf5_packed import PackedArray
from quantum_memory.formats.prepared import Prepared
from quantum_memory.formats.record import norm_of, squared_norm
from quantum_memory.state.arrays import bytes_of, chunk_count, chunk_items
from quantum_memory.state.quantum_state import StateVector
from quantum_memory.state.sites import vector_problems

if TYPE_CHECKING:
    from quantum_memory.durability.files import Readable
    from quantum_memory.formats.legacy.found import Legacy
    from quantum_memory.state.arrays import AnyArray


class Seen(NamedTuple):
    """What one reading of all items has shown.

    Attributes
    ----------
    sha256
        Of the bytes of the array, in hexadecimal.
    not_finite
        How many items are not finite.
    norm
        Square root of the sum of the squared magnitudes.
    """

    sha256: str
    not_finite: int
    norm: float


class StoredArray:
    """A dataset, as `state.arrays.Windows`, for as long as the file is open.

    Parameters
    ----------
    source
        The file.
    dataset
        A ``h5py.Dataset`` that has been checked (`hdf5_guard.checked_dataset`).
    looked_at
        Whether somebody has read it, and seen what is odd about it.

    Raises
    ------
    IntegrityError
        Its items are outside the file.
    """

    def __init__(self, source: Readable, dataset: Any, *, looked_at: bool) -> None:
        self.looked_at = looked_at
        self.dtype: np.dtype[Any] = dataset.dtype
        self.shape: tuple[int, ...] = dataset.shape
        self.ndim = len(self.shape)
        self.size = math.prod(self.shape)
        self.nbytes = self.size * self.dtype.itemsize
        self._source = source
        self._packed = None if dataset.chunks is None else PackedArray(source, dataset, dataset.chunks)
        self._offset: int = 0 if dataset.chunks is not None else dataset.id.get_offset()
        if self._packed is None and not 0 < self._offset <= source.size - self.nbytes:
            raise IntegrityError(f"its dataset {dataset.name!s:.80} is outside the file", next_step=RESTORE)

    def items(self, start: int, stop: int) -> AnyArray:
        """Return items ``start:stop`` in C order, as an array of their own."""
        made = np.empty(stop - start, self.dtype)
        raw, first = bytes_of(made), start * self.dtype.itemsize
        if self._packed is None:
            self._source.read_into(raw, self._offset + first)
        else:
            with guard.guarded(self._source.name):
                self._packed.read_into(raw, first)
        return made

    @functools.cached_property
    def seen(self) -> Seen:
        """What one reading of it shows: the other cores read ahead, since its SHA-256 is front to back."""

        def look(index: int) -> tuple[AnyArray, int, float]:
            items = chunk_items(self, index)
            square = squared_norm(items)
            # The sum is finite only if all of them are.
            bad = 0 if math.isfinite(square) else items.size - int(np.count_nonzero(np.isfinite(items)))
            return items, bad, square

        digest, bad, squares = hashlib.sha256(), 0, list[float]()
        for items, not_finite, square in on_all_cores(look, range(chunk_count(self.nbytes))):
            digest.update(bytes_of(items))
            bad += not_finite
            squares.append(square)
        return Seen(digest.hexdigest(), bad, math.nan if bad else norm_of(squares))

    def problems(self) -> list[str]:
        """Say what is unphysical about it as a state vector, unless somebody has; see `StateVector.problems`."""
        if self.looked_at:
            return []
        return vector_problems(self.seen.not_finite, self.seen.norm, self.dtype, self.size)

    def outline(self) -> AnyArray:
        """Return an array of its shape that takes no memory; what is in it means nothing."""
        return np.broadcast_to(np.zeros((), self.dtype), self.shape)


def stored_array(source: Readable, dataset: Any, *, looked_at: bool) -> StoredArray | None:
    """Return a checked dataset as an array that stays in the file; None where its items are not in runs there."""
    runs = len(dataset.shape) == 1 if dataset.chunks is not None else dataset.id.get_offset() is not None
    return StoredArray(source, dataset, looked_at=looked_at) if runs else None


def prepared(old: Legacy) -> Prepared:
    """Return what is written of an old state, its large arrays read in windows.

    Raises
    ------
    InvalidStateError
        It has a part that cannot be kept exactly.
    """
    made = Prepared.plain(old.memory)
    if not old.windows:
        return made
    arrays = {path: old.windows.get(address(array), array) for path, array in made.arrays.items()}
    # The norm of a chain would be that of its outlines; that of a vector comes from what is written.
    quantum = made.quantum if isinstance(made.quantum, StateVector) else None
    return replace(made, arrays=cast("dict[str, AnyArray]", arrays), quantum=quantum)


def address(array: AnyArray) -> int:
    """Return what tells the outline of an array from all others; 0 for what is no outline."""
    return 0 if any(array.strides) or not array.size else int(array.__array_interface__["data"][0])
