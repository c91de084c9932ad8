"""Families of states that quantum computations leave behind, from a generic state to a handful of amplitudes.

Circuits are simulated gate by gate in the precision asked for, so that the round-off in the amplitudes is that of a
simulator. Draws come from a generator seeded by the family's name and the size, in a fixed order.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.gates import (
    H,
    S,
    State,
    T,
    cphase,
    cx,
    cz,
    exchange_block,
    haar_unitary,
    one_qubit,
    rx,
    ry,
    rz,
    rzz,
    scale,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.random import Generator
    from numpy.typing import DTypeLike, NDArray

    Vector = NDArray[Any]
    Maker = Callable[[Generator, int, np.dtype[Any]], State | Vector]

DOUBLE = np.dtype(np.complex128)

QAOA_ANGLES = ((0.35, 0.65), (0.61, 0.43), (0.70, 0.25))
"""The angles (gamma, beta) of each layer."""


@dataclass(frozen=True)
class Family:
    """How the states of a family are made: from a generator, a number of qubits and a complex type."""

    make: Maker
    density_matrix: bool = False


def state(name: str, n: int, dtype: DTypeLike = np.complex128) -> Vector:
    """Make a state of a family.

    Parameters
    ----------
    name
        A key of `FAMILIES`.
    n
        The number of qubits. A density matrix is one of n // 2 qubits.
    dtype
        complex128 or complex64, the precision in which gates are applied. Density matrices, `tfim` and the random
        matrix product states are computed in complex128 and rounded at the end.

    Returns
    -------
    ndarray
        The amplitudes, qubit 0 in the least significant bit of the index, or a density matrix row by row.
    """
    r = np.random.default_rng([zlib.crc32(name.encode()), n])
    made = FAMILIES[name].make(r, n, np.dtype(dtype))
    vector = made.vector() if isinstance(made, State) else made.reshape(-1)
    return vector.astype(dtype, copy=False)


def is_density_matrix(name: str) -> bool:
    """Tell whether a family is of density matrices rather than state vectors."""
    return FAMILIES[name].density_matrix


def _haar(r: Generator, n: int, dtype: np.dtype[Any]) -> Vector:
    v: Vector = r.standard_normal(2 ** (n + 1)).view(np.complex128).astype(dtype)
    v /= np.linalg.norm(v)
    return v


def _equal(support: NDArray[Any] | list[int], n: int, dtype: np.dtype[Any]) -> Vector:
    v = np.zeros(2**n, dtype)
    v[support] = 1 / math.sqrt(len(support))
    return v


def _w(_: Generator, n: int, dtype: np.dtype[Any]) -> Vector:
    return _equal([2**k for k in range(n)], n, dtype)


def _dicke(_: Generator, n: int, dtype: np.dtype[Any]) -> Vector:
    return _equal(np.flatnonzero(np.bitwise_count(np.arange(2**n)) == n // 4), n, dtype)


def _modexp(_: Generator, n: int, dtype: np.dtype[Any]) -> Vector:
    """Spread the powers of 7 over the second register, as the order finding of Shor's algorithm does."""
    k = n // 2
    modulus = 2 ** (n - k) - 3
    support, y = [], 1
    for x in range(2**k):
        support.append((x << (n - k)) | y)
        y = 7 * y % modulus
    return _equal(support, n, dtype)


def _ghz(_: Generator, n: int, dtype: np.dtype[Any]) -> State:
    s = State.basis(n, dtype)
    one_qubit(s, 0, H)
    _cx_chain(s)
    return s


def _cx_chain(s: State) -> None:
    for k in range(s.qubits - 1):
        cx(s, k, k + 1)


def _uniform(_: Generator, n: int, dtype: np.dtype[Any]) -> State:
    s = State.basis(n, dtype)
    for k in range(n):
        one_qubit(s, k, H)
    return s


def _product(r: Generator, n: int, dtype: np.dtype[Any]) -> State:
    s = State.basis(n, dtype)
    for k in range(n):
        one_qubit(s, k, ry(r.uniform(0, math.pi)))
        one_qubit(s, k, rz(r.uniform(0, 2 * math.pi)))
    return s


