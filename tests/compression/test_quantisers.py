"""Lossy forms with one step: certified, exact to decode, close to the rate-distortion bound, and safe to read."""

import contextlib
import functools
import math
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from quantum_memory.compression.forms.trellis import SEGMENT, Trellis
from quantum_memory.compression.forms.uniform import Uniform
from quantum_memory.compression.forms.views import unpack
from quantum_memory.errors import IntegrityError, InvalidStateError
from quantum_memory.state.arrays import same_bits

from .test_certificate import exact_infidelity, long_infidelity

FORMS = (Uniform(), Trellis())
TYPES = (np.float32, np.float64, np.complex64, np.complex128)
EFFORTS = ("fast", "balanced", "max")
each_form = pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)


def haar(n, dtype=np.complex128, seed=1):
    rng = np.random.default_rng(seed)
    reals = rng.standard_normal(2**n * (2 if np.dtype(dtype).kind == "c" else 1))
    return (reals / np.linalg.norm(reals)).astype(np.dtype(dtype).char.lower()).view(dtype)


def unpacked(form, packed, like):
    out = np.full_like(like, 7)
    unpack(form, packed.facts, packed.parts, out)
    return out


STRETCHES = st.tuples(st.floats(0, 1), st.sampled_from([0, 1, 2, 1000, 2**16, 2**17 + 1, 2**19]))
"""Where stretches of an array begin, as a share of it, and how long they are at most."""


def check_stretch(view, whole, stretch):
    """Assert that a stretch of an array comes out as it is in the whole."""
    share, length = stretch
    start = int(share * whole.size)
    expected = whole.reshape(-1)[start : start + length]
    out = np.full_like(expected, 7)
    view.read(start, out)
    assert same_bits(out, expected)


def check_threads(view, whole):
    """Assert that several threads can read stretches of an array at once, which start in one place and end in many."""
    stretches = [(place / 7, length) for length in (2**17 + 5, 3, 2**18) for place in (0, 3, 3, 6, 7, 1)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda stretch: check_stretch(view, whole, stretch), stretches))


class Counted:
    """A part that knows how many of its items were read."""

    def __init__(self, part):
        self.part, self.shape, self.dtype, self.read = part, part.shape, part.dtype, 0

    def __getitem__(self, items):
        self.read += len(self.part[items])
        return self.part[items]


def checked(form, array, infidelity, effort="balanced"):
    """Pack, and assert what is promised; return what came of it and the bits per real."""
    done = form.pack(array, infidelity, effort)
    assert done is not None
    assert done.packed.form == form.name
    out = unpacked(form, done.packed, array)
    assert 0 <= done.infidelity <= infidelity
    psi, phi = array.reshape(-1), out.reshape(-1)
    assert float(long_infidelity(psi, phi)) <= done.infidelity * (1 + 1e-15) + 1e-300
    reals = array.size * (2 if array.dtype.kind == "c" else 1)
    return done, sum(8 * part.nbytes for part in done.packed.parts.values()) / reals


@each_form
@pytest.mark.parametrize("infidelity", [1e-1, 1e-2, 1e-4, 1e-7, 1e-10, 1e-13])
@pytest.mark.parametrize("dtype", [np.float64, np.complex64, np.complex128])
def test_haar_states_use_their_budget(form, dtype, infidelity):
    done, bits = checked(form, haar(13, dtype), infidelity)
    assert done.infidelity >= 0.95 * infidelity
    assert bits <= 0.5 * math.log2(1 / infidelity) + 0.5


@each_form
@pytest.mark.parametrize("effort", EFFORTS)
@pytest.mark.parametrize("infidelity", [1e-2, 1e-6, 1e-10])
def test_rates_are_near_shannon(form, effort, infidelity):
    done, bits = checked(form, haar(16), infidelity, effort)
    gap = {
        ("uniform", "fast"): 0.36, ("uniform", "balanced"): 0.33, ("uniform", "max"): 0.30,
        ("trellis", "fast"): 0.23, ("trellis", "balanced"): 0.16, ("trellis", "max"): 0.14,
    }[form.name, effort]  # fmt: skip
    assert bits <= 0.5 * math.log2(1 / infidelity) + gap
    assert done.infidelity >= 0.985 * infidelity


@each_form
def test_large_states_in_blocks(form):
    array = haar(19, np.complex64)[: 2**18 + 2**17 + 2 * SEGMENT + 77]
    for effort in EFFORTS:
        done, bits = checked(form, array, 1e-4, effort)
        assert done.infidelity >= 0.985e-4
        assert bits < 7


@each_form
@pytest.mark.parametrize("count", [1, 2, 3, 511, 513, 1023, 1024, 1025, 4099])
def test_any_length_and_two_axes(form, count):
    array = haar(13)[:count]
    done = form.pack(array, 1e-3, "max")
    if done is not None:  # some are too short to gain
        checked(form, array, 1e-3, "max")
    checked(form, haar(12, np.complex128).reshape(64, 64), 1e-3)


