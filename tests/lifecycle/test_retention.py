"""What is kept: tables of what goes and stays, a model that says the same by definition, and laws of every plan."""

import dataclasses
import datetime
import math
import pickle
import random
from datetime import UTC, timedelta, timezone
from fractions import Fraction
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantum_memory.errors import InvalidStateError
from quantum_memory.lifecycle import retention
from quantum_memory.lifecycle.retention import (
    KeepAll,
    KeepBest,
    KeepDaily,
    KeepEvery,
    KeepHourly,
    KeepLast,
    KeepManual,
    KeepMonthly,
    KeepPolicy,
    KeepTagged,
    KeepWeekly,
    KeepWithin,
    KeepYearly,
    plan_removal,
)

NOW = datetime.datetime(2025, 12, 31, 12, tzinfo=UTC)
PAST = datetime.datetime(2025, 7, 1, 12, tzinfo=UTC)
NAN, INF = math.nan, math.inf
BERLIN, NEW_YORK = "Europe/Berlin", "America/New_York"


@dataclasses.dataclass(frozen=True)
class Item:
    number: int
    created_at: datetime.datetime = NOW
    metrics: dict = dataclasses.field(default_factory=dict, hash=False)
    automatic: bool = True
    pinned: bool = False
    tags: frozenset = frozenset()
    verified: bool = True
    source: str = ""

    @property
    def id(self):
        return f"{self.source}{self.number}"


def at(text):
    moment = datetime.datetime.fromisoformat(text)
    assert moment.utcoffset() is None  # tables are in UTC
    return moment.replace(tzinfo=UTC)


def saved(*texts):
    return [Item(number, at(text)) for number, text in enumerate(texts, 1)]


def energies(*values):
    return [Item(number, metrics={} if one is None else {"energy": one}) for number, one in enumerate(values, 1)]


