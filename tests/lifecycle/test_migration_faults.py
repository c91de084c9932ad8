"""Migrations that are interrupted while somebody else writes, and what of a journal may be torn."""

import errno
from itertools import takewhile
from pathlib import Path

import pytest

from quantum_memory.durability import files
from quantum_memory.errors import ConflictError, IntegrityError, QuantumMemoryError
from quantum_memory.lifecycle.migration import journal as journal_module
from quantum_memory.lifecycle.migration.journal import Journal, Stage, read_progress
from quantum_memory.testing.faults import PassingFiles
from quantum_memory.testing.operations import Unsynced
from quantum_memory.testing.power_cuts import CrashModel

from .batches import BESIDE, STATE, UTILS, Batch
from .trees import WORKPLACE, listing


@pytest.fixture
def batch(tmp_path):
    return Batch(tmp_path)


class DyingOnceNamed(PassingFiles):
    """Fails at every call after the first new file got its name."""

    named = False

    def call(self, name, *arguments):
        if self.named and name != "close":
            raise OSError(errno.EIO, "the disk is gone")
        result = super().call(name, *arguments)
        self.named = name == "rename" and "/staged/" in arguments[0] and "/staged/" not in arguments[1]
        return result


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


class ChangedBefore(PassingFiles):
    """Has somebody else write a file right before a call that is about it; `first` says how many of these go before."""

    def __init__(self, path, name, first=0):
        super().__init__()
        self._path, self._name, self._left = str(path), name, first

    def call(self, name, *arguments):
        if name == self._name and arguments[0] == self._path:
            self._left -= 1
            if self._left == -1:
                Path(self._path).write_bytes(Path(self._path).read_bytes() + b"\n")
        return super().call(name, *arguments)


@pytest.mark.parametrize("path", [STATE, BESIDE])
@pytest.mark.parametrize("dry_run", [False, True])
def test_what_somebody_writes_after_it_was_compared_with_the_plan_is_noticed(batch, path, dry_run):
    """It is read once to be compared, and once to be migrated: the others are."""
    changed = batch.tree / path
    with files.using(ChangedBefore(changed, "open", 1)):
        done = UTILS.apply_migration_plan(batch.plan, continue_on_error=True, dry_run=dry_run)
    assert [one["message"] for one in done.failed] == ["it was changed while it was read"]
    assert [one["path"] for one in done.failed] == [str(changed)]
    assert done.migrated == 2
    assert changed.read_bytes() == batch.old[path][0] + b"\n"
    assert (batch.tree / STATE).read_bytes().startswith(batch.old[STATE][0])


@pytest.mark.parametrize("path", [STATE, BESIDE])
def test_what_somebody_writes_before_the_new_file_gets_the_name_is_left_to_him(batch, path):
    changed = batch.tree / path
    with (
        files.using(ChangedBefore(changed, "link")),
        pytest.raises(ConflictError, match="changed while it was migrated") as raised,
    ):
        batch.apply()
    assert raised.value.path == str(changed)
    now = listing(batch.tree)
    assert now[path][0] == batch.old[path][0] + b"\n"
    assert now[STATE][0].startswith(batch.old[STATE][0])
    done = UTILS.apply_migration_plan(batch.plan, continue_on_error=True)
    assert [one["path"] for one in done.failed] == [str(changed)]
    assert done.migrated + done.already == 2
    batch.roll_back()
    assert listing(batch.tree) == {**batch.old, path: now[path]}


@pytest.mark.parametrize("path", [STATE, BESIDE])
@pytest.mark.parametrize("how", ["in place", "another file"])
def test_what_somebody_writes_while_originals_are_made_durable_is_left_to_him(batch, path, how):
    """They have their second names by then, and that takes as long as the disk does."""
    changed = batch.tree / path

    class ChangedAsSynced(PassingFiles):
        done = False

        def open(self, at, flags, mode=0o666):
            if at.endswith("/originals/a") and changed.samefile(f"{at}/{changed.name}") and not self.done:
                self.done = True
                if how == "another file":
                    changed.unlink()
                changed.write_bytes(b"mine")
            return super().open(at, flags, mode)

    with (
        files.using(ChangedAsSynced()),
        pytest.raises(ConflictError, match="changed while it was migrated") as raised,
    ):
        batch.apply()
    assert raised.value.path == str(changed)
    assert changed.read_bytes() == b"mine"
    done = UTILS.apply_migration_plan(batch.plan, continue_on_error=True)
    assert [one["path"] for one in done.failed] == [str(changed)]
    assert done.migrated + done.already == 2
    now = listing(batch.tree)
    batch.roll_back()
    assert listing(batch.tree) == {**batch.old, path: now[path]}
    assert now[path][0] == b"mine"


