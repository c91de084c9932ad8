"""Inputs of the readers of states, and these: files of all formats, of which something was changed, and mended."""

import io
import json
import struct
import zlib
from contextlib import closing
from typing import Any

import numpy as np

import quantum_memory as qm
from quantum_memory.compression.codecs import codec_named
from quantum_memory.durability.files import ReadableBytes
from quantum_memory.encoding.pad_encoding import PADEncoding
from quantum_memory.formats import qms_layout
from quantum_memory.formats.form_nodes import Forms
from quantum_memory.formats.legacy import read as read_legacy
from quantum_memory.formats.prepared import Prepared
from quantum_memory.formats.qms_reader import QMSReader
from quantum_memory.formats.reader import WholeReader, read_memory
from quantum_memory.formats.registry import OpenOptions, SaveOptions, format_named
from quantum_memory.formats.verify import _verify
from quantum_memory.state.document import well_formed
from quantum_memory.state.json_text import parts_of_document
from quantum_memory.testing.fuzzing import Mutator

from ..hostile import forge
from .goldens import HERE
from .inputs import NAME, changed_text, golden, sha, source, text_of

LEGACY = HERE.parent / "data" / "legacy"
OPTIONS = OpenOptions(max_bytes=1 << 24, allow_pickle=True)

# ---- chunks

RAW = np.arange(90, dtype="<f8").tobytes() + bytes(400) + b"some text, some text"
CODECS = [codec_named(name) for name in ("zlib", "lz4", "zstd")]
CODECS += [codec_named("pcodec", np.dtype(kind)) for kind in ("f8", "u2")]
CHUNKS = [bytes(codec.encode(RAW[:1120])) for codec in CODECS]


def made_chunk(mutator: Mutator) -> bytes:
    """Return which codec it is, how long it says that it is, and what is packed."""
    number = mutator.below(len(CODECS))
    length = 1120 if mutator.below(4) else mutator.below(1 << 16)
    return struct.pack("<BH", number, length) + mutator.data(CHUNKS[number], mutator.pick(CHUNKS))


def read_chunk(data: bytes) -> None:
    number, length = struct.unpack_from("<BH", data)
    assert len(CODECS[number].decode(data[3:], length)) == length


# ---- documents: what the formats have in common

EVERYTHING = qm.MemoryState.from_dict(
    {
        "quantum_data": qm.StateVector(np.ones(2) / np.sqrt(2), qubit_order="little", labels=["a"]),
        "classical_data": {
            "w": np.arange(3),
            "plain": [1, None, True, "x", -0.5, (1, 2), 3j, b"bytes", {1: 2, (1, None): "b"}, 1 << 70, float("nan")],
            "odd": [np.float32(1), np.datetime64("2026-01-01"), np.array(["ab"]), np.array(1 + 1j)],
        },
        "emotional_context": {"pad_values": [0.1, -0.2, 0.3]},
        "metadata": {"run": "a", "nested": {"a": {"b": [{}]}}},
    }
)
CHAIN = qm.MemoryState(qm.MatrixProductState([np.ones((1, 2, 2)), np.ones((2, 2, 1))], log_scale=-0.5))
DENSITY = qm.MemoryState(qm.DensityMatrix(np.eye(2) / 2, qubit_order="big"))
MEMORIES = (EVERYTHING, CHAIN, DENSITY)
DOCUMENTS = [(memory.flatten()[0], memory.flatten()[1]) for memory in MEMORIES]
ARRAYS = {path: array for _, arrays in DOCUMENTS for path, array in arrays.items()}


def made_document(mutator: Mutator) -> bytes:
    document, _ = mutator.pick(DOCUMENTS)
    return changed_text(mutator, text_of({"document": document, "record": {"norm": 1.0}}))


def read_document(data: bytes) -> None:
    """Read a text as the formats do, with the arrays that it names."""
    with well_formed(NAME):
        document, record, packed = parts_of_document(data, len(data))
        paths = Forms.from_json(packed, {}).stored_paths(document)
        arrays = {path: ARRAYS[path] for path in paths if path in ARRAYS}
        read_memory(WholeReader("json", "2.0", NAME, len(data), document, record, arrays, packed=packed))


# ---- QMS


def split_qms(data: bytes) -> tuple[bytes, bytes, bytes]:
    offset = int.from_bytes(data[-48:-40], "little")
    return data[:64], data[:offset], data[offset:-64]


def made_table(mutator: Mutator) -> bytes:
    """Return a QMS file with a table, a header or a trailer that was changed, and digests that are right."""
    head, body, table = split_qms(mutator.pick(QMS_FILES))
    match mutator.below(8):
        case 0:
            facts = mutator.data(head[8:56])[:48].ljust(48, b"\0")
            head = head[:8] + facts + struct.pack("<Q", qms_layout.checksum(head[:8] + facts))
            body = head + body[64:]
        case 1:
            return forge.sealed(head, body, table, length=mutator.below(4096), table_offset=mutator.below(4096))
        case _:
            table = mutator.data(table, mutator.pick(TABLES))
    return forge.sealed(head, body, table)


QMS_FILES = [*golden("qms").values(), *golden("forms").values()]
TABLES = [split_qms(data)[2] for data in QMS_FILES]


