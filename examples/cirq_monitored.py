"""A noisy circuit with Cirq in which one qubit of each layer is measured; it goes on after a kill, draw for draw.

Gates, noise and outcomes are drawn from one source of random numbers, which is in the checkpoint: the run that goes on
draws what the other would have drawn.

    python examples/cirq_monitored.py --folder run-monitored --steps 200
"""

from __future__ import annotations

import argparse
from typing import Any

import cirq
import numpy as np

from quantum_memory import CheckpointManager, EverySeconds, EverySteps, KeepEvery, KeepLast, MemoryState, StateVector


def layer(qubits: list[Any], step: int, random: np.random.RandomState) -> cirq.Circuit:
    """Return random rotations, a row of gates of two qubits, noise, and a measurement."""
    turns = random.uniform(0, 2 * np.pi, size=(len(qubits), 2))
    circuit = cirq.Circuit(
        [cirq.rx(a)(qubit), cirq.rz(b)(qubit)] for qubit, (a, b) in zip(qubits, turns.tolist(), strict=True)
    )
    circuit.append(cirq.CZ(a, b) for a, b in zip(qubits[step % 2 :: 2], qubits[step % 2 + 1 :: 2], strict=False))
    circuit.append(cirq.depolarize(0.01).on_each(*qubits))
    circuit.append(cirq.measure(qubits[step % len(qubits)], key="outcome"))
    return circuit


def main() -> None:
    """Start the run, or go on with it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", default="run-monitored", help="where the checkpoints are")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--sites", type=int, default=8)
    args = parser.parse_args()

    qubits = cirq.LineQubit.range(args.sites)
    zero = np.zeros(2**args.sites, np.complex64)  # as Cirq computes, and as it is saved
    zero[0] = 1
    random = np.random.RandomState(7)  # of the kind that Cirq takes
    state = StateVector(zero, qubit_order="big", labels=[str(qubit) for qubit in qubits])
    run: dict[str, Any] = {"state": state, "random": random, "outcomes": [], "entropy": []}
    # By default Cirq takes a measured qubit out of the state, and what is left has other last digits from run to run.
    simulator = cirq.Simulator(seed=random, dtype=np.complex64, split_untangled_states=False)
    start = 0

    with CheckpointManager(
        args.folder,
        save=EverySteps(10) | EverySeconds(600),
        keep=KeepLast(3) | KeepEvery("1h"),
    ) as cm:
        found = cm.resume(run)  # the source of random numbers in place: the simulator has the same one
        if found is not None:
            start = found.progress
            print(f"goes on after step {start}", flush=True)
        for step in range(start + 1, args.steps + 1):
            result = simulator.simulate(
                layer(qubits, step, random), initial_state=MemoryState(run["state"]).to("cirq"), qubit_order=qubits
            )
            memory = MemoryState.of(result)
            run["state"] = memory.quantum
            run["outcomes"].append(int(memory.classical["measurements"]["outcome"][0]))
            run["entropy"].append(run["state"].entropy(args.sites // 2))
            print(f"step {step:4}  outcome {run['outcomes'][-1]}  entropy {run['entropy'][-1]:.6f}", flush=True)
            cm.step(run, progress=step, entropy=run["entropy"][-1])
        if start < args.steps:
            cm.finish(run, progress=args.steps)
    print(f"result {run['entropy'][-1]!r} {run['state'].dtype} {''.join(map(str, run['outcomes'][-20:]))}")


if __name__ == "__main__":
    main()
