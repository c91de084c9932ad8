"""Check a pushed folder where it is: every object is compared with its name, and every backup with what is there.

No key is needed, and no folder: the names say what the objects are to be, and the manifests which chunks they need. Of
a backup that is gone as a whole nobody knows but the folder, from which it is sent anew by the next push.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from quantum_memory.durability.files import ReadableBytes
from quantum_memory.errors import IntegrityError, MissingError, QuantumMemoryError, UnsafeError, UnsupportedVersionError
from quantum_memory.lifecycle.backups.folder import BackupFolder
from quantum_memory.lifecycle.backups.in_flight import in_flight
from quantum_memory.lifecycle.backups.pushed import CLAIM, CONFIGS, pushed_at, read_part
from quantum_memory.lifecycle.backups.pushed_files import chunks_in, small_file
from quantum_memory.lifecycle.backups.pushed_owner import config_at, missing, owner
from quantum_memory.lifecycle.repository.manifest_file import read_whole

if TYPE_CHECKING:
    from collections.abc import Callable

    from quantum_memory.lifecycle.backups.pushed import Part, Pushed, Version
    from quantum_memory.lifecycle.backups.targets import Target

_DAMAGE = (IntegrityError, UnsafeError, UnsupportedVersionError, MissingError)
_TRIES = 3


@dataclass
class Checked:
    """What a check of a target has found: true when nothing is wrong.

    Attributes
    ----------
    target
        The address.
    objects, nbytes
        How many were read, and their bytes.
    backups
        Ids of those that can be pulled whole, the newest first.
    damaged
        What is wrong with which object, by key.
    broken
        Why a backup cannot be pulled whole, by id.
    others
        How many objects are there that no push makes.
    """

    target: str
    objects: int = 0
    nbytes: int = 0
    backups: list[str] = field(default_factory=list)
    damaged: dict[str, str] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)
    others: int = 0

    def __bool__(self) -> bool:
        return not self.damaged and not self.broken

    def to_dict(self) -> dict[str, Any]:
        """Return it as a plain dict."""
        return asdict(self)


def check(target: Target, progress: Callable[[int], object] | None = None) -> Checked:
    """Check what is at a target, every byte of it.

    Parameters
    ----------
    progress
        Called with the bytes of each object that was read.

    Raises
    ------
    MissingFileError
        Nothing was pushed there.
    StorageError
        It cannot be reached, or refuses.
    """
    found = pushed_at(target)
    if not found:
        raise missing(target)
    for _ in range(_TRIES):
        done = _checked(target, found, progress)
        before, found = found, pushed_at(target)
        if done or found == before:
            break
        progress = None  # others have removed something meanwhile: what is gone may be gone for good reason
    return done


def _checked(target: Target, found: Pushed, progress: Callable[[int], object] | None) -> Checked:
    done = Checked(target.name, others=len(found.others))

    def wrong_with(one: Part | Version) -> tuple[Part | Version, str | None]:
        try:
            read_part(target, one)
        except _DAMAGE as error:
            return one, error.message
        return one, None

    every: list[Part | Version] = [version for versions in found.versions.values() for version in versions]
    every += [part for each in found.parts.values() for parts in each.values() for part in parts.values()]
    for one, wrong in in_flight(wrong_with, every):
        done.objects += 1
        done.nbytes += one.nbytes
        if wrong is not None:
            done.damaged[one.key] = wrong
        if progress is not None:
            progress(one.nbytes)
    _check_owner(target, found, done)
    _check_backups(target, found, done)
    return done


def _check_owner(target: Target, found: Pushed, done: Checked) -> None:
    problems: list[QuantumMemoryError] = []
    done.objects += found.claimed
    try:
        owned_by = owner(target, found, problems)
        config = config_at(target, found)[0]
        if not found.claimed:
            done.damaged[CLAIM] = "it is gone"
        elif problems:
            done.damaged[CLAIM] = problems[0].message
        elif config is not None and config.id != owned_by:
            done.damaged[CLAIM] = "it is of another folder than config.json"
        elif config is None and not found.versions.get(CONFIGS[0]):
            done.damaged[CONFIGS[0]] = "it is gone"
    except IntegrityError as error:
        done.damaged[CLAIM] = error.message


def _check_backups(target: Target, found: Pushed, done: Checked) -> None:
    """Find out which backups have all of their chunks in packs that are whole."""
    there: set[bytes] = set()
    for name in found.packs():
        whole = found.whole(f"chunks/{name}")
        if whole is not None and not any(part.key in done.damaged for part in whole[1]):
            try:
                there |= chunks_in(target, found, name)
            except _DAMAGE as error:
                done.damaged[f"chunks/{name}"] = error.message
    for one in found.backups():
        name = f"backups/{one}{BackupFolder.suffix}"
        try:
            data = small_file(target, found, name)
            chunks = read_whole(ReadableBytes(data, target.where(name)), BackupFolder.kind)[1].chunk_names()
        except _DAMAGE as error:
            done.broken[one] = error.message
            continue
        if lacking := len(chunks - there):
            done.broken[one] = f"{lacking} of its {len(chunks)} chunks are in packs that are damaged there, or gone"
        else:
            done.backups.append(one)
