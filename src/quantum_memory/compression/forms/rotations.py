"""Turning every qubit of a state vector: which way, and with the same bits on every machine.

A turn of a qubit takes the amplitudes x0, x1 of its two values to ``c x0 + w x1`` and ``c x1 - conj(w) x0``, where
``c = sqrt(1 - |w|**2)``; with -w it is undone. The qubits are turned one after another, from the one with stride 1 on.
Real and imaginary parts are held apart, and every product and every sum is rounded by itself, so the result does not
depend on how the work is divided.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from quantum_memory.compression.cores import on_all_cores

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from quantum_memory.compression.forms.products import Array

_TILE = 16
"""Qubits of a tile, which is what is turned at a time: its planes stay in the cache."""

_NARROWEST = 1 << 6
"""Columns of a tile of the qubits above."""

_TINY = 2.0**-1000

_DEGENERATE = 1e-6
"""A qubit with eigenvalues that differ by less is left as it is: its eigenvectors would be rounding errors."""


def turn(vector: Array, turns: list[complex], *, back: bool = False) -> None:
    """Turn each qubit of a vector in place.

    Parameters
    ----------
    vector
        float64 or complex128, of one axis and ``2**n`` items; qubit k has stride ``2**k``.
    turns
        ``w`` of each qubit, of an absolute value up to 1; real if the vector is.
    back
        Whether to undo the turns.
    """
    ws = [-w for w in turns] if back else turns
    low = min(len(turns), _TILE)

    def turn_low(tile: Array) -> None:
        # In a tile that is transposed, the qubits with the short strides are far enough apart.
        half = low // 2
        planes = [plane.reshape(-1, 1 << half).T.copy() for plane in _planes(tile)]
        _turn_rows(planes, ws[:half])
        planes = [plane.T.copy() for plane in planes]
        _turn_rows(planes, ws[half:low])
        for target, plane in zip(_planes(tile), planes, strict=True):
            target[...] = plane.reshape(-1)

    def turn_high(tile: Array) -> None:
        planes = [plane.copy() for plane in _planes(tile)]
        _turn_rows(planes, ws[low:])
        for target, plane in zip(_planes(tile), planes, strict=True):
            target[...] = plane

    for _ in on_all_cores(turn_low, vector.reshape(-1, 1 << low)):
        pass
    for _ in on_all_cores(turn_high, _columns(vector, low) if len(turns) > low else []):
        pass


class Natural(NamedTuple):
    """The natural bases of the qubits of a state: those in which their reduced density matrices are diagonal."""

    turns: list[complex]
    """Of each qubit: see `turn`. A qubit that has no such basis, or nearly so, stays as it is."""
    biases: NDArray[np.float64]
    """By how much the two values of each qubit differ in probability after the turn, which is the most there can be."""
    before: NDArray[np.float64]
    """The same before the turn."""


def natural_bases(vector: Array, every: int = 1) -> Natural:
    """Return the natural bases of the qubits, from all tiles of a vector or only every so many."""
    qubits = vector.size.bit_length() - 1
    low = min(qubits, _TILE)
    half = low // 2

    def low_moments(tile: Array) -> Array:
        wide = _wide(tile).reshape(-1, 1 << half)
        return np.concatenate([_moments(np.ascontiguousarray(wide.T)), _moments(wide)])

    sums = [list(on_all_cores(low_moments, vector.reshape(-1, 1 << low)[::every]))]
    if qubits > low:
        sums.append(list(on_all_cores(lambda tile: _moments(_wide(tile)), _columns(vector, low)[::every])))
    matrices = np.concatenate([np.sum(one, axis=0) for one in sums])
    matrices = matrices / (matrices.trace(axis1=1, axis2=2).real[:, None, None] + _TINY)
    values, vectors = np.linalg.eigh(matrices)
    biases = values[:, 1] - values[:, 0]
    first, second = vectors[:, 0, 1], vectors[:, 1, 1]  # of the eigenvector with the larger eigenvalue
    w = second.conj() * np.where(first == 0, 1.0, first / np.where(first == 0, 1.0, np.abs(first)))
    turns = np.where(biases > _DEGENERATE, w, 0).tolist()
    before = np.abs(matrices[:, 0, 0] - matrices[:, 1, 1])
    return Natural(turns, biases, before)


def _columns(vector: Array, low: int) -> list[Array]:
    """Return tiles of the qubits from `low` on: rows are their values."""
    matrix = vector.reshape(-1, 1 << low)
    width = max(_NARROWEST, (1 << _TILE) // len(matrix))
    return [matrix[:, start : start + width] for start in range(0, 1 << low, width)]


def _wide(tile: Array) -> Array:
    return tile.astype(np.complex128 if np.iscomplexobj(tile) else np.float64)


def _planes(tile: Array) -> list[Array]:
    return [tile.real, tile.imag] if np.iscomplexobj(tile) else [tile]


def _moments(rows: Array) -> Array:
    """Return the reduced density matrix of each qubit of the row index, from the one with the shortest stride on."""
    found = []
    for qubit in range(len(rows).bit_length() - 1):
        pair = rows.reshape(-1, 2, (1 << qubit) * rows.shape[1])
        x0, x1 = pair[:, 0], pair[:, 1]
        inner = complex(np.vecdot(x1, x0).sum())
        norms = [float(np.vecdot(x, x).real.sum()) for x in (x0, x1)]
        found.append([[norms[0], inner], [inner.conjugate(), norms[1]]])
    return np.array(found).reshape(-1, 2, 2)


def _turn_rows(planes: list[Array], ws: list[complex]) -> None:
    """Turn the qubits of the row index of real and imaginary parts, from the one with the shortest stride on."""
    for qubit, w in enumerate(ws):
        if w == 0:
            continue
        c = math.sqrt(max(1 - (w.real * w.real + w.imag * w.imag), 0.0))
        x = [plane.reshape(-1, 2, (1 << qubit) * plane.shape[1]) for plane in planes]
        old = [(plane[:, 0].copy(), plane[:, 1].copy()) for plane in x]
        for plane, (x0, x1) in zip(x, old, strict=True):
            plane[:, 0] = c * x0 + w.real * x1
            plane[:, 1] = c * x1 - w.real * x0
        if w.imag:
            (re0, re1), (im0, im1) = old
            x[0][:, 0] -= w.imag * im1
            x[1][:, 0] += w.imag * re1
            x[0][:, 1] -= w.imag * im0
            x[1][:, 1] += w.imag * re0
