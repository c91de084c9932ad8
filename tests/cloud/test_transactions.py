"""A version that several write, and one commits."""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import pytest

import quantum_memory as qm
from quantum_memory.errors import ConflictError, InvalidStateError, MissingFileError

_MIB = 1 << 20
_CHUNK = _MIB // 8  # amplitudes in complex64
_QUBITS = 20  # eight chunks


def _amplitudes(seed: int = 0, size: int = 1 << _QUBITS) -> np.ndarray:
    rng = np.random.default_rng(seed)
    amplitudes = rng.normal(size=size) + 1j * rng.normal(size=size)
    return (amplitudes / np.linalg.norm(amplitudes)).astype(np.complex64)


def _begin(url: str, **options: object) -> object:
    said = {"n_qubits": _QUBITS, "dtype": "complex64", "qubit_order": "little", "chunk_bytes": _MIB}
    return qm.transaction(url, **{**said, **options})


def test_many_write_and_one_commits(url: str) -> None:
    amplitudes = _amplitudes()

    def write(given: tuple[bytes, int]) -> bytes:
        part = pickle.loads(given[0])
        for low in range(given[1], part.size, 3 * part.chunk):
            part.write(slice(low, low + part.chunk), amplitudes[low : low + part.chunk])
        return pickle.dumps(part)

    with _begin(f"{url}@step-1", classical={"w": np.arange(5)}, metadata={"run": 7}) as tx:
        assert (tx.size, tx.chunk) == (1 << _QUBITS, _CHUNK)
        parts = [(pickle.dumps(tx.fork()), k * tx.chunk) for k in range(3)]
        assert all(len(data) < 2000 for data, _ in parts)
        with ThreadPoolExecutor(3) as pool:
            tx.merge(*map(pickle.loads, pool.map(write, parts)))
        with pytest.raises(MissingFileError):
            qm.load(url)
    state = qm.StateVector(amplitudes, qubit_order="little")
    memory = qm.MemoryState(state, {"w": np.arange(5)}, metadata={"run": 7})
    assert tx.saved.content_id == memory.content_id
    assert qm.load(url) == qm.load(f"{url}@step-1") == memory
    assert qm.verify(url).problems == []
    assert qm.info(url)["quantum"]["norm"] == state.norm()


def test_what_others_wrote_in_other_numbers_is_read(folder_url: str) -> None:
    amplitudes = _amplitudes()
    with _begin(folder_url) as tx:
        tx.merge(*(_part(tx, amplitudes, k, 8) for k in range(8)))
    loaded = qm.load(folder_url).quantum
    for readers in (1, 3, 5):
        edges = np.linspace(0, 1 << _QUBITS, readers + 1).astype(int)
        read = [loaded.shards.items(low, high) for low, high in pairwise(edges)]
        assert np.array_equal(np.concatenate(read), amplitudes)


def _part(tx, amplitudes, k, of):
    part = tx.fork()
    size = part.size // of
    part.write(k * size, amplitudes[k * size : (k + 1) * size])
    return part


