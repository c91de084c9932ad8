"""Weak scaling: workers that have a link each to one storage, and a state that grows with them.

Storage is the S3 server of the tests, and the links are those of `benchmarks.links`: this shows what the engine adds to
what links take, and nothing of hardware. All workers, the server and the links share the cores of this machine.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from tests.cloud import servers

import quantum_memory as qm
from benchmarks.harness import Row, peak, reset_peak
from benchmarks.links import links, processor_of
from benchmarks.tables import Table
from quantum_memory.formats import stored_amplitudes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from multiprocessing.synchronize import Barrier

    from quantum_memory.cloud.parts import Part
    from quantum_memory.state.arrays import AnyArray

_CHUNK = 8 << 20
_LATENCY = 0.030
_READING, _WRITING = 25e6, 5e6
"""Bytes a second of a link. The server computes four MD5 of what is written to it, so that two cores take a fifth of what
they give."""

_LEAST = {4: 0.90, 8: 0.75}
"""Efficiency to reach with so many workers."""

_MOST = 4
"""Chunks by which a worker's peak may be above what it has when it is idle."""

_WORKER: dict[str, Any] = {}
"""What a worker has: where all of them meet, its memory when it is idle, amplitudes that it is to write."""


class _Taken(NamedTuple):
    """What some work took.

    Attributes
    ----------
    seconds
        Of the clock.
    link
        Seconds that a link takes for what a worker reads or writes, and nothing else.
    more
        Bytes by which the peak of a worker was above what it has when it is idle, at most.
    processor
        Seconds of processors, of the workers, the server and the links.
    """

    seconds: float
    link: float
    more: int
    processor: tuple[float, float, float]


def run(quick: bool) -> list[Row | Table]:
    """Measure with each number of workers."""
    least = 23 if quick else 24
    numbers = (1, 4) if quick else (1, 2, 4, 8)
    found: dict[str, dict[int, _Taken]] = {"fidelity": {}, "verify": {}, "save": {}}
    for workers in numbers:
        with _workers(workers) as place:
            for what, taken in _measured(place, _qubits(least, workers), 1 if quick else 2):
                found[what][workers] = taken
    columns = ("", "workers", "qubits", "seconds", "efficiency", "of them the link alone", "a worker's peak above idle")
    lines = [
        _line(what, workers, _qubits(least, workers) - (what == "save"), taken, some[1])
        for what, some in found.items()
        for workers, taken in some.items()
    ]
    return [Table("links", columns, lines), *(row for what in found for row in _rows(what, found[what]))]


def _qubits(least: int, workers: int) -> int:
    return least + workers.bit_length() - 1


def _line(what: str, workers: int, qubits: int, taken: _Taken, alone: _Taken) -> tuple[str, ...]:
    return (
        what,
        f"{workers}",
        f"{qubits}",
        f"{taken.seconds:.2f}",
        f"{alone.seconds / taken.seconds:.2f}",
        f"{taken.link / taken.seconds:.0%}",
        f"{taken.more / _CHUNK:.1f} chunks",
    )


def _rows(what: str, found: dict[int, _Taken]) -> Iterator[Row]:
    for workers, least in _LEAST.items():
        if workers in found:
            efficiency = found[1].seconds / found[workers].seconds
            name = f"{what}: efficiency of {workers} workers with a link each"
            yield Row(name, f"{efficiency:.2f}", f">= {least:.2f}", efficiency >= least)
    more = max(taken.more for taken in found.values()) / _CHUNK
    name = f"{what}: a worker's peak above what it has when it is idle, in chunks of 8 MiB"
    yield Row(name, f"{more:.1f}", f"<= {_MOST}", more <= _MOST)
    most = max(found)
    spent = [seconds / found[most].seconds for seconds in found[most].processor]
    said = " + ".join(f"{one:.2f}" for one in spent)
    yield Row(f"{what}: cores that {most} workers, the server and the links keep busy", said, "", True)


@dataclass
class _Place:
    """Workers, the server, and who hands out the work, who has a link of his own as well."""

    pool: ProcessPoolExecutor
    workers: int
    server: servers.Server

    def each(self, work: Callable[..., Any], *arguments: object) -> list[Any]:
        """Let each of the workers do something, all at the same time; it is also told its number."""
        running = [self.pool.submit(_together, work, k, arguments) for k in range(self.workers)]
        return [one.result() for one in running]

    def taken(self, nbytes: int, bandwidth: float, times: int, work: Callable[[], object]) -> _Taken:
        """Do some work through links, when nobody has opened anything yet; the shortest of several times counts."""
        port = int(self.server.endpoint.rpartition(":")[2])
        found = []
        for _ in range(times):
            with links(port, bandwidth, _LATENCY) as made:
                self.each(_begin, made.endpoint)
                _reach(made.endpoint)
                before = self._server(), made.processor()
                start = time.perf_counter()
                work()
                seconds = time.perf_counter() - start
                after = self._server(), made.processor()
                ended = self.each(_end, self.server.endpoint)
                _reach(self.server.endpoint)
            own = sum(spent for spent, _ in ended)
            spent = (own, after[0] - before[0], after[1] - before[1])
            found.append(_Taken(seconds, nbytes / self.workers / bandwidth, max(more for _, more in ended), spent))
        return min(found)

    def _server(self) -> float:
        return processor_of(self.server.process.pid)


