from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import quantum_memory as qm
from quantum_memory.cli import main
from quantum_memory.testing.faults import in_child


@pytest.fixture
def program() -> Path:
    """The installed command."""
    return Path(sys.executable).with_name("qmem")


Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """An empty folder."""
    folder = tmp_path / "here"
    folder.mkdir()
    return folder


@pytest.fixture
def qmem(here: Path) -> Run:
    """Run the command in an empty folder, in a process of its own; whatever it does, it prints no traceback.

    The process is a fork of this one, which saves it the imports.
    """

    def run(*arguments: str | Path, **options: object) -> subprocess.CompletedProcess[str]:
        done = forked([*map(os.fspath, arguments)], **{"cwd": here, "columns": 120} | options)  # type: ignore[arg-type]
        assert "Traceback" not in done.stdout + done.stderr
        return done

    return run


@pytest.fixture
def real_qmem(here: Path, program: Path) -> Run:
    """Run the installed command, as `qmem` does."""

    def run(*arguments: str | Path, **options: object) -> subprocess.CompletedProcess[str]:
        settings = {
            "cwd": here,
            "capture_output": True,
            "text": True,
            "timeout": 60,
            "env": {**os.environ, "COLUMNS": "120"},
        } | options
        done = subprocess.run([program, *map(os.fspath, arguments)], check=False, **settings)  # type: ignore[call-overload]
        assert "Traceback" not in (done.stdout or "") + (done.stderr or "")
        return done

    return run


def as_in_a_new_interpreter() -> None:
    """Show warnings, instead of raising or collecting them."""
    warnings.resetwarnings()
    for category in (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning):
        warnings.simplefilter("ignore", category)
    warnings.showwarning = lambda *said: sys.stderr.write(warnings.formatwarning(*said[:4]))


def forked(
    arguments: list[str],
    *,
    cwd: Path,
    columns: int,
    input: str = "",  # noqa: A002 - as in subprocess
    timeout: int = 60,
) -> subprocess.CompletedProcess[str]:
    """Run the command in a fork of this process, which gets `input` and may take so many seconds."""
    streams = [tempfile.TemporaryFile("w+", encoding="utf-8") for _ in range(3)]  # noqa: SIM115 - closed below
    with contextlib.ExitStack() as stack:
        for one in streams:
            stack.enter_context(one)
        streams[0].write(input)
        streams[0].seek(0)

        def work() -> None:
            signal.alarm(timeout)
            os.chdir(cwd)
            os.environ["COLUMNS"] = str(columns)
            for fd, stream in enumerate(streams):
                os.dup2(stream.fileno(), fd)
            sys.stdin, sys.stdout, sys.stderr = (
                open(fd, mode, encoding="utf-8", closefd=False)  # noqa: SIM115 - as long as the process
                for fd, mode in enumerate(("r", "w", "w"))
            )
            as_in_a_new_interpreter()
            code = 1
            try:
                code = main.run(arguments)
            except BaseException:
                traceback.print_exc()
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

        code = in_child(work)
        for one in streams[1:]:
            one.seek(0)
        return subprocess.CompletedProcess(arguments, code, streams[1].read(), streams[2].read())


@pytest.fixture
def qmem_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Run the command in this process, in an empty folder, and return its code and what it printed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")

    def call(*arguments: str | Path) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main.run([*map(os.fspath, arguments)])
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return code, out, err

    return call


@pytest.fixture
def bell(tmp_path: Path) -> Path:
    """A Bell state with emotion and metadata, saved."""
    path = tmp_path / "bell.qms"
    amplitudes = np.array([1, 0, 0, 1], np.complex128) / np.sqrt(2)
    state = qm.StateVector(amplitudes, qubit_order="big")
    emotion = {"pad": [0.1, -0.2, 0.3], "trajectory": [[0.0, 0.0, 0.0], [0.1, -0.2, 0.3]], "stability": 0.75}
    qm.save(qm.MemoryState(state, emotion=emotion, metadata={"run": "a\x1b[31mb"}), path, compression="none")
    return path


@pytest.fixture
def damaged(bell: Path, tmp_path: Path) -> Path:
    """The same with one bit flipped among its amplitudes."""
    path = tmp_path / "damaged.qms"
    data = bytearray(bell.read_bytes())
    data[data.index(qm.load(bell).quantum.amplitudes.tobytes())] ^= 1
    path.write_bytes(data)
    return path
