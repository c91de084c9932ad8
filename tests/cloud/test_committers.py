"""Four processes commit to one repository at once: what was acknowledged is in the history, each once, and whole."""

from __future__ import annotations

import subprocess
import sys

import pytest

from ..reliability.figures import TIMES, figure
from ..reliability.loops import ROOT
from .committers import PATIENCE, PROCESSES
from .numbered import SAVES

EACH, FEWER, FEWEST = 20, 10, 5
"""How often each commits: alone in a folder, in a folder beside others or alone in object storage, and there beside
others, which takes its time."""

WITHOUT_LOCK = """\
import contextlib, time
from quantum_memory.cloud import folder_place
from tests.cloud import committers
folder_place.FolderPlace._locked = lambda self: contextlib.nullcontext()
folder_place.sync_file_system = lambda folder: time.sleep(0.002)
folder_place.WriteBack.finish = lambda self: time.sleep(0.002)
committers.main()
"""


def race(url: str, way: str, each: int, *more: str, code: str = "") -> subprocess.CompletedProcess[str]:
    """Let them commit; see `committers`."""
    begin = ["-c", code] if code else ["-m", "tests.cloud.committers"]
    command = [sys.executable, *begin, way, url, "--each", str(each), *more]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=PATIENCE + 30)


@pytest.mark.timeout(300 * TIMES)
@pytest.mark.parametrize("more", [(), ("--long",), ("--tags",)], ids=["alone", "beside a long one", "with tags"])
@pytest.mark.parametrize("way", SAVES)
def test_what_was_acknowledged_is_there_once(url: str, way: str, more: tuple[str, ...]) -> None:
    each = (EACH, FEWER, FEWEST)[bool(more) + url.startswith("s3")]
    with figure("cloud commits") as made:
        for time in range(TIMES):
            done = race(f"{url}-{time}", way, each, *more)
            assert done.returncode == 0, done.stderr
            assert int(done.stdout) == PROCESSES * each + ("--long" in more)
            made.count += int(done.stdout)


def test_without_the_lock_some_of_it_is_not_there(folder_url: str) -> None:
    for time in range(5):
        if "lost: " in race(f"{folder_url}-{time}", "save", 10, code=WITHOUT_LOCK).stderr:
            return
    pytest.fail("nothing is seen of what goes wrong without the lock")
