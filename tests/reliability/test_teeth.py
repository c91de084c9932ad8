"""The tests are tested: each variant of the I/O layer that is broken in one way is caught by one that passes else."""

import contextlib
import errno
import os
from pathlib import Path

import numpy as np
import pytest

import quantum_memory as qm
from quantum_memory import errors
from quantum_memory.durability.files import RealFiles
from quantum_memory.durability.locks import open_locked
from quantum_memory.errors import IntegrityError, QuantumMemoryError
from quantum_memory.lifecycle.checkpoint_manager import CheckpointManager
from quantum_memory.lifecycle.retention import KeepLast
from quantum_memory.testing.accidents import cut_at_each, fail_at_each
from quantum_memory.testing.damage import flip_bit, flips

from ..hostile.corpus import QMS
from .catalogue import CATALOGUE
from .figures import figure
from .variants import VARIANTS, broken

PLUS = np.array([0.6, 0.8])


def cut_a_save(place):
    cut_at_each(CATALOGUE["save .qms, over another"](place))
    cut_at_each(CATALOGUE["save .qms, new"](place / "new"))


def cut_a_checkpoint(place):
    cut_at_each(CATALOGUE["checkpoints: create"](place))


def fail_a_save(place):
    fail_at_each(CATALOGUE["save .qms, over another"](place), errno.EIO)


def interrupt_a_save(place):
    fail_at_each(CATALOGUE["save .qms, over another"](place), KeyboardInterrupt())


def flip_every_bit(place):
    path = place / "state.qms"
    qm.save(qm.StateVector(PLUS, qubit_order="big"), path)
    for data in flips(path.read_bytes()):
        path.write_bytes(data)
        try:
            qm.load(path)
        except QuantumMemoryError:
            continue
        raise AssertionError("a flipped bit was not noticed")


def open_hostile_files(place):
    for case in QMS[:40]:  # those of the table
        path = place / "hostile.qms"
        case.write(path)
        with pytest.raises(getattr(errors, case.error)):
            qm.load(path)


def prune_where_the_newest_is_damaged(place):
    with CheckpointManager(place, signals=False) as manager:
        old, new = (manager.create_checkpoint({"w": np.full(2000, k)}, progress=k) for k in (1, 2))
        (chunk,) = manager.folder.manifest(new).chunks() - manager.folder.manifest(old).chunks()
        with manager.folder.store.shared():
            name, where = manager.folder.store.place(chunk)
    pack = manager.folder.store.pack_paths(name)[0]
    Path(pack).write_bytes(flip_bit(Path(pack).read_bytes(), 8 * where.offset + 40))
    with CheckpointManager(place, signals=False, keep=KeepLast(1)) as manager:
        with contextlib.suppress(IntegrityError):
            manager.prune()
        assert old in [one["id"] for one in manager.list_checkpoints()], "the last good one is gone"
        assert manager.restore(old)["w"][0] == 1


def count_together(place):
    """Four processes append to one store; what one has acknowledged, no other takes away."""
    path = place / "store.h5"
    qm.HDF5QuantumStorage(path).save_quantum_state(PLUS, "first")

    def append(who):
        for k in range(8):
            qm.HDF5QuantumStorage(path).save_quantum_state(PLUS, f"{who}-{k}")

    children = []
    for who in range(4):
        if (pid := os.fork()) == 0:
            status = 1
            try:
                append(who)
                status = 0
            finally:
                os._exit(status)
        children.append(pid)
    ended = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
    assert ended == [0] * 4
    assert len(qm.HDF5QuantumStorage(path).list_states()) == 1 + 4 * 8
    qm.verify(path)


def wait_for_a_slow_writer(place):
    """Who has held the lock for long still has it."""
    path = place / "store.h5"
    qm.HDF5QuantumStorage(path).save_quantum_state(PLUS, "first")
    held = open_locked(RealFiles(), str(path), str(path), write=True, timeout=1)
    try:
        os.utime(path, (0, 0))
        with pytest.raises(qm.ConflictError):
            qm.HDF5QuantumStorage(path, lock_timeout=0.1).save_quantum_state(PLUS, "second")
    finally:
        os.close(held)


CAUGHT_BY = {
    "no fsync of the file": cut_a_save,
    "no fsync of the folder": cut_a_save,
    "rename before fsync": cut_a_save,
    "fsync is tried again": fail_a_save,
    "cleanup only on Exception": interrupt_a_save,
    "checksum skipped": flip_every_bit,
    "checksum over the wrong bytes": flip_every_bit,
    "table not validated": open_hostile_files,
    "old ones go before the new one is verified": prune_where_the_newest_is_damaged,
    "the latest is advanced early": cut_a_checkpoint,
    "lock not taken": count_together,
    "lock by the time of the file": wait_for_a_slow_writer,
}


@pytest.mark.parametrize("proof", sorted(set(CAUGHT_BY.values()), key=lambda proof: proof.__name__))
def test_nothing_is_caught_where_nothing_is_broken(tmp_path, proof):
    proof(tmp_path)


@pytest.mark.parametrize("name", VARIANTS)
def test_it_is_caught(tmp_path, name):
    with figure("teeth") as made:
        with broken(name), pytest.raises((AssertionError, pytest.fail.Exception)):
            CAUGHT_BY[name](tmp_path)
        made.count += 1
