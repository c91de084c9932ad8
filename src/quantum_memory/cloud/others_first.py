"""What is done where others were quicker: wait a little, and try again, so often and no more."""

from __future__ import annotations

import random
import time

from quantum_memory.errors import ConflictError

TRIES = 100
_FIRST_PAUSE, _LONGEST_PAUSE = 0.01, 1.0


def pause(attempt: int) -> None:
    """Wait until they may be done: at random, and longer from attempt to attempt."""
    longest = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** min(attempt, 7))
    time.sleep(random.random() * longest)  # noqa: S311 - a pause


def too_often(where: object = None) -> ConflictError:
    """Return what is said when they were quicker each time."""
    return ConflictError(
        f"others were quicker {TRIES} times in a row",
        path=None if where is None else str(where),
        next_step="write less often, or elsewhere",
    )
