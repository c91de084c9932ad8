"""What a manifest that was set aside names stays as long as it is there."""

import errno
import os
import random

import pytest

from quantum_memory.durability import files
from quantum_memory.errors import StorageError
from quantum_memory.lifecycle.backups.quarantine import QUARANTINE
from quantum_memory.testing.faults import PassingFiles

from .folders import KEY, flip, manager, pack_of, restorable, two_backups


@pytest.fixture(params=[None, KEY], ids=["plain", "sealed"])
def key(request):
    return request.param


@pytest.fixture
def spoilt(tmp_path, key):
    """A folder of two backups, the older of which has a file of its own, and its manifest, which is whole still."""
    folder, _ = two_backups(tmp_path, random.Random(5), key)
    return folder, min((folder / "backups").iterdir())


HOW = {
    "the text": lambda data: _flipped(data, 128 + int.from_bytes(data[16:20], "little") + 50),
    "the first bytes": lambda data: _flipped(data, 3),
    "the head": lambda data: _flipped(data, 140),
    "more behind it": lambda data: _flipped(data, 3) + b"xyz",
}


def _flipped(data, at):
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


@pytest.mark.parametrize("how", HOW)
def test_its_chunks_stay_while_it_is_there(spoilt, key, how):
    folder, path = spoilt
    before, whole = restorable(folder, key), path.read_bytes()
    path.write_bytes(HOW[how](whole))
    with manager(folder, key, durable=False) as backups:
        assert not backups.repair()
        aside = folder / QUARANTINE / path.name
        assert aside.exists()
        for _ in range(2):
            with backups.folder.store.alone():
                backups.folder.collect(0.0)
            assert [one for one in backups.cleanup_orphaned_backups(grace=0).found if one.what == "pack"] == []
        aside.unlink()
        path.write_bytes(whole)  # somebody has a copy, or knows how to mend it
    assert restorable(folder, key) == before
    path.unlink()
    with manager(folder, key, durable=False) as backups, backups.folder.store.alone():
        assert backups.folder.collect(0.0).chunks_removed


def test_a_pack_of_which_only_it_names_chunks_is_no_orphan(spoilt, key):
    folder, _ = spoilt
    path = max((folder / "backups").iterdir())  # it has a pack of its own
    before, whole = restorable(folder, key), path.read_bytes()
    path.write_bytes(HOW["the head"](whole))
    with manager(folder, key, durable=False) as backups:
        backups.repair()
        packs = set((folder / "chunks").iterdir())
        found = backups.cleanup_orphaned_backups(grace=0)
        assert (found.found, found.chunks, found.nbytes) == ([], 0, 0)
        assert set((folder / "chunks").iterdir()) == packs
        (folder / QUARANTINE / path.name).unlink()
        path.write_bytes(whole)
        assert restorable(folder, key) == before
        path.unlink()
        assert [one.what for one in backups.cleanup_orphaned_backups(grace=0).cleaned] == ["pack"]


def test_of_one_that_is_cut_off_what_is_left_of_its_names_counts(spoilt, key):
    folder, path = spoilt
    before, whole = restorable(folder, key), path.read_bytes()
    path.write_bytes(_flipped(whole[:-50], 3))  # two of its names are gone with its end
    with manager(folder, key, durable=False) as backups:
        backups.repair()
        with backups.folder.store.alone():
            backups.folder.collect(0.0)
        path.write_bytes(whole)
    left = restorable(folder, key)
    assert left < before
    assert len(before - left) <= 2


def test_those_of_a_copy_with_a_number_count_too(spoilt, key):
    folder, path = spoilt
    whole = path.read_bytes()
    (folder / QUARANTINE).mkdir()
    (folder / QUARANTINE / path.name).write_bytes(b"an older one")
    path.write_bytes(_flipped(whole, 140))
    before = restorable(folder, key)
    with manager(folder, key, durable=False) as backups:
        backups.repair()
        assert (folder / QUARANTINE / f"{path.name}.1").exists()
        with backups.folder.store.alone():
            backups.folder.collect(0.0)
        path.write_bytes(whole)
    assert len(restorable(folder, key)) > len(before)


def test_what_else_is_there_keeps_nothing(spoilt, key):
    folder, path = spoilt
    whole = path.read_bytes()
    path.unlink()
    (folder / QUARANTINE).mkdir()
    (folder / QUARANTINE / "notes").write_bytes(whole)
    (folder / QUARANTINE / "folder.qmbk").mkdir()
    os.mkfifo(folder / QUARANTINE / "pipe.qmbk")
    (folder / QUARANTINE / "empty.qmbk").write_bytes(b"")
    with manager(folder, key, durable=False) as backups, backups.folder.store.alone():
        assert backups.folder.collect(0.0).chunks_removed


def test_where_it_cannot_be_read_now_nothing_is_removed(spoilt, key):
    folder, path = spoilt

    class BadSector(PassingFiles):
        def open(self, at, flags, mode=0o666):
            if QUARANTINE in at:
                raise OSError(errno.EIO, "a bad sector")
            return super().open(at, flags, mode)

    flip(path, 140)
    with manager(folder, key, durable=False) as backups:
        backups.repair()
        packs = {one: one.read_bytes() for one in (folder / "chunks").iterdir()}
        with files.using(BadSector()), backups.folder.store.alone(), pytest.raises(StorageError):
            backups.folder.collect(0.0)
    assert {one: one.read_bytes() for one in (folder / "chunks").iterdir()} == packs
    assert pack_of(folder) in packs
