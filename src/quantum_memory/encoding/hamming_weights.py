"""Hamming weights of registers: how many of their qubits are 1, as a histogram, before an entangler.

Each function returns one float64 array of length m + 1 for each register of m qubits, not normalised.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np

from quantum_memory.errors import InvalidStateError
from quantum_memory.state.matrix_product_state import MatrixProductState
from quantum_memory.state.quantum_state import DensityMatrix, StateVector

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from quantum_memory.encoding.entangler import Entangler

    Histogram = NDArray[np.float64]

_BLOCK_BITS = 18
"""Dense states are read in blocks of this many index bits, so that 27 qubits need a few MiB and not a few GiB."""


def bit_weights(bits: NDArray[np.uint8], registers: Sequence[slice], entangler: Entangler) -> list[Histogram]:
    """Return the histograms of outcomes, shape (shots, n_qubits)."""
    undone = entangler.undo_bits(bits)
    return [
        np.bincount(undone[:, register].sum(axis=1), minlength=register.stop - register.start + 1).astype(np.float64)
        for register in registers
    ]


def state_weights(
    state: MatrixProductState | StateVector | DensityMatrix, registers: Sequence[slice], entangler: Entangler
) -> list[Histogram]:
    """Return the histograms of a state of qubits."""
    if isinstance(state, MatrixProductState):
        return _mps_weights(state, registers, entangler)
    return _dense_weights(state, registers, entangler)


def _mps_weights(state: MatrixProductState, registers: Sequence[slice], entangler: Entangler) -> list[Histogram]:
    """Return the histograms in one sweep over the sites.

    The sweep keeps, for every weight so far, a factor F of the left environment F^dagger F. Factors, made small again
    by QR, hold amplitudes: their squares keep the digits that small probabilities lose in the environments themselves.
    """
    double = np.result_type(state.dtype, np.float64 if entangler.is_real else np.complex128)
    tensors = entangler.inverse().apply(state.astype(double)).canonicalize(0).tensors
    histograms = []
    factor: NDArray[Any] = np.ones((1, 1))
    for register in registers:
        factors = factor[None]  # (weight, row, right bond)
        for tensor in tensors[register]:
            count, rows, _ = factors.shape
            grown = np.zeros((count + 1, 2 * rows, tensor.shape[2]), dtype=tensor.dtype)
            grown[:-1, :rows] = factors @ tensor[:, 0]
            grown[1:, rows:] = factors @ tensor[:, 1]
            factors = _r_factor(grown)
        histograms.append((np.abs(factors) ** 2).sum(axis=(1, 2)))
        factor = _r_factor(factors.reshape(-1, factors.shape[2]))
    return histograms


def _r_factor(matrices: NDArray[Any]) -> NDArray[Any]:
    return cast("NDArray[Any]", np.linalg.qr(matrices, mode="r"))


def _dense_weights(
    state: StateVector | DensityMatrix, registers: Sequence[slice], entangler: Entangler
) -> list[Histogram]:
    """Return the histograms, reading the state block by block.

    The undone bits are an affine function of the bits of the index, so they are the xor of one part that depends on the
    place in a block and one that depends on the block.
    """
    columns, constant = _undone_columns(state, entangler)
    low_bits = min(len(columns), _BLOCK_BITS)
    low = _linear_table(columns[:low_bits]) ^ np.uint64(constant)
    masks = [np.uint64((1 << register.stop) - (1 << register.start)) for register in registers]
    histograms = [np.zeros(register.stop - register.start + 1) for register in registers]
    blocks = _probability_blocks(state, 1 << low_bits)
    for high, probabilities in zip(_linear_table(columns[low_bits:]), blocks, strict=True):
        undone = low ^ high
        for total, mask in zip(histograms, masks, strict=True):
            total[:] += np.bincount(np.bitwise_count(undone & mask), weights=probabilities, minlength=total.size)
    return histograms


def _undone_columns(state: StateVector | DensityMatrix, entangler: Entangler) -> tuple[list[int], int]:
    """Return which undone bits each bit of the index flips, the lowest first, and those that are 1 at index 0.

    Both as numbers whose bit i stands for qubit i.
    """
    if state.qubit_order == "unstated":
        raise InvalidStateError(
            "the qubit order of the state is not stated", next_step="say it: state.with_qubit_order('big')"
        )
    columns, constant = [0] * entangler.n_qubits, 0
    for qubit, (measured, flipped) in enumerate(entangler.parity_sets()):
        constant |= flipped << qubit
        for source in measured:
            columns[source] |= 1 << qubit
    return (columns if state.qubit_order == "little" else columns[::-1]), constant


def _linear_table(columns: Sequence[int]) -> NDArray[np.uint64]:
    """Return for every index the xor of the `columns` whose bit is set in it."""
    table = np.zeros(1, dtype=np.uint64)
    for column in columns:
        table = np.concatenate([table, table ^ np.uint64(column)])
    return table


def _probability_blocks(state: StateVector | DensityMatrix, size: int) -> Iterator[NDArray[np.float64]]:
    """Yield |amplitude|^2, or the diagonal of a density matrix, `size` at a time and in double precision."""
    if isinstance(state, DensityMatrix):
        diagonal = state.matrix.diagonal().real
        for start in range(0, diagonal.size, size):
            yield diagonal[start : start + size].astype(np.float64)
        return
    for start in range(0, state.amplitudes.size, size):
        block = state.amplitudes[start : start + size]
        yield block.real.astype(np.float64) ** 2 + block.imag.astype(np.float64) ** 2