def taken_apart(data: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the arrays that a QMS file stores, and what its document says."""
    reader = QMSReader(source(data))
    said = {"document": reader.document, "record": reader.record}
    forms = {"forms": reader.forms.to_json()} if reader.forms.nodes else {}
    return {path: reader.read(path) for path in reader.entries}, said | forms


APART = [taken_apart(data) for data in QMS_FILES if len(data) < 1500]


def made_qms(mutator: Mutator) -> bytes:
    """Return a whole file, of which an array or the document was changed, and every checksum is right."""
    arrays, said = mutator.pick(APART)
    changed = mutator.pick([*arrays, "document"])
    parts = []
    for path, values in arrays.items():
        if path != changed:
            parts.append(forge.array(path, values))
        elif mutator.below(4):
            raw = mutator.data(values.tobytes())[: values.nbytes].ljust(values.nbytes, b"\0")
            parts.append(forge.array(path, np.frombuffer(raw, values.dtype).reshape(values.shape)))
        else:
            parts.append(forge.array(path, np.resize(values, mutator.below(2 * values.size + 1))))
    text = changed_text(mutator, text_of(said)) if changed == "document" else text_of(said)
    return forge.qms(*parts, forge.document(text))


def read_as(suffix: str, data: bytes) -> None:
    """Load and verify it."""
    handler = format_named(suffix).handler
    with closing(handler.open(source(data), OPTIONS)) as reader:
        if data[-1] & 1:
            _verify(reader, None)
        else:
            read_memory(reader)


# ---- text, trees and archives


SMALL = qm.MemoryState(classical={"w": np.arange(3), "n": np.ones((1, 2))})


def written(suffix: str, compression: str = "auto") -> list[bytes]:
    made = []
    for memory in (SMALL, CHAIN, DENSITY):
        sink = io.BytesIO()
        format_named(suffix).handler.write(sink, Prepared.plain(memory), SaveOptions(compression))
        made.append(sink.getvalue())
    return made


FILES = {suffix: written(suffix) for suffix in ("json", "json.zlib", "msgpack", "pkl", "npz")}
FILES["npz"] += written("npz", "zlib")
TEXTS = [json.loads(text) for text in FILES["json"]]


def made_json(mutator: Mutator) -> bytes:
    parts = {name: part for name, part in mutator.pick(TEXTS).items() if name != "sha256"}
    changed = mutator.json(parts)
    if not isinstance(changed, dict):
        return forge.seal(text_of(changed)[:-1])
    if mutator.below(3):  # so that what it says is looked at, and not only its name
        arrays = changed.pop("arrays", None)
        changed = {name: part for name, part in changed.items() if name != "content_id"}
        return forge.json_file(arrays, **{name: part for name, part in changed.items() if name.isidentifier()})
    return forge.seal(text_of(changed)[:-1])


def made_packed_json(mutator: Mutator) -> bytes:
    match mutator.below(4):
        case 0:
            return mutator.data(mutator.pick(FILES["json.zlib"]))
        case 1:
            return forge.zlib_file(made_json(mutator), **{mutator.pick(ZLIB_FACTS): mutator.json(0)})
        case 2:
            text = mutator.pick(FILES["json"])
            return forge.zlib_file(text, stream=mutator.data(zlib.compress(text)))
        case _:
            return forge.zlib_file(made_json(mutator))


ZLIB_FACTS = ("compressed_size", "compression_ratio", "version", "sha256")


def made_tree(suffix: str, mutator: Mutator) -> bytes:
    """Return MessagePack or a pickle, sealed."""
    body = mutator.pick(FILES[suffix])[:-32]
    body = mutator.data(body, mutator.pick(FILES[suffix]))
    return body + sha(body)


def made_archive(mutator: Mutator) -> bytes:
    """Return an archive of NumPy, sealed, in which the checksums of the members are wrong where these were changed."""
    body = mutator.data(mutator.pick(FILES["npz"])[:-71])
    return body + b"sha256:" + sha(body).hex().encode()


# ---- what the first implementation wrote, and descriptions

OLD = [
    path
    for path in sorted(LEGACY.rglob("*"))
    if path.is_file() and path.suffix not in {".h5", ".npy"} and path.stat().st_size < 2500
]
OLD_DATA = [path.read_bytes() for path in OLD]


def made_old(mutator: Mutator) -> bytes:
    number = mutator.below(len(OLD))
    data = OLD_DATA[number]
    if data.startswith(b"{") and mutator.below(3):
        try:
            return bytes([number]) + text_of(mutator.json(json.loads(data)))
        except ValueError:  # one that is damaged
            pass
    return bytes([number]) + mutator.data(data, mutator.pick(OLD_DATA))


def read_old(data: bytes) -> None:
    read_legacy(ReadableBytes(data[1:], OLD[data[0]].name), allow_pickle=True, max_bytes=1 << 24)


DESCRIPTION = PADEncoding(6).to_json()


def made_description(mutator: Mutator) -> bytes:
    return text_of(mutator.json(DESCRIPTION))


def read_description(data: bytes) -> None:
    said = json.loads(data)
    if isinstance(said, dict):
        PADEncoding.from_json(said)
