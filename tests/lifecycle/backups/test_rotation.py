"""Which backups stay: tables of histories, and laws of every one, through `BackupManager.prune`."""

import datetime
import itertools
import shutil
import tempfile
from datetime import UTC, timedelta
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from quantum_memory.errors import ConflictError, IntegrityError
from quantum_memory.lifecycle.backup_manager import BackupManager
from quantum_memory.lifecycle.retention import (
    KeepAll,
    KeepDaily,
    KeepEvery,
    KeepHourly,
    KeepLast,
    KeepManual,
    KeepMonthly,
    KeepTagged,
    KeepWeekly,
    KeepWithin,
    KeepYearly,
)

from .trees import too_deep

NOTHING = KeepTagged("no such tag")
NOW = datetime.datetime(2030, 6, 15, 12, tzinfo=UTC)
BERLIN, NEW_YORK = "Europe/Berlin", "America/New_York"
CLOCKS = [f"quantum_memory.lifecycle.{name}.now" for name in (
    "repository.folder", "repository.pruning", "backups.saving", "backups.checking", "backups.checks",
)]  # fmt: skip


class History:
    """Backups that were made at given times, of sources with one letter each."""

    def __init__(self, place):
        self.place, self.ids = Path(place), []
        self._keepers = BackupManager(self.place / "backups", durable=False, keep=KeepAll())

    def manager(self, *limits, **options):
        return BackupManager(self.place / "backups", *limits, durable=False, **options)

    def saved(self, when, *, source="a", marks=""):
        """Make a backup: marks are a(utomatic), p(inned), t(agged), v(erified)."""
        path = self.place / source
        path.write_text(source)
        if not isinstance(when, datetime.datetime):
            when = datetime.datetime.fromisoformat(when).replace(tzinfo=UTC)
        with _still(when):
            one = self._keepers.create_backup(
                path, automatic="a" in marks, tags=[f"tag-{len(self.ids)}"] if "t" in marks else ()
            )
            if "p" in marks:
                self._keepers.pin(one)
            if "v" in marks:
                assert self._keepers.verify_backup(one)
        self.ids.append(one)
        return one

    def numbers(self, ids):
        return sorted(self.ids.index(one) + 1 for one in ids)

    def pruned(self, when=NOW, *limits, **options):
        """Return which are left, by number, having seen that what was foretold was done."""
        with _still(when), self.manager(*limits, **options) as bm:
            said = bm.prune(dry_run=True)
            assert said["collection"] is None
            assert set(said["removed"]) | set(said["kept"]) == {one["id"] for one in bm.list_backups()}
            done = bm.prune()
            assert done["removed"] == said["removed"]
            assert done["kept"].keys() == said["kept"].keys()
            left = {one["id"] for one in bm.list_backups()}
            assert left == set(said["kept"])
            assert bm.prune()["removed"] == {}
            assert bm.verify()
        return self.numbers(left)


class _still:
    """Have all clocks stand still for a block, and ids be counted within each instant."""

    def __init__(self, when):
        self._patches = [mock.patch(one, return_value=when) for one in CLOCKS]

    def __enter__(self):
        for one in self._patches:
            one.start()

    def __exit__(self, *_):
        for one in self._patches:
            one.stop()


def daily(count, first="2030-05-01", hour=3):
    start = datetime.datetime.fromisoformat(first).replace(tzinfo=UTC, hour=hour)
    return [start + timedelta(days=day) for day in range(count)]


def hours(first, count, step=1.0):
    start = datetime.datetime.fromisoformat(first).replace(tzinfo=UTC)
    return [start + timedelta(hours=step * k) for k in range(count)]


def of(source, *marks_and_times):
    return [(when, source, "") for when in marks_and_times]


