"""Several keys open a folder, each can be taken away but the last, and no data are written anew for it."""

import errno
import itertools
import json
import shutil

import pytest

import quantum_memory as qm
from quantum_memory.durability import atomic, files
from quantum_memory.encryption.keys import open_slots
from quantum_memory.errors import ConflictError, InvalidStateError, MissingError, QuantumMemoryError, WrongKeyError
from quantum_memory.lifecycle.backup_manager import BackupManager
from quantum_memory.testing.faults import FaultyFiles, killed_at

from ..batches import KillingWrites
from ..power_cuts import ModelCut, Unsynced

CONFIGS = ("config.json", "config-copy.json")


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    place = tmp_path_factory.mktemp("keys")
    return [qm.Key.new_file(place / str(number)) for number in range(20)]


@pytest.fixture
def top(tmp_path, keys):
    """A folder of one backup that the first key opens."""
    (tmp_path / "text").write_text("nobody's business")
    with BackupManager(tmp_path / "b", key=keys[0], durable=False) as manager:
        manager.create_backup(tmp_path / "text")
    return tmp_path / "b"


def opens(top, key, *, deep=True):
    """Tell whether a key opens a folder, and what is in it."""
    try:
        with BackupManager(top, key=key, durable=False) as manager:
            (one,) = manager.list_backups()
            if not deep:
                return len(manager.get_backup(one["id"])["entries"]) == 1
            assert not manager.verify().damaged
            manager.restore_backup(one["id"], top.parent / "out", backup_first=False)
    except WrongKeyError as error:
        return error.exit_code != 10 or "key" not in error.message
    assert (top.parent / "out").read_text() == "nobody's business"
    return True


def data(top):
    return {path: path.read_bytes() for path in top.rglob("*.qm*")}


def test_a_key_is_added_and_taken_away(top, keys):
    then = data(top)
    with BackupManager(top, key=keys[0]) as manager:
        manager.add_key(keys[1], "laptop")
        manager.add_key(qm.Key.from_passphrase("correct horse"), "in my head")
        listed = manager.list_keys()
    assert [(one["number"], one["label"], one["kind"]) for one in listed] == [
        (1, "", "key file"), (2, "laptop", "key file"), (3, "in my head", "passphrase"),
    ]  # fmt: skip
    assert json.dumps(listed)
    assert opens(top, keys[0])
    assert opens(top, keys[1])
    assert opens(top, qm.Key.from_passphrase("correct horse"))
    assert not opens(top, keys[2])
    assert not opens(top, None)
    with BackupManager(top, key=keys[1]) as manager:
        manager.remove_key("1")
        manager.remove_key("in my head")
        assert [one["label"] for one in manager.list_keys()] == ["laptop"]
        with pytest.raises(ConflictError, match="the last key"):
            manager.remove_key("laptop")
    assert not opens(top, keys[0])
    assert not opens(top, qm.Key.from_passphrase("correct horse"))
    assert opens(top, keys[1])
    assert data(top) == then
    assert all((top / name).stat().st_mode & 0o777 == 0o600 for name in CONFIGS)


def test_a_key_that_was_taken_away_opens_neither_file(top, keys):
    with BackupManager(top, key=keys[0]) as manager:
        manager.add_key(keys[1])
        context = manager.folder.config.context
        manager.remove_key("1")
    for name in CONFIGS:
        slots = json.loads((top / name).read_text())["slots"]
        assert len(slots) == 1
        with pytest.raises(WrongKeyError):
            open_slots(slots, keys[0], context)
        (top / name).rename(top / "aside")
        assert opens(top, keys[1])
        assert not opens(top, keys[0])
        (top / "aside").rename(top / name)
    assert not list(top.glob(".*"))


def test_a_key_is_changed_and_the_manager_goes_on(top, keys, tmp_path):
    then = data(top)
    with BackupManager(top, key=keys[0]) as manager:
        manager.add_key(keys[1], "mine")
    with BackupManager(top, key=keys[1], durable=False) as manager:
        manager.change_key(keys[2])
        assert [one["label"] for one in manager.list_keys()] == ["", "mine"]
        manager.change_key(keys[3])
        assert data(top) == then
        made = manager.create_backup(tmp_path / "text")
        assert manager.verify_backup(made)
        manager.delete_backup(made)
    assert [opens(top, key) for key in keys[:4]] == [True, False, False, True]


