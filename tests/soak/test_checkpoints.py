"""Runs that save, killed and cut off at random moments, for long."""

import os

import pytest

from ..lifecycle.checkpoints.crashes import cut_at_random, kill_at_random
from ..loop_disk import EXT4, EXT4_LEAST, XFS, LoopDisk

pytestmark = pytest.mark.soak

KILLS = int(os.environ.get("QMEM_SOAK_CHECKPOINT_KILLS", "2000"))
CUTS = int(os.environ.get("QMEM_SOAK_CHECKPOINT_CUTS", "300"))


@pytest.mark.timeout(3600)
def test_kills_at_random_instants(tmp_path):
    saves = kill_at_random(tmp_path / "run", KILLS)
    assert saves > KILLS // 10
    print(f"\ncheckpoints: {KILLS} kills, {saves} acknowledged, 0 lost, 0 torn")


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", [EXT4, EXT4_LEAST, XFS], ids=" ".join)
def test_real_power_cuts(tmp_path, kind):
    with LoopDisk(tmp_path, *kind) as disk:
        saves = cut_at_random(disk, kind, CUTS)
    assert saves > CUTS // 10
    print(f"\ncheckpoints, {' '.join(kind)}: {CUTS} cuts, {saves} acknowledged, 0 lost, 0 torn")
