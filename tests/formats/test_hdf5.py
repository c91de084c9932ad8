"""HDF5 stores: what the seed asks of `HDF5QuantumStorage`, and what a user of h5py sees."""

from __future__ import annotations

import math
import subprocess
import sys

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import quantum_memory as qm
from quantum_memory.errors import (
    ConflictError,
    IntegrityError,
    InvalidStateError,
    MissingError,
    QuantumMemoryError,
    UnsafeError,
    UnsupportedVersionError,
)
from quantum_memory.formats.hdf5_layout import FILTER_NUMBERS, boxes, dataset_names, hdf5_chunks
from quantum_memory.state.arrays import STORABLE
from quantum_memory.testing.equality import assert_identical

COMPRESSIONS = ["gzip", "lzf", "szip", None, "zstd", "bitshuffle"]
RNG = np.random.default_rng(2026)
PSI = RNG.normal(size=1 << 14) + 1j * RNG.normal(size=1 << 14)
PSI /= np.linalg.norm(PSI)
STATE = {
    "metadata": {"name": "Haar", "shape": (1, 2)},
    "quantum_data": {"state_vector": PSI, "qubit_order": "little"},
    "classical_data": {"layer": {"weight": RNG.normal(size=(70, 90)).astype(np.float32), "bias": np.float64(-0.0)}},
    "emotional_context": {"trajectory": [[0.0, 0.1, 0.2], [0.3, 0.1, -0.2]], "stability": 0.5},
}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "store.h5"


@pytest.fixture
def storage(path):
    return qm.HDF5QuantumStorage(path, compression=None)


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_the_calls_of_the_mission(tmp_path, compression):
    storage = qm.HDF5QuantumStorage(tmp_path / "quantum_memory.h5", compression=compression)
    state_id = storage.save_quantum_state(STATE)
    assert storage.load_quantum_state(state_id) == STATE
    assert [one["id"] for one in storage.list_states(limit=10)] == [state_id]
    stats = storage.get_storage_stats()
    assert stats["states"] == 1
    assert stats["file_bytes"] == (tmp_path / "quantum_memory.h5").stat().st_size
    storage.export_to_binary(state_id, tmp_path / "export.qms")
    other = storage.import_from_binary(tmp_path / "export.qms")
    assert storage.load_quantum_state(other) == STATE
    storage.delete_state(state_id)
    saved = storage.optimize_storage()
    assert saved["states"] == 1
    assert saved["bytes_saved"] > PSI.nbytes // 2
    assert storage.load_quantum_state(other) == STATE
    assert qm.verify(storage.path).problems == []


def test_importing_takes_what_a_reader_is_told(storage, tmp_path):
    qm.save(PSI, tmp_path / "a.pkl")
    with pytest.raises(UnsafeError, match="when that is asked for"):
        storage.import_from_binary(tmp_path / "a.pkl")
    storage.import_from_binary(tmp_path / "a.pkl", "a", allow_pickle=True)
    storage.save_quantum_state(STATE, "b")
    other = qm.HDF5QuantumStorage(tmp_path / "other.h5")
    with pytest.raises(InvalidStateError, match="store of 2 states"):
        other.import_from_binary(storage.path)
    assert other.import_from_binary(storage.path, "new", source_id="b") == "new"
    assert other.load_quantum_state("new") == STATE
    with pytest.raises(qm.BudgetError):
        other.import_from_binary(storage.path, source_id="a", max_bytes=100)


@pytest.fixture
def tracking():
    """Whether h5py tracks the order in which things are made is set for all who use it; other packages do."""
    before = h5py.get_config().track_order
    yield lambda on: setattr(h5py.get_config(), "track_order", on)
    h5py.get_config().track_order = before


@pytest.mark.parametrize("compression", ["none", "gzip", "szip"])
def test_the_same_memory_makes_the_same_bytes_whatever_h5py_is_set_to(tmp_path, tracking, compression):
    made = []
    for on in (False, True):
        tracking(on)
        storage = qm.HDF5QuantumStorage(tmp_path / f"{on}.h5", compression=compression)
        qm.save(
            {"classical_data": {"z": {"a": {"b": PSI}}, "a": PSI * 2}} | STATE, storage.path, compression=compression
        )
        one = tmp_path.joinpath(f"{on}.h5").read_bytes()
        with storage.time_series("pad") as series:
            series.append((0.1, 0.2, 0.3), time=0.5)
        with storage.time_series("records") as series:
            series.append({"a": 1})
        appended = tmp_path.joinpath(f"{on}.h5").read_bytes()
        storage.optimize_storage()
        made.append([one, appended, tmp_path.joinpath(f"{on}.h5").read_bytes()])
    assert made[0] == made[1]