KEPT = [
    ("nothing to keep", KeepLast(3), [], []),
    ("the last", KeepLast(1), saved(*["2025-01-01"] * 3), [3]),
    ("the last two of equal times", KeepLast(2), saved(*["2025-01-01"] * 3), [2, 3]),
    ("fewer than are asked for", KeepLast(9), saved("2025-01-01", "2025-01-02"), [1, 2]),
    ("the last, though the clock went back", KeepLast(1), saved("2025-06-01", "2025-01-01"), [2]),
    ("all", KeepAll(), saved("1970-01-01", "2025-01-01"), [1, 2]),
    # periods of a length
    ("one of a day", KeepEvery("1d"), saved("2025-05-01T00:00", "2025-05-01T23:59:59", "2025-05-02T00:00"), [2, 3]),
    ("half days", KeepEvery("12h"), saved("2025-05-01T11:59", "2025-05-01T12:00", "2025-05-01T23:00"), [1, 3]),
    ("half hours", KeepEvery("30m"), saved("2025-05-01T10:29", "2025-05-01T10:30", "2025-05-01T10:59"), [1, 3]),
    ("seconds", KeepEvery(90), saved("1970-01-01T00:01:29", "1970-01-01T00:01:30"), [1, 2]),
    ("parts of a second", KeepEvery(0.25), saved("2025-05-01T00:00:00.1", "2025-05-01T00:00:00.2"), [2]),
    ("weeks from the epoch, a Thursday", KeepEvery("1w"), saved("2025-10-22", "2025-10-23", "2025-10-29"), [1, 3]),
    ("before the epoch", KeepEvery("1d"), saved("1969-12-31T23:00", "1970-01-01T01:00"), [1, 2]),
    ("before the epoch, in one day", KeepEvery("1d"), saved("1969-12-31T00:00", "1969-12-31T23:00"), [2]),
    (
        "longer than history",
        KeepEvery("9999999w"),
        saved("0001-01-01", "1969-12-31", "1970-01-01", "2025-01-01"),
        [2, 4],
    ),
    ("of a day, the last saved, not the latest", KeepEvery("1d"), saved("2025-05-01T20:00", "2025-05-01T09:00"), [2]),
    # ages
    ("a week", KeepWithin("7d"), saved("2025-04-30", "2025-05-01", "2025-05-08"), [2, 3]),
    ("a run that stopped years ago", KeepWithin("1d"), saved("2020-01-01T00:00", "2020-01-01T20:00"), [1, 2]),
    ("the clock went back", KeepWithin("1h"), saved("2025-05-01T10", "2025-05-01T12", "2025-05-01T09"), [2, 3]),
    ("the clock forgot everything", KeepWithin("1h"), saved("2025-05-01T09", "2025-05-01T10", "1970-01-01"), [1, 2, 3]),
    # metrics
    ("the lowest", KeepBest("energy"), energies(-1.0, -3.0, -2.0), [2]),
    ("the highest", KeepBest("energy", mode="max"), energies(-1.0, -3.0, -2.0), [1]),
    ("two of the lowest", KeepBest("energy", 2), energies(-1.0, -3.0, -2.0), [2, 3]),
    ("of equal ones the newest", KeepBest("energy"), energies(-1.0, -1.0, 0.0), [2]),
    ("of equal ones the newest, highest", KeepBest("energy", mode="max"), energies(1.0, 1.0, 0.0), [2]),
    ("of two zeros the newest", KeepBest("energy"), energies(-0.0, 0.0), [2]),
    ("NaN is never best", KeepBest("energy", 3), energies(NAN, -1.0, NAN), [2]),
    ("NaN is never best, highest", KeepBest("energy", 3, mode="max"), energies(NAN, -1.0, NAN), [2]),
    ("nothing but NaN", KeepBest("energy"), energies(NAN, NAN), []),
    ("without the metric", KeepBest("energy", 2), energies(None, 5.0, None), [2]),
    ("another metric", KeepBest("depth"), energies(1.0, 2.0), []),
    ("without bound", KeepBest("energy"), energies(-INF, -5.0), [1]),
    # hours
    ("an hour", KeepHourly(9), saved("2025-05-01T10:00", "2025-05-01T10:59", "2025-05-01T11:00"), [2, 3]),
    (
        "the last two hours that have any",
        KeepHourly(2),
        saved("2025-05-01T10", "2025-05-01T15", "2025-05-03T01"),
        [2, 3],
    ),
    (
        "Berlin, autumn: the hour from two to three comes twice",
        KeepHourly(9, timezone=BERLIN),
        saved("2025-10-26T00:10", "2025-10-26T00:50", "2025-10-26T01:10", "2025-10-26T01:50", "2025-10-26T02:10"),
        [2, 4, 5],
    ),
    (
        "New York, autumn: the hour from one to two comes twice",
        KeepHourly(9, timezone=NEW_YORK),
        saved("2025-11-02T05:10", "2025-11-02T05:50", "2025-11-02T06:10", "2025-11-02T06:50"),
        [2, 4],
    ),
    (
        "Berlin, spring: from two to three there is nothing",
        KeepHourly(9, timezone=BERLIN),
        saved("2025-03-30T00:10", "2025-03-30T00:59", "2025-03-30T01:00", "2025-03-30T01:59"),
        [2, 4],
    ),
    (
        "hours begin at the half in India",
        KeepHourly(9, timezone="Asia/Kolkata"),
        saved("2025-05-01T10:29", "2025-05-01T10:31"),
        [1, 2],
    ),
    # days
    (
        "the last two days that have any",
        KeepDaily(2),
        saved("2025-01-01", "2025-03-01", "2025-03-01T05", "2025-05-01"),
        [3, 4],
    ),
    (
        "Berlin, summer: midnight is at ten",
        KeepDaily(9, timezone=BERLIN),
        saved("2025-07-01T21:59", "2025-07-01T22:00"),
        [1, 2],
    ),
    (
        "Berlin, winter: midnight is at eleven",
        KeepDaily(9, timezone=BERLIN),
        saved("2025-01-01T22:00", "2025-01-01T22:59", "2025-01-01T23:00"),
        [2, 3],
    ),
    (
        "Berlin, spring: a day of 23 hours",
        KeepDaily(9, timezone=BERLIN),
        saved("2025-03-29T22:59", "2025-03-29T23:00", "2025-03-30T21:59", "2025-03-30T22:00"),
        [1, 3, 4],
    ),
    (
        "Berlin, autumn: a day of 25 hours",
        KeepDaily(9, timezone=BERLIN),
        saved("2025-10-25T21:59", "2025-10-25T22:00", "2025-10-26T22:59", "2025-10-26T23:00"),
        [1, 3, 4],
    ),
    (
        "New York, spring: a day of 23 hours",
        KeepDaily(9, timezone=NEW_YORK),
        saved("2025-03-09T04:59", "2025-03-09T05:00", "2025-03-10T03:59", "2025-03-10T04:00"),
        [1, 3, 4],
    ),
    (
        "New York, autumn: a day of 25 hours",
        KeepDaily(9, timezone=NEW_YORK),
        saved("2025-11-02T03:59", "2025-11-02T04:00", "2025-11-03T04:59", "2025-11-03T05:00"),
        [1, 3, 4],
    ),
    ("the leap day", KeepDaily(9), saved("2024-02-28", "2024-02-29T01", "2024-02-29T02", "2024-03-01"), [1, 3, 4]),
    (
        "the day that Samoa left out",
        KeepDaily(9, timezone="Pacific/Apia"),
        saved("2011-12-30T09:59", "2011-12-30T10:00"),
        [1, 2],
    ),
    (
        "the clock went back by days",
        KeepDaily(2),
        saved("2025-05-01", "2025-05-02", "2025-05-03", "2025-01-01"),
        [3, 4],
    ),
    ("the first hours of all", KeepDaily(9, timezone=NEW_YORK), saved("0001-01-01", "2025-01-01"), [1, 2]),
    # weeks
    ("2020 had 53 weeks", KeepWeekly(9), saved("2020-12-27", "2020-12-28", "2021-01-03", "2021-01-04"), [1, 3, 4]),
    (
        "the last days of 2024 are of a week of 2025",
        KeepWeekly(9),
        saved("2024-12-29", "2024-12-30", "2025-01-05"),
        [1, 3],
    ),
    (
        "Monday comes earlier in Berlin",
        KeepWeekly(9, timezone=BERLIN),
        saved("2025-05-04T21:59", "2025-05-04T22:00"),
        [1, 2],
    ),
    # months and years
    ("a leap year's February", KeepMonthly(9), saved("2024-02-28", "2024-02-29T23:59:59", "2024-03-01"), [2, 3]),
    ("the same month of two years", KeepMonthly(9), saved("2024-05-01", "2025-05-01"), [1, 2]),
    ("the last month", KeepMonthly(1), saved("2025-01-31", "2025-02-01"), [2]),
    (
        "a month later in New York",
        KeepMonthly(9, timezone=NEW_YORK),
        saved("2025-05-31T22:00", "2025-06-01T03:59", "2025-06-01T04:00"),
        [2, 3],
    ),
    ("the end of a year", KeepYearly(9), saved("2023-12-31T23:59:59", "2024-01-01", "2024-12-31"), [1, 3]),
    (
        "the end of a year in Berlin",
        KeepYearly(9, timezone=BERLIN),
        saved("2024-12-31T22:59", "2024-12-31T23:00"),
        [1, 2],
    ),
    ("the last two years that have any", KeepYearly(2), saved("2020-01-01", "2021-01-01", "2025-01-01"), [2, 3]),
    # what somebody said
    ("by hand", KeepManual(), [Item(1), Item(2, automatic=False), Item(3)], [2]),
    ("tagged", KeepTagged("paper"), [Item(1, tags={"paper", "b"}), Item(2, tags={"b"}), Item(3)], [1]),
    ("one of two tags", KeepTagged("paper", "b"), [Item(1, tags={"paper", "b"}), Item(2, tags={"b"}), Item(3)], [1, 2]),
    # combined
    ("either", KeepLast(1) | KeepBest("energy"), energies(-5.0, 0.0, 1.0), [1, 3]),
    ("both", KeepLast(2) & KeepBest("energy", 2), energies(-5.0, 0.0, 1.0), [2]),
    ("neither", KeepLast(1) & KeepBest("energy"), energies(-5.0, 0.0, 1.0), []),
    (
        "the best of the last, or by hand",
        KeepLast(2) & KeepBest("energy", 2) | KeepManual(),
        energies(-5.0, 0.0, 1.0),
        [2],
    ),
]


