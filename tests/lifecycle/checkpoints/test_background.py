"""Saving goes on while the run does: of the state as it was, one at a time, and what fails is heard of once."""

import contextlib
import errno
import gc
import itertools
import os
import random
import threading
import time
import weakref

import numpy as np
import pytest
import torch

from quantum_memory.durability import files
from quantum_memory.errors import BudgetError, InvalidStateError, StorageError
from quantum_memory.lifecycle.checkpoint_manager import CheckpointManager
from quantum_memory.lifecycle.checkpoints.background import Background
from quantum_memory.lifecycle.checkpoints.pace import Pace
from quantum_memory.lifecycle.checkpoints.snapshot import Staging, is_immutable
from quantum_memory.lifecycle.checkpoints.timer import Timer
from quantum_memory.lifecycle.due import Always, EverySeconds, EverySteps
from quantum_memory.lifecycle.retention import KeepAll
from quantum_memory.testing.equality import assert_identical
from quantum_memory.testing.faults import PassingFiles, in_child

LONG = 60.0


@pytest.fixture
def run(tmp_path):
    return tmp_path / "run"


class Gate(PassingFiles):
    """Lets a save come as far as its first write, until it is opened; then, if told to, everything fails."""

    def __init__(self, error=None):
        super().__init__()
        self.opened, self.reached, self.error = threading.Event(), threading.Event(), error

    def call(self, name, *arguments):
        if name == "write":
            self.reached.set()
            assert self.opened.wait(LONG)
            if self.error is not None:
                raise OSError(self.error, "refused")
        return super().call(name, *arguments)


def manager(run, **options):
    options = {"signals": False, "durable": False, "save": Always(), "keep": KeepAll(), **options}
    return CheckpointManager(run, **options)


# The state as it was


def test_what_is_changed_after_a_step_is_saved_as_it_was(run):
    rng = np.random.default_rng(0)
    array = rng.normal(size=(300, 500))
    tensor = torch.arange(1000.0)
    target = {
        "array": array, "view": array[::2, ::-3], "fortran": np.asfortranarray(array), "tensor": tensor,
        "bfloat": torch.ones(7, dtype=torch.bfloat16), "conj": torch.ones(3, dtype=torch.complex64).conj(),
        "list": [1, [2, {"k": 3}]], "swapped": np.arange(3, dtype=">i4"), "scalar": np.array(7),
        "text": np.array(["a"]), "model": torch.nn.Linear(3, 3),
    }  # fmt: skip
    progress, parameters = {"at": [1]}, {"rates": [0.5]}
    with manager(run, parameters=parameters) as cm:
        expected = cm.restore(cm.create_checkpoint(target))
        gate = Gate()
        with files.using(gate):
            assert cm.step(target, progress=progress)
        array[:] = -1
        target["fortran"][:] = -1
        tensor.fill_(-1)
        target["bfloat"].zero_()
        target["list"][1][1]["k"] = 4
        target["list"].append(5)
        target["swapped"][:] = 0
        target["scalar"][...] = 0
        target["text"][0] = "b"
        with torch.no_grad():
            target["model"].weight.zero_()
        target["new"] = 1
        progress["at"].append(2)
        cm.parameters["rates"].append(0.1)
        gate.opened.set()
        assert cm.wait()
        saved = cm.list_checkpoints()[0]
        assert_identical(cm.restore(), expected)
        assert (saved["progress"], saved["parameters"]) == ({"at": [1]}, {"rates": [0.5]})


def test_what_is_read_only_all_the_way_is_not_copied():
    frozen = np.arange(1000)
    frozen.flags.writeable = False
    owner = np.arange(1000)
    view = owner[10:]
    view.flags.writeable = False
    of_bytes = np.frombuffer(b"x" * 64, np.uint8)
    changing = bytearray(64)
    of_buffer = np.frombuffer(memoryview(changing).toreadonly(), np.uint8)
    arrays = {"frozen": frozen, "part": frozen[3:], "view": view, "bytes": of_bytes, "buffer": of_buffer}
    assert [is_immutable(array) for array in arrays.values()] == [True, True, False, True, False]
    staging = Staging()
    taken = staging.take(arrays)
    assert taken["frozen"] is frozen
    assert taken["bytes"] is of_bytes
    owner[:] = -1
    changing[0] = 7
    assert taken["view"][0] == 10
    assert taken["buffer"][0] == 0
    assert staging.nbytes < 8000 + 200


