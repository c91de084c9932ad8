"""Large states of old stores are migrated without ever being in memory, and come out as those that are."""

import hashlib
import tracemalloc
from contextlib import closing

import h5py
import numpy as np
import pytest

import quantum_memory as qm
from quantum_memory.durability.files import ReadableFile
from quantum_memory.errors import ConflictError, IntegrityError
from quantum_memory.formats import legacy
from quantum_memory.formats.legacy import stores
from quantum_memory.formats.legacy.windows import prepared
from quantum_memory.formats.prepared import Prepared
from quantum_memory.lifecycle.migration import staging
from quantum_memory.state.arrays import same_bits

from ..formats.legacy.fixtures import DATA
from .trees import grown, listing

UTILS = qm.MigrationUtilities()
MIB = 1 << 20
PACKINGS = {"none": {}, "gzip": {"compression": "gzip", "compression_opts": 6}, "lzf": {"compression": "lzf"}}


@pytest.fixture
def windowed(monkeypatch):
    """Arrays of any length stay in the file, and what can be done beside other work is."""
    monkeypatch.setattr(stores, "_IN_MEMORY", 0)
    monkeypatch.setattr(staging, "_LARGE", 0)


def amplitudes(count=1 << 17, seed=1):
    """Return 2 MiB of amplitudes, one in eight of which is not zero."""
    rng = np.random.default_rng(seed)
    made = np.zeros(count, np.complex128)
    made[::8] = rng.standard_normal(2 * len(made[::8])).view(np.complex128)
    return made / np.linalg.norm(made)


