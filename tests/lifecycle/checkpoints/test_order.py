"""What was taken later is the newer one, what is acknowledged is there, and the folder of a stranger does no harm."""

import contextlib
import errno
import itertools
import os
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest

from quantum_memory import (
    Always,
    CheckpointManager,
    ConflictError,
    IntegrityError,
    InvalidStateError,
    KeepAll,
    KeepLast,
    StorageError,
    UnsafeError,
)
from quantum_memory.durability.files import ReadableFile, using
from quantum_memory.lifecycle.repository.signed_json import signature
from quantum_memory.state.json_text import to_json
from quantum_memory.testing.faults import PassingFiles
from quantum_memory.testing.power_cuts import CrashModel


def manager(run, **options):
    return CheckpointManager(run, **{"signals": False, "durable": False, "keep": KeepAll(), **options})


def big(seed=0):
    return {"a": np.random.default_rng(seed).random((3, 1 << 17))}


def progress_of(cm):
    return [one["progress"] for one in cm.list_checkpoints()]


class Failing(PassingFiles):
    """Fails at calls that a function picks."""

    def __init__(self, picks, error):
        super().__init__()
        self.picks, self.error = picks, error

    def call(self, name, *arguments):
        if self.picks(name, arguments):
            raise self.error
        return super().call(name, *arguments)


# Order


def test_what_is_created_while_a_step_is_saved_is_the_newer_one(tmp_path):
    go = threading.Event()

    def slowly(name, arguments):
        if name == "mkdir" and threading.current_thread().name == "checkpoint":
            assert go.wait(30)
        return False

    with manager(tmp_path / "run", save=Always(), keep=KeepLast(1)) as cm:
        with using(Failing(slowly, None)):
            assert cm.step({"x": 1}, progress=1)
        cm.create_checkpoint({"x": 2}, progress=2)
        go.set()
        cm.wait()
        assert progress_of(cm) == [2]
        assert cm.resume().progress == 2


def test_a_branch_that_is_taken_while_a_step_is_saved_begins_where_it_was_told_to(tmp_path):
    with manager(tmp_path, save=Always()) as cm:
        first = cm.create_checkpoint({"x": 0})
        cm.step(big(), progress=1)
        cm.branch("other", at=first)
        made = cm.create_checkpoint({"x": 1})
        cm.wait()
        assert cm.get_checkpoint(made)["parent"] == first


def test_a_restored_checkpoint_does_not_take_the_run_to_its_branch(tmp_path):
    with manager(tmp_path) as cm:
        first = cm.create_checkpoint({"x": 0})
        cm.branch("other", at=first)
        cm.restore_checkpoint({"x": 5}, first)
        made = cm.get_checkpoint(cm.create_checkpoint({"x": 1}))
        assert (made["branch"], made["parent"]) == ("other", first)


def test_a_save_that_fails_is_nobodys_parent(tmp_path):
    with manager(tmp_path) as cm:
        first = cm.create_checkpoint({"x": 0})
        full = Failing(lambda name, _: name == "write", OSError(errno.ENOSPC, "full"))
        with using(full), pytest.raises(StorageError):
            cm.create_checkpoint({"x": 1})
        assert cm.get_checkpoint(cm.create_checkpoint({"x": 2}))["parent"] == first


# What is kept


def test_a_run_removes_nothing_of_another_branch(tmp_path):
    with manager(tmp_path, branch="a", keep=None, save=Always()) as a:
        for k in range(3):
            a.step({"x": k}, progress=k)
            a.wait()
    with manager(tmp_path, branch="b", keep=None) as b:
        for k in range(21):
            b.create_checkpoint({"x": k})
    with manager(tmp_path, branch="a") as a:
        assert a.resume().progress == 2
    with manager(tmp_path, branch="b", keep=KeepLast(2)) as b:
        b.create_checkpoint({"x": 0})
    with manager(tmp_path, branch="a") as a:
        assert a.resume().progress == 2


