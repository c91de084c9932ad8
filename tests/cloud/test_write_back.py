"""What others write to a file system is durable, or there is an error: also where somebody else has been told of it."""

import os
import threading
from pathlib import Path

import numpy as np
import pytest

import quantum_memory as qm
from quantum_memory.cloud.chunks import Rows
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


def _written(how, state, url):
    if how == "save":
        qm.save(state, url)
    elif how == "transaction":
        with qm.transaction(url, n_qubits=17, qubit_order="big") as tx:
            part = tx.fork()
            part.write(0, state.amplitudes)
            tx.merge(part)
    else:
        with qm.CheckpointManager(url, signals=False) as cm:
            cm.create_checkpoint({"psi": state})


@pytest.mark.parametrize("how", ["save", "transaction", "checkpoint"])
def test_nothing_is_acknowledged_of_which_somebody_else_was_told_that_it_is_lost(folder_url, monkeypatch, how):
    """On a model of the above, since the file system of a disk like that takes no references either."""
    state = qm.StateVector(np.full(1 << 17, 2.0**-8.5, complex), qubit_order="big")
    qm.save(qm.MemoryState(classical={"before": 1}), folder_url)
    opened_before, real, is_lost = set(), Rows.write, []

    def lost(self, *given, **options):
        opened_before.update(map(int, (one.name for one in Path("/proc/self/fd").iterdir())))
        is_lost.append(1)
        real(self, *given, **options)

    def told(fd, folder):
        if is_lost and fd in opened_before:
            raise OSError(5, "Input/output error", folder)

    monkeypatch.setattr(Rows, "write", lost)
    monkeypatch.setattr(write_back, "syncfs", told)
    with pytest.raises(StorageError, match="Input/output error"):
        _written(how, state, folder_url)
    assert is_lost
    assert qm.load(folder_url).classical == {"before": 1}


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
