"""Ctrl-C, kept from where it does harm.

Python raises it when a call of the system returns, or as one of its own functions begins: also between a step and the
one that notes that it was done. ``with`` on a lock of the system is one step, ``enter_context`` on it is not.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from types import FrameType


@contextlib.contextmanager
def uninterrupted() -> Iterator[Callable[[], bool]]:
    """Have Ctrl-C wait until the block ends, and give what tells whether it has come, so that a long one can end early.

    For libraries that call back. A function of Python may be interrupted as it begins, when there is nobody yet who
    could catch that; a library that is told so while it writes a file may crash, and with it goes what a notebook has
    in memory.
    """
    handler = signal.getsignal(signal.SIGINT)
    if not callable(handler) or threading.current_thread() is not threading.main_thread():
        yield lambda: False  # nothing is raised here
        return
    came: list[tuple[int, FrameType | None]] = []
    try:
        signal.signal(signal.SIGINT, lambda *what: came.append(what))
        yield lambda: bool(came) and handler is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, handler)
        if came:
            handler(*came[0])


@contextlib.contextmanager
def holding(lock: AbstractContextManager[object]) -> Iterator[None]:
    """Hold a lock for a block, and let go of it also where an interrupt comes before anybody knows that it is held."""
    with lock:
        yield  # whoever was interrupted drops this, and Python leaves the block
