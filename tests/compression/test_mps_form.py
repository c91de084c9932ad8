"""Matrix product states: how small states of low entanglement get, what is certified, what a hostile file can do."""

import functools
import itertools
import math
import re
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantum_memory.compression.certificate import overlap
from quantum_memory.compression.forms.contraction import Contraction
from quantum_memory.compression.forms.mps import MatrixProduct
from quantum_memory.compression.forms.views import unpack
from quantum_memory.compression.numbers import pack_numbers
from quantum_memory.errors import IntegrityError, InvalidStateError

from .test_quantisers import STRETCHES, check_stretch, check_threads, checked, haar, unpacked

FORM = MatrixProduct()
BUDGETS = (1e-2, 1e-4, 1e-7, 1e-10, 1e-12)


def product(n, seed=1, real=False):
    rng = np.random.default_rng(seed)
    state = np.ones(1)
    for _ in range(n):
        theta, phase = rng.uniform(0, math.pi), 0 if real else rng.uniform(0, 2 * math.pi)
        state = np.kron(state, [math.cos(theta / 2), math.sin(theta / 2) * np.exp(1j * phase)])
    return state


def ghz(n):
    state = np.zeros(2**n, np.complex128)
    state[[0, -1]] = math.sqrt(0.5)
    return state


def w_state(n):
    state = np.zeros(2**n, np.complex128)
    state[2 ** np.arange(n)] = 1 / math.sqrt(n)
    return state


def random_mps(n, bond, seed=1):
    rng = np.random.default_rng(seed)
    state = np.ones((1, 1))
    for site in range(n):
        right = min(bond, 2 * state.shape[1], 2 ** (n - 1 - site))
        shape = state.shape[1], 2 * right
        state = (state @ (rng.normal(size=shape) + 1j * rng.normal(size=shape))).reshape(-1, right)
    state = state.reshape(-1)
    return state / np.linalg.norm(state)


def shallow_circuit(n, depth, seed=1):
    """Run layers of random one-qubit gates and CZ gates on neighbours."""
    rng = np.random.default_rng(seed)
    state = np.zeros([2] * n, np.complex128)
    state[(0,) * n] = 1
    for layer in range(depth):
        for site in range(n):
            gate = np.linalg.qr(rng.normal(size=(2, 2)) + 1j * rng.normal(size=(2, 2)))[0]
            state = np.moveaxis(np.tensordot(gate, state, ([1], [site])), 0, site)
        for site in range(layer % 2, n - 1, 2):
            state[(slice(None),) * site + (1, 1)] *= -1
    return state.reshape(-1)


FAMILIES = {
    "product": product(12),
    "real product": product(13, real=True),
    "ghz": ghz(12),
    "w": w_state(12),
    "mps of bond 4": random_mps(13, 4),
    "mps of bond 16": random_mps(14, 16),
    "shallow circuit": shallow_circuit(14, 4),
}


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("dtype", [np.complex64, np.complex128])
@pytest.mark.parametrize("infidelity", BUDGETS)
def test_states_of_low_entanglement_are_kept_to_the_request(name, dtype, infidelity):
    _, bits = checked(FORM, FAMILIES[name].astype(dtype), infidelity)
    assert bits < 0.5 * (0.5 * math.log2(1 / infidelity) + 0.3)


