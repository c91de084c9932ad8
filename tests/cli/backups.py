"""What the tests of ``qmem backup`` share: a folder, backups of it, and their damage."""

from __future__ import annotations

import json
import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest

    Run = Callable[..., tuple[int, str, str]]


def prepared(qmem_here: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Make "run", a folder to back up, and return what runs a verb beside it; the backups go to "backups"."""
    for name in ("QMEM_KEY_FILE", "QMEM_PASSPHRASE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("QMEM_BACKUPS", str(tmp_path / "backups"))
    (tmp_path / "run" / "sub").mkdir(parents=True)
    (tmp_path / "run" / "a.bin").write_bytes(os.urandom(100_000))
    (tmp_path / "run" / "sub" / "b.txt").write_text("b\n")
    (tmp_path / "run" / "sub" / "link").symlink_to("../a.bin")
    return partial(qmem_here, "backup")


def created(run: Run, *arguments: str) -> str:
    code, out, err = run("create", *(arguments or ("run",)), "--json")
    assert (code, err) == (0, "")
    return str(json.loads(out)["backups"][0]["id"])


def backed_up(run: Run) -> list[str]:
    """Make four backups of "run", of which the second is tagged, and one of "run/a.bin", and return their ids."""
    made = []
    for number in range(4):
        Path("run/sub/b.txt").write_text(f"{number}\n")
        made.append(created(run, "run", *["--tag", "good"] * (number == 1)))
    return [*made, created(run, "run/a.bin")]


def content(folder: str = "run") -> dict[str, Any]:
    return {
        str(path.relative_to(folder)): path.readlink() if path.is_symlink() else path.read_bytes()
        for path in Path(folder).rglob("*")
        if path.is_symlink() or path.is_file()
    }


def damage_of(path: Path, at: int | None = None) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2 if at is None else at] ^= 1
    path.write_bytes(data)


def damage(at: int | None = None) -> None:
    """Change a bit in the middle of the largest pack, which is a chunk of a.bin."""
    damage_of(max(Path("backups/chunks").glob("*.qmpack"), key=lambda path: path.stat().st_size), at)
