"""Backups that are taken while others write are each of one moment, and those who share a folder lose nothing."""

import contextlib
import mmap
import multiprocessing
import threading
import time
import warnings
from pathlib import Path

import numpy as np
import pytest

import quantum_memory as qm
from quantum_memory.durability import files
from quantum_memory.errors import ConflictError, QuantumMemoryError
from quantum_memory.formats.hdf5_storage import HDF5QuantumStorage
from quantum_memory.lifecycle.backup_manager import BackupManager
from quantum_memory.lifecycle.backups import saving, sources
from quantum_memory.lifecycle.checkpoint_manager import CheckpointManager
from quantum_memory.lifecycle.due import Always
from quantum_memory.lifecycle.retention import KeepLast
from quantum_memory.testing.faults import PassingFiles

from .trees import looked_at, manager

BACKUPS = 6
LONG = 120.0
SPAWN = multiprocessing.get_context("spawn")


def appending(path, end):
    storage = HDF5QuantumStorage(path, durable=False)
    k = 0
    while not end.is_set():
        storage.save_quantum_state(qm.MemoryState(classical={"k": k, "w": np.full(3000, k)}), f"s{k}")
        k += 1
        end.wait(0.03)  # all that was appended is looked at in each backup


def checkpointing(run, end):
    with CheckpointManager(run, signals=False, durable=False, save=Always(), keep=KeepLast(3)) as cm:
        k = 0
        while not end.is_set():
            cm.create_checkpoint({"k": k, "w": np.full(3000, k), "shared": np.arange(3000)}, progress=k)
            k += 1


def replacing(folder, end):
    k = 0
    while not end.is_set():
        for name in ("a.qms", "b.json"):
            qm.save(qm.MemoryState(classical={"k": k, "w": np.full(2000, k)}), folder / name, durable=False)
        k += 1


LENGTH, LONG_WRITE = 256 << 10, 32 << 20


def overwriting(path, length, pause, end):
    """Write in place, as programs do that know no better, all the time or with pauses."""
    k = 0
    with path.open("r+b", buffering=0) as file:
        while not end.is_set():
            k += 1
            file.seek(0)
            file.write(bytes([k % 256]) * length)
            end.wait(pause)


@contextlib.contextmanager
def meanwhile(work, *arguments):
    """Have another process work while a block lasts."""
    end = SPAWN.Event()
    process = SPAWN.Process(target=work, args=(*arguments, end))
    process.start()
    try:
        yield process
    finally:
        end.set()
        process.join(LONG)
    assert process.exitcode == 0


def until(condition):
    deadline = time.monotonic() + LONG
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_store_that_others_append_to_is_whole_in_each_backup(tmp_path):
    path, counts = tmp_path / "store.h5", []
    with manager(tmp_path, max_backups=None) as bm:
        with meanwhile(appending, path):
            until(path.exists)
            ids = [bm.create_backup(path)]
            for _ in range(BACKUPS - 1):
                size = path.stat().st_size
                until(lambda size=size: path.stat().st_size > size)
                ids.append(bm.create_backup(path))
        for one in ids:
            bm.restore_backup(one, tmp_path / "again.h5", backup_first=False)
            storage = HDF5QuantumStorage(tmp_path / "again.h5")
            there = {known["id"] for known in storage.list_states()}
            assert there == {f"s{k}" for k in range(len(there))}
            for k in range(len(there)):
                found = storage.load_quantum_state(f"s{k}")["classical_data"]
                assert found["k"] == k
                assert (found["w"] == k).all()
            assert qm.verify(tmp_path / "again.h5")
            counts.append(len(there))
    assert counts == sorted(counts)
    assert counts[-1] > counts[0]


def newest(run):
    return max(one.name for one in (run / "checkpoints").glob("*.qmcp"))


