"""What else libraries return, and in which forms: each comes in as it is, or is refused by one of our errors."""

import cirq
import jax
import numpy as np
import pennylane as qml
import pytest
import quimb
import quimb.tensor as qtn
import qutip
import scipy.sparse
import sympy
import torch
from qiskit import QuantumCircuit
from qiskit.quantum_info import Statevector
from qiskit_aer import AerSimulator
from tenpy.networks.mps import MPS
from tenpy.networks.purification_mps import PurificationMPS
from tenpy.networks.site import BosonSite, SpinHalfSite

import quantum_memory as qm
from quantum_memory.errors import BudgetError, InvalidStateError

CNOT = quimb.controlled("not")


def taken(value, framework=None):
    return qm.MemoryState.of(value, framework).quantum


def saved(value, folder):
    qm.save(value, folder / "value.qms")
    return qm.load(folder / "value.qms")


NO_TABLEAU = qm.MemoryState(qm.StabilizerState(np.zeros((4, 5), bool)))


@pytest.mark.parametrize("name", ["qiskit", "aer", "cirq", "stim", "qutip"])
def test_a_table_of_bits_that_is_no_tableau_is_given_to_nobody(name):
    with pytest.raises(InvalidStateError, match=r"tableau"):
        NO_TABLEAU.to(name)


@pytest.mark.parametrize("value", [cirq.IdentityGate(18), qml.Identity(range(18))])
def test_nobody_is_told_to_allow_what_cannot_be_allowed(value):
    with pytest.raises(BudgetError, match="no more than") as caught:
        taken(value)
    assert "max_bytes" not in str(caught.value)


# --- quimb


def mps(n=5, bond=3, **options):
    return qtn.MPS_rand_state(n, bond, dtype="complex128", seed=1, **options)


@pytest.mark.parametrize(
    "chain",
    [
        mps().flip(),
        mps().swap_sites_with_compress(0, 3),
        mps().gate_nonlocal(CNOT, (0, 3)),
        mps().measure(2, remove=True, seed=1)[1],
        mps(site_ind_id="b{}", site_tag_id="S{}"),
        mps().reindex({"k1": "x"}).reindex({"x": "k1"}),
        mps().equalize_norms(1.0),
        mps(1),
    ],
    ids=["flip", "swap", "gate", "measure", "names", "reindex", "exponent", "one site"],
)
def test_a_chain_of_quimb_is_taken_by_its_sites_whatever_the_order_of_its_tensors(chain):
    found = taken(chain).to_dense(qubit_order="big").amplitudes
    assert found == pytest.approx(chain.to_dense().ravel(), abs=1e-12)


def test_the_exponent_of_one_site_counts():
    chain = mps(1)
    chain.exponent = 2.0
    assert taken(chain).norm() == pytest.approx(100)


@pytest.mark.parametrize(
    "chain",
    [
        mps().gate(quimb.hadamard(), 1, contract=False),
        mps().gate(CNOT, (1, 2), contract=True),
        mps().gate(CNOT, (1, 2), contract="split-gate"),
        mps().reindex({"k0": "other"}),
        mps().select(["I0", "I1"], which="any"),
    ],
    ids=["gate beside it", "two sites in one", "split gate", "other index", "some sites"],
)
def test_a_chain_of_quimb_that_is_none_is_refused(chain):
    with pytest.raises(InvalidStateError, match="has not one tensor"):
        taken(chain)


def test_a_wide_network_is_not_made_dense():
    circuit = qtn.Circuit(40)
    circuit.h(0)
    with pytest.raises(BudgetError, match="vector of 40 sites") as caught:
        taken(circuit)
    assert "max_bytes" not in caught.value.next_step


@pytest.mark.parametrize("name", ["quimb", "tenpy"])
def test_a_wide_tableau_becomes_a_chain_only_where_its_vector_fits(name):
    zeros = qm.MemoryState(qm.StabilizerState(np.eye(12, 13, dtype=bool)))
    options = {"mps": True} if name == "quimb" else {}
    with pytest.raises(BudgetError, match="state vector of 6 qubits"):
        zeros.to(name, **options, max_bytes=1000)
    assert taken(zeros.to(name, **options, max_bytes=1024)).max_bond_dim == 1


