"""Checkpoints at an address that are damaged, raced or misused: nothing that was acknowledged is lost."""

from __future__ import annotations

import contextlib
import datetime
import multiprocessing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import icechunk
import numpy as np
import pytest

import quantum_memory as qm
from quantum_memory import CheckpointManager, KeepLast
from quantum_memory.cloud import cleaning
from quantum_memory.cloud.kept_versions import UNREADABLE, KeptVersions
from quantum_memory.cloud.references import references_in
from quantum_memory.cloud.repository import Repository
from quantum_memory.errors import (
    ConflictError,
    IntegrityError,
    InvalidStateError,
    MissingError,
    QuantumMemoryError,
    StorageError,
)
from quantum_memory.formats.urls import S3, URL
from quantum_memory.lifecycle.checkpoints import cloud_home

if TYPE_CHECKING:
    from .servers import Server


def _manager(path: Any, **options: Any) -> CheckpointManager:
    return CheckpointManager(path, signals=False, **options)


def _tree(k: int) -> dict[str, Any]:
    return {"k": k, "same": np.arange(200.0), "own": np.full(200, k + 1)}


def _several(url: str, count: int) -> list[str]:
    with _manager(url) as cm:
        return [cm.create_checkpoint(_tree(k)) for k in range(count)]


def _numbers(url: str) -> list[int]:
    return [one["number"] for one in _manager(url).list_checkpoints()]


def _spoil(url: str, name: str, text: bytes | None) -> None:
    """Put something else in the place of an object, or nothing."""
    at = URL.parse(url)
    if at.scheme == S3:
        store = Repository(at)._place.objects()
        store.delete(name) if text is None else store.put(name, text)
    elif text is None:
        Path(at.key, name).unlink()
    else:
        Path(at.key, name).write_bytes(text)


