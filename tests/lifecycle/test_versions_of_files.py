"""A file of a newer version is told from a damaged one, in every format."""

import struct

import pytest

import quantum_memory as qm
from quantum_memory.errors import UnsupportedVersionError
from quantum_memory.formats import hdf5_store, json_format, npz_format, qms_layout, seal, tree_file
from quantum_memory.testing.examples import small_memory

MODULES = (seal, json_format, tree_file, npz_format, hdf5_store)
"""Those that write the version of a file."""


def save_as(version, path, monkeypatch):
    """Write a file as a release of a later version would that changes nothing else."""
    with monkeypatch.context() as patch:
        for module in MODULES:
            patch.setattr(module, "VERSION", version)
        number = int(version.partition(".")[0])
        patch.setattr(qms_layout, "VERSION", number)
        patch.setattr(qms_layout, "MINIMUM_READER", number)
        qm.save(small_memory(), path)
        assert qm.load(path, allow_pickle=True) == small_memory()


@pytest.mark.parametrize("suffix", ["qms", "h5", "json", "json.zlib", "msgpack", "npz", "pkl", "b64"])
@pytest.mark.parametrize("read", [qm.load, qm.verify, qm.info, qm.open], ids=lambda read: read.__name__)
def test_a_newer_file_gets_a_plain_sentence(tmp_path, monkeypatch, suffix, read):
    path = tmp_path / f"state.{suffix}"
    save_as("3.0", path, monkeypatch)
    with pytest.raises(UnsupportedVersionError, match="version 3") as caught:
        read(path, allow_pickle=True)
    assert caught.value.path == str(path)
    assert caught.value.next_step == "pip install --upgrade quantum-memory"


def test_a_later_qms_file_that_says_so_is_read(tmp_path, monkeypatch):
    path = tmp_path / "state.qms"
    with monkeypatch.context() as patch:
        patch.setattr(qms_layout, "VERSION", 3)
        qm.save(small_memory(), path)
    assert struct.unpack_from("<HH", path.read_bytes(), 8) == (3, 2)
    assert qm.load(path, verify="full") == small_memory()
    assert qm.info(path)["version"] == 3
