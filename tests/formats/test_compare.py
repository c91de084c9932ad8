"""Differences are named where, and only where, two memories have different content."""

import numpy as np
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


def test_states_of_a_store_are_compared_by_their_ids(tmp_path):
    storage = qm.HDF5QuantumStorage(tmp_path / "s.h5")
    for name, psi in (("zero", [1.0, 0.0]), ("plus", [0.5**0.5, 0.5**0.5])):
        storage.save_quantum_state(qm.StateVector(np.array(psi), qubit_order="big"), name)
    found = qm.compare(storage.path, storage.path, state_id_a="zero", state_id_b="plus")
    assert found.fidelity == pytest.approx(0.5)
    assert (found.first, found.second) == (f"{storage.path}, state zero", f"{storage.path}, state plus")
    alone = storage.load_quantum_state("plus")
    assert qm.compare(alone, storage.path, state_id_b="plus").same_content
    with pytest.raises(qm.InvalidStateError, match="store of 2 states"):
        qm.compare(storage.path, alone)
    with pytest.raises(qm.MissingError, match="no state 'minus'"):
        qm.compare(alone, storage.path, state_id_b="minus")
    with pytest.raises(qm.InvalidStateError, match="the first is no file"):
        qm.compare(alone, storage.path, state_id_a="plus", state_id_b="plus")


def test_files_are_read_as_the_caller_says(tmp_path):
    memory = qm.MemoryState(classical={"w": np.arange(9)})
    qm.save(memory, tmp_path / "a.pkl")
    with pytest.raises(qm.UnsafeError):
        qm.compare(tmp_path / "a.pkl", memory)
    assert qm.compare(tmp_path / "a.pkl", memory, allow_pickle=True).same_content
    with pytest.raises(qm.BudgetError):
        qm.compare(tmp_path / "a.pkl", memory, allow_pickle=True, max_bytes=8)
