"""What power cuts may leave of a folder and those in it, for code that writes through `durability.files.Files`.

A disk may write what was not synced in any order, or not at all, and of one call some sectors and others not. What was
synced is there. The sync of a file keeps its bytes, and not its name; the sync of a folder keeps the names in it, and
not its own. Of the changes of names in one folder that were not synced, some are there, and none that came after one
that is not. A rename is in both folders, or in neither.

`CrashModel` follows what is done, once, and then tells what a cut at each call may leave. `accidents.cut_at_each` looks
at all of that.
"""

from __future__ import annotations

import itertools
import os
import random
import stat
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quantum_memory.durability import atomic
from quantum_memory.testing.crash_states import ROOT, Change, Cut, File, Folder, Link
from quantum_memory.testing.faults import UNCHANGING, PassingFiles

if TYPE_CHECKING:
    from collections.abc import Iterator

    from quantum_memory.durability.files import Buffer, Files
    from quantum_memory.testing.crash_states import CrashState

SECTOR = 512
"""The bytes that a disk writes wholly or not at all."""


class CrashModel(PassingFiles):
    """Follows what is done to a folder, by any number of threads, and tells what a cut at each call may leave.

    Modes and times that are set are taken to be on the disk at once; the times of symbolic links are not followed.

    Parameters
    ----------
    folder
        Where the files and folders are that are written to, by paths that begin with this one.

    Attributes
    ----------
    acknowledged : int
        How much of what is done was acknowledged: to be raised by whoever does it.

    Examples
    --------
    >>> model = CrashModel(folder)
    >>> with files.using(model):  # doctest: +SKIP
    ...     save(state, path)
    ...     model.acknowledged = 1
    >>> for acknowledged in model.leave_each():  # doctest: +SKIP
    ...     assert path.read_bytes() in ((new,) if acknowledged else (old, new))
    """

    def __init__(self, folder: str | os.PathLike[str], inner: Files | None = None) -> None:
        super().__init__(inner)
        self.acknowledged = 0
        self._root = Path(folder).absolute()
        self._alone = threading.RLock()
        self._nodes: dict[int, File | Folder | Link] = {}
        self._names: dict[int, dict[str, int]] = {}  # as they are now, of each folder
        self._changes: tuple[Change, ...] = ()  # that were not synced
        self._opened: dict[int, _Opened] = {}
        self._numbers = itertools.count(ROOT)
        self._cuts: list[Cut] = []
        self._take(self._root, {})

    def leave_each(self, most: int = 256, seed: int = 0) -> Iterator[int]:
        """Make each state what is in the folder, in turn, and give how much was acknowledged; see `states`."""
        for state, acknowledged in self.states(most, seed):
            state.put(self._root)
            atomic.forget_sweeps()
            yield acknowledged

    def states(self, most: int = 256, seed: int = 0) -> Iterator[tuple[CrashState, int]]:
        """Give what the cuts may leave, each once, and how much was acknowledged before the last that may leave it.

        Parameters
        ----------
        most
            How many of one cut are tried. When there are no more, all of them are given.
        seed
            Of those that are tried when there are more.
        """
        rng = random.Random(seed)  # noqa: S311 - it is to be repeatable
        seen: set[int] = set()
        whole = False
        for cut in reversed([*self._cuts, self._cut()]):
            if whole and cut.contained:
                continue
            states, whole = cut.states(most, rng)
            for state in states:
                if (known := hash(state)) not in seen:
                    seen.add(known)
                    yield state, cut.acknowledged

    def call(self, name: str, *arguments: Any) -> Any:
        """Make the call, and follow it."""
        if name in UNCHANGING - {"close"}:
            return super().call(name, *arguments)
        with self._alone:
            if name != "close":
                self._note()
            result = super().call(name, *arguments)
            follow = getattr(self, f"_after_{name}", None)
            if follow is not None:
                follow(result, *arguments)
        return result

    def _cut(self) -> Cut:
        return Cut(dict(self._nodes), self._changes, self.acknowledged)

    def _note(self) -> None:
        """Take note of what there is before a call, unless it is what there was before the last one."""
        now = self._cut()
        if not self._cuts or now != self._cuts[-1]:
            self._cuts.append(now)

    def _replace(self, number: int, **facts: Any) -> None:
        """Change what is known to be on the disk: a cut before may leave what one after it may not."""
        self._nodes[number] = self._nodes[number]._replace(**facts)
        self._cuts[-1].contained = False

    def _forget_time(self, number: int) -> None:
        node = self._nodes[number]
        if not isinstance(node, Link) and node.time is not None:
            self._replace(number, time=None)

    def _take(self, path: Path, known: dict[tuple[int, int], int]) -> int:
        """Take what is at a path as being on the disk, and return its number; a file with two names has one."""
        facts = path.lstat()
        number = known.get((facts.st_dev, facts.st_ino))
        if number is not None:
            return number
        number = known[facts.st_dev, facts.st_ino] = next(self._numbers)
        mode = stat.S_IMODE(facts.st_mode)
        if stat.S_ISDIR(facts.st_mode):
            self._names[number] = {inner.name: self._take(inner, known) for inner in path.iterdir()}
            self._nodes[number] = Folder(mode, facts.st_mtime_ns, dict(self._names[number]))
        elif stat.S_ISLNK(facts.st_mode):
            self._nodes[number] = Link(os.readlink(path))
        else:
            self._nodes[number] = File(mode, facts.st_mtime_ns, path.read_bytes())
        return number

    def _place(self, path: str) -> tuple[int, str]:
        """Return in which folder a path is, and its name there."""
        *above, name = Path(path).relative_to(self._root).parts
        folder = ROOT
        for one in above:
            folder = self._names[folder][one]
        return folder, name

    def _find(self, path: str) -> int:
        folder, name = self._place(path)
        return self._names[folder][name]

    def _change(self, *names: tuple[int, str, int | None], others: tuple[int, ...] = ()) -> None:
        change = Change(names, others)
        self._changes += (change,)
        change.make(self._names)
        for folder, _, _ in names:
            self._forget_time(folder)

    def _sync_names(self, folder: int) -> None:
        """Keep the changes in a folder, and with each those before it in the folders that it is about."""
        needed, kept, rest = {folder}, [], []
        for change in reversed(self._changes):
            if needed & change.folders():
                needed |= change.folders()
                kept.append(change)
            else:
                rest.append(change)
        if not kept:
            return
        synced = {number: node.names for number, node in self._nodes.items() if isinstance(node, Folder)}
        for change in reversed(kept):
            change.make(synced)
        for number in needed:
            self._replace(number, names=synced[number])
        self._changes = tuple(reversed(rest))

    def _after_open(self, fd: int, path: str, flags: int, *_: int) -> None:
        if not Path(path).is_relative_to(self._root):
            return
        if Path(path) == self._root:
            self._opened[fd] = _Opened(ROOT)
            return
        folder, name = self._place(path)
        if flags & os.O_CREAT and name not in self._names[folder]:
            number = next(self._numbers)
            self._nodes[number] = File(stat.S_IMODE(os.fstat(fd).st_mode))
            self._change((folder, name, number))
        if flags & os.O_TRUNC:
            raise NotImplementedError(f"{path}: O_TRUNC is not followed")
        self._opened[fd] = _Opened(self._names[folder][name], appends=bool(flags & os.O_APPEND))

    def _after_close(self, _: None, fd: int) -> None:
        self._opened.pop(fd, None)

    def _after_fchmod(self, _: None, fd: int, mode: int) -> None:
        self._replace(self._opened[fd].number, mode=mode)

    def _after_write(self, written: int, fd: int, data: Buffer) -> None:
        opened = self._opened[fd]
        if opened.appends:
            opened.position = os.fstat(fd).st_size - written
        self._after_write_at(written, fd, data, opened.position)
        opened.position += written

    def _after_write_at(self, written: int, fd: int, data: Buffer, offset: int) -> None:
        rest, parts = bytes(memoryview(data)[:written]), []
        while rest:
            length = SECTOR - offset % SECTOR
            parts.append((offset, rest[:length]))
            offset, rest = offset + length, rest[length:]
        self._written(fd, *parts)

    def _after_truncate(self, _: None, fd: int, length: int) -> None:
        self._written(fd, (length, None))

    def _written(self, fd: int, *parts: tuple[int, bytes | None]) -> None:
        number = self._opened[fd].number
        self._forget_time(number)
        file = self._nodes[number]
        assert isinstance(file, File)
        self._nodes[number] = file._replace(since=file.since + parts)

    def _after_fsync(self, _: None, fd: int) -> None:
        number = self._opened[fd].number
        node = self._nodes[number]
        if isinstance(node, Folder):
            self._sync_names(number)
        elif isinstance(node, File) and node.since:
            self._replace(number, synced=node.whole(), since=())

    def _after_set_time(self, _: None, fd: int, modified_ns: int) -> None:
        self._replace(self._opened[fd].number, time=modified_ns)

    def _after_exchange(self, _: None, one: str, other: str) -> None:
        there, here = self._find(one), self._find(other)
        self._change((*self._place(one), here), (*self._place(other), there))

    def _after_symlink(self, _: None, target: str, path: str) -> None:
        number = next(self._numbers)
        self._nodes[number] = Link(target)
        self._change((*self._place(path), number))

    def _after_rename(self, _: None, source: str, target: str) -> None:
        number = self._find(source)
        self._change((*self._place(source), None), (*self._place(target), number))

    def _after_link(self, _: None, source: str, target: str) -> None:
        self._change((*self._place(target), self._find(source)))

    def _after_unlink(self, _: None, path: str) -> None:
        self._change((*self._place(path), None))

    def _after_mkdir(self, _: None, path: str, *__: int) -> None:
        number = next(self._numbers)
        self._names[number] = {}
        self._nodes[number] = Folder(stat.S_IMODE(os.lstat(path).st_mode), None, {})
        self._change((*self._place(path), number))

    def _after_rmdir(self, _: None, path: str) -> None:
        # No file system lets go of a folder before what was in it.
        self._change((*self._place(path), None), others=(self._find(path),))


@dataclass
class _Opened:
    """Of a descriptor: its file or folder, and where the next write goes."""

    number: int
    position: int = 0
    appends: bool = False