def test_the_memory_of_a_snapshot_is_used_again():
    staging = Staging()
    first = staging.take({"a": np.arange(1000), "b": np.ones(3, np.float16)})
    nbytes, place = staging.nbytes, first["a"].__array_interface__["data"][0]
    del first
    second = staging.take({"a": np.arange(900), "b": np.ones(3, np.float16), "e": np.zeros((0, 2))})
    assert staging.nbytes == nbytes
    assert second["a"].__array_interface__["data"][0] == place
    assert second["a"].tolist() == list(range(900))
    big = np.arange(5 << 20, dtype=np.float64).reshape(5, -1)  # in pieces, on several cores
    third = staging.take({"big": big, "strided": big[:, ::2]})
    assert np.array_equal(third["big"], big)
    assert np.array_equal(third["strided"], big[:, ::2])


def test_a_copy_for_which_there_is_no_memory_is_an_error_that_says_what_to_do(monkeypatch):
    def none(*_):
        raise MemoryError

    staging = Staging()
    array = np.zeros(1000)
    monkeypatch.setattr(np, "empty", lambda shape, dtype: np.zeros(0, dtype) if shape == 0 else none())
    with pytest.raises(BudgetError, match="background=False"):
        staging.take({"a": array})


# One at a time


def test_while_one_is_saved_nothing_else_is_due_and_then_the_next_is(run):
    with manager(run, save=EverySteps(1)) as cm:
        gate = Gate()
        with files.using(gate):
            assert cm.step({"k": 1}, 1)
            assert gate.reached.wait(LONG)
            assert not any(cm.step({"k": k}, k) for k in range(2, 50))
        gate.opened.set()
        cm.wait()
        assert cm.step({"k": 50}, 50)
        cm.wait()
        assert [one["progress"] for one in cm.list_checkpoints()] == [50, 1]


def test_a_checkpoint_that_is_asked_for_does_not_wait_for_one_in_the_background(run):
    with manager(run) as cm:
        gate = Gate()
        with files.using(gate):
            cm.step({"k": 0}, 0)
        assert gate.reached.wait(LONG)
        one = cm.create_checkpoint({"k": 1}, progress=1)
        assert [item["id"] for item in cm.list_checkpoints()] == [one]
        gate.opened.set()
        cm.wait()
        assert {item["progress"] for item in cm.list_checkpoints()} == {0, 1}


