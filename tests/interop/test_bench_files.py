"""What it costs to keep a state, as `qmem bench files` measures it beside what others do."""

import base64
import html
import json

from click.testing import CliRunner

from quantum_memory.cli import bench_files, bench_page
from quantum_memory.cli.bench import bench


def test_files_beside_those_of_others(tmp_path, monkeypatch):
    """Ours find every bit that is flipped; what is written is a page, a picture, and the rounds themselves."""
    monkeypatch.setattr(bench_files, "_ROUNDS_SECONDS", 0.0)  # the fewest rounds
    options = ["--qubits", "6", "--family", "ghz", "--folder", str(tmp_path)]
    for option, suffix in (("--html", "html"), ("--png", "png"), ("--output", "json")):
        options += [option, str(tmp_path / f"bench.{suffix}")]
    done = CliRunner().invoke(bench, ["files", *options], standalone_mode=False)
    assert done.exception is None, done.output
    assert "ghz, 6 qubits: 1,024 B" in done.output
    said = json.loads((tmp_path / "bench.json").read_text())
    (sheet,) = said["sheets"]
    assert (sheet["family"], sheet["qubits"], sheet["raw"]) == ("ghz", 6, 1024)
    costs = {cost["way"]: cost for cost in sheet["costs"]}
    assert {"quantum-memory", "quantum-memory, HDF5", "np.save", "pickle", "torch.save", "TeNPy hdf5_io"} <= set(costs)
    assert not set(costs) & set(said["not_installed"])
    for cost in costs.values():
        assert all(len(rounds) >= 3 and min(rounds) > 0 for rounds in cost["seconds"].values())
        assert {"save", "load", "checkpoint"} <= set(cost["seconds"])
        assert cost["added"] > 0
        assert sum(cost["flips"].values()) == bench_files.FLIPS
        assert not (cost["ours"] and cost["flips"]["wrong"])
    assert costs["quantum-memory"]["flips"]["found"] == bench_files.FLIPS
    assert costs["np.save"]["flips"]["wrong"] > bench_files.FLIPS / 2
    page = (tmp_path / "bench.html").read_text()
    assert "not noticed" in page
    assert all(html.escape(name) in page for name in costs)
    assert (tmp_path / "bench.png").read_bytes().startswith(b"\x89PNG")
    assert base64.b64encode((tmp_path / "bench.png").read_bytes()).decode() in page
    assert sorted(one.name for one in tmp_path.iterdir()) == ["bench.html", "bench.json", "bench.png"]


def test_what_is_said_of_flips():
    assert bench_page.said_of_flips({"found": 3, "wrong": 2, "nothing": 0}) == "3 found, 2 not noticed"
    assert bench_page.said_of_flips({}) == ""