def test_what_is_imported_is_not_taken_for_the_run(tmp_path):
    with manager(tmp_path / "old") as old:
        old.export_checkpoint(old.create_checkpoint({"x": 0}, progress=0), tmp_path / "old.qms")
    with manager(tmp_path / "run") as cm:
        cm.create_checkpoint({"x": 4}, progress=4)
        made = cm.import_checkpoint(tmp_path / "old.qms")
        assert cm.get_checkpoint(made)["branch"] == "imported"
        assert cm.resume().progress == 4
    with manager(tmp_path / "moved") as cm:  # but a run that was moved here goes on
        cm.import_checkpoint(tmp_path / "old.qms")
        assert cm.resume().progress == 0


def test_when_nothing_can_be_removed_somebody_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr("quantum_memory.lifecycle.repository.pruning.Pruner.prune.__kwdefaults__", {"timeout": 0.01})
    with manager(tmp_path, keep=KeepLast(1)) as cm, manager(tmp_path) as reader:
        cm.create_checkpoint({"x": 0})
        with reader.folder.store.shared(), pytest.warns(UserWarning, match="were not removed: others are at work"):
            cm.create_checkpoint({"x": 1})
        cm.create_checkpoint({"x": 2})
        assert len(cm.list_checkpoints()) == 1


# What is acknowledged


def test_an_earlier_failure_does_not_keep_the_end_from_being_saved(tmp_path):
    with manager(tmp_path, save=Always()) as cm:
        cm.create_checkpoint({"x": 0}, progress=0)
        full = Failing(lambda name, _: name == "write", OSError(errno.ENOSPC, "full"))
        with using(full):
            cm.step({"x": 1}, progress=1)
            cm._background.rest()
        with pytest.raises(StorageError) as caught:
            cm.finish({"x": 2}, progress=2)
        assert "was saved all the same" in caught.value.__notes__[0]
        assert cm.resume().progress == 2


def test_neither_of_two_failures_is_lost(tmp_path):
    with manager(tmp_path, save=Always()) as cm:
        cm.create_checkpoint({"x": 0})
        full = Failing(lambda name, _: name == "write", OSError(errno.ENOSPC, "full"))
        with using(full):
            cm.step({"x": 1}, progress=1)
            cm._background.rest()
        with pytest.raises(InvalidStateError, match="not a number") as caught:
            cm.create_checkpoint({"x": 2}, metrics={"energy": "low"})
        assert "full" in caught.value.__notes__[0]


def test_packs_that_are_gone_are_not_taken_for_there(tmp_path):
    with manager(tmp_path / "run") as cm:
        cm.create_checkpoint(big())
        for path in (tmp_path / "run" / "chunks").iterdir():
            path.unlink()
        made = cm.create_checkpoint(big())
        assert cm.verify(made) == {made: None}


def test_an_interrupt_while_packs_are_forgotten_leaves_no_wrong_index(tmp_path, monkeypatch):
    with manager(tmp_path) as cm:
        cm.create_checkpoint(big())
        store = cm.folder.store
        forget = type(store)._forget

        def interrupted(self, names):
            forget(self, names)
            if names:
                raise KeyboardInterrupt

        monkeypatch.setattr(type(store), "_forget", interrupted)
        with pytest.raises(KeyboardInterrupt):
            cm.delete_checkpoint(cm.list_checkpoints()[0]["id"])
        monkeypatch.undo()
        made = cm.create_checkpoint(big())
        assert cm.verify(made) == {made: None}


