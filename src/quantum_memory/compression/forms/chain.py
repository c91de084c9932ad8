"""Matrix product states as few integers: the gauge they are brought into, their quantisation, and how they are stored.

A matrix product state of bond dimension r has a gauge freedom of r**2 numbers at each bond, about half of all its
numbers. It is spent on making half of the numbers 0 and 1: every tensor but one (the *center*) is an interpolation,
which has the rows of a unit matrix among its 2 r rows (the *pivots*), so that only the others are stored. The vectors
that remain of the state are then rows of the state itself.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from quantum_memory.compression.forms.base import malformed, part_of
from quantum_memory.compression.forms.products import multiply
from quantum_memory.compression.forms.rounding import integers_of, rounded, step_of
from quantum_memory.compression.numbers import Numbers, pack_numbers

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from quantum_memory.compression.forms.base import Json, Part
    from quantum_memory.compression.forms.products import Array
    from quantum_memory.compression.forms.splitting import Chain

LARGEST_BOND = 256
"""A chain with a larger bond is neither made nor read: its contraction would take long."""

_SCALES = 2000


class Interpolation(NamedTuple):
    """A matrix product state in the interpolative gauge."""

    tensors: list[Array]
    pivots: list[Array]
    """For each tensor, which rows are those of a unit matrix: rows (left bond, physical) before the center, columns
    (physical, right bond) after it, none of the center."""
    center: int


def interpolation(chain: Chain) -> Interpolation:
    """Return a matrix product state in the interpolative gauge, about the tensor after its middle bond.

    The pivots are those of a QR decomposition with pivoting, which keeps the other entries small: H. Cheng, Z.
    Gimbutas, P. G. Martinsson and V. Rokhlin, SIAM J. Sci. Comput. 26, 1389 (2005).
    """
    tensors = list(chain.tensors)
    pivots = [np.zeros(0, bool) for _ in tensors]
    center = len(tensors) // 2
    for site in range(center):
        left, _, right = tensors[site].shape
        matrix, pivots[site], carry = _interpolated(tensors[site].reshape(left * 2, right))
        tensors[site] = matrix.reshape(left, 2, -1)
        following = tensors[site + 1]
        tensors[site + 1] = multiply(carry, following.reshape(right, -1)).reshape(-1, 2, following.shape[2])
    for site in range(len(tensors) - 1, center, -1):
        left, _, right = tensors[site].shape
        matrix, pivots[site], carry = _interpolated(tensors[site].reshape(left, 2 * right).T)
        tensors[site] = matrix.T.reshape(-1, 2, right)
        preceding = tensors[site - 1]
        tensors[site - 1] = multiply(preceding.reshape(-1, left), carry.T).reshape(len(preceding), 2, -1)
    return Interpolation(tensors, pivots, center)


def _interpolated(matrix: Array) -> tuple[Array, Array, Array]:
    """Return C, the pivots, and the rows of `matrix` there: C times those rows is the matrix."""
    if len(matrix) <= matrix.shape[1]:
        return np.eye(len(matrix), dtype=matrix.dtype), np.ones(len(matrix), bool), matrix
    pivots = np.zeros(len(matrix), bool)
    rest = matrix.copy()
    for _ in range(matrix.shape[1]):
        weights = np.vecdot(rest, rest).real
        weights[pivots] = -1.0
        row = int(weights.argmax())
        pivots[row] = True
        direction = rest[row] / (np.linalg.norm(rest[row]) or 1.0)
        rest -= np.outer(np.vecdot(direction, rest), direction)
    rows = matrix[pivots]
    solved: Array = np.linalg.solve(rows.T, matrix.T).T
    return solved, pivots, rows


class Quantised(NamedTuple):
    """A matrix product state as integers."""

    facts: dict[str, Json]
    parts: dict[str, Array]
    tensors: list[Array]
    """As they are unpacked, to the bit."""


def quantise(state: Interpolation, budget: float) -> Quantised | None:
    """Round a matrix product state so that the squared norm of the error is about `budget`; None if that is too small.

    An error in the entry (a, s, b) of a tensor changes the state by its product with two vectors: the one that the
    tensors to the left make of a, and the one that those to the right make of b. Errors of different entries are
    independent, so their squares add up. Each tensor has one step, such that its entries contribute as much on average
    as those of the others, which takes the fewest bits for a given sum (reverse water-filling).
    """
    left, right = grams(state.tensors)
    copies = 2 if np.iscomplexobj(state.tensors[0]) else 1
    values, gains, codes = [], [], []
    for site, (tensor, pivots) in enumerate(zip(state.tensors, state.pivots, strict=True)):
        free = _free(tensor.shape, pivots, before=site < state.center)
        gain = (left[site].diagonal().real[:, None, None] * right[site + 1].diagonal().real).repeat(2, axis=1)[free]
        values.append(_planes(tensor[free]))
        gains.append(np.tile(gain, copies))
        codes.append(_code(1 / math.sqrt(gain.mean())) if len(gain) else 0)
    factors = np.concatenate([np.full(len(one), _scale(code)) for one, code in zip(values, codes, strict=True)])
    found = rounded(np.concatenate(values), factors, np.concatenate(gains), budget)
    if found is None:
        return None
    step, numbers = found
    marks = np.concatenate([state.pivots[site] for site, _ in _inwards(len(codes), state.center)])
    parts = {"pivots": np.packbits(marks), **pack_numbers("numbers", numbers)}
    facts = {
        "center": state.center,
        "real": copies == 1,
        "type": numbers.dtype.str[1:],
        "step": step.hex(),
        "scales": codes,
    }
    shapes = [tensor.shape for tensor in state.tensors]
    return Quantised(
        facts, parts, _tensors(numbers * (step * factors), shapes, state.pivots, state.center, real=copies == 1)
    )


def unpack_tensors(facts: Mapping[str, Json], parts: Mapping[str, Part], qubits: int) -> tuple[list[Array], bool]:
    """Return the tensors of a quantised matrix product state, in float64 or complex128, and whether they are real.

    Raises
    ------
    IntegrityError
        The facts and parts are not those of a state of so many qubits with fewer numbers than it has amplitudes.
    """
    center, scales, real = facts.get("center"), facts.get("scales"), facts.get("real")
    if type(center) is not int or not 0 <= center < qubits or type(real) is not bool:
        raise malformed("a chain of tensors without a center")
    if (
        type(scales) is not list
        or len(scales) != qubits
        or not all(type(x) is int and abs(x) < _SCALES for x in scales)
    ):
        raise malformed("a chain of tensors without a scale for each")
    shapes, pivots = _layout(parts, qubits, center)
    masks = [
        _free(shape, marks, before=site < center)
        for site, (shape, marks) in enumerate(zip(shapes, pivots, strict=True))
    ]
    counts = [int(mask.sum()) * (1 if real else 2) for mask in masks]
    if sum(counts) > 2 << qubits:
        raise malformed("a chain of tensors has more numbers than the state")
    numbers = Numbers(parts, "numbers", integers_of(facts), sum(counts)).all().astype(np.float64)
    step = step_of(facts)
    factors = np.concatenate([np.full(count, _scale(code)) for count, code in zip(counts, scales, strict=True)])
    with np.errstate(all="ignore"):  # steps may be anything
        return _tensors(numbers * (step * factors), shapes, pivots, center, real=real), real


def grams(tensors: list[Array]) -> tuple[list[Array], list[Array]]:
    """Return, for each bond from the first (1 x 1) to the last, the Gram matrices of the vectors to both sides."""
    one = np.ones((1, 1), tensors[0].dtype)
    left, right = [one], [one]
    for tensor in tensors:
        half = multiply(left[-1], tensor.reshape(len(tensor), -1)).reshape(-1, tensor.shape[2])
        left.append(multiply(tensor.reshape(half.shape).conj().T, half))
    for tensor in reversed(tensors):
        half = multiply(tensor.reshape(-1, tensor.shape[2]), right[-1]).reshape(len(tensor), -1)
        right.append(multiply(half, tensor.reshape(half.shape).conj().T))
    return left, right[::-1]


def _inwards(count: int, center: int) -> Iterator[tuple[int, bool]]:
    """Yield the sites from both ends to the center, without it, and whether each is before it."""
    yield from ((site, True) for site in range(center))
    yield from ((site, False) for site in range(count - 1, center, -1))


def _layout(parts: Mapping[str, Part], count: int, center: int) -> tuple[list[tuple[int, int, int]], list[Array]]:
    """Return the shape and the pivots of each tensor, which the marks of the pivots say one after another."""
    part = part_of(parts, "pivots", np.uint8)
    if part.shape[0] > count * LARGEST_BOND:
        raise malformed("a chain of tensors has larger bonds than any that is made")
    marks = np.unpackbits(part[:].view(np.uint8)).astype(bool)
    pivots = [np.zeros(0, bool) for _ in range(count)]
    bonds = {0: 1, count: 1}
    start = 0
    for site, before in _inwards(count, center):
        near, far = (site, site + 1) if before else (site + 1, site)
        pivots[site] = marks[start : start + 2 * bonds[near]]
        start += 2 * bonds[near]
        bonds[far] = int(pivots[site].sum())
        if not 0 < bonds[far] <= LARGEST_BOND or start > len(marks):
            raise malformed("the bonds of a chain of tensors do not fit together")
    if len(marks) - start >= 8 or marks[start:].any():
        raise malformed("the bonds of a chain of tensors do not fit together")
    return [(bonds[site], 2, bonds[site + 1]) for site in range(count)], pivots


def _free(shape: tuple[int, ...], pivots: Array, *, before: bool) -> Array:
    """Return which entries of a tensor are stored: all but those in its pivots."""
    if not len(pivots):
        return np.ones(shape, bool)
    return np.broadcast_to(~pivots.reshape(shape[0], 2, 1) if before else ~pivots.reshape(1, 2, shape[2]), shape)


def _tensors(
    values: Array, shapes: list[tuple[int, int, int]], pivots: list[Array], center: int, *, real: bool
) -> list[Array]:
    """Return tensors from the values of their free entries."""
    tensors = []
    start = 0
    for site, (shape, marks) in enumerate(zip(shapes, pivots, strict=True)):
        free = _free(shape, marks, before=site < center)
        count = int(free.sum())
        tensor = np.zeros(shape, np.float64 if real else np.complex128)
        if len(marks) and site < center:
            tensor.reshape(-1, shape[2])[marks] = np.eye(shape[2])
        elif len(marks):
            tensor.reshape(shape[0], -1)[:, marks] = np.eye(shape[0])
        for plane in (tensor,) if real else (tensor.real, tensor.imag):
            plane[free] = values[start : start + count]
            start += count
        tensors.append(tensor)
    return tensors


def _planes(values: Array) -> Array:
    """Return the real parts of values and then, where they have any, the imaginary ones."""
    return np.concatenate([values.real, values.imag]) if np.iscomplexobj(values) else values


def _code(value: float) -> int:
    """Return the integer that stands for a scale, of three significant bits and not above `value`."""
    fraction, exponent = math.frexp(value)
    return int(8 * fraction) - 4 + 4 * (exponent - 3)


def _scale(code: int) -> float:
    return math.ldexp(4 + code % 4, code // 4)
