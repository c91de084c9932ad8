"""When a save is due: tables of moments, and laws that hold for all of them."""

import dataclasses
import itertools
import math
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantum_memory.errors import InvalidStateError
from quantum_memory.lifecycle import due
from quantum_memory.lifecycle.due import (
    Always,
    AtSteps,
    EverySeconds,
    EverySteps,
    Moment,
    Never,
    SavePolicy,
    WhenBetter,
    adapted,
    extremes,
)

NAN, INF = math.nan, math.inf


def times(now, saved_at, cost=None):
    return Moment(now=now, saved_at=saved_at, cost=cost)


def steps(step, saved_step):
    return Moment(now=0.0, step=step, saved_step=saved_step)


def energies(value, *saved):
    lowest, highest = extremes({"energy": one} for one in saved)
    return Moment(now=0.0, metrics={} if value is None else {"energy": value}, lowest=lowest, highest=highest)


TABLE = [
    ("the first save is due at once", EverySeconds(600), times(0.0, None), True),
    ("a second too early", EverySeconds(600), times(699.0, 100.0), False),
    ("at the second", EverySeconds(600), times(700.0, 100.0), True),
    ("long after it", EverySeconds(600), times(1e9, 100.0), True),
    ("the clock went back", EverySeconds(600), times(99.0, 100.0), True),
    ("an interval of nothing", EverySeconds(0), times(100.0, 100.0), True),
    ("a dear save, any share", EverySeconds(60, share=None), times(60.0, 0.0, cost=50.0), True),
    ("a dear save puts the next off", EverySeconds(60, share=0.1), times(499.0, 0.0, cost=50.0), False),
    ("until its share is small", EverySeconds(60, share=0.1), times(500.0, 0.0, cost=50.0), True),
    ("a cheap save puts nothing off", EverySeconds(60, share=0.1), times(60.0, 0.0, cost=6.0), True),
    ("a share, and nothing known of the cost", EverySeconds(60, share=0.1), times(60.0, 0.0), True),
    ("no counter", EverySteps(100), steps(None, None), False),
    ("no counter now", EverySteps(100), steps(None, 100), False),
    ("before the first multiple", EverySteps(100), steps(99, None), False),
    ("nothing is done at step 0", EverySteps(100), steps(0, None), False),
    ("the first multiple", EverySteps(100), steps(100, None), True),
    ("a multiple, saved already", EverySteps(100), steps(100, 100), False),
    ("a jump over two multiples", EverySteps(100), steps(205, 95), True),
    ("a jump within a hundred", EverySteps(100), steps(199, 101), False),
    ("fewer than a hundred steps, but a multiple", EverySteps(100), steps(200, 199), True),
    ("every step", EverySteps(1), steps(8, 7), True),
    ("gone back to the beginning", EverySteps(100), steps(0, 250), True),
    ("gone back, and at a multiple", EverySteps(100), steps(100, 250), True),
    ("gone back over no multiple", EverySteps(100), steps(240, 250), False),
    ("gone back, and saved since", EverySteps(100), steps(299, 240), False),
    ("steps past 2**53", EverySteps(10), steps(10**17, 10**17 - 1), True),
    ("below zero", EverySteps(10), steps(-10, -11), True),
    ("at one of the steps", AtSteps({10, 1000}), steps(10, None), True),
    ("before all of them", AtSteps({10, 1000}), steps(9, None), False),
    ("between them", AtSteps({10, 1000}), steps(999, 10), False),
    ("a jump over one", AtSteps({10, 1000}), steps(1005, 999), True),
    ("after all of them", AtSteps({10, 1000}), steps(5000, 1005), False),
    ("a step that was saved for another reason", AtSteps({10}), steps(10, 10), False),
    ("steps, gone back before all", AtSteps({10, 1000}), steps(5, 2000), True),
    ("steps, gone back over none", AtSteps({10, 1000}), steps(10, 20), False),
    ("steps, gone back and on to one", AtSteps({10, 1000}), steps(10, 2000), True),
    ("no steps", AtSteps([]), steps(10, None), False),
    ("steps without a counter", AtSteps({0}), steps(None, None), False),
    ("the first value", WhenBetter("energy"), energies(-1.0), True),
    ("no value", WhenBetter("energy"), energies(None), False),
    ("no value, after some", WhenBetter("energy"), energies(None, -1.0), False),
    ("NaN is no value", WhenBetter("energy"), energies(NAN), False),
    ("NaN is not better", WhenBetter("energy"), energies(NAN, -1.0), False),
    ("any value is better than NaN", WhenBetter("energy"), energies(5.0, NAN), True),
    ("lower", WhenBetter("energy"), energies(-1.1, -1.0), True),
    ("equal", WhenBetter("energy"), energies(-1.0, -1.0), False),
    ("lower than the last, not than the best", WhenBetter("energy"), energies(-1.1, -1.2, -1.0), False),
    ("higher", WhenBetter("energy", mode="max"), energies(3.0, 1.0, 2.0), True),
    ("higher than the last, not than the best", WhenBetter("energy", mode="max"), energies(3.0, 4.0, 2.0), False),
    ("lower by too little", WhenBetter("energy", at_least=0.25), energies(-1.125, -1.0), False),
    ("lower by just enough", WhenBetter("energy", at_least=0.25), energies(-1.25, -1.0), True),
    ("higher by too little", WhenBetter("energy", mode="max", at_least=0.25), energies(1.125, 1.0), False),
    ("higher by just enough", WhenBetter("energy", mode="max", at_least=0.25), energies(1.25, 1.0), True),
    ("from no bound to one", WhenBetter("energy", at_least=1.0), energies(0.0, INF), True),
    ("no better than what has no bound", WhenBetter("energy"), energies(-INF, -INF), False),
    ("always", Always(), times(0.0, 0.0), True),
    ("never", Never(), times(1e9, None), False),
    ("one of two", EverySeconds(600) | EverySteps(100), Moment(now=1.0, saved_at=0.0, step=100, saved_step=1), True),
    ("one of two is not both", EverySeconds(600) & EverySteps(100), Moment(now=1.0, saved_at=0.0, step=100), False),
    ("both", EverySeconds(600) & EverySteps(100), Moment(now=600.0, saved_at=0.0, step=100), True),
    ("better, but too soon", WhenBetter("energy") & EverySeconds(9), times(1.0, 0.0), False),
]


