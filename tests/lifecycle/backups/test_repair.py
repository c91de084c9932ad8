"""Repair never makes less readable, whatever is damaged and whatever interrupts it, and says all that it does."""

import errno
import json
import random
import shlex

import pytest

from quantum_memory.durability import files
from quantum_memory.errors import (
    ConflictError,
    IntegrityError,
    MissingFileError,
    UnsupportedVersionError,
    WrongKeyError,
)
from quantum_memory.lifecycle.backups.folder import BackupFolder
from quantum_memory.testing.faults import PassingFiles, RecordingFiles

from ...reliability.figures import TIMES
from .faults import interrupted_everywhere, spoilt
from .folders import KEY, contents, copied, damage, flip, manager, pack_of, restorable, two_backups

TRIALS = 80 * TIMES


@pytest.fixture(params=[None, KEY], ids=["plain", "sealed"])
def key(request):
    return request.param


@pytest.fixture
def made(tmp_path, key):
    folder, source = two_backups(tmp_path, random.Random(5), key)
    return folder, source


def ids_of(folder, key=None):
    """Return the ids of the backups, the oldest first."""
    with manager(folder, key) as backups:
        return [one["id"] for one in reversed(backups.list_backups())]


def repaired(folder, key=None):
    """Repair a folder, having checked that a dry run says the same, and writes nothing; return what was done."""
    before = contents(folder)
    with manager(folder, key, durable=False) as backups:
        dry = backups.repair(dry_run=True).to_dict()
        assert contents(folder) == before
        done = backups.repair()
        assert {**dry, "dry_run": False} == done.to_dict()
        again = backups.repair()
        assert (again.mended, again.quarantined, again.chunks_saved) == ({}, [], 0)
    return done


def test_nothing_is_done_where_nothing_is_wrong(made, key):
    folder, _ = made
    before = contents(folder)
    done = repaired(folder, key)
    assert done
    assert (done.problems, done.next_steps) == ({}, [])
    after = contents(folder)
    assert {path: data for path, data in after.items() if path != "lock"} == {
        path: data for path, data in before.items() if path != "lock"
    }


