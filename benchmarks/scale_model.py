"""What a save would take that no machine here can make: a model, from what is measured here and what is assumed.

Measured: processor time of saves and loads for each byte, and what the references of a state take, up to 2^20 chunks of
which no data is there (virtual references). Assumed: the network, the cores of a node, prices.
"""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

import quantum_memory as qm
from benchmarks.harness import Row
from benchmarks.tables import Table
from quantum_memory.cloud.layout import MOST_CHUNKS, default_chunk

_BANDWIDTH = 1e9
_CORES = 8
_PUT, _MONTH = 0.005 / 1000, 0.023 / 1e9
"""Assumed: bytes per second from each node to storage at once, cores of a node, dollars for a PUT and for a byte and
month."""

_DASK = 4e-3
"""Seconds that the scheduler of Dask takes for a task, of work measured before."""

_NODES = {33: 4, 36: 16, 38: 64, 40: 128, 43: 1000, 45: 1000}

_METADATA = """
import json, sys, time
import icechunk, zarr
icechunk.set_logs_filter("error")
count, root = int(sys.argv[1]), sys.argv[2]
config = icechunk.RepositoryConfig.default()
config.set_virtual_chunk_container(
    icechunk.VirtualChunkContainer("file:///data/", icechunk.local_filesystem_store("/data/"))
)
repository = icechunk.Repository.create(icechunk.local_filesystem_storage(root), config)
session = repository.writable_session("main")
zarr.create_array(session.store, name="x", shape=(4 * count,), chunks=(4,), dtype="i1", compressors=None, filters=None)
specs = [
    icechunk.VirtualChunkSpec(index=[k], location=f"file:///data/{k:020x}", offset=0, length=4) for k in range(count)
]
start = time.perf_counter()
session.store.set_virtual_refs("x", specs, validate_containers=False)
refs = time.perf_counter() - start
del specs
start = time.perf_counter()
session.commit("all")
commit = time.perf_counter() - start
session = repository.writable_session("main")
session.store.set_virtual_ref("x/c/0", "file:///data/x", offset=0, length=4, validate_container=False)
start = time.perf_counter()
session.commit("one")
one = time.perf_counter() - start
with open("/proc/self/status") as status:
    peak = next(int(line.split()[1]) << 10 for line in status if line.startswith("VmHWM"))
print(json.dumps([refs, commit, one, peak]))
"""


def run(quick: bool) -> list[Row | Table]:
    """Measure, and extrapolate."""
    write, read = _processor(22 if quick else 25)
    powers = (10, 12) if quick else (12, 14, 16, 18, 20)
    found = {power: _metadata(1 << power) for power in powers}
    refs, commit, _, peak = found[powers[-1]]
    count = 1 << powers[-1]
    lines = [
        (f"2^{power}", f"{r:.2f} s", f"{c:.3f} s", f"{o:.2f} s", f"{p >> 20} MiB")
        for power, (r, c, o, p) in found.items()
    ]
    costs = _Costs(write, read, refs / count, commit / count)
    return [
        Row("processor time of a save in a folder, s/GB", f"{write:.2f}", "", True),
        Row("processor time of a load from a folder, s/GB", f"{read:.2f}", "", True),
        Row(f"coordinator's peak at 2^{powers[-1]} chunks", f"{peak >> 20} MiB", "<= 1 GiB", peak <= 1 << 30),
        Table("metadata", ("chunks", "references", "commit", "commit of one chunk more", "peak of the process"), lines),
        Table(
            "model",
            ("qubits", "nodes", "TiB", "chunk", "chunks", "write", "of which commit", "verify", "PUTs", "per month"),
            [_line(n, nodes, costs) for n, nodes in _NODES.items()],
        ),
    ]


class _Costs(NamedTuple):
    """What was measured: processor time of a save and a load, in s/GB; seconds for a reference, and for it in a commit."""

    write: float
    read: float
    reference: float
    commit: float


def _line(n: int, nodes: int, costs: _Costs) -> tuple[str, ...]:
    """Return what a state in complex64 would take."""
    nbytes = 8 << n
    chunk = max(default_chunk(nbytes), 16 << 20)
    chunks = nbytes // chunk
    mine = nbytes / nodes
    commit = chunks * (costs.reference + costs.commit)
    saving = max(mine / _BANDWIDTH, mine / 1e9 * costs.write / _CORES) + commit
    tasks = math.ceil(chunks / max(1, math.ceil(chunks / (8 * nodes))))
    checking = max(mine / _BANDWIDTH, mine / 1e9 * costs.read / _CORES) + tasks * _DASK
    return (
        str(n),
        str(nodes),
        f"{nbytes / 2**40:.3g}",
        f"{chunk >> 20} MiB",
        f"{chunks:,}" + (" (the most)" if chunks >= MOST_CHUNKS else ""),
        f"{saving:.0f} s",
        f"{commit:.1f} s",
        f"{checking:.0f} s",
        f"${chunks * _PUT:.2f}",
        f"${nbytes * _MONTH:,.0f}",
    )


def _processor(qubits: int) -> tuple[float, float]:
    """Return the processor time of a save and of a load, in seconds for 10^9 bytes."""
    amplitudes = np.random.default_rng(0).normal(size=2 << qubits).view(np.complex128).astype(np.complex64)
    state = qm.StateVector(amplitudes, qubit_order="little")
    folder = Path(tempfile.mkdtemp(dir=Path.cwd(), prefix=".scale-"))
    spent: tuple[list[float], list[float]] = ([], [])
    try:
        for turn in range(4):
            url = f"icechunk+file://{folder}/{turn}"
            start = time.process_time()
            qm.save(state, url)
            between = time.process_time()
            loaded = qm.load(url).quantum
            assert isinstance(loaded, qm.StateVector)
            assert loaded.amplitudes.nbytes == state.nbytes
            spent[0].append(between - start)
            spent[1].append(time.process_time() - between)
            shutil.rmtree(folder / str(turn))
    finally:
        shutil.rmtree(folder)
    return min(spent[0]) / state.nbytes * 1e9, min(spent[1]) / state.nbytes * 1e9


def _metadata(count: int) -> tuple[float, float, float, int]:
    """Return the seconds that references, their commit, and a commit of one more take, and the peak memory."""
    with tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".scale-") as folder:
        command = [sys.executable, "-c", _METADATA, str(count), f"{folder}/repository"]
        run = subprocess.run(command, capture_output=True, text=True, check=True, timeout=600)
    refs, commit, one, peak = json.loads(run.stdout.splitlines()[-1])
    return refs, commit, one, int(peak)
