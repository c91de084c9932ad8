"""A disk with too little room, for every page and every name that is missing: the old version stays, and no rubbish."""

import os
from functools import partial

import pytest

from quantum_memory.testing.loop_disk import SmallDisk, can_mount, fill_at_each

from .catalogue import CATALOGUE
from .figures import TIMES, figure
from .operations.saves import Save, noise

LONG = {
    f"save .{suffix}, {way}, long": partial(Save, suffix=suffix, way=way, state=noise(1, "new", numbers * TIMES))
    for suffix, way, numbers in (
        ("qms", "over another", 30_000),
        ("qms", "only new", 30_000),
        ("json", "over another", 22_000),
        ("npz", "over another", 30_000),
    )
}
OPERATIONS = CATALOGUE | LONG


def test_these_tests_are_not_left_out_unseen():
    assert can_mount() or not os.environ.get("QMS_REQUIRE_ROOT")


@pytest.mark.skipif(not can_mount(), reason="only root can mount")
@pytest.mark.timeout(300 * TIMES)
@pytest.mark.parametrize("name", OPERATIONS)
def test_too_little_room(tmp_path, name):
    with figure("full") as made, SmallDisk(tmp_path) as disk:
        operation = OPERATIONS[name](disk.mount / "place")
        for what in ("nbytes", "names"):
            made.count += fill_at_each(operation, disk, what)