@pytest.mark.parametrize("log_scale", [0.0, 1.0, 800.0, -800.0])
@pytest.mark.parametrize("n", [1, 3])
def test_a_factor_of_any_size_goes_to_quimb_and_back(n, log_scale):
    tensor = np.full((1, 2, 1), 0.5**0.5, ">c8")
    given = qm.MemoryState(qm.MatrixProductState([tensor] * n, log_scale=log_scale)).to("quimb")
    assert all(array.dtype.isnative and np.isfinite(array).all() for array in given.arrays)
    assert taken(given).log_norm() == pytest.approx(log_scale, abs=1e-5)


def test_an_array_of_the_other_byte_order_goes_to_quimb():
    given = qm.MemoryState(qm.StateVector(np.array([0.6, 0.8], ">f8"), qubit_order="big")).to("quimb")
    assert given.dtype.isnative
    assert given.ravel().tolist() == [0.6, 0.8]


# --- TeNPy


SPIN = SpinHalfSite(None)


def product(**options):
    return MPS.from_product_state([SPIN] * 3, ["up"] * 3, unit_cell_width=3, **{"bc": "finite", **options})


def test_what_of_tenpy_has_no_place_is_refused():
    with pytest.raises(InvalidStateError, match="two legs"):
        taken(PurificationMPS.from_infiniteT([SPIN] * 3, bc="finite", unit_cell_width=3))
    tensors = [product().get_B(site) for site in range(3)]
    loose = MPS([SPIN] * 3, tensors, [np.ones(1)] * 4, bc="finite", form=None, unit_cell_width=3)
    with pytest.raises(InvalidStateError, match="canonical form"):
        taken(loose)
    loose.canonical_form()
    assert taken(loose).norm() == pytest.approx(1)


@pytest.mark.parametrize("sites", [BosonSite(2), [SPIN] * 2, 3])
def test_other_sites_than_the_state_has_are_refused(sites):
    with pytest.raises(InvalidStateError, match="with these sites"):
        qm.MemoryState.of(product()).to("tenpy", sites=sites)


def test_sites_of_one_level():
    state = qm.MatrixProductState([np.ones((1, 1, 1)), np.eye(2)[:1, :, None]])
    with pytest.raises(InvalidStateError, match="one level"):
        qm.MemoryState(state).to("tenpy")


# --- Aer


def aer(method, save, *, shots=4, **options):
    circuit = QuantumCircuit(2, 2)
    circuit.h(0)
    circuit.cx(0, 1)
    circuit.measure(0, 0)
    getattr(circuit, f"save_{save}")(**options)
    return AerSimulator(method=method).run(circuit, shots=shots, seed_simulator=1).result()


def test_chains_of_every_shot_are_chains(tmp_path):
    found = saved(aer("matrix_product_state", "matrix_product_state", pershot=True), tmp_path).classical
    chains = found["matrix_product_state"]
    assert [type(one) for one in chains] == [qm.MatrixProductState] * 4
    ones = sum(int(one.to_dense(qubit_order="big").amplitudes[3] != 0) for one in chains)
    assert ones == found["counts"]["0x1"]


def test_chains_of_every_outcome_are_chains(tmp_path):
    found = saved(aer("matrix_product_state", "matrix_product_state", conditional=True), tmp_path).classical
    chain = found["matrix_product_state"]["0x1"]
    assert abs(chain.to_dense(qubit_order="big").amplitudes) == pytest.approx([0, 0, 0, 1])


def test_a_distribution_beside_a_state(tmp_path):
    circuit = QuantumCircuit(1)
    circuit.h(0)
    circuit.save_probabilities_dict()
    circuit.save_statevector()
    memory = saved(AerSimulator(method="statevector").run(circuit).result(), tmp_path)
    assert memory.classical["probabilities"] == pytest.approx({0: 0.5, 1: 0.5})
    assert memory.quantum.qubit_order == "little"


def test_a_result_keeps_its_name_when_it_is_loaded(tmp_path):
    memory = qm.MemoryState.of(aer("matrix_product_state", "matrix_product_state"))
    assert memory.classical["matrix_product_state"] == memory.quantum
    assert saved(memory, tmp_path).content_id == memory.content_id


