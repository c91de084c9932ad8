"""A small batch to be migrated, again and again, with what may go wrong on the way."""

import errno
import itertools
import shutil

import quantum_memory as qm
from quantum_memory.durability import atomic, files
from quantum_memory.durability.files import ReadableFile
from quantum_memory.errors import QuantumMemoryError
from quantum_memory.formats import legacy
from quantum_memory.testing.faults import FaultyFiles, KillingFiles, killed_at

from ..formats.legacy.fixtures import DATA
from .trees import WORKPLACE, grown, listing

UTILS = qm.MigrationUtilities()
STATE, BESIDE = "a/state.json", "a/state_quantum.npz"


UNCHANGING = {"stat", "fstat", "read_into", "names", "try_lock", "close", "start_writeback"}
"""Calls that change nothing: an accident at one of them leaves what one at the next leaves."""


class AtChanges:
    """Counts the calls that may change something."""

    def is_next(self, name):
        return name not in UNCHANGING and super().is_next(name)


class KillingWrites(AtChanges, KillingFiles):
    """Ends the process at the k-th call that may change something."""


class FullDisk(AtChanges, FaultyFiles):
    """Has no space at the k-th call that may change something: others cannot fail for that."""

    def __init__(self, k, inner=None):
        super().__init__(k, errno.ENOSPC, inner=inner)


class Batch:
    """Three files in two folders, one of them with an archive, that can be had again and again as they were."""

    def __init__(self, place):
        atomic._swept.clear()
        self.tree, self._fresh = place / "tree", place / "fresh"
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

    def keep(self):
        """Let the folder as it is now be what is brought back."""
        if self._fresh.exists():
            shutil.rmtree(self._fresh)
        shutil.copytree(self.tree, self._fresh, copy_function=shutil.copy2)

    def again(self):
        """Bring the folder back to where it was kept."""
        shutil.rmtree(self.tree)
        atomic._swept.clear()
        shutil.copytree(self._fresh, self.tree, copy_function=shutil.copy2)

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

    def check_taken_back(self):
        assert listing(self.tree) == self.old
        place = self.tree / WORKPLACE / self.plan.id
        if (place / "journal.jsonl").exists():  # otherwise nothing was begun
            assert {one.name for one in place.iterdir()} == {"plan.json", "journal.jsonl"}

    def check_committed(self):
        self.check_new()
        (status,) = UTILS.migration_status(self.tree)
        assert (status.committed, status.kept_bytes) == (True, 0)
        assert not (self.tree / WORKPLACE / self.plan.id / "originals").exists()

    def apply(self):
        return UTILS.apply_migration_plan(self.plan)

    def roll_back(self):
        if UTILS.migration_status(self.tree):
            return UTILS.rollback_migration(self.tree, self.plan.id)
        return None

    def commit(self):
        return UTILS.commit_migration(self.tree, self.plan.id)

    def each_fault(self, work, fault):
        """Do `work` with a fault at its first call, its second, ... until it ends; yield after each."""
        for k in itertools.count():
            self.again()
            if fault == "kill":
                died = killed_at(k, lambda dying: work_with(dying, work), KillingWrites)
            else:
                faulty = FullDisk(k) if fault == "ENOSPC" else FaultyFiles(k, errno.EIO)
                try:
                    work_with(faulty, work)
                except QuantumMemoryError as error:
                    # What cannot be read may be called damaged.
                    assert error.exit_code in {6, 7, 8} or faulty.failed == ["read_into"], error  # noqa: PT017
                died = bool(faulty.failed)
            if not died:
                break
            yield k
        assert k > 20


def work_with(system, work):
    with files.using(system):
        work()
