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

from ..hostile.trees import VALUES, forged, tree
from .watched import read, refusal


def written(memory, suffix="msgpack") -> bytes:
    sink = io.BytesIO()
    format_named(suffix).handler.write(sink, Prepared.plain(memory), SaveOptions())
    return sink.getvalue()


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
