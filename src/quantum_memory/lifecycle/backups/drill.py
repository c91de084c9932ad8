"""A fire drill: restore a backup that chance picks into a folder that is removed again, and prove that it is equal.

What was restored is read again from the disk by the means of Python alone, and not by what wrote it: every chunk is
compared with its name, modes, times and links with what is said of them, and nothing else may be there. Where the
source is still what it was, both are compared byte by byte as well.
"""

from __future__ import annotations

import os
import random
import secrets
import shutil
import stat
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from quantum_memory.errors import IntegrityError, MissingError, MissingFileError, StorageError
from quantum_memory.lifecycle.backups.manifest import FILE, FOLDER, MODE_BITS
from quantum_memory.lifecycle.backups.restoring import Restorer
from quantum_memory.lifecycle.backups.saving import at_rest_before
from quantum_memory.lifecycle.repository.chunks import check_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from quantum_memory.lifecycle.backups.checking import Checker
    from quantum_memory.lifecycle.backups.folder import BackupFolder
    from quantum_memory.lifecycle.backups.manifest import BackupManifest, Entry

_WINDOW = 1 << 20


@dataclass
class Drill:
    """What came of a drill; it is true when the backup was restored and is equal.

    Attributes
    ----------
    backup, source
        Id of the backup, and what it is a copy of.
    seed
        What picked it: the same among the same backups picks it again.
    files, nbytes
        How many files were restored and read again, and their bytes.
    compared
        How many of them were compared with the source as well, which was still what it was.
    problems
        What is not as it should be, by path; empty for the source itself.
    left_out
        Links that are not restored, since they lead out of a backup that was imported.
    """

    backup: str
    source: str
    seed: int
    files: int = 0
    nbytes: int = 0
    compared: int = 0
    problems: dict[str, str] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return not self.problems

    def to_dict(self) -> dict[str, Any]:
        """Return it as a plain dict."""
        return asdict(self)


def drill(
    folder: BackupFolder,
    checker: Checker,
    backup: str | None = None,
    *,
    at: str | None = None,
    seed: int | None = None,
    progress: Callable[[int], object] | None = None,
) -> Drill:
    """Restore a backup into a folder that is removed again, and prove it equal.

    Parameters
    ----------
    backup
        Its id; by default that of one that chance picks.
    at
        The folder in which the temporary one is made; by default that of the system. Whoever can read it as this user
        does sees for a while what is in the backup.
    seed
        What picks one; by default a new one.
    progress
        Called with the bytes of each chunk that is restored, and of each that is read again.

    Raises
    ------
    MissingError, IntegrityError
        There is no backup, or its manifest cannot be read.
    MissingFileError, StorageError
        There is no such folder, or nothing can be written there.
    """
    used = new_seed() if seed is None else seed
    one = picked(folder, used) if backup is None else backup
    with folder.store.shared():
        made = folder.manifest(one)
        done = Drill(one, made.backup.source, used)
        _restore(folder, made, at, done, progress)
        if done:
            checker.read_whole(one)
        else:  # which files suffer from it, and for the memory of the folder
            for path in checker.check([one]).files.get(one, ()):
                done.problems.setdefault(path, "it cannot be restored")
    folder.note("drilled", backup=one, files=done.files, problems=done.problems or None)
    return done


def new_seed() -> int:
    """Return what picks any backup."""
    return secrets.randbits(32)


def picked(folder: BackupFolder, seed: int) -> str:
    """Return the id of the backup that a seed picks.

    Raises
    ------
    MissingError
        There is none.
    """
    ids = sorted(folder.ids())
    if not ids:
        raise MissingError(
            "there is no backup yet", path=folder.path, next_step=folder.command("create PATH  # makes one")
        )
    return random.Random(seed).choice(ids)  # noqa: S311 - nobody is kept from guessing it


def _restore(
    folder: BackupFolder, made: BackupManifest, at: str | None, done: Drill, progress: Callable[[int], object] | None
) -> None:
    try:
        temporary = tempfile.mkdtemp(prefix="qmem-drill-", dir=at)
    except FileNotFoundError as error:
        raise MissingFileError("there is no such folder", path=at, next_step="make it, or give another") from error
    except OSError as error:
        raise StorageError.from_os_error(error, "make a folder in", at or tempfile.gettempdir()) from error
    try:
        target = os.path.join(temporary, "restored")
        restored = Restorer(folder, made, progress=progress).restore(target, overwrite=False)
        done.left_out = [path for path, _ in restored.left_out]
        _Comparison(folder, made, target, done, progress or (lambda _: None)).all()
    except (IntegrityError, MissingError) as error:
        done.problems[""] = error.message
    finally:
        _remove(temporary)


