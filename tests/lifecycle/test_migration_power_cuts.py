"""The power is cut at any call of a migration: each name has its old file or its new one, and either way can be gone.

At every call on a model of a disk, which loses more than any file system does; at some calls on real file systems, and
at all of them in `tests/soak`.
"""

import os

import pytest

from quantum_memory.errors import IntegrityError

from ..loop_disk import EXT4, EXT4_LEAST, LoopDisk, can_cut_power
from .batches import Batch
from .power_cuts import WORKS, RealCuts, Unsynced, cut_on_the_model

CUTS = {"apply": 12, "rollback": 8, "commit": 4}


@pytest.mark.parametrize("name", WORKS)
def test_a_cut_at_any_call_on_the_model_of_a_disk(tmp_path, name):
    work = WORKS[name](Batch(tmp_path))
    k = 0
    while cut_on_the_model(work, k, seed=k, anew=k % 4 != 3):
        k += 1
    assert k > 20
    work.check_done()


def test_these_tests_are_not_left_out_unseen():
    assert can_cut_power() or not os.environ.get("QMS_REQUIRE_POWERCUT")


@pytest.mark.skipif(not can_cut_power(), reason="needs root, a loop device and mkfs.ext4")
@pytest.mark.parametrize("name", WORKS)
@pytest.mark.parametrize("kind", [EXT4, EXT4_LEAST], ids=" ".join)
def test_real_cuts(tmp_path, kind, name):
    with LoopDisk(tmp_path, *kind) as disk:
        cuts = RealCuts(disk, name)
        for cut in range(CUTS[name]):
            cuts.at(cut * cuts.count // CUTS[name], commit=cut % 2 == 0, anew=cut // 2 % 2 == 0)
        cuts.after_the_end()


@pytest.mark.skipif(not can_cut_power(), reason="needs root, a loop device and mkfs.ext4")
def test_real_cuts_show_what_was_not_synced(tmp_path):
    with LoopDisk(tmp_path, *EXT4_LEAST) as disk:
        cuts = RealCuts(disk, "apply")
        with pytest.raises((AssertionError, IntegrityError)):
            cuts.after_the_end(Unsynced())
