"""Folders that are backed up, folders of backups, and what can be had of these."""

import os
import shutil
from pathlib import Path

import quantum_memory as qm
from quantum_memory.errors import QuantumMemoryError
from quantum_memory.lifecycle.backup_manager import BackupManager
from quantum_memory.lifecycle.backups.manifest import FILE
from quantum_memory.lifecycle.backups.restoring import Restorer

KEY = qm.Key(bytes(range(32)), "hkdf-sha256")


def grown(at: Path, rng, *, files: int = 6) -> Path:
    """Make a folder: files of some and of no bytes, one that can be packed, one of several chunks, folders, a link."""
    (at / "sub" / "empty").mkdir(parents=True)
    for number in range(files):
        (at / f"file-{number}").write_bytes(rng.randbytes(rng.randrange(1, 3000)))
    (at / "sub" / "text").write_text("a line that is there often\n" * rng.randrange(50, 100))
    (at / "sub" / "nothing").write_bytes(b"")
    (at / "sub" / "several").write_bytes(rng.randbytes(100) * (1 << 14))
    (at / "link").symlink_to("file-0")
    for number, one in enumerate(sorted(at.rglob("*"))):
        if not one.is_symlink():
            one.chmod((0o700, 0o755)[number % 2] if one.is_dir() else (0o644, 0o600, 0o440)[number % 3])
            os.utime(one, ns=(10**18, 10**18 + 1_000_000_007 * number))
    return at


def manager(at: Path, key=None, **how) -> BackupManager:
    return BackupManager(at, key=key, **how)


def two_backups(at: Path, rng, key=None, **how) -> tuple[Path, Path]:
    """Return a folder of two backups of a folder, the second of which has a tag, and that folder."""
    source = grown(at / "source", rng)
    with manager(at / "backups", key, durable=False, **how) as backups:
        backups.create_backup(source)
        (source / "file-1").write_bytes(rng.randbytes(2000))
        (source / "sub" / "text").unlink()
        backups.create_backup(source, tags=["Good"])
    (at / "backups" / "not-durable").unlink()
    return at / "backups", source


def restorable(at: Path, key=None) -> set[tuple[str, str, bytes]]:
    """Return all files that can be had of a folder of backups: the backup, the path, and the bytes."""
    found = set()
    with manager(at, key) as backups:
        try:
            ids = backups.folder.ids()
            with backups.folder.store.shared():
                for one in ids:
                    found |= _files_of(backups, one)
        except QuantumMemoryError:
            pass
    return found


def _files_of(backups: BackupManager, one: str) -> set[tuple[str, str, bytes]]:
    found = set()
    try:
        made = backups.folder.manifest(one)
    except QuantumMemoryError:
        return found
    for entry in made.entries:
        if entry.type == FILE:
            try:
                raw = b"".join(Restorer(backups.folder, made).chunks(entry))
            except QuantumMemoryError:
                continue
            found.add((one, entry.path, raw))
    return found


def copied(at: Path, to: Path) -> Path:
    """Replace a folder by a copy of another."""
    shutil.rmtree(to, ignore_errors=True)
    shutil.copytree(at, to, symlinks=True)
    return to


def contents(at: Path) -> dict[str, bytes]:
    """Return the bytes of all files in a folder, by path."""
    return {str(one.relative_to(at)): one.read_bytes() for one in at.rglob("*") if one.is_file()}


def pack_of(at: Path) -> Path:
    """Return the largest pack of a folder of backups."""
    return max((at / "chunks").glob("*.qmpack"), key=lambda one: one.stat().st_size)


def flip(path: Path, at: int, bit: int = 0) -> None:
    """Damage a file."""
    data = bytearray(path.read_bytes())
    data[at] ^= 1 << bit
    path.write_bytes(data)


def damage(path: Path, rng) -> str:
    """Damage a file in one of the ways in which that happens, and return what was done."""
    data = bytearray(path.read_bytes())
    what = rng.choice(["flip", "flip", "flips", "cut", "zeros", "longer", "other", "gone"])
    if what == "gone" or not data:
        path.unlink()
        return f"{path.name}: gone"
    at = rng.randrange(len(data))
    if what == "flip":
        data[at] ^= 1 << rng.randrange(8)
    elif what == "flips":
        for one in rng.sample(range(len(data)), min(len(data), 5)):
            data[one] ^= 1 << rng.randrange(8)
    elif what == "cut":
        del data[at:]
    elif what == "zeros":
        length = min(len(data) - at, 512)
        data[at : at + length] = bytes(length)
    elif what == "longer":
        data += rng.randbytes(rng.randrange(1, 200))
    else:
        data = bytearray(rng.randbytes(rng.randrange(300)))
    path.write_bytes(data)
    return f"{path.name}: {what} at {at}"
