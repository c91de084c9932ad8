"""Check backups: their structure, a part of their bytes that moves on from time to time, or every byte."""

from __future__ import annotations

import contextlib
import os
import threading
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from quantum_memory.compression.cores import for_all_parts
from quantum_memory.durability.pack import damaged_chunk
from quantum_memory.errors import (
    ConflictError,
    IntegrityError,
    InvalidStateError,
    MissingError,
    StorageError,
    UnsafeError,
    UnsupportedVersionError,
)
from quantum_memory.lifecycle.backups.checks import CheckRecord
from quantum_memory.lifecycle.backups.config import Config, read_copies
from quantum_memory.lifecycle.repository.buffers import Buffers
from quantum_memory.lifecycle.repository.chunks import fetched
from quantum_memory.lifecycle.repository.folder import now, stamp

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from quantum_memory.lifecycle.backups.checks import Checks
    from quantum_memory.lifecycle.backups.manifest import BackupManifest, Entry

    Progress = Callable[[int], object]

Depth = Literal["quick", "sample", "full"]


@dataclass
class Report:
    """What a check has found; it is true when that is nothing.

    Attributes
    ----------
    depth
        "quick": that all is there, and fits together. "sample": a part of the bytes as well. "full": every byte.
    backups
        What is wrong with each backup that was looked at; None for nothing.
    files
        Of each backup with something wrong, the paths of the files that cannot be restored.
    others
        What is wrong with files of the folder that no backup suffers from, by path.
    chunks, nbytes
        How many chunks were read, and their bytes.
    of_chunks, of_bytes
        Out of how many.
    """

    depth: Depth
    backups: dict[str, str | None] = field(default_factory=dict)
    files: dict[str, list[str]] = field(default_factory=dict)
    others: dict[str, str] = field(default_factory=dict)
    chunks: int = 0
    nbytes: int = 0
    of_chunks: int = 0
    of_bytes: int = 0

    def __bool__(self) -> bool:
        return not self.damaged and not self.others

    @property
    def damaged(self) -> list[str]:
        """Ids of the backups with something wrong."""
        return [one for one, wrong in self.backups.items() if wrong is not None]

    def to_dict(self) -> dict[str, Any]:
        """Return it as a plain dict."""
        return asdict(self)


