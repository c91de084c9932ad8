"""What compression brings, as a user measures it, and the tables that the benchmarks write."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import ml_dtypes
import numpy as np
import pytest
from benchmarks.__main__ import COMPRESSION, written
from benchmarks.compression import lossy, rate
from benchmarks.compression.corpus import at_least, at_most
from benchmarks.harness import Row
from benchmarks.tables import Table
from click.testing import CliRunner

import quantum_memory as qm
from quantum_memory.cli import bench_peers, main
from quantum_memory.cli.bench_measure import Point, Report
from quantum_memory.cli.bench_plot import draw
from quantum_memory.cli.bench_states import FAMILIES, make
from quantum_memory.compression.forms.base import EFFORTS

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator

    Qmem = Callable[..., subprocess.CompletedProcess[str]]

PAGE = Path(__file__).parents[2] / "docs" / "compression.md"
PNG = b"\x89PNG\r\n"


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """None of the codecs of others that are packages of their own is installed."""
    monkeypatch.setattr(bench_peers, "find_spec", lambda _: None)


# ---- the command


def test_a_table_for_each_state(qmem: Qmem) -> None:
    done = qmem("bench", "compression", "--quick", "--family", "ghz", "--family", "product")
    assert done.returncode == 0
    assert done.stdout.index("ghz, 12 qubits: 8,192 reals, complex128") < done.stdout.index("product, 12 qubits")
    said = " ".join(done.stdout.split())
    for part in (
        "bits per real every bit 1-F <= 1e-04 1-F <= 1e-08",
        "a general state 6.644 13.29",
        "Forms, fast: stabilizer",
        "Casts: float32 32 at 1-F = ",
        " zstd ",
    ):
        assert part in said


def test_json_says_what_was_measured(qmem: Qmem) -> None:
    done = json.loads(qmem("bench", "compression", "--quick", "--family", "circuit", "--json").stdout)
    (state,) = done["states"]
    assert (state["name"], state["dtype"], state["reals"]) == ("circuit, 12 qubits", "complex128", 2**13)
    assert done["plot"] is None
    ours = [point for point in state["points"] if point["kind"] == "ours"]
    assert [(one["method"], one["requested"]) for one in ours] == [(e, x) for x in (0, 1e-4, 1e-8) for e in EFFORTS]
    for point in state["points"]:
        assert point["bits_per_real"] == pytest.approx(8 * point["nbytes"] / state["reals"])
        if point["requested"] is not None:
            assert 0 <= point["infidelity"] <= point["requested"] * (1 + 1e-6)
        assert (point["form"] is None) == (point["kind"] != "ours")


def test_files_are_measured_too(qmem: Qmem, bell: Path, tmp_path: Path) -> None:
    rho = np.diag([0.5, 0.25, 0.125, 0.125]).astype(np.float32)
    qm.save(qm.DensityMatrix(rho, qubit_order="big"), tmp_path / "rho.npz")
    half = np.array([0.5, 0.5, 0.5, 0.5], np.float16)
    qm.save(qm.StateVector(half, qubit_order="big"), tmp_path / "half.json")
    done = qmem("bench", "compression", "--json", bell, tmp_path / "rho.npz", tmp_path / "half.json")
    names = [(one["name"], one["dtype"], one["reals"]) for one in json.loads(done.stdout)["states"]]
    assert names == [("bell.qms", "complex128", 8), ("rho.npz", "float32", 16), ("half.json", "float16", 4)]


def test_what_is_no_dense_state_is_refused(qmem: Qmem, bell: Path, tmp_path: Path) -> None:
    qm.save(qm.MatrixProductState.from_dense(qm.load(bell).quantum), tmp_path / "chain.qms")
    qm.save({"metadata": {"a": 1}}, tmp_path / "none.qms")
    for name in ("chain.qms", "none.qms"):
        done = qmem("bench", "compression", tmp_path / name)
        assert (done.returncode, "no dense state" in done.stderr) == (2, True)
    assert qmem("bench", "compression", tmp_path / "missing.qms").returncode == 6
    assert qmem("bench", "compression", "--family", "unheard of").returncode == 2


def test_a_plot_is_drawn(qmem: Qmem, tmp_path: Path) -> None:
    done = qmem("bench", "compression", "--quick", "--family", "mps", "--plot", tmp_path / "mps.png")
    assert f"Drawn into {tmp_path / 'mps.png'}" in "".join(done.stdout.splitlines())
    assert (tmp_path / "mps.png").read_bytes().startswith(PNG)


def test_what_cannot_be_drawn_is_refused_before_anything_is_measured(
    qmem: Qmem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    done = qmem("bench", "compression", "--plot", "plot.pdf", timeout=10)
    assert (done.returncode, "end its name with .png" in done.stderr) == (2, True)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main.run(["bench", "compression", "--plot", str(tmp_path / "plot.png")]) == 6
    assert "pip install 'quantum-memory[plot]'" in capsys.readouterr().err


@pytest.mark.usefixtures("alone")
def test_codecs_that_are_not_installed_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["bench", "compression", "--quick", "--family", "haar"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "Not installed: blosc2, OpenZL, SZ3, ZFP, SPERR (pip install 'quantum-memory[bench]')" in said
    assert main.run(["bench", "compression", "--quick", "--family", "haar", "--json"]) == 0
    done = json.loads(capsys.readouterr().out)
    assert done["not_installed"] == ["blosc2", "OpenZL", "SZ3", "ZFP", "SPERR"]
    assert {one["method"] for one in done["states"][0]["points"] if one["kind"] == "peer"} == {
        "zstd",
        "pcodec",
        "npz",
        "HDF5 gzip",
    }


def test_help_says_what_there_is() -> None:
    assert "compression" in CliRunner().invoke(main.qmem, ["bench", "--help"]).output
    said = CliRunner().invoke(main.qmem, ["bench", "compression", "--help"]).output
    assert all(name in said for name in FAMILIES)


# ---- what it is made of


@pytest.mark.parametrize("family", FAMILIES)
def test_states_are_normalised_and_the_same_each_time(family: str) -> None:
    state = make(family, 9)
    assert len(state.amplitudes) == 2**9
    assert state.norm() == pytest.approx(1)
    assert make(family, 9) == state


def _rounding(reals: np.ndarray, tolerance: float) -> tuple[int, np.ndarray]:
    """A codec: multiples of a step."""
    return round(-1000 * math.log2(tolerance)), np.rint(reals / (2 * tolerance)) * 2 * tolerance


def _in_powers_of_two(reals: np.ndarray, tolerance: float) -> tuple[int, np.ndarray]:
    return _rounding(reals, 2.0 ** math.floor(math.log2(tolerance)) / 64)


@pytest.mark.parametrize("allowed", [1e-3, 1e-8])
def test_a_codec_gets_the_largest_tolerance_that_will_do(allowed: float) -> None:
    state = make("haar", 10).amplitudes
    decoded = {}

    def codec(reals: np.ndarray, tolerance: float) -> tuple[int, np.ndarray]:
        nbytes, out = _rounding(reals, tolerance)
        decoded[nbytes] = out[: len(state)] + 1j * out[len(state) :]
        return nbytes, out

    found = bench_peers.tuned(codec, state, allowed)
    assert found is not None
    assert 0.95 * allowed < found.infidelity <= allowed
    assert found.infidelity == pytest.approx(lossy.true_infidelity(state, decoded[found.nbytes]), 1e-6)
    coarse = bench_peers.tuned(_in_powers_of_two, state, allowed)
    assert coarse is not None
    assert allowed / 4.1 < coarse.infidelity <= allowed


def test_a_codec_that_cannot_take_a_state_takes_no_part() -> None:
    state = make("haar", 6).amplitudes
    assert bench_peers.tuned(lambda _reals, _tolerance: None, state, 1e-4) is None
    assert bench_peers.tuned(lambda reals, _tolerance: (0, np.zeros_like(reals)), state, 1e-4) is None


def test_casts_round_to_the_nearest() -> None:
    state = make("haar", 12).amplitudes
    reals = np.concatenate([state.real, state.imag])
    single = reals.astype(np.float32)
    assert np.array_equal(bench_peers._bfloat16(reals), single.astype(ml_dtypes.bfloat16).astype(np.float32))
    found = bench_peers.casts(state)
    assert [one.nbytes for one in found.values()] == [len(reals) * width for width in (4, 2, 2)]
    assert found["float32"].infidelity < 1e-14 < found["float16"].infidelity < found["bfloat16"].infidelity < 1e-5
    assert set(bench_peers.casts(state.astype(np.complex64))) == {"float16", "bfloat16"}
    assert bench_peers.casts(np.array([0.6, 0.8], np.float16)) == {}


@pytest.mark.parametrize("name", ["npz", "pcodec"])
def test_lossless_codecs_say_how_long_they_are(name: str) -> None:
    state = make("haar", 12).amplitudes
    assert 0.8 * state.nbytes < bench_peers.lossless(state)[name] < state.nbytes


@pytest.mark.parametrize("panels", [1, 2, 3, 4])
def test_any_number_of_states_is_drawn(tmp_path: Path, panels: int) -> None:
    exact = [Point(effort, "ours", 0.0, 0.0, 64, 8.0, "dense") for effort in EFFORTS]
    draw(str(tmp_path / "plot.png"), [Report("a $strange$ name", "float64", 64, exact)] * panels)
    assert (tmp_path / "plot.png").read_bytes().startswith(PNG)


# ---- the tables of the benchmarks


def test_tables_go_between_their_marks() -> None:
    text = "".join(f"# {mark}\n<!-- {mark}: begin -->\nold\n<!-- {mark}: end -->\n" for mark in ("table", "sizes", "b"))
    found: dict[str, list[Row | Table]] = {
        "a": [Table("sizes", ("name", "bytes"), [["x", "7"]]), Row("speed", "3 s", "<= 2 s", False)],
        "b": [Row("fit", "1 x", "", True)],
    }
    lines = written(text, found).splitlines()
    assert "old" not in lines
    assert lines.index("| x | 7 |") > lines.index("# sizes") > lines.index("| speed | 3 s | <= 2 s | **missed** |")
    assert lines.index("| fit | 1 x |  |  |") > lines.index("# b")
    assert written("\n".join(lines), found).splitlines() == lines


def test_goals_name_what_misses_them() -> None:
    values = {"a": 5.0, "b": 7.0, "c": 4.0}
    assert at_least("gain", values, 4) == Row("gain", "4 x (c)", ">= 4 x", True)
    assert at_least("gain", values, 6) == Row("gain", "5 x (a), 4 x (c)", ">= 6 x", False)
    assert at_most("size", values, 7, "B") == Row("size", "7 B (b)", "<= 7 B", True)
    assert at_most("size", {"a": math.nan}, 7, "B").holds is False


def test_the_page_has_a_place_for_every_table() -> None:
    text = PAGE.read_text()
    marks = {"lossless complex128", "lossless complex64", "rate", "casts", *COMPRESSION}
    marks |= {f"lossy {asked:.0e}" for asked in lossy.INFIDELITIES}
    assert all(text.count(f"<!-- {mark}: {end} -->") == 1 for mark in marks for end in ("begin", "end"))


@pytest.mark.usefixtures("alone")
def test_a_benchmark_runs_with_nothing_to_compare_with(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate, "_INFIDELITIES", (1e-4,))
    items = list(_tables(rate.run(quick=True)))
    assert [table.mark for table in items] == ["rate", "casts"]
    assert items[0].lines[0][-1] == ""


def _tables(items: list[Row | Table]) -> Iterator[Table]:
    return (item for item in items if isinstance(item, Table))
