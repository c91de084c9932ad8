from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

import quantum_memory as qm
from quantum_memory.cli import main

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def program() -> Path:
    """The installed command."""
    return Path(sys.executable).with_name("qmem")


@pytest.fixture
def qmem(tmp_path: Path, program: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the real command in an empty folder; whatever it does, it prints no traceback."""
    here = tmp_path / "here"
    here.mkdir()

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
