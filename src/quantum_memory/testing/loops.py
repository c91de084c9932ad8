"""Runs that write one version after another until a random instant: killed, interrupted, or with the power cut.

How long a run may go on is learnt: so long that half of the runs have acknowledged something by then, on any machine.
"""

from __future__ import annotations

import contextlib
import gc
import os
import select
import signal
import struct
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

from quantum_memory.durability import atomic, files
from quantum_memory.errors import QuantumMemoryError
from quantum_memory.testing.loop_disk import XFS

if TYPE_CHECKING:
    import random
    from pathlib import Path

    from quantum_memory.testing.loop_disk import LoopDisk

Acknowledge = Callable[[int], None]
"""What is told which version is written."""

_NUMBER = struct.Struct("<I")
_INTERRUPTED = (1 << 32) - 1
_LOST = 3  # whoever goes on for so many versions has not seen the interrupt
_LONGEST = 10.0
_FEW = 2
_SHORTEST = 0.01
_AGAIN = 0.5  # seconds: Python loses an interrupt that comes while an object is being deleted


class Loop(Protocol):
    """Something that writes versions, counted from 1, for as long as it may.

    Attributes
    ----------
    folder
        Where all is that it writes.
    """

    folder: Path

    def run(self, version: int, acknowledge: Acknowledge, *, durable: bool) -> None:
        """Write the versions after `version`, and acknowledge each when it is written, for ever."""

    def check(self, acknowledged: int) -> int:
        """See that nothing is torn, and all that was acknowledged is there; return the last version that is.

        Raises
        ------
        AssertionError
        """

    def end(self, version: int) -> None:
        """Write one more, and see that nothing is left over.

        Raises
        ------
        AssertionError
        """


@dataclass
class Ends:
    """How runs have ended.

    Attributes
    ----------
    count
        How many.
    acknowledged
        How many versions were acknowledged before.
    """

    count: int = 0
    acknowledged: int = 0
    _longest: float = _SHORTEST

    @classmethod
    def of(cls, loop: Loop) -> Ends:
        """Return that of a loop none of whose runs has ended yet; it may know how long one takes (``longest``)."""
        return cls(_longest=getattr(loop, "longest", _SHORTEST))

    def instant(self, rng: random.Random) -> float:
        """Return after how many seconds the next one is to end."""
        return rng.uniform(0, self._longest)

    def looked_at(self, loop: Loop, said: list[int], before: int) -> int:
        """Look at what one has left that began from the version `before`; return from which version the next goes on.

        Raises
        ------
        AssertionError
            A version that was acknowledged is not there, or one that is there is torn.
        """
        self.count += 1
        self.acknowledged += len(said)
        factor = 1 / 1.2 if said else 1.2 if self.acknowledged else 2
        self._longest = min(self._longest * factor, _LONGEST)
        acknowledged = max(said, default=before)
        atomic.forget_sweeps()  # as a new process begins
        try:
            found = loop.check(acknowledged)
            assert found >= acknowledged, f"{acknowledged} was acknowledged, and {found} is there"
        except BaseException as error:
            error.add_note(f"after end {self.count}, when {acknowledged} was acknowledged")
            raise
        return found


def kill_at_random(loop: Loop, kills: int, rng: random.Random, *, by: int = signal.SIGKILL) -> Ends:
    """Kill so many runs, each of which goes on from the one before.

    Syncs are left out, which only a power cut would show.

    Parameters
    ----------
    by
        By which signal: one that ends a process where nobody handles it.

    Raises
    ------
    AssertionError
        A version that was acknowledged is not there, or one that is there is torn, or something is left over, or a run
        has ended by itself.
    """
    ends, version = Ends.of(loop), 0
    handlers = {} if by == signal.SIGKILL else {by: signal.SIG_DFL}
    while ends.count < kills:
        with _Run(partial(_unsynced, loop, version), handlers) as run:
            time.sleep(ends.instant(rng))
            status = run.end(by)
            assert status == -by, f"it ended by itself, with status {status}: see its traceback"
            version = ends.looked_at(loop, run.said(), version)
    loop.end(version)
    return ends


