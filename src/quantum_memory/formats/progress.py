"""Progress that is told of."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    Progress = Callable[[int], object]


class Once:
    """Tells of the progress of several attempts as if they were one."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress = progress
        self._told = self._done = 0
        self._lock = threading.Lock()

    def again(self) -> Progress | None:
        """Return what the next attempt is to call."""
        self._done = 0
        return None if self._progress is None else self._tell

    def _tell(self, count: int) -> None:
        with self._lock:
            self._done += count
            new = self._done - self._told
            self._told = max(self._told, self._done)
        if new > 0 and self._progress is not None:
            self._progress(new)
