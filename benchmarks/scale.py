"""Past one machine: beside plain Zarr and raw objects, commits, memory of workers, fidelities on disk, many small files.

The S3 server is that of the tests, on loopback, and shares the cores: ratios carry over, speeds do not.
"""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import os
import shutil
import statistics
import tempfile
import time
import uuid
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr
from tests.cloud import servers
from zarr.codecs import BytesCodec, Crc32cCodec
from zarr.storage import LocalStore, ObjectStore

import quantum_memory as qm
from benchmarks.harness import Row, medians, peak, reset_peak, rounds
from benchmarks.links import links
from quantum_memory.cloud.chunks import IN_FLIGHT
from quantum_memory.durability.write_back import sync_file_system

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from obstore.store import S3Store

_MIB = 1 << 20
_CHUNK = 8 * _MIB
_LINK, _LATENCY = 50e6, 0.005
"""Bytes a second of a link to storage, and seconds from a request to its answer."""


def run(quick: bool) -> list[Row]:
    """Measure everything."""
    found: list[Row] = []
    with _folder() as folder:
        found += _beside_zarr(f"icechunk+file://{folder}/ours", folder, quick)
        with _server() as server:
            found += _beside_objects(server, quick)
            found += _through_a_link(server, quick)
            found += _commits(f"s3://{server.bucket}/commits", "object storage", quick)
        found += _commits(f"icechunk+file://{folder}/commits", "a folder", quick)
        found += _on_disk(folder, quick)
        found += _small_files(folder, quick)
    return found


def _state(qubits: int, seed: int = 0) -> qm.StateVector:
    rng = np.random.default_rng(seed)
    amplitudes = rng.normal(size=2 << qubits).view(np.complex128).astype(np.complex64)
    return qm.StateVector(amplitudes / np.float32(np.linalg.norm(amplitudes)), qubit_order="little")


def _beside_zarr(url: str, folder: Path, quick: bool) -> list[Row]:
    """Compare saves and loads in a folder with plain Zarr: the same chunks, CRC, and data on the disk at the end."""
    state = _state(20 if quick else 25)
    plain, ours = folder / "plain", Path(url.removeprefix("icechunk+file://"))

    def write_plain() -> None:
        _zarr(LocalStore(plain), state)[...] = state.amplitudes
        sync_file_system(str(folder))

    def read(place: str) -> Callable[[], object]:
        return lambda: _vector(place).amplitudes

    cases: dict[str, Callable[[], object]] = {
        "ours, write": lambda: qm.save(state, url),
        "zarr, write": write_plain,
        "ours, read": read(url),
        "zarr, read": lambda: zarr.open_array(LocalStore(plain), path="x", mode="r")[...],
    }
    gone: dict[str, Callable[[], object]] = {
        "ours, write": lambda: shutil.rmtree(ours, ignore_errors=True),
        "zarr, write": lambda: shutil.rmtree(plain, ignore_errors=True),
    }
    found = medians(rounds(cases, 3 if quick else 7, gone))
    return [
        _ratio(
            f"{state.nbytes >> 20} MiB in a folder: {what}, speed of ours / plain Zarr with CRC",
            found,
            what,
            "zarr",
            reach,
        )
        for what, reach in (("write", 0.85), ("read", 0.85))
    ]


def _beside_objects(server: servers.Server, quick: bool) -> list[Row]:
    """Compare saves and loads in object storage with plain Zarr and with raw objects, all of 8 MiB."""
    state = _state(21 if quick else 25)
    name = f"bench/{uuid.uuid4().hex}"
    plain = ObjectStore(server.store(f"{name}-zarr"))
    put, get = _raw(server.store(f"{name}-raw"), state)

    def write_plain() -> None:
        _zarr(plain, state)[...] = state.amplitudes

    writes = {"ours, write": _saves(server, name, state), "zarr, write": write_plain, "raw, write": put}
    reads: dict[str, Callable[[], object]] = {
        "ours, read": lambda: _vector(f"s3://{server.bucket}/{name}-0").amplitudes,
        "zarr, read": lambda: zarr.open_array(plain, path="x", mode="r")[...],
        "raw, read": get,
    }
    found = _taken(writes, reads, 3 if quick else 5)
    size = f"{state.nbytes >> 20} MiB in object storage"
    return [
        _ratio(f"{size}: write, speed of ours / plain Zarr with CRC", found, "write", "zarr", 0.85),
        _ratio(f"{size}: write, speed of ours / objects put as they are", found, "write", "raw", 0.90),
        _ratio(f"{size}: read, speed of ours / plain Zarr with CRC", found, "read", "zarr", 0.85),
        _ratio(f"{size}: read, speed of ours / objects got as they are", found, "read", "raw", 0.85),
    ]


