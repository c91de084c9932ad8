"""What to keep: policies that choose among checkpoints or backups, and the plan of which go, in which order, and why.

Nothing here looks at a disk or a clock, and nothing is removed: a plan is a value.
"""

from __future__ import annotations

import datetime
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from itertools import groupby, islice
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from quantum_memory.errors import InvalidStateError
from quantum_memory.lifecycle.policy import Combined, Mode, Policy, check_mode, duration, joined, spelled, whole, zone

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

K = TypeVar("K", bound="Kept")

_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_FIRST = datetime.datetime.min.replace(tzinfo=datetime.UTC)


class Kept(Protocol):
    """What a policy is asked about: a checkpoint, a backup, or anything else with these.

    Attributes
    ----------
    id
        Its name; no two have the same.
    created_at
        When it was made, in UTC.
    number
        Its place in the order of saving, in which time may seem to go back.
    metrics
        Numbers that were noted with it.
    automatic
        Whether a policy made it, and not somebody.
    pinned
        Whether somebody said that it stays.
    tags
        Words that somebody gave it.
    verified
        Whether it was read back whole.
    source
        What it is a copy of; empty for checkpoints.
    """

    @property
    def id(self) -> str: ...
    @property
    def created_at(self) -> datetime.datetime: ...
    @property
    def number(self) -> int: ...
    @property
    def metrics(self) -> Mapping[str, float]: ...
    @property
    def automatic(self) -> bool: ...
    @property
    def pinned(self) -> bool: ...
    @property
    def tags(self) -> frozenset[str]: ...
    @property
    def verified(self) -> bool: ...
    @property
    def source(self) -> str: ...


class KeepPolicy(Policy, ABC):
    """What to keep.

    ``a | b`` keeps what either keeps, and ``a & b`` what both keep. Policies with the same values are equal.

    Examples
    --------
    >>> KeepLast(3) | KeepEvery("24h") | KeepBest("energy")
    KeepLast(3) | KeepEvery('1d') | KeepBest('energy')
    """

    def kept(self, items: Iterable[Kept]) -> dict[str, str]:
        """Return the ids of what this keeps, each with the reason, the last saved first.

        Raises
        ------
        InvalidStateError
            A time is not in UTC.
        """
        series = sorted(items, key=_order, reverse=True)
        _in_utc(item.created_at for item in series)
        return self._kept(series)

    @abstractmethod
    def _kept(self, items: list[Kept]) -> dict[str, str]:
        """Do so for `items` with the last saved first.

        What is kept of them must be kept of any part of them that it is in: what a plan leaves, the next one leaves.
        """

    def __or__(self, other: object) -> KeepPolicy:
        return joined(_Union, self, other) if isinstance(other, KeepPolicy) else NotImplemented

    def __and__(self, other: object) -> KeepPolicy:
        return joined(_Intersection, self, other) if isinstance(other, KeepPolicy) else NotImplemented


@dataclass(frozen=True, repr=False)
class _Union(Combined[KeepPolicy], KeepPolicy):
    sign = "|"

    def _kept(self, items: list[Kept]) -> dict[str, str]:
        chosen = [part._kept(items) for part in self.parts]
        return {
            item.id: "; ".join(reasons)
            for item in items
            if (reasons := [some[item.id] for some in chosen if item.id in some])
        }


@dataclass(frozen=True, repr=False)
class _Intersection(Combined[KeepPolicy], KeepPolicy):
    sign = "&"

    def _kept(self, items: list[Kept]) -> dict[str, str]:
        chosen = [part._kept(items) for part in self.parts]
        return {
            item.id: " and ".join(some[item.id] for some in chosen)
            for item in items
            if all(item.id in some for some in chosen)
        }


@dataclass(frozen=True, repr=False)
class KeepAll(KeepPolicy):
    """Keep everything."""

    def _kept(self, items: list[Kept]) -> dict[str, str]:
        return {item.id: "everything is kept" for item in items}


@dataclass(frozen=True, repr=False)
class KeepManual(KeepPolicy):
    """Keep what somebody made, and not a policy."""

    def _kept(self, items: list[Kept]) -> dict[str, str]:
        return {item.id: "made by hand" for item in items if not item.automatic}


@dataclass(frozen=True, repr=False, init=False)
class KeepTagged(KeepPolicy):
    """Keep what has one of some tags.

    A plan of `plan_removal` keeps what has any tag; this one is for asking a policy itself.

    Parameters
    ----------
    *tags
        The tags.
    """

    tags: frozenset[str]

    def __init__(self, *tags: str) -> None:
        if not tags:
            raise InvalidStateError("no tag is given", next_step="name the tags that keep something")
        object.__setattr__(self, "tags", frozenset(tags))

    def __repr__(self) -> str:
        return f"KeepTagged({', '.join(map(repr, sorted(self.tags)))})"

    def _kept(self, items: list[Kept]) -> dict[str, str]:
        return {item.id: _tagged(tags) for item in items if (tags := self.tags & item.tags)}


