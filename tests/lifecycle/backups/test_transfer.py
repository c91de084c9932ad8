"""What was exported is imported whole, in order and under its names, with any key or none; or nothing is."""

import dataclasses
import hashlib
import json
import os
import shutil
import struct
import tracemalloc
import warnings
from pathlib import Path

import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

import quantum_memory as qm
from quantum_memory.durability import pack
from quantum_memory.durability.atomic import DurableFile
from quantum_memory.durability.files import ReadableFile
from quantum_memory.durability.pack_writer import PackFile
from quantum_memory.errors import (
    ConflictError,
    IntegrityError,
    MissingError,
    MissingFileError,
    UnsafeError,
    UnsupportedVersionError,
    WrongKeyError,
)
from quantum_memory.lifecycle.backup_manager import BackupManager
from quantum_memory.lifecycle.backups import export_file, transfer
from quantum_memory.lifecycle.backups import manifest as manifests
from quantum_memory.lifecycle.backups.manifest import FILE, FOLDER, LINK, Backup, BackupManifest, Entry
from quantum_memory.lifecycle.repository.signed_json import signed

KEYS = ("plain", "one", "other")


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    """A key for each name; files, which take no time, and none for "plain"."""
    place = tmp_path_factory.mktemp("keys")
    return {name: None if name == "plain" else qm.Key.new_file(place / name) for name in KEYS}


def tree(top, number=0):
    """Write a folder with all that a backup may hold; files and numbers differ, and one file stays."""
    (top / "in").mkdir(parents=True, exist_ok=True)
    (top / "large.bin").write_bytes(bytes(range(256)) * 5000)
    (top / "in" / f"{number}.txt").write_text("again and again " * (5000 + number))
    (top / "empty").write_bytes(b"")
    (top / "of changing content").write_bytes(os.urandom(3000))
    (top / "large.bin").chmod(0o640)
    if not (top / "link").is_symlink():
        (top / "link").symlink_to("in/0.txt")
    return top


def listing(top):
    """What is in a folder: of each path its kind, mode, bytes or target, and time."""
    found = {}
    for path in sorted(Path(top).rglob("*")):
        facts = path.lstat()
        data = os.fspath(path.readlink()) if path.is_symlink() else path.read_bytes() if path.is_file() else None
        found[str(path.relative_to(top))] = facts.st_mode, data, path.is_symlink() or facts.st_mtime_ns
    return found


@pytest.fixture(scope="module")
def made(tmp_path_factory, keys):
    """A folder of three backups for each key, exported, with what they hold."""
    found = {}
    for name, key in keys.items():
        place = tmp_path_factory.mktemp(name)
        ids, held = [], []
        with BackupManager(place / "b", key=key, durable=False) as manager:
            for number in range(3):
                ids.append(manager.create_backup(tree(place / "tree", number), f"number {number}"))
                held.append(listing(place / "tree"))
            manager.tag(ids[1], "Paper-1")
            manager.pin(ids[0])
            exported = manager.export_backup(None, place / "all.qmb")
        found[name] = place, ids, held, exported
    return found


