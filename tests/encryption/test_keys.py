"""Keys show nothing of themselves, and slots open for them and for nobody else."""

import copy
import hashlib
import os
import pickle
import stat
import sys

import pytest

import quantum_memory as qm
from quantum_memory.encryption import keys, primitives
from quantum_memory.encryption.keys import keys_of, new_slot, open_slots, takes_passphrase
from quantum_memory.errors import (
    ConflictError,
    IntegrityError,
    InvalidStateError,
    MissingError,
    MissingFileError,
    QuantumMemoryError,
    UnsafeError,
    UnsupportedVersionError,
    WrongKeyError,
)

MASTER = bytes(range(32))
CONTEXT = b"a test"


@pytest.fixture(params=["passphrase", "file"])
def any_key(request, key):
    return key if request.param == "file" else qm.Key.from_passphrase("correct horse")


def test_a_new_key_file_opens_what_its_key_has_closed(tmp_path, key):
    again = qm.Key.from_file(tmp_path / "key")
    assert open_slots([new_slot(MASTER, key, CONTEXT)], again, CONTEXT) == MASTER


def test_a_new_key_file_is_private_whatever_the_umask_and_is_not_replaced(tmp_path):
    before = os.umask(0)
    try:
        qm.Key.new_file(tmp_path / "key")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600
    text = (tmp_path / "key").read_bytes()
    assert len(text.splitlines()) == 1
    with pytest.raises(ConflictError):
        qm.Key.new_file(tmp_path / "key")
    assert (tmp_path / "key").read_bytes() == text
    assert qm.Key.new_file(tmp_path / "second")._secret != qm.Key.from_file(tmp_path / "key")._secret


def test_line_ends_that_an_editor_adds_do_not_change_a_key(tmp_path, key):
    slot = new_slot(MASTER, key, CONTEXT)
    text = (tmp_path / "key").read_bytes().strip()
    for ending in (b"", b"\n", b"\r\n", b"\n\n"):
        (tmp_path / "key").write_bytes(text + ending)
        assert open_slots([slot], qm.Key.from_file(tmp_path / "key"), CONTEXT) == MASTER


@pytest.mark.parametrize("data", [b"", b"\n" * 40, b"x" * 31, b"x" * 31 + b"\n" * 9, bytes((1 << 20) + 1)])
def test_a_file_that_is_no_key_is_refused(tmp_path, data):
    path = tmp_path / "key"
    path.write_bytes(data)
    with pytest.raises(InvalidStateError) as caught:
        qm.Key.from_file(path)
    assert caught.value.path == str(path)


def test_the_longest_and_the_shortest_key_file_are_taken(tmp_path):
    for length in (32, 1 << 20):
        (tmp_path / "key").write_bytes(b"k" * length)
        qm.Key.from_file(tmp_path / "key")


def test_only_regular_files_are_keys(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path, error in ((tmp_path, UnsafeError), (tmp_path / "pipe", UnsafeError), (tmp_path / "x", MissingFileError)):
        with pytest.raises(error):
            qm.Key.from_file(path)


def test_a_passphrase_does_not_depend_on_how_it_is_composed():
    slot = new_slot(MASTER, qm.Key.from_passphrase("schl\u00fcssel \ufb01"), CONTEXT)
    assert open_slots([slot], qm.Key.from_passphrase("schlu\u0308ssel fi"), CONTEXT) == MASTER
    with pytest.raises(WrongKeyError):
        open_slots([slot], qm.Key.from_passphrase("schlussel fi"), CONTEXT)


@pytest.mark.parametrize("text", ["", "\ud800", b"bytes", None, 7])
def test_what_is_no_text_is_no_passphrase(text):
    with pytest.raises(InvalidStateError) as caught:
        qm.Key.from_passphrase(text)
    assert "\ud800" not in str(caught.value)


@pytest.mark.parametrize("given", [None, [], [None], ["x", 3], {"x": 1}, 7, ["x"] * 17, b"x", [""]])
def test_what_is_no_key_is_refused(given):
    with pytest.raises(InvalidStateError):
        keys_of(given)


def test_a_key_shows_nothing_of_itself(any_key):
    assert repr(any_key) == str(any_key) == f"{any_key}" == "<Key>"
    for leave in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError):
            leave(any_key)
    assert not hasattr(any_key, "__dict__")