def test_threads_that_step_at_once_never_mix_their_states(run):
    """Each saves an array of one number: were two to be copied into the same memory, there would be two in it."""
    with manager(run) as cm:

        def work(who):
            deadline = time.monotonic() + LONG
            for k in itertools.count():
                cm.step({"w": np.full(20_000, who * 1000 + k)}, who * 1000 + k)
                if len(cm.folder.ids()) >= 30:
                    break
                assert time.monotonic() < deadline

        threads = [threading.Thread(target=work, args=(who,)) for who in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        cm.wait()
        made = cm.list_checkpoints()
        assert len(made) >= 30
        for one in made:
            assert (cm.restore(one["id"])["w"] == one["progress"]).all()


def test_a_target_is_not_kept_alive_by_what_was_saved(run):
    class Big(np.ndarray):
        pass

    with manager(run) as cm:
        target = {"w": np.zeros(5)}
        gone = weakref.ref(target["w"])
        cm.step(target, 0)
        cm.wait()
        del target
        gc.collect()
        assert gone() is None


# What goes wrong

WAYS = {
    "step": lambda cm: cm.step({}, 1),
    "create": lambda cm: cm.create_checkpoint({}),
    "finish": lambda cm: cm.finish({}),
    "wait": lambda cm: cm.wait(),
    "resume": lambda cm: cm.resume(),
    "restore": lambda cm: cm.restore_checkpoint({}),
    "close": lambda cm: cm.close(),
}


def failing(cm, error=errno.ENOSPC):
    """Have a save in the background fail."""
    gate = Gate(error)
    gate.opened.set()
    with files.using(gate):
        assert cm.step({"k": 0}, 0)
    ends(cm)


def ends(cm):
    deadline = time.monotonic() + LONG
    while cm._background.busy:
        assert time.monotonic() < deadline
        time.sleep(0.001)


@pytest.mark.parametrize("way", WAYS)
def test_a_failure_comes_out_of_the_next_call_once(run, way):
    heard = []
    cm = manager(run, on_error=heard.append)
    failing(cm)
    with pytest.raises(StorageError, match="refused") as caught:
        WAYS[way](cm)
    assert heard == [caught.value]
    assert cm.wait()
    assert cm.step({"k": 1}, 1)
    cm.close()
    assert len(heard) == 1
    assert cm.list_checkpoints()[0]["progress"] == 1


def test_a_failure_comes_out_of_the_end_of_the_block(run):
    def body():
        with manager(run) as cm:
            failing(cm)

    with pytest.raises(StorageError, match="refused"):
        body()


def test_the_error_of_the_block_is_the_one_that_is_raised(run):
    def body():
        with manager(run) as cm:
            failing(cm)
            raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine") as caught:
        body()
    assert any("refused" in note for note in caught.value.__notes__)


def test_a_failure_in_the_callback_is_not_lost_and_hides_nothing(run):
    def bad(error):
        raise LookupError("the callback")

    with manager(run, on_error=bad) as cm:
        failing(cm)
        with pytest.raises(LookupError, match="the callback") as caught:
            cm.wait()
        assert isinstance(caught.value.__context__, StorageError)
        assert cm.wait()
        assert cm.step({}, 1)
        cm.wait()


def test_failures_that_nobody_asked_for_are_told_together():
    heard = []
    background = Background("test", heard.append)
    for k in range(3):

        def job(k=k):
            raise ValueError(str(k))

        assert background.start(job)
        with contextlib.suppress(TypeError):
            while background.busy:
                time.sleep(0.001)
    with pytest.raises(ValueError, match="0") as caught:
        background.check()
    assert [str(error) for error in heard] == ["0", "1", "2"]
    assert len(caught.value.__notes__) == 2
    background.check()


def test_a_thread_that_cannot_be_begun_does_not_stop_all_that_come_later(run, monkeypatch):
    with manager(run) as cm:
        start = threading.Thread.start
        for error in (RuntimeError("can't start new thread"), KeyboardInterrupt()):

            def none(thread, error=error):
                raise error

            def late(thread, error=error):
                start(thread)
                raise error

            for way in (none, late):
                with monkeypatch.context() as patch:
                    patch.setattr(threading.Thread, "start", way)
                    with pytest.raises(type(error)):
                        cm.step({"k": 0}, 0)
                assert cm.wait(LONG)
        assert cm.step({"k": 1}, 1)
        assert cm.wait(LONG)
        assert cm.restore()["k"] == 1
        for one in cm.list_checkpoints():
            assert cm.restore(one["id"])["k"] in {0, 1}


def test_an_interrupt_in_the_caller_at_any_moment_leaves_a_manager_that_works(run):
    """Ctrl-C between any two instructions of `step`, as a trace sees them."""
    import linecache
    import sys

    def is_with(frame):
        return linecache.getline(frame.f_code.co_filename, frame.f_lineno).lstrip().startswith("with ")

    rng = random.Random(7)
    target = {"w": np.arange(2000), "k": 0}
    with manager(run) as cm:
        for _ in range(150):
            left = rng.randrange(1500)

            def trace(frame, event, argument):
                nonlocal left
                ours = "quantum_memory" in frame.f_code.co_filename  # what Python does with its locks is its own affair
                left -= ours
                # No signal comes between the last line of a `with` and its end; a trace sees its first line there.
                if ours and left <= 0 and not is_with(frame):
                    raise KeyboardInterrupt
                return trace

            sys.settrace(trace)
            try:
                cm.step(target, 0)
            except KeyboardInterrupt:
                pass
            finally:
                sys.settrace(None)
            assert cm.wait(LONG)
        assert cm.step(target, 1)
        assert cm.wait(LONG)
        assert cm.list_checkpoints()[0]["progress"] == 1
        assert set(cm.verify().values()) == {None}


def test_what_cannot_be_kept_is_refused_in_the_caller(run):
    with manager(run) as cm:
        for target, progress in (({"a": object()}, 0), ({}, object())):
            with pytest.raises(InvalidStateError):
                cm.step(target, progress)
        assert cm.wait()
        assert cm.list_checkpoints() == []


# Its end


def test_close_waits_for_what_is_being_saved(run):
    cm = manager(run)
    gate = Gate()
    with files.using(gate):
        cm.step({"k": 1}, 1)
    assert gate.reached.wait(LONG)
    assert not cm.wait(0.01)
    threading.Timer(0.05, gate.opened.set).start()
    cm.close()
    assert cm.list_checkpoints()[0]["progress"] == 1
    cm.close()
    assert cm.create_checkpoint({}) in {one["id"] for one in cm.list_checkpoints()}  # it may be used again


def test_an_interpreter_that_ends_finishes_what_is_being_saved(run):
    import subprocess
    import sys

    code = f"""
import numpy as np
from quantum_memory.lifecycle.checkpoint_manager import CheckpointManager
from quantum_memory.lifecycle.due import Always
cm = CheckpointManager({str(run)!r}, save=Always())
assert cm.step({{"w": np.zeros(1 << 20)}}, 5)
"""
    subprocess.run([sys.executable, "-c", code], check=True)
    assert manager(run).resume().progress == 5
    code += f"import os; cm.wait(); os.rename({str(run / 'chunks')!r}, {str(run / 'away')!r}); cm.step({{'w': 1}}, 6)"
    told = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stderr
    assert "StorageError" in told  # nobody has asked, and it is said all the same


# Processes that are forked


def test_a_child_that_is_forked_while_a_save_runs_can_save_and_the_parent_is_not_affected(run):
    with manager(run) as cm:
        cm.create_checkpoint({"k": -1})
        gate = Gate()
        with files.using(gate):
            cm.step({"k": 0}, 0)
        assert gate.reached.wait(LONG)

        def work():
            assert not cm._background.busy
            cm.wait()
            assert cm.step({"k": 1}, 1)
            cm.wait()
            cm.create_checkpoint({"k": 2}, progress=2)
            assert cm.resume().progress == 2
            cm.close()

        assert in_child(work) == 0
        assert cm._background.busy
        gate.opened.set()
        assert cm.wait(LONG)
        assert {one["progress"] for one in cm.list_checkpoints()} == {None, 0, 1, 2}
        assert set(cm.verify().values()) == {None}


def test_a_child_does_not_hear_of_what_went_wrong_in_its_parent(run):
    with manager(run) as cm:
        failing(cm)
        assert in_child(cm.wait) == 0
        with pytest.raises(StorageError):
            cm.wait()


def test_a_child_of_one_with_a_timer_ends(run):
    with manager(run, save=EverySteps(10**9), auto_checkpoint_interval=0.001) as cm:
        cm.start_auto_checkpoint({"w": np.zeros(1000)})
        for _ in range(20):
            assert in_child(cm.close) == 0
        cm.stop_auto_checkpoint()


# By itself


def test_a_target_is_saved_from_time_to_time_under_the_lock(run):
    target = {"a": np.zeros(1000), "b": np.zeros(1000)}
    with manager(run, auto_checkpoint_interval=0.002, share=None) as cm:
        cm.start_auto_checkpoint(target)
        with pytest.raises(InvalidStateError, match="already"):
            cm.start_auto_checkpoint(target)
        deadline = time.monotonic() + LONG
        for k in itertools.count():
            with cm.lock:
                target["a"][:] = k
                target["b"][:] = k
            if len(cm.folder.ids()) >= 20:
                break
            assert time.monotonic() < deadline
        cm.stop_auto_checkpoint()
        made = cm.list_checkpoints()
        time.sleep(0.02)
        assert len(cm.list_checkpoints()) == len(made)
        for one in made:
            saved = cm.restore(one["id"])
            assert one["automatic"]
            assert (saved["a"] == saved["b"][0]).all()
    with manager(run) as cm, pytest.raises(InvalidStateError, match="auto_checkpoint_interval"):
        cm.start_auto_checkpoint(target)


def test_what_goes_wrong_there_comes_out_of_the_next_call_and_it_goes_on(run):
    heard = threading.Event()
    target = {"a": object()}
    with manager(run, auto_checkpoint_interval=0.002, share=None, on_error=lambda _: heard.set()) as cm:
        cm.start_auto_checkpoint(target)
        assert heard.wait(LONG)
        deadline = time.monotonic() + LONG

        def wait():
            while time.monotonic() < deadline:
                cm.wait()

        with pytest.raises(InvalidStateError, match="does not keep"):
            wait()
        target["a"] = 1  # and the next time goes well
        while not cm.folder.ids():
            assert time.monotonic() < deadline
            time.sleep(0.001)
        with contextlib.suppress(InvalidStateError):  # of one that was under way
            cm.stop_auto_checkpoint()


def test_a_save_that_fails_there_does_not_end_it(run):
    heard = []
    with manager(run, auto_checkpoint_interval=0.002, share=None, on_error=heard.append) as cm:
        cm.create_checkpoint({})
        (run / "chunks").rename(run / "away")
        cm.start_auto_checkpoint({"w": np.zeros(10)})
        deadline = time.monotonic() + LONG
        while len(heard) < 3:
            assert time.monotonic() < deadline
            time.sleep(0.001)
        (run / "away").rename(run / "chunks")
        while len(cm.folder.ids()) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.001)
        with pytest.raises(StorageError) as caught:
            cm.stop_auto_checkpoint()
        assert caught.value is heard[0]
        assert caught.value.__notes__


