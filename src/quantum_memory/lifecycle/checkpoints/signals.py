"""Signals that ask a run to stop: the first waits for the next step, which saves; the second is what it always was."""

from __future__ import annotations

import os
import signal
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

SIGNALS = ("SIGINT", "SIGTERM", "SIGUSR1")
"""From the keyboard, from whoever ends processes, and from SLURM (``#SBATCH --signal=USR1@300``)."""


class Stopped(SystemExit):
    """A run was asked to stop, and has saved. It ends the program as the signal would have, without a traceback.

    Attributes
    ----------
    checkpoint
        Id of what was saved last.
    signal
        The number of the signal.
    """

    def __init__(self, number: int, checkpoint: str | None) -> None:
        super().__init__(128 + number)
        self.signal = number
        self.checkpoint = checkpoint


class StopSignals:
    """Takes note of signals while it is installed.

    Attributes
    ----------
    asked
        The number of the signal that asked to stop; 0 for none.
    """

    def __init__(self, say: Callable[[str], object] | None = None) -> None:
        self.asked = 0
        self._say = say or _say
        self._before: dict[int, Any] = {}
        self._pid = 0

    @property
    def in_force(self) -> bool:
        """Whether the signals come here."""
        return bool(self._before)

    def install(self) -> None:
        """Take over; only the main thread can, and in others nothing happens."""
        if threading.current_thread() is not threading.main_thread() or self._before:
            return
        self._pid, self.asked = os.getpid(), 0
        for name in SIGNALS:
            number = getattr(signal, name, None)
            if number is not None:
                self._before[number] = signal.signal(number, self._take)

    def restore(self) -> None:
        """Give the signals back to whoever had them."""
        before, self._before = self._before, {}
        for number, handler in before.items():
            # None: it was not set from Python, and cannot be given back.
            if signal.getsignal(number) == self._take and handler is not None:
                signal.signal(number, handler)

    def _take(self, number: int, frame: FrameType | None) -> None:
        if self.asked or self._pid != os.getpid():
            handler = self._before.get(number)
            self.restore()
            if callable(handler):
                handler(number, frame)
                return
            if handler is None:  # it was not set from Python, and cannot be called from here
                signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        self.asked = number
        name = signal.Signals(number).name
        self._say(f"{name}: saving at the next step, then stopping; once more stops at once")


def _say(text: str) -> None:
    # A handler runs between two instructions of anybody, who may be printing: not by way of a buffer.
    os.write(2, f"\n{text}\n".encode())
