"""The power of real file systems is cut under a repository in a folder: what was acknowledged is there, and is whole.

At random instants of a process that writes one version after another, and at calls of each operation and after its end.
Half of the cuts come right after the journal was committed, which brings to light what was renamed and not synced.
"""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from quantum_memory.testing.loop_disk import can_cut_power

from ..reliability.figures import TIMES, figure
from ..reliability.loops import ROOT, tried
from .operations import OPERATIONS

if TYPE_CHECKING:
    from pathlib import Path

CUTS = {
    "versions": (8, 8, 6),
    "versions with tags": (8, 8, 6),
    "versions of parts": (8, 8, 6),
    "checkpoints at an address": (8, 8, 6),
}
KINDS = ("EXT4", "EXT4_LEAST", "XFS")
STEP = {"EXT4": 83, "EXT4_LEAST": 43, "XFS": 97}
"""In CI one of so many calls, and which ones differs from operation to operation; the soak takes all."""

SOME = {"EXT4": slice(1, None, 2), "EXT4_LEAST": slice(None), "XFS": slice(0, None, 2)}
"""And of which operations."""

UNSYNCED = """\
from quantum_memory.cloud import folder_place
from tests.cloud import operations
folder_place.sync_file_system = lambda folder: None
folder_place.WriteBack.finish = lambda self: None
operations.main()
"""

needs_disks = pytest.mark.skipif(not can_cut_power(), reason="needs root, loop devices and the mkfs tools")


def cut(how: str, place: Path, *more: str, code: str = "") -> subprocess.CompletedProcess[str]:
    """Cut the power at calls of operations; see `operations`."""
    begin = ["-c", code] if code else ["-m", "tests.cloud.operations"]
    command = [sys.executable, *begin, how, str(place), *more]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=280 * TIMES)


def test_these_tests_are_not_left_out_unseen() -> None:
    assert can_cut_power() or not os.environ.get("QMS_REQUIRE_POWERCUT")


@needs_disks
@pytest.mark.timeout(300 * TIMES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", CUTS)
def test_cuts_at_random_instants(tmp_path: Path, name: str, kind: str) -> None:
    with figure("cloud cuts") as made:
        made.count += tried(kind, name, CUTS[name][KINDS.index(kind)] * TIMES, tmp_path).count


@needs_disks
@pytest.mark.timeout(300 * TIMES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_cut_at_each_call(tmp_path: Path, kind: str) -> None:
    with figure("cloud cuts") as made:
        names = [*OPERATIONS][SOME[kind] if TIMES == 1 else slice(None)]
        done = cut(kind, tmp_path, *names, "--step", str(STEP[kind] if TIMES == 1 else 1))
        assert done.returncode == 0, done.stderr
        made.count += int(done.stdout)


@needs_disks
@pytest.mark.parametrize("name", ["first", "untag"])
def test_cuts_show_what_was_not_synced(tmp_path: Path, name: str) -> None:
    done = cut("EXT4_LEAST", tmp_path, name, code=UNSYNCED)
    assert done.returncode, f"{done.stdout} cuts have shown nothing"
    assert "cut at change" in done.stderr