@pytest.mark.parametrize("compression", ["zstd", "bitshuffle"])
def test_another_process_reads_what_a_plugin_packed(tmp_path, compression):
    qm.save(PSI, tmp_path / "s.h5", compression=compression)
    code = f"import quantum_memory as qm; print(qm.load({str(tmp_path / 's.h5')!r}).content_id)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == qm.MemoryState(PSI).content_id


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_every_dtype_and_shape_with_every_compression(tmp_path, compression):
    tree = {}
    for name, code in STORABLE.items():
        for number, shape in enumerate([(), (0,), (3, 0), (5,), (70, 90), (3, 1, 1700), (2, 70000), (40000, 3)]):
            raw = np.frombuffer(RNG.bytes(math.prod(shape) * np.dtype(code).itemsize), np.uint8)
            tree[f"{name}_{number}"] = (raw % 2 == 1 if name == "bool" else raw.view(code)).reshape(shape)
    storage = qm.HDF5QuantumStorage(tmp_path / "s.h5", compression=compression)
    loaded = storage.load_quantum_state(storage.save_quantum_state(qm.MemoryState(classical=tree)), verify="full")
    assert_identical(loaded.classical, tree)


def test_szip_holds_a_complex_vector_as_pairs_of_floats(tmp_path):
    storage = qm.HDF5QuantumStorage(tmp_path / "s.h5", compression="szip")
    smooth = np.exp(2j * np.pi * np.arange(1 << 14) / (1 << 14)) / (1 << 7)
    state_id = storage.save_quantum_state(smooth)
    with h5py.File(storage.path) as file:
        dataset = file[f"quantum_states/{state_id}/quantum_data/amplitudes"]
        assert dataset.shape == (1 << 14, 2)
        assert dataset.dtype == np.float64
        assert dataset.compression == "szip"
        assert dataset.id.get_storage_size() < smooth.nbytes
        assert np.array_equal(dataset[...].view(np.complex128)[:, 0], smooth)
        with pytest.raises(ValueError, match="invalid datatype size"):
            h5py.File("core", "w", driver="core", backing_store=False).create_dataset(
                "x", data=smooth, chunks=(1 << 10,), compression="szip"
            )
    assert np.array_equal(storage.load_quantum_state(state_id).quantum.amplitudes, smooth)


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_a_state_of_zeros_is_packed_and_read_again(tmp_path, compression):
    storage = qm.HDF5QuantumStorage(tmp_path / "s.h5", compression=compression)
    zero = np.zeros(1 << 20, np.complex128)
    zero[0] = 1
    state_id = storage.save_quantum_state(zero)
    assert np.array_equal(storage.load_quantum_state(state_id).quantum.amplitudes, zero)
    if compression:
        assert storage.get_storage_stats()["stored_bytes"] < zero.nbytes / 50


def test_h5py_reads_everything_where_the_schema_says(storage, path):
    state_id = storage.save_quantum_state(STATE, "run-1")
    with h5py.File(path) as file:
        assert set(file) == {"quantum_states", "time_series", "checkpoints", "index"}
        group = file["quantum_states"][state_id]
        assert np.array_equal(group["quantum_data/amplitudes"], PSI)
        assert group["quantum_data/amplitudes"].dtype == np.complex128
        assert np.array_equal(group["classical_data/layer/weight"], STATE["classical_data"]["layer"]["weight"])
        assert b'"name":"Haar"' in group["metadata"][()]
        assert group.attrs["default"] == b"quantum_data"
        assert dict(group["quantum_data"].attrs) == {"NX_class": b"NXdata", "signal": b"amplitudes"}
        assert group["emotional_context/trajectory"].attrs["signal"] == b"pad"
        assert file["index/chronological"]["id"].tolist() == [b"run-1"]


