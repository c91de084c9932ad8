"""Write the golden folder of backups (``python tests/golden/backups/make.py``), once for each version.

A folder of an old version stays as it is for ever. What is written is the same each time, but for what zlib makes of
the second backup: the clock stands still, and what is random or of this machine elsewhere is counted. What is encrypted
is another each time.
"""

import contextlib
import dataclasses
import datetime
import hashlib
import itertools
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import quantum_memory as qm
from quantum_memory.lifecycle.backup_manager import BackupManager
from quantum_memory.lifecycle.backups import manifest as manifests

HERE = Path(__file__).parent
WHEN = datetime.datetime(2026, 1, 31, 12, 30, 15, 250000, datetime.UTC)
FIRST, SECOND = "20260131_123015_250000_000001", "20260131_123015_250000_000002"
SOURCE = "/golden/tree"
NANOSECONDS = 1_769_862_615_123_456_789
NOISE = b"".join(hashlib.sha256(bytes([number])).digest() for number in range(100))
TREES: tuple[dict[str, tuple[int, bytes | str | None]], ...] = (
    {
        "": (0o755, None),
        "empty": (0o644, b""),
        "in": (0o700, None),
        "in/noise.bin": (0o600, NOISE),
        "link": (0o777, "in/noise.bin"),
        "ü.txt": (0o640, b"again and again\n" * 300),
    },
    {
        "": (0o755, None),
        "copy.bin": (0o400, NOISE),
        "in": (0o700, None),
        "in/more.txt": (0o644, b"something else\n" * 300),
        "in/noise.bin": (0o600, NOISE),
    },
)
"""What is in each of two backups: of each path its mode, and the bytes, the target of the link, or None of a folder."""


def grow(top: Path, tree: dict[str, tuple[int, bytes | str | None]]) -> None:
    """Make a tree."""
    shutil.rmtree(top, ignore_errors=True)
    for path, (_, held) in tree.items():
        if held is None:
            (top / path).mkdir()
        elif isinstance(held, str):
            (top / path).symlink_to(held)
        else:
            (top / path).write_bytes(held)
    for path in reversed(tree):
        if not (top / path).is_symlink():
            (top / path).chmod(tree[path][0])
            os.utime(top / path, ns=(NANOSECONDS, NANOSECONDS + len(path)))


@contextlib.contextmanager
def still() -> Iterator[None]:
    """Have the clock stand still, names counted, and no release named, for a block."""
    # Ids, packs and the id of the folder are counted, and temporary names have numbers of their own.
    counters = {3: itertools.count(1), 16: itertools.count(1), 8: itertools.count()}
    lifecycle = "quantum_memory.lifecycle"
    with contextlib.ExitStack() as patched:
        patched.enter_context(mock.patch("secrets.token_hex", lambda n: f"{next(counters[n]):0{2 * n}x}"))
        for room in ("repository.folder", "backups.saving", "backups.config", "backups.checking", "backups.transfer"):
            patched.enter_context(mock.patch(f"{lifecycle}.{room}.now", return_value=WHEN))
        for room in ("saving", "transfer"):
            patched.enter_context(mock.patch(f"{lifecycle}.backups.{room}.__version__", "0"))
        yield


def write(path: Path, key: qm.Key | None = None) -> None:
    """Write the folder, and beside it the file of what is exported of it."""
    with tempfile.TemporaryDirectory() as place, still():
        top = Path(place) / "tree"
        for tree, compression in zip(TREES, ("none", "zlib"), strict=True):
            grow(top, tree)
            with BackupManager(path, compression=compression, key=key) as manager:
                _of_no_machine(manager, manager.create_backup(top, f"with {compression}"))
        with BackupManager(path, key=key) as manager:
            manager.tag(FIRST, "paper")
            manager.pin(SECOND)
            manager.verify()
            manager.export_backup(None, path.with_suffix(".qmb"))
            lines = manager.folder.log()
            (path / "log.jsonl").unlink()
            for line in lines:
                said = json.loads(json.dumps(line).replace(str(top), SOURCE).replace(str(path.parent), "/golden"))
                del said["when"]
                manager.folder.note(said.pop("action"), **said)


def _of_no_machine(manager: BackupManager, one: str) -> None:
    """Write a manifest anew as if the source had been elsewhere, and its files had had other numbers and times."""
    folder = manager.folder
    made = folder.manifest(one)
    entries = tuple(
        dataclasses.replace(entry, inode=number, changed_ns=NANOSECONDS) if entry.type == "file" else entry
        for number, entry in enumerate(made.entries)
    )
    # The mode of a link is that of every link, and its time that of now.
    entries = tuple(
        dataclasses.replace(entry, modified_ns=NANOSECONDS) if entry.type == "link" else entry for entry in entries
    )
    backup = dataclasses.replace(made.backup, source=SOURCE)
    new = dataclasses.replace(made, backup=backup, entries=entries)
    Path(folder.manifest_path(one)).write_bytes(manifests.written(new, folder.sealer))


if __name__ == "__main__":
    for name, opener in (("v1", None), ("v1-sealed", qm.Key.from_file(HERE / "key"))):
        if not (HERE / name).exists():
            write(HERE / name, opener)
