"""A sealed chunk opens under its kind and name, and every change of it is seen."""

import hmac
import itertools
import os
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantum_memory.encryption.primitives import CIPHERS, framed
from quantum_memory.encryption.sealing import OVERHEAD, Sealer
from quantum_memory.errors import IntegrityError, InvalidStateError
from quantum_memory.testing.damage import extensions, flips, truncations

MASTER = bytes(range(32))


@pytest.fixture(params=CIPHERS)
def sealer(request):
    return Sealer(MASTER, b"a repository", request.param)


@pytest.mark.parametrize("length", [0, 1, 15, 16, 17, 1000, (1 << 20) + 1])
def test_what_was_sealed_is_opened(sealer, length):
    data = os.urandom(length)
    for given_data in (data, bytearray(data), memoryview(data)):
        sealed = sealer.seal(given_data, b"chunk", b"name")
        assert len(sealed) == length + OVERHEAD
        assert sealer.open(sealed, b"chunk", b"name") == sealer.open(memoryview(sealed), b"chunk", b"name") == data
    assert sealer.seal(data, b"chunk", b"name") != sealed


def test_every_change_is_seen(sealer):
    sealed = sealer.seal(b"something private", b"chunk", b"name")
    for changed in itertools.chain(flips(sealed), truncations(sealed), extensions(sealed)):
        with pytest.raises(IntegrityError):
            sealer.open(changed, b"chunk", b"name")


def test_it_opens_under_its_own_kind_and_name_in_its_own_place_only(sealer):
    sealed = sealer.seal(b"data", b"chunk", b"name")
    for kind, name in ((b"manifest", b"name"), (b"chunk", b"other"), (b"chunkn", b"ame"), (b"", b"chunkname")):
        with pytest.raises(IntegrityError):
            sealer.open(sealed, kind, name)
    others = [Sealer(MASTER, b"another repository", cipher) for cipher in CIPHERS]
    others += [Sealer(bytes(32), b"a repository", cipher) for cipher in CIPHERS]
    for other in others:
        with pytest.raises(IntegrityError):
            other.open(sealed, b"chunk", b"name")


def test_ciphers_do_not_share_a_key():
    first, second = (Sealer(MASTER, b"", cipher) for cipher in CIPHERS)
    with pytest.raises(IntegrityError):
        second.open(first.seal(b"data", b"", b""), b"", b"")


def test_a_name_says_nothing_without_the_key(sealer):
    name = sealer.name(b"a well known text")
    assert len(name) == 32
    assert name == sealer.name(bytearray(b"a well known text")) == Sealer(MASTER, b"other").name(b"a well known text")
    assert name != Sealer(bytes(32), b"a repository").name(b"a well known text")
    assert name != hmac.digest(MASTER, b"a well known text", "sha256")


@given(st.lists(st.binary(max_size=9), max_size=4), st.lists(st.binary(max_size=9), max_size=4))
def test_no_two_lists_of_parts_are_framed_alike(first, second):
    assert (framed(*first) == framed(*second)) == (first == second)


def test_many_threads_use_one(sealer):
    data = [os.urandom(50_000 + number) for number in range(64)]

    def through(number):
        name = str(number).encode()
        return sealer.open(sealer.seal(data[number], b"chunk", name), b"chunk", name)

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(through, range(64))) == data


@pytest.mark.parametrize("length", [0, 16, 31, 33])
def test_a_master_key_has_its_length(length):
    with pytest.raises(InvalidStateError):
        Sealer(bytes(length), b"")


def test_a_cipher_that_there_is_not_is_refused():
    with pytest.raises(InvalidStateError, match="aes-256-gcm, chacha20-poly1305"):
        Sealer(MASTER, b"", "rot13")
