"""Parts of long chunks, which are read and checked without the rest."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

import quantum_memory as qm
from quantum_memory.cloud import reader
from quantum_memory.cloud.chunks import Rows
from quantum_memory.errors import IntegrityError
from quantum_memory.formats.urls import URL

if TYPE_CHECKING:
    from concurrent.futures import Executor

_MIB = (1 << 20) // 8
"""Amplitudes in complex64."""

_SIZE = 1 << 22


def _amplitudes(seed: int = 0) -> np.ndarray:
    """Return amplitudes of which a chunk of 8 MiB, and one MiB of another, are zero."""
    rng = np.random.default_rng(seed)
    found = (rng.normal(size=_SIZE) + 1j * rng.normal(size=_SIZE)).astype(np.complex64)
    found[8 * _MIB : 16 * _MIB] = found[17 * _MIB : 18 * _MIB] = 0
    return found / np.float32(np.linalg.norm(found))


def _saved(url: str, amplitudes: np.ndarray, chunk_bytes: int) -> None:
    with qm.transaction(
        url, n_qubits=22, dtype=str(amplitudes.dtype), qubit_order="little", chunk_bytes=chunk_bytes
    ) as tx:
        part = tx.fork()
        part.write(0, amplitudes)
        tx.merge(part)


def _no_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(rows: Rows, index: int, out: object = None) -> np.ndarray:
        raise AssertionError(f"chunk {index} of {rows.place} is read as a whole")

    monkeypatch.setattr(Rows, "read", read)


def test_a_part_is_what_was_saved_and_is_read_alone(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    amplitudes = _amplitudes()
    _saved(url, amplitudes, 8 << 20)
    _no_chunk(monkeypatch)
    parts = [(0, 1), (_MIB - 1, _MIB + 1), (7 * _MIB, 9 * _MIB), (9 * _MIB, 10 * _MIB), (17 * _MIB - 3, 18 * _MIB + 3)]
    with qm.open(url) as file:
        for start, stop in [*parts, (_SIZE - 5, _SIZE), (3, 3)]:
            assert np.array_equal(file.amplitudes[start:stop], amplitudes[start:stop])


def test_the_end_of_an_array_in_one_chunk_is_read_alone(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has 2.54 MiB, so that the last of its digests is of less than one."""
    array = np.random.default_rng(0).normal(size=(333, 1000))
    qm.save(qm.MemoryState(classical={"w": array}), url)
    _no_chunk(monkeypatch)
    with qm.open(url) as file:
        for start, stop in ((0, 1), (131, 133), (330, 333)):
            assert np.array_equal(file.arrays["classical/w"][start:stop], array[start:stop])


@pytest.mark.parametrize("executor", [None, "pool"])
def test_products_of_what_has_long_chunks_take_a_part_at_a_time(
    url: str, monkeypatch: pytest.MonkeyPatch, executor: str | None, request: pytest.FixtureRequest
) -> None:
    vectors = [_amplitudes(0), _amplitudes(1).astype(np.complex128)]
    for k, one in enumerate(vectors):
        _saved(f"{url}-{k}", one, 8 << 20)
    monkeypatch.setattr(reader, "_PIECE_BYTES", 2 << 20)
    pool: Executor | None = executor and request.getfixturevalue(executor)
    if pool is None:  # others would not be seen here
        _no_chunk(monkeypatch)
    states = [qm.load(f"{url}-{k}").quantum for k in range(2)]
    expected = qm.metrics.fidelity(*(qm.StateVector(one, qubit_order="little") for one in vectors))
    assert qm.metrics.fidelity(*states, executor=pool) == pytest.approx(expected, rel=1e-12)
    assert [one.norm(executor=pool) for one in states] == pytest.approx([1, 1], abs=1e-6)


def _first_chunk(url: str, name: str) -> Path:
    """Return the file of the first chunk of a version, which is the only one that begins as it does."""
    begin = qm.load(f"{url}@{name}").quantum.shards.items(0, 4).tobytes()
    [found] = [
        path for path in Path(URL.parse(url).key, "chunks").iterdir() if path.read_bytes()[: len(begin)] == begin
    ]
    return found


def test_damage_is_seen_in_the_part_that_has_it(folder_url: str) -> None:
    amplitudes = _amplitudes()
    _saved(f"{folder_url}@x", amplitudes, 8 << 20)
    chunk = _first_chunk(folder_url, "x")
    data = bytearray(chunk.read_bytes())
    data[(3 << 20) + 17] ^= 4
    chunk.write_bytes(data)
    with qm.open(folder_url) as file:
        assert np.array_equal(file.amplitudes[2 * _MIB : 3 * _MIB], amplitudes[2 * _MIB : 3 * _MIB])
        with pytest.raises(IntegrityError, match="damaged in chunk 0"):
            file.amplitudes[3 * _MIB : 3 * _MIB + 1]
        with pytest.raises(IntegrityError, match="chunk 0"):
            file.amplitudes[: 8 * _MIB]
    with pytest.raises(IntegrityError, match="chunk 0"):
        qm.load(folder_url).quantum.norm()
    chunk.write_bytes(data[: 3 << 20])
    with qm.open(folder_url) as file, pytest.raises(IntegrityError, match="chunk 0"):
        file.amplitudes[3 * _MIB : 3 * _MIB + 1]
    chunk.unlink()
    with qm.open(folder_url) as file, pytest.raises(IntegrityError, match="chunk 0"):
        file.amplitudes[:1]


@pytest.mark.parametrize(("chunk_bytes", "piece"), [(8, 2), (3, 1), (1, 1), (2, 2)])
def test_pieces_of_a_folder_are_short_and_lie_within_chunks(folder_url: str, chunk_bytes: int, piece: int) -> None:
    _saved(folder_url, _amplitudes(), chunk_bytes << 20)
    shards = qm.load(folder_url).quantum.shards
    assert (shards.step, shards.piece) == (chunk_bytes * _MIB, piece * _MIB)
    assert isinstance(shards._reader, reader.SnapshotReader)
