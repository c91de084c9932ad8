"""Leaves are found by the names that people would give them, and nothing is read that was not asked for."""

from collections import OrderedDict

import numpy as np
import pytest
import torch
from hypothesis import given, settings

import quantum_memory as qm
from quantum_memory.durability import files
from quantum_memory.errors import BudgetError, IntegrityError, InvalidStateError, MissingError
from quantum_memory.formats.select import leaves, select
from quantum_memory.state.arrays import CHUNK_BYTES
from quantum_memory.testing import strategies as qst
from quantum_memory.testing.damage import flip_bit
from quantum_memory.testing.equality import assert_identical
from quantum_memory.testing.faults import RecordingFiles


def selected(classical, pattern, tmp_path, suffix="qms", **parts):
    path = tmp_path / f"state.{suffix}"
    qm.save(qm.MemoryState(classical=classical, **parts), path, durable=False)
    return qm.load(path, only=pattern)


NESTED = {"encoder": {"layer": {str(n): {"w": np.full(2, n), "b": np.full(1, n)} for n in range(12)}}, "lr": 0.1}
FLAT = OrderedDict((f"encoder.layer.{n}.{name}", torch.full((2,), float(n))) for n in range(12) for name in "wb")


@pytest.mark.parametrize("suffix", ["qms", "json"])
def test_a_layer_of_nested_dicts_of_lists_and_of_a_state_dict(tmp_path, suffix):
    pattern = "encoder.layer.3.*"
    expected = {"encoder.layer.3.w": np.full(2, 3), "encoder.layer.3.b": np.full(1, 3)}
    assert_identical(expected, selected(NESTED, pattern, tmp_path, suffix))
    listed = {"encoder": {"layer": list(NESTED["encoder"]["layer"].values())}}
    assert_identical(expected, selected(listed, pattern, tmp_path, suffix))
    counted = {"encoder": {"layer": dict(enumerate(listed["encoder"]["layer"]))}}
    assert_identical(expected, selected(counted, pattern, tmp_path, suffix))
    tupled = {"encoder": {"layer": tuple(listed["encoder"]["layer"])}}
    assert_identical(expected, selected(tupled, pattern, tmp_path, suffix))
    flat = {name: FLAT[name] for name in ("encoder.layer.3.w", "encoder.layer.3.b")}
    assert_identical(flat, selected(FLAT, pattern, tmp_path, suffix))
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 1))
    weights = selected(model.state_dict(), "1.*", tmp_path, suffix)
    assert list(weights) == ["1.weight", "1.bias"]
    assert torch.equal(weights["1.weight"], model[1].weight)


def test_names_are_the_keys_as_they_are_and_not_paths(tmp_path):
    tree = {"a/b": np.ones(1), "~": np.ones(2), "a[0]": np.ones(3), "": np.ones(4), "$state": np.ones(5), "a.*": 6}
    for name in ("a/b", "~", "a[0]", "", "$state"):
        assert_identical({name: tree[name]}, selected(tree, name, tmp_path))
    assert selected({"a.*": 6, "a.b": 7}, "a.*", tmp_path) == {"a.*": 6, "a.b": 7}
    odd = {(1, "x"): 1, None: 2, 1.5: 3, 10**30: 4, b"k": 5, 10**5000: 6, "\ud800": 7}
    names = ["(1, 'x')", "None", "1.5", str(10**30), "b'k'", format(10**5000, "x"), "\ud800"]
    assert selected(odd, "*", tmp_path) == dict(zip(names, range(1, 8), strict=True))


def test_names_that_are_spelled_alike_are_all_there(tmp_path):
    tree = {"a": {"b": 1}, "a.b": 2, "a.b~2": 3, "x": {1: 4, "1": 5}}
    assert selected(tree, "*", tmp_path) == {"a.b": 1, "a.b~2": 2, "a.b~2~2": 3, "x.1": 4, "x.1~2": 5}
    assert selected(tree, "a.b", tmp_path) == {"a.b": 1, "a.b~2": 2}
    assert selected(tree, "x.1~2", tmp_path) == {"x.1~2": 5}


def test_leaves_of_every_kind(tmp_path):
    state = qm.StateVector(np.array([1.0, 0.0]), qubit_order="big")
    tree = {
        "long": b"x" * 5000, "short": b"x", "none": None, "scalar": np.float32(1.5),
        "date": np.array(["2020"], "M8[Y]"),
        "state": state, "huge": 1 << 80, "nan": float("inf"), "empty": {}, "root": [],
    }  # fmt: skip
    found = selected(tree, "*", tmp_path)
    assert list(found) == [
        "long", "short", "none", "scalar", "date", "state", "state.amplitudes", "huge", "nan",
    ]  # fmt: skip
    for name in ("long", "short", "none", "scalar", "date", "state", "huge", "nan"):
        assert_identical(tree[name], found[name])
    assert found["state.amplitudes"] is found["state"].amplitudes
    array = np.arange(3)
    assert_identical({"classical": array}, selected(array, "*", tmp_path))


