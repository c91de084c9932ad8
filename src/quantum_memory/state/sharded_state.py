"""A state vector whose amplitudes are elsewhere: in object storage, in a file, in the workers of a cluster."""

from __future__ import annotations

import math
import threading
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from quantum_memory.errors import BudgetError, InvalidStateError
from quantum_memory.state import products
from quantum_memory.state.arrays import is_elsewhere
from quantum_memory.state.quantum_state import StateVector
from quantum_memory.state.sites import checked_operator, checked_sites, checked_total
from quantum_memory.state.windows import InMemory, windows_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike

    from quantum_memory.state.arrays import AnyArray, Windows
    from quantum_memory.state.dense_array import QubitOrder
    from quantum_memory.state.sites import Array, Sites


class ShardedStateVector(StateVector):
    """A state vector of which a run of amplitudes is read at a time.

    Whatever can be computed run by run is: norm, fidelity, expectation values, reduced states of a few qubits, samples,
    single amplitudes. What needs all amplitudes at once (`amplitudes` itself, the other qubit order, Schmidt values,
    another library) reads them into memory, where they stay.

    Parameters
    ----------
    amplitudes
        An array of Dask, or anything with ``dtype``, ``shape``, ``ndim``, ``nbytes`` and
        ``items(start, stop)``. With an attribute ``step``, that many are read at a time; with a method
        ``read_all(out)``, all are. It is pickled when an executor does the work.
    qubit_order, dims, labels
        See `StateVector`.

    Attributes
    ----------
    shards
        The amplitudes, of which runs are read: once all have been read into memory, those.
    """

    def __init__(
        self,
        amplitudes: Any,
        *,
        qubit_order: QubitOrder,
        dims: Sequence[int] | None = None,
        labels: Sequence[str] | None = None,
    ) -> None:
        super().__init__(amplitudes, qubit_order=qubit_order, dims=dims, labels=labels)
        self._gathered: Array | None = None

    @property
    def shards(self) -> Windows:
        return cast("_Sliced", self._array).shards if self._gathered is None else InMemory(self._gathered)

    @property
    def held(self) -> Array | Windows:
        """The array of amplitudes once it is in memory, and before that what they are read from."""
        return self.shards if self._gathered is None else self._gathered

    @property
    def amplitudes(self) -> Array:
        """The array of amplitudes, shape (dimension,), read into memory when it is first asked for.

        From then on they are the state: what is changed in them is computed with, and saved.

        Raises
        ------
        BudgetError
            They do not fit into the memory of this machine.
        """
        return self._whole()

    def gather(self) -> StateVector:
        """Return the state with its amplitudes in memory; see `amplitudes`."""
        return StateVector(self._whole(), qubit_order=self.qubit_order, dims=self.dims, labels=self.labels)

    def norm(self, executor: Any = None) -> float:
        """Return the norm, in double precision; see `fidelity` for `executor`."""
        return math.sqrt(products.squared_norm(self.shards, executor, step=products.vectors_step(self.shards)))

    def expectation(self, operator: ArrayLike, sites: Sites, executor: Any = None) -> complex:
        """Return the expectation value of an operator on a few sites; see `StateVector.expectation`.

        Parameters
        ----------
        executor
            A `concurrent.futures.Executor`, or a client of Dask, which does the work: its tasks read the amplitudes
            where they are, a few chunks at a time.
        """
        where = checked_sites(sites, self.n_sites)
        matrix = checked_operator(operator, [self.dims[site] for site in where])
        traced = self._traced(where, executor)
        checked_total(abs(traced.trace()))
        return complex((matrix * traced.T).sum() / traced.trace())

    def _reduced(self, sites: tuple[int, ...]) -> Array:
        return self._traced(sites, None)

    def _traced(self, sites: tuple[int, ...], executor: Any) -> Array:
        if set(self.dims) != {2}:
            return super()._reduced(sites)
        step = products.vectors_step(self.shards)
        step = 1 << (min(step, len(self._array)).bit_length() - 1)  # of chunks of another length two are read for some
        last = self.n_sites - 1
        if self._significant_dims() is self.dims and self.qubit_order == "big":
            bits = [last - site for site in sites]
        else:
            bits = list(sites)
        return products.reduced(self.shards, bits, executor, step=step)

    @staticmethod
    def _checked(amplitudes: Any) -> Array:
        found = windows_of(amplitudes)
        if found is None:
            raise InvalidStateError(
                f"a {type(amplitudes).__name__} is nothing of which a run of amplitudes is read",
                next_step="give an array of Dask, or make a StateVector of an array in memory",
            )
        amplitudes = found
        if amplitudes.ndim != 1 or amplitudes.dtype.kind not in "fc":
            said = f"{amplitudes.ndim} axes of {amplitudes.dtype}"
            raise InvalidStateError(
                f"a state vector has one axis of real or complex numbers, not {said}",
                next_step="reshape or convert it explicitly",
            )
        return cast("Array", _Sliced(amplitudes))

    def _fill(self, array: Array) -> None:
        """Read all amplitudes into an array: as their holder does best, or run by run."""
        whole = getattr(self.shards, "read_all", None)
        if whole is not None:
            whole(array)
            return
        step = products.vectors_step(self.shards)
        for low in range(0, len(array), step):
            high = min(low + step, len(array))
            array[low:high] = self.shards.items(low, high)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state
        cast("_Sliced", self._array).whole = self._gathered

    def _class(self) -> type:
        return StateVector

    def _whole(self) -> Array:
        if self._gathered is None:
            try:
                gathered: Array = np.empty(self.shards.shape, self.shards.dtype)
            except MemoryError:
                raise BudgetError(
                    f"its amplitudes need {self.nbytes} bytes of memory, which there are not",
                    next_step="use what is computed without them, such as norm, fidelity and expectation",
                ) from None
            self._fill(gathered)
            cast("_Sliced", self._array).whole = gathered
            self._gathered = gathered  # which it is as soon as none of it is missing
        return self._gathered

    def _compared(self) -> Array | Windows:
        return cast("Windows", self._array) if self._gathered is None else self._gathered

    def _like(self, array: Array, order: QubitOrder) -> Any:
        if is_elsewhere(array):
            return StateVector(cast("Any", self.held), qubit_order=order, dims=self.dims, labels=self.labels)
        return StateVector(array, qubit_order=order, dims=self.dims, labels=self.labels)


