"""Copies of arrays that a writer can take its time with, in memory that is used again."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

from quantum_memory.errors import BudgetError
from quantum_memory.state.arrays import worker_count

if TYPE_CHECKING:
    from collections.abc import Mapping

    from quantum_memory.state.arrays import AnyArray

_ALIGNMENT = 64
_PIECE = 16 << 20


def is_immutable(array: AnyArray) -> bool:
    """Tell whether nobody can change an array: it, and all whose memory it is a view of, are read-only."""
    owner: Any = array
    while isinstance(owner, np.ndarray):
        if owner.flags.writeable:
            return False
        owner = owner.base
    return owner is None or isinstance(owner, bytes)


class Staging:
    """Memory for one snapshot at a time.

    Pages that a process touches for the first time cost several times what copying does, so that the memory is kept.

    Attributes
    ----------
    nbytes
        How much of it there is.
    """

    def __init__(self) -> None:
        self._buffer = np.empty(0, np.uint8)

    @property
    def nbytes(self) -> int:
        """How much memory is kept."""
        return self._buffer.nbytes

    def take(self, arrays: Mapping[str, AnyArray]) -> dict[str, AnyArray]:
        """Return the arrays as they are now: copies, valid until this is called again, and immutable ones themselves.

        Raises
        ------
        BudgetError
            There is not enough memory for the copies; save without a background thread.
        """
        copied = {path: array for path, array in arrays.items() if not is_immutable(array)}
        places, end = {}, 0
        for path, array in copied.items():
            places[path] = end
            end += -(-array.nbytes // _ALIGNMENT) * _ALIGNMENT
        self._grow(end)
        made = dict(arrays)
        for path, array in copied.items():
            start = places[path]
            made[path] = self._buffer[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
        pairs = [pair for path in copied for pair in _pieces(made[path], copied[path])]
        if end <= _PIECE:
            for target, source in pairs:
                np.copyto(target, source)
        else:
            with ThreadPoolExecutor(worker_count(), "snapshot") as pool:
                for _ in pool.map(lambda pair: np.copyto(*pair), pairs):
                    pass
        return made

    def _grow(self, nbytes: int) -> None:
        if nbytes <= self._buffer.nbytes:
            return
        self._buffer = np.empty(0, np.uint8)  # let go of the old before there is a new
        try:
            self._buffer = np.empty(nbytes, np.uint8)
        except MemoryError:
            raise BudgetError(
                f"a copy of the state needs {nbytes} bytes of memory, which there are not",
                next_step="save in the foreground (background=False), which needs none",
            ) from None


def _pieces(target: AnyArray, source: AnyArray) -> list[tuple[AnyArray, AnyArray]]:
    """Return an array and its copy in pieces for several cores; strided ones stay whole."""
    if source.nbytes <= _PIECE or not source.flags.c_contiguous:
        return [(target, source)]
    step = _PIECE // source.itemsize
    flat, copy = source.reshape(-1), target.reshape(-1)
    return [(copy[at : at + step], flat[at : at + step]) for at in range(0, flat.size, step)]
