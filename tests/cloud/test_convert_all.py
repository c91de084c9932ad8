"""Many files go to addresses; what is there already is not moved again."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import quantum_memory as qm
from quantum_memory.formats import convert_all as module
from quantum_memory.testing.damage import flip_bit

from .dying import Dying


def _state(k: int) -> qm.StateVector:
    amplitudes = np.random.default_rng(k).normal(size=16)
    return qm.StateVector(amplitudes / np.linalg.norm(amplitudes), qubit_order="big")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with six states, and something else; a task has two of them."""
    monkeypatch.setattr(module, "_MOST_FILES", 2)
    (tmp_path / "files" / "a@1").mkdir(parents=True)
    for k in range(6):
        qm.save(_state(k), tmp_path / "files" / ("a@1" if k % 2 else "") / f"{k}.{'qms' if k < 4 else 'msgpack'}")
    (tmp_path / "files" / "notes.txt").write_text("not a state")
    return tmp_path / "files"


def test_a_folder_is_moved_and_what_failed_is_told(pool: ProcessPoolExecutor, folder: Path, folder_url: str) -> None:
    damaged = folder / "a@1" / "3.qms"
    whole = damaged.read_bytes()
    damaged.write_bytes(flip_bit(whole, 4 * len(whole)))
    seen: list[int] = []
    found = list(qm.convert_all(folder, folder_url, executor=pool, progress=seen.append))
    assert len(found) == 6
    assert [(Path(one.source).name, one.exit_code) for one in found if one.error] == [("3.qms", 4)]
    moved = {one.source: one for one in found if one.error is None}
    assert sum(seen) == sum(one.bytes for one in found) > 0
    for source, one in moved.items():
        assert not one.before
        assert qm.load(one.path) == qm.load(source)
        assert one.content_id == qm.verify(one.path).content_id
    damaged.write_bytes(whole)
    again = list(qm.convert_all(folder, folder_url, executor=pool))
    assert [Path(one.source).name for one in again if not one.before] == ["3.qms"]
    assert all(one.error is None for one in again)
    for one in again:
        assert len(list(qm.repository(one.path).history())) == 1
    with ThreadPoolExecutor(2) as threads:  # the newest versions, from one prefix to another
        copied = list(qm.convert_all(folder_url, f"{folder_url}-copy", executor=threads))
    assert sorted(str(one.content_id) for one in copied) == sorted(str(one.content_id) for one in again)
    assert {one.path for one in copied} == {one.path.replace("/run/", "/run-copy/") for one in again}


def test_what_is_there_with_another_content_stays(folder: Path, folder_url: str) -> None:
    qm.save(_state(9), f"{folder_url}/0.qms")
    first, *others = qm.convert_all(folder, folder_url)
    assert (first.exit_code, first.path) == (7, f"{folder_url}/0.qms")
    assert not any(one.error for one in others)
    assert qm.load(f"{folder_url}/0.qms").quantum == _state(9)
    assert not any(one.error for one in qm.convert_all(folder, folder_url, overwrite=True))
    assert len(list(qm.repository(f"{folder_url}/0.qms").history())) == 2
    with pytest.raises(qm.InvalidStateError, match="many are moved to addresses"):
        list(qm.convert_all(folder, str(folder)))


def test_a_run_whose_process_was_killed_goes_on(folder: Path, folder_url: str, tmp_path: Path) -> None:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as made:
        dying = Dying(made, "_moved_batch", tmp_path / "dead")
        with pytest.raises(qm.StorageError, match="has died"):
            list(qm.convert_all(folder, folder_url, executor=dying))
    again = list(qm.convert_all(folder, folder_url))
    assert [one.before for one in again].count(True) == 2, "which one task had moved"
    assert not any(one.error for one in again)