class _Sliced:
    """Amplitudes that are elsewhere, for code that takes slices of an array; the run that was read last is kept.

    Attributes
    ----------
    whole
        All of them, once they are in memory.
    """

    def __init__(self, shards: Windows) -> None:
        self.shards = shards
        self.dtype, self.shape, self.ndim, self.nbytes = shards.dtype, shards.shape, shards.ndim, shards.nbytes
        self._step = products.vectors_step(shards)
        self._kept: tuple[int, AnyArray] | None = None
        self._lock = threading.Lock()
        self.whole: Array | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return _Sliced, (self.shards,)

    def __len__(self) -> int:
        return self.shape[0]

    def items(self, start: int, stop: int) -> AnyArray:
        """Return items ``start:stop``, little-endian."""
        found: AnyArray = self[start:stop]
        return found

    def __getitem__(self, key: int | slice) -> Any:
        if self.whole is not None:
            return self.whole[key]
        if not isinstance(key, slice):
            index = range(len(self))[key]
            return self[index : index + 1][0]
        start, stop, step = key.indices(len(self))
        if step != 1:
            raise InvalidStateError(
                "amplitudes that are not in memory are read in runs", next_step="take the step of state.amplitudes"
            )
        parts = [self._run(run)[max(start, run) - run : stop - run] for run in self._runs(start, stop)]
        return parts[0] if len(parts) == 1 else np.concatenate(parts or [np.empty(0, self.dtype)])

    def _runs(self, start: int, stop: int) -> range:
        return range(start // self._step * self._step, stop, self._step)

    def _run(self, start: int) -> AnyArray:
        with self._lock:
            if self._kept is None or self._kept[0] != start:
                self._kept = None  # before another is read: one is in memory
                run = self.shards.items(start, min(start + self._step, len(self)))
                run.flags.writeable = False  # what somebody changed in it would be taken for what is there
                self._kept = (start, run)
            return self._kept[1]