def test_an_error_leaves_nothing(url: str) -> None:
    qm.save(qm.StateVector(_amplitudes(), qubit_order="little"), url)
    before = [version.id for version in qm.repository(url).history()]
    tx = _begin(url)
    with pytest.raises(ZeroDivisionError), tx:
        tx.merge(_part(tx, _amplitudes(1), 1 // 0, 1))
    assert [version.id for version in qm.repository(url).history()] == before
    assert qm.repository(url).branches().keys() == {"main"}
    assert np.array_equal(qm.load(url).quantum.amplitudes, _amplitudes())
    assert tx.saved is None


def test_what_is_missing_is_said(folder_url: str) -> None:
    with (
        pytest.raises(InvalidStateError, match="1 of 8 chunks were not written, the first from amplitude 393216 on"),
        _begin(folder_url) as tx,
    ):
        tx.merge(*(_part(tx, _amplitudes(), k, 8) for k in range(8) if k != 3))
    with pytest.raises(MissingFileError):
        qm.load(folder_url)


def test_what_is_missing_stays_where_that_is_said(url: str) -> None:
    first, second = _amplitudes(1), _amplitudes(2)
    with _begin(url) as tx:
        tx.merge(_part(tx, first, 0, 1))
    with qm.transaction(url, chunk_bytes=_MIB, partial=True) as tx:
        tx.merge(_part(tx, second, 3, 8))
    expected = first.copy()
    expected[3 * _CHUNK : 4 * _CHUNK] = second[3 * _CHUNK : 4 * _CHUNK]
    assert np.array_equal(qm.load(url).quantum.amplitudes, expected)
    assert qm.info(url)["quantum"]["norm"] == qm.StateVector(expected, qubit_order="little").norm()
    with pytest.raises(InvalidStateError, match="leave partial out"), qm.transaction(url, partial=True):
        pass


def test_the_next_version_is_like_the_one_before(folder_url: str) -> None:
    memory = qm.MemoryState(
        qm.StateVector(_amplitudes(), qubit_order="big", labels=[f"q{k}" for k in range(_QUBITS)]),
        {"w": np.arange(3)},
        metadata={"run": 1},
    )
    qm.save(memory, folder_url)
    with qm.transaction(folder_url) as tx:
        tx.merge(_part(tx, _amplitudes(5), 0, 1))
    loaded = qm.load(folder_url)
    assert loaded.metadata == {"run": 1}
    assert loaded.quantum.labels == memory.quantum.labels
    assert np.array_equal(loaded.quantum.amplitudes, _amplitudes(5))
    with pytest.raises(InvalidStateError, match="nobody has said of what kind"), qm.transaction(f"{folder_url}-new"):
        pass
    qm.save(qm.MemoryState(classical=1), folder_url)
    with pytest.raises(InvalidStateError, match="holds no state vector"), qm.transaction(folder_url):
        pass


def test_who_comes_second_is_told(url: str) -> None:
    def both() -> None:
        with _begin(url) as tx:
            tx.merge(_part(tx, _amplitudes(), 0, 1))
            qm.save(qm.MemoryState(classical="quicker"), url)

    with pytest.raises(ConflictError, match="a newer version meanwhile"):
        both()
    assert qm.load(url).classical == "quicker"


@pytest.mark.parametrize(
    ("where", "amplitudes", "said"),
    [
        (3, np.zeros(_CHUNK, np.complex64), "are not whole chunks of 131072"),
        (0, np.zeros(_CHUNK - 1, np.complex64), "are not whole chunks"),
        (7 * _CHUNK, np.zeros(2 * _CHUNK, np.complex64), "are not whole chunks"),
        (-_CHUNK, np.zeros(_CHUNK, np.complex64), "are not whole chunks"),
        (slice(0, 2 * _CHUNK), np.zeros(_CHUNK, np.complex64), "131072 amplitudes are no slice"),
        (0, np.zeros(_CHUNK, np.complex128), "the amplitudes are complex128, and the state is c64"),
        (0, np.zeros((2, _CHUNK // 2), np.complex64), "one axis"),
        (0, [0j] * _CHUNK, "one axis"),
    ],
)
def test_what_does_not_fit_is_refused(folder_url: str, where, amplitudes, said: str) -> None:
    with pytest.raises(InvalidStateError, match=said), _begin(folder_url) as tx:
        tx.fork().write(where, amplitudes)


def test_a_chunk_has_one_writer(folder_url: str) -> None:
    with pytest.raises(InvalidStateError, match="were written by two parts"), _begin(folder_url) as tx:
        tx.merge(_part(tx, _amplitudes(), 0, 8), _part(tx, _amplitudes(1), 0, 8))
    with pytest.raises(InvalidStateError, match="have been written already"), _begin(folder_url) as tx:
        _part(tx, _amplitudes(), 0, 8).write(0, _amplitudes()[: 2 * _CHUNK])


def test_only_what_has_changed_is_written(folder_url: str) -> None:
    from .conftest import stored_bytes

    amplitudes = _amplitudes()
    with _begin(folder_url) as tx:
        tx.merge(_part(tx, amplitudes, 0, 2), _part(tx, amplitudes, 1, 2))
    before = stored_bytes(folder_url)
    with _begin(folder_url) as tx:
        tx.merge(_part(tx, amplitudes, 0, 2), _part(tx, amplitudes, 1, 2))
    assert stored_bytes(folder_url) - before < 5000
    changed = amplitudes.copy()
    changed[5 * _CHUNK + 1] = 0
    with _begin(folder_url) as tx:
        tx.merge(_part(tx, changed, 0, 2), _part(tx, changed, 1, 2))
    assert _MIB < stored_bytes(folder_url) - before < _MIB + 20_000
    assert np.array_equal(qm.load(folder_url).quantum.amplitudes, changed)


@pytest.mark.parametrize("chunk_bytes", [0, 1000, _MIB + 1])
def test_a_chunk_is_whole_mebibytes(folder_url: str, chunk_bytes: int) -> None:
    with pytest.raises(InvalidStateError, match="multiple of 1 MiB"):
        _begin(folder_url, chunk_bytes=chunk_bytes)


def test_a_state_of_qutrits_ends_within_a_chunk(folder_url: str) -> None:
    size = 3**12
    amplitudes = _amplitudes(size=size)
    with _begin(folder_url, n_qubits=None, dims=(3,) * 12, qubit_order="big") as tx:
        parts = [tx.fork() for _ in range(2)]
        parts[0].write(0, amplitudes[: 2 * tx.chunk])
        parts[1].write(2 * tx.chunk, amplitudes[2 * tx.chunk :])
        tx.merge(*parts)
    assert (
        tx.saved.content_id == qm.MemoryState(qm.StateVector(amplitudes, qubit_order="big", dims=(3,) * 12)).content_id
    )
    assert np.array_equal(qm.load(folder_url).quantum.amplitudes, amplitudes)
