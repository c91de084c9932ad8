"""Vectors of 1 GiB: how long saving, loading and choosing take beside plain files, and how much memory."""

from __future__ import annotations

import os
import shutil
import statistics
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import quantum_memory as qm
from benchmarks.compression.corpus import at_most
from benchmarks.harness import Row, extra_memory, medians, rounds
from quantum_memory.state.arrays import CHUNK_BYTES, worker_count

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import BinaryIO

    from numpy.typing import NDArray

_PAD = (0.76, 0.48, 0.35)
_BESIDE = 64 << 20
"""Bytes beside the state that saving may take, and a chunk for each core."""

_CHILD = """
import re, threading
import numpy as np, quantum_memory as qm
import quantum_memory.formats.verbs
def anonymous():
    with open('/proc/self/status') as file:
        return int(re.search(r'RssAnon:\\s+([0-9]+)', file.read())[1]) << 10
def setup():
    a = np.random.default_rng(27).standard_normal(2 << {qubits}, dtype=np.float32).view(np.complex64)
    return qm.StateVector(a, qubit_order='big')
def work(prepared):
    before, most, done = anonymous(), [0], threading.Event()
    def watch():
        while not done.wait(0.01):
            most[0] = max(most[0], anonymous() - before)
    watcher = threading.Thread(target=watch)
    watcher.start()
    qm.save(prepared, {path!r}, fidelity=1 - 1e-4, effort={effort!r})
    done.set()
    watcher.join()
    with open({report!r}, 'w') as file:
        file.write(str(most[0]))
"""


def run(quick: bool) -> list[Row]:
    """Measure structured vectors, then a Haar state, in single precision."""
    qubits = 22 if quick else 27
    folder = Path(tempfile.mkdtemp(dir=Path.cwd()))
    try:
        return [
            *structured(folder, qubits),
            *quantised(folder, qubits),
            *choosing(folder, qubits),
            *memory(folder, qubits),
        ]
    finally:
        shutil.rmtree(folder)


def structured(folder: Path, qubits: int) -> list[Row]:
    """Save a product state and a GHZ state, given as vectors, with a fidelity."""
    product = qm.PADEncoding(qubits).encode(_PAD).astype(np.complex64).to_dense(qubit_order="big")
    ghz = np.zeros(1 << qubits, np.complex64)
    ghz[[0, -1]] = 2**-0.5
    given = {"PAD product state": product, "GHZ": qm.StateVector(ghz, qubit_order="big")}
    raw, path = folder / "raw", folder / "state.qms"
    save = {name: partial(qm.save, state, path, fidelity=1 - 1e-10) for name, state in given.items()}
    found = _compared({"write": lambda: synced(raw, product.amplitudes.tofile), **save}, 3, raw, path)
    what = f"{_size(product.amplitudes)}, 1-F = 1e-10"
    ratios = {name: found[name].seconds / found["write"].seconds for name in given}
    return [
        at_most(f"{what}: file", {name: float(run().bytes) for name, run in save.items()}, 16 << 10, "bytes"),
        at_most(f"{what}: save, against writing the vector with fsync", ratios, 1, "x"),
        _processor(f"{what}: save", {name: found[name] for name in given}),
    ]


def quantised(folder: Path, qubits: int) -> list[Row]:
    """Save a Haar state with a fidelity, and load it when nothing of its file is in memory."""
    state = _haar(qubits)
    npy, path = folder / "state.npy", folder / "state.qms"
    save = {"save": partial(qm.save, state, path, fidelity=1 - 1e-4)}
    found = _compared({"np.save": lambda: synced(npy, partial(np.save, arr=state.amplitudes)), **save}, 3, npy, path)
    what = f"{_size(state.amplitudes)} Haar, 1-F = 1e-4"
    cold = {"np.load": partial(_forget, npy), "load": partial(_forget, path)}
    loads = medians(rounds({"np.load": lambda: np.load(npy), "load": lambda: qm.load(path)}, 3, cold))
    ratio = {"save": found["save"].seconds / found["np.save"].seconds}
    return [
        at_most(f"{what}: save, against np.save + fsync", ratio, 1.6, "x"),
        _processor(what, {"save": found["save"]}),
        at_most(
            f"{what}: load from a cold page cache, against np.load of the vector",
            {"load": loads["load"] / loads["np.load"]},
            1,
            "x",
        ),
    ]


