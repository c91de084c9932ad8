"""A file of another version is told from a damaged one, in every format, and the advice fits."""

import struct

import pytest

import quantum_memory as qm
from quantum_memory.errors import UPGRADE, IntegrityError, UnsupportedVersionError
from quantum_memory.formats import hdf5_store, json_format, npz_format, qms_layout, seal, tree_file
from quantum_memory.formats.stated_version import check_version
from quantum_memory.testing.examples import small_memory

MODULES = (seal, json_format, tree_file, npz_format, hdf5_store)
"""Those that write the version of a file."""


SUFFIXES = ["h5", "json", "json.zlib", "msgpack", "npz", "pkl", "b64"]
READ = pytest.mark.parametrize("read", [qm.load, qm.verify, qm.info, qm.open], ids=lambda read: read.__name__)
ELSEWHERE = "read it with the program that wrote it"


def save_as(version, path, monkeypatch):
    """Write a file as a release of another version would that changes nothing else."""
    with monkeypatch.context() as patch:
        for module in MODULES:
            patch.setattr(module, "VERSION", version)
        if path.suffix == ".qms":
            patch.setattr(qms_layout, "VERSION", int(version))
            patch.setattr(qms_layout, "MINIMUM_READER", int(version))
        qm.save(small_memory(), path)
        assert qm.load(path, allow_pickle=True) == small_memory()


def refused(error, read, path):
    with pytest.raises(error) as caught:
        read(path, allow_pickle=True)
    assert caught.value.path == str(path)
    return caught.value


@pytest.mark.parametrize("suffix", ["qms", *SUFFIXES])
@READ
def test_a_newer_file_needs_a_newer_release(tmp_path, monkeypatch, suffix, read):
    path = tmp_path / f"state.{suffix}"
    save_as("3" if suffix == "qms" else "3.0", path, monkeypatch)
    error = refused(UnsupportedVersionError, read, path)
    assert error.message.startswith(f"it is {'a QMS file ' if suffix == 'qms' else ''}of version 3")
    assert error.next_step == UPGRADE


@pytest.mark.parametrize("suffix", ["qms", *SUFFIXES])
@pytest.mark.parametrize("version", ["0", "1"])
@READ
def test_no_newer_release_reads_an_older_file(tmp_path, monkeypatch, suffix, read, version):
    path = tmp_path / f"state.{suffix}"
    version += "" if suffix == "qms" else ".5"
    save_as(version, path, monkeypatch)
    error = refused(UnsupportedVersionError, read, path)
    assert error.message.startswith(f"it is of version {version}, which this release does not know")
    assert error.next_step == ELSEWHERE


@pytest.mark.parametrize("suffix", SUFFIXES)
@READ
def test_a_version_that_is_none_is_said_to_be_none(tmp_path, monkeypatch, suffix, read):
    path = tmp_path / f"state.{suffix}"
    save_as("two", path, monkeypatch)
    error = refused(IntegrityError, read, path)
    assert error.message == "the version that it states is none: 'two'; this release reads version 2.0"
    assert error.next_step == ELSEWHERE


@pytest.mark.parametrize(
    ("stated", "error", "advice"),
    [
        ("2.1", UnsupportedVersionError, UPGRADE),
        ("10.0", UnsupportedVersionError, UPGRADE),
        ("3", UnsupportedVersionError, UPGRADE),
        ("1.9", UnsupportedVersionError, ELSEWHERE),
        ("2", UnsupportedVersionError, ELSEWHERE),
        ("02.0", UnsupportedVersionError, ELSEWHERE),
        ("2.0.1", IntegrityError, ELSEWHERE),
        ("-3.0", IntegrityError, ELSEWHERE),
        ("\u0663.0", IntegrityError, ELSEWHERE),
        ("9999999.0", IntegrityError, ELSEWHERE),
        ("", IntegrityError, ELSEWHERE),
        (3.0, IntegrityError, ELSEWHERE),
        ([], IntegrityError, ELSEWHERE),
    ],
)
def test_what_is_said_of_each_version(stated, error, advice):
    check_version("2.0", "2.0")
    with pytest.raises(error) as caught:
        check_version(stated, "2.0")
    assert caught.value.next_step == advice
    assert len(caught.value.message) < 120


def test_a_later_qms_file_that_says_so_is_read(tmp_path, monkeypatch):
    path = tmp_path / "state.qms"
    with monkeypatch.context() as patch:
        patch.setattr(qms_layout, "VERSION", 3)
        qm.save(small_memory(), path)
    assert struct.unpack_from("<HH", path.read_bytes(), 8) == (3, 2)
    assert qm.load(path, verify="full") == small_memory()
    assert qm.info(path)["version"] == 3
