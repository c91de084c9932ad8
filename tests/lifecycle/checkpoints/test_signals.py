"""A run that is asked to stop saves its last step and ends; asked again, it ends at once."""

import contextlib
import os
import signal
import subprocess
import sys
import threading

import pytest

from quantum_memory.lifecycle.checkpoint_manager import CheckpointManager
from quantum_memory.lifecycle.checkpoints.signals import Stopped, StopSignals
from quantum_memory.lifecycle.due import Always
from quantum_memory.testing.faults import in_child

NAMES = ("SIGINT", "SIGTERM", "SIGUSR1")
LONG = 120

RUN = """
import os, sys, time
import numpy as np
from quantum_memory.durability import files
from quantum_memory.lifecycle.checkpoint_manager import CheckpointManager
from quantum_memory.lifecycle.due import Always, Never

def say(what):
    os.write(1, f"{{what}}\\n".encode())  # in one piece, whatever the other thread says

class Slow(files.RealFiles):
    '''Takes its time to write.'''
    def fsync(self, fd):
        say("saving")
        time.sleep({pause})

save = {save}
with files.using(Slow() if {pause} else files.RealFiles()), CheckpointManager({run!r}, save=save) as cm:
    for step in range(1, 1_000_000):
        made = cm.step({{"w": np.full(1000, step)}}, step)
        say(step)
        {then}
say("not reached")
"""


CHILDREN = []


@pytest.fixture(autouse=True)
def _no_child_is_left():
    yield
    while CHILDREN:
        with CHILDREN.pop() as child:
            child.kill()


def begun(run, *, pause=0, save="Never()", then="time.sleep(0.001)"):
    code = RUN.format(run=str(run), pause=pause, save=save, then=then)
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    CHILDREN.append(child)
    child.said = []
    for line in child.stdout:
        child.said.append(line)
        if line.strip() == ("saving" if pause else "5"):
            break
    return child


def end_of(child):
    with child:
        child.wait(LONG)
        out, err = child.stdout.read(), child.stderr.read()  # with what was read ahead, which `communicate` forgets
    steps = [int(line) for line in ("".join(child.said) + out).split() if line.isdigit()]
    return child.returncode, steps, out, err


@pytest.mark.parametrize("name", NAMES)
def test_a_signal_saves_the_last_step_and_ends_the_program(tmp_path, name):
    number = getattr(signal, name)
    child = begun(tmp_path / "run")
    child.send_signal(number)
    status, steps, out, err = end_of(child)
    assert status == 128 + number
    assert "not reached" not in out
    assert f"{name}: saving at the next step" in err
    assert "Traceback" not in err
    with CheckpointManager(tmp_path / "run", signals=False) as cm:
        (made,) = cm.list_checkpoints()
        found = cm.resume()
    assert made["description"] == f"stopped by signal {int(number)}"
    assert made["automatic"]
    assert found.progress == steps[-1] + 1  # the step that was just computed, which is the last
    assert (found.state["w"] == found.progress).all()


@pytest.mark.parametrize("name", NAMES)
def test_the_second_signal_ends_it_at_once(tmp_path, name):
    number = getattr(signal, name)
    child = begun(tmp_path / "run", then="step > 4 and time.sleep(1000)")  # no step comes
    child.send_signal(number)
    assert "saving at the next step" in child.stderr.readline() + child.stderr.readline()
    child.send_signal(number)
    status, _, _, err = end_of(child)
    assert status == -number
    assert ("KeyboardInterrupt" in err) == (name == "SIGINT")
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_another_signal_is_a_second_one(tmp_path):
    child = begun(tmp_path / "run", then="step > 4 and time.sleep(1000)")
    child.send_signal(signal.SIGUSR1)
    assert "saving" in child.stderr.readline() + child.stderr.readline()
    child.send_signal(signal.SIGTERM)
    assert end_of(child)[0] == -signal.SIGTERM


def test_a_signal_while_a_save_runs_waits_for_it_and_saves_the_last_step(tmp_path):
    child = begun(tmp_path / "run", pause=0.05, save="Always()")
    child.send_signal(signal.SIGTERM)
    status, steps, _, _ = end_of(child)
    assert status == 128 + signal.SIGTERM
    with CheckpointManager(tmp_path / "run", signals=False) as cm:
        made = cm.list_checkpoints()
        assert set(cm.verify().values()) == {None}
    assert made[0]["progress"] == max(steps, default=0) + 1
    assert made[0]["description"]
    assert len(made) >= 2


