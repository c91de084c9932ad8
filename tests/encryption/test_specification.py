"""The decoder that the page prints reads what the package writes, and files that were written before are read."""

import re
from pathlib import Path

import pytest

import quantum_memory as qm
from quantum_memory.encryption import keys
from quantum_memory.encryption.envelope import Lock
from quantum_memory.encryption.keys import new_slot
from quantum_memory.encryption.primitives import CIPHERS
from quantum_memory.testing.equality import assert_identical

from .conftest import sealed

PAGE = Path(__file__).parents[2] / "docs" / "encryption.md"
GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(scope="module")
def decoder():
    code = re.search(r"```python\n(import base64.*?)```", PAGE.read_text(), re.DOTALL)[1]
    assert len(code.splitlines()) <= 60
    space = {}
    exec(compile(code, str(PAGE), "exec"), space)  # it is our own page
    return space


@pytest.mark.parametrize("length", [0, 1, 65535, 65536, 65537, 3 * 65536])
@pytest.mark.parametrize("cipher", CIPHERS)
def test_the_decoder_of_the_page_opens_with_every_key(decoder, tmp_path, key, cipher, length):
    data = bytes(range(256)) * (length // 256 + 1)
    written = sealed(data[:length], Lock.new([key, qm.Key.from_passphrase("schlu\u0308ssel")], cipher))
    assert decoder["unsealed"](written, (tmp_path / "key").read_bytes()) == data[:length]
    assert decoder["unsealed"](written, "schl\u00fcssel") == data[:length]
    with pytest.raises(StopIteration):
        decoder["unsealed"](written, "another")


def test_the_decoder_of_the_page_opens_slots_of_other_contexts(decoder, tmp_path, key):
    slot = new_slot(b"m" * 32, key, b"a repository", "a label: \u00fc")
    assert decoder["open_slot"](slot, (tmp_path / "key").read_bytes(), b"a repository") == b"m" * 32
    assert decoder["open_slot"](slot, (tmp_path / "key").read_bytes(), b"another") is None


def test_the_decoder_of_the_page_takes_what_a_passphrase_costs_by_default(decoder, monkeypatch):
    monkeypatch.setattr(keys, "_COST", (1 << 17, 8, 1))
    slot = new_slot(b"m" * 32, qm.Key.from_passphrase("x"), b"")
    assert decoder["open_slot"](slot, "x", b"") == b"m" * 32


@pytest.mark.parametrize("name", ["aes-256-gcm", "chacha20-poly1305"])
def test_a_golden_file_is_read_bit_for_bit(decoder, name):
    path = GOLDEN / f"{name}.v1.qms"
    plain = (GOLDEN / "plain.v2.qms").read_bytes()
    for key in (qm.Key.from_file(GOLDEN / "key"), qm.Key.from_passphrase("a passphrase")):
        assert_identical(qm.load(path, key=key, verify="full"), qm.load(GOLDEN / "plain.v2.qms"))
        assert qm.verify(path, key=key).content_id == qm.verify(GOLDEN / "plain.v2.qms").content_id
    assert decoder["unsealed"](path.read_bytes(), (GOLDEN / "key").read_bytes()) == plain
