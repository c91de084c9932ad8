"""Turned qubits and symmetries: what they save, the same bits everywhere, and what a hostile file can do."""

import functools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantum_memory.compression.forms.natural_basis import NaturalBasis
from quantum_memory.compression.forms.rotations import natural_bases, turn
from quantum_memory.compression.forms.uniform import Uniform
from quantum_memory.compression.forms.views import unpack
from quantum_memory.errors import IntegrityError, InvalidStateError

from .test_mps_form import product
from .test_quantisers import STRETCHES, check_stretch, check_threads, checked, haar, unpacked

FORM = NaturalBasis()


def qaoa(n, angles=((0.35, 0.65), (0.61, 0.43)), seed=1):
    """A state of the approximate optimisation of a cut of a random graph: no bit differs from its complement."""
    rng = np.random.default_rng(seed)
    x = np.arange(2**n)
    energy = np.zeros(2**n)
    for a, b in {tuple(sorted(rng.choice(n, 2, replace=False).tolist())) for _ in range(2 * n)}:
        energy += 1 - 2.0 * (((x >> a) ^ (x >> b)) & 1)
    state = np.full(2**n, 2 ** (-n / 2), complex)
    for gamma, beta in angles:
        state *= np.exp(1j * gamma * energy)
        for qubit in range(n):
            x0, x1 = np.moveaxis(state.reshape(-1, 2, 2**qubit), 1, 0).copy()
            pair = state.reshape(-1, 2, 2**qubit)
            pair[:, 0] = math.cos(beta) * x0 - 1j * math.sin(beta) * x1
            pair[:, 1] = math.cos(beta) * x1 - 1j * math.sin(beta) * x0
    return state


def turned(state, seed=2):
    """The state after a random turn of each qubit."""
    rng = np.random.default_rng(seed)
    w = rng.uniform(0.2, 0.9, state.size.bit_length() - 1) * np.exp(2j * math.pi * rng.uniform(size=1))
    out = state.astype(complex)
    turn(out, w.tolist())
    return out


@pytest.mark.parametrize("dtype", [np.complex64, np.complex128])
@pytest.mark.parametrize("infidelity", [1e-2, 1e-4, 1e-8, 1e-11])
def test_symmetric_states_take_half(dtype, infidelity):
    one_layer = qaoa(13, ((0.4, 0.3),))
    for state, effort in [(qaoa(12), "balanced"), (turned(one_layer), "balanced"), (turned(qaoa(12)), "max")]:
        done, bits = checked(FORM, state.astype(dtype), infidelity, effort)
        plain = Uniform().pack(state.astype(dtype), infidelity, "balanced").packed
        assert bits < 0.62 * 8 * sum(part.nbytes for part in plain.parts.values()) / (2 * state.size)
        assert done.infidelity > 0.9 * infidelity


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex128])
def test_flips_with_either_sign(sign, dtype):
    half = haar(13, dtype)
    _, bits = checked(FORM, np.concatenate([half, sign * half[::-1]]), 1e-6)
    assert bits < 0.53 * 10.3


@pytest.mark.parametrize("odd", [False, True])
@pytest.mark.parametrize("dtype", [np.float64, np.complex64])
def test_parities(odd, dtype):
    state = haar(14, dtype)
    state[np.bitwise_count(np.arange(2**14)) % 2 != odd] = 0
    _, bits = checked(FORM, state, 1e-6)
    assert bits < 0.53 * 10.3


def test_biases_are_used():
    """Qubits that are nearly in a product state have few large amplitudes once they are turned."""
    state = turned(product(12) + 0.3 * haar(12))
    _, bits = checked(FORM, state, 1e-4)
    assert bits < 5.7


@pytest.mark.parametrize("effort", ["fast", "balanced", "max"])
@pytest.mark.parametrize("dtype", [np.float32, np.complex64, np.complex128])
def test_states_that_gain_nothing_are_left_to_others(dtype, effort):
    assert FORM.pack(haar(13, dtype), 1e-6, effort) is None
    assert FORM.pack(np.ones(1000, dtype), 1e-6, effort) is None
    assert FORM.pack(np.ones((64, 64), dtype), 1e-6, effort) is None


@pytest.mark.parametrize("bad", [0.0, math.nan, math.inf])
def test_states_without_a_fidelity_are_refused(bad):
    with pytest.raises(InvalidStateError):
        FORM.pack(np.full(2**10, bad), 1e-4, "balanced")


@settings(max_examples=30)
@given(n=st.integers(1, 12), seed=st.integers(0, 99), real=st.booleans())
def test_turns_are_undone_and_make_qubits_diagonal(n, seed, real):
    state = haar(n, np.float64 if real else np.complex128, seed) + product(n, seed, real=real)
    bases = natural_bases(state)
    out = state.copy()
    turn(out, bases.turns)
    assert np.allclose(natural_bases(out).before, bases.biases, atol=1e-12)
    for qubit in range(n):
        x0, x1 = np.moveaxis(out.reshape(-1, 2, 2**qubit), 1, 0).reshape(2, -1)
        assert abs(np.vdot(x0, x1)) < 1e-12 * np.linalg.norm(out) ** 2 + 1e-6 * (bases.biases[qubit] < 1e-5)
    turn(out, bases.turns, back=True)
    assert np.allclose(out, state, rtol=0, atol=1e-14)


