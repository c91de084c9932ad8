"""What comes back is what went in, whatever the codec; see also `test_conformance`, for every format."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import quantum_memory as qm
from quantum_memory import MemoryState
from quantum_memory.formats.binary_format import BinaryFormatHandler
from quantum_memory.state.arrays import CHUNK_BYTES
from quantum_memory.testing import strategies as qst
from quantum_memory.testing.equality import assert_identical

CODECS = ["none", "zlib", "lz4", "zstd", "auto"]
SETTINGS = settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


def through_qms(memory: MemoryState, codec: str = "auto") -> MemoryState:
    handler = BinaryFormatHandler(codec)
    return handler.from_bytes(handler.to_bytes(memory))


@given(qst.memory_states(), st.sampled_from(CODECS))
@SETTINGS
def test_any_memory_comes_back_from_every_codec_in_every_bit(memory: MemoryState, codec: str):
    loaded = through_qms(memory, codec)
    assert_identical(memory, loaded)
    assert loaded.content_id == memory.content_id


@given(st.dictionaries(st.text(max_size=6), qst.trees(), max_size=6), st.randoms())
@SETTINGS
def test_the_order_of_insertion_is_kept_and_is_no_part_of_the_content(tree, random):
    items = list(tree.items())
    random.shuffle(items)
    shuffled = MemoryState(classical=dict(items))
    assert shuffled.content_id == MemoryState(classical=tree).content_id
    assert list(through_qms(shuffled).classical) == [key for key, _ in items]


@given(qst.memory_states(), st.sampled_from(CODECS))
@settings(SETTINGS, max_examples=25)
def test_the_same_memory_makes_the_same_bytes(memory, codec):
    handler = BinaryFormatHandler(codec)
    written = handler.to_bytes(memory)
    assert handler.to_bytes(memory) == written
    assert handler.to_bytes(handler.from_bytes(written)) == written


def test_the_record_is_no_part_of_the_content():
    plain, noted = MemoryState(classical=1), MemoryState(classical=1, record={"time": "noon"})
    assert plain.content_id == noted.content_id
    assert plain == noted
    assert through_qms(noted).record["time"] == "noon"


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("extra", [-16, 0, 16, CHUNK_BYTES + 48])
@pytest.mark.parametrize("kind", ["random", "zeros", "half"])
def test_arrays_of_more_than_a_chunk(tmp_path, codec, extra, kind):
    count = (2 * CHUNK_BYTES + extra) // 16
    values = np.zeros(count, np.complex128)
    if kind != "zeros":
        stop = count if kind == "random" else count // 2
        values[:stop] = np.random.default_rng(7).normal(size=(stop, 2)).view(np.complex128)[:, 0]
    path = tmp_path / "state.qms"
    saved = qm.save({"classical_data": values}, path, compression=codec)
    memory = qm.load(path, verify="full")
    assert_identical(values, memory.classical)
    assert qm.verify(path).content_id == saved.content_id == memory.content_id
    if codec != "none" and kind == "zeros":
        assert saved.bytes < 20_000


def test_layouts_of_more_than_a_chunk_are_stored_in_logical_order():
    cube = np.random.default_rng(3).normal(size=(60, 70, 80))
    for array in (np.asfortranarray(cube), cube[::-1, ::2], cube.astype(">f8"), cube.T, cube[..., 3]):
        assert_identical(array, through_qms(MemoryState(classical=array)).classical)


def test_the_largest_norm_is_recorded_as_infinite_and_nothing_is_lost(tmp_path):
    huge = np.full(1 << 18, 4.7e151 + 0j)  # the squares of a chunk make a float64, those of all do not
    path = tmp_path / "huge.qms"
    qm.save(qm.StateVector(huge, qubit_order="big"), path)
    assert_identical(huge, qm.load(path).quantum.amplitudes)
    assert qm.info(path)["record"]["norm"] == "inf"
    assert qm.verify(path).problems == ["the norm is inf, not 1"]


def test_signalling_nan_and_infinity_are_kept_and_found(tmp_path):
    bits = np.array([0x7FA00000, 0xFF800000, 0x80000000, 1], np.uint32)
    path = tmp_path / "odd.qms"
    qm.save(qm.StateVector(bits.view(np.float32), qubit_order="big"), path)
    assert qm.load(path).quantum.amplitudes.tobytes() == bits.tobytes()
    assert qm.verify(path).problems == ["2 of 4 amplitudes are not finite"]
