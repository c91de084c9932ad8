"""Differences are named where, and only where, two memories have different content."""

import pytest

import quantum_memory as qm


def compared(a, b):
    return qm.compare(qm.MemoryState(classical=a), qm.MemoryState(classical=b))


@pytest.mark.parametrize(
    ("a", "b", "where"),
    [
        ([1], [True], "classical_data"), ([0.0], [-0.0], "classical_data"),
        ({"a": [1]}, {"a": [1.0]}, "classical_data.a"),
        ({1: 1, 2: 2}, {1: 1, 2: 3}, "classical_data.2"), ({1: 1}, {1: 1, 2: 2}, "classical_data.2"),
        ({1: {"a": 0}}, {1: {"a": False}}, "classical_data.1.a"), ({"a": 1, 2: 2}, {"a": 1, "2": 2}, "classical_data"),
        ({1: 1}, {"1": 1}, "classical_data"), ([{1: 1}], [{1: 2}], "classical_data"),
    ],
    ids=repr,
)  # fmt: skip
def test_what_differs_is_named(a, b, where):
    found = compared(a, b)
    assert not found.same_content
    assert [line.partition(":")[0] for line in found.differences] == [where]


@pytest.mark.parametrize(
    ("a", "b"),
    [({1: 1, 2: 2}, {2: 2, 1: 1}), ({"a": 1, "b": 2}, {"b": 2, "a": 1}), ([{1: 1, 2: 2}], [{2: 2, 1: 1}]),
     ({(1, 2): {3: 4, 5: 6}, None: 0}, {None: 0, (1, 2): {5: 6, 3: 4}})],
    ids=repr,
)  # fmt: skip
def test_the_order_of_keys_is_no_difference(a, b):
    found = compared(a, b)
    assert found.same_content
    assert found.differences == []
