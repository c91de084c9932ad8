"""A check names exactly what is damaged, remembers what it has read, and what is damaged is written anew."""

import errno
import os
import random
import shutil
import subprocess
import sys
import threading

import pytest

from quantum_memory.durability import files
from quantum_memory.errors import InvalidStateError
from quantum_memory.lifecycle.backups.checks import Checks
from quantum_memory.testing.faults import PassingFiles

from ...reliability.figures import TIMES
from .damages import damaged_trees
from .folders import KEY, contents, flip, manager, pack_of, restorable, two_backups


@pytest.fixture(params=[None, KEY], ids=["plain", "sealed"])
def key(request):
    return request.param


@pytest.fixture
def made(tmp_path, key):
    return two_backups(tmp_path, random.Random(4), key)[0]


def test_exactly_what_is_damaged_is_found_and_all_else_restores(tmp_path):
    assert damaged_trees(tmp_path, 100 * TIMES) > 80 * TIMES


# --- depths


def test_what_is_whole_is_true_at_every_depth(made, key):
    with manager(made, key) as backups:
        for report in (backups.verify(depth="quick"), backups.verify(depth="sample", share=0.01), backups.verify()):
            assert report
            assert (report.damaged, report.others, report.files) == ([], {}, {})
        assert (report.chunks, report.nbytes) == (report.of_chunks, report.of_bytes)
        assert backups.verify(depth="quick").chunks == 0
        one, other = backups.folder.ids()
        assert backups.verify_backup(one).chunks < report.chunks
        assert list(backups.verify_backup(other).backups) == [other]
        for how in ({"share": 0}, {"share": 1.5}):
            with pytest.raises(InvalidStateError):
                backups.verify(depth="sample", **how)


def test_a_quick_check_sees_what_is_gone_and_a_full_one_what_is_damaged(made, key):
    pack = pack_of(made)
    flip(pack, 100)
    with manager(made, key) as backups:
        assert backups.verify(depth="quick")
        assert len(backups.verify().damaged) == 2
        assert backups.checker.verified() == set()
    pack.unlink()
    with manager(made, key) as backups:
        report = backups.verify(depth="quick")
        assert sorted(report.damaged) == sorted(backups.folder.ids())
        assert " gone" in next(iter(report.backups.values()))


@pytest.mark.parametrize(
    "name", ["config.json", "config-copy.json", "refs.json", "checks.json", "manifest", "copy", "list", "padding"]
)
def test_damage_beside_the_chunks_is_found(made, key, name):
    with manager(made, key) as backups:
        backups.verify()
    pack = pack_of(made)
    manifest = min((made / "backups").iterdir())
    path = {"manifest": manifest, "copy": pack.with_suffix(".qmindex"), "list": pack, "padding": pack}.get(
        name, made / name
    )
    if name == "padding":
        with manager(made, key) as backups, backups.folder.store.shared():
            places = backups.folder.store.chunks_of(pack.name).values()
            at = next(end for place in places if (end := place.offset + place.stored) % 64)
    else:
        at = {"copy": 70, "list": -70}.get(name, 30)
    flip(path, at)
    with manager(made, key) as backups:
        report = backups.verify()
        assert not report
        if name == "manifest":
            assert (report.damaged, report.others) == ([manifest.stem], {})
        else:
            assert (report.damaged, list(report.others)) == ([], [str(path.relative_to(made))])
        assert bool(backups.verify(depth="quick")) == (name in {"copy", "padding", "checks.json"})


def test_damage_of_chunks_that_nobody_needs_is_found_and_blames_no_backup(made, key):
    first, _ = sorted((made / "backups").iterdir())
    with manager(made, key) as backups, backups.folder.store.shared():
        only = (
            backups.folder.manifest(first.stem).chunks() - backups.folder.manifest(max(backups.folder.ids())).chunks()
        )
        pack, place = backups.folder.store.place(min(only))
    first.unlink()
    flip(made / "chunks" / pack, place.offset)
    with manager(made, key) as backups:
        report = backups.verify()
        assert (report.damaged, list(report.others)) == ([], [f"chunks/{pack}"])
        assert "elsewhere" in report.others[f"chunks/{pack}"]


def test_a_check_of_nothing_makes_nothing(tmp_path):
    with manager(tmp_path / "backups") as backups:
        for depth in ("quick", "sample", "full"):
            assert backups.verify(depth=depth)
    assert not (tmp_path / "backups").exists()


class ReadOnly(PassingFiles):
    """Writes nothing."""

    def open(self, path, flags, mode=0o666):
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), path)
        return super().open(path, flags, mode)


