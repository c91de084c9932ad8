"""The support and the phases of a stabiliser state, and its amplitudes in blocks; see `stabilizer`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from quantum_memory.state.arrays import AnyArray

BLOCK_QUBITS = 17
"""Qubits of a block of amplitudes that is made at a time."""

CLASSES = 8
"""Kinds of amplitudes in the support: four phases where no term of the form is non-zero, then four where one is."""


@dataclass(frozen=True)
class QuadraticForm:
    """The support and the phases of a stabiliser state.

    Attributes
    ----------
    origin
        The first index of the support.
    basis
        Of the support, in reduced echelon form: the highest bit of each vector is higher than that of the one before,
        and is in no other vector and not in the origin. Indices then ascend with the coordinates.
    linear
        For each basis vector, its exponent of i: 0 to 3.
    coupled
        For each basis vector, the coordinates with which it has a quadratic term, as a mask. Symmetric.
    """

    origin: int
    basis: tuple[int, ...]
    linear: tuple[int, ...]
    coupled: tuple[int, ...]

    def is_reduced(self) -> bool:
        """Tell whether the basis is what `basis` demands."""
        tops = [vector.bit_length() - 1 for vector in self.basis]
        ascending = all(low < high for low, high in zip([-1, *tops], tops, strict=False))
        return ascending and all(
            bool(other >> top & 1) == (index == own)
            for own, top in enumerate(tops)
            for index, other in enumerate((*self.basis, self.origin))
        )

    def indices(self, y: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the index of the amplitude at each of some coordinates."""
        indices = np.full_like(y, self.origin)
        for j, vector in enumerate(self.basis):
            indices ^= (y >> j & 1) * vector
        return indices

    def classes(self, y: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the class of the amplitude at each of some coordinates."""
        exponents, touched = np.zeros_like(y), np.zeros(len(y), np.bool_)
        for j, (linear, coupled) in enumerate(zip(self.linear, self.coupled, strict=True)):
            pairs = np.where(y >> j & 1, y & (coupled & ((1 << j) - 1)), 0)
            exponents += (y >> j & 1) * linear + 2 * np.bitwise_count(pairs)
            touched |= pairs != 0
            if linear:
                touched |= (y >> j & 1) != 0
        return (exponents & 3) + 4 * touched


class Blocks:
    """Makes any block of ``2**BLOCK_QUBITS`` amplitudes of a state, or all of a smaller one, from its number.

    A basis vector either stays within a block or leads to another. Coordinates of the first kind bring the same to the
    form in each block; those of the second, which are bits of its number, add to it what is linear in the first.

    Parameters
    ----------
    form
        A form whose basis is reduced and within `size`.
    patterns
        An item for each class, and a last one for all amplitudes outside the support.
    size
        A power of two.
    """

    def __init__(self, form: QuadraticForm, patterns: AnyArray, size: int) -> None:
        self._form = form
        self._patterns = patterns
        self._qubits = min(BLOCK_QUBITS, size.bit_length() - 1)
        self._low = sum(vector >> self._qubits == 0 for vector in form.basis)
        low = slice(self._low)
        within = replace(form, origin=0, basis=form.basis[low], linear=form.linear[low], coupled=form.coupled[low])
        y = np.arange(1 << self._low)
        self._places, self._classes = within.indices(y), within.classes(y).astype(np.uint8)
        self._y = y.astype(np.uint32)
        self.starts = range(0, size, 1 << self._qubits)

    def fill(self, number: int, out: AnyArray) -> None:
        """Make a block in `out`; from any thread."""
        start, exponent, touched, flips, touches = self._lead(number << self._qubits)
        if start >> self._qubits != number:
            out[:] = self._patterns[CLASSES:]
            return
        classes = np.arange(CLASSES)
        patterns = self._patterns[((classes + exponent) & 3) | (classes & 4) | 4 * touched]
        mask = (1 << self._low) - 1
        odd = np.bitwise_count(self._y & np.uint32(flips & mask)) & np.uint8(1)
        own = self._classes ^ (odd << np.uint8(1))  # which is an exponent with 2 added, modulo 4
        own |= ((self._y & np.uint32(touches & mask)) != 0).view(np.uint8) << np.uint8(2)
        if self._low == self._qubits:  # the support is all of the block, in ascending order
            patterns.take(own, out=out, mode="clip")
            return
        out[:] = self._patterns[CLASSES:]
        out[self._places ^ (start & ((1 << self._qubits) - 1))] = patterns[own]

    def _lead(self, index: int) -> tuple[int, int, bool, int, int]:
        """Return what coordinates of vectors that lead to other blocks come to, where they are bits of an index.

        Returns
        -------
        start, exponent, touched
            The index they lead to, and what they bring to the form: a power of i, and whether any term.
        flips, touches
            With which others an odd number of them, and any of them, have quadratic terms: masks.
        """
        form, y = self._form, 0
        start, exponent, touched, flips, touches = form.origin, 0, False, 0, 0
        for j in range(self._low, len(form.basis)):
            if index >> (form.basis[j].bit_length() - 1) & 1:
                pairs = y & form.coupled[j]
                exponent += form.linear[j] + 2 * pairs.bit_count()
                touched = touched or form.linear[j] > 0 or pairs > 0
                y |= 1 << j
                start, flips, touches = start ^ form.basis[j], flips ^ form.coupled[j], touches | form.coupled[j]
        return start, exponent, touched, flips, touches
