"""What one of several writers writes of a state vector.

A `Part` is handed to a task, a thread or a rank of MPI, pickled or not (it is about a kilobyte long), writes whole
chunks, and is handed back. What it has to say of them, their digests and their norms, it carries along: nothing is read
again to commit.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from quantum_memory.cloud.chunks import (
    Outgoing,
    Rows,
    at_once,
    digests_of,
    is_zero,
    read_digests,
    squares_of,
    zero_digests,
)
from quantum_memory.cloud.errors import told
from quantum_memory.cloud.layout import DIGEST_BYTES, Place
from quantum_memory.errors import IntegrityError, InvalidStateError
from quantum_memory.formats.reader import AMPLITUDES
from quantum_memory.state.arrays import dtype_name
from quantum_memory.state.products import AHEAD

if TYPE_CHECKING:
    import icechunk

    from quantum_memory.state.arrays import AnyArray


@dataclass(frozen=True)
class Written:
    """What is said of a chunk that was written: rows of digests, and the squared norm of each MiB, as float64."""

    digests: bytes
    squares: bytes


@dataclass
class Part:
    """What one writer writes of a state vector. It can be pickled.

    Attributes
    ----------
    chunk
        Amplitudes in a chunk: what is written begins at a multiple of it, and ends at one or at the end of the state.
    size
        Amplitudes of the state.
    """

    _fork: icechunk.session.ForkSession = field(repr=False)
    _place: Place
    _name: str
    _of: str  # which transaction
    _has_old: bool
    _done: dict[int, Written] = field(default_factory=dict, repr=False)
    _taken: bool = False
    _path: str = AMPLITUDES  # of the array
    _node: str = AMPLITUDES  # and where it is

    @property
    def chunk(self) -> int:
        """Amplitudes in a chunk."""
        return self._place.chunk

    @property
    def size(self) -> int:
        """Amplitudes of the state."""
        return self._place.size

    @property
    def nbytes(self) -> int:
        """Bytes of the amplitudes that were written."""
        parts = map(self._place.items, self._done)
        return int(self._place.itemsize * sum(part.stop - part.start for part in parts))

    def write(self, where: int | slice, amplitudes: AnyArray) -> None:
        """Write amplitudes, chunk by chunk; chunks that are as they were in the version before are not written again.

        Parameters
        ----------
        where
            Index of the first amplitude, or the slice of all.
        amplitudes
            1-D array, of the dtype of the state.

        Raises
        ------
        InvalidStateError
            They are of another dtype, do not fit, or do not begin and end where chunks do; or a chunk of them has been
            written already, or the part has been taken back.
        StorageError
            The storage cannot be reached, or refuses; then none of them counts as written, and may be written again.
        """
        start, stop = self._checked(where, amplitudes)
        if self._taken:
            raise InvalidStateError(
                "this part has been taken back, and what is written to it now would be lost",
                path=self._name,
                next_step="ask the transaction for another one: fork()",
            )
        indices = range(start // self.chunk, -(-stop // self.chunk))
        if done := [index for index in indices if index in self._done]:
            raise InvalidStateError(
                f"amplitudes from {done[0] * self.chunk} on have been written already",
                path=self._name,
                next_step="write each chunk once",
            )
        rows = Rows(self._fork.store, self._node, self._place)
        written: dict[int, Written] = {}
        with told(self._name, "write amplitudes"):
            old = self._old(indices)

            def write(index: int) -> None:
                part = self._place.items(index)
                chunk = Outgoing(amplitudes[part.start - start : part.stop - start])
                items = chunk.items
                zero = is_zero(items)
                digests = zero_digests(items.nbytes) if zero else digests_of(items)
                squares = np.array(squares_of(items) if self._path == AMPLITUDES else []).tobytes()
                if digests != old.get(index) and not (zero and not self._has_old):
                    rows.write(index, chunk, zero=zero)
                written[index] = Written(digests, squares)

            at_once(write, indices, AHEAD)
        self._done |= written

    def _old(self, indices: range) -> dict[int, bytes]:
        """Return the digests that chunks have in the version before, where they are kept in the store."""
        if not self._has_old or not indices or self._place.mebibytes <= 1:
            return {}
        first, last = self._place.row_slice(indices[0]), self._place.row_slice(indices[-1])
        try:
            with told(self._name, "read digests"):
                rows = read_digests(self._fork.store, self._node, slice(first.start, last.stop))
        except IntegrityError:
            return {}  # so that all is written
        found = {}
        for index in indices:
            part = self._place.row_slice(index)
            found[index] = rows[(part.start - first.start) * DIGEST_BYTES : (part.stop - first.start) * DIGEST_BYTES]
        return found

    def _checked(self, where: int | slice, amplitudes: AnyArray) -> tuple[int, int]:
        if type(amplitudes) not in {np.ndarray, np.memmap} or amplitudes.ndim != 1:
            raise InvalidStateError(
                "amplitudes are a plain array of one axis", path=self._name, next_step="give np.asarray of it, reshaped"
            )
        if dtype_name(amplitudes.dtype) != self._place.dtype:
            raise InvalidStateError(
                f"the amplitudes are {amplitudes.dtype}, and the state is {self._place.dtype}",
                path=self._name,
                next_step="convert explicitly, or begin a transaction with this dtype",
            )
        if isinstance(where, slice):
            start, stop, step = where.indices(self.size)
            if step != 1 or stop - start != len(amplitudes):
                raise InvalidStateError(
                    f"{len(amplitudes)} amplitudes are no {where}",
                    path=self._name,
                    next_step="give as many as there are",
                )
        else:
            try:
                start = operator.index(where)
            except TypeError:
                raise InvalidStateError(
                    f"{where!r:.40} says no place", path=self._name, next_step="give an index, or a slice"
                ) from None
            stop = start + len(amplitudes)
        whole = start % self.chunk == 0 and (stop % self.chunk == 0 or stop == self.size)
        if not 0 <= start <= stop <= self.size or not whole:
            raise InvalidStateError(
                f"amplitudes {start} to {stop} are not whole chunks of {self.chunk} of a state of {self.size}",
                path=self._name,
                next_step=f"begin at a multiple of {self.chunk}, and end at one, or begin with another chunk_bytes",
            )
        return start, stop
