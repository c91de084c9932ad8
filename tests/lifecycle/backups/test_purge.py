"""What was purged is in no file of the folders any more, and all else is; what was not reached is said."""

import json
from pathlib import Path

import numpy as np
import pytest

import quantum_memory as qm
from quantum_memory.durability.files import ReadableFile
from quantum_memory.durability.pack import read_index
from quantum_memory.errors import InvalidStateError, MissingFileError, WrongKeyError
from quantum_memory.lifecycle.backup_manager import BackupManager
from quantum_memory.lifecycle.checkpoint_manager import CheckpointManager
from quantum_memory.lifecycle.purging import DISK, purge


def noise(seed, count=600):
    state = np.random.default_rng(seed).normal(size=count)
    return np.ascontiguousarray(state)


def secret():
    return qm.MemoryState(classical={"weights": noise(1), "shared": noise(9, 20_000)}, metadata={"of": "somebody"})


def harmless(number=0):
    return qm.MemoryState(classical={"weights": noise(2 + number), "shared": noise(9, 20_000)})


NEEDLE = noise(1).tobytes()[800:864]
SHARED = noise(9).tobytes()[800:864]
"""Bytes of what is purged, and of what it shares with what is not; nothing packs them."""


def holds(top, needle=NEEDLE):
    """Paths of the files in a folder in which some bytes are."""
    return [path for path in Path(top).rglob("*") if path.is_file() and needle in path.read_bytes()]


def backups(at, **options):
    return BackupManager(at, **{"compression": False, "durable": False, **options})


def checkpoints(at, **options):
    return CheckpointManager(at, **{"signals": False, "durable": False, "max_checkpoints": None, **options})


@pytest.fixture
def tree(tmp_path):
    top = tmp_path / "tree"
    (top / "in").mkdir(parents=True)
    qm.save(secret(), top / "secret.qms", compression="none")
    qm.save(harmless(), top / "in" / "harmless.qms", compression="none")
    (top / "note.txt").write_text("nothing")
    return top


def both(what, of, **options):
    """Purge, and see that a dry run has said just that, and changed nothing."""
    tops = [manager.folder.path for several in of.values() for manager in several]
    then = [{path: path.read_bytes() for path in Path(top).rglob("*") if path.is_file()} for top in tops]
    said = purge(what, **of, **options, dry_run=True).to_dict()
    assert then == [{path: path.read_bytes() for path in Path(top).rglob("*") if path.is_file()} for top in tops]
    done = purge(what, **of, **options)
    assert {**said, "dry_run": False} == done.to_dict()
    assert json.dumps(said)
    assert done.unreached[-1] == DISK
    return done


# Checkpoints


def test_every_checkpoint_of_a_content_goes_and_no_chunk_of_it_stays(tmp_path):
    with checkpoints(tmp_path / "run") as manager:
        first = manager.create_checkpoint(secret(), "first")
        kept = manager.create_checkpoint(harmless(), "kept")
        again = manager.create_checkpoint(secret(), "again")
        manager.tag(first, "paper")
        manager.pin(again)
        manager.export_checkpoint(first, tmp_path / "out.qms")
        content = manager.get_checkpoint(first)["content_id"]
        assert holds(tmp_path / "run")
        done = both(content, {"checkpoints": [manager]})
        assert [(one["id"], one["tags"], one["pinned"]) for one in done.checkpoints] == [
            (first, ["paper"], False), (again, [], True),
        ]  # fmt: skip
        assert not holds(tmp_path / "run")
        assert (done.chunks, done.shared) == (1, 1)
        assert done.nbytes == noise(1).nbytes
        assert manager.verify() == {kept: None}
        assert manager.restore(kept) == harmless()
        assert manager.folder.refs().tags == {}
        assert manager.folder.refs().pins == set()
        assert f"what was exported to {tmp_path / 'out.qms'}, which is still there" in done.unreached
        new = manager.create_checkpoint(harmless(1))
        assert manager.get_checkpoint(new)["parent"] == kept
        (tmp_path / "out.qms").unlink()
        done = both(content, {"checkpoints": [manager]})
        assert (done.checkpoints, done.chunks) == ([], 0)
        assert f"what was exported to {tmp_path / 'out.qms'}, which is there no more" in done.unreached


