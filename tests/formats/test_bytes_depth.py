"""A check of the bytes alone finds what has become of a file, decodes nothing, and says what it has not looked at."""

import itertools
from pathlib import Path

import numpy as np
import pytest

import quantum_memory as qm
from quantum_memory.compression.codecs import lz4_block
from quantum_memory.durability.files import ReadableBytes
from quantum_memory.errors import (
    IntegrityError,
    InvalidStateError,
    MissingFileError,
    QuantumMemoryError,
    UnsafeError,
    WrongKeyError,
)
from quantum_memory.formats import qms_bytes
from quantum_memory.formats.binary_format import QMS
from quantum_memory.formats.qms_reader import QMSReader
from quantum_memory.formats.registry import OpenOptions
from quantum_memory.state.arrays import CHUNK_BYTES
from quantum_memory.testing.damage import extensions, flip_bit, truncations

from ..hostile import forge

GOLDEN = Path(__file__).parents[1] / "golden"
KEY = qm.Key.from_file(Path(__file__).parents[1] / "encryption" / "golden" / "key")
SMALL = 3000


def finds(data: bytes, **options) -> bool:
    try:
        return QMS().check_bytes(ReadableBytes(data, "a file"), OpenOptions(**options)) is None
    except QuantumMemoryError as error:
        return bool(error.next_step) and error.path == "a file"


@pytest.mark.parametrize("path", sorted(GOLDEN.rglob("*.qms")), ids=lambda path: path.name)
def test_every_bit_of_every_kind_of_file_is_covered(path):
    data = path.read_bytes()
    assert not finds(data)
    step = 1 if len(data) < SMALL else 7
    assert [bit for bit in range(0, 8 * len(data), step) if not finds(flip_bit(data, bit))] == []
    lengths = [*truncations(data), *extensions(data)]
    assert [len(other) for other in lengths if not finds(other)] == []


def test_every_bit_of_an_encrypted_file_is_covered_by_its_key(tmp_path):
    qm.save(qm.StateVector(np.array([0.6, 0.8]), qubit_order="big"), tmp_path / "a.qms", encrypt=KEY)
    data = (tmp_path / "a.qms").read_bytes()
    assert not finds(data, key=KEY)
    assert [bit for bit in range(8 * len(data)) if not finds(flip_bit(data, bit), key=KEY)] == []
    assert qm.verify(tmp_path / "a.qms", depth="bytes", key=KEY).depth == "bytes"
    golden = (GOLDEN.parent / "encryption" / "golden" / "aes-256-gcm.v1.qms").read_bytes()
    assert not finds(golden, key=KEY)
    assert [bit for bit in range(0, 8 * len(golden), 997) if not finds(flip_bit(golden, bit), key=KEY)] == []


def test_without_its_key_an_encrypted_file_is_never_said_to_be_whole(tmp_path):
    path = tmp_path / "a.qms"
    qm.save(np.ones(2), path, encrypt=KEY)
    data = path.read_bytes()
    for depth in ("bytes", "full"):
        with pytest.raises(WrongKeyError):
            qm.verify(path, depth=depth)
    path.write_bytes(flip_bit(data, 8 * 30))  # in its header, which a SHA-256 covers
    with pytest.raises(IntegrityError, match="header does not match its SHA-256"):
        qm.verify(path, depth="bytes")
    path.write_bytes(flip_bit(data, 8 * len(data) - 1))  # in what only the key tells
    with pytest.raises(WrongKeyError):
        qm.verify(path, depth="bytes")
    [one] = qm.verify_all([path], depth="bytes")
    assert (one.exit_code, one.content_id) == (10, None)