def _through_a_link(server: servers.Server, quick: bool) -> list[Row]:
    """Compare the same with raw objects where storage is elsewhere, so that the server leaves cores to who writes."""
    state = _state(21 if quick else 25)
    name = f"bench/{uuid.uuid4().hex}"
    with links(int(server.endpoint.rpartition(":")[2]), _LINK, _LATENCY) as link:
        put, get = _raw(server.store(f"{name}-raw", through=link.endpoint), state)
        os.environ["AWS_ENDPOINT_URL"] = link.endpoint
        writes = {"ours, write": _saves(server, name, state), "raw, write": put}
        reads: dict[str, Callable[[], object]] = {
            "ours, read": lambda: _vector(f"s3://{server.bucket}/{name}-0").amplitudes,
            "raw, read": get,
        }
        found = _taken(writes, reads, 1 if quick else 3)
    os.environ["AWS_ENDPOINT_URL"] = server.endpoint
    size = f"{state.nbytes >> 20} MiB through a link of {_LINK / 1e6:.0f} MB/s and {_LATENCY * 1e3:.0f} ms"
    return [
        _ratio(f"{size}: write, speed of ours / objects put as they are", found, "write", "raw", 0.90),
        _ratio(f"{size}: read, speed of ours / objects got as they are", found, "read", "raw", 0.85),
    ]


def _taken(
    writes: Mapping[str, Callable[[], object]], reads: Mapping[str, Callable[[], object]], count: int
) -> dict[str, float]:
    """Return the median of each, of reads when all is written: a server has things to do after a write."""
    return medians(rounds(writes, count) | rounds(reads, count))


def _raw(store: S3Store, state: qm.StateVector) -> tuple[Callable[[], object], Callable[[], object]]:
    """Return what puts the amplitudes of a state as objects of 8 MiB, and what gets them."""
    step = _CHUNK // state.dtype.itemsize
    blocks = [state.amplitudes[k : k + step].tobytes() for k in range(0, len(state.amplitudes), step)]

    def each(work: Callable[[int], object]) -> None:
        with ThreadPoolExecutor(IN_FLIGHT) as pool:
            list(pool.map(work, range(len(blocks))))

    return (
        lambda: each(lambda k: store.put(f"{k}", blocks[k])),
        lambda: each(lambda k: bytes(store.get(f"{k}").bytes())),
    )


def _saves(server: servers.Server, name: str, state: qm.StateVector) -> Callable[[], object]:
    """Return what saves a state, each time where nothing is."""
    count = itertools.count()
    return lambda: qm.save(state, f"s3://{server.bucket}/{name}-{next(count)}")


def _commits(url: str, where: str, quick: bool) -> list[Row]:
    """Measure commits of a small change: from the end of writing to the answer."""
    repository = qm.repository(url, create=True)
    seconds = []
    for k in range(20 if quick else 200):
        with repository.writing() as writing:
            zarr.create_array(writing.session.store, name="x", shape=(4,), dtype="i8", overwrite=True)[...] = k
            start = time.perf_counter()
            repository.commit(writing, f"{k}")
            seconds.append(time.perf_counter() - start)
    half, most = statistics.median(seconds), sorted(seconds)[int(0.99 * len(seconds))]
    return [
        Row(f"commit in {where}, median", f"{half * 1e3:.1f} ms", "<= 50 ms", half <= 0.050),
        Row(f"commit in {where}, 99 of 100 within", f"{most * 1e3:.0f} ms", "<= 500 ms", most <= 0.500),
    ]