def _hardware_efficient(r: Generator, n: int, dtype: np.dtype[Any], *, depth: int, phases: bool = False) -> State:
    s = State.basis(n, dtype)
    for _ in range(depth):
        for k in range(n):
            one_qubit(s, k, ry(r.uniform(0, 2 * math.pi)))
            if phases:
                one_qubit(s, k, rz(r.uniform(0, 2 * math.pi)))
        _cx_chain(s)
    return s


def _qaoa(r: Generator, n: int, dtype: np.dtype[Any], *, layers: int) -> State:
    """Run the approximate optimisation of a maximum cut on a random 3-regular graph."""
    import networkx as nx

    graph = nx.random_regular_graph(3, n, seed=int(r.integers(2**30)))
    s = _uniform(r, n, dtype)
    for gamma, beta in QAOA_ANGLES[:layers]:
        for a, b in graph.edges:
            rzz(s, a, b, -2 * gamma)
        for k in range(n):
            one_qubit(s, k, rx(2 * beta))
    return s


def _qft(s: State) -> None:
    """Apply the Fourier transform without the swaps at its end."""
    for k in reversed(range(s.qubits)):
        one_qubit(s, k, H)
        for j in reversed(range(k)):
            cphase(s, j, k, np.exp(1j * math.pi / 2 ** (k - j)))


def _qft_basis(r: Generator, n: int, dtype: np.dtype[Any]) -> State:
    s = State.basis(n, dtype, int(r.integers(2**n)))
    _qft(s)
    return s


def _qft_product(r: Generator, n: int, dtype: np.dtype[Any]) -> State:
    s = _product(r, n, dtype)
    _qft(s)
    return s


def _grover(r: Generator, n: int, dtype: np.dtype[Any]) -> State:
    s = _uniform(r, n, dtype)
    target = int(r.integers(2**n))
    for _ in range(min(int(math.pi / 8 * 2 ** (n / 2)), 60)):
        for plane in (s.re, s.im):
            plane[target] = -plane[target]
            plane[:] = 2 * plane.mean() - plane
    return s


def _graph(r: Generator, n: int, dtype: np.dtype[Any]) -> State:
    s = _uniform(r, n, dtype)
    for i in range(n):
        for j in range(i):
            if r.random() < 0.5:
                cz(s, i, j)
    return s


def _clifford(r: Generator, n: int, dtype: np.dtype[Any]) -> State:
    s = State.basis(n, dtype)
    for _ in range(2 * n):
        for k in range(n):
            u = r.integers(6)
            if u < 4:
                one_qubit(s, k, H if u < 2 else S)
        p = r.permutation(n).tolist()
        for a, b in zip(p[::2], p[1::2], strict=False):
            cx(s, a, b)
    return s


def _clifford_t(r: Generator, n: int, dtype: np.dtype[Any]) -> State:
    s = _clifford(r, n, dtype)
    for _ in range(8):
        k = int(r.integers(n))
        one_qubit(s, k, T)
        one_qubit(s, k, H)
        cx(s, k, (k + 1) % n)
    return s


def _random_circuit(r: Generator, n: int, dtype: np.dtype[Any], *, depth: int) -> State:
    s = State.basis(n, dtype)
    for d in range(depth):
        for k in range(n):
            one_qubit(s, k, haar_unitary(r))
        for k in range(d % 2, n - 1, 2):
            cz(s, k, k + 1)
    return s


def _ising_diagonal(n: int) -> NDArray[np.float64]:
    """Return -sum Z_k Z_{k+1} on the open chain, which is diagonal."""
    x = np.arange(2**n)
    walls: NDArray[Any] = np.bitwise_count((x ^ (x >> 1)) & (2 ** (n - 1) - 1))
    return walls.astype(np.float64) * 2 - (n - 1)


def _ising_times(v: NDArray[np.float64], diagonal: NDArray[np.float64]) -> NDArray[np.float64]:
    """Apply the critical Ising Hamiltonian -sum Z_k Z_{k+1} - sum X_k."""
    out = diagonal * v
    for k in range(v.size.bit_length() - 1):
        pairs = v.reshape(-1, 2, 2**k)
        out -= pairs[:, ::-1].reshape(-1)
    return out


