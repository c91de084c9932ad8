"""Somebody is killed, somebody else goes on, and the power is cut: what the second one acknowledged is there.

What the first one has left it may not have synced, and the second one may lean on it. The power is cut when the second
one has ended, and at every call of it: what it has given a name has to be whole by then.
"""

import itertools
import shutil

import pytest

import quantum_memory as qm
from quantum_memory.durability import files
from quantum_memory.lifecycle.purging import purge
from quantum_memory.testing.accidents import cut_after_each_kill
from quantum_memory.testing.operations import Unsynced
from quantum_memory.testing.power_cuts import CrashModel

from ..lifecycle.trees import WORKPLACE
from .catalogue import CATALOGUE
from .figures import TIMES, figure
from .operations import migrations
from .operations.checkpoints import manager, state

STEPS = {
    "save .qms, over another": 1,
    "store: append": 5,
    "checkpoints: first": 1,
    "checkpoints: create": 2,
    "backups: first": 4,
    "backups: create": 4,
    "backups: import": 3,
    "purge": 7,
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


def test_a_power_cut_after_a_commit_of_which_somebody_has_removed_folders_and_not_synced_that(tmp_path):
    """With the folder above, which is kept by a file of somebody else, their names would not be gone for good."""
    operation = migrations.Commit(tmp_path)
    operation.again()
    (operation.tree / WORKPLACE / operation.plan.id / "originals" / "mine").write_bytes(b"mine")
    operation.keep()
    with figure("crash states") as made:
        made.count = cut_after_each_kill(operation, operation.act, most=1)
    assert made.count > 1


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


def test_a_power_cut_in_a_purge_of_backups_that_were_not_synced(tmp_path):
    """What takes the place of a backup leans on chunks that nobody had to keep: they are kept before it is there."""
    at, source = tmp_path / "disk" / "backups", tmp_path / "source"
    at.parent.mkdir()
    source.mkdir()
    for name in ("first", "harmless", "secret"):
        qm.save({"metadata": {"what": name}}, tmp_path / f"{name}.qms")
    with files.using(model := CrashModel(at.parent, Unsynced())):
        for name in ("first", "harmless", "secret"):  # each has a pack of its own
            with qm.BackupManager(at, durable=name == "first", compression=False) as bm:
                shutil.copy(tmp_path / f"{name}.qms", source)
                old = bm.create_backup(source, tags=[name])
        model.acknowledged = 1
        with qm.BackupManager(at, compression=False) as bm:
            purge(source / "secret.qms", backups=[bm])
        model.acknowledged = 2
    with figure("crash states") as made:
        for acknowledged in itertools.takewhile(bool, model.leave_each(16)):
            made.count += 1
            with qm.BackupManager(at) as bm:
                new = [one for one in bm.folder.ids() if one.startswith(old) and one != old]
                assert new or acknowledged < 2
                for one in new:
                    target = tmp_path / f"restored{made.count}"
                    bm.restore_backup(one, target)
                    assert (target / "harmless.qms").read_bytes() == (source / "harmless.qms").read_bytes()
                    assert not (target / "secret.qms").exists()
    assert made.count > 1
