"""MessagePack files, and the Base64 text of their bytes."""

import base64
import hashlib
import io

import msgpack
import numpy as np
import pytest

import quantum_memory as qm
from quantum_memory.errors import BudgetError, IntegrityError, InvalidStateError, UnsupportedVersionError
from quantum_memory.formats import msgpack_format, seal
from quantum_memory.formats.prepared import Prepared
from quantum_memory.formats.registry import SaveOptions, format_named

from .watched import read, refusal, sealed

DOCUMENT = '{"document":{"classical_data":{"$array":"classical"}},"record":{}}'
VALUES = np.array([1.0, 2.0])
NAME = qm.MemoryState(classical=VALUES).content_id
ARRAY = {"dtype": "f64", "shape": [2], "data": VALUES.tobytes()}


def written(memory, suffix="msgpack") -> bytes:
    sink = io.BytesIO()
    format_named(suffix).handler.write(sink, Prepared.plain(memory), SaveOptions())
    return sink.getvalue()


def tree(**lies) -> dict:
    parts = {
        "format": "quantum-memory",
        "version": "2.0",
        "arrays": {"classical": ARRAY},
        "document": DOCUMENT,
        "content_id": NAME,
    }
    return parts | lies


def forged(parts: dict, tail: bytes = b"") -> bytes:
    """Return a file of these parts, with its seal as the last value of the map."""
    body = msgpack.packb(parts | {"sha256": bytes(32)})
    return sealed(body[:-32] + tail)


def edited(old: bytes, new: bytes) -> bytes:
    body = forged(tree())[:-32]
    assert body.count(old) == 1
    return sealed(body.replace(old, new))


def test_any_decoder_of_msgpack_reads_it_and_the_seal_is_its_last_value(small):
    data = written(small)
    parts = msgpack.unpackb(data)
    assert list(parts) == ["format", "version", "arrays", "document", "content_id", "sha256"]
    assert parts["content_id"] == small.content_id
    assert parts["sha256"] == hashlib.sha256(data[:-32]).digest()
    array = parts["arrays"]["quantum/amplitudes"]
    assert (array["dtype"], array["shape"]) == ("c128", [32])
    assert array["data"] == small.quantum.amplitudes.tobytes()


def test_what_a_library_packs_in_the_same_order_is_the_same_file(small):
    data = written(small)
    assert msgpack.packb(msgpack.unpackb(data)) == data
    assert read("msgpack", forged(tree())).classical.tolist() == VALUES.tolist()


@pytest.mark.parametrize("length", [0, 31, 32, 255, 256, 65535, 65536, 70_000])
def test_every_form_of_a_length_is_the_one_that_the_library_writes(length):
    memory = qm.MemoryState(
        classical={"x" * min(length, 150): np.arange(length, dtype=np.uint8)}, metadata={"t": "y" * length}
    )
    data = written(memory)
    assert msgpack.packb(msgpack.unpackb(data)) == data
    assert read("msgpack", data) == memory


@pytest.mark.parametrize("count", [0, 15, 16, 40])
def test_so_it_is_for_maps_and_lists(count):
    memory = qm.MemoryState(classical=[np.ones((1,) * min(count, 32), np.int8) for _ in range(count)])
    data = written(memory)
    assert msgpack.packb(msgpack.unpackb(data)) == data
    assert read("msgpack", data) == memory


def test_five_qubits_take_less_than_a_kibibyte():
    amplitudes = np.random.default_rng(1).normal(size=64).view(np.complex128)
    state = qm.StateVector(amplitudes / np.linalg.norm(amplitudes), qubit_order="little")
    assert len(written(qm.MemoryState(state))) <= 1024


