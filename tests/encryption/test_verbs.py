"""Saved with a key, nothing of a memory can be seen; with the key, it is as if it had not been encrypted."""

import errno
import itertools
import os
import stat
import subprocess
import sys

import numpy as np
import pytest

import quantum_memory as qm
from quantum_memory.durability import files
from quantum_memory.encryption.sealed_file import lock_of
from quantum_memory.errors import (
    BudgetError,
    ConflictError,
    IntegrityError,
    InvalidStateError,
    MissingError,
    QuantumMemoryError,
    StorageError,
    WrongKeyError,
)
from quantum_memory.formats.registry import FORMATS
from quantum_memory.testing.equality import assert_identical
from quantum_memory.testing.faults import FaultyFiles, RecordingFiles, ShortFiles


@pytest.fixture
def path(tmp_path, memory, key):
    path = tmp_path / "state.qms"
    qm.save(memory, path, encrypt=key)
    return path


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_nothing_of_it_can_be_seen(path, memory):
    data = path.read_bytes()
    for word in (b"afraid", b"somebody", b"mood", b"weights", memory.content_id.encode(), b"QMS"):
        assert word not in data
    assert memory.quantum.amplitudes.tobytes()[:64] not in data


@pytest.mark.parametrize("encrypt", ["words", ["words", "others"], ("others", "words")])
def test_with_a_passphrase_it_is_loaded(tmp_path, memory, encrypt):
    saved = qm.save(memory, tmp_path / "x.qms", encrypt=encrypt)
    assert saved.bytes == (tmp_path / "x.qms").stat().st_size
    assert saved.content_id == memory.content_id
    assert_identical(qm.load(tmp_path / "x.qms", key="words", verify="full"), memory)


def test_every_verb_takes_the_key(tmp_path, path, memory, key):
    assert_identical(qm.load(path, key=key), memory)
    out = np.empty(32, np.complex128)
    assert qm.load(path, key=key, out=out).quantum.amplitudes is not None
    assert out.tobytes() == memory.quantum.amplitudes.tobytes()
    with qm.open(path, key=key) as file:
        assert file.amplitudes[3:5].tobytes() == memory.quantum.amplitudes[3:5].tobytes()
    report = qm.verify(path, key=key)
    assert (report.content_id, report.bytes) == (memory.content_id, path.stat().st_size)
    facts = qm.info(path, key=key)
    assert facts["bytes"] == path.stat().st_size
    assert facts["encrypted"] == {"cipher": "aes-256-gcm", "keys": 1}
    assert "encrypted" not in qm.info(_plain(tmp_path, memory))
    assert qm.load(path, key=key, only="weights")["weights"].tobytes() == np.arange(50.0).tobytes()
    assert qm.compare(path, memory, key=key).same_content
    assert qm.compare(_plain(tmp_path, memory), path, key=key).same_content
    assert qm.verify_certificate(path, path, key=key).measured == 0
    assert qm.verify_certificate(path, _plain(tmp_path, memory), key=key).measured == 0


def _plain(tmp_path, memory):
    qm.save(memory, tmp_path / "plain.qms")
    return tmp_path / "plain.qms"


VERBS = {
    "load": qm.load,
    "open": qm.open,
    "info": qm.info,
    "verify": qm.verify,
    "certificate": qm.verify_certificate,
    "compare": lambda path, **key: qm.compare(path, path, **key),
    "convert": lambda path, **key: qm.convert(path, path.with_name("new.qms"), **key),
    "recompress": qm.recompress,
}


@pytest.mark.parametrize("verb", VERBS)
def test_without_the_key_every_verb_says_so_and_changes_nothing(tmp_path, path, other_key, verb):
    before = path.read_bytes()
    for key, message in ((None, "it is encrypted, and no key"), (other_key, "it cannot be opened with this key")):
        with pytest.raises(WrongKeyError, match=message) as caught:
            VERBS[verb](path, key=key)
        assert caught.value.path == str(path)
    assert path.read_bytes() == before
    assert sorted(one.name for one in tmp_path.iterdir()) == ["key", "other-key", "state.qms"]


@pytest.mark.parametrize("start", [b"", b"\x82\xa5", b"{", b"\x80\x04"])
def test_what_begins_like_an_old_file_by_chance_is_an_encrypted_one_that_is_damaged(tmp_path, memory, key, start):
    path = tmp_path / "state.qms"
    qm.save(memory, path, encrypt=key)
    path.write_bytes(start + b"\xff" * 60 + path.read_bytes()[64:])
    with pytest.raises(IntegrityError, match="does not begin like an encrypted file"):
        qm.load(path, key=key)


