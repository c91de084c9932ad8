"""Several keys open a folder, each can be taken away but the last, and no data are written anew for it."""

import json
import shutil

import pytest

import quantum_memory as qm
from quantum_memory.encryption.keys import open_slots
from quantum_memory.errors import ConflictError, IntegrityError, InvalidStateError, MissingError, WrongKeyError
from quantum_memory.lifecycle.backup_manager import BackupManager
from quantum_memory.lifecycle.repository.signed_json import write_signed

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


def test_nothing_of_what_people_write_is_in_the_clear(tmp_path, keys):
    """Names, paths, tags, what was said and done: no byte of the folder, nor of what is exported, tells them."""
    said = ("Thesis", "secret_tag", "of_the_whole", "letter", "elsewhere", "diary", "laptop_key", "rubbed_out")
    source = tmp_path / "diary"
    source.mkdir()
    (source / "letter").write_text("to nobody")
    top, key = tmp_path / "b", keys[0]
    with BackupManager(top, key=key, durable=False) as manager:
        first = manager.create_backup(source, "of_the_whole", tags=["Thesis"])
        manager.tag(first, "secret_tag")
        manager.tag(first, "rubbed_out")
        manager.untag("rubbed_out")
        manager.pin(first)
        manager.restore_backup(first, tmp_path / "elsewhere")
        (source / "letter").write_text("to somebody")
        manager.create_backup(source)
        manager.add_key(keys[1])
        manager.change_key(keys[2])
        manager.verify()
        manager.export_backup(None, tmp_path / "x.qmb")
        manager.prune()
        refs = (top / "refs.json").read_bytes()
        (top / "refs.json").write_bytes(refs[:100])
        manager.repair()
        (top / "refs.json").write_bytes(refs)
        actions = [line["action"] for line in manager.folder.log()]
        assert actions == [
            "created", "tagged", "tagged", "tagged", "restored", "created", "key added", "key changed", "exported",
            "repaired",
        ]  # fmt: skip
        assert manager.folder.log()[4]["to"] == str(tmp_path / "elsewhere")
        assert manager.list_backups()[1]["tags"] == ["Thesis", "secret_tag"]
    files = [path for path in (*top.rglob("*"), tmp_path / "x.qmb") if path.is_file()]
    assert {"refs.json", "log.jsonl", "x.qmb"} < {path.name for path in files}
    for path in files:
        held = path.read_bytes() + path.name.encode()
        assert [word for word in said if word.encode() in held or word.lower().encode() in held] == [], path
    with BackupManager(tmp_path / "other", key=keys[3], durable=False) as manager:
        (one, _) = manager.import_backup(tmp_path / "x.qmb", key=keys[1])
        assert manager.get_backup(one)["tags"] == ["Thesis", "secret_tag"]
        assert manager.get_backup(one)["pinned"]


def test_what_is_sealed_is_bound_to_its_folder_and_to_its_place(top, keys, tmp_path):
    with BackupManager(top, key=keys[0]) as manager:
        (one,) = manager.folder.ids()
        manager.tag(one, "mine")
        refs, log = (top / "refs.json").read_bytes(), (top / "log.jsonl").read_bytes()
    shutil.copytree(top, tmp_path / "again")
    with BackupManager(tmp_path / "other", key=keys[0], durable=False) as other:
        other.create_backup(tmp_path / "text")
        (tmp_path / "other" / "refs.json").write_bytes(refs)
        (tmp_path / "other" / "log.jsonl").write_bytes(log)
        with pytest.raises(IntegrityError, match="do not match their tag"):
            other.folder.refs()
        assert other.folder.log() == []
    said = json.loads(log.splitlines()[0])
    plain = {"tags": {}, "pins": []}
    with BackupManager(top, key=keys[0]) as manager:
        for forged in (said, plain, {"sealed": ""}, {"sealed": 7}, {"sealed": "not Base64"}):
            write_signed(str(top / "refs.json"), forged)
            with pytest.raises(IntegrityError) as caught:
                manager.resolve("mine")
            assert caught.value.path == str(top / "refs.json")
        (top / "refs.json").write_bytes(refs)
        assert manager.resolve("mine") == one
    with BackupManager(tmp_path / "plain", durable=False) as manager:
        manager.create_backup(tmp_path / "text")
        write_signed(str(tmp_path / "plain" / "refs.json"), said)
        with pytest.raises(IntegrityError, match="not encrypted as the others are"):
            manager.folder.refs()


def test_a_damaged_line_of_the_log_costs_only_itself(top, keys):
    with BackupManager(top, key=keys[0]) as manager:
        for number in range(5):
            manager.folder.note("tried", number=number)
        lines = (top / "log.jsonl").read_bytes().splitlines(keepends=True)
        assert all(list(json.loads(line)) == ["sealed"] for line in lines)
        lines[1] = lines[1].replace(b"sealed", b"se*led")
        lines[2] = lines[2][:40] + (b"A" if lines[2][40:41] != b"A" else b"B") + lines[2][41:]
        lines[3] = lines[3][:50]  # the disk was full
        lines.append(b'{"when":"2026","action":"forged"}\n')
        (top / "log.jsonl").write_bytes(b"".join(lines))
        manager.folder.note("tried", number=5)
        assert [line.get("number") for line in manager.folder.log()] == [None, 3, 4, 5]
    with BackupManager(top, key=keys[1]) as manager:
        for look in (manager.folder.log, manager.folder.refs, lambda: manager.delete_backup(manager.folder.ids()[0])):
            with pytest.raises(WrongKeyError):
                look()
        assert len(manager.folder.ids()) == 1


def test_text_is_a_passphrase_wherever_a_key_is_taken(tmp_path, keys, monkeypatch):
    monkeypatch.setattr("quantum_memory.encryption.keys._COST", (1 << 4, 8, 1))
    (tmp_path / "text").write_text("nobody's business")
    with BackupManager(tmp_path / "b", key="open sesame", durable=False) as manager:
        one = manager.create_backup(tmp_path / "text")
        manager.add_key("another")
        manager.export_backup(None, tmp_path / "x.qmb")
    with BackupManager(tmp_path / "b", key="another") as manager:
        manager.change_key("a third")
        assert [slot["kind"] for slot in manager.list_keys()] == ["passphrase"] * 2
    with BackupManager(tmp_path / "b", key=qm.Key.from_passphrase("a third")) as manager:
        assert manager.verify()
    with BackupManager(tmp_path / "other", key=keys[0], durable=False) as manager:
        assert manager.import_backup(tmp_path / "x.qmb", key="another") == [one]


@pytest.mark.parametrize("key", [b"x" * 40, "", 3, ["open sesame"]])
def test_what_is_no_key_is_refused(top, keys, key):
    with pytest.raises(InvalidStateError) as caught:
        BackupManager(top, key=key)
    assert caught.value.next_step
    with BackupManager(top, key=keys[0]) as manager:
        for take in (manager.add_key, manager.change_key, lambda one: manager.import_backup("x.qmb", key=one)):
            with pytest.raises(InvalidStateError):
                take(key)
