"""Stabiliser states agree with Stim's, and with what the dense states that they are say."""

import numpy as np
import pytest
import stim
from hypothesis import given
from hypothesis import strategies as st

import quantum_memory as qm
from quantum_memory.errors import BudgetError, InvalidStateError
from quantum_memory.state import metrics

BELL = np.array([[0, 0, 1, 0, 0], [0, 1, 0, 0, 0], [1, 1, 0, 0, 0], [0, 0, 1, 1, 1]], bool)  # |01> + |10>


def random_state(n, seed):
    """Return the state of a random Clifford circuit, and Stim's simulator in it."""
    rng, simulator = np.random.default_rng(seed), stim.TableauSimulator()
    simulator.set_num_qubits(n)
    for _ in range(6 * n):
        getattr(simulator, rng.choice(["h", "s", "x", "z", "sqrt_x"]))(int(rng.integers(n)))
        if n > 1:
            simulator.cnot(*map(int, rng.permutation(n)[:2]))
    return qm.MemoryState.of(simulator).quantum, simulator


states = st.builds(random_state, st.integers(1, 7), st.integers(0, 10**6))


def dense(state):
    return state.to_dense(qubit_order="big")


@given(states)
def test_the_amplitudes_are_those_of_stim(made):
    state, simulator = made
    for order in ("little", "big"):
        theirs = simulator.state_vector(endian=order)
        assert abs(np.vdot(state.to_dense(qubit_order=order).amplitudes, theirs)) == pytest.approx(1, abs=1e-5)
    assert state.problems() == []
    assert dense(state).problems() == []
    assert state.stabilizers() == [
        str(simulator.current_inverse_tableau().inverse().z_output(k)).replace("_", "I") for k in range(state.n_sites)
    ]


@given(states, st.integers(0, 10**6))
def test_fidelities_and_distances_are_those_of_the_vectors(made, seed):
    a, (b, _) = made[0], random_state(made[0].n_sites, seed)
    for one, other in ((a, b), (a, a), (a, dense(b)), (dense(a).to_density_matrix(), b)):
        first, second = (x if isinstance(x, qm.DensityMatrix | qm.StateVector) else dense(x) for x in (one, other))
        for measure in (metrics.fidelity, metrics.trace_distance, metrics.bures_distance, metrics.bures_angle):
            assert measure(one, other) == pytest.approx(measure(first, second), abs=1e-6)
    assert metrics.hilbert_schmidt_distance(a, b) == pytest.approx(
        metrics.hilbert_schmidt_distance(dense(a), dense(b)), abs=1e-6
    )


def test_the_same_state_by_other_generators_has_fidelity_1_and_other_bits():
    swapped = BELL.copy()
    swapped[[2, 3]] = swapped[[3, 2]]
    swapped[[0, 1]] = swapped[[1, 0]]
    a, b = qm.StabilizerState(BELL), qm.StabilizerState(swapped)
    assert a != b
    assert a.fidelity(b) == 1
    other = BELL.copy()
    other[3, -1] = False
    assert a.fidelity(qm.StabilizerState(other)) == 0  # |00> + |11>


@given(states, st.randoms())
def test_reduced_states_entropies_and_expectations_are_those_of_the_vector(made, random):
    state, n = made[0], made[0].n_sites
    vector = dense(state)
    sites = random.sample(range(n), random.randint(1, min(n, 3)))
    matrix = state.reduced_density_matrix(sites)
    assert np.allclose(matrix.matrix, vector.reduced_density_matrix(sites).matrix)
    rng = np.random.default_rng(random.randint(0, 10**6))
    operator = rng.normal(size=matrix.matrix.shape)
    assert state.expectation(operator, sites) == pytest.approx(vector.expectation(operator, sites))
    for cut in range(1, n):
        assert state.entropy(cut) == pytest.approx(vector.entropy(cut), abs=1e-9)
        values = state.schmidt_values(cut)
        assert np.allclose(values, vector.schmidt_values(cut)[: len(values)])
    assert metrics.purity(state, sites) == pytest.approx(metrics.purity(vector, sites))
    assert metrics.von_neumann_entropy(state) == 0
    assert metrics.l1_coherence(state) == pytest.approx(metrics.l1_coherence(vector))
    assert metrics.meyer_wallach(state) == pytest.approx(metrics.meyer_wallach(vector))


