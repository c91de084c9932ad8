"""What is said beside a state of how it was made: the circuit, versions, the seed, the commit, the machine."""

import platform
import subprocess

import cirq
import numpy as np
import pennylane as qml
import pytest
import qulacs
import stim
from qiskit import QuantumCircuit
from qiskit.quantum_info import Statevector

import quantum_memory as qm
from quantum_memory.errors import InvalidStateError, MissingError
from quantum_memory.interop.circuits import dump_circuit, load_circuit

QUBITS = cirq.LineQubit.range(2)
BELL = QuantumCircuit(2)
BELL.h(0)
BELL.cx(0, 1)


def test_a_circuit_stays_beside_its_state(tmp_path):
    metadata = {"provenance": qm.provenance(circuit=BELL, seed=7)}
    qm.save(qm.MemoryState(qm.MemoryState.of(Statevector(BELL)).quantum, metadata=metadata), tmp_path / "bell.qms")
    memory = qm.load(tmp_path / "bell.qms")
    assert qm.circuit_of(memory) == BELL
    assert Statevector(qm.circuit_of(memory)).equiv(memory.to("qiskit"))
    said = memory.metadata["provenance"]
    assert said["seed"] == 7
    assert said["circuit"]["format"] == "qpy"
    assert said["circuit"]["version"].isdigit()
    assert said["circuit"]["library"].startswith("qiskit ")
    assert said["libraries"]["numpy"] == np.__version__
    assert said["libraries"]["python"] == platform.python_version()
    assert {"git", "host"}.isdisjoint(said)  # nobody asked


@pytest.mark.parametrize("suffix", ["json", "h5", "npz", "msgpack"])
def test_in_every_format(tmp_path, suffix):
    memory = qm.MemoryState(np.eye(4, dtype=complex)[0], metadata={"provenance": qm.provenance(circuit=BELL)})
    qm.save(memory, tmp_path / f"bell.{suffix}")
    assert qm.circuit_of(qm.load(tmp_path / f"bell.{suffix}")) == BELL


def qulacs_circuit():
    made = qulacs.QuantumCircuit(2)
    made.add_H_gate(0)
    made.add_CNOT_gate(0, 1)
    return made


@pytest.mark.parametrize(
    ("circuit", "name", "alike"),
    [
        (cirq.Circuit(cirq.H(QUBITS[0]), cirq.CNOT(*QUBITS)), "cirq-json", lambda a, b: a == b),
        (stim.Circuit("H 0\nCX 0 1"), "stim", lambda a, b: a == b),
        (qulacs_circuit(), "qulacs-json", lambda a, b: a.to_json() == b.to_json()),
        ("// a comment\nOPENQASM 3.0;\nqubit[2] q;\n", "openqasm", lambda a, b: a == b),
        ("OPENQASM 2.0;\nqreg q[2];\n", "openqasm", lambda a, b: a == b),
    ],
)  # fmt: skip
def test_circuits_of_other_libraries(circuit, name, alike):
    stored = dump_circuit(circuit)
    assert stored["format"] == name
    assert alike(load_circuit(stored), circuit)


def test_a_tape_of_pennylane_becomes_openqasm():
    tape = qml.tape.QuantumScript([qml.Hadamard(0), qml.CNOT([0, 1])], [qml.state()])
    text = load_circuit(dump_circuit(tape))
    assert Statevector(QuantumCircuit.from_qasm_str(text).remove_final_measurements(inplace=False)) == Statevector(BELL)


def test_what_is_no_circuit_or_cannot_be_read():
    with pytest.raises(InvalidStateError, match="not OpenQASM"):
        dump_circuit("H 0")
    with pytest.raises(InvalidStateError, match="no circuit"):
        dump_circuit(object())
    with pytest.raises(InvalidStateError, match="cannot be read"):
        load_circuit(dump_circuit(BELL) | {"data": b"QISKIT and nothing more"})
    with pytest.raises(MissingError, match="not read here"):
        load_circuit({"format": "punched cards", "data": b""})
    with pytest.raises(MissingError, match="no circuit"):
        qm.circuit_of(qm.MemoryState(classical={"a": 1}))


def test_the_commit_and_whether_anything_was_changed(tmp_path):
    def git(*arguments):
        subprocess.run(["git", "-C", tmp_path, "-c", "user.name=a", "-c", "user.email=a@b", *arguments], check=True)

    with pytest.raises(InvalidStateError, match="git does not say"):
        qm.provenance(git=tmp_path)
    git("init", "-q")
    (tmp_path / "run.py").write_text("1")
    git("add", "run.py")
    git("commit", "-qm", "one")
    (tmp_path / "notes").write_text("that nobody tracks")
    said = qm.provenance(git=tmp_path)["git"]
    assert len(said["commit"]) == 40
    assert said["changed"] is False
    (tmp_path / "run.py").write_text("2")
    assert qm.provenance(git=tmp_path)["git"] == {"commit": said["commit"], "changed": True}


def test_the_machine_when_it_is_asked_for():
    assert qm.provenance(host=True, libraries=False)["host"]["name"] == platform.node()
    assert qm.provenance(libraries=False) == {}


@pytest.mark.parametrize("name", [["qpy"], {}, None, 3])
def test_a_format_that_is_no_name_is_not_read(name):
    memory = qm.MemoryState(classical=1, metadata={"provenance": {"circuit": {"format": name, "data": b""}}})
    with pytest.raises(MissingError, match="not read here"):
        qm.circuit_of(memory)


def test_a_circuit_is_that_of_a_memory(tmp_path):
    with pytest.raises(InvalidStateError, match="no memory"):
        qm.circuit_of(tmp_path / "psi.qms")
