"""Every accident at every call of every operation that writes: nothing is lost or torn, held or left over.

EIO comes at every call of everything, and each write is the last one once. The other errors and the interrupts come at
every call of the saves that take a millisecond, and at some calls of what takes longer, at every third of them that the
disk is full: which ones differs from error to error. The soak takes all, and has more calls fail in pairs.
"""

import errno

import pytest

from quantum_memory.testing.accidents import ERRORS, attempted, fail_at_each, kill_at_each
from quantum_memory.testing.faults import RecordingFiles, ShortFiles
from quantum_memory.testing.operations import Unsynced

from .catalogue import CATALOGUE, SAVES
from .figures import TIMES, figure

FIRST = (errno.EIO, errno.ENOSPC)
OTHERS = tuple(error for error in ERRORS if error not in FIRST)
WHOLLY = [name for name in CATALOGUE if TIMES > 1 or (name in SAVES and ".h5" not in name)]
"""To which everything is done at every call."""
MOST = 200
"""Bytes of a read or write that is cut short."""


@pytest.fixture(params=CATALOGUE)
def name(request):
    return request.param


@pytest.fixture
def operation(name, tmp_path):
    return CATALOGUE[name](tmp_path)


def some(name, number, step):
    """Return the first of the calls that are taken, and how many there are to the next."""
    return {"first": 0, "step": 1} if name in WHOLLY else {"first": number * step // len(OTHERS), "step": step}


def test_every_call_fails(name, operation):
    with figure("fails") as made:
        for number, error in enumerate(FIRST):
            made.count += fail_at_each(operation, error, **({} if number == 0 else some(name, 1, 3)))
        for number, error in enumerate(OTHERS):
            made.count += fail_at_each(operation, error, **some(name, number, 30))


def test_every_call_fails_from_one_on(name, operation):
    """As on a disk that is gone, and comes again."""
    with figure("fails") as made:
        for number, error in enumerate(FIRST):
            made.count += fail_at_each(operation, error, sticky=True, **some(name, number, 15))


@pytest.mark.parametrize("name", WHOLLY)
def test_every_call_fails_and_soon_another_one(name, operation):
    """As while the first failure is being seen to."""
    with figure("fails") as made:
        for calls in range(3 * TIMES):
            made.count += fail_at_each(operation, errno.EIO, again_after=calls)


def test_a_kill_at_every_call_that_changes_something(operation):
    with figure("killed") as made:
        made.count = kill_at_each(operation)
    assert made.count > 5


def test_an_interrupt_at_every_call(name, operation):
    with figure("interrupted") as made:
        for number, what in enumerate((KeyboardInterrupt, MemoryError)):
            made.count += fail_at_each(operation, what, **some(name, number, 15))


def test_the_rules_of_durable_writing_are_kept_and_short_reads_and_writes_gone_on_with(operation):
    for files in (operation.system, ShortFiles(MOST, Unsynced(operation.system))):
        operation.again()
        assert attempted(operation, RecordingFiles(files))
        operation.check(done=True)
