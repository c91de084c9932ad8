"""A driven Ising chain with QuTiP, closed or losing energy, which may be killed and goes on where it was.

Without `--damping` it is a ket and `sesolve`, with it a density matrix and `mesolve`. Each step is a solver call of its
own over a short time; printed is the magnetization at the end of it.

    python examples/qutip_drive.py --folder run-drive --steps 200
    python examples/qutip_drive.py --folder run-damped --steps 200 --damping 0.1
"""

from __future__ import annotations

import argparse
import math
from typing import Any

import numpy as np
import qutip

from quantum_memory import CheckpointManager, EverySeconds, EverySteps, KeepEvery, KeepLast, MemoryState

STEP = 0.1  # time in a step
OPTIONS = {"progress_bar": "", "store_final_state": True, "store_states": False, "atol": 1e-10, "rtol": 1e-8}


def at(operator: Any, site: int, sites: int) -> Any:
    """Return an operator of one site as one of all."""
    return qutip.tensor([operator if k == site else qutip.qeye(2) for k in range(sites)])


def drive(t: float) -> float:
    """Return the strength of the field at a time."""
    return 1.0 + 0.5 * math.sin(2 * t)


def solved(chain: dict[str, Any], state: Any, step: int) -> MemoryState:
    """Go on by one step from the end of the one before; return the state, and what was expected on the way."""
    # The time of a step is counted from its number: a sum of many small ones has another last digit.
    times = np.linspace((step - 1) * STEP, step * STEP, 5)
    start = MemoryState(state).to("qutip")
    expected = {"magnetization": chain["magnetization"]}
    if chain["losses"]:
        found = qutip.mesolve(chain["energy"], start, times, chain["losses"], e_ops=expected, options=OPTIONS)
    else:
        found = qutip.sesolve(chain["energy"], start, times, e_ops=expected, options=OPTIONS)
    return MemoryState.of(found)


def main() -> None:
    """Start the evolution, or go on with it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", default="run-drive", help="where the checkpoints are")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--sites", type=int, default=4)
    parser.add_argument("--damping", type=float, default=0.0, help="rate at which a spin falls")
    args = parser.parse_args()

    n = args.sites
    coupling = -sum(at(qutip.sigmaz(), k, n) * at(qutip.sigmaz(), k + 1, n) for k in range(n - 1))
    field = -sum(at(qutip.sigmax(), k, n) for k in range(n))
    chain = {
        "energy": qutip.QobjEvo([coupling, [field, drive]]),
        "magnetization": sum(at(qutip.sigmaz(), k, n) for k in range(n)) / n,
        "losses": [math.sqrt(args.damping) * at(qutip.sigmam(), k, n) for k in range(n)] if args.damping else [],
    }
    up = qutip.basis([2] * n, [0] * n)
    first = MemoryState.of(qutip.ket2dm(up) if args.damping else up).quantum
    run: dict[str, Any] = {"state": first, "times": [], "magnetization": []}
    start = 0

    with CheckpointManager(
        args.folder,
        save=EverySteps(10) | EverySeconds(600),
        keep=KeepLast(3) | KeepEvery("1h"),
        parameters={"damping": args.damping},
    ) as cm:
        found = cm.resume(run)  # the lists are filled, and the state is the one that was saved
        if found is not None:
            start = found.progress
            print(f"goes on after step {start}", flush=True)
        for step in range(start + 1, args.steps + 1):
            memory = solved(chain, run["state"], step)
            run["state"] = memory.quantum
            # The first of a step is the last of the one before.
            run["times"] += memory.classical["times"][1:].tolist()
            run["magnetization"] += memory.classical["expect"]["magnetization"][1:].tolist()
            print(f"step {step:4}  magnetization {run['magnetization'][-1]:+.9f}", flush=True)
            cm.step(run, progress=step)
        if start < args.steps:
            cm.finish(run, progress=args.steps)
    print(f"result {run['magnetization'][-1]!r}")


if __name__ == "__main__":
    main()
