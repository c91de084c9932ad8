"""Backups that are killed and cut off at random moments, and at every call, for long."""

import os

import pytest

from ..lifecycle.backups.crashes import cut_at_random, kill_at_random
from ..lifecycle.backups.works import WORKS, cut_at_each, fail_from_then_on, fail_once, kill_at_each
from ..loop_disk import EXT4, EXT4_LEAST, XFS, LoopDisk

pytestmark = pytest.mark.soak

KILLS = int(os.environ.get("QMEM_SOAK_BACKUP_KILLS", "600"))
CUTS = int(os.environ.get("QMEM_SOAK_BACKUP_CUTS", "200"))


@pytest.mark.timeout(3600)
def test_kills_at_random_instants(tmp_path):
    saves = kill_at_random(tmp_path, KILLS)
    assert saves > KILLS // 10
    print(f"\nbackups: {KILLS} kills, {saves} acknowledged, 0 lost, 0 torn")


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", [EXT4, EXT4_LEAST, XFS], ids=" ".join)
def test_real_power_cuts(tmp_path, kind):
    with LoopDisk(tmp_path, *kind) as disk:
        saves = cut_at_random(disk, kind, CUTS)
    assert saves > CUTS // 10
    print(f"\nbackups, {' '.join(kind)}: {CUTS} cuts, {saves} acknowledged, 0 lost, 0 torn")


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", WORKS)
def test_every_call(tmp_path, name):
    counts = []
    for place, each in enumerate((fail_once, fail_from_then_on, kill_at_each, cut_at_each)):
        (tmp_path / str(place)).mkdir()
        done = each(tmp_path / str(place), name, 0, 1)
        counts.append(done[0] if isinstance(done, tuple) else done)
    print(f"\nbackups, {name}: {counts} calls failed, failed from then on, were the last, lost the power")