def test_an_array_that_one_value_cannot_hold_is_refused_and_the_error_says_where_it_fits(tmp_path, monkeypatch):
    monkeypatch.setattr(msgpack_format, "MAX_ARRAY_BYTES", 1000)
    qm.save(np.ones(125), tmp_path / "a.msgpack")
    with pytest.raises(InvalidStateError, match=r"1008 bytes.*\.qms or \.h5"):
        qm.save(np.ones(126), tmp_path / "a.msgpack")
    assert qm.load(tmp_path / "a.msgpack").quantum.amplitudes.size == 125


def test_more_arrays_than_the_format_holds_are_refused_when_it_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(seal, "MAX_ARRAYS", 3)
    for count, suffix in ((3, "msgpack"), (3, "npz")):
        qm.save({"classical_data": [np.ones(1) for _ in range(count)]}, tmp_path / f"a.{suffix}")
        with pytest.raises(InvalidStateError, match=r"4 arrays.*\.qms or \.h5"):
            qm.save({"classical_data": [np.ones(1) for _ in range(count + 1)]}, tmp_path / f"a.{suffix}")


def test_the_largest_length_is_the_largest_that_the_form_holds():
    assert msgpack_format.MessagePackEncoding.data[-1].spell(msgpack_format.MAX_ARRAY_BYTES) == b"\xc6" + b"\xff" * 4


HOSTILE = {
    "an extension type": forged(tree(document=msgpack.ExtType(5, b"x"))),
    "a timestamp": forged(tree(version=msgpack.Timestamp(1, 2))),
    "an extension type among the arrays": forged(tree(arrays={"classical": msgpack.ExtType(1, b"x" * 16)})),
    "a key twice": sealed(msgpack.packb(tree() | {"sha256": bytes(32)}).replace(b"\xa7version", b"\xa6format")[:-32]),
    "an array twice": edited(b"\x81\xa9classical", b"\x82\xa9classical" + msgpack.packb(ARRAY) + b"\xa9classical"),
    "arrays out of order": forged(tree(arrays={"classical/b": ARRAY, "classical/a": ARRAY})),
    "an array that the document does not name": forged(tree(arrays={"classical": ARRAY, "x": ARRAY})),
    "no array": forged(tree(arrays={})),
    "arrays that are a list": forged(tree(arrays=[ARRAY])),
    "parts in another order": forged(dict(reversed(tree().items()))),
    "a part that no release writes": forged(tree(more=1)),
    "a part that is missing": forged({key: part for key, part in tree().items() if key != "content_id"}),
    "a list of lists without end": sealed(b"\x91" * 100_000),
    "maps in maps without end": sealed(b"\x81\xa1a" * 100_000),
    "nesting inside the tree": sealed(forged(tree())[:20] + b"\x91" * 100_000),
    "a document nested without end": forged(tree(document="[" * 100_000)),
    "a document of a million values": forged(tree(document='{"document":{},"record":[' + "0," * 1_000_000 + "0]}")),
    "a document that is bytes": forged(tree(document=DOCUMENT.encode())),
    "a document with a key twice": forged(tree(document='{"document":{},"document":{},"record":{}}')),
    "a document that is a list": forged(tree(document="[]")),
    "a document with NaN": forged(tree(document='{"document":{"metadata":NaN},"record":{}}')),
    "text that is not UTF-8": edited(b"f64", b"\xff\xfe\xfd"),
    "data of 4 GiB that are not there": edited(b"\xc4\x10" + VALUES.tobytes(), b"\xc6\xff\xff\xff\xff"),
    "text of 4 GiB that is not there": edited(b"\xa9classical", b"\xdb\xff\xff\xff\xff"),
    "a map of four thousand million": edited(b"\x81\xa9classical", b"\xdf\xff\xff\xff\xff\xa9classical"),
    "a shape of 65535 axes": edited(b"\xa5shape\x91\x02", b"\xa5shape\xdc\xff\xff" + b"\x01" * 65535),
    "a shape past every memory": forged(tree(arrays={"classical": ARRAY | {"shape": [1 << 62, 4]}})),
    "a shape of nothing times too much": forged(
        tree(arrays={"classical": {"dtype": "f64", "shape": [0, 1 << 63, 1 << 63], "data": b""}})
    ),
    "a negative length": forged(tree(arrays={"classical": ARRAY | {"shape": [-2]}})),
    "a length that is a float": forged(tree(arrays={"classical": ARRAY | {"shape": [2.0]}})),
    "a dtype of objects": forged(tree(arrays={"classical": ARRAY | {"dtype": "O"}})),
    "a dtype of another size": forged(tree(arrays={"classical": ARRAY | {"dtype": "f32"}})),
    "other data": forged(tree(arrays={"classical": ARRAY | {"data": bytes(16)}})),
    "another name": forged(tree(content_id="0" * 64)),
    "a number in a longer form than it needs": edited(b"\xa5shape\x91\x02", b"\xa5shape\x91\xcc\x02"),
    "text in a longer form than it needs": edited(b"\xa3f64", b"\xd9\x03f64"),
    "more arrays than any release writes": forged(
        tree(arrays={f"{n:07}": {"dtype": "u8", "shape": [], "data": b"x"} for n in range(20_000)})
    ),
    "something after its last value": forged(tree(), b"\xc0"),
    "nothing": b"",
    "a seal of nothing": sealed(b""),
    "no map": sealed(b"\xc0"),
    "another format": forged(tree(format="quantum-mammary")),
    "no version": forged(tree(version="two")),
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE)
def test_no_file_can_hurt(data):
    assert refusal("msgpack", data).exit_code in {4, 9}
    assert refusal("b64", base64.b64encode(data)).exit_code in {4, 9}


