"""Products of matrices that stay on the core that asks for them.

A BLAS divides a product of complex matrices among threads of its own even when it is small. Beside threads of ours, or
of other programs, they wait for one another: on two busy cores that was measured to take up to a hundred times as long.
A small product of real matrices is left to the caller, so everything here is put down to those.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

_SMALL = 1 << 18
"""Multiplications that BLAS does on one core."""

_INNER, _HEIGHT = 1 << 7, 1 << 5
"""Terms of a sum, and rows, that are multiplied at a time if there are as many."""


def reals(matrix: Array) -> Array:
    """View a matrix, rows contiguous, with the real and imaginary parts of its entries next to one another."""
    return matrix.view(matrix.real.dtype)


def right_factor(matrix: Array) -> Array:
    """Return a real matrix R for which ``reals(a) @ R`` is ``reals(a @ matrix)``, if a and `matrix` are both complex.

    Of a real matrix it is the matrix itself.
    """
    if not np.iscomplexobj(matrix):
        return matrix
    both = np.empty((len(matrix), 2, matrix.shape[1]), matrix.dtype)
    both[:, 0] = matrix
    both[:, 1] = matrix * matrix.dtype.type(1j)
    return reals(both.reshape(-1, matrix.shape[1]))


def multiply(a: Array, b: Array) -> Array:
    """Return the product of two matrices, both real or both complex."""
    out = np.empty((len(a), b.shape[1]), np.result_type(a, b))
    multiply_real(reals(np.ascontiguousarray(a)), right_factor(b), reals(out))
    return out


def multiply_real(a: Array, b: Array, out: Array) -> None:
    """Compute the product of two real matrices in `out`, of their type or a wider one."""
    inner = max(1, min(a.shape[1], _INNER))
    columns = max(1, min(b.shape[1], _SMALL // (inner * max(1, min(len(a), _HEIGHT)))))
    rows = max(1, _SMALL // (inner * columns))
    if not a.shape[1]:
        out[...] = 0
    for top in range(0, len(a), rows):
        for left in range(0, b.shape[1], columns):
            tile = out[top : top + rows, left : left + columns]
            for start in range(0, a.shape[1], inner):
                factors = a[top : top + rows, start : start + inner], b[start : start + inner, left : left + columns]
                if start:
                    tile += factors[0] @ factors[1]
                elif out.dtype == factors[0].dtype:
                    np.matmul(*factors, out=tile)
                else:
                    tile[...] = factors[0] @ factors[1]