@given(st.lists(st.integers(1, 6), min_size=1, max_size=4), st.data())
def test_boxes_are_the_items_of_a_range_in_order(shape, data):
    total = math.prod(shape)
    start = data.draw(st.integers(0, total))
    stop = data.draw(st.integers(start, total))
    array = np.arange(total).reshape(shape)
    found = [array[box].reshape(-1) for box in boxes(tuple(shape), start, stop)]
    assert np.concatenate([np.empty(0, int), *found]).tolist() == list(range(start, stop))
    assert all(part.size for part in found)


@given(st.lists(st.integers(1, 1 << 40), min_size=1, max_size=6), st.sampled_from([1, 2, 4, 8, 16]))
def test_chunks_of_hdf5_are_of_a_mebibyte_at_most(shape, itemsize):
    chunk = hdf5_chunks(tuple(shape), itemsize)
    assert 1 <= math.prod(chunk) * itemsize <= 1 << 20
    assert all(step <= length for step, length in zip(chunk, shape, strict=True))


NAMES = st.text("ab/~.-", max_size=4).map(lambda key: key.replace("~", "~0").replace("/", "~1"))


@given(st.sets(st.lists(NAMES, max_size=3).map(lambda parts: "/".join(["classical", *parts]))))
def test_names_of_datasets_are_all_different_and_no_group(paths):
    names = list(dataset_names(dict.fromkeys(paths)).values())
    assert len(set(names)) == len(paths)
    groups = {name[:end] for name in names for end, mark in enumerate(name) if mark == "/"}
    assert not groups.intersection(names)
    for name in names:
        assert not {"", "."}.intersection(name.split("/"))


def test_awkward_names_are_kept(storage):
    tree = {"": {"": np.arange(2)}, ".": np.arange(3), "a/b": np.arange(4), 1: np.arange(5), "1": {"x": np.arange(6)}}
    assert_identical(storage.load_quantum_state(storage.save_quantum_state(tree)).classical, tree)


def test_a_slice_reads_the_chunks_that_it_touches(storage):
    state_id = storage.save_quantum_state(np.arange(1 << 18, dtype=np.complex128))
    with storage.open_state(state_id) as state:
        assert state.amplitudes[131071:131074].tolist() == [131071, 131072, 131073]
        assert state.arrays["quantum/amplitudes"][-1] == (1 << 18) - 1


def test_amplitudes_are_mapped_and_private(tmp_path):
    path = tmp_path / "one.h5"
    qm.save(PSI, path)
    mapped = qm.load(path, mmap=True).quantum.amplitudes
    assert mapped.ctypes.data % 64 == 0
    assert np.array_equal(mapped, PSI)
    mapped[:] = 0
    assert np.array_equal(qm.load(path).quantum.amplitudes, PSI)


def test_short_arrays_which_lie_anywhere_are_read_instead_of_mapped(tmp_path):
    """An array that is not aligned breaks torch, and on some machines the program."""
    classical = {str(count): np.full(count, 0.5, np.complex128) for count in range(1, 300, 7)}
    classical |= {f"{count} bytes": np.zeros(count, np.int8) for count in range(1, 300, 7)}
    qm.save(qm.MemoryState(np.array([0.6, 0.8j]), classical), tmp_path / "short.h5")
    memory = qm.load(tmp_path / "short.h5", mmap=True)
    for name, array in (memory.classical | {"amplitudes": memory.quantum.amplitudes}).items():
        assert array.flags.aligned, name
        assert name == "amplitudes" or array.tobytes() == classical[name].tobytes()


def test_a_part_may_be_one_array(storage):
    memory = qm.MemoryState(classical=np.arange(5))
    assert storage.load_quantum_state(storage.save_quantum_state(memory)) == memory


def test_ids(storage):
    assert storage.save_quantum_state(PSI, "a") == "a"
    with pytest.raises(ConflictError, match="there is a state 'a' already"):
        storage.save_quantum_state(PSI, "a")
    for name in ("", "a/b", "..", "a" * 65, "a\n", "ä"):
        with pytest.raises(InvalidStateError, match="is no id"):
            storage.save_quantum_state(PSI, name)
    for name in ("b", "", "..", "../index", "a/quantum_data"):
        with pytest.raises(MissingError, match="it has: a"):
            storage.load_quantum_state(name)
        with pytest.raises(MissingError, match="it has: a"):
            storage.delete_state(name)
    names = [storage.save_quantum_state(PSI[:2]) for _ in range(20)]
    assert [one["id"] for one in storage.list_states()] == [*names[::-1], "a"]


