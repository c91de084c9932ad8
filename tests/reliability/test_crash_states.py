"""The power is cut at every call of every operation that writes, on a model of a disk: whatever that leaves is right.

The model loses more than any file system does. Where a cut can leave few states all of them are looked at, and else so
many as the cost of a look allows.
"""

import pytest

from quantum_memory.durability import files
from quantum_memory.lifecycle.retention import KeepLast
from quantum_memory.testing.accidents import cut_at_each
from quantum_memory.testing.operations import Unsynced
from quantum_memory.testing.power_cuts import CrashModel

from .catalogue import CATALOGUE, OTHERS, SAVES, STORES
from .figures import TIMES, figure
from .operations.checkpoints import manager, state


def most(name):
    """Return how many states of one cut are looked at."""
    if name in STORES:
        return 4
    if ".h5" in name or name in OTHERS:
        return 10
    return 25 if name in SAVES else 26


@pytest.mark.parametrize("name", CATALOGUE)
def test_a_power_cut_at_each_call(tmp_path, name):
    with figure("crash states") as made:
        made.count = cut_at_each(CATALOGUE[name](tmp_path), most=most(name) * TIMES)
    assert made.count > 5


def test_a_power_cut_in_a_loop_that_removes_old_checkpoints(tmp_path):
    """What was acknowledged before the call is there after it, and is resumed from."""
    run = tmp_path / "disk" / "run"
    run.parent.mkdir()
    model = CrashModel(run.parent, Unsynced())
    with files.using(model), manager(run, keep=KeepLast(2)) as cm:
        for step in range(1, 7):
            cm.create_checkpoint(state(step), progress=step)
            model.acknowledged = step
    with figure("crash states") as made:
        for acknowledged in model.leave_each(8 * TIMES):
            made.count += 1
            with manager(run) as cm:
                assert set(cm.verify().values()) <= {None}
                resumed = cm.resume()
            assert (resumed.progress if resumed else 0) in {acknowledged, acknowledged + 1}
            assert resumed is None or (resumed.state["w"] == resumed.progress).all()
    assert made.count > 100