@pytest.mark.parametrize("before", ["a name that was not synced", "a run that syncs nothing"])
def test_what_others_wrote_is_durable_before_it_is_leaned_on(tmp_path, before):
    class Failing(PassingFiles):
        armed = True

        def call(self, name, *arguments):
            if name == "fsync" and self.armed and Path(f"/proc/self/fd/{arguments[0]}").readlink().name == "chunks":
                self.armed = False
                raise OSError(errno.EIO, "broken")
            return super().call(name, *arguments)

    run, synced = tmp_path / "disk" / "run", before == "a name that was not synced"
    run.parent.mkdir()
    if synced:
        manager(run, durable=True).create_checkpoint({"x": 0}, "first")
    model = CrashModel(run.parent)
    with using(Failing(model) if synced else model), contextlib.suppress(*[StorageError] if synced else []):
        manager(run, durable=synced).create_checkpoint(big())
    with using(model):
        manager(run, durable=True).create_checkpoint(big(), "acknowledged")
    model.acknowledged = 1
    states = 0
    for _ in itertools.takewhile(bool, model.leave_each(20)):
        states += 1
        with manager(run) as cm:
            made = next(one["id"] for one in cm.list_checkpoints() if one["name"] == "acknowledged")
            assert cm.verify(made) == {made: None}
    assert states


def test_a_bad_sector_is_passed_over(tmp_path, monkeypatch):
    with manager(tmp_path) as cm:
        cm.create_checkpoint(big(1), progress=1)
        last = cm.create_checkpoint(big(2), progress=2)
        pack, _ = cm.folder.store.place(next(iter(cm.folder.manifest(last).chunks())))
    read_into = ReadableFile.read_into

    def broken(self, buffer, offset):
        if self.name.endswith(pack) and offset < 1 << 20 and len(buffer) > 1000:
            raise StorageError("could not read", path=self.name)
        read_into(self, buffer, offset)

    monkeypatch.setattr(ReadableFile, "read_into", broken)
    with manager(tmp_path) as cm, pytest.warns(UserWarning, match="passed over"):
        assert cm.resume().progress == 1


# Locks


def test_a_target_is_never_saved_half_restored(tmp_path):
    class Slow:
        def __init__(self):
            self.a = self.b = 0

        def state_dict(self):
            return {"a": self.a, "b": self.b}

        def load_state_dict(self, state):
            self.a = state["a"]
            threading.Event().wait(0.05)
            self.b = state["b"]

    target = Slow()
    with manager(tmp_path, auto_checkpoint_interval=0.001, share=None) as cm:
        first = cm.create_checkpoint(target)
        target.a = target.b = 1
        cm.start_auto_checkpoint(target)
        for _ in range(200):
            with cm.lock:
                target.a = target.b = 1
            cm.restore_checkpoint(target, first)
            if len(cm.list_checkpoints()) > 3:
                break
        cm.stop_auto_checkpoint()
        states = [cm.restore(one["id"]) for one in cm.list_checkpoints()]
        assert len(states) > 3
        assert all(one["a"] == one["b"] for one in states)


def test_whoever_holds_the_lock_can_wait(tmp_path):
    with manager(tmp_path, save=Always()) as cm:
        first = cm.create_checkpoint(big())
        cm.step(big(1), progress=1)
        with cm.lock:
            cm.restore_checkpoint(big(2), first)
            cm.wait()
        assert len(cm.list_checkpoints()) == 2


# Signals


def test_a_signal_after_the_last_step_ends_the_program(tmp_path):
    code = f"""
import os, signal
from quantum_memory import CheckpointManager
with CheckpointManager({str(tmp_path)!r}, durable=False) as cm:
    os.kill(os.getpid(), signal.SIGTERM)
    WAY
print("went on")
"""
    for way, left in (("cm.finish(1, progress=9)", [9]), ("pass", [9])):
        done = subprocess.run(
            [sys.executable, "-c", code.replace("WAY", way)], capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stdout) == (143, ""), done.stderr
        with manager(tmp_path) as cm:
            assert progress_of(cm) == left


# The folder of a stranger


