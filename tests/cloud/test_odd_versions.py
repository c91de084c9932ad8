"""Versions that follow one of another shape, one that is damaged, or one that is the same; memories with odd names."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
import zarr

import quantum_memory as qm
from quantum_memory.cloud.layout import ATTRIBUTE
from quantum_memory.cloud.repository import Repository
from quantum_memory.errors import ConflictError, IntegrityError, InvalidStateError
from quantum_memory.formats.urls import URL

_KEYS = (
    "c", "zarr.json", "0", "c/0", "..", ".", "__x", "a.b", "A", "a", "é", "%", " ", "", "~", "x" * 500, "é" * 500,
    "a\\b", "a\nb", "digests", "*", "?", "[x]", "#", ":", "c0",
)  # fmt: skip


def _random(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).normal(size=shape)


def _kept(memory: qm.MemoryState, url: str) -> None:
    saved = qm.save(memory, url)
    assert qm.load(url) == memory
    assert qm.verify(url).content_id == saved.content_id == memory.content_id


def _largest_chunk(url: str) -> Path:
    return max(Path(URL.parse(url).key, "chunks").iterdir(), key=lambda path: path.stat().st_size)


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_an_array_becomes_a_dict_of_arrays_and_back(url: str) -> None:
    for classical in (
        {"a": np.arange(5)},
        {"a": {"b": np.arange(6), "c": {"d": _random(400, 500)}}},
        {"a": _random(400, 600)},
        np.arange(7),
        {"x": np.arange(8)},
        np.arange(9),
    ):
        _kept(qm.MemoryState(classical=classical), url)


def test_an_array_beside_a_dict_whose_key_is_spelled_the_same(folder_url: str) -> None:
    _kept(qm.MemoryState(classical={1: np.arange(5), "1": {"b": _random(400, 500)}}), folder_url)
    _kept(qm.MemoryState(classical={1: np.arange(6), "1": np.arange(7)}), folder_url)
    _kept(qm.MemoryState(classical={1: {"b": np.arange(8)}, "1": _random(400, 500)}), folder_url)
    _kept(qm.MemoryState(classical={1: np.arange(5)}), folder_url)


def test_any_key_is_kept(folder_url: str) -> None:
    flat = {key: np.arange(3) + index for index, key in enumerate(_KEYS)}
    _kept(qm.MemoryState(classical=flat), folder_url)
    nested = {key: {other: np.full((2, 2), at) for at, other in enumerate(_KEYS)} for key in _KEYS}
    _kept(qm.MemoryState(classical=nested), folder_url)


def test_digests_of_what_is_short_now_are_gone(folder_url: str) -> None:
    _kept(qm.MemoryState(classical={"a": _random(400, 500)}), folder_url)
    _kept(qm.MemoryState(classical={"a": _random(4, 5)}), folder_url)
    repository = qm.repository(folder_url)
    group = zarr.open_group(repository.store(repository.find()), mode="r")
    assert "digests/classical/a" not in group
    for n_qubits in (17, 3):
        with qm.transaction(folder_url, n_qubits=n_qubits) as tx:
            part = tx.fork()
            part.write(0, np.ones(1 << n_qubits, complex))
            tx.merge(part)
        group = zarr.open_group(repository.store(repository.find()), mode="r")
        assert ("digests/quantum/amplitudes" in group) == (n_qubits == 17)
    assert qm.verify(folder_url).problems


@pytest.mark.parametrize("same", [True, False], ids=["the same", "another"])
def test_what_is_damaged_is_restored_by_saving_it_again(folder_url: str, same: bool) -> None:
    state = qm.StateVector(_random(1 << 17), qubit_order="big")  # exactly one chunk
    qm.save(state, folder_url)
    _flip(_largest_chunk(folder_url))
    with pytest.raises(IntegrityError):
        qm.load(folder_url)
    again = state if same else qm.StateVector(-state.amplitudes, qubit_order="big")
    told: list[int] = []
    qm.save(again, folder_url, progress=told.append)
    assert sum(told) == state.nbytes
    _kept(qm.MemoryState(again), folder_url)
    assert len(list(qm.repository(folder_url).history())) == 2


def test_a_copy_is_converted_over_what_is_damaged(tmp_path: Path, folder_url: str) -> None:
    memory = qm.MemoryState(qm.StateVector(_random(1 << 17), qubit_order="big"), {"a": _random(5)})
    qm.save(memory, tmp_path / "copy.qms")
    qm.save(memory, folder_url)
    _flip(_largest_chunk(folder_url))
    assert qm.convert(tmp_path / "copy.qms", folder_url, overwrite=True).content_id == memory.content_id
    assert qm.load(folder_url) == memory


def _damage_metadata(url: str, change: dict[str, object]) -> None:
    repository = Repository(URL.parse(url))
    session = repository._repository.writable_session("main")
    group = zarr.open_group(session.store, mode="r+")
    node = group.attrs[ATTRIBUTE]
    assert isinstance(node, dict)
    group.attrs[ATTRIBUTE] = node | change
    session.commit("harm")


@pytest.mark.parametrize("change", [{"sha256": "0" * 64}, {"metadata": "{}"}, {"metadata": 3}])
def test_a_version_follows_one_that_says_nothing_readable(folder_url: str, change: dict[str, object]) -> None:
    first = qm.MemoryState(qm.StateVector(_random(4), qubit_order="big"), {"a": {"b": _random(400, 500)}})
    second = qm.MemoryState(classical={"a": _random(7)})
    qm.save(first, f"{folder_url}@first")
    _damage_metadata(folder_url, change)
    with pytest.raises(IntegrityError):
        qm.load(folder_url)
    with pytest.raises(ConflictError, match="there is a memory already"):
        qm.save(second, folder_url, overwrite=False)
    _kept(second, folder_url)
    assert qm.load(f"{folder_url}@first") == first
    _damage_metadata(folder_url, change)
    with qm.transaction(folder_url, n_qubits=2) as tx:
        part = tx.fork()
        part.write(0, np.ones(4, complex))
        tx.merge(part)
    assert qm.load(folder_url) == qm.MemoryState(qm.StateVector(np.ones(4, complex), qubit_order="unstated"))


def test_digests_that_cannot_be_read_are_in_nobodys_way(folder_url: str) -> None:
    amplitudes = _random(1 << 19)
    qm.save(qm.StateVector(amplitudes, qubit_order="big"), folder_url)
    chunks = sorted(Path(URL.parse(folder_url).key, "chunks").iterdir(), key=lambda path: path.stat().st_size)
    _flip(chunks[0])
    with pytest.raises(IntegrityError, match="digests"):
        qm.load(folder_url)
    with qm.transaction(folder_url) as tx:
        part = tx.fork()
        part.write(0, amplitudes * 0)
        tx.merge(part)
    assert not qm.load(folder_url).quantum.amplitudes.any()
    qm.save(qm.StateVector(amplitudes, qubit_order="big"), folder_url)
    assert np.array_equal(qm.load(folder_url).quantum.amplitudes, amplitudes)


def test_what_a_snapshot_holds_is_what_the_history_says(folder_url: str) -> None:
    one, two = (qm.MemoryState(classical={"a": np.arange(size)}) for size in (2, 3))
    qm.save(one, folder_url)
    repository = Repository(URL.parse(folder_url))
    session = repository._repository.writable_session("main")
    group = zarr.open_group(session.store, mode="r+")
    group.attrs["other"] = 1
    session.commit("it says that it is another", {"content_id": two.content_id})
    with pytest.raises(IntegrityError, match="not the one that its history says"):
        qm.load(folder_url)


@pytest.mark.parametrize("name", ["A" * 20, "0123456789ABCDEFGHJK"])
def test_a_name_is_no_snapshot(folder_url: str, name: str) -> None:
    with pytest.raises(InvalidStateError, match="cannot be called"):
        qm.save(qm.MemoryState(), f"{folder_url}@{name}")


def test_a_save_waits_for_the_lock_once(folder_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    qm.save(qm.MemoryState(classical={"a": 1}), folder_url)
    monkeypatch.setattr("quantum_memory.cloud.folder_lock._WAIT", 0.2)
    inside, done = threading.Event(), threading.Event()

    def hold() -> None:
        with Repository(URL.parse(folder_url))._place._locked():
            inside.set()
            done.wait(60)

    holder = threading.Thread(target=hold)
    holder.start()
    assert inside.wait(30)
    try:
        with pytest.raises(ConflictError, match=r"waited 0\.2 s"):
            qm.save(qm.MemoryState(classical={"a": 2}), folder_url)
    finally:
        done.set()
        holder.join()
    assert qm.load(folder_url).classical == {"a": 1}


def test_progress_is_told_once_whatever_it_takes(folder_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    state = qm.StateVector(_random(1 << 17), qubit_order="big")
    commit, quicker = Repository.commit, []

    def second(self: Repository, *said: object, **options: object) -> str:
        if not quicker:
            quicker.append(1)
            qm.save(qm.MemoryState(classical={"quicker": True}), folder_url)
        return commit(self, *said, **options)

    monkeypatch.setattr(Repository, "commit", second)
    told: list[int] = []
    qm.save(state, folder_url, progress=told.append)
    assert quicker
    assert sum(told) == state.nbytes
    assert len(list(qm.repository(folder_url).history())) == 2
    assert qm.load(folder_url).quantum == state


def test_what_was_saved_without_waiting_for_the_disk_is_made_durable(folder_url: str, monkeypatch) -> None:
    synced: list[str] = []
    monkeypatch.setattr("quantum_memory.durability.write_back.syncfs", lambda _, folder: synced.append(folder))
    state = qm.StateVector(_random(4), qubit_order="big")
    qm.save(state, folder_url)
    synced.clear()
    qm.save(qm.StateVector(_random(8), qubit_order="big"), folder_url, durable=False)
    assert not synced
    qm.save(qm.StateVector(_random(8), qubit_order="big"), folder_url)
    assert synced == [URL.parse(folder_url).key]
