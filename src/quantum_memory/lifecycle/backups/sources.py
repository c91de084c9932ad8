"""What there is to back up in a file or folder, and how it is read while others write to it.

- A file that is replaced as a whole, as every format of ours but HDF5 is, is read from one opening to its end.
- An HDF5 file is locked as our stores lock it, so that no transaction is on its way while it is read; one that was
  interrupted is copied with its log, and finished by whoever opens the copy.
- A folder of checkpoints or backups is held together with those who save into it: nothing is removed from it meanwhile.
  Its manifests are listed before its packs, so that what the former need is among the latter.
- Of anything else, what changes while it is read is read again, and after a few times is named as a problem. A change
  is told by the times of the file, which are as fine as the clock of its file system: a file that was changed a moment
  ago is read when a further change would show. What is written through mapped memory shows as well, but for files of
  file systems in memory.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from quantum_memory.durability.atomic import is_leftover
from quantum_memory.durability.files import ReadableFile
from quantum_memory.durability.locks import locked
from quantum_memory.durability.store_lock import SHARED_TIMEOUT, hold_together, is_store
from quantum_memory.errors import ConflictError, MissingFileError, StorageError, UnsafeError
from quantum_memory.lifecycle.backups.cuts import HDF5_SIGNATURE
from quantum_memory.lifecycle.backups.manifest import FILE, FOLDER, LINK, MODE_BITS, Entry

if TYPE_CHECKING:
    from collections.abc import Iterator

_PACKS = "chunks"
_STORE_TIMEOUT = 60.0
"""Seconds to wait for whoever is changing an HDF5 file."""

_TICK, _COARSE_TICK = 20_000_000, 2_000_000_000
"""Nanoseconds from one time that a file may get to the next: of systems whose clocks tick 100 times a second or more
often, and of file systems that know no parts of a second."""


@dataclass
class Survey:
    """What there is.

    Attributes
    ----------
    others
        Folders and links, as entries.
    files
        Of each file, where it is in the source, and where on this machine; in the order in which they were listed.
    problems
        What could not be listed, and why.
    skipped
        Pipes, sockets and devices, which are no memories.
    """

    others: list[Entry] = field(default_factory=list)
    files: list[tuple[str, str]] = field(default_factory=list)
    problems: list[tuple[str, str]] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)


def survey(source: str, held: contextlib.ExitStack, leave_out: str) -> Survey:
    """List what there is in a file or folder.

    Parameters
    ----------
    source
        From the root on.
    held
        Where the locks of folders of checkpoints and backups go, until all is read.
    leave_out
        A folder that is not listed: that of the backups themselves.

    Raises
    ------
    MissingFileError, UnsafeError, StorageError, ConflictError
    """
    found = Survey()
    try:
        facts = os.lstat(source)
    except (FileNotFoundError, NotADirectoryError):
        raise MissingFileError("there is no such file or folder", path=source, next_step="check the path") from None
    except OSError as error:
        raise StorageError.from_os_error(error, "look at", source) from error
    if _is_within(source, os.path.realpath(leave_out)):
        raise ConflictError(
            "backups are not backed up into their own folder",
            path=source,
            next_step="give another folder of backups, or export them",
        )
    if stat.S_ISREG(facts.st_mode):
        found.files.append(("", source))
    elif stat.S_ISDIR(facts.st_mode):
        _Walk(found, held, _identity(leave_out)).all(source, facts)
    else:
        raise UnsafeError("this is neither a file nor a folder", path=source, next_step="check the path")
    return found


class _Walk:
    def __init__(self, found: Survey, held: contextlib.ExitStack, left_out: tuple[int, int] | None) -> None:
        self._found = found
        self._held = held
        self._left_out = left_out

    def all(self, source: str, facts: os.stat_result) -> None:
        """List a folder, and what is in it, each folder before what comes after it."""
        levels = [self._inside("", source, facts)]
        while levels:
            path, one = next(levels[-1], ("", None))
            if one is None:
                levels.pop()
            elif (below := self._take(path, one)) is not None:
                levels.append(below)

    def _inside(self, path: str, at: str, facts: os.stat_result) -> Iterator[tuple[str, os.DirEntry[str]]]:
        if (facts.st_dev, facts.st_ino) == self._left_out:
            self._found.skipped.append(path)
            return iter(())
        self._found.others.append(Entry(path, FOLDER, facts.st_mode & MODE_BITS, facts.st_mtime_ns))
        if is_store(at):
            self._held.enter_context(hold_together(at, timeout=SHARED_TIMEOUT))
        try:
            with os.scandir(at) as listed:
                inside = sorted(listed, key=lambda one: (one.name == _PACKS, one.name))
        except OSError as error:
            if not path:
                raise StorageError.from_os_error(error, "list", at) from error
            self._found.problems.append((path, f"could not be listed: {error.strerror}"))
            return iter(())
        return iter([(f"{path}/{one.name}" if path else one.name, one) for one in inside if not is_leftover(one.name)])

    def _take(self, path: str, one: os.DirEntry[str]) -> Iterator[tuple[str, os.DirEntry[str]]] | None:
        """Note what something is; of a folder, return what is in it."""
        try:
            facts = one.stat(follow_symlinks=False)
            if stat.S_ISDIR(facts.st_mode):
                return self._inside(path, one.path, facts)
            if stat.S_ISREG(facts.st_mode):
                self._found.files.append((path, one.path))
            elif stat.S_ISLNK(facts.st_mode):
                target = os.readlink(one.path)
                self._found.others.append(Entry(path, LINK, 0o777, facts.st_mtime_ns, target=target))
            else:
                self._found.skipped.append(path)
        except FileNotFoundError:
            pass  # it was removed meanwhile
        except OSError as error:
            self._found.problems.append((path, f"could not be looked at: {error.strerror}"))
        return None


def _is_within(path: str, folder: str) -> bool:
    return os.path.commonpath([path, folder]) == folder


def _identity(path: str) -> tuple[int, int] | None:
    try:
        facts = os.stat(path)
    except OSError:
        return None
    return facts.st_dev, facts.st_ino


class Changed(Exception):  # noqa: N818 - whoever reads tries again
    """A file changed while it was read."""


@dataclass(frozen=True)
class OpenSource:
    """A file that is being read.

    Attributes
    ----------
    file
        The file.
    facts
        What was known of it when it was opened.
    """

    file: ReadableFile
    facts: os.stat_result

    def entry(self, path: str, chunks: bytes) -> Entry:
        """Return what is said of it in a backup."""
        facts = self.facts
        return Entry(
            path, FILE, facts.st_mode & MODE_BITS, facts.st_mtime_ns, facts.st_size, chunks,
            inode=facts.st_ino, changed_ns=facts.st_ctime_ns,
        )  # fmt: skip

    def check(self) -> None:
        """Raise `Changed` if it is not what it was when it was opened."""
        _compare(self.facts, self.file.facts())


def _compare(before: os.stat_result, now: os.stat_result) -> None:
    # That it was replaced, or given another name, changes the last of the times, and nothing in it.
    times = 2 if before.st_nlink != now.st_nlink else 3
    if _state(before)[:times] != _state(now)[:times]:
        raise Changed


def _state(facts: os.stat_result) -> tuple[int, int, int]:
    return facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns


def _at_rest(file: ReadableFile) -> os.stat_result:
    """Return what is known of a file from when on every change of it shows in its times."""
    facts = file.facts()
    if facts.st_size != file.size:
        raise Changed
    tick = _COARSE_TICK if facts.st_ctime_ns % 1_000_000_000 == 0 else _TICK
    left = facts.st_ctime_ns + tick - time.time_ns()
    if 0 < left <= tick:
        time.sleep(left / 1e9)
        _compare(facts, file.facts())
    file.settle()  # last: a write has its time from its beginning on
    return facts


@contextlib.contextmanager
def opened(at: str) -> Iterator[OpenSource]:
    """Give a file to read, locked where it is one that is changed in place.

    Raises
    ------
    MissingFileError, UnsafeError, StorageError, ConflictError
    Changed
        It is being changed right now.
    """
    with contextlib.ExitStack() as held:
        file = held.enter_context(ReadableFile(at, follow=False))
        if file.size >= len(HDF5_SIGNATURE) and file.read(0, len(HDF5_SIGNATURE)) == HDF5_SIGNATURE:
            held.enter_context(locked(at, at, write=False, timeout=_STORE_TIMEOUT))
            file = held.enter_context(ReadableFile(at, follow=False))  # now that nobody changes it
        yield OpenSource(file, _at_rest(file))
