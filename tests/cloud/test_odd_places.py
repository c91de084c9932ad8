"""Addresses of places that are something else, and of repositories that somebody has only begun to make."""

from __future__ import annotations

import fcntl
import os
import threading
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import quantum_memory as qm
from quantum_memory.cloud.folder_place import FolderPlace
from quantum_memory.errors import ConflictError, MissingFileError, StorageError
from quantum_memory.formats.urls import URL

if TYPE_CHECKING:
    from .servers import Server

_STATE = qm.StateVector([0.6, 0.8j], qubit_order="big")


def _other(seed: int) -> qm.StateVector:
    return qm.StateVector([1, seed * 1j], qubit_order="big")


def test_looking_makes_no_folder(tmp_path: Path) -> None:
    for verb in (qm.load, qm.info, qm.open, qm.verify, qm.repository):
        with pytest.raises(MissingFileError):
            verb(f"icechunk+file://{tmp_path}/nothing/here")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("verb", [qm.load, lambda url: qm.save(_STATE, url)], ids=["load", "save"])
def test_a_folder_that_is_none_is_said(tmp_path: Path, verb) -> None:
    (tmp_path / "file").write_text("a text")
    with pytest.raises(ConflictError, match="it is no folder"):
        verb(f"icechunk+file://{tmp_path}/file")
    with pytest.raises(StorageError, match="Not a directory"):
        verb(f"icechunk+file://{tmp_path}/file/below")
    with pytest.raises(StorageError, match="File name too long"):
        verb(f"icechunk+file://{tmp_path}/{'x' * 300}")
    assert (tmp_path / "file").read_text() == "a text"


