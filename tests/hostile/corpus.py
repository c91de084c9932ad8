# ruff: noqa: E501 - one case on one line, as in a table
"""The hostile files, numbered as in the README: each is built by code, and says what a naive reader would do with it."""

from __future__ import annotations

import os
import struct
import zipfile
import zlib
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lz4.block
import numpy as np

from quantum_memory.compression.codecs.zstandard import _zstd
from quantum_memory.formats import qms_layout
from quantum_memory.state.arrays import CHUNK_BYTES

from .archives import ARCHIVES
from .case import DAMAGED, LATER, READ, UNSAFE, Case
from .folders import FOLDERS
from .forge import U8, Chunk, Part, array, document, json_array, json_file, packed, qms, says, seal, sealed, zlib_file
from .locked import LOCKED
from .stores import STORES, whole
from .trees import BASE64, PICKLES, TREES

if TYPE_CHECKING:
    from collections.abc import Callable

PLUS = np.array([1, 1], np.complex128) / np.sqrt(2)
STATE = {"kind": "state_vector", "dims": [2], "qubit_order": "big", "amplitudes": {"$array": "quantum/amplitudes"}}
AMPLITUDES = array("quantum/amplitudes", PLUS)
HONEST = says(quantum_data={"$state": STATE})


def state(**lies: Any) -> Part:
    return says(quantum_data={"$state": STATE | lies})


def one(part: Part, **tree: Any) -> bytes:
    """Return a file with one array in its classical part, which its document names."""
    node = {"$array": part.name.decode("utf-8", "replace")} | tree
    return qms(part, says(classical_data=node))


def classical(node: Any, *parts: Part) -> bytes:
    return qms(*parts, says(classical_data=node))


def lying(values: Any = (1.0, 2.0), **lies: Any) -> bytes:
    return one(array("classical", values, **lies))


def chunked(chunk: Chunk, length: int = 1000) -> bytes:
    return one(Part(2, b"classical", U8, (length,), [chunk]))


def trailer_lies(**lies: int) -> bytes:
    data = qms(AMPLITUDES, HONEST)
    offset = int.from_bytes(data[-48:-40], "little")
    return sealed(data[:64], data[:offset], data[offset:-64], **lies)


