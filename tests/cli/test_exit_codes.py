"""Each exit code, from a real file that causes it; never a traceback."""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

import quantum_memory as qm
from quantum_memory.cli import main
from quantum_memory.formats import qms_layout

if TYPE_CHECKING:
    from collections.abc import Callable

    Qmem = Callable[..., subprocess.CompletedProcess[str]]

VERBS = ["info", "verify", "compare"]


@pytest.fixture
def qmem(real_qmem: Qmem) -> Qmem:
    """Run the installed command: its codes are what others see."""
    return real_qmem


def _files(verb: str, path: Path, bell: Path) -> list[Path]:
    return [bell, path] if verb == "compare" else [path]


def _too_new(bell: Path) -> Path:
    """A file of a version that this release cannot read, well formed as far as that can be told."""
    path = bell.with_name("too_new.qms")
    data = bytearray(bell.read_bytes())
    struct.pack_into("<HH", data, 8, 999, 999)
    struct.pack_into("<Q", data, qms_layout.HEADER_BYTES - 8, qms_layout.checksum(data[: qms_layout.HEADER_BYTES - 8]))
    path.write_bytes(data)
    return path


def _pipe(bell: Path) -> Path:
    path = bell.with_name("pipe.qms")
    os.mkfifo(path)
    return path


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize(
    ("make", "code", "kind"),
    [
        (_too_new, 5, "UnsupportedVersionError"),
        (lambda bell: bell.with_name("none.qms"), 6, "MissingFileError"),
        (_pipe, 9, "UnsafeError"),
    ],
)
def test_the_class_of_the_error_decides(
    qmem: Qmem, bell: Path, verb: str, make: Callable[[Path], Path], code: int, *, kind: str
) -> None:
    path = make(bell)
    done = qmem(verb, "--json", *_files(verb, path, bell))
    assert done.returncode == code
    answer = json.loads(done.stdout)
    assert set(answer["error"]) == {"type", "message", "path", "next_step", "exit_code"}
    assert (answer["error"]["type"], answer["error"]["exit_code"]) == (kind, code)
    assert answer["error"]["path"] == str(path)
    assert answer["error"]["message"] in done.stderr


@pytest.mark.parametrize("verb", VERBS)
def test_done_is_0(qmem: Qmem, bell: Path, verb: str) -> None:
    done = qmem(verb, "--json", *_files(verb, bell, bell))
    assert (done.returncode, done.stderr) == (0, "")
    assert "error" not in json.loads(done.stdout)


@pytest.mark.parametrize("verb", ["verify", "compare"])
def test_damage_is_4(qmem: Qmem, bell: Path, damaged: Path, verb: str) -> None:
    done = qmem(verb, *_files(verb, damaged, bell))
    assert done.returncode == 4
    assert "damaged in chunk 0: bytes" in " ".join((done.stdout + done.stderr).split())


def test_info_reads_no_data_so_that_it_describes_a_damaged_file(qmem: Qmem, damaged: Path) -> None:
    assert qmem("info", damaged).returncode == 0


@pytest.mark.parametrize(
    "arguments",
    [[], ["nonsense"], ["verify"], ["info", "--nonsense", "x"], ["compare", "one"], ["demo", "--limit", "0"]],
)
def test_usage_is_2(qmem: Qmem, arguments: list[str]) -> None:
    done = qmem(*arguments)
    assert done.returncode == 2
    assert "Usage: qmem" in done.stdout + done.stderr


def test_a_usage_error_is_json_too(qmem: Qmem) -> None:
    done = qmem("info", "--json")
    assert done.returncode == 2
    assert json.loads(done.stdout)["error"]["next_step"] == "see qmem info --help"


