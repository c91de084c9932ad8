"""Reading in part, into memory of the caller's, from several threads, and from files that change meanwhile."""

import os
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import basic_indices

import quantum_memory as qm
from quantum_memory.durability import files
from quantum_memory.errors import IntegrityError, InvalidStateError, MissingError
from quantum_memory.state.arrays import CHUNK_BYTES
from quantum_memory.testing.damage import flip_bit
from quantum_memory.testing.equality import assert_identical
from quantum_memory.testing.faults import RecordingFiles

N = 18
PER_CHUNK = CHUNK_BYTES // 16
OVERHEAD = 4096  # header, trailer, table and document of a small file


@pytest.fixture(scope="module")
def vector():
    rng = np.random.default_rng(0)
    values = np.zeros(1 << N, np.complex128)
    values[: 1 << N - 1] = rng.normal(size=(1 << N)).view(np.complex128)  # half noise, half zeros
    return values


@pytest.fixture(scope="module", params=["none", "zstd"])
def path(request, vector, tmp_path_factory):
    path = tmp_path_factory.mktemp("reading") / "state.qms"
    tree = {"cube": np.arange(3 * 4 * 5).reshape(3, 4, 5), "none": np.empty((0, 3)), "one": np.array(7.5)}
    memory = qm.MemoryState(qm.StateVector(vector, qubit_order="big"), tree)
    qm.save(memory, path, compression=request.param)
    return path


def open_recording(path):
    recording = RecordingFiles()
    with files.using(recording):
        return recording, qm.open(path)


# ---- only what is touched


def test_opening_and_describing_read_only_the_table_and_the_document(path):
    recording, file = open_recording(path)
    file.close()
    assert recording.bytes_read < OVERHEAD
    recording = RecordingFiles()
    with files.using(recording):
        facts = qm.info(path)
    assert recording.bytes_read < OVERHEAD
    assert recording.violations() == []
    assert facts["quantum"]["n_sites"] == N
    assert facts["bytes"] == path.stat().st_size


@pytest.mark.parametrize(
    ("key", "chunks"),
    [
        (5, [0]), (PER_CHUNK - 1, [0]), (PER_CHUNK, [1]), (-1, [3]), (slice(0, 0), []), (slice(10, 20), [0]),
        (slice(PER_CHUNK - 1, PER_CHUNK + 1), [0, 1]), (slice(PER_CHUNK, 3 * PER_CHUNK), [1, 2]),
        (slice(None), [0, 1, 2, 3]), (slice(5, 2, -1), [0]), (slice(None, 3 * PER_CHUNK - 1, -7), [3]),
    ],
)  # fmt: skip
def test_a_part_reads_only_the_chunks_that_it_is_in(path, vector, key, chunks):
    recording, file = open_recording(path)
    with file:
        before = recording.bytes_read
        reads = len([call for call in recording.log if call.name == "read_into"])
        part = file.amplitudes[key]
        assert recording.bytes_read - before <= len(chunks) * CHUNK_BYTES
        assert len([call for call in recording.log if call.name == "read_into"]) - reads == len(chunks)
        assert_identical(vector[key], part)


@pytest.mark.parametrize("damaged", range(4))
def test_damage_is_seen_where_it_is_and_nowhere_else(path, vector, tmp_path, damaged):
    copy = tmp_path / "damaged.qms"
    data = path.read_bytes()
    with qm.open(path) as file:
        offset = int(file._reader.entries["quantum/amplitudes"].chunk_offsets()[damaged])
    copy.write_bytes(flip_bit(data, 8 * (offset + 20)))
    with qm.open(copy) as file:
        for chunk in range(4):
            part = slice(chunk * PER_CHUNK, (chunk + 1) * PER_CHUNK)
            if chunk == damaged:
                with pytest.raises(IntegrityError, match=f"in chunk {damaged}"):
                    file.amplitudes[part]
            else:
                assert_identical(vector[part], file.amplitudes[part])
        assert_identical(np.arange(60).reshape(3, 4, 5), file.arrays["classical/cube"][...])
        with pytest.raises(IntegrityError):
            file.load()


