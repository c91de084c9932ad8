"""State vectors whose amplitudes are elsewhere: what is computed of them run by run is what is computed of all."""

from __future__ import annotations

import copy
import math
import pickle
import threading
import weakref
from concurrent.futures import Executor, Future, ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import quantum_memory as qm
from quantum_memory.errors import InvalidStateError
from quantum_memory.state import products
from quantum_memory.state.windows import Stepped

_QUBITS = 9


class Shards:
    """Amplitudes that count how many of them were read at once."""

    ndim = 1

    def __init__(self, amplitudes: np.ndarray, step: int = 32) -> None:
        self.amplitudes = amplitudes
        self.dtype, self.shape, self.nbytes = amplitudes.dtype, amplitudes.shape, amplitudes.nbytes
        self.step = step
        self.most = 0

    def items(self, start: int, stop: int) -> np.ndarray:
        self.most = max(self.most, stop - start)
        return self.amplitudes[start:stop].copy()


def _amplitudes(seed: int, dtype: str = "complex128", size: int = 1 << _QUBITS) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.normal(size=size) + 1j * rng.normal(size=size)).astype(dtype)


def _both(seed: int = 0, order: str = "little", step: int = 32, dtype: str = "complex128"):
    amplitudes = _amplitudes(seed, dtype)
    shards = Shards(amplitudes, step)
    return qm.StateVector(shards, qubit_order=order), qm.StateVector(amplitudes, qubit_order=order), shards


def test_a_state_vector_over_shards_is_one() -> None:
    sharded, whole, shards = _both()
    assert type(sharded) is qm.ShardedStateVector
    assert isinstance(sharded, qm.StateVector)
    assert sharded.norm() == pytest.approx(whole.norm(), rel=1e-15)
    assert sharded.amplitude("010101010") == whole.amplitude("010101010")
    assert np.array_equal(sharded.probabilities(), whole.probabilities())
    assert np.array_equal(sharded.sample(20, seed=1), whole.sample(20, seed=1))
    assert sharded.problems() == whole.problems()
    assert shards.most == 32  # nothing was gathered


def test_what_needs_all_of_them_reads_them_once() -> None:
    sharded, whole, _ = _both(order="big")
    assert np.array_equal(sharded.amplitudes, whole.amplitudes)
    assert sharded.amplitudes is sharded.amplitudes
    assert sharded == whole
    assert whole == sharded
    assert sharded.reordered("little") == whole.reordered("little")
    assert type(sharded.normalized()) is qm.StateVector
    assert np.allclose(sharded.schmidt_values(4), whole.schmidt_values(4))
    assert np.array_equal(np.asarray(sharded), whole.amplitudes)
    assert type(sharded.gather()) is qm.StateVector
    other = qm.StateVector(Shards(_amplitudes(0)), qubit_order="unstated")
    assert type(other.with_qubit_order("big")) is qm.ShardedStateVector
    assert other.with_qubit_order("big") == whole
    assert qm.MemoryState(sharded).content_id == qm.MemoryState(whole).content_id


def test_of_a_read_that_fails_nothing_is_kept() -> None:
    sharded, whole, shards = _both()
    items, shards.items = shards.items, lambda start, stop: items(start, stop) if start < 256 else 1 / 0
    with pytest.raises(ZeroDivisionError):
        sharded.amplitudes  # noqa: B018
    with pytest.raises(ZeroDivisionError):
        sharded.amplitudes  # noqa: B018
    shards.items = items
    assert sharded == whole


def test_copies_are_equal() -> None:
    sharded, whole, _ = _both()
    assert pickle.loads(pickle.dumps(sharded)) == whole
    assert copy.deepcopy(sharded) == copy.copy(sharded) == whole


