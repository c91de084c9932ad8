"""What others write to a file system is durable, or there is an error: also where somebody else has been told of it."""

import contextlib
import os
import threading
from pathlib import Path

import numpy as np
import pytest

import quantum_memory as qm
from quantum_memory.cloud.repository import Repository
from quantum_memory.durability import write_back
from quantum_memory.durability.write_back import WriteBack, sync_file_system
from quantum_memory.errors import StorageError
from quantum_memory.testing.loop_disk import EXT4, LoopDisk, SmallDisk, can_cut_power

MIB = 1 << 20
_LOST = r"error|space"

needs_disks = pytest.mark.skipif(not can_cut_power(), reason="needs root, loop devices and the mkfs tools")


@pytest.fixture
def failing(tmp_path):
    """A file system that takes what is written to it, and cannot write most of it back."""
    with SmallDisk(tmp_path) as small, LoopDisk(small.mount, EXT4) as disk:
        small.leave(nbytes=4 * MIB)
        yield disk.mount


def told_once(folder):
    """Be somebody else who is told of what could not be written back."""
    with pytest.raises(OSError, match=_LOST):
        sync_file_system(str(folder))


@needs_disks
def test_who_opens_a_file_system_when_all_is_written_may_hear_nothing_of_what_is_lost(failing):
    with WriteBack(str(failing)) as back:
        (failing / "data").write_bytes(os.urandom(24 * MIB))
        told_once(failing)
        sync_file_system(str(failing))  # the trap: all is well
        with pytest.raises(OSError, match=_LOST):
            back.finish()


@needs_disks
def test_a_save_is_not_acknowledged_whose_error_somebody_else_was_told_of(failing, monkeypatch):
    commit = Repository._committed

    def after_somebody_else(repository, *given):
        with contextlib.suppress(OSError):  # unless nobody can be told any more
            sync_file_system(str(failing))
        return commit(repository, *given)

    amplitudes = np.random.default_rng(1).normal(size=1 << 21).view(complex)
    state = qm.StateVector(amplitudes / np.linalg.norm(amplitudes), qubit_order="big")
    monkeypatch.setattr(Repository, "_committed", after_somebody_else)
    with pytest.raises(StorageError):
        qm.save(state, f"icechunk+file://{failing}/run")


def test_much_is_written_back_while_more_is_written(tmp_path, monkeypatch):
    syncs, go_on = [], threading.Event()

    def slow(_, folder):
        syncs.append(folder)
        go_on.wait(30)

    monkeypatch.setattr(write_back, "syncfs", slow)
    with WriteBack(str(tmp_path)) as back:
        back.more(31 * MIB)
        assert not syncs
        for _ in range(9):
            back.more(8 * MIB)  # of which the first begins it, and nothing begins beside that
        go_on.set()
        back.finish()
    assert syncs == [str(tmp_path)] * 2


@pytest.mark.parametrize("fails", [0, 1])
def test_an_error_that_was_told_once_stays(tmp_path, monkeypatch, fails):
    errors = iter([*[None] * fails, OSError(5, "Input/output error")])

    def failing_once(*_):
        if error := next(errors, None):
            raise error

    monkeypatch.setattr(write_back, "syncfs", failing_once)
    with WriteBack(str(tmp_path)) as back:
        back.more(64 * MIB)
        with pytest.raises(OSError, match="Input/output error"):
            back.finish()
        with pytest.raises(OSError, match="Input/output error"):
            back.finish()


def test_nothing_is_open_afterwards(tmp_path):
    before = set(Path("/proc/self/fd").iterdir())
    with WriteBack(str(tmp_path)) as back:
        back.more(64 * MIB)
    assert not back._fds
    dropped = WriteBack(str(tmp_path))
    del dropped
    with pytest.raises(FileNotFoundError):
        WriteBack(str(tmp_path / "nothing"))
    assert set(Path("/proc/self/fd").iterdir()) <= before
    assert not [thread for thread in threading.enumerate() if thread.name == "write back"]
