"""What somebody has left who was killed, or somebody else has put there: it gets in nobody's way, and is not lost."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import obstore
import pytest
import zarr

import quantum_memory as qm
from quantum_memory.errors import ConflictError, MissingFileError
from quantum_memory.formats.urls import URL

from .numbered import history, number_of, numbered, save_in_parts

NOBODY = "0" * 20


def files(url: str) -> list[str]:
    root = Path(URL.parse(url).key)
    return sorted(str(path.relative_to(root)) for path in (root / "refs").rglob("*"))


def test_of_branches_on_which_versions_were_written_nothing_stays(folder_url: str) -> None:
    for number in range(3):
        qm.save(numbered(0, number), folder_url)
    with pytest.raises(ConflictError):
        qm.save(numbered(0, 3), folder_url, overwrite=False)
    assert files(folder_url) == ["refs/branch.main", "refs/branch.main/ref.json"]


@pytest.mark.parametrize("what", ["tag", "branch"])
def test_a_name_that_somebody_was_killed_in_giving_is_free(folder_url: str, what: str) -> None:
    qm.save(numbered(0, 0), folder_url)
    left = Path(URL.parse(folder_url).key, ".reference.0123456789abcdef.qmtmp")
    left.mkdir()
    (left / "ref.json").write_bytes(b"{")
    repository = qm.repository(folder_url)
    assert (repository.tags(), set(repository.branches())) == ({}, {"main"})
    assert len(history(folder_url)) == 1
    getattr(repository, what)("name", repository.find())
    assert number_of(qm.load(f"{folder_url}@name")) == (0, 0)
    assert not left.exists()


def left_by_who_was_killed(url: str) -> tuple[Path, list[Path]]:
    """Write a version to a branch on which nobody ends it; return its reference, and what it has written."""
    root = Path(URL.parse(url).key)
    before = {path for path in root.rglob("*") if path.is_file()}
    repository = qm.repository(url)
    with repository.writing() as writing:
        zarr.create_array(writing.session.store, name="numbers", data=np.arange(1000))
        writing.session.commit("of nobody")
        reference = root / "refs" / f"branch.{writing.branch}" / "ref.json"
        text = reference.read_bytes()
    reference.parent.mkdir()
    reference.write_bytes(text)
    return reference, [path for path in root.rglob("*") if path.is_file() and path not in before]


@pytest.mark.parametrize("damaged", ["", "refs", "snapshots", "manifests", "transactions", "chunks"])
def test_branches_of_who_was_killed_are_in_nobodys_way(folder_url: str, damaged: str) -> None:
    """A power cut may have left what is on one as nothing but zeros, or with nothing in it."""
    qm.save(numbered(0, 0), folder_url)
    reference, written = left_by_who_was_killed(folder_url)
    spoiled = [path for path in written if damaged and damaged in path.parts]
    assert spoiled or not damaged
    for path in spoiled:
        path.write_bytes(bytes(path.stat().st_size) if damaged == "snapshots" else b"")
    for number in (1, 2):
        qm.save(numbered(0, number), f"{folder_url}@v{number}")
    repository = qm.repository(folder_url)
    assert set(repository.branches()) == {"main"}
    assert [number_of(qm.load(f"{folder_url}@{one.id}")) for one in history(folder_url)] == [(0, n) for n in range(3)]
    goes = damaged in {"refs", "snapshots", "manifests"}
    assert repository.prune().writing == (not goes)
    assert reference.parent.exists() is not goes
    if not goes:
        old = f"branch.writing-{int(time.time()) - 30 * 86400:012x}-0123456789abcdef"
        reference.parent.rename(reference.parent.with_name(old))
    pruned = repository.prune(keep=1)
    assert (pruned.writing, pruned.given_up) == (0, not goes)
    assert [path for path in files(folder_url) if "branch" in path] == ["refs/branch.main", "refs/branch.main/ref.json"]
    assert number_of(qm.load(folder_url)) == (0, 2)


def test_damage_of_a_version_ends_nobody_who_writes(folder_url: str) -> None:
    for number in range(2):
        qm.save(numbered(0, number), folder_url)
    reference, _ = left_by_who_was_killed(folder_url)
    Path(URL.parse(folder_url).key, "snapshots", history(folder_url)[0].id).write_bytes(b"")
    with pytest.raises(qm.IntegrityError):
        qm.repository(folder_url).prune()
    assert reference.exists()


def test_a_damaged_name_is_in_the_way_of_no_other_one(folder_url: str) -> None:
    qm.save(numbered(0, 0), f"{folder_url}@one")
    qm.repository(folder_url).branch("trial", qm.repository(folder_url).find())
    for name in ("tag.one", "branch.trial"):
        Path(URL.parse(folder_url).key, "refs", name, "ref.json").write_bytes(b"")
    qm.save(numbered(0, 1), f"{folder_url}@two")
    assert number_of(qm.load(f"{folder_url}@two")) == (0, 1)
    for name in ("one", "trial"):
        with pytest.raises(qm.IntegrityError):
            qm.load(f"{folder_url}@{name}")


def test_what_is_not_there_gets_no_name(url: str) -> None:
    qm.save(numbered(0, 0), url)
    repository = qm.repository(url)
    for name in (NOBODY, "main", ""):
        with pytest.raises(MissingFileError, match="no snapshot"):
            repository.tag("one", name)
        with pytest.raises(MissingFileError, match="no snapshot"):
            repository.branch("trial", name)
        with pytest.raises(MissingFileError, match="no snapshot"):
            repository.rollback(name)
    assert (repository.tags(), set(repository.branches())) == ({}, {"main"})
    assert number_of(qm.load(url)) == (0, 0)


def test_a_repository_is_begun_where_somebody_was_killed_in_beginning_it(s3, prefix: str) -> None:
    qm.save(numbered(0, 0), prefix)
    first, second = (s3.store(part) for part in (prefix.rpartition("/")[2], prefix.rpartition("/")[2] + "-2"))
    for path in ("snapshots/1CECHNKREP0F1RSTCMT0", "quantum-memory/probe-0"):
        content = b"" if "probe" in path else bytes(obstore.get(first, path).bytes())
        obstore.put(second, path, content)
    qm.save(numbered(0, 1), f"{prefix}-2")
    assert number_of(qm.load(f"{prefix}-2")) == (0, 1)


@pytest.mark.parametrize("what", ["a file", "a repository whose reference is gone"])
def test_where_there_is_something_else_no_repository_is_begun(s3, prefix: str, what: str) -> None:
    store = s3.store(prefix.rpartition("/")[2])
    if what == "a file":
        obstore.put(store, "letter.txt", b"of somebody")
    else:
        qm.save(numbered(0, 0), prefix)
        obstore.delete(store, "refs/branch.main/ref.json")
    before = sorted(one["path"] for one in obstore.list(store).collect())
    with pytest.raises(ConflictError, match="something else"):
        qm.save(numbered(0, 1), prefix)
    assert sorted(one["path"] for one in obstore.list(store).collect()) == before


def test_what_prepares_a_version_counts_for_none(folder_url: str) -> None:
    for number in range(4):
        memory = numbered(0, number, number + 1)  # of another size, so that there is something to prepare
        save_in_parts(memory, folder_url)
    qm.repository(folder_url).prune(keep=3)
    assert [number_of(qm.load(f"{folder_url}@{one.id}")) for one in history(folder_url)] == [(0, n) for n in (1, 2, 3)]


def test_a_version_in_the_place_of_another_one_is_noticed(folder_url: str) -> None:
    for number in range(2):
        qm.save(numbered(0, number), folder_url)
    first, second = history(folder_url)
    snapshots = Path(URL.parse(folder_url).key, "snapshots")
    (snapshots / second.id).write_bytes((snapshots / first.id).read_bytes())
    for use in (qm.load, qm.verify, history):
        with pytest.raises(qm.IntegrityError, match=f"{second.id} says that it is {first.id}"):
            use(folder_url)
    assert number_of(qm.load(f"{folder_url}@{first.id}")) == (0, 0)