@dataclass(frozen=True, repr=False)
class KeepLast(KeepPolicy):
    """Keep the last that were saved.

    Parameters
    ----------
    n
        How many.
    """

    n: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "n", whole(self.n, "the number to keep"))

    def _kept(self, items: list[Kept]) -> dict[str, str]:
        return {item.id: "the last" if self.n == 1 else f"one of the last {self.n}" for item in items[: self.n]}


@dataclass(frozen=True, repr=False)
class KeepBest(KeepPolicy):
    """Keep those with the best values of a metric, of equal ones the last saved. NaN, or no value, is never best.

    Parameters
    ----------
    metric
        Its name.
    n
        How many.
    mode
        ``"min"`` where lower is better, ``"max"`` where higher is.
    """

    metric: str
    n: int = 1
    mode: Mode = field(default="min", kw_only=True)

    def __post_init__(self) -> None:
        object.__setattr__(self, "n", whole(self.n, "the number to keep"))
        check_mode(self.mode)

    def _kept(self, items: list[Kept]) -> dict[str, str]:
        values = {item.id: item.metrics.get(self.metric, math.nan) for item in items}
        # Sorting keeps the order of equal ones, reversed or not.
        best = sorted(
            (one for one in values if not math.isnan(values[one])), key=values.__getitem__, reverse=self.mode == "max"
        )
        chosen = set(best[: self.n])
        which = "the best" if self.n == 1 else f"one of the best {self.n}"
        return {one: f"{which} by {self.metric}, {value:.6g}" for one, value in values.items() if one in chosen}


@dataclass(frozen=True, repr=False)
class KeepWithin(KeepPolicy):
    """Keep what is not much older than what was saved after it: a run that has stopped loses nothing by waiting.

    Parameters
    ----------
    duration
        By how much it may be older: ``"7d"``, ``"12h"``, ``"30m"``, ``"45s"``, ``"1w"``, or seconds.
    """

    duration: str | float

    def __post_init__(self) -> None:
        object.__setattr__(self, "duration", spelled(duration(self.duration)))

    def _kept(self, items: list[Kept]) -> dict[str, str]:
        length = duration(self.duration)
        chosen = {}
        newest = None
        for item in items:
            # Compared with later ones alone: where the clock was put back, the last would seem old beside earlier ones.
            newest = item.created_at if newest is None else max(newest, item.created_at)
            if newest - item.created_at <= length:
                chosen[item.id] = f"at most {self.duration} older than the newest"
        return chosen


