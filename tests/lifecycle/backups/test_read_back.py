"""For how long it counts that a backup was read back, and what stops a rotation."""

import datetime
import re
from datetime import UTC, timedelta

import pytest

from quantum_memory.errors import IntegrityError
from quantum_memory.lifecycle.backup_manager import BackupManager
from quantum_memory.lifecycle.backups.checks import READ_BACK_HOLDS
from quantum_memory.lifecycle.repository.folder import stamp
from quantum_memory.lifecycle.retention import KeepAll, KeepLast, KeepTagged

from .folders import contents, flip, pack_of
from .trees import too_deep

MOMENT = timedelta(seconds=60)


@pytest.fixture
def bm(tmp_path):
    """A folder with two backups of one file, of which the last was read back a moment ago, and keeps one."""
    source = tmp_path / "source"
    with BackupManager(tmp_path / "backups", durable=False, keep=KeepAll()) as making:
        for k in range(2):
            source.write_bytes(b"%d" % k * 2000)
            one = making.create_backup(source)
        assert making.verify_backup(one)
    with BackupManager(tmp_path / "backups", durable=False, keep=KeepLast(1)) as made:
        yield made


def read_back(bm, ago):
    """Have the newest been read back so long ago, and return its id."""
    newest = bm.list_backups()[0]["id"]
    when = stamp(datetime.datetime.now(UTC) - ago)
    bm.checker.remember(lambda checks: checks.verified.__setitem__(newest, when))
    return newest


def rot(bm, one):
    """Damage the chunk of a backup, and see that nobody remembers that."""
    with bm.folder.store.shared():
        (name,) = bm.folder.manifest(one).chunks()
        pack, place = bm.folder.store.place(name)
        path = bm.folder.store.pack_paths(pack)[0]
    with open(path, "r+b") as file:  # noqa: PTH123
        file.seek(place.offset)
        file.write(b"rot")
    assert bm.checker.remembered().bad == set()


@pytest.mark.parametrize("ago", [READ_BACK_HOLDS + MOMENT, timedelta(days=400), -MOMENT, -timedelta(days=400)])
def test_what_was_read_back_too_long_ago_or_in_the_future_is_read_again(bm, ago):
    newest = read_back(bm, ago)
    rot(bm, newest)
    with pytest.raises(IntegrityError, match=newest):
        bm.prune()
    assert len(bm.list_backups()) == 2


def test_a_day_is_long_enough(bm):
    newest = read_back(bm, READ_BACK_HOLDS - MOMENT)
    rot(bm, newest)
    assert len(bm.prune()["removed"]) == 1


@pytest.mark.parametrize("when", ["some time", "", "0001-01-01T00:00:00+14:00", "2020-01-01"])
def test_a_time_that_is_none_does_not_count(bm, when):
    newest = bm.list_backups()[0]["id"]
    bm.checker.remember(lambda checks: checks.verified.__setitem__(newest, when))
    assert bm.checker.lately_verified() == set()
    assert bm.list_backups()[0]["verified"] == when


def test_that_it_is_read_again_is_remembered(bm):
    newest = read_back(bm, timedelta(days=30))
    assert bm.get_backup(newest)["verified"] < stamp(datetime.datetime.now(UTC) - timedelta(days=29))
    bm.prune()
    assert bm.checker.lately_verified() == {newest}


def test_the_one_that_has_all_files_is_read_again_too(tmp_path):
    """It stays in the place of the newest, which is without some: so others go for it."""
    tree = tmp_path / "tree"
    tree.mkdir()
    with BackupManager(tmp_path / "backups", durable=False, keep=KeepAll()) as bm:
        for k in range(2):
            (tree / "file").write_bytes(b"%d" % k * 2000)
            whole = bm.create_backup(tree)
        with too_deep(tree), pytest.warns(UserWarning, match="without 1"):
            newest = bm.create_backup(tree, reread=True)
    with BackupManager(tmp_path / "backups", durable=False, keep=KeepTagged("none")) as bm:
        with bm.folder.store.shared():
            (name,) = bm.folder.manifest(whole).chunks()
            assert bm.folder.manifest(newest).chunks() == {name}
        bm.checker.remember(
            lambda checks: checks.verified.__setitem__(whole, stamp(datetime.datetime.now(UTC) - timedelta(days=9)))
        )
        said = bm.prune(dry_run=True)
        assert list(said["kept"]) == [whole]
        rot(bm, whole)
        with pytest.raises(IntegrityError):
            bm.prune()
        assert len(bm.list_backups()) == 3


@pytest.mark.parametrize("another", [False, True])
def test_a_rehearsal_names_what_goes_where_only_an_older_one_was_read_back_and_is_kept_anyway(tmp_path, another):
    """What is read back on the way guards from then on, in this series whether another one loses something or not."""
    sources = [tmp_path / name for name in ("a", "b")[: 1 + another]]
    folder = tmp_path / "backups"
    with BackupManager(folder, durable=False, keep=KeepAll()) as making:
        for k in range(3):
            for source in sources:
                source.write_bytes(b"%d" % k * 2000)
                first = k == 0 and source.name == "a"
                one = making.create_backup(source, tags=["paper"] if first else [])
                assert not first or making.verify_backup(one)
    with BackupManager(folder, durable=False, keep=KeepTagged("paper")) as bm:
        newest = {bm.get_latest_backup(source)["id"] for source in sources}
        said = bm.prune(dry_run=True)
        done = bm.prune()
        assert done["removed"] == said["removed"]
        assert done["kept"] == said["kept"]
        assert newest <= set(done["kept"])
        assert len(done["kept"]) == 2 + another


def test_a_rehearsal_writes_nothing(bm, tmp_path):
    newest = read_back(bm, timedelta(days=30))
    before = contents(tmp_path)
    assert len(bm.prune(dry_run=True)["removed"]) == 1
    bm.checker.full(newest, remember=False)
    assert contents(tmp_path) == before
    flip(pack_of(tmp_path / "backups"), 64)
    before = contents(tmp_path)
    assert bm.checker.check(remember=False).damaged
    assert contents(tmp_path) == before


def test_nothing_goes_while_the_manifest_of_any_is_damaged(bm, tmp_path):
    """Neither a manifest nor a chunk, and it is said why, and what to do."""
    other = tmp_path / "other"
    other.write_bytes(b"other")
    with BackupManager(tmp_path / "backups", durable=False, keep=KeepAll()) as making:
        one = making.create_backup(other)
    manifest = tmp_path / "backups" / "backups" / f"{one}.qmbk"
    flip(manifest, manifest.stat().st_size - 3)
    before = {path: data for path, data in contents(tmp_path / "backups").items() if "qm" in path}
    with pytest.raises(IntegrityError, match="nobody knows which chunks it needs, and none is removed") as failed:
        bm.prune()
    assert one in failed.value.path
    assert re.match(r"qmem backup -C \S+ repair  # ", failed.value.next_step)
    assert {path: data for path, data in contents(tmp_path / "backups").items() if "qm" in path} == before
