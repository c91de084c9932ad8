"""How a chain of tensors becomes a vector again, window by window, and how far two machines can differ in it.

The tensors on each side of the middle bond are contracted; the vector is the product of the two factors, of which a few
rows are made at a time: always the same ones, so that on one machine a number has the same bits whether all is unpacked
or a part, and the certificate is about those. Sums in a product of matrices are added up in another order on another
machine, so the vector that is unpacked there differs; `Contraction.margin` bounds by how much.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from quantum_memory.compression.certificate import Overlap
from quantum_memory.compression.cores import on_all_cores
from quantum_memory.compression.forms.chain import grams
from quantum_memory.compression.forms.products import multiply, multiply_real, reals, right_factor
from quantum_memory.compression.forms.views import View

if TYPE_CHECKING:
    from quantum_memory.compression.forms.products import Array

_WINDOW, _WIDTH = 1 << 19, 1 << 12
"""Items of a window, whole rows where these are shorter, and its columns that are computed at a time: what that takes
stays in the cache."""

_LARGEST = 1 << 24
"""Entries of a factor, at most: as many as 32 qubits have with the largest bonds that are made."""

MOST_QUBITS = 48
"""No longer chain has factors that are small enough."""

_DOUBLE, _SINGLE = 2.0**-53, 2.0**-24
_SPACE = 1.01
"""For what is of second order, and for the rounding of the bounds themselves."""


class Contraction(View):
    """The vector that a chain of tensors stands for; its windows are a few rows of the product of the two factors.

    Parameters
    ----------
    tensors
        Of shape (left bond, 2, right bond), in double precision.
    dtype
        Of the vector.
    single
        Whether the last product is computed in single precision.

    Attributes
    ----------
    finite
        Whether the two factors are.
    """

    def __init__(self, tensors: list[Array], dtype: np.dtype[Any], *, single: bool) -> None:
        self._tensors = tensors
        self._single = single
        self._cut = len(tensors) // 2
        with np.errstate(all="ignore"):  # tensors may be anything
            left, right = _halves(tensors, self._cut)
            if single:
                work = np.complex64 if np.iscomplexobj(left) else np.float32
                left, right = left.astype(work), right.astype(work)
            self._left, self._right, self._factor = left, right, right_factor(right)
        self.finite = bool(np.isfinite(left).all() and np.isfinite(right).all())
        size = len(left) * right.shape[1]
        super().__init__(dtype, size, range(0, size, _WINDOW))

    def window(self, index: int, out: Array) -> None:
        row, column = divmod(self.starts[index], self._right.shape[1])
        matrix = out.reshape(-1, min(len(out), self._right.shape[1]))
        left = reals(self._left[row : row + len(matrix)])
        parts = left.shape[1] // self._left.shape[1]
        factor = self._factor[:, parts * column :]
        with np.errstate(all="ignore"):
            for start in range(0, matrix.shape[1], _WIDTH):
                tile = matrix[:, start : start + _WIDTH]
                same = tile.dtype == self._left.dtype
                product = tile if same else np.empty(tile.shape, self._left.dtype)
                multiply_real(left, factor[:, parts * start : parts * (start + tile.shape[1])], reals(product))
                if not same:
                    tile[...] = product

    def overlap(self, psi: Array) -> Overlap:
        """Return the sums over another vector and this one, of which only a few windows are ever there."""

        def one(index: int) -> Overlap:
            start, phi = self.starts[index], self._made(index)
            sums = Overlap()
            sums.add(psi[start : start + len(phi)], phi)
            return sums

        total = Overlap()
        for sums in on_all_cores(one, range(len(self.starts))):
            total.merge(sums)
        return total

    def margin(self) -> float:
        r"""Return ``delta``: on any machine the vector is within ``delta`` times its norm of what it is on this one.

        A product A B of complex matrices with inner dimension k is computed with an error of at most
        ``sqrt 2 gamma_2k |A| |B|`` in each entry, ``gamma_k = k u / (1 - k u)``, in whatever order it is summed, where
        |A| is the matrix of absolute values (Higham, *Accuracy and Stability of Numerical Algorithms*, 2nd ed.,
        sections 3.1 and 3.6); so the Frobenius norm of the error is at most ``sqrt 2 gamma_2k ||A|| ||B||``. An error
        in the contraction of the first sites reaches the vector through the remaining ones, which multiply it by at
        most their Frobenius norm. For the last product, the norm of ``|A| |B|`` itself is taken. Two machines differ by
        at most twice the sum and, where the vector is rounded to single precision at the end, by one more unit in the
        last place.
        """
        left, right = ([math.sqrt(abs(float(gram.trace().real))) for gram in side] for side in grams(self._tensors))
        total = 0.0
        for site, tensor in enumerate(self._tensors):
            inner = tensor.shape[0 if site < self._cut else 2]
            total += _share(inner, _DOUBLE) * left[site] * float(np.linalg.norm(tensor)) * right[site + 1]
        absolute = [np.abs(half).astype(np.float64) for half in (self._left, self._right)]
        last = math.sqrt(float((multiply(absolute[0].T, absolute[0]) * multiply(absolute[1], absolute[1].T)).sum()))
        total += _share(len(self._right), _SINGLE if self._single else _DOUBLE) * last
        rounded = 2 * _SINGLE if np.finfo(self.dtype).bits < np.finfo(self._left.dtype).bits else 0.0
        return (2 * total / (left[-1] or math.inf) + rounded) * _SPACE


def is_too_large(tensors: list[Array]) -> bool:
    """Tell whether the factors of a chain, or what they are made from on the way, would take too much memory."""
    cut = len(tensors) // 2
    left = [tensor.shape[2] << site + 1 for site, tensor in enumerate(tensors[:cut])]
    right = [len(tensor) << site + 1 for site, tensor in enumerate(reversed(tensors[cut:]))]
    largest: int = max(left + right)
    return largest > _LARGEST


def _share(inner: int, unit: float) -> float:
    """Return how wrong a product of matrices may be: for its inner dimension, and for rounding its factors."""
    return (3 * inner + 3) * unit


def _halves(tensors: list[Array], cut: int) -> tuple[Array, Array]:
    """Contract the first `cut` tensors, and the others."""
    left = np.ones((1, 1), tensors[0].dtype)
    for tensor in tensors[:cut]:
        left = multiply(left, tensor.reshape(len(tensor), -1)).reshape(-1, tensor.shape[2])
    right = np.ones((1, 1), tensors[0].dtype)
    for tensor in reversed(tensors[cut:]):
        right = multiply(tensor.reshape(-1, tensor.shape[2]), right).reshape(len(tensor), -1)
    return left, right
