"""Processes that write are interrupted, or told to end, at random instants.

Whoever is interrupted by an exception leaves nothing, and holds nothing where he goes on; what somebody leaves who ends
at once goes at the next save.
"""

import pytest

from .figures import TIMES, figure
from .loops import tried

OFTEN = 3  # a process that goes on is interrupted in a fraction of the time that another one takes to begin
SIGNALS = {
    "transactions": 16,
    "save .qms": 16,
    "save .json": 16,
    "save .npz": 7,
    "save and compress in the background": 7,
    "store": 7,
    "checkpoints": 7,
    "checkpoints in the background": 7,
    "backups": 7,
    "migrations": 7,
}


@pytest.mark.timeout(300 * TIMES)
@pytest.mark.parametrize("how", ["interrupt", "go on", "exit", "terminate"])
@pytest.mark.parametrize("name", SIGNALS)
def test_signals_at_random_instants(tmp_path, name, how):
    with figure("signals") as made:
        times = SIGNALS[name] * (OFTEN if how == "go on" else 1)
        made.count += tried(how, name, times * TIMES, tmp_path).count
