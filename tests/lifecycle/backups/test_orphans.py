"""What belongs to no backup is found, and goes when it is old enough and nobody is saving; nothing else does."""

import os
import random
import shutil
import time

import pytest

from quantum_memory.errors import ConflictError, WrongKeyError
from quantum_memory.lifecycle.backups import orphans

from .folders import KEY, contents, flip, manager, pack_of, restorable, two_backups


@pytest.fixture(params=[None, KEY], ids=["plain", "sealed"])
def key(request):
    return request.param


@pytest.fixture
def made(tmp_path, key):
    return two_backups(tmp_path, random.Random(3), key)[0]


def aged(path, hours=2.0):
    """Make a file so much older than it is; or younger."""
    when = time.time() - 3600 * hours
    os.utime(path, (when, when), follow_symlinks=False)
    return path


def cleaned(folder, key=None, **how):
    """Clean a folder, having checked that a dry run says the same, and changes nothing; return what was found."""
    before = contents(folder)
    with manager(folder, key) as backups:
        dry = backups.cleanup_orphaned_backups(dry_run=True, **how).to_dict()
        assert all(before[path] == data or "lock" in path for path, data in contents(folder).items())
        done = backups.cleanup_orphaned_backups(**how)
        assert {**dry, "dry_run": False} == done.to_dict()
        for one in done.found:
            assert (folder / one.path).exists() != one.goes
        gone = set(before) - set(contents(folder))
        expected = {one.path for one in done.cleaned}
        copies = {path.replace(".qmpack", ".qmindex") for path in expected if path.endswith(".qmpack")}
        assert expected <= gone <= expected | copies
    return done


def without_manifest(folder, which):
    """Take a manifest away, as if its save had been killed just before."""
    path = sorted((folder / "backups").iterdir())[which]
    path.unlink()
    return path


def test_there_is_nothing_to_clean_where_all_is_well(made, key):
    before = restorable(made, key)
    assert cleaned(made, key, grace=0).found == []
    assert restorable(made, key) == before


def test_a_pack_of_a_save_that_was_killed_goes_when_it_is_old(made, key):
    without_manifest(made, -1)
    before = restorable(made, key)
    pack = min((made / "chunks").glob("*.qmpack"), key=lambda one: one.stat().st_size)
    aged(pack, -5)  # a clock was wrong
    for hours in (-5, 0, 0.9):
        aged(pack, hours)
        (one,) = cleaned(made, key).found
        assert (one.what, one.goes) == ("pack", False)
        assert "young" in one.why
    aged(pack, 1.1)
    done = cleaned(made, key)
    (one,) = done.cleaned
    assert (one.path, one.what, one.nbytes > 2000) == (f"chunks/{pack.name}", "pack", True)
    assert done.chunks == 1
    assert not pack.with_suffix(".qmindex").exists()
    assert restorable(made, key) == before


def test_chunks_beside_those_that_are_needed_are_only_listed(made, key):
    without_manifest(made, 0)
    before = restorable(made, key)
    pack = aged(pack_of(made))
    done = cleaned(made, key, grace=0)
    (one,) = done.found
    assert (one.path, one.what, one.goes) == (f"chunks/{pack.name}", "chunks", False)
    assert (done.chunks, done.nbytes) == (2, one.nbytes)
    assert restorable(made, key) == before


def test_copies_of_lists_without_a_pack_and_leftovers_go(made, key):
    copy = made / "chunks" / f"{'0' * 32}.qmindex"
    shutil.copyfile(pack_of(made).with_suffix(".qmindex"), copy)
    (made / "quarantine").mkdir()
    places = ("", "chunks", "backups", "quarantine")
    leftovers = [made / folder / f".x.{number:016x}.qmtmp" for number, folder in enumerate(places)]
    for path in leftovers:
        path.write_bytes(b"half")
    folder = made / ".staged.0123456789abcdef.qmtmp"
    folder.mkdir()
    os.link(made / "lock", made / ".lock.0123456789abcdef.qmtmp")
    done = cleaned(made, key)
    assert [one.why for one in done.cleaned] == ["a second name of the lock"]
    assert [one.goes for one in done.left] == [False] * 5
    for path in (copy, *leftovers, folder):
        aged(path)
    done = cleaned(made, key)
    assert sorted(one.what for one in done.cleaned) == ["index copy", *["leftover"] * 4]
    assert folder.exists()