@pytest.mark.parametrize("verb", ["info", "verify"])
def test_partial_success_is_3_and_says_each(qmem: Qmem, bell: Path, verb: str) -> None:
    missing = bell.with_name("missing.qms")
    done = qmem(verb, "--json", bell, missing)
    assert done.returncode == 3
    good, bad = json.loads(done.stdout)["files"]
    assert good["content_id"] == qm.load(bell).content_id
    assert bad["error"]["path"] == str(missing)


def test_several_that_fail_alike_have_their_code_and_others_3(qmem: Qmem, damaged: Path) -> None:
    missing = damaged.with_name("missing.qms")
    assert qmem("verify", missing, missing).returncode == 6
    assert qmem("verify", damaged, missing).returncode == 3


def test_a_full_disk_under_the_output_is_8(qmem: Qmem, bell: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = qmem("info", bell, stdout=full, stderr=subprocess.PIPE, capture_output=False)
    assert done.returncode == 8
    assert "No space left" in done.stderr


@pytest.mark.parametrize("arguments", [["info"], ["verify"], ["info", "--json"]])
def test_a_closed_pipe_is_silent(program: Path, bell: Path, arguments: list[str]) -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([program, *arguments, bell], stdout=write, stderr=subprocess.PIPE, check=False, timeout=60)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, b"")


def test_an_interrupt_is_130_and_leaves_nothing(program: Path, tmp_path: Path) -> None:
    data = tmp_path / "long.csv"
    data.write_text("V,A,D\n" + "0.1,0.2,0.3\n" * 3000)
    folder = tmp_path / "demo"
    running = subprocess.Popen(
        [program, "demo", "--no-dense", "--data", data, "--limit", "3000", "--folder", folder],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509
    )
    deadline = time.monotonic() + 30
    while not (folder.exists() and len(list(folder.iterdir())) > 5) and time.monotonic() < deadline:
        time.sleep(0.02)
    running.send_signal(signal.SIGINT)
    _, said = running.communicate(timeout=30)
    assert (running.returncode, said) == (130, b"qmem: interrupted\n")
    assert sorted(tmp_path.iterdir()) == [data]


def test_the_unexpected_is_1_and_says_how_to_see_more(
    monkeypatch: pytest.MonkeyPatch, bell: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def broken(path: str, **_: object) -> dict[str, object]:
        raise ZeroDivisionError("broken\x1b[31m")

    monkeypatch.setattr(qm, "info", broken)
    assert main.run(["info", str(bell)]) == 1
    said = capfd.readouterr().err
    assert said.startswith("qmem: unexpected ZeroDivisionError: broken\\x1b[31m.")
    assert "QMEM_TRACEBACK=1" in said
    monkeypatch.setenv("QMEM_TRACEBACK", "1")
    assert main.run(["info", str(bell)]) == 1
    assert "Traceback" in capfd.readouterr().err


def test_a_name_that_is_not_utf_8(qmem: Qmem, bell: Path) -> None:
    odd = os.fsdecode(os.fsencode(bell.parent) + b"/\xff\x1b.qms")
    bell.rename(odd)
    done = qmem("info", odd)
    assert done.returncode == 0
    assert "\\udcff\\x1b.qms" in done.stdout
    assert json.loads(qmem("info", "--json", odd).stdout)["path"] == odd


def test_help_imports_neither_numpy_nor_rich() -> None:
    program = (
        "import sys; from quantum_memory.cli.main import run; code = run(['--help']);"
        "print(sorted({'numpy', 'rich', 'quantum_memory.cli.info'} & set(sys.modules))); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_help_of_each_verb_begins_with_its_line_in_the_list() -> None:
    listed = CliRunner().invoke(main.qmem, ["--help"]).output
    for verb in ("demo", "info", "verify", "compare"):
        summary = CliRunner().invoke(main.qmem, [verb, "--help"]).output.splitlines()[2].strip()
        assert f"{verb} {summary}" in " ".join(listed.split())


def test_version(qmem: Qmem) -> None:
    assert qmem("--version").stdout == f"qmem {qm.__version__}\n"