TABLE = {
    # by count
    "the last": (KeepLast(1), ["2030-01-01", "2030-01-02", "2030-01-03"], [3]),
    "the last two": (KeepLast(2), ["2030-01-01", "2030-01-02", "2030-01-03"], [2, 3]),
    "fewer than asked for": (KeepLast(9), ["2030-01-01", "2030-01-02"], [1, 2]),
    "equal times": (KeepLast(2), ["2030-01-01"] * 4, [3, 4]),
    "a clock that was put back": (KeepLast(1), ["2030-02-01", "2030-01-01"], [2]),
    "all": (KeepAll(), ["1999-01-01", "2030-01-01"], [1, 2]),
    "one alone": (KeepLast(1), ["1999-01-01"], [1]),
    # by age
    "within a week": (KeepWithin("7d"), ["2030-01-01", "2030-01-05", "2030-01-12"], [2, 3]),
    "exactly a week": (KeepWithin("7d"), ["2030-01-01", "2030-01-08"], [1, 2]),
    "a moment more than a week": (KeepWithin("7d"), ["2030-01-01", "2030-01-08T00:00:00.000001"], [2]),
    "from the newest on, not from today": (KeepWithin("1d"), ["2020-01-01T00:00", "2020-01-01T20:00"], [1, 2]),
    "within, and a clock that was put back": (KeepWithin("1h"), ["2030-05-01T12", "2030-05-01T10"], [1, 2]),
    # periods
    "hourly": (KeepHourly(2), ["2030-05-01T10:10", "2030-05-01T10:50", "2030-05-01T12:00"], [2, 3]),
    "hourly, fewer than asked for": (KeepHourly(48), ["2030-05-01T10:10", "2030-05-01T10:50"], [2]),
    "daily": (KeepDaily(3), daily(6), [4, 5, 6]),
    "daily, of days that have any": (
        KeepDaily(2),
        ["2030-01-01", "2030-03-01T01", "2030-03-01T02", "2030-05-01"], [3, 4],
    ),
    "daily, equal times": (KeepDaily(2), ["2030-01-01"] * 3, [3]),
    "a leap day is a day": (KeepDaily(3), ["2028-02-28", "2028-02-29", "2028-03-01"], [1, 2, 3]),
    "no leap day in 2030": (KeepDaily(2), ["2030-02-27", "2030-02-28", "2030-03-01"], [2, 3]),
    "a leap year is one year": (KeepYearly(2), ["2028-02-29", "2028-12-31", "2029-01-01"], [2, 3]),
    "weekly, from Monday on": (KeepWeekly(2), ["2030-01-06", "2030-01-07", "2030-01-13", "2030-01-14"], [3, 4]),
    "weekly, the week of two years": (KeepWeekly(1), ["2029-12-31", "2030-01-06"], [2]),
    "monthly": (KeepMonthly(2), ["2030-01-31", "2030-02-01", "2030-02-28", "2030-03-01"], [3, 4]),
    "monthly, a leap month": (KeepMonthly(9), ["2028-02-01", "2028-02-29", "2028-03-01"], [2, 3]),
    "yearly": (KeepYearly(1), ["2028-12-31T23:59:59", "2029-01-01", "2029-06-01"], [3]),
    "every second day": (KeepEvery("2d"), daily(5, "2030-05-01"), [1, 3, 5]),
    "grandfather, father, son": (
        KeepDaily(2) | KeepWeekly(2) | KeepMonthly(2),
        daily(40, "2030-04-20"),  # up to May 29th, a Wednesday
        [11, 37, 39, 40],
    ),
    # the calendar of a place
    "Berlin, spring: the day has 23 hours": (
        KeepDaily(9, timezone=BERLIN),
        ["2030-03-30T22:59", "2030-03-30T23:00", "2030-03-31T21:59", "2030-03-31T22:00"], [1, 3, 4],
    ),
    "Berlin, autumn: the day has 25 hours": (
        KeepDaily(9, timezone=BERLIN),
        ["2029-10-27T21:59", "2029-10-27T22:00", "2029-10-28T22:59", "2029-10-28T23:00"], [1, 3, 4],
    ),
    "Berlin, autumn: one hour comes twice": (
        KeepHourly(9, timezone=BERLIN),
        ["2029-10-28T00:10", "2029-10-28T00:50", "2029-10-28T01:10", "2029-10-28T01:50"], [2, 4],
    ),
    "Berlin, spring: one hour is not there": (
        KeepHourly(9, timezone=BERLIN),
        ["2030-03-31T00:10", "2030-03-31T00:50", "2030-03-31T01:10", "2030-03-31T01:50"], [2, 4],
    ),
    "New York is a day behind": (KeepDaily(9, timezone=NEW_YORK), ["2030-01-02T04:59", "2030-01-02T05:00"], [1, 2]),
    "New York, autumn": (
        KeepHourly(9, timezone=NEW_YORK), ["2029-11-04T05:10", "2029-11-04T05:50", "2029-11-04T06:10"], [2, 3],
    ),
    # the future
    "one of the future does not make the others old": (
        KeepWithin("1d"),
        ["2030-05-01", "2030-05-02", "2040-01-01"], [1, 2, 3],
    ),
    "one of the future is not one of the last": (KeepLast(1), ["2030-05-01", "2030-05-02", "2040-01-01"], [2, 3]),
    "nothing but the future": (KeepLast(1), ["2040-01-01", "2050-01-01"], [1, 2]),
    # sources
    "each source has its own last": (
        KeepLast(1), [("2030-01-01", "a", ""), ("2030-01-02", "b", ""), ("2030-01-03", "b", "")], [1, 3],
    ),
    "each source has its own age": (
        KeepWithin("1d"), [("2020-01-01", "a", ""), ("2030-01-01", "b", ""), ("2030-01-05", "b", "")], [1, 3],
    ),
    "by turns": (
        KeepLast(2), [(when, source, "") for when, source in zip(daily(6), itertools.cycle("ab"))], [3, 4, 5, 6],
    ),
    # pins, tags, and who asked
    "a pin": (KeepLast(1), [("2030-01-01", "a", "p"), ("2030-01-02", "a", ""), ("2030-01-03", "a", "")], [1, 3]),
    "a tag": (KeepLast(1), [("2030-01-01", "a", "t"), ("2030-01-02", "a", ""), ("2030-01-03", "a", "")], [1, 3]),
    "a pin takes no place": (
        KeepLast(2),
        [("2030-01-01", "a", "p"), *of("a", "2030-01-02", "2030-01-03", "2030-01-04")], [1, 3, 4],
    ),
    "by hand": (KeepManual(), [("2030-01-01", "a", ""), ("2030-01-02", "a", "a"), ("2030-01-03", "a", "a")], [1, 3]),
    "by hand, or the last two": (
        KeepManual() | KeepLast(2),
        [("2030-01-01", "a", ""), *((f"2030-01-0{d}", "a", "a") for d in (2, 3, 4))], [1, 3, 4],
    ),
    "tagged alone": (NOTHING, [("2030-01-01", "a", "t"), ("2030-01-02", "a", ""), ("2030-01-03", "a", "")], [1, 3]),
    # what was read back
    "the newest is read back, and guards": (NOTHING, [("2030-01-01", "a", "v"), ("2030-01-02", "a", "")], [2]),
    "of each source": (
        NOTHING,
        [("2030-01-01", "a", "v"), ("2030-01-02", "a", ""), ("2030-01-03", "b", ""), ("2030-01-04", "b", "v")], [2, 4],
    ),
}  # fmt: skip


