"""A Haar state, which nothing makes smaller but loss: how far from the Shannon bound each form is."""

from __future__ import annotations

import tempfile
from pathlib import Path

import quantum_memory as qm
from benchmarks.compression.corpus import at_most, best_of
from benchmarks.compression.lossy import LOSSY_EFFORTS, true_infidelity
from benchmarks.families import state
from benchmarks.harness import Row
from benchmarks.tables import Table
from quantum_memory.cli import bench_peers
from quantum_memory.cli.bench_measure import ours, reals_of, shannon

_INFIDELITIES = tuple(10.0**-k for k in range(2, 11))
_MOST = {"balanced": 0.30, "max": 0.13}


def run(quick: bool) -> list[Row | Table]:
    """Measure in double precision."""
    qubits = 16 if quick else 20
    array = state("haar", qubits)
    given = qm.StateVector(array, qubit_order="little")
    reals = reals_of(array)
    lines = []
    above: dict[str, dict[str, float]] = {effort: {} for effort in LOSSY_EFFORTS}
    kept = 0
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "state.qms")
        for asked in _INFIDELITIES:
            cells = []
            for effort in LOSSY_EFFORTS:
                point = ours(given, path, effort, asked)
                loaded = qm.load(path).quantum
                true = true_infidelity(array, loaded.amplitudes) if isinstance(loaded, qm.StateVector) else 1.0
                kept += true <= point.infidelity <= asked * (1 + 1e-5)  # 1 - F was asked for as F
                gap = point.bits_per_real - shannon(asked)
                if asked <= 1.5e-4:
                    above[effort][f"1-F = {asked:.0e}"] = gap
                cells += [f"{point.bits_per_real:.3f}", f"{gap:.3f}", f"{point.infidelity:.4g}"]
            others = {name: coded.nbytes for name, coded in bench_peers.lossy(array, asked).items()}
            lines.append([f"{asked:.0e}", f"{shannon(asked):.3f}", *cells, best_of(others, reals)])
    columns = ["1-F asked for", "Shannon"]
    for effort in LOSSY_EFFORTS:
        columns += [effort, "above", "certified"]
    casts = [
        [name, f"{8 * coded.nbytes / reals:.0f}", f"{coded.infidelity:.2g}", f"{shannon(coded.infidelity):.2f}"]
        for name, coded in bench_peers.casts(array).items()
    ]
    what = f"Haar, complex128, n = {qubits}"
    files = 2 * len(_INFIDELITIES)
    return [
        Table("rate", [*columns, "best of others"], lines),
        Table("casts", ("cast to", "b/real", "1-F", "Shannon at this 1-F"), casts),
        Row(f"{what}: true infidelity <= certified <= asked for", f"{kept} of {files} files", "all", kept == files),
        *(
            at_most(f"{what}, 1-F from 1e-4 to 1e-10, {effort}: above the Shannon bound", above[effort], most, "b/real")
            for effort, most in _MOST.items()
        ),
    ]
