"""A thread that asks for a checkpoint from time to time, and what starts and stops it."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from quantum_memory.durability import forks
from quantum_memory.errors import InvalidStateError

if TYPE_CHECKING:
    from collections.abc import Callable

    from quantum_memory.lifecycle.checkpoints.background import Background
    from quantum_memory.lifecycle.checkpoints.pace import Pace


class Timer(threading.Thread):
    """Calls something after an interval, and again after the interval that it returns.

    What goes wrong ends it, and comes out of `stop`.

    Parameters
    ----------
    work
        Returns the seconds until the next time.
    interval
        The seconds until the first.
    """

    def __init__(self, work: Callable[[], float], interval: float) -> None:
        super().__init__(name="auto-checkpoint", daemon=True)
        self._work = work
        self._interval = interval
        self._stopped = threading.Event()
        self._failure: BaseException | None = None

    def run(self) -> None:
        """Do so."""
        try:
            while not self._stopped.wait(self._interval):
                self._interval = self._work()
        except BaseException as error:
            self._failure = error

    def check(self) -> None:
        """Raise what went wrong."""
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def stop(self) -> None:
        """Ask for no more, and raise what went wrong."""
        self._stopped.set()
        self.join()
        self.check()


class Automatic:
    """Checkpoints that are made from time to time.

    Parameters
    ----------
    pace
        Knows the interval.
    background
        Is told what goes wrong.
    """

    def __init__(self, pace: Pace, background: Background) -> None:
        self._pace, self._background = pace, background
        self._timer: Timer | None = None
        forks.tell(self)

    def forked(self) -> None:
        """Let go of the timer of the process that this one was forked from."""
        self._timer = None

    def start(self, begin: Callable[[], object]) -> None:
        """Begin a checkpoint, if none is being saved, every time; see `CheckpointManager.start_auto_checkpoint`."""
        if self._pace.interval is None:
            raise InvalidStateError(
                "the manager has no interval", next_step="give auto_checkpoint_interval=SECONDS when you make it"
            )
        if self._timer is not None:
            raise InvalidStateError("it is at it already", next_step="call stop_auto_checkpoint first")
        self._timer = Timer(lambda: self._save(begin), self._pace.interval)
        self._timer.start()

    def stop(self) -> None:
        """Stop that, where it was started."""
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.stop()

    def _save(self, begin: Callable[[], object]) -> float:
        """Begin a checkpoint, and return the seconds until the next one."""
        try:
            begin()
        except Exception as error:  # the next time it may go well
            self._background.failed(error)
        return self._pace.next_interval()
