"""What is in a folder of backups and belongs to none, and backups of which all is gone.

Cleaned, when they are older than the grace: packs of which no backup needs a chunk, copies of lists without a pack, and
what dead processes have left half-written; and backups of which no file can be restored any more are moved to
``quarantine/``, unless they have a tag or a pin. Only listed: chunks that nobody needs beside others in their packs,
which go when they are many (`durability.chunk_collection`), and backups of which some files can be restored.
"""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from quantum_memory.durability.atomic import is_leftover, remove_if_dead
from quantum_memory.durability.files import current
from quantum_memory.durability.pack import COPY_SUFFIX
from quantum_memory.errors import QuantumMemoryError, StorageError
from quantum_memory.lifecycle.backups.manifest import FILE
from quantum_memory.lifecycle.backups.quarantine import QUARANTINE, Quarantine, names_set_aside

if TYPE_CHECKING:
    from quantum_memory.lifecycle.backups.folder import BackupFolder
    from quantum_memory.lifecycle.backups.manifest import BackupManifest

What = Literal["pack", "chunks", "index copy", "leftover", "backup"]


@dataclass(frozen=True)
class Orphan:
    """Something that belongs to no backup, or a backup without chunks.

    Attributes
    ----------
    path
        In the folder.
    what
        "pack": one of which nobody needs a chunk. "chunks": those in a pack that nobody needs, beside others.
        "index copy": one without its pack. "leftover": half a file of a process that is dead. "backup": one of which
        chunks are gone.
    nbytes
        Of the file, or of these chunks; of a backup, bytes of the files that cannot be restored.
    goes
        Whether it is cleaned.
    why
        Why it is, or is not.
    """

    path: str
    what: What
    nbytes: int
    goes: bool
    why: str


@dataclass
class Orphans:
    """What was found in a folder of backups.

    Attributes
    ----------
    dry_run
        Whether nothing was cleaned, and `Orphan.goes` says what would be.
    found
        All of it.
    chunks, nbytes
        How many chunks nobody needs, and their bytes in the packs.
    why_not
        Why nobody knows which chunks are needed, so that none went; empty where that is known.
    """

    dry_run: bool = False
    found: list[Orphan] = field(default_factory=list)
    chunks: int = 0
    nbytes: int = 0
    why_not: str = ""

    @property
    def cleaned(self) -> list[Orphan]:
        """What is cleaned."""
        return [one for one in self.found if one.goes]

    @property
    def left(self) -> list[Orphan]:
        """What is only listed."""
        return [one for one in self.found if not one.goes]

    def to_dict(self) -> dict[str, Any]:
        """Return it as a plain dict."""
        return asdict(self)


def find_orphans(folder: BackupFolder, grace: float, *, dry_run: bool) -> Orphans:
    """Find what belongs to no backup, and clean it where it is older than so many seconds; see the module.

    Raises
    ------
    ConflictError
        Others are saving or reading.
    WrongKeyError, StorageError
    """
    if not folder.is_there:
        return Orphans(dry_run)
    _ = folder.config  # with the wrong key, every backup looks damaged
    with folder.store.alone():
        return _Search(folder, time.time() - grace, dry_run=dry_run).all()