def test_there_are_rows_enough():
    assert len(TABLE) >= 40


@pytest.mark.parametrize("name", TABLE)
def test_what_is_left(tmp_path, name):
    policy, rows, left = TABLE[name]
    history = History(tmp_path)
    for row in rows:
        when, source, marks = row if isinstance(row, tuple) else (row, "a", "")
        history.saved(when, source=source, marks=marks)
    assert history.pruned(keep=policy) == left


def test_ten_that_are_not_older_than_thirty_days_by_default(tmp_path):
    history = History(tmp_path)
    for when in daily(14):
        history.saved(when)
    assert history.pruned() == list(range(5, 15))
    other = History(tmp_path / "b")
    other.place.mkdir()
    for when in ("2030-01-01", "2030-05-03", "2030-05-03T00:00:01", "2030-06-02"):
        other.saved(when)
    assert other.pruned() == [2, 3, 4]


@pytest.mark.parametrize(
    ("limits", "left"),
    [
        ((3, None), [4, 5, 6]), ((None, 1), [5, 6]), ((None, None), [1, 2, 3, 4, 5, 6]), ((1, 30), [6]),
        ((9, 2.5), [4, 5, 6]),
    ],
)  # fmt: skip
def test_limits(tmp_path, limits, left):
    history = History(tmp_path)
    for when in daily(6):
        history.saved(when)
    assert history.pruned(NOW, *limits) == left


def test_each_backup_removes_what_is_too_many(tmp_path):
    (tmp_path / "file").write_bytes(b"x")
    with BackupManager(tmp_path / "backups", 3, durable=False) as bm:
        ids = []
        for when in daily(6):
            with _still(when):
                ids.append(bm.create_backup(tmp_path / "file"))
        assert [one["id"] for one in bm.list_backups()] == ids[:2:-1]
        assert {line["backup"] for line in bm.folder.log() if line["action"] == "removed"} == set(ids[:3])


