"""A file system on a loop device whose power can be cut. Needs root, loop devices and the mkfs tools.

``FS_IOC_SHUTDOWN`` without a flush is what a power cut does: what was not synced is gone, and the journal is replayed
at the next mount.
"""

import fcntl
import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path

from quantum_memory.testing.faults import KILLED, CountingFiles

EXT4 = ("ext4", "loop,commit=1")
EXT4_LEAST = ("ext4", "loop,data=writeback,noauto_da_alloc")
XFS = ("xfs", "loop")
"""Kinds of file system, and with which options each is mounted: as usual, with the fewest promises, and another."""

_SIZES = {"ext4": "64M", "xfs": "320M"}  # XFS takes no less
_FS_IOC_SHUTDOWN = 0x8004587D
_NO_FLUSH = 2


def can_cut_power():
    """Tell whether there is what it takes."""
    return os.geteuid() == 0 and Path("/dev/loop-control").exists() and shutil.which("mkfs.ext4") is not None


class LoopDisk:
    """A new file system, mounted for as long as a block lasts."""

    def __init__(self, place, kind, options):
        self._image, self.mount, self._options = place / "image", place / "mount", options
        self.mount.mkdir()
        _run("truncate", "-s", _SIZES[kind], self._image)
        _run(f"mkfs.{kind}", "-q", *(["-F"] if kind == "ext4" else ["-f"]), self._image)

    def __enter__(self):
        _run("mount", "-o", self._options, self._image, self.mount)
        return self

    def __exit__(self, *_):
        _run("umount", self.mount)

    def cut(self, *, commit=False):
        """Cut the power, right after the journal was committed if so told: then an unsynced rename may be there."""
        if commit:
            fd = os.open(self.mount / "foreign", os.O_CREAT | os.O_WRONLY)
            os.write(fd, b"x")
            os.fsync(fd)
            os.close(fd)
        fd = os.open(self.mount, os.O_RDONLY)
        fcntl.ioctl(fd, _FS_IOC_SHUTDOWN, struct.pack("I", _NO_FLUSH))
        os.close(fd)

    def again(self):
        """Mount it again, as at the next start."""
        self.__exit__()
        self.__enter__()


class CuttingFiles(CountingFiles):
    """Cuts the power of a disk at the k-th call, and ends the process: to be used in a child, see `killed_at`."""

    def __init__(self, k, disk, *, commit, inner=None):
        super().__init__(k, inner)
        self._disk, self._commit = disk, commit

    def call(self, name, *arguments):
        if self.is_next(name):
            try:
                self._disk.cut(commit=self._commit)
            except BaseException as error:  # what a child raises is seen nowhere else
                sys.stderr.write(f"{error!r}\n")
                os._exit(1)
            os._exit(KILLED)
        return super().call(name, *arguments)


def _run(*command):
    subprocess.run([str(part) for part in command], check=True, stdout=subprocess.DEVNULL)
