"""What holds for a folder of backups as a whole: its id, and which keys open it.

``config.json`` is there twice: without it, nothing that is encrypted can be opened any more.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from quantum_memory.durability.files import ReadableFile
from quantum_memory.errors import (
    ConflictError,
    IntegrityError,
    MissingError,
    QuantumMemoryError,
    UnsafeError,
    WrongKeyError,
)
from quantum_memory.lifecycle.repository.folder import now, stamp
from quantum_memory.lifecycle.repository.signed_json import MAX_BYTES, read_signed, write_signed
from quantum_memory.state.document import well_formed
from quantum_memory.state.json_text import from_json, max_nodes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from quantum_memory.encryption.keys import Key
    from quantum_memory.encryption.sealing import Sealer

_NAMES = ("config.json", "config-copy.json")
_KEYS = {"id", "created_at", "cipher", "slots"}
CIPHER = "aes-256-gcm"


@dataclass(frozen=True)
class Config:
    """What holds for a folder of backups.

    Attributes
    ----------
    id
        16 random bytes, in hexadecimal.
    created_at
        When it was made, ISO 8601, UTC.
    cipher
        What its chunks and manifests are sealed with; None where they are not.
    slots
        The master key, wrapped with each of the keys that open it (`encryption.keys`).
    """

    id: str
    created_at: str
    cipher: str | None = None
    slots: tuple[dict[str, Any], ...] = ()

    @property
    def context(self) -> bytes:
        """What its keys and chunks are bound to."""
        return b"backups " + self.id.encode()

    def sealer(self, key: Key | None, path: str) -> Sealer | None:
        """Return what seals and opens with a key; None where nothing is sealed.

        Raises
        ------
        WrongKeyError
            The key is not one of those that open it, or none is given.
        ConflictError
            A key is given, and nothing is sealed.
        """
        if self.cipher is None:
            if key is not None:
                raise ConflictError(
                    "a key is given, and these backups are not encrypted",
                    path=path,
                    next_step="leave the key out, or begin another folder of backups with it",
                )
            return None
        return self._sealer(self.master(key, path))

    def master(self, key: Key | None, path: str) -> bytes:
        """Return the master key; see `sealer`."""
        from quantum_memory.encryption.keys import open_slots  # noqa: PLC0415 - few need it

        try:
            return open_slots(list(self.slots), key, self.context)
        except QuantumMemoryError as error:
            raise error.at(path) from None

    def _sealer(self, master: bytes) -> Sealer:
        from quantum_memory.encryption.sealing import Sealer  # noqa: PLC0415 - as above

        return Sealer(master, self.context)

    def with_slots(self, slots: list[dict[str, Any]]) -> Config:
        """Return it with other keys."""
        return replace(self, slots=tuple(slots))


def new_config(key: Key | None, label: str = "") -> Config:
    """Return that of a new folder, encrypted where a key is given."""
    made = Config(secrets.token_hex(16), stamp(now()))
    if key is None:
        return made
    from quantum_memory.encryption.keys import new_slot  # noqa: PLC0415 - as above

    slot = new_slot(secrets.token_bytes(32), key, made.context, label)
    return replace(made, cipher=CIPHER, slots=(slot,))


def read_copies(folder: str) -> Iterator[tuple[str, Config | QuantumMemoryError | None]]:
    """Give what each of the two files says, an error where it cannot be read, and None where it is not there."""
    for name in _NAMES:
        path = os.path.join(folder, name)
        try:
            said = read_signed(path, _KEYS)
            with well_formed(path):
                yield name, None if said is None else config_of(said)
        except QuantumMemoryError as error:
            yield name, error


def salvaged_config(folder: str, key: Key) -> Config | None:
    """Return what a damaged file says, where that is proven by the key: it opens a slot only with the id of that time.

    Raises
    ------
    StorageError, UnsupportedVersionError
    """
    for name in _NAMES:
        path = os.path.join(folder, name)
        useless = contextlib.suppress(IntegrityError, UnsafeError, MissingError, WrongKeyError)
        with useless, ReadableFile(path) as source, well_formed(path):
            text = source.read(0, min(source.size, MAX_BYTES))
            found = config_of(from_json(text, max_nodes=max_nodes(8 * len(text))))
            found.master(key, path)
            return found
    return None


def read_config(folder: str) -> Config | None:
    """Return what holds for a folder; None where there is nothing yet.

    Raises
    ------
    IntegrityError, StorageError, UnsafeError
        Neither of the two files can be read.
    """
    first: QuantumMemoryError | None = None
    for _, found in read_copies(folder):
        if isinstance(found, Config):
            return found
        first = first or found
    if first is not None:
        raise first
    return None


def config_paths(folder: str) -> list[str]:
    """Return where the two files are, or would be."""
    return [os.path.join(folder, name) for name in _NAMES]


def a_copy_is_gone(folder: str) -> bool:
    """Tell whether one of the two files is not there, or both."""
    return not all(os.path.lexists(os.path.join(folder, name)) for name in _NAMES)


def as_json(config: Config) -> dict[str, Any]:
    """Return it as JSON has it."""
    return {"id": config.id, "created_at": config.created_at, "cipher": config.cipher, "slots": list(config.slots)}


def config_of(said: dict[str, Any]) -> Config:
    """Return what `as_json` gave.

    Raises
    ------
    IntegrityError
        It did not.
    """
    texts = (said["id"], said["created_at"])
    if not all(isinstance(text, str) and text.isascii() for text in texts) or said["cipher"] not in {None, CIPHER}:
        raise IntegrityError("its id, time or cipher is none that there can be")
    if not isinstance(said["slots"], list) or (said["cipher"] is None) != (said["slots"] == []):
        raise IntegrityError("its keys are not well formed")
    return Config(*texts, said["cipher"], tuple(said["slots"]))


def write_config(folder: str, config: Config) -> None:
    """Write what holds for a folder, twice; the store has to be held alone, unless nobody else knows the folder.

    Whoever leaves out syncs does not leave out these: without it nobody opens the backups that others made durable.
    """
    for name in reversed(_NAMES):  # the first one last: while it is the old one, the old keys hold
        _write(folder, name, config)


def complete_config(folder: str, config: Config) -> None:
    """Write which of the two files is not there; the store has to be held alone.

    Parameters
    ----------
    config
        What the other one says.
    """
    for name in _NAMES:
        if not os.path.lexists(os.path.join(folder, name)):
            _write(folder, name, config)


def _write(folder: str, name: str, config: Config) -> None:
    write_signed(os.path.join(folder, name), as_json(config), durable=True, mode=0o600)
