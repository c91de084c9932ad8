"""Taking a memory apart and putting it together: ties, refusals, and what documents of others may not say."""

import sys
from collections import OrderedDict, namedtuple
from enum import IntEnum

import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import given, settings

from quantum_memory import MatrixProductState, MemoryState, StateVector
from quantum_memory.errors import IntegrityError, InvalidStateError, UnsafeError, UnsupportedVersionError
from quantum_memory.state import json_text
from quantum_memory.state.document import MAX_DEPTH, array_paths, unflatten
from quantum_memory.testing import strategies as qst
from quantum_memory.testing.equality import assert_identical


def there_and_back(tree):
    document, arrays = MemoryState(classical=tree).flatten()
    text = json_text.to_json(document)
    document = json_text.from_json(text, max_nodes=json_text.max_nodes(len(text)))
    return MemoryState.unflatten(document, arrays).classical


@given(qst.memory_states())
@settings(max_examples=100)
def test_any_memory_is_put_together_again(memory):
    document, arrays = memory.flatten()
    assert_identical(memory, MemoryState.unflatten(document, arrays))
    assert array_paths(document) == set(arrays)


# ---- ties


def test_one_array_in_two_places_is_stored_once_and_comes_back_as_one():
    array = np.arange(3.0)
    document, arrays = MemoryState(classical={"a": array, "b": [array], "c": array.copy()}).flatten()
    assert set(arrays) == {"classical/a", "classical/c"}
    tree = MemoryState.unflatten(document, arrays).classical
    assert tree["a"] is tree["b"][0]
    assert tree["a"] is not tree["c"]


def test_tied_tensors_stay_tied():
    weight = torch.nn.Parameter(torch.ones(2, 3))
    tree = there_and_back({"embedding": weight, "head": weight, "other": torch.ones(2, 3)})
    assert tree["embedding"] is tree["head"]
    with torch.no_grad():
        tree["embedding"].add_(1)
    assert tree["other"].eq(1).all()


def test_a_parameter_and_its_data_share_memory_and_keep_their_types():
    weight = torch.nn.Parameter(torch.ones(4))
    document, arrays = MemoryState(classical={"p": weight, "data": weight.data, "frozen": weight.detach()}).flatten()
    assert len(arrays) == 1
    tree = MemoryState.unflatten(document, arrays).classical
    assert_identical({"p": weight, "data": weight.data, "frozen": weight.detach()}, tree)
    with torch.no_grad():
        tree["p"].fill_(7)
    assert tree["data"].tolist() == [7.0] * 4


def test_a_lazy_conjugate_is_not_taken_for_the_tensor_whose_memory_it_shares():
    z = torch.tensor([1 + 2j, 3 - 4j])
    tree = {"z": z, "conjugate": z.conj(), "imaginary": z.imag, "negative": z.conj().imag}
    assert_identical(tree, there_and_back(tree))


def test_views_of_one_tensor_come_back_with_their_own_items():
    base = torch.arange(6.0).reshape(2, 3)
    tree = {"base": base, "turned": base.T, "row": base[0], "first": base[:1], "expanded": base[:, :1].expand(2, 3)}
    assert_identical(tree, there_and_back(tree))


def test_paths_that_spell_the_same_do_not_collide():
    tree = {1: np.array([1]), "1": np.array([2]), (1,): np.array([3]), "(1,)": np.array([4]), "a/b": np.array([5])}
    tree |= {"a": {"b": np.array([6])}, "a~1b": np.array([7]), "\x00": np.array([8]), "~0000": np.array([9])}
    tree |= {
        "x" * 300: np.array([10]),
        "x" * 301: np.array([11]),
        10**5000: np.array([12]),
        -(10**5000): np.array([13]),
    }
    assert_identical(tree, there_and_back(tree))


# ---- refusals


class Colour(IntEnum):
    RED = 1


Point = namedtuple("Point", "x y")
cycle: list = []
cycle.append(cycle)


