"""A file that cannot be read any more is had from the next level of the ladder, each of which is damaged in turn."""

import errno
import hashlib
import os
import shutil
import subprocess
import sys
import warnings

import numpy as np
import pytest

import quantum_memory as qm
from quantum_memory.durability import files
from quantum_memory.errors import (
    BudgetError,
    IntegrityError,
    InvalidStateError,
    MissingError,
    MissingFileError,
    StorageError,
    UnsupportedVersionError,
    WrongKeyError,
)
from quantum_memory.lifecycle.backup_manager import BackupManager
from quantum_memory.lifecycle.checkpoint_manager import CheckpointManager
from quantum_memory.testing.faults import FaultyFiles


def memory(number):
    return qm.MemoryState(classical={"number": number, "a": np.arange(number, number + 20_000)})


def damage(path):
    """Flip a bit in the middle of the data of a file."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.fixture
def place(tmp_path):
    """A file, backups of it that are older and older, checkpoints that are older, and two exports."""
    path = tmp_path / "state.qms"
    with BackupManager(tmp_path / "backups", durable=False) as manager:
        for number in (3, 4):
            qm.save(memory(number), path, compression="none")
            manager.create_backup(path)
    with CheckpointManager(tmp_path / "run", signals=False, durable=False) as manager:
        manager.create_checkpoint(memory(1))
        manager.create_checkpoint(memory(2))
        manager.create_checkpoint({"a": np.arange(3)}, "a tree, which is no memory")
    with BackupManager(tmp_path / "elsewhere", durable=False) as manager:
        qm.save(memory(-1), path, compression="none")
        manager.export_backup(manager.create_backup(path), tmp_path / "moved.qmb")
    shutil.rmtree(tmp_path / "elsewhere")
    qm.save(memory(0), tmp_path / "copy.npz")
    qm.save(memory(5), path, compression="none")
    return tmp_path


@pytest.fixture
def ladder(place):
    exports = [place / "copy.npz", place / "moved.qmb"]
    return qm.Ladder(backups=place / "backups", checkpoints=place / "run", exports=exports)


def packs(folder):
    """The packs of a folder, the oldest first."""
    return sorted((folder / "chunks").glob("*.qmpack"), key=lambda path: path.stat().st_mtime_ns)


def test_each_level_in_turn(place, ladder):
    path = place / "state.qms"
    first = path.read_bytes()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert qm.load(path, fallback=ladder) == memory(5)
    damage(path)
    now = path.read_bytes()
    for level, number, next_to_go in (
        ("'backup': backup ", 4, packs(place / "backups")[1]),
        ("'backup': backup ", 3, packs(place / "backups")[0]),
        ("'checkpoint': checkpoint ", 2, packs(place / "run")[1]),
        ("'checkpoint': checkpoint ", 1, packs(place / "run")[0]),
        ("'export': file ", 0, place / "copy.npz"),
        ("'export': backup ", -1, place / "moved.qmb"),
    ):
        with pytest.warns(UserWarning, match=f"state.qms cannot be read. This is from the level {level}") as caught:
            assert qm.load(path, fallback=ladder) == memory(number)
        assert caught[0].filename == __file__
        damage(next_to_go)
    for lost in ("backup 2", "checkpoint 2", "copy.npz"):
        assert lost in str(caught[0].message)
    with pytest.raises(IntegrityError) as failed:
        qm.load(path, fallback=ladder)
    assert failed.value.path == str(path)
    notes = "\n".join(failed.value.__notes__)
    assert notes.count("backup 2") == 3  # one of them in the file of exported ones
    assert notes.count("checkpoint 2") == 2
    assert "copy.npz" in notes
    assert "moved.qmb" in notes
    assert path.read_bytes() == now
    path.write_bytes(first)
    assert qm.load(path, fallback=ladder) == memory(5)


def test_a_file_that_is_gone_or_cannot_be_read(place, ladder):
    path = place / "state.qms"
    with files.using(FaultyFiles(0, errno.EIO)), pytest.warns(UserWarning, match="Input/output error"):
        assert qm.load(path, fallback=ladder) == memory(4)
    path.unlink()
    with pytest.warns(UserWarning, match="there is no such file"):
        assert qm.load(path, fallback=ladder) == memory(4)
    assert not path.exists()


def test_a_level_that_is_not_there_is_passed_over(place):
    path = place / "state.qms"
    path.unlink()
    ladder = qm.Ladder(place / "no backups", place / "no run", [place / "none.qms"])
    with pytest.raises(MissingFileError) as caught:
        qm.load(path, fallback=ladder)
    assert caught.value.path == str(path)
    assert len(caught.value.__notes__) == 1
    with pytest.raises(MissingFileError) as caught:
        qm.load(path, fallback=qm.Ladder())
    assert caught.value.__notes__ == ["there is nothing else that holds it"]
    assert sorted(one.name for one in place.iterdir()) == ["backups", "copy.npz", "moved.qmb", "run"]


def test_what_nobody_can_list_is_spoken_of(place, ladder):
    path = place / "state.qms"
    path.unlink()
    for manifest in (max((place / "backups" / "backups").iterdir()), max((place / "run" / "checkpoints").iterdir())):
        manifest.write_bytes(b"")
    with pytest.warns(UserWarning, match="'backup'") as caught:
        assert qm.load(path, fallback=ladder) == memory(3)
    assert str(caught[0].message).count("it is cut short") == 1
    shutil.rmtree(place / "backups")
    with pytest.warns(UserWarning, match="'checkpoint'") as caught:
        assert qm.load(path, fallback=ladder) == memory(2)
    assert str(caught[0].message).count("it is cut short") == 1


def test_managers_are_ladders_as_folders_are(place):
    path = place / "state.qms"
    path.unlink()
    with BackupManager(place / "backups") as backups, pytest.warns(UserWarning, match="'backup'"):
        assert qm.load(path, fallback=qm.Ladder(backups=backups)) == memory(4)
    with CheckpointManager(place / "run", signals=False) as run, pytest.warns(UserWarning, match="'checkpoint'"):
        assert qm.load(path, fallback=qm.Ladder(checkpoints=run)) == memory(2)


def test_backups_that_are_made_by_default(place, monkeypatch):
    monkeypatch.setenv("QMEM_BACKUPS", str(place / "backups"))
    monkeypatch.chdir(place)
    damage(place / "state.qms")
    with pytest.warns(UserWarning, match="'backup'"):
        assert qm.load("state.qms", fallback="backup") == memory(4)
    for none in ("backups", True, 7, place):
        with pytest.raises(InvalidStateError, match="no way to recover"):
            qm.load("state.qms", fallback=none)


def test_a_backup_of_the_folder_that_it_is_in(tmp_path):
    path = tmp_path / "a" / "b" / "state.qms"
    path.parent.mkdir(parents=True)
    qm.save(memory(1), path)
    with BackupManager(tmp_path / "backups", durable=False) as manager:
        manager.create_backup(tmp_path / "a")
        path.unlink()
        manager.create_backup(tmp_path / "a")  # in which it is not
        manager.create_backup(tmp_path / "a" / "b")
        (tmp_path / "a" / "bother").mkdir()
        manager.create_backup(tmp_path / "a" / "bother")
        with pytest.warns(UserWarning, match="'backup'") as caught:
            assert qm.load(path, fallback=qm.Ladder(backups=manager)) == memory(1)
        assert str(caught[0].message).count("it is not in that backup") == 2


def test_what_load_takes_goes_for_every_level(place, ladder):
    path = place / "state.qms"
    damage(path)
    for _ in range(2):
        with pytest.warns(UserWarning, match="cannot be read"):
            found = qm.load(path, only="a", fallback=ladder)
        assert (list(found), found["a"][0] in {4, 2}) == (["a"], True)
        with pytest.warns(UserWarning, match="cannot be read"):
            mapped = qm.load(path, mmap=True, fallback=ladder)
        assert mapped in (memory(4), memory(2))
        mapped.classical["a"][:] = 7
        with pytest.raises(BudgetError):
            qm.load(path, max_bytes=10, fallback=ladder)
        shutil.rmtree(place / "backups", ignore_errors=True)
    with pytest.raises(MissingError):
        qm.load(place / "copy.npz", only="nothing", fallback=ladder)


def test_what_is_no_damage_is_raised_at_once(place, ladder):
    path = place / "state.qms"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(InvalidStateError):
            qm.load(path, state_id="a", fallback=ladder)
        with pytest.raises(MissingError):
            qm.load(path, only="nothing", fallback=ladder)
        with pytest.raises(BudgetError):
            qm.load(path, max_bytes=10, fallback=ladder)
        qm.save(memory(1), path, encrypt="a passphrase")
        with pytest.raises(WrongKeyError):
            qm.load(path, fallback=ladder)
        data = bytearray(path.read_bytes())
        data[10] = 9  # the least version of a reader
        end = 40 + int.from_bytes(data[20:24], "little")
        data[end : end + 32] = hashlib.sha256(data[:end]).digest()
        path.write_bytes(data)
        with pytest.raises(UnsupportedVersionError):
            qm.load(path, key="a passphrase", fallback=ladder)


def test_encrypted_files_in_encrypted_backups(tmp_path):
    file_key, folder_key = (qm.Key.new_file(tmp_path / name) for name in ("one", "two"))
    path = tmp_path / "state.qms"
    qm.save(memory(1), path, encrypt=file_key)
    with BackupManager(tmp_path / "backups", key=folder_key, durable=False) as manager:
        manager.create_backup(path)
        manager.export_backup(None, tmp_path / "all.qmb")
    path.unlink()
    for ladder in (
        qm.Ladder(backups=tmp_path / "backups", key=folder_key),
        qm.Ladder(exports=[tmp_path / "all.qmb"], key=folder_key),
        qm.Ladder(backups=manager),
    ):
        with pytest.warns(UserWarning, match="all.qmb|'backup'"):
            assert qm.load(path, key=file_key, fallback=ladder) == memory(1)
    for exports in ([], [tmp_path / "all.qmb"]):
        with pytest.raises(MissingFileError) as caught:
            qm.load(path, key=file_key, fallback=qm.Ladder(tmp_path / "backups", exports=exports))
        assert all("cannot be opened with this key" in note for note in caught.value.__notes__)


def test_no_copy_stays_behind(place, ladder, monkeypatch, tmp_path):
    monkeypatch.setattr("quantum_memory.lifecycle.backups.copies._MEMORY", str(tmp_path / "none"))
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    damage(place / "state.qms")
    with pytest.warns(UserWarning, match="'backup'"):
        qm.load(place / "state.qms", fallback=ladder)
    damage(packs(place / "backups")[1])
    (place / "state.qms").unlink()
    with pytest.warns(UserWarning, match="'backup'"):
        qm.load(place / "state.qms", fallback=ladder)
    assert list((tmp_path / "tmp").iterdir()) == []


def test_nothing_of_it_is_imported_where_nothing_is_lost():
    code = (
        "import sys, tempfile, os, quantum_memory as qm\n"
        "path = os.path.join(tempfile.mkdtemp(), 'x.qms')\n"
        "qm.save({'metadata': {'a': 1}}, path)\n"
        "qm.load(path); qm.load(path, fallback=qm.Ladder(backups='none'))\n"
        "print([name for name in sys.modules if name.startswith('quantum_memory.lifecycle.backup')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# Before it is changed


def test_a_store_is_backed_up_before_each_change(tmp_path):
    path = tmp_path / "store.h5"
    with BackupManager(tmp_path / "backups", durable=False, max_backups=None) as manager:
        store = qm.HDF5QuantumStorage(path, durable=False, backup_before_write=manager)
        first = store.save_quantum_state(memory(1))
        assert manager.list_backups(path) == []  # there was nothing to lose
        store.save_quantum_state(memory(2))
        store.delete_state(first)
        store.optimize_storage()
        with store.time_series("pad") as series:
            series.append((0.1, 0.2, 0.3))
        states = []
        for one in manager.list_backups(path)[::-1]:
            assert one["automatic"]
            manager.restore_backup(one["id"], tmp_path / "then.h5", backup_first=False)
            states.append(len(qm.HDF5QuantumStorage(tmp_path / "then.h5").list_states()))
        assert states[:4] == [1, 2, 1, 1]
        assert len(qm.HDF5QuantumStorage(path).list_states()) == 1
        assert store.list_states()
        assert len(manager.list_backups(path)) == len(states)  # looking is no change


def test_what_cannot_be_backed_up_is_not_changed(tmp_path):
    class Full:
        def before_write(self, path):
            raise StorageError("could not write: no space", path=path)

    interface = qm.QuantumClassicalInterface(n_qubits=3)
    path = tmp_path / "store.h5"
    qm.HDF5QuantumStorage(path, durable=False).save_quantum_state(memory(1))
    interface.save_state(tmp_path / "state.json", durable=False)
    then = {one: one.read_bytes() for one in tmp_path.iterdir()}
    store = qm.HDF5QuantumStorage(path, backup_before_write=Full())
    for change in (
        lambda: store.save_quantum_state(memory(2)),
        lambda: store.delete_state(store.list_states()[0]["id"]),
        store.optimize_storage,
        lambda: interface.save_state(tmp_path / "state.json", backup_before_write=Full()),
    ):
        with pytest.raises(StorageError, match="no space"):
            change()
    assert then == {one: one.read_bytes() for one in tmp_path.iterdir()}


def test_an_interface_backs_up_what_it_replaces(tmp_path):
    interface = qm.QuantumClassicalInterface(n_qubits=3)
    path = tmp_path / "state.json"
    with BackupManager(tmp_path / "backups", durable=False) as manager:
        interface.save_state(path, durable=False, backup_before_write=manager)
        first = path.read_bytes()
        interface.encode([0.5, 0.1, -0.5])
        interface.save_state(path, durable=False, backup_before_write=manager)
        (one,) = manager.list_backups(path)
        manager.restore_backup(one["id"], tmp_path / "first.json")
    assert (tmp_path / "first.json").read_bytes() == first != path.read_bytes()
    assert os.fspath(path) == one["source"]