@pytest.mark.parametrize(
    ("state", "name"),
    [
        (qm.DensityMatrix(np.eye(2) / 2, qubit_order="big"), "matrix"),
        (qm.Operator(np.eye(2), qubit_order="big"), "matrix"),
        (qm.StabilizerState(np.array([[1, 0, 0], [0, 1, 1]], bool)), "tableau"),
    ],
)
def test_the_array_of_a_state_is_a_leaf(tmp_path, state, name):
    array = getattr(state, name)
    assert_identical({f"quantum.{name}": array}, selected({}, f"quantum.{name}", tmp_path, quantum=state))
    assert_identical({f"a.{name}": array}, selected({"a": state}, "a.*", tmp_path))


def test_tied_tensors_are_read_once_and_stay_tied(tmp_path):
    tensor = torch.ones(300_000, dtype=torch.bfloat16)
    path = tmp_path / "tied.qms"
    qm.save({"in": tensor, "out": tensor, "other": tensor.clone()}, path, compression="none", durable=False)
    recording = RecordingFiles()
    with files.using(recording):
        found = qm.load(path, only="*")
    assert recording.bytes_read < 2 * tensor.nbytes + 8192
    assert found["in"].data_ptr() == found["out"].data_ptr() != found["other"].data_ptr()


def test_parts_of_the_other_parts(tmp_path):
    chain = qm.MatrixProductState([np.full((1, 2, 1), n, np.complex64) for n in range(11)])
    emotion = {"pad": [0.1, 0.2, 0.3], "trajectory": [[0.0, 0.0, 0.0], [0.1, 0.2, 0.3]]}
    parts = {"quantum": chain, "emotion": emotion, "metadata": {"run": "a", "table": np.arange(3)}}
    found = selected({"site": 5}, "quantum.sites.3", tmp_path, **parts)
    assert_identical({"quantum.sites.3": chain.tensors[3]}, found)
    assert_identical({"quantum": chain}, selected({}, "quantum", tmp_path, **parts))
    assert len(selected({}, "quantum.*", tmp_path, **parts)) == 11
    assert_identical({"metadata.table": np.arange(3)}, selected({}, "metadata.t*", tmp_path, **parts))
    assert selected({}, "emotion.trajectory.pad", tmp_path, **parts)["emotion.trajectory.pad"].shape == (2, 3)
    assert selected({"site": 5}, "classical.site", tmp_path) == {"site": 5}


def test_what_is_not_there_says_what_is(tmp_path):
    with pytest.raises(MissingError, match=r"nothing in it is called 'decoder'.*encoder\.layer\.0\.w") as caught:
        selected(NESTED, "decoder", tmp_path)
    assert caught.value.path == str(tmp_path / "state.qms")
    with pytest.raises(MissingError, match="it has: nothing"):
        selected(None, "a", tmp_path)


def test_only_the_chunks_of_what_is_named_are_read_and_checked(tmp_path):
    tree = {f"w{n}": np.random.default_rng(n).bytes(CHUNK_BYTES) for n in range(5)}
    path = tmp_path / "five.qms"
    qm.save(tree, path, compression="none", durable=False)
    recording = RecordingFiles()
    with files.using(recording):
        assert qm.load(path, only="w3") == {"w3": tree["w3"]}
    assert CHUNK_BYTES <= recording.bytes_read < CHUNK_BYTES + 8192
    path.write_bytes(flip_bit(path.read_bytes(), 8 * (64 + 100)))  # in w0
    assert qm.load(path, only="w3") == {"w3": tree["w3"]}
    with pytest.raises(IntegrityError, match="classical/w0"):
        qm.load(path, only="w[03]")


def test_a_selection_is_checked_counted_and_bounded_as_a_whole_is(tmp_path):
    path = tmp_path / "state.qms"
    qm.save({"a": np.zeros(1000), "b": np.zeros(1 << 20)}, path, durable=False)
    done: list[int] = []
    with qm.open(path) as file:
        assert file.select("a", verify="full", max_bytes=8000, progress=done.append)["a"].size == 1000
        assert sum(done) == 8000
        with pytest.raises(BudgetError):
            file.select("a", max_bytes=7999)
        with pytest.raises(InvalidStateError, match="verify"):
            file.select("a", verify="ful")


@given(memory=qst.memory_states())
@settings(max_examples=60)
def test_every_leaf_has_a_name_of_its_own(memory):
    document = memory.flatten().document
    every = list(leaves(document))
    if every:
        assert list(select(document, "*", "it").values()) == [node for _, node in every]
    for name, node in every[:5]:
        assert any(found is node for found in select(document, name, "it").values())
