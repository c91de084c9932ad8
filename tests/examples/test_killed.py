"""The examples as people run them: killed on the way, started again, and compared with runs that were not killed."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from quantum_memory.lifecycle.checkpoints.catalogue import Catalogue

ROOT = Path(__file__).parents[2]
WITHOUT_END = 10**6
POLLS = 20_000
"""Of 10 ms each, after which a run that has not saved twice has failed."""


ONE_AFTER_THE_OTHER = """
import json, runpy, sys
for run in json.loads(sys.argv[1]):
    sys.argv = run
    runpy.run_path(run[0], run_name="__main__")
    print("ended", flush=True)
"""
"""For runs that are not killed: some libraries take longer to import than a run takes."""


def command(name, folder, steps, *more):
    return [os.fspath(one) for one in (ROOT / "examples" / name, "--folder", folder, "--steps", str(steps), *more)]


def started(*run):
    return subprocess.Popen(
        [sys.executable, "-W", "error", *run],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        # Sums of several threads depend on how many there are, and many wait for one another on a busy machine.
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
    )  # fmt: skip


def ended(process):
    """Return what a run says at its end, which is well."""
    said, wrong = process.communicate()
    assert process.returncode == 0, wrong
    assert wrong == ""
    return said.splitlines()


def saves(folder):
    return len(list(folder.glob("checkpoints/*.qmcp")))


def stopped(process, folder, number):
    """Send a signal to a run when it has saved twice, and return the exit status."""
    for _ in range(POLLS):
        if saves(folder) >= 2 or process.poll() is not None:
            break
        time.sleep(0.01)
    process.send_signal(number)
    _, wrong = process.communicate()
    assert saves(folder) >= 2, wrong
    return process.returncode


def newest(folder):
    return Catalogue(folder).list_checkpoints()[0]


def goes_on_as_if_never_stopped(name, folder, other, *more):
    """Start a stopped run again, compare its end with that of one that was not stopped, and return what it says."""
    at = newest(folder)["progress"]
    runs = [command(name, one, at + 5, *more) for one in (folder, other)]
    both = ended(started("-c", ONE_AFTER_THE_OTHER, json.dumps(runs)))
    said, straight = both[: both.index("ended")], both[both.index("ended") + 1 : -1]
    assert f"goes on after {'sweep' if 'dmrg' in name else 'step'} {at}" in said[0]
    assert len(said) == 7  # that line, five steps, the result
    assert straight[-6:] == said[-6:]
    assert straight[-1].startswith("result ")
    ends = newest(folder), newest(other)
    assert [(one["finished"], one["progress"]) for one in ends] == [(True, at + 5)] * 2
    assert ends[0]["content_id"] == ends[1]["content_id"]


def grows(folder):
    """Go on with a larger bond, which the checkpoint then says, and which lowers the energy."""
    before = newest(folder)
    ended(started(*command("quimb_dmrg.py", folder, before["progress"] + 2, "--bond-dimension", "10")))
    after = newest(folder)
    assert (before["parameters"], after["parameters"]) == ({"bond_dimension": 6}, {"bond_dimension": 10})
    assert after["metrics"]["energy"] < before["metrics"]["energy"] - 1e-3


@pytest.fixture
def sentences(tmp_path):
    path = tmp_path / "emobank.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "split", "V", "A", "D", "text"])
        for k in range(40):
            writer.writerow(
                [f"s{k}", "test" if k % 5 == 0 else "train", 1 + k / 10, 3, 5 - k / 10, f"word{k} and, “so”"]
            )
    return path


RUNS = [
    ["aer_quench.py"], ["aer_mps_quench.py"], ["cirq_monitored.py"], ["deberta_pad_head.py"], ["pennylane_vqe.py"],
    ["quimb_dmrg.py"], ["quimb_tebd.py"], ["qutip_drive.py"], ["qutip_drive.py", "--damping", "0.1"],
    ["tenpy_quench.py"],
]  # fmt: skip


@pytest.mark.parametrize("run", RUNS, ids="".join)
def test_a_killed_run_goes_on(tmp_path, sentences, run):
    name, *more = run
    more += ["--data", sentences] if "deberta" in name else []
    folder = tmp_path / "run"
    assert stopped(started(*command(name, folder, WITHOUT_END, *more)), folder, signal.SIGKILL) == -signal.SIGKILL
    goes_on_as_if_never_stopped(name, folder, tmp_path / "straight", *more)
    if "dmrg" in name:
        grows(folder)


def test_a_run_that_is_asked_to_stop_saves_first(tmp_path):
    folder = tmp_path / "run"
    run = started(*command("aer_quench.py", folder, WITHOUT_END))
    assert stopped(run, folder, signal.SIGTERM) == 128 + signal.SIGTERM
    last = newest(folder)
    assert last["description"] == f"stopped by signal {int(signal.SIGTERM)}"
    goes_on_as_if_never_stopped("aer_quench.py", folder, tmp_path / "straight")
