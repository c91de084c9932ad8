"""Gates on a state vector, in place, with the round-off of a plain loop.

The real and the imaginary parts are held as two arrays, because NumPy's own product of complex numbers fuses a
multiplication with an addition on some processors, so that its last bits depend on the machine.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.random import Generator
    from numpy.typing import DTypeLike, NDArray

Parts = tuple["NDArray[Any]", "NDArray[Any]"]

H = np.array([[1, 1], [1, -1]]) / math.sqrt(2) + 0j
S = np.diag([1, 1j])
T = np.diag([1, np.exp(0.25j * math.pi)])

BLOCK = 1 << 15
"""Amplitudes that a kernel takes at a time, so that what it works on stays in the cache."""

SHORTEST_ROW = 32
"""An innermost axis below this is left for a longer one: NumPy pays for each row, not only for each number."""


@dataclass
class State:
    """A state vector in two arrays; qubit k has stride 2**k."""

    re: NDArray[Any]
    im: NDArray[Any]

    @classmethod
    def basis(cls, n: int, dtype: DTypeLike, index: int = 0) -> State:
        """Return a basis state of n qubits."""
        real = np.empty(0, dtype).real.dtype
        state = cls(np.zeros(2**n, real), np.zeros(2**n, real))
        state.re[index] = 1
        return state

    @property
    def qubits(self) -> int:
        """The number of qubits."""
        return self.re.size.bit_length() - 1

    def vector(self) -> NDArray[Any]:
        """Return the amplitudes as one complex array."""
        v = np.empty(self.re.size, np.result_type(self.re, np.complex64))
        v.real, v.imag = self.re, self.im
        return v

    def where(self, *bits: tuple[int, int]) -> Parts:
        """Return views of the amplitudes in which each given qubit has its given bit."""
        return _where(self.re, bits), _where(self.im, bits)


def _where(plane: NDArray[Any], bits: Sequence[tuple[int, int]]) -> NDArray[Any]:
    shape: list[int] = []
    index: list[int | slice] = []
    rest = plane.size
    for qubit, bit in sorted(bits, reverse=True):
        shape += [rest >> (qubit + 1), 2]
        index += [slice(None), bit]
        rest = 1 << qubit
    view = plane.reshape(*shape, rest)[tuple(index)]
    if rest < SHORTEST_ROW:
        view = np.moveaxis(view, int(np.argmax(view.shape)), -1)
    return view


def _blocks(shape: tuple[int, ...]) -> Iterator[tuple[slice, ...]]:
    """Cut an array of this shape along its longest axis."""
    axis = int(np.argmax(shape))
    step = max(1, BLOCK * shape[axis] // math.prod(shape))
    for start in range(0, shape[axis], step):
        yield (*[slice(None)] * axis, slice(start, start + step))


def _read(x: Parts, block: tuple[slice, ...]) -> Parts:
    return np.ascontiguousarray(x[0][block]), np.ascontiguousarray(x[1][block])


def _times(c: Any, x: Parts) -> Parts:
    return c.real * x[0] - c.imag * x[1], c.real * x[1] + c.imag * x[0]


def _sum(x: Parts, y: Parts) -> Parts:
    return x[0] + y[0], x[1] + y[1]


def mix(x: Parts, y: Parts, matrix: NDArray[Any]) -> None:
    """Replace the amplitudes x by a x + b y and y by c x + d y."""
    (a, b), (c, d) = matrix.astype(np.result_type(x[0], np.complex64))
    for block in _blocks(x[0].shape):
        old_x, old_y = _read(x, block), _read(y, block)
        new_x, new_y = _sum(_times(a, old_x), _times(b, old_y)), _sum(_times(c, old_x), _times(d, old_y))
        for plane in (0, 1):
            x[plane][block], y[plane][block] = new_x[plane], new_y[plane]


def scale(x: Parts, factor: complex) -> None:
    """Multiply the amplitudes x by a factor."""
    f = np.asarray(factor).astype(np.result_type(x[0], np.complex64))[()]
    for block in _blocks(x[0].shape):
        x[0][block], x[1][block] = _times(f, _read(x, block))


def one_qubit(state: State, k: int, matrix: NDArray[Any]) -> None:
    """Apply a 2 x 2 matrix to qubit k."""
    mix(state.where((k, 0)), state.where((k, 1)), matrix)


def exchange_block(state: State, k: int, matrix: NDArray[Any]) -> None:
    """Apply a 2 x 2 matrix to the amplitudes where qubits k + 1 and k read 01 and 10."""
    mix(state.where((k + 1, 0), (k, 1)), state.where((k + 1, 1), (k, 0)), matrix)


def cx(state: State, control: int, target: int) -> None:
    """Flip the target where the control is 1."""
    for x, y in zip(state.where((control, 1), (target, 0)), state.where((control, 1), (target, 1)), strict=True):
        for block in _blocks(x.shape):
            x[block], y[block] = y[block], x[block].copy()


def cphase(state: State, a: int, b: int, factor: complex) -> None:
    """Multiply by a factor where both qubits are 1."""
    scale(state.where((a, 1), (b, 1)), factor)


def cz(state: State, a: int, b: int) -> None:
    """Change the sign where both qubits are 1."""
    cphase(state, a, b, -1)


def rzz(state: State, a: int, b: int, angle: float) -> None:
    """Multiply by exp(-i angle/2) where the qubits are equal and by exp(i angle/2) where they differ."""
    for bit_a in (0, 1):
        for bit_b in (0, 1):
            sign = -1 if bit_a == bit_b else 1
            scale(state.where((a, bit_a), (b, bit_b)), np.exp(0.5j * sign * angle))


def ry(angle: float) -> NDArray[Any]:
    """Return the rotation about y."""
    c, s = math.cos(angle / 2), math.sin(angle / 2)
    return np.array([[c, -s], [s, c]], np.complex128)


def rx(angle: float) -> NDArray[Any]:
    """Return the rotation about x."""
    c, s = math.cos(angle / 2), math.sin(angle / 2)
    return np.array([[c, -1j * s], [-1j * s, c]])


def rz(angle: float) -> NDArray[Any]:
    """Return the rotation about z."""
    return np.diag([np.exp(-0.5j * angle), np.exp(0.5j * angle)])


def haar_unitary(r: Generator) -> NDArray[Any]:
    """Draw a 2 x 2 unitary from the Haar measure."""
    Q, R = np.linalg.qr(r.normal(size=(2, 2)) + 1j * r.normal(size=(2, 2)))
    phases: NDArray[Any] = R.diagonal() / np.abs(R.diagonal())
    unitary: NDArray[Any] = Q * phases
    return unitary
