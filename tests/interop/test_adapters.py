"""What each adapter takes and gives beside bare states, and how adapters are found."""

import itertools
import subprocess
import sys
from importlib.metadata import EntryPoint

import cirq
import jax
import numpy as np
import pennylane as qml
import pytest
import qiskit
import quimb
import quimb.tensor as qtn
import qutip
import torch
from qiskit.quantum_info import DensityMatrix, Statevector
from qiskit_aer import AerSimulator
from tenpy.networks.mps import MPS
from tenpy.networks.site import SpinHalfSite, SpinSite

import quantum_memory as qm
from quantum_memory.errors import BudgetError, InvalidStateError, MissingError
from quantum_memory.interop.aer_states import take_mps
from quantum_memory.state import adapters
from quantum_memory.state.vidal import from_vidal, to_vidal

from .frameworks import amplitudes, through_aer

PSI = Statevector([0.6, 0.8j, 0, 0])


def random_mps(n=6, bond=5, seed=0):
    rng = np.random.default_rng(seed)
    bonds = [1, *[min(2**i, 2 ** (n - i), bond) for i in range(1, n)], 1]
    tensors = [rng.normal(size=(a, 2, b)) + 1j * rng.normal(size=(a, 2, b)) for a, b in itertools.pairwise(bonds)]
    return qm.MatrixProductState(tensors).normalized()


# --- how they are found


def test_a_state_of_another_library_is_saved_as_it_is(tmp_path):
    qm.save(PSI, tmp_path / "psi.qms")
    found = qm.load(tmp_path / "psi.qms")
    assert found.quantum == qm.StateVector(PSI.data, qubit_order="little")
    assert found.to("qiskit") == PSI


def test_states_in_a_tree_are_kept_as_states(tmp_path):
    qm.save({"step": 3, "found": [PSI, qutip.basis(2, 0)]}, tmp_path / "tree.qms")
    step, (first, second) = qm.load(tmp_path / "tree.qms").classical.values()
    assert (step, first.qubit_order, second.qubit_order) == (3, "little", "big")
    assert (first.amplitudes == PSI.data).all()


def test_a_subclass_of_a_user_is_recognised():
    class Mine(Statevector):
        pass

    assert qm.MemoryState.of(Mine(PSI.data)).quantum.qubit_order == "little"


def test_no_library_is_imported_to_recognise_what_is_of_none():
    code = (
        "import sys, quantum_memory as qm\n"
        "class Strange: pass\n"
        "try: qm.MemoryState.of(Strange())\n"
        "except qm.InvalidStateError as error: assert 'qiskit' in str(error), error\n"
        "else: raise AssertionError\n"
        "libraries = {'qiskit', 'cirq', 'pennylane', 'qutip', 'quimb', 'tenpy', 'qulacs', 'stim', 'torch', 'jax'}\n"
        "assert not libraries & set(sys.modules), libraries & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


class Strange:
    """A state of a library that nobody has heard of."""


class StrangeAdapter:
    PACKAGES = (__name__.partition(".")[0],)

    def recognizes(self, value):
        return isinstance(value, Strange)

    def take(self, value):
        return qm.StateVector([0, 1j], qubit_order="big")

    def give(self, state, *, twice=False):
        return "strange" * (1 + twice)


def test_others_can_add_theirs(monkeypatch):
    theirs = EntryPoint("strange", f"{__name__}:StrangeAdapter.here", adapters.GROUP)
    monkeypatch.setattr(StrangeAdapter, "here", StrangeAdapter(), raising=False)
    before = adapters.entry_points
    monkeypatch.setattr(adapters, "entry_points", lambda **asked: [*before(**asked), theirs])
    adapters._found.cache_clear()
    try:
        memory = qm.MemoryState.of(Strange())
        assert (memory.quantum.amplitudes == [0, 1j]).all()
        assert memory.to("strange", twice=True) == "strangestrange"
        with pytest.raises(InvalidStateError, match="takes no such option"):
            memory.to("strange", thrice=True)
    finally:
        monkeypatch.undo()
        adapters._found.cache_clear()
    with pytest.raises(MissingError, match="there is no adapter 'strange'"):
        memory.to("strange")


def test_a_library_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "qulacs", None)
    with pytest.raises(MissingError, match="qulacs is not installed"):
        qm.MemoryState.of(PSI).to("qulacs")


# --- what they refuse


