"""Parts of transactions that are mixed up, forgotten, taken back twice or too early: nothing wrong is committed."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any

import icechunk
import numpy as np
import pytest

import quantum_memory as qm
from quantum_memory.cloud.chunks import Outgoing, Rows
from quantum_memory.cloud.repository import Repository
from quantum_memory.errors import ConflictError, InvalidStateError, StorageError

if TYPE_CHECKING:
    from quantum_memory.cloud.transaction import Part, Transaction

_MIB = 1 << 20
_QUBITS, _CHUNK = 19, _MIB // 8  # four chunks in complex64


def _amplitudes(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.normal(size=1 << _QUBITS) + 1j * rng.normal(size=1 << _QUBITS)).astype(np.complex64)


def _state(seed: int) -> qm.StateVector:
    return qm.StateVector(_amplitudes(seed), qubit_order="little")


def _begin(url: str, **options: Any) -> Transaction:
    said = {"n_qubits": _QUBITS, "dtype": "complex64", "qubit_order": "little", "chunk_bytes": _MIB}
    return qm.transaction(url, **{**said, **options})


def _written(tx: Transaction, seed: int, low: int = 0, high: int = 4) -> Part:
    part = tx.fork()
    part.write(low * _CHUNK, _amplitudes(seed)[low * _CHUNK : high * _CHUNK])
    return part


def _saved(url: str, seed: int) -> None:
    with _begin(url) as tx:
        tx.merge(_written(tx, seed))


def test_a_merge_that_is_refused_takes_nothing_back(folder_url: str) -> None:
    _saved(folder_url, 1)
    with _begin(folder_url) as tx:
        first, second = _written(tx, 2, 0, 2), _written(tx, 2, 2, 4)
        with pytest.raises(InvalidStateError, match="written by two parts"):
            tx.merge(first, second, pickle.loads(pickle.dumps(first)))
        tx.merge(first, second)
    assert qm.load(folder_url).quantum == _state(2)


def test_parts_are_handed_out_after_others_were_taken_back(url: str) -> None:
    with _begin(url) as tx:
        for low in range(4):
            tx.merge(_written(tx, 1, low, low + 1))
    assert qm.load(url).quantum == _state(1)


def test_a_part_that_was_taken_back_is_not_written_to(folder_url: str) -> None:
    _saved(folder_url, 1)
    with qm.transaction(folder_url, chunk_bytes=_MIB, partial=True) as tx:
        part = _written(tx, 2, 0, 1)
        tx.merge(part)
        with pytest.raises(InvalidStateError, match="would be lost"):
            part.write(_CHUNK, _amplitudes(2)[_CHUNK : 2 * _CHUNK])
        with pytest.raises(InvalidStateError, match="written by two parts"):
            tx.merge(part)
    expected = np.concatenate([_amplitudes(2)[:_CHUNK], _amplitudes(1)[_CHUNK:]])
    assert np.array_equal(qm.load(folder_url).quantum.amplitudes, expected)


def test_a_part_of_another_transaction_is_refused(tmp_path) -> None:
    here, there = (f"icechunk+file://{tmp_path}/{name}" for name in ("here", "there"))
    with _begin(there) as other:
        stranger = _written(other, 1)
        with _begin(here) as tx:
            for one in (stranger, None, tx):
                with pytest.raises(InvalidStateError, match="no part of this transaction"):
                    tx.merge(one)
            tx.merge(_written(tx, 2))
        other.merge(stranger)
    assert qm.load(here).quantum == _state(2)
    assert qm.load(there).quantum == _state(1)
    with _begin(here) as tx:
        left = _written(tx, 3)
        tx.merge(_written(tx, 4))
    with _begin(here) as tx:
        with pytest.raises(InvalidStateError, match="no part of this transaction"):
            tx.merge(left)
        tx.merge(_written(tx, 5))
    assert qm.load(here).quantum == _state(5)


def test_what_was_pickled_comes_back_as_another_part(folder_url: str) -> None:
    _saved(folder_url, 1)
    before = [version.id for version in qm.repository(folder_url).history()]

    def write_to_a_copy(*, merge: bool) -> None:
        with qm.transaction(folder_url, chunk_bytes=_MIB, partial=True) as tx:
            kept = tx.fork()
            pickle.loads(pickle.dumps(kept)).write(0, _amplitudes(2))
            if merge:
                tx.merge(kept)

    for merge in (False, True):
        with pytest.raises(InvalidStateError, match="none that was taken back has written anything"):
            write_to_a_copy(merge=merge)
    assert [version.id for version in qm.repository(folder_url).history()] == before
    with qm.transaction(folder_url, chunk_bytes=_MIB, partial=True, metadata={"k": 1}):
        pass  # only the other parts of the memory change
    assert qm.load(folder_url) == qm.MemoryState(_state(1), metadata={"k": 1})


def test_a_transaction_is_used_in_its_block_and_once(folder_url: str) -> None:
    tx = _begin(folder_url)
    with pytest.raises(InvalidStateError, match="the transaction is not begun"):
        tx.fork()
    with tx:
        part = _written(tx, 1)
        tx.merge(part)
    _saved(folder_url, 2)
    with pytest.raises(InvalidStateError, match="the transaction is over"):
        tx.fork()
    with pytest.raises(InvalidStateError, match="the transaction is over"):
        tx.merge(part)
    with pytest.raises(InvalidStateError, match="begun once"), tx:
        pass
    assert qm.load(folder_url).quantum == _state(2)


def test_parts_that_cannot_be_taken_back_are_not_committed(folder_url: str, monkeypatch) -> None:
    _saved(folder_url, 1)

    def fails(*_: object) -> None:
        raise icechunk.IcechunkError("a conflict")

    def go_on() -> None:
        with _begin(folder_url) as tx:
            part = _written(tx, 2)
            with monkeypatch.context() as patch:
                patch.setattr(type(tx._writing.session), "merge", fails)
                with pytest.raises(StorageError, match="could not take parts back"):
                    tx.merge(part)

    with pytest.raises(InvalidStateError, match="not all parts"):
        go_on()
    assert qm.load(folder_url).quantum == _state(1)


def test_what_failed_may_be_written_again(folder_url: str, monkeypatch) -> None:
    write, failed = Rows.write, []

    def fails_once(self: Rows, index: int, chunk: Outgoing, *, zero: bool) -> None:
        if index == 2 and not failed:
            failed.append(index)
            raise icechunk.IcechunkError("  x error writing object\n  |-> io error\n  `-> Broken pipe (os error 32)")
        write(self, index, chunk, zero=zero)

    monkeypatch.setattr(Rows, "write", fails_once)
    with _begin(folder_url) as tx:
        part = tx.fork()
        with pytest.raises(StorageError, match=r"could not write amplitudes: Broken pipe \(os error 32\)"):
            part.write(0, _amplitudes(1))
        part.write(0, _amplitudes(1))
        tx.merge(part)
    assert failed
    assert qm.load(folder_url).quantum == _state(1)


@pytest.mark.parametrize("n_qubits", [2, _QUBITS])
def test_zeros_take_the_place_of_what_was_there(url: str, n_qubits: int) -> None:
    for value in (0.5, 0.0, -0.0, 0.0):
        amplitudes = np.full(1 << n_qubits, value, np.float32)
        with _begin(url, n_qubits=n_qubits, dtype="float32") as tx:
            part = tx.fork()
            part.write(0, amplitudes)
            tx.merge(part)
        loaded = qm.load(url).quantum.amplitudes
        assert np.array_equal(loaded.view(np.uint32), amplitudes.view(np.uint32))
        assert tx.saved.bytes == (0 if str(value) == "0.0" else amplitudes.nbytes)


@pytest.mark.parametrize(
    "options",
    [
        {"n_qubits": -1},
        {"n_qubits": 2.5},
        {"n_qubits": 100},
        {"n_qubits": 62},
        {"n_qubits": 3, "dtype": "bogus"},
        {"n_qubits": None, "dims": "ab"},
        {"chunk_bytes": 1.5},
        {"chunk_bytes": True},
        {"chunk_bytes": 2 << 30},
        {"n_qubits": None},  # what else is said of the state would be lost
        {"n_qubits": None, "dtype": None},
    ],
)
def test_what_is_no_transaction_is_said(folder_url: str, options: dict[str, Any]) -> None:
    with pytest.raises(InvalidStateError, match="Next: "):
        _begin(folder_url, **options)


def test_other_parts_of_the_memory_are_those_that_are_given(folder_url: str) -> None:
    old = qm.MemoryState(_state(1), {"a": np.arange(3), "b": {"c": np.arange(4)}}, metadata={"run": 1})
    qm.save(old, folder_url)
    with qm.transaction(folder_url, classical={"a": {"x": np.arange(5)}}) as tx:
        part = tx.fork()
        part.write(0, _amplitudes(2))
        tx.merge(part)
    loaded = qm.load(folder_url)
    assert loaded == qm.MemoryState(_state(2), {"a": {"x": np.arange(5)}}, metadata={"run": 1})
    assert qm.verify(folder_url).content_id == loaded.content_id


@pytest.mark.parametrize("where", [0.0, "x", None, -1, True, slice(0, None, 2), slice(0, 5)])
def test_what_is_no_place_is_said(folder_url: str, where: object) -> None:
    with _begin(folder_url) as tx:
        part = tx.fork()
        for amplitudes in (_amplitudes(1), np.ma.masked_array(_amplitudes(1), mask=True)):
            with pytest.raises(InvalidStateError, match="Next: "):
                part.write(where, amplitudes)
        part.write(np.int64(0), _amplitudes(1))
        tx.merge(part)
    assert qm.load(folder_url).quantum == _state(1)


def test_an_answer_that_was_lost_is_no_conflict(url: str, monkeypatch) -> None:
    commit, lost = icechunk.Session.commit, []

    def loses(self: icechunk.Session, *said: Any, **options: Any) -> str:
        snapshot = commit(self, *said, **options)
        lost.append(snapshot)
        raise icechunk.ConflictError("the parent", "this snapshot itself")

    monkeypatch.setattr(icechunk.Session, "commit", loses)
    _saved(url, 1)
    qm.save(_state(2), url)
    assert len(lost) == 3  # the transaction prepares one
    assert [version.id for version in qm.repository(url).history()] == lost[:0:-1]
    assert qm.load(url).quantum == _state(2)


def test_a_version_that_gets_no_name_is_said_to_be_there(url: str, monkeypatch) -> None:
    def taken(self: Repository, name: str, snapshot: str) -> None:
        raise ConflictError(f"there is a tag {name!r} already")

    monkeypatch.setattr(Repository, "tag", taken)
    for seed, write in ((1, lambda: qm.save(_state(1), f"{url}@one")), (2, lambda: _saved(f"{url}@one", 2))):
        with pytest.raises(ConflictError, match=r"it was written as version \w{20}, which could not be called 'one'"):
            write()
        assert qm.load(url).quantum == _state(seed)


def test_who_has_sent_something_else_there_first_is_told(url: str) -> None:
    def come_second() -> None:
        with _begin(url) as tx:
            tx.merge(_written(tx, 1))
            qm.save(_state(2), url)

    with pytest.raises(ConflictError, match="somebody else"):
        come_second()
    assert qm.load(url).quantum == _state(2)
    assert qm.repository(url).branches().keys() == {"main"}
