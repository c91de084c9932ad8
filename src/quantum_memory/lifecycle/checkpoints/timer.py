"""A thread that asks for a checkpoint from time to time."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


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
