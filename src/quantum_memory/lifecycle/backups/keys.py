"""The keys that open a folder of backups: what is sealed stays as it is, since a key opens a slot and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from quantum_memory.errors import ConflictError, MissingError, QuantumMemoryError
from quantum_memory.lifecycle.backups.config import read_config

if TYPE_CHECKING:
    from quantum_memory.encryption.keys import Key
    from quantum_memory.lifecycle.backups.config import Config
    from quantum_memory.lifecycle.backups.folder import BackupFolder

_KINDS = {"scrypt": "passphrase", "hkdf-sha256": "key file"}


def listed(folder: BackupFolder) -> list[dict[str, Any]]:
    """Return what is known of each key: ``number``, ``label``, ``kind`` and ``created_at``."""
    config = current_config(folder)
    return [
        {
            "number": number,
            "label": slot.get("label", ""),
            "kind": _KINDS.get(str(slot.get("kdf")), "unknown"),
            "created_at": slot.get("created_at", ""),
        }
        for number, slot in enumerate(config.slots, 1)
    ]


def add(folder: BackupFolder, key: Key, label: str = "") -> None:
    """Let another key open a folder.

    Raises
    ------
    ConflictError
        It does already, or as many do as can, or nothing is encrypted.
    """
    with folder.store.alone():
        config = _now(folder)
        slots = [*config.slots, _new_slot(folder, config, key, label)]
        folder.change_config(config.with_slots(slots))
        folder.note("key added", label=label or None)


def remove(folder: BackupFolder, which: str) -> None:
    """Have a key open nothing any more; it has to be one of several.

    Parameters
    ----------
    which
        Its label, or its number.

    Raises
    ------
    MissingError
        There is no such key.
    ConflictError
        It is the last one, or several have this label.
    """
    with folder.store.alone():
        config = _now(folder)
        index = _index(folder, config, which)
        if len(config.slots) == 1:
            raise ConflictError(
                "it is the last key, and nobody could open these backups any more",
                path=folder.path,
                next_step="add another one first, or delete the backups",
            )
        slots = [slot for number, slot in enumerate(config.slots) if number != index]
        folder.change_config(config.with_slots(slots))
        folder.note("key removed", label=config.slots[index].get("label") or None)


def change(folder: BackupFolder, key: Key) -> None:
    """Put a key in the place of the one that the folder was opened with; it keeps the label."""
    with folder.store.alone():
        config = _now(folder)
        index = next(number for number, slot in enumerate(config.slots) if _opens(config, slot, folder.key))
        made = _new_slot(folder, config, key, config.slots[index].get("label", ""), instead=True)
        slots = [made if number == index else slot for number, slot in enumerate(config.slots)]
        folder.change_config(config.with_slots(slots))
        folder.key = key
        folder.note("key changed", label=made["label"] or None)


def current_config(folder: BackupFolder) -> Config:
    """Return what holds for a folder now, and not when it was opened: others may have taken a key away since."""
    known = folder.config
    return read_config(folder.path) or known


def _now(folder: BackupFolder) -> Config:
    """Return what holds for a folder now, whose keys are about to be changed."""
    config = current_config(folder)
    if config.cipher is None:
        raise ConflictError(
            "these backups are not encrypted",
            path=folder.path,
            next_step="export them, and import them into a folder that is made with a key",
        )
    config.master(folder.key, folder.path)  # whose own key was taken away changes nothing
    return config


def _new_slot(folder: BackupFolder, config: Config, key: Key, label: str, *, instead: bool = False) -> dict[str, Any]:
    from quantum_memory.encryption.keys import MAX_SLOTS, new_slot  # noqa: PLC0415 - few need it

    if any(_opens(config, slot, key) for slot in config.slots):
        raise ConflictError(
            "this key opens these backups already", path=folder.path, next_step="give another key, or leave it so"
        )
    if len(config.slots) == MAX_SLOTS and not instead:
        raise ConflictError(f"they have {MAX_SLOTS} keys already", path=folder.path, next_step="remove one first")
    return new_slot(config.master(folder.key, folder.path), key, config.context, label)


def _opens(config: Config, slot: dict[str, Any], key: Key | None) -> bool:
    try:
        config.with_slots([slot]).master(key, "")
    except QuantumMemoryError:
        return False
    return True


def _index(folder: BackupFolder, config: Config, which: str) -> int:
    found = [number for number, slot in enumerate(config.slots) if which and slot.get("label") == which]
    if len(found) > 1:
        numbers = ", ".join(str(number + 1) for number in found)
        raise ConflictError(
            f"{len(found)} keys have the label {which!r:.80}", path=folder.path, next_step=f"give a number: {numbers}"
        )
    if not found and which.isdecimal() and 0 < int(which) <= len(config.slots):
        return int(which) - 1
    if not found:
        then = folder.command("key list  # shows them")
        raise MissingError(f"there is no key {which!r:.80}", path=folder.path, next_step=then)
    return found[0]