def test_a_pack_is_written_anew_however_little_goes(tmp_path):
    """One small chunk goes of a pack of many, which the collection would otherwise leave there."""
    with checkpoints(tmp_path / "run") as manager:
        one = manager.create_checkpoint({"secret": noise(1), "shared": noise(9, 140_000)})
        manager.create_checkpoint({"shared": noise(9, 140_000)})
        (pack,) = (tmp_path / "run" / "chunks").glob("*.qmpack")
        purge(manager.get_checkpoint(one)["content_id"], checkpoints=[manager])
        (new,) = (tmp_path / "run" / "chunks").glob("*.qmpack")
    assert new != pack
    with ReadableFile(str(new)) as source:
        assert len(read_index(source)) == 2
    assert not holds(tmp_path / "run")
    assert holds(tmp_path / "run", SHARED)


def test_what_is_damaged_is_said_and_keeps_the_chunks(tmp_path):
    with checkpoints(tmp_path / "run") as manager:
        one = manager.create_checkpoint(secret())
        bad = manager.create_checkpoint(harmless())
        content = manager.get_checkpoint(one)["content_id"]
    manifest = tmp_path / "run" / "checkpoints" / f"{bad}.qmcp"
    whole = manifest.read_bytes()
    manifest.write_bytes(whole[:-1])
    with checkpoints(tmp_path / "run") as manager:
        done = both(content, {"checkpoints": [manager]})
        assert [one["id"] for one in done.checkpoints] == [one["id"] for one in done.checkpoints]
        assert done.chunks == 0
        assert any(said.startswith(f"the damaged checkpoint {bad}") for said in done.unreached)
        assert any("none of which goes before this is mended" in said for said in done.unreached)
        assert holds(tmp_path / "run")
        manifest.write_bytes(whole)
        done = both(content, {"checkpoints": [manager]})
        assert (done.checkpoints, done.chunks) == ([], 1)
        assert not holds(tmp_path / "run")
        assert manager.verify() == {bad: None}


def test_a_pack_that_cannot_be_written_anew_is_named(tmp_path):
    with checkpoints(tmp_path / "run") as manager:
        one = manager.create_checkpoint({"secret": noise(1), "shared": noise(9, 3000)})
        manager.create_checkpoint({"shared": noise(9, 3000)})
        content = manager.get_checkpoint(one)["content_id"]
    (pack,) = (tmp_path / "run" / "chunks").glob("*.qmpack")
    data = bytearray(pack.read_bytes())
    data[data.index(SHARED)] ^= 1
    pack.write_bytes(data)
    with checkpoints(tmp_path / "run") as manager:
        done = both(content, {"checkpoints": [manager]})
    assert done.chunks == 0
    assert f"the pack {pack}, which is damaged and has what others need" in done.unreached
    assert holds(tmp_path / "run") == [pack]


# Backups


