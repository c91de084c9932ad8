"""The form ``low_rank``: every bit comes back, on every machine, from small parts; hostile parts raise our error."""

import base64
import contextlib
import dataclasses
import functools
import hashlib
import json
import math
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantum_memory.compression.forms import low_rank
from quantum_memory.compression.forms.low_rank import LowRank
from quantum_memory.compression.forms.low_rank_plan import find_plan
from quantum_memory.compression.forms.prediction import CONTEXT_COUNT, Prediction, Room, order
from quantum_memory.compression.forms.views import unpack
from quantum_memory.errors import IntegrityError
from quantum_memory.state.arrays import same_bits

from .reference_decoder import decode
from .test_quantisers import STRETCHES, Counted, check_stretch, check_threads

FORM = LowRank()
GOLDEN = Path(__file__).parents[1] / "golden" / "low_rank.json"
TYPES = ["complex128", "complex64", "float64", "float32"]


def low_rank_matrix(seed, rows, columns, rank, dtype, *, ulps=3.0, zeros=0.0):
    """Return a random matrix of low rank with a noise of some units of last place, and zeros of both signs in it."""
    rng = np.random.default_rng(seed)
    dtype = np.dtype(dtype)

    def factor(*shape):
        part = rng.standard_normal(shape)
        return part + 1j * rng.standard_normal(shape) if dtype.kind == "c" else part

    matrix = factor(rows, rank) @ factor(rank, columns)
    matrix = np.ascontiguousarray(matrix / np.linalg.norm(matrix)).astype(dtype)
    numbers = matrix.view(matrix.real.dtype)
    numbers *= 1 + np.rint(rng.standard_normal(numbers.shape) * ulps).astype(numbers.dtype) * np.finfo(dtype).eps
    chosen = rng.random(numbers.shape) < zeros
    numbers[chosen] = np.where(rng.random(numbers.shape) < 0.5, 0.0, -0.0)[chosen]
    return matrix


def circuit(n, layers, dtype, seed=0, *, real=False):
    """Return the state of a circuit of shallow depth, gate by gate, with the round-off that this leaves."""
    rng = np.random.default_rng(seed)
    v = np.zeros(2**n, dtype)
    v[0] = 1
    for _ in range(layers):
        for k in range(n):
            t, p = rng.uniform(0, 2 * np.pi, 2)
            pairs = v.reshape(-1, 2, 2**k)
            a, b = pairs[:, 0].copy(), pairs[:, 1].copy()
            c, s = np.dtype(dtype).type(np.cos(t / 2)), np.dtype(dtype).type(np.sin(t / 2))
            phase = np.dtype(dtype).type(1 if real else np.exp(1j * p))
            pairs[:, 0], pairs[:, 1] = c * a - s * b, phase * (s * a + c * b)
        for k in range(n - 1):
            v.reshape(-1, 2, 2, 2**k)[:, 1, 1] *= -1
    return v + 0.0 if real else v


def unpacked(packed, like):
    """Return what comes out, into memory that held something else."""
    out = np.empty_like(like)
    out.view(np.uint8)[...] = 0xA5
    facts = json.loads(json.dumps(packed.facts))
    unpack(FORM, facts, packed.parts, out)
    return out


def packed_and_checked(array, effort="balanced"):
    before = array.copy()
    packed = FORM.pack(array, effort)
    assert packed is not None
    assert packed.form == "low_rank"
    assert same_bits(array, before)
    assert same_bits(array, unpacked(packed, array))
    return packed


@pytest.mark.parametrize(("dtype", "most"), [(np.complex128, 10.0), (np.complex64, 10.0)])
def test_a_shallow_circuit_takes_a_few_bits_for_each_number(dtype, most):
    v = circuit(16, 2, dtype)
    packed = packed_and_checked(v)
    assert 8 * packed.nbytes / (2 * v.size) < most
    assert packed.facts["rank"] == 4


