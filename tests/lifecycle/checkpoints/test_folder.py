"""What is in a folder of checkpoints is found, whole or named as damaged; what dead processes left goes."""

import errno
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from quantum_memory.durability import atomic, files, pack
from quantum_memory.durability.chunk_store import ChunkStore
from quantum_memory.durability.files import RealFiles
from quantum_memory.durability.folders import make_folder
from quantum_memory.errors import (
    ConflictError,
    IntegrityError,
    InvalidStateError,
    MissingError,
    StorageError,
    UnsafeError,
    UnsupportedVersionError,
)
from quantum_memory.lifecycle.checkpoint_manager import CheckpointManager
from quantum_memory.lifecycle.checkpoints.folder import CheckpointFolder
from quantum_memory.testing.equality import assert_identical
from quantum_memory.testing.faults import FaultyFiles, RecordingFiles, in_child


@pytest.fixture
def run(tmp_path):
    return tmp_path / "run"


def manager(run, **options):
    return CheckpointManager(run, **{"signals": False, "durable": False, **options})


def state(k, size=1000):
    return {"w": np.arange(size, dtype=np.float64) + k, "k": k}


def saved(run, *numbers, **options):
    with manager(run, **options) as cm:
        return [cm.create_checkpoint(state(k), progress=k) for k in numbers]


def damage(path, at=-1):
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def manifest_at(run, one):
    return run / "checkpoints" / (one + CheckpointFolder.suffix)


def packs(run):
    return sorted((run / "chunks").iterdir())


# Durable writing


def test_the_rules_of_durable_writing_are_kept(run):
    recorder = RecordingFiles()
    with files.using(recorder):
        with CheckpointManager(run, max_checkpoints=3, signals=False) as cm:
            for k in range(5):
                cm.create_checkpoint(state(k))
            cm.tag(cm.resolve(cm.list_checkpoints()[0]["id"]), "last")
            cm.delete_checkpoint(cm.list_checkpoints()[1]["id"])
            cm.resume()
        broken = [rule for rule in recorder.violations() if "log.jsonl" not in rule]  # it is for people
    assert broken == []


def test_a_checkpoint_takes_four_syncs_however_many_arrays_there_are(run):
    with CheckpointManager(run, signals=False) as cm:
        cm.create_checkpoint(state(0))
        recorder = RecordingFiles()
        with files.using(recorder):
            cm.create_checkpoint({str(k): np.full(1000, k) for k in range(100)})
    assert [call.name for call in recorder.log].count("fsync") == 4


@pytest.mark.parametrize("path", ["run", "run/"])
def test_the_name_of_the_folder_is_durable_before_anything_is_acknowledged(tmp_path, monkeypatch, path):
    """Whoever made it may have died before it was: so all who find it there make it so."""
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        recorder = RecordingFiles()
        with files.using(recorder), CheckpointManager(path, signals=False) as cm:
            cm.create_checkpoint(state(0))
        calls = [(call.name, call.arguments[-1 if call.name == "link" else 0]) for call in recorder.log]
        above = calls.index(("open", str(tmp_path)))
        assert calls[above + 1][0] == "fsync"
        assert above < next(
            k for k, (name, where) in enumerate(calls) if name == "link" and where.endswith(CheckpointFolder.suffix)
        )


def test_a_folder_above_that_nobody_may_read_does_no_harm(tmp_path):
    class Refusing(RealFiles):
        def open(self, path, flags, mode=0o666):
            if path == str(tmp_path):
                raise PermissionError(errno.EACCES, "no")
            return super().open(path, flags, mode)

    (tmp_path / "run").mkdir()
    with files.using(Refusing()):
        make_folder(str(tmp_path / "run"))
        with pytest.raises(StorageError):
            make_folder(str(tmp_path / "new"))


def test_the_folder_stays_where_it_was_when_the_process_goes_elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with manager("run") as cm:
        cm.create_checkpoint(state(0))
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path / "elsewhere")
        cm.create_checkpoint(state(1))
    assert len(list((tmp_path / "run" / "checkpoints").iterdir())) == 2


