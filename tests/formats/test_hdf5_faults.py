"""HDF5 stores when the disk fails, others are in the way, somebody interrupts, or a file is made to hurt."""

from __future__ import annotations

import errno
import itertools
import multiprocessing
import resource
import struct
import subprocess
import sys
import zlib

import h5py
import numpy as np
import pytest

import quantum_memory as qm
from quantum_memory.durability import files
from quantum_memory.errors import ConflictError, IntegrityError, InvalidStateError, QuantumMemoryError, StorageError
from quantum_memory.testing.faults import FaultyFiles, PassingFiles, in_child
from quantum_memory.testing.loop_disk import SmallDisk, can_mount

RNG = np.random.default_rng(7)
PSI = RNG.normal(size=1 << 10) + 1j * RNG.normal(size=1 << 10)
MEMORY = qm.MemoryState.from_dict({"quantum_data": {"state_vector": PSI}, "classical_data": {"w": np.arange(3000.0)}})


@pytest.fixture
def path(tmp_path):
    return tmp_path / "store.h5"


@pytest.fixture
def storage(path):
    return qm.HDF5QuantumStorage(path, compression=None, lock_timeout=0.3)


def contents(storage):
    """Return the content of each state, all of which are read; the index says the same."""
    listed = {one["id"]: one["content_id"] for one in storage.list_states()}
    assert {name: storage.load_quantum_state(name).content_id for name in listed} == listed
    qm.verify(storage.path)
    return listed


def test_a_flush_that_failed_anywhere_is_tried_again_and_no_sample_is_there_twice(storage, path):
    for k in itertools.count():
        path.unlink(missing_ok=True)
        with storage.time_series("x") as series:
            series.append(0.0)
        faulty = FaultyFiles(k, errno.EIO)
        again = storage.time_series("x")
        again.append(1.0)
        with files.using(faulty):
            try:
                again.flush()
            except QuantumMemoryError:
                assert faulty.failed
        again.append(2.0)
        again.flush()
        assert storage.read_series("x").values.tolist() == [0.0, 1.0, 2.0]
        if not faulty.failed:
            break
    assert k > 20


@pytest.mark.skipif(not can_mount(), reason="only root can mount")
def test_samples_that_a_full_disk_did_not_take_are_written_once_there_is_space(tmp_path):
    with SmallDisk(tmp_path) as disk:
        storage = qm.HDF5QuantumStorage(disk.mount / "store.h5")
        with storage.time_series("x") as series:
            series.append(0.0)
            series.flush()
            disk.leave(nbytes=0)
            for step in range(1, 8192):
                series.append(float(step))
            for step in (8192, 8193):
                with pytest.raises(StorageError, match="No space left"):
                    series.append(float(step))
            assert storage.read_series("x").values.tolist() == [0.0]
            disk.leave()
        assert storage.read_series("x").values.tolist() == [float(step) for step in range(8194)]


LOAD = """
import errno, sys
import quantum_memory as qm
from quantum_memory.durability import files
from quantum_memory.testing.faults import FaultyFiles
for k in range(40):
    with files.using(FaultyFiles(k, errno.EIO)):
        try:
            qm.HDF5QuantumStorage(sys.argv[1]).load_quantum_state("a")
        except qm.errors.StorageError as error:
            held = error
"""


def test_a_process_in_which_the_disk_failed_ends_as_any_other(storage, path):
    storage.save_quantum_state(PSI, "a")
    done = subprocess.run([sys.executable, "-c", LOAD, path], timeout=60, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


# Callbacks


class Mine(QuantumMemoryError):
    """An error that a callback raises, with nothing said of a path or a next step."""


WITH_A_CALLBACK = {
    "save": lambda path, call: qm.save(MEMORY, path, progress=call),
    "append": lambda path, call: qm.HDF5QuantumStorage(path).save_quantum_state(MEMORY, "new", progress=call),
    "optimize": lambda path, call: qm.HDF5QuantumStorage(path).optimize_storage(progress=call),
    "convert": lambda path, call: qm.convert(path, path.with_name("b.h5"), progress=call),
    "load": lambda path, call: qm.load(path, progress=call),
    "map": lambda path, call: qm.load(path, progress=call, mmap=True),
    "select": lambda path, call: qm.load(path, only="*", progress=call),
    "load a state": lambda path, call: qm.HDF5QuantumStorage(path).load_quantum_state("state", progress=call),
    "verify": lambda path, call: qm.verify(path, progress=call),
}


@pytest.mark.parametrize("compression", ["none", "lzf"])
@pytest.mark.parametrize("what", WITH_A_CALLBACK)
@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt, OSError, ConflictError, Mine])
def test_what_a_callback_raises_comes_out_as_it_is(path, what, compression, kind):
    several = RNG.normal(size=1 << 18)  # of more than one chunk, which are worked on in other threads
    qm.save(qm.MemoryState(several, {"w": np.arange(3000.0)}), path, compression=compression)
    good, raised = path.read_bytes(), kind("mine")

    def call(_):
        raise raised

    with pytest.raises(kind) as caught:
        WITH_A_CALLBACK[what](path, call)
    assert caught.value is raised
    assert (raised.__cause__, raised.__context__) == (None, None)
    if isinstance(raised, QuantumMemoryError):
        assert (raised.path, raised.next_step) == (None, None)
    assert path.read_bytes() == good
    assert [one.name for one in path.parent.iterdir()] == [path.name]
    qm.HDF5QuantumStorage(path, lock_timeout=0).save_quantum_state(MEMORY)  # the error holds no lock


