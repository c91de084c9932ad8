"""The power of real file systems is cut: what was acknowledged is there, and what is there is whole.

At random instants of runs that write, and at each call of an operation. Half of the cuts come right after another
process has synced a file of its own, which commits the journal and so brings to light what an unsynced rename would
hide.
"""

import os

import pytest

from quantum_memory.errors import QuantumMemoryError
from quantum_memory.testing import loop_disk
from quantum_memory.testing.loop_disk import EXT4_LEAST, LoopDisk, can_cut_power, cut_disk_at_each
from quantum_memory.testing.operations import Unsynced

from .catalogue import CATALOGUE
from .figures import TIMES, figure
from .loops import tried

KINDS = ("EXT4", "EXT4_LEAST", "XFS")
CUTS = {
    "save .qms, long": (100, 100, 60),
    "transactions": (180, 180, 60),
    "store": (20, 20, 10),
    "checkpoints": (60, 60, 30),
    "backups": (20, 20, 10),
    "migrations": (20, 20, 10),
}
OPERATIONS = (
    "save .qms, over another",
    "save .qms, only new",
    "save .json, over another",
    "store: append",
    "store: delete",
    "checkpoints: create",
    "checkpoints: step in the background, with removal",
    "backups: create",
    "backups: restore over a folder",
    "migrate: apply",
    "migrate: roll back",
    "migrate: commit",
)
STEP = {"EXT4": 4, "EXT4_LEAST": 1, "XFS": 8}
"""In CI one of so many calls, and of migrations, which make the most, half of these; the soak takes all of everything.

Which ones differs from operation to operation.
"""

needs_disks = pytest.mark.skipif(not can_cut_power(), reason="needs root, loop devices and the mkfs tools")


def test_these_tests_are_not_left_out_unseen():
    assert can_cut_power() or not os.environ.get("QMS_REQUIRE_POWERCUT")


@needs_disks
@pytest.mark.timeout(300 * TIMES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", CUTS)
def test_cuts_at_random_instants(tmp_path, name, kind):
    with figure("cuts") as made:
        made.count += tried(kind, name, CUTS[name][KINDS.index(kind)] * TIMES, tmp_path).count


@needs_disks
@pytest.mark.timeout(300 * TIMES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", OPERATIONS if TIMES == 1 else CATALOGUE)
def test_a_cut_at_each_call(tmp_path, name, kind):
    step = STEP[kind] * (1 + name.startswith("migrate")) if TIMES == 1 else 1
    with figure("cuts") as made, LoopDisk(tmp_path, getattr(loop_disk, kind)) as disk:
        (disk.mount / "place").mkdir()
        operation = CATALOGUE[name](disk.mount / "place")
        made.count += cut_disk_at_each(operation, disk, first=list(CATALOGUE).index(name) % step, step=step)


@needs_disks
@pytest.mark.parametrize("name", ["save .qms, over another", "checkpoints: create", "migrate: apply"])
def test_cuts_show_what_was_not_synced(tmp_path, name):
    with LoopDisk(tmp_path, EXT4_LEAST) as disk:
        (disk.mount / "place").mkdir()
        operation = CATALOGUE[name](disk.mount / "place")
        operation.system = Unsynced()
        with pytest.raises((AssertionError, QuantumMemoryError)):
            cut_disk_at_each(operation, disk)
