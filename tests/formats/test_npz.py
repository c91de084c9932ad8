"""NumPy archives."""

import hashlib
import zipfile

import numpy as np
import pytest

import quantum_memory as qm
from quantum_memory.errors import BudgetError, InvalidStateError, UnsupportedVersionError
from quantum_memory.formats import npz_format
from quantum_memory.formats.npz_format import member_name

from ..hostile.archives import VALUES, archive, forged, members, npy, raw, sealed
from .watched import MIB, read, refusal


def test_plain_numpy_opens_it_and_gives_the_arrays_by_path(small, tmp_path):
    for compression in ("none", "zlib"):
        qm.save(small, tmp_path / "a.npz", compression=compression)
        with np.load(tmp_path / "a.npz", allow_pickle=False) as archive:
            assert set(archive) == {
                "quantum-memory", "quantum/amplitudes", "classical/weights", "document", "content_id",
            }  # fmt: skip
            assert archive["quantum/amplitudes"].tobytes() == small.quantum.amplitudes.tobytes()
            assert archive["classical/weights"].dtype == np.float32
            assert archive["classical/weights"].shape == (3, 5)
            assert bytes(archive["content_id"]).decode() == small.content_id
            assert bytes(archive["quantum-memory"]) == b"quantum-memory 2.0"
        with zipfile.ZipFile(tmp_path / "a.npz") as archive:
            assert archive.testzip() is None


def test_the_comment_is_the_digest_of_every_byte_before_it(small, tmp_path):
    qm.save(small, tmp_path / "a.npz")
    data = (tmp_path / "a.npz").read_bytes()
    assert data[-71:].decode() == f"sha256:{hashlib.sha256(data[:-71]).hexdigest()}"


def test_an_honest_forgery_is_read():
    """Otherwise the forged files might be refused for another reason than theirs."""
    assert read("npz", forged()).classical.tolist() == VALUES.tolist()
    assert read("npz", sealed(archive(members(), zipfile.ZIP_DEFLATED))).classical.tolist() == VALUES.tolist()


def test_names_of_members_never_lead_out_of_a_folder(tmp_path):
    tree = {"..": {"..": {"etc": np.ones(1)}}, ".": np.ones(2), "~..": np.ones(3), "...": np.ones(4), "a..": np.ones(5)}
    memory = qm.MemoryState(classical=tree)
    qm.save(memory, tmp_path / "a.npz")
    assert qm.load(tmp_path / "a.npz") == memory
    with zipfile.ZipFile(tmp_path / "a.npz") as archive:
        names = archive.namelist()
    assert "classical/~../~../etc.npy" in names
    assert not [name for name in names if {"..", "."} & set(name.removesuffix(".npy").split("/"))]
    assert member_name("a/./b/...") == "a/~./b/..."


def test_a_compressed_archive_is_smaller(tmp_path):
    state = {"classical_data": np.zeros(100_000)}
    plain, packed = (qm.save(state, tmp_path / "a.npz", compression=way).bytes for way in ("none", "zlib"))
    assert packed < 5000
    assert plain > 800_000
    with pytest.raises(InvalidStateError, match=r"no compression 'zstd'.*auto, none, zlib"):
        qm.save(state, tmp_path / "a.npz", compression="zstd")


def test_more_arrays_than_a_directory_holds_are_refused_when_it_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(npz_format, "MAX_DIRECTORY_BYTES", 1000)
    qm.save({"classical_data": [np.ones(1) for _ in range(4)]}, tmp_path / "a.npz")
    assert len(qm.load(tmp_path / "a.npz").classical) == 4
    with pytest.raises(InvalidStateError, match=r"\.qms or \.h5"):
        qm.save({"classical_data": [np.ones(1) for _ in range(20)]}, tmp_path / "a.npz")


def test_members_past_two_gibibytes_are_written_as_zip64(tmp_path, monkeypatch):
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 1000)
    memory = qm.MemoryState(classical={"long": np.arange(1000.0), "short": np.arange(3.0)})
    for compression in ("none", "zlib"):
        qm.save(memory, tmp_path / "a.npz", compression=compression)
        with zipfile.ZipFile(tmp_path / "a.npz") as archive:
            assert archive.getinfo("classical/long.npy").extra
        assert qm.load(tmp_path / "a.npz") == memory
        with np.load(tmp_path / "a.npz") as arrays:
            assert arrays["classical/long"].sum() == np.arange(1000.0).sum()


def test_a_later_version_says_so():
    data = forged(**{"quantum-memory": raw(b"quantum-memory 2.1")})
    assert isinstance(refusal("npz", data), UnsupportedVersionError)


def test_a_bomb_is_refused_before_memory_is_taken_for_it():
    zeros = np.zeros(25 * MIB)
    data = sealed(archive(members(classical=npy(zeros)), zipfile.ZIP_DEFLATED))
    assert len(data) < MIB
    assert isinstance(refusal("npz", data, max_bytes=100 * MIB), BudgetError)