@settings(deadline=None, max_examples=60)
@given(
    sites=st.lists(st.integers(0, _QUBITS - 1), min_size=1, max_size=4, unique=True),
    step=st.sampled_from([2, 8, 32, 128, 512]),
    order=st.sampled_from(["little", "big"]),
    seed=st.integers(0, 99),
    bits=st.integers(1, 9),
)
def test_partial_traces_are_those_of_the_whole(sites, step, order, seed, bits) -> None:
    sharded, whole, shards = _both(seed, order, step)
    rng = np.random.default_rng(seed)
    operator = rng.normal(size=(2 ** len(sites),) * 2) + 1j * rng.normal(size=(2 ** len(sites),) * 2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(products, "BLOCK_BITS", bits)
        assert sharded.expectation(operator, sites) == pytest.approx(whole.expectation(operator, sites), rel=1e-12)
        reduced = sharded.reduced_density_matrix(sites).matrix
    assert np.allclose(reduced, whole.reduced_density_matrix(sites).matrix, rtol=1e-12)
    assert shards.most <= step


def test_qudits_are_gathered_for_a_partial_trace() -> None:
    amplitudes = _amplitudes(0, size=3**5)
    sharded = qm.StateVector(Shards(amplitudes), qubit_order="big", dims=(3,) * 5)
    whole = qm.StateVector(amplitudes, qubit_order="big", dims=(3,) * 5)
    operator = np.diag([0, 1, 2])
    assert sharded.expectation(operator, 2) == whole.expectation(operator, 2)


@pytest.mark.parametrize("executor", [None, "threads"])
@pytest.mark.parametrize("partner", ["sharded", "whole", "other steps"])
def test_fidelity_is_that_of_the_whole(executor, partner) -> None:
    with ThreadPoolExecutor(2) as pool:
        a, whole, shards = _both(1)
        amplitudes = _amplitudes(2)
        b = qm.StateVector(amplitudes, qubit_order="little")
        expected = qm.metrics.fidelity(whole, b)
        if partner != "whole":
            b = qm.StateVector(Shards(amplitudes, 32 if partner == "sharded" else 64), qubit_order="little")
        found = qm.MemoryState(a).fidelity(b, executor=pool if executor else None)
        assert found == pytest.approx(expected, rel=1e-13)
        assert a.norm(pool if executor else None) == pytest.approx(whole.norm(), rel=1e-15)
        assert shards.most <= 64


def test_norms_in_single_precision_do_not_drift() -> None:
    amplitudes = np.full(1 << 22, 1e-3 * (1 + 1j), np.complex64)
    exact = math.fsum(2 * [float(amplitudes[0].real) ** 2] * len(amplitudes))
    drifted = abs(np.vdot(amplitudes, amplitudes).real / exact - 1)
    state = qm.StateVector(Shards(amplitudes, 1 << 16), qubit_order="big")
    assert abs(state.norm() ** 2 / exact - 1) < 1e-13
    assert drifted > 1e-6  # what single precision makes of it
    other = qm.StateVector(amplitudes, qubit_order="big")
    assert abs(qm.metrics.fidelity(state, other) - 1) < 1e-13


def test_states_in_other_orders_are_brought_into_one() -> None:
    sharded, whole, _ = _both(1)
    other = qm.StateVector(_amplitudes(2), qubit_order="big")
    assert qm.metrics.fidelity(sharded, other) == pytest.approx(qm.metrics.fidelity(whole, other), rel=1e-13)


class _Failing(Executor):
    def __init__(self) -> None:
        self.futures: list[Future] = []

    def submit(self, fn, /, *args, **kwargs):
        future: Future = Future()
        if self.futures:
            self.futures.append(future)  # never run
        else:
            self.futures.append(future)
            future.set_exception(ZeroDivisionError())
        return future


def test_an_error_of_a_task_ends_the_others() -> None:
    sharded, _, _ = _both(step=2)
    executor = _Failing()
    with pytest.raises(ZeroDivisionError):
        sharded.norm(executor)
    assert len(executor.futures) == 64
    assert all(future.cancelled() for future in executor.futures[1:])


@pytest.mark.parametrize("suffix", ["qms", "h5", "npz", "msgpack", "b64", "json"])
def test_it_is_saved_run_by_run(tmp_path, suffix) -> None:
    sharded, whole, shards = _both()
    assert qm.save(sharded, tmp_path / f"x.{suffix}").content_id == qm.MemoryState(whole).content_id
    assert qm.load(tmp_path / f"x.{suffix}").quantum == whole
    assert shards.most <= 1 << 18


def test_what_is_no_row_is_refused() -> None:
    with pytest.raises(InvalidStateError, match="a ndarray is nothing of which"):
        qm.ShardedStateVector(np.zeros(2), qubit_order="big")
    shards = Shards(np.zeros(4, np.int64))
    with pytest.raises(InvalidStateError, match="1 axes of int64"):
        qm.StateVector(shards, qubit_order="big")
    with pytest.raises(InvalidStateError, match="not a power of two"):
        qm.StateVector(Shards(np.zeros(3)), qubit_order="big")


def test_what_is_changed_in_memory_is_the_state_from_then_on(tmp_path) -> None:
    sharded, whole, _ = _both()
    sharded.amplitudes[3] = whole.amplitudes[3] = 7
    for made in (sharded, copy.deepcopy(sharded), pickle.loads(pickle.dumps(sharded)), sharded.gather()):
        assert made == whole
        assert made.norm() == pytest.approx(whole.norm(), rel=1e-15)
        assert made.amplitude("110000000"[::-1]) == 7
        assert made.expectation([[1, 0], [0, -1]], 4) == pytest.approx(whole.expectation([[1, 0], [0, -1]], 4))
        assert np.array_equal(made.sample(5, seed=3), whole.sample(5, seed=3))
        assert qm.metrics.fidelity(made, whole) == pytest.approx(1, rel=1e-14)
        assert qm.MemoryState(made).content_id == qm.MemoryState(whole).content_id
        qm.save(made, tmp_path / "x.qms")
        assert qm.load(tmp_path / "x.qms").quantum == whole


class _Breaking(Shards):
    broken = True

    def items(self, start: int, stop: int) -> np.ndarray:
        if self.broken and start >= 64:
            raise OSError("nobody answers")
        return super().items(start, stop)


def test_what_was_read_in_part_is_not_taken_for_the_whole() -> None:
    shards = _Breaking(_amplitudes(1))
    state = qm.StateVector(shards, qubit_order="little")
    for _ in range(2):
        with pytest.raises(OSError, match="nobody answers"):
            state.amplitudes  # noqa: B018 - reading it is what is tried
    shards.broken = False
    assert np.array_equal(state.amplitudes, _amplitudes(1))


@pytest.mark.parametrize("step", [1, 3, 24, 48, 100, 300, 511])
def test_steps_of_any_length_gather_nothing(step: int) -> None:
    sharded, whole, shards = _both(2, step=step)
    operator = np.array([[1, 2j], [-2j, 3]])
    for sites in ([0], [8], [3, 7], [8, 0, 4, 2]):
        found = sharded.reduced_density_matrix(sites).matrix
        assert np.allclose(found, whole.reduced_density_matrix(sites).matrix, rtol=1e-12)
    assert sharded.expectation(operator, 5) == pytest.approx(whole.expectation(operator, 5), rel=1e-12)
    assert sharded.norm() == pytest.approx(whole.norm(), rel=1e-15)
    assert shards.most <= step


def test_states_are_compared_run_by_run() -> None:
    sharded, whole, shards = _both()
    other = Shards(_amplitudes(0), 64)
    assert sharded == whole
    assert whole == sharded
    assert sharded == qm.StateVector(other, qubit_order="little")
    other.amplitudes[-1] += 1
    assert sharded != qm.StateVector(other, qubit_order="little")
    assert max(shards.most, other.most) <= 64


def test_a_state_twice_in_a_memory_is_one_array() -> None:
    sharded, whole, _ = _both()
    tree = qm.MemoryState(sharded, {"again": sharded, "reordered": sharded.with_qubit_order("little")})
    assert list(tree.flatten().arrays) == ["quantum/amplitudes"]
    assert tree.content_id == qm.MemoryState(whole, {"again": whole, "reordered": whole}).content_id


@pytest.mark.parametrize("odd", [np.inf, -np.inf, np.nan, 1e200])
@pytest.mark.parametrize("elsewhere", [True, False])
def test_numbers_that_have_no_sum_are_said(odd: float, elsewhere: bool) -> None:
    amplitudes = np.ones(1 << 16, np.complex128)
    amplitudes[0], amplitudes[-1] = odd, -odd
    state = qm.StateVector(Shards(amplitudes, 1 << 14) if elsewhere else amplitudes, qubit_order="big")
    with pytest.raises(InvalidStateError, match=r"not finite|infinite|norm"):
        qm.metrics.fidelity(state, qm.StateVector(np.ones(1 << 16), qubit_order="big"))


def test_runs_are_nobodys_to_change() -> None:
    sharded, whole, _ = _both()
    with pytest.raises(ValueError, match="read-only"):
        sharded.block(0, 8)[0] = 5
    assert sharded == whole


def test_a_step_of_a_slice_is_not_left_out() -> None:
    sharded, whole, _ = _both()
    with pytest.raises(InvalidStateError, match="read in runs"):
        sharded._array[::2]
    sharded.amplitudes  # noqa: B018 - reads them
    assert np.array_equal(sharded._array[::2], whole.amplitudes[::2])


class _Counting(Stepped):
    ndim = 1

    def __init__(self, amplitudes: np.ndarray, step: int) -> None:
        super().__init__()
        self.amplitudes, self.step, self.count = amplitudes, step, 0
        self.dtype, self.shape, self.nbytes = amplitudes.dtype, amplitudes.shape, amplitudes.nbytes

    def read(self, start: int, stop: int) -> np.ndarray:
        self.count += 1
        return self.amplitudes[start:stop].copy()


@pytest.mark.parametrize("suffix", ["qms", "h5", "npz"])
def test_a_step_is_read_once_for_all_of_its_mebibytes(tmp_path, suffix: str) -> None:
    step = 1 << 19  # eight MiB
    amplitudes = _amplitudes(3, size=1 << 21)
    shards = _Counting(amplitudes, step)
    qm.save(qm.StateVector(shards, qubit_order="big"), tmp_path / f"x.{suffix}")
    assert shards.count <= 3 * 4  # digests, norm and data
    assert np.array_equal(qm.load(tmp_path / f"x.{suffix}").quantum.amplitudes, amplitudes)
    again = pickle.loads(pickle.dumps(shards))
    part = again.items(5, 9)
    part[...] = 0
    assert np.array_equal(again.items(5, 9), amplitudes[5:9])


class _Series:
    """What a Series of pandas is: its ``items`` are pairs."""

    ndim, dtype, shape = 1, np.dtype(float), (2,)

    def to_numpy(self) -> np.ndarray:
        return np.array([0.6, 0.8])

    def __array__(self, dtype: object = None, copy: object = None) -> np.ndarray:
        return self.to_numpy()

    def items(self) -> zip:
        return zip(range(2), self.to_numpy(), strict=True)


def test_a_series_is_an_array_in_memory() -> None:
    state = qm.StateVector(_Series(), qubit_order="big")
    assert type(state) is qm.StateVector
    assert state.norm() == pytest.approx(1)


class _Waiting(Shards):
    """Amplitudes that may be read ahead; it counts how many runs are out, read and not forgotten yet."""

    waits = True

    def __init__(self, amplitudes: np.ndarray) -> None:
        super().__init__(amplitudes)
        self.lock, self.threads, self.out, self.most_out = threading.Lock(), set(), 0, 0

    def items(self, start: int, stop: int) -> np.ndarray:
        with self.lock:
            self.threads.add(threading.get_ident())
            self.out += 1
            self.most_out = max(self.most_out, self.out)
        found = super().items(start, stop)
        weakref.finalize(found, self._forgotten)
        return found

    def _forgotten(self) -> None:
        with self.lock:
            self.out -= 1


def test_what_waits_is_read_ahead_and_a_few_runs_are_in_memory() -> None:
    first, second = (_Waiting(_amplitudes(seed)) for seed in (1, 2))
    a, b = (qm.StateVector(one, qubit_order="little") for one in (first, second))
    whole = [qm.StateVector(one.amplitudes, qubit_order="little") for one in (first, second)]
    assert qm.metrics.fidelity(a, b) == pytest.approx(qm.metrics.fidelity(*whole), rel=1e-13)
    assert a.norm() == pytest.approx(whole[0].norm(), rel=1e-15)
    operator = np.arange(16).reshape(4, 4) + np.arange(16).reshape(4, 4).T
    assert a.expectation(operator, [8, 2]) == pytest.approx(whole[0].expectation(operator, [8, 2]), rel=1e-13)
    for one in (first, second):
        assert threading.get_ident() not in one.threads
        assert one.most_out <= 4
        assert one.out == 0


def test_what_does_not_say_that_it_may_be_is_read_by_who_does_the_task() -> None:
    waiting, amplitudes = _Waiting(_amplitudes(1)), _amplitudes(2)
    a, b = (qm.StateVector(one, qubit_order="little") for one in (waiting, Shards(amplitudes)))
    assert qm.metrics.fidelity(a, b) == pytest.approx(
        qm.metrics.fidelity(
            qm.StateVector(waiting.amplitudes, qubit_order="little"), qm.StateVector(amplitudes, qubit_order="little")
        ),
        rel=1e-13,
    )
    assert waiting.threads == {threading.get_ident()}


def test_what_cannot_be_read_ahead_is_an_error_of_the_work() -> None:
    class Broken(_Waiting):
        def items(self, start: int, stop: int) -> np.ndarray:
            if start >= 256:
                raise ZeroDivisionError
            return super().items(start, stop)

    with pytest.raises(ZeroDivisionError):
        qm.StateVector(Broken(_amplitudes(1)), qubit_order="little").norm()


class _Pool(ThreadPoolExecutor):
    count = 0

    def submit(self, fn, /, *args, **kwargs):
        self.count += 1
        return super().submit(fn, *args, **kwargs)


@pytest.mark.parametrize(("workers", "tasks"), [(1, 8), (2, 16), (16, 64), (100, 128), (1000, 256)])
def test_there_is_work_for_every_worker(workers: int, tasks: int) -> None:
    amplitudes = _amplitudes(1)
    chunks = 256
    with _Pool(workers) as pool:
        sharded = qm.StateVector(Shards(amplitudes, len(amplitudes) // chunks), qubit_order="little")
        assert sharded.norm(pool) == pytest.approx(np.linalg.norm(amplitudes), rel=1e-12)
        assert pool.count == tasks
