"""The families of states that codecs are measured on: facts that hold whatever the draws are, and Qiskit's gates."""

import math
import zlib

import networkx as nx
import numpy as np
import pytest
from benchmarks import gates
from benchmarks.families import FAMILIES, is_density_matrix, state
from qiskit import QuantumCircuit
from qiskit.quantum_info import Statevector

VECTORS = [name for name in FAMILIES if not is_density_matrix(name)]
MATRICES = [name for name in FAMILIES if is_density_matrix(name)]
REAL = {"ghz", "w", "dicke", "modexp", "uniform", "hea1", "hea2", "hea3", "grover", "graph", "tfim"}
DTYPES = [np.complex128, np.complex64]


def generator(name, n):
    return np.random.default_rng([zlib.crc32(name.encode()), n])


def schmidt_rank(v):
    side = math.isqrt(v.size)
    return np.linalg.matrix_rank(v.reshape(side, side), tol=1e-10)


def test_there_are_36_families():
    assert len(FAMILIES) == 36
    assert MATRICES == ["dm_ghz", "dm_pure", "dm_noisy", "dm_ginibre", "dm_thermal"]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", FAMILIES)
def test_each_is_made_in_the_type_asked_for_and_twice_alike(name, dtype):
    v = state(name, 8, dtype)
    assert v.dtype == dtype
    assert v.shape == (256,)
    assert v.flags.c_contiguous
    assert v.tobytes() == state(name, 8, dtype).tobytes()


@pytest.mark.parametrize("name", VECTORS)
def test_vectors_have_norm_one_in_both_precisions_and_agree(name):
    double, single = state(name, 8), state(name, 8, np.complex64)
    assert np.linalg.norm(double) == pytest.approx(1, abs=1e-12)
    assert np.linalg.norm(single.astype(np.complex128)) == pytest.approx(1, abs=1e-4)
    assert np.allclose(double, single, atol=1e-4)


@pytest.mark.parametrize("name", VECTORS)
def test_which_vectors_are_real(name):
    # A small stabiliser state may be real by chance.
    if name != "clifford":
        assert (not state(name, 8).imag.any()) == (name in REAL)


@pytest.mark.parametrize("n", [8, 9, 10])
def test_supports(n):
    def count(name):
        return np.count_nonzero(state(name, n))

    assert count("ghz") == 2
    assert count("w") == n
    assert count("dicke") == math.comb(n, n // 4)
    assert count("modexp") == 2 ** (n // 2)
    assert count("uniform") == 2**n


@pytest.mark.parametrize("name", ["heis", "heis_long", "fock"])
def test_half_of_the_qubits_stay_up(name):
    assert set(np.bitwise_count(np.flatnonzero(state(name, 10)))) == {5}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["qaoa1", "qaoa2", "qaoa3"])
def test_the_global_flip_leaves_qaoa_states_bit_for_bit(name, dtype):
    v = state(name, 10, dtype)
    assert v.tobytes() == v[::-1].tobytes()


@pytest.mark.parametrize("dtype", DTYPES)
def test_few_distinct_values(dtype):
    assert np.unique(state("grover", 10, dtype)).size <= 2
    assert np.unique(np.abs(state("graph", 10, dtype))).size == 1
    clifford = np.abs(state("clifford", 10, dtype))
    support = clifford[clifford > clifford.max() / 2]
    assert np.allclose(support, support[0], rtol=1e-5)
    assert math.log2(support.size).is_integer()


@pytest.mark.parametrize(("name", "bound"), [("mps16", 16), ("mps64", 64), ("rqc4", 4), ("product", 1), ("ghz", 2)])
def test_schmidt_ranks_across_the_middle(name, bound):
    assert schmidt_rank(state(name, 10)) <= bound


def test_the_random_matrix_product_state_reaches_its_rank():
    assert schmidt_rank(state("mps16", 10)) == 16


@pytest.mark.parametrize("name", MATRICES)
def test_density_matrices(name):
    rho = state(name, 8).reshape(16, 16)
    assert np.abs(rho - rho.conj().T).max() < 1e-15
    assert np.trace(rho) == pytest.approx(1, abs=1e-12)
    assert np.linalg.eigvalsh(rho).min() > -1e-12


def test_purity():
    assert np.linalg.norm(state("dm_pure", 8)) == pytest.approx(1)
    assert np.linalg.norm(state("dm_noisy", 8)) < 0.99


def test_the_ground_state_of_the_critical_chain():
    """Free fermions give its energy: 1 - 1/sin(pi / (4 n + 2))."""
    n = 8
    v = state("tfim", n)
    spins = 1 - 2 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)
    energy = -np.vdot(v, (spins[:, 1:] * spins[:, :-1]).sum(1) * v)
    energy -= sum(np.vdot(v, v[np.arange(2**n) ^ (1 << k)]) for k in range(n))
    assert energy.real == pytest.approx(1 - 1 / math.sin(math.pi / (4 * n + 2)), abs=1e-9)