@pytest.mark.parametrize(("policy", "items", "expected"), [pytest.param(*row[1:], id=row[0]) for row in KEPT])
def test_kept(policy, items, expected):
    items = [dataclasses.replace(item, tags=frozenset(item.tags)) for item in items]
    assert list(policy.kept(reversed(items))) == [str(number) for number in reversed(expected)]


A, B = "a/", "b/"
FUTURE = NOW + timedelta(hours=1)
HAND, PINNED, TAGGED, DOUBTFUL = (
    {"automatic": False},
    {"pinned": True},
    {"tags": frozenset({"paper"})},
    {"verified": False},
)


def items(*wishes):
    return [Item(number, **wish) for number, wish in enumerate(wishes, 1)]


PLANS = [
    ("nothing", [], KeepLast(1), None, []),
    ("nothing, and a limit", [], KeepLast(1), 1, []),
    ("one is never removed", items({}), KeepTagged("x"), None, []),
    ("one that was never read back", items(DOUBTFUL), KeepTagged("x"), 1, []),
    ("the oldest go first", items({}, {}, {}, {}), KeepLast(2), None, ["1", "2"]),
    ("never all: the last that is whole stays", items({}, {}, {}), KeepTagged("x"), None, ["1", "2"]),
    ("the last that is whole, beside later ones", items({}, {}, DOUBTFUL, DOUBTFUL), KeepLast(1), None, ["1", "3"]),
    ("nothing is whole: the last stays", items(DOUBTFUL, DOUBTFUL), KeepTagged("x"), None, ["1"]),
    ("pinned", items(PINNED, {}, {}), KeepLast(1), None, ["2"]),
    ("tagged", items({}, TAGGED, {}), KeepLast(1), None, ["1"]),
    ("pinned ones take a place of the last", items({}, PINNED, {}), KeepLast(2), None, ["1"]),
    (
        "one series for each source",
        [Item(1, source=A), Item(2, source=A), Item(3, source=B)],
        KeepLast(1),
        None,
        ["a/1"],
    ),
    (
        "whole ones of each source",
        [Item(1, source=A), Item(2, source=A, verified=False), Item(3, source=B)],
        KeepLast(1),
        None,
        [],
    ),
    ("a limit alone", items({}, {}, {}, {}), KeepAll(), 2, ["1", "2"]),
    ("a limit that is not reached", items({}, {}), KeepAll(), 2, []),
    ("what is automatic goes before what was made by hand", items(HAND, {}, HAND, {}, {}), KeepAll(), 3, ["2", "4"]),
    ("by hand, when nothing automatic may go", items(HAND, {}, HAND, {}, {}), KeepAll(), 1, ["2", "4", "1", "3"]),
    ("a limit counts what is pinned", items(PINNED, {}, {}, {}), KeepAll(), 2, ["2", "3"]),
    ("more are pinned than may be left", items(PINNED, PINNED, TAGGED, {}, {}), KeepAll(), 1, ["4"]),
    (
        "a limit smaller than the sources",
        [Item(1, source=A), Item(2, source=B), Item(3, source=B)],
        KeepAll(),
        1,
        ["b/2"],
    ),
    (
        "a limit over all sources",
        [Item(1, source=A), Item(2, source=B), Item(3, source=A), Item(4, source=B)],
        KeepAll(),
        3,
        ["a/1"],
    ),
    ("a limit does not free the last whole one", items({}, DOUBTFUL, DOUBTFUL), KeepAll(), 1, ["2", "3"]),
    (
        "what the policy does not keep goes before the limit counts",
        items({}, HAND, {}, {}, {}),
        KeepLast(3),
        2,
        ["1", "2", "3"],
    ),
    ("a limit that the policy meets", items({}, {}, {}, {}), KeepLast(2), 3, ["1", "2"]),
    ("from the future", items({"created_at": FUTURE}, {}, {}), KeepLast(1), None, ["2"]),
    (
        "the future makes nothing old",
        items({"created_at": NOW + timedelta(days=999)}, {}, {}),
        KeepWithin("1h"),
        None,
        [],
    ),
    ("now is not the future", items({"created_at": NOW}, {}, {}), KeepLast(1), None, ["1", "2"]),
    ("a limit counts what is from the future", items({"created_at": FUTURE}, {}, {}), KeepAll(), 2, ["1"]),
    ("all from the future", items(*[{"created_at": FUTURE}] * 3), KeepLast(1), None, []),
    ("all from the future, and a limit", items(*[{"created_at": FUTURE}] * 3), KeepLast(1), 1, ["1", "2"]),
    (
        "the clock went back: the last stays",
        items({}, {"created_at": NOW - timedelta(days=9)}),
        KeepLast(1),
        None,
        ["1"],
    ),
]