def test_no_random_damage_is_made_worse(tmp_path, key):
    folder, _ = two_backups(tmp_path, random.Random(1), key)
    mended = 0
    for trial in range(TRIALS // 2):
        rng = random.Random(trial)
        copy = copied(folder, tmp_path / "copy")
        paths = sorted(path for path in copy.rglob("*") if path.is_file() and path.name != "log.jsonl")
        what = [damage(path, rng) for path in rng.sample(paths, rng.choice([1, 1, 1, 2, 3]))]
        before = restorable(copy, key)
        if sum("config" in one for one in what) == 2:  # see below
            continue
        try:
            done = repaired(copy, key)
        except UnsupportedVersionError:  # for a lock that says so: it has no checksum
            assert any(one.startswith("lock: flips") for one in what)
            continue
        after = restorable(copy, key)
        assert before <= after, (trial, what)
        mended += len(after) > len(before)
        with manager(copy, key, durable=False) as backups:
            report = backups.verify()
            # Where every list is gone, as when a disk is not mounted, tags are kept, and it is said of what they are.
            assert report.others.keys() <= (set() if backups.list_backups() else {"refs.json"}), (trial, what)
            smaller = {one for one in done.lost if f"backups/{one}.qmbk" in done.mended}  # and whole for what it says
            assert set(done.lost) - smaller <= set(report.damaged) <= set(done.lost), (trial, what)
    assert mended > 3


# --- what is damaged


def test_of_a_pack_with_bad_chunks_the_others_are_saved(made, key):
    folder, source = made
    pack, whole = pack_of(folder), restorable(folder, key)
    flip(pack, 100)
    left = restorable(folder, key)
    assert len(left) < len(whole)
    done = repaired(folder, key)
    assert not done
    assert done.problems == {f"chunks/{pack.name}": "a chunk of it is damaged"}
    assert done.chunks_lost == 1
    assert {(one, path) for one, paths in done.lost.items() for path in paths} == {
        (one, path) for one, path, _ in whole - left
    }
    assert sorted(path.name for path in (folder / "quarantine").iterdir()) == sorted(
        [pack.name, pack.with_suffix(".qmindex").name]
    )
    assert not pack.exists()
    assert (folder / "quarantine").stat().st_mode & 0o777 == 0o700
    assert restorable(folder, key) == left
    command, beside = BackupFolder(folder).command, shlex.quote(f"{source}.restored")
    assert done.next_steps[:2] == [command(f"create {shlex.quote(str(source))}"), command("verify --full")]
    assert [step for step in done.next_steps if "salvage" in step] == [
        command(f"restore {one} --to {beside} --salvage") for one in ids_of(folder, key) if one in done.lost
    ]
    with manager(folder, key) as backups:
        backups.create_backup(source)  # which brings the chunk back, where the source still has it
        assert backups.verify().others == {}
        assert backups.folder.log()[-2]["action"] == "repaired"


@pytest.mark.parametrize("where", ["header", "list", "trailer", "cut", "padding"])
@pytest.mark.parametrize("copy", ["whole", "gone", "damaged"])
def test_a_pack_that_is_damaged_but_for_its_chunks_loses_nothing(made, key, where, copy):
    folder, _ = made
    pack, whole = pack_of(folder), restorable(folder, key)
    size = pack.stat().st_size
    if where == "cut":
        pack.write_bytes(pack.read_bytes()[: size - 20])
    elif where == "padding":
        with manager(folder, key) as backups, backups.folder.store.shared():
            places = backups.folder.store.chunks_of(pack.name).values()
            flip(pack, next(end for place in places if (end := place.offset + place.stored) % 64))
    else:
        flip(pack, {"header": 20, "list": size - 64 - 64 + 44, "trailer": size - 60}[where])
    if copy == "gone":
        pack.with_suffix(".qmindex").unlink()
    elif copy == "damaged":
        flip(pack.with_suffix(".qmindex"), 64 + 3)
    done = repaired(folder, key)
    assert done.quarantined[0] == f"chunks/{pack.name}"
    after = restorable(folder, key)
    if where == "list" and copy == "gone" and key is not None:
        assert len(whole - after) <= 2  # the one record that is damaged, in two backups
    else:
        assert after == whole
        assert done


def test_of_a_pack_without_any_list_what_says_where_it_ends_is_found(tmp_path):
    folder, _ = two_backups(tmp_path, random.Random(5))
    pack, whole = pack_of(folder), restorable(folder)
    with manager(folder) as backups, backups.folder.store.shared():
        chunks = backups.folder.store.chunks_of(pack.name)
        end = max(place.offset + place.stored for place in chunks.values())
        first = next(iter(chunks.values()))
    pack.write_bytes(pack.read_bytes()[:end])
    pack.with_suffix(".qmindex").unlink()
    flip(pack, first.offset + first.stored // 2)  # what is behind a damaged one is found, too
    done = repaired(folder)
    lost = whole - restorable(folder)
    assert 1 <= len(lost) <= 2
    assert len({path for _, path, _ in lost}) == 1
    assert done.chunks_lost == 1


def test_a_copy_of_a_list_is_written_anew(made, key):
    folder, _ = made
    copy = pack_of(folder).with_suffix(".qmindex")
    before = copy.read_bytes()
    for spoil in (lambda: flip(copy, 70), copy.unlink, lambda: copy.write_bytes(before[:-1])):
        spoil()
        done = repaired(folder, key)
        assert done
        assert list(done.mended) == [f"chunks/{copy.name}"]
        assert copy.read_bytes() == before


@pytest.mark.parametrize("content", [b"", b"x" * 24, None, "longer", "version", "number"])
def test_a_damaged_lock_is_written_anew(made, key, content):
    folder, _ = made
    lock, whole = folder / "lock", restorable(folder, key)
    before = lock.read_bytes()
    if content is None:
        lock.unlink()
    elif content == "longer":
        lock.write_bytes(before + b"x")
    elif content == "version":
        flip(lock, 12, 3)
    elif content == "number":
        lock.write_bytes(before[:16] + b"\xff" * 8)  # the next number would have no room
    else:
        lock.write_bytes(content)
    done = repaired(folder, key)
    assert list(done.mended) == ([] if content == "number" else ["lock"])
    assert lock.read_bytes()[:16] == before[:16]
    assert lock.stat().st_size == len(before)
    assert restorable(folder, key) == whole


def test_a_folder_is_not_repaired_while_others_use_it_even_if_its_lock_is_damaged(made, key):
    folder, _ = made
    with manager(folder, key) as one, manager(folder, key) as other, one.folder.store.shared():
        (folder / "lock").write_bytes(b"")
        with pytest.raises(ConflictError), other.folder.store.mending(dry_run=False, timeout=0.01):
            pass


@pytest.mark.parametrize("name", ["config.json", "config-copy.json"])
@pytest.mark.parametrize("how", ["damaged", "gone", "another"])
def test_what_holds_for_the_folder_is_written_anew_from_its_other_file(made, key, name, how):
    folder, _ = made
    path, whole = folder / name, restorable(folder, key)
    good = path.read_bytes()
    if how == "damaged":
        flip(path, 30)
    elif how == "gone":
        path.unlink()
    elif name == "config-copy.json":
        path.write_bytes(good.replace(b'"created_at":"2', b'"created_at":"3'))
    else:
        return
    repaired(folder, key)
    assert path.read_bytes() == good
    assert restorable(folder, key) == whole


def test_what_holds_for_the_folder_is_proven_by_a_key_or_by_the_manifests(made, key):
    folder, _ = made
    whole, copies = restorable(folder, key), [folder / "config.json", folder / "config-copy.json"]
    for path in copies:
        path.write_bytes(path.read_bytes().replace(b'"created_at":"2', b'"created_at":"3', 1))
    done = repaired(folder, key)
    assert {path.name for path in copies} == set(done.mended)
    assert copies[0].read_bytes() == copies[1].read_bytes()
    assert restorable(folder, key) == whole


def test_without_what_holds_for_the_folder_nothing_is_guessed(tmp_path):
    folder, _ = two_backups(tmp_path, random.Random(5), KEY)
    for path in (folder / "config.json", folder / "config-copy.json"):
        path.write_bytes(path.read_bytes()[:100])
    before = contents(folder)
    for key in (KEY, None):
        with manager(folder, key) as backups, pytest.raises(IntegrityError, match=r"config.json") as failure:
            backups.repair()
        assert "restore config.json" in failure.value.next_step
    assert {**contents(folder), "lock": b""} == {**before, "lock": b""}


def test_a_wrong_key_repairs_nothing(tmp_path):
    folder, _ = two_backups(tmp_path, random.Random(5), KEY)
    flip(pack_of(folder), 100)
    before = contents(folder)
    with manager(folder) as backups, pytest.raises(WrongKeyError):
        backups.repair()
    assert {**contents(folder), "lock": b""} == {**before, "lock": b""}


def test_what_a_later_release_wrote_is_not_damaged(tmp_path):
    from quantum_memory.lifecycle.repository.signed_json import write_signed

    folder, _ = two_backups(tmp_path, random.Random(5))
    write_signed(str(folder / "config.json"), {"news": 1}, version=2)
    write_signed(str(folder / "config-copy.json"), {"news": 1}, version=2)
    with manager(folder) as backups, pytest.raises(UnsupportedVersionError, match="version 2"):
        backups.repair()
    assert not (folder / "quarantine").exists()


def test_tags_are_saved_and_where_any_may_be_lost_all_are_pinned(made, key):
    folder, _ = made
    first, last = ids_of(folder, key)
    refs = folder / "refs.json"
    text = refs.read_bytes()
    refs.write_bytes(text.replace(b'"version":1', b'"version":2'))
    repaired(folder, key)
    with manager(folder, key) as backups:
        assert backups.resolve("Good") == last
        assert not any(one["pinned"] for one in backups.list_backups())
    cut = text[: text.index(b"pins") if key is None else -80]
    refs.write_bytes(cut)
    done = repaired(folder, key)
    with manager(folder, key) as backups:
        assert [one["tags"] for one in backups.list_backups()] == [["Good"] if key is None else [], []]
        assert all(one["pinned"] for one in backups.list_backups())
    verbs = ["verify --full", f"unpin {first}", f"unpin {last}"]
    assert done.next_steps == [BackupFolder(folder).command(verb) for verb in verbs]
    assert (folder / "quarantine" / "refs.json.1").read_bytes() == cut


def test_damaged_checks_are_begun_anew(made, key):
    folder, _ = made
    with manager(folder, key) as backups:
        backups.verify()
    flip(folder / "checks.json", 20)
    assert list(repaired(folder, key).mended) == ["checks.json"]
    with manager(folder, key) as backups:
        assert backups.checker.read_checks().verified == {}


def test_a_damaged_manifest_goes_to_quarantine_with_what_is_known_of_it(made, key):
    folder, source = made
    first, last = ids_of(folder, key)
    left = {one for one in restorable(folder, key) if one[0] == first}
    path = folder / "backups" / f"{last}.qmbk"
    flip(path, 128 + int.from_bytes(path.read_bytes()[16:20], "little") + 50)  # within the text, behind the head
    done = repaired(folder, key)
    assert not done
    assert done.quarantined == [f"backups/{last}.qmbk", "refs.json"]  # a copy of it, with the tag
    assert done.problems["refs.json"] == f"the tag 'Good' is of {last}, which is gone"
    assert done.manifests[last]["source"] == str(source)
    assert BackupFolder(folder).command(f"create {source}") in done.next_steps
    assert (folder / "quarantine" / path.name).exists()
    assert restorable(folder, key) == left


def test_of_a_manifest_with_damaged_names_the_other_files_are_kept(made, key):
    folder, _ = made
    first, last = ids_of(folder, key)
    path = folder / "backups" / f"{last}.qmbk"
    whole = restorable(folder, key)
    flip(path, path.stat().st_size - 3)
    assert {one for one, _, _ in restorable(folder, key)} == {first}
    done = repaired(folder, key)
    (lost,) = whole - restorable(folder, key)
    assert done.lost == {last: [lost[1]]}
    with manager(folder, key) as backups:
        assert backups.verify()
        assert backups.get_backup(last)["problem_files"] == [(lost[1], "the list of its chunks was damaged")]
    path.write_bytes(path.read_bytes()[:-40])
    repaired(folder, key)
    assert {one for one, _, _ in restorable(folder, key)} == {first, last}


def test_a_manifest_with_the_name_of_another_gets_its_own_again(tmp_path):
    folder, _ = two_backups(tmp_path, random.Random(5))
    whole = restorable(folder)
    first, _ = ids_of(folder)
    (folder / "backups" / f"{first}.qmbk").rename(folder / "backups" / "mine.qmbk")
    done = repaired(folder)
    assert done.mended == {"backups/mine.qmbk": f"named {first} again"}
    assert restorable(folder) == whole


def test_what_else_is_no_folder_of_backups_is_left_alone(tmp_path):
    (tmp_path / "lock").write_bytes(b"mine")
    (tmp_path / "config.json").write_text(json.dumps({"mine": 1}))
    for folder in (tmp_path, tmp_path / "nothing"):
        with manager(folder) as backups, pytest.raises(MissingFileError, match="no folder of backups"):
            backups.repair()
    assert contents(tmp_path) == {"lock": b"mine", "config.json": b'{"mine": 1}'}
    assert not (tmp_path / "nothing").exists()


# --- what interrupts it


class BadSector(PassingFiles):
    """Cannot read some bytes of a file."""

    def __init__(self, path, at):
        super().__init__()
        self._path, self._at, self._fds = str(path), at, set()

    def open(self, path, flags, mode=0o666):
        fd = super().open(path, flags, mode)
        (self._fds.add if path == self._path else self._fds.discard)(fd)
        return fd

    def read_into(self, fd, buffer, offset):
        if fd in self._fds and offset <= self._at < offset + len(buffer):
            raise OSError(errno.EIO, "a bad sector")
        return super().read_into(fd, buffer, offset)


def test_what_cannot_be_read_now_is_not_taken_for_damaged(made, key):
    folder, _ = made
    pack, whole = pack_of(folder), restorable(folder, key)
    with files.using(BadSector(pack, 100)), manager(folder, key) as backups:
        done = backups.repair()
    assert not done
    assert list(done.left) == [f"chunks/{pack.name}"]
    assert "dmesg" in done.next_steps[0]
    assert done.chunks_saved > 3  # while it still gives them
    assert pack.exists()
    assert restorable(folder, key) == whole


@pytest.mark.parametrize("fault", ["EIO", "kill"])
def test_a_fault_at_many_a_call_makes_nothing_less_readable(tmp_path, fault):
    calls = interrupted_everywhere(tmp_path, fault, step=7 if TIMES == 1 else 1)
    assert calls > 100


def test_no_rule_of_durable_writing_is_broken(made, key):
    folder, _ = made
    spoilt(folder)
    recording = RecordingFiles()
    with files.using(recording), manager(folder, key) as backups:
        backups.repair()
    assert [line for line in recording.violations() if "log.jsonl" not in line] == []