def test_a_folder_of_checkpoints_is_whole_in_each_backup(tmp_path):
    run, last = tmp_path / "run", []
    with manager(tmp_path, max_backups=None) as bm, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*were not removed")
        with meanwhile(checkpointing, run):
            until(lambda: (run / "checkpoints").exists() and list((run / "checkpoints").glob("*.qmcp")))
            ids = [bm.create_backup(run)]
            for _ in range(BACKUPS - 1):
                there = newest(run)
                until(lambda there=there: newest(run) > there)
                ids.append(bm.create_backup(run))
        for number, one in enumerate(ids):
            again = tmp_path / f"again{number}"
            bm.restore_backup(one, again)
            with CheckpointManager(again, signals=False, durable=False, save=Always(), keep=KeepLast(3)) as cm:
                assert set(cm.verify().values()) == {None}
                resumed = cm.resume()
                assert resumed.state["k"] == resumed.progress
                assert (resumed.state["w"] == resumed.progress).all()
                cm.create_checkpoint({"goes": "on"}, progress=resumed.progress + 1)
            last.append(resumed.progress)
    assert last == sorted(last)
    assert last[-1] > last[0]


def test_files_that_are_replaced_are_each_of_one_version(tmp_path):
    """The file that was opened loses its name meanwhile, and keeps what is in it."""
    folder = tmp_path / "files"
    folder.mkdir()
    with manager(tmp_path, max_backups=None) as bm:
        with meanwhile(replacing, folder):
            until((folder / "b.json").exists)
            ids = [bm.create_backup(folder) for _ in range(4 * BACKUPS)]
            alone = [bm.create_backup(folder / "a.qms") for _ in range(BACKUPS)]
        for number, one in enumerate(ids):
            assert bm.get_backup(one)["problem_files"] == []
            bm.restore_backup(one, tmp_path / f"again{number}")
            for name in ("a.qms", "b.json"):
                found = qm.load(tmp_path / f"again{number}" / name).classical
                assert (found["w"] == found["k"]).all()
        for one in alone:
            bm.restore_backup(one, tmp_path / "a.qms", backup_first=False)
            found = qm.load(tmp_path / "a.qms").classical
            assert (found["w"] == found["k"]).all()


def test_what_is_written_in_place_is_one_version_or_a_problem(tmp_path):
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "file").write_bytes(bytes(LENGTH))
    whole = problems = 0
    with manager(tmp_path, max_backups=None, compression=False) as bm:
        with meanwhile(overwriting, folder / "file", LENGTH, 0), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            until(lambda: (folder / "file").read_bytes()[:1] != b"\0")
            ids = [bm.create_backup(folder) for _ in range(3 * BACKUPS)]
            seen = 0
            for _ in range(500):
                try:
                    ids.append(bm.create_backup(folder / "file"))
                except ConflictError:  # alone it is the end of it, when it is seen
                    seen += 1
                    break
            assert seen
        for number, one in enumerate(ids):
            known = bm.get_backup(one)
            if known["problem_files"]:
                assert known["problem_files"][0][0] == "file"
                problems += 1
                continue
            bm.restore_backup(one, tmp_path / f"again{number}")
            at = tmp_path / f"again{number}"
            content = (at / "file" if at.is_dir() else at).read_bytes()
            assert content == content[:1] * LENGTH
            whole += 1
    assert whole + problems == len(ids)


