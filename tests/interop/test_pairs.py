"""A state that leaves one simulator opens in another: qubits in the right order, the norm untouched, the dtype kept."""

import numpy as np
import pytest

import quantum_memory as qm

from .frameworks import amplitudes, overlap, passed

SEVEN = ["aer", "cirq", "pennylane", "qiskit", "quimb", "qutip", "tenpy"]
MORE = [*SEVEN, "qulacs"]
CLOSE = 1e-12


def noise(n, seed=0, dtype=np.complex128):
    rng = np.random.default_rng(seed)
    amplitudes = rng.normal(size=2**n) + 1j * rng.normal(size=2**n)
    return (amplitudes / np.linalg.norm(amplitudes)).astype(dtype)


@pytest.mark.parametrize("second", MORE)
@pytest.mark.parametrize("first", MORE)
@pytest.mark.parametrize("form", ["dense", "mps"])
def test_every_pair(tmp_path, first, second, form):
    """A saved state goes into one library, what that has is saved, and goes into the other."""
    start = qm.StateVector(noise(6, 1), qubit_order="little")
    qm.save(start if form == "dense" else qm.MatrixProductState.from_dense(start), tmp_path / "start.qms")
    qm.save(passed(qm.load(tmp_path / "start.qms"), first), tmp_path / "middle.qms")
    end = passed(qm.load(tmp_path / "middle.qms"), second)
    assert overlap(end, qm.MemoryState(start)) >= 1 - CLOSE
    assert np.linalg.norm(amplitudes(end)) == pytest.approx(1, abs=CLOSE)


@pytest.mark.parametrize("form", ["dense", "mps"])
@pytest.mark.parametrize("name", MORE)
def test_the_one_is_on_qubit_0(name, form):
    """X on qubit 0 of three: at index 1 where qubit 0 is the least significant digit, otherwise at index 4."""
    start = qm.StateVector(np.eye(8, dtype=complex)[1], qubit_order="little")
    state = start if form == "dense" else qm.MatrixProductState.from_dense(start)
    assert np.abs(amplitudes(passed(qm.MemoryState(state), name))) == pytest.approx(np.eye(8)[4], abs=CLOSE)


def test_each_library_says_itself_that_it_is_qubit_0():
    """Not by our way in and out again, in which two mistakes would cancel."""
    memory = qm.MemoryState(qm.StateVector(np.eye(8, dtype=complex)[1], qubit_order="little"))
    state = memory.to("qiskit")
    assert [state.probabilities([q])[1] for q in range(3)] == [1, 0, 0]
    ket = memory.to("qutip")
    assert [ket.ptrace(q).diag()[1] for q in range(3)] == [1, 0, 0]
    found = memory.to("qulacs")
    assert [1 - found.get_zero_probability(q) for q in range(3)] == [1, 0, 0]
    chain = memory.to("tenpy")
    assert chain.expectation_value("Sz") == pytest.approx([-0.5, 0.5, 0.5])
    import quimb

    network = memory.to("quimb", mps=True)
    turned = [network.gate(quimb.pauli("Z"), q, contract=True) for q in range(3)]
    assert [(network.H @ one).real for one in turned] == pytest.approx([-1, 1, 1])
    import cirq

    qubits = cirq.LineQubit.range(3)
    result = cirq.Simulator().simulate(
        cirq.Circuit(cirq.measure(*qubits, key="m")), initial_state=memory.to("cirq"), qubit_order=qubits
    )
    assert list(result.measurements["m"]) == [1, 0, 0]
    import pennylane as qml

    @qml.qnode(qml.device("default.qubit", wires=3))
    def circuit():
        memory.to("pennylane")  # is queued where it is made, as any operation
        return [qml.probs(wires=q) for q in range(3)]

    assert [found[1] for found in circuit()] == pytest.approx([1, 0, 0])
    from qiskit import QuantumCircuit
    from qiskit_aer import AerSimulator

    for one in (memory, qm.MemoryState(qm.MatrixProductState.from_dense(memory.quantum))):
        counted = QuantumCircuit(3)
        counted.append(one.to("aer"), range(3))
        counted.measure_all()
        method = "statevector" if one is memory else "matrix_product_state"
        counts = AerSimulator(method=method).run(counted, shots=10).result().get_counts()
        assert counts == {"001": 10}  # qubit 0 is the last that is written


@pytest.mark.parametrize("name", ["aer", "cirq", "pennylane", "qiskit", "qulacs", "quimb", "qutip"])
def test_density_matrices(name):
    rng = np.random.default_rng(2)
    root = rng.normal(size=(8, 8)) + 1j * rng.normal(size=(8, 8))
    matrix = root @ root.conj().T
    start = qm.DensityMatrix(matrix / matrix.trace(), qubit_order="little")
    end = passed(qm.MemoryState(start), name).quantum.reordered("little")
    assert end.matrix == pytest.approx(start.matrix, abs=CLOSE)


@pytest.mark.parametrize("name", ["cirq", "quimb", "torch"])
def test_single_precision_stays_single_where_the_library_has_it(name):
    start = qm.StateVector(noise(3, dtype=np.complex64), qubit_order="big")
    value = qm.MemoryState(start).to(name)
    assert qm.MemoryState.of(value).quantum.dtype == np.complex64
    assert (qm.MemoryState.of(value).quantum.amplitudes == start.amplitudes).all()


@pytest.mark.parametrize("name", ["cirq", "pennylane", "qiskit", "qulacs", "quimb", "qutip", "tenpy"])
def test_the_norm_is_as_it_was(name):
    """A simulator's drift is part of what it has done, and nobody mends it."""
    start = qm.StateVector(noise(4) * 1.001, qubit_order="big")
    value = qm.MemoryState(start).to(name)
    found = value.parameters[0] if name == "pennylane" else amplitudes(qm.MemoryState.of(value))
    assert np.linalg.norm(found) == pytest.approx(1.001, abs=CLOSE)


def test_aer_takes_normalised_states_only_and_says_so():
    for factor in (0.99, 1.001):
        with pytest.raises(qm.InvalidStateError, match="Aer does not take it"):
            qm.MemoryState(qm.StateVector(noise(4) * factor, qubit_order="big")).to("aer")


@pytest.mark.parametrize("name", ["cirq", "qiskit", "qutip", "tenpy", "quimb"])
def test_sites_of_several_dimensions(name):
    rng = np.random.default_rng(3)
    start = qm.StateVector(rng.normal(size=24) + 0j, qubit_order="big", dims=[2, 3, 4]).normalized()
    options = {"mps": True} if name == "quimb" else {}
    end = qm.MemoryState.of(qm.MemoryState(start).to(name, **options))
    assert end.quantum.dims == (2, 3, 4)
    assert overlap(end, qm.MemoryState(start)) >= 1 - CLOSE