SHAPE = (300, 7, 90)  # rows of 5 KiB: one and a half chunks
BLOCK = np.random.default_rng(2).normal(size=SHAPE)


@pytest.fixture(scope="module")
def block_path(tmp_path_factory):
    path = tmp_path_factory.mktemp("block") / "block.qms"
    qm.save({"classical_data": BLOCK}, path)
    return path


@given(key=st.one_of(basic_indices(SHAPE, allow_newaxis=True), st.just(()), st.just(Ellipsis)))
@settings(max_examples=100)
def test_indexing_is_numpy_indexing(block_path, key):
    with qm.open(block_path) as file:
        assert_identical(np.asarray(BLOCK[key]), np.asarray(file.arrays["classical"][key]))


@pytest.mark.parametrize(
    "key",
    [
        [1, 5], np.array([2, 2]), np.ones(300, bool), (3, [1, 2]), (slice(2), [1, 2], None), True, None, np.int8(4),
        (..., 5), np.bool_(1),
    ],
    ids=repr,
)  # fmt: skip
def test_so_is_advanced_indexing(block_path, key):
    with qm.open(block_path) as file:
        assert_identical(np.asarray(BLOCK[key]), np.asarray(file.arrays["classical"][key]))


def test_an_open_file_shows_shapes_and_refuses_what_is_not_there(path):
    with qm.open(path) as file:
        assert sorted(file.arrays) == ["classical/cube", "classical/none", "classical/one", "quantum/amplitudes"]
        assert file.arrays["classical/none"][...].shape == (0, 3)
        assert file.arrays["classical/one"][()] == 7.5
        assert file.arrays["classical/one"].ndim == 0
        assert len(file.amplitudes) == 1 << N
        for wrong in (1 << N, -(1 << N) - 1):
            with pytest.raises(IndexError):
                file.amplitudes[wrong]
        with pytest.raises(MissingError, match="classical/cube"):
            file.arrays["classical/sphere"]
        with pytest.raises(TypeError):
            len(file.arrays["classical/one"])
        lazy = file.amplitudes
    with pytest.raises(InvalidStateError):
        lazy[0]


def test_one_amplitude_by_its_digits(path, vector):
    recording, file = open_recording(path)
    with file:
        assert file.amplitude("0" * (N - 1) + "1") == vector[1]
        assert file.amplitude([0] + [1] * (N - 1)) == vector[(1 << N - 1) - 1]
        assert recording.bytes_read < 2 * CHUNK_BYTES + OVERHEAD
        with pytest.raises(InvalidStateError):
            file.amplitude("2" + "0" * (N - 1))


def test_threads_read_one_open_file(path, vector):
    wrong = []

    def read(seed):
        rng = np.random.default_rng(seed)
        for _ in range(30):
            start = int(rng.integers(0, (1 << N) - 100))
            if not np.array_equal(file.amplitudes[start : start + 100], vector[start : start + 100]):
                wrong.append(start)

    with qm.open(path) as file:
        threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


# ---- files that change while they are open


def test_a_file_that_is_replaced_while_open_stays_what_it_was(tmp_path, vector):
    path = tmp_path / "state.qms"
    qm.save({"classical_data": vector}, path)
    with qm.open(path) as file:
        qm.save({"classical_data": vector * 2}, path)
        assert_identical(vector, file.arrays["classical"][...])


@pytest.mark.parametrize("change", ["truncate", "overwrite"])
def test_a_file_that_changes_in_place_while_open_is_noticed(tmp_path, vector, change):
    path = tmp_path / "state.qms"
    qm.save({"classical_data": vector}, path, compression="none")
    with qm.open(path) as file:
        assert_identical(vector[:10], file.arrays["classical"][:10])
        if change == "truncate":
            os.truncate(path, 2 * CHUNK_BYTES + 100)
        else:
            with path.open("r+b") as other:
                other.seek(2 * CHUNK_BYTES + 200)
                other.write(b"changed!")
        with pytest.raises(IntegrityError, match=r"ends at byte|checksum"):
            file.arrays["classical"][2 * PER_CHUNK : 2 * PER_CHUNK + 100]
        with pytest.raises(IntegrityError):
            file.load()
        assert_identical(vector[PER_CHUNK : PER_CHUNK + 9], file.arrays["classical"][PER_CHUNK : PER_CHUNK + 9])