def _tfim(_: Generator, n: int, _dtype: np.dtype[Any]) -> Vector:
    """Find the ground state by Lanczos without re-orthogonalisation, whose noise is that of a real solver."""
    from scipy.linalg import eigh_tridiagonal

    diagonal = _ising_diagonal(n)
    v: Vector = np.full(2**n, 2 ** (-n / 2))
    for _restart in range(3):
        basis, alphas, betas = [v], list[float](), list[float]()
        for _step in range(60 if n < 20 else 24):
            w = _ising_times(basis[-1], diagonal)
            alphas.append(float(basis[-1] @ w))
            w -= alphas[-1] * basis[-1]
            if len(basis) > 1:
                w -= betas[-1] * basis[-2]
            betas.append(float(np.linalg.norm(w)))
            if betas[-1] < 1e-12:  # a small space is exhausted
                break
            basis.append(w / betas[-1])
        steps = len(alphas)
        energy, ritz = eigh_tridiagonal(alphas, betas[: steps - 1], select="i", select_range=(0, 0))
        v = sum((c * b for c, b in zip(ritz[:, 0], basis, strict=False)), np.zeros(2**n))
        v /= np.linalg.norm(v)
        if np.linalg.norm(_ising_times(v, diagonal) - energy[0] * v) < 1e-10:
            break
    return v


def _heisenberg(_: Generator, n: int, dtype: np.dtype[Any], *, steps: int) -> State:
    """Evolve the Neel state under exp(-i dt/4 (XX + YY + ZZ)) on even, then on odd bonds."""
    dt = 0.05
    s = State.basis(n, dtype, sum(2**k for k in range(0, n, 2)))
    c, si = math.cos(dt / 2), math.sin(dt / 2)
    block = np.exp(0.25j * dt) * np.array([[c, -1j * si], [-1j * si, c]])
    for _step in range(steps):
        for k in (*range(0, n - 1, 2), *range(1, n - 1, 2)):
            for bit in (0, 1):
                scale(s.where((k, bit), (k + 1, bit)), np.exp(-0.25j * dt))
            exchange_block(s, k, block)
    return s


def _quench(_: Generator, n: int, dtype: np.dtype[Any]) -> State:
    """Evolve the all-zero state under an Ising chain in a tilted field."""
    dt = 0.05
    s = State.basis(n, dtype)
    for _step in range(40):
        for k in range(n - 1):
            rzz(s, k, k + 1, -2 * dt)
        for k in range(n):
            one_qubit(s, k, rx(-2 * 0.9 * dt))
            one_qubit(s, k, rz(-2 * 0.5 * dt))
    return s


