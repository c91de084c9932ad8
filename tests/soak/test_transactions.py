"""Power cuts under transactions, on the model of a disk, with many more of what it may leave."""

import os

import pytest

from ..durability.test_transaction import cut_three_transactions

pytestmark = pytest.mark.soak

SEEDS = int(os.environ.get("QMEM_SOAK_TRANSACTION_SEEDS", "50"))


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("what", ["short", "equal", "shorter"])
def test_a_power_cut_at_every_call_of_three_transactions(tmp_path, what):
    cuts = sum(cut_three_transactions(tmp_path / str(seed), what, seed) for seed in range(4, SEEDS))
    print(f"\n{what}: {cuts} cuts, 0 lost, 0 torn")
