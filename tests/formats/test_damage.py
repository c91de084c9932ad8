"""Blocks and chunks of a file in another place, or of another file: loading and verifying notice all of it."""

import numpy as np
import pytest

import quantum_memory as qm
from quantum_memory.errors import IntegrityError, QuantumMemoryError, UnsupportedVersionError
from quantum_memory.formats import qms_layout

from .conftest import FORMATS


@pytest.fixture(params=FORMATS, ids="-".join)
def golden(request, tmp_path, small):
    suffix, codec = request.param
    path = tmp_path / f"golden.{suffix}"
    qm.save(small, path, compression=codec)
    if suffix == "qms":
        assert codec in qm.info(path)["compression"]["codecs"]
    assert qm.load(path) == small
    return path


def undetected(path, variants):
    """Return how many variants of a file were made, and the numbers of those that a verb took for whole."""
    missed, count = [], 0
    for number, data in enumerate(variants):
        path.write_bytes(data)
        count += 1
        for verb in (qm.load, qm.verify):
            try:
                verb(path)
            except QuantumMemoryError as problem:
                if not isinstance(problem, (IntegrityError, UnsupportedVersionError)) or not problem.next_step:
                    missed.append((number, verb.__name__, repr(problem)))
            else:
                missed.append((number, verb.__name__, "accepted"))
    return count, missed


def test_blocks_that_are_zeroed_doubled_or_exchanged_are_noticed(golden):
    data = golden.read_bytes()
    blocks = [data[i : i + 64] for i in range(0, len(data), 64)]
    variants = []
    for i, block in enumerate(blocks):
        if any(block):
            variants.append(b"".join([*blocks[:i], bytes(len(block)), *blocks[i + 1 :]]))
        variants.append(b"".join([*blocks[: i + 1], *blocks[i:]]))
        variants.append(b"".join([*blocks[:i], *blocks[i + 1 :]]))
        for j in range(i):
            if blocks[j] != block:
                moved = blocks.copy()
                moved[i], moved[j] = moved[j], moved[i]
                variants.append(b"".join(moved))
    assert undetected(golden, variants) == (len(variants), [])


def test_a_file_of_the_right_length_full_of_zeros_is_noticed(golden):
    size = golden.stat().st_size
    assert undetected(golden, [bytes(size), b"\xff" * size]) == (2, [])


@pytest.mark.parametrize("codec", ["none", "zstd"])
def test_damage_in_a_file_of_many_chunks_says_where(tmp_path, codec):
    values = np.random.default_rng(5).integers(0, 100, 5 << 20, dtype=np.uint8).reshape(-1, 1024)
    path = tmp_path / "big.qms"
    qm.save({"classical_data": {"values": values}}, path, compression=codec)
    with path.open("r+b") as file:
        for place in (64, 2 << 20, 3 << 20, path.stat().st_size - 1000):
            file.seek(place)
            byte = file.read(1)[0]
            file.seek(place)
            file.write(bytes([byte ^ 16]))
            file.flush()
            for verb in (qm.load, qm.verify):
                with pytest.raises(IntegrityError) as caught:
                    verb(path)
                assert str(path) in str(caught.value)
                assert "copy" in caught.value.next_step
            file.seek(place)
            file.write(bytes([byte]))
            file.flush()
    assert (qm.load(path).classical["values"] == values).all()


def test_a_chunk_of_another_file_of_the_same_shape_is_noticed(tmp_path):
    paths = [tmp_path / "a.qms", tmp_path / "b.qms"]
    for seed, path in enumerate(paths):
        array = np.random.default_rng(seed).normal(size=64)
        qm.save({"classical_data": array}, path, compression="none")
    a, b = (path.read_bytes() for path in paths)
    paths[0].write_bytes(a[:64] + b[64 : 64 + 512] + a[64 + 512 :])
    with pytest.raises(IntegrityError, match="damaged in chunk 0"):
        qm.load(paths[0])


def test_the_header_is_the_same_in_every_file_and_the_root_digest_covers_the_table(small, tmp_path):
    path = tmp_path / "a.qms"
    qm.save(small, path)
    data = path.read_bytes()
    assert data[:64] == qms_layout.header()
    table_offset = int.from_bytes(data[-48:-40], "little")
    table = data[table_offset:-64]
    assert qms_layout.trailer(table, table_offset) == data[-64:]
