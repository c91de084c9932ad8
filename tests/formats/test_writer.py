"""The writer refuses what the reader would, and what it writes is whole whatever happens meanwhile."""

import io

import numpy as np
import pytest

import quantum_memory as qm
from quantum_memory.compression.codecs import NONE
from quantum_memory.durability.files import ReadableBytes
from quantum_memory.formats import json_format
from quantum_memory.formats.binary_format import write_memory
from quantum_memory.formats.prepared import Prepared
from quantum_memory.formats.qms_layout import CLASSICAL, METADATA
from quantum_memory.formats.qms_reader import QMSReader
from quantum_memory.formats.qms_writer import QMSWriter
from quantum_memory.formats.reader import read_memory


@pytest.mark.parametrize(
    ("section", "name"),
    [(CLASSICAL, "classical/a\u202eb"), (CLASSICAL, "classical/a\0"), (CLASSICAL, "metadata/a"), (CLASSICAL, ""),
     (METADATA, "metadata/" + "n" * 1020), (CLASSICAL, "classical/a"), (CLASSICAL, "classical/Z"), (77, "later")],
    ids=ascii,
)  # fmt: skip
def test_entries_that_no_reader_takes_are_not_written(section, name):
    with QMSWriter(io.BytesIO()) as writer:
        writer.add(CLASSICAL, "classical/a", np.ones(1), NONE)
        with pytest.raises(qm.InvalidStateError):
            writer.add(section, name, np.ones(1), NONE)


def test_an_array_that_changes_during_the_save_still_makes_a_whole_file():
    array = np.arange(300_000.0)  # three chunks

    class Meddling(io.BytesIO):
        def write(self, data):
            array[:] += 1.0  # as another thread would
            return super().write(data)

    for compression in ("none", "zstd"):
        sink = Meddling()
        write_memory(sink, Prepared.plain(qm.MemoryState(classical={"a": array})), compression)
        reader = QMSReader(ReadableBytes(sink.getvalue()))
        assert read_memory(reader, verify="full").classical["a"].shape == array.shape


def test_the_same_for_json(monkeypatch):
    array = np.arange(10.0)
    identify = json_format.identify

    def meddling(arrays):
        identities = identify(arrays)
        array[:] += 1.0
        return identities

    monkeypatch.setattr(json_format, "identify", meddling)
    text, _ = json_format.to_text(Prepared.plain(qm.MemoryState(classical={"a": array})))
    monkeypatch.undo()
    assert json_format.from_text(text).classical["a"].tolist() == list(range(10))
