"""Chunks of bytes, sealed: nobody without the key can read them, change them unnoticed, or put one in another's place.

A master key of 32 random bytes gives two subkeys (HKDF-SHA256 with an info of its own for each): one that seals, and
one that makes names. ``docs/encryption.md`` is the specification.
"""

from __future__ import annotations

import hmac
import os
from typing import TYPE_CHECKING

from quantum_memory.encryption.primitives import (
    KEY_BYTES,
    NONCE_BYTES,
    TAG_BYTES,
    Cipher,
    aead,
    framed,
    hkdf,
    opened,
)
from quantum_memory.errors import RESTORE, IntegrityError, InvalidStateError

if TYPE_CHECKING:
    from quantum_memory.durability.files import Buffer

OVERHEAD = NONCE_BYTES + TAG_BYTES
"""By how many bytes what is sealed is longer."""

_NAME = b"quantum-memory name 1"
_SEAL = b"quantum-memory seal 1"


class Sealer:
    """Seals chunks under a master key, for any number of threads at once.

    The nonces are random, of 96 bits. With one master key at most 2**32 chunks are sealed, which is 4 PiB of chunks of
    1 MiB: up to there, the chance that two of all nonces are the same is below 2**-32.

    Parameters
    ----------
    master
        32 random bytes.
    context
        What the chunks belong to, such as the id of a repository. One that was sealed in another is not opened here.
    cipher
        "aes-256-gcm", or "chacha20-poly1305", which is the faster one on processors that have no instructions for AES.
    """

    def __init__(self, master: bytes, context: bytes, cipher: Cipher = "aes-256-gcm") -> None:
        if len(master) != KEY_BYTES:
            raise InvalidStateError(f"a master key has {KEY_BYTES} bytes", next_step="give one of that length")
        self._aead = aead(cipher, hkdf(master, framed(_SEAL, cipher.encode())))
        self._naming = hkdf(master, _NAME)
        self._context = context

    def name(self, raw: Buffer) -> bytes:
        """Return 32 bytes that stand for a content.

        They are an HMAC-SHA256, so that nobody without the key can test whether a content that he knows is there.
        """
        return hmac.new(self._naming, raw, "sha256").digest()

    def seal(self, data: Buffer, kind: bytes, name: bytes) -> bytes:
        """Return `data`, at most 2**31 - 1 bytes of it, as nonce, ciphertext and tag.

        Parameters
        ----------
        kind, name
            What it is ("chunk", "manifest", ...) and what it is called. It is opened under these only.
        """
        nonce = os.urandom(NONCE_BYTES)
        return nonce + self._aead.encrypt(nonce, data, framed(self._context, kind, name))

    def open(self, sealed: Buffer, kind: bytes, name: bytes) -> bytes:
        """Return what was sealed as this kind under this name.

        Raises
        ------
        IntegrityError
            It was not: it is damaged, or stood elsewhere, or was sealed under another key.
        """
        view = memoryview(sealed).cast("B")
        raw = opened(self._aead, bytes(view[:NONCE_BYTES]), view[NONCE_BYTES:], framed(self._context, kind, name))
        if raw is None:
            raise IntegrityError(
                "its encrypted bytes do not match their tag: they are damaged, or were put in the place of others",
                next_step=RESTORE,
            )
        return raw
