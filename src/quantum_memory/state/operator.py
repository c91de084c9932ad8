"""Operators: Hamiltonians, unitaries, observables, as dense matrices with the order of their qubits beside them."""

from __future__ import annotations

import numpy as np

from quantum_memory.state.dense_array import SquareMatrix
from quantum_memory.state.sites import BLOCK, double


class Operator(SquareMatrix):
    """A linear map of the states of some sites: a square matrix over the basis states, of any entries.

    Parameters
    ----------
    matrix
        Square 2-D array of float16, float32, float64, complex64 or complex128; not copied.
    qubit_order, dims, labels
        As for `StateVector`; rows and columns have the same.

    Attributes
    ----------
    qubit_order : {"little", "big", "unstated"}
    dims : tuple of int
    labels : tuple of str or None

    Raises
    ------
    InvalidStateError
        When dtype, shape, dims or labels do not describe an operator.
    """

    _WHAT = "an operator"

    def is_unitary(self, atol: float | None = None) -> bool:
        """Tell whether every entry of ``U U^H`` is that of the identity, within `atol` (by default that of `dtype`)."""
        tolerance, size = self._tolerance(atol), len(self._array)
        matrix = self._array.astype(double(self.dtype), copy=False)
        rows = max(1, BLOCK // size)
        for start in range(0, size, rows):
            product = matrix[start : start + rows] @ matrix.conj().T
            product[np.arange(len(product)), start + np.arange(len(product))] -= 1
            if not (np.abs(product) <= tolerance).all():
                return False
        return True

    def problems(self, atol: float | None = None) -> list[str]:  # noqa: ARG002 -- as for states
        """Say in plain sentences what is odd; an empty list means nothing is. An operator may be any matrix."""
        return self._not_finite()
