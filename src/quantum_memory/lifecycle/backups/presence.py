"""Those who push to a target say so, so that nobody removes meanwhile what they have seen there and count on.

Who pushes has an object of his own as long as he is at it, and writes it again every minute; who removes has one that
only one can have. Each writes his own first and looks for the others then: of two who come at the same instant at least
one sees the other. One that has not been written for an hour is of somebody who was killed. Who was stopped for long
enough to be taken for that finds out himself, and looks again at what is there before he says that he is done.
Times are compared as the storage has them, and not by clocks of machines.
"""

from __future__ import annotations

import contextlib
import secrets
import threading
import time
from typing import TYPE_CHECKING

from quantum_memory.errors import ConflictError, QuantumMemoryError
from quantum_memory.lifecycle.backups.pushed import OURS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from quantum_memory.lifecycle.backups.targets import Target

DEAD_AFTER = 3600.0
"""Seconds after which who has said nothing is taken for dead."""

_AGAIN = 60.0
_PATIENCE = 30.0
_PUSHING, _PRUNING = f"{OURS}pushing", f"{OURS}pruning"


class Presence:
    """Somebody who is at work at a target.

    Parameters
    ----------
    target
        The target.
    key
        Of the object that says so, which is there.
    """

    def __init__(self, target: Target, key: str) -> None:
        self._target, self.key = target, key
        self._guard = threading.Lock()
        self._said = self._times()
        self._late = False

    def renew(self) -> None:
        """Say once more that one is there, if it is time to do so; whoever works calls this often."""
        with self._guard:
            if self._since() < _AGAIN:
                return
            self._look()
            self._target.replace(self.key, b"")
            self._said = self._times()

    @property
    def lasted(self) -> bool:
        """Whether nobody can have taken this one for dead since it began."""
        with self._guard:
            self._look()
            return not self._late

    def _look(self) -> None:
        self._late = self._late or self._since() > DEAD_AFTER / 2

    def _since(self) -> float:
        # The first clock stands still while a machine sleeps, and the second may be set back.
        return max(now - then for now, then in zip(self._times(), self._said, strict=True))

    def _times(self) -> tuple[float, float]:
        return time.monotonic(), time.time()


@contextlib.contextmanager
def pushing(target: Target) -> Iterator[Presence]:
    """Be at work at a target, beside others who push.

    Raises
    ------
    ConflictError
        Somebody is removing something all the time.
    """
    key = f"{_PUSHING}/{secrets.token_hex(8)}"
    target.replace(key, b"")
    try:
        end = time.monotonic() + _PATIENCE
        while (since := _alive(target, key, _PRUNING)) is not None:
            if time.monotonic() > end:
                raise _busy(target, "removing something", since)
            time.sleep(min(1.0, _PATIENCE / 10))
        yield Presence(target, key)
    finally:
        with contextlib.suppress(QuantumMemoryError):  # it is taken for dead in an hour
            target.remove([key])


@contextlib.contextmanager
def alone(target: Target, own: Presence) -> Iterator[Presence]:
    """Be the only one at work at a target, who may remove something.

    Parameters
    ----------
    own
        Of who asks, and pushes himself.

    Raises
    ------
    ConflictError
        Others are at work.
    """
    if not target.create(_PRUNING, b""):
        since = _alive(target, own.key, _PRUNING)
        if since is not None:
            raise _busy(target, "removing something", since)
        target.replace(_PRUNING, b"")  # two who come at this instant both go on, and remove the same
    try:
        if (since := _alive(target, _PRUNING, _PUSHING, own.key)) is not None:
            raise _busy(target, "pushing", since)
        yield Presence(target, _PRUNING)
    finally:
        with contextlib.suppress(QuantumMemoryError):
            target.remove([_PRUNING])


def _alive(target: Target, own: str, folder: str, besides: str = "") -> float | None:
    """Return for how many seconds somebody else has said nothing who may be at work; None where nobody is.

    Parameters
    ----------
    own
        Key of an object that was just written, which says what time it is there.
    folder
        Keys of the others begin so.
    besides
        A key that does not count.
    """
    times = {key: when for key, _, when in target.listed(OURS.rstrip("/"))}
    now = max([times[own], *times.values()]) if own in times else max(times.values(), default=0.0)
    others = [now - when for key, when in times.items() if key.startswith(folder) and key not in {own, besides}]
    return min((quiet for quiet in others if quiet < DEAD_AFTER), default=None)


def _busy(target: Target, doing: str, since: float) -> ConflictError:
    return ConflictError(
        f"somebody else is {doing}, and has said so {since:.0f} seconds ago",
        path=target.name,
        next_step=f"wait for it; who says nothing for {DEAD_AFTER / 60:.0f} minutes is taken for dead",
    )