def test_what_is_none_is_refused(top, keys, tmp_path):
    with BackupManager(top, key=keys[0]) as manager:
        for which in ("0", "2", "-1", "", "nobody", "²"):
            with pytest.raises(MissingError):
                manager.remove_key(which)
        for number in range(1, 16):
            manager.add_key(keys[number], "the same" if number < 3 else "")
        with pytest.raises(ConflictError, match="opens these backups already"):
            manager.add_key(keys[4])
        with pytest.raises(ConflictError, match="opens these backups already"):
            manager.change_key(keys[0])
        with pytest.raises(ConflictError, match="16 keys already"):
            manager.add_key(keys[16])
        with pytest.raises(ConflictError, match="2 keys have the label") as caught:
            manager.remove_key("the same")
        assert caught.value.next_step.endswith("2, 3")
        manager.change_key(keys[16])
        manager.remove_key("3")
        with pytest.raises(InvalidStateError):
            manager.add_key(keys[17], "x" * 201)
        assert len(manager.list_keys()) == 15
    with BackupManager(tmp_path / "plain", durable=False) as manager:
        manager.create_backup(tmp_path / "text")
        assert manager.list_keys() == []
        for name, given in (("add_key", keys[0]), ("remove_key", "1"), ("change_key", keys[0])):
            with pytest.raises(ConflictError, match="are not encrypted"):
                getattr(manager, name)(given)


def test_whoever_has_it_open_does_not_bring_a_key_back(top, keys):
    """One that was opened before a key was taken away adds another, and changes what it is shown."""
    with BackupManager(top, key=keys[0]) as first, BackupManager(top, key=keys[1]) as second:
        first.add_key(keys[1], "second")
        assert len(second.list_keys()) == 2
        first.add_key(keys[2], "third")
        second.add_key(keys[3], "fourth")
        second.remove_key("third")
        first.remove_key("second")
        with pytest.raises(WrongKeyError):
            second.add_key(keys[5])
        first.add_key(keys[4], "fifth")
        assert [one["label"] for one in first.list_keys()] == ["", "fourth", "fifth"]
    assert [opens(top, key) for key in keys[:5]] == [True, False, False, True, True]


def test_what_is_exported_opens_with_the_keys_of_now(top, keys, tmp_path):
    with BackupManager(top, key=keys[0]) as first, BackupManager(top, key=keys[0]) as second:
        assert first.list_keys() == second.list_keys()
        second.add_key(keys[1])
        second.remove_key("1")
        first.export_backup(None, tmp_path / "x.qmb")
        assert first.list_keys() == second.list_keys()
    with BackupManager(tmp_path / "other", key=keys[2], durable=False) as manager:
        with pytest.raises(WrongKeyError):
            manager.import_backup(tmp_path / "x.qmb", key=keys[0])
        assert len(manager.import_backup(tmp_path / "x.qmb", key=keys[1])) == 1


# Whatever fails


CHANGES = {
    "add": lambda manager, key: manager.add_key(key),
    "change": lambda manager, key: manager.change_key(key),
    "remove": lambda manager, _: manager.remove_key("other"),
}


class Work:
    """A change of the keys, again and again."""

    def __init__(self, top, keys, what):
        self.top, self.keys, self.change, self._fresh = top, keys, CHANGES[what], top.parent / "fresh"
        if what == "remove":
            with BackupManager(top, key=keys[0], durable=False) as manager:
                manager.add_key(keys[1], "other")
        shutil.copytree(top, self._fresh)

    def again(self):
        shutil.rmtree(self.top)
        shutil.copytree(self._fresh, self.top)
        atomic._swept.clear()

    def do(self, system):
        with files.using(system), BackupManager(self.top, key=self.keys[0]) as manager:
            self.change(manager, self.keys[1])

    def opens(self):
        return any(opens(self.top, key, deep=False) for key in self.keys[:2])

    def look(self):
        """One of the two opens it, whichever of the two files is there."""
        assert self.opens()
        for name in CONFIGS:
            if (self.top / name).exists():
                (self.top / name).rename(self.top / "aside")
                assert self.opens()
                (self.top / "aside").rename(self.top / name)


@pytest.mark.parametrize("what", CHANGES)
def test_every_call_fails_in_turn(top, keys, what):
    work = Work(top, keys, what)
    for k in itertools.count():
        work.again()
        faulty = FaultyFiles(k, errno.EIO, inner=Unsynced())
        try:
            work.do(faulty)
        except QuantumMemoryError as error:
            assert error.exit_code in {4, 6, 7, 8}, error  # noqa: PT017
        work.look()
        if not faulty.failed:
            break
    assert k > 15


@pytest.mark.parametrize("accident", ["kill", "power cut"])
@pytest.mark.parametrize("what", CHANGES)
def test_an_accident_at_every_call_that_changes_something(top, keys, what, accident):
    work = Work(top, keys, what)
    make = {
        "kill": lambda k: KillingWrites(k, Unsynced()),
        "power cut": lambda k: ModelCut(k, top, k, Unsynced()),
    }[accident]
    for k in itertools.count():
        work.again()
        died = killed_at(k, work.do, make)
        work.look()
        if not died:
            break
    assert k > 8
    expected = {"add": (True, True), "change": (False, True), "remove": (True, False)}[what]
    assert (opens(top, keys[0]), opens(top, keys[1])) == expected
