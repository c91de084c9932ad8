"""``qmem checkpoint``: look at a folder of checkpoints, compare, keep it in order."""

from __future__ import annotations

import hashlib
import json
import re
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from click.testing import CliRunner

import quantum_memory as qm
from quantum_memory.cli import main
from quantum_memory.cli.checkpoint_upkeep import drawn
from quantum_memory.lifecycle.checkpoint_manager import CheckpointManager
from quantum_memory.lifecycle.checkpoints.reader import CheckpointReader
from quantum_memory.lifecycle.repository.pruning import Pruner

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable

    Qmem = Callable[..., subprocess.CompletedProcess[str]]
    Run = Callable[..., tuple[int, str, str]]

PAGE = Path(__file__).parents[2] / "docs" / "checkpoints.md"
PNG = b"\x89PNG\r\n"
KNOWN = {
    "id", "number", "parent", "branch", "created_at", "name", "description", "automatic", "kind", "progress", "metrics",
    "parameters", "finished", "content_id", "arrays", "raw_bytes", "new_bytes", "writer", "tags", "pinned",
}  # fmt: skip


@pytest.fixture
def run(qmem_here: Run) -> Run:
    """Run a verb in a folder that has checkpoints."""
    return partial(qmem_here, "checkpoint")


def state(step: int) -> qm.MemoryState:
    turned = step * 0.2
    amplitudes = np.array([np.cos(turned), 0, 0, np.sin(turned)], complex)
    weights = np.zeros(200_000)
    weights[0] = step
    return qm.MemoryState(
        qm.StateVector(amplitudes, qubit_order="big"),
        classical={"step": step, "w": weights},
        emotion={"pad": [0.1 * step, 0.0, -0.1 * step]},
    )


@pytest.fixture
def ids(tmp_path: Path) -> list[str]:
    """Five checkpoints in "checkpoints": main 1, 2, 5 and fork 3, 4; the second is tagged, the third pinned."""
    with CheckpointManager(tmp_path / "checkpoints", signals=False, durable=False, parameters={"lr": 0.1}) as manager:
        made = []
        for step in range(1, 6):
            if step in {3, 5}:
                manager.branch("fork" if step == 3 else "main", at=made[1])
            made.append(
                manager.create_checkpoint(
                    state(step), f"s{step}", progress=step, metrics={"energy": -float(step)}, automatic=step < 4
                )
            )
        manager.tag(made[1], "good")
        manager.pin(made[2])
    return made


def damage(one: str, at: int = -1) -> None:
    path = Path("checkpoints/checkpoints", f"{one}.qmcp")
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def files(folder: str = "checkpoints") -> dict[str, tuple[str, int]]:
    return {
        str(path): (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns)
        for path in Path(folder).rglob("*")
        if path.is_file()
    }


# --- look


def test_list(run: Run, ids: list[str]) -> None:
    code, out, err = run("list")
    assert (code, err) == (0, "")
    assert [line.split()[1] for line in out.splitlines()[::2]] == ids[::-1]
    assert "main, s2, tag good, automatic, progress 2, energy -2" in out
    assert "fork, s3, pinned, automatic, progress 3" in out
    assert max(map(len, out.splitlines())) <= 80
    code, out, _ = run("list", "--branch", "fork", "--limit", "1")
    assert ids[3] in out
    assert "and 1 older ones" in out
    assert "no checkpoints of the branch none" in run("list", "--branch", "none")[1]


def test_list_as_json(run: Run, ids: list[str]) -> None:
    found = json.loads(run("list", "--json", "--limit", "2")[1])
    assert set(found) == {"folder", "checkpoints", "left_out", "damaged"}
    assert [one["id"] for one in found["checkpoints"]] == ids[:2:-1]
    assert (found["left_out"], found["damaged"], Path(found["folder"]).name) == (3, [], "checkpoints")
    assert set(found["checkpoints"][0]) == KNOWN


def test_what_is_damaged_is_listed(run: Run, ids: list[str]) -> None:
    damage(ids[0], 130)
    code, out, err = run("list")
    assert code == 3
    assert ids[0] not in out
    assert ids[4] in out
    assert ids[0] in err
    assert "does not match its SHA-256" in err
    code, out, _ = run("list", "--json")
    assert code == 3
    assert [(one["id"], one["error"]["exit_code"]) for one in json.loads(out)["damaged"]] == [(ids[0], 4)]


