"""A quench of the transverse-field Ising chain with Qiskit Aer, which may be killed and goes on where it was.

All spins point up, then the field is switched on. Second-order Trotter steps of H = -J sum Z Z - h sum X; printed are
the magnetization and the entanglement entropy of the two halves.

    python examples/aer_quench.py --folder run-quench --steps 400
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
from qiskit import QuantumCircuit
from qiskit_aer import AerSimulator

from quantum_memory import CheckpointManager, EverySeconds, EverySteps, KeepEvery, KeepLast, StateVector

Z = np.diag([1.0, -1.0])


def trotter_step(sites: int, coupling: float, field: float, dt: float) -> QuantumCircuit:
    """Return the gates of one step; the error of the whole evolution is of order dt squared."""
    circuit = QuantumCircuit(sites)
    for site in range(sites):
        circuit.rx(-field * dt, site)
    for site in range(sites - 1):
        circuit.rzz(-2 * coupling * dt, site, site + 1)
    for site in range(sites):
        circuit.rx(-field * dt, site)
    return circuit


def evolved(simulator: AerSimulator, state: StateVector, gates: QuantumCircuit) -> StateVector:
    """Return a state after some gates."""
    circuit = QuantumCircuit(state.n_qubits)
    circuit.set_statevector(state.amplitudes)
    circuit.compose(gates, inplace=True)
    circuit.save_statevector()
    found = simulator.run(circuit).result().get_statevector()
    return StateVector(np.array(found), qubit_order="little")  # as Qiskit counts them


def main() -> None:
    """Start the evolution, or go on with it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", default="run-quench", help="where the checkpoints are")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--sites", type=int, default=10)
    parser.add_argument("--every", type=int, default=20, help="steps between checkpoints")
    args = parser.parse_args()

    # What is saved is a plain tree: the state, and what was measured on the way.
    up = np.zeros(2**args.sites, np.complex128)
    up[0] = 1
    run: dict[str, Any] = {"state": StateVector(up, qubit_order="little"), "magnetization": [], "entropy": []}
    start = 0
    gates = trotter_step(args.sites, coupling=1.0, field=1.0, dt=0.02)
    simulator = AerSimulator(method="statevector")

    with CheckpointManager(
        args.folder,
        save=EverySteps(args.every) | EverySeconds(600),
        keep=KeepLast(3) | KeepEvery("1h"),
    ) as cm:
        found = cm.resume(run)
        if found is not None:
            start = found.progress
            print(f"goes on after step {start}", flush=True)
        for step in range(start + 1, args.steps + 1):
            state = evolved(simulator, run["state"], gates)
            magnetization = sum(state.expectation(Z, [site]).real for site in range(args.sites)) / args.sites
            entropy = state.entropy(args.sites // 2)
            run["state"] = state
            run["magnetization"].append(magnetization)
            run["entropy"].append(entropy)
            print(f"step {step:4}  magnetization {magnetization:+.6f}  entropy {entropy:.6f}", flush=True)
            cm.step(run, progress=step, entropy=entropy)
        if start < args.steps:
            cm.finish(run, progress=args.steps)
    print(f"result {run['magnetization'][-1]!r} {run['entropy'][-1]!r}")


if __name__ == "__main__":
    main()
