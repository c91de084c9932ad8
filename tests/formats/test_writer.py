"""The writer refuses what the reader would."""

import io

import numpy as np
import pytest

import quantum_memory as qm
from quantum_memory.compression.codecs import NONE
from quantum_memory.formats.qms_layout import CLASSICAL, METADATA
from quantum_memory.formats.qms_writer import QMSWriter


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
