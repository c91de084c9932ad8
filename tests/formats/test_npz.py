"""NumPy archives."""

import hashlib
import io
import struct
import zipfile

import numpy as np
import pytest

import quantum_memory as qm
from quantum_memory.errors import BudgetError, IntegrityError, InvalidStateError, UnsupportedVersionError
from quantum_memory.formats import npz_format
from quantum_memory.formats.npz_format import member_name
from quantum_memory.formats.prepared import Prepared
from quantum_memory.formats.registry import SaveOptions, format_named
from quantum_memory.testing.damage import extensions, flips, truncations

from .watched import MIB, read, refusal

DOCUMENT = b'{"document":{"classical_data":{"$array":"classical"}},"record":{}}'
VALUES = np.array([1.0, 2.0])
NAME = qm.MemoryState(classical=VALUES).content_id.encode()


def npy(values) -> bytes:
    sink = io.BytesIO()
    np.save(sink, values)
    return sink.getvalue()


def raw(data: bytes) -> bytes:
    return npy(np.frombuffer(data, np.uint8))


def header(text: str, data: bytes = VALUES.tobytes(), version: bytes = b"\1\0") -> bytes:
    return b"\x93NUMPY" + version + struct.pack("<H", len(text)) + text.encode() + data


def sealed(archive: bytes) -> bytes:
    """Return an archive with its SHA-256 as its comment."""
    body = archive[:-2] + struct.pack("<H", 71)
    return body + b"sha256:" + hashlib.sha256(body).hexdigest().encode()


def members(**lies: bytes) -> dict[str, bytes]:
    honest = {
        "quantum-memory.npy": raw(b"quantum-memory 2.0"),
        "classical.npy": npy(VALUES),
        "document.npy": raw(DOCUMENT),
        "content_id.npy": raw(NAME),
    }
    return honest | {f"{name}.npy": data for name, data in lies.items()}


def archive(parts, method=zipfile.ZIP_STORED, packed=("classical.npy",)) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as made:
        for name, data in parts.items() if isinstance(parts, dict) else parts:
            made.writestr(name, data, method if name in packed else zipfile.ZIP_STORED)
    return sink.getvalue()


def forged(**lies: bytes) -> bytes:
    return sealed(archive(members(**lies)))


def directory_lies(old: bytes, new: bytes, count: int = 1) -> bytes:
    data = archive(members())
    assert data.count(old) >= count
    return sealed(data.replace(old, new))


def directory_entry(name: bytes, offset: int, **lies: int) -> bytes:
    """Return an archive in which the directory says something else of a member."""
    data = bytearray(archive(members()))
    start = data.rindex(b"PK\1\2", 0, data.rindex(name))
    struct.pack_into(lies.get("layout", "<I"), data, start + offset, lies["value"])
    return sealed(bytes(data))


def overlapping() -> bytes:
    """Return an archive of many members that share one piece of data."""
    data = archive(members())
    end = data[-22:]
    start, length = struct.unpack("<I", end[16:20])[0], struct.unpack("<I", end[12:16])[0]
    directory = data[start : start + length]
    entry = directory[directory.index(b"PK\1\2", 4) :][: 46 + len("classical.npy")]
    copies = b"".join(entry.replace(b"classical", b"class%04d" % n) for n in range(1000))
    whole = directory + copies
    record = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 1004, 1004, len(whole), start, 0)
    return sealed(data[:start] + whole + record)


def test_plain_numpy_opens_it_and_gives_the_arrays_by_path(small, tmp_path):
    for compression in ("none", "zlib"):
        qm.save(small, tmp_path / "a.npz", compression=compression)
        with np.load(tmp_path / "a.npz", allow_pickle=False) as archive:
            assert set(archive) == {
                "quantum-memory", "quantum/amplitudes", "classical/weights", "document", "content_id",
            }  # fmt: skip
            assert archive["quantum/amplitudes"].tobytes() == small.quantum.amplitudes.tobytes()
            assert archive["classical/weights"].dtype == np.float32
            assert archive["classical/weights"].shape == (3, 5)
            assert bytes(archive["content_id"]).decode() == small.content_id
            assert bytes(archive["quantum-memory"]) == b"quantum-memory 2.0"
        with zipfile.ZipFile(tmp_path / "a.npz") as archive:
            assert archive.testzip() is None


def test_the_comment_is_the_digest_of_every_byte_before_it(small, tmp_path):
    qm.save(small, tmp_path / "a.npz")
    data = (tmp_path / "a.npz").read_bytes()
    assert data[-71:].decode() == f"sha256:{hashlib.sha256(data[:-71]).hexdigest()}"


