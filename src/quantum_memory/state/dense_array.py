"""Dense arrays over the basis states of sites, with the order of their qubits written beside them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, Self, TypeAlias, get_args

import numpy as np

from quantum_memory.errors import InvalidStateError
from quantum_memory.state.arrays import same_bits
from quantum_memory.state.sites import (
    BLOCK,
    checked_array,
    checked_digits,
    checked_dims,
    checked_labels,
    default_tolerance,
    double,
    reversal,
    reversed_blocks,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, DTypeLike, NDArray

    from quantum_memory.state.arrays import Windows
    from quantum_memory.state.sites import Array, Digits

QubitOrder: TypeAlias = Literal["little", "big", "unstated"]
"""Which digit of an index belongs to qubit 0: the least ("little", as in Qiskit) or the most significant ("big", as in
Cirq, PennyLane, QuTiP and quimb), or that nobody has said ("unstated")."""


class DenseArray:
    """An array whose every axis runs over the basis states of some sites."""

    __hash__ = None  # type: ignore[assignment]

    def __init__(
        self, array: Array, qubit_order: QubitOrder, dims: Sequence[int] | None, labels: Sequence[str] | None
    ) -> None:
        if qubit_order not in get_args(QubitOrder):
            raise InvalidStateError(
                f"{qubit_order!r} is no qubit order", next_step='pass "little" (Qiskit), "big" (Cirq) or "unstated"'
            )
        self._array: Final = array
        self.qubit_order: Final = qubit_order
        self.dims: Final = checked_dims(dims, len(array))
        self.labels: Final = checked_labels(labels, len(self.dims))

    @property
    def n_sites(self) -> int:
        """Number of sites."""
        return len(self.dims)

    @property
    def n_qubits(self) -> int:
        """Number of qubits.

        Raises
        ------
        InvalidStateError
            When not every site is a qubit.
        """
        if set(self.dims) != {2}:
            raise InvalidStateError(f"sites of dimensions {self.dims} are not all qubits", next_step="use n_sites")
        return self.n_sites

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype, never changed."""
        return self._array.dtype

    @property
    def nbytes(self) -> int:
        """Bytes of the array."""
        return self._array.nbytes

    def __repr__(self) -> str:
        sites = f"{self.n_sites} qubits" if set(self.dims) == {2} else f"dims={self.dims}"
        return f"{type(self).__name__}({sites}, {self.qubit_order}, {self.dtype})"

    def __eq__(self, other: object) -> bool:
        """Tell whether class, dims, order, labels, dtype and every bit agree; none is hashable."""
        if not isinstance(other, DenseArray) or self._class() is not other._class():
            return NotImplemented
        mine, theirs = (self.dims, self.qubit_order, self.labels), (other.dims, other.qubit_order, other.labels)
        return mine == theirs and same_bits(self._compared(), other._compared())

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> Array:
        return np.asarray(self._whole(), dtype=dtype, copy=copy)

    def __dlpack__(self, **options: Any) -> Any:
        return self._whole().__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._whole().__dlpack_device__()

    def with_qubit_order(self, order: QubitOrder) -> Self:
        """Return the same with its unstated order stated; no data moves.

        Raises
        ------
        InvalidStateError
            When another order is stated already: `reordered` moves the data.
        """
        if self.qubit_order not in {"unstated", order}:
            raise InvalidStateError(
                f"the qubit order is {self.qubit_order!r} already",
                next_step=f'state.reordered("{order}") moves the data',
            )
        return self._like(self._array, order)

    def reordered(self, order: QubitOrder) -> Self:
        """Return the same in the other qubit order; the array is new, nothing else of its size is allocated."""
        significant = self._significant_dims()
        if order not in {"little", "big"}:
            raise InvalidStateError(f"data cannot be moved to order {order!r}", next_step='pass "little" or "big"')
        return self if order == self.qubit_order else self._like(self._reversed(significant), order)

    def index(self, digits: Digits) -> int:
        """Return the index of a basis state.

        Parameters
        ----------
        digits
            One digit per site, the most significant first, as frameworks of this qubit order print them: the index is
            the number that they spell. So the first digit is that of site 0 if the order is "big" and that of the last
            site if it is "little". Where all sites have one dimension, the order need not be stated.
        """
        significant = self.dims if len(set(self.dims)) == 1 else self._significant_dims()
        return int(np.ravel_multi_index(checked_digits(digits, significant), significant))

    def site_tensor(self) -> Array:
        """Return a view of the array with one axis per site, site 0 first (a matrix: rows, then columns)."""
        significant = self._significant_dims()
        tensor = self._whole().reshape(significant * self._array.ndim)
        if self.qubit_order == "big":
            return tensor
        n = self.n_sites
        return tensor.transpose([start + n - 1 - k for start in range(0, tensor.ndim, n) for k in range(n)])

    def _significant_dims(self) -> tuple[int, ...]:
        """Return the dimensions of the sites, that of the most significant digit first."""
        if self.qubit_order == "unstated":
            raise InvalidStateError(
                "this needs the qubit order, which is unstated", next_step='say it: state.with_qubit_order("big")'
            )
        return self.dims if self.qubit_order == "big" else self.dims[::-1]

    def _class(self) -> type:
        """Return the class that says what it is, wherever its numbers are."""
        return type(self)

    def _whole(self) -> Array:
        """Return the array, in memory."""
        return self._array

    def _compared(self) -> Array | Windows:
        """Return the array, or what it is compared by where it is not in memory."""
        return self._array

    def _like(self, array: Array, order: QubitOrder) -> Self:
        """Return one of the same class, dims and labels."""
        return type(self)(array, qubit_order=order, dims=self.dims, labels=self.labels)

    def _reversed(self, dims: tuple[int, ...]) -> Array:
        """Return a copy of the array with the digits of every index, of dimensions `dims`, in reverse."""
        array = self._whole()
        if array.ndim > 1:
            order = reversal(dims)
            return array[np.ix_(*[order] * array.ndim)]
        mirrored = np.empty_like(array)
        start = 0
        for block in reversed_blocks(array, dims):
            mirrored[start : start + len(block)] = block
            start += len(block)
        return mirrored