def test_an_experiment_that_failed_is_named():
    good, bad = QuantumCircuit(1), QuantumCircuit(1)
    bad.t(0)
    for circuit in (good, bad):
        circuit.save_stabilizer()
    result = AerSimulator(method="stabilizer").run([good, bad]).result()
    with pytest.raises(InvalidStateError, match="experiment 1 of the result has failed"):
        taken(result)


def test_results_in_a_tree_are_kept(tmp_path):
    plain = QuantumCircuit(1)
    plain.save_statevector()
    qubit = cirq.LineQubit(0)
    measured = cirq.Simulator().simulate(cirq.Circuit(cirq.X(qubit), cirq.measure(qubit, key="m")))
    tree = {
        "state": AerSimulator(method="statevector").run(plain, shots=None).result(),
        "more": [measured, aer("statevector", "statevector")],
    }
    found = saved(tree, tmp_path).classical
    state = found["state"] if isinstance(found["state"], qm.StateVector) else found["state"]["quantum"]
    assert state == taken(Statevector([1, 0]))
    first, second = found["more"]
    assert first["quantum"].labels == ("q(0)",)
    assert first["classical"]["measurements"]["m"].tolist() == [1]
    assert second["quantum"] == second["classical"]["statevector"]


# --- Cirq

Q = cirq.LineQubit.range(3)
STEPS = cirq.Circuit(cirq.X(Q[0]), cirq.H(Q[1]), cirq.CNOT(Q[1], Q[2]))


@pytest.mark.parametrize("simulator", [cirq.Simulator(), cirq.DensityMatrixSimulator(), cirq.CliffordSimulator()])
def test_the_state_after_each_step_of_cirq(tmp_path, simulator):
    states = [saved(step, tmp_path).quantum for step in simulator.simulate_moment_steps(STEPS)]
    end = qm.MemoryState.of(cirq.Simulator().simulate(STEPS)).quantum
    assert [qm.metrics.fidelity(one, end) for one in states] == pytest.approx([0.25, 1], abs=1e-6)
    assert [one.labels for one in states] == [("q(0)", "q(1)", "q(2)")] * 2


@pytest.mark.parametrize("seed", range(20))
def test_a_state_of_the_clifford_simulator_is_a_tableau(seed):
    rng = np.random.default_rng(seed)
    circuit = cirq.Circuit(cirq.I(qubit) for qubit in Q)
    for _ in range(30):
        a, b = rng.permutation(3)[:2]
        circuit.append(
            [cirq.H(Q[a]), cirq.S(Q[b]), cirq.X(Q[a]), cirq.CNOT(Q[a], Q[b]), cirq.CZ(Q[a], Q[b])][rng.integers(5)]
        )
    result = cirq.CliffordSimulator().simulate(circuit)
    found = taken(result)
    assert found.problems() == []
    assert found.labels == ("q(0)", "q(1)", "q(2)")
    vector = found.to_dense(qubit_order="big").amplitudes
    assert abs(np.vdot(vector, result.final_state.state_vector())) == pytest.approx(1, abs=1e-6)
    assert taken(result.final_state) == found
    assert taken(result.final_state.ch_form).fidelity(found) == 1


def test_many_qubits_of_the_clifford_simulator():
    qubits = cirq.LineQubit.range(60)
    circuit = cirq.Circuit(cirq.H(qubits[0]), [cirq.CNOT(qubits[0], one) for one in qubits[1:]])
    assert taken(cirq.CliffordSimulator().simulate(circuit)).entropy(30) == 1


def test_parameters_of_sympy_are_kept_as_text(tmp_path):
    circuit = cirq.Circuit(cirq.rx(sympy.Symbol("a"))(Q[0]))
    result = cirq.Simulator().simulate(circuit, param_resolver={"a": sympy.pi / 3})
    assert saved(result, tmp_path).classical == {"parameters": {"a": "pi/3"}}


@pytest.mark.parametrize("value", [cirq.PauliSum(), cirq.PauliString(coefficient=2), cirq.GlobalPhaseGate(1j)])
def test_an_operator_of_cirq_on_no_qubits_is_refused(value):
    with pytest.raises(InvalidStateError, match="on no qubits"):
        taken(value)