@pytest.mark.parametrize("infidelity", BUDGETS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_real_arrays(dtype, infidelity):
    checked(FORM, product(13, real=True).real.astype(dtype), infidelity)


@pytest.mark.parametrize("effort", ["fast", "balanced", "max"])
@pytest.mark.parametrize("dtype", [np.float32, np.complex64, np.complex128])
@pytest.mark.parametrize("infidelity", [1e-2, 1e-6, 1e-13])
def test_generic_states_are_left_to_others(dtype, infidelity, effort):
    for n in (6, 9, 12, 15):
        assert FORM.pack(haar(n, dtype), infidelity, effort) is None


@pytest.mark.parametrize("n", [16, 20])
@pytest.mark.parametrize("make", [product, ghz, w_state])
def test_simple_states_take_a_kilobyte(make, n):
    done = FORM.pack(make(n), 1e-10, "balanced")
    assert done.packed.nbytes < 1536


@pytest.mark.parametrize(
    ("state", "infidelity", "most"),
    [
        # Half of what a matrix product state in its usual canonical form takes, with as many bits for each number.
        (random_mps(16, 16), 1e-4, 0.5 * 10_000 * 8.5 / 8),
        (random_mps(16, 16), 1e-8, 0.5 * 10_000 * 15.1 / 8),
        (shallow_circuit(16, 6), 1e-8, 2600),
    ],
)
def test_half_of_the_numbers_are_not_stored(state, infidelity, most):
    done = FORM.pack(state, infidelity, "balanced")
    assert sum(part.nbytes for part in done.packed.parts.values()) < 1.25 * most


def test_states_between_low_rank_and_noise():
    rng = np.random.default_rng(3)
    noise = (rng.normal(size=2**13) + 1j * rng.normal(size=2**13)) / 2**7
    for size in (1e-6, 1e-4, 1e-3, 1e-2):
        for infidelity in (1e-3, 1e-5, 1e-8):
            done = FORM.pack(random_mps(13, 3) + size * noise, infidelity, "balanced")
            assert done is None or done.infidelity <= infidelity
            assert done is not None or size * size > infidelity / 50


def test_weight_that_rows_do_not_show():
    """Nearly everything is in one amplitude; what is left over still counts when much is asked for."""
    state = 1e-3 * haar(13)
    state[12345 % 8192] = 1
    assert FORM.pack(state, 1e-4, "balanced") is not None
    assert FORM.pack(state, 1e-9, "balanced") is None


def test_imaginary_parts_in_rows_that_hardly_count():
    state = product(14, real=True)
    state[2**13 + 5 * 2**7 : 2**13 + 6 * 2**7] += 1e-3j * product(7).real
    done, _ = checked(FORM, state, 1e-9)
    assert not done.packed.facts["real"]


def test_lengths_that_are_no_qubits_and_matrices_are_left_to_others():
    assert FORM.pack(np.ones(1000), 1e-4, "balanced") is None
    assert FORM.pack(np.ones((64, 64)), 1e-4, "balanced") is None
    assert FORM.pack(np.ones(2), 1e-4, "balanced") is None


@pytest.mark.parametrize("bad", [0.0, math.nan, math.inf])
@pytest.mark.parametrize("dtype", [np.float32, np.complex128])
def test_states_without_a_fidelity_are_refused(dtype, bad):
    with pytest.raises(InvalidStateError):
        FORM.pack(np.full(2**10, bad, dtype), 1e-4, "balanced")


@pytest.mark.parametrize("factor", [1e-25, 1e-4, 1e3, 1e30])
@pytest.mark.parametrize("dtype", [np.complex64, np.complex128])
def test_the_norm_does_not_matter(dtype, factor):
    state = (factor * random_mps(12, 3)).astype(dtype)
    if dtype is np.complex64 and not 1e-10 < factor < 1e10:
        assert FORM.pack(state, 1e-6, "balanced") is None
    else:
        checked(FORM, state, 1e-6)


def test_the_same_state_makes_the_same_bytes():
    one, other = (FORM.pack(random_mps(13, 8), 1e-6, "balanced").packed for _ in range(2))
    assert one.facts == other.facts
    assert all(np.array_equal(part, other.parts[name]) for name, part in one.parts.items())


@settings(max_examples=40)
@given(
    state=st.builds(random_mps, st.integers(8, 12), st.integers(1, 6), st.integers(0, 99)),
    power=st.floats(-12, -2),
    dtype=st.sampled_from([np.complex64, np.complex128]),
    effort=st.sampled_from(["fast", "balanced", "max"]),
)
def test_what_is_certified_holds(state, power, dtype, effort):
    if FORM.pack(state.astype(dtype), 10**power, effort) is not None:
        checked(FORM, state.astype(dtype), 10**power, effort)


@functools.cache
def packed(infidelity=1e-6):
    return FORM.pack(random_mps(12, 4), infidelity, "balanced").packed


BAD_FACTS = {
    "center": [-1, 12, 10**9, 1.0, True, "0", None],
    "real": [1, None, "no"],
    "single": [1, None],
    "step": ["nan", "inf", "-0x1p-3", "0x0p0", "0x1p-2000", 3.0, None, "0x" + "1" * 100, "0x1p5000"],
    "scales": [[], [10**9] * 12, [0] * 11, [0.5] * 12, [True] * 12, "0" * 12, {}, [0] * 12000],
    "type": ["i1", "f8", "u4", 4, None, [], "i2 "],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in BAD_FACTS.items() for value in values])
