"""``qmem backup verify``, ``drill``, ``repair``, ``orphans``, ``export``, ``import``, ``key``, and ``qmem purge``."""

from __future__ import annotations

import base64
import json
import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

import quantum_memory as qm
from quantum_memory.cli.backup import backup
from quantum_memory.cli.backup_keys import key

from .backups import backed_up, content, created, damage, damage_of, prepared

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable

    from .backups import Run

    Qmem = Callable[..., subprocess.CompletedProcess[str]]


PAGE = Path(__file__).parents[2] / "docs" / "backups.md"


@pytest.fixture
def run(qmem_here: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Run a verb beside "run", a folder to back up; the backups go to "backups"."""
    return prepared(qmem_here, monkeypatch, tmp_path)


@pytest.fixture
def ids(run: Run) -> list[str]:
    """Four backups of "run", of which the second is tagged, and one of "run/a.bin"."""
    return backed_up(run)


@pytest.fixture
def keys(run: Run) -> list[str]:
    """Two files with keys."""
    for name in ("first.key", "second.key"):
        Path(name).write_bytes(base64.b64encode(os.urandom(32)))
    return ["first.key", "second.key"]


# --- whether they would restore


@pytest.mark.parametrize("depth", [[], ["--full"], ["--quick"], ["--sample", "100%"]])
def test_verify(run: Run, ids: list[str], depth: list[str]) -> None:
    code, out, err = run("verify", *depth)
    assert (code, err) == (0, "")
    assert "5 whole" in out or "5 without a fault, 0 damaged" in out
    found = json.loads(run("verify", *depth, "--json")[1])
    assert set(found) == {
        "folder", "depth", "backups", "files", "others", "chunks", "nbytes", "of_chunks", "of_bytes", "next_steps",
    }  # fmt: skip
    assert found["backups"] == dict.fromkeys(ids)
    assert found["next_steps"] == []


def test_verify_says_so_where_all_lists_of_files_are_gone(run: Run, ids: list[str]) -> None:
    for one in ids:
        Path("backups/backups", f"{one}.qmbk").unlink()
    code, out, _ = run("verify")
    assert code == 4  # one of them has a tag
    assert "chunks are there that no backup needs" in out
    assert run("create", "run", "-C", "elsewhere")[0] == 0
    for one in Path("elsewhere/backups").iterdir():
        one.unlink()
    code, out, _ = run("verify", "-C", "elsewhere")
    assert code == 0
    assert "chunks are there that no backup needs" in out
    assert "orphans" in out.splitlines()[-1]


def test_verify_one(run: Run, ids: list[str]) -> None:
    damage_of(Path("backups/backups", f"{ids[0]}.qmbk"), 130)
    assert run("verify", ids[1])[0] == 0
    assert run("verify", ids[0])[0] == 4
    assert run("verify", "nothing")[0] == 6
    assert run("verify", "run/a.bin", "--quick")[0] == 0
    assert "verified 20" in run("list")[1]


def test_a_sample_goes_on_where_the_last_one_left_off(run: Run, ids: list[str]) -> None:
    for _ in range(20):
        code, out, _ = run("verify", "--sample", "30%")
        assert code == 0
        last = out.splitlines()[-1]
        if last == "with this one, every byte was read; the next begins anew":
            break
        assert last.startswith("the next goes on from there; this round was begun 20")
    else:
        pytest.fail("a round has no end")
    assert json.loads(run("verify", "--sample", "0.001%", "--json")[1])["chunks"] == 1
    assert "; the last was done 20" in run("verify", "--sample", "0.001%")[1]


def test_verify_wants_sense(run: Run, ids: list[str]) -> None:
    for options in (
        ["--quick", "--full"], ["--sample", "5%", "--full"], ["--sample", "0%"], ["--sample", "101%"],
        ["--sample", "5"], ["--sample", "nan%"], ["--sample", "1e1%"], [ids[0], "--sample", "5%"],
    ):  # fmt: skip
        assert run("verify", *options)[0] == 2


def test_what_is_damaged_is_named_with_what_to_do(run: Run, ids: list[str]) -> None:
    damage()
    code, out, _ = run("verify")
    assert code == 4
    for one in ids:
        assert f"DAMAGED  {one}" in out
    assert "a.bin: a chunk of it is damaged" in out
    assert "0 whole, 5 damaged" in out
    found = json.loads(run("verify", "--json")[1])
    assert found["files"] == {one: ["a.bin"] for one in ids}
    steps = [shlex.split(step, comments=True) for step in found["next_steps"]]
    assert [step[:3] for step in steps] == [
        ["qmem", "backup", verb] for verb in ("create", "create", "repair", "restore")
    ]
    for step in steps[:3]:
        assert run(*step[2:])[0] == 0
    assert run("verify")[0] == 0


def test_next_steps_name_the_folder(run: Run, ids: list[str]) -> None:
    Path("backups").rename("else where")
    code, out, _ = run("-C", "else where", "repair", "--dry-run")
    assert (code, out) == (0, "nothing is wrong\n")
    damage_of(max(Path("else where/chunks").glob("*.qmpack"), key=lambda path: path.stat().st_size))
    where = f"-C '{Path('else where').absolute()}'"
    assert f"  qmem backup {where} create " in run("-C", "else where", "verify")[1]
    assert f"  qmem backup {where} create " in run("-C", "else where", "repair", "--dry-run")[1]


def test_drill(run: Run, ids: list[str]) -> None:
    code, out, err = run("drill")
    assert (code, err) == (0, "")
    assert out.startswith("EQUAL")
    assert "the same once more: qmem backup drill --seed " in out
    found = json.loads(run("drill", "--seed", "3", "--json")[1])
    assert set(found) == {
        "folder", "backup", "source", "seed", "files", "nbytes", "compared", "problems", "left_out",
    }  # fmt: skip
    assert json.loads(run("drill", "--seed", "3", "--json")[1])["backup"] == found["backup"]
    Path("at").mkdir()
    assert "2 files, 97.7 KiB restored and read again; " in run("drill", "run/", "--at", "at")[1]
    assert not list(Path("at").iterdir())
    assert run("drill", "--at", "nowhere")[0] == 6
    damage()
    code, out, _ = run("drill", "good", "--at", "at")
    assert code == 4
    assert out.startswith(f"FAILED   {ids[1]}")
    assert "qmem backup verify --full" in out
    assert not list(Path("at").iterdir())


def test_repair(run: Run, ids: list[str]) -> None:
    assert run("repair") == (0, "nothing is wrong\n", "")
    damage()
    before = content("backups")
    code, rehearsed, _ = run("repair", "--dry-run")
    assert code == 3
    assert "would be moved to quarantine" in rehearsed
    assert content("backups") == before
    foreseen = json.loads(run("repair", "--dry-run", "--json")[1])
    code, out, _ = run("repair", "--json")
    found = json.loads(out)
    assert code == 3
    assert set(found) == {
        "folder", "dry_run", "problems", "mended", "left", "quarantined", "chunks_saved", "bytes_saved", "chunks_lost",
        "lost", "manifests", "next_steps",
    }  # fmt: skip
    assert foreseen == {**found, "dry_run": True}
    assert found["lost"] == {one: ["a.bin"] for one in ids}
    code, out, _ = run("repair")
    assert code == 3
    assert "lost: a.bin, in 5 backups" in out
    for step in found["next_steps"][:2]:
        assert run(*shlex.split(step)[2:])[0] == 0
    assert run("repair") == (0, "nothing is wrong\n", "")
    assert run("verify")[0] == 0


def test_repair_of_what_holds_for_the_folder(run: Run, ids: list[str]) -> None:
    damage_of(Path("backups/config.json"), 3)
    Path("backups/lock").unlink()
    assert run("list")[0] == 0
    code, out, _ = run("repair")
    assert code == 0
    assert "DAMAGED  config.json" in out
    assert "DAMAGED  lock" in out
    for name in ("config.json", "config-copy.json"):
        damage_of(Path("backups", name), 3)
    assert run("list")[0] == 4
    assert run("repair")[0] == 0
    assert run("verify")[0] == 0
    damage_of(Path("backups/backups", f"{ids[0]}.qmbk"), 20)
    code, out, _ = run("repair")
    assert code == 3
    assert f"lost: the list of files of {ids[0]}" in out


def test_orphans(run: Run, ids: list[str]) -> None:
    assert run("orphans")[1] == "0 would go, 0 stay; 0 chunks (0 B) nobody needs\n"
    copy = Path("backups/chunks/0123456789abcdef0123456789abcdef.qmindex")
    copy.touch()
    os.utime(copy, (0, 0))
    code, out, _ = run("orphans")
    assert code == 0
    assert f"would go chunks/{copy.name}, 0 B\n         its pack is gone" in out
    assert "  qmem backup orphans --clean\n" in out
    found = json.loads(run("orphans", "--json")[1])
    assert set(found) == {"folder", "dry_run", "found", "chunks", "nbytes", "why_not"}
    assert copy.exists()
    assert "1 cleaned, 0 stay" in run("orphans", "--clean")[1]
    assert not copy.exists()
    copy.touch()
    assert "stays    chunks/" in run("orphans", "--clean")[1]
    assert "1 cleaned, 0 stay" in run("orphans", "--clean", "--grace", "0")[1]
    assert run("orphans", "--grace", "soon")[0] == 2
    damage_of(Path("backups/backups", f"{ids[0]}.qmbk"), 130)
    code, out, _ = run("orphans")
    assert code == 3
    assert "no chunk goes: nobody knows which chunks" in out
    assert "  qmem backup repair\n" in out


# --- elsewhere


def test_export_and_import(run: Run, ids: list[str]) -> None:
    code, out, _ = run("export", "good", "run/", "some.qmb")
    assert code == 0
    assert "some.qmb: 2 backups, 1" in out
    assert run("export", "good", "some.qmb")[0] == 7
    found = json.loads(run("export", "--all", "all.qmb", "--json")[1])
    assert set(found) == {"path", "backups", "chunks", "nbytes", "encrypted"}
    assert (found["backups"], found["encrypted"]) == (ids, False)
    assert run("export", "good", "some.qmb", "--overwrite")[0] == 0
    assert run("import", "some.qmb", "-C", "other")[1] == f"imported {ids[1]}\n"
    found = json.loads(run("import", "all.qmb", "-C", "other", "--json")[1])
    assert set(found) == {"folder", "ids", "warnings"}
    assert found["ids"] == ids
    assert run("restore", "good", "--to", "again", "-C", "other")[0] == 0
    assert content("again") == {**content(), "sub/b.txt": b"1\n"}


def test_export_and_import_want_sense(run: Run, ids: list[str], tmp_path: Path) -> None:
    assert run("export", "some.qmb")[0] == 2
    assert run("export", "--all", "good", "some.qmb")[0] == 2
    assert run("export", "nothing", "some.qmb")[0] == 6
    run("export", "--all", "all.qmb")
    damage_of(Path("all.qmb"))
    before = sorted(tmp_path.rglob("*"))
    assert run("import", "all.qmb", "-C", "other")[0] == 4
    assert run("import", "nothing.qmb", "-C", "other")[0] == 6
    assert run("import", "all.qmb", "-C", "run")[0] == 6
    assert sorted(tmp_path.rglob("*")) == before


def test_history(run: Run, ids: list[str]) -> None:
    assert json.loads(run("history", "list.json", "--json")[1])["path"] == "list.json"
    assert len(json.loads(Path("list.json").read_text())["backups"]) == 5
    assert run("history", "list.json")[0] == 7
    assert run("history", "list.json", "--overwrite")[0] == 0


# --- keys


def test_keys(run: Run, keys: list[str]) -> None:
    first, second = (["--key-file", key] for key in keys)
    code, out, _ = run("create", "run", *first)
    assert code == 0
    assert out.endswith(", encrypted\n")
    assert json.loads(run("create", "run", *first, "--json")[1])["encrypted"]
    assert run("list", *first)[0] == 0
    assert run("key", "add", *first, "--new-key-file", keys[1], "--label", "spare")[0] == 0
    assert run("list", *second)[0] == 0
    found = json.loads(run("key", "list", *second, "--json")[1])
    assert set(found) == {"folder", "keys"}
    assert [one["label"] for one in found["keys"]] == ["", "spare"]
    assert "spare  key file  20" in run("key", "list", *second)[1]
    assert run("key", "remove", "1", *second)[0] == 0
    assert run("list", *first)[0] == 10
    assert run("key", "remove", "spare", *second)[0] == 7
    assert run("key", "remove", "none", *second)[0] == 6
    assert run("key", "change", *second, "--new-key-file", keys[0])[0] == 0
    assert run("verify", *first)[0] == 0


def test_a_wrong_key_says_that_and_nothing_else(run: Run, keys: list[str]) -> None:
    first, second = (["--key-file", key] for key in keys)
    one = created(run, "run", *first)
    run("export", "--all", "all.qmb", *first)
    asked = {
        "list": [], "verify": [], "verify --quick": [], "show": [one], "restore": [one, "--to", "x"], "delete": [one],
        "tag": [one, "x"], "pin": [one], "prune": ["--keep-last", "1"], "drill": [], "repair": [], "orphans": [],
        "export": ["--all", "x"], "history": ["x"], "statistics": [], "log": [], "create": ["run"],
        "key list": [], "key add": ["--new-key-file", keys[1]], "import": ["all.qmb"],
    }  # fmt: skip
    where = Path("backups").absolute()
    for verb, arguments in asked.items():
        code, out, err = run(*verb.split(), *arguments, *second)
        assert (verb, code, out) == (verb, 10, "")
        said = f"{where}: it cannot be opened with this key.\n  Next: give the key it was encrypted with.\n"
        assert (verb, err) == (verb, f"qmem: {said}")
    assert run("import", "all.qmb", "-C", "other", *second)[0] == 10
    code, _, err = run("list")
    assert code == 10
    assert "it is encrypted, and no key was given" in err
    assert not Path("x").exists()


def test_keys_of_the_environment(run: Run, keys: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    created(run)
    monkeypatch.setenv("QMEM_KEY_FILE", keys[0])
    assert run("list")[0] == 0  # which is not encrypted
    assert run("create", "run", "-C", "sealed")[1].endswith(", encrypted\n")
    assert run("list", "-C", "sealed")[0] == 0
    monkeypatch.setenv("QMEM_KEY_FILE", keys[1])
    assert run("list", "-C", "sealed")[0] == 10
    assert run("list", "-C", "sealed", "--key-file", keys[0])[0] == 0
    monkeypatch.delenv("QMEM_KEY_FILE")
    assert run("list", "-C", "sealed")[0] == 10


def test_keys_want_sense(run: Run, keys: list[str]) -> None:
    created(run)
    assert run("list", "--key-file", keys[0])[0] == 7
    assert run("create", "run", "--encrypt")[0] == 7
    assert run("create", "run", "--encrypt", "-C", "other")[0] == 2  # with which key
    assert not Path("other").exists()
    assert run("key", "list")[1] == "these backups are not encrypted\n"
    assert run("key", "add", "--new-key-file", keys[0])[0] == 7
    assert run("key", "add")[0] == 2
    assert run("key", "add", "--new-key-file", keys[0], "--new-passphrase-file", keys[1])[0] == 2
    assert run("list", "--key-file", "nothing")[0] == 6
    Path("short").write_text("short")
    assert run("create", "run", "-C", "other", "--key-file", "short")[0] == 2


def test_import_of_what_is_encrypted(run: Run, keys: list[str]) -> None:
    first, second = (["--key-file", key] for key in keys)
    one = created(run, "run", *first)
    run("export", "--all", "all.qmb", *first)
    code, _, err = run("import", "all.qmb", "-C", "other")
    assert code == 10
    assert "it is encrypted, and no key was given" in err
    assert not Path("other").exists()
    assert run("import", "all.qmb", "-C", "other", *first)[0] == 0
    assert run("list", "-C", "other")[0] == 10  # it became as private as the file
    assert run("import", "all.qmb", "-C", "third", *second, "--from-key-file", keys[0])[0] == 0
    assert run("show", one, "-C", "third", *second)[0] == 0
    created(run, "run/sub", "-C", "plain")
    code, _, err = run("import", "all.qmb", "-C", "plain", *first)
    assert code == 0
    assert "is not encrypted in" in err
    assert run("restore", one, "--to", "again", "-C", "plain")[0] == 0
    assert content("again") == content()


# --- purge


@pytest.fixture
def memories(run: Run) -> str:
    """One memory in "run", twice, and in a checkpoint, with another beside it; and a backup of "run"."""
    plus = qm.StateVector(np.array([1, 1], complex) / np.sqrt(2), qubit_order="big")
    qm.save(plus, "run/plus.qms")
    qm.save(plus, "run/same.json")
    qm.save(qm.StateVector(np.array([1, 0], complex), qubit_order="big"), "run/zero.qms")
    with qm.CheckpointManager("checkpoints", signals=False, durable=False) as manager:
        manager.create_checkpoint(qm.load("run/plus.qms"), "plus")
        manager.create_checkpoint(qm.load("run/zero.qms"), "zero")
    return created(run, "run")


def test_purge(run: Run, memories: str, qmem_here: Run) -> None:
    before = content("backups"), content("checkpoints")
    code, out, err = qmem_here("purge", "run/plus.qms", "--dry-run")
    assert (code, err) == (0, "")
    assert f"would go backup {memories} in " in out
    assert "without plus.qms, same.json, it becomes " in out
    assert "would go checkpoint " in out
    assert f"not reached: the file itself, {Path('run/plus.qms').absolute()}" in out
    assert (content("backups"), content("checkpoints")) == before
    code, out, err = qmem_here("purge", "run/plus.qms", "-C", "backups", "--yes", "--json")
    found = json.loads(out)
    assert code == 0
    assert set(found) == {
        "content_id", "dry_run", "checkpoints", "backups", "chunks", "nbytes", "shared", "unreached",
    }  # fmt: skip
    assert [one["files"] for one in found["backups"]] == [["plus.qms", "same.json"]]
    assert found["checkpoints"] == []
    assert run("restore", "run/", "--to", "again")[0] == 0
    assert {"plus.qms", "same.json"} & content("again").keys() == set()
    content_id = qm.load("run/plus.qms").content_id
    assert qmem_here("purge", content_id, "--yes")[0] == 0
    assert [one["name"] for one in qm.CheckpointManager("checkpoints", signals=False).list_checkpoints()] == ["zero"]
    code, out, _ = qmem_here("purge", content_id, "--yes")
    assert code == 6
    assert "no checkpoint and no backup holds it" in out


def test_purge_asks_first(run: Run, memories: str, qmem: Qmem) -> None:
    before = content("backups")
    done = qmem("purge", Path("run/plus.qms").absolute(), "-C", Path("backups").absolute(), input="n\n")
    assert done.returncode == 130
    assert "would go" in done.stdout
    assert "It cannot be brought back" in done.stderr
    assert content("backups") == before


def test_purge_wants_sense(run: Run, memories: str, qmem_here: Run) -> None:
    assert qmem_here("purge")[0] == 2
    assert qmem_here("purge", "nothing")[0] == 6
    assert qmem_here("purge", "run/plus.qms", "-C", "nowhere")[0] == 6
    assert qmem_here("purge", "run/plus.qms", "--checkpoints", "run")[0] == 6
    Path("backups").rename("b")
    Path("checkpoints").rename("c")
    code, _, err = qmem_here("purge", "run/plus.qms")
    assert code == 6
    assert "there is no such folder" in err


# --- the page


def test_the_page_names_every_verb() -> None:
    said = PAGE.read_text()
    for verb in (*backup.commands, *(f"key {verb}" for verb in key.commands)):
        assert f"`{verb}" in said, verb
