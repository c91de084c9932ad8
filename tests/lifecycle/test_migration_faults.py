"""Every call of a migration fails, or is the last one, in turn: each name has its old file or its new one."""

import errno
import itertools
import shutil

import pytest

import quantum_memory as qm
from quantum_memory.durability import atomic, files
from quantum_memory.durability.files import ReadableFile
from quantum_memory.errors import IntegrityError, QuantumMemoryError
from quantum_memory.formats import legacy
from quantum_memory.lifecycle.migration.journal import Journal, Stage, read_progress
from quantum_memory.testing.faults import FaultyFiles, KillingFiles, PassingFiles, ShortFiles, killed_at

from ..formats.legacy.fixtures import DATA
from .trees import WORKPLACE, grown, listing

UTILS = qm.MigrationUtilities()
STATE, BESIDE = "a/state.json", "a/state_quantum.npz"


@pytest.fixture
def batch(tmp_path):
    return Batch(tmp_path)


class KillingWrites(KillingFiles):
    """Ends the process at the k-th call that may change something: before any other, nothing has changed since."""

    def is_next(self, name):
        return name not in {"stat", "fstat", "read_into", "names", "try_lock"} and super().is_next(name)


class DyingOnceNamed(PassingFiles):
    """Fails at every call after the first new file got its name."""

    named = False

    def call(self, name, *arguments):
        if self.named and name != "close":
            raise OSError(errno.EIO, "the disk is gone")
        result = super().call(name, *arguments)
        self.named = name == "rename" and "/staged/" in arguments[0] and "/staged/" not in arguments[1]
        return result


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
        self._keep()

    def _keep(self):
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

    def apply(self):
        return UTILS.apply_migration_plan(self.plan)

    def roll_back(self):
        if UTILS.migration_status(self.tree):
            return UTILS.rollback_migration(self.tree, self.plan.id)
        return None

    def each_fault(self, work, fault):
        """Do `work` with a fault at its first call, its second, ... until it ends; yield after each."""
        for k in itertools.count():
            self.again()
            if fault == "kill":
                died = killed_at(k, lambda dying: work_with(dying, work), KillingWrites)
            else:
                faulty = FaultyFiles(k, getattr(errno, fault))
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


@pytest.mark.parametrize("fault", ["EIO", "ENOSPC", "kill"])
@pytest.mark.parametrize("then", ["apply", "roll back"])
def test_a_fault_at_any_call_of_apply(batch, fault, then):
    for _ in batch.each_fault(batch.apply, fault):
        batch.check_old_or_new()
        if then == "apply":
            batch.apply()
            batch.check_new()
        else:
            batch.roll_back()
            batch.check_taken_back()
    batch.check_new()


@pytest.mark.parametrize("fault", ["EIO", "kill"])
@pytest.mark.parametrize("then", ["apply", "roll back"])
def test_a_fault_at_any_call_of_rollback(batch, fault, then, tmp_path):
    batch.apply()
    shutil.rmtree(tmp_path / "fresh")
    shutil.copytree(batch.tree, tmp_path / "fresh", copy_function=shutil.copy2)
    for _ in batch.each_fault(batch.roll_back, fault):
        batch.check_old_or_new()
        if then == "apply":
            batch.apply()
            batch.check_new()
        batch.roll_back()
        batch.check_taken_back()
    batch.check_taken_back()


@pytest.mark.parametrize("fault", ["EIO", "kill"])
def test_a_fault_at_any_call_of_commit(batch, fault, tmp_path):
    batch.apply()
    shutil.rmtree(tmp_path / "fresh")
    shutil.copytree(batch.tree, tmp_path / "fresh", copy_function=shutil.copy2)

    def commit():
        UTILS.commit_migration(batch.tree, batch.plan.id)

    for _ in batch.each_fault(commit, fault):
        batch.check_new()
        commit()
        batch.check_new()
        (status,) = UTILS.migration_status(batch.tree)
        assert (status.committed, status.kept_bytes) == (True, 0)
        assert not (batch.tree / WORKPLACE / batch.plan.id / "originals").exists()


def test_short_reads_and_writes_are_gone_on_with(batch):
    with files.using(ShortFiles(1000)):
        batch.apply()
        batch.check_new()
        batch.roll_back()
    batch.check_taken_back()


def test_what_somebody_writes_after_a_kill_is_left_to_him(batch):
    with files.using(DyingOnceNamed()), pytest.raises(QuantumMemoryError):
        batch.apply()
    with pytest.raises(QuantumMemoryError, match="interrupted"):
        UTILS.commit_migration(batch.tree, batch.plan.id)
    now = listing(batch.tree)
    (path, *_) = [path for path in batch.memories if now[path] != batch.old[path]]
    (batch.tree / path).write_bytes(b"mine")
    done = UTILS.apply_migration_plan(batch.plan, continue_on_error=True)
    assert [one["message"] for one in done.failed] == ["somebody else has written it while it was migrated"]
    assert done.migrated + done.already == 2
    rolled = batch.roll_back()
    assert [one["path"] for one in rolled.left] == [str(batch.tree / path)]
    assert (batch.tree / path).read_bytes() == b"mine"


# ---- the journal


def test_the_end_of_a_journal_may_be_cut_short_and_nothing_else(batch):
    batch.apply()
    path = batch.tree / WORKPLACE / batch.plan.id / "journal.jsonl"
    text = path.read_bytes()
    lines = text.splitlines(keepends=True)
    for length in range(len(text) - len(lines[-1]) + 1, len(text) + 1):
        path.write_bytes(text[:length])
        progress = read_progress(str(path), batch.plan.count)
        whole = length == len(text)
        assert progress.stages.count(Stage.DONE) == (3 if whole else 2)
        assert progress.stages.count(Stage.REPLACING) == (0 if whole else 1)
    for at in range(0, len(text) - len(lines[-1]), 7):
        damaged = bytearray(text)
        damaged[at] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(IntegrityError):
            read_progress(str(path), batch.plan.count)


def test_a_journal_goes_on_after_a_line_that_was_cut_short(tmp_path):
    path = str(tmp_path / "journal.jsonl")
    with Journal(path, 3) as journal:
        journal.append([{"event": "done", "n": 0}, {"event": "failed", "n": 1, "error": "x"}])
    text = (tmp_path / "journal.jsonl").read_bytes()
    (tmp_path / "journal.jsonl").write_bytes(text + b'{"check":"12')
    with Journal(path, 3) as journal:
        assert list(journal.progress.stages) == [Stage.DONE, Stage.FAILED, Stage.PENDING]
        journal.append([{"event": "done", "n": 2}])
        assert journal.line(1)["error"] == "x"
    assert list(read_progress(path, 3).stages) == [Stage.DONE, Stage.FAILED, Stage.DONE]
