"""Repairs that are interrupted."""

import errno
import random

from quantum_memory.durability import files
from quantum_memory.errors import QuantumMemoryError
from quantum_memory.testing.faults import FaultyFiles, KillingFiles, PassingFiles, killed_at

from .folders import KEY, copied, flip, manager, pack_of, restorable, two_backups


class Unsynced(PassingFiles):
    """Does not sync, which only a power cut would show, and takes most of the time."""

    def fsync(self, fd):
        pass


def spoilt(folder):
    """Damage a bit of everything."""
    pack = pack_of(folder)
    flip(pack, 100)
    flip(pack, pack.stat().st_size - 20)
    for name in ("config.json", "refs.json"):
        flip(folder / name, 25)
    path = max((folder / "backups").iterdir())
    flip(path, path.stat().st_size - 3)
    other = min((folder / "chunks").glob("*.qmindex"), key=lambda one: one.stat().st_size)
    other.unlink()


def interrupted_everywhere(tmp_path, fault: str, *, step: int = 1) -> int:
    """Let every `step`-th call of a repair fail, or be the last one; look at what is left, and count the calls."""
    key = KEY if fault == "EIO" else None
    folder, _ = two_backups(tmp_path, random.Random(5), key)
    spoilt(folder)
    before = restorable(folder, key)
    copy = copied(folder, tmp_path / "copy")
    with manager(copy, key, durable=False) as backups:
        backups.repair()
    mended = restorable(copy, key)
    assert before < mended

    def repair(dying):
        with files.using(dying), manager(copy, key) as backups:
            backups.repair()

    k, failed = 0, True
    while failed:
        copied(folder, copy)
        if fault == "kill":
            failed = killed_at(k, repair, lambda k: KillingFiles(k, Unsynced()))
        else:
            faulty = FaultyFiles(k, errno.EIO, inner=Unsynced())
            try:
                repair(faulty)
            except QuantumMemoryError:
                assert faulty.failed
            failed = bool(faulty.failed)
        assert before <= restorable(copy, key), k
        with manager(copy, key, durable=False) as backups:
            backups.repair()
        assert restorable(copy, key) == mended, k
        k += step
    return k
