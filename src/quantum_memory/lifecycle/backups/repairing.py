"""Repair a folder of backups: all that can be read is saved into whole files before a damaged one is moved aside.

Nothing is removed: what is damaged goes to ``quarantine/`` in the folder, also where a new file takes its name. What
the operating system could not read is not taken for damaged, and stays where it is: it may be a moment's trouble.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from quantum_memory.compression.codecs import is_known
from quantum_memory.durability.files import ReadableFile
from quantum_memory.durability.store_lock import is_store
from quantum_memory.errors import (
    IntegrityError,
    MissingFileError,
    QuantumMemoryError,
    StorageError,
    UnsupportedVersionError,
    shell_word,
)
from quantum_memory.lifecycle.backups import manifest as manifests
from quantum_memory.lifecycle.backups.config import Config, read_copies
from quantum_memory.lifecycle.backups.manifest import FILE
from quantum_memory.lifecycle.backups.mending import mend_checks, mend_config, mend_refs
from quantum_memory.lifecycle.backups.quarantine import QUARANTINE
from quantum_memory.lifecycle.backups.repairs import DAMAGE, UNREAD, Repair
from quantum_memory.lifecycle.backups.salvaging import salvaged
from quantum_memory.lifecycle.repository.chunks import checked
from quantum_memory.state.arrays import CHUNK_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable

    from quantum_memory.durability.pack import Place
    from quantum_memory.lifecycle.backups.checking import Checker
    from quantum_memory.lifecycle.backups.folder import BackupFolder
    from quantum_memory.lifecycle.backups.manifest import BackupManifest, Entry
    from quantum_memory.lifecycle.backups.repairs import Repaired

T = TypeVar("T")


class Repairer:
    """Repairs a folder of backups.

    Parameters
    ----------
    folder
        The folder.
    checker
        What remembers of its chunks.
    dry_run
        Whether all is looked at, and nothing is written.
    progress
        Called with the stored bytes of each chunk that is read.
    """

    def __init__(
        self, folder: BackupFolder, checker: Checker, *, dry_run: bool, progress: Callable[[int], object] | None
    ) -> None:
        self._folder = folder
        self._store = folder.store
        self._checker = checker
        self._repair = Repair(folder, dry_run=dry_run)
        self._done = self._repair.done
        self._dry_run = dry_run
        self._progress = progress or (lambda _: None)
        self._made: list[BackupManifest] = []
        self._unknown: dict[str, QuantumMemoryError] = {}  # ids of backups of which nobody knows what they need
        self._packs = _Packs({}, {}, set())

    def repair(self) -> Repaired:
        """Mend what can be mended; see the module.

        Raises
        ------
        MissingFileError
            This is no folder of backups.
        IntegrityError, WrongKeyError
            Nobody can tell any more which keys open it; or the key is not the one. Nothing was done.
        ConflictError, StorageError
            Others are at work in it, or it cannot be read or written. What was done until then is no less readable.
        """
        self._check_there()
        with self._store.mending(dry_run=self._dry_run) as lock:
            try:
                if lock is not None:
                    self._repair.mended("lock", lock, "written anew")
                if mend_config(self._repair):
                    self._all()
            finally:
                if self._dry_run:
                    self._folder.use(None)
        return self._done

    def _all(self) -> None:
        self._read_manifests()
        self._look_into_packs()
        self._save_chunks()
        for one, error in sorted(self._unknown.items()):
            self._mend_manifest(one, error)
        mend_refs(self._repair)
        self._move_packs()
        self._mend_copies()
        self._say_what_is_lost()
        mend_checks(self._repair, self._checker, self._packs.good.keys())
        done = self._done
        if done.mended and not self._dry_run:
            self._folder.note("repaired", mended=done.mended, lost=done.lost or None, left=done.left or None)
        if done.problems:
            self._repair.then("verify", "verify --full")
        done.next_steps = self._repair.next_steps()

    def _check_there(self) -> None:
        folder = self._folder
        if not (
            is_store(folder.path)
            or folder.ids()
            or any(isinstance(copy, Config) for _, copy in read_copies(folder.path))
        ):
            raise MissingFileError(
                "this is no folder of backups", path=folder.path, next_step="check the path, or create a backup"
            )

    # --- manifests

    def _read_manifests(self) -> None:
        for one in sorted(self._folder.ids()):
            try:
                self._made.append(_twice(self._folder.manifest, one))
            except (*DAMAGE, *UNREAD) as error:
                self._unknown[one] = error

    def _mend_manifest(self, one: str, error: QuantumMemoryError) -> None:
        folder = self._folder
        path = folder.manifest_path(one)
        name = os.path.relpath(path, folder.path)
        if isinstance(error, UNREAD):
            self._repair.left(name, error)
            return
        if self._packs.left:  # which may have what looks as if it were gone
            error.next_step = folder.command("repair  # when all packs can be read")
            self._repair.left(name, error)
            return
        with ReadableFile(path) as source:
            if (true := self._named_wrongly(source, one)) is not None:
                self._repair.mended(name, error.message, f"named {true} again")
                if not self._dry_run:
                    self._repair.aside.rename(path, folder.manifest_path(true))
                return
            made = None
            with contextlib.suppress(*DAMAGE, UnsupportedVersionError):
                made = manifests.salvaged_manifest(source, one, folder.sealer, self._is_whole)
            known = self._known_of(source, one)
        self._offer_source(known)
        if made is None:
            self._repair.set_aside(name, moved=True)
            self._repair.mended(name, error.message, f"moved to {QUARANTINE}")
            self._done.manifests[one] = known
        else:
            gone = sorted(path for path, why in made.problems if why == manifests.LOST)
            count = made.backup.files
            self._repair.set_aside(name, moved=False)
            self._repair.mended(name, error.message, f"written anew, with {count} of its {count + len(gone)} files")
            self._made.append(made)
            if gone:
                self._done.lost[one] = gone
            if not self._dry_run:
                self._folder.publish_manifest(made, overwrite=True)

    def _named_wrongly(self, source: ReadableFile, one: str) -> str | None:
        """Return the id of a manifest that is whole and has the name of another one, where its own name is free."""
        with contextlib.suppress(*DAMAGE):
            true = manifests.read_manifest(source, one, self._folder.sealer).backup.id
            if true != one and not os.path.lexists(self._folder.manifest_path(true)):
                return true
        return None

    def _known_of(self, source: ReadableFile, one: str) -> dict[str, Any]:
        with contextlib.suppress(*DAMAGE, UnsupportedVersionError):
            return manifests.read_damaged_backup(source, one, self._folder.sealer).to_dict()
        return {}

    def _is_whole(self, entry: Entry) -> bool:
        names = entry.chunk_names()
        return all(name in self._packs for name in names) and entry.size == sum(
            self._store.place(name)[1].raw for name in names
        )

    # --- chunks

    def _look_into_packs(self) -> None:
        store, packs = self._store, self._packs
        for name, error in sorted(store.damaged.items()):
            if isinstance(error, DAMAGE):
                self._find_chunks(name)
            else:
                packs.left.add(name)
                self._repair.left(_in_chunks(name), error)
        for name in store.packs:
            wrong: QuantumMemoryError | None = None
            try:
                _twice(store.check_frame, name)
            except (*DAMAGE, *UNREAD) as error:
                wrong = error
            bad: list[bytes] = []
            for chunk, place in store.chunks_of(name).items():
                try:
                    right = self._is_right(name, chunk, place)
                except (StorageError, MissingFileError) as error:
                    wrong = error
                    continue
                if right:
                    packs.good.setdefault(chunk, []).append(name)
                else:
                    bad.append(chunk)
                self._progress(place.stored)
            if isinstance(wrong, UNREAD):
                packs.left.add(name)
                self._repair.left(_in_chunks(name), wrong)
            elif wrong is not None or bad:
                packs.damaged[name] = wrong.message if wrong else _some(bad)

    def _find_chunks(self, name: str) -> None:
        """Take note of what can be had of a pack without a list."""
        try:
            missing = {} if self._folder.sealer else self._missing()
            self._store.found(name, salvaged(*self._store.pack_paths(name), missing, self._proven))
        except UNREAD as error:
            self._packs.left.add(name)
            self._repair.left(_in_chunks(name), error)

    def _missing(self) -> dict[bytes, int]:
        """Return the names of chunks that are in no pack that can be read, and their lengths where these are known."""
        lengths: dict[bytes, int] = {}
        for made in self._made:
            for entry in made.entries:
                names = entry.chunk_names()
                for position, name in enumerate(names):
                    if name not in self._store.known:
                        lengths[name] = _likely_length(entry, position)
        return lengths

    def _proven(self, chunk: bytes, place: Place, stored: memoryview) -> bool:
        try:
            checked(chunk, place, stored, self._folder.sealer)
        except (IntegrityError, UnsupportedVersionError):
            return False
        return True

    def _is_right(self, name: str, chunk: bytes, place: Place) -> bool:
        stored = self._store.stored(name, chunk)
        if stored is None:
            return False
        # What a codec of a later release has packed, that release alone can tell.
        return self._proven(chunk, place, stored) or not is_known(place.codec)

    def _save_chunks(self) -> None:
        """Copy what is whole in damaged packs, and in no other, into a new one."""
        store, packs = self._store, self._packs
        needed = {name for made in self._made for name in made.chunks()}
        at_risk = packs.damaged.keys() | packs.left
        saved = {
            chunk: at
            for chunk, at in packs.good.items()
            # Where nobody knows what is needed, everything may be.
            if at_risk.issuperset(at) and (chunk in needed or self._unknown)
        }
        places = {chunk: store.chunks_of(at[0])[chunk] for chunk, at in saved.items()}
        self._done.chunks_saved = len(saved)
        self._done.bytes_saved = sum(place.stored for place in places.values())
        self._done.chunks_lost = len(needed - packs.good.keys())
        if self._dry_run or not saved:
            return
        with store.writer() as writer:
            for chunk, at in sorted(saved.items(), key=lambda one: (one[1][0], places[one[0]].offset)):
                stored = store.stored(at[0], chunk)
                if stored is None:
                    raise IntegrityError(
                        "a chunk that could be read a moment ago is damaged",
                        path=store.pack_paths(at[0])[0], next_step="check the memory and the disk of this machine",
                    )  # fmt: skip
                writer.copy(chunk, places[chunk], stored)

    def _move_packs(self) -> None:
        for name, wrong in sorted(self._packs.damaged.items()):
            saved = "what is whole in it is in another pack"
            self._repair.mended(_in_chunks(name), wrong, f"moved to {QUARANTINE}; {saved}")
            for path in self._store.pack_paths(name):
                if os.path.lexists(path):
                    self._repair.set_aside(os.path.relpath(path, self._folder.path), moved=True)
        if not self._dry_run:
            self._store.forget(self._packs.damaged)

    def _mend_copies(self) -> None:
        for name in sorted(set(self._store.packs) - self._packs.damaged.keys() - self._packs.left):
            try:
                self._store.check_copy(name)
            except (*DAMAGE, MissingFileError) as error:
                path = os.path.relpath(self._store.pack_paths(name)[1], self._folder.path)
                self._repair.mended(path, error.message, "written anew from its pack")
                if not self._dry_run:
                    self._store.write_copy(name)
            except StorageError as error:
                self._repair.left(_in_chunks(name), error)

    def _say_what_is_lost(self) -> None:
        good, done = self._packs.good, self._done
        for made in sorted(self._made, key=lambda one: one.backup.number):
            one = made.backup.id
            files = [entry for entry in made.entries if entry.type == FILE]
            lost = [entry for entry in files if not all(name in good for name in entry.chunk_names())]
            if lost:
                names = {entry.path or os.path.basename(made.backup.source) for entry in lost}
                done.lost[one] = sorted(names.union(done.lost.get(one, ())))
                self._offer_source(made.backup.to_dict())
                if len(lost) < len(files):
                    beside = shell_word(f"{made.backup.source}.restored")
                    self._repair.then("salvage", f"restore {one} --to {beside} --salvage")

    def _offer_source(self, known: dict[str, Any]) -> None:
        source = known.get("source")
        if source and not known["imported"] and os.path.lexists(source):
            self._repair.then("create", f"create {shell_word(source)}")


@dataclass
class _Packs:
    """What was found in packs.

    Attributes
    ----------
    good
        The packs in which a chunk is whole.
    damaged
        What is wrong with packs, by their names.
    left
        Those that the operating system could not read in part.
    """

    good: dict[bytes, list[str]]
    damaged: dict[str, str]
    left: set[str]

    def __contains__(self, chunk: bytes) -> bool:
        return chunk in self.good


def _twice(read: Callable[[str], T], name: str) -> T:
    """Read something; what looks damaged once more, since it may be the memory that is."""
    try:
        return read(name)
    except DAMAGE:
        return read(name)


def _in_chunks(name: str) -> str:
    return os.path.join("chunks", name)


def _some(bad: list[bytes]) -> str:
    return "a chunk of it is damaged" if len(bad) == 1 else f"{len(bad)} of its chunks are damaged"


def _likely_length(entry: Entry, position: int) -> int:
    """Return how long a chunk of a file is, unless that was cut where a format has its own chunks; 0 for unknown."""
    if entry.count == 1:
        return entry.size
    return CHUNK_BYTES if position < entry.count - 1 else max(0, entry.size - position * CHUNK_BYTES)