@pytest.mark.parametrize(
    ("given_items", "policy", "at_most", "goes"), [pytest.param(*row[1:], id=row[0]) for row in PLANS]
)
def test_plan(given_items, policy, at_most, goes):
    plan = plan_removal(given_items, policy, at_most=at_most, now=NOW)
    assert [item.id for item in plan.goes] == goes
    assert sorted(item.id for item in plan.stays) == sorted({item.id for item in given_items} - set(goes))


def test_every_item_has_its_reason():
    series = [
        Item(1, PAST, pinned=True),
        Item(2, PAST),
        Item(3, PAST, {"energy": -1.136189}, tags=frozenset({"paper", "draft"})),
        Item(4, FUTURE),
        Item(5, PAST + timedelta(days=1)),
        Item(6, PAST + timedelta(days=2), automatic=False),
        Item(7, PAST + timedelta(days=2), verified=False),
    ]
    plan = plan_removal(series, KeepLast(1) | KeepDaily(2, timezone=BERLIN) | KeepBest("energy"), at_most=5, now=NOW)
    assert [item.number for item in plan.goes] == [2, 4]
    assert dict(plan.reasons) == {
        "1": "pinned",
        "2": "not kept by KeepLast(1) | KeepDaily(2, timezone='Europe/Berlin') | KeepBest('energy')",
        "3": "tagged 'draft', 'paper'; the best by energy, -1.13619",
        "4": "more than 5 would be left, and of what is automatic it is the first saved",
        "5": "the newest of the day 2025-07-02",
        "6": "the last that was read back whole",
        "7": "the last; the newest of the day 2025-07-03",
    }


