"""Processes that write are killed at random instants: what they acknowledged is there, and what is there is whole."""

import pytest

from .figures import TIMES, figure
from .loops import tried

KILLS = {
    "save .qms": 900,
    "save .qms, long": 300,
    "save .json": 1400,
    "save .json.zlib": 900,
    "save .npz": 500,
    "save .msgpack": 1200,
    "save .h5": 200,
    "save and compress in the background": 200,
    "transactions": 3100,
    "store": 200,
    "samples": 200,
    "checkpoints": 300,
    "checkpoints in the background": 300,
    "backups": 200,
    "migrations": 200,
}


@pytest.mark.timeout(300 * TIMES)
@pytest.mark.parametrize("name", KILLS)
def test_kills_at_random_instants(tmp_path, name):
    with figure("kills") as made:
        made.count += tried("kill", name, KILLS[name] * TIMES, tmp_path).count