def test_an_order_that_nobody_has_stated_is_asked_for():
    memory = qm.MemoryState(np.eye(4, dtype=complex)[1])
    for name in ("qiskit", "cirq", "qutip", "quimb", "tenpy", "pennylane", "qulacs", "aer", "stim"):
        with pytest.raises(InvalidStateError, match=r"unstated|order"):
            memory.to(name)
    assert memory.to("torch").tolist() == [0, 1, 0, 0]  # which says nothing of it, either


def test_what_has_no_state():
    with pytest.raises(InvalidStateError, match="no quantum state"):
        qm.MemoryState(classical={"a": 1}).to("qiskit")


def test_what_a_library_does_not_have():
    mixed = qm.MemoryState(qm.DensityMatrix(np.eye(4) / 4 + 0j, qubit_order="big"))
    for name, options in (("tenpy", {}), ("quimb", {"mps": True}), ("stim", {})):
        with pytest.raises(InvalidStateError, match="density matrix"):
            mixed.to(name, **options)
    qutrits = qm.MemoryState(qm.StateVector(np.eye(9, dtype=complex)[0], qubit_order="big", dims=[3, 3]))
    for name in ("aer", "pennylane", "qulacs", "stim"):
        with pytest.raises(InvalidStateError, match="qubits only"):
            qutrits.to(name)
    with pytest.raises(BudgetError):
        qm.MemoryState(qm.MatrixProductState.from_product([[1.0, 0]] * 80)).to("qiskit")
    with pytest.raises(BudgetError):
        qm.MemoryState(random_mps(10)).to("cirq", max_bytes=1000)


# --- one after another


def test_qiskit_keeps_dims_and_shares_the_memory():
    state = DensityMatrix(np.eye(6) / 6, dims=(2, 3))
    assert qm.MemoryState.of(state).quantum.dims == (2, 3)
    assert np.shares_memory(qm.MemoryState.of(state).quantum.matrix, state.data)


def test_aer_results_with_several_things(tmp_path):
    circuit = qiskit.QuantumCircuit(2)
    circuit.h(0)
    circuit.save_statevector("first")
    circuit.cx(0, 1)
    circuit.save_density_matrix([1], "second")
    circuit.save_probabilities()
    result = AerSimulator(method="statevector").run([circuit, circuit]).result()
    qm.save(result, tmp_path / "result.qms")
    one, other = qm.load(tmp_path / "result.qms").classical["experiments"]
    assert one["first"].amplitudes == pytest.approx([2**-0.5, 2**-0.5, 0, 0])
    assert other["second"].matrix == pytest.approx(np.eye(2) / 2)
    assert one["probabilities"] == pytest.approx([0.5, 0, 0, 0.5])


def test_aer_matrix_product_states_without_a_dense_one():
    """Sixty qubits, which no dense simulator has."""
    ghz = qiskit.QuantumCircuit(60)
    ghz.h(0)
    for qubit in range(59):
        ghz.cx(qubit, qubit + 1)
    ghz.save_matrix_product_state()
    memory = qm.MemoryState.of(AerSimulator(method="matrix_product_state").run(ghz).result())
    assert memory.quantum.max_bond_dim == 2
    assert memory.quantum.canonical_form == "right"
    assert memory.quantum.problems() == []
    assert memory.quantum.amplitude("1" * 60) == pytest.approx(2**-0.5)
    again = qm.MemoryState.of(through_aer(memory.to("aer"), 60))
    assert abs(again.quantum.inner(memory.quantum)) == pytest.approx(1, abs=1e-12)


def test_vidals_form_of_a_random_state_and_back():
    state = random_mps()
    gammas, values = to_vidal(state)
    back = from_vidal(gammas, values)
    assert back.canonical_form == "right"
    assert abs(back.inner(state)) == pytest.approx(1, abs=1e-12)
    for cut, found in enumerate(values, 1):
        assert found == pytest.approx(state.schmidt_values(cut)[: len(found)], abs=1e-12)
    assert from_vidal([2 * gammas[0], *gammas[1:]], values).canonical_form == "right"  # the norm is where it may be
    assert from_vidal([gammas[0], 2 * gammas[1], *gammas[2:]], values).canonical_form is None
    half, kept = to_vidal(state, max_bond=2)
    assert max(map(len, kept)) == 2
    assert take_mps([(g[:, 0], g[:, 1]) for g in half], kept).max_bond_dim == 2


