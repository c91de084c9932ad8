"""Have a folder of backups back from where it was pushed to: on a machine that has none, or an older state of it.

Every object is compared with its name while it is read, and every pack is checked once more when it is here. A manifest
gets its name when all packs that it needs are here, and durable. What is damaged is named, and all else comes.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from quantum_memory.durability.atomic import DurableFile, is_leftover
from quantum_memory.durability.files import ReadableBytes, ReadableFile, current
from quantum_memory.durability.pack import COPY_SUFFIX, read_index
from quantum_memory.errors import (
    ConflictError,
    IntegrityError,
    MissingError,
    QuantumMemoryError,
    StorageError,
    UnsafeError,
    UnsupportedVersionError,
)
from quantum_memory.lifecycle.backups.config import config_paths, read_config
from quantum_memory.lifecycle.backups.in_flight import in_flight
from quantum_memory.lifecycle.backups.memory import remember_pushed
from quantum_memory.lifecycle.backups.pushed import REFS, Pushed, pushed_at, read_part
from quantum_memory.lifecycle.backups.pushed_files import chunks_in, file_at, small_file
from quantum_memory.lifecycle.backups.pushed_owner import check_owner, config_at, missing, owner
from quantum_memory.lifecycle.backups.small_files import Taken, take_refs
from quantum_memory.lifecycle.repository.manifest_file import read_whole

if TYPE_CHECKING:
    from collections.abc import Callable

    from quantum_memory.durability.files import Buffer
    from quantum_memory.lifecycle.backups.folder import BackupFolder
    from quantum_memory.lifecycle.backups.pushed import Part
    from quantum_memory.lifecycle.backups.targets import Target

    Progress = Callable[[int], object]

_DAMAGE = (IntegrityError, UnsafeError, UnsupportedVersionError, MissingError)


@dataclass
class Pulled:
    """What came from a target.

    Attributes
    ----------
    target
        The address.
    backups
        Ids of those that are new here, the newest first.
    there
        How many were here already.
    nbytes
        Bytes of the files that came.
    tags
        What became of tags and pins: "taken"; "kept", where they were changed here; "same"; or "none".
    problems
        What did not come, and why: it is damaged there, or gone.
    """

    target: str
    backups: list[str] = field(default_factory=list)
    there: int = 0
    nbytes: int = 0
    tags: Taken = "none"
    problems: list[QuantumMemoryError] = field(default_factory=list)

    def __bool__(self) -> bool:
        return not self.problems

    def to_dict(self) -> dict[str, Any]:
        """Return it as a plain dict."""
        return {**vars(self), "problems": [str(one) for one in self.problems]}


class Puller:
    """Copies what is at a target into a folder.

    Parameters
    ----------
    folder
        The folder; no key is needed.
    target
        From where.
    salvage
        Whether packs come of which a part is damaged or gone, too, and the backups that need them.
    progress
        Called with the bytes of each part that came.
    """

    def __init__(self, folder: BackupFolder, target: Target, *, salvage: bool, progress: Progress | None) -> None:
        self.folder, self.target = folder, target
        self._salvage, self._progress = salvage, progress
        self._found = Pushed()
        self._lists: dict[str, set[bytes]] | None = None
        self._failed: set[str] = set()
        self.done = Pulled(target.name)

    def pull(self) -> Pulled:
        """Take what is not here; see `BackupManager.pull`."""
        self._found = pushed_at(self.target)
        if not self._found:
            raise missing(self.target)
        self._begin()
        with self.folder.store.shared():
            here = set(self.folder.ids())
            for one in self._found.backups():
                if one in here:
                    self.done.there += 1
                    continue
                try:
                    self._take(one)
                except _DAMAGE as error:
                    self._problem(error)
                else:
                    self.done.backups.append(one)
            self.folder.settle()
        self.done.tags = take_refs(self.folder, self.target, self._found.versions.get(REFS, []), self.done.problems)
        remember_pushed(self.folder, set(self._found.backups()) & set(self.folder.ids()))
        return self.done

    def _begin(self) -> None:
        """Make the folder, where there is none; refuse one of other backups, or of something else."""
        owned_by = owner(self.target, self._found, self.done.problems)
        own = read_config(self.folder.path)
        if own is not None:
            check_owner(self.target, owned_by, own.id, self.folder.path)
            self.folder.begin(own)
            return
        self._check_new()
        config, bad = config_at(self.target, self._found)
        if config is None:
            raise bad[0] if bad else missing(self.target)
        self.done.problems += bad
        check_owner(self.target, owned_by, config.id, self.folder.path)
        self.folder.begin(config)

    def _check_new(self) -> None:
        """Refuse a folder that has something in it, but what whoever was making it has left who died."""
        path = self.folder.path
        try:
            names = current().names(path)
        except FileNotFoundError:
            return
        except OSError as error:
            raise StorageError.from_os_error(error, "list", path) from error
        begun = {os.path.basename(one) for one in config_paths(path)}
        if others := sorted(name for name in names if name not in begun and not is_leftover(name)):
            raise ConflictError(
                f"there is something else, such as {others[0]:.80}, and no folder of backups",
                path=path,
                next_step="pull into a folder that is not there, is empty, or has these backups: -C DIR",
            )

    def _take(self, one: str) -> None:
        """Take a backup, and the packs that it needs."""
        name = f"backups/{one}{self.folder.suffix}"
        data = small_file(self.target, self._found, name)
        store, where = self.folder.store, self.target.where(name)
        chunks = read_whole(ReadableBytes(data, where), self.folder.kind)[1].chunk_names()
        lacking = chunks - store.known
        for pack in self._packs_with(lacking):
            if not lacking.isdisjoint(self._listed()[pack]) and self._take_pack(pack):
                lacking -= store.known
        if lacking:
            raise IntegrityError(
                f"it was left out: {len(lacking)} of the chunks that it needs are damaged there, or gone",
                path=where,
                next_step="take what is whole of it: pull with salvage=True (--salvage)",
            )
        store.settle(chunks, written=False)
        with contextlib.suppress(ConflictError):  # somebody else has pulled it meanwhile
            self._write(self.folder.manifest_path(one), [data])

    def _packs_with(self, chunks: set[bytes]) -> list[str]:
        if not chunks:
            return []
        return [name for name, listed in self._listed().items() if not chunks.isdisjoint(listed)]

    def _listed(self) -> dict[str, set[bytes]]:
        """Return the names of the chunks in each pack that is there, and not here."""
        if self._lists is None:
            self._lists = {}
            for name in sorted(set(self._found.packs()) - set(self.folder.store.packs)):
                try:
                    self._lists[name] = chunks_in(self.target, self._found, name)
                except _DAMAGE as error:
                    self._problem(error)
        return self._lists

    def _take_pack(self, name: str) -> bool:
        """Take a pack, with the copy of its list; tell whether it came."""
        if name in self._failed:
            return False
        path, copy = self.folder.store.pack_paths(name)
        try:
            if not os.path.lexists(path):
                self._take_copy(f"chunks/{name.rpartition('.')[0]}{COPY_SUFFIX}", copy)
                parts = file_at(self.target, self._found, f"chunks/{name}")[1]
                with contextlib.suppress(ConflictError):  # somebody else has pulled it meanwhile
                    self._write(path, in_flight(self._part, parts))
                self._check(name, path)
            with ReadableFile(path) as source:
                self.folder.store.added(path, read_index(source))
        except _DAMAGE as error:
            if error.path == path and not self._salvage:
                error.next_step = self.folder.command("repair  # sets it aside; then pull once more")
            self._failed.add(name)
            self._problem(error)
            return False
        return True

    def _take_copy(self, name: str, path: str) -> None:
        try:
            listed = small_file(self.target, self._found, name)
        except _DAMAGE as error:
            self._problem(error)  # who reads the pack can do without
        else:
            self._write(path, [listed], overwrite=True)

    def _part(self, part: Part) -> Buffer:
        try:
            data = read_part(self.target, part)
        except IntegrityError as error:
            if not self._salvage:
                raise
            self._problem(error)
            data = bytes(self.target.read(part.key, 2 * part.nbytes) or b"")[: part.nbytes].ljust(part.nbytes, b"\0")
        if self._progress is not None:
            self._progress(part.nbytes)
        return data

    def _check(self, name: str, path: str) -> None:
        """Check what came as those do who read it."""
        try:
            self.folder.store.check(name)
        except _DAMAGE:
            if not self._salvage:
                current().unlink(path)
                raise

    def _write(self, path: str, pieces: Any, *, overwrite: bool = False) -> None:
        with DurableFile(
            path, overwrite=overwrite, durable=self.folder.durable, mode=self.folder.store.file_mode
        ) as sink:
            for piece in pieces:
                sink.write(piece)
        self.done.nbytes += sink.length

    def _problem(self, error: QuantumMemoryError) -> None:
        self.done.problems.append(error.at(self.target.name))