@pytest.mark.parametrize(
    ("policy", "reason"),
    [
        (KeepAll(), "everything is kept"),
        (KeepLast(3), "one of the last 3"),
        (KeepLast(3) & KeepManual(), "one of the last 3 and made by hand"),
        (KeepLast(3) | KeepManual(), "one of the last 3; made by hand"),
        (KeepBest("energy", 2, mode="max"), "one of the best 2 by energy, 0.25"),
        (KeepWithin("24h"), "at most 1d older than the newest"),
        (KeepEvery("12h"), "the newest of the 12h from 2025-07-01T12:00:00+00:00"),
        (KeepHourly(1, timezone=BERLIN), "the newest of the hour 2025-07-01T14+02:00"),
        (KeepWeekly(1), "the newest of the week 2025-W27"),
        (KeepMonthly(1), "the newest of the month 2025-07"),
        (KeepYearly(1), "the newest of the year 2025"),
        (KeepTagged("a", "b"), "tagged 'a'"),
    ],
)
def test_reasons_of_policies(policy, reason):
    item = Item(1, PAST, {"energy": 0.25}, automatic=False, tags=frozenset("ac"))
    assert policy.kept([item]) == {"1": reason}
    assert plan_removal([item], policy, now=NOW).reasons["1"].endswith(reason)


