"""What is backed up is given back as it was, and what did not change is not written twice."""

import os
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

import quantum_memory as qm
from quantum_memory.durability.files import ReadableBytes, ReadableFile
from quantum_memory.errors import ConflictError, InvalidStateError, MissingFileError, StorageError, UnsafeError
from quantum_memory.formats.hdf5_storage import HDF5QuantumStorage
from quantum_memory.lifecycle.backups import saving
from quantum_memory.lifecycle.backups.cuts import SMALL, pieces
from quantum_memory.lifecycle.checkpoint_manager import CheckpointManager
from quantum_memory.state.arrays import CHUNK_BYTES
from quantum_memory.testing.faults import in_child

from .trees import FOLDERS, LARGE, LENGTHS, content, grow, looked_at, manager, shape, too_deep


@pytest.fixture
def at_rest(monkeypatch):
    """Have files be taken as being at rest at once: the tests write them a moment before they are read."""
    monkeypatch.setattr(saving, "_RACY", -saving._RACY)


def names_in(folder):
    return sorted(one.name for one in folder.iterdir())


def new_bytes(bm, one):
    return bm.get_backup(one)["new_bytes"]


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(tree=FOLDERS)
def test_any_folder_comes_back_as_it_was(tree):
    place = Path(tempfile.mkdtemp())
    try:
        grow(os.fsencode(place / "source"), tree)
        before = looked_at(place / "source")
        with manager(place) as bm:
            one = bm.create_backup(place / "source")
            assert bm.get_backup(one)["problem_files"] == []
            assert bm.verify_backup(one)
            done = bm.restore_backup(one, place / "restored")
            assert done.left_out == []
            assert looked_at(place / "restored") == before
            assert looked_at(place / "source") == before
            second = bm.create_backup(place / "source")
            assert new_bytes(bm, second) == 0
            (place / "there").mkdir()
            (place / "there" / "x").write_bytes(b"x")
            done = bm.restore_backup(second, place / "there")
            assert looked_at(place / "there") == before
            assert (Path(done.replaced) / "x").read_bytes() == b"x"
    finally:
        shutil.rmtree(place)


@pytest.mark.parametrize("compression", ["zstd", "zlib", "lz4", "none"])
def test_files_of_all_lengths(tmp_path, compression):
    with manager(tmp_path, compression=compression) as bm:
        (tmp_path / "tree").mkdir()
        for length in LENGTHS + (LARGE if compression == "zstd" else []):
            (tmp_path / "tree" / str(length)).write_bytes(content(length, length % 7, repeated=False))
        (tmp_path / "tree" / "noise").write_bytes(np.random.default_rng(1).bytes(300_000))
        before = looked_at(tmp_path / "tree")
        one = bm.create_backup(tmp_path / "tree")
        assert bm.verify_backup(one)
        bm.restore_backup(one, tmp_path / "again")
        assert looked_at(tmp_path / "again") == before


@pytest.mark.parametrize("length", LENGTHS[:6])
def test_a_file_alone(tmp_path, length):
    source, target = tmp_path / "one", tmp_path / "two"
    source.write_bytes(content(length, 3, repeated=False))
    source.chmod(0o640)
    os.utime(source, ns=(1, -1_234_567_890_123_456_789))
    before = looked_at(source)
    with manager(tmp_path) as bm:
        one = bm.create_backup(source)
        bm.restore_backup(one, target)
        assert looked_at(target) == before
        target.write_bytes(b"newer")
        bm.restore_backup(one, target)
        assert looked_at(target) == before
        (saved,) = bm.list_backups(target)
        assert saved["automatic"]
        bm.restore_backup(saved["id"], target)
        assert target.read_bytes() == b"newer"
        with pytest.raises(ConflictError):
            bm.restore_backup(one, target, overwrite=False)
        assert target.read_bytes() == b"newer"


def test_hard_links_become_files_of_their_own_that_share_their_chunks(tmp_path):
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "a").write_bytes(content(70_000, 1, repeated=False))
    (tmp_path / "tree" / "b").hardlink_to(tmp_path / "tree" / "a")
    with manager(tmp_path, compression=False) as bm:
        one = bm.create_backup(tmp_path / "tree")
        assert new_bytes(bm, one) < 80_000
        bm.restore_backup(one, tmp_path / "again")
        assert looked_at(tmp_path / "again") == looked_at(tmp_path / "tree")
        assert (tmp_path / "again" / "a").stat().st_nlink == 1


def test_a_sparse_file_takes_one_chunk_of_zeros(tmp_path):
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(40 << 20)
        file.seek(20 << 20)
        file.write(b"x")
    with manager(tmp_path) as bm:
        one = bm.create_backup(tmp_path / "sparse")
        assert bm.get_backup_statistics()["chunks"] == 2
        bm.restore_backup(one, tmp_path / "again")
        assert (tmp_path / "again").read_bytes() == (tmp_path / "sparse").read_bytes()