def test_a_store_that_is_not_there(tmp_path):
    storage = qm.HDF5QuantumStorage(tmp_path / "none.h5")
    assert storage.list_states() == []
    with pytest.raises(MissingError):
        storage.load_quantum_state("a")
    with pytest.raises(MissingError):
        storage.delete_state("a")
    assert not (tmp_path / "none.h5").exists()


def test_the_index_lists_the_newest_first_and_skips_what_was_deleted(storage):
    names = [f"s{number:03}" for number in range(300)]
    for number, name in enumerate(names):
        storage.save_quantum_state(np.eye(1, 4, number % 4)[0], name)
    for name in names[100:290]:
        storage.delete_state(name)
    left = [*names[:100], *names[290:]][::-1]
    assert [one["id"] for one in storage.list_states(limit=15)] == left[:15]
    assert [one["id"] for one in storage.list_states()] == left
    first = storage.list_states(limit=1)[0]
    assert first["kind"] == "state_vector"
    assert first["sites"] == 2
    assert first["raw_bytes"] == 32
    assert first["content_id"] == storage.load_quantum_state(first["id"]).content_id
    assert storage.get_storage_stats()["deleted_bytes"] > 0
    storage.optimize_storage()
    assert [one["id"] for one in storage.list_states()] == left
    assert storage.get_storage_stats()["deleted_bytes"] == 0


def test_optimizing_keeps_what_others_put_into_the_file(storage, path):
    state_id = storage.save_quantum_state(STATE)
    with storage.time_series("pad") as series:
        series.append((0.1, 0.2, 0.3))
    storage.optimize_storage()
    with h5py.File(path, "a", libver="v110") as file:
        file.create_dataset("mine/values", data=np.arange(10))
    storage.optimize_storage()
    with h5py.File(path) as file:
        assert file["mine/values"][:].tolist() == list(range(10))
    assert storage.load_quantum_state(state_id) == STATE
    assert len(storage.read_series("pad")) == 1


def test_optimizing_keeps_links_and_attributes_of_plain_types(storage, path):
    storage.save_quantum_state(STATE, "a")
    kept = {
        "number": 3, "flags": [True, False], "complex": 1 + 2j, "matrix": np.eye(2), "text": "ä", "texts": ["a", "bc"],
        "bytes": np.bytes_(b"x"), "nothing": h5py.Empty("f8"),
    }  # fmt: skip
    lost = {"reference": h5py.Reference(), "record": np.zeros(2, [("x", "f4"), ("y", "i2")])}

    def found(file):
        """What each attribute is, with its exact type."""
        return {
            (group.name, name): (repr(group.attrs[name]), h5py.h5a.open(group.id, name.encode()).get_type().encode())
            for group in (file, file["index"], file["quantum_states"])
            for name in kept
        }

    with h5py.File(path, "a", libver="v110") as file:
        for group in (file, file["index"], file["quantum_states"]):
            group.attrs.update(kept)
            group.attrs.update(lost)
        before = found(file)
        file["latest"] = h5py.SoftLink("/quantum_states/a")
        file["elsewhere"] = h5py.ExternalLink("other.h5", "/x")
        file["kind"] = np.dtype("<i4")
        file.attrs.create("named", 7, dtype=file["kind"])
    for _ in range(2):
        storage.optimize_storage()
    with h5py.File(path) as file:
        assert found(file) == before
        assert not set(lost).intersection(file.attrs)
        assert file.attrs["named"] == 7
        assert file.get("latest", getlink=True).path == "/quantum_states/a"
        assert file.get("elsewhere", getlink=True).filename == "other.h5"
        assert file["kind"].dtype == np.int32
    assert storage.load_quantum_state("a") == STATE


