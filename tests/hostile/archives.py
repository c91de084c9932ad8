"""Archives of NumPy: members that lie, lead out, or are bombs, all under a right SHA-256."""

from __future__ import annotations

import hashlib
import io
import struct
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np

import quantum_memory as qm

from .case import DAMAGED, READ, UNSAFE, Case
from .trees import name_of

if TYPE_CHECKING:
    from collections.abc import Callable

MIB = 1 << 20
DOCUMENT = b'{"document":{"classical_data":{"$array":"classical"}},"record":{}}'
VALUES = np.array([1.0, 2.0])
NAME = qm.MemoryState(classical=VALUES).content_id.encode()


def npy(values: Any) -> bytes:
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


def named(*paths: str) -> dict[str, bytes]:
    """Return the name of the content that has these arrays, as a member."""
    return {"content_id": raw(name_of(*paths).encode())}


def archive(parts: Any, method: int = zipfile.ZIP_STORED, packed: tuple[str, ...] = ("classical.npy",)) -> bytes:
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


def directory_entry(name: bytes, offset: int, **lies: Any) -> bytes:
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


def npy_of_objects() -> bytes:
    sink = io.BytesIO()
    np.save(sink, np.array([{"a": 1}], object), allow_pickle=True)
    return sink.getvalue()


def numpy_archive() -> bytes:
    sink = io.BytesIO()
    np.savez(sink, a=VALUES)
    return sink.getvalue()


