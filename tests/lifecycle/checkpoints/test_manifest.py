"""A manifest gives back what was written, and anything else is an error of ours, soon and in little memory."""

import dataclasses
import hashlib
import importlib.util
import json
import math
import shutil
import struct
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from quantum_memory.durability.files import ReadableBytes
from quantum_memory.errors import (
    IntegrityError,
    InvalidStateError,
    QuantumMemoryError,
    UnsafeError,
    UnsupportedVersionError,
)
from quantum_memory.lifecycle.checkpoint_manager import CheckpointManager
from quantum_memory.lifecycle.checkpoints import manifest as manifests
from quantum_memory.lifecycle.checkpoints.manifest import Checkpoint, Chunked, Manifest
from quantum_memory.lifecycle.repository import manifest_file
from quantum_memory.state.arrays import chunk_count, dtype_name
from quantum_memory.state.document import content_id
from quantum_memory.state.memory_state import MemoryState
from quantum_memory.testing.damage import truncations
from quantum_memory.testing.equality import assert_identical
from quantum_memory.testing.strategies import memory_states

from ...formats.test_forms_specification import code_of

GOLDEN = Path(__file__).parents[2] / "golden" / "checkpoints"
spec = importlib.util.spec_from_file_location("golden_checkpoints", GOLDEN / "make.py")
golden = importlib.util.module_from_spec(spec)
spec.loader.exec_module(golden)


def manifest_of(memory, **facts):
    """Return the manifest of a memory, its chunks named for what they would hold."""
    document, flat = memory.flatten()
    arrays = {}
    for path, array in flat.items():
        raw = np.ascontiguousarray(array).tobytes()
        parts = [raw[k << 20 : (k + 1) << 20] for k in range(chunk_count(array.nbytes))]
        names = b"".join(hashlib.sha256(part).digest() for part in parts)
        arrays[path] = Chunked(dtype_name(array.dtype), array.shape, names)
    checkpoint = Checkpoint(
        **{
            "id": "20260131_123015_250000_000001", "number": 1, "parent": None, "branch": "main",
            "created_at": "2026-01-31T12:30:15.250000Z", "name": "", "description": "", "automatic": False,
            "kind": "memory", "progress": None, "metrics": {}, "parameters": {}, "finished": False,
            "content_id": content_id(document, {path: one.identity for path, one in arrays.items()}),
            "arrays": len(arrays), "raw_bytes": 0, "new_bytes": 0, "writer": "quantum-memory 0",
        }
        | facts
    )  # fmt: skip
    return Manifest(checkpoint, document, memory.record, arrays)


def read(data):
    return manifests.read_manifest(ReadableBytes(data))


def small():
    tree = {"w": np.arange(5, dtype=np.float16), "empty": np.zeros((0, 3)), "text": "ü", "n": 7}
    return manifest_of(MemoryState(classical=tree), progress={"step": 3}, metrics={"e": -1.5, "worst": math.inf})


# There and back

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip
METRICS = st.floats(allow_nan=False) | st.just(math.nan) | st.integers(-(2**40), 2**40)


@settings(max_examples=150)
@given(
    memory=memory_states(),
    facts=st.fixed_dictionaries(
        {
            "name": st.text(max_size=9),
            "description": st.text(max_size=9),
            "automatic": st.booleans(),
            "progress": JSON,
            "metrics": st.dictionaries(st.text(max_size=5), METRICS, max_size=4),
            "parameters": st.dictionaries(st.text(max_size=5), JSON, max_size=3),
            "finished": st.booleans(),
            "parent": st.none() | st.just("a"),
        }
    ),
)
def test_what_is_written_is_read(memory, facts):
    made = manifest_of(memory, **facts)
    data = manifests.written(made)
    again = read(data)
    assert_identical(again.checkpoint.to_dict(), made.checkpoint.to_dict())
    assert_identical(json.dumps(again.document), json.dumps(made.document))
    assert again.record == made.record
    assert again.arrays == made.arrays
    assert_identical(manifests.read_checkpoint(ReadableBytes(data)).to_dict(), made.checkpoint.to_dict())
    _, body = manifest_file.read_whole(ReadableBytes(data), manifests.KIND)
    assert body.chunk_names() == made.chunks() == again.chunks()
    assert manifests.written(again) == data


def test_an_array_of_many_chunks_has_all_their_names():
    names = bytes(range(96))
    array = Chunked("u8", ((2 << 20) + 1,), names)
    assert [array.chunk(k) for k in range(array.count)] == [names[:32], names[32:64], names[64:]]


@pytest.mark.parametrize(
    "facts",
    [{"name": "x" * (1 << 20)}, {"progress": math.nan}, {"parameters": {"a": object()}}, {"progress": {1: 2}}],
)
def test_what_cannot_be_read_is_not_written(facts):
    with pytest.raises(InvalidStateError):
        manifests.written(manifest_of(MemoryState(classical=1), **facts))


def test_many_values_that_pack_well_are_read_all_the_same():
    """The text is stored as it is when few bytes would stand for more values than a reader takes from a short file."""
    tree = [[0] * 100 for _ in range(3000)]
    data = manifests.written(manifest_of(MemoryState(classical=tree)))
    assert len(data) > 300_000
    assert read(data).document