class TestOneStateInAFile:
    def test_it_is_saved_and_replaced_by_save(self, tmp_path):
        path = tmp_path / "one.h5"
        qm.save(STATE, path)
        qm.save({"metadata": {"second": True}}, path)
        assert qm.load(path).metadata == {"second": True}

    def test_a_store_of_many_is_not_replaced(self, storage, path):
        ids = [storage.save_quantum_state(STATE) for _ in range(2)]
        with pytest.raises(ConflictError, match="store of 2 states"):
            qm.save(PSI, path)
        for verb in (qm.load, qm.open):
            with pytest.raises(InvalidStateError, match="say which"):
                verb(path)
        assert [one["id"] for one in qm.info(path)["states"]] == ids[::-1]
        assert qm.load(path, state_id=ids[1]) == STATE
        assert qm.info(path, state_id=ids[1])["content_id"] == qm.MemoryState.from_dict(STATE).content_id
        with pytest.raises(MissingError):
            qm.load(path, state_id="nobody")
        assert qm.verify(path).arrays == 2 * qm.verify(path, state_id=ids[0]).arrays

    def test_an_empty_file_is_replaced_since_it_holds_nothing(self, path):
        storage = qm.HDF5QuantumStorage(path)

        def flush():
            with storage.time_series("x") as series:
                series.append(1.0)

        for write in (lambda: qm.save(STATE, path), lambda: storage.save_quantum_state(STATE), flush):
            path.write_bytes(b"")
            path.chmod(0o640)
            write()
            assert path.stat().st_mode & 0o777 == 0o640
            qm.verify(path)
        path.write_bytes(b"")
        with pytest.raises(ConflictError, match="exists already"):
            qm.save(STATE, path, overwrite=False)
        for read in (qm.load, storage.list_states, lambda _=None: storage.delete_state("a")):
            with pytest.raises(IntegrityError, match="it is empty"):
                read(path) if read is qm.load else read()
        assert path.read_bytes() == b""

    def test_what_is_no_store_is_not_replaced_and_the_error_says_what_to_do(self, path):
        qm.save(STATE, path)
        good = path.read_bytes()
        with h5py.File(path, "w", libver="v110") as file:
            file["x"] = 1
        foreign = path.read_bytes()
        with h5py.File(path, "w", libver="earliest") as file:
            file["x"] = 1
        kinds = [
            (good[: len(good) // 2], IntegrityError), (good[:40] + b"!" + good[41:], IntegrityError),
            (b"<!DOCTYPE html>", IntegrityError), (b"notes of mine", IntegrityError), (foreign, IntegrityError),
            (path.read_bytes(), UnsupportedVersionError),
        ]  # fmt: skip
        for there, kind in kinds:
            path.write_bytes(there)
            for write in (lambda: qm.save(STATE, path), lambda: qm.HDF5QuantumStorage(path).save_quantum_state(STATE)):
                with pytest.raises(kind) as caught:
                    write()
                assert caught.value.path == str(path)
                assert caught.value.next_step.endswith("; otherwise delete it, or choose another name")
            assert path.read_bytes() == there

    def test_a_store_of_one_is_not_replaced_either(self, storage, path):
        storage.save_quantum_state(STATE)
        with pytest.raises(ConflictError):
            qm.save(PSI, path)
        assert qm.load(path) == STATE


class TestDamage:
    def test_every_flipped_byte_of_the_data_is_found(self, storage, path):
        state_id = storage.save_quantum_state(STATE)
        with h5py.File(path) as file:
            group = file["quantum_states"][state_id]
            places = [
                (group[name].id.get_offset(), group[name].nbytes)
                for name in ("quantum_data/amplitudes", "classical_data/layer/weight", "metadata")
            ]
        good = path.read_bytes()
        for offset, length in places:
            for position in sorted({0, 1, length // 2, length - 1, *RNG.integers(0, length, 20).tolist()}):
                damaged = bytearray(good)
                damaged[offset + position] ^= 1 << int(RNG.integers(8))
                path.write_bytes(damaged)
                for read in (qm.load, qm.verify):
                    with pytest.raises(IntegrityError):
                        read(path)

    def test_one_damaged_state_leaves_the_others(self, storage, path):
        first, second = storage.save_quantum_state(PSI), storage.save_quantum_state(PSI * 1j)
        with h5py.File(path) as file:
            offset = file[f"quantum_states/{first}/quantum_data/amplitudes"].id.get_offset()
        with path.open("r+b") as file:
            file.seek(offset + 5)
            file.write(b"!")
        with pytest.raises(IntegrityError, match=first):
            storage.load_quantum_state(first)
        assert np.array_equal(storage.load_quantum_state(second).quantum.amplitudes, PSI * 1j)
        with pytest.raises(IntegrityError, match=first):
            qm.verify(path)
        with pytest.raises(IntegrityError):
            storage.optimize_storage()
        assert np.array_equal(storage.load_quantum_state(second).quantum.amplitudes, PSI * 1j)

    def test_a_damaged_index_is_found_and_made_again(self, storage, path):
        ids = [storage.save_quantum_state(PSI[: 2 << number]) for number in range(3)]
        before = storage.list_states()
        with h5py.File(path) as file:
            offset = file["index/chronological"].id.get_chunk_info(0).byte_offset
            row = file["index/chronological"].dtype.itemsize
        with path.open("r+b") as file:
            file.seek(offset + row + 70)
            file.write(b"!")
        for read in (storage.list_states, storage.get_storage_stats, lambda: qm.verify(path)):
            with pytest.raises(IntegrityError, match="index is damaged"):
                read()
        assert np.array_equal(storage.load_quantum_state(ids[1]).quantum.amplitudes, PSI[:4])
        storage.optimize_storage()
        after = {one["id"]: one for one in storage.list_states()}
        assert after[ids[0]] == before[2]
        assert after[ids[1]]["content_id"] == before[1]["content_id"]
        assert after[ids[1]]["created"] is None
        assert qm.verify(path).arrays == 3

    def test_truncations(self, storage, path):
        storage.save_quantum_state(PSI[:32], "a")
        good = path.read_bytes()
        for length in range(0, len(good), 7):
            path.write_bytes(good[:length])
            with pytest.raises(QuantumMemoryError):
                storage.load_quantum_state("a")


class TestGuard:
    """What leads out of the file, or asks for more than there is, is refused before any data are read."""

    @pytest.fixture
    def forged(self, storage, path):
        def forge(change):
            storage.save_quantum_state(PSI[:1024], "a")
            with h5py.File(path, "a", libver="v110") as file:
                change(file, file["quantum_states/a/quantum_data"])
            return path

        return forge

    def test_links(self, forged, tmp_path):
        other = tmp_path / "other.h5"
        with h5py.File(other, "w") as file:
            file["x"] = PSI[:1024]

        def replace(link):
            def change(_, group):
                del group["amplitudes"]
                group["amplitudes"] = link

            return change

        for link in (h5py.ExternalLink(str(other), "x"), h5py.SoftLink("/quantum_states/a/quantum_data/amplitudes")):
            with pytest.raises(QuantumMemoryError, match="link"):
                qm.load(forged(replace(link)))
            (tmp_path / "store.h5").unlink()

    def test_external_and_virtual_data(self, forged, tmp_path):
        (tmp_path / "secret").write_bytes(PSI[:1024].tobytes())

        def external(_, group):
            del group["amplitudes"]
            group.create_dataset(
                "amplitudes", (1024,), np.complex128, external=[(str(tmp_path / "secret"), 0, PSI[:1024].nbytes)]
            )

        with pytest.raises(QuantumMemoryError, match="another place"):
            qm.load(forged(external))
        (tmp_path / "store.h5").unlink()

        def virtual(file, group):
            del group["amplitudes"]
            layout = h5py.VirtualLayout((1024,), np.complex128)
            layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "x", (1024,))
            group.create_virtual_dataset("amplitudes", layout)

        with pytest.raises(QuantumMemoryError, match="another place"):
            qm.load(forged(virtual))

    def test_another_shape_dtype_or_filter(self, forged, tmp_path):
        for made in (
            {"data": PSI[:512]},
            {"data": PSI[:1024].astype(np.complex64)},
            {"shape": (1 << 40,), "dtype": np.complex128, "chunks": (1 << 16,)},
            {"data": PSI[:1024], "fletcher32": True},
        ):

            def change(_, group, made=made):
                del group["amplitudes"]
                group.create_dataset("amplitudes", **made)

            with pytest.raises(QuantumMemoryError):
                qm.load(forged(change))
            (tmp_path / "store.h5").unlink()

    def test_a_foreign_hdf5_file(self, tmp_path):
        with h5py.File(tmp_path / "mine.h5", "w", libver="v110") as file:
            file["x"] = 1
        with pytest.raises(IntegrityError, match="no store of quantum-memory"):
            qm.load(tmp_path / "mine.h5")


class TestSeries:
    def test_pad_samples_one_at_a_time(self, storage):
        with storage.time_series("pad") as series:
            for step in range(20000):
                series.append((0.1, -0.2, step / 20000), time=step * 0.5)
        window = storage.read_series("pad", 8190, 8195)
        assert window.start == 8190
        assert window.values.shape == (5, 3)
        assert window.values[:, 2].tolist() == [step / 20000 for step in range(8190, 8195)]
        assert window.time.tolist() == [step * 0.5 for step in range(8190, 8195)]
        assert storage.list_series() == [{"name": "pad", "kind": "array", "samples": 20000}]

    def test_states_records_and_numbers(self, storage):
        with storage.time_series("psi") as psi, storage.time_series("counts") as counts:
            for step in range(10):
                psi.append(qm.StateVector(PSI[step : step + 4], qubit_order="big"))
                counts.append({"counts": {"00": step, "11": 10 - step}, "when": (step, None), "z": 1j * step})
        window = storage.read_series("psi", -3)
        assert np.array_equal(window.values, [PSI[step : step + 4] for step in (7, 8, 9)])
        assert window.facts == {"qubit_order": "big", "dims": [2, 2]}
        assert storage.read_series("counts", 4, 6).values == [
            {"counts": {"00": step, "11": 10 - step}, "when": (step, None), "z": 1j * step} for step in (4, 5)
        ]
        assert len(storage.read_series("counts", 5, 5)) == 0

    def test_samples_of_any_shape(self, storage):
        with storage.time_series("long") as long:
            for step in range(3):
                long.append(np.full(1 << 18, step, np.float64))
            with pytest.raises(InvalidStateError, match="without items"):
                long.append(np.zeros((2, 0)))
        assert (storage.read_series("long", 1, 2).values == 1).all()

    def test_flushed_samples_are_there_for_others(self, storage, path):
        series = storage.time_series("x")
        series.append(1.5)
        assert not path.exists()
        series.flush()
        assert qm.HDF5QuantumStorage(path).read_series("x").values.tolist() == [1.5]
        with storage.time_series("x") as again:
            again.append(2.5)
        assert storage.read_series("x").values.tolist() == [1.5, 2.5]

    @pytest.mark.parametrize(
        ("sample", "time"),
        [((0.0, 1.0), None), (np.float32([1, 2, 3]), None), ({"a": 1}, None), ((0.0, 0.0, 0.0), 1.0), ("text", None)],
    )
    def test_a_sample_of_another_kind_is_refused_at_once_and_later(self, storage, sample, time):
        with storage.time_series("pad") as series:
            series.append((0.0, 0.0, 0.0))
            with pytest.raises(InvalidStateError):
                series.append(sample, time)
        with pytest.raises(InvalidStateError), storage.time_series("pad") as series:
            series.append(sample, time)
        assert len(storage.read_series("pad")) == 1

    def test_damage_is_found_and_other_blocks_are_read(self, storage, path):
        for block in range(3):
            with storage.time_series("x") as series:
                for step in range(100):
                    series.append(float(block * 100 + step))
        with h5py.File(path) as file:
            offset = file["time_series/x/values"].id.get_chunk_info(0).byte_offset
        with path.open("r+b") as file:
            file.seek(offset + 8 * 150)
            file.write(b"!")
        assert storage.read_series("x", 0, 100).values.tolist() == list(range(100))
        assert storage.read_series("x", 200).values.tolist() == list(range(200, 300))
        with pytest.raises(IntegrityError, match="samples 100 to 199"):
            storage.read_series("x", 90, 110)
        with pytest.raises(IntegrityError, match="samples 100 to 199"):
            qm.verify(path)

    @given(st.lists(st.integers(0, 30), max_size=5), st.integers(-70, 70), st.integers(-70, 70))
    def test_windows_are_slices(self, tmp_path_factory, blocks, start, stop):
        storage = qm.HDF5QuantumStorage(tmp_path_factory.mktemp("s") / "s.h5", durable=False)
        everything = []
        for length in [1, *blocks]:
            with storage.time_series("x") as series:
                for _ in range(length):
                    everything.append(float(len(everything)))
                    series.append(everything[-1])
        assert storage.read_series("x", start, stop).values.tolist() == everything[start:stop]


def test_unknown_compression_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(InvalidStateError, match="use one of none, gzip"):
        qm.HDF5QuantumStorage(tmp_path / "s.h5", compression="rar")
    assert set(FILTER_NUMBERS) == {name for name in COMPRESSIONS if name}
