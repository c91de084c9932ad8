"""A folder of backups is pushed to a second place, and comes back from there, whatever happens on the way."""

from __future__ import annotations

import errno
import json
import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import quantum_memory as qm
from quantum_memory.cli import main
from quantum_memory.durability.files import RealFiles, using
from quantum_memory.errors import (
    ConflictError,
    InvalidStateError,
    MissingFileError,
    StorageError,
    UnsafeError,
)
from quantum_memory.lifecycle.backup_manager import BackupManager
from quantum_memory.lifecycle.backups import presence
from quantum_memory.lifecycle.backups.pushed import PART_BYTES, pushed_at, version_key
from quantum_memory.lifecycle.backups.targets import Target, target_of
from quantum_memory.lifecycle.purging import purge
from quantum_memory.lifecycle.repository.signed_json import signed

from ..lifecycle.backups.folders import KEY, manager, restorable, two_backups
from . import pushers, servers

if TYPE_CHECKING:
    from collections.abc import Callable

    from .servers import Server

KEYS = pytest.mark.parametrize("key", [None, KEY], ids=["plain", "encrypted"])
KILLS = 10
KINDS = ["folder.json", "config.json/", "config-copy.json/", "refs.json/", ".qmpack/", ".qmindex/", ".qmbk/"]


