"""What is restored takes its place in one step, and what was there is kept."""

import os
import shutil
from pathlib import Path

import pytest

from quantum_memory.durability.atomic import temporary_name
from quantum_memory.errors import ConflictError, IntegrityError, InvalidStateError, UnsafeError
from quantum_memory.lifecycle.backups import restoring
from quantum_memory.lifecycle.checkpoint_manager import CheckpointManager

from .trees import looked_at, manager, seen


@pytest.fixture
def tree(tmp_path):
    tree = tmp_path / "tree"
    (tree / "inner").mkdir(parents=True)
    (tree / "a").write_bytes(b"a" * 3000)
    (tree / "inner" / "b").write_bytes(bytes(range(256)) * 300)
    return tree


def damaged(place, content):
    """Change bytes of a chunk that is stored as it is."""
    for pack in (place / "backups" / "chunks").glob("*.qmpack"):
        raw = pack.read_bytes()
        if content in raw:
            pack.write_bytes(raw.replace(content, content.swapcase()))
            return
    raise AssertionError("it is in none")


def test_what_was_there_is_kept_each_time_under_a_name_of_its_own(tmp_path, tree):
    with manager(tmp_path) as bm:
        one = bm.create_backup(tree)
        before, kept = looked_at(tree), set()
        for k in range(3):
            (tree / "mine").write_bytes(b"%d" % k)
            done = bm.restore_backup(one)
            assert looked_at(tree) == before
            kept.add(done.replaced)
            assert (Path(done.replaced) / "mine").read_bytes() == b"%d" % k
        assert len(kept) == 3


@pytest.mark.parametrize("name", ["x" * 255, "é" * 127, b"\xff".decode(errors="surrogateescape") * 255])
def test_names_as_long_as_they_can_be(tmp_path, tree, name):
    with manager(tmp_path) as bm:
        one = bm.create_backup(tree)
        for _ in range(3):
            done = bm.restore_backup(one, tmp_path / name)
            assert looked_at(tmp_path / name) == looked_at(tree)
        assert looked_at(done.replaced) == looked_at(tree)
        other = bm.create_backup(tmp_path / name / "a")
        bm.restore_backup(other, tmp_path / name / ("y" * 255))


def test_what_is_damaged_replaces_nothing(tmp_path, tree):
    (tree / "z").write_bytes(b"zzzz" * 1000)
    with manager(tmp_path, compression=False) as bm:
        one, other = bm.create_backup(tree), bm.create_backup(tree / "z")
        damaged(tmp_path, b"zzzz" * 1000)
        before = seen(tree)
        for backup in (one, other):
            with pytest.raises(IntegrityError, match="cannot be restored"):
                bm.restore_backup(backup, backup_first=False)
            assert seen(tree) == before
            assert {at.name for at in tmp_path.iterdir()} == {"tree", "backups"}
        done = bm.restore_backup(one, tmp_path / "again", salvage=True)
        assert [path for path, _ in done.left_out] == ["z"]
        assert {at.name for at in (tmp_path / "again").iterdir()} == {"a", "inner"}


def test_what_stands_in_the_way(tmp_path, tree):
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "link").symlink_to("tree")
    (tmp_path / "empty").mkdir()
    os.mkfifo(tmp_path / "pipe")
    with manager(tmp_path) as bm:
        one, other = bm.create_backup(tree), bm.create_backup(tmp_path / "file")
        for target in ("file", "link", "pipe"):
            with pytest.raises(ConflictError):
                bm.restore_backup(one, tmp_path / target)
        with pytest.raises(ConflictError):
            bm.restore_backup(other, tree)
        with pytest.raises(UnsafeError):
            bm.restore_backup(other, tmp_path / "pipe")
        with pytest.raises(ConflictError):
            bm.restore_backup(one, tree, overwrite=False)
        bm.restore_backup(one, tmp_path / "empty", overwrite=False)
        for backup in (one, other):
            with pytest.raises(InvalidStateError):
                bm.restore_backup(backup, f"{tmp_path}/a\0b")
        bm.restore_backup(other, tmp_path / "nowhere" / "at all" / "file")
        assert (tmp_path / "nowhere" / "at all" / "file").read_bytes() == b"x"