def states():
    n = 2**12
    ghz, w, uniform, one, dicke, decaying = (np.zeros(n, np.complex128) for _ in range(6))
    ghz[[0, -1]] = 2**-0.5
    w[2 ** np.arange(12)] = 12**-0.5
    uniform[:] = 1 / 64
    one[77] = 1j
    dicke[[x for x in range(n) if x.bit_count() == 3]] = 220**-0.5
    decaying[:] = 0.98 ** np.arange(n) * np.exp(0.1j * np.arange(n))
    peak = haar(12) * 1e-3
    peak[5] = 1
    sparse = haar(12)
    sparse[np.arange(n) % 7 != 0] = 0
    return {"ghz": ghz, "w": w, "uniform": uniform, "one": one, "dicke": dicke, "decaying": decaying, "peak": peak,
            "sparse": sparse, "real": haar(12).real.astype(np.complex128), "large": haar(12) * 1e200,
            "small": haar(12) * 1e-200, "largest": haar(12) / np.abs(haar(12).view(float)).max() * 1.7e308}  # fmt: skip


@each_form
@pytest.mark.parametrize("name", states())
@pytest.mark.parametrize("infidelity", [0.5, 1e-2, 1e-8, 1e-15])
def test_states_of_other_kinds(form, name, infidelity):
    array = states()[name]
    done = form.pack(array, infidelity, "balanced")
    if done is None:
        assert form.name == "trellis"
        return
    checked(form, array, infidelity)


def test_real_states_take_the_room_of_their_real_parts():
    array = haar(14).real.astype(np.complex128)
    done, bits = checked(Uniform(), array, 1e-4)
    assert bits < 7 / 2
    assert not unpacked(Uniform(), done.packed, array).imag.any()


def test_few_values_are_kept_with_little():
    done, bits = checked(Uniform(), states()["ghz"], 1e-2)
    assert done.infidelity < 1e-9
    assert bits < 0.2


@each_form
def test_what_cannot_be_had_is_none(form):
    assert form.pack(haar(12, np.complex64), 1e-25, "balanced") is None  # no smaller than the array
    assert form.pack(haar(12) * 1e-310, 1e-4, "balanced") is None  # subnormal steps are not safe
    assert form.pack(haar(12), 1e-34, "balanced") is None


@each_form
@pytest.mark.parametrize("dtype", TYPES)
def test_what_is_no_state_is_refused(form, dtype):
    for bad in (np.nan, np.inf, -np.inf):
        array = haar(12, dtype)
        array[99] = bad
        with pytest.raises(InvalidStateError):
            form.pack(array, 1e-4, "balanced")
    with pytest.raises(InvalidStateError):
        form.pack(np.zeros(64, dtype), 1e-4, "balanced")
    with pytest.raises(InvalidStateError):
        form.pack(np.zeros(0, dtype), 1e-4, "balanced")
    for infidelity in (0.0, 1.0, -1e-4, math.nan, math.inf):
        with pytest.raises(InvalidStateError):
            form.pack(haar(12, dtype), infidelity, "balanced")


@given(
    hnp.arrays(
        np.float64,
        st.integers(1, 300),
        elements=st.one_of(st.floats(allow_nan=False, allow_infinity=False), st.floats(-1, 1), st.just(0.0)),
        fill=st.floats(-1, 1),
    ),
    st.sampled_from(TYPES),
    st.floats(1e-16, 0.9),
    st.sampled_from(EFFORTS),
)
def test_whatever_the_numbers_are_the_certificate_holds(reals, dtype, infidelity, effort):
    if np.dtype(dtype).itemsize in (4, 8) and dtype is not np.float64:
        reals = np.clip(reals, -3.4e38, 3.4e38)
    with np.errstate(under="ignore"):
        array = reals.astype(dtype) * dtype(0.6 + 0.8j if np.dtype(dtype).kind == "c" else 1)
    assume(array.any() and np.isfinite(array).all())
    for form in FORMS:
        done = form.pack(array, infidelity, effort)
        if done is not None:
            assert done.infidelity <= infidelity
            assert exact_infidelity(array, unpacked(form, done.packed, array)) <= Fraction(done.infidelity)


@each_form
def test_packing_is_canonical(form):
    array = haar(17)
    one, other = (form.pack(array, 1e-5, "max") for _ in range(2))
    assert one.packed.facts == other.packed.facts
    assert one.infidelity == other.infidelity
    assert all(np.array_equal(one.packed.parts[name], other.packed.parts[name]) for name in one.packed.parts)


def test_the_trellis_is_that_of_eight_states():
    """Compare with the state machine, one real at a time."""
    following = [(0, 1), (2, 3), (5, 4), (7, 6), (1, 0), (3, 2), (4, 5), (6, 7)]
    for kind in ("i2", "i4", "i8"):
        stored = np.random.default_rng(1).integers(-1000, 1000, 2 * SEGMENT + 321).astype(kind)
        expected, state = [], 0
        for index, k in enumerate(stored.tolist()):
            state = 0 if index % SEGMENT == 0 else state
            expected.append(2 * k + state % 2)
            state = following[state][k % 2]
        assert Trellis().points(stored).tolist() == expected


