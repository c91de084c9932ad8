"""The ground state of an Ising chain by a variational circuit with PennyLane and Adam; it goes on after a kill.

    python examples/pennylane_vqe.py --folder run-vqe --steps 200

What the next step depends on are the parameters and the three things that Adam keeps: the averages of gradients and of
their squares, and how many steps there were.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
import pennylane as qml
from pennylane import numpy as pnp

from quantum_memory import CheckpointManager, EverySeconds, EverySteps, Functions, KeepBest, KeepLast


def energy_of(sites: int, layers: int) -> Any:
    """Return the energy as a function of the angles, which are of shape (layers, 2, sites)."""
    hamiltonian = qml.sum(
        *(-qml.PauliZ(k) @ qml.PauliZ(k + 1) for k in range(sites - 1)), *(-1.0 * qml.PauliX(k) for k in range(sites))
    )

    def energy(angles: Any) -> Any:
        for layer in range(layers):
            for k in range(sites):
                qml.RY(angles[layer, 0, k], wires=k)
                qml.RZ(angles[layer, 1, k], wires=k)
            for k in range(sites - 1):
                qml.CZ(wires=[k, k + 1])
        return qml.expval(hamiltonian)

    return qml.QNode(energy, qml.device("default.qubit", wires=sites))


class Adam(qml.AdamOptimizer):  # type: ignore[misc]
    """Adam that gives what it has gathered, and takes it back."""

    def saved(self) -> dict[str, Any]:
        """Return the averages as plain arrays, and the number of steps; before the first of these there are none."""
        found = self.accumulation or {"fm": [], "sm": [], "t": 0}
        return {name: value if name == "t" else [np.array(one) for one in value] for name, value in found.items()}

    def restored(self, found: dict[str, Any]) -> None:
        """Take what `saved` returned."""
        self.accumulation = dict(found) if found["t"] else None


def main() -> None:
    """Start the search, or go on with it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", default="run-vqe", help="where the checkpoints are")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--sites", type=int, default=3)
    parser.add_argument("--layers", type=int, default=2)
    args = parser.parse_args()

    energy = energy_of(args.sites, args.layers)
    optimizer = Adam(stepsize=0.1)
    # Plain arrays: a tensor of PennyLane's would be taken for a state. `resume` writes into this one.
    angles = np.random.default_rng(0).normal(scale=0.1, size=(args.layers, 2, args.sites))
    adam = Functions(optimizer.saved, optimizer.restored)
    run: dict[str, Any] = {"angles": angles, "optimizer": adam, "energies": []}
    start = 0

    with CheckpointManager(
        args.folder, save=EverySteps(5) | EverySeconds(300), keep=KeepLast(2) | KeepBest("energy")
    ) as cm:
        found = cm.resume(run)
        if found is not None:
            start = found.progress
            print(f"goes on after step {start}", flush=True)
        for step in range(start + 1, args.steps + 1):
            moved, before = optimizer.step_and_cost(energy, pnp.array(run["angles"], requires_grad=True))
            run["angles"] = np.array(moved)
            run["energies"].append(float(before))  # of the angles that this step began with
            print(f"step {step:4}  energy {run['energies'][-1]:.9f}", flush=True)
            cm.step(run, progress=step, energy=run["energies"][-1])
        if start < args.steps:
            cm.finish(run, progress=args.steps, energy=run["energies"][-1])
    print(f"result {run['energies'][-1]!r}")


if __name__ == "__main__":
    main()