def test_samples_have_the_probabilities_of_the_state():
    state = qm.StabilizerState(BELL)
    found = state.sample(4000, seed=3)
    assert (found.sum(axis=1) == 1).all()
    assert 0.45 < found[:, 0].mean() < 0.55
    assert (found == state.sample(4000, seed=3)).all()


def test_a_thousand_qubits():
    n = 1000
    ghz = stim.TableauSimulator()
    ghz.h(0)
    for k in range(1, n):
        ghz.cnot(0, k)
    state = qm.MemoryState.of(ghz).quantum
    assert state.entropy(n // 2) == 1
    assert state.fidelity(state) == 1
    ghz.z(7)
    assert state.fidelity(qm.MemoryState.of(ghz).quantum) == 0
    assert set(map(tuple, state.sample(20, seed=1))) == {(0,) * n, (1,) * n}
    assert state.expectation(np.kron([[1, 0], [0, -1]], [[1, 0], [0, -1]]), [3, 900]) == 1
    with pytest.raises(BudgetError, match="1000 qubits"):
        state.to_dense(qubit_order="big")
    with pytest.raises(BudgetError):
        state.reduced_density_matrix(range(20))


@pytest.mark.parametrize(
    "table", [np.zeros((2, 3)), np.zeros((2, 2), bool), np.zeros((3, 4), bool), np.zeros((0, 1), bool)]
)
def test_what_is_no_table_is_refused(table):
    with pytest.raises(InvalidStateError):
        qm.StabilizerState(table)


def test_a_table_that_is_no_tableau_is_kept_and_said():
    broken = BELL.copy()
    broken[3, 0] = True
    state = qm.StabilizerState(broken)
    assert any("commute" in said for said in state.problems())
    dependent = qm.StabilizerState(np.zeros((4, 5), bool))
    assert dependent.problems()
    with pytest.raises(InvalidStateError, match="depend"):
        dependent.to_dense(qubit_order="big")
    with pytest.raises(InvalidStateError, match="order"):
        qm.StabilizerState(BELL).to_dense(qubit_order="unstated")


@pytest.mark.parametrize("state", [qm.StabilizerState(BELL), qm.MatrixProductState.from_product([[1.0, 0.0]] * 2)])
def test_what_is_not_dense_is_no_array_without_a_word(state):
    """NumPy would make an array of one object of it."""
    with pytest.raises(InvalidStateError, match="to_dense"):
        np.asarray(state)
    with pytest.raises(InvalidStateError, match="to_dense"):
        np.vdot(state, state)


def test_a_tableau_has_no_overlap_and_an_operator_no_fidelity():
    state = qm.StabilizerState(BELL)
    with pytest.raises(InvalidStateError, match="phase"):
        metrics.overlap(state, state)
    operator = qm.Operator(np.eye(4), qubit_order="big")
    with pytest.raises(InvalidStateError, match="Operator is not a quantum state"):
        metrics.fidelity(operator, state)
    with pytest.raises(InvalidStateError, match="unstated"):
        metrics.fidelity(state, qm.StateVector(np.eye(4)[0], qubit_order="unstated"))


def test_nothing_imaginary_is_lost_to_a_real_dtype():
    turned = qm.StabilizerState(np.array([[1, 0, 0], [1, 1, 0]], bool))  # the +1 eigenstate of Y
    for work in (
        lambda: turned.to_dense(qubit_order="big", dtype=np.float32),
        lambda: turned.reduced_density_matrix(0, dtype=np.float64),
    ):
        with pytest.raises(InvalidStateError, match="complex"):
            work()
    bell = qm.StabilizerState(BELL)
    assert bell.to_dense(qubit_order="big", dtype=np.float32).norm() == pytest.approx(1)
    assert bell.reduced_density_matrix(0, dtype=np.float64).matrix.tolist() == [[0.5, 0], [0, 0.5]]


@pytest.mark.parametrize("other", [None, qm.Operator(np.eye(4), qubit_order="big")])
def test_a_fidelity_is_of_two_tableaus(other):
    with pytest.raises(InvalidStateError, match="is no tableau"):
        qm.StabilizerState(BELL).fidelity(other)
