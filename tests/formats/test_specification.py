"""The decoder that the specification prints reads the files that the package writes."""

import hashlib
import json
import re
import sys
import types
from pathlib import Path

import numpy as np
import pytest

import quantum_memory as qm
from quantum_memory.compression.codecs import zstandard
from quantum_memory.state.document import state_from_node

PAGE = Path(__file__).parents[2] / "docs" / "qms_format.md"


@pytest.fixture
def read_qms(monkeypatch):
    """The decoder, as it stands on the page; zstd comes from the backport where Python has none of its own."""
    package, module = types.ModuleType("compression"), types.ModuleType("compression.zstd")
    module.decompress = zstandard._zstd().decompress
    package.zstd = module
    monkeypatch.setitem(sys.modules, "compression", package)
    monkeypatch.setitem(sys.modules, "compression.zstd", module)
    code = re.search(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)[1]
    assert len(code.splitlines()) < 110
    imported = set(re.findall(r"^import (.+)$", code, re.MULTILINE))
    assert imported == {"hashlib, json, math, struct, zlib", "numpy as np"}
    space = {}
    exec(compile(code, str(PAGE), "exec"), space)  # it is our own page
    return space["read_qms"]


@pytest.fixture
def memory():
    rng = np.random.default_rng(0)
    state = qm.StateVector(rng.standard_normal(32) + 1j * rng.standard_normal(32), qubit_order="little")
    tree = {
        "flat": np.repeat(np.arange(300_001), 3),  # more than one chunk, compressible, not a multiple of anything
        "noise": rng.integers(0, 256, 1_200_000, dtype=np.uint8),
        "short": np.array(7.5),
        "none": np.empty((0, 3), np.int16),
    }
    return qm.MemoryState(state, tree, metadata={"who": "m"})


@pytest.mark.parametrize("compression", ["none", "zlib", "lz4", "zstd", "auto"])
def test_the_decoder_of_the_page_reads_every_codec(read_qms, memory, compression, tmp_path):
    path = tmp_path / "m.qms"
    qm.save(memory, path, compression=compression)
    document, record, arrays = read_qms(path.read_bytes())
    assert document["metadata"] == {"who": "m"}
    assert record["writer"].startswith("quantum-memory ")
    assert set(arrays) == set(memory.flatten().arrays)
    for name, array in memory.flatten().arrays.items():
        assert arrays[name].dtype == array.dtype
        assert arrays[name].tobytes() == array.tobytes()
        assert arrays[name].shape == array.shape
    node = document["quantum_data"]["$state"]
    assert state_from_node(node, lambda named: arrays[named["$array"]]) == memory.quantum


def test_the_decoder_of_the_page_notices_damage(read_qms, memory, tmp_path):
    path = tmp_path / "m.qms"
    qm.save(memory, path, compression="none")
    whole = path.read_bytes()
    for position in (3, 70, 900_000, len(whole) - 300, len(whole) - 1):
        damaged = bytearray(whole)
        damaged[position] ^= 1
        with pytest.raises(AssertionError):
            read_qms(bytes(damaged))
    with pytest.raises(AssertionError):
        read_qms(whole[:-1])


def test_the_content_id_follows_from_the_page_alone(read_qms, tmp_path):
    def digest(array):
        data = array.tobytes()
        chunks = [hashlib.sha256(data[start : start + 2**20]).digest() for start in range(0, len(data), 2**20)]
        return chunks[0] if len(chunks) == 1 else hashlib.sha256(b"".join(chunks)).digest()

    def canonical(node):
        return json.dumps(node, sort_keys=True, separators=(",", ":"))

    def sorted_pairs(node):
        if isinstance(node, list):
            return [sorted_pairs(item) for item in node]
        if not isinstance(node, dict):
            return node
        made = {key: sorted_pairs(item) for key, item in node.items()}
        if "$dict" in made:
            made["$dict"] = sorted(made["$dict"], key=lambda pair: canonical(pair[0]))
        return made

    names = {np.dtype(code): name for code, name in (("<i8", "i64"), ("<f8", "f64"), ("u1", "u8"), ("<c16", "c128"))}
    tree = {2: "b", 1: np.arange(200_000), "c": [1e22, 1e-7, -0.0, (2**70, None)], "empty": np.empty((0, 2), np.uint8)}
    memory = qm.MemoryState(np.ones(4) / 2, tree, {"pad": [0.1, 0.2, 0.3]}, {"ü": True})
    path = tmp_path / "m.qms"
    saved = qm.save(memory, path)
    document, _, arrays = read_qms(path.read_bytes())
    listed = {name: [names[a.dtype], list(a.shape), digest(a).hex()] for name, a in arrays.items()}
    text = canonical(sorted_pairs({"arrays": listed, "document": document}))
    assert hashlib.sha256(text.encode("ascii")).hexdigest() == saved.content_id == memory.content_id
