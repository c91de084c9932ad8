"""Folders of backups, and sources, that somebody has prepared."""

import contextlib
import json
import os
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest

import quantum_memory as qm
from quantum_memory.durability import pack
from quantum_memory.durability.files import ReadableFile
from quantum_memory.errors import (
    ConflictError,
    IntegrityError,
    QuantumMemoryError,
    StorageError,
    UnsafeError,
    WrongKeyError,
)
from quantum_memory.lifecycle.backups import config as configs
from quantum_memory.lifecycle.backups import manifest as manifests
from quantum_memory.lifecycle.backups import restoring
from quantum_memory.lifecycle.repository import manifest_file

from .trees import looked_at, manager

KEY = qm.Key(bytes(range(32)), "hkdf-sha256")
OTHER = qm.Key(bytes(range(1, 33)), "hkdf-sha256")
KEYS = pytest.mark.parametrize("key", [None, KEY], ids=["plain", "encrypted"])


@pytest.fixture
def tree(tmp_path):
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "a").write_bytes(b"the first" * 300)
    (tree / "b").write_bytes(b"and other" * 300)
    return tree


def backed_up(place, tree, key=None):
    with manager(place, key=key) as bm:
        return bm.create_backup(tree)


def rewritten(place, one, chunks):
    """Give a manifest other chunks, and make all of its checksums right again."""
    path = place / "backups" / "backups" / f"{one}.qmbk"
    with ReadableFile(str(path)) as source:
        head, body = manifest_file.read_whole(source, manifests.KIND)
    names = bytes(body.chunks)
    path.write_bytes(manifest_file.written(manifests.KIND, head, bytes(body.packed), body.text_bytes, chunks(names)))


@KEYS
def test_chunks_that_were_exchanged_between_files(tmp_path, tree, key):
    one = backed_up(tmp_path, tree, key)
    rewritten(tmp_path, one, lambda names: names[32:64] + names[:32])
    with manager(tmp_path, key=key) as bm:
        assert bm.verify().damaged == [one]
        with pytest.raises(IntegrityError, match="other chunks"):
            bm.restore_backup(one, tmp_path / "again")
        assert str(bm.repair().to_dict()).count("other chunks")
        assert bm.list_backups() == []  # what is left of it is not taken for a backup
    assert not (tmp_path / "again").exists()


