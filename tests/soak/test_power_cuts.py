"""Real power cuts: a file system on a loop device is shut down under a writer, mounted again, and looked at.

Half of the cuts come right after another process has synced a file of its own, which commits the journal and so brings
to light what an unsynced rename would hide. Needs root, loop devices and the mkfs tools: see `loop_disk`.

On XFS the writer is stopped before the cut. There an ``fsync`` that is under way while the file system is shut down can
return success although its log record is lost (seen with bare system calls as well: 7 of 900 cuts), which a power cut
cannot do: no program runs on to see the return.
"""

import contextlib
import os
import random
import signal
import struct
import time

import numpy as np
import pytest

import quantum_memory as qm
from quantum_memory.errors import IntegrityError, MissingFileError

from ..lifecycle.batches import Batch
from ..lifecycle.power_cuts import WORKS, RealCuts, cut_on_the_model
from ..loop_disk import EXT4, EXT4_LEAST, XFS, LoopDisk

pytestmark = pytest.mark.soak

CUTS = int(os.environ.get("QMEM_SOAK_CUTS", "700"))
SEEDS = 8
KINDS = pytest.mark.parametrize("kind", [EXT4, EXT4_LEAST, XFS], ids=" ".join)


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


def cut(disk, rng, writer=None):
    time.sleep(rng.uniform(0, 0.05))
    if writer is not None:
        os.kill(writer, signal.SIGSTOP)
        os.waitpid(writer, os.WUNTRACED)
    disk.cut(commit=rng.random() < 0.5)


def drained(fd):
    with os.fdopen(fd, "rb") as pipe:
        data = pipe.read()
    return struct.unpack(f"<{len(data) // 4}I", data[: len(data) // 4 * 4])


@pytest.mark.timeout(3600)
@KINDS
def test_no_acknowledged_save_is_lost_and_none_is_torn(tmp_path, kind):
    rng = random.Random(" ".join(kind))
    acknowledged = total = 0
    with LoopDisk(tmp_path, *kind) as disk:
        path = disk.mount / "state.qms"
        for _ in range(CUTS):
            reading, writing = os.pipe()
            child = os.fork()
            if child == 0:
                write_until_the_power_goes(path, acknowledged, writing)
            os.close(writing)
            cut(disk, rng, child if kind == XFS else None)
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            acks = drained(reading)
            disk.again()
            total += len(acks)
            try:
                found = generation_on_disk(path)
            except MissingFileError:
                found = 0
            except IntegrityError as error:
                pytest.fail(f"torn: {error}")
            assert found >= max(acks, default=acknowledged), "an acknowledged save was lost"
            acknowledged = found
    assert total > CUTS  # the writer did write
    print(f"\n{' '.join(kind)}: {CUTS} cuts, {total} acknowledged saves, 0 lost, 0 torn")


@pytest.mark.timeout(3600)
@KINDS
@pytest.mark.parametrize("name", WORKS)
def test_a_migration_goes_on_after_a_cut_at_any_call(tmp_path, kind, name):
    with LoopDisk(tmp_path, *kind) as disk:
        cuts = RealCuts(disk, name)
        for k in range(cuts.count):
            for commit in (False, True):
                for anew in (False, True):
                    cuts.at(k, commit=commit, anew=anew)
        cuts.after_the_end()
    print(f"\n{' '.join(kind)}, {name}: {4 * cuts.count + 1} cuts, no name without its file")


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", WORKS)
def test_a_migration_goes_on_after_a_cut_on_the_model_of_a_disk(tmp_path, name):
    work, cuts = WORKS[name](Batch(tmp_path)), 0
    for seed in range(SEEDS):
        k = 0
        while cut_on_the_model(work, k, seed, anew=seed % 2 == 0):
            k += 1
        work.check_done()
        cuts += k
    print(f"\nmodel of a disk, {name}: {cuts} cuts, no name without its file")
