"""The model of a disk is tested too: what it may lose, and what it must keep."""

import errno
import itertools
import os
import random
import threading

import pytest

from quantum_memory.durability import atomic
from quantum_memory.durability.files import current, using
from quantum_memory.testing.accidents import cut_at_each
from quantum_memory.testing.faults import PassingFiles
from quantum_memory.testing.operations import FromCopy
from quantum_memory.testing.power_cuts import SECTOR, CrashModel


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


def left_by(disk, work, most=10**6):
    """Do `work`, and return all that may be there after a cut right then: paths, and what is in files."""
    states(disk, model := CrashModel(disk), work)
    return {seen(disk) for acknowledged in model.leave_each(most) if acknowledged}


def states(disk, model, work):
    """Do `work` and acknowledge it, and bring the disk back to where it was."""
    before = CrashModel(disk)
    work(model)
    model.acknowledged = 1
    for _ in before.leave_each():
        pass


def seen(disk):
    there = sorted(path for path in disk.rglob("*") if not path.is_dir() or not any(path.iterdir()))
    return tuple((str(path.relative_to(disk)), None if path.is_dir() else path.read_bytes()) for path in there)


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


def test_an_exchange_is_there_or_not(disk):
    for name in "ab":
        (disk / name).mkdir()
        (disk / name / "x").write_bytes(name.encode())

    def work(files):
        files.exchange(str(disk / "a"), str(disk / "b"))

    assert left_by(disk, work) == {(("a/x", b"a"), ("b/x", b"b")), (("a/x", b"b"), ("b/x", b"a"))}


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


def test_names_of_one_file_stay_that_and_modes_times_and_symbolic_links_stay(disk):
    (disk / "a").mkdir(mode=0o750)
    (disk / "x").write_bytes(b"1")
    (disk / "x").chmod(0o640)
    (disk / "a/y").hardlink_to(disk / "x")
    (disk / "z").symlink_to("x")
    for number, path in enumerate([disk / "x", disk / "a"]):
        os.utime(path, ns=(5, 10**18 + number))

    def work(files):
        files.symlink("z", str(disk / "new"))

    states(disk, model := CrashModel(disk), work)
    links = []
    for _ in model.leave_each():
        facts = (disk / "x").stat()
        assert facts.st_ino == (disk / "a/y").stat().st_ino
        assert (facts.st_mode & 0o777, facts.st_mtime_ns) == (0o640, 10**18)
        facts = (disk / "a").stat()
        assert (facts.st_mode & 0o777, facts.st_mtime_ns) == (0o750, 10**18 + 1)
        links.append({path.name: str(path.readlink()) for path in disk.iterdir() if path.is_symlink()})
    assert sorted(links, key=len)[1:] == [{"z": "x"}, {"z": "x", "new": "z"}]  # the first has the time from before