def _fock(r: Generator, n: int, dtype: np.dtype[Any]) -> State:
    """Mix n // 2 particles by hopping and, in every second layer, an interaction."""
    s = State.basis(n, dtype, 2 ** (n // 2) - 1)
    for d in range(6):
        for k in range(d % 2, n - 1, 2):
            angle = r.uniform(-0.6, 0.6)
            c, si = math.cos(angle), math.sin(angle)
            exchange_block(s, k, np.array([[c, -si], [si, c]]))
            if d % 2:
                cphase(s, k, k + 1, np.exp(1j * r.uniform(-0.5, 0.5)))
    return s


def _ginibre(r: Generator, rows: int, columns: int) -> NDArray[np.complex128]:
    return r.normal(size=(rows, columns)) + 1j * r.normal(size=(rows, columns))


def _random_mps(r: Generator, n: int, _: np.dtype[Any], *, chi: int) -> Vector:
    A = np.ones((1, 1), np.complex128)
    for k in range(n):
        left = A.shape[1]
        right = min(chi, 2 ** (n - 1 - k), 2 * left)
        A = (A @ _ginibre(r, left, 2 * right)).reshape(-1, right)
        A /= np.linalg.norm(A)
    return A


def _projector(s: State) -> Vector:
    """Return the density matrix in the way that NumPy's users do, with the last bits of its complex product."""
    v = s.vector()
    rho: Vector = np.outer(v, v.conj())
    return rho


def _dm_ghz(r: Generator, n: int, _: np.dtype[Any]) -> Vector:
    rho = 0.9 * _projector(_ghz(r, n // 2, DOUBLE))
    rho += 0.1 * np.eye(len(rho)) / len(rho)
    return rho


def _dm_pure(r: Generator, n: int, _: np.dtype[Any]) -> Vector:
    return _projector(_hardware_efficient(r, n // 2, DOUBLE, depth=3, phases=True))


def _dm_noisy(r: Generator, n: int, _: np.dtype[Any]) -> State:
    """Run a random circuit with amplitude damping on a density matrix: row qubit k is bit k + q of the index."""
    q, damping = n // 2, 0.02
    s = State.basis(2 * q, DOUBLE)
    for d in range(8):
        for k in range(q):
            u = haar_unitary(r)
            one_qubit(s, k + q, u)
            one_qubit(s, k, u.conj())
        for k in range(d % 2, q - 1, 2):
            cz(s, k + q, k + q + 1)
            cz(s, k, k + 1)
        for k in range(q):
            _damp(s, k + q, k, damping)
    return s


def _damp(s: State, row: int, column: int, damping: float) -> None:
    """Apply both Kraus operators, the row before the column."""
    keep, lose = math.sqrt(1 - damping), math.sqrt(damping)
    parts = {(i, j): s.where((row, i), (column, j)) for i in (0, 1) for j in (0, 1)}
    for plane in (0, 1):
        parts[0, 0][plane][:] += parts[1, 1][plane] * lose * lose
        for half in (parts[0, 1], parts[1, 0], parts[1, 1], parts[1, 1]):
            half[plane][:] *= keep


def _dm_thermal(_: Generator, n: int, _dtype: np.dtype[Any]) -> Vector:
    """Return exp(-H) / Z of the critical Ising chain."""
    diagonal = _ising_diagonal(n // 2)
    energies, V = np.linalg.eigh(np.stack([_ising_times(row, diagonal) for row in np.eye(diagonal.size)]))
    weights = np.exp(-energies)
    rho: Vector = (V * (weights / weights.sum())) @ V.T
    return rho


def _dm_ginibre(r: Generator, n: int, _: np.dtype[Any]) -> Vector:
    G = _ginibre(r, 2 ** (n // 2), 2 ** (n // 2))
    rho: Vector = G @ G.conj().T
    rho /= np.trace(rho).real
    return rho


FAMILIES: dict[str, Family] = {
    "haar": Family(_haar),
    "ghz": Family(_ghz),
    "w": Family(_w),
    "dicke": Family(_dicke),
    "modexp": Family(_modexp),
    "uniform": Family(_uniform),
    "product": Family(_product),
    "hea1": Family(partial(_hardware_efficient, depth=1)),
    "hea2": Family(partial(_hardware_efficient, depth=2)),
    "hea3": Family(partial(_hardware_efficient, depth=3)),
    "hea3c": Family(partial(_hardware_efficient, depth=3, phases=True)),
    "qaoa1": Family(partial(_qaoa, layers=1)),
    "qaoa2": Family(partial(_qaoa, layers=2)),
    "qaoa3": Family(partial(_qaoa, layers=3)),
    "qft_basis": Family(_qft_basis),
    "qft_product": Family(_qft_product),
    "grover": Family(_grover),
    "graph": Family(_graph),
    "clifford": Family(_clifford),
    "clifford_t": Family(_clifford_t),
    "rqc4": Family(partial(_random_circuit, depth=4)),
    "rqc8": Family(partial(_random_circuit, depth=8)),
    "rqc16": Family(partial(_random_circuit, depth=16)),
    "rqc40": Family(partial(_random_circuit, depth=40)),
    "tfim": Family(_tfim),
    "heis": Family(partial(_heisenberg, steps=40)),
    "heis_long": Family(partial(_heisenberg, steps=160)),
    "quench": Family(_quench),
    "fock": Family(_fock),
    "mps16": Family(partial(_random_mps, chi=16)),
    "mps64": Family(partial(_random_mps, chi=64)),
    "dm_ghz": Family(_dm_ghz, density_matrix=True),
    "dm_pure": Family(_dm_pure, density_matrix=True),
    "dm_noisy": Family(_dm_noisy, density_matrix=True),
    "dm_ginibre": Family(_dm_ginibre, density_matrix=True),
    "dm_thermal": Family(_dm_thermal, density_matrix=True),
}