def test_a_slot_opens_for_its_key_and_for_nobody_else(any_key, other_key):
    slot = new_slot(MASTER, any_key, CONTEXT, "mine")
    assert open_slots([slot], any_key, CONTEXT) == MASTER
    assert slot["label"] == "mine"
    assert MASTER not in repr(slot).encode()
    said = set()
    for wrong in (other_key, qm.Key.from_passphrase("correct horsf"), qm.Key.from_passphrase(" correct horse")):
        with pytest.raises(WrongKeyError) as caught:
            open_slots([slot], wrong, CONTEXT)
        said.add(str(caught.value))
    with pytest.raises(WrongKeyError) as caught:
        open_slots([slot], any_key, b"another test")
    assert said | {str(caught.value)} == {"it cannot be opened with this key. Next: give the key it was encrypted with"}


def test_without_a_key_it_says_so(key):
    with pytest.raises(WrongKeyError, match=r"^it is encrypted, and no key was given\. Next: .*--key-file") as caught:
        open_slots([new_slot(MASTER, key, CONTEXT)], None, CONTEXT)
    assert isinstance(caught.value, ValueError)
    assert caught.value.exit_code == 10
    words = new_slot(MASTER, qm.Key.from_passphrase("x"), CONTEXT)
    slot = new_slot(MASTER, key, CONTEXT)
    for slots, named, takes in (
        ([slot, slot], {"--key-file"}, False),
        ([words], {"--passphrase-file"}, True),
        ([words, slot], {"--key-file", "--passphrase-file"}, True),
        ([slot, {**slot, "kdf": "of a later release"}], {"--key-file", "--passphrase-file"}, True),
        ([slot, 7], {"--key-file", "--passphrase-file"}, True),
    ):
        with pytest.raises(WrongKeyError) as caught:
            open_slots(slots, None, CONTEXT)
        assert {option for option in ("--key-file", "--passphrase-file") if option in caught.value.next_step} == named
        assert takes_passphrase(slots) == takes


def test_any_of_sixteen_keys_opens_and_there_are_no_more():
    several = [qm.Key.from_passphrase(f"key {number}") for number in range(16)]
    slots = [new_slot(MASTER, key, CONTEXT) for key in several]
    assert all(open_slots(slots, key, CONTEXT) == MASTER for key in several)
    with pytest.raises(UnsafeError):
        open_slots([*slots, slots[0]], several[0], CONTEXT)
    with pytest.raises(UnsafeError):
        open_slots([], several[0], CONTEXT)


def test_a_master_key_is_wrapped_differently_every_time(any_key):
    first, second = new_slot(MASTER, any_key, CONTEXT), new_slot(MASTER, any_key, CONTEXT)
    assert first["nonce"] != second["nonce"]
    assert first["wrapped"] != second["wrapped"]


def test_a_label_has_a_limit(key):
    assert open_slots([new_slot(MASTER, key, CONTEXT, "ü" * 200)], key, CONTEXT) == MASTER
    with pytest.raises(InvalidStateError):
        new_slot(MASTER, key, CONTEXT, "x" * 201)


def flipped(text):
    """Return Base64 of other bytes, as well formed."""
    return ("B" if text[0] == "A" else "A") + text[1:]


def test_a_slot_that_was_altered_in_any_field_is_not_opened(any_key):
    slot = new_slot(MASTER, any_key, CONTEXT)
    for name in ("salt", "nonce", "wrapped"):
        with pytest.raises(WrongKeyError):
            open_slots([slot | {name: flipped(slot[name])}], any_key, CONTEXT)
    with pytest.raises(WrongKeyError):
        open_slots([slot | {"label": "another"}], any_key, CONTEXT)
    with pytest.raises(WrongKeyError):
        open_slots([slot | {"created_at": "1999-01-01T00:00:00+00:00"}], any_key, CONTEXT)
    for name in {"n", "r", "p"} & slot.keys():
        with pytest.raises(WrongKeyError):
            open_slots([slot | {name: 2 * slot[name]}], any_key, CONTEXT)
    for name in slot:
        with pytest.raises(QuantumMemoryError):
            open_slots([{key: value for key, value in slot.items() if key != name}], any_key, CONTEXT)
        for odd in (None, 3, -1, True, 1.0, "", "x", [], {}, "\ud800", "ä" * 300, 10**30):
            if odd != slot[name] or type(odd) is not type(slot[name]):
                with pytest.raises(QuantumMemoryError):
                    open_slots([slot | {name: odd}], any_key, CONTEXT)
    with pytest.raises(IntegrityError):
        open_slots([slot | {"more": 1}], any_key, CONTEXT)


@pytest.mark.parametrize(
    "costs",
    [
        {"n": 1 << 40},
        {"n": 1 << 21},
        {"r": 33},
        {"p": 17},
        {"n": 1 << 20, "p": 2},
        {"n": 1 << 20, "r": 32},
        {"n": 10**30, "r": 10**30, "p": 10**30},
    ],
)
def test_a_slot_that_asks_for_too_much_is_refused_before_it_is_tried(costs):
    key = qm.Key.from_passphrase("x")
    slot = new_slot(MASTER, key, CONTEXT) | costs
    with pytest.raises(UnsafeError):
        open_slots([slot | {"n": 1 << (slot["n"].bit_length() - 1)}], key, CONTEXT)