@pytest.mark.parametrize(("policy", "moment", "expected"), [pytest.param(*row[1:], id=row[0]) for row in TABLE])
def test_table(policy, moment, expected):
    assert policy.due(moment) is expected


def run_of(policy, counter):
    """Return at which steps a run is saved whose counter shows these."""
    saved_step, saved = None, []
    for step in counter:
        if policy.due(steps(step, saved_step)):
            saved_step = step
            saved.append(step)
    return saved


def test_a_run_that_starts_over_is_saved_as_often_as_before():
    counter = [*range(0, 450, 7)]
    assert run_of(EverySteps(100), counter * 2) == [105, 203, 301, 406, 0, 105, 203, 301, 406]
    assert run_of(AtSteps({20, 200}), counter * 2) == [21, 203, 0, 21, 203]


@given(st.integers(1, 40), st.lists(st.integers(0, 30), max_size=30))
def test_every_multiple_that_is_passed_is_followed_by_a_save(n, strides):
    counter = [sum(strides[:i]) for i in range(len(strides) + 1)]
    expected = [
        now for before, now in itertools.pairwise(counter) if any(step % n == 0 for step in range(before + 1, now + 1))
    ]
    assert run_of(EverySteps(n), counter) == expected


@given(st.sets(st.integers(0, 60)), st.lists(st.integers(0, 30), max_size=30))
def test_every_step_that_is_passed_is_followed_by_a_save(marks, strides):
    counter = [sum(strides[:i]) for i in range(len(strides) + 1)]
    before = [-1, *counter]
    expected = [now for last, now in zip(before, counter, strict=False) if marks & set(range(last + 1, now + 1))]
    assert run_of(AtSteps(marks), counter) == expected


@given(st.integers(1, 40), st.lists(st.integers(0, 200), min_size=1, max_size=20))
def test_no_counter_hangs_saving(n, counter):
    following = range(counter[-1] + 1, counter[-1] + n + 1)
    assert len(run_of(EverySteps(n), [*counter, *following])) > len(run_of(EverySteps(n), counter))


def moments():
    number = st.none() | st.integers(-20, 300)
    seconds = st.floats(0, 1000)
    values = st.dictionaries(st.sampled_from(["energy", "loss"]), st.floats())
    return st.builds(
        Moment,
        now=seconds,
        saved_at=st.none() | seconds,
        step=number,
        saved_step=number,
        metrics=values,
        lowest=values,
        highest=values,
        cost=st.none() | seconds,
    )


policies = st.recursive(
    st.one_of(
        st.just(Always()),
        st.just(Never()),
        st.builds(EverySeconds, st.floats(0, 1000), share=st.none() | st.floats(0.01, 1)),
        st.builds(EverySteps, st.integers(1, 300)),
        st.builds(AtSteps, st.sets(st.integers(-20, 300))),
        st.builds(
            WhenBetter,
            st.sampled_from(["energy", "loss"]),
            mode=st.sampled_from(["min", "max"]),
            at_least=st.floats(0, 10),
        ),
    ),
    lambda inner: st.builds(lambda a, b, both: a & b if both else a | b, inner, inner, st.booleans()),
    max_leaves=6,
)


