"""A state of 5 qubits on tmpfs: what a save costs when there is next to nothing to save."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

import quantum_memory as qm
from benchmarks.harness import Row, medians, repeated, rounds

REPEATS = 100


def run(quick: bool) -> list[Row]:
    """Time save, load and QMS export of one state, and of an interface that has lived a little."""
    shm = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(dir=shm if shm.is_dir() else None))
    rng = np.random.default_rng(5)
    amplitudes = rng.standard_normal(32) + 1j * rng.standard_normal(32)
    state = qm.StateVector(amplitudes / np.linalg.norm(amplitudes), qubit_order="big")
    interface = qm.QuantumClassicalInterface(5)
    interface.encode([0.76, 0.48, 0.35])
    interface.decode(shots=1024, seed=7)
    handler = qm.BinaryFormatHandler(qm.BinaryFormatHandler.COMPRESS_LZ4)
    json, qms, whole = folder / "state.json", folder / "state.qms", folder / "interface.json"
    np_file = folder / "state.npy"
    cases = {
        ("state, JSON: save", 0.5): lambda: qm.save(state, json),
        ("state, JSON: load", 0.3): lambda: qm.load(json),
        ("state, QMS: export", 0.2): lambda: handler.write(qms, state),
        ("state, QMS: load", 0.3): lambda: handler.read(qms),
        ("interface: save_state", 0.5): lambda: interface.save_state(whole),
        ("interface: load_state", 0.3): lambda: interface.load_state(whole),
        ("beside them: np.save, no checksum, no fsync", None): lambda: np.save(np_file, state.amplitudes),
    }
    named = {name: repeated(case, REPEATS) for (name, _), case in cases.items()}
    found = medians(rounds(named, 5 if quick else 15))
    rows = []
    for name, limit in cases:
        milliseconds = 1e3 * found[name] / REPEATS
        reach = "" if limit is None else f"<= {limit} ms"
        rows.append(Row(f"5 qubits, {name}", f"{milliseconds:.3f} ms", reach, limit is None or milliseconds <= limit))
    size = qms.stat().st_size
    rows.append(Row("5 qubits complex128 (512 bytes raw), QMS: bytes on disk", f"{size}", "<= 1024", size <= 1024))
    return rows