# The model: a policy, and what it means by definition for one item among all. It shares no code with the policy.


def later(item, among):
    return [one for one in among if one.number > item.number]


def rank(item, metric, mode):
    return (item.metrics[metric] if mode == "max" else -item.metrics[metric], item.number)


def has(item, metric):
    return not math.isnan(item.metrics.get(metric, NAN))


def index_of(moment, seconds):
    since = moment - datetime.datetime(1970, 1, 1, tzinfo=UTC)
    whole = Fraction(since.days * 86400 + since.seconds) + Fraction(since.microseconds, 10**6)
    return math.floor(whole / Fraction(seconds))


CALENDAR = {
    KeepHourly: lambda local: (local.date(), local.hour, local.utcoffset()),
    KeepDaily: lambda local: local.date(),
    KeepWeekly: lambda local: local.date() - timedelta(days=local.weekday()),  # its Monday
    KeepMonthly: lambda local: (local.year, local.month),
    KeepYearly: lambda local: local.year,
}


def calendar(kind, n, zone):
    def period(item):
        return CALENDAR[kind](item.created_at.astimezone(ZoneInfo(zone)))

    def meaning(item, among):
        periods = {period(one) for one in later(item, among)}
        return period(item) not in periods and len(periods) < n

    return kind(n, timezone=zone), meaning


def best(metric, n, mode):
    def meaning(item, among):
        return has(item, metric) and n > sum(
            rank(one, metric, mode) > rank(item, metric, mode) for one in among if has(one, metric)
        )

    return KeepBest(metric, n, mode=mode), meaning


numbers = st.integers(1, 4)
lengths = st.sampled_from([1, 90, 3600, 43200, 86400, 604800, 0.5])
leaves = st.one_of(
    numbers.map(lambda n: (KeepLast(n), lambda item, among: len(later(item, among)) < n)),
    lengths.map(
        lambda length: (
            KeepEvery(length),
            lambda item, among: all(
                index_of(one.created_at, length) != index_of(item.created_at, length) for one in later(item, among)
            ),
        )
    ),
    lengths.map(
        lambda length: (
            KeepWithin(length),
            lambda item, among: (
                not any(one.created_at > item.created_at + timedelta(seconds=length) for one in later(item, among))
            ),
        )
    ),
    st.builds(best, st.sampled_from(["energy", "loss"]), numbers, st.sampled_from(["min", "max"])),
    st.builds(calendar, st.sampled_from(list(CALENDAR)), numbers, st.sampled_from(["UTC", BERLIN, NEW_YORK])),
    st.just((KeepAll(), lambda item, among: True)),
    st.just((KeepManual(), lambda item, among: not item.automatic)),
    st.sampled_from("xyz").map(lambda tag: (KeepTagged(tag), lambda item, among: tag in item.tags)),
)


def combine(a, b, both):
    if both:
        return a[0] & b[0], lambda item, among: a[1](item, among) and b[1](item, among)
    return a[0] | b[0], lambda item, among: a[1](item, among) or b[1](item, among)


modelled = st.recursive(leaves, lambda inner: st.builds(combine, inner, inner, st.booleans()), max_leaves=5)
policies = modelled.map(lambda made: made[0])

# Around both changes of the clocks in Berlin and New York, and close together, so that periods are shared.
moments = st.builds(
    lambda start, minutes: at(start) + timedelta(minutes=minutes),
    st.sampled_from(["2025-10-25T20", "2025-11-02T03", "2025-03-29T22", "2025-03-09T04", "2024-12-29T22"]),
    st.integers(0, 3000),
)
values = st.sampled_from([-1.0, -0.5, 0.0, -0.0, 2.0, INF, NAN])


@st.composite
def stores(draw):
    sources = draw(st.sampled_from([[""], [A, B]]))
    return [
        Item(
            number,
            draw(moments),
            draw(st.dictionaries(st.sampled_from(["energy", "loss"]), values)),
            *draw(st.tuples(st.booleans(), st.sampled_from([False, False, True]))),
            draw(st.sampled_from([frozenset(), frozenset(), frozenset(), frozenset("x"), frozenset("yz")])),
            draw(st.booleans()),
            draw(st.sampled_from(sources)),
        )
        for number in range(draw(st.integers(0, 12)))
    ]


