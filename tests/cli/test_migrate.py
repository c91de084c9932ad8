"""``qmem migrate``: plan, apply, status, rollback, commit."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest

import quantum_memory as qm

from ..formats.legacy.fixtures import DATA
from ..lifecycle.trees import WORKPLACE, grown, listing

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path

    Qmem = Callable[..., subprocess.CompletedProcess[str]]

PATHS = ("json_v2/v2_n3_mps.json", "qms/q_n3_lz4.qms", "npz_simple/simple_n3.npz")


@pytest.fixture
def states(tmp_path: Path) -> Path:
    tree = grown(tmp_path / "states", DATA, *PATHS)
    shutil.copyfile(DATA / "others/checkpoint_registry.json", tree / "checkpoint_registry.json")
    (tree / "other.json").write_text('{"a": 1}')
    shutil.copyfile(DATA / "damaged/h5_tampered.h5", tree / "bad\x1b[31m.h5")
    return tree


def test_the_whole_way(qmem: Qmem, states: Path) -> None:
    before = listing(states)
    planned = qmem("migrate", "plan", states, "--out", "plan.json")
    assert planned.returncode == 0
    assert "4 files" in planned.stdout
    assert "its state vector does not match its SHA-256" in planned.stdout
    assert "\x1b" not in planned.stdout
    assert "next: qmem migrate apply plan.json" in planned.stdout

    rehearsed = qmem("migrate", "apply", "plan.json", "--dry-run")
    assert "4 files could be migrated; nothing was written" in rehearsed.stdout
    assert listing(states) == before
    assert not (states / WORKPLACE).exists()

    applied = qmem("migrate", "apply", "plan.json", "--jobs", "2")
    assert (applied.returncode, applied.stderr) == (0, "")
    assert "4 files migrated" in applied.stdout
    for path in PATHS:
        qm.verify(states / path)
    assert "can be rolled back" in qmem("migrate", "status", states).stdout
    assert "4 were before" in qmem("migrate", "apply", "plan.json").stdout

    rolled = qmem("migrate", "rollback", cwd=states)
    assert "4 originals have their names again" in rolled.stdout
    assert listing(states) == before
    assert "nothing to roll back" in qmem("migrate", "status", states).stdout


def test_commit_asks_first(qmem: Qmem, states: Path) -> None:
    qmem("migrate", "plan", states, "--out", "plan.json")
    qmem("migrate", "apply", "plan.json")
    asked = qmem("migrate", "commit", states, input="n\n")
    assert asked.returncode == 130
    assert "They cannot be brought back" in asked.stderr
    assert (states / WORKPLACE).is_dir()
    done = qmem("migrate", "commit", states, input="y\n")
    assert done.returncode == 0
    assert "5 originals removed" in done.stdout
    assert qmem("migrate", "rollback", states).returncode == 6
    assert "final" in qmem("migrate", "status", states).stdout


def test_everything_as_json(qmem: Qmem, states: Path) -> None:
    plan = json.loads(qmem("migrate", "plan", states, "--out", "plan.json", "--json").stdout)
    assert (plan["migrate"], plan["leave"], plan["damaged"], plan["others"]) == (4, 1, 1, 0)
    applied = json.loads(qmem("migrate", "apply", "plan.json", "--json").stdout)
    assert applied == {
        "plan_id": plan["id"],
        "root": str(states),
        "dry_run": False,
        "migrated": 4,
        "already": 0,
        "failed": [],
    }
    (status,) = json.loads(qmem("migrate", "status", states, "--json").stdout)["migrations"]
    assert (status["done"], status["kept_bytes"]) == (4, plan["source_bytes"])
    rolled = json.loads(qmem("migrate", "rollback", states, "--id", plan["id"][:8], "--json").stdout)
    assert (rolled["restored"], rolled["left"]) == (4, [])
    qmem("migrate", "apply", "plan.json")
    committed = json.loads(qmem("migrate", "commit", states, "--yes", "--json").stdout)
    assert (committed["removed"], committed["freed_bytes"]) == (5, plan["source_bytes"])


def test_exit_codes(qmem: Qmem, states: Path) -> None:
    assert qmem("migrate", "plan", states / "nowhere", "--out", "plan.json").returncode == 6
    assert qmem("migrate", "rollback", states).returncode == 6
    assert qmem("migrate", "apply", states / "qms/q_n3_lz4.qms").returncode == 2
    qmem("migrate", "plan", states, "--out", "plan.json")
    (states / PATHS[0]).touch()
    stopped = qmem("migrate", "apply", "plan.json")
    assert stopped.returncode == 7
    assert "changed since the plan" in stopped.stderr
    assert "To go on with the others: qmem migrate apply plan.json --continue-on-error" in stopped.stderr
    went_on = qmem("migrate", "apply", "plan.json", "--continue-on-error")
    assert went_on.returncode == 3
    assert f"failed: {states / PATHS[0]}: it was changed since the plan was made" in went_on.stdout
    qm.save(qm.load(states / PATHS[1]), states / PATHS[1], compression="none")
    rolled = qmem("migrate", "rollback", states)
    assert rolled.returncode == 3
    assert f"left: {states / PATHS[1]}" in rolled.stdout


def test_no_plan_was_applied(qmem: Qmem, states: Path) -> None:
    assert "no plan was applied" in qmem("migrate", "status", states).stdout
    assert "plan" in qmem("migrate", "--help").stdout


def test_a_plan_is_summed_up(qmem: Qmem, states: Path) -> None:
    shown = qmem("migrate", "plan", states, "--out", "plan.json", columns=80).stdout
    for line in (
        "to migrate  4 files",
        "1 checkpoint-registry",
        "left alone: other.json: it is a file of another program",
        "note: 3 files: the format has no checksum: damage inside its numbers cannot be seen",
        "note: checkpoint_registry.json: 20261122_112700_579.json, which it names, is not beside it",
    ):
        assert line in shown
    qmem("migrate", "apply", "plan.json")
    again = qmem("migrate", "plan", states, "--out", "plan.json").stdout
    assert "left alone: 4 files: nothing to do: it is a file of the current version" in again
    assert "there is nothing to migrate" in again
    assert "next:" not in again


def test_of_many_damaged_files_some_are_shown(qmem: Qmem, tmp_path: Path) -> None:
    for number in range(30):
        (tmp_path / f"{number}.qms").write_bytes(b"QMS\x01\xff\xff\xff\xff")
    shown = qmem("migrate", "plan", tmp_path, "--out", "plan.json").stdout
    assert shown.count("damaged: ") == 20
    assert "and 10 more, which the plan has" in shown


def test_status_is_read_at_80_columns_and_says_how_to_go_on(qmem: Qmem, states: Path) -> None:
    qmem("migrate", "plan", states, "--out", "plan.json")
    (states / PATHS[0]).touch()
    applied = qmem("migrate", "apply", "plan.json", "--continue-on-error", columns=80).stdout
    assert "left alone: 2, 1 of them damaged: the plan says why" in applied
    assert f"next: qmem migrate commit {states}, or qmem migrate rollback {states}" in applied
    status = qmem("migrate", "status", states, columns=80).stdout
    assert "3 of 4 migrated, 1 failed" in status
    assert "can be rolled back" in status
    (line,) = [line for line in status.splitlines() if line.startswith("to go on: ")]
    assert qmem(*line.split()[4:], "--continue-on-error").returncode == 3
    assert max(map(len, status.replace(line, "").splitlines())) <= 80


def test_commit_of_nothing_does_not_ask(qmem: Qmem, states: Path) -> None:
    done = qmem("migrate", "commit", states)
    assert done.returncode == 6
    assert "cannot be brought back" not in done.stderr
