"""What cannot be kept exactly is refused, and says so; what can is."""

import json
import sys

import numpy as np
import pytest
import torch

import quantum_memory as qm
from quantum_memory.errors import IntegrityError, InvalidStateError, MissingError
from quantum_memory.state.document import flatten, unflatten
from quantum_memory.state.json_text import check_record, from_json, max_nodes

PSI = qm.StateVector(np.array([0.6, 0, 0.8j, 0]), qubit_order="big")


def through(tree):
    flat = flatten({"tree": ("tree", tree)})
    return unflatten(json.loads(json.dumps(flat.document["tree"])), flat.arrays)


@pytest.mark.parametrize(
    "value",
    [
        np.rec.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")]).view(np.ndarray),
        np.zeros(2, np.dtype("u1", metadata={"enum": {"a": 1}})),
        np.zeros(2, np.dtype([("a", "u1"), ("b", "f8")], align=True)),
        np.zeros(2, np.dtype({"names": ["a", "b"], "formats": ["u1", "f8"], "offsets": [0, 8]})),
        np.ma.array([1.0, 2.0], mask=[True, False]),
        type("Mine", (qm.StateVector,), {})(np.ones(2), qubit_order="big"),
        np.zeros((1,) * 33),
        {b"x" * 5000: 1},
    ],
    ids=["record", "dtype metadata", "aligned", "padded", "masked", "subclass", "33 axes", "long key"],
)
def test_what_means_more_than_its_items_is_refused(value):
    with pytest.raises(InvalidStateError):
        qm.MemoryState(classical={"x": value}).flatten()


def test_a_masked_array_is_no_state_vector():
    with pytest.raises(InvalidStateError, match="masked"):
        qm.StateVector(np.ma.array([1.0, 0.0], mask=[False, True]), qubit_order="big")


def test_labels_that_json_would_join_are_refused():
    with pytest.raises(InvalidStateError, match="Unicode"):
        qm.StateVector(np.ones(2), qubit_order="big", labels=["\ud83d\ude00"])


def test_a_state_dict_keeps_its_metadata():
    module = torch.nn.Sequential(torch.nn.BatchNorm1d(3))
    built = through(module.state_dict())
    assert built._metadata == module.state_dict()._metadata
    assert built._metadata["0"]["version"] == 2
    module.load_state_dict(built)


def test_transposed_tensors_are_stored_as_they_read():
    tensor = torch.arange(6.0).reshape(2, 3).T
    assert torch.equal(through(tensor), tensor)
    assert torch.equal(through(tensor.to(torch.bfloat16)), tensor.to(torch.bfloat16))


def test_paths_do_not_depend_on_the_unicode_of_this_python():
    arrays = flatten({"tree": ("tree", {"\U0001fae8": np.ones(1), "a\nb\u202e": np.ones(1)})}).arrays
    assert set(arrays) == {"tree/\U0001fae8", "tree/a~000ab~202e"}


@pytest.mark.parametrize("record", [{1: 2}, {"a": (1, 2)}, {"a": float("nan")}, {"a": {1, 2}}])
def test_a_record_that_would_come_back_as_something_else_is_refused(record):
    with pytest.raises(InvalidStateError):
        check_record(record)


def test_a_record_may_not_be_deeper_than_what_is_read():
    deep = {}
    for _ in range(500):
        deep = {"a": deep}
    with pytest.raises(InvalidStateError):
        check_record(deep)


def test_the_depth_of_text_does_not_depend_on_the_caller():
    def at(frames):
        return at(frames - 1) if frames else from_json(b"[" * 100 + b"]" * 100, max_nodes=max_nodes(0))

    assert at(0) == at(sys.getrecursionlimit() // 2)


def test_commas_in_a_string_are_no_values():
    text = json.dumps({"log": "a," * 2_000_000}).encode()
    assert len(from_json(text, max_nodes=max_nodes(0))["log"]) == 4_000_000


def test_a_character_that_there_is_not_is_damage():
    with pytest.raises(IntegrityError):
        unflatten({"$scalar": ["<U1", "/////w=="]}, {})


@pytest.mark.parametrize("value", [{}, {"quantum": np.ones(2)}, {"emotion": {}, "metadata": {}}])
def test_a_dict_with_the_names_of_the_arguments_is_not_taken_for_a_tree(value, tmp_path):
    with pytest.raises(InvalidStateError, match="quantum_data"):
        qm.save(value, tmp_path / "state.qms")


@pytest.mark.parametrize(
    "arguments",
    [
        {"metadata": 5},
        {"metadata": [1]},
        {"emotion": 5},
        {"emotion": {"recent_emotions": 5}},
        {"record": "x"},
        {"quantum": 3},
    ],
)
def test_parts_of_another_type_are_refused_at_once(arguments):
    with pytest.raises(InvalidStateError):
        qm.MemoryState(**arguments)


def test_a_part_that_is_not_there_is_named():
    with pytest.raises(MissingError, match="metadata"):
        qm.MemoryState(metadata={"a": 1})["classical_data"]


def test_comparing_with_what_cannot_be_kept_is_false():
    assert qm.MemoryState(classical={"x": 1}) != {"x": object()}


@pytest.mark.parametrize("call", [qm.metrics.fidelity, qm.metrics.trace_distance, qm.metrics.overlap])
def test_metrics_want_states(call):
    with pytest.raises(InvalidStateError, match="not a quantum state"):
        call(np.ones(2), qm.StateVector(np.ones(2), qubit_order="big"))


@pytest.mark.parametrize("seed", [-1, "x", 1.5])
def test_a_bad_seed_is_said(seed):
    with pytest.raises(InvalidStateError, match="seed"):
        qm.StateVector(np.ones(2), qubit_order="big").sample(3, seed)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: qm.StateVector([[1, 0], [0]], qubit_order="big"),
        lambda: PSI.entropy(1.5),
        lambda: PSI.reduced_density_matrix("a"),
        lambda: PSI.reduced_density_matrix([0.5]),
        lambda: PSI.reduced_density_matrix(0, dtype=float),
        lambda: qm.MatrixProductState.from_dense(PSI).reduced_density_matrix(0, dtype=float),
        lambda: PSI.amplitude([0, "x"]),
    ],
)
def test_what_is_no_number_of_a_site_and_what_would_lose_a_part_is_refused(wrong):
    with pytest.raises(InvalidStateError):
        wrong()