@pytest.mark.parametrize(
    "value",
    [
        object(), {1, 2}, frozenset(), range(3), Colour.RED, Point(1, 2), lambda: 0, int, bytearray(b"x"),
        memoryview(b"x"), np.array([None]), np.array(["a"], np.dtypes.StringDType()), np.longdouble(1),
        np.zeros(2, np.longdouble), np.zeros(2, np.clongdouble), np.zeros(2, [("a", "f8"), ("b", "g")]),
        np.zeros(2, [("a", "O")]), np.ma.zeros(2), np.zeros(2).view(np.recarray), np.zeros(2, ml_dtypes.int4),
        np.zeros(2, [("a", ml_dtypes.bfloat16)]),
        np.zeros(2, np.dtype({"names": ["a", "b"], "formats": ["i4", "i4"], "offsets": [0, 2]})),
        np.str_("nul\0"), np.bytes_(b"nul\0"), torch.zeros(2).to_sparse(), torch.zeros(2, device="meta"),
        torch.zeros(2, dtype=torch.float8_e8m0fnu), torch.zeros(2).as_subclass(type("Mine", (torch.Tensor,), {})),
    ],
    ids=lambda value: f"{type(value).__name__}-{getattr(value, 'dtype', '')}",
)  # fmt: skip
def test_what_cannot_be_kept_exactly_is_refused_by_its_path(value):
    for tree in ({"deep": [1, value]}, {"deep": {2: value}}):
        with pytest.raises(InvalidStateError, match="classical/deep/"):
            MemoryState(classical=tree).flatten()


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_a_nested_tensor_is_refused():
    with pytest.raises(InvalidStateError, match="classical/n "):
        MemoryState(classical={"n": torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])}).flatten()


@pytest.mark.parametrize("key", [np.int64(1), frozenset(), (1, (np.float32(2),)), Colour.RED, Point(1, 2), object()])
def test_keys_of_other_types_are_refused(key):
    with pytest.raises(InvalidStateError, match="classical/deep"):
        MemoryState(classical={"deep": {key: 1}}).flatten()


def nested(depth, wrap, value=None):
    for _ in range(depth):
        value = wrap(value)
    return value


@pytest.mark.parametrize("wrap", [lambda v: [v], lambda v: (v,), lambda v: {"k": v}, lambda v: {1: v},
                                  lambda v: OrderedDict(k=v)])  # fmt: skip
def test_as_deep_as_is_written_is_read_and_one_deeper_is_refused(wrap):
    deepest = nested(MAX_DEPTH - 1, wrap)
    assert_identical(deepest, there_and_back(deepest))
    with pytest.raises(InvalidStateError, match="nested deeper than"):
        MemoryState(classical=nested(MAX_DEPTH, wrap)).flatten()


@pytest.mark.parametrize("tree", [cycle, nested(5000, lambda v: [v]), {nested(5000, lambda v: (v,)): 1}])
def test_cycles_and_bottomless_trees_are_refused(tree):
    with pytest.raises(InvalidStateError, match="nested deeper than"):
        MemoryState(classical=tree).flatten()


@pytest.mark.parametrize(
    "record", [{1: 2, "1": 3}, {"a": {1}}, {"a": float("nan")}, {"a": nested(5000, lambda v: [v])}, {"a": b""}]
)
def test_a_record_that_could_not_be_read_back_is_refused(record):
    with pytest.raises(InvalidStateError, match="the record cannot be written as JSON"):
        json_text.check_record(record)


# ---- documents of others