def test_modes_and_times_that_are_set_are_there_until_it_is_changed(disk):
    def work(files):
        files.mkdir(str(disk / "a"))
        fd = files.open(str(disk / "a/x"), os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        files.fchmod(fd, 0o604)
        files.set_time(fd, 10**18)
        if written:
            files.write(fd, b"1")
            files.fsync(fd)
        files.close(fd)
        fd = files.open(str(disk / "a"), os.O_RDONLY)
        files.set_time(fd, 10**18)
        files.close(fd)
        for folder in (disk, disk / "a"):
            sync_folder(files, folder)

    for written in (False, True):
        states(disk, model := CrashModel(disk), work)
        assert next(model.leave_each()) == 1
        facts = (disk / "a/x").stat()
        assert facts.st_mode & 0o777 == 0o604
        assert (facts.st_mtime_ns == 10**18) is not written
        assert (disk / "a").stat().st_mtime_ns == 10**18
        assert list(model.leave_each())[-1] == 0
        assert seen(disk) == ()


def test_of_a_file_that_is_not_synced_any_sectors_are_there(disk):
    first, second = b"1" * SECTOR, b"2" * 100

    def work(files):
        create(files, disk / "x", first + second, sync=False)
        sync_folder(files, disk)

    wanted = {b"", first, bytes(SECTOR) + second, first + second}
    assert left_by(disk, work) == {(("x", content),) for content in wanted}


def test_changes_of_one_file_are_there_or_not_in_any_order(disk):
    (disk / "x").write_bytes(b"old")

    def work(files):
        fd = files.open(str(disk / "x"), os.O_RDWR)
        files.write_at(fd, b"NEW", 0)
        files.truncate(fd, 1)
        files.write_at(fd, b"!", 2)
        files.close(fd)

    wanted = set()
    for new, cut, more in itertools.product([False, True], repeat=3):
        content = b"NEW" if new else b"old"
        content = content[:1] if cut else content
        wanted.add((content[:2].ljust(2, b"\0") + b"!") if more else content)
    assert left_by(disk, work) == {(("x", content),) for content in wanted}


def test_what_is_appended_comes_after_what_there_is(disk):
    (disk / "x").write_bytes(b"old")

    def work(files):
        for _ in range(2):
            fd = files.open(str(disk / "x"), os.O_WRONLY | os.O_APPEND)
            files.write(fd, b"new")
            files.write(fd, b"er")
            files.fsync(fd)
            files.close(fd)

    assert left_by(disk, work) == {(("x", b"oldnewernewer"),)}


def test_each_cut_is_a_cut_at_a_call_and_what_was_synced_by_then_is_in_all_states(disk):
    """All states of all cuts, exactly: a file is written beside, synced, named, and its folder is synced."""
    (disk / "x").write_bytes(b"old")

    def work(files):
        create(files, disk / "y", b"new")
        files.rename(str(disk / "y"), str(disk / "x"))
        sync_folder(files, disk)

    states(disk, model := CrashModel(disk), work)
    left = [(acknowledged, seen(disk)) for acknowledged in model.leave_each()]
    old = ("x", b"old")
    assert left[0] == (1, (("x", b"new"),))
    assert set(left[1:]) == {(0, (old, ("y", b""))), (0, (old, ("y", b"new"))), (0, (old,))}


def test_when_there_are_too_many_states_some_of_them_are_tried_and_the_same_ones_each_time(disk):
    content = os.urandom(40 * SECTOR)

    def work(files):
        create(files, disk / "x", content, sync=False)

    states(disk, model := CrashModel(disk), work)
    tried = [[seen(disk) for _ in model.leave_each(100, seed)] for seed in (1, 1, 2)]
    assert tried[0] == tried[1] != tried[2]
    assert 90 < len(tried[0]) <= 200  # of the cuts before and after the write
    assert len(set(tried[0])) >= len(tried[0]) - 1  # one of them has the time from before
    assert {(), (("x", b""),), (("x", content),)} <= set(tried[0])  # with none and with all of it
    for state in tried[0]:
        for at in range(0, len(dict(state).get("x", b"")), SECTOR):
            sector = state[0][1][at : at + SECTOR]
            assert sector in (content[at : at + SECTOR], bytes(SECTOR))


def test_many_names_are_lost_in_any_way_and_kept_once_they_are_synced(disk):
    def work(files):
        for number in range(8):
            files.mkdir(str(disk / f"{number}"))
        sync_folder(files, disk)
        for number in range(8):
            create(files, disk / f"{number}" / "x")

    states(disk, model := CrashModel(disk), work)
    numbers = set()
    for acknowledged in model.leave_each(100):
        assert not acknowledged or len(list(disk.iterdir())) == 8
        numbers.add(len(list(disk.glob("*/x"))))
    assert len(numbers) > 5


def call_at_random(model, disk, rng, number):
    """Make a change of a random kind to a random file."""
    path = rng.choice([None, *(path for path in disk.rglob("*") if path.is_file())])
    folder, kind = rng.choice([disk, disk / "a"]), rng.randrange(10)
    if path is None or kind == 0:
        create(model, folder / f"{number}", b"1", sync=rng.random() < 0.5)
    elif kind == 1:
        sync_folder(model, folder)
    elif kind == 2:
        model.unlink(str(path))
    elif kind < 5:
        (model.rename if kind == 3 else model.link)(str(path), str(folder / f"{number}"))
    else:
        name, *arguments = [
            ("write_at", b"%d" % number, rng.randrange(3)),
            ("truncate", 1),
            ("fsync",),
            ("set_time", number),
            ("fchmod", 0o600 + number),
        ][kind - 5]
        fd = model.open(str(path), os.O_RDWR)
        getattr(model, name)(fd, *arguments)
        model.close(fd)


@pytest.mark.parametrize("seed", range(30))
def test_cuts_that_are_passed_over_leave_nothing_else(disk, seed):
    """A cut at a call is not looked at when one at a later call can leave all of it: that is true of any calls."""
    rng = random.Random(seed)
    (disk / "a").mkdir()
    (disk / "x").write_bytes(b"old")
    model = CrashModel(disk)
    for number in range(12):
        call_at_random(model, disk, rng, number)
    assert any(cut.contained for cut in model._cuts)
    found = [{state for state, _ in model.states(10**6)}]
    for cut in model._cuts:
        cut.contained = False
    found.append({state for state, _ in model.states(10**6)})
    assert found[0] == found[1]


def test_it_follows_threads_that_write_at_once(disk):
    model = CrashModel(disk)

    def work(name):
        for number in range(20):
            create(model, disk / f"{name}{number}", b"1")
        sync_folder(model, disk)

    threads = [threading.Thread(target=work, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    model.acknowledged = 1
    assert next(model.leave_each()) == 1
    assert [path for path, content in seen(disk) if content == b"1"] == sorted(
        f"{name}{number}" for name in "abc" for number in range(20)
    )


# Protocols that lack something are seen to lack it


class Replace(FromCopy):
    """A file is replaced by another, and a step is left out."""

    def __init__(self, place, without=None):
        super().__init__(place)
        self.path, self.without = self.folder / "x", without
        self.old, self.new = b"o" * 700, b"n" * 700
        self.path.write_bytes(self.old)
        self.keep()

    def do(self):
        files, temporary = current(), str(self.folder / atomic.temporary_name("x"))
        name_first = self.without == "order"
        fd = files.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        if name_first:
            files.rename(temporary, str(self.path))
        files.write(fd, self.new)
        if self.without != "sync of the file":
            files.fsync(fd)
        files.close(fd)
        if not name_first:
            files.rename(temporary, str(self.path))
        if self.without != "sync of the folder":
            sync_folder(files, self.folder)

    def do_again(self):
        self.do()
        atomic.remove_leftovers(self.folder)

    def check(self, *, done):
        found = self.path.read_bytes()
        assert found in ((self.new,) if done else (self.old, self.new)), f"{'lost' if found == self.old else 'torn'}"


def test_a_protocol_that_lacks_nothing_passes(tmp_path):
    assert cut_at_each(Replace(tmp_path), every=1) == 7  # old, with two times; beside it any of two sectors; new


@pytest.mark.parametrize(
    ("without", "what"), [("sync of the file", "torn"), ("sync of the folder", "lost"), ("order", "torn")]
)
def test_a_protocol_that_lacks_a_step_is_found_out(tmp_path, without, what):
    with pytest.raises(AssertionError, match=what) as caught:
        cut_at_each(Replace(tmp_path, without))
    assert "after a power cut, in state" in caught.value.__notes__[0]


def test_what_goes_on_wrongly_is_found_out(tmp_path):
    class Leaving(Replace):
        def do_again(self):
            self.do()

    with pytest.raises(AssertionError, match="left over"):
        cut_at_each(Leaving(tmp_path), every=1)


def test_a_call_that_fails_changes_nothing(disk):
    class Failing(PassingFiles):
        def rename(self, source, target):
            raise OSError(errno.EIO, "no")

    model = CrashModel(disk, Failing())
    with using(model):
        create(model, disk / "x")
        with pytest.raises(OSError, match="no"):
            model.rename(str(disk / "x"), str(disk / "y"))
    assert {path for _ in model.leave_each() for path, _ in seen(disk)} == {"x"}
