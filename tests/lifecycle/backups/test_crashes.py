"""Whatever fails or dies, and wherever: what was acknowledged restores, and what was there before is untouched."""

import contextlib
import errno
import os

import pytest

from quantum_memory.durability import files
from quantum_memory.errors import QuantumMemoryError
from quantum_memory.testing.faults import RecordingFiles, ShortFiles

from ...loop_disk import EXT4, EXT4_LEAST, LoopDisk, can_cut_power
from ..power_cuts import Unsynced
from .crashes import cut_at_random, kill_at_random
from .works import WORKS, WithoutExchange, Work, cut_at_each, fail_from_then_on, fail_once, kill_at_each, quietly, seen

STEP = 5
"""In CI one of so many calls; the soak takes all. Which ones differs from work to work."""


def first(name):
    return WORKS.index(name) % STEP


@pytest.mark.parametrize("name", WORKS)
def test_a_call_fails_once(tmp_path, name):
    count, codes = fail_once(tmp_path, name, first(name), STEP)
    assert count > 20
    assert codes
    assert codes <= {4, 6, 7, 8}


@pytest.mark.parametrize("name", WORKS)
def test_everything_fails_from_a_call_on(tmp_path, name):
    assert fail_from_then_on(tmp_path, name, first(name), 2 * STEP) > 20


@pytest.mark.parametrize("name", WORKS)
def test_a_kill_at_a_call_that_changes_something(tmp_path, name):
    assert kill_at_each(tmp_path, name, first(name), STEP) > 3


@pytest.mark.parametrize("name", WORKS)
def test_a_power_cut_on_the_model_of_a_disk(tmp_path, name):
    assert cut_at_each(tmp_path, name, first(name), STEP) > 3


@pytest.mark.parametrize("name", WORKS)
def test_no_rule_of_durable_writing_is_broken(tmp_path, name):
    work = Work(tmp_path, name)
    recording = RecordingFiles(WithoutExchange() if name == "tree without exchange" else None)
    quietly(work, recording)
    # The log is for people, and is not synced; locks are closed with what was written to them, which is.
    assert [line for line in recording.violations() if "log.jsonl" not in line] == []
    work.look(done=name != "prune")


@pytest.mark.parametrize("name", ["create", "tree over another", "file over another"])
def test_short_reads_and_writes_are_gone_on_with(tmp_path, name):
    work = Work(tmp_path, name)
    with files.using(ShortFiles(100, Unsynced())):
        work.do()
    work.look(done=True)


def test_an_exchange_that_says_that_it_failed_and_did_not(tmp_path):
    """As an answer that is lost on the way from a server: the old folder is not taken for the new one."""

    class Lying(Unsynced):
        def exchange(self, one, other):
            super().exchange(one, other)
            raise OSError(errno.EIO, "lost")

    work = Work(tmp_path, "tree over another")
    with files.using(Lying()), pytest.raises(QuantumMemoryError):
        work.do()
    work.look(done=False)
    assert work.leftovers() == []


@pytest.mark.parametrize("failing", [1, 2, 3])
def test_the_old_folder_comes_back_where_there_is_no_exchange(tmp_path, failing):
    class Failing(Unsynced):
        renames = 0

        def exchange(self, one, other):
            raise OSError(errno.ENOSYS, "not here")

        def rename(self, source, target):
            self.renames += source.endswith("out") or target.endswith("out")
            if self.renames == failing and not source.endswith(".qmbk"):
                self.renames += 1
                raise OSError(errno.EIO, "no")
            super().rename(source, target)

    work = Work(tmp_path, "tree without exchange")
    with files.using(Failing()), contextlib.suppress(QuantumMemoryError):
        work.do()
    assert seen(work.out) in (work.there, work.versions[work.ids[0]])
    work.look(done=False)


def test_kills_at_random_instants(tmp_path):
    assert kill_at_random(tmp_path, 20) > 0


def test_these_tests_are_not_left_out_unseen():
    assert can_cut_power() or not os.environ.get("QMS_REQUIRE_POWERCUT")


@pytest.mark.skipif(not can_cut_power(), reason="needs root, a loop device and mkfs.ext4")
@pytest.mark.parametrize("kind", [EXT4, EXT4_LEAST], ids=" ".join)
def test_real_power_cuts(tmp_path, kind):
    with LoopDisk(tmp_path, *kind) as disk:
        assert cut_at_random(disk, kind, 5) > 0
