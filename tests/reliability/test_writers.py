"""Eight processes write to one thing at once, and some are killed: nothing is lost, and nothing is there twice."""

import subprocess
import sys

import pytest

from .figures import TIMES, figure
from .loops import ROOT

EACH = {"counter": 200, "checkpoints": 200, "store": 25}
KILLS = {"counter": 60, "checkpoints": 20}


def come_out(*arguments):
    """Return what has come out of it; see `writers`."""
    command = [sys.executable, "-m", "tests.reliability.writers", *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120 * TIMES)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@pytest.mark.timeout(150 * TIMES)
@pytest.mark.parametrize("what", EACH)
def test_exactly_as_many_as_were_made(tmp_path, what):
    with figure("writers") as made:
        made.count += come_out(what, tmp_path, "--each", EACH[what] * TIMES)


@pytest.mark.timeout(150 * TIMES)
@pytest.mark.parametrize("what", KILLS)
def test_nothing_is_lost_when_whoever_holds_the_lock_is_killed(tmp_path, what):
    with figure("writers") as made:
        made.count += come_out(what, tmp_path, "--kills", KILLS[what] * TIMES)