def test_a_file_that_somebody_is_writing_is_no_leftover(made, key):
    import fcntl

    path = made / "backups" / ".x.0123456789abcdef.qmtmp"
    path.write_bytes(b"half")
    aged(path)
    with path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert cleaned(made, key).found == []
    assert [one.goes for one in cleaned(made, key).found] == [True]


def test_a_backup_without_chunks_is_moved_aside_only_if_none_of_its_files_is_left(made, key):
    first, last = sorted((made / "backups").iterdir())
    small = min((made / "chunks").glob("*.qmpack"), key=lambda one: one.stat().st_size)
    small.unlink()
    small.with_suffix(".qmindex").unlink()
    aged(first), aged(last)
    (one,) = cleaned(made, key).found
    assert (one.path, one.what, one.goes) == (f"backups/{last.name}", "backup", False)
    assert "can be restored" in one.why


def test_a_backup_of_which_nothing_is_left_goes_unless_it_has_a_name(tmp_path, key):
    source = tmp_path / "file"
    with manager(tmp_path / "backups", key) as backups:
        for tags in ([], ["mine"]):
            source.write_bytes(os.urandom(100))
            backups.create_backup(source, tags=tags)
    folder = tmp_path / "backups"
    manifests = sorted((folder / "backups").iterdir())
    for path in (folder / "chunks").iterdir():
        path.unlink()
    assert [one.goes for one in cleaned(folder, key).found] == [False, False]
    for path in manifests:
        aged(path)
    done = cleaned(folder, key)
    assert [one.path for one in done.cleaned] == [f"backups/{manifests[0].name}"]
    assert "tag" in done.left[0].why
    assert (folder / "quarantine" / manifests[0].name).exists()


def test_while_a_pack_cannot_be_read_no_backup_goes(tmp_path):
    source = tmp_path / "file"
    source.write_bytes(b"x" * 100)
    with manager(tmp_path / "backups") as backups:
        backups.create_backup(source)
    folder = tmp_path / "backups"
    pack = pack_of(folder)
    flip(pack, 3)
    pack.with_suffix(".qmindex").unlink()
    (one,) = cleaned(folder, grace=0).found
    assert (one.what, one.goes) == ("backup", False)
    assert "repair" in one.why


def test_with_a_damaged_manifest_no_chunk_goes_and_that_is_said(made, key):
    without_manifest(made, -1)
    for path in (made / "chunks").iterdir():
        aged(path)
    flip(next((made / "backups").iterdir()), 200)
    done = cleaned(made, key, grace=0)
    assert done.found == []
    assert "nobody knows which chunks" in done.why_not


def test_nothing_is_cleaned_while_others_save(made, key, monkeypatch):
    from quantum_memory.durability.chunk_store import ChunkStore

    monkeypatch.setitem(ChunkStore.alone.__wrapped__.__kwdefaults__, "timeout", 0.01)
    without_manifest(made, -1)
    before = contents(made)
    with (
        manager(made, key) as one,
        manager(made, key) as other,
        one.folder.store.shared(),
        pytest.raises(ConflictError, match="reading it"),
    ):
        other.cleanup_orphaned_backups(grace=0)
    assert contents(made) == before


def test_with_a_wrong_key_nothing_looks_like_an_orphan(tmp_path):
    made, _ = two_backups(tmp_path, random.Random(3), KEY)
    before = contents(made)
    with manager(made) as backups, pytest.raises(WrongKeyError):
        backups.cleanup_orphaned_backups(grace=0)
    assert contents(made) == before


def test_where_no_backups_are_none_is_made(tmp_path):
    with manager(tmp_path / "backups") as backups:
        assert backups.cleanup_orphaned_backups() == orphans.Orphans()
    assert not (tmp_path / "backups").exists()
