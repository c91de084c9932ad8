"""A run that saves in a loop until it dies, and what must be there then."""

import contextlib
import os
import random
import signal
import struct
import warnings
from functools import partial

import numpy as np

from quantum_memory.durability import atomic
from quantum_memory.lifecycle.checkpoint_manager import CheckpointManager
from quantum_memory.lifecycle.due import Always
from quantum_memory.lifecycle.retention import KeepLast

from ...loop_disk import XFS
from ..killed_loop import killed_loop

SHARED = np.arange(40_000)
"""What every checkpoint holds."""


def state(k):
    return {"w": np.full(700, k), "k": k, "shared": SHARED, "sometimes": np.full(300, k // 4)}


def manager(run, **options):
    return CheckpointManager(run, **{"signals": False, "save": Always(), "keep": KeepLast(3), **options})


def save_for_ever(run, progress, acknowledge, **options):
    """Save one step after another, in the foreground and the background, and say so after each, until it fails."""
    with contextlib.suppress(BaseException), warnings.catch_warnings():
        warnings.simplefilter("error")
        cm = manager(run, **options)
        os.write(acknowledge, struct.pack("<I", progress))
        while True:
            progress += 1
            if progress % 2:
                cm.create_checkpoint(state(progress), progress=progress)
            else:
                cm.step(state(progress), progress)
                cm.wait()
            os.write(acknowledge, struct.pack("<I", progress))
    os._exit(0)


def check(run, acknowledged):
    """See that nothing is torn or lost, and return the progress from which the run goes on."""
    atomic._swept.clear()  # as a new process begins
    with manager(run, durable=False) as cm:
        found = cm.verify()
        assert set(found.values()) <= {None}, found
        resumed = cm.resume()
        if resumed is None:
            assert acknowledged == 0, f"{acknowledged} was acknowledged, and nothing is there"
            return 0
        assert resumed.progress >= acknowledged, f"{acknowledged} was acknowledged, and {resumed.progress} is there"
        assert resumed.state["k"] == resumed.progress
        assert (resumed.state["w"] == resumed.progress).all()
        assert np.array_equal(resumed.state["shared"], SHARED)
        return resumed.progress


def check_going_on(run, progress):
    """Save once more and remove the rest: then nothing is left over."""
    with manager(run, durable=False, keep=KeepLast(1)) as cm:
        last = cm.create_checkpoint(state(progress + 1), progress=progress + 1)
        with cm.folder.store.alone():
            cm.folder.sweep()
            cm.folder.collect()
        assert cm.verify() == {last: None}
        assert not cm.folder.store.damaged
    assert list(run.rglob(".*")) == []
    needed = cm.folder.manifest(last).chunks()
    with cm.folder.store.shared():
        assert needed <= set(cm.folder.store._where)
        assert cm.folder.store.nbytes < 2 * SHARED.nbytes


def kill_at_random(run, kills):
    """Kill so many loops, each of which goes on from the one before, and return how often something was saved."""
    rng, progress, saves = random.Random(kills), 0, 0
    for _ in range(kills):
        acks = killed_loop(partial(save_for_ever, run, progress, durable=False), rng, 0.05)
        saves += len(acks)
        progress = check(run, max(acks, default=progress))
    check_going_on(run, progress)
    return saves


def cut_at_random(disk, kind, cuts):
    """Cut the power under so many loops, and return how often something was saved."""
    rng, progress, saves = random.Random(" ".join(kind)), 0, 0
    run = disk.mount / "run"

    def cut(child):
        if kind == XFS:  # see tests/soak/test_power_cuts.py
            os.kill(child, signal.SIGSTOP)
            os.waitpid(child, os.WUNTRACED)
        disk.cut(commit=rng.random() < 0.5)

    for _ in range(cuts):
        acks = killed_loop(partial(save_for_ever, run, progress), rng, 0.1, cut)
        disk.again()
        saves += len(acks)
        progress = check(run, max(acks, default=progress))
    check_going_on(run, progress)
    return saves
