"""Keys, and the slots by which any of several keys opens one thing.

What is encrypted has a random master key of its own. A *slot* holds that master key, wrapped under a key of somebody's:
a passphrase or a file. So keys are added and taken away without encrypting anything anew. ``docs/encryption.md`` is the
specification.
"""

from __future__ import annotations

import base64
import datetime
import json
import os
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from quantum_memory.durability.atomic import DurableFile
from quantum_memory.durability.files import ReadableFile
from quantum_memory.encryption.primitives import (
    KEY_BYTES,
    NONCE_BYTES,
    TAG_BYTES,
    aead,
    framed,
    hkdf,
    normalised,
    opened,
    scrypt,
)
from quantum_memory.errors import (
    RESTORE,
    UPGRADE,
    IntegrityError,
    InvalidStateError,
    QuantumMemoryError,
    UnsafeError,
    UnsupportedVersionError,
    WrongKeyError,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    Path = str | os.PathLike[str]
    OneKey: TypeAlias = "Key | str"
    Keys: TypeAlias = "Key | str | Sequence[Key | str]"

MAX_SLOTS = 16
MAX_LABEL = 200
"""Characters of a label."""

_VERSION = 1
_SCRYPT, _HKDF = "scrypt", "hkdf-sha256"
_SALT_BYTES = 32
_COST = (1 << 17, 8, 1)
_MOST = (1 << 20, 32, 16)
_MOST_WORK, _MOST_WORK_OF_ALL = 1 << 23, 1 << 24
"""Bounds of n, r and p, of their product, which keeps a slot within 1 GiB, and of its sum: 16 slots as they are made.
"""

_COMMITTED = bytes(32)
"""What stands before a wrapped master key. GCM alone lets one ciphertext be made that opens under two keys."""

_LEAST_FILE, _MOST_FILE = 32, 1 << 20
_FIELDS = {"version", "kdf", "salt", "nonce", "wrapped", "label", "created_at"}
_COSTS = ("n", "r", "p")

_GIVE = {
    frozenset({_HKDF}): "give its key file, which alone opens it: by key=, --key-file, or QMEM_KEY_FILE",
    frozenset({_SCRYPT}): "give its passphrase, which alone opens it: by key=, --passphrase-file, or QMEM_PASSPHRASE",
}
_GIVE_ANY = "give key=, --key-file or --passphrase-file, or QMEM_KEY_FILE or QMEM_PASSPHRASE in the environment"
"""The next steps of whoever opens what is encrypted without a key, by what opens it."""


class Key:
    """What opens what is encrypted: a passphrase, or the bytes of a file. It shows nothing of itself, and no pickle.

    Examples
    --------
    >>> Key.from_passphrase("correct horse battery staple")
    <Key>
    """

    __slots__ = ("_derived", "_kdf", "_salt", "_secret")

    def __init__(self, secret: bytes, kdf: str) -> None:
        self._secret = secret
        self._kdf = kdf
        # Deriving a key from a passphrase takes about a second. Slots that one object makes share their salt, and what
        # was derived is kept beside the passphrase itself, so that this happens once and not for each of many files.
        self._salt: bytes | None = None
        self._derived: dict[tuple[bytes, tuple[int, ...]], bytes] = {}

    @classmethod
    def from_passphrase(cls, text: str) -> Key:
        """Return the key that a passphrase is.

        However the letters are composed by a keyboard, it is the same passphrase (NFKC). Each guess at it takes 128 MiB
        of memory and about a second, which does not make up for one that is short or well known.

        Raises
        ------
        InvalidStateError
            It is empty, or no text.
        """
        return cls(normalised(text), _SCRYPT)

    @classmethod
    def from_file(cls, path: Path) -> Key:
        """Return the key that a file is: all its bytes, but for the line ends at the end of it.

        Its bytes are to be random, as `new_file` makes them: guesses at them cost nothing.

        Raises
        ------
        InvalidStateError
            It has fewer than 32 bytes, or more than 1 MiB.
        MissingFileError, UnsafeError, StorageError
        """
        with ReadableFile(os.fspath(path)) as source:
            if source.size > _MOST_FILE:
                raise InvalidStateError(
                    f"a key file has at most {_MOST_FILE} bytes", path=source.name, next_step="check the path"
                )
            secret = source.read(0, source.size).rstrip(b"\r\n")
            if len(secret) < _LEAST_FILE:
                raise InvalidStateError(
                    f"a key file has at least {_LEAST_FILE} bytes, line ends at its end not counted",
                    path=source.name,
                    next_step="make one with Key.new_file, or use the words in it as a passphrase",
                )
            return cls(secret, _HKDF)

    @classmethod
    def new_file(cls, path: Path) -> Key:
        """Write a new key file, durably and readable for its owner only, and return the key.

        It has 32 random bytes, written as one line of Base64. A file that is there is never replaced.

        Raises
        ------
        ConflictError, MissingFileError, StorageError
        """
        text = base64.b64encode(os.urandom(KEY_BYTES))
        with DurableFile(path, overwrite=False, mode=0o600) as sink:
            sink.write(text + b"\n")
        return cls(text, _HKDF)

    def __repr__(self) -> str:
        return "<Key>"

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError("a key is not pickled or copied")


def key_of(given: OneKey | None) -> Key | None:
    """Return what somebody gave to open something with: a key, or a passphrase as plain text.

    Raises
    ------
    InvalidStateError
        It is neither.
    """
    return None if given is None else keys_of([given])[0]


def keys_of(given: Keys) -> tuple[Key, ...]:
    """Return what somebody gave as a key, or as several: keys, and passphrases as plain text.

    Raises
    ------
    InvalidStateError
        It is none, or there are none, or too many.
    """
    several = [given] if isinstance(given, Key | str) else given
    if not isinstance(several, list | tuple) or not 0 < len(several) <= MAX_SLOTS:
        raise InvalidStateError(
            f"a key is a Key, a passphrase, or a list of 1 to {MAX_SLOTS} of these",
            next_step="use Key.from_file or Key.from_passphrase",
        )
    for one in several:
        if not isinstance(one, Key | str):
            raise InvalidStateError("it is no key", next_step="use Key.from_file or Key.from_passphrase")
    return tuple(one if isinstance(one, Key) else Key.from_passphrase(one) for one in several)


def new_slot(master: bytes, key: Key, context: bytes, label: str = "") -> dict[str, Any]:
    """Wrap a master key of 32 bytes under a key.

    Parameters
    ----------
    context
        What the master key is for; with another context the slot is not opened.
    label
        For people. It is not secret.

    Returns
    -------
    dict
        The slot, of plain text and integers.
    """
    if len(label) > MAX_LABEL:
        raise InvalidStateError(f"a label has at most {MAX_LABEL} characters", next_step="give a shorter one")
    key._salt = key._salt or os.urandom(_SALT_BYTES)
    costs = _COST if key._kdf == _SCRYPT else ()
    nonce = os.urandom(NONCE_BYTES)
    slot = {
        "version": _VERSION,
        "kdf": key._kdf,
        **dict(zip(_COSTS, costs, strict=False)),
        "salt": _text(key._salt),
        "nonce": _text(nonce),
        "label": label,
        "created_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    wrapping = aead("aes-256-gcm", _derive(key, key._salt, costs))
    wrapped = wrapping.encrypt(nonce, _COMMITTED + master, _associated(slot, context))
    return slot | {"wrapped": _text(wrapped)}


def open_slots(slots: Sequence[Any], key: Key | None, context: bytes) -> bytes:
    """Return the master key that one of the slots holds for this key.

    What slots say is looked at before anything is computed: 16 slots, 1 GiB of memory and sixteen times the work of a
    slot as `new_slot` makes it are the most that they can ask for.

    Raises
    ------
    WrongKeyError
        None does, for whatever reason; or no key is given.
    IntegrityError, UnsafeError, UnsupportedVersionError
        None does, and one of them is no slot, or asks for too much, or was made by a later release.
    """
    if not isinstance(slots, list | tuple) or not 0 < len(slots) <= MAX_SLOTS:
        raise UnsafeError(f"it does not have 1 to {MAX_SLOTS} key slots", next_step="do not trust this file")
    if key is None:
        raise WrongKeyError("it is encrypted, and no key was given", next_step=_GIVE.get(_kinds(slots), _GIVE_ANY))
    unusable: QuantumMemoryError | None = None
    work = 0
    for one in slots:
        try:
            slot = _Slot.read(one)
            work += slot.work
            if work > _MOST_WORK_OF_ALL:
                raise _too_much()
        except QuantumMemoryError as error:
            unusable = unusable or error
            continue
        if slot.kdf != key._kdf:
            continue
        wrapping = aead("aes-256-gcm", _derive(key, slot.salt, slot.costs))
        plain = opened(wrapping, slot.nonce, slot.wrapped, _associated(one, context))
        if plain is not None and plain.startswith(_COMMITTED):
            return plain[len(_COMMITTED) :]
    raise unusable or WrongKeyError("it cannot be opened with this key", next_step="give the key it was encrypted with")


def takes_passphrase(slots: Sequence[Any]) -> bool:
    """Tell whether a passphrase may open something: not where all of its slots are of key files."""
    return _kinds(slots) != {_HKDF}


def _kinds(slots: Sequence[Any]) -> frozenset[str]:
    """Return what opens slots, as they say themselves; that one says nothing of it is a kind as well."""
    return frozenset(str(one.get("kdf") if isinstance(one, dict) else None) for one in slots)


class _Slot(NamedTuple):
    kdf: str
    costs: tuple[int, ...]
    salt: bytes
    nonce: bytes
    wrapped: bytes

    @property
    def work(self) -> int:
        """What deriving its key takes."""
        n, r, p = self.costs or (0, 0, 0)
        return n * r * p

    @classmethod
    def read(cls, said: Any) -> _Slot:
        """Return a slot as it is written, within its bounds."""
        if not isinstance(said, dict) or type(said.get("version")) is not int:
            raise _malformed()
        kdf = said.get("kdf")
        if said["version"] > _VERSION or (isinstance(kdf, str) and kdf not in {_SCRYPT, _HKDF}):
            raise UnsupportedVersionError(
                "it cannot be opened with this key, and has a key slot that this release does not know",
                next_step=UPGRADE,
            )
        names = _COSTS if kdf == _SCRYPT else ()
        texts = ("salt", "nonce", "wrapped", "label", "created_at")
        if (
            said["version"] != _VERSION
            or said.keys() != {*_FIELDS, *names}
            or not all(type(said[name]) is str for name in texts)
            or not all(type(said[name]) is int for name in names)
            or len(said["label"]) > MAX_LABEL
        ):
            raise _malformed()
        costs = tuple(said[name] for name in names)
        if costs:
            _check_costs(*costs)
        lengths = (_SALT_BYTES, NONCE_BYTES, len(_COMMITTED) + KEY_BYTES + TAG_BYTES)
        salt, nonce, wrapped = (_bytes(said[name], length) for name, length in zip(texts, lengths, strict=False))
        return cls(str(kdf), costs, salt, nonce, wrapped)


def _check_costs(n: int, r: int, p: int) -> None:
    if min(n, r, p) < 1 or n < 2 or n & (n - 1) or n.bit_length() > 16 * r:  # RFC 7914
        raise _malformed()
    if any(cost > most for cost, most in zip((n, r, p), _MOST, strict=True)) or n * r * p > _MOST_WORK:
        raise _too_much()


def _derive(key: Key, salt: bytes, costs: tuple[int, ...]) -> bytes:
    if key._kdf == _HKDF:
        return hkdf(key._secret, b"quantum-memory key slot 1", salt)
    where = (salt, costs)
    derived = key._derived.get(where)
    if derived is None:
        if len(key._derived) >= MAX_SLOTS:
            key._derived.clear()
        derived = key._derived[where] = scrypt(key._secret, salt, *costs)
    return derived


def _associated(slot: dict[str, Any], context: bytes) -> bytes:
    """Return what is authenticated with a wrapped key: all that its slot says, and what it is for."""
    said = {name: value for name, value in slot.items() if name != "wrapped"}
    return framed(b"quantum-memory key slot", context, json.dumps(said, sort_keys=True, separators=(",", ":")).encode())


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _bytes(text: str, length: int) -> bytes:
    """Return what Base64 stands for, if it is written as `_text` writes it."""
    try:
        data = base64.b64decode(text.encode("ascii"), validate=True)
    except ValueError:
        data = b""
    if len(data) != length or _text(data) != text:
        raise _malformed()
    return data


def _malformed() -> IntegrityError:
    return IntegrityError("it has a key slot that is not well formed", next_step=RESTORE)


def _too_much() -> UnsafeError:
    return UnsafeError(
        "one of its key slots asks for more memory or time than is allowed",
        next_step="do not trust this file: no release writes one like it",
    )
