"""Circuits that others wrote (MQT Bench): simulated, saved, verified, packed with a certificate, given to every library.

Quetschlich, Burgholzer, Wille, "MQT Bench: Benchmarking Software and Design Automation Tools for Quantum Computing",
Quantum 7, 1062 (2023).
"""

from __future__ import annotations

import shutil
import tempfile
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import quantum_memory as qm
from benchmarks.harness import Row
from benchmarks.tables import Table

if TYPE_CHECKING:
    from collections.abc import Callable

_FIDELITY = 0.9999
_ROUNDING = 1e-12  # of the fidelity that is measured
_SEED = 7
_EVERYWHERE = 16
"""Qubits up to which a state goes to TeNPy, too: to become a matrix product state takes the cube of the bond."""

CIRCUITS = {
    "ghz": "GHZ state",
    "wstate": "W state",
    "graphstate": "graph state",
    "bv": "Bernstein-Vazirani",
    "dj": "Deutsch-Jozsa",
    "qft": "quantum Fourier transform of zeros",
    "qftentangled": "the same, of a GHZ state",
    "qpeexact": "phase estimation, exact",
    "qpeinexact": "phase estimation, inexact",
    "ae": "amplitude estimation",
    "grover": "Grover's search",
    "qwalk": "quantum walk",
    "qaoa": "QAOA",
    "vqe_real_amp": "VQE, real amplitudes",
    "vqe_su2": "VQE, SU(2)",
    "qnn": "quantum neural network",
    "randomcircuit": "random circuit",
}
_SIZES = (10, 16, 20)
_LARGE = dict.fromkeys(("ghz", "wstate", "graphstate", "qft", "qpeexact", "vqe_real_amp"), (*_SIZES, 24))
_DEEP = {"grover": (10, 12), "qwalk": (10, 12)}  # whose gates grow exponentially with the qubits


def run(quick: bool) -> list[Row | Table]:
    """Put each circuit through everything."""
    folder = Path(tempfile.mkdtemp(dir=Path.cwd(), prefix="qmem-bench-"))
    lines, worst, least = [], 1.0, 1.0
    try:
        for name, title in CIRCUITS.items():
            for qubits in (10,) if quick else {**_LARGE, **_DEEP}.get(name, _SIZES):
                cells, overlap, fidelity = _put_through(name, title, qubits, folder)
                lines.append(cells)
                worst, least = min(worst, overlap), min(least, fidelity)
                print(*cells, sep=" | ", flush=True)
    finally:
        shutil.rmtree(folder)
    columns = (
        "circuit", "qubits", "gates", "simulated", "saved", "bytes", "ratio", "verified", "loaded",
        f"bytes at F >= {_FIDELITY}", "ratio", "fidelity measured", "least overlap in other libraries",
    )  # fmt: skip
    return [
        Row(
            "least overlap of a state in any other library", f"1 - {1 - worst:.1e}", ">= 1 - 1e-12", worst >= 1 - 1e-12
        ),
        Row("least fidelity of what was packed with loss", f"{least:.6f}", f">= {_FIDELITY}", least >= _FIDELITY),
        Table("each circuit", columns, lines),
    ]


def _put_through(name: str, title: str, qubits: int, folder: Path) -> tuple[list[str], float, float]:
    gates, result, simulated = _simulated(name, qubits)
    file, packed = folder / f"{name}.qms", folder / f"{name}-packed.qms"
    _, saved = _timed(lambda: qm.save(result, file))
    _, verified = _timed(lambda: qm.verify(file))  # which raises what is wrong
    memory, loaded = _timed(lambda: qm.load(file))
    original = qm.MemoryState.of(result).quantum
    assert memory.quantum == original  # bit for bit
    qm.save(memory, packed, fidelity=_FIDELITY)
    given = qm.load(packed).quantum
    assert not isinstance(given, qm.Operator | None)
    assert not isinstance(original, qm.Operator | None)
    fidelity = qm.metrics.fidelity(original, given)
    if certificate := qm.info(packed)["compression"].get("certificate"):
        assert 1 - fidelity <= certificate["infidelity"] + _ROUNDING
    raw = original.nbytes
    overlap = min(_overlaps(memory, qubits).values())
    cells = [
        title, str(qubits), f"{gates:,}", _seconds(simulated), _seconds(saved), f"{file.stat().st_size:,}",
        f"{raw / file.stat().st_size:,.1f}", _seconds(verified), _seconds(loaded), f"{packed.stat().st_size:,}",
        f"{raw / packed.stat().st_size:,.1f}", f"1 - {max(0.0, 1 - fidelity):.1e}", f"1 - {max(0.0, 1 - overlap):.0e}",
    ]  # fmt: skip
    file.unlink()
    packed.unlink()
    return cells, overlap, fidelity


def _simulated(name: str, qubits: int) -> tuple[int, Any, float]:
    """Return how many gates a circuit has, Aer's result, and how long that took."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from mqt.bench import BenchmarkLevel, get_benchmark
        from qiskit import transpile
        from qiskit_aer import AerSimulator

        simulator = AerSimulator(method="statevector", seed_simulator=_SEED)
        circuit = get_benchmark(name, BenchmarkLevel.ALG, qubits).remove_final_measurements(inplace=False)
        if circuit.parameters:
            drawn = np.random.default_rng(_SEED).uniform(0, 2 * np.pi, len(circuit.parameters))
            circuit = circuit.assign_parameters(drawn)
        circuit = transpile(circuit, simulator, optimization_level=0, seed_transpiler=_SEED)
    gates = circuit.size()
    circuit.save_statevector()
    result, seconds = _timed(lambda: simulator.run(circuit).result())
    assert result.success, result.status
    return gates, result, seconds


def _overlaps(memory: qm.MemoryState, qubits: int) -> dict[str, float]:
    """Return the overlap of a state with what each library has of it, as that library gives it out."""
    assert isinstance(memory.quantum, qm.StateVector)
    n = qubits
    little = memory.quantum.reordered("little").amplitudes
    big = memory.quantum.reordered("big").amplitudes

    def with_big(found: Any) -> float:
        return float(abs(np.vdot(np.asarray(found).reshape(-1), big)))

    def with_little(found: Any) -> float:
        return float(abs(np.vdot(np.asarray(found).reshape(-1), little)))

    ways: dict[str, Callable[[], float]] = {
        "qiskit": lambda: with_little(memory.to("qiskit").data),
        "aer": lambda: with_little(memory.to("aer").params[0]),
        "qulacs": lambda: with_little(memory.to("qulacs").get_vector()),
        "cirq": lambda: with_big(memory.to("cirq").state_vector()),
        "pennylane": lambda: with_big(memory.to("pennylane").state_vector(wire_order=range(n))),
        "qutip": lambda: with_big(memory.to("qutip").full()),
        "quimb": lambda: with_big(memory.to("quimb")),
    }
    if qubits <= _EVERYWHERE:
        ways["tenpy"] = lambda: with_big(memory.to("tenpy").get_theta(0, n).to_ndarray())
        ways["quimb, as a matrix product state"] = lambda: with_big(memory.to("quimb", mps=True).to_dense())
    return {name: way() for name, way in ways.items()}


def _timed(work: Callable[[], Any]) -> tuple[Any, float]:
    start = time.perf_counter()
    made = work()
    return made, time.perf_counter() - start


def _seconds(value: float) -> str:
    return f"{value * 1e3:.0f} ms" if value < 1 else f"{value:.1f} s"