# Damage, but for that of `tests/reliability`


def test_a_list_of_checkpoints_shows_none_that_was_cut_short():
    for data in truncations(manifests.written(small())):
        with pytest.raises(IntegrityError, match=r"cut short|begin|match"):
            manifests.read_checkpoint(ReadableBytes(data))


# What somebody makes on purpose

PREFIX = struct.Struct("<8sIIIIII32s32s24x")


def forged(head=None, text=None, chunks=None, *, packed=None, length=None, count=None, minimum=1, **more):
    """Return a manifest whose digests are right, whatever it says."""
    data = manifests.written(small())
    head_bytes, packed_bytes = struct.unpack_from("<II", data, 16)
    body = data[128 + head_bytes :]
    said = json.loads(data[128 : 128 + head_bytes]) | more
    said_text = zlib.decompress(body[:packed_bytes]) if text is None else text
    head = json.dumps(said).encode() if head is None else head
    packed = zlib.compress(said_text) if packed is None else packed
    chunks = body[packed_bytes:] if chunks is None else chunks
    prefix = PREFIX.pack(
        manifests.KIND.signature, max(1, minimum), minimum, len(head), len(packed),
        len(said_text) if length is None else length, len(chunks) // 32 if count is None else count,
        hashlib.sha256(head).digest(), hashlib.sha256(packed + chunks).digest(),
    )  # fmt: skip
    return prefix + struct.pack("<Q", xxhash.xxh3_64_intdigest(prefix)) + head + packed + chunks


def text_with(arrays):
    return json.dumps({"document": {}, "record": {}, "arrays": arrays}).encode()


def test_what_is_forged_well_is_read():
    assert read(forged()) == small()


HOSTILE = {
    "a bomb": {"packed": zlib.compress(bytes(1 << 26), 9), "length": 1 << 26},
    "a bomb that says it is short": {"packed": zlib.compress(bytes(1 << 26), 9), "length": 100},
    "a text past the limit": {"packed": zlib.compress(b" "), "length": 0xFFFFFFFF},
    "no zlib stream": {"packed": b"not packed", "length": 10},
    "half of a zlib stream": {"packed": zlib.compress(b"{}" * 50)[:-6], "length": 100},
    "something after the zlib stream": {"packed": zlib.compress(b"{}") + b"x", "length": 2},
    "no text": {"packed": b"", "length": 0},
    "more names than there are": {"count": 0xFFFFFFFF},
    "deep JSON in the text": {"text": b"[" * 100_000 + b"]" * 100_000},
    "deep JSON in the head": {"head": b"[" * 100_000 + b"]" * 100_000},
    "many values in a short text": {"text": b"[" + b"0," * 3_000_000 + b"0]"},
    "many values in the head": {"head": b"[" + b"0," * 500_000 + b"0]"},
    "a head past the limit": {"head": b" " * (manifest_file.MAX_HEAD_BYTES + 1)},
    "a head that is a list": {"head": b"[]"},
    "a head that is no JSON": {"head": b"{"},
    "a text that is a number": {"text": b"1"},
    "a text without arrays": {"text": b'{"document": {}, "record": {}}'},
    "arrays that are a number": {"text": text_with(7)},
    "arrays without a shape": {"text": text_with([["a", "f8"]])},
    "an array past its chunks": {"text": text_with([["a", "f8", [1 << 40]]])},
    "an array of more than there is": {"text": text_with([["a", "f8", [1 << 62]]])},
    "an array of many axes": {"text": text_with([["a", "f8", [1] * 100]])},
    "an array of no bytes and a huge axis": {"text": text_with([["a", "f8", [0, 1 << 90]]]), "chunks": b""},
    "an array of negative length": {"text": text_with([["a", "f8", [-1]]])},
    "an array of half a length": {"text": text_with([["a", "f8", [0.5]]])},
    "an array of true lengths": {"text": text_with([["a", "f8", [True]]])},
    "an array of an unknown dtype": {"text": text_with([["a", "O", [1]]])},
    "an array whose dtype is a list": {"text": text_with([["a", ["f8"], [1]]])},
    "an array twice": {"text": text_with([["a", "f8", [1]], ["a", "f8", [1]]]), "chunks": bytes(64)},
    "arrays out of order": {"text": text_with([["b", "f8", [1]], ["a", "f8", [1]]]), "chunks": bytes(64)},
    "chunks of no array": {"chunks": bytes(320)},
    "an array that nothing names": {"text": text_with([["classical/w", "f16", [5]]])},
    "another content": {"content_id": "0" * 64},
    "an id with a path": {"id": "../../x"},
    "an id that is a number": {"id": 7},
    "a negative number": {"number": -1},
    "a number that is true": {"number": True},
    "a fraction of a number": {"number": 0.5},
    "a parent that is a list": {"parent": []},
    "no time": {"created_at": "yesterday"},
    "a time of no zone": {"created_at": "2026-01-31T12:30:15"},
    "a time of another zone": {"created_at": "2026-01-31T12:30:15+05:00"},
    "an answer that is a word": {"automatic": "no"},
    "an end that is a word": {"finished": "no"},
    "metrics that are a list": {"metrics": []},
    "a metric that is a word": {"metrics": {"e": "low"}},
    "a metric that is a list": {"metrics": {"e": [1]}},
    "a metric that is true": {"metrics": {"e": True}},
    "a metric past every float": {"metrics": {"e": 10**400}},
    "parameters that are text": {"parameters": "a"},
    "one key more": {"more": 1},
}