def test_wrong_facts_are_refused(name, value):
    one = packed()
    with pytest.raises(IntegrityError):
        unpack(FORM, {**one.facts, name: value}, one.parts, np.empty(2**12, np.complex128))


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("pivots", np.zeros(9, np.uint8)),
        ("pivots", np.full(9, 255, np.uint8)),
        ("pivots", np.full(10**6, 255, np.uint8)),
        ("pivots", np.zeros(0, np.uint8)),
        ("pivots", np.full((3, 3), 255, np.uint8)),
        ("pivots", np.full(9, 255, np.int32)),
        ("numbers", np.zeros(17, np.uint8)),
        ("numbers", np.zeros(17, np.float64)),
        ("numbers", np.zeros(10**6, np.uint8)),
        ("numbers", np.zeros(0, np.uint8)),
    ],
)
def test_wrong_parts_are_refused(name, part):
    one = packed()
    with pytest.raises(IntegrityError):
        unpack(FORM, one.facts, {**one.parts, name: part}, np.empty(2**12, np.complex128))
    parts = {key: value for key, value in one.parts.items() if key != name}
    with pytest.raises(IntegrityError):
        unpack(FORM, one.facts, parts, np.empty(2**12, complex))


@pytest.mark.parametrize(
    "out", [np.empty(2**11, complex), np.empty(2**13, complex), np.empty(2**12), np.empty((64, 64))]
)
def test_arrays_of_another_kind_are_refused(out):
    one = packed()
    with pytest.raises(IntegrityError):
        unpack(FORM, one.facts, one.parts, out)


@settings(max_examples=150)
@given(data=st.data())
def test_damaged_parts_are_refused_or_give_some_numbers(data):
    one = packed(1e-3)
    parts = {name: part.copy() for name, part in one.parts.items()}
    part = parts[data.draw(st.sampled_from(sorted(parts)))].view(np.uint8)
    for _ in range(data.draw(st.integers(1, 3))):
        part[data.draw(st.integers(0, len(part) - 1))] ^= data.draw(st.integers(1, 255))
    facts = {**one.facts, "step": data.draw(st.sampled_from([one.facts["step"], "0x1p1000", "0x1p-1000"]))}
    out = np.empty(2**12, np.complex128)
    try:
        unpack(FORM, facts, parts, out)
    except IntegrityError:
        return


