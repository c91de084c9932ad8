"""What a power cut leaves of the files of a folder, for code that writes through `durability.files.Files`.

A disk may write what was not synced in any order, or not at all, and of one call some sectors and others not. What was
synced is there.
"""

from __future__ import annotations

import os
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quantum_memory.testing.faults import KILLED, CountingFiles

if TYPE_CHECKING:
    from quantum_memory.durability.files import Files

SECTOR = 512
"""The bytes that a disk writes wholly or not at all."""

_FOLDER = -1


@dataclass
class _Content:
    """Of a file: what is on the disk, and what was done to it since."""

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


class PowerCutFiles(CountingFiles):
    """Cuts the power at the k-th call: leaves in the folder what a disk might have then, and ends the process.

    To be used in a child process: see `faults.killed_at`. It does not know of folders inside the folder, and expects
    files to be created with ``O_EXCL``.

    Parameters
    ----------
    k
        At which call, from 0.
    folder
        Where the files are that are written to.
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
        self._folder = Path(folder)
        self._rng = random.Random(f"{seed} {k}")  # noqa: S311 - it is to be repeatable
        self._contents: dict[int, _Content] = {}
        self._names: dict[str, int] = {}  # as they are
        self._synced_names: dict[str, int] = {}
        self._renames: list[dict[str, int]] = []  # the names after each change since the folder was synced
        self._of_fd: dict[int, int] = {}
        for path in self._folder.iterdir():
            self._names[path.name] = self._add(path.read_bytes())
        self._synced_names = dict(self._names)

    def call(self, name: str, *arguments: Any) -> Any:
        """Make the call, or cut the power."""
        cut = self.is_next(name)
        follow = getattr(self, f"_after_{name}", None)
        result = None if cut else super().call(name, *arguments)
        if follow is not None and not (cut and name in {"open", "fsync"}):
            follow(result, *arguments)  # what is under way at the cut may be done in part, but a sync is not
        if cut:
            self._cut()
        return result

    def _add(self, synced: bytes = b"") -> int:
        self._contents[len(self._contents)] = _Content(synced)
        return len(self._contents) - 1

    def _name(self, path: str) -> str | None:
        return Path(path).name if Path(path).parent == self._folder else None

    def _note_names(self) -> None:
        self._renames.append(dict(self._names))

    def _after_open(self, fd: int, path: str, flags: int, *_: int) -> None:
        name = self._name(path)
        if Path(path) == self._folder:
            self._of_fd[fd] = _FOLDER
        elif name is not None:
            if flags & os.O_EXCL:
                self._names[name] = self._add()
                self._note_names()
            self._of_fd[fd] = self._names[name]

    def _after_close(self, _: None, fd: int) -> None:
        self._of_fd.pop(fd, None)

    def _after_write(self, written: int | None, fd: int, data: Any) -> None:
        content = self._contents[self._of_fd[fd]]
        end = len(content.left(self._rng, 1))  # files are written to from their beginning to their end
        content.since.append((end, bytes(memoryview(data)[:written])))

    def _after_write_at(self, written: int | None, fd: int, data: Any, offset: int) -> None:
        self._contents[self._of_fd[fd]].since.append((offset, bytes(memoryview(data)[:written])))

    def _after_truncate(self, _: None, fd: int, length: int) -> None:
        self._contents[self._of_fd[fd]].since.append((length, None))

    def _after_fsync(self, _: None, fd: int) -> None:
        if self._of_fd[fd] == _FOLDER:
            self._synced_names = dict(self._names)
            self._renames.clear()
        else:
            self._contents[self._of_fd[fd]].sync(self._rng)

    def _after_rename(self, _: None, source: str, target: str) -> None:
        self._names[Path(target).name] = self._names.pop(Path(source).name)
        self._note_names()

    def _after_link(self, _: None, source: str, target: str) -> None:
        self._names[Path(target).name] = self._names[Path(source).name]
        self._note_names()

    def _after_unlink(self, _: None, path: str) -> None:
        del self._names[Path(path).name]
        self._note_names()

    def _cut(self) -> None:
        names = self._rng.choice([self._synced_names, *self._renames])
        for path in list(self._folder.iterdir()):
            path.unlink()
        for name, number in names.items():
            (self._folder / name).write_bytes(
                self._contents[number].left(self._rng, self._rng.choice((0, 0.5, 0.9, 1)))
            )
        os._exit(KILLED)


def _set_length(content: bytearray, length: int) -> None:
    if length < len(content):
        del content[length:]
    else:
        content.extend(bytes(length - len(content)))
