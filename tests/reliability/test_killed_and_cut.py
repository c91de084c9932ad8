"""Somebody is killed, somebody else goes on, and then the power is cut: what the second one acknowledged is there.

What the first one has left it may not have synced, and the second one may lean on it.
"""

import itertools

import pytest

import quantum_memory as qm
from quantum_memory.durability import files
from quantum_memory.testing.accidents import cut_after_each_kill
from quantum_memory.testing.operations import Unsynced
from quantum_memory.testing.power_cuts import CrashModel

from .catalogue import CATALOGUE
from .figures import TIMES, figure
from .operations.checkpoints import manager, state

STEPS = {
    "save .qms, over another": 1,
    "store: append": 3,
    "checkpoints: first": 1,
    "checkpoints: create": 2,
    "backups: first": 4,
    "backups: create": 4,
    "backups: import": 3,
    "purge": 2,
    "migrate: apply": 7,
    "migrate: commit": 3,
}
"""What can be done whatever is there, and at one of how many calls it is killed; in the soak at all."""

MOST = 4


@pytest.mark.parametrize("name", STEPS)
def test_a_power_cut_after_somebody_went_on_from_a_kill(tmp_path, name):
    operation = CATALOGUE[name](tmp_path)
    with figure("crash states") as made:
        step = STEPS[name] if TIMES == 1 else 1
        made.count = cut_after_each_kill(operation, operation.act, most=MOST, step=step)
    assert made.count > 5


def test_a_power_cut_after_a_checkpoint_that_leans_on_one_that_was_not_synced(tmp_path):
    run = tmp_path / "disk" / "run"
    run.parent.mkdir()
    with files.using(model := CrashModel(run.parent, Unsynced())):
        for step, durable in enumerate((False, True), 1):
            with manager(run, durable=durable) as cm:
                cm.create_checkpoint(state(step), progress=step)
        model.acknowledged = 1
    with figure("crash states") as made:
        for _ in itertools.takewhile(bool, model.leave_each(64)):
            made.count += 1
            with manager(run) as cm:
                assert cm.resume().progress == 2
    assert made.count > 1


@pytest.mark.parametrize("key", [None, qm.Key(bytes(32), "hkdf-sha256")], ids=["plain", "encrypted"])
def test_a_power_cut_after_a_backup_in_a_folder_that_was_begun_without_syncs(tmp_path, key):
    at, source = tmp_path / "disk" / "backups", tmp_path / "source"
    at.parent.mkdir()
    source.mkdir()
    (source / "file").write_bytes(bytes(range(256)) * 12)
    with files.using(model := CrashModel(at.parent, Unsynced())):
        for durable in (False, True):
            with qm.BackupManager(at, durable=durable, key=key) as bm:
                last = bm.create_backup(source)
        model.acknowledged = 1
    with figure("crash states") as made:
        for _ in itertools.takewhile(bool, model.leave_each(64)):
            made.count += 1
            with qm.BackupManager(at, key=key) as bm:
                bm.restore_backup(last, tmp_path / f"restored{made.count}")
            assert (tmp_path / f"restored{made.count}" / "file").read_bytes() == (source / "file").read_bytes()
    assert made.count > 1