def test_links_are_links_wherever_they_lead(tmp_path):
    tree = tmp_path / "tree"
    (tree / "folder").mkdir(parents=True)
    (tree / "folder" / "file").write_bytes(b"inside")
    (tmp_path / "outside").write_bytes(b"outside")
    for name, target in {
        "in": "folder/file", "to folder": "folder", "out": "../outside", "away": "/etc/passwd", "nowhere": "gone",
        "itself": "itself", "up": "..", "round": "folder/round",
    }.items():  # fmt: skip
        (tree / name).symlink_to(target)
    (tree / "folder" / "round").symlink_to("../round")
    with manager(tmp_path) as bm:
        one = bm.create_backup(tree)
        known = bm.get_backup(one)
        assert (known["files"], known["folders"], known["links"]) == (1, 2, 9)
        bm.restore_backup(one, tmp_path / "again")
    assert looked_at(tmp_path / "again") == looked_at(tree)


def test_a_source_that_is_a_link_is_what_it_leads_to(tmp_path):
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "link").symlink_to("file")
    with manager(tmp_path) as bm:
        one = bm.create_backup(tmp_path / "link")
        assert bm.get_backup(one)["source"] == str(tmp_path / "link")
        (tmp_path / "file").write_bytes(b"y")
        bm.restore_backup(one)
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "file").read_bytes() == b"x"


def test_pipes_sockets_and_devices_are_left_out(tmp_path):
    tree = tmp_path / "tree"
    tree.mkdir()
    os.mkfifo(tree / "pipe")
    (tree / "file").write_bytes(b"x")
    if os.geteuid() == 0:
        os.mknod(tree / "null", 0o20666, os.makedev(1, 3))
    with manager(tmp_path) as bm:
        one = bm.create_backup(tree)
        assert "pipe" in bm.get_backup(one)["skipped"]
        bm.restore_backup(one, tmp_path / "again")
        assert names_in(tmp_path / "again") == ["file"]
        for source in ("pipe", "null") if os.geteuid() == 0 else ("pipe",):
            with pytest.raises(UnsafeError):
                bm.create_backup(tree / source)


@pytest.mark.parametrize("where", ["backups", "backups/chunks", "backups/lock"])
def test_backups_are_not_backed_up_into_their_own_folder(tmp_path, where):
    (tmp_path / "file").write_bytes(b"x")
    with manager(tmp_path) as bm:
        bm.create_backup(tmp_path / "file")
        with pytest.raises(ConflictError, match="own folder"):
            bm.create_backup(tmp_path / where)
        assert len(bm.list_backups()) == 1


def test_what_is_no_source(tmp_path):
    with manager(tmp_path) as bm:
        with pytest.raises(MissingFileError):
            bm.create_backup(tmp_path / "nothing")
        with pytest.raises(InvalidStateError):
            bm.create_backup(f"{tmp_path}/a\0b")
        (tmp_path / "loop").symlink_to("loop")
        with pytest.raises(UnsafeError):
            bm.create_backup(tmp_path / "loop")
        assert bm.list_backups() == []


def test_the_folder_of_the_backups_in_the_source_is_left_out(tmp_path):
    tree = tmp_path / "tree"
    (tree / "inner").mkdir(parents=True)
    (tree / "inner" / "file").write_bytes(b"x")
    with manager(tree) as bm:
        for _ in range(3):
            one = bm.create_backup(tree)
        assert shape({k: v for k, v in looked_at(tree).items() if not k.startswith(b"backups")}) == {
            entry.path.encode(): entry.type for entry in bm.get_backup(one)["entries"]
        }


# --- what was there before


def test_what_did_not_change_is_not_written_nor_read(tmp_path, at_rest):
    tree = tmp_path / "tree"
    tree.mkdir()
    for k in range(5):
        (tree / str(k)).write_bytes(content(100_000, k, repeated=False))
    with manager(tmp_path) as bm:
        bm.create_backup(tree)
        packs = names_in(tmp_path / "backups" / "chunks")
        read = []
        second = bm.create_backup(tree, progress=read.append)
        assert new_bytes(bm, second) == 0
        assert read == [100_000] * 5  # whole files: none was cut
        assert names_in(tmp_path / "backups" / "chunks") == packs
        os.utime(tree / "3", ns=(5, 5))
        third = bm.create_backup(tree)
        assert new_bytes(bm, third) == 0
        bm.restore_backup(third, tmp_path / "again")
        assert (tmp_path / "again" / "3").stat().st_mtime_ns == 5


