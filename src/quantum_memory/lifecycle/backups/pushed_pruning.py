"""Remove at a target what the folder has removed: manifests first, then packs that no backup there needs any more.

Others may push the same folder from elsewhere, and have backups that this one has never had: these stay, and so do the
packs that they need. Nothing is removed while somebody pushes (`presence`).
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from quantum_memory.durability.files import ReadableBytes, ReadableFile
from quantum_memory.durability.pack import COPY_SUFFIX
from quantum_memory.errors import ConflictError, IntegrityError, MissingFileError, QuantumMemoryError
from quantum_memory.lifecycle.backups import presence
from quantum_memory.lifecycle.backups.memory import remember_pushed, remembered_pushed
from quantum_memory.lifecycle.backups.pushed import MEND, edition_of, pushed_at, read_part
from quantum_memory.lifecycle.backups.pushed_files import chunks_in, small_file
from quantum_memory.lifecycle.repository.manifest_file import read_whole

if TYPE_CHECKING:
    from collections.abc import Iterator

    from quantum_memory.lifecycle.backups.folder import BackupFolder
    from quantum_memory.lifecycle.backups.presence import Presence
    from quantum_memory.lifecycle.backups.pushed import Pushed
    from quantum_memory.lifecycle.backups.sent import Sent
    from quantum_memory.lifecycle.backups.targets import Target

_AT_ONCE = 500


@dataclass
class Plan:
    """What goes, and in which order.

    Attributes
    ----------
    backups
        Ids of the backups that go.
    keys
        Of their objects, and of others that nobody needs then.
    nbytes
        Of all of these.
    """

    backups: list[str] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    nbytes: int = 0


def prune(folder: BackupFolder, target: Target, done: Sent, *, dry_run: bool) -> None:
    """Remove what the folder has removed since it was pushed, and what nobody needs then.

    Parameters
    ----------
    done
        Where it is noted.

    Raises
    ------
    ConflictError
        Others are at work at the target.
    IntegrityError
        A manifest there cannot be read, so that nobody knows which packs it needs: nothing was removed.
    """
    if dry_run:
        _note(done, _planned(folder, target))
        return
    with presence.pushing(target) as own, presence.alone(target, own) as mark:
        plan = _planned(folder, target)
        for at in range(0, len(plan.keys), _AT_ONCE):
            _check(target, mark, own)
            target.remove(plan.keys[at : at + _AT_ONCE])
        _note(done, plan)
    remember_pushed(folder, (), without=plan.backups)


def _check(target: Target, *marks: Presence) -> None:
    for mark in marks:
        mark.renew()
        if not mark.lasted:
            raise ConflictError(
                "it took so long that others may be at work there", path=target.name, next_step="prune once more"
            )


def _note(done: Sent, plan: Plan) -> None:
    done.removed, done.bytes_removed = plan.backups, plan.nbytes


def _planned(folder: BackupFolder, target: Target) -> Plan:
    found, plan = pushed_at(target), Plan()
    known = remembered_pushed(folder)
    with folder.held():
        here = set(folder.ids())
        plan.backups = [one for one in found.backups() if one in known and one not in here]
        for one in plan.backups:
            plan.keys += found.keys(_manifest(folder, one))
        for one in sorted(here):  # what it was before it was mended, or purged
            name = _manifest(folder, one)
            with contextlib.suppress(MissingFileError):
                edition = edition_of(folder.manifest_path(one))
                if found.has(name, edition):
                    plan.keys += found.keys(name, without=edition)
        needed: set[bytes] = set()
        for one in set(found.backups()).difference(plan.backups):
            needed |= _needed(folder, target, found, one)
        plan.keys += _useless_packs(folder, target, found, needed)
    plan.keys += _old_versions(target, found)
    sizes = {
        part.key: part.nbytes for each in found.parts.values() for parts in each.values() for part in parts.values()
    }
    plan.nbytes = sum(sizes.get(key, 0) for key in plan.keys)
    return plan


def _manifest(folder: BackupFolder, one: str) -> str:
    return f"backups/{one}{folder.suffix}"


def _needed(folder: BackupFolder, target: Target, found: Pushed, one: str) -> set[bytes]:
    """Return the chunks that a backup needs which stays there; of one that is not there as a whole, none."""
    name = _manifest(folder, one)
    whole = found.whole(name)
    if whole is None:
        return set()
    path = folder.manifest_path(one)
    with contextlib.suppress(QuantumMemoryError):
        if edition_of(path) == whole[0]:
            with ReadableFile(path) as source:
                return read_whole(source, folder.kind)[1].chunk_names()
    try:
        source_there = ReadableBytes(small_file(target, found, name), target.where(name))
        return read_whole(source_there, folder.kind)[1].chunk_names()
    except IntegrityError as error:
        error.message += ": nobody knows which packs it needs, and none is removed"
        error.next_step = MEND
        raise


def _useless_packs(folder: BackupFolder, target: Target, found: Pushed, needed: set[bytes]) -> Iterator[str]:
    """Give the keys of packs that the folder has no more, and in which nothing is that is needed and nowhere else."""
    store = folder.store
    own = set(store.packs) | set(store.damaged)
    there = found.packs()
    left = set(needed)
    for name in there:
        if name in store.packs and found.whole(f"chunks/{name}") is not None:
            left.difference_update(store.chunks_of(name))
    for name in there:
        if name in own:
            continue
        if found.whole(f"chunks/{name}") is not None:
            try:
                chunks = chunks_in(target, found, name)
            except IntegrityError:
                continue  # whatever is in it
            if not left.isdisjoint(chunks):
                left -= chunks
                continue
        yield from found.keys(f"chunks/{name}")
        yield from found.keys(f"chunks/{name.rpartition('.')[0]}{COPY_SUFFIX}")


def _old_versions(target: Target, found: Pushed) -> Iterator[str]:
    """Give the keys of small files that are not the newest, where that is whole."""
    for versions in found.versions.values():
        with contextlib.suppress(IntegrityError):
            read_part(target, versions[0])
            yield from (version.key for version in versions[1:])