@pytest.mark.parametrize("name", ["aer", "tenpy"])
def test_the_zero_state_has_no_schmidt_values(name):
    zero = qm.MatrixProductState([np.zeros((1, 2, 1), complex)] * 3)
    with pytest.raises(InvalidStateError, match="zero state"):
        qm.MemoryState(zero).to(name)


def test_cirq_keeps_measurements_parameters_and_names():
    named = cirq.NamedQubit("left"), cirq.NamedQubit("right")
    circuit = cirq.Circuit(cirq.X(named[0]), cirq.I(named[1]), cirq.measure(named[0], key="m"))
    memory = qm.MemoryState.of(cirq.Simulator().simulate(circuit, {"a": 0.5}))
    assert memory.quantum.labels == ("left", "right")
    assert memory.quantum.dtype == np.complex64
    assert memory.classical["measurements"]["m"].tolist() == [1]
    assert memory.classical["parameters"] == {"a": 0.5}
    mixed = cirq.DensityMatrixSimulator().simulate(cirq.Circuit(cirq.depolarize(0.3)(named[0])))
    assert isinstance(qm.MemoryState.of(mixed).quantum, qm.DensityMatrix)


def test_pennylane_snapshots(tmp_path):
    @qml.qnode(qml.device("default.qubit", wires=2))
    def circuit():
        qml.Snapshot("begin")
        qml.Hadamard(0)
        qml.Snapshot()
        return qml.expval(qml.Z(0))

    memory = qm.MemoryState.of(qml.snapshots(circuit)(), "pennylane")
    qm.save(memory, tmp_path / "snapshots.qms")
    found = qm.load(tmp_path / "snapshots.qms").classical
    assert list(found) == ["begin", 1, "execution_results"]
    assert found["begin"] == qm.StateVector([1 + 0j, 0, 0, 0], qubit_order="big")
    assert found[1].amplitudes == pytest.approx(np.array([1, 0, 1, 0]) * 2**-0.5)
    assert found["execution_results"] == pytest.approx(0)


def test_pennylane_wires_may_be_names():
    state = qm.StateVector([0, 1j], qubit_order="big", labels=["left"])
    assert list(qm.MemoryState(state).to("pennylane", wires=state.labels).wires) == ["left"]


def test_qutip_results_of_solvers(tmp_path):
    result = qutip.sesolve(
        qutip.sigmax(), qutip.basis(2, 0), [0, 0.1, 0.2], e_ops={"z": qutip.sigmaz()}, options={"store_states": True}
    )
    qm.save(result, tmp_path / "result.qms")
    memory = qm.load(tmp_path / "result.qms")
    assert memory.to("qutip") == result.final_state
    assert memory.classical["times"].tolist() == [0, 0.1, 0.2]
    assert len(memory.classical["states"]) == 3
    assert memory.classical["expect"]["z"] == pytest.approx(np.cos([0, 0.2, 0.4]), abs=1e-5)
    with pytest.raises(InvalidStateError, match="no state"):
        qm.MemoryState.of(qutip.basis(2, 0).dag())


def test_quimb_keeps_numbers_and_scale():
    network = qtn.MPS_rand_state(5, 3, seed=1)
    network.exponent = 0.5
    found = qm.MemoryState.of(network)
    assert found.quantum.norm() == pytest.approx(10**0.5)
    assert amplitudes(found) == pytest.approx(network.to_dense().ravel(), abs=1e-12)
    plain = qtn.MPS_rand_state(5, 3, seed=1)
    again = qm.MemoryState.of(qm.MemoryState.of(plain).to("quimb"))
    assert again.quantum == qm.MemoryState.of(plain).quantum  # bit for bit
    ring = qtn.MPS_rand_state(5, 3, cyclic=True)
    with pytest.raises(InvalidStateError, match="ring"):
        qm.MemoryState.of(ring)


@pytest.mark.parametrize("kind", [qtn.Circuit, qtn.CircuitMPS, qtn.CircuitPermMPS])
def test_quimb_circuits(kind):
    circuit = kind(4)
    circuit.h(0)
    circuit.cx(0, 3)
    circuit.x(1)
    want = np.zeros(16)
    want[[0b0100, 0b1101]] = 2**-0.5
    assert amplitudes(qm.MemoryState.of(circuit)) == pytest.approx(want, abs=1e-12)