@pytest.fixture
def no_hour(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for an hour before what is not needed goes, and it is looked for each time."""
    monkeypatch.setattr(cleaning, "_HOUR", datetime.timedelta(0))
    monkeypatch.setattr(cloud_home, "_PAUSE", -1.0)


@pytest.mark.parametrize("text", [None, b"", b"\xff" * 300])
def test_saving_goes_on_where_nobody_can_read_what_was_last(url: str, text: bytes | None) -> None:
    ids = _several(url, 3)
    _spoil(url, f"snapshots/{qm.repository(url).find()}", text)
    with _manager(url) as cm:
        with pytest.warns(UserWarning, match="is passed over"):
            found = cm.resume()
        assert found is not None
        assert found.state["k"] == 1
        cm.create_checkpoint(_tree(8))
        cm.create_checkpoint(_tree(9))
        assert qm.load(url).record["checkpoint"]["number"] == cm.list_checkpoints()[0]["number"]
        with pytest.raises(IntegrityError, match="nobody knows what may go"):
            cm.folder.collect()
        cm.delete_checkpoint(ids[2])
        assert set(cm.verify().values()) == {None}
        assert len(cm.list_checkpoints()) == 4


def test_a_damaged_one_that_was_last_can_be_deleted(url: str) -> None:
    ids = _several(url, 3)
    _spoil(url, f"snapshots/{qm.repository(url).find()}", None)
    with _manager(url) as cm:
        cm.delete_checkpoint(ids[2])
        assert cm.verify() == {ids[1]: None, ids[0]: None}
    assert qm.load(url).record["checkpoint"]["id"] == ids[1]


def test_versions_of_others_below_one_that_nobody_can_read_stay(folder_url: str, no_hour: None) -> None:
    qm.save(qm.MemoryState(classical={"first": 1}), folder_url)
    first = qm.repository(folder_url).find()
    qm.save(qm.MemoryState(classical={"second": 2}), folder_url)
    second = qm.repository(folder_url).find()
    Path(URL.parse(folder_url).key, "snapshots", second).write_bytes(b"")
    with _manager(folder_url, keep=KeepLast(1)) as cm:
        for k in range(3):
            with pytest.warns(UserWarning, match="others were not removed") if k else contextlib.nullcontext():
                cm.create_checkpoint(_tree(k))
        assert qm.load(folder_url).record["checkpoint"]["number"] == 3
    assert qm.repository(folder_url).branches()[f"{UNREADABLE}{second}"] == second
    assert qm.load(f"{folder_url}@{first}").classical == {"first": 1}


def test_one_that_cannot_be_followed_is_left_by_the_next(folder_url: str) -> None:
    _several(folder_url, 2)
    for path in Path(URL.parse(folder_url).key, "manifests").iterdir():
        path.write_bytes(b"")
    with _manager(folder_url) as cm:
        with pytest.raises(QuantumMemoryError):
            cm.create_checkpoint(_tree(8))
        made = cm.create_checkpoint(_tree(9))
        assert cm.verify(made) == {made: None}
        assert qm.load(folder_url).record["checkpoint"]["id"] == made


@pytest.mark.parametrize("text", [b"", b'{"snapshot":"nowhere"}', b"\xff"])
def test_a_tag_that_cannot_be_read_is_damage_and_nothing_goes(url: str, no_hour: None, text: bytes) -> None:
    """To Icechunk it is no tag, so that it would remove what the tag names."""
    ids = _several(url, 4)
    snapshot = qm.repository(url).find(ids[1])
    before = Repository(URL.parse(url))._place.references().tags
    _spoil(url, f"refs/tag.{ids[1]}/ref.json", text)
    with _manager(url) as cm:
        assert cm.verify()[ids[1]] is not None
        assert cm.get_statistics()["damaged"] == 1
        with pytest.raises(IntegrityError, match=ids[1]):
            cm.folder.collect()
        assert qm.load(f"{url}@{snapshot}").record["checkpoint"]["id"] == ids[1]
    assert Repository(URL.parse(url))._place.references().tags == before
    with pytest.warns(UserWarning, match="a tag cannot be read"):
        assert len(list(qm.repository(url).history())) == 4
    with _manager(url) as cm:
        cm.delete_checkpoint(ids[1])
        assert set(cm.verify().values()) == {None}
        assert _numbers(url) == [4, 3, 1]


def test_a_plain_save_of_the_same_is_a_version_of_its_own(folder_url: str, tmp_path: Path, no_hour: None) -> None:
    """What was saved as a version stays, also where a checkpoint of the same goes."""
    qm.save(qm.MemoryState(classical={"x": np.arange(4)}), tmp_path / "a.qms")
    memory = qm.load(tmp_path / "a.qms")  # with a record, which both of them keep
    with _manager(folder_url, max_checkpoints=1) as cm:
        one = cm.create_checkpoint(memory)
        saved = qm.save(memory, folder_url)
        assert "checkpoint" not in qm.load(folder_url).record
        cm.delete_checkpoint(one)
        assert qm.load(folder_url) == memory
        for k in range(3):
            cm.create_checkpoint(_tree(k))
        cm.folder.collect()
        assert saved.content_id in [one.metadata["content_id"] for one in qm.repository(folder_url).history()]


def test_those_saved_beside_one_another_are_found_when_the_newest_goes(folder_url: str) -> None:
    """The newest is not in the history of the others then, but follows what they follow."""
    with _manager(folder_url) as cm:
        one = cm.create_checkpoint(_tree(1))
        beside, rest = [], KeptVersions.end_of

        def end_of(self: KeptVersions, line: str) -> str:
            return beside[0] if beside else rest(self, line)

        with pytest.MonkeyPatch.context() as patch:
            beside.append("1CECHNKREP0F1RSTCMT0")  # as who has begun before there was any
            patch.setattr(KeptVersions, "end_of", end_of)
            two = cm.create_checkpoint(_tree(2))
        assert [each.metadata["name"] for each in qm.repository(folder_url).history()] == [two]
        cm.delete_checkpoint(two)
    assert qm.load(folder_url).record["checkpoint"]["id"] == one


def test_what_a_writer_follows_is_not_collected(
    folder_url: str, monkeypatch: pytest.MonkeyPatch, no_hour: None
) -> None:
    """Others save, remove and collect between the look at the end of the branch and the branch of the writer."""
    tree = _tree(0)
    with _manager(folder_url) as cm, _manager(folder_url, keep=KeepLast(1)) as other:
        cm.create_checkpoint(tree)
        real, times = KeptVersions.writing, []

        def writing(self: KeptVersions, *arguments: Any, **options: Any) -> Any:
            if not times:
                times.append(1)
                other.create_checkpoint({"other": np.arange(3)})
                other.folder.collect()
            return real(self, *arguments, **options)

        monkeypatch.setattr(KeptVersions, "writing", writing)
        made = cm.create_checkpoint(tree)
        cm.folder.collect()
        assert cm.verify()[made] is None
        assert len(cm.list_checkpoints()) == 2


def test_a_reader_is_told_that_it_was_removed(folder_url: str, no_hour: None) -> None:
    ids = _several(folder_url, 2)
    with _manager(folder_url) as cm, _manager(folder_url) as other:

        def read() -> None:
            with cm.folder.reading(ids[0]) as reader:
                other.delete_checkpoint(ids[0])
                reader.check_everything()

        with pytest.raises(MissingError):
            read()
        assert cm.verify() == {ids[1]: None}


def test_one_that_is_tagged_while_it_goes_stays(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with _manager(url) as cm, _manager(url, keep=KeepLast(1)) as other:
        ids = [cm.create_checkpoint(_tree(k)) for k in range(3)]
        real = KeptVersions.remove

        def remove(self: KeptVersions, *arguments: Any, **options: Any) -> None:
            cm.tag(ids[0], "paper")
            real(self, *arguments, **options)

        monkeypatch.setattr(KeptVersions, "remove", remove)
        other.prune()
        monkeypatch.undo()
        assert [(one["number"], one["tags"]) for one in cm.list_checkpoints()] == [(3, []), (1, ["paper"])]
        assert cm.restore("paper")["k"] == 0
        there = [cm.folder.ids()]  # and nothing when that is asked once more: others have removed it
        monkeypatch.setattr(cm.folder, "ids", lambda: there.pop() if there else [])
        with pytest.raises(MissingError):
            cm.pin(ids[2])


@pytest.mark.parametrize("name", ["garbage_collect", "chunk_storage_stats"])
def test_who_collects_waits_for_who_ends(folder_url: str, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Icechunk gives up where a branch has gone since it listed them, as those of writers do all the time."""
    _several(folder_url, 2)
    real, times = getattr(icechunk.Repository, name), list[int]()

    def read_all(self: icechunk.Repository, *arguments: Any, **options: Any) -> Any:
        times.append(1)
        if len(times) == 1:
            self.lookup_branch("writing-000000000001-0123456789abcdef")
        return real(self, *arguments, **options)

    monkeypatch.setattr(icechunk.Repository, name, read_all)
    with _manager(folder_url) as cm:
        assert cm.folder.collect().bytes_kept == cm.get_statistics()["stored_bytes"] > 0
    assert len(times) > 1


def test_two_remove_the_same(url: str) -> None:
    ids = _several(url, 3)
    with _manager(url) as one, _manager(url) as other:
        one.folder.remove(ids[:2])
        other.folder.remove(ids[:2])
        one.folder.collect()
        other.folder.remove(ids[:2])
        assert _numbers(url) == [3]


def test_nothing_is_left_of_the_names_of_those_that_went(url: str, no_hour: None) -> None:
    """Each would be looked at whenever somebody lists what there is."""
    with _manager(url, keep=KeepLast(2)) as cm:
        for k in range(5):
            cm.create_checkpoint(_tree(k))
        cm.folder.collect()
        assert _numbers(url) == [5, 4]
        found = Repository(URL.parse(url))._place.references()
        assert (len(found.tags), found.removed) == (2, frozenset())


def test_listing_reads_no_tag(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With two requests for each, whatever was ever saved, every save would be slower than the one before."""
    with _manager(url, keep=KeepLast(5)) as cm:
        for k in range(3):
            cm.create_checkpoint(_tree(k))
        looks: list[str] = []
        real = KeptVersions._tagged
        monkeypatch.setattr(KeptVersions, "_tagged", lambda self, name: looks.append(name) or real(self, name))
        cm.folder.repository._repository.list_tags = None  # type: ignore[union-attr, method-assign]
        cm.create_checkpoint(_tree(3))
        assert len(cm.list_checkpoints()) == 4
        assert looks == []
        lists: list[None] = []
        rest = type(cm.folder).ids
        monkeypatch.setattr(type(cm.folder), "ids", lambda self: lists.append(None) or rest(self))
        cm.create_checkpoint(_tree(4))
        assert len(lists) == 2  # to number it, and to see that nothing goes


def test_storage_that_fails_is_no_damage(prefix: str, s3: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the next would be given the number of one that is there, and be taken for older than that."""
    _several(prefix, 3)

    def refuse(self: KeptVersions, snapshot: str) -> Any:
        raise StorageError("nobody answers")

    with _manager(prefix) as cm:
        with monkeypatch.context() as patch:
            patch.setattr(KeptVersions, "noted_of", refuse)
            with pytest.raises(StorageError):
                cm.list_checkpoints()
            with pytest.raises(StorageError):
                cm.create_checkpoint(_tree(9))
        cm.create_checkpoint(_tree(4))
        assert _numbers(prefix) == [4, 3, 2, 1]


def test_names_that_icechunk_does_not_take(url: str, tmp_path: Path) -> None:
    names = ["a/b é", "\ud800", "x" * 10_000, "two\nlines", "main"]
    for place in (url, tmp_path / "folder"):
        with _manager(place) as cm:
            for name in names:
                cm.create_checkpoint({"k": 1}, name)
            assert [one["name"] for one in reversed(cm.list_checkpoints())] == names
    assert all("\n" not in one.message and len(one.message) < 300 for one in qm.repository(url).history())


@pytest.mark.parametrize(
    "branch", ["writing-000000000000-0000000000000000", "ABCDEFGHIJKLMNOPQRST", "20260101_000000_000000_abcdef"]
)
def test_branches_that_mean_something_else(url: str, branch: str) -> None:
    with _manager(url, branch=branch) as cm, pytest.raises(InvalidStateError, match="cannot be called"):
        cm.create_checkpoint({"k": 1})


def test_a_branch_is_not_called_as_a_version_is(url: str) -> None:
    qm.save(qm.MemoryState(classical={"k": 1}), f"{url}@final")
    with _manager(url, branch="final") as cm:
        with pytest.raises(ConflictError, match="there is a tag 'final'"):
            cm.create_checkpoint({"k": 2})
        assert cm.list_checkpoints() == []
    assert qm.load(f"{url}@final").classical == {"k": 1}


def _in_fork(cm: CheckpointManager, answers: Any) -> None:
    for use in (cm.resume, cm.list_checkpoints, lambda: cm.create_checkpoint({"k": 1})):
        try:
            answers.put(repr(use()))  # type: ignore[no-untyped-call]
        except QuantumMemoryError as error:
            answers.put(type(error).__name__)


def test_a_fork_is_told_so(folder_url: str) -> None:
    context = multiprocessing.get_context("fork")
    with _manager(folder_url) as cm:
        cm.create_checkpoint({"k": 1})
        answers = context.SimpleQueue()
        with cm.folder._guard:  # type: ignore[attr-defined]
            process = context.Process(target=_in_fork, args=(cm, answers))
            process.start()
        process.join(20)
        hung = process.is_alive()
        process.kill()
        assert not hung
        assert [answers.get() for _ in range(3)] == ["InvalidStateError"] * 3


def test_what_is_below_refs() -> None:
    found = references_in(
        [
            ("tag.a", "ref.json"), ("tag.b", "ref.json"), ("tag.b", "ref.json.deleted"), ("tag.c", "ref.json.deleted"),
            ("tag.d", ".ref.json.0123456789abcdef.qmtmp"), ("branch.main", "ref.json"), ("branch.x", "other"),
            ("x", "ref.json"), ("tag.a.b", "ref.json"),
        ]
    )  # fmt: skip
    assert (found.tags, found.removed, found.branches) == ({"a", "a.b"}, {"b", "c"}, {"main"})