def test_show(run: Run, ids: list[str]) -> None:
    code, out, _ = run("show", "good")
    assert code == 0
    for part in (ids[1], ids[0], "tag good, automatic", "lr = 0.1", "energy = -2.0", "classical/w", "200000"):
        assert part in out
    assert re.search(r"shared with it +561,\S+|shared with it +5\d\d KiB", out)
    assert max(map(len, out.splitlines())) <= 80
    found = json.loads(run("show", ids[1], "--json")[1])
    assert set(found) == KNOWN | {"compression", "quantum", "emotion", "record", "sections", "shared_with_parent"}
    assert found["shared_with_parent"]["bytes"] == 1_600_000 - (1 << 20)
    assert json.loads(run("show", ids[0], "--json")[1])["shared_with_parent"] is None


def test_of_many_arrays_some_are_shown(run: Run, tmp_path: Path) -> None:
    with CheckpointManager(tmp_path / "checkpoints", signals=False, durable=False) as manager:
        manager.create_checkpoint({f"a{i}": np.zeros(i) for i in range(30)}, "many")
    assert "... and 10 more (--all)" in run("show", "many")[1]
    assert "classical/a29" in run("show", "many", "--all")[1]


def test_a_parent_that_is_gone(run: Run, ids: list[str]) -> None:
    assert run("delete", ids[3])[0] == 0
    assert run("delete", ids[0])[0] == 0
    assert "which is not there any more" in run("show", ids[1])[1]


def test_names_tags_and_beginnings(run: Run, ids: list[str]) -> None:
    for name in ("s2", "good", ids[1][:-1]):
        assert ids[1] in run("show", name)[1]
    assert run("show", "nothing")[0] == 6
    code, _, err = run("show", ids[0][:4])
    assert code == 7
    assert "means 5 checkpoints" in err


@pytest.mark.parametrize(
    "arguments",
    [
        ["list"], ["show", "a"], ["diff", "a", "b"], ["restore", "a", "--to", "x.qms"], ["export", "a", "x.qms"],
        ["delete", "a"], ["tag", "a", "b"], ["untag", "a"], ["pin", "a"], ["unpin", "a"], ["prune", "--keep-last", "1"],
        ["prune", "--keep-last", "1", "--dry-run"], ["verify"], ["verify", "a"], ["log"], ["log", "--graph"], ["gc"],
    ],
)  # fmt: skip
def test_nothing_is_made_by_looking(run: Run, tmp_path: Path, arguments: list[str]) -> None:
    code, _, err = run(*arguments)
    assert code == 6
    assert "checkpoints: there is no such folder.\n  Next: say which folder it is: -C DIR" in err
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").write_text("a")
    code, out, err = run(*arguments, "-C", "other", "--json")
    assert code == 6
    assert "it is no folder of checkpoints" in err
    assert json.loads(out)["error"]["exit_code"] == 6
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "other"]


def test_looking_changes_nothing(run: Run, ids: list[str]) -> None:
    before = files()
    for arguments in (["list"], ["show", "s1"], ["diff", "s1", "s2"], ["verify"], ["log"], ["log", "--graph"]):
        assert run(*arguments)[0] == 0
    assert files() == before


def test_a_folder_of_the_first_implementation(run: Run, tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "checkpoint_registry.json").write_text("{}")
    code, _, err = run("list")
    assert code == 6
    assert "qmem migrate plan " in err


def test_the_folder_may_stand_before_the_verb(run: Run, ids: list[str], tmp_path: Path) -> None:
    (tmp_path / "checkpoints").rename(tmp_path / "run")
    assert run("list")[0] == 6
    assert ids[0] in run("-C", "run", "list")[1]
    assert ids[0] in run("-C", "nowhere", "list", "-C", "run")[1]


# --- compare


def test_diff(run: Run, ids: list[str]) -> None:
    code, out, err = run("diff", "s1", "s5", "--plot", "d.png")
    assert (code, err) == (0, "")
    assert f"{np.cos(0.8) ** 2:.10g}" in out
    assert "angle 0.8 rad" in out
    assert "progress         1 -> 5" in out
    assert "picture: d.png" in out
    assert max(map(len, out.splitlines())) <= 80
    assert Path("d.png").read_bytes().startswith(PNG)
    found = json.loads(run("diff", "s1", "s5", "--json")[1])
    assert (found["first"], found["second"]) == (ids[0], ids[4])
    assert found["states"][0]["fidelity"] == pytest.approx(np.cos(0.8) ** 2)
    assert found["emotion"]["pad_distance"] == pytest.approx(0.4 * 2**0.5)


