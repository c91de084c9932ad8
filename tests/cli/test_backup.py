"""``qmem backup``: create, look, give back, rotate; each exit code, and never a traceback."""

from __future__ import annotations

import json
import os
import re
import signal
import struct
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import quantum_memory as qm
from quantum_memory.cli import main
from quantum_memory.durability.pack import sealed
from quantum_memory.lifecycle.backup_manager import BackupManager
from quantum_memory.lifecycle.repository.manifest_file import PREFIX_BYTES
from quantum_memory.lifecycle.repository.pruning import Pruner

from .backups import backed_up, content, created, damage, damage_of, prepared

if TYPE_CHECKING:
    from collections.abc import Callable

    Qmem = Callable[..., subprocess.CompletedProcess[str]]

    from .backups import Run

KNOWN = {
    "id", "number", "source", "created_at", "description", "automatic", "is_folder", "files", "folders", "links",
    "raw_bytes", "new_bytes", "problems", "imported", "writer", "tags", "pinned", "verified",
}  # fmt: skip
VERBS = (
    "create", "list", "show", "verify", "restore", "delete", "tag", "untag", "pin", "unpin", "prune", "drill", "repair",
    "orphans", "export", "import", "history", "statistics", "log",
)  # fmt: skip


@pytest.fixture
def run(qmem_here: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Run a verb beside "run", a folder to back up; the backups go to "backups"."""
    return prepared(qmem_here, monkeypatch, tmp_path)


@pytest.fixture
def ids(run: Run) -> list[str]:
    """Four backups of "run", of which the second is tagged, and one of "run/a.bin"."""
    return backed_up(run)


# --- create


def test_create(run: Run) -> None:
    code, out, err = run("create", "run", "--description", "as it was")
    assert (code, err) == (0, "")
    first, second = out.splitlines()
    assert re.fullmatch(r"\d{8}_\d{6}_\d{6}_[0-9a-f]{6}  /.*/run", first)
    assert re.fullmatch(r"  a folder of 2 files and 1 link, 97\.7 KiB, \S+ KiB written", second)
    assert "a file of 97.7 KiB, 0 B written" in run("create", "run/a.bin")[1]
    for text in ("run/a.bin, not read back yet", "run, not read back yet, as it was"):
        assert text in run("list")[1]


def test_create_as_json(run: Run) -> None:
    found = json.loads(run("create", "run", "run/a.bin", "--json")[1])
    assert set(found) == {"folder", "encrypted", "backups", "failed", "warnings"}
    assert [set(one) for one in found["backups"]] == [KNOWN, KNOWN]
    assert [Path(one["source"]).name for one in found["backups"]] == ["run", "a.bin"]
    assert (found["encrypted"], found["failed"], found["warnings"]) == (False, [], [])
    assert found["backups"][1]["new_bytes"] == 0


def test_some_of_several_fail(run: Run) -> None:
    code, out, err = run("create", "run", "nothing")
    assert code == 3
    assert len(out.splitlines()) == 2
    assert "nothing: there is no such file or folder" in err
    found = json.loads(run("create", "run", "nothing", "--json")[1])
    assert [one["path"] for one in found["failed"]] == ["nothing"]
    assert found["failed"][0]["error"]["exit_code"] == 6
    assert run("create", "nothing", "nor that")[0] == 6
    assert run("create", "nothing")[0] == 6
    assert json.loads(run("create", "nothing", "--json")[1])["error"]["type"] == "MissingFileError"


def test_what_cannot_be_read_is_said(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from quantum_memory.lifecycle.backups import saving

    opened = saving.opened

    def failing(at: str) -> Any:
        if at.endswith("b.txt"):
            raise qm.StorageError("could not read: Input/output error", path=at)
        return opened(at)

    monkeypatch.setattr(saving, "opened", failing)
    code, out, err = run("create", "run")
    assert code == 3
    assert "is without 1 of the files: sub/b.txt: could not read" in err
    assert "next, to see what was not read: qmem backup show" in out
    found = json.loads(run("create", "run", "--json")[1])
    assert (len(found["backups"]), len(found["warnings"])) == (1, 1)
    shown = run("show", found["backups"][0]["id"])[1]
    assert "not read: sub/b.txt: could not read: Input/output error" in shown
    known = json.loads(run("show", "run/", "--json")[1])
    assert known["problem_files"] == [{"path": "sub/b.txt", "why": "could not read: Input/output error"}]


def test_create_wants_sense(run: Run) -> None:
    assert run("create")[0] == 2
    assert run("create", "run", "run/a.bin", "--tag", "both")[0] == 2
    assert run("create", "run", "--tag", "not a tag")[0] == 2
    assert run("create", "run", "--no-rotate", "--keep-last", "3")[0] == 2
    assert run("create", "run", "--compression", "rar")[0] == 2
    assert run("create", "run", "--keep-daily", "3", "--timezone", "Nowhere/None")[0] == 2
    assert not Path("backups").exists()
    code, _, err = run("-C", "run", "create", "run/a.bin")
    assert code == 6
    assert "it is no folder of backups" in err
    os.mkfifo("pipe")
    assert run("create", "pipe")[0] == 9


@pytest.mark.parametrize(
    ("rule", "left"), [([], 10), (["--no-rotate"], 12), (["--keep-last", "2"], 2), (["--keep-within", "1d"], 12)]
)
def test_create_rotates(run: Run, rule: list[str], left: int) -> None:
    for _ in range(12):
        created(run, "run/sub", *rule)
    assert len(json.loads(run("list", "--json")[1])["backups"]) == left


# --- look


def test_list(run: Run, ids: list[str]) -> None:
    code, out, err = run("list")
    assert (code, err) == (0, "")
    assert [line.split()[1] for line in out.splitlines()[::2]] == ids[::-1]
    assert max(len(line) for line in out.splitlines()[::2]) <= 80
    assert "run, tag good, not read back yet" in out
    found = json.loads(run("list", "--json", "--limit", "2")[1])
    assert set(found) == {"folder", "backups", "left_out", "damaged"}
    assert ([one["id"] for one in found["backups"]], found["left_out"]) == (ids[:2:-1], 3)
    assert "and 4 older ones" in run("list", "--limit", "1")[1]
    assert ids[4] in run("list", "run/a.bin")[1]
    assert ids[0] not in run("list", "run/a.bin")[1]
    assert "no backups of " in run("list", "nothing")[1]


def test_nothing_is_made_by_looking(run: Run, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    needed = {"show": "x", "restore": "x", "delete": "x", "pin": "x", "unpin": "x", "untag": "x", "history": "x"}
    for verb in VERBS:
        if verb in {"create", "import"}:
            continue
        arguments = {"tag": ["x", "y"], "export": ["--all", "x"]}.get(verb, [needed[verb]] if verb in needed else [])
        code, _, err = run(verb, *arguments)
        assert (verb, code) == (verb, 6)
        assert "there is no such folder" in err
        assert "qmem backup create" in err
        assert run("-C", "run", verb, *arguments)[0] == 6
    assert run("key", "list")[0] == 6
    assert sorted(tmp_path.rglob("*")) == before


def test_the_folder_is_said_before_or_after_the_verb(run: Run, ids: list[str]) -> None:
    Path("backups").rename("elsewhere")
    assert run("list")[0] == 6
    assert ids[0] in run("-C", "elsewhere", "list")[1]
    assert ids[0] in run("-C", "nowhere", "list", "-C", "elsewhere")[1]


def test_show(run: Run, ids: list[str]) -> None:
    os.mkfifo("run/pipe")
    one = created(run, "run", "--description", "with a pipe")
    code, out, _ = run("show", one)
    assert code == 0
    for part in (one, "with a pipe", "a folder of 2 files and 1 link", "sub/link -> ../a.bin", "never copied: pipe"):
        assert part in out
    assert f"qmem backup restore {one} --to " in out
    found = json.loads(run("show", one, "--json")[1])
    assert set(found) == KNOWN | {"entries", "problem_files", "skipped"}
    assert [set(entry) for entry in found["entries"]] == [
        {"path", "type", "mode", "modified_ns", "size", "chunks", "target"}
    ] * 5
    assert [entry["path"] for entry in found["entries"]] == ["", "a.bin", "sub", "sub/b.txt", "sub/link"]
    assert found["skipped"] == ["pipe"]
    assert json.loads(run("show", "good", "--json")[1])["id"] == ids[1]
    assert json.loads(run("show", "run/a.bin", "--json")[1])["id"] == ids[4]
    assert run("show", "./nothing")[0] == 6
    assert run("show", "nothing")[0] == 6
    assert run("show", ids[0][:8])[0] == 7


def test_of_many_files_some_are_shown(run: Run) -> None:
    for number in range(30):
        Path(f"run/sub/{number}").touch()
    created(run)
    assert "... and 15 more (--all)" in run("show", "run/")[1]
    assert "sub/9" in run("show", "run/", "--all")[1]


def test_names_cannot_steer_the_terminal(run: Run) -> None:
    odd = os.fsdecode(b"run/\x1b[31m\xff\n")
    Path(odd).write_text("x")
    one = created(run, "run", "--description", "\x1b[2J")
    created(run, odd)
    for arguments in (["list"], ["show", one], ["log"], ["verify"]):
        code, out, err = run(*arguments)
        assert (code, err) == (0, "")
        assert "\x1b" not in out
    assert json.loads(run("list", "--json")[1])["backups"][0]["source"] == os.path.abspath(odd)  # noqa: PTH100


def test_what_is_damaged_is_listed(run: Run, ids: list[str]) -> None:
    damage_of(Path("backups/backups", f"{ids[0]}.qmbk"), 130)
    code, out, err = run("list")
    assert code == 3
    assert ids[0] not in out
    assert ids[1] in out
    assert "does not match its SHA-256" in err
    found = json.loads(run("list", "--json")[1])
    assert [(one["id"], one["error"]["exit_code"]) for one in found["damaged"]] == [(ids[0], 4)]
    assert run("show", ids[0])[0] == 4


def test_statistics(run: Run, ids: list[str]) -> None:
    code, out, _ = run("statistics")
    assert code == 0
    assert re.search(r"backups +5 of 2 sources", out)
    assert re.search(r"read back +0 of 5", out)
    assert set(json.loads(run("statistics", "--json")[1])) == {
        "folder", "backups", "sources", "damaged", "verified", "last_verified", "latest", "oldest", "raw_bytes",
        "stored_bytes", "chunks", "ratio", "encrypted",
    }  # fmt: skip


def test_log(run: Run, ids: list[str]) -> None:
    run("restore", ids[0], "--to", "again")
    run("delete", ids[0])
    code, out, _ = run("log")
    assert code == 0
    lines = out.splitlines()
    assert f"created {ids[0]}: source " in lines[0]
    assert f"tagged {ids[1]}: tag good" in out
    assert f"restored {ids[0]}: to " in lines[-2]
    assert f"deleted {ids[0]}" in lines[-1]
    found = json.loads(run("log", "--json")[1])
    assert [entry["backup"] for entry in found["entries"] if entry["action"] == "created"] == ids


# --- give back


def test_restore(run: Run, ids: list[str]) -> None:
    before = content()
    code, out, _ = run("restore", ids[0], "--to", "again")
    assert code == 0
    assert f"again: 2 files, 97.7 KiB restored from {ids[0]}, every byte compared" in out
    assert content("again") == {**before, "sub/b.txt": b"0\n"}
    Path("run/sub/b.txt").write_text("changed\n")
    code, out, _ = run("restore", "run/")
    assert code == 0
    assert f"run.before-{ids[3]}" in out
    assert content() == before
    assert content(f"run.before-{ids[3]}")["sub/b.txt"] == b"changed\n"
    found = json.loads(run("restore", ids[4], "--to", "new.bin", "--json")[1])
    assert set(found) == {"backup", "path", "files", "nbytes", "replaced", "saved_as", "left_out"}
    assert (found["backup"], found["nbytes"], found["replaced"], found["left_out"]) == (ids[4], 100_000, None, [])


def test_restore_over_what_is_there(run: Run, ids: list[str]) -> None:
    Path("run/a.bin").write_text("another")
    assert run("restore", ids[4], "--no-overwrite")[0] == 7
    assert run("restore", ids[4], "--to", "run")[0] == 7
    assert Path("run/a.bin").read_text() == "another"
    assert run("restore", ids[4])[0] == 0
    first = json.loads(run("list", "run/a.bin", "--json")[1])["backups"][0]
    assert first["automatic"]
    assert first["description"] == f"before {ids[4]} was restored over it"
    Path("run/a.bin").write_text("another")
    assert run("restore", ids[4], "--no-backup-first")[0] == 0
    assert len(json.loads(run("list", "run/a.bin", "--json")[1])["backups"]) == 2
    assert run("restore", ids[4], "--to", "none/there")[0] == 0
    assert Path("none/there").stat().st_size == 100_000


def test_a_path_means_the_newest_that_was_not_made_by_a_restore_over_it(run: Run, ids: list[str]) -> None:
    good = Path("run/a.bin").read_bytes()
    Path("run/a.bin").write_text("damaged")
    for _ in range(2):
        code, out, _ = run("restore", "./run/a.bin")
        assert code == 0
        assert f"restored from {ids[4]}" in out
        assert "what was there is backup 2" in out
        assert Path("run/a.bin").read_bytes() == good
    for empty in (("restore", ids[4], "--to", ""), ("create", "")):
        code, _, err = run(*empty)
        assert code == 2
        assert "the path is empty" in err


def test_restore_what_is_damaged(run: Run, ids: list[str]) -> None:
    damage()
    code, _, err = run("restore", ids[0], "--to", "again")
    assert code == 4
    assert "'a.bin' of the backup" in err
    assert not Path("again").exists()
    code, out, _ = run("restore", ids[0], "--to", "again", "--salvage")
    assert code == 3
    assert "1 file, 2 B restored" in out
    assert "left out: a.bin: " in out
    assert content("again")["sub/b.txt"] == b"0\n"
    found = json.loads(run("restore", ids[0], "--to", "third", "--salvage", "--json")[1])
    assert [one["path"] for one in found["left_out"]] == ["a.bin"]


# --- names, and what goes


def test_tag_pin_delete(run: Run, ids: list[str]) -> None:
    assert run("tag", ids[3], "best")[1] == f"{ids[3]} has the tag best\n"
    assert json.loads(run("show", "best", "--json")[1])["id"] == ids[3]
    assert run("delete", "best")[0] == 7
    assert json.loads(run("untag", "best", "--json")[1]) == {"untagged": "best"}
    assert run("untag", "best")[0] == 6
    assert json.loads(run("pin", "run/", "--json")[1]) == {"id": ids[3], "pinned": True}
    assert run("delete", ids[3])[0] == 7
    assert json.loads(run("unpin", ids[3], "--json")[1]) == {"id": ids[3], "pinned": False}
    assert json.loads(run("delete", ids[3], "--json")[1]) == {"deleted": ids[3]}
    assert run("show", ids[3])[0] == 6
    assert run("verify")[0] == 0
    assert run("tag", ids[0], "not a tag")[0] == 2


@pytest.mark.parametrize(
    "options",
    [
        ["--keep-last", "1"], ["--keep-last", "9"], ["--keep-hourly", "1", "--keep-yearly", "2"], [],
        ["--keep-daily", "7", "--keep-weekly", "4", "--keep-monthly", "2", "--timezone", "UTC"],
        ["--keep-within", "1s"], ["--keep-tag", "good"],
    ],
)  # fmt: skip
def test_a_rehearsal_says_what_then_happens(run: Run, ids: list[str], options: list[str]) -> None:
    with BackupManager("backups") as manager, manager.folder.store.shared():  # no lock alone is needed
        code, out, _ = run("prune", *options, "--dry-run", "--json")
    assert code == 0
    rehearsed = json.loads(out)
    assert len(json.loads(run("list", "--json")[1])["backups"]) == 5
    done = json.loads(run("prune", *options, "--json")[1])
    assert set(done) == {"folder", "dry_run", "removed", "kept", "collection"}
    assert (rehearsed["removed"], rehearsed["kept"]) == (done["removed"], done["kept"])
    assert (rehearsed["dry_run"], rehearsed["collection"], done["dry_run"]) == (True, None, False)
    left = {one["id"] for one in json.loads(run("list", "--json")[1])["backups"]}
    assert left == set(done["kept"]) == set(ids) - set(done["removed"])
    assert {ids[1], ids[3], ids[4]} <= left
    assert run("verify")[0] == 0


def test_prune_says_why(run: Run, ids: list[str]) -> None:
    out = run("prune", "--keep-last", "1", "--dry-run")[1]
    assert f"would go {ids[0]}  not kept by KeepLast(1)" in out
    assert f"stays    {ids[1]}  tagged 'good'" in out
    assert f"stays    {ids[3]}\n         the last that was read back whole; the last\n" in out
    assert "2 would go, 3 stay" in out
    assert max(map(len, out.splitlines())) <= 80
    headings = [line for line in out.splitlines() if line.startswith("/")]
    assert headings == [str(Path(path).absolute()) for path in ("run", "run/a.bin")]
    assert "2 removed, 3 stay, " in run("prune", "--keep-last", "1")[1]


def test_prune_wants_sense(run: Run, ids: list[str]) -> None:
    for options in (["--keep-last", "0"], ["--keep-within", "sometimes"], ["--timezone", "UTC"]):
        assert run("prune", *options)[0] == 2
    assert len(json.loads(run("list", "--json")[1])["backups"]) == 5


def test_prune_while_others_work(run: Run, ids: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(Pruner.prune.__kwdefaults__, "timeout", 0.05)
    with BackupManager("backups") as manager, manager.folder.store.shared():
        code, _, err = run("prune", "--keep-last", "1")
    assert code == 7
    assert "nothing was removed" in err
    assert len(json.loads(run("list", "--json")[1])["backups"]) == 5


@pytest.mark.parametrize("rehearsal", [True, False])
def test_nothing_goes_for_a_newest_one_that_is_damaged(run: Run, ids: list[str], rehearsal: bool) -> None:
    damage()
    code, _, err = run("prune", "--keep-last", "1", *["--dry-run"] * rehearsal)
    assert code == 4
    assert "nothing older is given up for it" in err
    assert len(json.loads(run("list", "--json")[1])["backups"]) == 5


@pytest.mark.parametrize("rehearsal", [True, False])
@pytest.mark.parametrize("at", [-1, 130])
def test_nothing_goes_while_one_is_damaged(run: Run, ids: list[str], rehearsal: bool, at: int) -> None:
    damage_of(Path("backups/backups", f"{ids[1]}.qmbk"), at)
    code, _, err = run("prune", "--keep-last", "1", *["--dry-run"] * rehearsal)
    assert code == 4
    assert "nothing is removed" in err
    assert f"qmem backup delete {ids[1]}" in err
    assert len(list(Path("backups/backups").iterdir())) == 5


# --- other exit codes


def test_a_manifest_of_a_later_release_is_5(run: Run, ids: list[str]) -> None:
    path = Path("backups/backups", f"{ids[0]}.qmbk")
    data = bytearray(path.read_bytes())
    struct.pack_into("<II", data, 8, 999, 999)
    path.write_bytes(sealed(bytes(data[:PREFIX_BYTES])) + data[PREFIX_BYTES:])
    assert run("show", ids[0])[0] == 5
    assert run("restore", ids[0], "--to", "again")[0] == 5
    assert run("show", ids[1])[0] == 0


def test_what_cannot_be_written_is_8(run: Run, ids: list[str]) -> None:
    assert run("restore", ids[0], "--to", "/proc/again")[0] == 8
    code, out, _ = run("restore", ids[0], "--to", "/proc/again", "--json")
    assert code == 8
    assert set(json.loads(out)["error"]) == {"type", "message", "path", "next_step", "exit_code"}


# --- the program itself


def test_the_real_command(real_qmem: Qmem, run: Run, ids: list[str], tmp_path: Path) -> None:
    folder = tmp_path / "backups"
    done = real_qmem("backup", "list", "-C", folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert ids[4] in done.stdout
    assert real_qmem("backup", "-C", folder, "restore", "good", "--to", "again").returncode == 0
    done = real_qmem("backup", "list", "-C", "nowhere")
    assert done.returncode == 6
    assert "there is no such folder" in done.stderr


def test_an_interrupt_leaves_what_was_there(program: Path, run: Run, ids: list[str]) -> None:
    for number in range(40):
        Path(f"run/{number}.bin").write_bytes(os.urandom(2 << 20))
    before = content("backups")
    running = subprocess.Popen(
        [program, "backup", "create", "run"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509
    )
    deadline = time.monotonic() + 30
    while not any(Path("backups/chunks").glob(".*")) and running.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)  # until the new pack is begun
    running.send_signal(signal.SIGINT)
    _, said = running.communicate(timeout=30)
    assert (running.returncode, said) == (130, b"qmem: interrupted\n")
    assert content("backups") == before
    assert run("verify")[0] == 0


def test_help_names_every_verb() -> None:
    shown = CliRunner().invoke(main.qmem, ["backup", "--help"]).output
    for verb in VERBS:
        assert re.search(rf"^  {verb} ", shown, re.MULTILINE), verb
        said = CliRunner().invoke(main.qmem, ["backup", verb, "--help"]).output
        assert "--json" in said
        assert "--folder" in said
    shown = CliRunner().invoke(main.qmem, ["backup", "key", "--help"]).output
    for verb in ("list", "add", "remove", "change"):
        assert re.search(rf"^  {verb} ", shown, re.MULTILINE), verb


WORDS = st.sampled_from(
    [
        "--json", "--sample", "--quick", "--full", "--keep-last", "--keep-within", "--keep-daily", "--timezone", "--to",
        "--limit", "--grace", "--seed", "--tag", "--dry-run", "--salvage", "--no-overwrite", "--key-file", "--label",
        "--passphrase-file", "-C", "good", "run", "run/", "run/a.bin", "0", "1", "-1", "5%", "nan%", "1e9%", "1h", "9w",
        "", "\x00", "\x1b[31m", "a" * 300, "run/../run", "/dev/null", "/proc/self/mem", "Europe/Berlin",
    ]
)  # fmt: skip


def test_whatever_is_asked_there_is_an_answer(run: Run, ids: list[str]) -> None:
    @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.sampled_from([*VERBS, "key"]), st.lists(WORDS, max_size=5))
    def ask(verb: str, words: list[str]) -> None:
        code, out, err = run(verb, *words)
        assert code in {0, 2, 3, 4, 6, 7, 8, 9, 10, 130}
        assert out or err
        if code == 0 and "--json" in words and "--help" not in words:
            json.loads(out)

    ask()