def test_an_honest_forgery_is_read():
    """Otherwise the forged files might be refused for another reason than theirs."""
    assert read("npz", forged()).classical.tolist() == VALUES.tolist()
    assert read("npz", sealed(archive(members(), zipfile.ZIP_DEFLATED))).classical.tolist() == VALUES.tolist()


def test_names_of_members_never_lead_out_of_a_folder(tmp_path):
    tree = {"..": {"..": {"etc": np.ones(1)}}, ".": np.ones(2), "~..": np.ones(3), "...": np.ones(4), "a..": np.ones(5)}
    memory = qm.MemoryState(classical=tree)
    qm.save(memory, tmp_path / "a.npz")
    assert qm.load(tmp_path / "a.npz") == memory
    with zipfile.ZipFile(tmp_path / "a.npz") as archive:
        names = archive.namelist()
    assert "classical/~../~../etc.npy" in names
    assert not [name for name in names if {"..", "."} & set(name.removesuffix(".npy").split("/"))]
    assert member_name("a/./b/...") == "a/~./b/..."


def test_a_compressed_archive_is_smaller(tmp_path):
    state = {"classical_data": np.zeros(100_000)}
    plain, packed = (qm.save(state, tmp_path / "a.npz", compression=way).bytes for way in ("none", "zlib"))
    assert packed < 5000
    assert plain > 800_000
    with pytest.raises(InvalidStateError, match=r"no compression 'zstd'.*auto, none, zlib"):
        qm.save(state, tmp_path / "a.npz", compression="zstd")


def test_more_arrays_than_a_directory_holds_are_refused_when_it_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(npz_format, "MAX_DIRECTORY_BYTES", 1000)
    qm.save({"classical_data": [np.ones(1) for _ in range(4)]}, tmp_path / "a.npz")
    assert len(qm.load(tmp_path / "a.npz").classical) == 4
    with pytest.raises(InvalidStateError, match=r"\.qms or \.h5"):
        qm.save({"classical_data": [np.ones(1) for _ in range(20)]}, tmp_path / "a.npz")


def test_members_past_two_gibibytes_are_written_as_zip64(tmp_path, monkeypatch):
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 1000)
    memory = qm.MemoryState(classical={"long": np.arange(1000.0), "short": np.arange(3.0)})
    for compression in ("none", "zlib"):
        qm.save(memory, tmp_path / "a.npz", compression=compression)
        with zipfile.ZipFile(tmp_path / "a.npz") as archive:
            assert archive.getinfo("classical/long.npy").extra
        assert qm.load(tmp_path / "a.npz") == memory
        with np.load(tmp_path / "a.npz") as arrays:
            assert arrays["classical/long"].sum() == np.arange(1000.0).sum()


def npy_of_objects() -> bytes:
    sink = io.BytesIO()
    np.save(sink, np.array([{"a": 1}], object), allow_pickle=True)
    return sink.getvalue()


def numpy_archive() -> bytes:
    sink = io.BytesIO()
    np.savez(sink, a=VALUES)
    return sink.getvalue()


