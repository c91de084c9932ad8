"""The power is cut under changes in place, which can leave more than anything else: each leaves old or new."""

import os
from itertools import takewhile

import pytest

from quantum_memory.durability import atomic, files
from quantum_memory.durability.redo_log import find_log
from quantum_memory.testing.faults import PassingFiles
from quantum_memory.testing.operations import Unsynced
from quantum_memory.testing.power_cuts import CrashModel

from ..durability.conftest import leftovers
from ..durability.transactions import (
    HEAD,
    NEWS,
    OLD,
    SHORTER,
    append_group,
    appended_log,
    change,
    commit,
    content,
    groups,
    opened,
    plain,
    random_bytes,
    with_length,
)
from .figures import TIMES, figure


@pytest.fixture
def disk(tmp_path):
    (tmp_path / "disk").mkdir()
    return tmp_path / "disk"


@pytest.mark.parametrize("what", ["short", "equal", "shorter"])
def test_a_power_cut_in_three_transactions_loses_nothing_that_was_acknowledged(disk, what):
    path = disk / "file"
    versions = [OLD, NEWS[what], with_length(OLD[HEAD:] + b"x" * 700), with_length(NEWS["short"][HEAD:20_000] + b"y")]
    plain(path, OLD)
    with figure("crash states") as made:
        with files.using(model := CrashModel(disk, Unsynced())), opened(path) as file:
            for number, version in enumerate(versions[1:], 1):
                change(file, version)
                model.acknowledged = number
        for acknowledged in model.leave_each(1700 * TIMES):
            made.count += 1
            if made.count % 50 == 0:  # and another one while the first is being recovered from
                assert cut_in_recovery(path, lambda found, least=acknowledged: versions.index(found) >= least)
            assert acknowledged <= versions.index(content(path)) <= acknowledged + 1
    assert made.count > 2000


def recover(path):
    with opened(path) as file:
        assert file.size


def cut_in_recovery(path, is_right, most=50):
    """Cut the power while a file is recovered, and return how many states that leaves, in all of which it is right."""
    count = 0
    with files.using(model := CrashModel(path.parent, Unsynced())):
        recover(path)
    for _ in model.leave_each(most):
        count += 1
        assert is_right(content(path))
    return count


def test_a_power_cut_while_a_committed_transaction_is_finished_does_no_harm(disk):
    path, new = disk / "file", NEWS["short"]
    path.write_bytes(appended_log(path, new))
    with figure("crash states") as made:
        made.count = cut_in_recovery(path, lambda found: found == new, 1000)
    assert made.count > 30  # five sectors are changed: there are no more


def test_a_power_cut_while_what_a_killed_process_had_not_synced_is_finished_does_no_harm(disk):
    path, new = disk / "file", NEWS["short"]
    plain(path, OLD)
    found = set()
    with figure("crash states") as made:
        with files.using(model := CrashModel(disk, Unsynced())):
            file = opened(path, durable=False)
            file.write_at(new, 0)
            file._bytes.prepare()
            model.close(file._fd)  # as a kill between the log and its fsync
            file._fd = -1
            recover(path)
        model.acknowledged = 1
        for acknowledged in model.leave_each(200 * TIMES):
            made.count += 1
            found.add(content(path))
            assert not acknowledged or content(path) == new
    assert found == {OLD, new}
    assert made.count > 500


class InterruptedOnceDurable(PassingFiles):
    """Interrupts a commit when the log is on the disk, and nobody knows that yet."""

    done = False

    def fsync(self, fd):
        super().fsync(fd)
        if not self.done and find_log(self, fd, os.fstat(fd).st_size) is not None:
            self.done = True
            raise KeyboardInterrupt


def test_a_power_cut_after_a_commit_that_was_interrupted_finds_nothing_of_it_under_what_came_later(disk):
    """Its log, which was cut off, would take what was appended since for what it was written for."""
    path, after = disk / "file", random_bytes(3, 900_000)
    plain(path, OLD)
    with figure("crash states") as made:
        with files.using(model := CrashModel(disk, Unsynced())):
            with files.using(InterruptedOnceDurable(model)), pytest.raises(KeyboardInterrupt), opened(path) as file:
                change(file, NEWS["long"])
            assert content(path) == OLD
            model.acknowledged = 1
            with opened(path) as file:  # as a notebook that goes on
                file.write_at(after, len(OLD))
                commit(file)
        versions = {OLD, with_length(OLD[HEAD:] + after)}
        for _ in takewhile(bool, model.leave_each(40 * TIMES)):
            made.count += 1
            assert content(path) in versions
    assert made.count > 50


@pytest.mark.parametrize("way", ["create", "replace"])
def test_a_power_cut_leaves_a_new_file_wholly_or_not_at_all(disk, way):
    path = disk / "file"
    if way == "replace":
        plain(path, OLD)
    versions = [OLD if way == "replace" else None, NEWS["short"], SHORTER]
    with figure("crash states") as made:
        with files.using(model := CrashModel(disk, Unsynced())), opened(path, **{way: True}) as file:
            for number, version in enumerate(versions[1:], 1):
                change(file, version)
                model.acknowledged = number
        for acknowledged in model.leave_each(800 * TIMES):
            made.count += 1
            found = versions.index(content(path) if path.exists() else None)
            assert acknowledged <= found <= acknowledged + 1
            atomic.remove_leftovers(disk)
            assert leftovers(disk) == []
    assert made.count > 1000


@pytest.mark.parametrize("first", range(0, 30, 10))
def test_an_hdf5_store_survives_a_power_cut_in_any_of_thirty_transactions(disk, first):
    path = disk / "store.h5"
    for number in range(first):
        append_group(path, number)
    with figure("crash states") as made:
        with files.using(model := CrashModel(disk, Unsynced())):
            model.acknowledged = first
            for number in range(first, first + 10):
                append_group(path, number)
                model.acknowledged = number + 1
        for acknowledged in model.leave_each(TIMES):
            made.count += 1
            assert acknowledged <= groups(path) <= acknowledged + 1
    assert made.count > 100
