"""Copy a folder of backups to a target, as its files are: what is there already is not sent again.

First comes what says whose it is and what opens it; then, the newest backup first, the packs that a manifest needs and
the manifest; last, tags and pins. So a manifest at the target has all of its chunks there, whenever a push is killed.
Every file is checked before it is sent: a copy of damage would take the place of the copy that is whole.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from quantum_memory.durability.files import ReadableFile
from quantum_memory.durability.pack import COPY_SUFFIX
from quantum_memory.errors import (
    ConflictError,
    IntegrityError,
    MissingError,
    MissingFileError,
    QuantumMemoryError,
    UnsafeError,
    UnsupportedVersionError,
)
from quantum_memory.lifecycle.backups import presence
from quantum_memory.lifecycle.backups.in_flight import in_flight
from quantum_memory.lifecycle.backups.memory import remember_pushed
from quantum_memory.lifecycle.backups.pushed import (
    CLAIM,
    CONFIGS,
    PART_BYTES,
    REFS,
    Edition,
    Pushed,
    edition_of,
    pushed_at,
    version_key,
)
from quantum_memory.lifecycle.backups.pushed_owner import check_empty, check_owner, claim_of, owner
from quantum_memory.lifecycle.backups.sent import Sent
from quantum_memory.lifecycle.backups.small_files import small_here
from quantum_memory.lifecycle.repository.manifest_file import read_whole

if TYPE_CHECKING:
    from collections.abc import Callable

    from quantum_memory.durability.files import Buffer
    from quantum_memory.lifecycle.backups.folder import BackupFolder
    from quantum_memory.lifecycle.backups.presence import Presence
    from quantum_memory.lifecycle.backups.targets import Target

    Progress = Callable[[int], object]

_TOGETHER = 256 << 20
"""Bytes of packs after which the manifests are sent that need them."""

_TRIES = 3
_DAMAGE = (IntegrityError, UnsafeError, UnsupportedVersionError, MissingError)


@dataclass(frozen=True)
class Piece:
    """A part of a file that is to be sent."""

    name: str
    path: str
    edition: Edition
    index: int


class Pusher:
    """Copies a folder to a target.

    Parameters
    ----------
    folder
        The folder; no key is needed.
    target
        Where to.
    dry_run
        Whether to send nothing, and say what would be sent.
    progress
        Called with the bytes of each part that is done, or is there.
    """

    def __init__(self, folder: BackupFolder, target: Target, *, dry_run: bool, progress: Progress | None) -> None:
        self.folder, self.target = folder, target
        self._dry_run, self._progress = dry_run, progress
        self._found = Pushed()
        self._presence: Presence | None = None
        self._good: dict[str, bool] = {}
        self.done = Sent(target.name)

    def push(self) -> Sent:
        """Send what is not there; see `BackupManager.push`."""
        config = self.folder.known_config()
        self.done = Sent(self.target.name)
        self._found = pushed_at(self.target)
        check_empty(self.target, self._found)
        damaged = self._check_owner(config.id)
        if not self._dry_run:
            self.target.check_writable()
            if damaged:
                self.target.replace(CLAIM, claim_of(config.id))
                self.done.mended.append(CLAIM)
            elif not self._found.claimed and not self.target.create(CLAIM, claim_of(config.id)):
                check_owner(self.target, owner(self.target, pushed_at(self.target)), config.id, self.folder.path)
        for _ in range(_TRIES):
            if self._round():
                return self.done
        raise ConflictError(
            "it took so long that others may have removed what was there",
            path=self.target.name,
            next_step="push once more: what was sent is not sent again",
        )

    def _check_owner(self, own: str) -> bool:
        """Refuse what another folder was pushed to, and tell whether what says so is damaged."""
        problems: list[QuantumMemoryError] = []
        try:
            check_owner(self.target, owner(self.target, self._found, problems), own, self.folder.path)
        except IntegrityError:
            digest = hashlib.sha256(
                small_here(self.folder, CONFIGS[0])[0]
            ).hexdigest()  # which may be known there by its name
            if digest not in {version.digest for name in CONFIGS for version in self._found.versions.get(name, [])}:
                raise
            return True
        return bool(problems)

    def _round(self) -> bool:
        """Send what is not there, and tell whether nobody can have removed anything meanwhile."""
        if self._dry_run:
            self._send()
            return True
        with presence.pushing(self.target) as self._presence:
            self._found = pushed_at(self.target)
            self._send()
            return self._presence.lasted

    def _send(self) -> None:
        self.done.there, self.done.problems = 0, []
        self._good.clear()
        for name in CONFIGS:
            self._send_version(name)
        ids = sorted(self.folder.ids(), reverse=True)  # first: packs that are older than a manifest are known below
        with self.folder.store.shared():
            self._send_backups(ids)
            self._send_version(REFS)
        if not self._dry_run:
            remember_pushed(self.folder, ids)

    def _send_backups(self, ids: list[str]) -> None:
        packs: list[Piece] = []
        manifests: list[Piece] = []
        names: list[str] = []
        asked: set[str] = set()
        for one in ids:
            try:
                more, manifest = self._needed(one, asked)
            except MissingFileError:
                continue  # removed meanwhile
            except _DAMAGE as error:
                self._problem(error)
                continue
            packs += more
            manifests += manifest
            names += [one] if manifest else []
            self.done.there += not manifest
            if sum(piece.edition.part_length(piece.index) for piece in packs) >= _TOGETHER:
                self._send_group(packs, manifests, names)
                packs, manifests, names = [], [], []
        self._send_group(packs, manifests, names)

    def _send_group(self, packs: list[Piece], manifests: list[Piece], names: list[str]) -> None:
        for pieces in (packs, manifests):
            for _ in in_flight(self._sent, pieces):
                pass
        self.done.backups += names

    def _needed(self, one: str, asked: set[str]) -> tuple[list[Piece], list[Piece]]:
        """Return the parts of packs that are to be sent for a backup, and those of its manifest."""
        path = self.folder.manifest_path(one)
        with ReadableFile(path) as source, self.folder.repairable():
            chunks = read_whole(source, self.folder.kind)[1].chunk_names()
        try:
            packs = sorted({self.folder.store.place(chunk)[0] for chunk in chunks})
        except MissingError as error:
            error.message += f", which the backup {one} needs: it is not sent"
            raise
        for name in packs:
            if not self._is_good(name):
                raise IntegrityError(
                    f"the backup is not sent: its chunks are in {name}, which is damaged",
                    path=path,
                    next_step=self.folder.command("repair  # saves what can be read of it; then push again"),
                )
        pieces: list[Piece] = []
        for name in packs:
            if name not in asked:
                asked.add(name)
                pack, copy = self.folder.store.pack_paths(name)
                stem = name.rpartition(".")[0]
                if os.path.exists(copy):
                    pieces += self._unsent(f"chunks/{stem}{COPY_SUFFIX}", copy)
                pieces += self._unsent(f"chunks/{name}", pack)
        return pieces, self._unsent(f"backups/{one}{self.folder.suffix}", path)

    def _is_good(self, name: str) -> bool:
        """Tell whether a pack is there, or is whole here, and can be sent."""
        if name not in self._good:
            try:
                pack = self.folder.store.pack_paths(name)[0]
                if not self._found.has(f"chunks/{name}", edition_of(pack)):
                    self.folder.store.check(name)
                self._good[name] = True
            except _DAMAGE as error:
                self._problem(error)
                self._good[name] = False
        return self._good[name]

    def _unsent(self, name: str, path: str) -> list[Piece]:
        """Return the parts of a file that are not there."""
        edition = edition_of(path)
        there = self._found.parts.get(name, {}).get(edition, {})
        wanted = []
        for index in range(edition.parts):
            length, part = edition.part_length(index), there.get(index)
            if part is None or part.nbytes != length:
                wanted.append(index)
            elif self._progress is not None:
                self._progress(length)
        return [Piece(name, path, edition, index) for index in wanted]

    def _sent(self, piece: Piece) -> None:
        length = piece.edition.part_length(piece.index)
        if not self._dry_run:
            with ReadableFile(piece.path) as source:
                data = bytearray(length)
                source.read_into(memoryview(data), piece.index * PART_BYTES)
            self._put(piece.edition.key(piece.name, piece.index, hashlib.sha256(data).hexdigest()), data)
        self._count(length)
        if self._progress is not None:
            self._progress(length)

    def _put(self, key: str, data: Buffer) -> None:
        if not self.target.create(key, data):
            self.target.replace(key, data)  # somebody was faster, or it was cut short: these are its bytes
        if self._presence is not None:
            self._presence.renew()

    def _count(self, nbytes: int) -> None:
        self.done.objects += 1
        self.done.nbytes += nbytes

    def _problem(self, error: QuantumMemoryError) -> None:
        self.done.problems.append(error.at(self.folder.path))

    def _send_version(self, name: str) -> None:
        """Send a small file that changes, unless it is what the newest there is."""
        try:
            data, stamp = small_here(self.folder, name)
        except MissingFileError:
            return  # nothing has a tag
        except _DAMAGE as error:
            self._problem(error)
            return
        key = version_key(name, stamp, data)
        versions = self._found.versions.get(name, [])
        if versions and (versions[0].digest == key[-64:] or key in {version.key for version in versions}):
            return
        if not self._dry_run:
            self._put(key, data)
        self._count(len(data))