def test_a_second_signal_while_the_last_step_is_saved_ends_it_at_once(tmp_path):
    child = begun(tmp_path / "run", pause=1000, save="Always()")
    child.send_signal(signal.SIGTERM)
    assert "saving" in child.stderr.readline() + child.stderr.readline()
    child.send_signal(signal.SIGTERM)
    assert end_of(child)[0] == -signal.SIGTERM


# In this process


@pytest.fixture
def handlers():
    """The handlers of this process, with one of the test's own."""
    heard = []
    before = {number: signal.getsignal(number) for number in map(signal.Signals.__getitem__, NAMES)}
    for number in before:
        signal.signal(number, lambda number, frame: heard.append(number))
    yield heard
    for number, handler in before.items():
        signal.signal(number, handler)


def installed():
    return [signal.getsignal(signal.Signals[name]) for name in NAMES]


def quiet(manager):
    manager._signals._say = lambda text: None
    return manager


def test_handlers_are_given_back(tmp_path, handlers):
    before = installed()
    with CheckpointManager(tmp_path) as cm:
        assert set(installed()).isdisjoint(before)
        cm.close()
        assert installed() == before
    assert installed() == before
    with pytest.raises(ZeroDivisionError), CheckpointManager(tmp_path):
        raise ZeroDivisionError
    assert installed() == before
    with CheckpointManager(tmp_path, signals=False):
        assert installed() == before
    CheckpointManager(tmp_path)  # outside a block nothing is taken over
    assert installed() == before


def test_a_handler_that_somebody_set_meanwhile_is_left_alone(tmp_path, handlers):
    def mine(number, frame):
        pass

    before = installed()
    with CheckpointManager(tmp_path):
        signal.signal(signal.SIGTERM, mine)
    assert installed() == [before[0], mine, before[2]]


def test_the_second_signal_goes_to_whoever_had_it_before(tmp_path, handlers):
    before = installed()
    with quiet(CheckpointManager(tmp_path)):
        os.kill(os.getpid(), signal.SIGTERM)
        assert handlers == []
        os.kill(os.getpid(), signal.SIGUSR1)
        assert handlers == [signal.SIGUSR1]
        assert installed() == before


def test_a_stop_is_an_exit_that_says_what_was_saved(tmp_path, handlers):
    with quiet(CheckpointManager(tmp_path, save=Always(), background=False)) as cm:
        os.kill(os.getpid(), signal.SIGUSR1)
        with pytest.raises(Stopped) as caught:
            cm.step({"k": 1}, 7, energy=-1.0)
        assert isinstance(caught.value, SystemExit)
        assert (caught.value.code, caught.value.signal) == (128 + signal.SIGUSR1, signal.SIGUSR1)
        made = cm.get_checkpoint(caught.value.checkpoint)
        assert (made["progress"], made["metrics"]) == (7, {"energy": -1.0})
    with cm:  # the next block begins without it
        assert cm.step({"k": 2}, 8)


def test_a_stop_saves_even_after_a_save_that_failed(tmp_path, handlers):
    def bad():
        raise OSError("refused")

    with quiet(CheckpointManager(tmp_path, save=Always())) as cm:
        cm._background.start(bad)
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.warns(UserWarning, match="refused"), pytest.raises(Stopped) as caught:
            cm.step({"k": 1}, 1)
        assert isinstance(caught.value.__cause__, OSError)
        assert cm.list_checkpoints()[0]["progress"] == 1


def test_in_another_thread_nothing_is_taken_over(tmp_path, handlers):
    before = installed()
    seen = []

    def work():
        with CheckpointManager(tmp_path, save=Always()) as cm:
            seen.append(installed() == before)
            cm.step({"k": 1}, 1)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [True]
    assert CheckpointManager(tmp_path, signals=False).resume().progress == 1


def test_a_child_that_was_forked_does_what_it_would_have_done(tmp_path, handlers):
    with CheckpointManager(tmp_path) as cm:

        def work():
            os.kill(os.getpid(), signal.SIGTERM)
            assert handlers == [signal.SIGTERM]
            assert not cm._signals.asked

        assert in_child(work) == 0
        assert not cm._signals.asked


def test_a_handler_that_python_did_not_set_does_not_make_it_run_for_ever():
    def work():
        signal.signal(signal.SIGUSR1, signal.SIG_DFL)
        signals = StopSignals(lambda text: None)
        signals.install()
        signals._before[signal.SIGUSR1] = None  # as `signal.signal` says it
        os.kill(os.getpid(), signal.SIGUSR1)
        assert signals.asked
        signal.alarm(20)
        os.kill(os.getpid(), signal.SIGUSR1)

    with contextlib.suppress(ProcessLookupError):
        assert in_child(work) == -signal.SIGUSR1
