"""States that others quantise, or that are quantised where they are: what is stored is what one process stores."""

from __future__ import annotations

import multiprocessing
import tracemalloc
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import quantum_memory as qm
from quantum_memory.formats import packing, shared_packing
from quantum_memory.formats.registry import OpenOptions, open_reader
from quantum_memory.formats.stored_amplitudes import StoredAmplitudes

from .dying import Dying, DyingClient
from .test_shared_converting import peaks

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def _normal(size: int, dtype: str, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    drawn = rng.normal(size=size) + (1j * rng.normal(size=size) if dtype.startswith("c") else 0)
    return (drawn / np.linalg.norm(drawn)).astype(dtype)


_STATES: dict[str, tuple[Callable[[], np.ndarray], float]] = {
    "complex64": (lambda: _normal(1 << 21, "complex64"), 0.999),
    "complex128, packed by pcodec": (lambda: _normal(1 << 19, "complex128"), 0.6),
    "of four-byte integers": (lambda: _normal(1 << 20, "complex128", 1), 1 - 1e-12),
    "without imaginary parts": (lambda: _normal(1 << 19, "float64").astype(np.complex128), 1 - 1e-6),
    "of odd length": (lambda: _normal((1 << 21) - 12345, "float32"), 0.999),
    "with hardly any large ones": (lambda: np.random.default_rng(2).standard_cauchy(1 << 18), 0.9999),
    "tiny": (lambda: _normal(1 << 20, "float64") * 1e-90, 0.999),
}


def _memory(amplitudes: np.ndarray) -> qm.MemoryState:
    state = qm.StateVector(amplitudes, qubit_order="little", dims=(len(amplitudes),))
    return qm.MemoryState(state, classical={"w": np.arange(5)}, metadata={"k": 1}, record={"seed": 3})


def _stored(url: str) -> tuple[Any, dict[str, np.ndarray]]:
    """Return what is said of the form, but for what was tried, and its parts."""
    with closing(open_reader(url, OpenOptions())) as reader:
        (node,) = reader.forms.nodes.values()
        said = {name: value for name, value in node.to_json().items() if name != "tried"}
        return said, {part: reader.inner.read(part) for part in node.parts.values()}


def _assert_same(url: str, other: str) -> None:
    (said, parts), (expected, others) = _stored(url), _stored(other)
    assert said == expected
    assert all(np.array_equal(parts[name], others[name]) for name in others)
    assert qm.info(url)["content_id"] == qm.info(other)["content_id"]
    assert qm.load(url).record == qm.load(other).record


def _infidelities(psi: np.ndarray, phi: np.ndarray) -> tuple[float, float]:
    """Return 1 - F, computed by NumPy from whole vectors in the form that loses no digits; and that of real vectors.

    The second, of real vectors of twice the length, is what the form certifies, and not below the first.
    """
    psi, phi = psi.astype(np.complex128), phi.astype(np.complex128)
    error = phi - psi
    pp, rr, ee, pe = (np.vdot(a, b) for a, b in ((psi, psi), (phi, phi), (error, error), (psi, error)))
    found = [((pp * ee).real - inner**2) / (pp * rr).real for inner in (abs(pe), pe.real)]
    return float(found[0]), float(found[1])


@pytest.mark.parametrize("name", _STATES)
def test_others_store_what_one_process_stores(pool: ProcessPoolExecutor, folder_url: str, name: str) -> None:
    make, fidelity = _STATES[name]
    memory = _memory(make())
    alone = qm.save(memory, f"{folder_url}-alone", fidelity=fidelity)
    saved = qm.save(memory, folder_url, fidelity=fidelity, executor=pool)
    assert (saved.content_id, saved.infidelity, saved.bytes) == (alone.content_id, alone.infidelity, alone.bytes)
    _assert_same(folder_url, f"{folder_url}-alone")
    with ThreadPoolExecutor(2) as threads:
        qm.save(memory, f"{folder_url}-plain")
        qm.convert(f"{folder_url}-plain", f"{folder_url}-converted", fidelity=fidelity, executor=threads)
    _assert_same(f"{folder_url}-converted", f"{folder_url}-alone")


def test_the_certificate_is_what_is_computed_of_the_gathered_state(pool: ProcessPoolExecutor, folder_url: str) -> None:
    psi = _normal(1 << 21, "complex64")
    for fidelity in (0.9, 0.999, 1 - 1e-7):
        saved = qm.save(_memory(psi), folder_url, fidelity=fidelity, executor=pool)
        loaded = qm.load(folder_url).quantum
        assert isinstance(loaded, qm.ShardedStateVector)
        assert loaded.norm() == pytest.approx(np.linalg.norm(loaded.amplitudes.astype(np.complex128)), rel=1e-12)
        true, stated = _infidelities(psi, loaded.amplitudes)
        assert saved.infidelity is not None
        assert saved.infidelity == pytest.approx(stated, abs=1e-12)
        assert true * (1 - 1e-9) <= saved.infidelity <= 1 - fidelity
        said = qm.info(folder_url)["compression"]
        assert (said["representation"], said["certificate"]["infidelity"]) == ("uniform", saved.infidelity)
        assert qm.verify(folder_url, executor=pool).content_id == saved.content_id == qm.verify(folder_url).content_id
        assert qm.verify_certificate(folder_url, _memory(psi)).infidelity == saved.infidelity


def test_workers_of_dask_pack_what_is_in_object_storage(client: Any, s3: object, prefix: str) -> None:
    memory = _memory(_normal(1 << 21, "complex64"))
    qm.save(memory, prefix)
    done = qm.convert(prefix, f"{prefix}-packed", fidelity=0.999, executor=client)
    assert done.bytes < qm.info(prefix)["compression"]["stored_bytes"] / 5
    qm.save(memory, f"{prefix}-alone", fidelity=0.999)
    _assert_same(f"{prefix}-packed", f"{prefix}-alone")
    moved = qm.convert(f"{prefix}-packed", f"{prefix}-moved", executor=client)
    assert moved.content_id == done.content_id
    _assert_same(f"{prefix}-moved", f"{prefix}-alone")


def test_blocks_of_dask_are_packed(client: Any, s3: object, folder_url: str) -> None:
    import dask.array as da

    array = (da.random.default_rng(4).normal(size=1 << 20, chunks=300_000) / (1 << 10)).astype(np.complex64).persist()
    vector, psi = qm.StateVector(array, qubit_order="little"), array.compute()
    saved = qm.save(vector, folder_url, fidelity=0.999, executor=client)
    alone = qm.save(qm.StateVector(psi, qubit_order="little"), f"{folder_url}-alone", fidelity=0.999)
    assert (saved.content_id, saved.infidelity) == (alone.content_id, alone.infidelity)


@pytest.mark.parametrize("name", ["_measure", "_write_run"])
def test_killed_workers_leave_all_or_nothing(client: Any, folder_url: str, tmp_path: Path, name: str) -> None:
    memory = _memory(_normal(1 << 21, "complex64"))
    qm.save(memory, folder_url)
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as made:
        dying = Dying(made, name, tmp_path / "dead")
        with pytest.raises(qm.StorageError, match="a process that did some of the work has died"):
            qm.convert(folder_url, f"{folder_url}-packed", fidelity=0.999, executor=dying)
    assert (tmp_path / "dead").exists()
    with pytest.raises(qm.MissingFileError):
        qm.load(f"{folder_url}-packed")
    dying_client = DyingClient(client, name, tmp_path / "dead, too")
    done = qm.convert(folder_url, f"{folder_url}-packed", fidelity=0.999, executor=dying_client)
    assert (tmp_path / "dead, too").exists()
    assert qm.verify(f"{folder_url}-packed").content_id == done.content_id


@pytest.mark.parametrize("name", ["_measure", "_write_run"])
def test_a_state_that_is_changed_meanwhile_is_not_certified(folder_url: str, tmp_path: Path, name: str) -> None:
    psi = _normal(1 << 20, "complex64")

    class Changing(Dying):
        def submit(self, work: Any, /, *args: Any, **kwargs: Any) -> Any:
            psi[5] += work.__name__ == name
            return super().submit(work, *args, **kwargs)

    with ThreadPoolExecutor(1) as threads, pytest.raises(qm.InvalidStateError, match="was changed while"):
        qm.save(_memory(psi), folder_url, fidelity=0.999, executor=Changing(threads, "", tmp_path / "dead"))
    with pytest.raises(qm.MissingFileError):
        qm.load(folder_url)


def test_what_is_kept_as_it_is(pool: ProcessPoolExecutor, folder_url: str) -> None:
    memory = _memory(_normal(1 << 20, "complex64"))
    saved = qm.save(memory, folder_url, fidelity=1, executor=pool)
    assert (saved.content_id, saved.infidelity) == (memory.content_id, None)
    half = _memory(_normal(1 << 20, "float32").astype(np.float16))
    assert qm.save(half, folder_url, fidelity=0.9, executor=pool).content_id == half.content_id


def test_what_is_refused(pool: ProcessPoolExecutor, folder_url: str) -> None:
    psi = _normal(1 << 20, "complex64")
    with pytest.raises(qm.InvalidStateError, match="looks for no other form"):
        qm.save(_memory(psi), folder_url, fidelity=0.9, effort="max", executor=pool)
    for odd, said in ((0.0, "is zero"), (np.nan, "holds a NaN")):
        with pytest.raises(qm.InvalidStateError, match=said):
            qm.save(_memory(np.full(1 << 20, odd)), folder_url, fidelity=0.9, executor=pool)
    state = qm.StateVector(psi, qubit_order="little")
    with pytest.raises(qm.InvalidStateError, match="also in another part of the memory"):
        qm.save(qm.MemoryState(state, classical={"same": psi}), folder_url, fidelity=0.9, executor=pool)
    with pytest.raises(qm.MissingFileError):
        qm.load(folder_url)
    qm.save(state, folder_url, fidelity=0.9, executor=pool)
    with pytest.raises(qm.InvalidStateError, match="packed with loss already"):
        qm.convert(folder_url, f"{folder_url}-again", fidelity=0.9, executor=pool)


def test_damage_is_found_by_those_who_check(pool: ProcessPoolExecutor, folder_url: str, tmp_path: Path) -> None:
    qm.save(_memory(_normal(1 << 21, "complex64")), folder_url, fidelity=0.999, executor=pool)
    chunk = max((path for path in (tmp_path / "run" / "chunks").rglob("*")), key=lambda path: path.stat().st_size)
    data = bytearray(chunk.read_bytes())
    data[len(data) // 2] ^= 4
    chunk.write_bytes(data)
    with pytest.raises(qm.IntegrityError):
        qm.verify(folder_url, executor=pool)


@pytest.mark.parametrize("target", ["x.qms", "x.h5", "an address"])
def test_a_state_is_quantised_where_it_is(
    folder_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    memory = _memory(_normal(1 << 22, "complex64"))
    qm.save(memory, folder_url)
    where = f"{folder_url}-packed" if target == "an address" else tmp_path / target
    monkeypatch.setattr(packing, "_COPIED", 8 << 20)
    monkeypatch.setattr(shared_packing, "_THREADS", 1)
    longest = [0]
    read = StoredAmplitudes.read

    def noted(self: StoredAmplitudes, start: int, stop: int) -> Any:
        longest[0] = max(longest[0], stop - start)
        return read(self, start, stop)

    monkeypatch.setattr(StoredAmplitudes, "read", noted)
    loaded = qm.load(folder_url)
    saved = qm.save(loaded, where, fidelity=0.999)
    assert 0 < longest[0] <= 1 << 20, "amplitudes, which are a chunk"
    assert loaded.quantum._gathered is None
    alone = qm.save(memory, f"{folder_url}-alone", fidelity=0.999)
    assert (saved.content_id, saved.infidelity) == (alone.content_id, alone.infidelity)
    assert qm.verify_certificate(where, memory).infidelity == saved.infidelity


def test_quantising_it_takes_a_few_chunks_of_memory(
    folder_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_packing, "_THREADS", 1)
    memory = _memory(_normal(1 << 23, "complex64"))
    qm.save(memory, folder_url)
    nbytes = memory.quantum.nbytes
    del memory
    loaded = qm.load(folder_url)
    tracemalloc.start()
    try:
        qm.save(loaded, tmp_path / "x.qms", fidelity=0.999)
        assert tracemalloc.get_traced_memory()[1] < 40 << 20 < nbytes
    finally:
        tracemalloc.stop()


def test_a_worker_has_a_few_chunks_in_memory(tmp_path: Path) -> None:
    worker, caller = peaks(tmp_path, fidelity=0.999)
    assert worker <= 6 * 8, "MiB, which are six chunks"
    assert caller <= 8
