"""A QMS file with a codec that a later release has added: what it holds is listed, and what can be read is."""

import json

import numpy as np
import pytest

import quantum_memory as qm
from quantum_memory.cli.main import run
from quantum_memory.compression.codecs import lz4_block
from quantum_memory.errors import UPGRADE, IntegrityError, UnsupportedVersionError
from quantum_memory.state.arrays import CHUNK_BYTES

LATER = 200
RNG = np.random.default_rng(5)
PLAIN = RNG.normal(size=100)
PACKED = np.zeros(CHUNK_BYTES // 8 + 100)


@pytest.fixture
def path(tmp_path, monkeypatch):
    """Save a file of two arrays, one of which is written as a later release would."""
    path = tmp_path / "state.qms"
    with monkeypatch.context() as patch:
        patch.setattr(lz4_block.LZ4, "id", LATER)
        qm.save(qm.MemoryState(classical={"packed": PACKED, "plain": PLAIN}), path, compression="lz4")
    return path


def test_it_is_listed(path, capsys):
    facts = {section["path"]: section for section in qm.info(path)["sections"]}
    assert facts["classical/packed"]["codecs"] == [f"unknown codec {LATER}"]
    assert facts["classical/plain"]["codecs"] == ["none"]
    assert facts["classical/packed"]["shape"] == [len(PACKED)]
    assert run(["info", str(path)]) == 0
    assert f"unknown codec {LATER}" in capsys.readouterr().out


def test_what_needs_no_such_codec_is_read(path):
    with qm.open(path) as file:
        assert sorted(file.arrays) == ["classical/packed", "classical/plain"]
        assert (np.asarray(file.arrays["classical/plain"]) == PLAIN).all()
        with pytest.raises(UnsupportedVersionError, match=r"'classical/packed' cannot be read.* codec 200") as caught:
            np.asarray(file.arrays["classical/packed"])
    assert (caught.value.path, caught.value.next_step) == (str(path), UPGRADE)
    with pytest.raises(UnsupportedVersionError, match="codec 200"):
        qm.load(path)


def test_verify_says_what_it_could_not_check(path, capsys):
    done = []
    with pytest.raises(UnsupportedVersionError) as caught:
        qm.verify(path, progress=done.append)
    assert "1 of its arrays could not be checked: 'classical/packed'" in caught.value.message
    assert "'classical/plain'" not in caught.value.message
    assert (caught.value.path, caught.value.next_step) == (str(path), UPGRADE)
    with qm.open(path) as file:
        assert sum(done) >= sum(array.nbytes for array in file.arrays.values())
    assert run(["verify", "--json", str(path)]) == 5
    assert json.loads(capsys.readouterr().out)["error"]["exit_code"] == 5


@pytest.mark.parametrize("name", ["packed", "plain"])
def test_damage_is_found_before_that_is_said(path, name):
    data = bytearray(path.read_bytes())
    where = data.find(PLAIN.tobytes())
    assert where > 64
    data[where if name == "plain" else 64 + 10] ^= 1  # the packed one comes first
    path.write_bytes(data)
    with pytest.raises(IntegrityError, match=f"'classical/{name}' is damaged in chunk 0"):
        qm.verify(path)


def test_a_document_in_such_a_codec_is_refused_as_too_new(tmp_path, monkeypatch):
    from quantum_memory.compression.codecs import ZLIB_JSON

    path = tmp_path / "state.qms"
    with monkeypatch.context() as patch:
        patch.setattr(type(ZLIB_JSON), "id", LATER)
        qm.save({"metadata": {str(number): "the same again" for number in range(100)}}, path)
    with pytest.raises(UnsupportedVersionError, match=r"'document' cannot be read.* codec 200"):
        qm.info(path)