def test_quimb_density_operators_and_single_sites():
    rho = quimb.rand_rho(8)
    assert (qm.MemoryState.of(rho).quantum.matrix == rho).all()
    assert qm.MemoryState.of(quimb.rand_rho(6)).quantum.dims == (6,)
    one = qtn.MPS_computational_state("1")
    assert amplitudes(qm.MemoryState.of(one)).tolist() == [0, 1]
    assert amplitudes(qm.MemoryState.of(qm.MemoryState.of(one).to("quimb"))).tolist() == [0, 1]


@pytest.mark.parametrize("conserve", ["Sz", "parity", None])
@pytest.mark.parametrize("sort", [True, False])
def test_tenpy_sites_with_charges(conserve, sort):
    """TeNPy sorts the basis of such a site; here a digit means the same for all of them."""
    site = SpinHalfSite(conserve=conserve, sort_charge=sort)
    start = MPS.from_product_state([site] * 4, ["up", "down", "down", "up"], bc="finite", unit_cell_width=4)
    memory = qm.MemoryState.of(start)
    assert np.abs(amplitudes(memory)) == pytest.approx(np.eye(16)[0b0110], abs=1e-12)
    again = memory.to("tenpy", sites=site)
    assert abs(again.overlap(start)) == pytest.approx(1, abs=1e-12)
    assert again.expectation_value("Sz") == pytest.approx([0.5, -0.5, -0.5, 0.5])


def test_tenpy_keeps_entanglement_norm_and_form():
    site = SpinHalfSite("Sz", sort_charge=True)
    start = MPS.from_singlets(site, 6, [(0, 3), (1, 2), (4, 5)], bc="finite", unit_cell_width=6)
    start.norm = 0.25
    memory = qm.MemoryState.of(start)
    assert memory.quantum.norm() == pytest.approx(0.25)
    again = memory.to("tenpy", sites=site)
    assert again.norm == pytest.approx(0.25)
    assert again.entanglement_entropy() == pytest.approx(start.entanglement_entropy())
    assert again.norm_test().max() < 1e-12
    with pytest.raises(InvalidStateError, match="TeNPy does not take it"):
        qm.MemoryState(qm.MatrixProductState.from_product([[0.6, 0.8]] * 2)).to("tenpy", sites=site)
    with pytest.raises(InvalidStateError, match="finite"):
        qm.MemoryState.of(MPS.from_product_state([site] * 2, ["up", "down"], bc="infinite", unit_cell_width=2))
    mixed = qm.MemoryState(qm.StateVector(np.eye(6, dtype=complex)[4], qubit_order="big", dims=[2, 3]))
    assert [type(one) for one in mixed.to("tenpy").sites] == [SpinHalfSite, SpinSite]


def test_arrays_of_torch_and_jax(tmp_path):
    array = np.arange(8) + 1j
    for value in (torch.from_numpy(array), jax.numpy.array(array.astype(np.complex64))):
        qm.save(value, tmp_path / "array.qms")
        memory = qm.load(tmp_path / "array.qms")
        assert memory.quantum.qubit_order == "unstated"
        assert (memory.quantum.amplitudes == array).all()
    conjugate = torch.from_numpy(array).conj().requires_grad_()
    assert (qm.MemoryState.of(conjugate).quantum.amplitudes == array.conj()).all()
    state = qm.MemoryState(qm.StateVector(array, qubit_order="little"))
    assert state.to("torch").dtype == torch.complex128
    assert state.to("torch", qubit_order="big")[1] == array[4]
    with pytest.raises(InvalidStateError, match="complex64 of complex128"):
        state.to("jax")
    single = qm.MemoryState(qm.StateVector(array.astype(np.complex64), qubit_order="little"))
    assert (np.asarray(single.to("jax")) == array).all()
    with pytest.raises(InvalidStateError, match="no qubit order"):
        qm.MemoryState(random_mps()).to("torch")


def test_numpy_and_dlpack_see_the_amplitudes_without_a_copy(tmp_path):
    qm.save(PSI, tmp_path / "psi.qms")
    for state in (qm.load(tmp_path / "psi.qms").quantum, qm.load(tmp_path / "psi.qms", mmap=True).quantum):
        assert np.shares_memory(np.asarray(state), state.amplitudes)
        tensor = torch.from_dlpack(state)
        assert tensor.data_ptr() == state.amplitudes.ctypes.data
        assert tensor.tolist() == PSI.data.tolist()
        assert (np.from_dlpack(state) == PSI.data).all()
