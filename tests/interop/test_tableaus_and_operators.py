"""Stabiliser tableaus and operators of other libraries are taken and given as such."""

import cirq
import numpy as np
import pennylane as qml
import pytest
import quimb
import qulacs
import qutip
import stim
import sympy
from qiskit import QuantumCircuit
from qiskit.quantum_info import (
    Clifford,
    DensityMatrix,
    Operator,
    Pauli,
    SparsePauliOp,
    StabilizerState,
    Statevector,
    random_clifford,
)
from qiskit_aer import AerSimulator

import quantum_memory as qm
from quantum_memory.errors import BudgetError, InvalidStateError

from .frameworks import amplitudes, overlap

Q = cirq.LineQubit.range(3)


def saved(value, folder):
    qm.save(value, folder / "value.qms")
    return qm.load(folder / "value.qms")


def one_on_qubit_0():
    simulator = stim.TableauSimulator()
    simulator.x(0)
    simulator.h(1)
    simulator.cnot(1, 2)
    return simulator


# --- tableaus


@pytest.mark.parametrize("name", ["stim", "qiskit", "cirq"])
def test_a_tableau_goes_through_each_library_with_every_bit(tmp_path, name):
    tableau = stim.Tableau.random(7)
    memory = saved(tableau, tmp_path)
    assert isinstance(memory.quantum, qm.StabilizerState)
    assert saved(memory.to(name), tmp_path) == memory
    assert memory.to("stim") == tableau


def test_each_library_says_itself_that_it_is_qubit_0():
    memory = qm.MemoryState.of(one_on_qubit_0())
    assert [memory.to("qiskit").expectation_value(Pauli(letters)) for letters in ("IIZ", "ZZI", "XXI")] == [-1, 1, 1]
    state = cirq.CliffordTableauSimulationState(tableau=memory.to("cirq"), qubits=Q)
    assert {tuple(one) for one in state.sample(Q, 20, seed=1).astype(int)} == {(1, 0, 0), (1, 1, 1)}
    simulator = stim.TableauSimulator()
    simulator.set_inverse_tableau(memory.to("stim").inverse())
    assert simulator.peek_z(0) == -1
    for name in ("qutip", "pennylane", "quimb", "qulacs", "tenpy"):  # which have no tableaus
        assert overlap(qm.MemoryState.of(memory.to(name)), memory) == pytest.approx(1, abs=1e-12)
        assert set(np.flatnonzero(amplitudes(qm.MemoryState.of(memory.to(name))).round(9))) == {0b100, 0b111}


def test_a_clifford_and_a_stabilizer_state_of_qiskit(tmp_path):
    clifford = random_clifford(5, seed=1)
    memory = saved(clifford, tmp_path)
    assert memory.to("qiskit").clifford == clifford
    assert saved(StabilizerState(clifford), tmp_path) == memory
    assert abs(Statevector.from_instruction(clifford.to_circuit()).inner(
        Statevector(memory.quantum.to_dense(qubit_order="little").amplitudes)
    )) == pytest.approx(1)  # fmt: skip


def test_aer_goes_on_from_a_saved_tableau(tmp_path):
    circuit = QuantumCircuit(60)
    circuit.h(0)
    for k in range(1, 60):
        circuit.cx(0, k)
    circuit.save_stabilizer()
    memory = saved(AerSimulator(method="stabilizer").run(circuit).result(), tmp_path)
    assert memory.quantum.n_qubits == 60
    further = QuantumCircuit(60)
    further.append(memory.to("aer"), range(60))
    further.x(3)
    further.measure_all()
    counts = AerSimulator(method="stabilizer").run(further, shots=50, seed_simulator=1).result().get_counts()
    assert set(counts) == {"0" * 56 + "1" + "000", "1" * 56 + "0" + "111"}


def test_a_hundred_qubits_have_no_vector_for_a_library_without_tableaus():
    with pytest.raises(BudgetError, match="100 qubits"):
        qm.MemoryState.of(stim.Tableau(100)).to("qutip")
    with pytest.raises(InvalidStateError, match="qubit_order"):
        qm.MemoryState.of(stim.Tableau(2)).to("torch")
    assert qm.MemoryState.of(stim.Tableau(2)).to("torch", qubit_order="big").tolist() == [1, 0, 0, 0]


def test_stim_refuses_what_is_no_stabiliser_state_and_no_tableau():
    with pytest.raises(InvalidStateError, match="stabiliser state"):
        qm.MemoryState(qm.StateVector(np.array([0.6, 0.8]), qubit_order="big")).to("stim")
    with pytest.raises(InvalidStateError, match="Stim does not take it"):
        qm.MemoryState(qm.StabilizerState(np.zeros((4, 5), bool))).to("stim")


# --- operators


def operator(n=2, seed=0):
    rng = np.random.default_rng(seed)
    matrix, _ = np.linalg.qr(rng.normal(size=(2**n, 2**n)) + 1j * rng.normal(size=(2**n, 2**n)))
    return qm.Operator(matrix, qubit_order="little")


@pytest.mark.parametrize("name", ["qiskit", "qutip", "quimb", "cirq", "pennylane"])
def test_an_operator_goes_through_each_library(tmp_path, name):
    start = operator()
    found = saved(qm.MemoryState(start).to(name), tmp_path).quantum
    assert isinstance(found, qm.Operator)
    assert np.allclose(found.reordered("little").matrix, start.matrix, atol=1e-15)


