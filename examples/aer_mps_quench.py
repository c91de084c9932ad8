"""A quench of a long Ising chain as a matrix product state in Qiskit Aer, which may be killed and goes on where it was.

Like `aer_quench.py`, without a vector of all amplitudes: forty spins are no matter. Printed are the magnetization, the
entanglement entropy in the middle, and the bond dimension.

    python examples/aer_mps_quench.py --folder run-mps --steps 100
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
from qiskit import QuantumCircuit
from qiskit_aer import AerSimulator

from quantum_memory import (
    CheckpointManager,
    EverySeconds,
    EverySteps,
    KeepEvery,
    KeepLast,
    MatrixProductState,
    MemoryState,
)

Z = np.diag([1.0, -1.0])


def trotter_step(sites: int, coupling: float, field: float, dt: float) -> QuantumCircuit:
    """Return the gates of one step; the error of the whole evolution is of order dt squared."""
    circuit = QuantumCircuit(sites)
    circuit.rx(-field * dt, range(sites))
    for site in range(sites - 1):
        circuit.rzz(-2 * coupling * dt, site, site + 1)
    circuit.rx(-field * dt, range(sites))
    return circuit


def evolved(simulator: AerSimulator, state: Any, gates: QuantumCircuit) -> Any:
    """Return a state after some gates; from Aer's own form, and into it again."""
    circuit = QuantumCircuit(gates.num_qubits)
    circuit.append(MemoryState(state).to("aer"), range(gates.num_qubits))  # set_matrix_product_state
    circuit.compose(gates, inplace=True)
    circuit.save_matrix_product_state()
    return MemoryState.of(simulator.run(circuit).result()).quantum


def main() -> None:
    """Start the evolution, or go on with it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", default="run-mps", help="where the checkpoints are")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--sites", type=int, default=16)
    parser.add_argument("--bond", type=int, default=16, help="the largest bond dimension")
    args = parser.parse_args()

    up = MatrixProductState.from_product([[1.0 + 0j, 0.0]] * args.sites)
    run: dict[str, Any] = {"state": up, "magnetization": [], "entropy": []}
    start = 0
    gates = trotter_step(args.sites, coupling=1.0, field=1.0, dt=0.05)
    simulator = AerSimulator(
        method="matrix_product_state",
        matrix_product_state_max_bond_dimension=args.bond,
        matrix_product_state_truncation_threshold=1e-12,
    )

    with CheckpointManager(
        args.folder,
        save=EverySteps(10) | EverySeconds(600),
        keep=KeepLast(3) | KeepEvery("1h"),
        parameters={"bond": args.bond},
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
            print(
                f"step {step:4}  magnetization {magnetization:+.6f}  entropy {entropy:.6f}  bond {state.max_bond_dim}",
                flush=True,
            )
            cm.step(run, progress=step, entropy=entropy)
        if start < args.steps:
            cm.finish(run, progress=args.steps)
    print(f"result {run['magnetization'][-1]!r} {run['entropy'][-1]!r}")


if __name__ == "__main__":
    main()
