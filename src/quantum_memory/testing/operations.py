"""What writes, in a form in which every accident can be tried on it.

An `Operation` begins from the same folder as often as it is asked to, does its work, and can tell whether what is there
is what has to be there. `quantum_memory.testing.accidents` has the accidents.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import warnings
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from quantum_memory.durability import atomic, files
from quantum_memory.durability.files import RealFiles
from quantum_memory.testing.faults import PassingFiles

if TYPE_CHECKING:
    from quantum_memory.durability.files import Files

State = dict[str, tuple[Any, ...]]
"""All that is in a folder, by path, each folder before what is in it: bytes or target, mode, and the time of a file."""


class Operation(Protocol):
    """Something that writes.

    Attributes
    ----------
    folder
        Where all is that it writes to.
    system
        The operating system that it is done on, but for the accident.
    may_break
        Parts of what `faults.RecordingFiles.violations` may say of it.
    """

    folder: Path
    system: Files
    may_break: tuple[str, ...]

    def again(self) -> None:
        """Bring the folder to where the operation begins, as a process does that has just started."""

    def do(self) -> None:
        """Do it. It is acknowledged when this returns."""

    def check(self, *, done: bool) -> None:
        """See that what has to be there is there, as a new process does.

        All that was acknowledged before is whole, and so is what this operation was to change: as it was or as it was
        to be. When it is `done`, it is as it was to be.

        Raises
        ------
        AssertionError
        """

    def go_on(self) -> None:
        """Do it once more, as whoever was interrupted does, and see that it is done and that nothing is left over.

        Raises
        ------
        AssertionError
        """

    def is_timed(self, path: str, content: bytes | str | None) -> bool:
        """Tell whether the time of a file is part of what has to be there; the path is that in the folder."""


class Unsynced(PassingFiles):
    """Leaves out every ``fsync``, which only a power cut would show, and which takes most of the time."""

    def fsync(self, fd: int) -> None:
        self.call("fstat", fd)  # of a descriptor that is closed it fails, too


class CopiedFolder:
    """A folder that can be brought back to what was in it once.

    What was not touched since is not touched then either, so that it stays what it is to a program that knows files by
    their numbers.

    Parameters
    ----------
    place
        An empty folder.

    Attributes
    ----------
    folder
        The folder; `keep` takes note of what is in it.
    """

    def __init__(self, place: Path) -> None:
        self.folder = place / "folder"
        self.folder.mkdir(parents=True)
        self._begun: State = {}

    def keep(self) -> None:
        """Let what is in the folder now be what is brought back."""
        self._begun = state_of(self.folder)

    def again(self) -> None:
        """Bring back what was in the folder, for a process that has just started."""
        now = state_of(self.folder)
        if now != self._begun:
            for path, what in now.items():
                then = self._begun.get(path)
                if then is None or (what != then and not what[0] is then[0] is None):  # a folder keeps what is in it
                    _remove(self.folder / path)
            for path, then in self._begun.items():
                if then != now.get(path):
                    _make(self.folder / path, *then)
        atomic.forget_sweeps()


class FromCopy(CopiedFolder, ABC):
    """An operation that begins from what was in a folder once."""

    system: Files = RealFiles()
    may_break: tuple[str, ...] = ()

    @abstractmethod
    def do(self) -> None:
        """Do it. It is acknowledged when this returns."""

    @abstractmethod
    def check(self, *, done: bool) -> None:
        """See that what has to be there is there."""

    def go_on(self) -> None:
        """Do it once more, and see that it is done and that nothing is left over."""
        atomic.forget_sweeps()
        with files.using(Unsynced(self.system)), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.do_again()
        self.check(done=True)
        left = leftovers(state_of(self.folder))
        assert not left, f"left over: {left}"

    def do_again(self) -> None:
        """Do what may be done already, or in part, and clean up."""
        self.do()

    def is_timed(self, path: str, content: bytes | str | None) -> bool:  # noqa: ARG002 - here none is
        """Tell whether the time of a file is part of what has to be there."""
        return False


def state_of(folder: Path) -> State:
    """Return all that is in a folder; two of them are the same when nothing was changed in between."""
    found: State = {}
    _look(os.fspath(folder), "", found)
    return found


def _look(folder: str, path: str, found: State) -> None:
    with os.scandir(folder) as entries:
        for entry in entries:
            facts, inner = entry.stat(follow_symlinks=False), f"{path}{entry.name}"
            if entry.is_dir(follow_symlinks=False):
                found[inner] = (None, facts.st_mode)
                _look(entry.path, f"{inner}/", found)
            elif entry.is_symlink():
                found[inner] = (os.readlink(entry.path), facts.st_mode)
            elif stat.S_ISREG(facts.st_mode):
                found[inner] = (Path(entry.path).read_bytes(), facts.st_mode, facts.st_mtime_ns)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _make(path: Path, content: bytes | str | None, mode: int, time: int = 0) -> None:
    if isinstance(content, str):
        path.symlink_to(content)
        return
    if content is None:
        path.mkdir(exist_ok=True)
    else:
        path.write_bytes(content)
        os.utime(path, ns=(time, time))
    path.chmod(stat.S_IMODE(mode))


def open_files() -> dict[str, str]:
    """Return what this process has open: paths, and whatever else has a descriptor, by descriptor."""
    found = {}
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # that of this list
            found[fd] = os.readlink(f"/proc/self/fd/{fd}")
    return found


def leftovers(state: State) -> list[str]:
    """Return the paths of what an interrupted process has left behind."""
    return [path for path in state if atomic.is_leftover(os.path.basename(path))]