@pytest.mark.parametrize("what", ["save", "append", "optimize"])
def test_what_a_callback_raises_comes_out_though_the_disk_fails_as_well(path, what):
    qm.save(MEMORY, path)
    good, raised, full = path.read_bytes(), KeyboardInterrupt(), []

    class FullFiles(PassingFiles):
        def call(self, name, *arguments):
            if full and name == "write_at":
                full.append(name)
                raise OSError(errno.ENOSPC, "full")
            return super().call(name, *arguments)

    def call(_):
        full.append("from now on")
        raise raised

    with files.using(FullFiles()), pytest.raises(KeyboardInterrupt) as caught:
        WITH_A_CALLBACK[what](path, call)
    assert caught.value is raised
    assert len(full) > 1
    assert path.read_bytes() == good


def test_a_callback_that_raises_while_a_store_begins_is_called_no_more(path):
    calls = []

    def call(done):
        calls.append(done)
        raise ConflictError("mine")

    with pytest.raises(ConflictError, match="mine"):
        qm.HDF5QuantumStorage(path).save_quantum_state(PSI, progress=call)
    assert len(calls) == 1
    assert not path.exists()


# Others


def test_an_error_that_is_held_on_to_holds_no_lock(storage, path):
    for name in ("a", "b"):
        storage.save_quantum_state(PSI, name)
    with h5py.File(path) as file:
        places = [file[f"quantum_states/a/{name}"].id.get_offset() for name in ("quantum_data/amplitudes", "metadata")]
    for place, read in zip(places, (qm.verify, lambda _: storage.load_quantum_state("a")), strict=True):
        with path.open("r+b") as file:
            file.seek(place + 5)
            file.write(b"!")
        with pytest.raises(IntegrityError) as caught:
            read(path)
        storage.save_quantum_state(PSI)
        with pytest.raises(IntegrityError) as caught:
            storage.load_quantum_state("a", mmap=True)
        storage.save_quantum_state(PSI)
        assert caught.value.next_step
    with pytest.raises(IntegrityError) as caught:
        qm.verify(path, state_id="a")
    storage.delete_state("a")


def test_a_store_that_is_open_is_not_written_to_and_the_error_says_so(storage):
    storage.save_quantum_state(PSI, "a")
    with storage.open_state("a"), pytest.raises(ConflictError, match="reading it"):
        storage.save_quantum_state(PSI, "b")
    mapped = storage.load_quantum_state("a", mmap=True).quantum.amplitudes
    with pytest.raises(ConflictError, match="reading it"):  # what is mapped must not change
        storage.delete_state("a")
    assert np.array_equal(mapped, PSI)
    del mapped
    storage.delete_state("a")


def append(path, number):
    storage = qm.HDF5QuantumStorage(path, durable=False)
    for step in range(10):
        storage.save_quantum_state(PSI[:4] * step, f"{number}-{step}")
        with storage.time_series("x") as series:
            series.append((number, step, 0.0))


@pytest.mark.parametrize("there", [False, True], ids=["no file", "an empty file"])
def test_processes_that_begin_a_store_and_append_to_it_at_once_lose_nothing(path, there):
    if there:
        path.touch()
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=append, args=(path, number)) for number in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0]
    storage = qm.HDF5QuantumStorage(path)
    assert len(contents(storage)) == 20
    values = storage.read_series("x").values
    for number in range(2):
        assert values[values[:, 0] == number, 1].tolist() == list(range(10))


@pytest.mark.parametrize("there", [True, False])
def test_a_store_that_is_made_meanwhile_is_opened(storage, there):
    if there:
        storage.save_quantum_state(PSI, "first")
    others = []

    def meanwhile(_):
        if not others:
            others.append(qm.HDF5QuantumStorage(storage.path, lock_timeout=0).save_quantum_state(PSI[:2], "other"))

    if there:  # it has the lock
        with pytest.raises(ConflictError, match="writing"):
            storage.save_quantum_state(MEMORY, "mine", progress=meanwhile)
        assert set(contents(storage)) == {"first"}
    else:
        storage.save_quantum_state(MEMORY, "mine", progress=meanwhile)
        assert set(contents(storage)) == {"other", "mine"}


