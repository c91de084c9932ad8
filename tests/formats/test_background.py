"""A state that is saved through a compressor is durable at once, made smaller later, and whole all the time."""

import errno
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import quantum_memory as qm
from quantum_memory.durability import files
from quantum_memory.formats.background import BackgroundCompressor
from quantum_memory.formats.background_job import Job
from quantum_memory.testing.faults import FaultyFiles, PassingFiles, in_child

SECONDS = 60


def product(n: int = 14, seed: int = 0) -> qm.StateVector:
    """Return a product of random one-qubit states, which packs well, but not in a form that is found at once."""
    rng = np.random.default_rng(seed)
    amplitudes = np.ones(1, complex)
    for _ in range(n):
        qubit = rng.normal(size=4).view(complex)
        amplitudes = np.kron(amplitudes, qubit / np.linalg.norm(qubit))
    return qm.StateVector(amplitudes, qubit_order="little")


def leftovers(folder: Path) -> list[Path]:
    return list(folder.glob(".*.qmtmp"))


def is_raw(path: Path) -> bool:
    return qm.info(path)["compression"].get("representation") == "dense"


class Gate:
    """A callback that stops a job once it has come so far, until it is told to go on."""

    def __init__(self, at: float = 0.0, path: Path | None = None) -> None:
        self.reached = threading.Event()
        self.open = threading.Event()
        self.jobs: list[Job] = []
        self._at = at
        self._path = path

    def __call__(self, job: Job) -> None:
        self.jobs.append(job)
        if job.state == "running" and job.fraction >= self._at and self._path in {None, Path(job.path)}:
            self.reached.set()
            assert self.open.wait(SECONDS)

    def wait(self) -> None:
        assert self.reached.wait(SECONDS)


class WorkerFiles(PassingFiles):
    """Real in the main thread, and another implementation in all others."""

    def __init__(self, other: PassingFiles) -> None:
        super().__init__()
        self._other = other

    def call(self, name: str, *arguments: Any) -> Any:
        if threading.current_thread() is threading.main_thread():
            return super().call(name, *arguments)
        return self._other.call(name, *arguments)


class FullDisk(PassingFiles):
    def call(self, name: str, *arguments: Any) -> Any:
        if name == "write":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().call(name, *arguments)


STAGES = [0.0, 0.3, 0.65, 0.9]
"""Fractions at which a job begins, has read its file, writes the new one, and has checked it."""


def test_the_raw_file_is_there_first_and_then_a_smaller_one_with_the_same_content(tmp_path: Path) -> None:
    path, state, gate = tmp_path / "big.qms", product(18), Gate()
    with BackgroundCompressor(progress=gate) as background:
        saved = background.save(state, path)
        gate.wait()
        assert is_raw(path)
        assert qm.load(path) == state
        assert saved.bytes == path.stat().st_size > state.amplitudes.nbytes
        (job,) = background.pending
        assert (job.path, job.state, job.bytes_before, job.bytes_after) == (str(path), "running", saved.bytes, None)
        assert background.done == ()
        assert not background.wait(0.01)
        gate.open.set()
        assert background.wait()
        assert background.pending == ()
        (job,) = background.done
        assert (job.state, job.reason, job.error) == ("done", "", None)
        assert job.bytes_after == path.stat().st_size < saved.bytes / 4
    assert not is_raw(path)
    assert qm.load(path) == state
    assert qm.verify(path).content_id == saved.content_id == qm.MemoryState(state).content_id
    fractions = [job.fraction for job in gate.jobs]
    assert fractions[0] == 0
    assert fractions[-1] == 1
    assert fractions == sorted(fractions)
    assert len({*fractions}) > 5


