"""A small batch to be migrated, again and again, with what may go wrong on the way."""

import shutil

import quantum_memory as qm
from quantum_memory.durability.files import ReadableFile
from quantum_memory.formats import legacy
from quantum_memory.testing.operations import CopiedFolder

from ..formats.legacy.fixtures import DATA
from .trees import WORKPLACE, grown, listing

UTILS = qm.MigrationUtilities()
STATE, BESIDE = "a/state.json", "a/state_quantum.npz"


class Batch(CopiedFolder):
    """Three files in two folders, one of them with an archive, that can be had again and again as they were."""

    def __init__(self, place):
        super().__init__(place)
        self.tree = self.folder / "tree"
        grown(self.tree, DATA, "npz_simple/simple_n3.npz", "qms/q_n3_lz4.qms")
        (self.tree / "a").mkdir()
        shutil.copyfile(DATA / "json_v1/v1_minimal.json", self.tree / STATE)
        shutil.copyfile(DATA / "json_v1/v1_n3_mps_quantum.npz", self.tree / BESIDE)
        (self.tree / STATE).chmod(0o640)
        self.old = listing(self.tree)
        self.plan = UTILS.generate_migration_plan(self.tree)
        self.memories = {}
        for _, entry in self.plan.entries():
            with ReadableFile(str(self.tree / entry.path)) as source:
                self.memories[entry.path] = legacy.read(source).memory
        assert len(self.memories) == 3
        self.keep()

    def check_old_or_new(self):
        now = listing(self.tree)
        for path, memory in self.memories.items():
            assert path in now, f"{path} is without a file"
            if now[path] != self.old[path]:
                new = qm.load(self.tree / path)
                assert new == memory
                assert now[path][1] == self.old[path][1]
            elif path == STATE:
                assert now[BESIDE] == self.old[BESIDE]
        extra = set(now) - set(self.old)
        assert not extra, extra

    def check_new(self):
        self.check_old_or_new()
        now = listing(self.tree)
        assert set(now) == set(self.old) - {BESIDE}
        assert all(now[path] != self.old[path] for path in now)

    def check_old(self):
        assert listing(self.tree) == self.old

    def check_taken_back(self):
        self.check_old()
        place = self.tree / WORKPLACE / self.plan.id
        if (place / "journal.jsonl").exists():  # otherwise nothing was begun
            assert {one.name for one in place.iterdir()} == {"plan.json", "journal.jsonl"}

    def check_kept_no_more(self):
        (status,) = UTILS.migration_status(self.tree)
        assert (status.committed, status.kept_bytes) == (True, 0)
        originals = self.tree / WORKPLACE / self.plan.id / "originals"
        kept = [path for path in self.old if (originals / path).exists()]
        assert not kept, f"said to be freed, and is still there: {kept}"

    def check_committed(self):
        self.check_new()
        self.check_kept_no_more()
        assert not (self.tree / WORKPLACE / self.plan.id / "originals").exists()

    def apply(self):
        return UTILS.apply_migration_plan(self.plan)

    def roll_back(self):
        if UTILS.migration_status(self.tree):
            return UTILS.rollback_migration(self.tree, self.plan.id)
        return None

    def commit(self):
        return UTILS.commit_migration(self.tree, self.plan.id)
