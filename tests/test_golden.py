"""Files that were written before are read bit for bit, and what is written for them does not change unnoticed."""

import importlib.util
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest

import quantum_memory as qm
from quantum_memory.compression.forms.registry import FORMS
from quantum_memory.formats.prepared import Prepared
from quantum_memory.formats.registry import FORMATS, SaveOptions, format_of_suffix
from quantum_memory.lifecycle.steps import STEPS
from quantum_memory.testing.equality import assert_identical

HERE = Path(__file__).parent / "golden"
spec = importlib.util.spec_from_file_location("golden", HERE / "make.py")
golden = importlib.util.module_from_spec(spec)
spec.loader.exec_module(golden)
MEMORIES, STATES, MIGRATIONS = golden.memories(), golden.states(), golden.migrations()
FILES = sorted(path.name for path in HERE.glob("*.v*"))
IN_FORMS = sorted(path.name for path in golden.FORMS.glob("*.v*"))
# The bytes of zlib streams and of HDF5 belong to those libraries.
WRITTEN = [suffix for suffix in golden.SUFFIXES if not suffix.endswith(("zlib", "h5"))]


def test_they_are_there():
    assert (
        sorted(
            [f"{name}.{suffix}" for name in MEMORIES for suffix in golden.SUFFIXES]
            + [f"zeros-{codec}.v2.qms" for codec in golden.CODECS]
        )
        == FILES
    )
    assert {name for one in FORMATS for name in FILES if name.endswith(f".{one.name}")} == set(FILES)
    assert len(golden.SUFFIXES) == len(FORMATS)


def test_every_form_is_there():
    lossy = {"mps", "natural_basis", "uniform", "trellis", "low_rank_density"}
    assert set(STATES) == set(FORMS) | lossy
    assert {name.split(".")[0] for name in IN_FORMS} == set(STATES)
    assert len(IN_FORMS) == len(STATES) + 2 * (len(golden.SUFFIXES) - 1)


@pytest.mark.parametrize("name", [name for name in FILES if not name.startswith("zeros")])
def test_a_golden_file_is_read_bit_for_bit(name):
    memory = qm.load(HERE / name, verify="full", allow_pickle=True)
    expected = MEMORIES[name.split(".")[0]]
    assert_identical(memory, expected)
    assert memory.content_id == expected.content_id == qm.verify(HERE / name, allow_pickle=True).content_id


@pytest.mark.parametrize("codec", golden.CODECS)
def test_every_codec_is_read(codec):
    path = HERE / f"zeros-{codec}.v2.qms"
    assert qm.info(path)["compression"]["codecs"] == [codec]
    assert qm.load(path).classical.tobytes() == np.zeros(1000).tobytes()


@pytest.mark.parametrize("suffix", WRITTEN)
@pytest.mark.parametrize("name", MEMORIES)
def test_what_is_written_has_not_changed(name, suffix, monkeypatch):
    path = HERE / f"{name}.{suffix}"
    # The name of the release stands in the record; let it be that of the file.
    release = re.search(rb"quantum-memory (\d[\w.]*)", (HERE / f"{name}.v2.qms").read_bytes())[1].decode()
    monkeypatch.setattr("quantum_memory.formats.record.__version__", release)
    sink = io.BytesIO()
    format_of_suffix(path).handler.write(sink, Prepared.plain(MEMORIES[name]), SaveOptions("none"))
    assert sink.getvalue() == path.read_bytes()


@pytest.mark.parametrize("name", IN_FORMS)
def test_a_state_in_a_form_is_read(name):
    path = golden.FORMS / name
    form = name.split(".")[0]
    state = STATES[form][0]
    described = qm.info(path, allow_pickle=True)["compression"]
    assert described["representation"] == form
    # What gives the same bits on every machine is compared with its SHA-256 here.
    memory = qm.load(path, verify="full", allow_pickle=True)
    saved = qm.verify(path, allow_pickle=True)
    assert (memory.content_id == saved.content_id) == (form not in {"mps", "low_rank_density"})
    if form in FORMS:
        assert_identical(memory, qm.MemoryState(state))
    else:
        report = qm.verify_certificate(path, state, allow_pickle=True)
        assert 0 < report.measured <= report.infidelity == described["certificate"]["infidelity"]


def test_every_step_is_there():
    manager = qm.VersionManager()
    kept = {(manager.get_version(document), target) for document, target in MIGRATIONS.values()}
    assert kept == {(step.source, step.target) for step in STEPS}


@pytest.mark.parametrize("name", MIGRATIONS)
def test_what_becomes_of_a_document_has_not_changed(name, monkeypatch):
    source, kept = (json.loads((golden.MIGRATIONS / f"{name}.{end}.json").read_text()) for end in ("input", "output"))
    document, target = MIGRATIONS[name]
    assert json.dumps(source) == json.dumps(document)
    release = kept["metadata"]["migration_info"]["migrated_by"].split()[-1]
    monkeypatch.setattr("quantum_memory.lifecycle.version_manager.__version__", release)
    migrated = qm.VersionManager().migrate(source, target, when=golden.WHEN)
    assert json.dumps(migrated) == json.dumps(kept)  # to the bit, and in this order
    assert not qm.VersionManager().validate_migration(source, kept).unexplained