def test_a_folder_with_something_else_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").write_text("a text")
    with pytest.raises(ConflictError, match="something else in this folder"):
        qm.save(_STATE, f"icechunk+file://{tmp_path}/run")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["notes.txt"]
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_links_are_followed(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name, target in (("link", "empty"), ("dangling", "nowhere")):
        (tmp_path / name).symlink_to(tmp_path / target)
        qm.save(_STATE, f"icechunk+file://{tmp_path}/{name}")
        assert qm.load(f"icechunk+file://{tmp_path}/{target}").quantum == _STATE
        assert (tmp_path / name).is_symlink()


def test_a_folder_whose_maker_has_died_goes_and_one_that_is_being_made_stays(tmp_path: Path, folder_url: str) -> None:
    dead, alive = (tmp_path / f".run.{digit * 16}.qmtmp" for digit in "01")
    for folder in (dead, alive):
        (folder / "snapshots").mkdir(parents=True)
    other = tmp_path / f".other.{'0' * 16}.qmtmp"
    other.mkdir()
    fd = os.open(alive, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        qm.save(_STATE, folder_url)
    finally:
        os.close(fd)
    assert {path.name for path in tmp_path.iterdir()} == {"run", alive.name, other.name}
    assert qm.load(folder_url).quantum == _STATE


@pytest.mark.parametrize("done", [0, 1], ids=["of nothing but a probe", "of its first snapshot"])
def test_a_prefix_whose_maker_has_died_is_taken_up(s3: Server, done: int) -> None:
    whole, begun = uuid.uuid4().hex, uuid.uuid4().hex
    qm.repository(f"s3://{s3.bucket}/{whole}", create=True)
    objects = s3.store(whole)
    names = sorted(one["path"] for batch in objects.list() for one in batch)
    assert names == ["refs/branch.main/ref.json", "snapshots/1CECHNKREP0F1RSTCMT0"]
    s3.store(begun).put("quantum-memory/probe-0", b"first")
    if done:
        s3.store(begun).put(names[1], bytes(objects.get(names[1]).bytes()))
    qm.save(_STATE, f"s3://{s3.bucket}/{begun}@one")
    assert qm.load(f"s3://{s3.bucket}/{begun}@one").quantum == _STATE
    assert len(list(qm.repository(f"s3://{s3.bucket}/{begun}").history())) == 1


def test_a_prefix_that_somebody_else_makes_and_writes_into_meanwhile_is_for_both(
    s3: Server, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3.store(URL.parse(prefix).key).put("quantum-memory/probe-0", b"first")  # somebody has begun
    make = FolderPlace.make

    def after_them(folder: str) -> None:
        monkeypatch.setattr(FolderPlace, "make", make)
        qm.save(_other(1), f"{prefix}@theirs")
        make(folder)

    monkeypatch.setattr(FolderPlace, "make", after_them)
    qm.save(_other(2), f"{prefix}@ours")
    assert len(list(qm.repository(prefix).history())) == 2
    assert [qm.load(f"{prefix}@{name}").quantum for name in ("theirs", "ours")] == [_other(1), _other(2)]


def test_a_prefix_with_something_else_is_refused(s3: Server, prefix: str) -> None:
    qm.save(_STATE, f"{prefix}/inner")
    with pytest.raises(ConflictError, match=r"something else, such as inner/.*Next: choose a prefix"):
        qm.save(_STATE, prefix)
    key = URL.parse(prefix).key
    assert all(one["path"].startswith("inner/") for batch in s3.store(key).list() for one in batch)


def test_who_comes_first_makes_it_and_all_are_kept(url: str) -> None:
    failed: list[BaseException] = []
    ready = threading.Barrier(4)

    def save(seed: int) -> None:
        try:
            ready.wait(30)
            qm.save(_other(seed), f"{url}@t{seed}")
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=save, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failed == []
    assert len(list(qm.repository(url).history())) == 4
    assert all(qm.load(f"{url}@t{seed}").quantum == _other(seed) for seed in range(4))


def test_nothing_is_left_of_a_version_but_itself(folder_url: str) -> None:
    for seed in range(3):
        qm.save(_other(seed), f"{folder_url}@t{seed}")
    refs = Path(URL.parse(folder_url).key, "refs")
    assert {path.name for path in refs.iterdir()} == {"branch.main", "tag.t0", "tag.t1", "tag.t2"}


def test_a_tag_that_was_begun_and_never_made_is_in_nobodys_way(folder_url: str) -> None:
    qm.save(_STATE, folder_url)
    root = Path(URL.parse(folder_url).key)
    (root / "refs" / "tag.half").mkdir()  # what a release or a tool that died may have left
    (root / f".reference.{'0' * 16}.qmtmp").mkdir()
    repository = qm.repository(folder_url)
    repository.tag("half", repository.find())
    assert repository.tags() == {"half": repository.find()}
    assert not list(root.glob(".reference.*"))


@pytest.mark.parametrize("name", ["a.b", "a_b", "a+b", "a=b", "a:b", "a,b", "a-b", "0", "a.", "A"])
def test_a_name_is_one_everywhere(url: str, name: str) -> None:
    qm.save(_STATE, f"{url}@{name}")
    repository = qm.repository(url)
    assert repository.tags() == {name: repository.find()}
    repository.branch(f"{name}b", repository.find())
    qm.save(_other(2), f"{url}@{name}b")
    assert qm.load(f"{url}@{name}").quantum == _STATE
    assert qm.load(f"{url}@{name}b").quantum == _other(2)
    with pytest.raises(ConflictError, match="a tag or a branch"):
        repository.branch(f"{name}b", repository.find())


def test_rollback_beside_a_save_is_told_or_done(url: str, monkeypatch) -> None:
    qm.save(_other(1), f"{url}@one")
    qm.save(_other(2), url)
    repository = qm.repository(url)
    place = repository._place
    move = place.move

    def later(*args: object, **options: object) -> None:
        qm.save(_other(3), url)
        monkeypatch.setattr(place, "move", move)
        place.move(*args, **options)

    monkeypatch.setattr(place, "move", later)
    with pytest.raises(ConflictError, match="somebody else"):
        repository.rollback(repository.find("one"))
    assert qm.load(url).quantum == _other(3)