@pytest.mark.parametrize("encrypted", [False, True])
def test_backups_go_on_without_the_file(tmp_path, tree, encrypted):
    key = qm.Key.new_file(tmp_path / "key") if encrypted else None
    with backups(tmp_path / "b", key=key) as manager:
        first = manager.create_backup(tree, "the first", tags=["good"])
        alone = manager.create_backup(tree / "secret.qms", tags=["mine"])
        qm.save(secret(), tree / "in" / "copy.npz")
        second = manager.create_backup(tree)
        kept = manager.create_backup(tree / "in" / "harmless.qms")
        manager.pin(second)
        manager.export_backup(first, tmp_path / "x.qmb")
        manager.restore_backup(alone, tmp_path / "restored.qms")
        done = both(tree / "secret.qms", {"backups": [manager]})
        assert done.content_id == qm.info(tree / "secret.qms")["content_id"]
        assert [(one["id"], one["files"], one["tags"], one["pinned"]) for one in done.backups] == [
            (first, ["secret.qms"], ["good"], False),
            (alone, ["secret.qms"], ["mine"], False),
            (second, ["in/copy.npz", "secret.qms"], [], True),
        ]
        new = {one["id"]: one["becomes"] for one in done.backups}
        assert new[alone] is None
        listed = {one["id"]: one for one in manager.list_backups()}
        assert set(listed) == {new[first], new[second], kept}
        assert (listed[new[first]]["tags"], listed[new[second]]["pinned"]) == (["good"], True)
        assert listed[new[first]]["description"] == "the first [without 1 purged]"
        assert (listed[new[first]]["files"], listed[new[second]]["number"]) == (2, 3)
        assert manager.verify()
        manager.restore_backup("good", tmp_path / "out")
        assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["in", "note.txt"]
        assert qm.load(tmp_path / "out" / "in" / "harmless.qms") == harmless()
        for expected in (
            f"what was exported to {tmp_path / 'x.qmb'}, which is still there",
            f"what was restored to {tmp_path / 'restored.qms'}, which is still there",
            f"{tree / 'in' / 'copy.npz'}, which backups were made of",
            f"the file itself, {tree / 'secret.qms'}: remove it when you need it no more",
        ):
            assert expected in done.unreached
        again = both(tree / "secret.qms", {"backups": [manager]})
        assert (again.backups, again.chunks) == ([], 0)
    assert not holds(tmp_path / "b")
    assert bool(holds(tmp_path / "b", SHARED)) is not encrypted


def test_the_same_content_goes_in_any_format_and_by_its_id(tmp_path, tree):
    key = qm.Key.new_file(tmp_path / "key")
    for suffix in ("h5", "json", "msgpack", "npz", "pkl", "b64"):
        qm.save(qm.MemoryState(classical=[1, noise(1)]), tree / f"other.{suffix}")
    content = qm.save(qm.MemoryState(classical=[1, noise(1)]), tree / "sealed.qms", encrypt=key).content_id
    with backups(tmp_path / "b") as manager:
        manager.create_backup(tree)
        done = both(content, {"backups": [manager]})
        (one,) = done.backups
        assert [Path(path).suffix for path in one["files"]] == [".b64", ".h5", ".json", ".msgpack", ".npz", ".pkl"]
        (unknown,) = [said for said in done.unreached if "encrypted" in said]
        assert unknown.startswith("sealed.qms in the backup")
        done = both(content, {"backups": [manager]}, key=key)
        assert [one["files"] for one in done.backups] == [["sealed.qms"]]
        (one,) = manager.list_backups()
        assert one["description"] == "[without 6 purged] [without 1 purged]"
        assert one["files"] == 3
        assert manager.verify()


def test_what_is_no_state_goes_by_its_bytes(tmp_path, tree):
    (tree / "in" / "the same").write_text("nothing")
    with backups(tmp_path / "b") as manager:
        manager.create_backup(tree)
        done = both(tree / "note.txt", {"backups": [manager]})
        assert done.content_id is None
        assert [one["files"] for one in done.backups] == [["in/the same", "note.txt"]]
        assert any("has no content_id" in said for said in done.unreached)
        (tree / "empty").write_bytes(b"")
        manager.create_backup(tree)
        assert both(tree / "empty", {"backups": [manager]}).backups == []
        (tree / "bad.qms").write_bytes((tree / "secret.qms").read_bytes()[:-100])
        manager.create_backup(tree)
        done = both(tree / "bad.qms", {"backups": [manager]})
        assert [one["files"] for one in done.backups] == [["bad.qms"]]
        assert any(said.startswith("copies of it in other formats") for said in done.unreached)