def test_a_first_write_that_fails_leaves_nothing_open(run):
    saved(run, 0)

    class Full(RecordingFiles):
        def call(self, name, *arguments):
            if name == "write":
                raise OSError(errno.ENOSPC, "full")
            return super().call(name, *arguments)

    full = Full()
    with files.using(full), manager(run) as cm, pytest.raises(StorageError):
        cm.create_checkpoint(state(1))
    assert [rule for rule in full.violations(acknowledged=False) if "still open" in rule] == []
    assert list((run / "chunks").glob(".*")) == []


# What is there


def test_a_head_that_is_damaged_is_named_and_hides_no_other(run):
    first, second, third = saved(run, 0, 1, 2)
    damage(manifest_at(run, second), 130)
    good, bad = CheckpointFolder(run).listed()
    assert [one.id for one in good] == [first, third]
    assert list(bad) == [second]
    assert str(manifest_at(run, second)) in str(bad[second])


def test_a_manifest_under_another_name_is_none(run):
    (one,) = saved(run, 0)
    manifest_at(run, one).rename(manifest_at(run, "another"))
    assert "says that it is" in str(CheckpointFolder(run).listed()[1]["another"])
    with pytest.raises(IntegrityError, match="says that it is"):
        CheckpointFolder(run).manifest("another")


@pytest.mark.parametrize("name", ["../lock", "", "a/b", "A" * 3, "x" * 200, ".hidden", "a\0"])
def test_what_cannot_be_an_id_names_no_file(run, name):
    saved(run, 0)
    with pytest.raises(MissingError):
        CheckpointFolder(run).manifest(name)


def test_other_files_in_the_folder_are_left_alone(run):
    (one,) = saved(run, 0)
    for path in ("notes.txt", "checkpoints/README", "checkpoints/X.qmcp", "chunks/x.qmpack", "chunks/.swp"):
        (run / path).write_text("mine")
    folder = CheckpointFolder(run, durable=False)
    assert folder.ids() == [one]
    with folder.store.alone():
        folder.collect()
        folder.sweep()
    assert sum(path.read_bytes() == b"mine" for path in run.rglob("*") if path.is_file()) == 5
    assert folder.check(one) == 1


def test_a_folder_that_is_called_like_a_pack_does_no_harm(run):
    (one,) = saved(run, 0)
    (run / "chunks" / ("a" * 32 + ".qmpack")).mkdir()
    folder = CheckpointFolder(run)
    assert folder.check(one) == 1
    assert list(folder.store.damaged) == ["a" * 32 + ".qmpack"]
    saved(run, 1)


def test_a_folder_that_is_not_there_is_empty(run):
    folder = CheckpointFolder(run)
    assert folder.listed() == ([], {})
    assert folder.log() == []
    assert not folder.is_there
    assert folder.refs().tags == {}
    assert not run.exists()


def test_numbers_are_above_all_that_there_are_whatever_the_clock_says(run, monkeypatch):
    import datetime

    saved(run, 0)
    place = "quantum_memory.lifecycle.checkpoints.saving.now"
    monkeypatch.setattr(place, lambda: datetime.datetime(1999, 1, 1, tzinfo=datetime.UTC))
    (late,) = saved(run, 1)
    assert late.startswith("1999")
    with manager(run) as cm:
        assert cm.list_checkpoints()[0]["id"] == late
        assert cm.resume().progress == 1


# Names


def test_tags_that_are_damaged_are_found(run):
    (one,) = saved(run, 0)
    with manager(run) as cm:
        cm.tag(one, "paper")
        data = (run / "refs.json").read_bytes()
        for at in range(len(data)):
            damaged = bytearray(data)
            damaged[at] ^= 1
            (run / "refs.json").write_bytes(damaged)
            with pytest.raises(IntegrityError):
                cm.folder.refs()
        for other in (b"", b"[]", b"{}", b'{"sha256": 1}', data[:-1], b"[" * 100_000):
            (run / "refs.json").write_bytes(other)
            with pytest.raises((IntegrityError, UnsafeError)):
                cm.folder.refs()
        (run / "refs.json").write_bytes(data)
        assert cm.folder.refs().tags == {"paper": one}


@pytest.mark.parametrize("name", ["", "a b", "../x", "x" * 129, 7, "ü"])
def test_a_tag_and_a_branch_are_short_words(run, name):
    (one,) = saved(run, 0)
    with manager(run) as cm:
        with pytest.raises(InvalidStateError):
            cm.tag(one, name)
        with pytest.raises(InvalidStateError):
            cm.branch(name)


