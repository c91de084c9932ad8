"""Damaged and hostile legacy files: a typed error that names the file, in bounded time and memory."""

import io
import json
import struct
import time
import tracemalloc
import zipfile
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantum_memory.durability.files import ReadableBytes
from quantum_memory.errors import IntegrityError, QuantumMemoryError, UnsafeError
from quantum_memory.formats import legacy

from .fixtures import BROKEN, DATA, FIXTURES, read

SECONDS = 2.0
MIB = 1 << 20


def fails(data, kind=QuantumMemoryError, name="state", **options):
    """Return the error that bytes give, having seen that it is quick, small and says what to do."""
    tracemalloc.start()
    start = time.monotonic()
    try:
        with pytest.raises(kind) as caught:
            legacy.read(ReadableBytes(data, name), **options)
        taken, peak = time.monotonic() - start, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert taken < 4 * SECONDS  # tracing makes it slower
    assert peak < 64 * MIB + len(data)
    assert caught.value.path is not None
    assert caught.value.next_step
    return caught.value


@pytest.mark.parametrize("entry", BROKEN, ids=[entry["path"] for entry in BROKEN])
def test_damaged_fixtures_are_refused(entry, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused = UnsafeError if "evil" in entry["path"] else IntegrityError
    path = DATA / entry["path"]
    error = fails(path.read_bytes(), refused, str(path), allow_pickle=True)
    for section in entry.get("sections_intact", []):
        assert section in str(error).partition("whole are")[2]
    if (first := entry.get("state_vector_salvageable_from_amplitude")) is not None:
        assert f"the amplitudes from {first} on" in str(error)
    assert not list(tmp_path.iterdir())


def test_a_pickle_is_read_only_when_asked_for():
    with pytest.raises(UnsafeError, match="allow_pickle=True"):
        read(DATA / "serializer" / "s_n3_pickle.pkl")


def packed(text, size=None):
    stream = zlib.compress(text, 9)
    header = json.dumps({"original_size": len(text) if size is None else size, "compressed_size": len(stream)})
    return struct.pack("<I", len(header)) + header.encode() + stream


def qms(svec, compression=0, **section):
    body = b"SVEC" + struct.pack("<Q", len(svec)) + svec
    listed = [{"id": "SVEC", "offset": 0, "size": len(body), "compressed": bool(compression)} | section]
    header = json.dumps({"version": "1.0", "compression": compression, "sections": listed}).encode()
    return b"QMS\x01" + struct.pack("<I", len(header)) + header + body


def svec(shape, data, dtype=b"complex128"):
    return struct.pack(f"<I{len(dtype)}sI{len(shape)}I", len(dtype), dtype, len(shape), *shape) + data


def npz(**members):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(f"{name}.npy", data)
    return stream.getvalue()


def npy(descr, shape, data):
    header = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\0" + struct.pack("<H", len(header)) + header + data


DEEP = b"[" * 200 + b"]" * 200
HOSTILE = {
    "a bomb that says so": (packed(bytes(100 * MIB)), "state.json.zlib"),
    "a bomb that does not": (packed(bytes(100 * MIB), 1000), "state.json.zlib"),
    "deep JSON": (b'{"interface_config":{},"a":' + DEEP + b"}", "state.json"),
    "JSON deeper than the stack": (b'{"interface_config":{},"a":' + b"[" * 10**6, "state.json"),
    "JSON of many values": (b'{"interface_config":[' + b"0," * 10**6 + b"0]}", "state.json"),
    "a key twice": (b'{"interface_config":{},"interface_config":{}}', "state.json"),
    "a number that overflows": (b'{"interface_config":{"a":1e999}}', "state.json"),
    "an integer without end": (b'{"interface_config":' + b"9" * 10**5 + b"}", "state.json"),
    "a version of the future": (b'{"metadata":{"version":"9.0"},"interface_config":{}}', "state.json"),
    "a tensor whose shape is a lie": (
        b'{"y":{"_tensor_type":"numpy","data":[],"dtype":"int64","shape":[9]}}', "s.json"
    ),
    "an integer that its dtype has not": (
        b'{"x":{"_tensor_type":"numpy","data":[300],"dtype":"uint8","shape":[1]}}', "s.json"
    ),
    "a section of a huge shape": (qms(svec((1 << 31, 1 << 31, 1 << 31), b"")), "s.qms"),
    "a packed section of a huge shape": (qms(svec((1 << 31,), zlib.compress(b"")), 1), "s.qms"),
    "a packed section that is longer": (qms(svec((1,), zlib.compress(bytes(50 * MIB))), 1), "s.qms"),
    "a section beyond the end": (qms(svec((2,), bytes(32)), size=1 << 60), "s.qms"),
    "a section of objects": (qms(svec((2,), bytes(16), b"object")), "s.qms"),
    "a negative size": (qms(svec((2,), bytes(32)), size=-1), "s.qms"),
    "a header without end": (b"QMS\x01\xff\xff\xff\xff", "s.qms"),
    "an export of a length without end": (
        struct.pack("<I", 28) + b'{"format": "QMS_BINARY_v1" }' + b"RAW \xff\xff\xff\xff\xff\xff\xff\x7f", "s.qms"
    ),
    "an export without a checksum that fits": (
        struct.pack("<I", 28) + b'{"format": "QMS_BINARY_v1" }' + b"RAW " + struct.pack("<Q", 32) + bytes(32)
        + struct.pack("<I", 16) + b'{"checksum":"0"}', "s.qms"
    ),
    "an archive of a huge shape": (npz(state=npy("<c8", f"({1 << 50},)", b"")), "s.npz"),
    "an archive of objects": (npz(state=npy("|V8", "(1,)", bytes(8))), "s.npz"),
    "an archive with a pickled state": (npz(state=npy("|O", "(1,)", b"cos\nsystem\n(S'true'\ntR.")), "s.npz"),
    "an archive with a program for a header": (npz(state=npy("__import__('os')", "(1,)", b"")), "s.npz"),
    "an archive with half its end": (npz(state=npy("<c8", "(1,)", bytes(8)))[:-5], "s.npz"),
    "MessagePack of many items": (b"\x81\xa1a" + b"\xdd\xff\xff\xff\xff" * 50, "s.msgpack"),
    "MessagePack of deep lists": (b"\x81\xa1a" + b"\x91" * 5000, "s.msgpack"),
    "MessagePack of long text": (b"\x81\xa1a\xdb\xff\xff\xff\xffa", "s.msgpack"),
    "MessagePack with an extension": (b"\x81\xa1a\xd4\x00\x00", "s.msgpack"),
    "MessagePack with a key twice": (b"\x82\xa1a\x01\xa1a\x01", "s.msgpack"),
    "nothing": (b"", "s.qms"),
    "a web page": (b"<html>", "s.qms"),
}  # fmt: skip


@pytest.mark.parametrize("title", HOSTILE)
def test_hostile_files_are_refused(title):
    data, name = HOSTILE[title]
    fails(data, name=name)


def test_what_the_helpers_make_without_lies_is_read():
    """Otherwise the forged files might be refused for another reason than theirs."""
    amplitudes = np.array([0.6, 0.8j])
    for data in (
        qms(svec((2,), amplitudes.tobytes())),
        qms(svec((2,), zlib.compress(amplitudes.tobytes())), 1),
        npz(state=npy("<c16", "(2,)", amplitudes.tobytes())),
    ):
        assert legacy.read(ReadableBytes(data)).memory.quantum.amplitudes.tolist() == [0.6, 0.8j]
    assert legacy.read(ReadableBytes(packed(b'{"interface_config":{}}'))).version == "1.0"


def test_what_an_array_may_take_is_limited():
    fails(qms(svec((1 << 10,), bytes(16 << 10))), UnsafeError, max_bytes=1000)
    fails(npz(state=npy("<c16", "(1024,)", bytes(16 << 10))), UnsafeError, max_bytes=1000)
    fails((DATA / "hdf5" / "h_n3_none.h5").read_bytes(), UnsafeError, max_bytes=100)
    fails((DATA / "qms_export" / "x_n17.qms").read_bytes(), UnsafeError, max_bytes=1000)


ORIGINALS = [(entry["path"], (DATA / entry["path"]).read_bytes()) for entry in FIXTURES]
ORIGINALS += [
    (name, (DATA / name).read_bytes())
    for name in ("json_v1/v1_n3_mps_quantum.npz", "others/checkpoint_registry.json", "others/backup_metadata.json")
]
EDITS = st.lists(
    st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 9), st.binary(min_size=1, max_size=8)),
    min_size=1,
    max_size=4,
)


@given(st.sampled_from(ORIGINALS), EDITS, st.booleans())
def test_only_our_errors_escape_from_files_that_were_altered(original, edits, early):
    path, data = original
    for place, removed, put in edits:
        at = int(place * (min(len(data), 600) if early else len(data)))
        data = data[:at] + put + data[at + removed :]
    try:
        found = legacy.read(ReadableBytes(data, path), allow_pickle=True)
        assert found.memory.content_id
    except QuantumMemoryError as error:
        assert error.path  # noqa: PT017 - not every file is refused
        assert error.next_step  # noqa: PT017
