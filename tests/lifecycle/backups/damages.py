"""Backups of random trees of which random chunks are damaged: what a check finds, and what is left."""

import os
import random

from quantum_memory.errors import QuantumMemoryError
from quantum_memory.lifecycle.backups.manifest import FILE

from .folders import KEY, manager


def damaged_trees(at, trials: int, first: int = 0) -> int:
    """Damage some chunks of some backups, `trials` times over; return how many files were damaged in all."""
    found = 0
    for trial in range(first, first + trials):
        found += _trial(at / str(trial), random.Random(trial), KEY if trial % 4 == 3 else None)
    return found


def _trial(at, rng: random.Random, key) -> int:
    source, saved = at / "source", {}
    source.mkdir(parents=True)
    with manager(at / "backups", key, durable=False, max_backups=None) as backups:
        for _ in range(rng.randrange(1, 4)):
            _change(source, rng)
            one = backups.create_backup(source, reread=True)
            saved[one] = {path.name: path.read_bytes() for path in source.iterdir()}
        with backups.folder.store.shared():
            spoilt = _spoil(backups, rng)
        suffers = {
            one: sorted(
                entry.path
                for entry in backups.folder.manifest(one).entries
                if entry.type == FILE and spoilt.intersection(entry.chunk_names())
            )
            for one in saved
        }
    with manager(at / "backups", key, durable=False) as backups:  # which knows nothing of all this
        report = backups.verify()
        assert {one: report.files.get(one, []) for one in saved} == suffers
        assert report.damaged == [one for one in report.backups if suffers[one]]
        assert sorted(backups.checker.verified()) == sorted(one for one in saved if not suffers[one])
        assert backups.checker.remembered().bad == spoilt
        for one, files in saved.items():
            target = at / one
            try:
                done = backups.restore_backup(one, target)
                assert not suffers[one]
            except QuantumMemoryError:
                assert suffers[one]
                assert not target.exists()
                done = backups.restore_backup(one, target, salvage=True)
            assert sorted(path for path, _ in done.left_out) == suffers[one]
            left = {name: data for name, data in files.items() if name not in suffers[one]}
            assert {path.name: path.read_bytes() for path in target.iterdir()} == left
    return sum(map(len, suffers.values()))


def _change(source, rng: random.Random) -> None:
    for name in rng.sample(["a", "b", "c", "d", "e"], rng.randrange(1, 5)):
        some = rng.randbytes(rng.randrange(1, 200))
        (source / name).write_bytes(some * rng.choice([1, 1, 1, 20]))
    if rng.random() < 0.05:
        (source / "long").write_bytes(rng.randbytes(1000) * 1100)


def _spoil(backups, rng: random.Random) -> set[bytes]:
    """Damage some chunks on the disk, and return their names."""
    store = backups.folder.store
    names = sorted(store.known)
    spoilt = set(rng.sample(names, min(len(names), rng.choice([0, 1, 1, 2, 3]))))
    for name in spoilt:
        pack, place = store.place(name)
        with open(store.pack_paths(pack)[0], "r+b", buffering=0) as file:  # noqa: PTH123
            at = place.offset + rng.randrange(place.stored)
            byte = os.pread(file.fileno(), 1, at)[0]
            os.pwrite(file.fileno(), bytes([byte ^ (1 << rng.randrange(8))]), at)
    return spoilt
