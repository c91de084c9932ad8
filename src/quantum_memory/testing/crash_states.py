"""What may be on a disk after a power cut: which of the changes that were not synced are there.

See `quantum_memory.testing.power_cuts`, which says by which rules, and follows what is done to the disk.
"""

from __future__ import annotations

import itertools
import os
import shutil
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterable, Iterator

ROOT = 0
"""The number of the folder in which all is."""


class File(NamedTuple):
    """A file: what is on the disk, and what was done to it since; its mode, and its time until it is written to."""

    mode: int
    time: int | None = None
    synced: bytes = b""
    since: tuple[tuple[int, bytes | None], ...] = ()  # where, and the part of a sector there, or None: cut off there

    def left(self, there: int) -> bytes:
        """Return the content when those of the changes since are there whose bits are set."""
        if not there:
            return self.synced
        content = bytearray(self.synced)
        for place, (offset, data) in enumerate(self.since):
            if not there >> place & 1:
                continue
            if data is None:
                del content[offset:]
            if len(content) < offset:
                content.extend(bytes(offset - len(content)))
            if data is not None:
                content[offset : offset + len(data)] = data
        return bytes(content)

    def whole(self) -> bytes:
        """Return the content when all is there."""
        return self.left((1 << len(self.since)) - 1)

    def any_left(self, rng: random.Random) -> bytes:
        """Return one content that may be there: with half of the changes, and at times few, most, or the first."""
        count = len(self.since)
        if count == 0:
            return self.synced
        one, two, three = (rng.getrandbits(count) for _ in range(3))
        others = one & two & three, one | two | three, (1 << rng.randrange(count)) - 1
        return self.left(rng.choice((*others, one, one, one, one, one)))


class Folder(NamedTuple):
    """A folder: its mode, its time until a name in it changes, and the names that are on the disk."""

    mode: int
    time: int | None
    names: dict[str, int]


class Link(NamedTuple):
    """A symbolic link."""

    target: str


class Change(NamedTuple):
    """A change of names: which files the names in some folders are of then, and which other folders it is about."""

    names: tuple[tuple[int, str, int | None], ...]
    others: tuple[int, ...] = ()

    def folders(self) -> set[int]:
        """Return the folders that it is about."""
        return {folder for folder, _, _ in self.names} | set(self.others)

    def make(self, names: dict[int, dict[str, int]]) -> None:
        """Make it in copies of the names in the folders."""
        for folder, name, number in self.names:
            names[folder] = dict(names[folder])
            if number is None:
                del names[folder][name]
            else:
                names[folder][name] = number


class Thing(NamedTuple):
    """One name that is there: of a file, of a folder, or of what has the name `target` as well or points to it."""

    path: str
    kind: str
    mode: int = 0
    time: int | None = None
    content: bytes = b""
    target: str = ""

    def adorn(self, there: int | str) -> None:
        """Give the file or folder its mode and time."""
        os.chmod(there, self.mode)
        if self.time is not None:
            os.utime(there, ns=(self.time, self.time))


class CrashState(NamedTuple):
    """What a cut may leave.

    Attributes
    ----------
    things
        All names in the folder, each after that of the folder that it is in.
    """

    things: tuple[Thing, ...]

    def put(self, folder: str | os.PathLike[str]) -> None:
        """Make it what is in a folder."""
        root = os.fspath(folder)
        with os.scandir(root) as entries:
            for entry in entries:
                shutil.rmtree(entry.path) if entry.is_dir(follow_symlinks=False) else os.unlink(entry.path)
        for thing in self.things:
            path = f"{root}{thing.path}"
            if thing.kind == "file":
                fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC)
                try:
                    _write_all(fd, thing.content)
                    thing.adorn(fd)
                finally:
                    os.close(fd)
            elif thing.kind == "name":
                os.link(f"{root}{thing.target}", path)
            elif thing.kind == "link":
                os.symlink(thing.target, path)
            elif thing.path:
                os.mkdir(path)
        for thing in reversed(self.things):  # when all is in it: it may not be written to then
            if thing.kind == "folder":
                thing.adorn(f"{root}{thing.path}")


class Layout(NamedTuple):
    """The names that are there, with what was synced in the files, and which of these may hold something else."""

    things: tuple[Thing, ...]
    unsynced: tuple[tuple[int, int], ...]  # place in `things`, number

    def state(self, contents: Iterable[bytes]) -> CrashState:
        """Return the state in which the files that were not synced have these contents."""
        things = list(self.things)
        for (place, _), content in zip(self.unsynced, contents, strict=True):
            things[place] = things[place]._replace(content=content)
        return CrashState(tuple(things))


