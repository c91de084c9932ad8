"""What each library does with a state: take it from us into its own simulator, and give back what it has."""

import warnings

import numpy as np

import quantum_memory as qm

with warnings.catch_warnings():  # of what they import themselves
    warnings.simplefilter("ignore")
    import cirq
    import pennylane as qml
    from qiskit import QuantumCircuit
    from qiskit_aer import AerSimulator


def through_aer(instruction, n):
    """Run a circuit that sets the state, and return the result with what was saved."""
    circuit = QuantumCircuit(n)
    circuit.append(instruction, range(n))
    if instruction.name == "set_matrix_product_state":
        circuit.save_matrix_product_state()
        return AerSimulator(method="matrix_product_state").run(circuit).result()
    if instruction.name == "set_density_matrix":
        circuit.save_density_matrix()
        return AerSimulator(method="density_matrix").run(circuit).result()
    circuit.save_statevector()
    return AerSimulator(method="statevector").run(circuit).result()


def through_cirq(state, n):
    """Simulate a circuit that does nothing, beginning with the state."""
    qubits = cirq.LineQubit.range(n)
    idle = cirq.Circuit(cirq.I.on_each(*qubits))
    kind = cirq.DensityMatrixSimulator if isinstance(state, np.ndarray) else cirq.Simulator
    return kind(dtype=np.complex128).simulate(idle, initial_state=state, qubit_order=qubits)


def through_pennylane(operation, n):
    """Prepare the state on a device; the array that comes back says nothing of where it is from."""
    mixed = operation.name == "QubitDensityMatrix"

    @qml.qnode(qml.device("default.mixed" if mixed else "default.qubit", wires=n))
    def circuit():
        qml.apply(operation)
        return qml.density_matrix(range(n)) if mixed else qml.state()

    return qm.MemoryState.of(np.asarray(circuit()), "pennylane")


THROUGH = {"aer": through_aer, "cirq": through_cirq, "pennylane": through_pennylane}


def through(name, value, n):
    """Return what a library makes of a value that is for it: the value itself, where nothing runs it."""
    return THROUGH[name](value, n) if name in THROUGH else value


def passed(memory, *names, **options):
    """Return a memory that has been through some libraries, one after another."""
    for name in names:
        memory = qm.MemoryState.of(through(name, memory.to(name, **options), len(memory.quantum.dims)))
    return memory


def amplitudes(memory):
    """Return the amplitudes of a memory, site 0 first."""
    state = memory.quantum
    dense = state.reordered("big") if isinstance(state, qm.StateVector) else state.to_dense(qubit_order="big")
    return dense.amplitudes


def overlap(one, other):
    return abs(np.vdot(amplitudes(one), amplitudes(other)))