def test_a_folder_that_cannot_be_written_to_is_checked_all_the_same(made, key):
    before = contents(made)
    with files.using(ReadOnly()), manager(made, key) as backups:
        report = backups.verify()
        assert report
        assert report.chunks == report.of_chunks
    assert contents(made) == before


# --- samples


def test_samples_go_on_where_the_last_left_off_and_cover_every_byte_once_a_round(tmp_path, key):
    source = tmp_path / "source"
    source.mkdir()
    rng = random.Random(9)
    for number in range(60):
        (source / str(number)).write_bytes(rng.randbytes(rng.randrange(50, 2000)))
    with manager(tmp_path / "backups", key, durable=False) as backups:
        backups.create_backup(source)
    for _ in range(2):
        calls = chunks = nbytes = 0
        rounds = 0
        while not rounds:
            with manager(tmp_path / "backups", key, durable=False) as backups:  # as another process does it
                before = len(backups.checker.remembered().rounds)
                report = backups.verify(depth="sample", share=0.1)
                checks = backups.checker.remembered()
                rounds = len(checks.rounds) - before
                assert bool(checks.round_begun) == (not rounds)
            calls, chunks, nbytes = calls + 1, chunks + report.chunks, nbytes + report.nbytes
            assert report.nbytes < 0.1 * report.of_bytes + 2000
        assert calls <= 10
        assert (chunks, nbytes) == (report.of_chunks, report.of_bytes) == (60, report.of_bytes)