@pytest.fixture
def large(tmp_path) -> Path:
    """A file of several chunks and entries, with gaps between them."""
    path = tmp_path / "large.qms"
    tree = {"a": np.arange(3.0), "b": np.random.default_rng(1).normal(size=3 * CHUNK_BYTES // 8 + 5), "c": np.ones(7)}
    qm.save(qm.MemoryState(classical=tree), path, compression="none", durable=False)
    return path


def test_a_large_file_is_checked_in_parts(large, monkeypatch):
    data = bytearray(large.read_bytes())
    done: list[int] = []
    assert qm.verify(large, depth="bytes", progress=done.append).depth == "bytes"
    with qm.open(large) as file:
        entries = file._reader.layout.entries
        table = file._reader.layout.table_offset
    assert sum(done) == sum(entry.stored_bytes for entry in entries)
    chunk = entries[1].chunk_offsets()
    ends = [entry.offset + entry.stored_bytes for entry in entries]
    gap = next(end for end, then in itertools.pairwise([*ends]) if end % 64)
    places = [9, 30, 60, gap, *map(int, chunk), int(chunk[-1]) + 39, table + 20, len(data) - 60, len(data) - 1]
    for place in places:
        data[place] ^= 4
        large.write_bytes(data)
        with pytest.raises(QuantumMemoryError) as caught:
            qm.verify(large, depth="bytes")
        with pytest.raises(type(caught.value)) as full:
            qm.verify(large)
        assert str(caught.value) == str(full.value)
        data[place] ^= 4
    monkeypatch.setattr(qms_bytes, "CHUNK_BYTES", 1 << 30)
    large.write_bytes(data)
    assert qm.verify(large, depth="bytes").depth == "bytes"


def test_it_says_what_it_has_not_looked_at(tmp_path, monkeypatch):
    path = tmp_path / "odd.qms"
    qm.save(qm.StateVector(np.array([np.nan, 2.0]), qubit_order="big"), path)
    assert qm.verify(path).problems != []
    monkeypatch.setattr(QMSReader, "_fill", None)  # nothing is decoded
    report = qm.verify(path, depth="bytes")
    size = path.stat().st_size
    assert report.to_dict() == {
        "path": str(path),
        "format": "qms",
        "bytes": size,
        "content_id": None,
        "arrays": None,
        "chunks": None,
        "problems": [],
        "depth": "bytes",
    }
    [one] = qm.verify_all([path], depth="bytes")
    assert (one.bytes, one.content_id, one.problems, one.error, one.depth) == (size, None, (), None, "bytes")


def test_what_was_written_wrong_is_not_seen(tmp_path):
    path = tmp_path / "lie.qms"
    lie = forge.Chunk(np.array([2.0]).tobytes(), np.array([1.0]).tobytes())
    part = forge.Part(2, b"classical", forge.F64, (1,), [lie])
    path.write_bytes(forge.qms(part, forge.says(classical_data={"$array": "another"})))
    assert qm.verify(path, depth="bytes").problems == []
    with pytest.raises(IntegrityError):
        qm.verify(path)


@pytest.mark.parametrize("size", [100, 1 << 19])
def test_a_codec_of_a_later_release_is_not_needed(tmp_path, monkeypatch, size):
    path = tmp_path / "later.qms"
    with monkeypatch.context() as patch:
        patch.setattr(lz4_block.LZ4, "id", 200)
        qm.save(qm.MemoryState(classical=[np.zeros(size), np.arange(1.0 * size)]), path, compression="lz4")
    assert qm.verify(path, depth="bytes").depth == "bytes"
    data = path.read_bytes()
    path.write_bytes(flip_bit(data, 8 * 100))
    with pytest.raises(QuantumMemoryError):
        qm.verify(path, depth="bytes")


@pytest.mark.parametrize(
    ("suffix", "depth"),
    [("json", "bytes"), ("json.zlib", "bytes"), ("msgpack", "bytes"), ("pkl", "bytes"), ("b64", "bytes"),
     ("npz", "bytes"), ("h5", "full")],
)  # fmt: skip
def test_other_formats_have_such_a_check_or_are_checked_in_full(tmp_path, suffix, depth):
    path = tmp_path / f"a.{suffix}"
    saved = qm.save(qm.MemoryState(classical={"w": np.arange(5)}), path, durable=False)
    report = qm.verify(path, depth="bytes")  # of a pickle as well, which is not read as one
    assert (report.depth, report.format, report.bytes) == (depth, suffix, saved.bytes)
    assert report.content_id == (saved.content_id if depth == "full" else None)
    [one] = qm.verify_all([path], depth="bytes")
    assert (one.depth, one.content_id) == (depth, report.content_id)
    assert qm.verify(tmp_path, depth="bytes").content_id is None


def test_a_seal_that_is_beside_another_head_is_no_file_of_ours(tmp_path):
    """Of the first bytes, which say what a file is, every bit is found by whoever opens it."""
    for suffix in ("qms", "json", "json.zlib", "msgpack", "pkl", "b64", "npz"):
        path = tmp_path / f"a.{suffix}"
        qm.save(qm.MemoryState(classical={"w": np.arange(5)}), path, durable=False)
        good = path.read_bytes()
        for bit in range(0, 8 * 40, 7):
            path.write_bytes(flip_bit(good, bit))
            with pytest.raises(QuantumMemoryError):
                qm.verify(path, depth="bytes")
            [one] = qm.verify_all([path], depth="bytes")
            assert one.error
            assert one.path == str(path)


def test_what_is_no_file_is_refused_as_ever(tmp_path):
    (tmp_path / "folder.qms").mkdir()
    paths = [tmp_path / "none.qms", tmp_path / "a\0b.qms", tmp_path / "folder.qms" / "x@y.qms"]
    found = list(qm.verify_all(paths, depth="bytes"))
    assert [one.exit_code for one in found] == [6, 6, 6]
    with pytest.raises(MissingFileError):
        qm.verify(paths[0], depth="bytes")
    with pytest.raises(UnsafeError):
        qm.verify(paths[2].parent, depth="bytes")
    qm.save(np.ones(2), tmp_path / "plain.qms")
    with pytest.raises(InvalidStateError, match="not encrypted"):
        qm.verify(tmp_path / "plain.qms", depth="bytes", key=KEY)
    with pytest.raises(InvalidStateError, match="holds one state"):
        qm.verify(tmp_path / "plain.qms", depth="bytes", state_id="a")


def test_a_depth_that_there_is_not_is_refused(tmp_path):
    for verb in (qm.verify, lambda path, depth: list(qm.verify_all([path], depth=depth))):
        with pytest.raises(InvalidStateError, match="no check has the depth 'byte'") as caught:
            verb(tmp_path, depth="byte")
        assert "'bytes' or 'full'" in caught.value.next_step
