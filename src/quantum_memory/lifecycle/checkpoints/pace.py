"""When a run saves: what a policy makes of the time, of the steps, and of what saving took."""

from __future__ import annotations

import dataclasses
import time
from typing import TYPE_CHECKING, Any

from quantum_memory.lifecycle.due import Moment, SavePolicy, adapted, extremes

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


class Pace:
    """What is known of the saves of a run.

    Parameters
    ----------
    policy
        When `step` saves.
    interval
        Seconds between automatic checkpoints; None where there are none.
    share
        The share of the time that automatic checkpoints may take; None: any.
    """

    def __init__(self, policy: SavePolicy, interval: float | None, share: float | None) -> None:
        adapted(1.0 if interval is None else interval, None, share)  # refuses what is no interval or no share
        self._policy = policy
        self._share = share
        self.interval = interval
        self._known = Moment(now=time.monotonic())

    def is_due(self, progress: Any, metrics: Mapping[str, float]) -> bool:
        """Tell whether it is time to save."""
        moment = dataclasses.replace(self._known, now=time.monotonic(), step=_counted(progress), metrics=metrics)
        return self._policy.due(moment)

    def next_interval(self) -> float:
        """Return the seconds until the next automatic checkpoint."""
        return adapted(self.interval or 0.0, self._known.cost, self._share)

    def saved(self, progress: Any, metrics: Mapping[str, float], cost: float) -> None:
        """Take note of a save that has just ended.

        Parameters
        ----------
        cost
            The seconds that it took.
        """
        lowest, highest = extremes([self._known.lowest, self._known.highest, metrics])
        now = time.monotonic()
        self._known = Moment(
            now=now, saved_at=now, saved_step=_counted(progress), cost=cost, lowest=lowest, highest=highest
        )

    def resumed(self, progress: Any, saved: Iterable[Mapping[str, float]]) -> None:
        """Take note of a checkpoint to go on from.

        Parameters
        ----------
        saved
            The metrics of all that there are.
        """
        lowest, highest = extremes(saved)
        now = time.monotonic()
        self._known = Moment(now=now, saved_at=now, saved_step=_counted(progress), lowest=lowest, highest=highest)


def _counted(progress: Any) -> int | None:
    """Return progress that counts steps."""
    return progress if isinstance(progress, int) and not isinstance(progress, bool) else None
