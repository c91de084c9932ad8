"""What a power cut leaves of a folder and those in it, for code that writes through `durability.files.Files`.

A disk may write what was not synced in any order, or not at all, and of one call some sectors and others not. What was
synced is there. The sync of a file keeps its bytes, and not its name; the sync of a folder keeps the names in it, and
not its own. Of the changes of names in one folder that were not synced, some are there, and none that came after one
that is not. A rename is in both folders, or in neither.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import stat
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from quantum_memory.testing.faults import KILLED, CountingFiles

if TYPE_CHECKING:
    from quantum_memory.durability.files import Files

SECTOR = 512
"""The bytes that a disk writes wholly or not at all."""

_ROOT = 0


@dataclass
class _Content:
    """Of a file: what is on the disk, and what was done to it since; its mode, and its time until it is written to."""

    mode: int
    time: int | None = None
    synced: bytes = b""
    since: list[tuple[int, bytes | None]] = field(default_factory=list)  # written bytes, or None: cut off there

    def sync(self, rng: random.Random) -> None:
        self.synced = self.left(rng, 1)
        self.since.clear()

    def left(self, rng: random.Random, chance: float) -> bytes:
        """Return the content when each sector has a chance to be there."""
        content = bytearray(self.synced)
        for offset, data in self.since:
            if data is None:
                if rng.random() < chance:
                    _set_length(content, offset)
                continue
            start = 0
            while start < len(data):
                stop = min(len(data), start + SECTOR - (offset + start) % SECTOR)
                if rng.random() < chance:
                    _set_length(content, max(len(content), offset + stop))
                    content[offset + start : offset + stop] = data[start:stop]
                start = stop
        return bytes(content)


@dataclass
class _Folder:
    """Of a folder: the names in it that are on the disk, those that there are now, and its mode."""

    mode: int
    synced: dict[str, int] = field(default_factory=dict)
    now: dict[str, int] = field(default_factory=dict)


class _Change(NamedTuple):
    """A change of names: which files the names in some folders are of then, and which other folders it is about."""

    names: tuple[tuple[int, str, int | None], ...]
    others: tuple[int, ...] = ()

    def folders(self) -> set[int]:
        return {folder for folder, _, _ in self.names} | set(self.others)


class PowerCutFiles(CountingFiles):
    """Cuts the power at the k-th call: leaves in the folder what a disk might have then, and ends the process.

    To be used in a child process: see `faults.killed_at`. Modes are taken to be on the disk at once.

    Parameters
    ----------
    k
        At which call, from 0.
    folder
        Where the files and folders are that are written to, without symbolic links.
    seed
        Of what is left. Each seed is another cut: nothing of what was not synced, all of it, or any part.

    Examples
    --------
    >>> k = 0
    >>> while killed_at(k, work, lambda k: PowerCutFiles(k, folder, seed)):  # doctest: +SKIP
    ...     assert path.read_bytes() in (old, new)
    ...     k += 1
    """

    def __init__(self, k: int, folder: str | os.PathLike[str], seed: int = 0, inner: Files | None = None) -> None:
        super().__init__(k, inner)
        self._root = Path(folder)
        self._rng = random.Random(f"{seed} {k}")  # noqa: S311 - it is to be repeatable
        self._contents: dict[int, _Content] = {}
        self._folders: dict[int, _Folder] = {}
        self._changes: list[_Change] = []  # that were not synced
        self._of_fd: dict[int, int] = {}
        self._count = _ROOT
        self._take(self._root, {})

    def call(self, name: str, *arguments: Any) -> Any:
        """Make the call, or cut the power: what is under way then may be done or not, but a sync is not."""
        if not self.is_next(name):
            return self._follow(name, *arguments)
        if name != "fsync":
            with contextlib.suppress(OSError):
                self._follow(name, *arguments)
        return self._cut()

    def _follow(self, name: str, *arguments: Any) -> Any:
        result = super().call(name, *arguments)
        follow = getattr(self, f"_after_{name}", None)
        if follow is not None:
            follow(result, *arguments)
        return result

    def _take(self, path: Path, known: dict[tuple[int, int], int]) -> int:
        """Take what is at a path as being on the disk, and return its number; a file with two names has one."""
        facts = path.lstat()
        number = known.setdefault((facts.st_dev, facts.st_ino), self._count)
        if number < self._count:
            return number
        self._count += 1
        mode = stat.S_IMODE(facts.st_mode)
        if stat.S_ISDIR(facts.st_mode):
            names = {inner.name: self._take(inner, known) for inner in path.iterdir()}
            self._folders[number] = _Folder(mode, names, dict(names))
        else:
            self._contents[number] = _Content(mode, facts.st_mtime_ns, path.read_bytes())
        return number

    def _new(self) -> int:
        self._count += 1
        return self._count - 1

    def _place(self, path: str) -> tuple[int, str]:
        """Return in which folder a path is, and its name there."""
        *above, name = Path(path).relative_to(self._root).parts
        folder = _ROOT
        for one in above:
            folder = self._folders[folder].now[one]
        return folder, name

    def _find(self, path: str) -> int:
        folder, name = self._place(path)
        return self._folders[folder].now[name]

    def _change(self, *names: tuple[int, str, int | None], others: tuple[int, ...] = ()) -> None:
        change = _Change(names, others)
        self._changes.append(change)
        for folder, name, number in names:
            _set_name(self._folders[folder].now, name, number)

    def _sync_names(self, folder: int) -> None:
        """Keep the changes in a folder, and with each those before it in the folders that it is about."""
        needed, kept, rest = {folder}, [], []
        for change in reversed(self._changes):
            if needed & change.folders():
                needed |= change.folders()
                kept.append(change)
            else:
                rest.append(change)
        for change in reversed(kept):
            self._keep(change)
        self._changes = rest[::-1]

    def _keep(self, change: _Change) -> None:
        for folder, name, number in change.names:
            _set_name(self._folders[folder].synced, name, number)

    def _after_open(self, fd: int, path: str, flags: int, *_: int) -> None:
        if not Path(path).is_relative_to(self._root):
            return
        if Path(path) == self._root:
            self._of_fd[fd] = _ROOT
            return
        folder, name = self._place(path)
        if flags & os.O_CREAT and name not in self._folders[folder].now:
            number = self._new()
            self._contents[number] = _Content(stat.S_IMODE(os.fstat(fd).st_mode))
            self._change((folder, name, number))
        self._of_fd[fd] = self._folders[folder].now[name]

    def _after_close(self, _: None, fd: int) -> None:
        self._of_fd.pop(fd, None)

    def _after_fchmod(self, _: None, fd: int, mode: int) -> None:
        number = self._of_fd[fd]
        (self._folders if number in self._folders else self._contents)[number].mode = mode

    def _after_write(self, written: int, fd: int, data: Any) -> None:
        end = len(self._contents[self._of_fd[fd]].left(self._rng, 1))  # written to from the beginning to the end
        self._after_write_at(written, fd, data, end)

    def _after_write_at(self, written: int, fd: int, data: Any, offset: int) -> None:
        self._written(fd).since.append((offset, bytes(memoryview(data)[:written])))

    def _after_truncate(self, _: None, fd: int, length: int) -> None:
        self._written(fd).since.append((length, None))

    def _written(self, fd: int) -> _Content:
        content = self._contents[self._of_fd[fd]]
        content.time = None
        return content

    def _after_fsync(self, _: None, fd: int) -> None:
        number = self._of_fd[fd]
        if number in self._folders:
            self._sync_names(number)
        else:
            self._contents[number].sync(self._rng)

    def _after_set_time(self, _: None, fd: int, modified_ns: int) -> None:
        if (content := self._contents.get(self._of_fd[fd])) is not None:  # not followed for folders
            content.time = modified_ns

    def _after_exchange(self, _: None, one: str, other: str) -> None:
        there, here = self._find(one), self._find(other)
        self._change((*self._place(one), here), (*self._place(other), there))

    def _after_symlink(self, _: None, target: str, path: str) -> None:
        raise NotImplementedError(f"{path}: symbolic links are not followed")

    def _after_rename(self, _: None, source: str, target: str) -> None:
        number = self._find(source)
        self._change((*self._place(source), None), (*self._place(target), number))

    def _after_link(self, _: None, source: str, target: str) -> None:
        self._change((*self._place(target), self._find(source)))

    def _after_unlink(self, _: None, path: str) -> None:
        self._change((*self._place(path), None))

    def _after_mkdir(self, _: None, path: str, *__: int) -> None:
        number = self._new()
        self._folders[number] = _Folder(stat.S_IMODE(os.lstat(path).st_mode))
        self._change((*self._place(path), number))

    def _after_rmdir(self, _: None, path: str) -> None:
        # No file system lets go of a folder before what was in it.
        self._change((*self._place(path), None), others=(self._find(path),))

    def _cut(self) -> None:
        counts = Counter(folder for change in self._changes for folder in change.folders())
        left = {folder: self._rng.randint(0, count) for folder, count in counts.items()}
        for change in self._changes:
            folders = change.folders()
            there = all(left[folder] for folder in folders)
            if there:
                self._keep(change)
            for folder in folders:
                left[folder] = left[folder] - 1 if there else 0
        for path in list(self._root.iterdir()):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        self._leave(_ROOT, self._root, {})
        os._exit(KILLED)

    def _leave(self, number: int, path: Path, made: dict[int, Path]) -> None:
        """Make of what is on the disk what is at `path`."""
        if number in self._folders:
            folder = self._folders[number]
            path.mkdir(exist_ok=number == _ROOT)
            for name, inner in folder.synced.items():
                self._leave(inner, path / name, made)
            path.chmod(folder.mode)
        elif number in made:
            path.hardlink_to(made[number])
        else:
            content = self._contents[number]
            path.write_bytes(content.left(self._rng, self._rng.choice((0, 0.5, 0.9, 1))))
            path.chmod(content.mode)
            if content.time is not None:
                os.utime(path, ns=(content.time, content.time))
            made[number] = path


def _set_name(names: dict[str, int], name: str, number: int | None) -> None:
    if number is None:
        del names[name]
    else:
        names[name] = number


def _set_length(content: bytearray, length: int) -> None:
    if length < len(content):
        del content[length:]
    else:
        content.extend(bytes(length - len(content)))