def test_the_trellis_finds_a_better_sequence_than_rounding():
    x = np.random.default_rng(2).uniform(-50, 50, 64 * SEGMENT)
    points = Trellis().points(Trellis().integers(x, 1.0, np.dtype("i2")))
    # As an integer takes 2 steps here, rounding would leave 1/3; with the bound of every lattice 0.234.
    assert np.mean((points - x) ** 2) < 0.262


@pytest.mark.parametrize("bits", [1e-3, 1e-9])
def test_integers_of_each_width_are_joined_again(bits):
    array = haar(12)
    for form in FORMS:
        done, _ = checked(form, array, bits, "fast")
        assert "low" in done.packed.facts


def forged(form, effort="fast"):
    """Yield facts and parts that no release makes, from those of a state."""
    packed = form.pack(haar(12), 1e-4, effort).packed
    facts, parts = packed.facts, packed.parts
    values = (None, True, -1, 3, 9, 25, 2**60, 1.5, "", "i2", "i8", "u2", "0x1p-9", "nan", "-0x1p0", "0x1p-1060",
              "0x0p0", "0x1.00000000001p0", "inf", "0x1p99999", "9" * 10**5, [], {}, ["i2"], {"i2": 1})  # fmt: skip
    for name, old in facts.items():
        yield {key: value for key, value in facts.items() if key != name}, parts
        for value in values:
            if not (value == old and type(value) is type(old)):
                yield {**facts, name: value}, parts
    yield {**facts, "more": 1}, parts
    for name, part in parts.items():
        yield facts, {key: value for key, value in parts.items() if key != name}
        for other in (part[:-1], np.append(part, part[-1:]), part[:0], part.astype(np.float64), part.reshape(1, -1)):
            yield facts, {**parts, name: other}
        for start in range(0, len(part), max(1, len(part) // 40)):
            damaged = part.copy()
            damaged[start : start + 3] ^= 0xA5
            yield facts, {**parts, name: damaged}
        yield facts, {**parts, name: np.full_like(part, -1 if part.dtype.kind == "i" else np.iinfo(part.dtype).max)}


@each_form
@pytest.mark.parametrize("effort", ["fast", "max"])
@pytest.mark.parametrize("dtype", [np.float32, np.complex128])
def test_hostile_facts_and_parts(form, effort, dtype):
    out = np.empty(2**13 if dtype is np.float32 else 2**12, dtype)
    for facts, parts in forged(form, effort):
        with contextlib.suppress(IntegrityError):  # other bits may be other numbers
            unpack(form, facts, parts, out)


@each_form
def test_parts_of_another_length_do_not_fit(form):
    for effort in ("fast", "max"):
        packed = form.pack(haar(12), 1e-4, effort).packed
        for count in (0, 1, 2**12 - 1, 2**12 + 1, 2**19):
            with pytest.raises(IntegrityError):
                unpack(form, packed.facts, packed.parts, np.empty(count, np.complex128))


@functools.cache
def several_windows(form, effort, dtype, real):
    array = haar(19, dtype)[: 2**19 - 2 * SEGMENT - 77]
    array = array.real.astype(dtype) if real else array
    packed = form.pack(array, 1e-4, effort).packed
    return packed, unpacked(form, packed, array)


CASES = [
    ("fast", np.complex128, False),
    ("max", np.complex64, False),
    ("max", np.float32, False),
    ("balanced", np.complex64, True),
]


@each_form
@pytest.mark.parametrize(("effort", "dtype", "real"), CASES)
@settings(max_examples=12)
@given(stretch=STRETCHES)
def test_any_stretch_is_that_of_the_whole(form, effort, dtype, real, stretch):
    packed, whole = several_windows(form, effort, dtype, real)
    check_stretch(form.view(packed.facts, packed.parts, whole.dtype, whole.shape), whole, stretch)


@each_form
@pytest.mark.parametrize(("effort", "dtype", "real"), CASES)
def test_stretches_are_read_by_several_threads(form, effort, dtype, real):
    packed, whole = several_windows(form, effort, dtype, real)
    check_threads(form.view(packed.facts, packed.parts, whole.dtype, whole.shape), whole)


@each_form
@pytest.mark.parametrize("effort", ["fast", "max"])
def test_a_stretch_touches_the_blocks_it_is_in(form, effort):
    packed, whole = several_windows(form, effort, np.complex128, False)
    parts = {name: Counted(part) for name, part in packed.parts.items()}
    view = form.view(packed.facts, parts, whole.dtype, whole.shape)
    check_stretch(view, whole, (0.5, 1000))
    assert sum(part.read for part in parts.values()) < 0.3 * sum(map(len, packed.parts.values()))


@each_form
def test_a_damaged_block_shows_where_it_is(form):
    packed, whole = several_windows(form, "max", np.complex128, False)
    damaged = packed.parts["integers"].copy()
    damaged[-20_000:] ^= 0xA5
    view = form.view(packed.facts, {**packed.parts, "integers": damaged}, whole.dtype, whole.shape)
    check_stretch(view, whole, (0, 1000))
    with pytest.raises(IntegrityError):
        view.read(whole.size - 1, np.empty(1, whole.dtype))
    with pytest.raises(IntegrityError):
        view.fill(np.empty_like(whole))