class _Comparison:
    """Reads what was restored, and notes what is not as it should be."""

    def __init__(
        self, folder: BackupFolder, made: BackupManifest, target: str, done: Drill, progress: Callable[[int], object]
    ) -> None:
        self._folder = folder
        self._made = made
        self._target = target
        self._done = done
        self._progress = progress
        at_rest = () if made.backup.imported else at_rest_before(made)
        self._at_rest = {entry.path for entry in at_rest}

    def all(self) -> None:
        left_out = set(self._done.left_out)
        entries = {entry.path: entry for entry in self._made.entries if entry.path not in left_out}
        there = dict(_below(self._target))
        for path in sorted(there.keys() | entries.keys()):
            if path not in there:
                self._done.problems[path] = "it is not there"
            elif path not in entries:
                self._done.problems[path] = "it is there, and not in the backup"
            elif (wrong := self._wrong_with(entries[path], there[path])) is not None:
                self._done.problems[path] = wrong

    def _wrong_with(self, entry: Entry, facts: os.stat_result) -> str | None:
        at = os.path.join(self._target, entry.path) if entry.path else self._target
        is_kind = {FILE: stat.S_ISREG, FOLDER: stat.S_ISDIR}.get(entry.type, stat.S_ISLNK)
        if not is_kind(facts.st_mode):
            return f"it is no {entry.type}"
        if entry.type not in {FILE, FOLDER}:
            return None if os.readlink(at) == entry.target else "it leads elsewhere"
        if facts.st_mode & MODE_BITS != entry.mode or stat.S_IMODE(facts.st_mode) & ~MODE_BITS:
            return f"its mode is {stat.S_IMODE(facts.st_mode):o}, and not {entry.mode:o}"
        if facts.st_mtime_ns != entry.modified_ns:
            return f"its time is off by {facts.st_mtime_ns - entry.modified_ns} ns"
        return self._wrong_bytes(entry, at, facts) if entry.type == FILE else None

    def _wrong_bytes(self, entry: Entry, at: str, facts: os.stat_result) -> str | None:
        if facts.st_size != entry.size:
            return f"it has {facts.st_size} bytes, and not {entry.size}"
        store, sealer = self._folder.store, self._folder.sealer
        with open(at, "rb", buffering=0) as file:
            _from_disk(file)
            for name in entry.chunk_names():
                raw = _exactly(file, store.place(name)[1].raw)
                if not check_name(name, raw, sealer):
                    return "its bytes are not those that were saved"
                self._progress(len(raw))
            if file.read(1):
                return "it goes on behind its last chunk"
            self._done.files += 1
            self._done.nbytes += entry.size
            return self._unlike_source(entry, file)

    def _unlike_source(self, entry: Entry, file: BinaryIO) -> str | None:
        """Compare with the source, if that is what it was before and after."""
        at = os.path.join(os.path.realpath(self._made.backup.source), entry.path).rstrip("/")
        if entry.path not in self._at_rest or not _is_untouched(at, entry):
            return None
        file.seek(0)
        try:
            with open(at, "rb", buffering=0) as source:
                same = all(_exactly(source, len(part)) == part for part in iter(lambda: file.read(_WINDOW), b""))
        except OSError:
            return None  # it is gone, or was never this user's to read
        if not _is_untouched(at, entry):
            return None
        self._done.compared += 1
        return None if same else f"it differs from {at}, of which size, number and times are those of the backup"


def _below(top: str) -> Iterator[tuple[str, os.stat_result]]:
    """Give all that is at a path and below it, with what is known of it."""
    waiting = [""]
    while waiting:
        path = waiting.pop()
        at = os.path.join(top, path) if path else top
        facts = os.lstat(at)
        yield path, facts
        if stat.S_ISDIR(facts.st_mode):
            with os.scandir(at) as listed:
                waiting += [f"{path}/{one.name}" if path else one.name for one in listed]


def _is_untouched(at: str, entry: Entry) -> bool:
    try:
        facts = os.lstat(at)
    except OSError:
        return False
    return stat.S_ISREG(facts.st_mode) and (
        (entry.size, entry.modified_ns, entry.inode, entry.changed_ns)
        == (facts.st_size, facts.st_mtime_ns, facts.st_ino, facts.st_ctime_ns)
    )  # fmt: skip


def _from_disk(file: BinaryIO) -> None:
    """Have a file read from the disk, and not from the memory that it was just written from, where the system can."""
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _exactly(file: BinaryIO, length: int) -> bytes:
    """Return so many bytes, or those that there are."""
    parts = []
    while length and (part := file.read(length)):
        parts.append(part)
        length -= len(part)
    return b"".join(parts)


def _remove(folder: str) -> None:
    """Remove a folder, with what is in folders that nobody may write to."""
    for above, folders, _ in os.walk(folder):
        for one in folders:
            path = Path(above, one)
            if not path.is_symlink():
                path.chmod(stat.S_IRWXU)
    shutil.rmtree(folder)
