"""Conversions whose work others do: each task reads what it writes, and one version is there in the end, or none."""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
import textwrap
from concurrent.futures import ProcessPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import quantum_memory as qm
from quantum_memory.formats.stored_amplitudes import StoredAmplitudes
from quantum_memory.testing.damage import flip_bit

from .dying import Dying, DyingClient

if TYPE_CHECKING:
    from pathlib import Path

_MIB = 1 << 20
_QUBITS = 21


@pytest.fixture(scope="module")
def memory() -> qm.MemoryState:
    """16 MiB of amplitudes, which is two chunks, and something of every other kind."""
    rng = np.random.default_rng(0)
    amplitudes = rng.normal(size=2 << _QUBITS).view(np.complex128).astype(np.complex64)
    return qm.MemoryState(
        qm.StateVector(amplitudes / np.linalg.norm(amplitudes), qubit_order="little", labels=[*map(str, range(21))]),
        classical={"weights": rng.normal(size=(3, 5)), 3: [None, "text"]},
        emotion=qm.EmotionalContext(qm.PAD(0.1, -0.2, 0.3)),
        metadata={"run": 7},
        record={"seed": 12},
    )


@pytest.fixture(scope="module")
def folder(memory: qm.MemoryState, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the memory in several formats."""
    made = tmp_path_factory.mktemp("sources")
    qm.save(memory, made / "plain.qms", compression="none")
    qm.save(memory, made / "packed.qms", compression="zstd")
    qm.save(memory, made / "x.h5")
    qm.save(memory, made / "x.npz")
    folded = np.concatenate([memory.quantum.amplitudes[: 1 << 20], memory.quantum.amplitudes[: 1 << 20][::-1]])
    qm.save(qm.StateVector(folded, qubit_order="big"), made / "folded.qms")
    qm.save(memory, made / "lossy.qms", fidelity=0.999)
    qm.save(memory, f"icechunk+file://{made}/plain")
    qm.save(memory, f"icechunk+file://{made}/lossy", fidelity=0.999)
    return made


@pytest.mark.parametrize(
    "name", ["plain.qms", "packed.qms", "folded.qms", "x.h5", "x.npz", "lossy.qms", "plain", "lossy"]
)
def test_all_of_it_goes_over_as_by_one_process(
    pool: ProcessPoolExecutor, folder: Path, folder_url: str, name: str
) -> None:
    source = str(folder / name) if "." in name else f"icechunk+file://{folder}/{name}"
    seen: list[int] = []
    done = qm.convert(source, folder_url, executor=pool, progress=seen.append)
    alone = qm.convert(source, f"{folder_url}-alone")
    assert done.content_id == alone.content_id == qm.verify(source).content_id == qm.verify(folder_url).content_id
    assert (done.bytes, done.source_bytes) == (alone.bytes, alone.source_bytes)
    mine, other = qm.load(folder_url), qm.load(f"{folder_url}-alone")
    assert mine == other
    assert mine.record == other.record
    facts = [qm.info(url) for url in (folder_url, f"{folder_url}-alone")]
    assert facts[0]["compression"] == facts[1]["compression"]
    assert ("certificate" in facts[0]["compression"]) == name.startswith("lossy")
    assert sum(seen) > 0


def test_workers_of_dask_copy_between_storages(
    client: Any, s3: object, memory: qm.MemoryState, folder: Path, prefix: str
) -> None:
    first = qm.convert(folder / "plain.qms", prefix, executor=client)
    second = qm.convert(prefix, f"{prefix}-again@kept", executor=client)
    assert first.content_id == second.content_id == memory.content_id
    assert qm.load(f"{prefix}-again@kept") == memory
    assert qm.verify(prefix, executor=client).content_id == memory.content_id


def test_nothing_goes_through_the_caller(
    pool: ProcessPoolExecutor, folder: Path, folder_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(self: object, start: int, stop: int) -> None:
        raise AssertionError(f"the caller has read {start}:{stop}")

    monkeypatch.setattr(StoredAmplitudes, "read", read)
    for name in ("plain.qms", "x.h5"):
        qm.convert(folder / name, folder_url, executor=pool, overwrite=True)
    done = qm.convert(f"icechunk+file://{folder}/plain", f"{folder_url}-of-an-address", executor=pool)
    assert done.content_id == qm.info(f"icechunk+file://{folder}/plain")["content_id"]


def test_a_pool_of_which_a_process_is_killed_leaves_nothing(
    memory: qm.MemoryState, folder: Path, folder_url: str, tmp_path: Path
) -> None:
    qm.save(qm.StateVector([1.0, 0.0], qubit_order="big"), folder_url)
    before = qm.load(folder_url)
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as made:
        dying = Dying(made, "_write_run", tmp_path / "dead")
        with pytest.raises(qm.StorageError, match="a process that did some of the work has died"):
            qm.convert(folder / "plain.qms", folder_url, executor=dying, overwrite=True)
    assert (tmp_path / "dead").exists()
    assert qm.load(folder_url) == before
    assert len(list(qm.repository(folder_url).history())) == 1
    qm.convert(folder / "plain.qms", folder_url, overwrite=True)
    assert qm.load(folder_url) == memory


def test_what_a_killed_worker_of_dask_has_not_said_is_done_again(
    client: Any, memory: qm.MemoryState, folder: Path, folder_url: str, tmp_path: Path
) -> None:
    dying = DyingClient(client, "_write_run", tmp_path / "dead")
    done = qm.convert(folder / "plain.qms", folder_url, executor=dying)
    assert (tmp_path / "dead").exists()
    assert done.content_id == memory.content_id == qm.verify(folder_url).content_id
    assert len(list(qm.repository(folder_url).history())) == 1


def test_damage_and_another_file_are_found_by_whoever_reads(
    pool: ProcessPoolExecutor, memory: qm.MemoryState, folder: Path, folder_url: str, tmp_path: Path
) -> None:
    copy = tmp_path / "x.qms"
    whole = (folder / "plain.qms").read_bytes()
    copy.write_bytes(flip_bit(whole, 4 * len(whole)))
    with pytest.raises(qm.IntegrityError):
        qm.convert(copy, folder_url, executor=pool)
    with pytest.raises(qm.MissingFileError):
        qm.load(folder_url)

    class Replacing(Dying):
        def submit(self, work: Any, /, *args: Any, **kwargs: Any) -> Any:
            qm.save(qm.StateVector(memory.quantum.amplitudes[::-1], qubit_order="little"), copy)
            return super().submit(work, *args, **kwargs)

    copy.write_bytes(whole)
    with pytest.raises(qm.ConflictError, match="another state than when work on it began"):
        qm.convert(copy, folder_url, executor=Replacing(pool, "", tmp_path / "dead"))
    with pytest.raises(qm.MissingFileError):
        qm.load(folder_url)


def test_what_an_executor_is_not_for(pool: ProcessPoolExecutor, folder: Path, folder_url: str, tmp_path: Path) -> None:
    with pytest.raises(qm.InvalidStateError, match="a file is written by one process"):
        qm.convert(folder / "plain.qms", tmp_path / "x.qms", executor=pool)
    assert not (tmp_path / "x.qms").exists()
    qm.save(qm.MemoryState(classical={"a": 1}), tmp_path / "no-state.qms")
    done = qm.convert(tmp_path / "no-state.qms", folder_url, executor=pool)  # there is nothing to share
    assert done.content_id == qm.verify(folder_url).content_id


def test_an_encrypted_file_is_read_here(
    pool: ProcessPoolExecutor, memory: qm.MemoryState, folder_url: str, tmp_path: Path
) -> None:
    key = qm.Key.new_file(tmp_path / "key")
    qm.save(memory, tmp_path / "x.qms", encrypt=key)
    done = qm.convert(tmp_path / "x.qms", folder_url, executor=pool, key=key, decrypt=True)
    assert done.content_id == memory.content_id


def test_the_command_has_processes(folder: Path, folder_url: str) -> None:
    command = [sys.executable, "-m", "quantum_memory.cli.main", "convert", str(folder / "plain.qms"), folder_url]
    code = "import sys; from quantum_memory.cli.main import run; run(sys.argv[1:]) and sys.exit(1)"
    command = [sys.executable, "-c", code, *command[3:], "--jobs", "2", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["content_id"] == qm.verify(folder / "plain.qms").content_id


_MEASURED = """
    import json, multiprocessing, sys
    from concurrent.futures import ProcessPoolExecutor
    import numpy as np, quantum_memory as qm

    def memory(reset):
        if reset:
            with open("/proc/self/clear_refs", "w") as file:
                file.write("5")
        with open("/proc/self/status") as file:
            said = dict(line.split()[:2] for line in file if line[:2] == "Vm")
        return int(said["VmRSS:"]) >> 10, int(said["VmHWM:"]) >> 10

    if __name__ == "__main__":
        folder, options = sys.argv[1], json.loads(sys.argv[2])
        rng, source = np.random.default_rng(0), f"icechunk+file://{folder}/source"
        with qm.transaction(source, n_qubits=23, dtype="complex64", qubit_order="little") as tx:
            part = tx.fork()
            for low in range(0, tx.size, tx.chunk):
                part.write(low, rng.normal(size=2 * tx.chunk).astype(np.float32).view(np.complex64) / 2**12)
            tx.merge(part)
        with qm.open(source) as file:
            qm.save(qm.StateVector(file.amplitudes[: 1 << 21], qubit_order="little"), f"icechunk+file://{folder}/warm")
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            qm.convert(f"icechunk+file://{folder}/warm", f"icechunk+file://{folder}/warmer", executor=pool, **options)
            idle, mine = pool.submit(memory, True).result()[0], memory(True)[0]
            qm.convert(source, f"icechunk+file://{folder}/target", executor=pool, **options)
            print(json.dumps([pool.submit(memory, False).result()[1] - idle, memory(False)[1] - mine]))
"""


def peaks(folder: Path, **options: Any) -> list[int]:
    """Return by how many MiB the memory of a worker and of the caller grow while 64 MiB are converted."""
    (folder / "measured.py").write_text(textwrap.dedent(_MEASURED))
    command = [sys.executable, str(folder / "measured.py"), str(folder), json.dumps(options)]
    # So glibc does not keep what every thread has freed, which is no more in use.
    environment = os.environ | {"MALLOC_ARENA_MAX": "2"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    found: list[int] = json.loads(done.stdout)
    return found


def test_a_worker_has_a_few_chunks_in_memory_and_the_caller_none(tmp_path: Path) -> None:
    worker, caller = peaks(tmp_path)
    assert worker <= 5 * 8, "MiB, which are five chunks"
    assert caller <= 8