def _happens(rng: random.Random, chance: float) -> bool:
    return rng.random() < chance


def _all_states(layouts: list[Layout], unsynced: dict[int, File]) -> Iterator[CrashState]:
    for layout in layouts:
        files = [unsynced[number] for _, number in layout.unsynced]
        for there in itertools.product(*(range(1 << len(file.since)) for file in files)):
            yield layout.state(file.left(some) for file, some in zip(files, there, strict=True))


@dataclass
class Cut:
    """What is on the disk before a call, and what was done since it was synced.

    Attributes
    ----------
    nodes
        The files, folders and links, by number.
    changes
        Of names, in their order, that were not synced.
    acknowledged
        What `CrashModel.acknowledged` was then.
    contained
        Whether a cut at the next call may leave all that this one may leave, because nothing was synced in between.
    """

    nodes: dict[int, File | Folder | Link]
    changes: tuple[Change, ...]
    acknowledged: int
    contained: bool = field(default=True, compare=False)

    def states(self, most: int, rng: random.Random) -> tuple[Iterator[CrashState], bool]:
        """Return what it may leave: all of that, or so many of them, and whether these are all."""
        unsynced = {number: node for number, node in self.nodes.items() if isinstance(node, File) and node.since}
        layouts = list(itertools.islice(self._layouts(), most + 1))
        if sum(1 << sum(len(unsynced[number].since) for _, number in one.unsynced) for one in layouts) <= most:
            return _all_states(layouts, unsynced), True
        return self._some_states(layouts, unsynced, most, rng), False

    def _some_states(
        self, layouts: list[Layout], unsynced: dict[int, File], most: int, rng: random.Random
    ) -> Iterator[CrashState]:
        """Give names with nothing, and with all, of what was not synced in the files, and then any."""
        whole = {number: file.whole() for number, file in unsynced.items()}
        plain = set(rng.sample(range(len(layouts)), min(len(layouts), most // 4)))
        for place in plain:
            layout = layouts[place]
            yield layout.state(unsynced[number].synced for _, number in layout.unsynced)
            yield layout.state(whole[number] for _, number in layout.unsynced)
        # That is all of those in which no file is unsynced.
        others = [layout for place, layout in enumerate(layouts) if layout.unsynced or place not in plain]
        for _ in range(most - 2 * len(plain)):
            layout = rng.choice(others)
            if len(layouts) > most:  # these are the first only
                layout = self._layout(partial(_happens, rng, rng.choice((0.5, 0.9, 0.98))))
            yield layout.state(unsynced[number].any_left(rng) for _, number in layout.unsynced)

    # --- names

    def _layouts(self) -> Iterator[Layout]:
        """Give the names that may be there, in all ways."""
        choices: list[bool] = []  # whether a change is there, of those that may be; the rest is
        while True:
            made: list[bool] = []

            def is_there(choices: list[bool] = choices, made: list[bool] = made) -> bool:
                made.append(len(made) >= len(choices) or choices[len(made)])
                return made[-1]

            yield self._layout(is_there)
            while made and not made[-1]:
                made.pop()
            if not made:
                return
            choices = [*made[:-1], False]

    def _layout(self, is_there: Callable[[], bool]) -> Layout:
        names = {number: node.names for number, node in self.nodes.items() if isinstance(node, Folder)}
        ended: set[int] = set()  # folders of which the next change is not there
        for change in self.changes:
            folders = change.folders()
            if ended.isdisjoint(folders) and is_there():
                change.make(names)
            else:
                ended |= folders
        things: list[Thing] = []
        unsynced: list[tuple[int, int]] = []
        paths: dict[int, str] = {}
        todo = [("", ROOT)]
        while todo:
            path, number = todo.pop()
            node = self.nodes[number]
            if isinstance(node, Folder):
                things.append(Thing(path, "folder", node.mode, node.time))
                todo += [(f"{path}/{name}", inner) for name, inner in sorted(names[number].items())]
            elif number in paths:
                things.append(Thing(path, "name", target=paths[number]))
            elif isinstance(node, Link):
                things.append(Thing(path, "link", target=node.target))
            else:
                if node.since:
                    unsynced.append((len(things), number))
                things.append(Thing(path, "file", node.mode, node.time, node.synced))
            paths[number] = path
        return Layout(tuple(things), tuple(unsynced))


def _write_all(fd: int, content: bytes) -> None:
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(fd, rest) :]
