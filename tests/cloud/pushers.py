"""Processes that push or pull, to be killed: they are forked from one that has imported all and used nothing."""

from __future__ import annotations

import multiprocessing
import time
from typing import TYPE_CHECKING

from quantum_memory.lifecycle.backup_manager import BackupManager

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.synchronize import Event

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload([__name__, "quantum_memory.cloud.object_target", "pytest"])


def push(folder: str, target: str) -> None:
    BackupManager(folder).push(target)


def pull(folder: str, target: str) -> None:
    BackupManager(folder).pull(target)


class Worker:
    """A process that works, from the moment on at which it has begun."""

    def __init__(self, work: Callable[[str, str], None], folder: str, target: str) -> None:
        begun = _CONTEXT.Event()
        self._process = _CONTEXT.Process(target=_run, args=(begun, work, folder, target))
        self._process.start()
        assert begun.wait(60)
        self._start = time.monotonic()

    def kill(self, seconds: float) -> bool:
        """Kill it after some seconds, and tell whether it was not done."""
        self._process.join(seconds)
        self._process.kill()
        self._process.join()
        return self._process.exitcode != 0

    def took(self) -> float:
        """Wait for it, and return how long it took."""
        self._process.join(60)
        assert self._process.exitcode == 0
        return time.monotonic() - self._start


def _run(begun: Event, work: Callable[[str, str], None], folder: str, target: str) -> None:
    begun.set()
    work(folder, target)
