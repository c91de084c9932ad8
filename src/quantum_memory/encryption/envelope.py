"""The envelope of a sealed file: who can open it, and how its segments are encrypted.

::

    header: facts (40 bytes) | key slots, as JSON | SHA-256 | proof
    segments: of 64 KiB each, but the last, and a tag behind each

Segments are encrypted as in STREAM (Hoang, Reyhanitabar, Rogaway, Vizár 2015): the nonce of each is its number, and
whether it is the last. ``docs/encryption.md`` is the specification.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from quantum_memory.encryption.keys import new_slot, open_slots
from quantum_memory.encryption.primitives import (
    CIPHERS,
    KEY_BYTES,
    TAG_BYTES,
    Cipher,
    aead,
    framed,
    hkdf,
    opened_into,
)
from quantum_memory.errors import RESTORE, UPGRADE, IntegrityError, QuantumMemoryError, UnsupportedVersionError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from quantum_memory.durability.files import Buffer, Readable
    from quantum_memory.encryption.keys import Key

SIGNATURE = b"\x89QME\r\n\x1a\n"
VERSION = 1
MINIMUM_READER = 1
SEGMENT_BYTES = 1 << 16
"""What is encrypted at a time, and what has to be read and decrypted to see one byte."""

STORED_BYTES = SEGMENT_BYTES + TAG_BYTES
"""Bytes of a segment with its tag."""

_FACTS = struct.Struct("<8sHHHHII16s")
_FILE_ID_BYTES = 16
_DIGEST_BYTES = 32
_MAX_SLOTS_BYTES = 1 << 16
_CONTEXT = b"quantum-memory sealed file"
_SEGMENTS, _PROOF = b"quantum-memory segments 1", b"quantum-memory proof 1"
_NONCE = struct.Struct("<Q3xB")


@dataclass(frozen=True, repr=False)
class Lock:
    """What a file is sealed with. Files that are sealed with one lock open with the same keys.

    Attributes
    ----------
    master
        32 secret bytes, of which each file makes a key of its own.
    slots
        The same bytes for each key that opens it.
    cipher
        What its segments are encrypted with.
    """

    master: bytes
    slots: tuple[dict[str, Any], ...]
    cipher: Cipher = "aes-256-gcm"

    @classmethod
    def new(cls, keys: Sequence[Key], cipher: Cipher = "aes-256-gcm") -> Lock:
        """Return a lock that opens with each of the keys."""
        master = os.urandom(KEY_BYTES)
        return cls(master, tuple(new_slot(master, key, _CONTEXT) for key in keys), cipher)


class Segments:
    """The cipher of one file, for any number of threads.

    Attributes
    ----------
    header
        All bytes before the first segment.
    """

    def __init__(self, lock: Lock, facts: bytes, slots: bytes) -> None:
        digest = hashlib.sha256(facts + slots).digest()
        salt = facts[-_FILE_ID_BYTES:]
        # Slots can be made so that several people are each given another master key. No two of these have one proof.
        proof = hmac.digest(hkdf(lock.master, _PROOF, salt), digest, "sha256")
        self.header = facts + slots + digest + proof
        self._aead = aead(lock.cipher, hkdf(lock.master, framed(_SEGMENTS, lock.cipher.encode()), salt))
        self._digest = digest

    @classmethod
    def new(cls, lock: Lock) -> Segments:
        """Return the cipher of a new file."""
        slots = json.dumps(lock.slots, separators=(",", ":")).encode()
        cipher = 1 + CIPHERS.index(lock.cipher)
        numbers = (VERSION, MINIMUM_READER, cipher, 0, SEGMENT_BYTES, len(slots))
        return cls(lock, _FACTS.pack(SIGNATURE, *numbers, os.urandom(_FILE_ID_BYTES)), slots)

    def seal_into(self, out: memoryview, number: int, data: Buffer, *, last: bool) -> None:
        """Encrypt a segment into memory that has room for its tag."""
        self._aead.encrypt_into(_NONCE.pack(number, last), data, self._digest, out)

    def open_into(self, out: memoryview, number: int, stored: Buffer, *, last: bool) -> bool:
        """Decrypt a segment, and tell whether it is what was written; if not, what is in `out` then means nothing."""
        return opened_into(self._aead, _NONCE.pack(number, last), stored, self._digest, out)


def read_lock(source: Readable, key: Key | None) -> tuple[Lock, Segments]:
    """Return the lock of a sealed file, opened, and the cipher of its segments; no segment is read.

    Raises
    ------
    WrongKeyError
        It cannot be opened with this key.
    IntegrityError, UnsafeError, UnsupportedVersionError, StorageError
    """
    facts, text, digest, proof = _read_header(source)
    try:
        cipher, slots = _parse(facts, text)
        lock = Lock(open_slots(slots, key, _CONTEXT), tuple(slots), cipher)
        segments = Segments(lock, facts, text)
    except QuantumMemoryError as error:
        raise error.at(source.name) from None
    if not hmac.compare_digest(segments.header[-2 * _DIGEST_BYTES :], digest + proof):
        raise _damaged(source, "its header is not what was written with this key")
    return lock, segments


def read_slots(source: Readable) -> list[Any]:
    """Return the key slots of a sealed file as they are written, which nobody has vouched for.

    Raises
    ------
    IntegrityError, StorageError, UnsupportedVersionError
    """
    facts, text, _, _ = _read_header(source)
    return _parse(facts, text)[1]


def _read_header(source: Readable) -> tuple[bytes, bytes, bytes, bytes]:
    """Return facts, slots, SHA-256 and proof; the SHA-256 has been checked, which finds damage, and no attacker."""
    if source.size < _FACTS.size:
        raise _damaged(source, "it is cut short")
    facts = source.read(0, _FACTS.size)
    signature, *_, length, _ = _FACTS.unpack(facts)
    if signature != SIGNATURE:
        raise _damaged(source, "it does not begin like an encrypted file: it is damaged, or was transferred as text")
    end = _FACTS.size + length
    if length > _MAX_SLOTS_BYTES or end + 2 * _DIGEST_BYTES > source.size:
        raise _damaged(source, "it is cut short, or its header is damaged")
    text, digest = source.read(_FACTS.size, length), source.read(end, _DIGEST_BYTES)
    proof = source.read(end + _DIGEST_BYTES, _DIGEST_BYTES)
    if hashlib.sha256(facts + text).digest() != digest:
        raise _damaged(source, "its header does not match its SHA-256")
    return facts, text, digest, proof


def _parse(facts: bytes, text: bytes) -> tuple[Cipher, list[Any]]:
    """Return what a header says that is whole, but may be of a later release, or made to do harm."""
    _, version, minimum, cipher, zero, segment_bytes, _, _ = _FACTS.unpack(facts)
    if minimum > VERSION or not 1 <= cipher <= len(CIPHERS):
        raise UnsupportedVersionError(
            f"it is an encrypted file of version {version} and needs a release that reads version {minimum}",
            next_step=UPGRADE,
        )
    try:
        slots = json.loads(text.decode("ascii"))
    except (ValueError, RecursionError):
        slots = None
    if zero or segment_bytes != SEGMENT_BYTES or not isinstance(slots, list):
        raise IntegrityError("its header is not well formed", next_step=RESTORE)
    return CIPHERS[cipher - 1], slots


def _damaged(source: Readable, what: str) -> IntegrityError:
    return IntegrityError(what, path=source.name, next_step=RESTORE)