def test_nothing_goes_for_one_that_cannot_be_read(tmp_path):
    """The newest of a source is read back, every byte of it, before any goes."""
    history = History(tmp_path)
    for when in daily(2):
        history.saved(when)
    (tmp_path / "a").write_text("new")
    with _still(daily(3)[2]):
        last = history._keepers.create_backup(tmp_path / "a")
    other = [history.saved(when, source="b") for when in daily(3)]
    newest = max((tmp_path / "backups" / "chunks").glob("*.qmpack"), key=lambda one: one.stat().st_mtime_ns)
    packs = {one: one.read_bytes() for one in (tmp_path / "backups" / "chunks").glob("*.qmpack")}
    (newest,) = [one for one, data in packs.items() if b"new" in data]
    newest.write_bytes(packs[newest].replace(b"new", b"NEW"))
    with _still(NOW), history.manager(1, None) as bm:
        with pytest.raises(IntegrityError):
            bm.prune()
        left = {one["id"] for one in bm.list_backups()}
        assert left == {*history.ids[:2], last, other[-1]}


def test_what_is_whole_does_not_go_for_what_has_problems(tmp_path):
    """Though one that is without some of the files may be read back as well."""
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "file").write_text("x")
    history = History(tmp_path)
    with _still(daily(1)[0]):
        whole = history._keepers.create_backup(tree)
        assert history._keepers.verify_backup(whole)
    with too_deep(tree), _still(daily(2)[1]), pytest.warns(UserWarning, match="without 1"):
        history._keepers.create_backup(tree)
    history.ids = [one["id"] for one in reversed(history._keepers.list_backups())]
    assert history.pruned(keep=NOTHING) == [1]
    assert history.ids[0] == whole


def test_a_tagged_or_pinned_one_is_not_deleted_by_hand_either(tmp_path):
    history = History(tmp_path)
    one, other = history.saved("2030-01-01", marks="t"), history.saved("2030-01-02", marks="p")
    with history.manager() as bm:
        for backup in (one, other):
            with pytest.raises(ConflictError):
                bm.delete_backup(backup)
        bm.untag("tag-0")
        bm.unpin(other)
        bm.delete_backup(one)
        bm.delete_backup(other)
        assert bm.list_backups() == []


MOMENTS = st.integers(0, 400 * 24).map(lambda hour: datetime.datetime(2029, 7, 1, tzinfo=UTC) + timedelta(hours=hour))
ROWS = st.lists(
    st.tuples(MOMENTS, st.sampled_from("ab"), st.sampled_from(["", "", "", "a", "p", "t", "v"])), max_size=9
)
POLICIES = st.one_of(
    st.builds(KeepLast, st.integers(1, 4)),
    st.builds(KeepDaily, st.integers(1, 4)),
    st.builds(KeepMonthly, st.integers(1, 3)),
    st.builds(KeepWithin, st.sampled_from(["1h", "7d", "90d"])),
    st.just(NOTHING),
    st.just(KeepManual()),
    st.builds(lambda n, days: KeepLast(n) & KeepWithin(days * 86400), st.integers(1, 5), st.integers(1, 60)),
)


@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(ROWS, POLICIES)
def test_laws_of_every_history(rows, policy):
    """What was foretold is done (`History.pruned`); of each source one is left that was read back, the last."""
    place = tempfile.mkdtemp()
    try:
        history = History(place)
        for when, source, marks in rows:
            history.saved(when, source=source, marks=marks)
        left = history.pruned(keep=policy) if rows else []
        for source in {source for _, source, _ in rows}:
            numbers = [number for number, row in enumerate(rows, 1) if row[1] == source]
            assert set(numbers) & set(left)
            if set(numbers) - set(left):
                assert numbers[-1] in left  # it was read back before the others went
        for number, (_, _, marks) in enumerate(rows, 1):
            assert number in left or not set(marks) & set("pt")
        # A second opinion of the simplest policy.
        if isinstance(policy, KeepLast):
            for source in "ab":
                past = [number for number, (when, of, _) in enumerate(rows, 1) if of == source and when <= NOW]
                assert set(past[-policy.n :]) <= set(left)
    finally:
        shutil.rmtree(place)
