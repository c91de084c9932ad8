"""What the verbs of ``qmem backup`` say comes next can be typed as it is said; bars; what a rehearsal leaves alone."""

from __future__ import annotations

import base64
import json
import os
import pty
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from quantum_memory.cli import main
from quantum_memory.lifecycle.backup_manager import BackupManager

from .backups import content, created, damage_of, prepared

if TYPE_CHECKING:
    from .backups import Run

ELSEWHERE = "else where"


@pytest.fixture
def run(qmem_here: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Run a verb beside "run", a folder to back up; the default folder of backups is another than that of `there`."""
    return prepared(qmem_here, monkeypatch, tmp_path)


@pytest.fixture(params=[False, True], ids=["plain", "sealed"])
def there(run: Run, request: pytest.FixtureRequest) -> list[str]:
    """Options for a folder with two backups of "run", which is encrypted or not."""
    Path("a key").write_bytes(base64.b64encode(os.urandom(32)))
    options = ["-C", ELSEWHERE, *["--key-file", "a key"] * request.param]
    for number in range(2):
        Path("run/sub/b.txt").write_text(f"{number}\n")
        created(run, "run", *options)
    return options


def ids_of(there: list[str]) -> list[str]:
    return sorted(path.stem for path in Path(ELSEWHERE, "backups").iterdir())


def typed(run: Run, line: str, codes: tuple[int, ...] = (0,)) -> str:
    """Type a command that was printed, which has to end with one of these codes; return what it prints."""
    assert line.startswith("qmem backup -C ")
    code, out, err = run(*shlex.split(line, comments=True)[2:])
    assert code in codes, (line, out, err)
    return out


def next_of(err: str) -> str:
    """Return the command that an error says comes next."""
    (found,) = re.findall(r"^  Next: (.*)$", err, re.MULTILINE)
    return str(found)


def spoil(there: list[str]) -> None:
    """Damage the chunk of a.bin."""
    damage_of(max(Path(ELSEWHERE, "chunks").glob("*.qmpack"), key=lambda path: path.stat().st_size))


# --- what comes next


def test_after_a_restore_that_fails(run: Run, there: list[str]) -> None:
    one = ids_of(there)[0]
    spoil(there)
    code, _, err = run("restore", one, "--to", "a place", *there)
    assert code == 4
    typed(run, next_of(err), (3,))
    assert content("a place").keys() == {"sub/b.txt", "sub/link"}


def test_after_a_check(run: Run, there: list[str]) -> None:
    spoil(there)
    steps = json.loads(run("verify", "--json", *there)[1])["next_steps"]
    assert [shlex.split(step)[4] for step in steps] == ["create", "repair", "restore"]
    for step in steps:
        typed(run, step, (0, 3))
    assert Path("run.restored").is_dir()


def test_after_a_repair(run: Run, there: list[str]) -> None:
    spoil(there)
    Path("run").rename("gone")
    steps = json.loads(run("repair", "--json", *there)[1])["next_steps"]
    assert [shlex.split(step)[4] for step in steps] == ["verify", "restore", "restore"]
    for step in steps:
        typed(run, step, (3, 4))
    assert content("run.restored").keys() == {"sub/b.txt", "sub/link"}
    assert not Path("run").exists()


def test_after_a_drill(run: Run, there: list[str]) -> None:
    Path("at a place").mkdir()
    out = run("drill", "--at", "at a place", *there)[1]
    again = out.split("the same once more: ")[1].strip()
    assert typed(run, again).split()[1] == out.split()[1]
    spoil(there)
    out = run("drill", *there)[1]
    typed(run, out.splitlines()[-1].strip(), (4,))


def test_after_a_prune_that_refuses(run: Run, there: list[str]) -> None:
    for _ in range(2):
        created(run, "run", "--no-rotate", *there)
    one = ids_of(there)[0]
    damage_of(Path(ELSEWHERE, "backups", f"{one}.qmbk"), -1)
    before = content(ELSEWHERE)
    for rehearsal in ([], ["--dry-run"]):
        code, out, err = run("prune", "--keep-last", "1", *rehearsal, *there)
        assert (code, out) == (4, "")
        assert f"{one}.qmbk: " in err
        assert "nobody knows what it needs, and nothing is removed" in err
    assert {path for path in content(ELSEWHERE) if "qm" in path} == {path for path in before if "qm" in path}
    typed(run, next_of(err), (0, 3))
    assert run("prune", "--keep-last", "1", *there)[0] == 0
    created(run, "run", "--no-rotate", *there)
    spoil(there)
    code, _, err = run("prune", "--keep-last", "1", *there)
    assert code == 4
    assert "nothing older is given up for it" in err
    typed(run, next_of(err), (4,))


@pytest.mark.parametrize(
    ("verb", "codes"),
    [
        (["show", "nothing"], (0,)), (["restore", "run/nothing"], (0,)), (["untag", "nothing"], (0,)),
        (["key", "remove", "nothing"], (0,)), (["delete", "TAGGED"], (0,)), (["delete", "PINNED"], (0,)),
        (["export", "--all", "a file"], (4,)),
    ],
)  # fmt: skip
def test_after_other_errors(run: Run, there: list[str], verb: list[str], codes: tuple[int, ...]) -> None:
    tagged, pinned = ids_of(there)
    run("tag", tagged, "good", *there)
    run("pin", pinned, *there)
    if "export" in verb:
        spoil(there)
    ids = {"TAGGED": tagged, "PINNED": pinned}
    code, _, err = run(*[ids.get(part, part) for part in verb], *there)
    if verb[0] == "key" and "--key-file" not in there:
        assert code == 7  # nothing is encrypted
        return
    assert code in {4, 6, 7}
    typed(run, next_of(err), codes)
    if "delete" in verb:
        assert run(*[ids.get(part, part) for part in verb], *there)[0] == 0


def test_a_shell_takes_it(run: Run, there: list[str]) -> None:
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    line = next_of(run("show", "nothing", *there)[2])
    done = subprocess.run(line, shell=True, capture_output=True, text=True, check=False, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert all(one in done.stdout for one in ids_of(there))


def test_the_default_folder_is_not_named(run: Run) -> None:
    created(run)
    assert "Next: qmem backup list  # shows those that there are.\n" in run("show", "nothing")[2]


# --- a rehearsal


@pytest.mark.parametrize("verified", ["never", "long ago", "now"])
def test_a_rehearsal_of_prune_writes_nothing(run: Run, there: list[str], verified: str) -> None:
    newest = ids_of(there)[-1]
    if verified != "never":
        assert run("verify", newest, *there)[0] == 0
    if verified == "long ago":
        with BackupManager(ELSEWHERE) as manager:
            manager.checker.remember(lambda checks: checks.verified.__setitem__(newest, "2020-01-01T00:00:00Z"))
    before = content(ELSEWHERE)
    code, out, _ = run("prune", "--keep-last", "1", "--dry-run", "--json", *there)
    assert code == 0
    assert len(json.loads(out)["removed"]) == 1
    assert content(ELSEWHERE) == before
    spoil(there)
    if verified != "now":
        assert run("prune", "--keep-last", "1", "--dry-run", *there)[0] == 4
        assert run("prune", "--keep-last", "1", *there)[0] == 4
    said = run("list", *there)[1]
    assert ("not read back yet" in said.split("\n")[1]) == (verified != "now")


# --- a folder that somebody has begun


@pytest.mark.parametrize(
    "left",
    [
        [], ["chunks/"], ["chunks/", ".lock.0123456789abcdef.qmtmp"], ["chunks/", "backups/"],
    ],
)  # fmt: skip
def test_create_goes_on_where_the_first_one_died(run: Run, left: list[str]) -> None:
    for name in ("backups/", *(f"backups/{name}" for name in left)):
        Path(name).mkdir() if name.endswith("/") else Path(name).write_bytes(b"")
    created(run)
    assert run("verify")[0] == 0


@pytest.mark.parametrize("name", ["config.json", "config-copy.json"])
def test_create_completes_what_holds_for_the_folder(run: Run, there: list[str], name: str) -> None:
    Path(ELSEWHERE, name).unlink()
    assert run("verify", *there)[0] == 4
    created(run, "run", *there)
    assert run("verify", *there)[0] == 0


@pytest.mark.parametrize("mine", ["chunks/mine", "backups/mine", "mine", "chunks"])
def test_what_is_somebody_elses_is_no_folder_of_backups(run: Run, mine: str) -> None:
    path = Path("backups", mine)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"mine")
    before = content("backups")
    code, _, err = run("create", "run")
    assert code == 6
    assert "it is no folder of backups" in err
    assert content("backups") == before


# --- keys


def test_that_a_key_which_was_removed_still_opens_copies_is_said(run: Run) -> None:
    for name in ("one", "other"):
        Path(name).write_bytes(base64.b64encode(os.urandom(32)))
    created(run, "run", "--key-file", "one")
    run("key", "add", "--key-file", "one", "--new-key-file", "other", "--label", "spare")
    code, out, _ = run("key", "remove", "spare", "--key-file", "one")
    assert code == 0
    assert "opens" in out
    assert "no more; whoever knows it and has a copy of the folder, or of its config.json, still opens that copy" in out


# --- bars


def shown(*arguments: str) -> str:
    """Run a verb on a terminal, where it has to succeed, and return what it draws."""
    pid, terminal = pty.fork()
    if pid == 0:
        code = 1
        try:
            os.environ["TERM"] = "xterm"
            sys.stdout, sys.stderr = (open(fd, "w", closefd=False) for fd in (1, 2))  # noqa: SIM115
            code = main.run(["backup", *arguments])
        finally:
            os._exit(code)
    drawn = b""
    try:
        while part := os.read(terminal, 4096):
            drawn += part
    except OSError:  # Linux: the other side is closed
        pass
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0, drawn
    return drawn.decode()


def test_bars_of_what_takes_long(run: Run) -> None:
    Path("large").write_bytes(os.urandom(17 << 20))  # from 32 MiB on there is a bar; what is read twice counts twice
    created(run, "large", "--compression", "none")
    assert "drill " in shown("drill")
    assert run("export", "--all", "all.qmb")[0] == 0
    assert "import " in shown("import", "all.qmb", "-C", "other")
    assert "import " not in shown("import", "all.qmb", "-C", "other")  # which is read once
