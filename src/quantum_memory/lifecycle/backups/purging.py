"""Remove a memory from backups: each that holds it is replaced by one without."""

from __future__ import annotations

import itertools
import os
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from quantum_memory.errors import MissingError, WrongKeyError
from quantum_memory.formats.registry import FORMATS, HEAD_BYTES, format_of_head
from quantum_memory.lifecycle.backups import manifest as manifests
from quantum_memory.lifecycle.backups.copies import copied
from quantum_memory.lifecycle.backups.export_file import SIGNATURE as EXPORTED
from quantum_memory.lifecycle.backups.manifest import FILE, Backup, BackupManifest
from quantum_memory.lifecycle.backups.restoring import Restorer
from quantum_memory.lifecycle.checkpoints import manifest as checkpoints
from quantum_memory.lifecycle.repository.purging import Change, Purging
from quantum_memory.lifecycle.wanted import BAD, held_by, may_be_one

if TYPE_CHECKING:
    from quantum_memory.lifecycle.backups.folder import BackupFolder
    from quantum_memory.lifecycle.backups.manifest import Entry
    from quantum_memory.lifecycle.repository.purging import Purged
    from quantum_memory.lifecycle.wanted import Wanted


class _Verdict(NamedTuple):
    """Whether a file is what is wanted; or why nobody knows, or it stays all the same."""

    holds: bool = False
    why: str = ""


_NOT = _Verdict()


@dataclass
class BackupChange(Change):
    """What is done to one backup.

    Attributes
    ----------
    files
        Paths of what goes.
    new
        What takes its place.
    """

    files: list[str] = field(default_factory=list)
    new: BackupManifest | None = None


class BackupPurging(Purging[Backup, BackupChange]):
    """Removes files from backups.

    Parameters
    ----------
    folder
        Of the backups.
    wanted
        What goes.
    done
        Where it is said what went.
    """

    def __init__(self, folder: BackupFolder, wanted: Wanted, done: Purged) -> None:
        super().__init__(folder, done)
        self._folder = folder
        self._wanted = wanted
        self._known: dict[tuple[bytes, str], _Verdict] = {}

    def look(self) -> tuple[list[BackupChange], list[str]]:
        _ = self._folder.config
        changes, unreached = [], []
        manifests = []
        for one in self._folder.ids():
            try:
                manifests.append(self._folder.manifest(one))
            except BAD as error:
                unreached.append(f"the damaged backup {one} in {self._folder.path}: {error}")
        for made in sorted(manifests, key=lambda one: (one.backup.number, one.backup.created_at, one.backup.id)):
            held = []
            for entry in made.entries:
                verdict = self._verdict(made, entry) if entry.type == FILE else _NOT
                if verdict.holds:
                    held.append(entry)
                    unreached += _live(made, entry)
                if verdict.why:
                    unreached.append(f"{_called(made, entry)} in the backup {made.backup.id}: {verdict.why}")
            if held:
                changes.append(_without(made, held))
        left = os.path.join(self._folder.path, "quarantine")
        if os.path.isdir(left):
            unreached.append(f"what was damaged, and put aside in {left}")
        return changes, unreached

    def say(self, change: BackupChange, facts: dict[str, Any]) -> None:
        said = {"folder": self._folder.path, "id": change.id, "becomes": change.becomes, "files": change.files}
        self.done.backups.append({**said, **facts})

    def publish(self, change: BackupChange) -> None:
        if change.new is not None:
            self._folder.store.settle(change.needs, written=False)
            self._folder.publish_manifest(change.new)

    def _verdict(self, made: BackupManifest, entry: Entry) -> _Verdict:
        suffix = _suffix(_called(made, entry))
        if entry.chunks and entry.chunks == self._wanted.chunks(self._folder.sealer):
            return _Verdict(holds=True)
        if (entry.chunks, suffix) not in self._known:
            self._known[entry.chunks, suffix] = self._looked_at(made, entry, suffix)
        return self._known[entry.chunks, suffix]

    def _looked_at(self, made: BackupManifest, entry: Entry, suffix: str) -> _Verdict:
        if self._wanted.content_id is None or not entry.size:
            return _NOT
        head = b""
        try:
            chunks = Restorer(self._folder, made).chunks(entry)
            first = next(chunks)
            head = bytes(first[:HEAD_BYTES])
            if head.startswith((manifests.KIND.signature, EXPORTED)):
                return _Verdict(why="it is of backups, into which nothing looks here")
            if not (may_be_one(head, suffix) or head.startswith(checkpoints.KIND.signature)):
                return _NOT
            with copied(itertools.chain([first], chunks), f"copy{suffix}", entry.size) as path:
                held = held_by(path, self._wanted.key)
        except WrongKeyError:
            return _Verdict(why="it is encrypted, and not with the key that was given")
        except (*BAD, MissingError) as error:
            if head and format_of_head(head) is None and not head.startswith(checkpoints.KIND.signature):
                return _NOT  # it is of another program, and has the suffix of ours
            return _Verdict(why=f"it cannot be read: {error.message}")
        if held is None or self._wanted.content_id not in held.contents:
            return _NOT
        if held.several:
            return _Verdict(why="it holds this among others, and stays as it is; the backup can be deleted as a whole")
        return _Verdict(holds=True)


def _suffix(path: str) -> str:
    """Return the suffix of a path, where it is one of ours."""
    found = [suffix for one in FORMATS for suffix in one.suffixes if path.lower().endswith(suffix)]
    return max(found, key=len, default="")


def _called(made: BackupManifest, entry: Entry) -> str:
    return entry.path or os.path.basename(made.backup.source)


def _live(made: BackupManifest, entry: Entry) -> list[str]:
    """Return the file that an entry is a copy of, where it is still there."""
    path = os.path.join(made.backup.source, entry.path) if entry.path else made.backup.source
    return [f"{path}, which backups were made of"] if not made.backup.imported and os.path.lexists(path) else []


def _without(made: BackupManifest, held: list[Entry]) -> BackupChange:
    """Return what becomes of a backup without some of its files."""
    gone = {entry.path for entry in held}
    entries = tuple(entry for entry in made.entries if entry.path not in gone)
    loses = {name for entry in held for name in entry.chunk_names()}
    change = BackupChange(made.backup.id, loses, files=[_called(made, entry) for entry in held])
    if entries:
        said = f"{made.backup.description} [without {len(held)} purged]".lstrip()
        nbytes = sum(entry.size for entry in held)
        backup = replace(
            made.backup, description=said, files=made.backup.files - len(held), raw_bytes=made.backup.raw_bytes - nbytes
        )
        new = replace(made, backup=backup, entries=entries)
        change.new = replace(new, backup=replace(backup, id=new.named()))
        change.becomes, change.needs = change.new.backup.id, change.new.chunks()
    return change