@pytest.fixture(params=["folder", "s3"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where nothing is yet, in a folder and in object storage."""
    return str(tmp_path / "target") if request.param == "folder" else str(request.getfixturevalue("prefix"))


@pytest.fixture
def rng() -> random.Random:
    return random.Random(5)


def copied(folder: Path) -> dict[str, bytes]:
    """Return what is pushed of a folder, by its path."""
    wanted = ("chunks/*", "backups/*", "config*.json", "refs.json")
    return {str(one.relative_to(folder)): one.read_bytes() for kind in wanted for one in folder.glob(kind)}


def keys_of(target: str, kind: str = "") -> list[str]:
    return sorted(key for key, _, _ in target_of(target).listed() if kind in key)


def are_whole(folder: Path, key: Any = None) -> bool:
    """Tell whether every backup in a folder can be restored; tags may be of those that did not come."""
    with manager(folder, key) as backups:
        report = backups.verify()
        return not report.files and set(report.backups.values()) <= {None}


def flip(target: str, key: str) -> None:
    place = target_of(target)
    data = bytearray(place.read(key, PART_BYTES) or b"")
    data[len(data) // 2] ^= 16
    place.replace(key, data)


class Counted:
    """How many bytes are sent, which the targets are asked to write."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, target: str) -> None:
        self.nbytes = self.parts = 0
        kind = type(target_of(target))
        for name in ("create", "replace"):
            monkeypatch.setattr(kind, name, self._counting(getattr(kind, name)))

    def _counting(self, write: Callable[[Target, str, bytes], Any]) -> Callable[[Target, str, bytes], Any]:
        def counting(place: Target, key: str, data: bytes) -> Any:
            self.nbytes += len(data)
            self.parts += key.startswith(("chunks/", "backups/"))
            return write(place, key, data)

        return counting


@KEYS
def test_it_comes_back_as_it_was(target: str, tmp_path: Path, rng: random.Random, key: Any) -> None:
    folder, source = two_backups(tmp_path, rng, key)
    sent = manager(folder).push(target)  # without the key
    assert sent
    assert (len(sent.backups), sent.there) == (2, 0)
    assert sent.objects == len(keys_of(target)) - 1  # and the one that says whose it is
    other = tmp_path / "elsewhere" / "deep"
    with manager(other, key) as others:
        pulled = others.pull(target)
        assert pulled
        assert (pulled.backups, pulled.tags) == (sent.backups, "taken")
        assert copied(other) == copied(folder)
        assert others.verify()
        assert others.drill(seed=1)
        assert others.resolve("Good") == manager(folder, key).resolve("Good")
        others.create_backup(source)  # which goes on as in any folder
        assert others.push(target).backups == [others.resolve(max(others.folder.ids()))]
    assert (other.stat().st_mode & 0o777, (other / "refs.json").stat().st_mode & 0o777) == (0o700, 0o600)
    assert restorable(other, key) >= restorable(folder, key)
    checked = BackupManager.check_pushed(target)
    assert checked
    assert len(checked.backups) == 3
    with manager(folder, key) as mine:  # an older state of it, by now
        assert len(mine.pull(target).backups) == 1
        assert mine.verify()
    assert "source" not in str(keys_of(target))


def test_what_is_there_is_not_sent_again(
    target: str, tmp_path: Path, rng: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "large").write_bytes(rng.randbytes(PART_BYTES + 12345))
    with manager(tmp_path / "backups") as backups:
        backups.create_backup(source)
        assert backups.push(target, dry_run=True).objects > 0
        assert keys_of(target) == []
        backups.push(target)
        counted = Counted(monkeypatch, target)
        assert backups.push(target).nbytes == 0
        assert counted.nbytes == 0
        (source / "small").write_bytes(rng.randbytes(1000))
        backups.create_backup(source)
        told: list[int] = []
        sent = backups.push(target, progress=told.append)
        assert sent.nbytes == counted.nbytes < 5000
        assert sum(told) == sum(len(data) for name, data in copied(tmp_path / "backups").items() if "/" in name)
        assert counted.parts == 3  # a pack, the copy of its list, a manifest
        target_of(target).remove(keys_of(target, ".qmpack/")[:1])
        assert not BackupManager.check_pushed(target)
        assert backups.push(target).objects == 1  # what is gone there is seen without reading anything
        assert BackupManager.check_pushed(target)


@pytest.mark.parametrize("kind", KINDS)
def test_a_flipped_bit_is_found_named_and_mended(target: str, tmp_path: Path, rng: random.Random, kind: str) -> None:
    folder, _ = two_backups(tmp_path, rng, KEY)
    newest = max(manager(folder).folder.ids())
    manager(folder).push(target)
    key = keys_of(target, kind)[0]
    flip(target, key)
    checked = BackupManager.check_pushed(target)
    assert not checked
    assert list(checked.damaged) == [key]
    other = tmp_path / "other"
    pulled = manager(other, KEY).pull(target)
    assert key in " ".join(map(str, pulled.problems))
    wanted = copied(folder)
    for name in copied(other):
        assert copied(other)[name] == wanted[name], name
    lost = kind in {".qmpack/", ".qmbk/"}
    assert len(pulled.backups) == (2 - lost if kind == ".qmbk/" or not lost else len(checked.backups))
    if lost:
        assert manager(other, KEY).folder.ids() == pulled.backups
        assert are_whole(other, KEY)
    else:
        assert newest in pulled.backups
    again = manager(folder).push(target, verify=True)
    assert again
    assert again.mended == [key]
    assert BackupManager.check_pushed(target)
    assert manager(other, KEY).pull(target)
    assert restorable(other, KEY) == restorable(folder, KEY)


def test_what_is_whole_of_a_damaged_pack_can_be_had(tmp_path: Path, rng: random.Random) -> None:
    folder, _ = two_backups(tmp_path, rng)
    target, other = str(tmp_path / "target"), tmp_path / "other"
    manager(folder).push(target)
    largest = max(keys_of(target, ".qmpack/"), key=lambda key: (tmp_path / "target" / key).stat().st_size)
    flip(target, largest)
    pulled = manager(other).pull(target, salvage=True)
    assert not pulled
    assert len(pulled.backups) == 2
    assert 0 < len(restorable(other)) < len(restorable(folder))
    with manager(other) as others:
        assert not others.verify()
        assert others.restore_backup("Good", tmp_path / "given", salvage=True).left_out


def test_a_pack_that_is_damaged_here_is_not_written_over(tmp_path: Path, rng: random.Random) -> None:
    folder, _ = two_backups(tmp_path, rng)
    target, other = str(tmp_path / "target"), tmp_path / "other"
    manager(folder).push(target)
    manager(other).pull(target)
    pack = max((other / "chunks").glob("*.qmpack"), key=lambda one: one.stat().st_size)
    pack.with_suffix(".qmindex").unlink()
    pack.write_bytes(b"?" * 100)
    for one in manager(other).folder.ids():
        Path(manager(other).folder.manifest_path(one)).unlink()
    pulled = manager(other).pull(target)
    assert "sets it aside; then pull once more" in str(pulled.problems[0])
    assert pack.read_bytes() == b"?" * 100
    with manager(other) as others:
        others.repair()
        assert others.pull(target)
    assert restorable(other) == restorable(folder)


def test_damage_here_does_not_go_there(target: str, tmp_path: Path, rng: random.Random) -> None:
    folder, source = two_backups(tmp_path, rng)
    pack = max((folder / "chunks").glob("*.qmpack"), key=lambda one: one.stat().st_size)
    whole = pack.read_bytes()
    pack.write_bytes(whole[:-100] + b"?" + whole[-99:])
    sent = manager(folder).push(target)
    assert not sent
    assert pack.name in str(sent.problems[0])
    assert keys_of(target, pack.name) == []
    assert BackupManager.check_pushed(target).broken == {}
    with manager(folder) as backups:  # who is told to repair it has all there that can be had
        backups.repair()
        backups.create_backup(source, reread=True)
        backups.push(target)
        assert manager(tmp_path / "other").pull(target)
        assert restorable(tmp_path / "other") >= restorable(folder) > set()


def test_two_folders_are_not_mixed(target: str, tmp_path: Path, rng: random.Random) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    (one, _), (other, _) = two_backups(tmp_path / "a", rng), two_backups(tmp_path / "b", rng)
    manager(one).push(target)
    before = keys_of(target)
    with pytest.raises(ConflictError, match="backups of another folder"):
        manager(other).push(target)
    with pytest.raises(ConflictError, match="backups of another folder"):
        manager(other).pull(target)
    assert keys_of(target) == before
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "run").write_text("mine")
    with pytest.raises(ConflictError, match="there is something else, such as run"):
        manager(tmp_path / "c").pull(target)
    target_of(target).remove(before)
    target_of(target).create("notes/todo", b"mine")
    with pytest.raises(ConflictError, match="there is something else, such as notes/todo"):
        manager(one).push(target)
    with pytest.raises(MissingFileError, match="no backups were pushed there"):
        manager(tmp_path / "d").pull(target)
    assert not (tmp_path / "d").exists()


def test_of_two_folders_that_come_first_one_is_taken(
    target: str, tmp_path: Path, rng: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one looked, saw nothing, and is refused all the same, before it has sent anything."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    (one, _), (other, _) = two_backups(tmp_path / "a", rng), two_backups(tmp_path / "b", rng)
    kind = type(target_of(target))
    check = kind.check_writable

    def first(place: Target) -> None:
        check(place)
        monkeypatch.setattr(kind, "check_writable", check)
        manager(one).push(target)

    monkeypatch.setattr(kind, "check_writable", first)
    with pytest.raises(ConflictError, match="backups of another folder"):
        manager(other).push(target)
    assert BackupManager.check_pushed(target).backups == sorted(manager(one).folder.ids(), reverse=True)


def test_what_was_removed_here_goes_there_when_that_is_said(target: str, tmp_path: Path, rng: random.Random) -> None:
    folder, source = two_backups(tmp_path, rng)
    other = tmp_path / "other"
    with manager(folder) as backups, manager(other) as others:
        backups.push(target)
        others.pull(target)
        theirs = others.create_backup(source)
        others.push(target)
        (source / "sub" / "several").write_bytes(rng.randbytes(100_000))
        mine = backups.create_backup(source)
        oldest = min(backups.folder.ids())
        backups.delete_backup(oldest)
        assert backups.push(target).removed == []
        assert oldest in BackupManager.check_pushed(target).backups
        plan = backups.push(target, prune=True, dry_run=True)
        assert plan.removed == [oldest]
        assert oldest in BackupManager.check_pushed(target).backups
        done = backups.push(target, prune=True)
        assert (done.removed, done.bytes_removed) == (plan.removed, plan.bytes_removed)
        checked = BackupManager.check_pushed(target)
        assert checked
        assert set(checked.backups) == {theirs, mine, backups.resolve("Good")}  # what was never here stays
        others.push(target)  # where it is still, and from where it comes again: with all that it needs
        assert oldest in BackupManager.check_pushed(target).backups
        assert BackupManager.check_pushed(target)
        assert backups.push(target, prune=True).removed == []  # this folder has forgotten it
        for one in (oldest, theirs):
            others.delete_backup(one)
        assert others.push(target, prune=True).removed == [theirs, oldest]
        assert BackupManager.check_pushed(target)
        backups.untag("Good")
        for one in backups.folder.ids():
            backups.delete_backup(one)
        backups.push(target, prune=True)
        assert keys_of(target, "chunks/") == []


def test_a_check_beside_who_removes(tmp_path: Path, rng: random.Random) -> None:
    """What was listed and is gone when it is read was removed, and is not damaged."""
    folder, _ = two_backups(tmp_path, rng)
    target = str(tmp_path / "target")
    with manager(folder) as backups:
        backups.push(target)
        backups.delete_backup(min(backups.folder.ids()))
        done: list[int] = []

        def removed(nbytes: int) -> None:
            if not done:
                backups.push(target, prune=True)
            done.append(nbytes)

        assert BackupManager.check_pushed(target, progress=removed)


def test_what_is_purged_here_goes_there(tmp_path: Path) -> None:
    source, target = tmp_path / "source", str(tmp_path / "target")
    source.mkdir()
    secret = np.random.default_rng(1).normal(size=256)
    qm.save(qm.MemoryState(classical={"secret": secret}), source / "secret.qms", compression="none")
    (source / "other").write_bytes(b"other")
    with manager(tmp_path / "backups", compression=False) as backups:
        backups.create_backup(source)
        backups.push(target)
        done = purge(source / "secret.qms", backups=[backups])
        assert f"what was pushed to {target}, which is still there" in done.unreached

        def is_there() -> bool:
            return any(secret.tobytes() in (tmp_path / "target" / key).read_bytes() for key in keys_of(target))

        assert is_there()
        assert len(backups.push(target, prune=True).removed) == 1
        assert not is_there()
        assert manager(tmp_path / "other").pull(target)
        assert {path for _, path, _ in restorable(tmp_path / "other")} == {"other"}


def test_nothing_is_removed_while_somebody_pushes(
    target: str, tmp_path: Path, rng: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = two_backups(tmp_path, rng)
    with manager(folder) as backups:
        backups.push(target)
        backups.delete_backup(min(backups.folder.ids()))
        before = [key for key in keys_of(target) if not key.startswith("quantum-memory/")]
        with presence.pushing(target_of(target)):
            with pytest.raises(ConflictError, match="somebody else is pushing"):
                backups.push(target, prune=True)
            assert [key for key in keys_of(target) if not key.startswith("quantum-memory/")] == before
        target_of(target).replace("quantum-memory/pushing/dead", b"")
        target_of(target).replace("quantum-memory/pruning", b"")
        monkeypatch.setattr(presence, "_PATIENCE", 0.0)
        with pytest.raises(ConflictError, match="somebody else is removing"):
            backups.push(target)
        monkeypatch.setattr(presence, "DEAD_AFTER", -1.0)  # by now
        with pytest.raises(ConflictError, match="it took so long"):  # and so is who asks
            backups.push(target)
        monkeypatch.setattr(presence.Presence, "lasted", True)
        assert backups.push(target, prune=True).removed


def test_who_was_taken_for_dead_looks_again(
    tmp_path: Path, rng: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody removes packs while a push is stopped, which sends them once more before it says that it is done."""
    folder, _ = two_backups(tmp_path, rng)
    target = str(tmp_path / "target")
    lasted = iter([False, True])

    def slept(self: presence.Presence) -> bool:
        if not (long := next(lasted)):
            target_of(target).remove(keys_of(target, ".qmpack/"))
        return long

    monkeypatch.setattr(presence.Presence, "lasted", property(slept))
    manager(folder).push(target)
    assert BackupManager.check_pushed(target)


def many_backups(tmp_path: Path, rng: random.Random, count: int) -> tuple[Path, Path]:
    source = tmp_path / "source"
    source.mkdir()
    with manager(tmp_path / "backups", durable=False, max_backups=None) as backups:
        for number in range(count):
            (source / f"{number}").write_bytes(rng.randbytes(3000))
            backups.create_backup(source)
    (tmp_path / "backups" / "not-durable").unlink()
    return tmp_path / "backups", source


def test_a_push_is_killed_at_random_instants(prefix: str, tmp_path: Path, rng: random.Random) -> None:
    target = prefix
    folder, source = many_backups(tmp_path, rng, 12)
    took = pushers.Worker(pushers.push, str(folder), f"{prefix}-timed").took()
    unfinished, acknowledged = 0, set[str]()
    for kill in range(3 * KILLS):
        if unfinished == KILLS:
            break
        cut = pushers.Worker(pushers.push, str(folder), target).kill(rng.uniform(0, 0.9) * took)
        unfinished += cut
        if keys_of(target, "folder.json"):
            checked = BackupManager.check_pushed(target)
            assert not checked.broken  # of what is there, all is there
            assert set(checked.damaged) <= {"config.json"}, checked  # of which nothing may be there yet
            assert set(checked.backups) >= acknowledged
        if not cut or kill % 3 == 2:
            manager(folder).push(target)  # goes on
            acknowledged = set(manager(folder).folder.ids())
            with manager(folder, durable=False, max_backups=None) as backups:
                for number in range(6):
                    (source / f"{kill}-{number}").write_bytes(rng.randbytes(3000))
                    backups.create_backup(source)
    assert unfinished == KILLS, "hardly any was killed before it was done, which shows little"
    assert manager(folder).push(target)
    assert manager(tmp_path / "other").pull(target)
    assert copied(tmp_path / "other") == copied(folder)


def test_a_pull_is_killed_at_random_instants(prefix: str, tmp_path: Path, rng: random.Random) -> None:
    target = prefix
    folder, _ = many_backups(tmp_path, rng, 12)
    manager(folder).push(target)
    took = pushers.Worker(pushers.pull, str(tmp_path / "timed"), target).took()
    unfinished, other = 0, tmp_path / "other-0"
    for kill in range(3 * KILLS):
        if unfinished == KILLS:
            break
        cut = pushers.Worker(pushers.pull, str(other), target).kill(rng.uniform(0, 0.9) * took)
        unfinished += cut
        if (other / "config.json").exists() and (other / "lock").exists():
            assert are_whole(other), "a manifest is there, and not what it needs"
        if not cut:
            other = tmp_path / f"other-{kill}"
    assert unfinished == KILLS, "hardly any was killed before it was done, which shows little"
    assert manager(other).pull(target)
    assert copied(other) == copied(folder)
    manager(other).folder.sweep()
    assert not [one for one in other.rglob("*") if one.name.endswith(".qmtmp")]


class Full(RealFiles):
    """A disk that takes no more after some bytes."""

    def __init__(self, room: int) -> None:
        self.room = room

    def write(self, fd: int, data: Any) -> int:
        self.room -= len(data)
        if self.room < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(fd, data)


def test_the_disk_is_full_while_it_is_pulled(target: str, tmp_path: Path, rng: random.Random) -> None:
    folder, _ = many_backups(tmp_path, rng, 4)
    manager(folder).push(target)
    everything = sum(map(len, copied(folder).values()))
    for share in (0.0, 0.1, 0.3, 0.6, 0.9):
        other = tmp_path / f"other-{share}"
        with using(Full(int(share * everything))), manager(other) as others, pytest.raises(StorageError) as caught:
            others.pull(target)
        assert "free some space" in str(caught.value)
        assert not (other / "lock").exists() or are_whole(other)
        assert manager(other).pull(target)
        assert copied(other) == copied(folder)


def test_storage_that_ignores_conditions_is_refused(
    careless: str, s3: Server, tmp_path: Path, rng: random.Random
) -> None:
    folder, _ = two_backups(tmp_path, rng)
    url = f"s3://{s3.bucket}/backups?endpoint={careless}"
    with pytest.raises(UnsafeError, match="does not keep two writers apart"):
        manager(folder).push(url)
    assert keys_of(url) == []


def test_what_the_storage_refuses(
    s3: Server, prefix: str, tmp_path: Path, rng: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = two_backups(tmp_path, rng)
    manager(folder).push(prefix)
    for work in (manager(folder).push, manager(tmp_path / "other").pull, BackupManager.check_pushed):
        with pytest.raises(StorageError, match="NoSuchBucket"):
            work(f"s3://nobody-has-this/{prefix.rpartition('/')[2]}")
        with monkeypatch.context() as patch:
            patch.setenv("AWS_SECRET_ACCESS_KEY", "another")
            with pytest.raises(StorageError, match="check AWS_ACCESS_KEY_ID"):
                work(prefix)
    assert not (tmp_path / "other").exists()
    assert BackupManager.check_pushed(prefix)
    for address in (f"{prefix}@name", f"icechunk+file://{tmp_path}/run"):
        with pytest.raises(InvalidStateError, match="not pushed to a repository"):
            manager(folder).push(address)
    for place in (folder / "inside", folder, tmp_path):
        with pytest.raises(InvalidStateError, match="in the folder of the backups itself, or around it"):
            manager(folder).push(place)
    with pytest.raises(MissingFileError, match="mount its disk"):
        manager(folder).push(tmp_path / "usb" / "copy")
    with pytest.raises(MissingFileError, match="no folder of backups"):
        manager(tmp_path / "nothing").push(prefix)


def test_the_server_dies_in_the_middle(
    s3: Server, tmp_path: Path, rng: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = many_backups(tmp_path, rng, 4)
    with servers.seaweed(tmp_path / "home") as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.endpoint)
        url = f"s3://{server.bucket}/copy"
        parts = iter(range(100))
        with pytest.raises(StorageError):
            manager(folder).push(url, progress=lambda _: server.kill() if next(parts) == 3 else None)
        server.restart()
        assert not BackupManager.check_pushed(url).broken
        assert manager(folder).push(url)
        parts = iter(range(100))
        with pytest.raises(StorageError):
            manager(tmp_path / "other").pull(url, progress=lambda _: server.kill() if next(parts) == 3 else None)
    assert len(manager(tmp_path / "other").folder.ids()) > 0
    assert are_whole(tmp_path / "other")


def test_hostile_names_are_not_followed(tmp_path: Path, rng: random.Random) -> None:
    folder, _ = two_backups(tmp_path, rng)
    target = str(tmp_path / "target")
    manager(folder).push(target)
    place = target_of(target)
    digest = "0" * 64
    for key in (
        f"chunks/../../x.qmpack/0000000000000004-{'0' * 16}/00000000-{digest}",
        f"backups/evil.qmbk/9999999999999999-{'0' * 16}/00000000-{digest}",
        f"chunks/{'f' * 32}.qmpack/0000000000000004-{'0' * 16}/00000001-{digest}",
    ):
        if ".." not in key:
            place.create(key, b"evil")
    assert "evil" in str(BackupManager.check_pushed(target).broken)
    pulled = manager(tmp_path / "other").pull(target)
    assert len(pulled.backups) == 2
    assert "evil" in str(pulled.problems[0])
    for name in ("x", "../x", "chunks/a/b/c"):
        found = pushed_at(place)
        found.add(f"chunks/{name}.qmpack/0000000000000004-{'0' * 16}/00000000-{digest}", 4, 0.0)
        assert found.packs() == pushed_at(place).packs()


def test_encryption_is_not_taken_away(tmp_path: Path, rng: random.Random) -> None:
    """Who can write to the target says that nothing is encrypted: who has the folder goes on as it was."""
    folder, source = two_backups(tmp_path, rng, KEY)
    target = str(tmp_path / "target")
    manager(folder).push(target)
    (tmp_path / "plain").mkdir()
    plain, _ = two_backups(tmp_path / "plain", rng)
    said = json.loads((plain / "config.json").read_text())
    said["id"] = json.loads((folder / "config.json").read_text())["id"]
    del said["sha256"], said["version"]
    forged = signed(said)
    target_of(target).create(version_key("config.json", 10**19, forged), forged)
    with manager(folder, KEY) as backups:
        backups.pull(target)
        backups.create_backup(source)
        assert backups.get_backup_statistics()["encrypted"]


def test_tags_that_were_changed_here_stay(target: str, tmp_path: Path, rng: random.Random) -> None:
    folder, _ = two_backups(tmp_path, rng, KEY)
    with manager(folder, KEY) as backups, manager(tmp_path / "other", KEY) as others:
        backups.push(target)
        assert others.pull(target).tags == "taken"
        backups.tag("Good", "better")
        backups.push(target)
        assert others.pull(target).tags == "taken"  # those here are an older state of those there
        assert others.resolve("better") == backups.resolve("Good")
        others.tag("Good", "mine")
        backups.untag("better")
        backups.push(target)
        assert others.pull(target).tags == "kept"
        assert others.resolve("mine") == others.resolve("better") == backups.resolve("Good")
        assert len(keys_of(target, "refs.json/")) == 3
        backups.push(target, prune=True)
        assert len(keys_of(target, "refs.json/")) == 1


def test_on_the_command_line(
    target: str, tmp_path: Path, rng: random.Random, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("QMEM_KEY_FILE", "QMEM_PASSPHRASE"):
        monkeypatch.delenv(name, raising=False)
    folder, _ = two_backups(tmp_path, rng, KEY)

    def qmem(*arguments: object) -> tuple[int, str, str]:
        code = main.run(["backup", *map(str, arguments)])
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return code, out, err

    code, out, _ = qmem("push", target, "-C", folder, "--dry-run", "--json")
    said = json.loads(out)
    assert (code, said["dry_run"], len(said["backups"]), said["problems"]) == (0, True, 2, [])
    assert qmem("check", target)[0] == 6
    code, out, err = qmem("push", target, "-C", folder)  # asks for no key
    assert (code, err) == (0, "")
    assert "2 backups sent, 0 there already" in out
    code, out, _ = qmem("push", target, "-C", folder, "--verify", "--prune", "--json")
    said = json.loads(out)
    assert (code, said["backups"], said["there"], said["objects"], said["mended"]) == (0, [], 2, 0, [])
    code, out, _ = qmem("check", target)
    assert (code, "2 of 2 backups are whole" in out) == (0, True)
    other = tmp_path / "other"
    code, out, err = qmem("pull", target, "-C", other)
    assert (code, err) == (0, "")
    assert "2 backups pulled, 0 here already" in out
    assert "tags and pins are those that are there" in out
    flip(target, keys_of(target, ".qmbk/")[0])
    code, out, _ = qmem("check", target, "--json")
    assert (code, len(json.loads(out)["damaged"]), len(json.loads(out)["broken"])) == (4, 1, 1)
    code, out, _ = qmem("check", target)
    assert (code, "--verify" in out, "1 of 2 backups are whole" in out) == (4, True, True)
    code, out, err = qmem("pull", target, "-C", tmp_path / "third")
    assert (code, "1 backups pulled" in out, "it is damaged" in err) == (3, True, True)
    code, out, _ = qmem("pull", target, "-C", tmp_path / "third", "--json")
    assert (code, json.loads(out)["there"], json.loads(out)["problems"][0]["exit_code"]) == (3, 1, 4)
    code, out, _ = qmem("push", target, "-C", folder, "--verify")
    assert (code, "1 objects were damaged there, and sent anew" in out) == (0, True)
    assert qmem("pull", tmp_path / "nowhere", "-C", other)[0] == 6
    assert qmem("pull", target, "-C", tmp_path / "source")[0] == 7
    assert qmem("push", target, "-C", tmp_path / "source")[0] == 6
    assert qmem("push", f"{target}@x" if target.startswith("s3") else folder, "-C", folder)[0] == 2