def test_nothing_is_written_through_a_link_or_into_a_pipe(tmp_path):
    run, victim = tmp_path / "run", tmp_path / "victim"
    with manager(run) as cm:
        cm.create_checkpoint({"x": 0}, "$(touch pwned)")
    victim.write_text("mine")
    log = run / "log.jsonl"
    for make in (lambda: log.symlink_to(victim), lambda: os.mkfifo(log)):
        log.unlink(missing_ok=True)
        make()
        with manager(run) as cm:
            cm.restore_checkpoint({"x": 1}, "$(touch pwned)")
    log.unlink()
    (run / "refs.json").symlink_to(tmp_path / "elsewhere")
    with manager(run) as cm, pytest.raises(UnsafeError, match="symbolic link"):
        cm.tag("$(touch pwned)", "best")
    assert victim.read_text() == "mine"
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("name", ["chunks", "lock"])
def test_the_files_of_another_run_are_not_taken_for_its_own(tmp_path, name):
    for run in ("mine", "other"):
        with manager(tmp_path / run) as cm:
            cm.create_checkpoint(big())
    part = tmp_path / "mine" / name
    part.rename(tmp_path / "away")
    part.symlink_to(tmp_path / "other" / name)
    with manager(tmp_path / "mine") as cm, pytest.raises(UnsafeError, match="symbolic link"):
        cm.delete_checkpoint(cm.list_checkpoints()[0]["id"])
    with manager(tmp_path / "other") as cm:
        assert set(cm.verify().values()) == {None}


def test_a_link_that_leads_nowhere_is_no_pack(tmp_path):
    with manager(tmp_path) as cm:
        cm.create_checkpoint({"x": 1}, progress=1)
    Path(tmp_path, "chunks", "0" * 32 + ".qmpack").symlink_to(tmp_path / "nowhere")
    with manager(tmp_path) as cm:
        assert cm.resume().progress == 1
        cm.create_checkpoint({"x": 2})


def test_tags_that_are_no_ids_are_refused(tmp_path):
    with manager(tmp_path) as cm:
        cm.create_checkpoint({"x": 0})
        for said in ({"version": 1, "tags": {"a": 1}, "pins": []}, {"version": 1, "tags": {}, "pins": [[]]}):
            (tmp_path / "refs.json").write_bytes(to_json({**said, "sha256": signature(said)}))
            with pytest.raises(IntegrityError, match=r"refs\.json"):
                cm.list_checkpoints()


def test_a_number_that_no_float_is_is_no_metric(tmp_path):
    with manager(tmp_path) as cm, pytest.raises(InvalidStateError, match="not a number"):
        cm.create_checkpoint({"x": 0}, metrics={"energy": 10**400})


# Many


def test_a_thousand_mapped_arrays_take_a_handful_of_descriptors(tmp_path):
    with manager(tmp_path) as cm:
        one = cm.create_checkpoint({str(k): np.full(100, k) for k in range(1000)})
        before = len(list(Path("/proc/self/fd").iterdir()))
        arrays = cm.restore(one, mmap=True)
        assert len(list(Path("/proc/self/fd").iterdir())) - before < 5
        assert all((arrays[str(k)] == k).all() for k in range(1000))


def test_a_damaged_pack_goes_when_all_that_is_needed_is_elsewhere(tmp_path):
    with manager(tmp_path) as cm:
        cm.create_checkpoint(big())
        (pack,) = (tmp_path / "chunks").iterdir()
        pack.write_bytes(pack.read_bytes()[:-1])
    with manager(tmp_path) as cm, warnings.catch_warnings():
        with cm.folder.store.alone():
            cm.folder.collect()
        assert pack.exists()  # its chunks are needed, and nowhere else
        cm.create_checkpoint(big())
        with cm.folder.store.alone():
            cm.folder.collect()
        assert not pack.exists()
        assert set(cm.verify().values()) == {None}


def test_a_lock_that_others_hold_is_waited_for(tmp_path):
    with manager(tmp_path) as cm, manager(tmp_path) as other:
        cm.create_checkpoint({"x": 0})
        with other.folder.store.alone(), pytest.raises(ConflictError), cm.folder.store.shared(timeout=0.01):
            pass
