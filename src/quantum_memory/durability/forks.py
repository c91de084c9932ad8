"""Objects that are told when they are in a process that was forked, where other threads, and what they held, are not.

A lock that a thread of the parent held at that moment would never be released here. A descriptor is a copy: a lock of
the kernel stays for as long as any copy of it is open, whatever the parent does with its own.
"""

from __future__ import annotations

import os
import weakref
from typing import Protocol


class Forked(Protocol):
    """What can be told."""

    def forked(self) -> None:
        """Let go of what belongs to the process that this one was forked from."""


_told: weakref.WeakSet[Forked] = weakref.WeakSet()


def tell(one: Forked) -> None:
    """Have an object told, for as long as it is there."""
    _told.add(one)


def _tell_all() -> None:
    for one in list(_told):
        one.forked()


os.register_at_fork(after_in_child=_tell_all)
