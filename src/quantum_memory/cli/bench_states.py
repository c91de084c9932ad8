"""States that ``qmem bench`` makes itself: from a general one to one of two amplitudes."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from quantum_memory.state.matrix_product_state import MatrixProductState
from quantum_memory.state.quantum_state import StateVector

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.random import Generator

    from quantum_memory.state.sites import Array

_SEED = 20
_BOND, _DEPTH = 16, 4


def make(family: str, qubits: int) -> StateVector:
    """Return a state of a family, the same each time, normalised, in complex128.

    Parameters
    ----------
    family
        A key of `FAMILIES`.
    """
    return FAMILIES[family](np.random.default_rng([_SEED, qubits]), qubits).normalized()


def _ginibre(rng: Generator, *shape: int) -> Array:
    return rng.standard_normal(shape) + 1j * rng.standard_normal(shape)


def _haar(rng: Generator, qubits: int) -> StateVector:
    return StateVector(_ginibre(rng, 2**qubits), qubit_order="big")


def _circuit(rng: Generator, qubits: int) -> StateVector:
    """Apply layers of random gates to neighbours, the pairs shifted by one in every second layer."""
    state = MatrixProductState.from_product([np.array([1, 0], np.complex128)] * qubits)
    for layer in range(_DEPTH):
        for site in range(layer % 2, qubits - 1, 2):
            gate, _ = np.linalg.qr(_ginibre(rng, 4, 4))
            state = state.apply(gate, (site, site + 1), cutoff=1e-30)
    return state.to_dense(qubit_order="big")


def _mps(rng: Generator, qubits: int) -> StateVector:
    bonds = [min(_BOND, 2**k, 2 ** (qubits - k)) for k in range(qubits + 1)]
    tensors = [_ginibre(rng, left, 2, right) for left, right in pairwise(bonds)]
    return MatrixProductState(tensors).to_dense(qubit_order="big")


def _product(rng: Generator, qubits: int) -> StateVector:
    return MatrixProductState.from_product([_ginibre(rng, 2) for _ in range(qubits)]).to_dense(qubit_order="big")


def _ghz(_: Generator, qubits: int) -> StateVector:
    amplitudes = np.zeros(2**qubits, np.complex128)
    amplitudes[[0, -1]] = 1
    return StateVector(amplitudes, qubit_order="big")


FAMILIES: dict[str, Callable[[Generator, int], StateVector]] = {
    "haar": _haar,
    "circuit": _circuit,
    "mps": _mps,
    "product": _product,
    "ghz": _ghz,
}
"""From a general state to one that takes next to nothing; `circuit` has 4 layers, `mps` a bond dimension of 16."""