@given(policies, policies, policies, moments())
def test_algebra(a, b, c, moment):
    assert (a | b).due(moment) == (a.due(moment) or b.due(moment)) == (b | a).due(moment)
    assert (a & b).due(moment) == (a.due(moment) and b.due(moment)) == (b & a).due(moment)
    assert (a | b) | c == a | (b | c)
    assert (a & b) & c == a & (b & c)
    assert a | a == a == a & a
    assert (a & (b | c)).due(moment) == ((a & b) | (a & c)).due(moment)
    assert (a | (b & c)).due(moment) == ((a | b) & (a | c)).due(moment)


@given(policies)
def test_a_policy_reads_as_the_code_that_makes_it(policy):
    again = eval(repr(policy), vars(due))  # what our own repr gives
    assert again == policy
    assert hash(again) == hash(policy)
    assert pickle.loads(pickle.dumps(policy)) == policy


def test_how_policies_read():
    written = {
        "EverySeconds(600) | EverySteps(100)": EverySeconds(600) | EverySteps(100) | EverySeconds(600),
        "(Always() | Never()) & EverySteps(5)": (Always() | Never()) & EverySteps(np.int64(5)),
        "Always() | (Never() & EverySteps(5))": Always() | Never() & EverySteps(5),
        "EverySeconds(1.5, share=0.2)": EverySeconds(1.5, share=0.2),
        "AtSteps({10, 200, 3000})": AtSteps([3000, 200, 10, 10]),
        "WhenBetter('energy')": WhenBetter("energy"),
        "WhenBetter('energy', mode='max', at_least=0.1)": WhenBetter("energy", mode="max", at_least=0.1),
    }
    assert {repr(policy): policy for policy in written.values()} == written


def test_policies_differ_by_class_and_by_value_and_do_not_change():
    assert EverySeconds(100) != EverySteps(100) != EverySteps(101)
    assert Always() | Never() != Always() & Never()
    with pytest.raises(dataclasses.FrozenInstanceError):
        EverySteps(100).n = 5


@pytest.mark.parametrize(
    "make",
    [
        lambda: EverySeconds(-1),
        lambda: EverySeconds(NAN),
        lambda: EverySeconds(INF),
        lambda: EverySeconds("600"),
        lambda: EverySeconds(1, share=0),
        lambda: EverySeconds(1, share=1.5),
        lambda: EverySeconds(1, share=NAN),
        lambda: EverySteps(0),
        lambda: EverySteps(-3),
        lambda: EverySteps(2.5),
        lambda: WhenBetter("energy", mode="lowest"),
        lambda: WhenBetter("energy", at_least=-1),
        lambda: adapted(1.0, -1.0, 0.1),
        lambda: adapted(1.0, NAN, 0.1),
    ],
)
def test_values_that_make_no_policy(make):
    with pytest.raises(InvalidStateError) as caught:
        make()
    assert caught.value.next_step


@pytest.mark.parametrize("other", [600, None, "EverySteps(3)"])
def test_only_policies_are_combined(other):
    with pytest.raises(TypeError):
        EverySteps(3) | other
    with pytest.raises(TypeError):
        EverySteps(3) & other


@pytest.mark.parametrize(
    ("interval", "cost", "share", "expected"),
    [
        (60.0, 3.0, 0.1, 60.0),
        (60.0, 6.0, 0.1, 60.0),
        (60.0, 12.0, 0.1, 120.0),
        (0.0, 2.0, 0.5, 4.0),
        (5.0, 0.0, 0.01, 5.0),
        (5.0, 50.0, 1, 50.0),
        (5.0, None, 0.1, 5.0),
        (5.0, 50.0, None, 5.0),
    ],
)
def test_adapted(interval, cost, share, expected):
    assert adapted(interval, cost, share) == expected


@given(st.floats(0, 1e6), st.floats(0, 1e6), st.floats(0.001, 1))
def test_saving_stays_under_its_share(interval, cost, share):
    used = adapted(interval, cost, share)
    assert used >= interval
    assert cost / (used + cost or 1.0) <= share  # the interval begins when a save has ended
    assert used == interval or cost > 0.999 * share * interval  # and is not raised for nothing


@given(st.lists(st.dictionaries(st.sampled_from("ab"), st.floats())))
def test_extremes(saved):
    lowest, highest = extremes(saved)
    for name in "ab":
        values = [one[name] for one in saved if name in one and one[name] == one[name]]
        assert (lowest.get(name), highest.get(name)) == ((min(values), max(values)) if values else (None, None))


def test_every_policy_is_a_frozen_dataclass():
    found = [one for one in vars(due).values() if isinstance(one, type) and issubclass(one, SavePolicy)]
    assert len(found) == 9
    for one in found:
        assert one is SavePolicy or one.__dataclass_params__.frozen