@pytest.mark.parametrize("what", HOSTILE)
def test_what_is_hostile_is_refused_in_little_memory(what):
    data = forged(**HOSTILE[what])
    tracemalloc.start()
    try:
        with pytest.raises((IntegrityError, UnsafeError)) as caught:
            read(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # A text is unpacked up to the limit of every document, once, and parsed if its values are few.
    assert peak < 3 * len(data) + (200 << 20 if what == "a bomb" else 16 << 20)
    assert caught.value.next_step


def test_a_list_of_checkpoints_does_not_show_what_a_policy_cannot_use():
    for what in ("no time", "a time of no zone", "a metric past every float"):
        with pytest.raises(IntegrityError):
            manifests.read_checkpoint(ReadableBytes(forged(**HOSTILE[what])))


def test_a_later_version_says_which_release_is_needed():
    with pytest.raises(UnsupportedVersionError, match="version 7"):
        read(forged(minimum=7))


@settings(max_examples=200)
@given(st.binary(max_size=300), st.integers(0, 2))
def test_any_bytes_are_refused(data, what):
    with pytest.raises(QuantumMemoryError):
        read([data, forged(head=data), forged(packed=data, length=len(data))][what])


# What was written before


@pytest.fixture
def kept(tmp_path):
    return Path(shutil.copytree(GOLDEN / "v1", tmp_path / "v1"))


def test_a_golden_folder_is_read_bit_for_bit(kept):
    first, second = golden.contents()
    with CheckpointManager(kept, signals=False) as manager:
        assert manager.verify() == {golden.FIRST: None, golden.SECOND: None}
        assert_identical(manager.restore("paper"), first)
        assert_identical(tuple(manager.resume()), (second, {"step": 2}))
        assert manager.parameters == {"bond_dimension": 4}
        newest, oldest = manager.list_checkpoints()
    assert (newest["pinned"], newest["finished"], newest["parent"]) == (True, True, golden.FIRST)
    assert (oldest["tags"], oldest["name"], oldest["description"]) == (["paper"], "begin", "a first one")
    assert oldest["metrics"]["energy"] == -1.5
    assert math.isnan(oldest["metrics"]["gap"])
    assert newest["metrics"] == {"energy": -math.inf}


def test_what_is_written_has_not_changed(tmp_path):
    golden.write(tmp_path / "v1")
    now, then = ({path.relative_to(top): path.read_bytes() for path in sorted(top.rglob("*.*")) if path.is_file()}
                 for top in (tmp_path / "v1", GOLDEN / "v1"))  # fmt: skip
    assert set(now) == set(then)
    for path, data in now.items():
        if path.suffix == ".qmcp":
            assert in_parts(data) == in_parts(then[path])
        else:
            assert data == then[path], path
    assert (tmp_path / "v1" / "lock").read_bytes() == (GOLDEN / "v1" / "lock").read_bytes()


def in_parts(data):
    """Return head, text and names of a manifest; the bytes of zlib streams belong to zlib."""
    head, packed, text, count = struct.unpack_from("<IIII", data, 16)
    body = data[128 + head :]
    return data[:20], text, count, data[128 : 128 + head], zlib.decompress(body[:packed]), body[packed:]


def test_the_decoder_of_the_page_reads_what_is_written(tmp_path):
    read_by_hand = code_of("checkpoint_format.md")["checkpoint"]
    head, document, arrays = read_by_hand(GOLDEN / "v1", golden.FIRST)
    assert (head["id"], head["metrics"]) == (golden.FIRST, {"energy": -1.5, "gap": "nan"})
    weights = golden.contents()[0]["weights"]
    assert arrays["classical/weights"] == ("f16", [3, 4], weights.tobytes())
    assert "classical_data" in document

    with CheckpointManager(tmp_path / "run", signals=False) as manager:
        big = np.arange(300_000, dtype=np.float64).reshape(2, -1)  # of several chunks, one of them short
        one = manager.create_checkpoint({"big": big, "nothing": np.zeros(0), "scalar": np.array(7, np.int16)})
    arrays = read_by_hand(tmp_path / "run", one)[2]
    assert {path: (dtype, shape) for path, (dtype, shape, _) in arrays.items()} == {
        "classical/big": ("f64", [2, 150_000]), "classical/nothing": ("f64", [0]), "classical/scalar": ("i16", []),
    }  # fmt: skip
    assert arrays["classical/big"][2] == big.tobytes()


def test_a_head_with_other_facts_is_another_checkpoint():
    made = small()
    other = dataclasses.replace(made, checkpoint=dataclasses.replace(made.checkpoint, number=2))
    assert read(manifests.written(other)) == other != made