@pytest.mark.parametrize("pair", [("s1", "s1"), ("a", "b"), ("s1", "a")])
def test_pictures_of_little(run: Run, ids: list[str], pair: tuple[str, str], tmp_path: Path) -> None:
    with CheckpointManager(tmp_path / "checkpoints", signals=False, durable=False) as manager:
        manager.create_checkpoint({"$x\n": np.zeros(3), "y": np.inf}, "a")
        manager.create_checkpoint({"$x\n": np.ones(3), "y": -np.inf}, "b")
    assert run("diff", *pair, "--plot", "d.png")[0] == 0
    assert Path("d.png").read_bytes().startswith(PNG)


def test_what_is_damaged_is_not_compared(run: Run, ids: list[str]) -> None:
    damage(ids[0])
    code, out, err = run("diff", "s1", "s2", "--json")
    assert code == 4
    assert json.loads(out)["error"]["type"] == "IntegrityError"
    assert "does not match its SHA-256" in err


def test_a_picture_is_a_png_file(run: Run, ids: list[str]) -> None:
    assert run("diff", "s1", "s2", "--plot", "d.pdf")[0] == 2


# --- out and in


def test_restore_export_import(run: Run, ids: list[str]) -> None:
    code, out, _ = run("restore", "good", "--to", "two.qms")
    assert code == 0
    assert "two.qms: " in out
    assert qm.load("two.qms") == state(2)
    assert run("restore", "good", "--to", "two.qms")[0] == 7
    done = json.loads(run("export", "good", "two.qms", "--overwrite", "--json")[1])
    assert set(done) == {"path", "format", "bytes", "content_id", "raw_bytes", "infidelity"}
    assert done["content_id"] == state(2).content_id
    made = json.loads(run("import", "two.qms", "-C", "fresh", "--json")[1])["id"]
    (one,) = json.loads(run("list", "-C", "fresh", "--json")[1])["checkpoints"]
    assert (one["id"], one["name"], one["progress"], one["content_id"]) == (made, "s2", 2, state(2).content_id)
    assert run("import", "two.qms", "-C", "fresh", "--name", "again")[0] == 0
    assert run("show", "again", "-C", "fresh")[0] == 0


def test_import_makes_no_folder_of_checkpoints_of_another(run: Run, ids: list[str], tmp_path: Path) -> None:
    run("export", "s1", "one.qms")
    before = sorted(tmp_path.iterdir())
    assert run("import", "one.qms", "-C", str(tmp_path))[0] == 6
    assert sorted(tmp_path.iterdir()) == before
    assert run("import", "missing.qms", "-C", "new")[0] == 6
    assert not Path("new").exists()


# --- names, and what goes


def test_tag_pin_delete(run: Run, ids: list[str]) -> None:
    assert run("tag", "s4", "best")[0] == 0
    assert json.loads(run("show", "best", "--json")[1])["id"] == ids[3]
    assert run("delete", "best")[0] == 7
    assert run("untag", "best")[0] == 0
    assert run("untag", "best")[0] == 6
    assert json.loads(run("pin", "s4", "--json")[1]) == {"id": ids[3], "pinned": True}
    code, _, err = run("delete", "s4")
    assert code == 7
    assert "pinned or has a tag" in err
    assert json.loads(run("unpin", "s4", "--json")[1]) == {"id": ids[3], "pinned": False}
    assert json.loads(run("delete", "s4", "--json")[1]) == {"deleted": ids[3]}
    assert run("show", "s4")[0] == 6
    assert run("verify")[0] == 0
    assert run("tag", "s1", "not a tag")[0] == 2