def quiet(work):
    """Do something that may warn."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return work()


def files_of(top):
    return {str(path.relative_to(top)): path.read_bytes() for path in Path(top).rglob("*") if path.is_file()}


# There and back


@pytest.mark.parametrize("into", KEYS)
@pytest.mark.parametrize("of", KEYS)
def test_all_that_was_exported_is_there_with_any_key(tmp_path, made, keys, of, into):
    _, ids, held, exported = made[of]
    assert (exported.backups, exported.encrypted) == (ids, of != "plain")
    with BackupManager(tmp_path / "b", key=keys[into], durable=False) as manager:
        if of != "plain" and into == "plain":
            with pytest.warns(UserWarning, match="is not encrypted in"):
                assert manager.import_backup(exported.path, key=keys[of]) == ids
        else:
            assert manager.import_backup(exported.path, key=keys[of]) == ids
        assert manager.verify()
        listed = manager.list_backups()
        assert [one["id"] for one in listed] == ids[::-1]
        assert [one["description"] for one in listed] == ["number 2", "number 1", "number 0"]
        assert [one["number"] for one in listed] == [3, 2, 1]
        assert all(one["imported"] for one in listed)
        assert (listed[1]["tags"], listed[2]["pinned"]) == (["Paper-1"], True)
        for one, then in zip(ids, held, strict=True):
            manager.restore_backup(one, tmp_path / one)
            assert listing(tmp_path / one) == then
        again = manager.export_backup("Paper-1", tmp_path / "one.qmb")
        assert again.backups == [ids[1]]
    for name, data in files_of(tmp_path / "b").items():
        hidden = b"again and again" not in data and b"of changing content" not in data
        assert hidden or into == "plain", name


def test_what_several_have_is_in_the_file_once(made):
    place, ids, _, exported = made["plain"]
    with BackupManager(place / "b") as manager:
        needed = set().union(*(manager.folder.manifest(one).chunks() for one in ids))
    with ReadableFile(exported.path) as source:
        chunks = pack.check_frame(source, export_file.SIGNATURE)
    assert exported.chunks == len(needed)
    assert needed < set(chunks)
    assert exported.nbytes == Path(exported.path).stat().st_size
    assert Path(exported.path).stat().st_mode & 0o777 == 0o600
    assert json.dumps(exported.to_dict())


def test_what_was_imported_is_not_imported_again(tmp_path, made, keys):
    _, ids, _, exported = made["one"]
    with BackupManager(tmp_path / "b", key=keys["other"], durable=False) as manager:
        for _ in range(3):
            assert manager.import_backup(exported.path, key=keys["one"]) == ids
        first = {name: data for name, data in files_of(tmp_path / "b").items() if name != "log.jsonl"}
        manager.delete_backup(ids[2])
        assert manager.import_backup(exported.path, key=keys["one"]) == ids
        manager.verify()
        assert {name.partition("/")[2] for name in files_of(tmp_path / "b") if name.startswith("backups")} == {
            name.partition("/")[2] for name in first if name.startswith("backups")
        }
        assert [line["action"] for line in manager.folder.log()].count("imported") == 4


def test_back_in_its_own_folder_only_what_is_gone_is_written(tmp_path, made, keys):
    place, ids, held, exported = made["one"]
    shutil.copytree(place / "b", tmp_path / "b")
    with BackupManager(tmp_path / "b", key=keys["one"], durable=False) as manager:
        manager.delete_backup(ids[2])
        assert manager.import_backup(exported.path) == ids
        assert [one["imported"] for one in manager.list_backups()] == [True, False, False]
        manager.restore_backup(ids[2], tmp_path / "out")
        assert listing(tmp_path / "out") == held[2]


def test_an_id_that_means_something_else_there_becomes_another(tmp_path, made):
    _, ids, _, exported = made["plain"]
    with BackupManager(tmp_path / "b", durable=False) as manager:
        mine = manager.create_backup(__file__)
        manifest = manager.folder.manifest(mine)
        with manager.folder.store.shared():
            backup = dataclasses.replace(manifest.backup, id=ids[0])
            manager.folder.publish_manifest(dataclasses.replace(manifest, backup=backup))
        manager.tag(mine, "Paper-1")
        with pytest.warns(UserWarning, match="1 tags mean another backup here, and still do: Paper-1"):
            got = manager.import_backup(exported.path)
        assert (got[1:], got[0].startswith(ids[0] + "-")) == (ids[1:], True)
        assert manager.resolve("Paper-1") == mine
        assert manager.get_backup(got[0])["pinned"]
        assert manager.get_backup(ids[0])["source"] == __file__
        assert quiet(lambda: manager.import_backup(exported.path)) == got
        assert manager.verify()


def stamped(number, when):
    return f"2026-01-{when:02}T00:00:00.000000Z", number


@settings(max_examples=60)
@given(
    local=st.lists(st.integers(1, 28), max_size=6),
    come=st.lists(st.integers(1, 28), min_size=1, max_size=6),
)
def test_imported_ones_keep_their_order_and_take_their_place_in_time(local, come):
    def backup(number, day, source):
        when = f"2026-01-{day:02}T00:00:00.000000Z"
        return Backup(f"{source}{number}", number, "/x", when, "", False, True, 0, 0, 0, 0, 0, 0, False, "")

    there = [backup(number, day, "l") for number, day in enumerate(local, 1)]
    theirs = [backup(number, day, "c") for number, day in enumerate(come, 5)]
    numbers = transfer._Numbers(there)
    put = [dataclasses.replace(one, number=numbers.of(one)) for one in theirs]

    def order(listed):
        return [one.id for one in sorted(listed, key=lambda one: (one.number, one.created_at, one.id))]

    merged = order([*there, *put])
    assert [one for one in merged if one.startswith("c")] == [one.id for one in theirs]
    assert [one for one in merged if one.startswith("l")] == [one.id for one in there]
    if local == sorted(local) and come == sorted(set(come)):  # no clock has jumped, or stood still
        days = {one.id: one.created_at for one in [*there, *put]}
        assert [days[one] for one in merged] == sorted(days.values())
    if not there:
        assert put == theirs


def test_an_imported_backup_does_not_choose_where_it_is_restored(tmp_path, made):
    _, ids, held, exported = made["plain"]
    with BackupManager(tmp_path / "b", durable=False) as manager:
        manager.import_backup(exported.path)
        with pytest.raises(ConflictError, match="says itself where it goes") as caught:
            manager.restore_backup(ids[0])
        assert "it came from" in caught.value.next_step
        manager.restore_backup(ids[0], tmp_path / "out")
        assert listing(tmp_path / "out") == held[0]


def test_the_list_of_backups_is_written(tmp_path, made):
    place, ids, _, _ = made["plain"]
    with BackupManager(place / "b", durable=False) as manager:
        manager.export_backup_history(tmp_path / "history.json")
        with pytest.raises(ConflictError):
            manager.export_backup_history(tmp_path / "history.json")
        manager.export_backup_history(tmp_path / "history.json", overwrite=True)
        said = json.loads((tmp_path / "history.json").read_text())
        assert said["backups"] == json.loads(json.dumps(manager.list_backups()))
        assert [one["id"] for one in said["backups"]] == ids[::-1]
    assert (tmp_path / "history.json").stat().st_mode & 0o777 == 0o600


# What is refused


def test_a_file_that_is_there_is_not_replaced(tmp_path, made):
    place, ids, _, _ = made["plain"]
    path = tmp_path / "x.qmb"
    path.write_text("mine")
    with BackupManager(place / "b", durable=False) as manager:
        with pytest.raises(ConflictError):
            manager.export_backup(ids[0], path)
        assert path.read_text() == "mine"
        assert manager.export_backup([ids[0], ids[2]], path, overwrite=True).backups == [ids[0], ids[2]]
        with pytest.raises(MissingError):
            manager.export_backup("no such", tmp_path / "y.qmb")
    with BackupManager(tmp_path / "none") as manager, pytest.raises(MissingFileError):
        manager.export_backup(None, tmp_path / "y.qmb")
    assert [one.name for one in tmp_path.iterdir()] == ["x.qmb"]


def test_a_damaged_backup_is_not_exported(tmp_path, made):
    place, ids, _, _ = made["plain"]
    shutil.copytree(place / "b", tmp_path / "b")
    first = min((tmp_path / "b" / "chunks").glob("*.qmpack"), key=lambda path: path.stat().st_mtime_ns)
    data = bytearray(first.read_bytes())
    data[64] ^= 1
    first.write_bytes(data)
    with BackupManager(tmp_path / "b", durable=False) as manager:
        with pytest.raises(IntegrityError) as caught:
            manager.export_backup(None, tmp_path / "x.qmb")
        assert "verify --full" in caught.value.next_step
        (tmp_path / "b" / "backups" / f"{ids[1]}.qmbk").write_bytes(b"")
        with pytest.raises(IntegrityError) as caught:
            manager.export_backup(None, tmp_path / "x.qmb")
        assert "verify --full" in caught.value.next_step
    assert not list(tmp_path.glob("*.qmb*")) + list(tmp_path.glob(".*"))


def test_another_key_opens_nothing(tmp_path, made, keys):
    _, _, _, exported = made["one"]
    for key, given_key in ((None, None), (None, keys["other"]), (keys["other"], None)):
        with BackupManager(tmp_path / "b", key=key) as manager:
            with pytest.raises(WrongKeyError) as caught:
                manager.import_backup(exported.path, key=given_key)
            assert caught.value.exit_code == 10
    with BackupManager(tmp_path / "b") as manager, pytest.raises(ConflictError, match="not encrypted"):
        manager.import_backup(made["plain"][3].path, key=keys["one"])
    assert not (tmp_path / "b").exists()


def test_a_folder_that_does_not_open_takes_nothing(tmp_path, made, keys):
    _, _, _, exported = made["plain"]
    with BackupManager(tmp_path / "b", key=keys["one"], durable=False) as manager:
        manager.create_backup(__file__)
    then = files_of(tmp_path / "b")
    for key in (None, keys["other"]):
        with BackupManager(tmp_path / "b", key=key) as manager, pytest.raises(WrongKeyError):
            manager.import_backup(exported.path)
    assert files_of(tmp_path / "b") == then


# Damage


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """The bytes of an exported file that is short, plain and encrypted, and the key."""
    place = tmp_path_factory.mktemp("small")
    (place / "a").mkdir()
    (place / "a" / "x").write_text("some text")
    (place / "a" / "y").write_text("text " * 300)
    found = {}
    for name, key in (("plain", None), ("sealed", qm.Key.new_file(place / "key"))):
        with BackupManager(place / name, key=key, compression="zlib", durable=False) as manager:
            manager.create_backup(place / "a", tags=["t"])
            found[name] = Path(manager.export_backup(None, place / f"{name}.qmb").path).read_bytes(), key
    return found


def refused(data, tmp_path, key=None, errors=(IntegrityError, UnsafeError, UnsupportedVersionError)):
    """See that a file is refused, and that nothing of it is left in a folder that is there, nor one that is not."""
    path, folder = tmp_path / "x.qmb", tmp_path / "none"
    path.write_bytes(data)
    with BackupManager(folder, key=key, durable=False) as manager, pytest.raises(errors) as caught:
        manager.import_backup(path)
    assert not folder.exists()
    assert caught.value.next_step
    return caught.value


@pytest.mark.parametrize("name", ["plain", "sealed"])
def test_no_folder_is_made_of_a_damaged_file(tmp_path, small, name):
    """Each bit and each length of one is tried in `tests/reliability`."""
    data, key = small[name]
    for at in range(0, len(data), 97):
        damaged = bytearray(data)
        damaged[at] ^= 1 << at % 8
        refused(damaged, tmp_path, key)
        refused(data[:at], tmp_path, key)
    refused(data + b"\0", tmp_path, key)
    refused(data + data, tmp_path, key)


@pytest.mark.parametrize("name", ["plain", "one"])
def test_a_damaged_file_changes_nothing_of_a_folder(tmp_path, made, keys, name):
    """Wherever the damage is: what says what is in the file, a manifest, the first chunk, the last one."""
    _, _, _, exported = made[name]
    with BackupManager(tmp_path / "b", key=keys["other"], durable=False) as manager:
        manager.create_backup(__file__)
        then = files_of(tmp_path / "b")
        with ReadableFile(exported.path) as source:
            places = list(pack.read_index(source, export_file.SIGNATURE).values())
        for place in (places[0], places[len(places) // 2], *places[-5:]):
            data = bytearray(Path(exported.path).read_bytes())
            data[place.offset + place.stored // 2] ^= 4
            (tmp_path / "x.qmb").write_bytes(data)
            with pytest.raises(IntegrityError):
                manager.import_backup(tmp_path / "x.qmb", key=keys[name])
            now = files_of(tmp_path / "b")
            assert now == then


# What somebody makes on purpose


def forged(
    path, *, entries=None, source="/a", contents=None, more=(), name=None, twice=False, one="20260101_x", **said
):
    """Write a file in which every checksum is right, whatever it says."""
    chunk = b"some bytes"
    name = name or hashlib.sha256(chunk).digest()
    if entries is None:
        entries = (Entry("", FOLDER, 0o755, 5), Entry("f", FILE, 0o644, 5, len(chunk), name))
    backup = Backup(
        one,
        1,
        source,
        "2026-01-01T00:00:00.000000Z",
        "",
        False,
        entries[0].type == FOLDER,
        1,
        1,
        0,
        10,
        0,
        0,
        False,
        "x",
    )
    manifest = manifests.written(BackupManifest(backup, entries))
    listed = [[one, [export_file.piece_name(manifest).hex()] * (1 + twice)]]
    text = {"created_at": "", "writer": "", "config": None, "backups": listed, "tags": {}, "pins": []} | said
    with DurableFile(path, durable=False) as sink:
        file = PackFile(sink, export_file.SIGNATURE)
        transfer._put(file, name, chunk)
        for extra in more:
            transfer._put(file, *extra)
        transfer._put(file, export_file.piece_name(manifest), manifest)
        transfer._put(file, bytes(32), signed(text) if contents is None else contents)
        file.end()
    return path.read_bytes()


def test_what_is_forged_well_is_imported(tmp_path):
    forged(tmp_path / "good.qmb")
    with BackupManager(tmp_path / "b", durable=False) as manager:
        (one,) = manager.import_backup(tmp_path / "good.qmb")
        manager.restore_backup(one, tmp_path / "out")
    assert (tmp_path / "out" / "f").read_bytes() == b"some bytes"


def entry(path, kind=FILE, **facts):
    chunk = hashlib.sha256(b"some bytes").digest()
    given = {"size": 10, "chunks": chunk} if kind == FILE else {"target": "x"} if kind == LINK else {}
    return Entry(path, kind, 0o644, 5, **given | facts)


TOP = Entry("", FOLDER, 0o755, 5)
HOSTILE = {
    "a path upwards": {"entries": (TOP, entry("../f"))},
    "a path from the root": {"entries": (TOP, entry("/etc/f"))},
    "a path through above": {"entries": (TOP, entry("a", FOLDER), entry("a/../../f"))},
    "a path of a dot": {"entries": (TOP, entry("."))},
    "a path with a NUL": {"entries": (TOP, entry("a\0b"))},
    "a path through a link": {"entries": (TOP, entry("a", LINK), entry("a/f"))},
    "a path twice": {"entries": (TOP, entry("f"), entry("f"))},
    "a file of more than its chunks": {"entries": (TOP, entry("f", size=11))},
    "a file of a huge size": {"entries": (TOP, entry("f", size=(1 << 63) - 1))},
    "chunks that are not there": {"entries": (TOP, entry("f", chunks=bytes(range(32))))},
    "a chunk that nobody needs": {"entries": (TOP,)},
    "a chunk more": {"more": [(bytes(range(32)), b"more")]},
    "a chunk of another name": {"name": bytes(range(32))},
    "a source upwards": {"source": "../../x"},
    "a source that is empty": {"source": ""},
    "a source with a NUL": {"source": "/a\0b"},
    "an id with a path": {"one": "../x"},
    "no backups": {"backups": []},
    "backups that are a number": {"backups": 7},
    "another name of a backup": {"backups": [["20260101_y", [[]]]]},
    "a manifest in no pieces": {"backups": [["20260101_x", []]]},
    "a manifest that is a chunk": {"backups": [["20260101_x", [hashlib.sha256(b"some bytes").hexdigest()]]]},
    "a manifest that is the list": {"backups": [["20260101_x", ["00" * 32]]]},
    "a manifest twice": {"twice": True},
    "a tag of no backup": {"tags": {"t": "20260101_z"}},
    "a tag that is a path": {"tags": {"../t": "20260101_x"}},
    "tags that are a list": {"tags": ["t"]},
    "pins of no backup": {"pins": ["20260101_z"]},
    "pins that are a number": {"pins": 7},
    "keys that are text": {"config": "x"},
    "keys of a plain folder": {"config": {"id": "00", "created_at": "", "cipher": None, "slots": []}},
    "one key more": {"more_to_say": 1},
    "no JSON": {"contents": b"{"},
    "no list": {"contents": b"[]"},
    "an unsigned list": {"contents": b'{"version":1}'},
    "deep JSON": {"contents": b"[" * 100_000},
    "another version": {"contents": signed({"a": 1}, 2)},
}  # fmt: skip


@pytest.mark.parametrize("what", HOSTILE)
def test_what_is_hostile_is_refused_in_little_memory(tmp_path, what):
    data = forged(tmp_path / "made.qmb", **HOSTILE[what])
    tracemalloc.start()
    try:
        refused(data, tmp_path, errors=(IntegrityError, UnsafeError, UnsupportedVersionError))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 << 20


def test_a_list_that_is_not_the_last_is_no_list(tmp_path):
    with DurableFile(tmp_path / "x", durable=False) as sink:
        file = PackFile(sink, export_file.SIGNATURE)
        transfer._put(file, bytes(32), b"{}")
        transfer._put(file, bytes(31) + b"x", b"{}")
        file.end()
    refused((tmp_path / "x").read_bytes(), tmp_path, errors=IntegrityError)
    with DurableFile(tmp_path / "y", durable=False) as sink:
        PackFile(sink, export_file.SIGNATURE).end()
    refused((tmp_path / "y").read_bytes(), tmp_path, errors=IntegrityError)


def test_a_file_of_a_later_release_says_so(tmp_path, small):
    data = bytearray(small["plain"][0])
    struct.pack_into("<II", data, 8, 2, 2)
    struct.pack_into("<Q", data, 56, xxhash.xxh3_64_intdigest(bytes(data[:56])))
    refused(data, tmp_path, errors=UnsupportedVersionError)


def test_links_out_of_an_imported_backup_are_left_out(tmp_path):
    entries = (TOP, entry("f"), entry("in", LINK, target="f"), entry("out", LINK, target="../../etc/passwd"))
    forged(tmp_path / "x.qmb", entries=entries)
    with BackupManager(tmp_path / "b", durable=False) as manager:
        (one,) = manager.import_backup(tmp_path / "x.qmb")
        done = manager.restore_backup(one, tmp_path / "out")
    assert [path for path, _ in done.left_out] == ["out"]
    assert (tmp_path / "out" / "in").readlink() == Path("f")
