"""Entanglers: what they do to states, and that their effect on outcomes can be undone."""

import json

import numpy as np
import pytest
import quimb.tensor as qtn
from hypothesis import given, settings
from hypothesis import strategies as st
from qiskit import QuantumCircuit
from qiskit.quantum_info import Statevector

from quantum_memory.encoding.entangler import Entangler, Gate
from quantum_memory.errors import InvalidStateError
from quantum_memory.state.matrix_product_state import MatrixProductState

N = 5


@st.composite
def gates(draw, n=N):
    name = draw(st.sampled_from(["X", "CNOT", "Rz", "CZ", "CP"]))
    count = 1 if name in {"X", "Rz"} else 2
    qubits = tuple(draw(st.permutations(range(n)))[:count])
    return (name, qubits, draw(st.floats(-7, 7))) if name in {"Rz", "CP"} else (name, qubits)


entanglers = st.lists(gates(), max_size=14).map(lambda found: Entangler(N, tuple(found)))


def product_state(seed, n=N):
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(n, 2)) + 1j * rng.normal(size=(n, 2))
    return MatrixProductState.from_product(list(vectors / np.linalg.norm(vectors, axis=1, keepdims=True)))


def in_qiskit(entangler):
    circuit = QuantumCircuit(entangler.n_qubits)
    for name, qubits, angle in entangler.gates:
        match name:
            case "X":
                circuit.x(*qubits)
            case "CNOT":
                circuit.cx(*qubits)
            case "Rz":
                circuit.rz(angle, *qubits)
            case "CZ":
                circuit.cz(*qubits)
            case "CP":
                circuit.cp(angle, *qubits)
    return circuit


@settings(max_examples=40)
@given(entanglers, st.integers(0, 1000))
def test_it_does_to_a_state_what_qiskit_does(entangler, seed):
    state = product_state(seed)
    ours = entangler.apply(state).to_dense(qubit_order="little").amplitudes
    theirs = Statevector(state.to_dense(qubit_order="little").amplitudes).evolve(in_qiskit(entangler)).data
    np.testing.assert_allclose(ours, theirs, atol=1e-13)


@settings(max_examples=40)
@given(entanglers, st.integers(0, 1000))
def test_undone_bits_have_the_statistics_of_the_product_state(entangler, seed):
    state = product_state(seed)
    before = state.to_dense(qubit_order="big").probabilities()
    after = entangler.apply(state).to_dense(qubit_order="big").probabilities()
    outcomes = (np.arange(2**N)[:, None] >> np.arange(N)[::-1]) & 1  # row i: the bits of index i, qubit 0 first
    undone = entangler.undo_bits(outcomes) @ (1 << np.arange(N)[::-1])
    np.testing.assert_allclose(after, before[undone], atol=1e-14)


@settings(max_examples=40)
@given(entanglers)
def test_parity_sets_say_what_undoing_does(entangler):
    bits = np.random.default_rng(0).integers(0, 2, (64, N))
    undone = entangler.undo_bits(bits)
    for qubit, (measured, constant) in enumerate(entangler.parity_sets()):
        np.testing.assert_array_equal(undone[:, qubit], bits[:, list(measured)].sum(axis=1) % 2 ^ constant)


@settings(max_examples=30)
@given(entanglers, st.integers(0, 1000))
def test_the_inverse_brings_the_state_back(entangler, seed):
    state = product_state(seed)
    back = entangler.inverse().apply(entangler.apply(state))
    np.testing.assert_allclose(back.inner(state), 1, atol=1e-13)


@given(entanglers)
def test_json_keeps_every_gate(entangler):
    assert Entangler.from_json(json.loads(json.dumps(entangler.to_json()))) == entangler


def test_many_long_range_gates_stay_exact_and_compressed():
    rng = np.random.default_rng(3)
    pairs = [tuple(rng.permutation(10)[:2].tolist()) for _ in range(40)]
    entangler = Entangler(
        10, tuple(Gate("CNOT" if k % 2 else "CP", pair, 0.0 if k % 2 else 0.7) for k, pair in enumerate(pairs))
    )
    state = product_state(1, 10)
    entangled = entangler.apply(state)
    theirs = Statevector(state.to_dense(qubit_order="little").amplitudes).evolve(in_qiskit(entangler)).data
    np.testing.assert_allclose(entangled.to_dense(qubit_order="little").amplitudes, theirs, atol=1e-13)
    assert entangled.max_bond_dim <= 32


@pytest.mark.filterwarnings("ignore::DeprecationWarning:quimb", "ignore::FutureWarning:quimb")
def test_the_chain_makes_prefix_parities_at_bond_dimension_two():
    chain = Entangler.cnot_chain(27)
    assert chain.parity_sets()[:3] == [((0,), 0), ((0, 1), 0), ((1, 2), 0)]
    state = product_state(2, 27)
    entangled = chain.apply(state)
    assert entangled.bond_dims == (2,) * 26
    assert entangled.dtype == np.complex128
    theirs = qtn.MPS_product_state([tensor.reshape(2) for tensor in state.tensors])
    for control in range(26):
        theirs.gate_(np.eye(4)[[0, 1, 3, 2]], (control, control + 1), contract="swap+split", cutoff=0.0)
    for digits in ("0" * 27, "1" * 27, "01" * 13 + "1"):
        np.testing.assert_allclose(entangled.amplitude(digits), theirs.amplitude(digits), rtol=1e-9)


def test_real_states_stay_real_until_a_phase_makes_them_complex():
    state = MatrixProductState.from_product([np.array([0.6, 0.8], dtype=np.float32)] * 3)
    assert Entangler(3, (("CZ", (0, 2)), ("X", (1,)))).apply(state).dtype == np.float32
    with pytest.raises(InvalidStateError, match="make a real state complex"):
        Entangler(3, (("CP", (0, 1), 0.1),)).apply(state)


@pytest.mark.parametrize(
    "gate",
    [
        ("H", (0,)),
        ("CNOT", (0,)),
        ("CNOT", (1, 1)),
        ("X", (3,)),
        ("X", (-1,)),
        ("CP", (0, 1)),
        ("Rz", (0,), float("nan")),
        ("CZ", (0, 1), 0.5),
    ],
)
def test_gates_outside_of_the_class_are_refused(gate):
    with pytest.raises(InvalidStateError):
        Entangler(3, (gate,))


def test_states_and_shots_of_another_width_are_refused():
    with pytest.raises(InvalidStateError, match="4 qubits, the entangler 3"):
        Entangler.none(3).apply(product_state(0, 4))
    with pytest.raises(InvalidStateError, match="4 qubits, the entangler 3"):
        Entangler.cnot_chain(3).undo_bits(np.zeros((2, 4)))
    with pytest.raises(InvalidStateError, match="describe"):
        Entangler.from_json({"n_qubits": 3})