class _Search:
    def __init__(self, folder: BackupFolder, limit: float, *, dry_run: bool) -> None:
        self._folder = folder
        self._limit = limit
        self._done = Orphans(dry_run)

    def all(self) -> Orphans:
        done, folder = self._done, self._folder
        made, needed = self._manifests()
        self._chunks(needed)
        self._copies()
        self._leftovers()
        self._backups(made)
        done.found.sort(key=lambda one: one.path)
        if not done.dry_run:
            self._clean()
            if cleaned := done.cleaned:
                folder.note("cleaned", paths=[one.path for one in cleaned])
        return done

    def _manifests(self) -> tuple[list[BackupManifest], set[bytes] | None]:
        """Return the backups that can be read, and which chunks are needed; None where nobody knows."""
        folder, made = self._folder, []
        needed: set[bytes] | None = set()
        for one in sorted(folder.ids()):
            try:
                made.append(folder.manifest(one))
                if needed is not None:
                    needed |= made[-1].chunks()
            except QuantumMemoryError as error:
                needed = None
                self._done.why_not = f"nobody knows which chunks the backup {one} needs: {error.message}"
        if needed is not None:
            needed |= names_set_aside(folder.path, folder.store.known)
        return made, needed

    def _chunks(self, needed: set[bytes] | None) -> None:
        store, done = self._folder.store, self._done
        if needed is None:
            return
        for name in store.packs:
            chunks = store.chunks_of(name)
            useless = [place.stored for chunk, place in chunks.items() if chunk not in needed]
            if not useless:
                continue
            done.chunks += len(useless)
            done.nbytes += sum(useless)
            path = os.path.join("chunks", name)
            if len(useless) == len(chunks):
                self._found(path, "pack", "no backup needs any of its chunks")
            else:
                why = f"{len(useless)} of its {len(chunks)} chunks are not needed; they go when there are many"
                done.found.append(Orphan(path, "chunks", sum(useless), goes=False, why=why))

    def _copies(self) -> None:
        for name in self._names("chunks"):
            path = os.path.join("chunks", name)
            pack = os.path.join(self._folder.path, path.removesuffix(COPY_SUFFIX) + ".qmpack")
            if name.endswith(COPY_SUFFIX) and not os.path.lexists(pack):
                self._found(path, "index copy", "its pack is gone")

    def _leftovers(self) -> None:
        for folder in ("", "chunks", f"{self._folder.kind.what}s", QUARANTINE):
            for name in self._names(folder):
                path = os.path.join(folder, name)
                if not is_leftover(name):
                    continue
                whole = os.path.join(self._folder.path, path)
                with contextlib.suppress(OSError):  # gone already, or no locks here
                    if os.path.samefile(whole, os.path.join(self._folder.path, "lock")):
                        # It is locked, as the lock is, and as young, and whoever made it needs it no more.
                        why = "a second name of the lock"
                        self._done.found.append(Orphan(path, "leftover", os.path.getsize(whole), goes=True, why=why))
                    elif remove_if_dead(current(), whole, dry_run=True):
                        self._found(path, "leftover", "whoever was writing it is dead")

    def _backups(self, made: list[BackupManifest]) -> None:
        store, refs = self._folder.store, self._folder.refs()
        for one in made:
            files = [entry for entry in one.entries if entry.type == FILE]
            gone = [entry for entry in files if any(name not in store.known for name in entry.chunk_names())]
            if not gone:
                continue
            backup = one.backup.id
            path = os.path.relpath(self._folder.manifest_path(backup), self._folder.path)
            nbytes, why = sum(entry.size for entry in gone), ""
            if len(gone) < len(files):
                why = f"{len(files) - len(gone)} of its {len(files)} files can be restored"
            elif backup in refs.pins or refs.tags_of(backup):
                why = "none of its files can be restored, but it has a tag or a pin"
            elif store.damaged:
                why = f"its chunks may be in a pack that cannot be read: {self._folder.command('repair')}"
            if why:
                self._done.found.append(Orphan(path, "backup", nbytes, goes=False, why=why))
            else:
                self._found(path, "backup", f"none of its files can be restored; it goes to {QUARANTINE}", nbytes)

    def _found(self, path: str, what: What, why: str, nbytes: int | None = None) -> None:
        """Note what is cleaned, if it is older than the grace; what is of the future is young."""
        try:
            facts = os.lstat(os.path.join(self._folder.path, path))
        except OSError as error:
            raise StorageError.from_os_error(error, "look at", path) from error
        young = facts.st_mtime > self._limit
        nbytes = facts.st_size if nbytes is None else nbytes
        self._done.found.append(
            Orphan(path, what, nbytes, goes=not young, why=f"{why}, but it is young" if young else why)
        )

    def _names(self, folder: str) -> list[str]:
        try:
            return sorted(current().names(os.path.join(self._folder.path, folder)))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise StorageError.from_os_error(error, "list", folder) from error

    def _clean(self) -> None:
        folder, aside = self._folder, Quarantine(self._folder)
        cleaned = self._done.cleaned
        folder.store.remove([os.path.basename(one.path) for one in cleaned if one.what == "pack"])
        for one in cleaned:
            if one.what == "backup":
                aside.move(one.path)
            elif one.what != "pack":
                path = os.path.join(folder.path, one.path)
                try:
                    with contextlib.suppress(FileNotFoundError):
                        current().unlink(path)
                except OSError as error:
                    raise StorageError.from_os_error(error, "remove", path) from error
