"""Two ways from one emotion to another: in PAD space, and in the space of states."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from quantum_memory.errors import InvalidStateError
from quantum_memory.state.emotional_state import PAD
from quantum_memory.state.matrix_product_state import MatrixProductState
from quantum_memory.state.quantum_state import StateVector
from quantum_memory.state.sites import default_tolerance

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SMALL_ANGLE = 1e-6
"""Below it, sin((1 - t) W)/sin W and 1 - t agree to 1e-12, and only the latter is defined at W = 0."""


def pad_geodesic(a: PAD, b: PAD, steps: int) -> list[PAD]:
    """Return `steps` points from `a` to `b`, both included, at equal distances.

    It is the geodesic of the code: linear in x, hence in the angles.
    """
    start, end = np.asarray(a), np.asarray(b)
    return [PAD.of((1 - t) * start + t * end) for t in _times(steps)]


@overload
def fubini_study(a: StateVector, b: StateVector, steps: int) -> list[StateVector]: ...
@overload
def fubini_study(a: MatrixProductState, b: MatrixProductState, steps: int) -> list[MatrixProductState]: ...


def fubini_study(
    a: StateVector | MatrixProductState, b: StateVector | MatrixProductState, steps: int
) -> list[StateVector] | list[MatrixProductState]:
    """Return `steps` states on the Fubini-Study geodesic from `a` to `b`, both included, at equal angles.

    [sin((1 - t) W) a + sin(t W) b'] / sin W, with W = arccos |<a|b>| and b' = b times the phase that makes <a|b'> real
    and not negative. The last one is b', which is `b` up to that phase. Between distant states it passes through cat
    states: on PAD codes, entangled and with bimodal weights. For orthogonal states the phase of `b` is taken as it is.

    Raises
    ------
    InvalidStateError
        If the states are of different kinds, sizes, dtypes or qubit orders, or are not normalised.
    """
    times = _times(steps)
    if isinstance(a, StateVector) and isinstance(b, StateVector):
        if (a.qubit_order, a.dims, a.dtype) != (b.qubit_order, b.dims, b.dtype):
            raise InvalidStateError("the states differ in qubit order, dims or dtype", next_step="make them agree")
        _check_norms(a, b)
        overlap = complex(np.vdot(a.amplitudes, b.amplitudes))
        return [
            StateVector(
                u * a.amplitudes + v * b.amplitudes,
                qubit_order=a.qubit_order,
                dims=a.dims,
                labels=a.labels,
            )
            for u, v in _weights(overlap, times, a.dtype)
        ]
    if isinstance(a, MatrixProductState) and isinstance(b, MatrixProductState):
        if (a.dims, a.dtype) != (b.dims, b.dtype):
            raise InvalidStateError("the states differ in dims or dtype", next_step="make them agree")
        _check_norms(a, b)
        return [
            MatrixProductState.superpose(pair, [a, b]).truncate().state for pair in _weights(a.inner(b), times, a.dtype)
        ]
    raise InvalidStateError("a geodesic joins two states of one kind", next_step="give two StateVectors, or two MPS")


def _times(steps: int) -> NDArray[np.float64]:
    if steps < 2:
        raise InvalidStateError(f"a path of {steps} points", next_step="take at least its two ends")
    return np.linspace(0.0, 1.0, steps)


def _weights(overlap: complex, times: NDArray[np.float64], dtype: np.dtype[Any]) -> list[list[complex]]:
    """Return the weights of a and b at each time, real for states that are."""
    modulus = abs(overlap)
    phase = overlap.conjugate() / modulus if modulus > 0 else 1.0
    angle = math.acos(min(1.0, modulus))
    if angle < _SMALL_ANGLE:
        first, second = 1 - times, times
    else:
        first, second = np.sin((1 - times) * angle) / math.sin(angle), np.sin(times * angle) / math.sin(angle)
    pairs = np.stack([first, second * phase], axis=1)
    weights: list[list[complex]] = (pairs if dtype.kind == "c" else pairs.real).tolist()
    return weights


def _check_norms(*states: StateVector | MatrixProductState) -> None:
    for state in states:
        if not abs(state.norm() - 1) <= default_tolerance(state.dtype, math.prod(state.dims)):
            raise InvalidStateError(
                f"a state of norm {state.norm():.9g} has no place on a geodesic", next_step="call state.normalized()"
            )
