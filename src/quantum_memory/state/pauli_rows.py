"""Products of Pauli operators on many qubits, in rows of bits, and elimination over GF(2) among those that commute.

A row is ``i^p X^x Z^z``: of each qubit a bit of x and one of z, and a phase p of 0 to 3. Two rows multiply to
``i^(p + p' + 2 z.x') X^(x + x') Z^(z + z')``. See S. Aaronson and D. Gottesman, Phys. Rev. A 70, 052328 (2004).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Bits = NDArray[np.bool_]


@dataclass
class PauliRows:
    """Rows, which are changed in place.

    Attributes
    ----------
    x, z
        Bits, shape (rows, qubits).
    phases
        uint8, shape (rows,), powers of i modulo 4.
    """

    x: Bits
    z: Bits
    phases: NDArray[np.uint8]

    @classmethod
    def of(cls, table: Bits) -> Self:
        """Return copies of rows of a tableau: x, z and a sign, where x and z of one qubit mean Y."""
        qubits = table.shape[1] // 2
        x, z = table[:, :qubits].copy(), table[:, qubits:-1].copy()
        return cls(x, z, (2 * table[:, -1].astype(np.uint8) + _counts(x & z)) % 4)

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, rows: slice) -> PauliRows:
        """Return some of the rows: a view."""
        return PauliRows(self.x[rows], self.z[rows], self.phases[rows])

    def signs(self) -> Bits:
        """Return which rows have a minus before their X, Y and Z."""
        return ((self.phases - _counts(self.x & self.z)) % 4) >= 2

    def swap(self, a: int, b: int) -> None:
        """Exchange two rows."""
        for part in (self.x, self.z, self.phases):
            part[[a, b]] = part[[b, a]]

    def multiply(self, rows: NDArray[np.intp], others: PauliRows, row: int) -> None:
        """Multiply some rows, from the right, by a row of others."""
        self.phases[rows] += others.phases[row] + 2 * _counts(self.z[rows] & others.x[row])
        self.phases[rows] %= 4
        self.x[rows] ^= others.x[row]
        self.z[rows] ^= others.z[row]


def eliminate(keys: Bits, rows: PauliRows | None = None) -> int:
    """Bring bits into reduced row echelon form, in place, and do the same to rows that commute.

    Returns
    -------
    int
        The rank; the rows of `keys` from there on are zero.
    """
    rank = 0
    for column in range(keys.shape[1]):
        if rank == len(keys):
            break
        found = np.flatnonzero(keys[rank:, column])
        if not found.size:
            continue
        if found[0]:
            keys[[rank, rank + found[0]]] = keys[[rank + found[0], rank]]
            if rows is not None:
                rows.swap(rank, rank + int(found[0]))
        others = np.flatnonzero(keys[:, column])
        others = others[others != rank]
        keys[others] ^= keys[rank]
        if rows is not None:
            rows.multiply(others, rows, rank)
        rank += 1
    return rank


def anticommuting(a: PauliRows, b: PauliRows) -> Bits:
    """Return which rows of `a` anticommute with which of `b`, shape (rows of a, rows of b)."""
    # Sums of up to 2^24 ones are exact in single precision, in which products of matrices are quick.
    x, z = b.x.T.astype(np.float32), b.z.T.astype(np.float32)
    found = a.x.astype(np.float32) @ z + a.z.astype(np.float32) @ x
    odd: Bits = found.astype(np.int64) % 2 == 1
    return odd


def _counts(bits: Bits) -> NDArray[np.uint8]:
    """Return how many bits of each row are set, modulo 4."""
    counts: NDArray[np.uint8] = (np.count_nonzero(bits, axis=-1) % 4).astype(np.uint8)
    return counts
