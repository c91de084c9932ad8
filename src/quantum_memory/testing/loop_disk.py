"""File systems of their own, for tests: one on a loop device whose power can be cut, and a small one that gets full.

They need root; the first one loop devices and the mkfs tools, too. ``FS_IOC_SHUTDOWN`` without a flush is what a power
cut does: what was not synced is gone, and the journal is replayed at the next mount.
"""

from __future__ import annotations

import ctypes
import fcntl
import itertools
import os
import shutil
import struct
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from quantum_memory.errors import QuantumMemoryError, StorageError
from quantum_memory.testing.accidents import done_with
from quantum_memory.testing.faults import KILLED, CountingFiles, killed_at
from quantum_memory.testing.operations import Unsynced, leftovers, state_of

if TYPE_CHECKING:
    from typing import Self

    from quantum_memory.durability.files import Files
    from quantum_memory.testing.operations import Operation


class Kind(NamedTuple):
    """A kind of file system, and with which options it is mounted.

    Attributes
    ----------
    name, options
        As ``mkfs`` and ``mount`` know them.
    size
        Of the image, as ``truncate`` knows it.
    """

    name: str
    options: str
    size: str

    def __str__(self) -> str:
        return f"{self.name} {self.options}".strip()


EXT4 = Kind("ext4", "commit=1", "64M")
EXT4_LEAST = Kind("ext4", "data=writeback,noauto_da_alloc", "64M")
XFS = Kind("xfs", "", "320M")  # which takes no less
KINDS = (EXT4, EXT4_LEAST, XFS)
"""As usual, with the fewest promises, and another one."""

PAGE = 4096
"""The bytes of which a disk has all or none free."""

PLENTY = 1 << 30
"""More bytes, or names, than a test has."""

_FS_IOC_SHUTDOWN = 0x8004587D
_NO_FLUSH = 2
_MNT_DETACH = 2
_MS_REMOUNT = 32
_NEEDED = ("losetup", *sorted({f"mkfs.{kind.name}" for kind in KINDS}))


def can_mount() -> bool:
    """Tell whether this process may mount file systems."""
    return os.geteuid() == 0


def can_cut_power() -> bool:
    """Tell whether there is what a `LoopDisk` of every kind takes."""
    return can_mount() and Path("/dev/loop-control").exists() and all(map(shutil.which, _NEEDED))


class LoopDisk:
    """A new file system, mounted for as long as a block lasts.

    Parameters
    ----------
    place
        An empty folder, for the image and the mount point.
    kind
        Which.

    Attributes
    ----------
    mount
        Where it is.
    kind
    """

    def __init__(self, place: Path, kind: Kind) -> None:
        self._image, self.mount, self.kind = place / "image", place / "mount", kind
        self._device = ""
        self.mount.mkdir()
        _run("truncate", "-s", kind.size, self._image)
        _run(f"mkfs.{kind.name}", "-q", *(["-F"] if kind.name == "ext4" else ["-f"]), self._image)

    def __enter__(self) -> Self:
        # For all mounts: to make a device for each takes longer than all the rest of a cut.
        self._device = _run("losetup", "--find", "--show", self._image).strip()
        try:
            self._mount()
        except BaseException:
            _run("losetup", "--detach", self._device)
            raise
        return self

    def __exit__(self, *_: object) -> None:
        _unmount(self.mount, _MNT_DETACH)  # even when what went wrong has left a file open
        _run("losetup", "--detach", self._device)

    def cut(self, *, commit: bool = False) -> None:
        """Cut the power, right after the journal was committed if so told: then an unsynced rename may be there."""
        if commit:
            fd = os.open(self.mount / "foreign", os.O_CREAT | os.O_WRONLY)
            os.write(fd, b"x")
            os.fsync(fd)
            os.close(fd)
        fd = os.open(self.mount, os.O_RDONLY)
        fcntl.ioctl(fd, _FS_IOC_SHUTDOWN, struct.pack("I", _NO_FLUSH))
        os.close(fd)

    def again(self) -> None:
        """Mount it again, as at the next start. Nothing in it may be open."""
        _unmount(self.mount)
        self._mount()

    def _mount(self) -> None:
        _mount(self._device, self.mount, self.kind.name, self.kind.options)