def test_a_real_state_is_stored_without_imaginary_parts():
    v = circuit(14, 2, np.complex128, real=True)
    assert not v.imag.view(np.int64).any()
    packed = packed_and_checked(v)
    assert packed.facts["real"] is True
    complex_too = packed_and_checked(circuit(14, 2, np.complex128))
    assert packed.nbytes < 0.7 * complex_too.nbytes
    v.imag[5] = -0.0
    assert packed_and_checked(v).facts["real"] is False


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("shape", [(64, 64), (200, 96), (96, 200), (17 * 13 * 16,), (3**8,), (2**13,)])
def test_lengths_and_shapes(dtype, shape):
    rows, columns = shape if len(shape) == 2 else low_rank.matrix_shape(np.empty(shape, dtype))
    packed_and_checked(low_rank_matrix(1, rows, columns, 3, dtype).reshape(shape))


def test_more_than_one_block_and_a_row_that_is_longer_than_a_tile():
    packed = packed_and_checked(low_rank_matrix(2, 80, 40_000, 2, np.complex64), "fast")
    assert len(packed.parts["residuals.lengths"]) in (26, 26 * CONTEXT_COUNT)


def test_the_same_array_gives_the_same_packed():
    v = circuit(12, 2, np.complex128)
    one, two = FORM.pack(v, "balanced"), FORM.pack(v.copy(), "balanced")
    assert one.facts == two.facts
    assert list(one.parts) == list(two.parts)
    assert all(same_bits(one.parts[name], two.parts[name]) for name in one.parts)


MATRICES = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 2**32),
        "rows": st.integers(16, 80),
        "columns": st.integers(16, 80),
        "rank": st.integers(1, 6),
        "dtype": st.sampled_from(TYPES),
        "ulps": st.sampled_from([0.0, 0.5, 4.0, 1e3]),
        "zeros": st.sampled_from([0.0, 0.001, 0.05]),
    }
)


@settings(max_examples=100)
@given(MATRICES, st.booleans())
def test_any_matrix_of_low_rank_comes_back_bit_for_bit(matrix, flat):
    array = low_rank_matrix(**matrix)
    array = array.reshape(-1) if flat else array
    packed = FORM.pack(array, "balanced")
    if packed is None:
        assert flat or matrix["zeros"] or matrix["ulps"] > 10 or array.nbytes < 1 << 14 or matrix["rank"] > 2
    else:
        assert packed.nbytes < array.nbytes
        assert same_bits(array, unpacked(packed, array))


@settings(max_examples=60)
@given(MATRICES, st.sampled_from([-0.0, 5e-324, 1e-45, -1e300, 3e38]), st.integers(0, 2**20))
def test_one_entry_may_be_unlike_the_others(matrix, special, place):
    array = low_rank_matrix(**matrix)
    with np.errstate(over="ignore"):
        array.reshape(-1)[place % array.size] = special
    packed = FORM.pack(array, "balanced")
    assert packed is None or same_bits(array, unpacked(packed, array))


@settings(max_examples=25)
@given(
    scale=st.sampled_from([1e-320, 1e-300, 1e-160, 1e-44, 1e-38, 1e37, 1e150, 1e300]),
    dtype=st.sampled_from(TYPES),
    seed=st.integers(0, 99),
)
def test_numbers_at_the_ends_of_the_range(scale, dtype, seed):
    matrix = low_rank_matrix(seed, 64, 64, 2, dtype)
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        array = (matrix * np.float64(scale)).astype(dtype)
    packed = FORM.pack(array, "balanced")
    assert packed is None or same_bits(array, unpacked(packed, array))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, complex(0, np.nan)])
@pytest.mark.parametrize("dtype", TYPES)
def test_what_is_not_finite_is_refused_or_comes_back(value, dtype):
    if isinstance(value, complex) and np.dtype(dtype).kind == "f":
        return
    array = low_rank_matrix(3, 64, 64, 2, dtype)
    array[7, 9] = value
    packed = FORM.pack(array, "max")
    assert packed is None or same_bits(array, unpacked(packed, array))