def _on_disk(folder: Path, quick: bool) -> list[Row]:
    """Two states on disk and two workers: what a fidelity takes of their memory, and of time."""
    qubits = 22 if quick else 28
    urls = [f"icechunk+file://{folder}/large-{k}" for k in range(2)]
    for k, url in enumerate(urls):
        block = _state(20, k).amplitudes / np.float32(2 ** ((qubits - 20) / 2))
        with qm.transaction(url, n_qubits=qubits, dtype="complex64", qubit_order="little") as tx:
            part = tx.fork()
            for low in range(0, tx.size, tx.chunk):
                part.write(low, np.roll(block, low // tx.chunk)[: tx.chunk])
            tx.merge(part)
    first, second = map(_vector, urls)
    tiny = f"icechunk+file://{folder}/tiny"
    qm.save(_state(21), tiny)
    found = []
    os.environ["MALLOC_ARENA_MAX"] = "2"  # of the workers, as docs/object_storage.md says
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        for _ in range(8):  # so that each worker imports and starts what there is
            qm.metrics.fidelity(_vector(tiny), _vector(tiny), executor=pool)
        idle = max(pool.map(_rest, [0.5] * 8))
        start = time.perf_counter()
        fidelity = qm.metrics.fidelity(first, second, executor=pool)
        seconds = time.perf_counter() - start
        above, most = map(max, zip(*pool.map(_risen, [0.5] * 8), strict=True))
        same = qm.metrics.fidelity(first, first, executor=pool)
        start = time.perf_counter()
        qm.verify(urls[0], executor=pool)
        checked = time.perf_counter() - start
    nbytes = first.nbytes
    found.append(
        Row(
            f"fidelity of two states of {qubits} qubits on disk ({fidelity:.3g}): a worker's peak",
            f"{most >> 20} MiB",
            "<= 200 MiB",
            most <= 200 * _MIB,
        )
    )
    more = above / _CHUNK
    found.append(
        Row(
            f"the same, more than one has that is idle after such work ({idle >> 20} MiB), in chunks of 8 MiB",
            f"{more:.1f}",
            "<= 4",
            more <= 4,
        )
    )
    found.append(Row("the same, read by two workers", f"{2 * nbytes / seconds / 1e6:.0f} MB/s", "", True))
    found.append(
        Row(
            "fidelity of a state in complex64 with itself, off by",
            f"{abs(same - 1):.1g}",
            "<= 1e-9",
            abs(same - 1) <= 1e-9,
        )
    )
    found.append(Row(f"verify of {nbytes >> 20} MiB by two workers", f"{nbytes / checked / 1e6:.0f} MB/s", "", True))
    for url in urls:
        shutil.rmtree(url.removeprefix("icechunk+file://"))
    return found


def _small_files(folder: Path, quick: bool) -> list[Row]:
    """Check 10^5 files of 4 KiB with two workers of Dask, some of them damaged."""
    from distributed import Client, LocalCluster

    cluster_of: Any = LocalCluster
    client_of: Any = Client

    count, bad = (10_000, 3) if quick else (100_000, 10)
    place = folder / "small"
    rng = np.random.default_rng(1)
    for k in range(count):
        path = place / f"{k // 1000}" / f"{k}.qms"
        path.parent.mkdir(parents=True, exist_ok=True)
        qm.save(
            qm.StateVector(rng.normal(size=512).view(complex), qubit_order="big"),
            path,
            durable=False,
            compression="none",
        )
    damaged = {str(place / f"{k // 1000}" / f"{k}.qms") for k in rng.choice(count, bad, replace=False)}
    for name in damaged:
        data = bytearray(Path(name).read_bytes())
        data[int(rng.integers(len(data)))] ^= 1 << int(rng.integers(8))
        Path(name).write_bytes(data)
    few = sorted(place.iterdir())[:2]
    journals = iter(range(100))

    def check(paths: list[Path], executor: Any, depth: Any) -> tuple[float, set[str]]:
        """Return files a second, from the call to the last result, and the damaged ones."""
        start, checked, found = time.perf_counter(), 0, set()
        journal = folder / f"journal-{next(journals)}"
        for one in qm.verify_all(paths, executor=executor, depth=depth, journal=journal):
            checked += 1
            if one.error is not None:
                found.add(one.path)
        return checked / (time.perf_counter() - start), found

    rates: dict[str, list[float]] = {}
    seen: list[set[str]] = []
    cluster = cluster_of(n_workers=2, threads_per_worker=1, dashboard_address=":0", silence_logs=50)
    with (
        cluster,
        client_of(cluster) as client,
        ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool,
    ):
        for executor in (client, pool):
            for depth in ("bytes", "full"):
                check(few[:1], executor, depth)  # imports
        for _ in range(1 if quick else 3):
            for name, executor in (("Dask", client), ("a process pool", pool)):
                rate, found = check([place], executor, "bytes")
                rates.setdefault(name, []).append(rate)
                seen.append(found)
            rates.setdefault("one process", []).append(check([place], None, "bytes")[0])
            rates.setdefault("full", []).append(check(few, client, "full")[0])
    shutil.rmtree(place)
    median = {name: statistics.median(each) for name, each in rates.items()}
    what, least = f"bytes of {count:,} files of 4 KiB, journal on", 20_000
    return [
        Row(f"{what}: two workers of Dask", f"{median['Dask']:,.0f} files/s", f">= {least:,}", median["Dask"] >= least),
        Row(
            f"{what}: two workers of a process pool",
            f"{median['a process pool']:,.0f} files/s",
            f">= {least:,}",
            median["a process pool"] >= least,
        ),
        Row(f"{what}: one process", f"{median['one process']:,.0f} files/s", "", True),
        Row(
            "the same, damaged ones found",
            f"{len(seen[0] & damaged)} of {bad}",
            f"{bad} of {bad}",
            all(one == damaged for one in seen),
        ),
        Row("full check of some of them: two workers of Dask", f"{median['full']:,.0f} files/s", "", True),
    ]


def _vector(url: str) -> qm.StateVector:
    found = qm.load(url).quantum
    assert isinstance(found, qm.StateVector)
    return found


_IDLE: list[int] = []
"""What this process has when it is idle."""


def _rest(seconds: float) -> int:
    """Return the memory of this process, and forget how much it has been."""
    time.sleep(seconds)  # so that each worker has its turn
    _IDLE[:] = [reset_peak()]
    return _IDLE[0]


def _risen(seconds: float) -> tuple[int, int]:
    """Return by how much the peak of this process was above what it has when it is idle, and that peak."""
    time.sleep(seconds)
    most = peak()
    return most - _IDLE[0], most


def _zarr(store: Any, state: qm.StateVector) -> Any:
    made = zarr.create_array(
        store,
        name="x",
        shape=state.amplitudes.shape,
        chunks=(_CHUNK // state.dtype.itemsize,),
        dtype=state.dtype,
        serializer=BytesCodec(endian="little"),
        compressors=[Crc32cCodec()],
        filters=None,
        fill_value=0,
        overwrite=True,
    )
    return made.with_config({"write_empty_chunks": True})


def _ratio(what: str, found: dict[str, float], operation: str, peer: str, least: float) -> Row:
    ratio = found[f"{peer}, {operation}"] / found[f"ours, {operation}"]
    return Row(what, f"{ratio:.2f}", f">= {least}", ratio >= least)


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(dir=Path.cwd(), prefix=".scale-"))
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


@contextlib.contextmanager
def _server() -> Iterator[servers.Server]:
    with servers.seaweed() as server:
        os.environ |= {
            "AWS_ACCESS_KEY_ID": servers.KEYS.access_key_id,
            "AWS_SECRET_ACCESS_KEY": servers.KEYS.secret_access_key,
            "AWS_REGION": servers.REGION,
            "AWS_ENDPOINT_URL": server.endpoint,
        }
        yield server