class SmallDisk:
    """A file system in memory, mounted for as long as a block lasts, that has as little space as is wanted.

    Parameters
    ----------
    place
        An empty folder, for the mount point.

    Attributes
    ----------
    mount
        Where it is.
    """

    def __init__(self, place: Path) -> None:
        self.mount = place / "mount"
        self.mount.mkdir()

    def __enter__(self) -> Self:
        _mount("tmpfs", self.mount, "tmpfs", "")
        (self.mount / "something").write_bytes(bytes(PAGE))  # no room at all would be any room for a tmpfs
        return self

    def __exit__(self, *_: object) -> None:
        _unmount(self.mount, _MNT_DETACH)

    def leave(self, *, nbytes: int = PLENTY, names: int = PLENTY) -> None:
        """Leave room for so many bytes, and so many files and folders, beside what is there."""
        facts = os.statvfs(self.mount)
        size = (facts.f_blocks - facts.f_bfree) * facts.f_frsize + nbytes
        options = f"size={size},nr_inodes={facts.f_files - facts.f_ffree + names}"
        _mount("tmpfs", self.mount, "tmpfs", options, _MS_REMOUNT)


class CuttingFiles(CountingFiles):
    """Cuts the power of a disk at the k-th call that changes something, and ends the process.

    To be used in a child process: see `faults.killed_at`.

    Parameters
    ----------
    k
        At which call, from 0.
    disk
        The disk.
    commit
        Whether the journal is committed right before.
    """

    def __init__(self, k: int, disk: LoopDisk, *, commit: bool, inner: Files | None = None) -> None:
        super().__init__(k, inner, at_changes=True)
        self._disk, self._commit = disk, commit

    def call(self, name: str, *arguments: Any) -> Any:
        """Make the call, or cut the power."""
        if self.is_next(name):
            try:
                self._disk.cut(commit=self._commit)
            except BaseException as error:  # what a child raises is seen nowhere else
                sys.stderr.write(f"{error!r}\n")
                os._exit(1)
            os._exit(KILLED)
        return super().call(name, *arguments)


def cut_disk_at_each(operation: Operation, disk: LoopDisk, *, first: int = 0, step: int = 1) -> int:
    """Cut the power at its calls that change something, each in turn, and after its end; return how many cuts.

    Each is cut twice: as it is, and right after the journal was committed.

    Parameters
    ----------
    operation
        All that it has is on the disk.
    first, step
        Which calls: by default all.

    Raises
    ------
    AssertionError
        Something was lost or torn, or is left over.
    """
    cuts = 0
    for k in itertools.count(first, step):
        for commit in (False, True):
            operation.again()
            disk.again()  # which syncs it
            died = killed_at(
                k,
                lambda system: done_with(operation, system),
                partial(CuttingFiles, disk=disk, commit=commit, inner=operation.system),
            )
            if not died:
                disk.cut(commit=commit)
            disk.again()
            cuts += 1
            try:
                operation.check(done=not died)
                if died:
                    operation.go_on()
            except BaseException as error:
                error.add_note(f"cut at change {k}, {'right after' if commit else 'without'} a commit of the journal")
                raise
        if not died:
            return cuts
    raise AssertionError("unreachable")


def fill_at_each(operation: Operation, disk: SmallDisk, what: Literal["nbytes", "names"]) -> int:
    """Do it on a disk with too little room, and with ever more until it is done; return how often it was tried.

    Parameters
    ----------
    operation
        All that it has is on the disk.
    what
        Whether there is too little room for bytes (room grows by `PAGE`), or for files and folders (by one).

    Raises
    ------
    AssertionError
        What was there before is not whole, something is left over, the error is not that of a full disk, or it cannot
        be done once there is room.
    """
    step = PAGE if what == "nbytes" else 1
    for tries in itertools.count(1):
        operation.again()
        disk.leave(**{what: (tries - 1) * step})
        done, problem = True, ""
        try:
            done_with(operation, Unsynced(operation.system))
        except QuantumMemoryError as error:
            done = False
            if not isinstance(error, StorageError):
                problem = repr(error)
        left = leftovers(state_of(operation.folder))
        disk.leave()
        try:
            assert not problem, problem
            assert not left, f"left over: {left}"
            operation.check(done=done)
            if done:
                return tries
            operation.go_on()
        except BaseException as error:
            error.add_note(f"with room for {(tries - 1) * step} {what}")
            raise
    raise AssertionError("unreachable")


_system = ctypes.CDLL(None, use_errno=True)


def _mount(source: str, folder: Path, kind: str, options: str, flags: int = 0) -> None:
    arguments = (source.encode(), os.fsencode(folder), kind.encode(), flags, options.encode())
    _checked(_system.mount(*arguments), folder)


def _unmount(folder: Path, flags: int = 0) -> None:
    _checked(_system.umount2(os.fsencode(folder), flags), folder)


def _checked(result: int, folder: Path) -> None:
    if result != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error), str(folder))


def _run(*command: object) -> str:
    return subprocess.run([str(part) for part in command], check=True, stdout=subprocess.PIPE, text=True).stdout  # noqa: S603 - it is ours