LARGE = """
import sys, time
import numpy as np
from quantum_memory.compression.forms.mps import MatrixProduct
from quantum_memory.compression.forms.views import unpack

def peak():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) << 10

n = 22
rng = np.random.default_rng(5)
state = np.empty(2**n, np.complex64)
rest = np.ones(1, np.complex64)
for angle in rng.uniform(0.2, 1.3, n - 1):
    rest = np.kron(rest, np.array([np.cos(angle), np.sin(angle)], np.complex64))
state[: 2 ** (n - 1)], state[2 ** (n - 1) :] = rest * np.float32(0.8), rest[::-1] * np.float32(0.6)
out = np.zeros_like(state)
del rest
FORM = MatrixProduct()
FORM.pack(state[: 2**12].copy(), 1e-4, "fast")
with open("/proc/self/clear_refs", "w") as clear:
    clear.write("5")
before = peak()
done = FORM.pack(state, 1e-8, "balanced")
packing = peak() - before
unpack(FORM, done.packed.facts, done.packed.parts, out)
print(packing >> 20, (peak() - before) >> 20, done.packed.nbytes, done.infidelity)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="measures memory as Linux counts it")
def test_large_states_take_little_memory():
    run = subprocess.run([sys.executable, "-c", LARGE], capture_output=True, text=True, check=True)
    packing, both, nbytes, infidelity = map(float, re.findall(r"\S+", run.stdout))
    assert packing < 64
    assert both < 64
    assert nbytes < 2048
    assert infidelity <= 1e-8


def test_the_margin_covers_another_order_of_summation():
    """What is unpacked by sums in another order and precision is within what is certified."""
    from quantum_memory.compression.forms.chain import unpack_tensors

    for infidelity in (1e-4, 1e-8, 1e-12):
        state = random_mps(12, 8)
        done = FORM.pack(state, infidelity, "balanced")
        tensors, _ = unpack_tensors(done.packed.facts, done.packed.parts, 12)
        other = np.ones((1, 1), np.clongdouble)
        for tensor in tensors[::-1]:
            wide = tensor.astype(np.clongdouble)
            other = np.einsum("asb,bx->asx", wide, other).reshape(len(wide), -1)
        out = unpacked(FORM, done.packed, state)
        assert np.linalg.norm((out - other.reshape(-1)).astype(complex)) < 1e-11
        checked(FORM, state, infidelity)


@functools.cache
def several_windows(infidelity, dtype):
    array = random_mps(20, 5).astype(dtype)
    packed = FORM.pack(array, infidelity, "balanced").packed
    return packed, unpacked(FORM, packed, array)


WINDOWS = [(1e-4, np.complex64), (1e-8, np.complex64), (1e-8, np.complex128)]


@pytest.mark.parametrize(("infidelity", "dtype"), WINDOWS)
@settings(max_examples=20)
@given(stretch=STRETCHES)
def test_any_stretch_is_that_of_the_whole(infidelity, dtype, stretch):
    packed, whole = several_windows(infidelity, dtype)
    check_stretch(FORM.view(packed.facts, packed.parts, whole.dtype, whole.shape), whole, stretch)


@pytest.mark.parametrize(("infidelity", "dtype"), WINDOWS)
def test_stretches_are_read_by_several_threads(infidelity, dtype):
    packed, whole = several_windows(infidelity, dtype)
    check_threads(FORM.view(packed.facts, packed.parts, whole.dtype, whole.shape), whole)


def test_the_certificate_is_about_the_bits_that_are_unpacked():
    state = random_mps(20, 5)
    packed, whole = several_windows(1e-8, np.complex128)
    view = FORM.view(packed.facts, packed.parts, whole.dtype, whole.shape)
    ours, theirs = view.overlap(state), overlap(state, whole)
    assert [ours.pp, ours.ee, ours.rr, ours.f] == pytest.approx([theirs.pp, theirs.ee, theirs.rr, theirs.f], rel=1e-15)


def chain_of_bonds(*bonds):
    """Return tensors with a few ones, the bonds between which are these."""
    tensors = [np.zeros((left, 2, right)) for left, right in itertools.pairwise((1, *bonds, 1))]
    for tensor in tensors:
        tensor[0, :, 0] = 1
    return tensors


def test_a_stretch_of_more_than_there_is_memory_for():
    """Rows are longer than a window here: it is a part of one."""
    chain = chain_of_bonds(*[2] * 40)
    view = Contraction(chain, np.dtype(np.complex64), single=True)
    out = np.zeros(2**18 + 10, np.complex64)
    view.read(2**40 - 5, out)
    assert (out == 1).all()
    chain[10][0, 1, 0] = 0
    view = Contraction(chain, np.dtype(np.float64), single=False)
    wide = np.zeros(2**18 + 10)
    view.read(2**30 - 5, wide)
    assert (wide == np.repeat([1, 0], [5, 2**18 + 5])).all()


@pytest.mark.parametrize(
    "bonds",
    [
        [2] * 47,  # the factors are too large
        [*(min(2**site, 256) for site in range(1, 24)), 1, *(min(2**site, 256) for site in range(23, 0, -1))],
        [1] * 48,
    ],
)
def test_chains_that_would_take_too_much_memory_are_refused(bonds):
    tensors = chain_of_bonds(*bonds)
    count = len(tensors)
    center = count // 2
    marks = []
    for site in (*range(center), *range(count - 1, center, -1)):
        near, far = tensors[site].shape[::2] if site < center else tensors[site].shape[::-2]
        marks.append(np.arange(2 * near) < far)
    stored = sum(
        tensor.size - (tensor.shape[2 if site < center else 0] ** 2 if site != center else 0)
        for site, tensor in enumerate(tensors)
    )
    facts = {"single": False, "real": True, "center": center, "scales": [0] * count, "step": "0x1p0", "type": "i2"}
    parts = {"pivots": np.packbits(np.concatenate(marks)), **pack_numbers("numbers", np.zeros(stored, "<i2"))}
    tracemalloc.start()
    with pytest.raises(IntegrityError, match=r"larger than any|so many items"):
        FORM.view(facts, parts, np.dtype(np.complex64), (2**count,))
    assert tracemalloc.get_traced_memory()[1] < 200 << 20
    tracemalloc.stop()
