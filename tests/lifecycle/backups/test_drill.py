"""A drill restores what chance picks, proves it equal, and leaves nothing behind."""

import os
import random
from pathlib import Path

import pytest

from quantum_memory.errors import IntegrityError, MissingError, MissingFileError
from quantum_memory.lifecycle.backups import drill as drills
from quantum_memory.lifecycle.backups.restoring import Restorer

from .folders import KEY, flip, grown, manager, pack_of, two_backups


@pytest.fixture(params=[None, KEY], ids=["plain", "sealed"])
def key(request):
    return request.param


@pytest.fixture
def at(tmp_path):
    (tmp_path / "drills").mkdir()
    return tmp_path / "drills"


def test_a_drill_reads_every_file_back_and_leaves_nothing(tmp_path, at, key):
    folder, _ = two_backups(tmp_path, random.Random(1), key)
    with manager(folder, key) as backups:
        done = backups.drill(at=at)
        known = backups.get_backup(done.backup)
        assert done
        assert (done.files, done.nbytes) == (known["files"], known["raw_bytes"])
        assert known["verified"]  # as every byte of it was read
        assert backups.folder.log()[-1]["action"] == "drilled"
    assert list(at.iterdir()) == []


def test_a_seed_picks_the_same_again_and_any_is_picked_by_some(tmp_path, at):
    folder, _ = two_backups(tmp_path, random.Random(1))
    with manager(folder, durable=False) as backups:
        picked = [backups.drill(at=at, seed=seed).backup for seed in range(8)]
        assert picked == [backups.drill(at=at, seed=seed).backup for seed in range(8)]
        assert set(picked) == set(backups.folder.ids())
        first = backups.drill(at=at)
        assert backups.drill(at=at, seed=first.seed).backup == first.backup
        assert [backups.drill(one, at=at).backup for one in sorted(backups.folder.ids())] == sorted(set(picked))


def old(source, monkeypatch):
    """Have all files count as being at rest, which they are only after two seconds."""
    import datetime

    from quantum_memory.lifecycle.backups import saving

    monkeypatch.setattr(saving, "_RACY", -datetime.timedelta(seconds=60))


def test_files_of_a_source_that_was_not_touched_are_compared_with_it(tmp_path, at, key, monkeypatch):
    source = grown(tmp_path / "source", random.Random(2))
    old(source, monkeypatch)
    with manager(tmp_path / "backups", key) as backups:
        one = backups.create_backup(source)
        count = backups.get_backup(one)["files"]
        assert backups.drill(at=at).compared == count
        (source / "file-0").write_bytes(b"new")  # what was changed since is not compared
        done = backups.drill(at=at)
        assert (bool(done), done.files, done.compared) == (True, count, count - 1)
        (source / "file-1").unlink()
        assert backups.drill(at=at).compared == count - 2


def test_a_source_that_rots_where_nobody_touched_it_is_said(tmp_path, at, monkeypatch):
    source = grown(tmp_path / "source", random.Random(2))
    old(source, monkeypatch)
    with manager(tmp_path / "backups") as backups:
        backups.create_backup(source)
        monkeypatch.setattr(drills, "_is_untouched", lambda path, entry: True)  # as a disk does it
        flip(source / "file-2", 0)
        done = backups.drill(at=at)
    assert list(done.problems) == ["file-2"]
    assert "differs from" in done.problems["file-2"]


def test_a_damaged_backup_fails_and_every_file_that_suffers_is_named(tmp_path, at, key):
    folder, _ = two_backups(tmp_path, random.Random(1), key)
    flip(pack_of(folder), 100)
    with manager(folder, key) as backups:
        report = backups.verify()
        for one, paths in report.files.items():
            done = backups.drill(one, at=at)
            assert not done
            assert set(done.problems) - {""} == set(paths)
            assert backups.folder.log()[-1]["problems"]
    assert list(at.iterdir()) == []


@pytest.mark.parametrize("what", ["bytes", "longer", "shorter", "mode", "time", "link", "kind", "more", "less"])
def test_what_restores_wrongly_is_found(tmp_path, at, monkeypatch, what):
    folder, _ = two_backups(tmp_path, random.Random(1))
    restore = Restorer.restore

    def spoilt(self, target, **how):
        done, top = restore(self, target, **how), Path(target)
        path = top / "file-0"
        data, times = bytearray(path.read_bytes()), path.stat().st_mtime_ns
        if what == "bytes":
            data[-1] ^= 1
        elif what == "longer":
            data += b"x"
        elif what == "shorter":
            del data[-1]
        path.write_bytes(data)
        if what == "mode":
            path.chmod(0o777)
        os.utime(path, ns=(times, times + (what == "time")))
        if what in {"link", "kind", "less"}:
            (gone := top / "link" if what == "link" else path).unlink()
            if what != "less":
                gone.symlink_to("file-1")
        elif what == "more":
            (top / "sub" / "empty" / "more").mkdir()
        return done

    monkeypatch.setattr(Restorer, "restore", spoilt)
    with manager(folder) as backups:
        done = backups.drill(at=at)
    where = {"link": "link", "more": "sub/empty/more"}.get(what, "file-0")
    assert where in done.problems
    # A name that comes or goes changes the time of its folder as well.
    assert set(done.problems) <= {where, "", "sub/empty"}
    assert list(at.iterdir()) == []


def test_folders_that_nobody_may_write_to_are_removed_as_well(tmp_path, at):
    source = tmp_path / "source"
    (source / "a" / "b").mkdir(parents=True)
    (source / "a" / "b" / "file").write_bytes(b"x")
    (source / "a" / "b").chmod(0o500)
    (source / "a").chmod(0o500)
    with manager(tmp_path / "backups") as backups:
        backups.create_backup(source)
        assert backups.drill(at=at)
    assert list(at.iterdir()) == []
    (source / "a").chmod(0o700)


def test_an_interrupt_leaves_nothing_behind(tmp_path, at):
    folder, _ = two_backups(tmp_path, random.Random(1))

    def interrupt(nbytes):
        raise KeyboardInterrupt

    with manager(folder) as backups, pytest.raises(KeyboardInterrupt):
        backups.drill(at=at, progress=interrupt)
    assert list(at.iterdir()) == []


def test_a_file_alone_is_drilled_and_progress_is_of_both_ways(tmp_path, at, key):
    (tmp_path / "state.qms").write_bytes(bytes(range(256)) * 100)
    parts = []
    with manager(tmp_path / "backups", key) as backups:
        backups.create_backup(tmp_path / "state.qms")
        assert backups.drill(progress=parts.append)
    assert sum(parts) == 2 * 25600


def test_there_has_to_be_something_and_somewhere(tmp_path):
    with manager(tmp_path / "backups") as backups:
        with pytest.raises(MissingError, match="no backup yet"):
            backups.drill()
        assert not (tmp_path / "backups").exists()
        (tmp_path / "file").write_bytes(b"x")
        one = backups.create_backup(tmp_path / "file")
        with pytest.raises(MissingFileError, match="no such folder"):
            backups.drill(at=tmp_path / "nowhere")
        flip(tmp_path / "backups" / "backups" / f"{one}.qmbk", 40)
        with pytest.raises(IntegrityError):
            backups.drill()