def test_all_slots_together_have_a_bound():
    key = qm.Key.from_passphrase("x")
    good = new_slot(MASTER, key, CONTEXT)
    greedy = good | {"n": 1 << 20, "r": 8, "p": 1, "kdf": "scrypt"}
    with pytest.raises(UnsafeError):  # by a key file: nothing is derived for it
        open_slots([greedy] * 3, qm.Key(b"x" * 32, "hkdf-sha256"), CONTEXT)
    assert open_slots([good, *[greedy] * 15], key, CONTEXT) == MASTER


@pytest.mark.parametrize(
    "costs", [{"n": 3}, {"n": 0}, {"n": 1}, {"r": 0}, {"p": -1}, {"n": -4}, {"n": 1 << 16, "r": 1}]
)
def test_costs_that_scrypt_does_not_have_are_damage(costs):
    key = qm.Key.from_passphrase("x")
    with pytest.raises(IntegrityError):
        open_slots([new_slot(MASTER, key, CONTEXT) | costs], key, CONTEXT)


@pytest.mark.parametrize("slots", [[None] * 10**6, [], "slots", None, {"0": {}}, 7])
def test_what_is_no_list_of_a_few_slots_is_refused(key, slots):
    with pytest.raises(UnsafeError):
        open_slots(slots, key, CONTEXT)


@pytest.mark.parametrize("text", ["A", "====", "not base64!", "AAAA\n", " AAA"])
def test_only_canonical_base64_is_read(key, text):
    slot = new_slot(MASTER, key, CONTEXT)
    with pytest.raises(IntegrityError):
        open_slots([slot | {"nonce": text}], key, CONTEXT)
    salt = slot["salt"]  # 32 bytes: the last character before "=" has two bits that mean nothing
    odd = salt[:-2] + chr(ord(salt[-2]) + 1) + "="
    with pytest.raises(IntegrityError):
        open_slots([slot | {"salt": odd}], key, CONTEXT)


def test_damaged_and_unknown_slots_do_not_lock_out_the_others(key):
    good = new_slot(MASTER, key, CONTEXT)
    later, other, damaged = good | {"version": 2}, good | {"kdf": "argon2id"}, good | {"salt": "?"}
    assert open_slots([None, damaged, later, other, good], key, CONTEXT) == MASTER
    for unknown in (later, other):
        with pytest.raises(UnsupportedVersionError) as caught:
            open_slots([unknown], key, CONTEXT)
        assert "upgrade" in str(caught.value)


def test_what_was_derived_is_kept_in_the_key_and_has_a_bound(monkeypatch):
    calls = []
    monkeypatch.setattr(keys, "scrypt", lambda *given: calls.append(given) or primitives.scrypt(*given))
    key = qm.Key.from_passphrase("x")
    slots = [new_slot(MASTER, key, CONTEXT) for _ in range(5)]
    assert open_slots(slots, key, CONTEXT) == MASTER
    assert len(calls) == 1
    for _ in range(40):
        assert open_slots([new_slot(MASTER, qm.Key.from_passphrase("x"), CONTEXT)], key, CONTEXT) == MASTER
    assert len(key._derived) <= 16


def test_what_a_passphrase_costs_by_default(monkeypatch):
    monkeypatch.undo()
    key = qm.Key.from_passphrase("x")
    slot = new_slot(MASTER, key, CONTEXT)
    assert (slot["kdf"], slot["n"], slot["r"], slot["p"]) == ("scrypt", 1 << 17, 8, 1)
    assert 16 * slot["n"] * slot["r"] * slot["p"] <= keys._MOST_WORK_OF_ALL


def test_the_primitives_are_those_of_the_standards():
    # RFC 5869, A.1, and RFC 7914, 12
    made = primitives.hkdf(b"\x0b" * 22, bytes(range(0xF0, 0xFA)), bytes(range(13)), 42)
    assert made.hex().startswith("3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b88718")
    expected = hashlib.scrypt(b"password", salt=b"NaCl", n=1024, r=8, p=16, dklen=32)
    assert expected.hex().startswith("fdbabe1c9d3472007856e7190d01e9fe7c6ad7cbc8237830e77376634b373162")
    assert primitives.scrypt(b"password", b"NaCl", 1024, 8, 16) == expected


def test_without_the_package_it_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "cryptography", None)
    key = qm.Key.new_file(tmp_path / "key")
    with pytest.raises(MissingError, match=r"pip install 'quantum-memory\[encryption\]'"):
        new_slot(MASTER, key, CONTEXT)