def cut_at_random(loop: Loop, disk: LoopDisk, cuts: int, rng: random.Random) -> Ends:
    """Cut the power of a disk under so many runs, half of the times after a foreign ``fsync``; see `kill_at_random`.

    On XFS the run is stopped before the cut. There an ``fsync`` that is under way while the file system is shut down
    can return success although its log record is lost (bare system calls do so as well: in 7 of 900 cuts), which a
    power cut cannot do: no program runs on to see the return.

    Raises
    ------
    AssertionError
        A version that was acknowledged is not there, or one that is there is torn, or something is left over, or a run
        has ended before the cut, or by an error that is not one of ours.
    """
    ends, version = Ends.of(loop), 0
    disk.again()  # which syncs what the loop has begun with
    while ends.count < cuts:
        with _Run(partial(_until_it_fails, loop, version)) as run:
            time.sleep(ends.instant(rng))
            assert run.goes_on(), "it ended before the power was cut"
            if disk.kind == XFS:
                run.stop()
            disk.cut(commit=rng.random() < 0.5)
            status = run.end(signal.SIGKILL)
            assert status in {0, -signal.SIGKILL}, f"it ended with status {status}: see its traceback"
            disk.again()
            version = ends.looked_at(loop, run.said(), version)
    loop.end(version)
    return ends


def interrupt_at_random(loop: Loop, interrupts: int, rng: random.Random, *, by: int = signal.SIGINT) -> Ends:
    """Interrupt so many runs by a signal that raises an exception, as Ctrl-C does; see `kill_at_random`.

    It has cleaned up when its exception is handled, while it is still there.

    Parameters
    ----------
    by
        By which signal: Ctrl-C, or one whose handler is made to end the program by a ``SystemExit``.

    Raises
    ------
    AssertionError
        A version that was acknowledged is not there, or one that is there is torn, or something is left over, or a
        run has ended by itself.
    """
    ends, version = Ends.of(loop), 0
    handlers = {by: signal.default_int_handler if by == signal.SIGINT else _exit}
    while ends.count < interrupts:
        with _Run(partial(_unsynced, loop, version), handlers) as run:
            time.sleep(ends.instant(rng))
            run.interrupt(by)
            left = [str(one) for one in loop.folder.rglob("*") if atomic.is_leftover(one.name)]
            assert not left, f"left over: {left}"
            run.end(signal.SIGKILL)
            version = ends.looked_at(loop, run.said(), version)
            loop.end(version)
            version += 1
    return ends


def interrupt_and_go_on(loop: Loop, interrupts: int, rng: random.Random) -> Ends:
    """Interrupt so many runs of this process, which lives on, as a notebook does; see `interrupt_at_random`.

    The exception and what it came through are gone when it is looked at what is left.

    Raises
    ------
    AssertionError
        A version that was acknowledged is not there, or one that is there is torn, or something is left over, or open.
    """
    ends, version = Ends.of(loop), 0
    with _Alarm() as alarm:
        while ends.count < interrupts:
            said: list[int] = []
            try:
                alarm.set(ends.instant(rng))
                _unsynced(loop, version, said.append)
            except BaseException as error:
                alarm.set(0)
                if not _comes_of_a_signal(error):
                    raise
            alarm.check(loop.folder)
            version = ends.looked_at(loop, said, version)
            loop.end(version)
            version += 1
    return ends


class _Alarm:
    """Interrupts this process after some time, for as long as the block lasts."""

    def __init__(self) -> None:
        self._handlers: dict[int, Any] = {}
        self._lost = False
        self._known: set[str] = set()
        self._kept = 0

    def __enter__(self) -> _Alarm:
        self._handlers = {
            signal.SIGALRM: signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGINT)),
            signal.SIGINT: signal.signal(signal.SIGINT, signal.default_int_handler),
        }
        sys.unraisablehook = self._lose
        return self

    def __exit__(self, *_: object) -> None:
        self.set(0)
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        sys.unraisablehook = sys.__unraisablehook__

    def set(self, seconds: float) -> None:
        """Interrupt after so many seconds, and again while nobody has noticed; 0: not any more."""
        signal.setitimer(signal.ITIMER_REAL, max(seconds, 1e-6) if seconds else 0, _AGAIN if seconds else 0)

    def check(self, folder: Path) -> None:
        """See that nothing in a folder is left over, or open, once those have ended who work in the background.

        A file that stays open, and is not locked, does no harm: there may be very few.
        """
        deadline = time.monotonic() + _LONGEST
        while True:
            left = [str(one) for one in folder.rglob("*") if atomic.is_leftover(one.name)]
            opened = self._open_in(folder)
            if not left and not opened:
                return
            if time.monotonic() > deadline:
                self._kept += 1
                locked = [one for one in opened if _is_locked(one.partition(" ")[2])]
                assert not left, f"left over: {left}"
                assert not locked, f"locked: {locked}"
                assert self._kept <= _FEW, f"open: {opened}"
                self._known.update(opened)
                return
            time.sleep(0.01)
            gc.collect()

    def _lose(self, what: Any) -> None:
        """Take note of an interrupt that Python has lost, and with it whatever an object does when it is deleted."""
        if isinstance(what.exc_value, KeyboardInterrupt):
            self._lost = True
        else:
            sys.__unraisablehook__(what)

    def _open_in(self, folder: Path) -> list[str]:
        """Return what this process has open there, by descriptor, unless it is known that it is not closed."""
        found = []
        with contextlib.suppress(FileNotFoundError):  # where the system does not say
            for one in os.listdir("/proc/self/fd"):
                with contextlib.suppress(OSError):
                    found.append(f"{one} {os.readlink(f'/proc/self/fd/{one}')}")
        found = [one for one in found if f" {folder}{os.sep}" in one]
        if self._lost:
            self._known.update(found)
            self._lost = False
        return [one for one in found if one not in self._known]