HOSTILE = {
    "an array of objects": lambda: forged(classical=npy_of_objects()),
    "a header with an expression": lambda: forged(
        classical=header("{'descr': '<f8', 'fortran_order': False, 'shape': (__import__('os').getpid(),), }\n")
    ),
    "a header nested without end": lambda: forged(classical=header("(" * 900 + ")" * 900 + "\n")),
    "a header of 64 KiB": lambda: forged(classical=header(" " * 65_000 + "\n")),
    "a header of numbers without end": lambda: forged(
        classical=header("{'descr': '<f8', 'fortran_order': False, 'shape': (" + "1, " * 200 + "), }\n")
    ),
    "Fortran order": lambda: forged(classical=npy(np.asfortranarray(np.ones((2, 2))))),
    "big-endian items": lambda: forged(classical=npy(VALUES.astype(">f8"))),
    "text": lambda: forged(classical=npy(np.array(["ab"]))),
    "a structured array": lambda: forged(classical=npy(np.zeros(1, "f8,f8"))),
    "version 2 of the header": lambda: forged(classical=header("x\n", version=b"\2\0")),
    "no array at all": lambda: forged(classical=b"hello"),
    "nothing": lambda: forged(classical=b""),
    "a shape past every memory": lambda: forged(
        classical=header("{'descr': '<f8', 'fortran_order': False, 'shape': (4611686018427387904, 4), }\n")
    ),
    "fewer data than its shape says": lambda: forged(
        classical=header("{'descr': '<f8', 'fortran_order': False, 'shape': (3,), }\n")
    ),
    "more data than its shape says": lambda: forged(
        classical=header("{'descr': '<f8', 'fortran_order': False, 'shape': (1,), }\n")
    ),
    "other data": lambda: forged(classical=npy(VALUES + 1)),
    "another name of the content": lambda: forged(content_id=raw(b"0" * 64)),
    "another format": lambda: forged(**{"quantum-memory": raw(b"quantum-mammary 2.0")}),
    "no version": lambda: forged(**{"quantum-memory": raw(b"quantum-memory")}),
    "a document that is no JSON": lambda: forged(document=raw(b"{")),
    "a document of numbers": lambda: forged(document=npy(VALUES)),
    "a document nested without end": lambda: forged(document=raw(b"[" * 100_000)),
    "an array more than the document names": lambda: forged(extra=npy(VALUES)),
    "an array less": lambda: sealed(archive([item for item in members().items() if item[0] != "classical.npy"])),
    "no document": lambda: sealed(archive([item for item in members().items() if item[0] != "document.npy"])),
    "nothing in it": lambda: sealed(archive({})),
    "a name that leads out": lambda: forged(**{"../../evil": npy(VALUES)}),
    "a name from the root": lambda: forged(**{"/etc/passwd": npy(VALUES)}),
    "a name that is no array's": lambda: sealed(archive(members() | {"run.sh": b"touch hurt"})),
    "a name twice": lambda: directory_lies(b"document.npy", b"classical.npy"[1:]),
    "a name with a NUL": lambda: directory_lies(b"classical.npy", b"classica\0.npy"),
    "members over one another": overlapping,
    "a member that is the archive itself": lambda: directory_entry(b"classical.npy", 42, value=0),
    "a member past the end": lambda: directory_entry(b"classical.npy", 42, value=1 << 30),
    "a member longer than the archive": lambda: directory_entry(b"classical.npy", 20, value=1 << 31),
    "a member that says it is longer": lambda: directory_entry(b"classical.npy", 24, value=1 << 31),
    "an encrypted member": lambda: directory_entry(b"classical.npy", 8, value=1, layout="<H"),
    "a patch": lambda: directory_entry(b"classical.npy", 8, value=0x20, layout="<H"),
    "packed with bzip2": lambda: sealed(archive(members(), zipfile.ZIP_BZIP2)),
    "packed with LZMA": lambda: sealed(archive(members(), zipfile.ZIP_LZMA)),
    "packed with what there is not": lambda: directory_entry(b"classical.npy", 10, value=77, layout="<H"),
    "stored, and said to be deflated": lambda: directory_entry(b"classical.npy", 10, value=8, layout="<H"),
    "another checksum": lambda: directory_entry(b"classical.npy", 16, value=1),
    "a document that is compressed": lambda: sealed(archive(members(), zipfile.ZIP_DEFLATED, ("document.npy",))),
    "a document that is a bomb": lambda: sealed(
        archive(members(document=raw(b" " * (200 * MIB))), zipfile.ZIP_DEFLATED, ("document.npy",))
    ),
    "a directory of a hundred thousand names": lambda: sealed(archive({f"{n}.npy": b"" for n in range(100_000)})),
    "a directory that is not there": lambda: sealed(struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 9, 9, 1000, 0, 0)),
    "a directory of 4 GiB": lambda: sealed(struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 9, 9, 0xFFFFFFFF, 0, 0)),
    "no archive": lambda: sealed(bytes(100)),
    "a seal alone": lambda: b"sha256:" + hashlib.sha256(b"").hexdigest().encode(),
    "something before the archive": lambda: sealed(b"#!/bin/sh\n" + archive(members())),
    "what numpy.savez writes": numpy_archive,
}


@pytest.mark.parametrize("build", HOSTILE.values(), ids=HOSTILE)
def test_no_file_can_hurt(build):
    assert isinstance(refusal("npz", build()), (IntegrityError, qm.UnsafeError))


def test_every_bit_of_a_compressed_archive_is_covered(small):
    sink = io.BytesIO()
    format_named("npz").handler.write(sink, Prepared.plain(small), SaveOptions("zlib"))
    data = sink.getvalue()
    assert read("npz", data) == small
    for damaged in (*flips(data), *truncations(data), *extensions(data)):
        with pytest.raises(IntegrityError):
            read("npz", damaged)


def test_a_later_version_says_so():
    data = forged(**{"quantum-memory": raw(b"quantum-memory 2.1")})
    assert isinstance(refusal("npz", data), UnsupportedVersionError)


def test_a_bomb_is_refused_before_memory_is_taken_for_it():
    zeros = np.zeros(25 * MIB)
    data = sealed(archive(members(classical=npy(zeros)), zipfile.ZIP_DEFLATED))
    assert len(data) < MIB
    assert isinstance(refusal("npz", data, max_bytes=100 * MIB), BudgetError)