@pytest.mark.parametrize("verb", [name for name in VERBS if name != "compare"])
@pytest.mark.parametrize("suffix", ["qms", "json", "h5"])
def test_a_file_that_is_not_encrypted_is_refused_where_a_key_is_given(tmp_path, memory, key, verb, suffix):
    path = tmp_path / f"x.{suffix}"
    qm.save(memory, path)
    with pytest.raises(InvalidStateError, match="it is not encrypted"):
        VERBS[verb](path, key=key)


@pytest.mark.parametrize("suffix", [one.name for one in FORMATS if one.name != "qms"])
def test_other_formats_are_not_encrypted_and_say_so(tmp_path, memory, key, suffix):
    with pytest.raises(InvalidStateError, match=rf"a \.{suffix} file cannot be encrypted"):
        qm.save(memory, tmp_path / f"x.{suffix}", encrypt=key)
    assert [one.name for one in tmp_path.iterdir()] == ["key"]


def test_something_else_than_a_key_is_refused(tmp_path, path, memory):
    for wrong in (7, b"bytes", [], ""):
        with pytest.raises(InvalidStateError):
            qm.save(memory, tmp_path / "new.qms", encrypt=wrong)
        with pytest.raises(InvalidStateError):
            qm.load(path, key=wrong)
    assert not (tmp_path / "new.qms").exists()


def test_a_new_file_is_private_and_one_that_is_replaced_keeps_its_mode(tmp_path, memory, key):
    before = os.umask(0o022)
    try:
        qm.save(memory, tmp_path / "new.qms", encrypt=key)
        assert mode(tmp_path / "new.qms") == 0o600
        qm.save(memory, tmp_path / "old.qms")
        assert mode(tmp_path / "old.qms") == 0o644
        qm.save(memory, tmp_path / "old.qms", encrypt=key)
        assert mode(tmp_path / "old.qms") == 0o644
        qm.convert(tmp_path / "old.qms", tmp_path / "converted.qms", key=key)
        assert mode(tmp_path / "converted.qms") == 0o600
    finally:
        os.umask(before)


def test_instead_of_being_mapped_it_is_read_and_counts(path, memory, key):
    assert_identical(qm.load(path, key=key, mmap=True), memory)
    with pytest.raises(BudgetError):
        qm.load(path, key=key, mmap=True, max_bytes=100)


def test_the_binary_handler_says_that_it_is_encrypted(path):
    with pytest.raises(WrongKeyError):
        qm.BinaryFormatHandler().read(path)
    with pytest.raises(WrongKeyError):
        qm.BinaryFormatHandler().from_bytes(path.read_bytes())


def test_only_what_is_asked_for_is_decrypted(tmp_path, key):
    tree = {name: np.random.default_rng(0).integers(0, 256, 1 << 20, np.uint8) for name in "abcdefgh"}
    path = tmp_path / "big.qms"
    qm.save(qm.MemoryState(classical=tree), path, encrypt=key, compression="none")
    recording = RecordingFiles()
    with files.using(recording):
        assert qm.load(path, key=key, only="c")["c"].tobytes() == tree["c"].tobytes()
    assert recording.bytes_read < (1 << 20) + 6 * (1 << 16)


def test_converting_keeps_the_keys_or_changes_them_or_gives_them_up(tmp_path, memory, key, other_key):
    source, target = tmp_path / "a.qms", tmp_path / "b.qms"
    qm.save(memory, source, encrypt=[key, "words"])
    first = qm.convert(source, target, key=key, compression="zstd")
    assert (first.source_bytes, first.bytes) == (source.stat().st_size, target.stat().st_size)
    assert lock_of(str(target), key).master == lock_of(str(source), key).master
    assert_identical(qm.load(target, key="words"), memory)
    qm.convert(source, target, key="words", encrypt=other_key, overwrite=True)
    assert_identical(qm.load(target, key=other_key), memory)
    with pytest.raises(WrongKeyError):
        qm.load(target, key=key)
    qm.convert(source, target, key=key, decrypt=True, overwrite=True)
    assert_identical(qm.load(target), memory)
    qm.convert(target, tmp_path / "c.qms", encrypt=key)
    assert_identical(qm.load(tmp_path / "c.qms", key=key), memory)
    with pytest.raises(InvalidStateError, match=r"a \.json file cannot be"):
        qm.convert(source, tmp_path / "x.json", key=key)
    qm.convert(source, tmp_path / "x.json", key=key, decrypt=True)
    assert_identical(qm.load(tmp_path / "x.json"), memory)
    with pytest.raises(InvalidStateError, match="exclude each other"):
        qm.convert(source, tmp_path / "d.qms", key=key, encrypt=key, decrypt=True)
    assert not (tmp_path / "d.qms").exists()


