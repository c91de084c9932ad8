"""The demo, as a user runs it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

import quantum_memory as qm
from quantum_memory.cli import demo_steps
from quantum_memory.cli.demo_folder import DemoFolder
from quantum_memory.cli.demo_path import anchor_path, csv_path
from quantum_memory.cli.plot import braille, draw
from quantum_memory.encoding.pad_encoding import PADEncoding
from quantum_memory.state.pad import ANCHORS, PADScale

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable

    Qmem = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def csv(tmp_path: Path) -> Path:
    path = tmp_path / "told.csv"
    rows = [
        "b_50_60,1.5,2.0,4.5,fine",
        'a_20_30,3.5,3.0,3.0,"so, second"',
        "a_0_19,3.0,3.0,3.2,first",
        "odd,1.0,5.0,3.0,",
    ]
    path.write_text("id,V,Arousal,D,text\n" + "\n".join(rows) + "\n")
    return path


def test_the_story_and_its_numbers(qmem: Qmem, csv: Path, tmp_path: Path) -> None:
    png = tmp_path / "path.png"
    done = qmem("demo", "--no-dense", "--data", csv, "--png", png, timeout=20)
    assert done.returncode == 0
    said = " ".join(done.stdout.split())
    for part in (
        "2 points: document a, 2 rows of told.csv",
        "The scale likert5 [1, 5] is the first that holds every value, 1 to 5",
        "2 of 2 files verified: whole",
        "its array 'quantum/site/",
        "Its content id is what it was",
        "2 of 2 came back bit for bit",
        "Left out: it was not asked for",
    ):
        assert part in said
    assert png.read_bytes().startswith(b"\x89PNG\r\n")
    assert list((tmp_path / "here").iterdir()) == []


def test_json_and_what_is_kept(qmem: Qmem, tmp_path: Path) -> None:
    done = qmem("demo", "--no-dense", "--limit", "4", "--keep", "--json")
    answer = json.loads(done.stdout)
    folder = tmp_path / "here" / "qmem-demo"
    assert sorted(path.name for path in folder.iterdir()) == [
        *(f"000{n}.qms" for n in (1, 2, 3, 4)),
        "copy-of-0003.qms",
    ]
    assert answer["damage"]["same_content"] is True
    assert "its array 'quantum/site/" in answer["damage"]["message"]
    numbers = answer["numbers"]
    assert (numbers["memories"], numbers["identical"]) == (4, 4)
    assert numbers["round_trip_error_max"] < 1e-12
    assert numbers["fidelity_min"] > 1 - 1e-12
    assert numbers["ratio"] == numbers["bytes_dense"] / numbers["bytes_stored_median"]
    assert numbers["bytes_stored_total"] == sum(path.stat().st_size for path in folder.glob("0*.qms"))
    assert numbers["sampled_rmse"] == pytest.approx(numbers["sampled_rmse_expected"], rel=0.6)
    assert answer["dense"] is None
    memory = qm.load(folder / "0001.qms")
    assert memory.metadata["label"] == "joy"
    decoded = PADEncoding.from_json(memory.metadata["encoding"]).decode(memory.quantum)
    assert decoded.pad.distance(ANCHORS["joy"]) < 1e-12
    # A second run takes another folder, and leaves the first alone.
    assert qmem("demo", "--no-dense", "--limit", "1").returncode == 0
    assert [path.name for path in (tmp_path / "here").iterdir()] == ["qmem-demo"]


def test_a_folder_with_something_in_it_is_left_alone(qmem: Qmem, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years")
    done = qmem("demo", "--no-dense", "--limit", "1", "--folder", mine)
    assert done.returncode == 7
    assert "choose a new or an empty folder" in done.stderr
    assert [path.read_text() for path in mine.iterdir()] == ["years"]


def test_an_empty_folder_is_used_and_stays_and_a_missing_one_goes(tmp_path: Path) -> None:
    empty, new = tmp_path / "empty", tmp_path / "new"
    empty.mkdir()
    for path in (empty, new):
        with DemoFolder(str(path), keep=False) as folder:
            Path(folder.file("0001.qms")).write_text("made")
            (path / "theirs.txt").write_text("put there meanwhile") if path == new else None
    assert list(empty.iterdir()) == []
    assert [path.name for path in new.iterdir()] == ["theirs.txt"]


def test_a_folder_below_none_is_missing(qmem: Qmem, tmp_path: Path) -> None:
    assert qmem("demo", "--folder", tmp_path / "no" / "where").returncode == 6


@pytest.mark.parametrize(
    ("text", "scale", "says"),
    [
        ("V,A\n1,2\n", None, "no column for dominance"),
        ("V,pleasure,A,D\n1,2,3,4\n", None, "2 columns for pleasure"),
        ("V,A,D\n1,2,3\n1,x,3\n", None, "line 3 has the arousal 'x'"),
        ("V,A,D\n1,2,3\n\n1,2,nan\n", None, "line 4 has the dominance 'nan'"),
        ("V,A,D\n1,2,3\n1,2\n", None, "line 3 has 2 columns, the header 3"),
        ("V,A,D\n1,2,99\n", None, "no PAD scale holds its values, 1 to 99"),
        ("V,A,D\n1,2,3\n1,7,3\n", PADScale.LIKERT5, "line 3: arousal 7.0 is outside the likert5 scale"),
        ("V,A,D\n", None, "it has no rows"),
        ("", None, "no column for pleasure"),
        ('V,A,D\n1,2,"3\n', None, "not CSV"),
    ],
)
def test_a_bad_row_is_refused_with_its_line(tmp_path: Path, text: str, scale: PADScale | None, says: str) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(text)
    with pytest.raises(qm.InvalidStateError, match=r"bad\.csv") as caught:
        csv_path(str(path), scale)
    assert says in str(caught.value)


def test_a_bad_row_is_2_and_no_file_is_6(qmem: Qmem, tmp_path: Path) -> None:
    bad = tmp_path / "bad.csv"
    bad.write_bytes(b"V,A,D\n1,2,\xff\n")
    assert qmem("demo", "--data", bad).returncode == 2
    assert qmem("demo", "--data", tmp_path / "none.csv").returncode == 6
    assert qmem("demo", "--data", tmp_path).returncode == 8
    assert qmem("demo", "--png", bad).returncode == 2
    assert bad.exists()


@pytest.mark.parametrize(
    ("row", "scale"),
    [("0.5,0,1", "bipolar"), ("-0.5,0,1", "bipolar"), ("1,2,5", "likert5"), ("1,2,5.5", "likert9")],
)
def test_the_first_scale_that_holds_all_is_taken_and_said(tmp_path: Path, row: str, scale: str) -> None:
    path = tmp_path / "points.csv"
    path.write_text(f"\ufeffdominance,VALENCE,a\n{row}\n", encoding="utf-8")
    read = csv_path(str(path), None)
    dominance, pleasure, arousal = map(float, row.split(","))
    assert read.scale.value == scale
    assert f"The scale {scale} " in read.notes[0]
    assert read.values.tolist() == [[pleasure, arousal, dominance]]
    assert csv_path(str(path), read.scale).notes == ()


def test_the_longest_document_is_taken_in_its_order(csv: Path) -> None:
    read = csv_path(str(csv), None)
    assert read.labels == ("a_0_19", "a_20_30")
    assert read.texts == ("first", "so, second")
    assert read.values[:, 0].tolist() == [3.0, 3.5]


def test_the_anchors_are_on_their_path_and_a_limit_cuts_it() -> None:
    path = anchor_path()
    assert {path.labels[at]: path.point(at) for at in path.marks} == dict(ANCHORS)
    assert path.first(len(path)) is path
    cut = path.first(3)
    assert len(cut) == len(cut.labels) == len(cut.texts) == 3
    assert max(cut.marks) == 2


def test_there_is_no_dense_step_without_memory_or_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with DemoFolder(str(tmp_path / "demo"), keep=False) as folder:
        monkeypatch.setattr(demo_steps, "available_memory", lambda: 1 << 30)
        assert demo_steps.no_room_for_dense(folder) == "it needs about 3 GiB of memory, and 1.0 GiB are free"
        monkeypatch.setattr(demo_steps, "available_memory", lambda: None)
        monkeypatch.setattr(folder, "free_bytes", lambda: 0)
        assert demo_steps.no_room_for_dense(folder) == "it needs about 2 GiB of disk, and 0.0 GiB are free"
        monkeypatch.setattr(folder, "free_bytes", lambda: 1 << 40)
        assert demo_steps.no_room_for_dense(folder) is None


def test_the_dense_step_on_fewer_qubits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_steps, "N_QUBITS", 21)
    with DemoFolder(str(tmp_path / "demo"), keep=False) as folder:
        kept = demo_steps.remember(anchor_path().first(1), folder)
        big = demo_steps.dense(kept[0], folder)
    assert big.same_content
    assert big.message.startswith("its array 'quantum/amplitudes' is damaged in chunk")
    assert big.amplitude_error < 1e-7
    assert big.amplitudes[int(big.digits, 2) - big.first_index] == big.amplitude
    assert not (tmp_path / "demo").exists()


def test_a_curve_goes_through_its_ends_and_every_column() -> None:
    lines = braille(np.linspace(0.0, 1.0, 7), 10, 3, 0.0, 1.0)
    assert [len(line) for line in lines] == [10, 10, 10]
    assert ord(lines[-1][0]) & 0x40  # bottom left dot
    assert ord(lines[0][-1]) & 0x08  # top right dot
    assert all(any(line[column] != "\u2800" for line in lines) for column in range(10))


@pytest.mark.parametrize("points", [1, 2, 5000])
@pytest.mark.parametrize("width", [20, 80])
def test_a_plot_is_as_wide_as_it_is_asked_to_be(points: int, width: int) -> None:
    text = draw(np.full((points, 3), 0.25), {0: "start", points - 1: "a long end"}, width=max(width, 30)).plain
    assert max(map(len, text.splitlines())) <= max(width, 30)


def test_a_spike_between_two_columns_is_seen() -> None:
    values = np.zeros(1000)
    values[501] = 1.0
    assert any(character != "\u2800" for character in braille(values, 10, 3, 0.0, 1.0)[0])