def test_new_content_of_the_same_length_and_time_is_seen(tmp_path, at_rest):
    """By the time of the last change of any kind, which nobody sets."""
    source = tmp_path / "file"
    source.write_bytes(b"a" * 1000)
    os.utime(source, ns=(7, 7))
    with manager(tmp_path) as bm:
        bm.create_backup(source)
        time.sleep(0.05)  # a tick of the clock of a file system
        with source.open("r+b") as file:
            file.write(b"b" * 1000)
        os.utime(source, ns=(7, 7))
        bm.restore_backup(bm.create_backup(source), tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == b"b" * 1000


def test_what_was_written_a_moment_before_is_read_again_the_next_time(tmp_path):
    source = tmp_path / "file"
    source.write_bytes(content(100_000, 1, repeated=False))
    with manager(tmp_path) as bm:
        bm.create_backup(source)
        read = []
        bm.create_backup(source, progress=read.append)
        assert sum(read) == 100_000
        known = saving._untouched(bm.folder, str(source))
        assert known == {}  # nothing is taken from the last one


def test_all_is_read_where_that_is_asked(tmp_path, at_rest):
    source = tmp_path / "file"
    source.write_bytes(content(3 << 20, 1, repeated=False))
    with manager(tmp_path) as bm:
        bm.create_backup(source)
        read = []
        bm.create_backup(source, progress=read.append)
        assert len(read) == 1
        read.clear()
        bm.create_backup(source, reread=True, progress=read.append)
        assert len(read) == 3


def test_a_file_that_was_taken_for_untouched_is_read_when_a_chunk_of_it_is_distrusted(tmp_path, at_rest):
    source = tmp_path / "file"
    source.write_bytes(content(100_000, 1, repeated=False))
    with manager(tmp_path, compression=False) as bm:
        first = bm.create_backup(source)
        (pack,) = (tmp_path / "backups" / "chunks").glob("*.qmpack")
        raw = bytearray(pack.read_bytes())
        raw[1000] ^= 1
        pack.write_bytes(raw)
        assert not bm.verify_backup(first)
        second = bm.create_backup(source)
        assert new_bytes(bm, second) > 100_000
        assert bm.verify().damaged == []
        bm.restore_backup(first, tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == source.read_bytes()


def test_what_a_pack_with_a_damaged_end_should_have_is_written_anew(tmp_path, at_rest):
    """Of one that is cut off only the copy of its list says what was in it, and nobody knows how much there is."""
    source = tmp_path / "file"
    source.write_bytes(np.random.default_rng(2).bytes(3 << 20))
    with manager(tmp_path) as bm:
        bm.create_backup(source)
        (pack,) = (tmp_path / "backups" / "chunks").glob("*.qmpack")
        os.truncate(pack, pack.stat().st_size // 2)
    with manager(tmp_path) as bm:
        second = bm.create_backup(source)
        assert bm.verify_backup(second).damaged == []
        bm.restore_backup(second, tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == source.read_bytes()


# --- cuts


def shared_bytes(old, new):
    """Return how many bytes of the chunks of `new` are chunks of `old`."""

    def chunks(data):
        source = ReadableBytes(data)
        return {source.read(*piece) for piece in pieces(source)}

    return sum(map(len, chunks(old) & chunks(new)))


def test_pieces_follow_one_another_and_are_short_enough():
    rng = np.random.default_rng(3)
    for length in (*LENGTHS, *LARGE):
        end = 0
        for start, count in pieces(ReadableBytes(rng.bytes(length))):
            assert start == end
            assert 0 < count <= CHUNK_BYTES + 4096
            end += count
        assert end == length


def test_arrays_are_found_again_when_what_stands_before_them_has_another_length(tmp_path):
    arrays = {f"a{k}": np.random.default_rng(k).random(150_000) for k in range(4)}
    nbytes = sum(one.nbytes for one in arrays.values())
    for compression in ("none", "auto"):
        old, new = tmp_path / "old.qms", tmp_path / "new.qms"
        qm.save(qm.MemoryState(classical=arrays, metadata={"note": "x"}), old, compression=compression)
        qm.save(qm.MemoryState(classical=arrays, metadata={"note": "x" * 9999}), new, compression=compression)
        assert shared_bytes(old.read_bytes(), new.read_bytes()) > 0.9 * min(nbytes, old.stat().st_size)


def test_a_folder_of_checkpoints_shares_its_chunks_with_itself_before_it_was_collected(tmp_path):
    run = tmp_path / "run"
    with CheckpointManager(run, signals=False, durable=False) as cm:
        ids = []
        for k in range(6):  # each pack has what stays and what goes
            large = np.random.default_rng(k).bytes(400_000)
            stays = np.random.default_rng(100 + k).bytes(400_000)
            ids.append(cm.create_checkpoint({"goes": np.frombuffer(large, np.uint8), **dict(kept(stays, k))}))
            cm.create_checkpoint(dict(kept(stays, k)))
        with manager(tmp_path) as bm:
            before = bm.create_backup(run)
            packs = set(names_in(run / "chunks"))
            for one in ids:
                cm.delete_checkpoint(one)
            assert set(names_in(run / "chunks")) - packs  # some were written anew
            after = bm.create_backup(run)
            # What was read of a pack that was written anew is as it was, but for what is shorter than a piece.
            pieces_of_it = 6 * 4 * SMALL
            assert new_bytes(bm, after) < pieces_of_it < new_bytes(bm, before) / 2
            bm.restore_backup(after, tmp_path / "again")
    with CheckpointManager(tmp_path / "again", signals=False, durable=False) as cm:
        assert set(cm.verify().values()) == {None}


def kept(stays, k):
    yield f"stays{k}", np.frombuffer(stays, np.uint8)


def test_the_tenth_backup_of_a_store_that_grows_costs_what_changed(tmp_path):
    """An HDF5 file is changed at its beginning and its end, and where its groups are listed: a chunk each."""
    path = tmp_path / "store.h5"
    storage = HDF5QuantumStorage(path, compression=None, durable=False)

    def append(k):
        storage.save_quantum_state(qm.MemoryState(classical={"w": np.random.default_rng(k).random(200_000)}), f"s{k}")

    for k in range(12):
        append(k)
    with manager(tmp_path, max_backups=None, compression=False) as bm:
        bm.create_backup(path)
        for k in range(12, 21):
            before = path.read_bytes()
            append(k)
            tenth = bm.create_backup(path)
        after = path.read_bytes()
        changed = [at for at in range(0, len(after), SMALL) if before[at : at + SMALL] != after[at : at + SMALL]]
        frame = 64 + 64 + len(changed) * (64 + 63)  # of a pack: header, end, and for each chunk a line and padding
        assert new_bytes(bm, tenth) <= sum(len(after[at : at + SMALL]) for at in changed) + frame
        # What was appended begins and ends within a chunk, and what is overwritten is in a few.
        assert new_bytes(bm, tenth) <= len(after) - len(before) + 12 * SMALL < len(after) / 10
        bm.restore_backup(tenth, tmp_path / "again.h5")
    assert (tmp_path / "again.h5").read_bytes() == after


# --- what cannot be read


def test_what_cannot_be_read_of_a_folder_is_a_problem(tmp_path):
    tree = tmp_path / "tree"
    (tree / "deep").mkdir(parents=True)
    (tree / "good").write_bytes(b"x")
    with manager(tmp_path) as bm:
        with too_deep(tree / "deep"), pytest.warns(UserWarning, match="without 1 of the files"):
            one = bm.create_backup(tree)
        ((path, why),) = bm.get_backup(one)["problem_files"]
        assert path.startswith("deep/ddd")
        assert "could not be" in why
        assert bm.verify_backup(one)
        bm.restore_backup(one, tmp_path / "again")
    assert (tmp_path / "again" / "good").read_bytes() == b"x"


NOBODY = 65534


@pytest.mark.parametrize("closed", ["tree", "tree/inner"])
def test_a_folder_that_may_not_be_listed(closed):
    """The source itself: an error, and no backup. One in it is left out, and named."""
    with tempfile.TemporaryDirectory(dir="/tmp") as place:  # the folders of the tests are closed to others
        at = Path(place)
        (at / "tree" / "inner").mkdir(parents=True)
        (at / "tree" / "file").write_bytes(b"x")
        (at / closed).chmod(0)
        at.chmod(0o777)

        def save():
            if os.getuid() == 0:  # who may list everything
                os.setgroups([])
                os.setgid(NOBODY)
                os.setuid(NOBODY)
            with manager(at) as bm:
                if closed == "tree":
                    with pytest.raises(StorageError, match="could not list: Permission denied") as failed:
                        bm.create_backup(at / "tree")
                    assert (failed.value.path, failed.value.exit_code) == (str(at / "tree"), 8)
                    assert bm.list_backups() == []
                else:
                    with pytest.warns(UserWarning, match="without 1 of the files"):
                        one = bm.create_backup(at / "tree")
                    assert bm.get_backup(one)["problem_files"] == [("inner", "could not be listed: Permission denied")]
                    assert bm.verify_backup(one)

        assert in_child(save) == 0
        (at / closed).chmod(0o700)


def test_nothing_of_what_is_given_is_changed(tmp_path):
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "file").write_bytes(b"x")
    access = (tree / "file").stat().st_mtime_ns, (tree / "file").stat().st_ctime_ns
    with manager(tmp_path) as bm:
        bm.create_backup(tree)
    assert ((tree / "file").stat().st_mtime_ns, (tree / "file").stat().st_ctime_ns) == access
    with ReadableFile(str(tree / "file")) as file:
        assert file.size == 1