def _is_locked(path: str) -> bool:
    try:
        fd = os.open(path, os.O_RDONLY)
    except OSError:  # it has been removed
        return False
    try:
        return not files.RealFiles().try_lock(fd)
    finally:
        os.close(fd)


def _exit(number: int, _: object) -> NoReturn:
    sys.exit(128 + number)


def _unsynced(loop: Loop, version: int, acknowledge: Acknowledge) -> None:
    loop.run(version, acknowledge, durable=False)


def _until_it_fails(loop: Loop, version: int, acknowledge: Acknowledge) -> None:
    warnings.simplefilter("ignore")  # of a background that could not save
    with contextlib.suppress(QuantumMemoryError, OSError):
        loop.run(version, acknowledge, durable=True)


class _Run:
    """A run in a child, which is ended when the block is left at the latest.

    Parameters
    ----------
    work
        What it does, given what is to be told which versions are written.
    handlers
        Of signals.
    """

    def __init__(self, work: Callable[[Acknowledge], None], handlers: dict[int, Any] | None = None) -> None:
        self._said: list[int] = []
        self._status: int | None = None
        self._pipe, writing = os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # threads of others are no concern of the child
            self._child = os.fork()
        if self._child == 0:
            _be_the_child(work, handlers or {}, writing)
        os.close(writing)

    def __enter__(self) -> _Run:
        self._read()  # it has begun
        return self

    def __exit__(self, *_: object) -> None:
        if self._status is None:
            self.end(signal.SIGKILL)
        os.close(self._pipe)

    def end(self, by: int) -> int:
        """Send it a signal, and return its exit status, which is negative when the signal has ended it."""
        os.kill(self._child, by)
        self._status = os.waitstatus_to_exitcode(os.waitpid(self._child, 0)[1])
        return self._status

    def goes_on(self) -> bool:
        """Tell whether it has not ended."""
        return os.waitid(os.P_PID, self._child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None

    def stop(self) -> None:
        """Let it stand still."""
        os.kill(self._child, signal.SIGSTOP)
        os.waitpid(self._child, os.WUNTRACED)

    def interrupt(self, by: int) -> None:
        """Send it a signal until it says that it was interrupted.

        Python loses an exception that a handler raises while an object is being deleted, or while a library that calls
        back does not expect one: then it is sent again.
        """
        while _INTERRUPTED not in self._said:
            while select.select([self._pipe], [], [], 0)[0] and self._read():
                pass
            os.kill(self._child, by)
            before = len(self._said)
            while _INTERRUPTED not in self._said and len(self._said) < before + _LOST:
                assert self._read(), "it ended by itself: see its traceback"

    def said(self) -> list[int]:
        """Return the versions that it has acknowledged."""
        while self._status is not None and self._read():
            pass
        return [number for number in self._said if number not in {0, _INTERRUPTED}]

    def _read(self) -> bool:
        data = os.read(self._pipe, 1024 * _NUMBER.size)
        self._said += [number for (number,) in _NUMBER.iter_unpack(data)]
        return bool(data)


def _be_the_child(work: Callable[[Acknowledge], None], handlers: dict[int, Any], writing: int) -> NoReturn:
    """Do the work, and end without anything that Python does at an end."""
    status = 1

    def say(number: int) -> None:
        os.write(writing, _NUMBER.pack(number))

    try:
        with warnings.catch_warnings(), files.using(files.RealFiles()):
            warnings.simplefilter("error")
            for number, handler in handlers.items():
                signal.signal(number, handler)
            interrupted = _is_interrupted(work, say)
        if interrupted:  # and whatever the exception held is gone
            say(_INTERRUPTED)
            signal.pause()  # until it is killed
        status = 0
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(status)


def _is_interrupted(work: Callable[[Acknowledge], None], say: Acknowledge) -> bool:
    try:
        say(0)
        work(say)
    except BaseException as error:
        if not _comes_of_a_signal(error):
            raise
        return True
    return False


def _comes_of_a_signal(error: BaseException | None) -> bool:
    while error is not None and not isinstance(error, (KeyboardInterrupt, SystemExit)):
        error = error.__cause__ or error.__context__  # h5py makes a SystemError of it
    return error is not None