@pytest.mark.parametrize("effort", ["fast", "balanced", "max"])
@pytest.mark.parametrize("dtype", TYPES)
def test_a_random_state_is_refused(effort, dtype):
    rng = np.random.default_rng(5)
    array = rng.standard_normal(2**17).view(dtype) if np.dtype(dtype).itemsize > 8 else rng.random(2**16)
    assert FORM.pack(array.astype(dtype), effort) is None


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("shape", [(), (0,), (1,), (255,), (509,), (4, 4), (1, 4096), (4096, 1), (0, 7), (2, 3**12)])
def test_what_is_too_small_or_narrow_is_refused(dtype, shape):
    assert FORM.pack(np.zeros(shape, dtype), "max") is None


def test_zeros_and_one_entry_are_refused():
    array = np.zeros(2**12, np.complex128)
    assert FORM.pack(array, "balanced") is None
    array[77] = 1
    assert FORM.pack(array, "balanced") is None


def test_memory_is_bounded():
    v = low_rank_matrix(4, 1024, 1024, 24, np.complex128).reshape(-1)
    packed = FORM.pack(v, "balanced")
    out = np.empty_like(v)
    for do, most in (
        (lambda: FORM.pack(v, "balanced"), 64),
        (lambda: unpack(FORM, packed.facts, packed.parts, out), 48),
    ):
        tracemalloc.start()
        do()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak - packed.nbytes < most << 20


# Stretches


@functools.cache
def several_blocks(dtype, real):
    """Return an array of several blocks, with stored rows at both ends and between, and it packed."""
    array = low_rank_matrix(6, 512, 1024 if np.dtype(dtype).kind == "c" else 2048, 3, dtype)
    array = (array.real + 0.0).astype(dtype) if real else array
    for row in (0, 1, 300, 511):  # no other row has these directions
        array[row] = low_rank_matrix(7 + row, 1, array.shape[1], 1, dtype) * 0.1
        array[row] = array[row].real if real else array[row]
    return array.reshape(-1), packed_and_checked(array.reshape(-1))


BLOCKS = [(np.complex128, False), (np.complex64, False), (np.complex64, True), (np.float32, True)]


@pytest.mark.parametrize(("dtype", "real"), BLOCKS)
@settings(max_examples=25)
@given(stretch=STRETCHES)
def test_any_stretch_is_that_of_the_whole(dtype, real, stretch):
    array, packed = several_blocks(dtype, real)
    assert packed.facts["real"] is real
    view = FORM.view(packed.facts, packed.parts, array.dtype, array.shape)
    assert len(view.starts) >= 2
    check_stretch(view, array, stretch)


@pytest.mark.parametrize(("dtype", "real"), BLOCKS)
def test_stretches_are_read_by_several_threads(dtype, real):
    array, packed = several_blocks(dtype, real)
    check_threads(FORM.view(packed.facts, packed.parts, array.dtype, array.shape), array)


def test_a_stretch_touches_the_blocks_it_is_in():
    array, packed = several_blocks(np.complex128, False)
    parts = {name: Counted(part) for name, part in packed.parts.items()}
    check_stretch(FORM.view(packed.facts, parts, array.dtype, array.shape), array, (0.4, 1000))
    assert 0 < parts["residuals"].read < 0.3 * len(packed.parts["residuals"])