_ARCHIVES: dict[str, tuple[str, Callable[[], bytes]]] = {
    "an array of objects": ("unpickles them, which runs code", lambda: forged(classical=npy_of_objects())),
    "a header with an expression": (
        "evaluates it",
        lambda: forged(
            classical=header("{'descr': '<f8', 'fortran_order': False, 'shape': (__import__('os').getpid(),), }\n")
        ),
    ),
    "a header nested without end": (
        "overflows the C stack",
        lambda: forged(classical=header("(" * 900 + ")" * 900 + "\n")),
    ),
    "a header of 64 KiB": ("parses it", lambda: forged(classical=header(" " * 65_000 + "\n"))),
    "a header of numbers without end": (
        "makes an array of 200 axes",
        lambda: forged(
            classical=header("{'descr': '<f8', 'fortran_order': False, 'shape': (" + "1, " * 200 + "), }\n")
        ),
    ),
    "Fortran order": ("transposes the array", lambda: forged(classical=npy(np.asfortranarray(np.ones((2, 2)))))),
    "big-endian items": ("swaps the bytes", lambda: forged(classical=npy(VALUES.astype(">f8")))),
    "text": ("makes text of numbers", lambda: forged(classical=npy(np.array(["ab"])))),
    "a structured array": ("takes it for two arrays", lambda: forged(classical=npy(np.zeros(1, "f8,f8")))),
    "version 2 of the header": ("reads a length of 4 GiB", lambda: forged(classical=header("x\n", version=b"\2\0"))),
    "no array at all": ("crashes", lambda: forged(classical=b"hello")),
    "nothing": ("crashes", lambda: forged(classical=b"")),
    "a shape past every memory": (
        "allocates it",
        lambda: forged(
            classical=header("{'descr': '<f8', 'fortran_order': False, 'shape': (4611686018427387904, 4), }\n")
        ),
    ),
    "fewer data than its shape says": (
        "leaves what was in memory before",
        lambda: forged(classical=header("{'descr': '<f8', 'fortran_order': False, 'shape': (3,), }\n")),
    ),
    "more data than its shape says": (
        "ignores the rest",
        lambda: forged(classical=header("{'descr': '<f8', 'fortran_order': False, 'shape': (1,), }\n")),
    ),
    "other data": ("never compares them", lambda: forged(classical=npy(VALUES + 1))),
    "another name of the content": ("never compares it", lambda: forged(content_id=raw(b"0" * 64))),
    "another format": ("reads it all the same", lambda: forged(**{"quantum-memory": raw(b"quantum-mammary 2.0")})),
    "no version": ("reads it as today's", lambda: forged(**{"quantum-memory": raw(b"quantum-memory")})),
    "a document that is no JSON": ("falls back to eval", lambda: forged(document=raw(b"{"))),
    "a document of numbers": ("reads numbers as text", lambda: forged(document=npy(VALUES))),
    "a document nested without end": ("overflows the C stack", lambda: forged(document=raw(b"[" * 100_000))),
    "an array more than the document names": (
        "drops it when it saves again",
        lambda: forged(extra=npy(VALUES), **named("classical", "extra")),
    ),
    "an array less": (
        "crashes halfway",
        lambda: sealed(archive([item for item in members(**named()).items() if item[0] != "classical.npy"])),
    ),
    "no document": (
        "makes one up",
        lambda: sealed(archive([item for item in members().items() if item[0] != "document.npy"])),
    ),
    "nothing in it": ("takes it for an empty state", lambda: sealed(archive({}))),
    "a name that leads out": ("writes there when it extracts", lambda: forged(**{"../../evil": npy(VALUES)})),
    "a name from the root": (
        "writes there when it extracts",
        lambda: forged(**{"/etc/passwd": npy(VALUES)}, **named("classical", "/etc/passwd")),
    ),
    "a name that is no array's": ("extracts a program", lambda: sealed(archive(members() | {"run.sh": b"touch hurt"}))),
    "a name twice": (
        "gives the one or the other",
        lambda: sealed(archive(members(classicbl=npy(VALUES + 1))).replace(b"classicbl", b"classical")),
    ),
    "a name with a NUL": ("cuts the name there", lambda: directory_lies(b"classical.npy", b"classica\0.npy")),
    "members over one another": ("decodes one piece a thousand times", overlapping),
    "a member that is the archive itself": (
        "decodes itself without end",
        lambda: directory_entry(b"classical.npy", 42, value=0),
    ),
    "a member past the end": ("seeks there", lambda: directory_entry(b"classical.npy", 42, value=1 << 30)),
    "a member longer than the archive": (
        "reads the directory as data",
        lambda: directory_entry(b"classical.npy", 20, value=1 << 31),
    ),
    "a member that says it is longer": (
        "allocates 2 GiB",
        lambda: directory_entry(b"classical.npy", 24, value=1 << 31),
    ),
    "an encrypted member": ("asks for a password", lambda: directory_entry(b"classical.npy", 8, value=1, layout="<H")),
    "a patch": ("applies it", lambda: directory_entry(b"classical.npy", 8, value=0x20, layout="<H")),
    "packed with bzip2": (
        "decodes it with a library that nobody bounds",
        lambda: sealed(archive(members(), zipfile.ZIP_BZIP2)),
    ),
    "packed with LZMA": (
        "decodes it with a library that nobody bounds",
        lambda: sealed(archive(members(), zipfile.ZIP_LZMA)),
    ),
    "packed with what there is not": ("crashes", lambda: directory_entry(b"classical.npy", 10, value=77, layout="<H")),
    "stored, and said to be deflated": (
        "decodes what is not packed",
        lambda: directory_entry(b"classical.npy", 10, value=8, layout="<H"),
    ),
    "another checksum": ("never compares it", lambda: directory_entry(b"classical.npy", 16, value=1)),
    "a document that is compressed": (
        "decodes any length of it",
        lambda: sealed(archive(members(), zipfile.ZIP_DEFLATED, ("document.npy",))),
    ),
    "a document that is a bomb": (
        "decodes 200 MiB",
        lambda: sealed(archive(members(document=raw(b" " * (200 * MIB))), zipfile.ZIP_DEFLATED, ("document.npy",))),
    ),
    "a directory of a hundred thousand names": (
        "makes an object of each",
        lambda: sealed(archive({f"{n}.npy": b"" for n in range(100_000)})),
    ),
    "a directory that is not there": (
        "reads something else",
        lambda: sealed(struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 9, 9, 1000, 0, 0)),
    ),
    "a directory of 4 GiB": (
        "reads 4 GiB",
        lambda: sealed(struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 9, 9, 0xFFFFFFFF, 0, 0)),
    ),
    "no archive": ("crashes", lambda: sealed(bytes(100))),
    "a seal alone": ("takes it for an empty archive", lambda: b"sha256:" + hashlib.sha256(b"").hexdigest().encode()),
    "something before the archive": (
        "finds the archive behind a program",
        lambda: sealed(b"#!/bin/sh\n" + archive(members())),
    ),
    "what numpy.savez writes": ("reads arrays that nobody named a state", numpy_archive),
}
_OTHERWISE = {
    "a document nested without end": UNSAFE,
    "a directory of a hundred thousand names": UNSAFE,
    "what numpy.savez writes": READ,
}
ARCHIVES = [
    Case(f"{title}, in an archive", naive, _OTHERWISE.get(title, DAMAGED), build, "npz")
    for title, (naive, build) in _ARCHIVES.items()
]