@pytest.mark.parametrize("path", [STATE, "qms/q_n3_lz4.qms"])
def test_what_somebody_writes_while_it_is_taken_back_is_left_to_him(batch, path):
    """Between the look at a new file and the name of the original the journal is written, and archives are named."""
    batch.apply()
    changed = batch.tree / path

    class ChangedAsNamed(PassingFiles):
        def link(self, source, target):
            changed.unlink()
            changed.write_bytes(b"mine")
            super().link(source, target)

    with files.using(ChangedAsNamed()):
        done = batch.roll_back()
    assert done.restored == 2
    assert done.left == [{"path": str(changed), "reason": "it was changed since the migration"}]
    now = listing(batch.tree)
    assert now[path][0] == b"mine"
    wanted = {**batch.old, path: now[path]}
    if path == STATE:
        del wanted[BESIDE]  # it stays with the original
    assert now == wanted
    (status,) = UTILS.migration_status(batch.tree)
    assert (status.changed, status.rolled_back, status.can_roll_back) == (1, 2, True)
    changed.unlink()
    assert batch.roll_back().restored == 1
    batch.check_taken_back()


def test_what_commit_removes_is_gone_after_a_power_cut_though_somebody_keeps_the_folders(batch):
    """A folder that can be removed takes its names with it; of one that cannot, they have to be synced."""
    batch.apply()
    place = batch.tree / WORKPLACE / batch.plan.id / "originals"
    mine = [folder / "mine" for folder in (place, *place.rglob("*")) if folder.is_dir()]
    for path in mine:
        path.write_bytes(b"mine")
    with files.using(model := CrashModel(batch.folder, Unsynced())):
        batch.commit()
        model.acknowledged = 1
    for _ in takewhile(bool, model.leave_each()):
        batch.check_new()
        batch.check_kept_no_more()
        assert [path.read_bytes() for path in mine] == [b"mine"] * 4


# ---- the journal


def test_the_end_of_a_journal_may_be_torn_and_nothing_else(batch):
    batch.apply()
    path = batch.tree / WORKPLACE / batch.plan.id / "journal.jsonl"
    text = path.read_bytes()
    last = text.splitlines(keepends=True)[-3:]  # which were appended together
    first = len(text) - sum(map(len, last))
    ends = [first + sum(map(len, last[:count])) for count in range(4)]

    def progress_of(content):
        path.write_bytes(content)
        return read_progress(str(path), batch.plan.count)

    for length in range(first, len(text) + 1):
        progress = progress_of(text[:length])
        done = sum(length >= end for end in ends[1:])
        assert progress.stages.count(Stage.DONE) == done
        assert progress.stages.count(Stage.REPLACING) == 3 - done
    for at in range(first, len(text), 7):
        whole = sum(at >= end for end in ends[1:])
        zeros = text[:at] + bytes(min(40, len(text) - at)) + text[at + 40 :]
        for torn in (zeros, text[:at] + bytes([text[at] ^ 1]) + text[at + 1 :]):
            assert progress_of(torn).stages.count(Stage.DONE) == whole
    for at in range(0, first, 7):
        with pytest.raises(IntegrityError):
            progress_of(text[:at] + bytes([text[at] ^ 1]) + text[at + 1 :])


def test_a_line_that_is_torn_far_from_the_end_of_a_journal_is_damage(tmp_path):
    """However much of it is read at once: of many files it is longer than that."""
    path, count = tmp_path / "journal.jsonl", 5000
    with Journal(str(path), count) as journal:
        for event in ("failed", "done"):
            journal.append({"event": event, "n": number} for number in range(count))
    text = path.read_bytes()
    assert len(text) > 2 * journal_module._PIECE
    ends = [at + 1 for at, byte in enumerate(text) if byte == ord("\n")]
    for line in (0, count // 2, count - 1):
        path.write_bytes(text[: ends[line] - 10] + b"\0" + text[ends[line] - 9 :])
        with pytest.raises(IntegrityError, match="it is damaged at byte"):
            read_progress(str(path), count)
        with pytest.raises(IntegrityError, match="it is damaged at byte"), Journal(str(path), count):
            pass
    for line in (count, 3 * count // 2):  # of those that were appended last
        path.write_bytes(text[: ends[line] - 10] + b"\0" + text[ends[line] - 9 :])
        done = read_progress(str(path), count).stages
        assert (done.count(Stage.DONE), done.count(Stage.FAILED)) == (line - count, 2 * count - line)


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