def test_a_file_that_is_reached_by_a_link_is_replaced_and_the_link_stays(tmp_path):
    (tmp_path / "file").write_bytes(b"x")
    with manager(tmp_path) as bm:
        one = bm.create_backup(tmp_path / "file")
        (tmp_path / "file").write_bytes(b"y")
        (tmp_path / "link").symlink_to("file")
        bm.restore_backup(one, tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "file").read_bytes() == b"x"


def test_the_backups_are_not_moved_aside_with_what_they_are_in(tmp_path, tree):
    with manager(tree) as bm:
        one = bm.create_backup(tree)
        other = bm.create_backup(tree / "a")
        for backup, target in ((one, tree), (one, tree / "backups"), (other, tree / "backups" / "new")):
            with pytest.raises(ConflictError, match="in the way"):
                bm.restore_backup(backup, target)
        with pytest.raises(ConflictError):
            bm.restore_backup(other, tree / "backups" / "lock")
        (tmp_path / "by another name").symlink_to("tree")
        with pytest.raises(ConflictError):
            bm.restore_backup(one, tmp_path / "by another name")
        bm.restore_backup(one, tmp_path / "beside")
        assert bm.verify()
    assert (tmp_path / "beside" / "a").read_bytes() == b"a" * 3000


def test_nobody_saves_into_what_is_about_to_go(tmp_path):
    run = tmp_path / "run"
    with CheckpointManager(run, signals=False, durable=False) as cm, manager(tmp_path) as bm:
        cm.create_checkpoint({"k": 1}, progress=1)
        one = bm.create_backup(run)
        cm.create_checkpoint({"k": 2}, progress=2)
        done = bm.restore_backup(one)
        assert cm.resume().progress == 1  # who has it open goes on in the new one
        cm.create_checkpoint({"k": 3}, progress=3)
    with CheckpointManager(done.replaced, signals=False, durable=False) as cm:
        assert cm.resume().progress == 2
        assert set(cm.verify().values()) == {None}


def test_leftovers_of_restores_that_were_killed_go_and_those_that_are_under_way_stay(tmp_path, tree):
    with manager(tmp_path) as bm:
        one = bm.create_backup(tree)
        for target in ("out", "x" * 255):
            dead = tmp_path / temporary_name(target)
            deep = dead
            for _ in range(300):
                deep = deep / "d"
            deep.mkdir(parents=True)
            (deep / "file").write_bytes(b"x")
            (dead / "d").chmod(0o500)
            _, fd = restoring._staged(restoring.current(), str(tmp_path / target))
            living = {entry.name for entry in tmp_path.iterdir() if entry.name.endswith(".qmtmp")} - {dead.name}
            assert len(living) == 1
            bm.restore_backup(one, tmp_path / target)
            assert {entry.name for entry in tmp_path.iterdir() if entry.name.endswith(".qmtmp")} == living
            os.close(fd)
            bm.restore_backup(one, tmp_path / target)
            assert [entry for entry in tmp_path.iterdir() if entry.name.endswith(".qmtmp")] == []


def test_a_folder_of_somebody_else_that_looks_like_a_leftover_is_not_followed(tmp_path, tree):
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").write_bytes(b"x")
    (tmp_path / temporary_name("out")).symlink_to("precious")
    (tmp_path / temporary_name("out")).write_bytes(b"a file")
    with manager(tmp_path) as bm:
        bm.restore_backup(bm.create_backup(tree), tmp_path / "out")
    assert (tmp_path / "precious" / "file").read_bytes() == b"x"


def test_an_imported_backup_makes_no_link_that_leads_out_and_does_not_say_where_it_goes(tmp_path, tree):
    for name, target in {
        "in": "inner/b",
        "up": "inner/../a",
        "out": "../x",
        "away": "/etc",
        "far": "inner/../../x",
    }.items():
        (tree / name).symlink_to(target)
    (tree / "inner" / "up").symlink_to("../a")
    with manager(tmp_path) as bm:
        one = bm.create_backup(tree)
        bm.export_backup(one, tmp_path / "file.qmbx")
    shutil.rmtree(tmp_path / "backups")
    with manager(tmp_path) as bm:
        (there,) = bm.import_backup(tmp_path / "file.qmbx")
        with pytest.raises(ConflictError):
            bm.restore_backup(there)
        done = bm.restore_backup(there, tmp_path / "again")
    assert {path for path, _ in done.left_out} == {"out", "away", "far"}
    assert {path for path in looked_at(tmp_path / "again") if b"up" in path or path == b"in"} == {
        b"in",
        b"up",
        b"inner/up",
    }