class Checker(CheckRecord):
    """Checks the backups of a folder, and remembers what was found.

    Parameters
    ----------
    folder
        The folder.
    """

    def check(
        self,
        ids: Iterable[str] | None = None,
        *,
        depth: Depth = "full",
        share: float = 1.0,
        remember: bool = True,
        progress: Progress | None = None,
    ) -> Report:
        """Check some backups, or all.

        Parameters
        ----------
        ids
            Which; by default all.
        depth
            How deep, see `Report`.
        share
            For "sample": the share of the bytes, above 0 and up to 1. It goes on where the last one has left off, so
            that calls which make 1 together have read every byte.
        remember
            False: nothing is written, and what is found is forgotten.
        progress
            Called with the raw bytes of each chunk that is read.

        Raises
        ------
        WrongKeyError, StorageError
            Nothing can be read at all.
        """
        if depth == "sample" and (ids is not None or not 0 < share <= 1):
            raise InvalidStateError(
                "a sample is a share of all backups, above 0 and up to 1", next_step="give 0.01, say"
            )
        folder, report = self.folder, Report(depth)
        if not folder.is_there:
            return report
        with folder.store.shared():
            manifests = self._manifests(ids, report)
            needed = self._structure(manifests, report)
            self._files(report)
            if depth != "quick":
                self._frames(report)
                wanted = needed if depth == "full" else self._part(needed, share)
                bad = self._read(wanted, report, progress)
                self._blame(manifests, bad, report)
                if depth == "full" and ids is None:
                    self._read_others(needed, report)
                if remember:
                    with contextlib.suppress(ConflictError, StorageError):  # as above
                        self._note(report, wanted, bad, ended=depth == "sample" and wanted[-1:] == needed[-1:])
        return report

    def full(self, one: str, progress: Progress | None = None, *, remember: bool = True) -> Report:
        """Read a backup, every byte of it; see `check`.

        Raises
        ------
        MissingError, IntegrityError
            It is not there, or damaged.
        """
        report = self.check([one], remember=remember, progress=progress)
        if report.damaged:
            raise IntegrityError(
                f"the backup {one} is damaged: {report.backups[one]}",
                path=self.folder.path,
                next_step=self.folder.command(f"verify {one}  # says which files, and what to do"),
            )
        return report

    def _manifests(self, ids: Iterable[str] | None, report: Report) -> list[BackupManifest]:
        found: list[BackupManifest] = []
        for one in self.folder.ids() if ids is None else ids:
            try:
                found.append(self.folder.manifest(one))
                report.backups[one] = None
            except MissingError:
                if ids is not None:
                    raise  # otherwise it was removed meanwhile
            except (IntegrityError, UnsafeError, UnsupportedVersionError, StorageError) as error:
                report.backups[one] = error.message
        return found

    def _structure(self, manifests: list[BackupManifest], report: Report) -> list[bytes]:
        """Look whether all chunks are there, and fit; return their names in the order of these."""
        store = self.folder.store
        needed: set[bytes] = set()
        for made in manifests:
            for entry in made.entries:
                names = entry.chunk_names()
                missing = sum(name not in store.known for name in names)
                if missing:
                    some = "its only chunk is" if len(names) == 1 else f"{missing} of its {len(names)} chunks are"
                    _blame(report, made, entry, f"{some} gone")
                elif sum(store.place(name)[1].raw for name in names) != entry.size:
                    _blame(report, made, entry, "its chunks have another length than it")
                needed.update(name for name in names if name in store.known)
        report.of_chunks = len(needed)
        report.of_bytes = sum(store.place(name)[1].raw for name in needed)
        return sorted(needed)

    def _files(self, report: Report) -> None:
        """Look at the files of which there are few, and at what is known of packs already."""
        folder, store = self.folder, self.folder.store
        for name, error in {**store.damaged, **store.injured}.items():
            report.others[os.path.join("chunks", name)] = error.message
        for name, found in read_copies(folder.path) if folder.ids() else ():
            if not isinstance(found, Config):
                report.others[name] = "it is gone" if found is None else found.message
        for name, read in (("refs.json", self._read_refs), ("checks.json", self.read_checks)):
            try:
                read()
            except (IntegrityError, UnsafeError, UnsupportedVersionError, StorageError) as error:
                report.others[name] = error.message

    def _read_refs(self) -> None:
        if gone := self.folder.refs().missing(self.folder.ids()):
            raise IntegrityError("; ".join(gone))

    def _frames(self, report: Report) -> None:
        store = self.folder.store
        for name in store.packs:
            copy = os.path.relpath(store.pack_paths(name)[1], self.folder.path)
            try:
                store.check_copy(name)
            except (IntegrityError, UnsafeError, MissingError, StorageError) as error:
                report.others[copy] = error.message
            try:
                if name not in store.injured:
                    store.check_frame(name)
            except (IntegrityError, UnsafeError, MissingError, StorageError) as error:
                report.others[os.path.join("chunks", name)] = error.message

    def _part(self, needed: list[bytes], share: float) -> list[bytes]:
        """Return the part that comes after the last one that was checked; when that was the last of all, the first."""
        store, checks = self.folder.store, self.remembered()
        rest = [name for name in needed if name > checks.cursor] or needed
        wanted = share * sum(store.place(name)[1].raw for name in needed)
        part: list[bytes] = []
        nbytes = 0
        for name in rest:
            if part and nbytes >= wanted:
                break
            part.append(name)
            nbytes += store.place(name)[1].raw
        return part

    def _read(self, names: list[bytes], report: Report, progress: Progress | None) -> dict[bytes, str]:
        """Read chunks, and return what is wrong with which."""
        store, sealer = self.folder.store, self.folder.sealer
        bad: dict[bytes, str] = {}
        guard, buffers = threading.Lock(), Buffers()
        in_order = sorted(names, key=store.place)  # as they stand on the disk

        def wrong_with(name: bytes) -> str | None:
            try:
                buffers.give(fetched(store, name, buffers, sealer))
            except (IntegrityError, MissingError, StorageError, UnsafeError, UnsupportedVersionError) as error:
                return error.message
            return None

        def read(index: int) -> None:
            name = in_order[index]
            # Once more before it is called bad: it may have been a moment's trouble, or the memory.
            wrong = wrong_with(name) and wrong_with(name)
            length = store.place(name)[1].raw
            with guard:
                if wrong is not None:
                    bad[name] = wrong
                report.chunks += 1
                report.nbytes += length
                if progress is not None:
                    progress(length)

        for_all_parts(read, len(in_order))
        store.distrust(bad)
        return bad

    def _read_others(self, needed: list[bytes], report: Report) -> None:
        """Read the chunks that no backup is given back from: what nobody needs, and second copies."""
        store, read = self.folder.store, set(needed)
        for name in store.packs:
            path = os.path.join("chunks", name)
            for chunk, place in store.chunks_of(name).items():
                if chunk not in read or store.place(chunk)[0] != name:
                    try:
                        whole = store.stored(name, chunk) is not None
                    except (MissingError, StorageError) as error:
                        report.others.setdefault(path, error.message)
                        continue
                    if not whole:
                        wrong = damaged_chunk(path, place).message
                        report.others.setdefault(path, f"{wrong}; all that backups need is elsewhere")

    def _blame(self, manifests: list[BackupManifest], bad: dict[bytes, str], report: Report) -> None:
        if not bad:
            return
        for made in manifests:
            for entry in made.entries:
                wrong = next((bad[name] for name in entry.chunk_names() if name in bad), None)
                if wrong is not None:
                    _blame(report, made, entry, f"a chunk of it is damaged: {wrong.removeprefix('it is damaged: ')}")

    def _note(self, report: Report, names: list[bytes], bad: dict[bytes, str], *, ended: bool) -> None:
        when = stamp(now())

        def change(checks: Checks) -> None:
            checks.bad = ((checks.bad - set(names)) | set(bad)) & self.folder.store.known
            if report.depth == "full":
                checks.verified |= {one: when for one, wrong in report.backups.items() if wrong is None}
            elif names:
                if names[0] <= checks.cursor:  # what came after it is gone: so ended the round
                    checks.rounds.append(when)
                    checks.round_begun = ""
                checks.round_begun = checks.round_begun or when
                checks.cursor = b"" if ended else names[-1]
                if ended:
                    checks.rounds.append(when)
                    checks.round_begun = ""
            for one in report.damaged:
                checks.verified.pop(one, None)

        self.remember(change)


def _blame(report: Report, made: BackupManifest, entry: Entry, why: str) -> None:
    """Note a file of a backup that cannot be restored."""
    one, path = made.backup.id, entry.path or os.path.basename(made.backup.source)
    files = report.files.setdefault(one, [])
    if path not in files:
        files.append(path)
    report.backups[one] = report.backups[one] or f"{path}: {why}"
