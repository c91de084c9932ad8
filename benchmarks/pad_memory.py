"""A PAD memory of 27 qubits: encode, save, load, decode."""

from __future__ import annotations

import math
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.harness import Row, medians, rounds
from quantum_memory import QuantumClassicalInterface

if TYPE_CHECKING:
    from collections.abc import Callable

LIMIT_MS = 20.0
SHOTS = 1024
TRIALS = 400


def run(quick: bool) -> list[Row]:
    """Time the four verbs with and without a CNOT chain, and measure how well points come back."""
    rows = []
    folder = Path(tempfile.mkdtemp())
    for entangler in ("none", "cnot_chain"):
        interface = QuantumClassicalInterface(27, entangler=entangler)
        path = folder / "memory.json"
        cases: dict[str, Callable[[], object]] = {
            "encode": partial(interface.encode, [0.76, 0.48, 0.35]),
            "save": partial(interface.save_state, path, durable=False),
            "load": partial(interface.load_state, path),
            "decode": interface.decode,
            "decode, 1024 shots": partial(interface.decode, SHOTS, 7),
        }
        for name, seconds in medians(rounds(cases, 11 if quick else 51)).items():
            milliseconds = 1e3 * seconds
            rows.append(
                Row(f"27 qubits, entangler {entangler}: {name}", f"{milliseconds:.2f} ms", f"<= {LIMIT_MS:.0f} ms",
                    milliseconds <= LIMIT_MS)
            )  # fmt: skip
    rows.append(_round_trip(folder / "round.json"))
    rows.append(_sampled(quick))
    return rows


def _round_trip(path: Path) -> Row:
    rng = np.random.default_rng(1)
    points = [*rng.uniform(-1, 1, (100, 3)), *np.array(np.meshgrid(*[[-1, 0, 1]] * 3)).reshape(3, -1).T]
    worst = 0.0
    interface = QuantumClassicalInterface(27, entangler="cnot_chain")
    for point in points:
        interface.encode(point.tolist())
        interface.save_state(path, durable=False)
        interface.load_state(path)
        worst = max(worst, float(np.abs(np.array(tuple(interface.decode().pad)) - point).max()))
    what = "PAD round trip through encode, save, load, decode: worst error"
    return Row(what, f"{worst:.1e}", "<= 1e-12", worst <= 1e-12)


def _sampled(quick: bool) -> Row:
    rng = np.random.default_rng(2)
    interface = QuantumClassicalInterface(27)
    trials = TRIALS // 4 if quick else TRIALS
    errors = []
    for trial in range(trials):
        point = rng.uniform(-1, 1, 3)
        interface.encode(point.tolist())
        errors.append(np.array(tuple(interface.decode(shots=SHOTS, seed=trial).pad)) - point)
    rmse = float(np.sqrt(np.mean(np.square(errors))))
    theory = 2 / math.pi / math.sqrt(9 * SHOTS)
    what = f"decode from {SHOTS} shots, 9 qubits per axis: RMSE of {trials} points, against 0.637/sqrt(9*{SHOTS})"
    return Row(what, f"{rmse:.5f} = {rmse / theory:.3f} x", "0.95 to 1.05 x", abs(rmse / theory - 1) <= 0.05)