def test_each_library_says_itself_which_qubit_an_operator_is_on():
    x0 = qm.MemoryState(qm.Operator(np.kron(np.eye(2), [[0, 1], [1, 0]]), qubit_order="little"))
    assert Statevector.from_label("00").evolve(x0.to("qiskit")).probabilities([0])[1] == 1
    ket = x0.to("qutip") * qutip.basis([2, 2], [0, 0])
    assert ket.ptrace(0).diag()[1] == 1
    after = cirq.Simulator().simulate(cirq.Circuit(x0.to("cirq")(*Q[:2]))).final_state_vector
    assert abs(after[0b10]) == pytest.approx(1)

    @qml.qnode(qml.device("default.qubit", wires=2))
    def circuit():
        x0.to("pennylane")
        return qml.probs(wires=0)

    assert circuit()[1] == pytest.approx(1)
    assert (x0.to("quimb") @ quimb.computational_state("00"))[0b10, 0] == 1


def test_sums_of_paulis_of_qiskit():
    total = SparsePauliOp.from_list([("IZ", 2), ("ZI", 3)])
    memory = qm.MemoryState.of(total)
    assert list(memory.quantum.matrix.diagonal().real) == [5, 1, -1, -5]
    assert memory.to("qiskit") == Operator(total)
    assert qm.MemoryState.of(Pauli("-iXY")).to("qiskit") == Operator(Pauli("-iXY"))
    with pytest.raises(BudgetError, match="20 qubits"):
        qm.MemoryState.of(SparsePauliOp("Z" * 20))


def test_dims_of_operators_are_kept():
    matrix = np.arange(36).reshape(6, 6) + 0j
    for value in (Operator(matrix, input_dims=(2, 3), output_dims=(2, 3)), qutip.Qobj(matrix, dims=[[2, 3], [2, 3]])):
        memory = qm.MemoryState.of(value)
        assert (type(memory.quantum), memory.quantum.dims) == (qm.Operator, (2, 3))
        assert memory.to("qiskit" if isinstance(value, Operator) else "qutip") == value
    with pytest.raises(InvalidStateError, match="not kept"):
        qm.MemoryState.of(Operator(np.zeros((2, 4))))


@pytest.mark.parametrize("wrap", [qutip.Qobj, quimb.qarray, qml.numpy.tensor])
def test_a_matrix_that_may_be_both_is_a_density_matrix_where_it_is_one(wrap):
    rho = np.diag([0.25, 0.75]) + 0j
    kinds = [type(qm.MemoryState.of(wrap(m)).quantum) for m in (rho, rho * 2, np.array([[0.5, 1j], [0, 0.5]]))]
    assert kinds == [qm.DensityMatrix, qm.Operator, qm.Operator]
    assert type(qm.MemoryState.of(DensityMatrix(rho * 2)).quantum) is qm.DensityMatrix  # Qiskit says so


def test_gates_operations_and_sums_of_cirq():
    assert (qm.MemoryState.of(cirq.X).quantum.matrix == [[0, 1], [1, 0]]).all()
    cnot = qm.MemoryState.of(cirq.CNOT(Q[1], Q[0])).quantum
    assert cnot.labels == ("q(1)", "q(0)")
    assert (cnot.matrix == cirq.unitary(cirq.CNOT)).all()
    total = 2 * cirq.Z(Q[2]) + 3 * cirq.Z(Q[0])
    memory = qm.MemoryState.of(total)
    assert memory.quantum.labels == ("q(0)", "q(2)")
    assert list(memory.quantum.matrix.diagonal().real) == [5, 1, -1, -5]
    with pytest.raises(InvalidStateError, match="unitary"):
        memory.to("cirq")
    for value in (cirq.depolarize(0.1), cirq.measure(Q[0]), cirq.X ** sympy.Symbol("t")):
        with pytest.raises(InvalidStateError, match="no unitary matrix"):
            qm.MemoryState.of(value)
    with pytest.raises(BudgetError):
        qm.MemoryState.of(sum(cirq.Z(q) for q in cirq.LineQubit.range(20)))


def test_operators_and_preparations_of_pennylane():
    hamiltonian = 2 * qml.Z("a") + 3 * qml.Z("b")
    memory = qm.MemoryState.of(hamiltonian)
    assert memory.quantum.labels == ("a", "b")
    assert list(memory.quantum.matrix.diagonal().real) == [5, -1, 1, -5]
    assert isinstance(memory.to("pennylane"), qml.Hermitian)
    for state in (
        qm.StateVector(np.array([0.6, 0.8j]), qubit_order="big"),
        qm.DensityMatrix(np.eye(2) / 2 + 0j, qubit_order="big"),
    ):
        assert qm.MemoryState.of(qm.MemoryState(state).to("pennylane")).quantum == state
    with pytest.raises(InvalidStateError, match="no matrix"):
        qm.MemoryState.of(qml.AmplitudeDamping(0.1, wires=0))
    with pytest.raises(InvalidStateError, match="neither"):
        qm.MemoryState(qm.Operator(np.array([[0, 1.0], [0, 0]]), qubit_order="big")).to("pennylane")


@pytest.mark.parametrize("name", ["aer", "qulacs", "tenpy", "stim"])
def test_libraries_without_operators_say_so(name):
    with pytest.raises(InvalidStateError, match="operator"):
        qm.MemoryState(operator()).to(name)
    assert qulacs.QuantumState(1).get_qubit_count() == 1


def test_a_clifford_of_qiskit_is_that_of_stim():
    circuit = QuantumCircuit(3)
    circuit.x(0)
    circuit.h(1)
    circuit.cx(1, 2)
    ours, theirs = qm.MemoryState.of(Clifford(circuit)), qm.MemoryState.of(one_on_qubit_0())
    assert ours.quantum.fidelity(theirs.quantum) == 1