def deep(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


def with_document(text: bytes) -> bytes:
    return qms(document(b'{"document":{"metadata":' + text + b'},"record":{}}'))


def chain(*shapes: tuple[int, ...], **more: Any) -> bytes:
    parts = [array(f"quantum/site/{k}", np.ones(shape)) for k, shape in enumerate(shapes)]
    sites = [{"$array": f"quantum/site/{k}"} for k in range(len(shapes))]
    return qms(*parts, says(quantum_data={"$state": {"kind": "matrix_product_state", "sites": sites} | more}))


def matrix(shape: tuple[int, int]) -> bytes:
    node = {"kind": "density_matrix", "dims": [2], "qubit_order": "big", "matrix": {"$array": "quantum/matrix"}}
    return qms(array("quantum/matrix", np.ones(shape)), says(quantum_data={"$state": node}))


def emotion(**fields: Any) -> bytes:
    whole = dict.fromkeys(["pad", "standard_error", "stability", "confidence", "trajectory"])
    whole |= {"scale": "bipolar", "recent_emotions": [], "extra": {}, "keys": {"$tuple": []}}
    return qms(says(emotional_context=whole | fields))


def zstd_of_a_wide_window() -> bytes:
    """Return a zstd frame of 1000 raw bytes whose header asks for a window of 128 MiB."""
    return struct.pack("<IBB", 0xFD2FB528, 0, (27 - 10) << 3) + (1000 << 3 | 1).to_bytes(3, "little") + bytes(1000)


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 12345\n"


def npy_of(count: int, kind: str = "<f8") -> bytes:
    """Return the file of an array that is not all there."""
    header = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': ({count},), }}\n".encode()
    return b"\x93NUMPY\x01\0" + struct.pack("<H", len(header)) + header + bytes(80)


def zipped_link() -> bytes:
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        link = zipfile.ZipInfo("state.npy")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    return buffer.getvalue()


def zipped() -> bytes:
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("../evil.py", "import os")
    return buffer.getvalue()


def seed_qms() -> bytes:
    return b"QMS\x01" + struct.pack("<I", 2) + b"{}" + bytes(120)


PICKLE = b"cos\nsystem\n(S'touch hurt'\ntR."
QMS: list[Case] = [
    # ---- the frame
    Case("a table past the end", "seeks there, and reads nothing or crashes", DAMAGED, lambda: trailer_lies(table_offset=1 << 62)),
    Case("a table before the header", "computes a negative length", DAMAGED, lambda: trailer_lies(table_offset=8)),
    Case("a length of 2**64 - 1", "wraps around when it adds to it", DAMAGED, lambda: trailer_lies(length=(1 << 64) - 1)),
    Case("2**32 - 1 entries", "makes room for 200 GB of them", UNSAFE, lambda: qms(AMPLITUDES, HONEST, count=(1 << 32) - 1)),
    Case("a million entries in a short table", "runs off its end", DAMAGED, lambda: qms(AMPLITUDES, HONEST, count=10**6)),
    Case("fewer entries than the table has", "ignores the rest", DAMAGED, lambda: qms(AMPLITUDES, HONEST, count=1)),
    Case("bytes after the last entry", "ignores them", DAMAGED, lambda: qms(AMPLITUDES, HONEST, after_table=b"\0")),
    Case("an empty table", "takes it for an empty state", DAMAGED, qms),
    Case("padding that is not zero", "carries somebody's message along", DAMAGED,
         lambda: qms(array("classical", [1.0]), says(classical_data={"$array": "classical"}), padding=b"x")),
    Case("a chunk that runs into the table", "reads the table as data", DAMAGED,
         lambda: one(Part(2, b"classical", U8, (10,), [Chunk(bytes(10), bytes(10), length=200)]))),
    Case("data that no entry has", "never looks at it", DAMAGED,
         lambda: one(Part(2, b"classical", U8, (10,), [Chunk(bytes(500), bytes(10), length=10)]))),
    Case("header facts that no release writes", "divides by an alignment of 0", DAMAGED,
         lambda: qms(AMPLITUDES, HONEST, facts={"alignment": 0})),
    Case("a version from the future", "reads it as today's", LATER, lambda: qms(AMPLITUDES, HONEST, facts={"version": 3, "oldest": 3})),
    Case("a flag that must not be ignored", "ignores it", LATER, lambda: qms(AMPLITUDES, HONEST, facts={"flags": 1 << 20})),
    Case("version 65535", "reads it as today's", LATER, lambda: qms(facts={"version": 65535, "oldest": 65535})),
    Case("the first implementation's signature", "says that the file is damaged", LATER, seed_qms),
    Case("a trailer of another file", "trusts whichever it reads first", DAMAGED,
         lambda: qms(AMPLITUDES, HONEST)[:-64] + qms(HONEST)[-64:]),
    # ---- entries
    Case("2**60 items", "allocates an exabyte", DAMAGED, lambda: lying(shape=(1 << 60,))),
    Case("2**64 - 1 items", "multiplies by the item size and gets a small number", DAMAGED, lambda: lying(shape=((1 << 64) - 1,))),
    Case("(2**32, 2**32, 2) items", "gets 0 from the product in 64 bits", DAMAGED, lambda: lying(shape=(1 << 32, 1 << 32, 2))),
    Case("no items, of 2**64 - 1 rows", "passes the shape on to the allocator", DAMAGED,
         lambda: lying((), shape=((1 << 64) - 1, 0), chunks=[])),
    Case("no items, of 2**61 rows", "passes the shape on to the allocator", DAMAGED, lambda: lying((), shape=(0, 1 << 61), chunks=[])),
    Case("65 axes", "writes past an array of 64", DAMAGED, lambda: lying([1.0], shape=(1,) * 65)),
    Case("more axes than it has", "takes the name for a shape", DAMAGED, lambda: lying(dimensions=9)),
    Case("no axes where there are items", "leaves chunks over", DAMAGED, lambda: lying(dimensions=0)),
    Case("a name of 64 KiB", "copies it to the stack", DAMAGED, lambda: lying(name_bytes=65535)),
    Case("a name of 2000 bytes", "prints it whole", DAMAGED, lambda: one(array("classical/" + "n" * 2000, [1.0]))),
    Case("no name", "uses it as a key all the same", DAMAGED, lambda: lying(name=b"")),
    Case("a NUL in a name", "cuts the name there in C, and not in Python", DAMAGED, lambda: one(array("classical/a\0b", [1.0]))),
    Case("the name ../../etc/passwd", "writes there when it extracts", DAMAGED, lambda: lying(name=b"../../etc/passwd")),
    Case("a name that turns the text round", "shows another name than it has", DAMAGED, lambda: one(array("classical/\u202ecod.exe", [1.0]))),
    Case("a name that is not UTF-8", "crashes where it is printed", DAMAGED, lambda: lying(name=b"classical/\xff\xfe")),
    Case("one name twice", "gives the one or the other", DAMAGED,
         lambda: qms(array("classical", [1.0]), array("classical", [2.0]), says(classical_data={"$array": "classical"}))),
    Case("names out of order", "finds some of them", DAMAGED,
         lambda: classical([{"$array": "classical/b"}, {"$array": "classical/a"}], array("classical/b", [1.0]), array("classical/a", [1.0]))),
    Case("one name in two sections", "verifies the one and loads the other", DAMAGED,
         lambda: qms(array("classical/x", [1.0], section=1), array("classical/x", [2.0]), says(classical_data={"$array": "classical/x"}))),
    Case("an array in a section of another kind", "shows classical data as a quantum state", DAMAGED,
         lambda: qms(array("classical/x", [1.0], section=1), says(classical_data={"$array": "classical/x"}))),
    Case("an element type that there is not", "looks past the end of its list of types", DAMAGED, lambda: lying(kind=200)),
    Case("element type 0", "takes the last of the list", DAMAGED, lambda: lying(kind=0)),
    Case("flags that there are not", "ignores them", DAMAGED, lambda: lying(flags=0x81)),
    Case("a section that must not be skipped", "skips it", LATER, lambda: qms(AMPLITUDES, HONEST, array("metadata", [1.0], section=77))),
    # ---- chunks
    Case("a codec that there is not", "imports a plugin of that name", LATER, lambda: chunked(Chunk(b"abc", b"abc", codec=99))),
    Case("a chunk of no bytes", "waits for more", DAMAGED, lambda: chunked(Chunk(b"", b""))),
    Case("a chunk of more than 1 MiB", "keeps as many as the file says in memory", DAMAGED,
         lambda: one(Part(2, b"classical", U8, (CHUNK_BYTES,), [Chunk(bytes(CHUNK_BYTES + 1), bytes(CHUNK_BYTES))]))),
    Case("a raw chunk that is too short", "leaves what was in memory before", DAMAGED, lambda: chunked(Chunk(bytes(999), bytes(1000)))),
    Case("a zlib bomb", "decodes 512 MiB", DAMAGED, lambda: chunked(Chunk(zlib.compress(bytes(512 << 20), 9), bytes(1000), 1))),
    Case("an LZ4 bomb", "decodes 200 MiB", DAMAGED,
         lambda: chunked(Chunk(lz4.block.compress(bytes(200 << 20), store_size=False), bytes(1000), 2))),
    Case("a zstd bomb", "decodes 1 GiB", DAMAGED, lambda: chunked(Chunk(_zstd().compress(bytes(1 << 30), 3), bytes(1000), 3))),
    Case("a zstd frame that wants a wide window", "allocates 128 MiB for a kilobyte", DAMAGED,
         lambda: chunked(Chunk(zstd_of_a_wide_window(), bytes(1000), 3))),
    Case("a zstd frame that says that it holds 1 TiB", "allocates what it says", DAMAGED,
         lambda: chunked(Chunk(struct.pack("<IBQ", 0xFD2FB528, 0xE0, 1 << 40) + b"\1\0\0", bytes(1000), 3))),
    Case("a zlib chunk that holds too little", "leaves what was in memory before", DAMAGED,
         lambda: chunked(Chunk(zlib.compress(bytes(999)), bytes(1000), 1))),
    Case("an LZ4 chunk that holds too little", "leaves what was in memory before", DAMAGED,
         lambda: chunked(Chunk(lz4.block.compress(bytes(999), store_size=False), bytes(1000), 2))),
    Case("an LZ4 chunk that copies from before its beginning", "shows other memory", DAMAGED,
         lambda: chunked(Chunk(b"\x0f\xff\xff" + b"\xff" * 3 + b"\0\0", bytes(1000), 2))),
    Case("bytes after the end of a zlib stream", "ignores them", DAMAGED,
         lambda: chunked(Chunk(zlib.compress(bytes(1000)) + b"evil", bytes(1000), 1))),
    Case("two zstd frames in one chunk", "decodes both, or one", DAMAGED,
         lambda: chunked(Chunk(_zstd().compress(bytes(1000)) * 2, bytes(1000), 3))),
    Case("a zlib stream that is cut off", "gives what there is", DAMAGED,
         lambda: chunked(Chunk(zlib.compress(bytes(range(250)) * 4)[:-6], bytes(1000), 1))),
    # ---- the document
    Case("no document", "makes one up", DAMAGED, lambda: qms(AMPLITUDES)),
    Case("two documents", "reads the one or the other", DAMAGED,
         lambda: qms(AMPLITUDES, HONEST, Part(5, b"documents", U8, (2,), [Chunk(b"{}", b"{}")]))),
    Case("a document that is no JSON", "falls back to eval", DAMAGED, lambda: qms(document(b"__import__('os').system('touch hurt')"))),
    Case("a document that is not UTF-8", "guesses an encoding", DAMAGED, lambda: with_document(b'"\xff\xfe"')),
    Case("a document of float64", "reads numbers as text", DAMAGED, lambda: qms(array("document", [1.0]))),
    Case("a document of two axes", "joins the rows", DAMAGED, lambda: qms(array("document", np.zeros((2, 3), np.uint8)))),
    Case("a document that lacks its record", "makes one up", DAMAGED, lambda: qms(document({"document": {}}))),
    Case("a document that is a list", "crashes", DAMAGED, lambda: qms(document([]))),
    Case("a document with more beside it", "drops it when it saves again", DAMAGED,
         lambda: qms(document({"document": {}, "record": {}, "more": 1}))),
    Case("a part that there is not", "drops it when it saves again", LATER, lambda: qms(says(later={"a": 1}))),
    Case("100,000 levels of nesting", "overflows the C stack", UNSAFE, lambda: with_document(deep(100_000))),
    Case("600 levels of nesting", "recurses until Python stops it", UNSAFE, lambda: with_document(deep(600))),
    Case("16 MiB of [", "parses them", UNSAFE, lambda: qms(packed(b"[" * (16 << 20)))),
    Case("4 MiB of [", "parses them", UNSAFE, lambda: qms(packed(b"[" * (4 << 20)))),
    Case("16 MiB of [],", "makes 300 MiB of lists", UNSAFE, lambda: qms(packed(b"[" + b"[]," * (5 << 20) + b"[]]"))),
    Case("4 MiB of [],", "makes 100 MiB of lists", UNSAFE, lambda: qms(packed(b"[" + b"[]," * ((4 << 20) // 3 - 2) + b"[]]"))),
    Case("a packed document of 60 MiB", "holds it four times", UNSAFE,
         lambda: qms(packed(b'{"document":{"metadata":{"a":"' + b"a" * (60 << 20) + b'"}},"record":{}}'))),
    Case("a key twice", "keeps the last, where another reader keeps the first", DAMAGED, lambda: with_document(b'{"a":1,"a":2}')),
    Case("NaN", "reads it, and writes what others cannot read", DAMAGED, lambda: with_document(b'{"a":NaN}')),
    Case("1e400", "makes infinity of it", DAMAGED, lambda: with_document(b'{"a":1e400}')),
    Case("a number of 5000 digits", "takes quadratic time", DAMAGED, lambda: with_document(b'{"a":' + b"9" * 5000 + b"}")),
    Case("an array that the document does not name", "drops it when it saves again", DAMAGED,
         lambda: qms(array("classical/hidden", [1.0]), says(classical_data=1))),
    Case("an array that is not there", "crashes halfway", DAMAGED, lambda: classical({"$array": "classical/x"})),
    Case("an array under a path that is a list", "crashes on an unhashable key", DAMAGED, lambda: classical({"$array": []})),
    Case("an unknown marker", "imports the class of that name", LATER, lambda: classical({"$object": "os.system"})),
    Case("something beside a marker", "reads the one or the other", DAMAGED, lambda: classical({"$tuple": [], "$dict": []})),
    Case("a dict with unhashable keys", "crashes", DAMAGED, lambda: classical({"$dict": [[[], 1]]})),
    Case("a dict with one key twice", "keeps the last", DAMAGED, lambda: classical({"$dict": [[1, 1], [1, 2]]})),
    Case("a scalar of objects", "takes eight bytes for a pointer", DAMAGED, lambda: classical({"$scalar": ["|O", "AAAAAAAAAAA="]})),
    Case("an array of objects", "takes eight bytes for a pointer", DAMAGED,
         lambda: one(array("classical", np.zeros((1, 8), np.uint8)), dtype="|O")),
    Case("a structured dtype with objects in it", "takes eight bytes for a pointer", DAMAGED,
         lambda: one(array("classical", np.zeros((1, 8), np.uint8)), dtype=[["a", "|O"]])),
    Case("a dtype whose items are longer than the bytes", "shows other memory", DAMAGED,
         lambda: one(array("classical", np.zeros((1, 8), np.uint8)), dtype="<M8[ns][100]")),
    Case("a dtype of 1 TB", "allocates it", DAMAGED, lambda: one(array("classical", np.zeros((1, 8), np.uint8)), dtype="|V1000000000000")),
    Case("text without bytes, 2**60 times", "makes four bytes of each", DAMAGED,
         lambda: one(Part(2, b"classical", U8, (1 << 60, 0)), dtype="<U1")),
    Case("a tensor of a type that is a function", "calls torch.load", DAMAGED,
         lambda: classical({"$torch": {"$array": "classical/x", "dtype": ["load"]}}, array("classical/x", [1.0]))),
    Case("a tensor of integers with a gradient", "crashes in torch", DAMAGED,
         lambda: classical({"$torch": {"$array": "classical/x", "dtype": "int64", "requires_grad": True}}, array("classical/x", [1]))),
    Case("metadata that are a list", "crashes where they are used", DAMAGED, lambda: qms(says(metadata=[1, 2]))),
    Case("a record that is a list", "crashes where it is used", DAMAGED, lambda: qms(says(record=[1]))),
    # ---- states
    Case("dims that do not multiply", "reshapes to what it finds", DAMAGED, lambda: qms(AMPLITUDES, state(dims=[2, 2]))),
    Case("dims that are no list", "crashes", DAMAGED, lambda: qms(AMPLITUDES, state(dims="2"))),
    Case("dims of 2**200", "multiplies them as floats", DAMAGED, lambda: qms(AMPLITUDES, state(dims=[1 << 200]))),
    Case("a million dims of 1", "makes a million axes", UNSAFE, lambda: qms(AMPLITUDES, state(dims=[1] * 1_000_000 + [2]))),
    Case("labels for other sites", "labels the wrong ones", DAMAGED, lambda: qms(AMPLITUDES, state(labels=["a", "b"]))),
    Case("a qubit order that there is not", "takes it for the default", DAMAGED, lambda: qms(AMPLITUDES, state(qubit_order="middle"))),
    Case("a state of an unknown kind", "guesses from the arrays", LATER, lambda: qms(AMPLITUDES, state(kind="graph_state"))),
    Case("a state without a kind", "guesses from the arrays", DAMAGED, lambda: qms(AMPLITUDES, says(quantum_data={"$state": {"amplitudes": {"$array": "quantum/amplitudes"}}}))),
    Case("amplitudes without an axis", "takes the first of its shape", DAMAGED, lambda: qms(array("quantum/amplitudes", 1.0), HONEST)),
    Case("amplitudes that are integers", "computes a norm in 8 bits", DAMAGED, lambda: qms(array("quantum/amplitudes", np.ones(2, np.int8)), HONEST)),
    Case("a quantum part that is an array", "takes it for a state of an order nobody stated", DAMAGED,
         lambda: qms(AMPLITUDES, says(quantum_data={"$array": "quantum/amplitudes"}))),
    Case("a quantum part that is a list", "crashes", DAMAGED, lambda: qms(says(quantum_data=[]))),
    Case("amplitudes that only the metadata name", "describes a state that is not there", DAMAGED,
         lambda: qms(AMPLITUDES, says(quantum_data={"$state": 1}, metadata={"a": {"$array": "quantum/amplitudes"}}))),
    Case("a matrix that is not square", "reads past its rows", DAMAGED, lambda: matrix((2, 3))),
    Case("a matrix of the wrong size", "reads past its rows", DAMAGED, lambda: matrix((4, 4))),
    Case("a chain whose bonds do not match", "contracts what it can", DAMAGED, lambda: chain((1, 2, 3), (2, 2, 1))),
    Case("a chain with open ends", "sums over them", DAMAGED, lambda: chain((2, 2, 3), (3, 2, 1))),
    Case("a chain of no sites", "takes the product of nothing", DAMAGED, chain),
    Case("a chain of vectors", "crashes in the description", DAMAGED, lambda: chain((4,), (4,))),
    Case("a chain scaled by a number of 1600 bits", "overflows", DAMAGED, lambda: chain((1, 2, 1), log_scale={"$int": "f" * 400})),
    Case("a chain whose center is no site", "indexes the wrong one", DAMAGED,
         lambda: chain((1, 2, 1), canonical_form="mixed", orthogonality_center=-5)),
    Case("PAD values off their scale", "clips them", DAMAGED, lambda: emotion(pad={"$tuple": [2.0, 0.0, 0.0]})),
    Case("an emotion with fields that there are not", "sets them as attributes", DAMAGED, lambda: emotion(__class__="os")),
    Case("a trajectory that is text", "crashes", DAMAGED, lambda: emotion(trajectory="x")),
    # ---- other files
    Case("a state with a zip archive behind it", "is a state to one program and an archive to another", DAMAGED,
         lambda: qms(AMPLITUDES, HONEST) + zipped()),
    Case("a web page with a state behind it", "finds the state", DAMAGED, lambda: b"<html></html>" + qms(AMPLITUDES, HONEST)),
    Case("a git-LFS pointer", "says that the header is too large", DAMAGED,
         lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 12345\n"),
    Case("a web page", "says that the header is too large", DAMAGED, lambda: b"<!DOCTYPE html><html>404</html>" + b" " * 200),
    Case("an empty file", "takes it for an empty state", DAMAGED, lambda: b""),
    Case("one byte", "crashes", DAMAGED, lambda: b"\x89"),
    Case("a signature and no more", "crashes", DAMAGED, lambda: qms_layout.SIGNATURE),
    Case("a file that became UTF-16", "crashes", DAMAGED, lambda: qms(AMPLITUDES, HONEST).decode("latin-1").encode("utf-16")),
    Case("line ends changed to LF", "reads shifted data", DAMAGED, lambda: qms(AMPLITUDES, HONEST).replace(b"\r\n", b"\n")),
    Case("line ends changed to CR LF", "reads shifted data", DAMAGED, lambda: qms(AMPLITUDES, HONEST).replace(b"\n", b"\r\n")),
    Case("a pickle", "runs it", DAMAGED, lambda: PICKLE),
    Case("a pickle of the length of a state", "runs it", DAMAGED, lambda: PICKLE + bytes(300)),
]  # fmt: skip


def base(**more: Any) -> bytes:
    return json_file(metadata={"a": 1}, **more)


def unsealed(text: bytes) -> bytes:
    """Return what `seal` was given."""
    return text[: text.rindex(b',\n"sha256"')]


def with_array(**lies: Any) -> bytes:
    return json_file({"classical": json_array([1.0, 2.0], **lies)}, classical_data={"$array": "classical"})


def text_of(metadata: bytes) -> bytes:
    head = b'{"format":"quantum-memory","version":"2.0","content_id":"' + b"0" * 64 + b'","metadata":'
    return seal(head + metadata + b',"record":{},"arrays":{}')


JSON: list[Case] = [
    Case("text without its SHA-256", "believes it", DAMAGED, lambda: base()[:-80] + b"}", "json"),
    Case("text with something behind its SHA-256", "ignores it", DAMAGED, lambda: base() + b" ", "json"),
    Case("text whose line ends were changed", "believes it", DAMAGED, lambda: base().replace(b"\n", b"\r\n"), "json"),
    Case("a version from the future, in JSON", "reads it as today's", LATER, lambda: base(version="3.0"), "json"),
    Case("a version that is a list", "compares it", DAMAGED, lambda: base(version=[9]), "json"),
    Case("a format of another name", "reads it all the same", DAMAGED, lambda: base(format="weights"), "json"),
    Case("a content_id of another memory", "never compares it", DAMAGED, lambda: base(content_id="0" * 64), "json"),
    Case("a content_id that is a number", "crashes", DAMAGED, lambda: base(content_id=5), "json"),
    Case("a part that there is not, in JSON", "drops it when it saves again", DAMAGED, lambda: base(later=1), "json"),
    Case("a key twice, in JSON", "keeps the last", DAMAGED, lambda: text_of(b'{"a":1,"a":2}'), "json"),
    Case("NaN, in JSON", "reads it", DAMAGED, lambda: text_of(b'{"a":NaN}'), "json"),
    Case("1e400, in JSON", "makes infinity of it", DAMAGED, lambda: text_of(b'{"a":1e400}'), "json"),
    Case("100,000 levels of nesting, in JSON", "overflows the C stack", UNSAFE, lambda: text_of(deep(100_000)), "json"),
    Case("600 levels of nesting, in JSON", "recurses until Python stops it", UNSAFE, lambda: text_of(deep(600)), "json"),
    Case("8 MiB of [],", "makes 200 MiB of lists", UNSAFE, lambda: text_of(b"[" + b"[]," * ((8 << 20) // 3) + b"[]]"), "json"),
    Case("an array of an unknown dtype", "passes the name on to NumPy", DAMAGED, lambda: with_array(dtype="O"), "json"),
    Case("a dtype that is a list", "crashes on an unhashable key", DAMAGED, lambda: with_array(dtype=[]), "json"),
    Case("an array of another length than its shape", "reads past its end", DAMAGED, lambda: with_array(shape=[3]), "json"),
    Case("an array of 2**70 rows of nothing", "overflows", DAMAGED,
         lambda: json_file({"classical": json_array(np.zeros(0), shape=[1 << 70, 0])}, classical_data={"$array": "classical"}), "json"),
    Case("a negative shape", "lets NumPy guess", DAMAGED, lambda: with_array(shape=[-1]), "json"),
    Case("a shape of true and false", "takes them for numbers", DAMAGED, lambda: with_array(shape=[2, True]), "json"),
    Case("65 axes, in JSON", "crashes", DAMAGED, lambda: with_array(shape=[2] + [1] * 64), "json"),
    Case("a shape that is text", "crashes", DAMAGED, lambda: with_array(shape="2"), "json"),
    Case("data that are no base64", "skips what it does not know", DAMAGED, lambda: with_array(data="AAAA!AAA"), "json"),
    Case("data that are a number", "crashes", DAMAGED, lambda: with_array(data=5), "json"),
    Case("a SHA-256 of another array", "never compares it", DAMAGED, lambda: with_array(sha256="0" * 64), "json"),
    Case("an array with a word too many", "drops it when it saves again", DAMAGED, lambda: with_array(more=1), "json"),
    Case("an array that is a list", "crashes", DAMAGED, lambda: json_file({"classical": [1]}, classical_data=1), "json"),
    Case("an array that the document does not name, in JSON", "drops it when it saves again", DAMAGED,
         lambda: json_file({"classical/hidden": json_array([1.0])}, classical_data=1), "json"),
    Case("arrays that are a list", "crashes", DAMAGED, lambda: seal(unsealed(base()).replace(b'"arrays": {}', b'"arrays": []')), "json"),
    Case("an array that is not there, in JSON", "crashes halfway", DAMAGED, lambda: json_file(classical_data={"$array": "x"}), "json"),
    Case("an unknown marker, in JSON", "imports the class of that name", LATER, lambda: json_file(classical_data={"$py/object": "os.system"}), "json"),
    Case("a scalar of objects, in JSON", "takes eight bytes for a pointer", DAMAGED,
         lambda: json_file(classical_data={"$scalar": ["|O", "AAAAAAAAAAA="]}), "json"),
    Case("half a state of the first implementation", "reads half of it", DAMAGED, lambda: b'{"interface_config": {}, "meas', "json"),
    Case("JSON that is no memory", "takes it for an empty state", DAMAGED, lambda: b'{"a": 1}', "json"),
    Case("JSON that is a list", "crashes", DAMAGED, lambda: seal(b'["format"'), "json"),
    Case("a git-LFS pointer, for JSON", "says that the JSON is bad", DAMAGED, lambda: b"version https://git-lfs.github.com/spec/v1\n", "json"),
    Case("a web page, for JSON", "says that the JSON is bad", DAMAGED, lambda: b"<html>404</html>", "json"),
    Case("an empty file, for JSON", "takes it for an empty state", DAMAGED, lambda: b"", "json"),
    Case("JSON in UTF-16", "guesses an encoding", DAMAGED, lambda: base().decode().encode("utf-16"), "json"),
    Case("JSON behind a byte order mark", "skips it", DAMAGED, lambda: b"\xef\xbb\xbf" + base(), "json"),
    # ---- with zlib
    Case("a zlib header of 2 GiB", "allocates it", DAMAGED, lambda: struct.pack("<I", 0x00FFFFFF) + bytes(100), "json.zlib"),
    Case("a zlib header that is no JSON", "crashes", DAMAGED, lambda: struct.pack("<I", 4) + b"[[[[" + bytes(9), "json.zlib"),
    Case("a zlib header that is nested deeply", "overflows the C stack", DAMAGED, lambda: struct.pack("<I", 1000) + b"[" * 1000 + bytes(9), "json.zlib"),
    Case("text that is said to have 2**60 bytes", "allocates them", UNSAFE, lambda: zlib_file(base(), size=1 << 60), "json.zlib"),
    Case("text that is said to have -1 bytes", "takes it for no limit", DAMAGED, lambda: zlib_file(base(), size=-1), "json.zlib"),
    Case("text that is longer than is said", "decodes 512 MiB", DAMAGED,
         lambda: zlib_file(base(), stream=zlib.compress(bytes(512 << 20), 9)), "json.zlib"),
    Case("text that is shorter than is said", "keeps room for 3 MiB", DAMAGED, lambda: zlib_file(base(), size=3 << 20), "json.zlib"),
    Case("a zlib header with other figures", "never compares them", DAMAGED, lambda: zlib_file(base(), compressed_size=5), "json.zlib"),
    Case("a zlib header without a SHA-256", "believes it", DAMAGED,
         lambda: b"\x26\0\0\0" + b'{"original_size": 2, "version": "1.0"}' + zlib.compress(b"{}"), "json.zlib"),
    Case("bytes behind the zlib stream", "ignores them", DAMAGED, lambda: zlib_file(base(), stream=zlib.compress(base()) + b"x"), "json.zlib"),
    Case("a stream that is not zlib's", "guesses which it is", DAMAGED, lambda: zlib_file(base(), stream=zlib.compress(base())[2:]), "json.zlib"),
    Case("16 MiB of [, with zlib", "parses them", UNSAFE, lambda: zlib_file(text_of(b"[" * (16 << 20))), "json.zlib"),
    Case("12 MiB of [], with zlib", "makes 300 MiB of lists", UNSAFE,
         lambda: zlib_file(text_of(b"[" + b"[]," * (4 << 20) + b"[]]")), "json.zlib"),
    Case("blanks and {\"\":0}, with zlib", "lets blanks, which cost nothing, pay for dicts", UNSAFE,
         lambda: zlib_file(text_of(b"[" + b'{"":0},' * 150_000 + b" " * (1 << 20) + b"0]")), "json.zlib"),
    Case("16 MiB of blanks, with zlib", "holds them three times", UNSAFE,
         lambda: zlib_file(text_of(b"{" + b" " * (15 << 20) + b"}")), "json.zlib"),
]  # fmt: skip


def fifo(path: Path) -> None:
    os.mkfifo(path)


SPECIAL: list[Case] = [
    Case("a pipe", "waits for somebody to write", UNSAFE, fifo, at_path=True),
    Case("a folder", "crashes", UNSAFE, Path.mkdir, at_path=True),
    Case("a link to /dev/zero", "reads until memory is full", UNSAFE, lambda path: path.symlink_to("/dev/zero"), at_path=True),
    Case("a link to /dev/tty or /dev/null", "waits, or takes it for an empty state", UNSAFE, lambda path: path.symlink_to("/dev/null"), at_path=True),
    Case("a link to itself", "follows it", "StorageError", lambda path: path.symlink_to(path), at_path=True),
    Case("a link to nothing", "creates it", "MissingFileError", lambda path: path.symlink_to(path.parent / "nowhere.qms"), at_path=True),
]  # fmt: skip


def at_link(name: str) -> Callable[[Path], None]:
    """Return what makes a whole file, and a link to it."""

    def make(path: Path) -> None:
        (path.parent / name).write_bytes(qms(AMPLITUDES, HONEST))
        path.symlink_to(name)

    return make


STRANGE: list[Case] = [
    Case("a whole file under the name of another format", "goes by the name", READ, lambda: qms(AMPLITUDES, HONEST), "json"),
    Case("a store under the name of an archive", "goes by the name", READ, whole, "npz"),
    Case("a whole file behind a link", "goes by the link", READ, at_link("whole"), at_path=True),
    Case("a git-LFS pointer, for HDF5", "says that the HDF5 is bad", DAMAGED, lambda: LFS, "h5"),
    Case("a git-LFS pointer, for an archive", "says that the archive is bad", DAMAGED, lambda: LFS, "npz"),
    Case("a web page, for MessagePack", "says that the MessagePack is bad", DAMAGED, lambda: b"<!DOCTYPE html>" + bytes(100), "msgpack"),
    Case("a web page, for a pickle", "says that the pickle is bad", DAMAGED, lambda: b"<html>" + bytes(100), "pkl", "state with pickles"),
    Case("an empty file, for HDF5", "takes it for an empty store", DAMAGED, lambda: b"", "h5"),
    Case("a shell script", "runs it", DAMAGED, lambda: b"#!/bin/sh\ntouch hurt\n", "npz"),
    Case("a zip archive with a link in it", "makes the link", DAMAGED, zipped_link, "npz"),
    Case("a .npy of 10 GB", "allocates it", DAMAGED, lambda: npy_of(10**10 // 8), "npz"),
    Case("a .npy of objects", "unpickles it", DAMAGED, lambda: npy_of(1, "|O"), "npz"),
]  # fmt: skip

CORPUS: list[Case] = [
    *QMS, *JSON, *SPECIAL, *TREES, *BASE64, *PICKLES, *ARCHIVES, *STORES, *LOCKED, *FOLDERS, *STRANGE,
]  # fmt: skip