@pytest.mark.parametrize(
    "options",
    [
        ["--keep-last", "1"], ["--keep-best", "energy"], ["--keep-best", "energy:max", "--keep-last", "2"],
        ["--at-most", "3"], ["--keep-every", "1d"], ["--keep-within", "1s", "--at-most", "2"], ["--keep-last", "9"],
    ],
)  # fmt: skip
def test_a_rehearsal_says_what_then_happens(run: Run, ids: list[str], options: list[str]) -> None:
    before = files()
    with CheckpointManager("checkpoints", signals=False).folder.reading(ids[0]):  # no lock alone is needed
        code, out, _ = run("prune", *options, "--dry-run", "--json")
    assert code == 0
    rehearsed = json.loads(out)
    assert files() == before
    done = json.loads(run("prune", *options, "--json")[1])
    assert set(done) == {"folder", "dry_run", "removed", "kept", "collection"}
    assert (rehearsed["removed"], rehearsed["kept"]) == (done["removed"], done["kept"])
    assert (rehearsed["dry_run"], rehearsed["collection"], done["dry_run"]) == (True, None, False)
    left = {one["id"] for one in json.loads(run("list", "--json")[1])["checkpoints"]}
    assert left == set(done["kept"]) == set(ids) - set(done["removed"])
    assert {ids[1], ids[2], ids[4]} <= left
    assert run("verify")[0] == 0


def test_prune_says_why(run: Run, ids: list[str]) -> None:
    out = run("prune", "--keep-last", "1", "--dry-run")[1]
    assert f"would go {ids[0]}  not kept by KeepLast(1)" in out
    assert f"stays    {ids[1]}  tagged 'good'" in out
    assert f"stays    {ids[2]}  pinned" in out
    assert "1 would go, 4 stay" in out
    assert "1 removed, 4 stay, " in run("prune", "--keep-last", "1")[1]


def test_prune_wants_to_be_told(run: Run, ids: list[str]) -> None:
    assert run("prune")[0] == 2
    assert run("prune", "--keep-every", "sometimes")[0] == 2
    assert len(json.loads(run("list", "--json")[1])["checkpoints"]) == 5