nows = moments | st.just(NOW)
limits = st.none() | st.integers(1, 6)


@given(modelled, stores())
def test_policies_keep_what_the_model_keeps(made, store):
    policy, meaning = made
    assert set(policy.kept(store)) == {item.id for item in store if meaning(item, store)}


@given(policies, policies, policies, stores())
def test_algebra(a, b, c, store):
    def kept(policy):
        return set(policy.kept(store))

    assert kept(a | b) == kept(b | a) == kept(a) | kept(b)
    assert kept(a & b) == kept(b & a) == kept(a) & kept(b)
    assert (a | b) | c == a | (b | c)
    assert (a & b) & c == a & (b & c)
    assert a | a == a == a & a
    assert kept(a & (b | c)) == kept((a & b) | (a & c))
    assert kept(a | (b & c)) == kept((a | b) & (a | c))
    assert kept(a | (a & b)) == kept(a) == kept(a & (a | b))


@given(modelled, stores(), limits, nows)
def test_plans_do_what_the_model_says(made, store, at_most, now):
    policy, meaning = made
    plan = plan_removal(store, policy, at_most=at_most, now=now)
    goes = {item.id for item in plan.goes}

    def bound(item):
        copies = [one for one in store if one.source == item.source]
        whole = [one for one in copies if one.verified]
        return item.pinned or item.tags or item is max(whole or copies, key=lambda one: one.number)

    def wanted(item):
        past = [one for one in store if one.source == item.source and one.created_at <= now]
        return item.created_at > now or meaning(item, past)

    stays = [item for item in store if bound(item) or wanted(item)]
    while at_most is not None and len(stays) > at_most and (free := [item for item in stays if not bound(item)]):
        stays.remove(min(free, key=lambda item: (not item.automatic, item.number)))
    assert [item.id for item in plan.stays] == [item.id for item in stays]
    assert goes == {item.id for item in store} - {item.id for item in stays}


@given(policies, stores(), limits, nows, st.randoms(use_true_random=False))
def test_laws_of_every_plan(policy, store, at_most, now, chance):
    plan = plan_removal(store, policy, at_most=at_most, now=now)
    assert sorted([*plan.goes, *plan.stays], key=lambda item: item.number) == store
    assert plan.reasons.keys() == {item.id for item in store}
    assert all(plan.reasons.values())
    assert not any(item.pinned or item.tags for item in plan.goes)
    assert bool(plan.stays) == bool(store)
    for source in {item.source for item in store}:
        verified = [item for item in store if item.source == source and item.verified]
        assert verified[-1:] == [item for item in plan.stays if item in verified][-1:]
        assert any(item.source == source for item in plan.stays)
    shuffled = list(store)
    chance.shuffle(shuffled)
    assert plan_removal(iter(shuffled), policy, at_most=at_most, now=now) == plan
    assert plan_removal(plan.stays, policy, at_most=at_most, now=now).goes == ()
    # Interrupted anywhere and planned again, it spares what it would have spared.
    plan = plan_removal(store, policy, now=now)
    rest = plan.goes[chance.randint(0, len(plan.goes)) :]
    assert {*plan.stays} <= {*plan_removal([*plan.stays, *rest], policy, now=now).stays}


@given(policies)
def test_a_policy_reads_as_the_code_that_makes_it(policy):
    again = eval(repr(policy), vars(retention))  # what our own repr gives
    assert again == policy
    assert hash(again) == hash(policy)
    assert pickle.loads(pickle.dumps(policy)) == policy