def test_a_damaged_block_shows_where_it_is():
    array, packed = several_blocks(np.complex128, False)
    damaged = packed.parts["residuals"].copy()
    damaged[-len(damaged) // 8 :] = 0xA5
    view = FORM.view(packed.facts, {**packed.parts, "residuals": damaged}, array.dtype, array.shape)
    check_stretch(view, array, (0, 1000))
    with pytest.raises(IntegrityError):
        view.read(array.size - 1, np.empty(1, array.dtype))


# The arithmetic


def packed_with(array, how):
    """Return the array packed with these contexts, which for a small one do not pay."""

    def plan(*args):
        return dataclasses.replace(find_plan(*args), how=how)

    with mock.patch.object(low_rank, "find_plan", plan):
        return packed_and_checked(array)


def small_cases():
    """Yield small states, and contexts: all that can be in a file."""
    yield low_rank_matrix(0, 32, 32, 2, np.complex128, zeros=0.001).reshape(-1), "none"
    yield circuit(10, 1, np.complex128), "partner"
    yield circuit(9, 2, np.complex64), "level"
    yield circuit(10, 2, np.complex128, real=True), "level"
    yield circuit(10, 2, np.complex64, real=True), "none"
    yield low_rank_matrix(1, 48, 24, 3, np.float64, ulps=200.0), "level"
    yield low_rank_matrix(2, 32, 32, 2, np.float32, zeros=0.001).reshape(-1), "none"


def decoded(packed, array):
    facts = json.loads(json.dumps(packed.facts))
    return decode(facts, packed.parts, single=array.real.itemsize == 4, complex_=array.dtype.kind == "c")


def test_a_decoder_in_plain_python_gives_the_same_bits():
    dropped = set()
    for array, how in small_cases():
        packed = packed_with(array, how)
        dropped.add(packed.facts["dropped"] > 0)
        assert packed.facts["contexts"] == how
        assert decoded(packed, array) == array.tobytes()
    assert dropped == {True, False}


@settings(max_examples=15)
@given(
    seed=st.integers(0, 2**32),
    dtype=st.sampled_from(TYPES),
    how=st.sampled_from(["none", "level", "partner"]),
    zeros=st.sampled_from([0.0, 0.001]),
    rank=st.integers(1, 4),
)
def test_a_decoder_in_plain_python_gives_the_same_bits_for_any_matrix(seed, dtype, how, zeros, rank):
    if np.dtype(dtype).kind == "f" and how == "partner":
        how = "level"
    array = low_rank_matrix(seed, 64, 64, rank, dtype, zeros=zeros)
    packed = packed_with(array, how)
    assert decoded(packed, array) == array.tobytes()


@given(
    st.lists(st.floats(width=64, allow_nan=False), min_size=2, max_size=20).map(sorted), st.sampled_from(["f4", "f8"])
)
def test_ordered_integers_are_in_the_order_of_the_floats(floats, code):
    with np.errstate(over="ignore"):
        numbers = np.array([-0.0, 0.0, *floats]).astype(code)
    bits = numbers.view(f"i{numbers.itemsize}")
    integers = bits.copy()
    order(integers, np.empty_like(bits))
    assert integers[:2].tolist() == [-1, 0]
    assert (np.diff(integers[2:].astype(object)) >= 0).all()
    order(integers, np.empty_like(bits))
    assert (integers == bits).all()


def golden_cases():
    """Yield the files of old, each as an array to be filled, facts, parts and the SHA-256 of the bytes."""
    for case in json.loads(GOLDEN.read_text()):
        parts = {name: np.frombuffer(base64.b64decode(text), code) for name, (code, text) in case["parts"].items()}
        yield np.empty(case["shape"], case["dtype"]), case["facts"], parts, case["sha256"]


def digests():
    """Return what the golden files and a longer recurrence come to: the same on every machine."""
    found = []
    for out, facts, parts, _ in golden_cases():
        unpack(FORM, facts, parts, out)
        found.append(hashlib.sha256(out.tobytes()).hexdigest())
    # Numbers of a linear congruential generator, with all bits of the mantissa, over some powers of two.
    state = np.arange(1, 60_001, dtype=np.uint64) * np.uint64(6364136223846793005) + np.uint64(1442695040888963407)
    state ^= state >> np.uint64(29)
    floats = ((state >> np.uint64(11)) + np.uint64(1)).astype(np.float64) * 2.0**-53 - 0.5
    for planes in (1, 2):
        for dtype in ("f4", "f8"):
            coefficients = floats[: 11 * planes * 37].reshape(11, planes, 37)
            basis = floats[9_000 : 9_000 + 11 * 1_234].reshape(11, 1_234)
            bits = Prediction(coefficients, basis).bits(3, 37, Room(37 * 1_234, np.dtype(dtype)))
            found.append(hashlib.sha256(bits.tobytes()).hexdigest())
    return found


RECURRENCE = [
    "4cddaf34865db8d9377d0126dbdb98d317454f2a66dfc72b9ed6964ce00c6e43",
    "da12caddb1f845b451f6fc7ffdff3369c8d5127b980a820a4f180c6dd1934099",
    "c5b1daec12e6a2d25c6c869c1e4c95a7a3851082ea691d4921217fdece0837f3",
    "5fe4fe490e14b57c22327155c4e6287a33424fce5db50bb2de7a8c3f0fd628ac",
]
"""What the longer recurrence of `digests` comes to."""


def test_golden_files_give_the_same_bits():
    expected = [sha for _, _, _, sha in golden_cases()]
    assert len(expected) == 7
    assert digests() == expected + RECURRENCE


def test_golden_files_give_the_same_bits_in_plain_python():
    for out, facts, parts, sha in golden_cases():
        data = decode(facts, parts, single=out.real.itemsize == 4, complex_=out.dtype.kind == "c")
        assert hashlib.sha256(data).hexdigest() == sha


def vector_instructions():
    """Return the names of the instruction sets that NumPy uses here beyond those that it needs."""
    from numpy._core._multiarray_umath import __cpu_dispatch__ as dispatch
    from numpy._core._multiarray_umath import __cpu_features__ as features

    return [name for name in dispatch if features.get(name)]


@pytest.mark.parametrize("environment", ["baseline", "first", "another BLAS kernel"])
def test_the_bits_do_not_depend_on_the_instructions_of_the_machine(environment):
    names = vector_instructions()
    changes = {
        "baseline": {"NPY_DISABLE_CPU_FEATURES": " ".join(names)},
        "first": {"NPY_DISABLE_CPU_FEATURES": " ".join(names[1:])},
        "another BLAS kernel": {"OPENBLAS_CORETYPE": "Nehalem"},
    }[environment]
    script = (
        "import json; from tests.compression import test_low_rank as t; "
        "print(json.dumps([t.vector_instructions(), t.digests()]))"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", script], env={**os.environ, **changes}, cwd=root, capture_output=True, check=True
    )
    instructions, found = json.loads(done.stdout)
    if environment == "baseline":
        assert not instructions
    assert found == digests()


# Facts and parts that anybody may have written


def good():
    v = circuit(10, 2, np.complex128)
    return v, FORM.pack(v, "balanced")


def refused(facts, parts, out):
    tracemalloc.start()
    try:
        with pytest.raises(IntegrityError):
            unpack(FORM, facts, parts, out)
        assert tracemalloc.get_traced_memory()[1] < 32 << 20
    finally:
        tracemalloc.stop()


ODD = [None, True, -1, 0, 10**9, 2**70, 1.5, "1", [], {}, [1], [1, 2, 3], [[], 1], [-32, -32], [0, 0], [10**9, 10**9]]


@pytest.mark.parametrize("key", ["shape", "rank", "dropped", "contexts"])
def test_facts_that_are_not_what_pack_states(key):
    v, packed = good()
    for value in ODD:
        if not (key == "dropped" and value == 0 and type(value) is int):
            refused({**packed.facts, key: value}, packed.parts, np.empty_like(v))
    refused({name: value for name, value in packed.facts.items() if name != key}, packed.parts, np.empty_like(v))


def test_facts_of_another_array():
    v, packed = good()
    rows, columns = packed.facts["shape"]
    for real in (None, 0, 1, "no", True):
        refused({**packed.facts, "real": real}, packed.parts, np.empty_like(v))
    for shape in ([rows * 2, columns // 2], [columns * rows, 1], [1, rows * columns], [rows, columns + 1]):
        refused({**packed.facts, "shape": shape}, packed.parts, np.empty_like(v))
    for out in (np.empty(v.size, np.float64), np.empty(v.size, np.complex64), np.empty(v.size - 1, v.dtype)):
        refused(packed.facts, packed.parts, out)
    refused(packed.facts, packed.parts, np.empty((rows * 2, columns // 2), v.dtype))
    refused({**packed.facts, "real": True, "contexts": "partner"}, packed.parts, np.empty_like(v))
    for rank in range(1, rows):
        if rank != packed.facts["rank"]:
            refused({**packed.facts, "rank": rank}, packed.parts, np.empty_like(v))


@pytest.mark.parametrize("shape", [[2**20, 2**17], [2**35, 32], [32, 2**17], [2**60, 2**17]])
def test_an_array_that_is_said_to_be_long_takes_no_memory(shape):
    v, packed = good()
    one = {name: part[:1] if name == "pivots" else part for name, part in packed.parts.items()}
    tracemalloc.start()
    with pytest.raises(IntegrityError):
        FORM.view({**packed.facts, "shape": shape, "rank": 1}, one, v.dtype, (math.prod(shape),))
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


def test_parts_that_are_not_what_pack_makes():
    v, packed = good()
    out = np.empty_like(v)
    rank, rows = packed.facts["rank"], packed.facts["shape"][0]
    assert rank > 1
    for name, part in packed.parts.items():
        refused(packed.facts, {key: one for key, one in packed.parts.items() if key != name}, out)
        for changed in (part[:-1], part.astype(np.float64), part.reshape(1, -1), part[:0]):
            refused(packed.facts, {**packed.parts, name: changed}, out)
        longer = {**packed.parts, name: np.append(part, part[-1:])}
        if name in {"rows", "coefficients"}:  # one block, which says itself where it ends
            with contextlib.suppress(IntegrityError):
                unpack(FORM, packed.facts, longer, out)
                assert same_bits(out, v)
        else:
            refused(packed.facts, longer, out)
    for pivots in ([0] * rank, [rows, *range(1, rank)], [2**32 - 1, *range(1, rank)]):
        refused(packed.facts, {**packed.parts, "pivots": np.array(pivots, np.uint32)}, out)
    lengths = packed.parts["residuals.lengths"]
    for index, value in ((0, 2**32 - 1), (-1, 2**32 - 1)):
        changed = lengths.copy()
        changed[index] = value
        refused(packed.facts, {**packed.parts, "residuals.lengths": changed}, out)


def changed_numbers(packed, names, value):
    """Return the parts with all numbers of these being a value."""
    (rows, columns), rank = packed.facts["shape"], packed.facts["rank"]
    coefficients = np.full(rank * 2 * (rows - rank), value).view(np.int64) >> packed.facts["dropped"]
    new = {"rows": np.full(rank * 2 * columns, value), "coefficients": coefficients}
    parts = dict(packed.parts)
    for name in names:
        # As they are, which is how numbers are stored that do not shrink.
        parts |= {name: new[name].view(np.uint8)}
    return parts


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("names", [["rows"], ["coefficients"], ["rows", "coefficients"]])
def test_rows_and_coefficients_that_are_not_finite(value, names):
    v, packed = good()
    refused(packed.facts, changed_numbers(packed, names, value), np.empty_like(v))


def test_a_prediction_that_is_not_finite():
    v, packed = good()
    refused(packed.facts, changed_numbers(packed, ["rows", "coefficients"], 1e308), np.empty_like(v))


@settings(max_examples=150)
@given(data=st.data())
def test_any_byte_may_be_another(data):
    v, packed = good()
    name = data.draw(st.sampled_from(sorted(packed.parts)))
    raw = bytearray(packed.parts[name].tobytes())
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    out = np.empty_like(v)
    with contextlib.suppress(IntegrityError):
        unpack(FORM, packed.facts, {**packed.parts, name: np.frombuffer(raw, packed.parts[name].dtype)}, out)


def write_golden():
    """Write the golden file, which then stays as it is for ever (``python -m tests.compression.test_low_rank``)."""
    cases = []
    for array, how in small_cases():
        packed = packed_with(array, how)
        parts = {
            name: (part.dtype.str, base64.b64encode(part.tobytes()).decode()) for name, part in packed.parts.items()
        }
        sha = hashlib.sha256(array.tobytes()).hexdigest()
        cases.append(
            {"dtype": array.dtype.str, "shape": array.shape, "sha256": sha, "facts": packed.facts, "parts": parts}
        )
    GOLDEN.write_text(json.dumps(cases, indent=1) + "\n")


if __name__ == "__main__":
    write_golden()