ARRAYS = {"x": np.arange(4, dtype=np.uint8), "z": np.ones(2, np.complex128), "o": np.zeros((2, 3), np.float64)}
NODES = {
    "no such array": {"$array": "y"},
    "path that is no text": {"$array": ["x"]},
    "path that is a dict": {"$array": {}},
    "object dtype": {"$array": "x", "dtype": "|O"},
    "structured with objects": {"$array": "x", "dtype": [["a", "|O"]]},
    "dtype that does not fit": {"$array": "x", "dtype": "<M8[ns]"},
    "dtype that is no dtype": {"$array": "x", "dtype": "numpy.random"},
    "dtype of many brackets": {"$array": "x", "dtype": "(" * 10_000},
    "dtype of many fields": {"$array": "x", "dtype": "i4," * 10_000},
    "dtype of deep lists": {"$array": "x", "dtype": nested(5000, lambda v: [["a", v]], "<i4")},
    "dtype that is a number": {"$array": "x", "dtype": 5},
    "small float of wrong bytes": {"$array": "z", "dtype": "bfloat16"},
    "huge void": {"$array": "x", "dtype": "|V1000000000000"},
    "unknown marker": {"$evil": 1},
    "something beside a marker": {"$tuple": [], "more": 1},
    "tuple of a number": {"$tuple": 5},
    "dict with unhashable keys": {"$dict": [[[], 1]]},
    "dict with dict keys": {"$dict": [[{"a": 1}, 1]]},
    "dict with a key twice": {"$dict": [["a", 1], ["a", 2]]},
    "ordered with a key twice": {"$ordered": [["a", 1], ["a", 2]]},
    "dict of no pairs": {"$dict": [["a", 1, 2]]},
    "dict of numbers": {"$dict": 5},
    "scalar of objects": {"$scalar": ["|O", "AAAAAAAAAAA="]},
    "scalar of too few bytes": {"$scalar": ["f64", "AAAA"]},
    "scalar of two": {"$scalar": ["u8", "AAA="]},
    "scalar of no base64": {"$scalar": ["f64", "!!!"]},
    "scalar of unknown dtype": {"$scalar": ["f65", "AAAA"]},
    "scalar without bytes": {"$scalar": ["f64"]},
    "scalar of a list": {"$scalar": [[["a", "|O"]], "AAAA"]},
    "int of no digits": {"$int": "0x_"},
    "int of a list": {"$int": [1]},
    "float of three bytes": {"$float": "aabbcc"},
    "float of no digits": {"$float": "zz"},
    "float of null": {"$float": None},
    "complex of text": {"$complex": ["a", "b"]},
    "complex of one": {"$complex": [1]},
    "bytes of no base64": {"$bytes": "?"},
    "bytes of no array": {"$bytes": {"$array": "none"}},
    "text of no text": {"$text": "//8="},
    "tensor of no array": {"$torch": {"$array": "none", "dtype": "float32"}},
    "tensor without dtype": {"$torch": {"$array": "o"}},
    "tensor of another dtype": {"$torch": {"$array": "o", "dtype": "float32"}},
    "tensor of an unhashable dtype": {"$torch": {"$array": "o", "dtype": []}},
    "tensor of a torch function": {"$torch": {"$array": "x", "dtype": "load"}},
    "tensor of integers with gradient": {"$torch": {"$array": "x", "dtype": "uint8", "requires_grad": True}},
    "parameter of integers with gradient": {
        "$torch": {"$array": "x", "dtype": "uint8", "parameter": True, "requires_grad": True}
    },
    "tensor that is a list": {"$torch": []},
    "state that is a number": {"$state": 5},
    "state of no kind": {"$state": {}},
    "state of unknown kind": {"$state": {"kind": "tensor_train"}},
    "state without amplitudes": {"$state": {"kind": "state_vector", "dims": [2], "qubit_order": "big"}},
    "state whose dims do not multiply": {
        "$state": {"kind": "state_vector", "amplitudes": {"$array": "z"}, "dims": [2, 2], "qubit_order": "big"}
    },
    "state of float dims": {
        "$state": {"kind": "state_vector", "amplitudes": {"$array": "z"}, "dims": [2.0], "qubit_order": "big"}
    },
    "state of no order": {
        "$state": {"kind": "state_vector", "amplitudes": {"$array": "z"}, "dims": [2], "qubit_order": ["big"]}
    },
    "state of wrong labels": {
        "$state": {
            "kind": "state_vector", "amplitudes": {"$array": "z"}, "dims": [2], "qubit_order": "big", "labels": [1]
        }
    },
    "matrix that is not square": {
        "$state": {"kind": "density_matrix", "matrix": {"$array": "o"}, "dims": [2], "qubit_order": "big"}
    },
    "chain of a vector": {"$state": {"kind": "matrix_product_state", "sites": [{"$array": "z"}]}},
    "chain of nothing": {"$state": {"kind": "matrix_product_state", "sites": []}},
    "chain with an infinite scale": {
        "$state": {"kind": "matrix_product_state", "sites": [{"$array": "z"}], "log_scale": {"$int": "f" * 400}}
    },
}  # fmt: skip


@pytest.mark.parametrize("node", NODES.values(), ids=NODES.keys())
def test_a_node_that_no_release_writes_is_a_typed_error(node):
    modules = set(sys.modules)
    for tree in (node, [node], {"$dict": [[1, node]]}):
        with pytest.raises((IntegrityError, UnsupportedVersionError, UnsafeError)):
            unflatten(tree, ARRAYS)
    assert set(sys.modules) == modules