def test_a_later_version_says_so():
    assert isinstance(refusal("msgpack", forged(tree(version="3.0", more={}))), UnsupportedVersionError)


def test_more_than_is_allowed_is_not_taken(tmp_path):
    path = tmp_path / "a.msgpack"
    qm.save({"classical_data": {"a": np.ones(100), "b": np.ones(1000)}}, path)
    with pytest.raises(BudgetError):
        qm.load(path, max_bytes=8799)
    assert qm.load(path, max_bytes=8800).classical["b"].size == 1000


# ---- Base64


def test_it_is_the_text_of_exactly_the_bytes_of_the_msgpack_file(small):
    for memory in (small, *(qm.MemoryState(metadata={"x": "y" * n}) for n in range(3))):
        assert base64.b64decode(written(memory, "b64"), validate=True) == written(memory)


def test_text_of_more_than_one_piece_comes_back(tmp_path):
    values = np.random.default_rng(0).integers(0, 256, 3 * (1 << 20) + 7, dtype=np.uint8)
    qm.save({"classical_data": values}, tmp_path / "a.b64")
    assert (qm.load(tmp_path / "a.b64").classical == values).all()


def spellings(text: bytes):
    yield text + b"\n"
    yield text + b"===="
    yield b" " + text[:-1]
    yield text[:76] + b"\n" + text[76:-1]
    yield text[:40] + b"====" + text[44:]
    yield text.replace(b"+", b"-").replace(b"/", b"_")
    yield text.rstrip(b"=")
    yield text[:-2] + b"=="
    yield b"data:;base64," + text


def test_there_is_one_text_for_any_content():
    values = np.frombuffer(b"\xfb\xff" * 9, np.uint8)  # every third group is +/ or so
    text = next(
        text
        for n in range(9)
        if (text := written(qm.MemoryState(classical=values, metadata={"x": "y" * n}), "b64")).endswith(b"=")
        and not text.endswith(b"==")
    )
    assert b"/" in text
    for other in spellings(text):
        assert isinstance(refusal("b64", other), IntegrityError), other
    last = text[-2:-1]
    alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    loose = alphabet[alphabet.index(last) ^ 1]  # other bits that the padding drops
    other = text[:-2] + bytes([loose]) + b"="
    assert base64.b64decode(other) == base64.b64decode(text)
    assert isinstance(refusal("b64", other), IntegrityError)
