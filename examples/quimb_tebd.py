"""A Néel state of a Heisenberg chain in time, by TEBD with quimb: it may be killed and goes on where it was.

Each step is an evolution of its own over a short time, from the tensors of the one before. Printed are the
magnetization of the first site, the entanglement entropy in the middle, and what has been cut off so far.

    python examples/quimb_tebd.py --folder run-tebd --steps 100
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
import quimb.tensor as qtn

from quantum_memory import CheckpointManager, EverySeconds, EverySteps, KeepEvery, KeepLast, MemoryState

Z = np.diag([0.5, -0.5])
STEP = 0.1  # time in a step


def evolved(hamiltonian: qtn.LocalHam1D, state: Any, bond: int) -> tuple[Any, float]:
    """Return a state after one step, and how much of it was cut off.

    A new `TEBD` for every step depends on nothing but the tensors: what the last one had beside them is not needed.
    """
    tebd = qtn.TEBD(MemoryState(state).to("quimb"), hamiltonian, dt=STEP / 2, progbar=False)
    tebd.split_opts.update(cutoff=1e-10, max_bond=bond)
    tebd.update_to(STEP, order=2)
    return MemoryState.of(tebd.pt).quantum, float(tebd.err)


def main() -> None:
    """Start the evolution, or go on with it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", default="run-tebd", help="where the checkpoints are")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--sites", type=int, default=10)
    parser.add_argument("--bond", type=int, default=16, help="the largest bond dimension")
    args = parser.parse_args()

    hamiltonian = qtn.ham_1d_heis(args.sites)
    first = MemoryState.of(qtn.MPS_neel_state(args.sites, dtype="complex128")).quantum
    run: dict[str, Any] = {"state": first, "magnetization": [], "entropy": [], "error": 0.0}
    start = 0

    with CheckpointManager(
        args.folder,
        save=EverySteps(5) | EverySeconds(600),
        keep=KeepLast(3) | KeepEvery("1h"),
        parameters={"bond": args.bond},
    ) as cm:
        found = cm.resume(run)
        if found is not None:
            start = found.progress
            print(f"goes on after step {start}", flush=True)
        for step in range(start + 1, args.steps + 1):
            run["state"], error = evolved(hamiltonian, run["state"], args.bond)
            run["error"] += error
            run["magnetization"].append(run["state"].expectation(Z, [0]).real)
            run["entropy"].append(run["state"].entropy(args.sites // 2))
            print(
                f"step {step:4}  magnetization {run['magnetization'][-1]:+.6f}  entropy {run['entropy'][-1]:.6f}"
                f"  bond {run['state'].max_bond_dim:3}  error {run['error']:.2e}",
                flush=True,
            )
            cm.step(run, progress=step, entropy=run["entropy"][-1])
        if start < args.steps:
            cm.finish(run, progress=args.steps)
    print(f"result {run['magnetization'][-1]!r} {run['entropy'][-1]!r} {run['error']!r}")


if __name__ == "__main__":
    main()