@dataclass(frozen=True, repr=False)
class KeepEvery(KeepPolicy):
    """Keep the last saved of each period of a length, counted from 1970-01-01 00:00 UTC.

    Parameters
    ----------
    period
        The length: ``"1d"``, ``"12h"``, ``"30m"``, ``"45s"``, ``"1w"``, or seconds.
    """

    period: str | float

    def __post_init__(self) -> None:
        object.__setattr__(self, "period", spelled(duration(self.period)))

    def _kept(self, items: list[Kept]) -> dict[str, str]:
        length = duration(self.period)

        def named(moment: datetime.datetime) -> str:
            start = max((moment - _EPOCH) // length * length, _FIRST - _EPOCH)
            return f"{self.period} from {(_EPOCH + start).isoformat()}"

        return _newest_of_each(items, named)


@dataclass(frozen=True, repr=False)
class _KeepCalendar(KeepPolicy):
    """Keep the last saved of each of the last `n` periods of a calendar that have any.

    The last periods are those that were last saved in.

    Parameters
    ----------
    n
        How many periods.
    timezone
        Where the calendar hangs, as ``"Europe/Berlin"``.
    """

    n: int
    timezone: str = field(default="UTC", kw_only=True)

    def __post_init__(self) -> None:
        object.__setattr__(self, "n", whole(self.n, "the number of periods"))
        zone(self.timezone)

    def _kept(self, items: list[Kept]) -> dict[str, str]:
        there = zone(self.timezone)

        def named(moment: datetime.datetime) -> str:
            try:
                return self._named(moment.astimezone(there))
            except OverflowError:  # in the first or the last hours that a datetime can name
                return self._named(moment)

        return _newest_of_each(items, named, self.n)

    @abstractmethod
    def _named(self, local: datetime.datetime) -> str:
        """Return the period that a local time is in, in words."""


class KeepHourly(_KeepCalendar):
    """Keep the last saved of each of the last `n` hours that have any, in UTC or another `timezone`."""

    def _named(self, local: datetime.datetime) -> str:
        return f"hour {local.isoformat(timespec='hours')}"  # with the offset: one hour comes twice in autumn


class KeepDaily(_KeepCalendar):
    """Keep the last saved of each of the last `n` days that have any, in UTC or another `timezone`."""

    def _named(self, local: datetime.datetime) -> str:
        return f"day {local.date().isoformat()}"


class KeepWeekly(_KeepCalendar):
    """Keep the last saved of each of the last `n` weeks of ISO 8601 that have any, in UTC or another `timezone`."""

    def _named(self, local: datetime.datetime) -> str:
        year, week, _ = local.isocalendar()
        return f"week {year}-W{week:02}"


class KeepMonthly(_KeepCalendar):
    """Keep the last saved of each of the last `n` months that have any, in UTC or another `timezone`."""

    def _named(self, local: datetime.datetime) -> str:
        return f"month {local.date().isoformat()[:7]}"


class KeepYearly(_KeepCalendar):
    """Keep the last saved of each of the last `n` years that have any, in UTC or another `timezone`."""

    def _named(self, local: datetime.datetime) -> str:
        return f"year {local.year}"


@dataclass(frozen=True)
class Removal(Generic[K]):
    """Which items go and which stay.

    Attributes
    ----------
    goes
        What is to be removed, in this order.
    stays
        The others, the first saved first.
    reasons
        Why each item goes or stays, under its id.
    """

    goes: tuple[K, ...]
    stays: tuple[K, ...]
    reasons: Mapping[str, str]


def plan_removal(
    items: Iterable[K], policy: KeepPolicy, *, at_most: int | None = None, now: datetime.datetime
) -> Removal[K]:
    """Return which items go, so that what a policy keeps is left, and `at_most` so many.

    The items of each source are a series of their own for the policy, so that one that is copied often takes no place
    of the others. What it does not keep goes first, and then what is more than `at_most`, whether the policy keeps it
    or not: what was made automatically first, then what was made by hand, each the first saved first.

    There stays in any case what is pinned or has a tag, and of each source the last item that was read back whole, or
    the last one if none was. Where these are more than `at_most`, so many are left.

    The policy is not asked about an item whose time is after `now`, which would make all others old. It stays, unless
    there are more than `at_most`, which is counted in the order of saving.

    The order of `items` does not matter. Without what goes, the same plan lets nothing more go.

    Parameters
    ----------
    items
        All that there are.
    policy
        What to keep.
    at_most
        How many may be left, of all sources together.
    now
        The time, in UTC.

    Raises
    ------
    InvalidStateError
        Two items have one id, a time is not in UTC, or `at_most` is not a whole number of at least 1.
    """
    ordered = sorted(items, key=_order)
    _in_utc([now, *(item.created_at for item in ordered)])
    if len({item.id for item in ordered}) < len(ordered):
        raise InvalidStateError("two items have one id", next_step="give each item once")
    bound: dict[str, list[str]] = {}
    wanted: dict[str, str] = {}
    for _, copies in groupby(sorted(ordered, key=_source), key=_source):
        series = list(copies)
        bound |= _bound(series)
        wanted |= policy.kept(item for item in series if item.created_at <= now)
        wanted |= {
            item.id: f"its time, {item.created_at.isoformat()}, is in the future"
            for item in series
            if item.created_at > now
        }
    goes = [item for item in ordered if not bound[item.id] and item.id not in wanted]
    reasons = {item.id: f"not kept by {policy!r}" for item in goes}
    if at_most is not None:
        excess = len(ordered) - len(goes) - whole(at_most, "the number that may be left")
        free = [item for item in ordered if not bound[item.id] and item.id in wanted]
        for item in sorted(free, key=lambda item: not item.automatic)[: max(0, excess)]:
            goes.append(item)
            what = "automatic" if item.automatic else "made by hand"
            reasons[item.id] = f"more than {at_most} would be left, and of what is {what} it is the first saved"
    stays = tuple(item for item in ordered if item.id not in reasons)
    for item in stays:
        reasons[item.id] = "; ".join([*bound[item.id], *([wanted[item.id]] if item.id in wanted else [])])
    return Removal(tuple(goes), stays, reasons)


def _in_utc(times: Iterable[datetime.datetime]) -> None:
    for time in times:
        # Two times of one zone are subtracted as clocks on a wall are, which is wrong by an hour twice a year.
        if time.utcoffset() != datetime.timedelta():
            raise InvalidStateError(f"the time {time} is not in UTC", next_step="convert it: astimezone(datetime.UTC)")


def _bound(series: list[K]) -> dict[str, list[str]]:
    """Return why each item of a source stays whatever a policy says; nothing for those that may go."""
    whole_ones = [item for item in series if item.verified]
    guard = (whole_ones or series)[-1]
    why = "the last that was read back whole" if whole_ones else "the last, and none was read back whole"
    return {
        item.id: ["pinned"] * item.pinned + [_tagged(item.tags)] * bool(item.tags) + [why] * (item is guard)
        for item in series
    }


def _order(item: Kept) -> tuple[int, str]:
    return item.number, item.id


def _source(item: Kept) -> str:
    return item.source


def _tagged(tags: frozenset[str]) -> str:
    return f"tagged {', '.join(map(repr, sorted(tags)))}"


def _newest_of_each(
    items: list[Kept], named: Callable[[datetime.datetime], str], n: int | None = None
) -> dict[str, str]:
    """Return the last saved of each period, of the `n` periods that were last saved in, or of all."""
    newest: dict[str, str] = {}
    for item in items:
        newest.setdefault(named(item.created_at), item.id)
    return {one: f"the newest of the {period}" for period, one in islice(newest.items(), n)}
