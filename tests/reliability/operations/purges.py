"""A memory is purged of a folder of checkpoints and one of backups."""

import numpy as np

import quantum_memory as qm
from quantum_memory.errors import StorageError
from quantum_memory.lifecycle.purging import purge
from quantum_memory.testing.invariants import check_store, contents

from .alike import Alike
from .backups import OfBackups
from .checkpoints import manager


def noise(seed, count=600):
    return np.ascontiguousarray(np.random.default_rng(seed).normal(size=count))


SECRET = qm.MemoryState(classical={"weights": noise(1), "shared": noise(9, 2000)}, metadata={"of": "somebody"})
HARMLESS = qm.MemoryState(classical={"weights": noise(2), "shared": noise(9, 2000)})
NEEDLE = noise(1).tobytes()[800:864]


class Purge(Alike):
    """What holds it alone goes, whatever tags say; a backup of a folder that it is in is replaced."""

    may_break = OfBackups.may_break

    def __init__(self, place):
        super().__init__(place)
        self.run, self.at, tree = self.folder / "run", self.folder / "backups", place / "tree"
        tree.mkdir()
        self.what = tree / "secret.qms"
        qm.save(SECRET, self.what, compression="none")
        qm.save(HARMLESS, tree / "harmless.qms", compression="none")
        with self.backups() as bm, manager(self.run) as cm:
            bm.create_backup(tree, tags=["good"])
            bm.pin(bm.create_backup(self.what))
            cm.tag(cm.create_checkpoint(SECRET), "paper")
            self.kept = cm.create_checkpoint(HARMLESS)
        self.old = contents(self.run)
        self.keep()

    def backups(self):
        return qm.BackupManager(self.at, compression=False)

    def act(self):
        with self.backups() as bm, manager(self.run) as cm:
            done = purge(self.what, backups=[bm], checkpoints=[cm])
        missed = [line for line in done.unreached if str(self.folder) in line]
        if missed:
            raise StorageError(missed[0], path=self.folder, next_step="purge it again")

    def do_again(self):
        self.act()
        with self.backups() as bm, manager(self.run) as cm, cm.folder.store.alone():
            bm.cleanup_orphaned_backups(grace=0)
            cm.folder.sweep()

    def check(self, *, done):
        kept = {self.kept: self.old[self.kept]}
        check_store(self.run, kept if done else self.old, removed=set(self.old) - set(kept))
        with self.backups() as bm:
            report = bm.verify()
            assert not report.damaged
            assert bm.resolve("good")
            if done:
                (one,) = bm.list_backups()
                assert (one["tags"], one["description"], one["files"]) == (["good"], "[without 1 purged]", 1)
                assert bm.folder.refs().pins == set()
        if done:
            assert not [one for one in self.folder.rglob("*") if one.is_file() and NEEDLE in one.read_bytes()]