# The log


def test_the_log_says_what_was_done_and_a_line_that_was_cut_short_hides_no_other(run):
    (one,) = saved(run, 0)
    with manager(run) as cm:
        cm.tag(one, "paper")
        with (run / "log.jsonl").open("ab") as log:
            log.write(b'{"when": "cut sh\n[]\n\xff\n')
        cm.resume(update={"rate": 0.5})
    actions = CheckpointFolder(run).log()
    assert [line["action"] for line in actions] == ["tagged", "resumed"]
    assert actions[0]["tag"] == "paper"
    assert actions[1]["update"] == {"rate": 0.5}


def test_a_log_that_cannot_be_written_stops_nothing(run):
    (one,) = saved(run, 0)
    (run / "log.jsonl").mkdir()
    with manager(run) as cm:
        cm.tag(one, "paper")
        assert cm.resume().progress == 0


# What is left, and what goes


def test_what_a_killed_save_left_goes_with_the_next_collection(run):
    (one,) = saved(run, 0)
    store = ChunkStore(run, durable=False)
    with store.shared(), store.writer() as writer:  # and no manifest
        writer.add(b"x" * 32, b"abc", check=pack.checksum(b"abc"), codec=0, raw=3)
    for folder in ("", "chunks", "checkpoints"):
        (run / folder / ".left.qmcp.0123456789abcdef.qmtmp").write_bytes(b"half")
    folder = CheckpointFolder(run, durable=False)
    with folder.store.alone():
        assert len(folder.sweep()) == 3
        done = folder.collect()
    assert (done.packs_removed, done.chunks_removed) == (1, 1)
    assert folder.check(one) == 1
    assert list(run.rglob(".*")) == []


def test_a_new_process_removes_what_a_dead_one_left(run):
    saved(run, 0)
    left = [run / folder / ".left.qmcp.0123456789abcdef.qmtmp" for folder in ("chunks", "checkpoints")]
    for path in left:
        path.write_bytes(b"half")
    atomic.forget_sweeps()  # as a new process begins
    saved(run, 1)
    assert not any(path.exists() for path in left)


@pytest.mark.parametrize("compression", ["zstd", "lz4", "zlib", "none"])
def test_what_others_need_of_a_pack_is_written_anew_packed_as_it_was(run, compression):
    """A removal that copies it changes neither what is restored nor how much room it takes."""
    shared = np.repeat(np.arange(500.0), 20)
    alone, both = {"gone": np.arange(20_000.0)[::-1].copy(), "w": shared}, {"w": shared, "k": np.ones(3)}
    with manager(run, compression=compression) as cm:
        first, second = cm.create_checkpoint(alone), cm.create_checkpoint(both)
        needed = cm.folder.manifest(second).chunks()
        old = packs(run)
        with cm.folder.store.shared():
            before = {one: cm.folder.store.place(one)[1]._replace(offset=0) for one in needed}
        assert any(place.codec for place in before.values()) == (compression != "none")
        cm.delete_checkpoint(first)
        assert len(set(old) - set(packs(run))) == 1
        assert set(packs(run)) - set(old)  # one was written anew
    with manager(run) as cm:
        assert_identical(cm.restore(second), both)
        assert set(cm.verify().values()) == {None}
        with cm.folder.store.shared():
            assert {one: cm.folder.store.place(one)[1]._replace(offset=0) for one in needed} == before


def test_nothing_is_collected_while_a_manifest_is_damaged(run):
    first, second = saved(run, 0, 1)
    damage(manifest_at(run, first))
    folder = CheckpointFolder(run, durable=False)
    with folder.store.alone(), pytest.raises(IntegrityError) as caught:
        folder.collect()
    assert first in caught.value.next_step
    assert len(packs(run)) == 2
    with manager(run) as cm:
        cm.delete_checkpoint(first)  # a damaged one can go
        assert cm.verify() == {second: None}
    assert len(packs(run)) == 1