@pytest.mark.parametrize("what", ["optimize", "save"])
def test_a_file_that_was_replaced_meanwhile_is_not_replaced_again(storage, path, what):
    qm.save(PSI, path)
    done = []

    def meanwhile(_):
        if not done:
            done.append(storage.optimize_storage())
            storage.save_quantum_state(PSI[:2], "other")

    other = qm.HDF5QuantumStorage(path)
    with pytest.raises(ConflictError, match="meanwhile"):
        other.optimize_storage(progress=meanwhile) if what == "optimize" else qm.save(MEMORY, path, progress=meanwhile)
    assert set(contents(storage)) == {"state", "other"}


def test_optimizing_keeps_what_others_put_beside_the_index(storage, path):
    storage.save_quantum_state(PSI)
    with h5py.File(path, "r+", libver="v110") as file:
        file["checkpoints/run"] = np.arange(3)
        file["index/by_energy"] = np.arange(4)
    storage.optimize_storage()
    with h5py.File(path) as file:
        assert file["checkpoints/run"][:].tolist() == [0, 1, 2]
        assert file["index/by_energy"][:].tolist() == [0, 1, 2, 3]


# Lies


def test_a_state_in_the_place_of_another_is_found_and_the_index_made_again(storage, path):
    for name, psi in (("a", PSI), ("b", PSI * 1j)):
        storage.save_quantum_state(psi, name)
    with h5py.File(path, "r+", libver="v110") as file:
        states = file["quantum_states"]
        for old, new in (("a", "x"), ("b", "a"), ("x", "b")):
            states.move(old, new)
    with pytest.raises(IntegrityError, match="index says of the state 'a'"):
        qm.verify(path)
    storage.optimize_storage()
    assert set(contents(storage)) == {"a", "b"}


def test_odd_arguments_are_not_said_to_be_damage(storage):
    storage.save_quantum_state(PSI)
    with storage.time_series("x") as series:
        series.append(1.0, time=np.float32(0.1))
        for sample, time in [
            ((1, (2, 3)), 0.0), ((1 << 53 | 1, 0.0), 0.0), (np.ma.array([1.0]), 0.0), (1.0, "now"), (1.0, 1 << 70),
        ]:  # fmt: skip
            with pytest.raises(InvalidStateError):
                series.append(sample, time)
    assert storage.read_series("x").time.tolist() == [float(np.float32(0.1))]
    for limit in ("3", -1, True):
        with pytest.raises(InvalidStateError, match="limit"):
            storage.list_states(limit=limit)
    with pytest.raises(InvalidStateError, match="no samples"):
        storage.read_series("x", "a")


def forged_chunk(path, compression, forge):
    storage = qm.HDF5QuantumStorage(path, compression=compression, durable=False)
    storage.save_quantum_state(np.zeros(1 << 16, np.complex128), "a")
    with h5py.File(path, "r+", libver="v110") as file:
        dataset = file["quantum_states/a/quantum_data/amplitudes"]
        start = (0,) * dataset.ndim
        dataset.id.write_direct_chunk(start, forge(dataset.id.read_direct_chunk(start)[1]))
    return storage


def bomb():
    packer = zlib.compressobj(9)
    return b"".join(packer.compress(bytes(1 << 20)) for _ in range(512)) + packer.flush()


@pytest.mark.parametrize(
    ("compression", "forge"),
    [
        ("gzip", lambda _: bomb()),
        ("gzip", lambda chunk: chunk[:-1]),
        ("zstd", lambda chunk: chunk[:-1]),
        ("bitshuffle", lambda chunk: struct.pack(">Q", 1 << 33) + chunk[8:]),
        ("bitshuffle", lambda chunk: chunk[:12] + b"\x7f" + chunk[13:]),
        ("bitshuffle", lambda chunk: chunk[:100]),
        ("szip", lambda chunk: b"\xff\xff\xff\xff" + chunk[4:]),
        ("lzf", lambda _: bytes(8 << 20)),
    ],
)
def test_a_chunk_takes_no_more_memory_than_it_should_and_ends_no_process(path, compression, forge):
    storage = forged_chunk(path, compression, forge)

    def load():
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with pytest.raises(IntegrityError):
            storage.load_quantum_state("a")
        with pytest.raises(IntegrityError):
            qm.verify(path)
        taken = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10
        assert taken < (64 << 20) + path.stat().st_size

    assert in_child(load) == 0


def test_chunks_of_another_shape_are_refused(path):
    storage = qm.HDF5QuantumStorage(path, compression="gzip")
    storage.save_quantum_state(np.zeros(1 << 18, np.complex128), "a")
    with h5py.File(path, "r+", libver="v110") as file:
        group = file["quantum_states/a/quantum_data"]
        del group["amplitudes"]
        zeros = np.zeros(1 << 18, np.complex128)
        group.create_dataset("amplitudes", data=zeros, chunks=(1 << 18,), compression="gzip", shuffle=True)
    with pytest.raises(IntegrityError, match="no release writes"):
        storage.load_quantum_state("a")
