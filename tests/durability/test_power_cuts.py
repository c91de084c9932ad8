"""The model of a disk is tested too: what it may lose, and what it must keep."""

import os
import shutil
from pathlib import Path

import pytest

from quantum_memory.testing.faults import KILLED, in_child
from quantum_memory.testing.power_cuts import PowerCutFiles

CUTS = 24


@pytest.fixture
def disk(tmp_path):
    (tmp_path / "disk").mkdir()
    return tmp_path / "disk"


def create(files, path, content=b"", *, sync=True):
    fd = files.open(str(path), os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    files.write(fd, content)
    if sync:
        files.fsync(fd)
    files.close(fd)


def sync_folder(files, folder):
    fd = files.open(str(folder), os.O_RDONLY)
    files.fsync(fd)
    files.close(fd)


def left_by(disk, work):
    """Do `work`, cut the power at the next call, and return all that may be there then: paths, and what is in files."""
    seen = set()
    before = Path(shutil.copytree(disk, disk.with_name("before"), dirs_exist_ok=True))
    for seed in range(CUTS):

        def die(seed=seed):
            files = PowerCutFiles(1000, disk, seed)
            work(files)
            files._left = 0
            files.stat(str(disk))

        assert in_child(die) == KILLED
        there = sorted(path for path in disk.rglob("*") if path.is_file() or not any(path.iterdir()))
        seen.add(tuple((str(path.relative_to(disk)), path.read_bytes() if path.is_file() else None) for path in there))
        shutil.rmtree(disk)
        shutil.copytree(before, disk)
    shutil.rmtree(before)
    return seen


def test_a_new_folder_may_be_lost_with_all_that_was_synced_in_it(disk):
    def work(files):
        files.mkdir(str(disk / "a"))
        create(files, disk / "a/x", b"1")
        sync_folder(files, disk / "a")

    assert left_by(disk, work) == {(), (("a/x", b"1"),)}


def test_a_folder_is_kept_by_the_sync_of_the_one_above_and_its_names_by_its_own(disk):
    def work(files, *, inner):
        files.mkdir(str(disk / "a"))
        files.mkdir(str(disk / "a/b"))
        create(files, disk / "a/b/x", b"1")
        for folder in (disk, disk / "a", disk / "a/b")[: 3 if inner else 2]:
            sync_folder(files, folder)

    assert left_by(disk, lambda files: work(files, inner=True)) == {(("a/b/x", b"1"),)}
    assert left_by(disk, lambda files: work(files, inner=False)) == {(("a/b", None),), (("a/b/x", b"1"),)}


def test_a_rename_is_in_both_folders_or_in_neither(disk):
    for name in "ab":
        (disk / name).mkdir()
    (disk / "a/x").write_bytes(b"1")

    def work(files, *synced):
        files.rename(str(disk / "a/x"), str(disk / "b/y"))
        for folder in synced:
            sync_folder(files, disk / folder)

    old, new = (("a/x", b"1"), ("b", None)), (("a", None), ("b/y", b"1"))
    assert left_by(disk, work) == {old, new}
    for folder in "ab":
        assert left_by(disk, lambda files, folder=folder: work(files, folder)) == {new}


def test_a_second_name_and_the_loss_of_the_first_may_come_in_any_order(disk):
    for name in "ab":
        (disk / name).mkdir()
    (disk / "a/x").write_bytes(b"1")

    def work(files):
        files.link(str(disk / "a/x"), str(disk / "b/y"))
        files.unlink(str(disk / "a/x"))

    both, first = (("a/x", b"1"), ("b/y", b"1")), (("a/x", b"1"), ("b", None))
    neither, second = (("a", None), ("b", None)), (("a", None), ("b/y", b"1"))
    assert left_by(disk, work) == {both, first, second, neither}


def test_changes_in_one_folder_come_in_their_order(disk):
    def work(files):
        for name in "abc":
            create(files, disk / name)

    assert {tuple(path for path, _ in one) for one in left_by(disk, work)} == {(), ("a",), ("a", "b"), ("a", "b", "c")}


def test_what_was_in_a_folder_is_not_lost_by_its_removal(disk):
    (disk / "a").mkdir()
    (disk / "a/x").write_bytes(b"1")

    def work(files):
        files.rename(str(disk / "a/x"), str(disk / "y"))
        files.rmdir(str(disk / "a"))
        sync_folder(files, disk)

    assert left_by(disk, work) == {(("y", b"1"),)}


def test_names_of_one_file_stay_that_and_modes_and_times_stay(disk):
    (disk / "a").mkdir(mode=0o750)
    (disk / "x").write_bytes(b"1")
    (disk / "x").chmod(0o640)
    os.utime(disk / "x", ns=(5, 10**18 + 7))
    (disk / "a/y").hardlink_to(disk / "x")

    def die():
        files = PowerCutFiles(0, disk)
        files.stat(str(disk))

    assert in_child(die) == KILLED
    facts = (disk / "x").stat()
    assert facts.st_ino == (disk / "a/y").stat().st_ino
    assert (facts.st_mode & 0o777, facts.st_mtime_ns) == (0o640, 10**18 + 7)
    assert (disk / "a").stat().st_mode & 0o777 == 0o750


def test_a_file_that_is_not_synced_may_be_anything_but_what_was_never_written(disk):
    def work(files):
        create(files, disk / "x", b"1" * 512 + b"2" * 100, sync=False)
        sync_folder(files, disk)

    whole, first, second = b"1" * 512 + b"2" * 100, b"1" * 512, bytes(512) + b"2" * 100
    assert left_by(disk, work) <= {(("x", content),) for content in (b"", whole, first, second)}
    assert len(left_by(disk, work)) > 2