def test_what_holds_it_among_others_is_said_and_stays(tmp_path, tree):
    store = qm.HDF5QuantumStorage(tree / "store.h5", durable=False)
    for memory in (secret(), harmless()):
        store.save_quantum_state(memory)
    with checkpoints(tree / "run") as manager:
        inside = manager.create_checkpoint(secret())
    with backups(tree / "older") as manager:
        manager.create_backup(tree / "secret.qms")
    with backups(tmp_path / "b") as manager:
        one = manager.create_backup(tree)
        done = both(tree / "secret.qms", {"backups": [manager]})
        assert [one["files"] for one in done.backups] == [["secret.qms"]]
        named = [said.partition(" in the backup ")[0] for said in done.unreached if f"in the backup {one}" in said]
        assert f"run/checkpoints/{inside}.qmcp" in named
        assert "store.h5" in named
        assert any(name.startswith("older/backups/") for name in named)
        with pytest.raises(InvalidStateError, match="several states"):
            purge(tree / "store.h5", backups=[manager])


def test_a_backup_that_cannot_be_read_is_said(tmp_path, tree):
    with backups(tmp_path / "b") as manager:
        one = manager.create_backup(tree)
        other = manager.create_backup(tree / "in")
    (tmp_path / "b" / "backups" / f"{other}.qmbk").write_bytes(b"")
    with backups(tmp_path / "b") as manager:
        done = both(tree / "secret.qms", {"backups": [manager]})
        assert [one["id"] for one in done.backups] == [one]
        assert any(said.startswith(f"the damaged backup {other}") for said in done.unreached)
        assert holds(tmp_path / "b")
        manager.delete_backup(other)
        purge(tree / "secret.qms", backups=[manager])
        assert not holds(tmp_path / "b")
        assert manager.verify()


def test_files_of_other_programs_are_not_spoken_of(tmp_path, tree):
    (tree / "package.json").write_text('{"name": "something else"}')
    np.savez(tree / "arrays.npz", a=noise(3))
    (tree / "notes.pkl").write_bytes(b"no pickle")
    with backups(tmp_path / "b") as manager:
        manager.create_backup(tree)
        done = both(tree / "secret.qms", {"backups": [manager]})
        assert len(done.backups) == 1
        assert not [said for said in done.unreached if "in the backup" in said]


def test_several_folders_are_purged_and_none_is_made(tmp_path, tree):
    with (
        backups(tmp_path / "a") as a, backups(tmp_path / "b") as b, backups(tmp_path / "none") as none,
        checkpoints(tmp_path / "run") as run, checkpoints(tmp_path / "no run") as no_run,
    ):  # fmt: skip
        a.create_backup(tree)
        b.create_backup(tree / "secret.qms")
        run.create_checkpoint(secret())
        done = both(tree / "secret.qms", {"backups": [a, b, none], "checkpoints": [run, no_run]})
        assert [Path(one["folder"]).name for one in [*done.checkpoints, *done.backups]] == ["run", "a", "b"]
        assert not [path for top in ("a", "b", "run") for path in holds(tmp_path / top)]
        assert b.list_backups() == []
        assert b.verify()
    assert not (tmp_path / "none").exists()
    assert not (tmp_path / "no run").exists()


def test_what_is_none_is_refused(tmp_path, tree):
    key = qm.Key.new_file(tmp_path / "key")
    qm.save(secret(), tree / "sealed.qms", encrypt=key)
    with backups(tmp_path / "b", key=key) as manager:
        manager.create_backup(tree)
    with backups(tmp_path / "b") as manager:
        with pytest.raises(MissingFileError):
            purge(tree / "no such", backups=[manager])
        with pytest.raises(WrongKeyError):
            purge(tree / "sealed.qms", backups=[manager])
        with pytest.raises(WrongKeyError):
            purge(tree / "secret.qms", backups=[manager])


# Whatever fails