def test_turns_do_not_depend_on_how_the_work_is_divided(monkeypatch):
    """The definition is one pair after another; large states are turned in tiles, on all cores."""
    from quantum_memory.compression.forms import rotations

    rng = np.random.default_rng(3)
    w = (rng.uniform(-0.6, 0.6, 11) + 1j * rng.uniform(-0.6, 0.6, 11)).tolist()
    state = haar(11)
    expected = state.copy()
    for qubit, one in enumerate(w):
        c = math.sqrt(1 - (one.real * one.real + one.imag * one.imag))
        pair = expected.reshape(-1, 2, 2**qubit)
        (a, b), (d, e) = ((pair[:, k].real.copy(), pair[:, k].imag.copy()) for k in (0, 1))
        pair[:, 0].real = c * a + one.real * d - one.imag * e
        pair[:, 0].imag = c * b + one.real * e + one.imag * d
        pair[:, 1].real = c * d - one.real * a - one.imag * b
        pair[:, 1].imag = c * e - one.real * b + one.imag * a
    for tile in (3, 8, 16):
        monkeypatch.setattr(rotations, "_TILE", tile)
        out = state.copy()
        turn(out, w)
        assert out.tobytes() == expected.tobytes()


@settings(max_examples=30)
@given(
    n=st.integers(8, 12),
    seed=st.integers(0, 99),
    power=st.floats(-11, -1),
    dtype=st.sampled_from([np.complex64, np.complex128]),
)
def test_what_is_certified_holds(n, seed, power, dtype):
    state = turned(qaoa(n, seed=seed), seed).astype(dtype)
    if FORM.pack(state, 10**power, "balanced") is not None:
        checked(FORM, state, 10**power)


@functools.cache
def packed():
    return FORM.pack(qaoa(11, ((0.4, 0.3),)), 1e-4, "balanced").packed


def test_wrong_facts_are_refused():
    one = packed()
    out = np.empty(2**11, complex)
    unpack(FORM, {**one.facts, "turned": False, "half": None}, {**one.parts}, np.empty(2**10, complex))
    bad = {
        "turned": [0, None, "yes"],
        "half": [[], [True], [True, 1], "ab", {}, 1, True, [True, False, True]],
        "rest": [
            None,
            {},
            {"form": "natural_basis", "facts": one.facts},
            {"form": [], "facts": {}},
            {"form": "mps"},
            [],
        ],
    }
    for name, values in bad.items():
        for value in values:
            with pytest.raises(IntegrityError):
                unpack(FORM, {**one.facts, name: value}, one.parts, out)
    with pytest.raises(IntegrityError):
        unpack(FORM, {}, one.parts, out)


@pytest.mark.parametrize(
    "turns", [np.full(22, 0.8), np.full(22, math.nan), np.full(22, 1e300), np.zeros(20), np.zeros(22, np.float32)]
)
def test_wrong_turns_are_refused(turns):
    one = packed()
    with pytest.raises(IntegrityError):
        unpack(FORM, {**one.facts, "turned": True}, {**one.parts, "turns": turns}, np.empty(2**11, complex))


def test_arrays_of_another_kind_are_refused():
    one = packed()
    for shape in (2**12, 2**10, 2000, (32, 64), 2):
        with pytest.raises(IntegrityError):
            unpack(FORM, one.facts, one.parts, np.empty(shape, complex))
    complex_turns = {**one.parts, "turns": np.full(22, 0.5)}
    with pytest.raises(IntegrityError):
        unpack(FORM, {**one.facts, "turned": True}, complex_turns, np.empty(2**11))


@settings(max_examples=80)
@given(data=st.data())
def test_damaged_parts_are_refused_or_give_some_numbers(data):
    one = packed()
    parts = {name: part.copy() for name, part in one.parts.items()}
    part = parts[data.draw(st.sampled_from(sorted(parts)))].view(np.uint8)
    for _ in range(data.draw(st.integers(1, 3))):
        part[data.draw(st.integers(0, len(part) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        unpack(FORM, one.facts, parts, np.empty(2**11, complex))
    except IntegrityError:
        return


@functools.cache
def several_windows(turns, dtype):
    array = (turned(qaoa(18, ((0.4, 0.3),))) if turns else qaoa(18)).astype(dtype)
    packed = FORM.pack(array, 1e-4, "balanced").packed
    assert packed.facts["turned"] is turns
    return packed, unpacked(FORM, packed, array)


@pytest.mark.parametrize("dtype", [np.complex64, np.complex128])
@pytest.mark.parametrize("turns", [False, True])
@settings(max_examples=5)
@given(stretches=st.lists(STRETCHES, min_size=1, max_size=5))
def test_any_stretch_is_that_of_the_whole(turns, dtype, stretches):
    packed, whole = several_windows(turns, dtype)
    view = FORM.view(packed.facts, packed.parts, whole.dtype, whole.shape)
    for stretch in stretches:
        check_stretch(view, whole, stretch)


def test_stretches_are_read_by_several_threads():
    packed, whole = several_windows(True, np.complex64)
    check_threads(FORM.view(packed.facts, packed.parts, whole.dtype, whole.shape), whole)
