"""Many files at once, and large ones by many."""

from __future__ import annotations

import json
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

import quantum_memory as qm
from quantum_memory.errors import IntegrityError, MissingFileError, UnsafeError
from quantum_memory.formats import verify_all as module
from quantum_memory.formats.registry import SUFFIXES, OpenOptions
from quantum_memory.formats.urls import URL

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def pool(s3: object) -> Iterator[ProcessPoolExecutor]:
    """Two processes with the environment of `s3`."""
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as made:
        yield made


def _state(k: int, qubits: int = 4) -> qm.StateVector:
    amplitudes = np.random.default_rng(k).normal(size=1 << qubits)
    return qm.StateVector(amplitudes / np.linalg.norm(amplitudes), qubit_order="big")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with forty states, of which three are damaged, and other files."""
    for k in range(40):
        path = tmp_path / f"{k % 4}" / f"{k:02}.{'qms' if k % 3 else 'msgpack'}"
        path.parent.mkdir(exist_ok=True)
        qm.save(_state(k), path, durable=False)
    (tmp_path / "notes.txt").write_text("not a state")
    (tmp_path / "settings.json").write_text('{"not": "a state"}')
    np.savez(tmp_path / "others.npz", x=np.arange(3))
    return tmp_path


def _damage(folder: Path) -> set[str]:
    paths = [folder / "1" / "05.qms", folder / "2" / "06.msgpack", folder / "3" / "39.msgpack"]
    for path in paths:
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    return set(map(str, paths))


@pytest.mark.parametrize("executor", [None, "pool"])
def test_a_folder_is_checked_as_one(folder: Path, executor, pool, monkeypatch) -> None:
    monkeypatch.setattr(module, "_MOST_FILES", dict.fromkeys(module._MOST_FILES, 7))
    done: list[int] = []
    report = qm.verify(folder, executor=pool if executor else None, progress=done.append)
    assert (report.arrays, report.format, report.problems) == (40, "several", [])
    assert sum(done) == report.bytes == sum(path.stat().st_size for path in folder.rglob("[0-9][0-9].*"))
    bad = _damage(folder)
    with pytest.raises(IntegrityError, match="3 of 40 are not whole") as caught:
        qm.verify(folder, executor=pool if executor else None)
    assert caught.value.damaged.keys() == bad
    found = {one.path: one for one in qm.verify_all([folder], executor=pool if executor else None)}
    assert {path for path, one in found.items() if one.error} == bad
    assert all(found[path].exit_code == 4 and path in found[path].error for path in bad)
    assert all(one.content_id for one in found.values() if not one.error)


def test_the_order_is_that_of_the_paths(folder: Path) -> None:
    paths = [folder / "1" / "05.qms", folder / "nothing.qms", folder / "0" / "00.msgpack"]
    found = list(qm.verify_all(paths))
    assert [one.path for one in found] == list(map(str, paths))
    assert found[1].exit_code == 6
    assert list(qm.verify_all([])) == []
    (folder / "empty").mkdir()
    with pytest.raises(UnsafeError, match="this is a folder"):
        qm.verify(folder / "empty")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_files_of_every_format_are_found_in_a_folder(tmp_path: Path, suffix) -> None:
    saved = qm.save(_state(1), tmp_path / f"a{suffix}")
    options = OpenOptions(allow_pickle=True)
    [one] = qm.verify_all([tmp_path], options=options)
    assert (one.path, one.content_id, one.error) == (saved.path, saved.content_id, None)


def test_a_journal_says_what_is_done(folder: Path, monkeypatch, tmp_path_factory) -> None:
    monkeypatch.setattr(module, "_MOST_FILES", dict.fromkeys(module._MOST_FILES, 7))
    journal = tmp_path_factory.mktemp("j") / "journal"
    checked: list[str] = []
    one_of_them = module._checked
    monkeypatch.setattr(module, "_checked", lambda path, *how: checked.append(path) or one_of_them(path, *how))
    first = list(qm.verify_all([folder], journal=journal))
    assert len(checked) == 40
    assert list(qm.verify_all([folder], journal=journal)) == first
    assert len(checked) == 40
    # Cut off within a line: what was in it, and after it, is checked again.
    lines = journal.read_text().splitlines()
    journal.write_text("\n".join(lines[:2]) + "\n" + lines[2][: len(lines[2]) // 2])
    assert list(qm.verify_all([folder], journal=journal)) == first
    assert len(checked) == 40 + 26
    # A file that has changed is, with those beside it.
    qm.save(_state(99), folder / "1" / "05.qms")
    again = {one.path: one for one in qm.verify_all([folder], journal=journal)}
    assert len(checked) == 40 + 26 + 7
    assert again[str(folder / "1" / "05.qms")].content_id == qm.MemoryState(_state(99)).content_id
    journal.write_text('{"x": 1}\n[1, 2, 3]\n["a", [{"path": 3}]]\n' + json.dumps("x") + "\n")
    assert len(list(qm.verify_all([folder], journal=journal))) == 40


@pytest.mark.parametrize("executor", [None, "pool"])
def test_the_bytes_of_a_folder_are_checked(folder: Path, executor, pool, monkeypatch, tmp_path_factory) -> None:
    monkeypatch.setattr(module, "_MOST_FILES", dict.fromkeys(module._MOST_FILES, 7))
    how = {"executor": pool if executor else None, "depth": "bytes"}
    report = qm.verify(folder, **how)
    assert (report.arrays, report.format, report.problems, report.content_id) == (40, "several", [], None)
    bad = _damage(folder)
    journal = tmp_path_factory.mktemp("j") / "journal"
    found = list(qm.verify_all([folder], journal=journal, **how))
    assert [one.path for one in found] == [one.path for one in qm.verify_all([folder])]
    assert {one.path for one in found if one.error} == bad
    assert [one.bytes for one in found] == [Path(one.path).stat().st_size for one in found]
    written = journal.read_text()
    assert list(qm.verify_all([folder], journal=journal, **how)) == found
    assert journal.read_text() == written + "\n"
    # What was checked in another depth does not count.
    full = list(qm.verify_all([folder], journal=journal, executor=how["executor"]))
    assert {one.depth for one in full} == {"full"}
    assert all(one.content_id for one in full if not one.error)
    assert list(qm.verify_all([folder], journal=journal, **how)) == found
    assert list(qm.verify_all([folder], journal=journal)) == full


@pytest.mark.parametrize("damage", ["5, -1", "5, true", "5", "5, 6, 7, 8, 9, 10, 11, 12", '{"path": 1}'])
def test_a_journal_that_was_tampered_with_is_not_believed(folder: Path, tmp_path_factory, damage) -> None:
    journal = tmp_path_factory.mktemp("j") / "journal"
    paths = [folder / "1" / "05.qms", folder / "1" / "01.qms"]
    first = list(qm.verify_all(paths, journal=journal, depth="bytes"))
    key, _ = json.loads(journal.read_text())
    journal.write_text(f'["{key}", [{damage}]]\n')
    assert list(qm.verify_all(paths, journal=journal, depth="bytes")) == first
    journal.write_text(f'["{key}", [5, 6]]\n')  # which is what it looks like
    assert [one.bytes for one in qm.verify_all(paths, journal=journal, depth="bytes")] == [5, 6]


@pytest.mark.parametrize("executor", [False, True])
@pytest.mark.parametrize("depth", ["bytes", "full"])
def test_of_very_many_files_only_some_are_listed_ahead(folder: Path, monkeypatch, executor, depth) -> None:
    monkeypatch.setattr(module, "_MOST_FILES", dict.fromkeys(module._MOST_FILES, 7))
    monkeypatch.setattr(module, "_AHEAD", 3)
    drawn: list[int] = []

    def paths() -> Iterator[Path]:
        for k in range(1000):
            drawn.append(k)
            yield folder / "1" / "05.qms"

    with ThreadPoolExecutor(2) as threads:
        found = qm.verify_all(paths(), executor=threads if executor else None, depth=depth)
        next(found)
        assert len(drawn) <= (3 + 1) * 7 + 1
        assert sum(1 for _ in found) == len(drawn) - 1 == 999


def test_what_is_listed_while_it_is_checked_is_in_the_journal_up_to_there(folder: Path, tmp_path_factory) -> None:
    journal = tmp_path_factory.mktemp("j") / "journal"
    found = qm.verify_all([folder / "1", folder / "2"], journal=journal)
    first = next(found)
    found.close()
    assert journal.read_text().count(first.path) == 1
    assert len(list(qm.verify_all([folder / "1", folder / "2"], journal=journal))) == 20


def test_repositories_below_an_address_are_checked(url: str, pool) -> None:
    for k in range(3):
        qm.save(_state(k), f"{url}/runs/{k}")
    qm.save(_state(3), f"{url}/other")
    assert qm.verify(f"{url}/", executor=pool).arrays == 4
    assert qm.verify(f"{url}/runs").arrays == 3
    assert qm.verify(f"{url}/other").content_id == qm.MemoryState(_state(3)).content_id
    with pytest.raises(MissingFileError, match="no saved state in it"):
        qm.verify(f"{url}/nothing")


@pytest.mark.parametrize("executor", [None, "pool"])
def test_a_large_state_is_checked_by_many(folder_url: str, executor, pool) -> None:
    state = _state(1, 20)
    memory = qm.MemoryState(state, {"w": np.arange(5), "empty": np.zeros(0), "nan": np.array([np.nan])})
    with qm.transaction(
        folder_url, n_qubits=20, dtype="float64", qubit_order="big", chunk_bytes=1 << 20, classical=memory.classical
    ) as tx:
        part = tx.fork()
        part.write(0, state.amplitudes)
        tx.merge(part)
    done: list[int] = []
    alone = qm.verify(folder_url)
    report = qm.verify(folder_url, executor=pool if executor else None, progress=done.append)
    assert report == alone
    assert report.content_id == memory.content_id
    assert report.problems == ["1 values of classical/nan are not finite"]
    assert sum(done) == state.nbytes + 48
    for path in Path(URL.parse(folder_url).key, "chunks").iterdir():
        good = path.read_bytes()
        path.write_bytes(good[:1000] + b"\x01" + good[1001:])
        with pytest.raises(IntegrityError, match="chunk"):
            qm.verify(folder_url, executor=pool if executor else None)
        path.write_bytes(good)
    assert qm.verify(folder_url, executor=pool if executor else None) == alone