# --- PennyLane


def run(measure, *, device="default.qubit", wires=2):
    @qml.qnode(qml.device(device, wires=wires))
    def circuit():
        qml.Hadamard(0)
        qml.S(0)
        qml.CNOT([0, 1])
        qml.X(1)
        qml.Snapshot("here")
        return measure()

    return circuit


def test_a_tableau_of_pennylane_is_a_state(tmp_path):
    circuit = run(qml.state, device="default.clifford", wires=3)
    found = taken(circuit(), "pennylane")
    dense = taken(run(qml.state, wires=3)(), "pennylane")
    assert isinstance(found, qm.StabilizerState)
    assert qm.metrics.fidelity(found, dense) == pytest.approx(1, abs=1e-12)
    snapshots = saved(qm.MemoryState.of(qml.snapshots(circuit)(), "pennylane"), tmp_path).classical
    assert snapshots["here"] == snapshots["execution_results"] == found


def test_several_measurements_are_no_matrix(tmp_path):
    both = run(lambda: (qml.state(), qml.probs([0, 1])))()
    state, probabilities = saved(qm.MemoryState.of(both, "pennylane"), tmp_path).classical
    assert isinstance(state, qm.StateVector)
    assert probabilities == pytest.approx([0, 0.5, 0.5, 0])


def test_tensors_of_torch_that_have_a_gradient():
    angle = torch.tensor(0.3, requires_grad=True, dtype=torch.float64)
    circuit = qml.QNode(
        lambda x: (qml.RX(x, 0), qml.state())[1], qml.device("default.qubit", wires=1), interface="torch"
    )
    assert abs(taken(circuit(angle), "pennylane").amplitudes) == pytest.approx([np.cos(0.15), np.sin(0.15)])
    assert taken(qml.RX(angle, 0)).is_unitary()


def test_operators_of_integers_and_sparse_ones():
    assert taken(qml.ctrl(qml.X(1), 0)).matrix.tolist() == np.eye(4)[[0, 1, 3, 2]].tolist()
    sparse = qml.StatePrep(scipy.sparse.csr_matrix([0.0, 0.6, 0.8, 0.0]), wires=["a", "b"])
    assert taken(sparse).amplitudes.tolist() == [0, 0.6, 0.8, 0]


@pytest.mark.parametrize("value", [qml.StatePrep(np.eye(4), wires=[0, 1]), qml.RX(np.array([0.1, 0.2]), 0)])
def test_several_states_or_operators_in_one_are_refused(value):
    with pytest.raises(InvalidStateError, match="at once"):
        taken(value)


def test_as_many_wires_as_qubits():
    with pytest.raises(InvalidStateError, match="1 wires are named for 2 qubits"):
        qm.MemoryState.of(Statevector([1, 0, 0, 0])).to("pennylane", wires=["a"])


# --- QuTiP

TIMES, QUIET = np.linspace(0, 1, 3), {"progress_bar": ""}
DRIVE, DECAY, UP = qutip.sigmax(), 0.9 * qutip.sigmam(), qutip.basis(2, 0)


def test_trajectories_of_qutip(tmp_path):
    options = {**QUIET, "keep_runs_results": True, "store_states": True}
    solved = qutip.mcsolve(DRIVE, UP, TIMES, DECAY, e_ops={"z": qutip.sigmaz()}, ntraj=3, seeds=1, options=options)
    memory = saved(solved, tmp_path)
    assert (memory.quantum.matrix == solved.average_final_state.full()).all()
    found = memory.classical
    assert found["trajectories"] == 3
    assert len(found["states"]) == len(TIMES)
    assert found["average_expect"]["z"].tolist() == solved.average_expect[0].tolist()
    assert found["runs_expect"]["z"].shape == (3, 3)
    assert [[one.amplitudes.shape for one in run] for run in found["runs_states"]] == [[(2,)] * 3] * 3
    assert found["collapses"] == [[(time, which) for time, which in run] for run in solved.collapse]