def test_a_chunk_that_was_found_damaged_is_written_anew_by_the_next_save(run):
    """Otherwise everything that is saved from then on would share the damage."""
    (one,) = saved(run, 0)
    (path,) = packs(run)
    damage(path, 64 + 5)
    with manager(run) as cm:
        assert "checksum" in cm.verify(one)[one]
        two = cm.create_checkpoint(state(0), progress=1)
        assert cm.verify() == {one: None, two: None}
    assert CheckpointFolder(run).check(one) == 1  # for whoever comes anew, too
    with manager(run, max_checkpoints=1) as cm:
        three = cm.create_checkpoint(state(3))
        assert cm.verify() == {three: None}


def test_a_chunk_that_several_checkpoints_have_is_read_once(run):
    same = np.random.default_rng(0).bytes(3 << 20)
    with manager(run) as cm:
        ids = [cm.create_checkpoint({"same": np.frombuffer(same, np.uint8), "own": np.full(1000, k)}) for k in range(6)]
    recorder = RecordingFiles()
    with files.using(recorder):
        assert manager(run).verify() == dict.fromkeys(ids)
    assert 1 < recorder.bytes_read / len(same) < 1.05


def test_what_is_wrong_with_a_chunk_is_said_of_every_checkpoint_that_has_it(run):
    same = np.arange(1000)
    with manager(run) as cm:
        ids = [cm.create_checkpoint({"same": same, "own": np.full(k + 9, k)}) for k in range(3)]
        ids.append(cm.create_checkpoint({"own": np.arange(9.0)}))
        with cm.folder.store.shared():
            name, place = cm.folder.store.place(cm.folder.manifest(ids[0]).arrays["classical/same"].chunk(0))
        damage(run / "chunks" / name, place.offset)
        found = cm.verify()
        assert found == {one: cm.verify(one)[one] for one in ids}
        assert [found[one] is None for one in ids] == [False, False, False, True]
        (run / "chunks" / name).unlink()
        assert [found is None for found in manager(run).verify().values()] == [True, False, False, False]


def test_what_others_remove_meanwhile_is_not_said_to_be_damaged(run):
    ids = saved(run, 0, 1, 2)
    with manager(run) as cm, manager(run) as other:
        found = cm.verifying()
        assert next(found) == (ids[2], None)
        other.delete_checkpoint(ids[1])
        assert list(found) == [(ids[0], None)]


@pytest.mark.parametrize("first", ["none", "zstd"])
def test_a_copy_that_is_packed_in_another_way_takes_the_place_of_a_damaged_one(run, first):
    """Two processes with different codecs may write one chunk at the same time."""
    second = {"none": "zstd", "zstd": "none"}[first]
    constant = {"w": np.zeros(1000)}
    with manager(run, compression=first) as one, manager(run, compression=second) as other:
        one.create_checkpoint(state(0))
        made = one.create_checkpoint(constant)
        other.folder.store._refresh(0)
        other.folder.store._where.clear()  # as if it had looked before the first was written
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ChunkStore, "_refresh", lambda *_: None)
            other.create_checkpoint(constant)
    where = {}
    for path in packs(run):
        with files.ReadableFile(str(path)) as source:
            for name, place in pack.read_index(source).items():
                where.setdefault(name, []).append((path, place))
    ((one, place), (_, copy)) = next(both for both in where.values() if len(both) == 2)
    assert place.codec != copy.codec
    damage(one, place.offset)
    with manager(run) as cm:
        assert cm.verify(made) == {made: None}
        assert_identical(cm.restore(made), constant)
        cm.delete_checkpoint(cm.list_checkpoints()[-1]["id"])
        assert_identical(cm.restore(made), constant)


def test_a_pack_of_a_later_release_stops_whoever_cannot_read_it(run):
    saved(run, 0)
    (path,) = packs(run)
    data = bytearray(path.read_bytes())
    data[8:16] = (7).to_bytes(4, "little") * 2
    data[56:64] = pack.checksum(bytes(data[:56])).to_bytes(8, "little")
    (run / "chunks" / ("b" * 32 + ".qmpack")).write_bytes(data)
    with manager(run) as cm, pytest.raises(UnsupportedVersionError, match="version 7"):
        cm.create_checkpoint(state(1))


# Processes that were forked