@pytest.mark.parametrize("suffix", ["h5", "json", "json.zlib", "msgpack", "npz", "pkl", "b64"])
def test_every_format(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"state.{suffix}"
    with qm.BackgroundCompressor() as background:
        background.save(product(12, seed=1), path)
        saved = background.save(product(12), path)
    assert background.done[-1].state == "done"
    assert path.stat().st_size < saved.bytes / 2
    assert qm.load(path, allow_pickle=True) == product(12)
    assert list(tmp_path.iterdir()) == [path]


def test_what_does_not_get_smaller_stays(tmp_path: Path) -> None:
    path = tmp_path / "noise.qms"
    noise = np.random.default_rng(0).integers(0, 256, 1 << 18, np.uint8)
    qm.save(qm.MemoryState(classical=noise), path)
    before = path.stat()
    with BackgroundCompressor() as background:
        background.compress(path)
    (job,) = background.done
    assert (job.state, job.reason, job.fraction) == ("done", "nothing smaller was found", 1)
    assert job.bytes_after == job.bytes_before
    assert path.stat().st_ino == before.st_ino


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize(
    ("meddle", "reason"),
    [
        (lambda path: qm.save(product(seed=1), path, compression="none"), "it was replaced or changed meanwhile"),
        (lambda path: os.utime(path, ns=(0, 0)), "it was replaced or changed meanwhile"),
        (Path.unlink, "it was removed meanwhile"),
    ],
    ids=["replaced", "changed", "removed"],
)
def test_what_somebody_else_did_to_the_file_is_left_alone(
    tmp_path: Path, meddle: Callable[[Path], object], reason: str, stage: float
) -> None:
    path, gate = tmp_path / "big.qms", Gate(stage)
    with BackgroundCompressor(progress=gate) as background:
        background.save(product(), path)
        gate.wait()
        meddle(path)
        before = path.read_bytes() if path.exists() else None
        gate.open.set()
    (job,) = background.done
    assert (job.state, job.reason, job.error) == ("skipped", reason, None)
    assert (path.read_bytes() if path.exists() else None) == before
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("meddle", [Path.unlink, lambda path: qm.save(product(seed=1), path)])
def test_what_happened_before_a_job_began_is_seen_too(tmp_path: Path, meddle: Callable[[Path], object]) -> None:
    first, path, gate = tmp_path / "first.qms", tmp_path / "big.qms", Gate()
    with BackgroundCompressor(progress=gate) as background:
        background.save(product(), first)
        gate.wait()
        background.save(product(), path)
        meddle(path)
        gate.open.set()
    assert [job.state for job in background.done] == ["done", "skipped"]
    assert not path.exists() or qm.load(path) == product(seed=1)


def test_saving_a_file_again_gives_up_the_job_that_waits_for_it(tmp_path: Path) -> None:
    first, path, gate = tmp_path / "first.qms", tmp_path / "big.qms", Gate()
    with BackgroundCompressor(progress=gate) as background:
        background.save(product(), first)
        gate.wait()
        for seed in range(3):
            background.save(product(seed=seed), path)
        assert [job.path for job in background.pending] == [str(first), str(path)]
        gate.open.set()
    assert [(job.state, job.reason) for job in background.done] == [
        ("skipped", "it was saved again meanwhile"),
        ("skipped", "it was saved again meanwhile"),
        ("done", ""),
        ("done", ""),
    ]
    assert qm.load(path) == product(seed=2)
    assert not is_raw(path)


@pytest.mark.parametrize("stage", STAGES)
def test_saving_a_file_again_stops_the_job_that_runs(tmp_path: Path, stage: float) -> None:
    path, gate = tmp_path / "big.qms", Gate(stage)
    with BackgroundCompressor(progress=gate) as background:
        background.save(product(), path)
        gate.wait()
        background.save(product(seed=1), path)
        gate.open.set()
    assert [(job.state, job.reason) for job in background.done] == [
        ("skipped", "it was saved again meanwhile"),
        ("done", ""),
    ]
    assert qm.load(path) == product(seed=1)
    assert leftovers(tmp_path) == []


def test_a_save_waits_for_a_rename_that_has_been_decided_on(tmp_path: Path) -> None:
    """Between the last look at the file and the rename, nothing that is saved here can get lost."""

    class Slow(PassingFiles):
        def call(self, name: str, *arguments: Any) -> Any:
            if name == "rename":
                renaming.set()
                time.sleep(0.3)
            return super().call(name, *arguments)

    path, renaming = tmp_path / "big.qms", threading.Event()
    with files.using(WorkerFiles(Slow())), BackgroundCompressor() as background:
        background.save(product(), path)
        assert renaming.wait(SECONDS)
        background.save(product(seed=1), path)
    assert [job.state for job in background.done] == ["done", "done"]
    assert qm.load(path) == product(seed=1)


def test_two_files_at_a_time(tmp_path: Path) -> None:
    meeting = threading.Barrier(2, timeout=SECONDS)
    met: set[str] = set()

    def meet(job: Job) -> None:
        if job.path not in met:
            met.add(job.path)
            meeting.wait()

    paths = [tmp_path / f"{k}.qms" for k in range(4)]
    with BackgroundCompressor(workers=2, progress=meet) as background:
        for k, path in enumerate(paths):
            background.save(product(seed=k), path)
    assert [job.state for job in background.done] == ["done"] * 4
    assert all(qm.load(path) == product(seed=k) for k, path in enumerate(paths))


def test_many_threads_save_and_wait(tmp_path: Path) -> None:
    background = BackgroundCompressor(workers=2)

    def work(who: int) -> None:
        for step in range(5):
            background.save(product(12, seed=10 * who + step), tmp_path / f"{who % 3}.qms")
        assert background.wait(SECONDS)

    threads = [threading.Thread(target=work, args=(who,)) for who in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    background.close()
    assert len(background.done) == 30
    assert {job.state for job in background.done} <= {"done", "skipped"}
    for k in range(3):
        assert qm.verify(tmp_path / f"{k}.qms").problems == []
        assert not is_raw(tmp_path / f"{k}.qms")
    assert leftovers(tmp_path) == []


def test_an_error_is_raised_once_and_costs_no_state(tmp_path: Path) -> None:
    told: list[tuple[Job, Exception]] = []
    background = BackgroundCompressor(on_error=lambda job, error: told.append((job, error)))
    with files.using(WorkerFiles(FullDisk())):
        saved = background.save(product(), tmp_path / "a.qms")
        with pytest.raises(qm.StorageError, match=r"a\.qms: could not write .*: No space left") as caught:
            background.wait()
        assert caught.value.__notes__ == ["It was being compressed in the background."]
        assert background.wait()
        (job,) = background.done
        assert (job.state, job.bytes_after, job.error) == ("failed", None, caught.value)
        assert told == [(job, caught.value)]
        assert qm.verify(tmp_path / "a.qms").content_id == saved.content_id
        assert is_raw(tmp_path / "a.qms")
        assert leftovers(tmp_path) == []

        background.compress(tmp_path / "a.qms")
        background._wait(None)
        with pytest.raises(qm.StorageError, match=r"a\.qms"):
            background.save(product(seed=1), tmp_path / "b.qms")
        assert qm.load(tmp_path / "b.qms") == product(seed=1)
        background._wait(None)
        with pytest.raises(qm.StorageError, match=r"b\.qms"):
            background.compress(tmp_path / "a.qms")
        with pytest.raises(qm.StorageError, match=r"a\.qms"):
            background.close()
    background.close()
    assert len(told) == 4


def test_errors_that_nobody_has_seen_are_notes_of_the_first(tmp_path: Path) -> None:
    background = BackgroundCompressor()
    with files.using(WorkerFiles(FullDisk())):
        for name in "ab":
            qm.save(product(), tmp_path / f"{name}.qms", compression="none")
        with background._naming:  # nobody gets that far before both are queued
            for name in "ab":
                background._put(background_task(tmp_path / f"{name}.qms"))
        with pytest.raises(qm.StorageError, match=r"a\.qms") as caught:
            background.close()
    assert any("b.qms" in note for note in caught.value.__notes__)


def background_task(path: Path) -> Any:
    from quantum_memory.formats.background_job import Task
    from quantum_memory.formats.naming import FileFacts

    return Task(str(path), FileFacts.of(str(path)), {"allow_pickle": False})


def test_an_error_does_not_hide_the_one_that_left_the_block(tmp_path: Path) -> None:
    def work() -> None:
        with files.using(WorkerFiles(FullDisk())), BackgroundCompressor() as background:
            background.save(product(), tmp_path / "a.qms")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as caught:
        work()
    assert "a.qms: could not write" in caught.value.__notes__[0]


@pytest.mark.parametrize("stage", STAGES)
def test_cancelling_stops_at_the_next_chunk_and_leaves_the_raw_files(tmp_path: Path, stage: float) -> None:
    gate = Gate(stage)
    background = BackgroundCompressor(progress=gate)
    for name in "ab":
        background.save(product(), tmp_path / f"{name}.qms")
    gate.wait()
    assert len(leftovers(tmp_path)) == (stage > 0.5)
    closing = threading.Thread(target=lambda: background.close(cancel=True))
    closing.start()
    while not background.done:
        time.sleep(0.001)
    gate.open.set()
    closing.join()
    assert [(Path(job.path).name, job.state, job.reason) for job in background.done] == [
        ("b.qms", "skipped", "it was cancelled"),
        ("a.qms", "skipped", "it was cancelled"),
    ]
    for name in "ab":
        assert is_raw(tmp_path / f"{name}.qms")
        assert qm.load(tmp_path / f"{name}.qms") == product()
    assert leftovers(tmp_path) == []


def test_an_interrupt_from_the_keyboard_cancels(tmp_path: Path) -> None:
    gate = Gate()
    with pytest.raises(KeyboardInterrupt), BackgroundCompressor(progress=gate) as background:  # noqa: PT012
        for name in "ab":
            background.save(product(), tmp_path / f"{name}.qms")
        gate.wait()
        threading.Timer(0.1, gate.open.set).start()
        raise KeyboardInterrupt
    assert {(job.state, job.reason) for job in background.done} == {("skipped", "it was cancelled")}


def test_a_file_that_is_there_already(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    qm.save(product(), "big.qms", compression="lz4")
    Path("link.qms").symlink_to("big.qms")
    gate = Gate()
    with BackgroundCompressor(progress=gate) as background:
        background.compress("link.qms")
        gate.wait()
        monkeypatch.chdir("/")
        background.compress(tmp_path / "big.qms")  # twice: the second finds another file
        gate.open.set()
    assert [(job.path, job.state) for job in background.done] == [
        ("link.qms", "done"),
        (str(tmp_path / "big.qms"), "skipped"),
    ]
    assert (tmp_path / "link.qms").is_symlink()
    assert not is_raw(tmp_path / "big.qms")
    assert qm.load(tmp_path / "big.qms") == product()


def test_what_cannot_be_compressed_is_refused_at_once(tmp_path: Path) -> None:
    background = BackgroundCompressor()
    with pytest.raises(qm.MissingFileError):
        background.compress(tmp_path / "none.qms")
    with pytest.raises(qm.InvalidStateError, match="suffix"):
        background.compress(tmp_path / "none.txt")
    with pytest.raises(qm.InvalidStateError, match="no file can have this name"):
        background.compress("a\0.qms")
    with pytest.raises(qm.InvalidStateError):
        background.save("no state", tmp_path / "a.qms")
    background.save(product(), tmp_path / "a.qms")
    with pytest.raises(qm.ConflictError, match="exists already"):
        background.save(product(), tmp_path / "a.qms", overwrite=False)
    with pytest.raises(qm.StorageError), files.using(FaultyFiles(0, errno.EIO)):
        background.compress(tmp_path / "a.qms")
    background.close()
    assert [job.state for job in background.done] == ["done"]


def test_a_damaged_file_is_left_and_reported(tmp_path: Path) -> None:
    path = tmp_path / "big.qms"
    qm.save(product(), path, compression="none")
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(qm.IntegrityError, match=r"big\.qms"), BackgroundCompressor() as background:
        background.compress(path)
    assert path.read_bytes() == damaged


def test_with_loss_where_that_was_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "big.qms"
    rng = np.random.default_rng(0)
    state = qm.StateVector(rng.normal(size=1 << 15).view(complex), qubit_order="little").normalized()
    with BackgroundCompressor(fidelity=0.999) as background:
        saved = background.save(state, path)
        background.wait()
        assert background.done[-1].bytes_after == path.stat().st_size < saved.bytes / 4
        certificate = qm.info(path)["compression"]["certificate"]
        assert 1 - qm.metrics.fidelity(qm.load(path).quantum, state) <= certificate["infidelity"] <= 1e-3
        qm.save(state, path)
        with pytest.raises(qm.ConflictError, match="the original would be lost"):
            background.compress(path)
        assert qm.load(path) == state
        background.compress(path, overwrite=True)
    assert "certificate" in qm.info(path)["compression"]


@pytest.mark.parametrize(
    "wrong", [{"workers": 0}, {"workers": 1.5}, {"effort": "most"}, {"fidelity": 2}, {"fidelity": 0.9, "max_bytes": 5}]
)
def test_what_cannot_be_asked_for_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(qm.InvalidStateError):
        BackgroundCompressor(**wrong)


def test_a_closed_compressor_takes_no_more(tmp_path: Path) -> None:
    background = BackgroundCompressor()
    background.close()
    background.close()
    with pytest.raises(qm.ConflictError, match="closed"):
        background.save(product(), tmp_path / "a.qms")
    assert list(tmp_path.iterdir()) == []
    assert background.wait()


@pytest.mark.parametrize("at", ["running", "done"])
def test_what_a_callback_raises_is_an_error_and_ends_no_worker(tmp_path: Path, at: str) -> None:
    def fail(job: Job) -> None:
        if job.state == at and job.path.endswith("a.qms"):
            raise ValueError("mine")

    background = BackgroundCompressor(progress=fail)
    for name in "ab":
        background._put(saved_task(tmp_path / f"{name}.qms"))
    with pytest.raises(qm.QuantumMemoryError, match=r"a\.qms: .*ValueError: mine") as caught:
        background.close()
    assert isinstance(caught.value.__cause__, ValueError)
    assert [job.state for job in background.done] == ["failed" if at == "running" else "done", "done"]


def saved_task(path: Path) -> Any:
    qm.save(product(), path, compression="none")
    return background_task(path)


def test_no_thread_is_left_when_nothing_is_to_be_done_and_workers_give_way(tmp_path: Path) -> None:
    seen = set()

    def look(job: Job) -> None:
        me = threading.get_native_id()
        if threading.current_thread().name == "qm-compress":
            seen.add(os.getpriority(os.PRIO_PROCESS, me))

    before = threading.active_count()
    mine = os.getpriority(os.PRIO_PROCESS, 0)
    background = BackgroundCompressor(progress=look)
    for _ in range(2):
        background.save(product(), tmp_path / "a.qms")
        background.wait()
    for _ in range(1000):
        if threading.active_count() == before:
            break
        time.sleep(0.01)
    assert threading.active_count() == before
    if sys.platform == "linux":
        assert seen == {min(mine + 10, 19)}
        assert os.getpriority(os.PRIO_PROCESS, 0) == mine


def test_without_a_thread_the_job_fails_and_the_state_is_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    background = BackgroundCompressor()
    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(qm.QuantumMemoryError, match="can't start new thread"):
        background.save(product(), tmp_path / "a.qms")
    monkeypatch.undo()
    assert qm.load(tmp_path / "a.qms") == product()
    assert [job.state for job in background.done] == ["failed"]
    background.compress(tmp_path / "a.qms")
    background.close()
    assert not is_raw(tmp_path / "a.qms")


def test_a_fork_leaves_the_jobs_to_its_parent(tmp_path: Path) -> None:
    gate = Gate()

    def leave() -> None:
        for use in (background.wait, lambda: background.compress(tmp_path / "a.qms")):
            with pytest.raises(qm.ConflictError, match="forked"):
                use()
        background.close(cancel=True)
        background._stop()

    with BackgroundCompressor(progress=gate) as background:
        background.save(product(), tmp_path / "a.qms")
        gate.wait()
        assert in_child(leave) == 0
        gate.open.set()
    assert [job.state for job in background.done] == ["done"]
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("stage", STAGES)
def test_the_interpreter_ends_with_the_job_and_leaves_nothing(tmp_path: Path, stage: float) -> None:
    code = f"""
import sys, threading, time
sys.path.insert(0, {str(Path(__file__).parents[2])!r})
import quantum_memory as qm
from tests.formats.test_background import product
reached = threading.Event()
def slowly(job):
    if job.fraction >= {stage}:
        reached.set()
        time.sleep(0.2)
background = qm.BackgroundCompressor(progress=slowly)
for name in "ab":
    background.save(product(18), {str(tmp_path)!r} + f"/{{name}}.qms")
assert reached.wait({SECONDS})
print(time.time())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=SECONDS)
    assert time.time() - float(done.stdout) < 5
    assert (done.returncode, done.stderr) == (0, "")
    assert {path.name for path in tmp_path.iterdir()} == {"a.qms", "b.qms"}
    for name in "ab":
        assert is_raw(tmp_path / f"{name}.qms")
        assert qm.load(tmp_path / f"{name}.qms") == product(18)