def test_means_of_a_stochastic_solver_are_states_whatever_their_trace():
    solved = qutip.ssesolve(
        DRIVE, UP, TIMES, [qutip.sigmaz()], ntraj=2, seeds=1, options={**QUIET, "store_states": True, "dt": 0.1}
    )
    memory = qm.MemoryState.of(solved)
    assert abs(memory.quantum.trace() - 1) > 1e-6  # or it would say nothing
    assert {type(one) for one in [memory.quantum, *memory.classical["states"]]} == {qm.DensityMatrix}


def test_what_a_solver_leaves_of_trace_and_hermiticity_is_no_sign_of_an_operator():
    rho = np.array([[0.6 + 2e-9, 3e-9], [0, 0.4 + 0j]])
    assert isinstance(taken(qutip.Qobj(rho)), qm.DensityMatrix)
    assert (taken(qutip.Qobj(rho)).matrix == rho).all()
    assert isinstance(taken(qutip.Qobj(rho + np.diag([1e-4, 0]))), qm.Operator)


# --- PyTorch and JAX


def test_views_of_torch_with_a_negative_sign():
    psi = torch.tensor([0.6, 0.8j], dtype=torch.complex128).conj()
    assert taken(psi).amplitudes.tolist() == [0.6, -0.8j]
    assert taken(psi.imag).amplitudes.tolist() == [0, -0.8]


@pytest.mark.parametrize(
    "tensor",
    [
        torch.ones(4, dtype=torch.bfloat16),
        torch.eye(4).to_sparse(),
        torch.ones(4, device="meta"),
    ],
)
def test_tensors_of_torch_that_are_no_states(tensor):
    with pytest.raises(InvalidStateError):
        taken(tensor)


@pytest.mark.parametrize("name", ["torch", "jax"])
@pytest.mark.parametrize("order", [None, "big", "little"])
def test_an_array_of_the_other_byte_order_is_given_to_both(name, order):
    values = np.array([0.6, 0, 0.8j, 0], ">c8")
    found = qm.MemoryState(qm.StateVector(values, qubit_order="little")).to(name, qubit_order=order)
    assert np.asarray(found).tolist() == values[[0, 2, 1, 3] if order == "big" else [0, 1, 2, 3]].tolist()


def test_an_array_of_jax_without_values_is_refused():
    with pytest.raises(InvalidStateError, match="no values yet"):
        jax.jit(taken)(jax.numpy.ones(4))


def test_jax_parameters_in_a_tree_are_arrays_and_no_states(tmp_path):
    parameters = {"w": jax.numpy.ones((2, 3)), "b": jax.numpy.arange(4), "half": jax.numpy.ones(2, jax.numpy.bfloat16)}
    qm.save(parameters, tmp_path / "parameters.qms")
    found = qm.load(tmp_path / "parameters.qms").classical
    assert {name: (type(one), one.dtype, one.tolist()) for name, one in found.items()} == {
        name: (np.ndarray, one.dtype, one.tolist()) for name, one in parameters.items()
    }
    with pytest.raises(InvalidStateError, match="classical/key is a"):
        qm.save({"key": jax.random.key(1)}, tmp_path / "key.qms")


def test_a_result_of_aer_with_nothing_in_it_is_refused():
    circuit = QuantumCircuit(1)
    circuit.h(0)
    with pytest.raises(InvalidStateError, match="nothing in it"):
        qm.MemoryState.of(AerSimulator(method="statevector").run(circuit).result())


class OfAnotherLibrary:
    """An array that says no more of itself than DLPack does."""

    def __init__(self, array, device=(1, 0)):
        self._array, self._device = array, device

    def __dlpack__(self, **options):
        if self._device[0] != 1:
            raise BufferError("the memory is that of a GPU")
        return self._array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self._device


def test_an_array_of_any_library_is_taken_by_dlpack(tmp_path):
    array = np.arange(4) + 1j
    qm.save(OfAnotherLibrary(array), tmp_path / "psi.qms")
    assert qm.load(tmp_path / "psi.qms").quantum == qm.StateVector(array, qubit_order="unstated")
    with pytest.raises(InvalidStateError, match="get"):
        qm.save(OfAnotherLibrary(array, (2, 0)), tmp_path / "gpu.qms")
