"""Real power cuts: a file system on a loop device is shut down under a writer, mounted again, and looked at.

``FS_IOC_SHUTDOWN`` without a flush is what a power cut does: what was not synced is gone, and the journal is replayed
at the next mount. Half of the cuts come right after another process has synced a file of its own, which commits the
journal and so brings to light what an unsynced rename would hide. Needs root, loop devices and the mkfs tools.

On XFS the writer is stopped before the cut. There an ``fsync`` that is under way while the file system is shut down can
return success although its log record is lost (seen with bare system calls as well: 7 of 900 cuts), which a power cut
cannot do: no program runs on to see the return.
"""

import contextlib
import fcntl
import os
import random
import signal
import struct
import subprocess
import time

import numpy as np
import pytest

import quantum_memory as qm
from quantum_memory.errors import IntegrityError, MissingFileError

pytestmark = pytest.mark.soak

FS_IOC_SHUTDOWN = 0x8004587D
NO_FLUSH = 2
CUTS = int(os.environ.get("QMEM_SOAK_CUTS", "700"))


def run(*command):
    subprocess.run([str(part) for part in command], check=True, capture_output=True)


def write_until_the_power_goes(path, generation, acknowledge):
    """Save one generation after another, and say so after each, until writing fails."""
    with contextlib.suppress(BaseException):
        while True:
            generation += 1
            content = {"generation": generation, "payload": np.full(32_768, generation)}
            qm.save(qm.MemoryState(classical=content), path, compression="none")
            os.write(acknowledge, struct.pack("<I", generation))
    os._exit(0)


def generation_on_disk(path):
    memory = qm.load(path)
    generation = memory.classical["generation"]
    assert (memory.classical["payload"] == generation).all()
    return generation


def cut(mount, rng, writer=None):
    time.sleep(rng.uniform(0, 0.05))
    if writer is not None:
        os.kill(writer, signal.SIGSTOP)
        os.waitpid(writer, os.WUNTRACED)
    if rng.random() < 0.5:
        fd = os.open(mount / "foreign", os.O_CREAT | os.O_WRONLY)
        os.write(fd, b"x")
        os.fsync(fd)
        os.close(fd)
    fd = os.open(mount, os.O_RDONLY)
    fcntl.ioctl(fd, FS_IOC_SHUTDOWN, struct.pack("I", NO_FLUSH))
    os.close(fd)


def drained(fd):
    with os.fdopen(fd, "rb") as pipe:
        data = pipe.read()
    return struct.unpack(f"<{len(data) // 4}I", data[: len(data) // 4 * 4])


@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    ("kind", "options", "size"),
    [
        ("ext4", "loop,commit=1", "64M"),
        ("ext4", "loop,data=writeback,noauto_da_alloc", "64M"),
        ("xfs", "loop", "320M"),
    ],
)
def test_no_acknowledged_save_is_lost_and_none_is_torn(tmp_path, kind, options, size):
    image, mount = tmp_path / "image", tmp_path / "mount"
    mount.mkdir()
    run("truncate", "-s", size, image)
    run(f"mkfs.{kind}", "-q", *(["-F"] if kind == "ext4" else ["-f"]), image)
    run("mount", "-o", options, image, mount)
    rng = random.Random(kind + options)
    path, acknowledged, total = mount / "state.qms", 0, 0
    try:
        for _ in range(CUTS):
            reading, writing = os.pipe()
            child = os.fork()
            if child == 0:
                write_until_the_power_goes(path, acknowledged, writing)
            os.close(writing)
            cut(mount, rng, child if kind == "xfs" else None)
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            acks = drained(reading)
            run("umount", mount)
            run("mount", "-o", options, image, mount)
            total += len(acks)
            try:
                found = generation_on_disk(path)
            except MissingFileError:
                found = 0
            except IntegrityError as error:
                pytest.fail(f"torn: {error}")
            assert found >= max(acks, default=acknowledged), "an acknowledged save was lost"
            acknowledged = found
    finally:
        run("umount", mount)
    assert total > CUTS  # the writer did write
    print(f"\n{kind} {options}: {CUTS} cuts, {total} acknowledged saves, 0 lost, 0 torn")