def store(path, packing="none", checksum=True, **states):
    """Write a store of the first implementation: each state is a vector, a list of tensors, or both as a pair."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file.attrs["schema_version"] = "1.0"
        index = [name.encode() for name in states]
        file.create_dataset("index/chronological", data=np.array(index, "S64"), maxshape=(None,), chunks=True)
        for name, parts in states.items():
            vector, tensors = parts if isinstance(parts, tuple) else (parts, None)
            group = file.create_group(f"quantum_states/{name}")
            facts = {"version": "1.0", "compression": packing}
            if vector is not None:
                group.create_dataset("quantum_data/state_vector", data=vector, **PACKINGS[packing])
                if checksum:
                    facts["checksum"] = hashlib.sha256(vector).hexdigest()
            if tensors is not None:
                chain = group.create_group("quantum_data/mps_tensors")
                chain.attrs["n_tensors"] = len(tensors)
                for number, tensor in enumerate(tensors):
                    chain.create_dataset(f"tensor_{number}", data=tensor)
            group.create_group("metadata").attrs.update(facts)
    return path


def chain(width):
    rng = np.random.default_rng(2)
    shapes = [(1, 2, width), (width, 2, width), (width, 2, 1)]
    return [rng.standard_normal((*shape[:-1], 2 * shape[-1])).view(np.complex128) for shape in shapes]


def migrated(tree):
    done = UTILS.batch_migrate_directory(tree)
    assert done.failed == []
    return done


@pytest.mark.parametrize("packing", PACKINGS)
def test_a_vector_comes_out_as_the_same_bits(tmp_path, windowed, packing):
    path = store(tmp_path / "tree" / "s.h5", packing, a=amplitudes(), b=amplitudes(seed=2))
    before = {name: qm.load(path, state_id=name) for name in "ab"}
    assert migrated(path.parent).migrated == 1
    for name, old in before.items():
        new = qm.load(path, state_id=name, verify="full")
        assert same_bits(new.quantum.amplitudes, old.quantum.amplitudes)
        assert new.content_id == old.content_id == qm.info(path, state_id=name)["content_id"]
        assert new.record["norm"] == pytest.approx(1)
        with h5py.File(path) as file:
            data = file[f"quantum_states/{name}/quantum_data/amplitudes"]
            assert data.compression == PACKINGS[packing].get("compression")
    qm.verify(path)


def test_a_vector_whose_length_is_no_power_of_two_is_one_too(tmp_path, windowed):
    path = store(tmp_path / "tree" / "s.h5", "gzip", a=amplitudes(70_001))
    old = qm.load(path)
    migrated(path.parent)
    assert qm.load(path).content_id == old.content_id


@pytest.mark.parametrize("vector", [None, amplitudes(8)], ids=["alone", "beside a vector"])
def test_tensors_come_out_as_the_same_bits(tmp_path, windowed, vector):
    path = store(tmp_path / "tree" / "s.h5", a=(vector, chain(200)))
    old = qm.load(path)
    migrated(path.parent)
    new = qm.load(path, verify="full")
    assert new.content_id == old.content_id
    assert "norm" not in new.record or vector is not None
    kept = new.quantum.tensors if vector is None else new.classical["mps_tensors"]
    assert all(same_bits(*pair) for pair in zip(kept, chain(200), strict=True))


def test_tensors_that_form_no_chain_are_kept(tmp_path, windowed):
    path = store(tmp_path / "tree" / "s.h5", a=(None, chain(50)[::-1]))
    migrated(path.parent)
    assert all(same_bits(*pair) for pair in zip(qm.load(path).classical["mps_tensors"], chain(50)[::-1], strict=True))


@pytest.mark.parametrize("odd", [np.nan, np.inf, 7.0, 1e200])
def test_what_is_odd_about_it_is_said_as_of_one_in_memory(tmp_path, windowed, odd):
    vector = amplitudes()
    vector[3] = odd
    path = store(tmp_path / "s.h5", a=vector)
    with ReadableFile(str(path)) as source, closing(legacy.Store(source)) as opened:
        assert opened.read("a").notes == legacy.read(source).notes
        assert any("finite" in note or "norm" in note for note in opened.read("a").notes)


def test_reading_it_gives_arrays_in_memory(tmp_path, windowed):
    path = store(tmp_path / "s.h5", a=amplitudes())
    with ReadableFile(str(path)) as source:
        found = legacy.read(source)
    assert found.windows == {}
    assert same_bits(found.memory.quantum.amplitudes, amplitudes())
    assert same_bits(qm.load(path).quantum.amplitudes, amplitudes())


@pytest.mark.parametrize(("packing", "count", "most"), [("none", 1 << 20, 12 * MIB), ("gzip", 1 << 21, 24 * MIB)])
def test_a_large_one_takes_little_memory(tmp_path, packing, count, most):
    path = store(tmp_path / "tree" / "s.h5", packing, a=amplitudes(count))
    migrated(store(tmp_path / "first" / "s.h5", packing, a=amplitudes()).parent)  # what is imported for the first
    tracemalloc.start()
    try:
        migrated(path.parent)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < most < 16 * count
    assert qm.info(path)["format"] == "h5"


def test_a_vector_that_does_not_match_its_checksum_is_left_alone(tmp_path, windowed):
    path = store(tmp_path / "tree" / "s.h5", a=amplitudes())
    with h5py.File(path, "r+") as file:
        file["quantum_states/a/quantum_data/state_vector"][100_000] = 0.5
    (entry,) = [entry for _, entry in UTILS.generate_migration_plan(path.parent).entries()]
    assert (entry.action, entry.reason) == ("damaged", "its state vector does not match its SHA-256")


def test_a_chunk_that_is_damaged_is_found(tmp_path, windowed):
    path = store(tmp_path / "tree" / "s.h5", "gzip", checksum=False, a=amplitudes())
    with h5py.File(path) as file:
        place = file["quantum_states/a/quantum_data/state_vector"].id.get_chunk_info(3)
    data = bytearray(path.read_bytes())
    data[place.byte_offset : place.byte_offset + place.size] = bytes(place.size)
    path.write_bytes(data)
    (entry,) = [entry for _, entry in UTILS.generate_migration_plan(path.parent).entries()]
    assert entry.action == "damaged"
    assert "zlib" in entry.reason


def test_a_chunk_that_is_missing_is_found(tmp_path, windowed):
    path = store(tmp_path / "tree" / "s.h5", a=amplitudes(8))
    with h5py.File(path, "r+") as file:
        part = file["quantum_states/a/quantum_data"]
        del part["state_vector"]
        vector = part.create_dataset("state_vector", (1 << 17,), np.complex128, chunks=(1 << 13,))
        vector[: 1 << 16] = 1  # of chunks that are not packed, the half that is there is too short for the whole
    (entry,) = [entry for _, entry in UTILS.generate_migration_plan(path.parent).entries()]
    assert entry.action == "damaged"


def test_what_was_written_is_compared_with_the_original_bit_for_bit(tmp_path, windowed):
    path = store(tmp_path / "old.h5", a=amplitudes())
    new = str(tmp_path / "new.h5")
    other = amplitudes()
    other[-1] = np.nextafter(0, 1)
    with ReadableFile(str(path)) as source, closing(legacy.Store(source)) as opened:
        old = prepared(opened.read("a"))
        qm.HDF5QuantumStorage(new, None).save_quantum_state(old, "a")
        assert staging._compare(old, new, "a") == qm.load(path).content_id
        memory = qm.load(path)
        unlike = Prepared.plain(qm.MemoryState(qm.StateVector(other, qubit_order="big"), memory.classical))
        qm.HDF5QuantumStorage(new, None).save_quantum_state(unlike, "b")
        with pytest.raises(IntegrityError, match="what was written is not what was read"):
            staging._compare(old, new, "b")


def test_a_byte_of_the_new_file_that_was_changed_is_found(tmp_path, windowed):
    path = store(tmp_path / "old.h5", a=amplitudes())
    new = tmp_path / "new.h5"
    with ReadableFile(str(path)) as source, closing(legacy.Store(source)) as opened:
        old = prepared(opened.read("a"))
        qm.HDF5QuantumStorage(new, None).save_quantum_state(old, "a")
        with h5py.File(new) as file:
            place = file["quantum_states/a/quantum_data/amplitudes"].id.get_offset()
        with new.open("r+b") as file:
            file.seek(place + MIB + 7)
            file.write(b"\1")
        with pytest.raises(IntegrityError, match="damaged in chunk 1"):
            staging._compare(old, str(new), "a")


def test_a_file_that_was_changed_since_the_plan_is_refused(tmp_path, windowed):
    path = store(tmp_path / "tree" / "s.h5", checksum=False, a=amplitudes())
    plan = UTILS.generate_migration_plan(path.parent)
    with h5py.File(path, "r+") as file:
        file["quantum_states/a/quantum_data/state_vector"][5] = 0.5
    with pytest.raises(ConflictError, match="changed since the plan"):
        UTILS.apply_migration_plan(plan)
    store(path, a=amplitudes(seed=3))  # as one whose checksum does not match would be, too
    with h5py.File(path, "r+") as file:
        file["quantum_states/a/quantum_data/state_vector"][5] = 0.5
    with pytest.raises(ConflictError, match="changed since the plan"):
        UTILS.apply_migration_plan(plan)
    assert list((path.parent / ".qmem-migration").rglob("*.h5")) == []


def test_a_dry_run_reads_it_and_writes_nothing(tmp_path, windowed):
    path = store(tmp_path / "tree" / "s.h5", a=amplitudes())
    before = path.read_bytes()
    done = UTILS.apply_migration_plan(UTILS.generate_migration_plan(path.parent), dry_run=True)
    assert (done.migrated, done.failed) == (1, [])
    assert [one.name for one in path.parent.iterdir()] == ["s.h5"]
    assert path.read_bytes() == before


def test_every_kind_of_file_is_migrated_beside_other_work(tmp_path, windowed):
    tree = grown(tmp_path / "tree", DATA, "json_v1/v1_n3_mps.json", "qms/q_n3_lz4.qms", "hdf5/h_n3_gzip.h5")
    before = listing(tree)
    assert migrated(tree).migrated == 3
    for path in ("json_v1/v1_n3_mps.json", "qms/q_n3_lz4.qms", "hdf5/h_n3_gzip.h5"):
        assert UTILS.verify_migration(DATA / path, tree / path)
    assert UTILS.rollback_migration(tree).restored == 3
    assert listing(tree) == before
