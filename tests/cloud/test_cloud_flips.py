"""Every object of a repository is damaged: whoever uses it gets an error of ours, or exactly what was saved."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from ..reliability.figures import TIMES, figure
from ..reliability.loops import ROOT
from .flips import KINDS

if TYPE_CHECKING:
    from pathlib import Path

NOTICED = {"refs": 0.9, "snapshots": 0.7, "manifests": 0.7, "chunks": 0.95}
"""The least share of changes of what a version needs that an error has to tell of: the rest change nothing."""


@pytest.mark.timeout(300 * TIMES)
@pytest.mark.parametrize("kind", KINDS)
def test_damage_is_noticed_or_changes_nothing(tmp_path: Path, kind: str) -> None:
    command = [sys.executable, "-m", "tests.cloud.flips", kind, str(tmp_path), "--times", str(TIMES)]
    with figure("cloud flips") as made, figure("cloud logs") as others:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=280 * TIMES)
        assert done.returncode == 0, done.stderr
        said = json.loads(done.stdout)
        assert said["wrong"] == []
        needed, rest = said["outcomes"], said["of others"]
        assert (said["needed"] == 0) is (kind == "transactions")
        assert set(rest) <= {"unnoticed"}, rest
        made.count, others.count = sum(needed.values()), sum(rest.values())
        noticed = needed.get("damaged", 0) + needed.get("refused", 0)
        assert noticed >= NOTICED.get(kind, 0) * made.count, needed
        assert needed.get("damaged", 0) >= 0.95 * noticed, needed
