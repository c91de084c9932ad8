"""What info, verify and compare say."""

from __future__ import annotations

import json
import os
import pty
import subprocess
from typing import TYPE_CHECKING

import numpy as np
import pytest

import quantum_memory as qm

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Qmem = Callable[..., subprocess.CompletedProcess[str]]


def _words(text: str) -> str:
    return " ".join(text.split())


def test_info_says_what_it_is(qmem: Qmem, bell: Path) -> None:
    said = _words(qmem("info", bell).stdout)
    memory = qm.load(bell)
    for fact in (
        "state vector of 2 qubits, complex128",
        "big (qubit 0 is the most significant)",
        "P +0.100 A -0.200 D +0.300; given on the bipolar scale; stability 0.75; trajectory of 2 points",
        f"content id {memory.content_id[:12]}",
        "quantum/amplitudes complex128 4 64 B",
    ):
        assert fact in said
    assert memory.content_id not in said
    assert memory.content_id in qmem("info", "--full", bell).stdout


def test_info_lets_no_metadata_steer_the_terminal(qmem: Qmem, bell: Path) -> None:
    said = qmem("info", bell).stdout
    assert "\x1b" not in said
    assert "run = a\\x1b[31mb" in said


@pytest.mark.parametrize("suffix", ["qms", "json", "json.zlib"])
def test_info_and_verify_agree_on_every_format(qmem: Qmem, bell: Path, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"other.{suffix}"
    qm.save(qm.load(bell), path)
    facts, checked = (json.loads(qmem(verb, "--json", path).stdout) for verb in ("info", "verify"))
    assert facts["content_id"] == checked["content_id"] == qm.load(bell).content_id
    assert facts["emotion"] == {
        "pad": [0.1, -0.2, 0.3],
        "scale": "bipolar",
        "standard_error": None,
        "stability": 0.75,
        "confidence": None,
        "recent_emotions": 0,
        "trajectory_points": 2,
    }
    assert checked["ok"] is True
    assert checked["problems"] == []
    assert checked["bytes"] == path.stat().st_size
    assert checked["raw_bytes"] == 64 + 48


def test_info_shows_twenty_arrays_in_the_order_that_people_count(qmem: Qmem, tmp_path: Path) -> None:
    path = tmp_path / "many.qms"
    qm.save({"classical_data": {f"w{n}": np.full(2, float(n)) for n in range(30)}}, path)
    said = qmem("info", path).stdout
    shown = [line.split()[0].removeprefix("classical/") for line in said.splitlines() if "classical/" in line]
    assert shown == [f"w{n}" for n in range(20)]
    assert "and 10 more (--all)" in said
    assert "classical/w29" in qmem("info", "--all", path).stdout


def test_info_of_a_large_file_reads_its_table_only(qmem: Qmem, tmp_path: Path) -> None:
    path = tmp_path / "large.qms"
    amplitudes = np.random.default_rng(1).standard_normal(1 << 22)
    qm.save(qm.StateVector(amplitudes, qubit_order="little"), path, compression="none", durable=False)

    damaged = bytearray(path.read_bytes())
    damaged[1 << 24] ^= 1  # in the data, which nobody looks at here
    path.write_bytes(damaged)
    assert qmem("info", path).returncode == 0
    assert qmem("verify", path).returncode == 4


def test_verify_warns_of_an_odd_state_that_was_saved_whole(qmem: Qmem, tmp_path: Path) -> None:
    path = tmp_path / "odd.qms"
    qm.save(qm.StateVector(np.array([0.5, 0.0]), qubit_order="big"), path)
    done = qmem("verify", path)
    assert done.returncode == 0
    assert "OK" in done.stdout
    assert "warning: the norm is 0.5, not 1" in _words(done.stdout)


def test_verify_gives_each_file_a_verdict(qmem: Qmem, bell: Path, damaged: Path) -> None:
    done = qmem("verify", bell, damaged, bell.with_name("none.qms"))
    assert done.returncode == 3
    verdicts = [line.split()[0] for line in done.stdout.splitlines() if line.startswith("  ") and line[2] != " "]
    assert verdicts == ["OK", "DAMAGED", "MISSING"]


def test_verify_looks_at_the_bytes_alone_where_it_is_asked_to(qmem: Qmem, bell: Path, damaged: Path) -> None:
    done = qmem("verify", "--depth", "bytes", bell)
    assert done.returncode == 0
    assert "only the bytes" in _words(done.stdout)
    assert "content id" not in _words(done.stdout)
    facts = json.loads(qmem("verify", "--depth", "bytes", "--json", bell).stdout)
    assert (facts["ok"], facts["depth"], facts["content_id"], facts["chunks"]) == (True, "bytes", None, None)
    assert facts["bytes"] == bell.stat().st_size
    assert qmem("verify", "--depth", "bytes", damaged).returncode == 4
    assert qmem("verify", "--depth", "byte", bell).returncode == 2


def test_compare_finds_one_content_in_two_formats(qmem: Qmem, bell: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.json"
    qm.save(qm.load(bell), other)
    done = qmem("compare", bell, other)
    assert done.stdout.startswith("identical content\n")
    assert "fidelity 1.0" in _words(done.stdout)


def test_compare_measures_a_difference(qmem: Qmem, tmp_path: Path) -> None:
    a, b = tmp_path / "a.qms", tmp_path / "b.qms"
    qm.save(qm.StateVector(np.array([1, 0], complex), qubit_order="big"), a)
    qm.save(qm.StateVector(np.array([1j, 1j]) / np.sqrt(2), qubit_order="big"), b)
    answer = json.loads(qmem("compare", "--json", a, b).stdout)
    assert (answer["first"], answer["second"], answer["same_content"]) == (str(a), str(b), False)
    assert answer["fidelity"] == pytest.approx(0.5)
    assert answer["trace_distance"] == pytest.approx(np.sqrt(0.5))
    assert abs(answer["global_phase"]) == pytest.approx(np.pi / 2)
    said = qmem("compare", a, b).stdout
    assert said.startswith("different content\n")
    assert "quantum/amplitudes: other values" in said


def test_compare_takes_a_state_of_a_store_on_either_side(qmem: Qmem, bell: Path, tmp_path: Path) -> None:
    path = tmp_path / "store.h5"
    storage = qm.HDF5QuantumStorage(path)
    storage.import_from_binary(bell, "bell")
    storage.save_quantum_state(qm.StateVector(np.array([1, 0, 0, 0], complex), qubit_order="big"), "zero")
    done = qmem("compare", path, bell, "--state-a", "bell")
    assert done.stdout.startswith("identical content\n")
    assert f"{path}, state bell (content id" in _words(done.stdout)
    answer = json.loads(qmem("compare", "--json", "--state-a", "zero", "--state-b", "bell", path, path).stdout)
    assert (answer["first"], answer["second"]) == (f"{path}, state zero", f"{path}, state bell")
    assert answer["fidelity"] == pytest.approx(0.5)
    assert qmem("compare", path, bell).returncode == 2
    assert qmem("compare", path, bell, "--state-a", "none").returncode == 6
    assert qmem("compare", path, bell, "--state-a", "bell", "--state-b", "bell").returncode == 2


def test_numbers_that_json_does_not_have_are_text(qmem: Qmem, tmp_path: Path) -> None:
    path = tmp_path / "nan.qms"
    qm.save(qm.StateVector(np.array([np.nan, 1.0]), qubit_order="big"), path)
    assert json.loads(qmem("compare", "--json", path, path).stdout)["norms"] == ["nan", "nan"]


@pytest.mark.parametrize(("size", "bar"), [(1 << 23, True), (1 << 10, False)])
def test_a_bar_is_shown_on_a_terminal_for_a_large_file_only(
    program: Path, tmp_path: Path, size: int, bar: bool
) -> None:
    path = tmp_path / "state.qms"
    qm.save(qm.StateVector(np.ones(size), qubit_order="big"), path, compression="none", durable=False)
    terminal, side = pty.openpty()
    done = subprocess.Popen(
        [program, "verify", path], stdout=subprocess.PIPE, stderr=side, env={**os.environ, "TERM": "xterm"}
    )
    os.close(side)
    drawn = b""
    try:
        while part := os.read(terminal, 4096):
            drawn += part
    except OSError:  # Linux: the other side is closed
        pass
    said, _ = done.communicate(timeout=30)
    os.close(terminal)
    assert done.returncode == 0
    assert said.startswith(b"  OK")
    assert (b"verify" in drawn) is bar