def test_samples_reach_all_that_was_there_while_backups_come_and_go(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    rng = random.Random(10)
    read, folder = [], tmp_path / "backups"

    def change(names):
        for name in names:
            (source / name).write_bytes(rng.randbytes(500))

    def sample():
        with manager(folder, durable=False, max_backups=None) as backups:
            wanted = backups.checker._read
            backups.checker._read = lambda names, *rest: (read.extend(names), wanted(names, *rest))[1]
            assert backups.verify(depth="sample", share=0.1)
            return len(backups.checker.remembered().rounds)

    change(map(str, range(30)))
    with manager(folder, durable=False, max_backups=None) as backups:
        ids = [backups.create_backup(source)]
        stay = backups.folder.manifest(ids[0]).chunks()
        backups.pin(ids[0])
    rounds = calls = 0
    while not rounds:
        rounds, calls = sample(), calls + 1
        with manager(folder, durable=False, max_backups=None) as backups:
            change([f"new-{calls}"])
            ids.append(backups.create_backup(source))
            if calls % 3 == 2:
                backups.delete_backup(ids.pop())
        assert calls < 30
    assert stay <= set(read)
    assert len(read) == len(set(read))


def test_a_round_ends_also_when_what_came_last_is_gone(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    with manager(tmp_path / "backups", durable=False, max_backups=None) as backups:
        names = {}
        for number in range(20):
            (source / "file").write_bytes(str(number).encode())
            one = backups.create_backup(source, reread=True)
            names[one] = min(backups.folder.manifest(one).chunks())
        backups.verify(depth="sample", share=0.5)
        cursor = backups.checker.remembered().cursor
        assert cursor
        for one, name in names.items():
            if name > cursor:
                backups.delete_backup(one)
        assert len(backups.checker.remembered().rounds) == 0
        backups.verify(depth="sample", share=0.5)
        assert len(backups.checker.remembered().rounds) == 1


# --- what is bad, and what is not


def test_what_is_bad_is_written_anew_by_the_next_backup_in_any_process(tmp_path, key):
    folder, source = two_backups(tmp_path, random.Random(4), key)
    whole = restorable(folder, key)
    flip(pack_of(folder), 100)
    with manager(folder, key) as backups:
        (bad,) = [paths for one, paths in backups.verify().files.items() if one == max(backups.folder.ids())]
        assert len(backups.checker.remembered().bad) == 1
    key_text = "None" if key is None else 'qm.Key(bytes(range(32)), "hkdf-sha256")'
    code = (
        "import sys, quantum_memory as qm\n"
        "from quantum_memory.lifecycle.backup_manager import BackupManager\n"
        "from quantum_memory.lifecycle.backups import saving\n"
        "import datetime\n"
        "saving._RACY = datetime.timedelta(days=-1)\n"  # nothing was touched, for all that stat says
        f"BackupManager(sys.argv[1], key={key_text}).create_backup(sys.argv[2])\n"
    )
    subprocess.run([sys.executable, "-c", code, folder, source], check=True)
    assert bad
    assert whole <= restorable(folder, key)
    with manager(folder, key) as backups:
        assert backups.checker.remembered().bad == set()  # so that it is not written again and again
        report = backups.verify()
        assert report.damaged == []
        assert len(report.others) == 1  # where the damaged one still is
        packs = len(list((folder / "chunks").glob("*.qmpack")))
        backups.create_backup(source)
        assert len(list((folder / "chunks").glob("*.qmpack"))) == packs
        backups.repair()
        assert backups.verify()


class FlipsOnce(PassingFiles):
    """Gives a bit of a file wrongly, the first few times that it is read."""

    def __init__(self, path, at, times=1):
        super().__init__()
        self.left = times
        self._path, self._at, self._fds = str(path), at, set()

    def open(self, path, flags, mode=0o666):
        fd = super().open(path, flags, mode)
        (self._fds.add if path == self._path else self._fds.discard)(fd)
        return fd

    def read_into(self, fd, buffer, offset):
        got = super().read_into(fd, buffer, offset)
        if fd in self._fds and offset <= self._at < offset + got and self.left > 0:
            self.left -= 1
            buffer[self._at - offset] ^= 1
        return got


class FailsOnce(FlipsOnce):
    """Fails to read a part of a file, the first time."""

    def read_into(self, fd, buffer, offset):
        if fd in self._fds and offset <= self._at < offset + len(buffer) and self.left > 0:
            self.left -= 1
            raise OSError(errno.EIO, "a moment's trouble")
        return PassingFiles.read_into(self, fd, buffer, offset)


@pytest.mark.parametrize("trouble", [FlipsOnce, FailsOnce])
def test_what_is_good_the_second_time_is_not_bad(made, key, trouble):
    with files.using(trouble(pack_of(made), 100)), manager(made, key) as backups:
        assert backups.verify()
        assert backups.checker.remembered().bad == set()
        assert len(backups.checker.verified()) == 2
    faulty = FlipsOnce(pack_of(made), 100, times=1000)
    with files.using(faulty), manager(made, key) as backups:
        assert len(backups.verify().damaged) == 2
    with manager(made, key) as backups:  # and what was called bad is not for ever
        assert len(backups.checker.remembered().bad) == 1
        assert backups.verify()
        assert backups.checker.remembered().bad == set()


def test_a_manifest_that_cannot_be_read_is_one_damaged_backup_and_not_the_end(made, key):
    first, last = sorted((made / "backups").iterdir())
    with files.using(FailsOnce(first, 20)), manager(made, key) as backups:
        report = backups.verify()
    assert report.damaged == [first.stem]
    assert report.backups[last.stem] is None


def test_what_is_remembered_is_lost_without_harm_and_two_who_remember_lose_nothing(made, key):
    with manager(made, key) as one, manager(made, key) as other:
        first, last = sorted(one.folder.ids())

        def change(checks):
            checks.verified[first] = "2026-01-01T00:00:00.000000Z"
            assert not other.checker.remembered().verified

        one.checker.remember(change)
        other.checker.read_whole(last)
        assert one.checker.verified() == {first, last}
        one.delete_backup(first)
        other.checker.read_whole(last)
        assert one.checker.verified() == {last}
        (made / "checks.json").write_bytes(b"{}")
        assert one.checker.remembered() == Checks()
        shutil.copyfile(made / "refs.json", made / "checks.json")
        assert one.checker.remembered() == Checks()
        assert one.verify_backup(last).others == {"checks.json": "it does not match its SHA-256"}
        assert one.verify()


def test_whoever_remembers_something_while_another_one_does_waits(made, key):
    with manager(made, key) as one, manager(made, key) as other:
        first, last = sorted(one.folder.ids())
        later = threading.Thread(target=other.checker.read_whole, args=[last])

        def change(checks):
            later.start()
            later.join(0.5)  # it ends within that, unless it waits
            checks.verified[first] = "2026-01-01T00:00:00.000000Z"

        one.checker.remember(change)
        later.join(60)
        assert one.checker.verified() == {first, last}


def test_a_tag_or_pin_of_a_backup_that_is_gone_is_found_and_repaired(made, key):
    with manager(made, key) as backups:
        one, other = backups.folder.ids()
        backups.tag(one, "paper")
        backups.pin(other)
        backups.pin(one)
        whole = {each: made / "backups" / f"{each}.qmbk" for each in (one, other)}
        aside = shutil.move(whole[one], made.parent / "aside")
        said = backups.verify().others["refs.json"]
        assert f"the tag 'paper' is of {one}, which is gone" in said
        assert f"{one} is pinned, and gone" in said
        assert other not in said
        # Where all are gone, they may be elsewhere, and come back.
        other_aside = shutil.move(whole[other], made.parent / "other aside")
        assert "refs.json" in backups.repair().left
        assert not backups.verify()
        shutil.move(other_aside, whole[other])
        shutil.move(aside, whole[one])
        assert backups.verify()
        assert backups.resolve("paper") == one
        whole[one].unlink()
        assert backups.repair().problems["refs.json"] == said
        assert backups.verify()