class SquareMatrix(DenseArray):
    """A square matrix over the basis states: rows and columns have the same sites, in the same order."""

    _WHAT: ClassVar[str]

    def __init__(
        self,
        matrix: ArrayLike,
        *,
        qubit_order: QubitOrder,
        dims: Sequence[int] | None = None,
        labels: Sequence[str] | None = None,
    ) -> None:
        array = checked_array(matrix, 2, self._WHAT)
        if array.shape[0] != array.shape[1]:
            raise InvalidStateError(f"{self._WHAT} is square, not {array.shape}", next_step="check the array")
        super().__init__(array, qubit_order, dims, labels)

    @property
    def matrix(self) -> Array:
        """The matrix, shape (dimension, dimension)."""
        return self._array

    def trace(self) -> complex:
        """Return the trace, accumulated in double precision."""
        return complex(self._array.trace(dtype=double(self.dtype)))

    def is_hermitian(self, atol: float | None = None) -> bool:
        """Tell whether every entry is the conjugate of its mirror image, within `atol` (by default that of `dtype`)."""
        tolerance = self._tolerance(atol)
        rows = max(1, BLOCK // len(self._array))
        with np.errstate(invalid="ignore"):  # inf - inf is not a number, and no number is within a tolerance of it
            return all(
                bool((np.abs(self._array[k : k + rows] - self._array[:, k : k + rows].conj().T) <= tolerance).all())
                for k in range(0, len(self._array), rows)
            )

    def eigenvalues(self, atol: float | None = None) -> NDArray[np.float64]:
        """Return the eigenvalues in ascending order, computed in double precision.

        Raises
        ------
        InvalidStateError
            When the matrix is not Hermitian within `atol` (see `is_hermitian`).
        """
        if not self.is_hermitian(atol):
            raise InvalidStateError("the matrix is not Hermitian", next_step="see state.problems()")
        values: NDArray[np.float64] = np.linalg.eigvalsh(self._array.astype(double(self.dtype)))
        return values

    def _not_finite(self) -> list[str]:
        """Say how many entries are not finite; an empty list means that all are."""
        bad = sum(int(np.count_nonzero(~np.isfinite(row))) for row in self._array)
        return [f"{bad} of {self._array.size} entries are not finite"] if bad else []

    def _tolerance(self, atol: float | None) -> float:
        return default_tolerance(self.dtype, len(self._array)) if atol is None else atol