# ---- into memory of the caller's


def buffers(vector, folder):
    yield np.full(1 << N, np.nan, np.complex128)
    yield bytearray(vector.nbytes)
    yield memoryview(bytearray(vector.nbytes))
    yield np.memmap(folder / "map", np.complex128, "w+", shape=(1 << N,))


def test_loading_into_memory_of_ones_own(path, vector, tmp_path):
    for out in buffers(vector, tmp_path):
        memory = qm.load(path, out=out)
        assert np.frombuffer(out, np.complex128).tobytes() == vector.tobytes()
        assert np.shares_memory(memory.quantum.amplitudes, np.frombuffer(out, np.uint8))
        assert_identical(vector, np.asarray(memory.quantum.amplitudes))


@pytest.mark.parametrize(
    "out",
    [
        np.empty(1 << N, np.complex64), np.empty((1 << N) - 1, np.complex128), np.empty((1 << N, 1), np.complex128),
        np.empty(2 << N, np.complex128)[::2], np.empty(1 << N, ">c16"), bytearray(5), bytes(16 << N),
        memoryview(bytearray(32 << N))[::2], "text", 5,
    ],
    ids=lambda out: f"{type(out).__name__}-{getattr(out, 'dtype', '')}",
)  # fmt: skip
def test_memory_that_does_not_fit_is_refused(path, out):
    with pytest.raises(InvalidStateError) as caught:
        qm.load(path, out=out)
    assert caught.value.next_step


def test_memory_that_cannot_be_written_to_is_refused_and_not_touched(path):
    out = np.zeros(1 << N, np.complex128)
    out.flags.writeable = False
    with pytest.raises(InvalidStateError, match="read-only"):
        qm.load(path, out=out)
    assert not out.any()


def test_out_is_for_state_vectors(tmp_path):
    chain = qm.MatrixProductState.from_product([np.array([1.0, 0.0])] * 3)
    qm.save(chain, tmp_path / "chain.qms")
    with pytest.raises(MissingError):
        qm.load(tmp_path / "chain.qms", out=bytearray(64))
    qm.save(np.array([1.0, 0.0]), tmp_path / "state.json")
    buffer = bytearray(16)
    assert np.shares_memory(qm.load(tmp_path / "state.json", out=buffer).quantum.amplitudes, np.frombuffer(buffer))


# ---- arguments


def test_suffixes_and_codecs_that_there_are_not(tmp_path):
    state = np.array([1.0, 0.0])
    for name in ("state", "state.npy", "state.qms.bak"):
        with pytest.raises(InvalidStateError, match="suffix"):
            qm.save(state, tmp_path / name)
    for name, codec in (("a.qms", "gzip"), ("a.json", "zlib"), ("a.json.zlib", "lz4")):
        with pytest.raises(InvalidStateError, match="compression"):
            qm.save(state, tmp_path / name, compression=codec)
    with pytest.raises(InvalidStateError):
        qm.BinaryFormatHandler(9)
    assert list(tmp_path.iterdir()) == []


def test_an_interrupt_in_a_progress_callback_leaves_the_old_file(path, vector):
    def stop(_):
        raise KeyboardInterrupt

    before = path.read_bytes()
    with pytest.raises(KeyboardInterrupt):
        qm.save(qm.StateVector(vector, qubit_order="big"), path, progress=stop)
    with pytest.raises(KeyboardInterrupt):
        qm.load(path, progress=stop)
    assert path.read_bytes() == before
    assert list(path.parent.glob(".*.qmtmp")) == []


