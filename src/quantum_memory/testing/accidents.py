"""Every accident at every call of an operation: it fails, once or for good, it interrupts, or it is the last one.

>>> operation = Saves(tmp_path)  # doctest: +SKIP
>>> for error in ERRORS:  # doctest: +SKIP
...     fail_at_each(operation, error)
>>> kill_at_each(operation)  # doctest: +SKIP
>>> cut_at_each(operation)  # doctest: +SKIP

What is looked at after each accident, beside what the operation looks at itself (I1 to I4: what was acknowledged is
there and whole, what was not is there as a whole or not at all, nothing that can be read is wrong, and what was there
before is untouched):

- I5: what is left over has a name that says so, goes (`Operation.go_on`), and is there only where the process died or
  could not remove it;
- I6: the operation can be done once more;
- I7: no descriptor stays open, and so no lock is held;
- I8: the error is one of ours, with an exit code that is documented, and says with what and what to do next.

A folder that is, to the last byte, as one that was looked at after another accident is not looked at again.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import itertools
import os
import sys
import warnings
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from quantum_memory.durability import atomic, files
from quantum_memory.errors import QuantumMemoryError
from quantum_memory.testing.faults import CountingFiles, FaultyFiles, KillingFiles, RecordingFiles, killed_at
from quantum_memory.testing.operations import Unsynced, leftovers, open_files, state_of
from quantum_memory.testing.power_cuts import CrashModel

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from quantum_memory.durability.files import Files
    from quantum_memory.testing.operations import Operation

ERRORS = (errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EINTR, errno.ESTALE, errno.EACCES, errno.EROFS)
"""What the operating system may say of a disk."""

EXIT_CODES = frozenset({4, 6, 7, 8})
"""Damaged, or gone; in use, or not possible now; no space, or the disk failed."""

_REMOVING = {"unlink", "rmdir"}


def fail_at_each(
    operation: Operation,
    error: int | type[BaseException],
    *,
    sticky: bool = False,
    again_after: int | None = None,
    first: int = 0,
    step: int = 1,
) -> int:
    """Have its calls fail, each in turn, and look at what is left each time; return how many failed.

    Parameters
    ----------
    error
        The number of an error of the operating system; or what is raised instead, such as ``KeyboardInterrupt``.
    sticky
        Whether all later calls fail too, as on a disk that is gone and comes again.
    again_after
        How many calls after the one that fails another one does, in which the first is being seen to; by default none.
    first, step
        Which calls: by default all.

    Raises
    ------
    AssertionError
        Something was lost or torn, is held or left over, or the error is not as it should be.
    """
    look = _Look(operation)
    for count in itertools.count():
        k = first + count * step
        operation.again()
        later = FaultyFiles(
            sys.maxsize if again_after is None else k + again_after, error, inner=Unsynced(operation.system)
        )
        faulty = FaultyFiles(k, error, sticky=sticky, inner=later)
        recording = RecordingFiles(faulty)
        with _looked_at(f"call {k} fails with {error!r}", faulty.failed, later.failed):
            with no_descriptor_left():
                # What interrupts a thread that nobody waits for is said to be unexpected, and by whoever waits later.
                done = attempted(operation, recording, EXIT_CODES | ({1} if not isinstance(error, int) else set()))
                recording.log.clear()  # the errors in it know of what is mapped into memory
            assert done or faulty.failed
            removed = not sticky and again_after is None and not _REMOVING & set(faulty.failed)
            look(done=done, after=bool(faulty.failed), removed=removed)
        if not faulty.failed:
            return count
    raise AssertionError("unreachable")


def kill_at_each(operation: Operation, *, first: int = 0, step: int = 1) -> int:
    """Kill it at its calls, each in turn, and look at what is left each time; return how often it was killed.

    Only calls that change something are counted: a kill at another one leaves what one at the next of these leaves.
    """
    look = _Look(operation)
    for count in itertools.count():
        k = first + count * step
        operation.again()
        killed = killed_at(
            k,
            lambda dying: done_with(operation, dying),
            lambda k: KillingFiles(k, Unsynced(operation.system), at_changes=True),
        )
        with _looked_at("killed at change", k):
            look(done=not killed, after=killed, removed=not killed)
        if not killed:
            return count
    raise AssertionError("unreachable")


def cut_at_each(operation: Operation, *, most: int = 256, seed: int = 0, every: int = 7) -> int:
    """Cut the power at its calls on the model of a disk, look at what may be left, and return how many states that are.

    Parameters
    ----------
    most
        How many states of one cut are tried. When there are no more, all of them are.
    seed
        Of those that are tried when there are more.
    every
        After every so many it is done once more, too.
    """
    operation.again()
    model = CrashModel(operation.folder, Unsynced(operation.system))
    done_with(operation, model)
    model.acknowledged = 1
    count = 0
    for count, acknowledged in enumerate(model.leave_each(most, seed), 1):
        with _looked_at("after a power cut, in state", count):
            operation.check(done=bool(acknowledged))
            if count % every == 0:
                operation.go_on()
    return count


class _Killed(BaseException):
    """Stands for the end of a process."""


class _EndingFiles(CountingFiles):
    """Raises `_Killed` at the k-th call that changes something; whoever cleans up after that changes nothing more."""

    def __init__(self, k: int, inner: Files) -> None:
        super().__init__(k, inner, at_changes=True)
        self.ended = False

    def call(self, name: str, *arguments: Any) -> Any:
        if not self.is_next(name):
            return super().call(name, *arguments)
        if self.ended:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        self.ended = True
        raise _Killed


def cut_after_each_kill(
    operation: Operation, again: Callable[[], object], *, most: int = 8, seed: int = 0, first: int = 0, step: int = 1
) -> int:
    """Kill it at its calls, have somebody go on, and cut the power meanwhile or then; count what that leaves.

    Whoever goes on may lean on what the killed one has left, and nobody has synced. Those are counted in which it was
    acknowledged once more.

    Parameters
    ----------
    again
        Does it once more. It is acknowledged when this returns; an error of ours says that it is not to be done now.
    most, seed
        See `cut_at_each`.
    first, step
        At which calls that change something it is killed: by default at all.

    Raises
    ------
    AssertionError
        Something was lost or torn.
    """
    count = 0
    for k in itertools.count(first, step):
        operation.again()
        model = CrashModel(operation.folder, Unsynced(operation.system))
        ending = _EndingFiles(k, model)
        before = open_files().items()
        with contextlib.suppress(_Killed, QuantumMemoryError):  # which a thread may have made of it
            done_with(operation, ending)
        if not ending.ended:
            return count
        gc.collect(1)
        for fd, _ in open_files().items() - before:
            model.close(int(fd))  # as the end of a process does
        atomic.forget_sweeps()
        model.acknowledged = 1  # what a cut before leaves, `cut_at_each` has looked at
        with files.using(model), warnings.catch_warnings(), contextlib.suppress(QuantumMemoryError):
            warnings.simplefilter("ignore")
            again()
            model.acknowledged = 2
        for acknowledged in itertools.takewhile(bool, model.leave_each(most, seed)):
            done = acknowledged == 2
            with _looked_at(f"killed at change {k}, the power cut {'after' if done else 'before'} it was done again"):
                operation.check(done=done)
            count += done
    raise AssertionError("unreachable")


_known: WeakKeyDictionary[Operation, set[tuple[object, bool]]] = WeakKeyDictionary()
"""What was looked at after accidents of each operation."""


class _Look:
    """What is left after accidents of an operation, each state once."""

    def __init__(self, operation: Operation) -> None:
        self._operation = operation
        self._known = _known.setdefault(operation, set())

    def __call__(self, *, done: bool, after: bool, removed: bool) -> None:
        """Look at what is left; `after` an accident do it once more; when `removed`, nothing may be left over."""
        now = state_of(self._operation.folder)
        if removed:
            left = leftovers(now)
            assert not left, f"left over: {left}"
        is_timed = self._operation.is_timed
        what = frozenset((path, *(it if is_timed(path, it[0]) else it[:2])) for path, it in now.items()), done
        if what in self._known:
            return
        self._operation.check(done=done)
        if after:
            self._operation.go_on()
            self._known.add(what)


def done_with(operation: Operation, system: Files) -> None:
    """Do an operation with files in force; what it warns of is not shown."""
    with files.using(system), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        operation.do()


def attempted(operation: Operation, recording: RecordingFiles, exit_codes: Collection[int] = EXIT_CODES) -> bool:
    """Do an operation with files in force, and tell whether it was acknowledged, or stopped by an error of ours.

    Parameters
    ----------
    exit_codes
        Those that an error may have.

    Raises
    ------
    AssertionError
        A rule of durable writing was broken, or a descriptor is open though nobody has let go of the error yet; or the
        error does not say with what and what to do next, or has an exit code that is not documented for an accident.
    """
    try:
        done_with(operation, recording)
    except QuantumMemoryError as failure:
        assert failure.exit_code in exit_codes, failure
        assert failure.path, failure
        assert failure.next_step, failure
        _check_rules(operation, recording, done=False)
        return False
    except (KeyboardInterrupt, MemoryError):
        _check_rules(operation, recording, done=False)
        return False
    _check_rules(operation, recording, done=True)
    return True


def _check_rules(operation: Operation, recording: RecordingFiles, *, done: bool) -> None:
    broken = recording.violations(acknowledged=done)
    wrong = [line for line in broken if not any(part in line for part in operation.may_break)]
    assert not wrong, wrong


@contextlib.contextmanager
def no_descriptor_left() -> Iterator[None]:
    """See that a block leaves no descriptor open, and with it no lock held.

    Raises
    ------
    AssertionError
    """
    before = open_files().items()
    yield
    for generation in (1, 2):  # the second one takes long where much is in memory
        if open_files().items() - before:
            gc.collect(generation)  # what was mapped is open as long as the error is there that knows of it
    left = open_files().items() - before
    assert not left, f"still open: {sorted(left)}"


@contextlib.contextmanager
def _looked_at(*when: object) -> Iterator[None]:
    """Have whatever is wrong say after which accident it is."""
    try:
        yield
    except BaseException as error:
        error.add_note(" ".join(map(str, when)))
        raise
