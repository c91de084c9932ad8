"""When to save: policies that tell of a moment whether a save is due. They look at no clock; the moment says it all."""

from __future__ import annotations

import math
import operator
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from quantum_memory.errors import InvalidStateError
from quantum_memory.lifecycle.policy import Combined, Mode, Policy, check_mode, check_not_negative, joined, whole

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping


@dataclass(frozen=True, kw_only=True)
class Moment:
    """What is known when it is asked whether a save is due.

    Attributes
    ----------
    now
        The time, in seconds of a monotonic clock.
    saved_at
        When the last save ended, by the same clock. None before the first save.
    step
        How far the computation is: its own counter. None where it has none.
    saved_step
        `step` at the last save. None before the first save, or where that had none.
    metrics
        The metrics now.
    lowest, highest
        The lowest and the highest value that each metric had in what was saved, see `extremes`.
    cost
        How many seconds the last save took. None before the first save.
    """

    now: float
    saved_at: float | None = None
    step: int | None = None
    saved_step: int | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    lowest: Mapping[str, float] = field(default_factory=dict)
    highest: Mapping[str, float] = field(default_factory=dict)
    cost: float | None = None


class SavePolicy(Policy, ABC):
    """When to save.

    ``a | b`` saves when either is due, and ``a & b`` when both are. Each of them looks at the last save, whatever that
    was due for. Policies with the same values are equal.

    Examples
    --------
    >>> policy = EverySeconds(600) | EverySteps(100)
    >>> policy
    EverySeconds(600) | EverySteps(100)
    >>> policy.due(Moment(now=60.0, saved_at=0.0, step=205, saved_step=95))
    True
    """

    @abstractmethod
    def due(self, moment: Moment) -> bool:
        """Tell whether it is time to save."""

    def __or__(self, other: object) -> SavePolicy:
        return joined(_AnyDue, self, other) if isinstance(other, SavePolicy) else NotImplemented

    def __and__(self, other: object) -> SavePolicy:
        return joined(_AllDue, self, other) if isinstance(other, SavePolicy) else NotImplemented


@dataclass(frozen=True, repr=False)
class _AnyDue(Combined[SavePolicy], SavePolicy):
    sign = "|"

    def due(self, moment: Moment) -> bool:
        return any(part.due(moment) for part in self.parts)


@dataclass(frozen=True, repr=False)
class _AllDue(Combined[SavePolicy], SavePolicy):
    sign = "&"

    def due(self, moment: Moment) -> bool:
        return all(part.due(moment) for part in self.parts)


@dataclass(frozen=True, repr=False)
class Always(SavePolicy):
    """Save whenever it is asked."""

    def due(self, moment: Moment) -> bool:  # noqa: ARG002
        return True


@dataclass(frozen=True, repr=False)
class Never(SavePolicy):
    """Save on request alone."""

    def due(self, moment: Moment) -> bool:  # noqa: ARG002
        return False


@dataclass(frozen=True, repr=False)
class EverySeconds(SavePolicy):
    """Save when so much time has passed since the last save.

    The first save is due at once: whether there is space and permission is better known before the first hours than
    after them. So is the next when the clock has gone back, since nothing is known then of the time that passed.

    Parameters
    ----------
    seconds
        The interval; 0 saves whenever it is asked.
    share
        The share of the time that saving may take. The interval grows with what the last save took, see `adapted`.
        None: it does not.
    """

    seconds: float
    share: float | None = field(default=0.1, kw_only=True)

    def __post_init__(self) -> None:
        adapted(self.seconds, None, self.share)  # refuses what is no interval or no share

    def due(self, moment: Moment) -> bool:
        if moment.saved_at is None or moment.now < moment.saved_at:
            return True
        return moment.now - moment.saved_at >= adapted(self.seconds, moment.cost, self.share)


@dataclass(frozen=True, repr=False)
class EverySteps(SavePolicy):
    """Save when the counter has reached or passed a multiple of `n` since the last save, from 0 before the first.

    When it has gone back over one, the computation has started over, and a save is due as well: the last one is of
    another course, and would hide the multiples up to its own.

    Parameters
    ----------
    n
        The number of steps.
    """

    n: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "n", whole(self.n, "the number of steps"))

    def due(self, moment: Moment) -> bool:
        return moment.step is not None and moment.step // self.n != (moment.saved_step or 0) // self.n


@dataclass(frozen=True, repr=False)
class AtSteps(SavePolicy):
    """Save when the counter has reached or passed one of some steps since the last save.

    As with `EverySteps`, a save is due when it has gone back over one, too.

    Parameters
    ----------
    steps
        The steps, in any collection.
    """

    steps: Collection[int]

    def __post_init__(self) -> None:
        object.__setattr__(self, "steps", frozenset(map(operator.index, self.steps)))

    def due(self, moment: Moment) -> bool:
        return moment.step is not None and self._passed(moment.step) != self._passed(moment.saved_step)

    def _passed(self, step: int | None) -> int:
        return 0 if step is None else sum(one <= step for one in self.steps)


@dataclass(frozen=True, repr=False)
class WhenBetter(SavePolicy):
    """Save when a metric is better than in all that was saved. The first value is; NaN never is.

    Parameters
    ----------
    metric
        Its name.
    mode
        ``"min"`` where lower is better, ``"max"`` where higher is.
    at_least
        By how much it has to be better.
    """

    metric: str
    mode: Mode = field(default="min", kw_only=True)
    at_least: float = field(default=0.0, kw_only=True)

    def __post_init__(self) -> None:
        check_mode(self.mode)
        check_not_negative(self.at_least, "the improvement")

    def due(self, moment: Moment) -> bool:
        value = moment.metrics.get(self.metric, math.nan)
        best = (moment.lowest if self.mode == "min" else moment.highest).get(self.metric)
        if best is None:
            return not math.isnan(value)
        if self.mode == "min":
            return value < best and value <= best - self.at_least
        return value > best and value >= best + self.at_least


def adapted(interval: float, cost: float | None, share: float | None) -> float:
    """Return the interval with which saving takes at most a share of the time.

    Parameters
    ----------
    interval
        The one that is asked for, in seconds.
    cost
        What the last save took, in seconds; None if nothing is known of it.
    share
        The largest share, up to 1. None for the interval as it is.

    Raises
    ------
    InvalidStateError
        An interval or a cost is negative or not finite, or a share is not in (0, 1].

    Examples
    --------
    >>> adapted(60.0, 3.0, 0.1), adapted(60.0, 12.0, 0.1)
    (60.0, 120.0)
    """
    check_not_negative(interval, "the interval")
    if share is None:
        return interval
    if not 0 < share <= 1:
        raise InvalidStateError(f"the share is {share!r:.40}", next_step="give one above 0 and up to 1, such as 0.1")
    if cost is None:
        return interval
    check_not_negative(cost, "what the last save took")
    return max(interval, cost / share)


def extremes(saved: Iterable[Mapping[str, float]]) -> tuple[dict[str, float], dict[str, float]]:
    """Return the lowest and the highest value of each metric in what was saved, as a `Moment` has them; no NaN counts.

    Examples
    --------
    >>> extremes([{"energy": -1.0}, {"energy": -1.5, "depth": 3}, {"energy": float("nan")}])
    ({'energy': -1.5, 'depth': 3}, {'energy': -1.0, 'depth': 3})
    """
    lowest: dict[str, float] = {}
    highest: dict[str, float] = {}
    for metrics in saved:
        for name, value in metrics.items():
            if not math.isnan(value):
                lowest[name] = min(value, lowest.get(name, value))
                highest[name] = max(value, highest.get(name, value))
    return lowest, highest