def test_a_handler_refuses_a_way_to_check_that_there_is_not(path):
    with pytest.raises(InvalidStateError, match="verify"):
        qm.BinaryFormatHandler().read(path, verify="ful")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"hello", "first bytes"), (b"", "empty"), (b"<html></html>", "web page"), (b"{}", "not that of a memory"),
        (b"version https://git-lfs.github.com/spec/v1", "git-LFS"), (b"\x89PNG\r\n\x1a\n", "first bytes"),
    ],
)  # fmt: skip
def test_a_file_that_is_nothing_of_ours_is_not_what_it_says_it_is(tmp_path, data, said):
    path = tmp_path / "state"
    path.write_bytes(data)
    for verb in (qm.load, qm.verify, qm.info, qm.open):
        with pytest.raises(IntegrityError, match=said) as caught:
            verb(path)
        assert caught.value.exit_code == 4
        assert caught.value.path == str(path)
        assert caught.value.next_step


def test_what_is_stored_as_other_integers_is_seen_so_in_part_and_comes_back_whole(tmp_path):
    tree = {"big": np.arange(3, dtype=">i4"), "dates": np.array(["2020-01-01"], "M8[D]")}
    qm.save(qm.MemoryState(classical=tree), tmp_path / "state.qms")
    with qm.open(tmp_path / "state.qms") as file:
        assert {path: file.arrays[path].dtype for path in file.arrays} == {
            "classical/big": np.dtype("<i4"), "classical/dates": np.dtype("u1"),
        }  # fmt: skip
        assert file.arrays["classical/big"][:].tolist() == [0, 1, 2]
        assert {name: array.dtype for name, array in file.load().classical.items()} == {
            name: array.dtype for name, array in tree.items()
        }


def test_what_is_more_than_a_document_holds_says_which_limit_and_both_numbers(tmp_path):
    few = {"qms": 3 << 17, "json": 3 << 18, "json.zlib": 3 << 18}
    for suffix, count in few.items():
        with pytest.raises(InvalidStateError, match=r"make \d+ values, and .* may hold \d+"):
            qm.save(qm.MemoryState(classical=[0] * count), tmp_path / f"state.{suffix}")
    with pytest.raises(InvalidStateError, match=f"bytes of JSON, and a document may hold {64 << 20}"):
        qm.save(qm.MemoryState(classical="a" * (65 << 20)), tmp_path / "state.qms")
    with pytest.raises(InvalidStateError, match=f"bytes of text, and JSON is written up to {16 << 20}"):
        qm.save(qm.MemoryState(classical="a" * (17 << 20)), tmp_path / "state.json")
    with pytest.raises(InvalidStateError, match=r"bytes of text make a file of \d+, which may hold \d+"):
        qm.save(qm.MemoryState(classical=np.zeros(8 << 20, np.uint8)), tmp_path / "state.json.zlib")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "index", [[0, -1], np.array([700_000, 3, 3]), slice(None, None, 2**18), slice(-1, 300_000, -(2**18))]
)
def test_scattered_rows_read_only_their_chunks(tmp_path, index):
    values = np.random.default_rng(3).standard_normal(1 << 20)  # eight chunks
    path = tmp_path / "wide.qms"
    qm.save(qm.StateVector(values, qubit_order="big"), path, compression="none")
    damaged = bytearray(path.read_bytes())
    damaged[64 + (1 << 20) + 5] ^= 1  # in the second chunk, which none of them touches
    path.write_bytes(damaged)
    with qm.open(path) as file:
        assert file.amplitudes[index].tobytes() == values[index].tobytes()
        with pytest.raises(IntegrityError, match="chunk 1"):
            file.amplitudes[[0, 140_000]]
        with pytest.raises(IndexError):
            file.amplitudes[[0, 1 << 20]]


def test_rows_of_a_matrix_are_gathered_as_numpy_does(tmp_path):
    matrix = np.arange(3_000 * 100.0).reshape(3_000, 100)
    path = tmp_path / "matrix.qms"
    qm.save({"m": matrix}, path)
    with qm.open(path) as file:
        lazy = file.arrays["classical/m"]
        for index in ([2_999, 0, 17], (slice(None, None, -700), 3), (-1, slice(2, 5)), (np.int64(4),), Ellipsis):
            assert np.array_equal(lazy[index], matrix[index])