def uniform(circuit):
    circuit.h(range(circuit.num_qubits))


def product(circuit, r):
    for k in range(circuit.num_qubits):
        circuit.ry(r.uniform(0, math.pi), k)
        circuit.rz(r.uniform(0, 2 * math.pi), k)


def cx_chain(circuit):
    for k in range(circuit.num_qubits - 1):
        circuit.cx(k, k + 1)


def ghz(circuit, _):
    circuit.h(0)
    cx_chain(circuit)


def hea3c(circuit, r):
    for _ in range(3):
        for k in range(circuit.num_qubits):
            circuit.ry(r.uniform(0, 2 * math.pi), k)
            circuit.rz(r.uniform(0, 2 * math.pi), k)
        cx_chain(circuit)


def qft_product(circuit, r):
    product(circuit, r)
    for k in reversed(range(circuit.num_qubits)):
        circuit.h(k)
        for j in reversed(range(k)):
            circuit.cp(math.pi / 2 ** (k - j), j, k)


def qaoa1(circuit, r):
    graph = nx.random_regular_graph(3, circuit.num_qubits, seed=int(r.integers(2**30)))
    uniform(circuit)
    for a, b in graph.edges:
        circuit.rzz(-2 * 0.35, a, b)
    circuit.rx(2 * 0.65, range(circuit.num_qubits))


def graph(circuit, r):
    uniform(circuit)
    for i in range(circuit.num_qubits):
        for j in range(i):
            if r.random() < 0.5:
                circuit.cz(i, j)


def clifford_t(circuit, r):
    n = circuit.num_qubits
    for _ in range(2 * n):
        for k in range(n):
            u = r.integers(6)
            if u < 4:
                (circuit.h if u < 2 else circuit.s)(k)
        p = r.permutation(n)
        for i in range(0, n - 1, 2):
            circuit.cx(int(p[i]), int(p[i + 1]))
    for _ in range(8):
        k = int(r.integers(n))
        circuit.t(k)
        circuit.h(k)
        circuit.cx(k, (k + 1) % n)


def heis(circuit, _):
    n, dt = circuit.num_qubits, 0.05
    circuit.x(range(0, n, 2))
    for _ in range(40):
        for k in (*range(0, n - 1, 2), *range(1, n - 1, 2)):
            circuit.rxx(dt / 2, k, k + 1)
            circuit.ryy(dt / 2, k, k + 1)
            circuit.rzz(dt / 2, k, k + 1)


def quench(circuit, _):
    n, dt = circuit.num_qubits, 0.05
    for _ in range(40):
        for k in range(n - 1):
            circuit.rzz(-2 * dt, k, k + 1)
        for k in range(n):
            circuit.rx(-2 * 0.9 * dt, k)
            circuit.rz(-2 * 0.5 * dt, k)


@pytest.mark.parametrize("n", [6, 8])
@pytest.mark.parametrize(
    "circuit_of", [ghz, product, hea3c, qft_product, qaoa1, graph, clifford_t, heis, quench], ids=lambda f: f.__name__
)
def test_qiskit_makes_the_same_state(circuit_of, n):
    circuit = QuantumCircuit(n)
    name = circuit_of.__name__
    circuit_of(circuit, generator(name, n))
    theirs = Statevector.from_circuit(circuit).data
    # No global phase is allowed for: the conventions are the same.
    assert abs(np.vdot(theirs, state(name, n)) - 1) < 1e-12


@pytest.mark.parametrize("block", [4, 2**15])
@pytest.mark.parametrize("n", [5, 11])
def test_kernels_have_the_round_off_of_a_plain_loop(n, block, monkeypatch):
    """Each product and each sum is rounded by itself, however the vector is cut."""
    monkeypatch.setattr(gates, "BLOCK", block)
    r = generator("kernels", n)
    u = gates.haar_unitary(r)
    for k in range(n):
        s = gates.State(r.normal(size=2**n), r.normal(size=2**n))
        x, y = np.flatnonzero(~np.arange(2**n) >> k & 1), np.flatnonzero(np.arange(2**n) >> k & 1)
        expected = s.vector()
        for here, (a, b) in ((x, u[0]), (y, u[1])):
            expected.real[here] = (a.real * s.re[x] - a.imag * s.im[x]) + (b.real * s.re[y] - b.imag * s.im[y])
            expected.imag[here] = (a.real * s.im[x] + a.imag * s.re[x]) + (b.real * s.im[y] + b.imag * s.re[y])
        gates.one_qubit(s, k, u)
        assert s.vector().tobytes() == expected.tobytes()