def test_the_interval_grows_with_what_saving_takes():
    pace = Pace(EverySeconds(600), 10.0, 0.1)
    assert pace.next_interval() == 10.0
    pace.saved(1, {}, 5.0)
    assert pace.next_interval() == 50.0
    assert Pace(Always(), 10.0, None).next_interval() == 10.0


def test_what_goes_wrong_in_a_timer_comes_out_of_its_end():
    def bad():
        raise ValueError("bad")

    timer = Timer(bad, 0.0)
    timer.start()
    timer.join(LONG)
    with pytest.raises(ValueError, match="bad"):
        timer.stop()


def test_a_fork_in_the_midst_of_many_saves(run):
    """Whatever the threads of the parent hold at that moment, the child saves and ends."""
    with manager(run) as cm:
        end = threading.Event()

        def work():
            for k in itertools.count():
                if end.is_set():
                    break
                cm.create_checkpoint({"w": np.full(100, k)})

        threads = [threading.Thread(target=work) for _ in range(2)]
        for thread in threads:
            thread.start()
        try:
            for k in range(15):
                assert in_child(lambda k=k: cm.create_checkpoint({"k": k}, f"child {k}")) == 0
        finally:
            end.set()
            for thread in threads:
                thread.join()
        assert {f"child {k}" for k in range(15)} <= {one["name"] for one in cm.list_checkpoints()}
        assert set(cm.verify().values()) == {None}
    assert os.getpid()
