"""Files that were written before are read bit for bit, and what is written for them does not change unnoticed."""

import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest

import quantum_memory as qm
from quantum_memory.formats.binary_format import BinaryFormatHandler
from quantum_memory.formats.json_format import to_text
from quantum_memory.formats.prepared import Prepared
from quantum_memory.testing.equality import assert_identical

HERE = Path(__file__).parent / "golden"
spec = importlib.util.spec_from_file_location("golden", HERE / "make.py")
golden = importlib.util.module_from_spec(spec)
spec.loader.exec_module(golden)
MEMORIES = golden.memories()
FILES = sorted(path.name for path in HERE.glob("*.v*"))


def test_they_are_there():
    assert len(FILES) == 3 * len(MEMORIES) + 3


@pytest.mark.parametrize("name", [name for name in FILES if not name.startswith("zeros")])
def test_a_golden_file_is_read_bit_for_bit(name):
    memory = qm.load(HERE / name, **({"verify": "full"} if name.endswith(".qms") else {}))
    expected = MEMORIES[name.split(".")[0]]
    assert_identical(memory, expected)
    assert memory.content_id == expected.content_id == qm.verify(HERE / name).content_id


@pytest.mark.parametrize("codec", ["zlib", "lz4", "zstd"])
def test_every_codec_is_read(codec):
    path = HERE / f"zeros-{codec}.v2.qms"
    assert qm.info(path)["compression"]["codecs"] == [codec]
    assert qm.load(path).classical.tobytes() == np.zeros(1000).tobytes()


@pytest.mark.parametrize("name", MEMORIES)
def test_what_is_written_has_not_changed(name, monkeypatch):
    # The name of the release stands in the record; let it be that of the file.
    kept = (HERE / f"{name}.v2.qms").read_bytes()
    release = re.search(rb"quantum-memory (\d[\w.]*)", kept)[1].decode()
    monkeypatch.setattr("quantum_memory.formats.record.__version__", release)
    assert BinaryFormatHandler("none").to_bytes(MEMORIES[name]) == kept
    text = (HERE / f"{name}.v2.0.json").read_bytes()
    assert to_text(Prepared.plain(MEMORIES[name]))[0] == text
