"""Work that others do: pools of processes, Dask, MPI. Nothing is gathered."""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np
import pytest

import quantum_memory as qm

_MIB = 1 << 20
_X = np.array([[0, 1], [1, 0]])


def _state(seed: int = 0, qubits: int = 20) -> qm.StateVector:
    rng = np.random.default_rng(seed)
    amplitudes = rng.normal(size=1 << qubits) + 1j * rng.normal(size=1 << qubits)
    return qm.StateVector((amplitudes / np.linalg.norm(amplitudes)).astype(np.complex64), qubit_order="little")


def _save(state: qm.StateVector, url: str) -> None:
    """Save a state in chunks of 1 MiB."""
    with qm.transaction(url, n_qubits=20, dtype="complex64", qubit_order="little", chunk_bytes=_MIB) as tx:
        part = tx.fork()
        part.write(0, state.amplitudes)
        tx.merge(part)


def test_the_work_is_done_where_the_amplitudes_are(executor, url: str) -> None:
    first, second = _state(1), _state(2)
    _save(first, f"{url}@first")
    _save(second, f"{url}@second")
    one, other = qm.load(f"{url}@first"), qm.load(f"{url}@second")
    expected = qm.metrics.fidelity(first, second)
    assert one.fidelity(other, executor=executor) == pytest.approx(expected, rel=1e-9)
    assert one.fidelity(second, executor=executor) == pytest.approx(expected, rel=1e-9)
    assert one.quantum.norm(executor) == pytest.approx(first.norm(), rel=1e-12)
    for sites in (0, 19, (18, 2), (19, 17, 1)):
        operator = _X if isinstance(sites, int) else np.kron(_X, np.eye(1 << (len(sites) - 1)))
        found = one.quantum.expectation(operator, sites, executor)
        assert found == pytest.approx(first.expectation(operator, sites), abs=1e-12)
    assert one.quantum._gathered is other.quantum._gathered is None


def test_a_state_is_saved_by_others(executor, url: str) -> None:
    state = _state(3, 21)
    seen: list[int] = []
    saved = qm.save(state, url, executor=executor, progress=seen.append)
    assert saved.content_id == qm.MemoryState(state).content_id
    assert sum(seen) == state.nbytes
    assert qm.load(url).quantum == state
    copied = qm.save(qm.load(url), f"{url}@copy", executor=executor)
    assert copied.content_id == saved.content_id


def test_an_array_of_dask_is_saved_from_where_it_is(client, s3, url: str) -> None:
    import dask.array as da

    array = (da.random.default_rng(4).normal(size=1 << 21, chunks=1 << 18) / (1 << 10)).astype(np.complex64).persist()
    state = qm.StateVector(array.compute(), qubit_order="little")
    vector = qm.StateVector(array, qubit_order="little")
    assert isinstance(vector, qm.ShardedStateVector)
    for executor, name in ((client, "by-workers"), (None, "by-this-process")):
        saved = qm.save(vector, f"{url}@{name}", executor=executor)
        assert saved.content_id == qm.MemoryState(state).content_id
    assert qm.load(url).quantum == state
    assert vector.norm() == pytest.approx(state.norm(), rel=1e-12)
    assert qm.load(url).fidelity(vector, executor=client) == pytest.approx(1, abs=1e-12)


def test_an_executor_writes_states_at_addresses(pool, folder_url: str, tmp_path) -> None:
    with pytest.raises(qm.InvalidStateError, match="a file is written by one process"):
        qm.save(_state(), tmp_path / "x.qms", executor=pool)
    with pytest.raises(qm.InvalidStateError, match="there is none"):
        qm.save(qm.MemoryState(classical=1), folder_url, executor=pool)
    with pytest.raises(qm.InvalidStateError, match="looks for no other form"):
        qm.save(_state(), folder_url, executor=pool, effort="max")
    qm.save(_state(), folder_url)
    with pytest.raises(qm.ConflictError, match="there is a memory already"):
        qm.save(_state(1), folder_url, executor=pool, overwrite=False)


_RANK = """
import json, os, sys
from mpi4py import MPI
import numpy as np
import quantum_memory as qm

comm, url, failing = MPI.COMM_WORLD, sys.argv[1], int(sys.argv[2])
tx = qm.transaction(url, n_qubits=20, dtype="complex64", qubit_order="little", chunk_bytes=1 << 20)
state = np.random.default_rng(7)
amplitudes = (state.normal(size=1 << 20) + 1j * state.normal(size=1 << 20)).astype(np.complex64)

def peak():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))

with tx.among(comm) as part:
    mine = part.size // comm.size
    if comm.rank == failing:
        raise ZeroDivisionError("a rank fails")
    part.write(slice(comm.rank * mine, (comm.rank + 1) * mine), amplitudes[comm.rank * mine:(comm.rank + 1) * mine])
loaded = qm.load(url).quantum
low = comm.rank * mine
assert np.array_equal(loaded.shards.items(low, low + mine), amplitudes[low:low + mine])
print(json.dumps({"rank": comm.rank, "saved": tx.saved.content_id}))
"""


def _mpirun(ranks: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    mpirun = Path(sysconfig.get_path("scripts"), "mpirun")
    command = [mpirun, "-n", ranks, "--map-by", ":OVERSUBSCRIBE", "--allow-run-as-root", sys.executable, "-c", _RANK]
    words = [*map(str, command), *arguments]
    return subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize(("url", "ranks"), [("folder", 2), ("s3", 4)], indirect=["url"])
def test_ranks_of_mpi_write_one_state(url: str, ranks: int) -> None:
    run = _mpirun(ranks, url, "-1")
    assert run.returncode == 0, run.stderr[-3000:]
    said = [json.loads(line) for line in run.stdout.splitlines() if line.startswith("{")]
    assert sorted(one["rank"] for one in said) == list(range(ranks))
    assert {one["saved"] for one in said} == {qm.verify(url).content_id}


def test_a_rank_that_fails_ends_all_and_leaves_nothing(folder_url: str) -> None:
    before = _state(1)
    qm.save(before, folder_url)
    run = _mpirun(3, folder_url, "1")
    assert run.returncode != 0
    assert "a rank fails" in run.stderr
    assert qm.load(folder_url).quantum == before