def test_prune_while_others_work(run: Run, ids: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(Pruner.prune.__kwdefaults__, "timeout", 0.05)
    with CheckpointManager("checkpoints", signals=False).folder.reading(ids[0]):
        code, _, err = run("prune", "--keep-last", "1")
    assert code == 7
    assert "nothing was removed" in err
    assert len(json.loads(run("list", "--json")[1])["checkpoints"]) == 5


@pytest.mark.parametrize("rehearsal", [True, False])
def test_nothing_goes_for_a_newest_one_that_is_damaged(run: Run, ids: list[str], rehearsal: bool) -> None:
    damage(ids[4])
    code, _, err = run("prune", "--keep-last", "1", *["--dry-run"] * rehearsal)
    assert code == 4
    assert "the newest checkpoint is damaged" in err
    assert len(list(Path("checkpoints/checkpoints").iterdir())) == 5


@pytest.mark.parametrize("rehearsal", [True, False])
@pytest.mark.parametrize("at", [-1, 130])
def test_nothing_goes_while_one_is_damaged(run: Run, ids: list[str], rehearsal: bool, at: int) -> None:
    damage(ids[1], at)
    code, _, err = run("prune", "--keep-last", "1", *["--dry-run"] * rehearsal)
    assert code == 4
    assert "nothing is removed" in err
    assert f"qmem checkpoint delete {ids[1]}" in err
    assert len(list(Path("checkpoints/checkpoints").iterdir())) == 5


def test_verify(run: Run, ids: list[str]) -> None:
    code, out, _ = run("verify")
    assert code == 0
    assert "5 whole, 0 damaged" in out
    damage(ids[1])
    damage(ids[3], 130)
    code, out, _ = run("verify")
    assert code == 4
    assert f"DAMAGED  {ids[1]}" in out
    assert f"OK       {ids[4]}" in out
    assert "3 whole, 2 damaged" in out
    found = json.loads(run("verify", "--json")[1])
    assert set(found) == {"folder", "good", "damaged"}
    assert found["good"] == [ids[4], ids[2], ids[0]]
    assert {one["id"] for one in found["damaged"]} == {ids[1], ids[3]}
    assert run("verify", "s1")[0] == 0
    assert run("verify", ids[3])[0] == 4
    assert run("verify", "nothing")[0] == 6


def test_what_cannot_be_read_stops_no_other(run: Run, ids: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    check = CheckpointReader.check_everything

    def refused(self: CheckpointReader, *arguments: Any, **options: Any) -> int:
        if self.manifest.checkpoint.id == ids[3]:
            raise qm.StorageError("could not read: Input/output error", path=self.name)
        return check(self, *arguments, **options)

    monkeypatch.setattr(CheckpointReader, "check_everything", refused)
    code, out, _ = run("verify")
    assert code == 8
    assert f"FAILED   {ids[3]}" in out
    assert "4 whole, 1 not readable" in out
    damage(ids[0])
    assert run("verify")[0] == 4


def test_verify_without_a_pack(run: Run, ids: list[str]) -> None:
    for path in Path("checkpoints/chunks").iterdir():
        path.unlink()
    found = json.loads(run("verify", "--json")[1])
    assert found["good"] == []
    assert {one["error"]["type"] for one in found["damaged"]} == {"MissingError"}


def test_verify_finds_a_chunk_that_is_damaged(run: Run, ids: list[str]) -> None:
    largest = max(Path("checkpoints/chunks").iterdir(), key=lambda path: path.stat().st_size)
    data = bytearray(largest.read_bytes())
    data[len(data) // 2] ^= 1
    largest.write_bytes(data)
    code, out, _ = run("verify")
    assert code == 4
    assert "do not match their checksum" in out


def test_log(run: Run, ids: list[str]) -> None:
    run("delete", "s4")
    code, out, _ = run("log")
    assert code == 0
    lines = out.splitlines()
    assert f"saved {ids[0]}: number 1, branch main, name s1, progress 1" in lines[0]
    assert f"tagged {ids[1]}: tag good" in out
    assert f"deleted {ids[3]}" in lines[-1]
    entries = json.loads(run("log", "--json")[1])["entries"]
    assert [entry["when"] for entry in entries] == sorted(entry["when"] for entry in entries)
    assert [entry["checkpoint"] for entry in entries if entry["action"] == "saved"] == [ids[k] for k in (0, 1, 2, 4)]


def test_the_graph(run: Run, ids: list[str]) -> None:
    lines = run("log", "--graph")[1].splitlines()
    assert [line.split("  ")[0] for line in lines] == ["*", "| *", "| *", "|/", "*", "*"]
    assert f"2 {ids[1]}  main, s2, progress 2" in lines[4]


def test_a_graph_of_three_lines(tmp_path: Path) -> None:
    with CheckpointManager(tmp_path / "run", signals=False, durable=False) as manager:
        root = manager.create_checkpoint({"a": 0})
        for name in ("one", "two", "three"):
            manager.branch(name, at=root)
            manager.create_checkpoint({"a": name})
        listed = manager.folder.listed()[0]
        assert [line.split("  ")[0] for line in drawn(listed)] == ["*", "| *", "| | *", "|_|/", "|/", "*"]
        assert "what it continues is gone" in list(drawn(listed[1:]))[-1]


def test_gc(run: Run, ids: list[str]) -> None:
    manager = CheckpointManager("checkpoints", signals=False, durable=False)
    with manager.folder.store.alone():
        manager.folder.remove([ids[0], ids[3], ids[4]])
    found = json.loads(run("gc", "--json")[1])
    assert set(found) == {"folder", "leftovers", "collection"}
    assert found["collection"]["chunks_removed"] > 0
    assert run("verify")[0] == 0
    assert "0 leftovers and 0 chunks removed" in run("gc")[1]
    damage(ids[1])
    code, _, err = run("gc")
    assert code == 4
    assert f"qmem checkpoint delete {ids[1]}" in err


# --- the program itself


def test_the_real_command(real_qmem: Qmem, ids: list[str], tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    done = real_qmem("checkpoint", "list", "-C", folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert ids[4] in done.stdout
    done = real_qmem("checkpoint", "prune", "-C", folder, "--keep-last", "1")
    assert done.returncode == 0
    assert "1 removed, 4 stay" in done.stdout
    assert real_qmem("checkpoint", "restore", "s5", "--to", "five.json", "-C", folder).returncode == 0
    assert real_qmem("info", "five.json").returncode == 0
    done = real_qmem("checkpoint", "list")
    assert done.returncode == 6
    assert "there is no such folder" in done.stderr


def test_help_names_every_verb() -> None:
    shown = CliRunner().invoke(main.qmem, ["checkpoint", "--help"]).output
    verbs = (
        "list", "show", "diff", "restore", "export", "import", "delete", "tag", "untag", "pin", "unpin", "prune",
        "verify", "log", "gc",
    )  # fmt: skip
    for verb in verbs:
        assert re.search(rf"^  {verb} ", shown, re.MULTILINE), verb
        assert "--json" in CliRunner().invoke(main.qmem, ["checkpoint", verb, "--help"]).output
        assert f"`{verb}" in PAGE.read_text()