@KEYS
def test_chunks_that_were_exchanged_in_the_pack(tmp_path, tree, key):
    """With all checksums of the pack made right: without a key the name tells, with one the seal as well."""
    one = backed_up(tmp_path, tree, key)
    with manager(tmp_path, key=key) as bm, bm.held():
        store = bm.folder.store
        (name,) = store.packs
        chunks = dict(store.chunks_of(name))
        raw = bytearray(store.map(name))
        (first, p), (second, q) = chunks.items()
        p, q = p._replace(offset=q.offset), q._replace(offset=p.offset)
        stored = {k: bytes(raw[at.offset : at.offset + at.stored]) for k, at in chunks.items()}
        del p, q
    made, at = {}, pack.HEADER_BYTES
    data = bytearray(pack.header())
    for mine, others in ((first, second), (second, first)):
        content = stored[others]
        made[mine] = chunks[others]._replace(offset=at, check=pack.checksum(content))
        data += content
        at = pack.aligned(len(data))
        data += bytes(at - len(data))
    listed = pack.index(made)
    (path,) = (tmp_path / "backups" / "chunks").glob("*.qmpack")
    path.write_bytes(bytes(data) + listed + pack.trailer(listed, at))
    path.with_suffix(".qmindex").unlink()
    with manager(tmp_path, key=key) as bm:
        report = bm.verify()
        assert report.files[one] == ["a", "b"]
        with pytest.raises(IntegrityError):
            bm.restore_backup(one, tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_a_plain_config_in_the_place_of_the_encrypted_one(tmp_path, tree):
    one = backed_up(tmp_path, tree, KEY)
    folder = tmp_path / "backups"
    configs.write_config(str(folder), configs.new_config(None))
    with manager(tmp_path, key=KEY) as bm:
        for work in (bm.list_backups, lambda: bm.create_backup(tree), lambda: bm.restore_backup(one, tmp_path / "x")):
            with pytest.raises(ConflictError, match="not encrypted"):
                work()
    with manager(tmp_path) as bm:  # whoever gives no key is told of damage, and shown nothing
        assert bm.list_backups() == []
        assert bm.verify().damaged == [one]


@pytest.mark.parametrize("names", [["config.json"], ["config-copy.json"], ["config.json", "config-copy.json"]], ids=str)
@KEYS
def test_a_config_that_is_gone(tmp_path, tree, key, names):
    one = backed_up(tmp_path, tree, key)
    for name in names:
        (tmp_path / "backups" / name).unlink()
    with manager(tmp_path, key=key) as bm:
        if len(names) == 1:
            assert [known["id"] for known in bm.list_backups()] == [one]
            bm.restore_backup(one, tmp_path / "again")
            return
        for work in (bm.list_backups, bm.verify, lambda: bm.create_backup(tree)):
            with pytest.raises(IntegrityError, match=r"config\.json is gone"):
                work()
    assert not (tmp_path / "backups" / "config.json").exists()


@pytest.mark.parametrize("key", [None, OTHER], ids=["none", "another"])
def test_a_key_that_is_not_the_one(tmp_path, tree, key):
    """Nothing is listed as if it were empty or damaged, nothing is removed, nothing is said of what is there."""
    backed_up(tmp_path, tree, KEY)
    before = looked_at(tmp_path / "backups")
    with manager(tmp_path, key=key) as bm:
        for work in (
            bm.list_backups, bm.verify, bm.prune, bm.drill, bm.get_backup_statistics, lambda: bm.create_backup(tree),
            lambda: bm.get_latest_backup(tree), lambda: bm.restore_backup(bm.folder.ids()[0], tmp_path / "x"),
        ):  # fmt: skip
            with pytest.raises(WrongKeyError) as caught:
                work()
            assert caught.value.exit_code == 10
    after = looked_at(tmp_path / "backups")
    unlike = {b"lock", b"log.jsonl", b""}
    assert {path: thing for path, thing in after.items() if path not in unlike} == {
        path: thing for path, thing in before.items() if path not in unlike
    }


def test_a_list_of_another_pack(tmp_path, tree):
    """The copy of a list is believed where the list itself is damaged: what is not there is found by reading."""
    with manager(tmp_path, max_backups=None, compression=False) as bm:
        first = bm.create_backup(tree)
        (old,) = (tmp_path / "backups" / "chunks").glob("*.qmpack")
        (tree / "a").write_bytes(b"something" * 5000)
        second = bm.create_backup(tree)
        (new,) = set((tmp_path / "backups" / "chunks").glob("*.qmpack")) - {old}
    shutil.copy(new.with_suffix(".qmindex"), old.with_suffix(".qmindex"))
    os.truncate(old, old.stat().st_size - 10)
    with manager(tmp_path, max_backups=None) as bm:
        assert first in bm.verify().damaged
        with pytest.raises(QuantumMemoryError):
            bm.restore_backup(first, tmp_path / "again")
        third = bm.create_backup(tree, reread=True)  # all that the source still has is there again
        assert not {second, third} - {known["id"] for known in bm.list_backups()}
        bm.restore_backup(third, tmp_path / "third")
        bm.restore_backup(second, tmp_path / "second")
    assert (tmp_path / "third" / "a").read_bytes() == (tmp_path / "second" / "a").read_bytes() == b"something" * 5000


@pytest.mark.parametrize("what", ["link", "pipe", "folder"])
@pytest.mark.parametrize("name", ["lock", "log.jsonl", "refs.json", "checks.json", "config.json", "chunks", "backups"])
def test_something_else_in_the_place_of_a_file(tmp_path, tree, name, what):
    """Nobody waits for ever, nothing outside is written to; what was backed up is given back, or an error of ours."""
    one = backed_up(tmp_path, tree)
    with manager(tmp_path) as bm:
        bm.tag(one, "x")
        bm.verify()
    at, outside = tmp_path / "backups" / name, tmp_path / "outside"
    at_is_folder = at.is_dir()
    if at_is_folder:
        at.rename(tmp_path / "moved")
        outside.mkdir()
    else:
        shutil.copy(at, outside)
        at.unlink()
    before = looked_at(outside)
    if what == "link":
        at.symlink_to(outside)
    elif what == "pipe":
        os.mkfifo(at)
    else:
        at.mkdir()
    with manager(tmp_path) as bm, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        for work in (
            lambda: bm.create_backup(tree), bm.verify, lambda: bm.tag(one, "y"),
            lambda: bm.restore_backup(one, tmp_path / "again"),
        ):  # fmt: skip
            with contextlib.suppress(QuantumMemoryError):
                work()
    if not at_is_folder:
        assert looked_at(outside) == before
    if (tmp_path / "again").exists():
        assert looked_at(tmp_path / "again") == looked_at(tree)


def test_a_manifest_with_the_name_of_another_one(tmp_path, tree):
    one = backed_up(tmp_path, tree)
    folder = tmp_path / "backups" / "backups"
    (folder / f"{one}.qmbk").rename(folder / "20200101_000000_000000_abcdef.qmbk")
    (folder / "..qmbk").write_bytes(b"x")
    (folder / "UPPER.qmbk").write_bytes(b"x")
    with manager(tmp_path) as bm:
        assert bm.verify().damaged == ["20200101_000000_000000_abcdef"]
        for said in ("../x", "..", "/etc/passwd", "a/b", "", "x\0y"):
            with pytest.raises(QuantumMemoryError):
                bm.restore_backup(said, tmp_path / "again")
            with pytest.raises(QuantumMemoryError):
                bm.delete_backup(said)


def test_a_length_that_no_machine_has(tmp_path, tree):
    """A manifest that says that a file has 2**63 - 1 bytes is found out before that is tried."""
    one = backed_up(tmp_path, tree)
    path = tmp_path / "backups" / "backups" / f"{one}.qmbk"
    with ReadableFile(str(path)) as source:
        head, body = manifest_file.read_whole(source, manifests.KIND)
    said = json.loads(manifest_file.unpacked_text(body.packed, body.text_bytes))
    said["entries"][1][4] = (1 << 63) - 1
    text = json.dumps(said).encode()
    packed = manifest_file.packed_text(text)
    path.write_bytes(manifest_file.written(manifests.KIND, head, packed, len(text), bytes(body.chunks)))
    with manager(tmp_path) as bm:
        assert bm.verify(depth="quick").damaged == [one]
        with pytest.raises(IntegrityError):
            bm.restore_backup(one, tmp_path / "again")
    assert not (tmp_path / "again").exists()


# --- sources


def test_links_that_lead_round_and_round(tmp_path):
    tree = tmp_path / "tree"
    (tree / "a").mkdir(parents=True)
    (tree / "a" / "up").symlink_to("..")
    (tree / "self").symlink_to("self")
    (tree / "one").symlink_to("two")
    (tree / "two").symlink_to("one")
    one = backed_up(tmp_path, tree)
    with manager(tmp_path) as bm:
        assert bm.get_backup(one)["links"] == 4
        bm.restore_backup(one, tmp_path / "again")
    assert looked_at(tmp_path / "again") == looked_at(tree)


def test_a_folder_that_is_deeper_than_the_stack_of_python(tmp_path):
    tree = tmp_path / "tree"
    levels = (3900 - len(str(tree))) // 3
    tree.mkdir()
    begin = Path.cwd()
    try:
        os.chdir(tree)
        for _ in range(levels):
            Path("dd").mkdir()
            os.chdir("dd")
        Path("deepest").write_bytes(b"x" * 100)
        os.chdir(tree)
        one = backed_up(tmp_path, tree)
        with manager(tmp_path, compression=False) as bm:
            assert bm.get_backup(one)["folders"] == levels + 1 > 1100
            bm.restore_backup(one, tmp_path / "t")
            assert Path(str(tmp_path / "t") + "/dd" * levels + "/deepest").stat().st_size == 100
            with pytest.raises(StorageError, match="too long"):
                bm.restore_backup(one, tmp_path / ("long" * 50))
            assert [at for at in tmp_path.iterdir() if at.name.endswith(".qmtmp")] == []
    finally:
        os.chdir(begin)
        for top in (tree, tmp_path / "t"):
            _remove(str(top))


def _remove(folder):
    restoring._remove(folder)
    assert not Path(folder).exists()


def test_many_small_files(tmp_path):
    tree = tmp_path / "tree"
    for k in range(1500):
        (tree / f"{k % 7}").mkdir(parents=True, exist_ok=True)
        (tree / f"{k % 7}" / f"{k}").write_bytes(b"%d" % (k % 500) if k % 3 else b"")
    one = backed_up(tmp_path, tree)
    with manager(tmp_path) as bm:
        assert bm.get_backup(one)["files"] == 1500
        assert bm.get_backup_statistics()["chunks"] <= 500
        assert bm.verify()
        bm.restore_backup(one, tmp_path / "again")
    assert looked_at(tmp_path / "again") == looked_at(tree)


def test_a_file_that_only_looks_like_one_of_ours_is_copied_all_the_same(tmp_path):
    tree = tmp_path / "tree"
    tree.mkdir()
    rng = np.random.default_rng(1)
    for name, head in {"qms": b"\x89QMS\r\n\x1a\n", "pack": b"\x89QMP\r\n\x1a\n", "h5": b"\x89HDF\r\n\x1a\n"}.items():
        (tree / name).write_bytes(head + rng.bytes(200_000))
    state = qm.MemoryState(classical={"w": rng.random(40_000)})
    qm.save(state, tree / "cut.qms")
    os.truncate(tree / "cut.qms", (tree / "cut.qms").stat().st_size // 2)
    (tree / "lock").write_bytes(b"\x89QML\r\n\x1a\n" + bytes(16))
    one = backed_up(tmp_path, tree)
    with manager(tmp_path) as bm:
        assert bm.get_backup(one)["problem_files"] == []
        bm.restore_backup(one, tmp_path / "again")
    assert looked_at(tmp_path / "again") == looked_at(tree)


def test_nobody_else_may_read_what_is_made(tmp_path, tree):
    backed_up(tmp_path, tree)
    with manager(tmp_path) as bm:
        bm.tag(bm.list_backups()[0]["id"], "x")
        bm.verify()
    for path, thing in looked_at(tmp_path / "backups").items():
        assert thing.mode == (0o700 if thing.kind == "folder" else 0o600), path
    with pytest.raises(UnsafeError):
        manager(tmp_path).create_backup("/dev/null")
