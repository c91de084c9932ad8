"""The few primitives that are used, from the `cryptography` package, which is imported when the first is needed."""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING, Literal, Protocol, get_args

from quantum_memory.errors import BudgetError, InvalidStateError, MissingError

if TYPE_CHECKING:
    from quantum_memory.durability.files import Buffer

Cipher = Literal["aes-256-gcm", "chacha20-poly1305"]
CIPHERS: tuple[Cipher, ...] = get_args(Cipher)
KEY_BYTES = 32
NONCE_BYTES = 12
TAG_BYTES = 16


class AEAD(Protocol):
    """Encryption that also authenticates, as `cryptography` has it, for any number of threads."""

    def encrypt(self, nonce: bytes, data: Buffer, associated_data: bytes) -> bytes: ...
    def decrypt(self, nonce: Buffer, data: Buffer, associated_data: bytes) -> bytes: ...
    def encrypt_into(self, nonce: bytes, data: Buffer, associated_data: bytes, buf: Buffer) -> int: ...
    def decrypt_into(self, nonce: bytes, data: Buffer, associated_data: bytes, buf: Buffer) -> int: ...


def check_installed() -> None:
    """Say what to install where nothing can be encrypted.

    Raises
    ------
    MissingError
    """
    try:
        import cryptography  # noqa: F401, PLC0415 - whether it can be
    except ImportError:
        raise MissingError(
            "encryption needs the package cryptography, which is not installed",
            next_step="pip install 'quantum-memory[encryption]'",
        ) from None


def aead(cipher: str, key: bytes) -> AEAD:
    """Return a cipher with a key of 32 bytes.

    Raises
    ------
    InvalidStateError
        There is no such cipher.
    MissingError
    """
    check_installed()
    from cryptography.hazmat.primitives.ciphers import aead as ciphers  # noqa: PLC0415 - few states are encrypted

    if cipher == "aes-256-gcm":
        return ciphers.AESGCM(key)
    if cipher == "chacha20-poly1305":
        return ciphers.ChaCha20Poly1305(key)
    raise InvalidStateError(f"there is no cipher {cipher!r:.40}", next_step=f"use one of {', '.join(CIPHERS)}")


def opened(cipher: AEAD, nonce: bytes, sealed: Buffer, associated: bytes) -> bytes | None:
    """Return what was encrypted, or None when the tag does not match, or is not there."""
    from cryptography.exceptions import InvalidTag  # noqa: PLC0415 - as above

    if len(nonce) < NONCE_BYTES:
        return None
    try:
        return cipher.decrypt(nonce, sealed, associated)
    except InvalidTag:
        return None


def opened_into(cipher: AEAD, nonce: bytes, sealed: Buffer, associated: bytes, out: Buffer) -> bool:
    """Decrypt into `out`, which has the length of what was encrypted, and tell whether the tag matches."""
    from cryptography.exceptions import InvalidTag  # noqa: PLC0415 - as above

    try:
        cipher.decrypt_into(nonce, sealed, associated, out)
    except InvalidTag:
        return False
    return True


def hkdf(secret: bytes, info: bytes, salt: bytes | None = None, length: int = KEY_BYTES) -> bytes:
    """Return a key for one purpose, which `info` names, made of a secret that is random already (HKDF-SHA256)."""
    check_installed()
    from cryptography.hazmat.primitives.hashes import SHA256  # noqa: PLC0415 - as above
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF  # noqa: PLC0415

    return HKDF(SHA256(), length, salt, info).derive(secret)


def scrypt(passphrase: bytes, salt: bytes, n: int, r: int, p: int) -> bytes:
    """Return a key made of a passphrase; it takes ``128 * n * r`` bytes of memory, and time, which is the point of it.

    Raises
    ------
    BudgetError
        There is no such memory.
    """
    check_installed()
    from cryptography.hazmat.primitives.kdf.scrypt import Scrypt  # noqa: PLC0415 - as above

    try:
        return Scrypt(salt, KEY_BYTES, n, r, p).derive(passphrase)
    except MemoryError as error:
        raise BudgetError(
            f"trying a passphrase takes {128 * n * r} bytes of memory, which this machine does not give",
            next_step="free some memory, and try again",
        ) from error


def framed(*parts: bytes) -> bytes:
    """Return parts as one, each behind its length in 8 bytes, so that no two lists of parts give the same bytes."""
    return b"".join(len(part).to_bytes(8, "little") + part for part in parts)


def normalised(passphrase: str) -> bytes:
    """Return a passphrase as bytes that do not depend on how a keyboard composes its letters (NFKC, UTF-8).

    Raises
    ------
    InvalidStateError
        It is empty, or no text.
    """
    try:
        encoded = unicodedata.normalize("NFKC", passphrase).encode()
    except (UnicodeEncodeError, TypeError):
        encoded = b""
    if not encoded:
        raise InvalidStateError("a passphrase is text, and not empty", next_step="give another one")
    return encoded