def test_a_child_that_was_forked_holds_no_lock_of_its_parent(run):
    """A lock lasts as long as any copy of its descriptor: a worker would keep everybody from ever removing anything."""
    saved(run, 0)
    store, other = ChunkStore(run), ChunkStore(run)
    reading, writing = os.pipe()
    for held in (store.shared, store.alone):
        with held():
            pid = os.fork()
            if pid == 0:
                os.close(writing)
                os.read(reading, 1)  # lives on until it is told
                os._exit(0)
        with other.alone(timeout=5):
            pass
        os.write(writing, b"x")
        os.waitpid(pid, 0)
    os.close(reading)
    os.close(writing)


def test_a_child_that_leaves_the_block_of_its_parent_closes_nothing_else(run):
    saved(run, 0)
    store = ChunkStore(run)

    def leave(held):
        fd = os.open(run, os.O_RDONLY)  # likely the number that the lock had
        held.__exit__(None, None, None)
        os.fstat(fd)

    held = store.shared()
    held.__enter__()
    assert in_child(lambda: leave(held)) == 0
    with pytest.raises(ConflictError), ChunkStore(run).alone(timeout=0.01):
        pass  # the parent has it still
    held.__exit__(None, None, None)


def test_a_child_that_was_forked_while_a_thread_was_at_work_does_not_wait_for_it(run):
    """The thread that has the locks of the process is not there in the child, and would never let go of them."""
    import threading

    saved(run, 0)
    cm = manager(run)
    ready, end = threading.Event(), threading.Event()

    def hold():
        with cm.lock, cm._recorder.saver._numbers, cm.folder.store._guard:
            ready.set()
            end.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    ready.wait(60)

    def work():
        cm.create_checkpoint(state(7), progress=7)
        assert cm.resume().progress == 7
        cm.close()

    pid = _forked(work)
    deadline = time.monotonic() + 60
    while (done := os.waitpid(pid, os.WNOHANG)) == (0, 0) and time.monotonic() < deadline:
        time.sleep(0.01)
    end.set()
    thread.join()
    if done == (0, 0):
        os.kill(pid, 9)
        os.waitpid(pid, 0)
    assert done == (pid, 0)
    cm.close()


def _forked(work):
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    return pid


def test_a_process_that_another_runs_keeps_no_lock(run):
    saved(run, 0)
    store = ChunkStore(run)
    with store.shared():
        child = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
    with ChunkStore(run).alone(timeout=5):
        pass
    child.communicate(b"")


# Hostile and odd


def test_refs_that_name_what_is_not_there_stop_nothing(run):
    (one,) = saved(run, 0)
    with manager(run) as cm:
        cm.tag(one, "paper")
        cm.pin(one)
        manifest_at(run, one).unlink()
        two = cm.create_checkpoint(state(1))
        assert [item["tags"] for item in cm.list_checkpoints()] == [[]]
        with pytest.raises(MissingError):
            cm.restore("paper")
        cm.tag(two, "paper")
        assert cm.resolve("paper") == two


def test_an_error_of_the_disk_is_not_called_damage(run):
    (one,) = saved(run, 0)
    for k in range(40):
        faulty = FaultyFiles(k, errno.EIO)
        folder = CheckpointFolder(run)
        with files.using(faulty):
            try:
                folder.check(one)
            except StorageError as error:
                assert error.errno == errno.EIO  # noqa: PT017
        if not faulty.failed:
            break
    assert 5 < k < 39


def test_refs_are_json_that_anybody_reads(run):
    (one,) = saved(run, 0)
    with manager(run) as cm:
        cm.tag(one, "paper")
        cm.pin(one)
    said = json.loads(Path(run, "refs.json").read_text())
    assert (said["version"], said["tags"], said["pins"]) == (1, {"paper": one}, [one])


def test_going_back_to_a_branch_goes_on_from_its_newest(tmp_path):
    with CheckpointManager(tmp_path, signals=False) as cm:
        first = cm.create_checkpoint({"x": 1})
        newest = cm.create_checkpoint({"x": 2})
        cm.branch("other", at=first)
        cm.create_checkpoint({"x": 3})
        cm.branch("main")
        again = cm.create_checkpoint({"x": 4})
        assert cm.get_checkpoint(again)["parent"] == newest
        cm.branch("third")
        assert cm.get_checkpoint(cm.create_checkpoint({"x": 5}))["parent"] == again