class ChangedMeanwhile(PassingFiles):
    """Changes a file whenever the first half of what is read at its beginning has been read.

    Parameters
    ----------
    change
        What is done to it, given how often it was.
    times
        How often at most.
    """

    def __init__(self, path, change, times):
        super().__init__()
        self._path, self._change, self._times = path, change, times
        self.changes = 0

    def read_into(self, fd, buffer, offset):
        is_it = offset == 0 and len(buffer) > 8 and Path(f"/proc/self/fd/{fd}").samefile(self._path)
        if not is_it or self.changes == self._times:
            return super().read_into(fd, buffer, offset)
        got = super().read_into(fd, buffer[: len(buffer) // 2], offset)
        self.changes += 1
        self._change(self.changes)
        return got


CHANGES = {
    "in place": lambda k, length: bytes([k]) * length,
    "shorter": lambda k, length: bytes([k]) * (length // 4 - k),
    "longer": lambda k, length: bytes([k]) * (length + k),
}


@pytest.mark.parametrize("length", [5000, saving._LARGE + 5000])
@pytest.mark.parametrize("how", CHANGES)
def test_a_file_that_changes_while_it_is_read_is_read_again(tmp_path, how, length):
    folder = tmp_path / "files"
    folder.mkdir()
    path, other = folder / "file", folder / "other"
    other.write_bytes(b"other")

    def change(k):
        path.write_bytes(CHANGES[how](k, length))

    with manager(tmp_path, max_backups=None) as bm:
        for times in range(saving._ATTEMPTS):
            path.write_bytes(bytes(length))
            with files.using(meddling := ChangedMeanwhile(path, change, times)):
                one = bm.create_backup(folder)
            assert meddling.changes == times
            bm.restore_backup(one, tmp_path / f"again{times}")
            assert (tmp_path / f"again{times}" / "file").read_bytes() == path.read_bytes()
        path.write_bytes(bytes(length))
        with files.using(ChangedMeanwhile(path, change, saving._ATTEMPTS)):
            with pytest.warns(UserWarning, match="is without 1 of the files"):
                one = bm.create_backup(folder)
            ((problem, why),) = bm.get_backup(one)["problem_files"]
            assert (problem, "it changed each of the 3 times" in why) == ("file", True)
        bm.restore_backup(one, tmp_path / "without")
        assert [one.name for one in (tmp_path / "without").iterdir()] == ["other"]
        with (
            files.using(ChangedMeanwhile(path, change, saving._ATTEMPTS)),
            pytest.raises(ConflictError, match="it changed each of the 3 times"),
        ):
            bm.create_backup(path)


def test_a_file_that_grows_between_two_looks_at_it_is_none_of_the_length_before(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"x" * 100)

    class Growing(PassingFiles):
        def open(self, at, flags, mode=0o666):
            self.looks = 0
            return super().open(at, flags, mode)

        def fstat(self, fd):
            facts, self.looks = super().fstat(fd), self.looks + 1
            if self.looks == 1:
                with path.open("ab") as file:
                    file.write(b"y")
            return facts

    with files.using(Growing()), pytest.raises(sources.Changed), sources.opened(str(path)):
        pass
    with sources.opened(str(path)) as source:
        assert source.file.size == source.facts.st_size == 101


def test_a_write_that_is_under_way_is_waited_for(tmp_path):
    """It has its time from its beginning on, so that this does not tell that it is not done."""
    path, whole = tmp_path / "file", 0
    path.write_bytes(bytes(LONG_WRITE))
    with meanwhile(overwriting, path, LONG_WRITE, 0.03):
        until(lambda: path.read_bytes()[:1] != b"\0")
        for _ in range(1000):
            with contextlib.suppress(sources.Changed), sources.opened(str(path)) as source:
                found = {source.file.read(at, 1) for at in range(0, LONG_WRITE, LONG_WRITE // 64)}
                source.check()
                assert len(found) == 1
                whole += 1
    assert whole


def test_what_is_written_through_memory_is_seen_the_next_time(tmp_path, monkeypatch):
    """A page that the disk was not given yet can be written to again without a change of the times."""
    monkeypatch.setattr(saving, "_RACY", -saving._RACY)
    path = tmp_path / "file"
    path.write_bytes(bytes(8192))
    with manager(tmp_path) as bm, path.open("r+b") as file, mmap.mmap(file.fileno(), 8192) as memory:
        memory[0] = 1
        bm.create_backup(path)
        memory[1] = 2
        # In file systems in memory such changes have no times: there all has to be read.
        bm.restore_backup(bm.create_backup(path, reread=_is_in_memory(path)), tmp_path / "again")
    assert (tmp_path / "again").read_bytes()[:3] == b"\1\2\0"


def _is_in_memory(path):
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    return max((len(at), kind) for _, at, kind, *_ in mounts if str(path).startswith(at))[1] in {"tmpfs", "ramfs"}


def test_a_file_that_is_opened_for_the_first_time_just_after_a_change_waits_for_the_clock(tmp_path):
    """Whatever is written after it was opened shows in its times."""
    path = tmp_path / "file"
    for k in range(20):
        path.write_bytes(bytes([k]) * 100)
        with sources.opened(str(path)) as source:
            assert time.time_ns() - source.facts.st_ctime_ns >= sources._TICK or source.facts.st_ctime_ns == 0
            with path.open("r+b") as file:
                file.write(b"x")
            with pytest.raises(sources.Changed):
                source.check()


# --- who shares a folder of backups


def backing_up(place, who, made):
    with manager(place, max_backups=None) as bm:
        source = place / f"source {who}"
        source.mkdir()
        for k in range(8):
            (source / f"{k}").write_bytes(f"{who} {k}".encode() * 500)
            (source / "shared").write_bytes(bytes(range(256)) * 300)
            made.put((bm.create_backup(source), str(source), k))


def pruning(place, end):
    with manager(place, keep=KeepLast(1)) as bm:
        while not end.is_set():
            bm.prune()


def test_processes_that_back_up_into_one_folder_while_one_removes_lose_nothing(tmp_path):
    """The last of each is there; with tags, all are."""
    queue = SPAWN.Queue()
    with manager(tmp_path, max_backups=None) as bm:
        (tmp_path / "first").write_bytes(b"x")
        tagged = bm.create_backup(tmp_path / "first", tags=["keep"])
        writers = [SPAWN.Process(target=backing_up, args=(tmp_path, who, queue)) for who in "ab"]
        with meanwhile(pruning, tmp_path):
            for one in writers:
                one.start()
            made = [queue.get(timeout=LONG) for _ in range(16)]
            for one in writers:
                one.join(LONG)
                assert one.exitcode == 0
        there = {one["id"] for one in bm.list_backups()}
        newest = {source: one for one, source, k in made if k == 7}
        assert set(newest.values()) | {tagged} <= there
        report = bm.verify()
        assert report, report
        for source, one in newest.items():
            bm.restore_backup(one, tmp_path / "again")
            assert looked_at(tmp_path / "again") == looked_at(source)
            (tmp_path / "again").rename(tmp_path / one)


def test_threads_with_one_manager_and_with_one_each(tmp_path):
    made, failures = [], []

    def work(who, bm):
        try:
            source = tmp_path / f"source {who}"
            source.mkdir()
            for k in range(5):
                (source / f"{k}").write_bytes(f"{who} {k}".encode() * 9000)
                made.append((bm.create_backup(source), source))
        except BaseException as error:
            failures.append(error)

    with manager(tmp_path, max_backups=None) as bm:
        threads = [threading.Thread(target=work, args=(k, bm)) for k in range(3)]
        threads += [threading.Thread(target=work, args=(k, manager(tmp_path, max_backups=None))) for k in range(3, 6)]
        for one in threads:
            one.start()
        for one in threads:
            one.join(LONG)
        assert failures == []
        assert len({one for one, _ in made}) == len(made) == 30
        assert bm.verify()
        assert {one["id"] for one in bm.list_backups()} == {one for one, _ in made}


def test_whoever_begins_does_not_wait_for_those_who_are_saving(tmp_path):
    """A folder that is there is opened beside others, however long these take."""
    (tmp_path / "file").write_bytes(b"x")
    with manager(tmp_path) as first, manager(tmp_path) as second:
        first.create_backup(tmp_path / "file")
        with first.folder.store.shared():
            one = second.create_backup(tmp_path / "file")
        assert second.verify_backup(one)


def test_what_is_read_is_not_removed_meanwhile(tmp_path):
    (tmp_path / "file").write_bytes(b"x")
    with manager(tmp_path) as first, manager(tmp_path) as second:
        one = first.create_backup(tmp_path / "file")
        with first.held():
            with pytest.raises(ConflictError), second.folder.store.alone(timeout=0.05):
                pass
            assert first.verify_backup(one)
        second.delete_backup(one)
        assert first.list_backups() == []
        with pytest.raises(QuantumMemoryError):
            first.restore_backup(one, tmp_path / "again")


def test_the_backups_of_backups(tmp_path):
    """A folder of backups is one that is held together with those who save into it, as one of checkpoints is."""
    (tmp_path / "file").write_bytes(b"x" * 100_000)
    with manager(tmp_path) as bm, BackupManager(tmp_path / "second", durable=False) as second:
        first = bm.create_backup(tmp_path / "file")
        one = second.create_backup(tmp_path / "backups")
        other = bm.create_backup(tmp_path / "second")
        second.restore_backup(one, tmp_path / "again")
        with BackupManager(tmp_path / "again", durable=False) as again:
            assert again.verify()
            again.restore_backup(first, tmp_path / "file again")
        assert bm.verify_backup(other)
    assert (tmp_path / "file again").read_bytes() == (tmp_path / "file").read_bytes()