def test_packing_keeps_the_keys(tmp_path, key):
    rng = np.random.default_rng(0)
    amplitudes = rng.normal(size=1 << 15) + 1j * rng.normal(size=1 << 15)
    state = qm.StateVector(amplitudes / np.linalg.norm(amplitudes), qubit_order="big")
    path = tmp_path / "x.qms"
    qm.save(state, path, encrypt=[key, "words"], compression="none")
    before = path.stat().st_size
    done = qm.recompress(path, key="words", effort="fast")
    assert done.bytes == path.stat().st_size < before == done.source_bytes
    assert qm.load(path, key=key).quantum == state
    again = qm.recompress(path, key=key, effort="fast")
    assert again.bytes == path.stat().st_size == done.bytes
    lossy = qm.recompress(path, tmp_path / "y.qms", key=key, fidelity=0.99)
    assert qm.verify_certificate(tmp_path / "y.qms", path, key="words").measured <= 0.01
    assert lossy.bytes < done.bytes / 4
    with pytest.raises(InvalidStateError, match="decrypt"):
        qm.recompress(path, tmp_path / "y.json", key=key)
    fitted = qm.save(state, tmp_path / "z.qms", encrypt=key, max_bytes=100_000)
    assert fitted.bytes == (tmp_path / "z.qms").stat().st_size <= 100_000


def test_what_is_not_overwritten_stays(path, memory, key):
    before = path.read_bytes()
    with pytest.raises(ConflictError):
        qm.save(memory, path, encrypt=key, overwrite=False)
    assert path.read_bytes() == before


def test_without_the_package_it_says_what_to_install_and_writes_nothing(tmp_path, path, memory, key, monkeypatch):
    monkeypatch.setitem(sys.modules, "cryptography", None)
    with pytest.raises(MissingError, match=r"quantum-memory\[encryption\]"):
        qm.save(memory, tmp_path / "new.qms", encrypt=key)
    with pytest.raises(MissingError, match=r"quantum-memory\[encryption\]"):
        qm.load(path, key=key)
    assert not (tmp_path / "new.qms").exists()


def test_whoever_does_not_encrypt_does_not_load_it(tmp_path, memory):
    path = _plain(tmp_path, memory)
    code = f"import sys, quantum_memory as qm; qm.save(qm.load({str(path)!r}), {str(path)!r}); qm.Key; "
    code += "assert not any(name.startswith('cryptography') for name in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_reading_that_fails_anywhere_is_a_typed_error(path, key):
    for k in itertools.count():
        faulty = FaultyFiles(k, errno.EIO)
        with files.using(faulty):
            try:
                problem = qm.verify(path, key=key) and None
            except StorageError as error:
                problem = error.path
        assert problem == (str(path) if set(faulty.failed) - {"close"} else None)
        if not faulty.failed:
            break
    assert k >= 4


@pytest.mark.parametrize("most", [1, 1000])
def test_short_reads_and_writes_are_gone_on_with(tmp_path, memory, key, most):
    with files.using(ShortFiles(most)):
        qm.save(memory, tmp_path / "x.qms", encrypt=key)
        assert_identical(qm.load(tmp_path / "x.qms", key=key), memory)


def test_a_few_damaged_bits_of_a_real_file_are_damage(path, key):
    data = path.read_bytes()
    for bit in range(0, 8 * len(data), 97):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        for verb in (qm.load, qm.verify):
            # The first bytes say what it is; without them it is some other file.
            with pytest.raises(IntegrityError if bit >= 32 else QuantumMemoryError):
                verb(path, key=key)


def test_a_file_of_the_first_bytes_only_is_damage(tmp_path, key):
    (tmp_path / "x.qms").write_bytes(b"\x89QME")
    for given in (key, None):
        with pytest.raises(IntegrityError):
            qm.load(tmp_path / "x.qms", key=given)