@contextlib.contextmanager
def _workers(number: int) -> Iterator[_Place]:
    """Give workers that have done some work already, and a server that nothing is on yet, for a block."""
    context = multiprocessing.get_context("spawn")
    with servers.seaweed() as server:
        os.environ |= {
            "AWS_ACCESS_KEY_ID": servers.KEYS.access_key_id,
            "AWS_SECRET_ACCESS_KEY": servers.KEYS.secret_access_key,
            "AWS_REGION": servers.REGION,
            "MALLOC_ARENA_MAX": "2",  # of workers, as docs/object_storage.md says
        }
        _reach(server.endpoint)
        small = f"s3://{server.bucket}/small"
        qm.save(_state(21), small)
        barrier = context.Barrier(number)
        with ProcessPoolExecutor(number, context, initializer=_enter, initargs=(barrier,)) as pool:
            place = _Place(pool, number, server)
            place.each(_warm, small)
            yield place


def _measured(place: _Place, qubits: int, times: int) -> Iterator[tuple[str, _Taken]]:
    """Measure operations on states of so many qubits, and a save of one that has one qubit less."""
    url = f"s3://{place.server.bucket}/large"
    block = _state(20).amplitudes / np.float32(2 ** ((qubits - 20) / 2))
    with qm.transaction(f"{url}@first", n_qubits=qubits, dtype="complex64", qubit_order="little") as tx:
        part = tx.fork()
        for low in range(0, tx.size, tx.chunk):
            part.write(low, np.roll(block, low // tx.chunk))
        tx.merge(part)
    with qm.transaction(f"{url}@second", partial=True) as tx:  # what it shares with the first is read twice
        part = tx.fork()
        part.write(0, -block)
        tx.merge(part)
    nbytes = 8 << qubits

    def fidelity() -> None:
        first, second = (_vector(f"{url}@{name}") for name in ("first", "second"))
        found = qm.metrics.fidelity(first, second, executor=place.pool)
        expected = (1 - 2 * _CHUNK / nbytes) ** 2
        if abs(found - expected) > 1e-6:
            raise AssertionError(f"a fidelity of {found} instead of {expected}")

    def verify() -> None:
        if problems := qm.verify(f"{url}@first", executor=place.pool).problems:
            raise AssertionError(problems)

    yield "fidelity", place.taken(2 * nbytes, _READING, times, fidelity)
    yield "verify", place.taken(nbytes, _READING, times, verify)
    half = nbytes // 2
    place.each(_hold, half // place.workers // 8)

    def save() -> None:
        with qm.transaction(f"{url}-saved", n_qubits=qubits - 1, dtype="complex64", qubit_order="little") as tx:
            each = tx.size // place.workers
            running = [place.pool.submit(_write, tx.fork(), k * each) for k in range(place.workers)]
            tx.merge(*(one.result() for one in running))

    yield "save", place.taken(half, _WRITING, 1, save)


def _state(qubits: int) -> qm.StateVector:
    amplitudes = np.random.default_rng(0).normal(size=2 << qubits).view(np.complex128).astype(np.complex64)
    return qm.StateVector(amplitudes / np.float32(np.linalg.norm(amplitudes)), qubit_order="little")


def _vector(url: str) -> qm.StateVector:
    found = qm.load(url).quantum
    assert isinstance(found, qm.StateVector)
    return found


# What workers do


def _enter(barrier: Barrier) -> None:
    _WORKER["barrier"] = barrier


def _together(work: Callable[..., Any], k: int, arguments: tuple[object, ...]) -> Any:
    _WORKER["barrier"].wait()  # so that each worker has one of these
    return work(k, *arguments)


def _reach(endpoint: str) -> None:
    os.environ["AWS_ENDPOINT_URL"] = endpoint
    stored_amplitudes.reader_of.cache_clear()


def _warm(k: int, url: str) -> None:
    """Import and start what there is, and see how much memory that takes."""
    state = _vector(url)
    qm.metrics.fidelity(state, state)
    qm.verify(url)
    with qm.transaction(f"{url}-{k}", n_qubits=20, dtype="complex64", qubit_order="little") as tx:
        part = tx.fork()
        part.write(0, np.zeros(1 << 20, np.complex64) + np.float32(2**-10))
        tx.merge(part)
    del state, tx, part
    _WORKER["idle"] = reset_peak()


def _begin(_: int, endpoint: str) -> None:
    _reach(endpoint)
    reset_peak()
    _WORKER["spent"] = time.process_time()


def _end(_: int, endpoint: str) -> tuple[float, int]:
    """Return the processor time that was spent, and by how much the peak was above what it is when idle."""
    _reach(endpoint)
    return time.process_time() - _WORKER["spent"], peak() - _WORKER["idle"]


def _hold(k: int, count: int) -> None:
    """Make amplitudes, as a simulator has them."""
    block = _state(20).amplitudes
    held: AnyArray = np.concatenate([np.roll(block, count * k + low) for low in range(0, count, len(block))])
    _WORKER["held"] = held
    _WORKER["idle"] += held.nbytes


def _write(part: Part, low: int) -> Part:
    part.write(low, _WORKER["held"])
    return part