@pytest.mark.parametrize("depth", [600, 100_000])
def test_a_node_that_is_too_deep_is_a_typed_error(depth):
    with pytest.raises((IntegrityError, UnsafeError)):
        unflatten(nested(depth, lambda v: [v]), {})
    with pytest.raises((IntegrityError, UnsafeError)):
        json_text.from_json(b"[" * depth + b"]" * depth, max_nodes=1 << 20) and unflatten(
            nested(depth, lambda v: [v]), {}
        )


@pytest.mark.parametrize("document", [{"metadata": [1]}, {"metadata": "x"}, {"quantum_data": {"a": 1}},
                                      {"quantum_data": {"$array": "z"}}, {"emotional_context": [1]},
                                      {"emotional_context": {"pad": 1}}, {"later": 1}])  # fmt: skip
def test_parts_of_the_wrong_kind_are_typed_errors(document):
    with pytest.raises((IntegrityError, UnsupportedVersionError)):
        MemoryState.unflatten(document, ARRAYS)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (b'{"a":1,"a":1}', "twice"), (b"NaN", "constant"), (b"[-Infinity]", "constant"), (b"[1e400]", "no float64"),
        (b"", "damaged"), (b"{", "damaged"), (b"\xff", "damaged"), (b"[" + b"9" * 5000 + b"]", "damaged"),
        (b"{}x", "damaged"), (b'\xef\xbb\xbf{"a":1}', "damaged"),
    ],
)  # fmt: skip
def test_json_is_read_strictly(text, what):
    with pytest.raises(IntegrityError, match=what):
        json_text.from_json(text, max_nodes=100)


def test_more_values_than_allowed_are_refused_before_they_are_made():
    with pytest.raises(UnsafeError, match="more than 1000 values"):
        json_text.from_json(b"[" + b"[]," * 1000 + b"[]]", max_nodes=1000)


def test_content_of_equal_values_of_other_types_differs():
    values = [
        1,
        1.0,
        True,
        "1",
        b"1",
        1 + 0j,
        np.int64(1),
        np.array(1),
        np.array([1]),
        [1],
        (1,),
        {1: 1},
        None,
        -0.0,
        0.0,
    ]
    values += [torch.tensor(1), torch.tensor([1]), np.array([1], ">i8"), np.array([1], "<i8"), OrderedDict(), {}]
    names = {MemoryState(classical=[value]).content_id for value in values}
    assert len(names) == len(values) - 1  # np.array([1]) is little-endian int64 already


def test_a_state_in_the_tree_is_kept_as_a_state():
    state = StateVector(np.ones(2), qubit_order="big")
    assert_identical({"before": state}, there_and_back({"before": state}))


# ---- ties of states


def chain():
    return MatrixProductState([np.eye(2).reshape(1, 2, 2), np.eye(2).reshape(2, 2, 1)])


def test_a_memory_that_holds_a_chain_twice_keeps_its_name():
    state = chain()
    labelled = MatrixProductState(state.tensors, labels=["a", "b"])
    memory = MemoryState(state, classical=[state, state.tensors[1], labelled], metadata={"start": state})
    document, arrays = memory.flatten()
    assert list(arrays) == ["quantum/site/0", "quantum/site/1"]
    back = MemoryState.unflatten(document, arrays)
    assert back.content_id == memory.content_id
    assert np.shares_memory(back.quantum.tensors[1], back.classical[1])


@pytest.mark.parametrize(
    "value",
    [
        StateVector(np.eye(2)[0].astype(">c16"), qubit_order="big"),
        np.array(["a", "b"]),
        torch.arange(6).reshape(2, 3).T,
        torch.ones(3, dtype=torch.bfloat16),
    ],
)
def test_what_is_tied_across_the_parts_of_a_memory_stays_tied(value):
    memory = MemoryState(classical={"here": value}, metadata={"there": value})
    document, arrays = memory.flatten()
    back = MemoryState.unflatten(document, arrays)
    assert len(arrays) == len(back.flatten().arrays) == 1
    assert back.content_id == memory.content_id


def test_views_of_other_parts_of_an_array_are_arrays_of_their_own():
    array = np.arange(4.0)
    tree = {"whole": array, "half": array[:2], "reversed": array[::-1], "bits": array.view(np.int64)}
    tree |= {"again": array[:2], "empty": array[:0], "none": np.empty(0)}
    assert len(MemoryState(classical=tree).flatten().arrays) == len(tree) - 1
    back = there_and_back(tree)
    assert_identical(tree, back)
    assert back["again"] is back["half"]