@pytest.mark.parametrize(
    ("policy", "written"),
    [
        (KeepEvery("24h"), "KeepEvery('1d')"),
        (KeepEvery(86400), "KeepEvery('1d')"),
        (KeepEvery("90m"), "KeepEvery('90m')"),
        (KeepEvery("1.5h"), "KeepEvery('90m')"),
        (KeepEvery(1e-6), "KeepEvery('0.000001s')"),
        (KeepWithin("14d"), "KeepWithin('2w')"),
        (KeepTagged("b", "a"), "KeepTagged('a', 'b')"),
        (KeepBest("energy", mode="max"), "KeepBest('energy', mode='max')"),
        (KeepDaily(7), "KeepDaily(7)"),
        ((KeepLast(1) | KeepAll()) & KeepManual(), "(KeepLast(1) | KeepAll()) & KeepManual()"),
    ],
)
def test_how_policies_read(policy, written):
    assert repr(policy) == written
    assert eval(written, vars(retention)) == policy


def test_policies_differ_by_class_and_by_value():
    assert KeepDaily(3) != KeepWeekly(3) != KeepWeekly(4)
    assert KeepDaily(3, timezone=BERLIN) != KeepDaily(3)
    assert KeepEvery("24h") == KeepEvery("1d") != KeepWithin("1d")


@pytest.mark.parametrize(
    "make",
    [
        lambda: KeepLast(0),
        lambda: KeepLast(1.5),
        lambda: KeepBest("energy", 0),
        lambda: KeepBest("energy", mode="lowest"),
        lambda: KeepEvery("1 day"),
        lambda: KeepEvery("d"),
        lambda: KeepEvery("-1d"),
        lambda: KeepEvery("0d"),
        lambda: KeepEvery("١d"),
        lambda: KeepEvery(0),
        lambda: KeepEvery(NAN),
        lambda: KeepEvery(INF),
        lambda: KeepEvery("9" * 400 + "w"),
        lambda: KeepEvery(None),
        lambda: KeepWithin("5y"),
        lambda: KeepDaily(0),
        lambda: KeepDaily(3, timezone="Europe/Atlantis"),
        lambda: KeepDaily(3, timezone="../UTC"),
        lambda: KeepDaily(3, timezone="Europe"),
        lambda: KeepDaily(3, timezone=""),
        KeepTagged,
        lambda: plan_removal([], KeepAll(), at_most=0, now=NOW),
        lambda: plan_removal([Item(1), Item(1)], KeepAll(), now=NOW),
        lambda: plan_removal([], KeepAll(), now=NOW.replace(tzinfo=None)),
        lambda: plan_removal([Item(1, NOW.replace(tzinfo=None))], KeepAll(), now=NOW),
        lambda: KeepWithin("1h").kept([Item(1, NOW.astimezone(timezone(timedelta(hours=2))))]),
    ],
)
def test_what_is_refused(make):
    with pytest.raises(InvalidStateError) as caught:
        make()
    assert caught.value.next_step


@pytest.mark.parametrize("other", [3, None, "KeepLast(3)"])
def test_only_policies_are_combined(other):
    with pytest.raises(TypeError):
        KeepLast(3) | other
    with pytest.raises(TypeError):
        KeepLast(3) & other


def test_numbers_that_are_equal_are_told_apart_by_id():
    twins = [Item(7, source=A), Item(7, source=B), Item(7, source="c/")]
    plans = [plan_removal(random.Random(seed).sample(twins, 3), KeepAll(), at_most=1, now=NOW) for seed in range(9)]
    assert all(plan == plans[0] for plan in plans)
    assert list(KeepLast(2).kept(twins)) == ["c/7", "b/7"]


def test_a_large_store():
    store = [Item(number, NOW - timedelta(minutes=20_000 - number)) for number in range(20_000)]
    plan = plan_removal(store, KeepLast(10) | KeepHourly(24) | KeepDaily(7), now=NOW)
    assert len(plan.stays) == 10 + (24 - 1) + (7 - 2)  # the last is of all three, and the last of yesterday of two


def test_every_policy_is_a_frozen_dataclass():
    found = [one for one in vars(retention).values() if isinstance(one, type) and issubclass(one, KeepPolicy)]
    assert len(found) == 16
    for one in found:
        assert one is KeepPolicy or one.__dataclass_params__.frozen
