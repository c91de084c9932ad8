"""Folders of legacy files, and what is in a folder."""

import os
import shutil
from pathlib import Path

WORKPLACE = ".qmem-migration"


def grown(tree: Path, data: Path, *paths: str) -> Path:
    """Copy fixtures, with what belongs to them, and give each a mode and a time of its own."""
    for path in paths or sorted(str(one.relative_to(data)) for one in data.rglob("*") if one.is_file()):
        for name in (path, path.replace(".json", "_quantum.npz")):
            if (data / name).exists():
                (tree / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(data / name, tree / name)
    for number, one in enumerate(sorted(one for one in tree.rglob("*") if one.is_file())):
        one.chmod((0o644, 0o600, 0o640, 0o755)[number % 4])
        os.utime(one, ns=(10**18, 10**18 + 1_000_000_007 * number))
    return tree


def listing(tree: Path, *, folders: bool = False) -> dict[str, tuple[bytes | None, int, int]]:
    """Return bytes, mode and time of everything in a folder but the workplace of a migration; folders have no bytes."""
    found = {}
    for one in sorted(tree.rglob("*")):
        path = str(one.relative_to(tree))
        if path.startswith(WORKPLACE) or (one.is_dir() and not folders):
            continue
        facts = one.lstat()
        found[path] = (one.read_bytes() if one.is_file() else None, facts.st_mode, facts.st_mtime_ns)
    return found
