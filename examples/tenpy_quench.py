"""A quench of an XXZ chain as a `Simulation` of TeNPy, which may be killed and goes on where it was.

The Néel state evolves by TEBD, with a conserved magnetization. TeNPy measures after every step, and at each of its
checkpoints it is saved if it is time to; the measurements of the whole run are in the results.

    python examples/tenpy_quench.py --folder run-tebd --steps 100
"""

from __future__ import annotations

import argparse
from typing import Any

from tenpy.simulations.time_evolution import RealTimeEvolution

from quantum_memory import CheckpointManager, EverySeconds, EverySteps, KeepEvery, KeepLast
from quantum_memory.interop.tenpy_simulation import run_simulation

STEP = 0.05  # time between two measurements


def imbalance(results: dict[str, Any], psi: Any, **_: Any) -> None:
    """Measure how much of the order of the Néel state is left: TeNPy calls it after every step."""
    spins = psi.expectation_value("Sz")
    results["imbalance"] = 2 * float(sum(spins[::2]) - sum(spins[1::2])) / len(spins)
    print(f"step {results['measurement_index']:4}  imbalance {results['imbalance']:+.9f}", flush=True)


def main() -> None:
    """Start the evolution, or go on with it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", default="run-tebd", help="where the checkpoints are")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--sites", type=int, default=10)
    parser.add_argument("--every", type=int, default=10, help="steps between checkpoints")
    args = parser.parse_args()

    options = {
        "model_class": "XXZChain",
        "model_params": {"L": args.sites, "Jxx": 1.0, "Jz": 0.5, "hz": 0.0, "bc_MPS": "finite", "sort_charge": True},
        "initial_state_params": {"method": "lat_product_state", "product_state": [["up"], ["down"]]},
        "algorithm_class": "TEBDEngine",
        "algorithm_params": {"dt": STEP, "N_steps": 1, "order": 2, "trunc_params": {"chi_max": 24, "svd_min": 1e-8}},
        "connect_measurements": [(__name__, "imbalance")],
        "final_time": args.steps * STEP,
    }
    with CheckpointManager(
        args.folder,
        save=EverySteps(args.every) | EverySeconds(600),
        keep=KeepLast(3) | KeepEvery("1h"),
    ) as cm:
        newest = cm.list_checkpoints()
        if newest:
            print(f"goes on after step {newest[0]['progress']}", flush=True)
        results = run_simulation(RealTimeEvolution, options, cm)
    measured = results["measurements"]
    last = [float(measured[name][-1]) for name in ("evolved_time", "imbalance", "eps_error")]
    print(f"result {last!r} of {len(measured['imbalance'])} measurements")


if __name__ == "__main__":
    main()