def choosing(folder: Path, qubits: int) -> list[Row]:
    """Save a Haar state, of which nothing can be made, with and without looking for a form.

    Both go to a file system in memory, where there is one, and are taken in pairs: what a disk does from one round to
    the next is more than the difference.
    """
    state = _haar(qubits)
    shm = Path("/dev/shm")
    fast_folder = Path(tempfile.mkdtemp(dir=shm if shm.is_dir() else folder))
    raw, path = folder / "raw", fast_folder / "state.qms"
    save = {
        "none": partial(qm.save, state, path, compression="none"),
        "fast": partial(qm.save, state, path, effort="fast"),
    }
    write = _compared({"write": lambda: synced(raw, state.amplitudes.tofile)}, 3, raw)["write"].seconds
    try:
        seconds = rounds(save, 11)
    finally:
        shutil.rmtree(fast_folder)
    longer = statistics.median(fast - none for none, fast in zip(seconds["none"], seconds["fast"], strict=True))
    share = 100 * longer / write
    what = f"{_size(state.amplitudes)} Haar: what effort=fast takes longer than compression=none"
    return [at_most(what, {"of writing the vector": share}, 5, "%")]


def memory(folder: Path, qubits: int) -> list[Row]:
    """Save a Haar state in another process.

    The peak that the kernel keeps has the pages of temporary files in it that are mapped, which it can take back at any
    time; what the process cannot do without is watched a hundred times a second.
    """
    all_of_it, own = {}, {}
    report = folder / "peak"
    for effort in ("balanced", "max"):
        code = _CHILD.format(qubits=qubits, path=str(folder / "state.qms"), effort=effort, report=str(report))
        all_of_it[effort] = extra_memory(code) / 2**20
        own[effort] = int(report.read_text()) / 2**20
    most = (_BESIDE + CHUNK_BYTES * worker_count()) >> 20
    what = f"{(8 << qubits) >> 20} MiB complex64 Haar, 1-F = 1e-4: memory beside the state, save"
    return [
        at_most(f"{what}, with temporary files that are mapped", all_of_it, most, "MiB"),
        at_most(f"{what}, without them", own, most, "MiB"),
    ]


def synced(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write a file as a user would who wants it to survive a power cut."""
    with path.open("wb") as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())


@dataclass(frozen=True)
class _Took:
    """Medians of the time that passed, and of the time of all cores of the processor."""

    seconds: float
    processor: float


def _compared(cases: dict[str, Callable[[], object]], turns: int, *paths: Path) -> dict[str, _Took]:
    """Run cases in turn; every file is a new one, since blocks that are used again are faster on many disks."""
    processor: dict[str, list[float]] = {name: [] for name in cases}

    def remove() -> None:
        for path in paths:
            path.unlink(missing_ok=True)

    def watched(name: str) -> None:
        start = time.process_time()
        cases[name]()
        processor[name].append(time.process_time() - start)

    found = medians(rounds({name: partial(watched, name) for name in cases}, turns, dict.fromkeys(cases, remove)))
    for case in cases.values():  # leaves each of the files
        case()
    return {name: _Took(found[name], statistics.median(processor[name])) for name in cases}


def _processor(what: str, found: dict[str, _Took]) -> Row:
    """Return a row that neither the disk nor what else runs has much to do with."""
    told = ", ".join(f"{took.processor:.2f} s ({name})" for name, took in found.items())
    return Row(f"{what}: processor time, all cores together", told, "", True)


def _forget(path: Path) -> None:
    """Take a file out of the page cache; it was synced, so that nothing keeps it there."""
    descriptor = os.open(path, os.O_RDONLY)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)


def _haar(qubits: int) -> qm.StateVector:
    amplitudes = np.random.default_rng(27).standard_normal(2 << qubits, dtype=np.float32).view(np.complex64)
    amplitudes /= np.float32(np.sqrt(2 << qubits))
    return qm.StateVector(amplitudes, qubit_order="big")


def _size(amplitudes: NDArray[Any]) -> str:
    return f"{amplitudes.nbytes >> 20} MiB complex64"
