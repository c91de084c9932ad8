"""The certified infidelity is never below the true one, and close to it."""

import json
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from quantum_memory.compression.certificate import DEFINITION, Certificate, Overlap, overlap, scale_of
from quantum_memory.errors import IntegrityError, InvalidStateError
from quantum_memory.state.arrays import array_digest

TYPES = (np.float32, np.float64, np.complex64, np.complex128)
EPSILONS = (1e-1, 1e-2, 1e-4, 1e-8, 1e-13, 1e-17, 1e-20, 1e-26)


def exact_infidelity(psi, phi):
    """1 - F in rational numbers."""
    a, b = ([(Fraction(float(z.real)), Fraction(float(z.imag))) for z in row] for row in (psi, phi))
    pp, rr = (sum(x * x + y * y for x, y in row) for row in (a, b))
    re = sum(x * p + y * q for (x, y), (p, q) in zip(a, b, strict=True))
    im = sum(x * q - y * p for (x, y), (p, q) in zip(a, b, strict=True))
    return 1 - (re * re + im * im) / (pp * rr) if rr else Fraction(1)


def long_infidelity(psi, phi):
    """1 - F in 80-bit floats, as a Gram determinant."""
    x, y = (row.astype(np.result_type(row.dtype, np.longdouble)) for row in (psi, phi))
    e = y - x
    pp, ee, rr = ((row.real**2 + row.imag**2).sum() for row in (x, e, y))
    return (ee * pp - abs((x.conj() * e).sum()) ** 2) / (pp * rr)


def random(rng, n, dtype):
    row = rng.standard_normal(n)
    return (row + 1j * rng.standard_normal(n) if np.dtype(dtype).kind == "c" else row).astype(dtype)


def certified(psi, phi):
    return overlap(psi, phi, scale_of(psi).shift).infidelity()


@pytest.mark.parametrize("eps", EPSILONS)
@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
def test_the_bound_holds_and_is_tight(dtype, eps):
    rng = np.random.default_rng(1)
    psi = random(rng, 100, dtype)
    phi = psi + np.sqrt(eps) * random(rng, 100, dtype)
    true = exact_infidelity(psi, phi)
    assert true <= Fraction(certified(psi, phi)) <= true * (1 + Fraction(1, 10**6))


@pytest.mark.parametrize("dtype", [np.float32, np.complex64])
def test_the_bound_holds_and_is_tight_in_single_precision(dtype):
    rng = np.random.default_rng(2)
    psi = random(rng, 100, dtype)
    for eps in (1e-1, 1e-4, 1e-8, 1e-12):
        phi = (psi + np.sqrt(eps) * random(rng, 100, dtype)).astype(dtype)
        true = exact_infidelity(psi, phi)
        assert true <= Fraction(certified(psi, phi)) <= true * (1 + Fraction(1, 10**6))


@pytest.mark.parametrize("dtype", TYPES)
def test_long_vectors(dtype):
    rng = np.random.default_rng(3)
    n = 3 * 2**17 + 4099  # some blocks, rows and what is left
    psi = random(rng, n, dtype)
    for eps in (1e-2, 1e-10):
        phi = (psi + np.sqrt(eps) * random(rng, n, dtype)).astype(dtype)
        true = float(long_infidelity(psi, phi))
        assert true <= certified(psi, phi) * (1 + 1e-15)
        assert certified(psi, phi) == pytest.approx(true, rel=1e-9)


def test_wide_dynamic_range_and_one_large_amplitude():
    rng = np.random.default_rng(4)
    wide = random(rng, 60, np.complex128) * 10.0 ** rng.uniform(-150, 150, 60)
    peak = random(rng, 60, np.complex128)
    peak[17] = 1e200
    for psi in (wide, peak, wide * 2.0**-900, peak * 1e-300):
        for eps in EPSILONS:
            phi = psi * (1 + np.sqrt(eps) * random(rng, 60, np.complex128))
            true = exact_infidelity(psi, phi)
            unresolved = Fraction(1e-11 * eps)  # of an error that is nearly along the state
            assert true <= Fraction(certified(psi, phi)) <= true * (1 + Fraction(1, 10**6)) + 10 * unresolved


@pytest.mark.parametrize("stretch", [1e-8, 1e-3, 1.0, 1e3])
def test_errors_nearly_along_the_state_are_not_understated(stretch):
    rng = np.random.default_rng(5)
    for eps in (1e-8, 1e-14, 1e-20, 1e-30):
        for _ in range(5):
            psi = random(rng, 50, np.complex128)
            phi = psi * (1 + stretch) + np.sqrt(eps) * random(rng, 50, np.complex128)
            assert exact_infidelity(psi, phi) <= Fraction(certified(psi, phi))


floats = st.floats(allow_nan=False, allow_infinity=False)
small = hnp.array_shapes(max_dims=1, max_side=12)


@given(hnp.arrays(np.float64, small, elements=floats), st.data())
def test_whatever_the_numbers_are_the_bound_holds(psi, data):
    phi = data.draw(
        st.one_of(
            hnp.arrays(np.float64, psi.shape, elements=floats),
            hnp.arrays(np.float64, psi.shape, elements=st.floats(0.5, 1)).map(lambda factors: psi * factors),
            st.floats(-1, 1).map(lambda factor: psi * factor),
        )
    )
    if psi.any():
        assert exact_infidelity(psi, phi) <= Fraction(certified(psi, phi)) <= 1
    else:
        with pytest.raises(InvalidStateError):
            scale_of(psi)
    sums = Overlap()
    sums.add(psi, phi)
    try:
        bound = sums.infidelity()
    except InvalidStateError:  # it needs a shift
        return
    assert exact_infidelity(psi, phi) <= Fraction(bound)


@given(hnp.arrays(np.float32, small, elements=st.floats(width=32, allow_nan=False, allow_infinity=False)))
def test_single_precision_needs_no_shift(psi):
    if psi.any():
        assert scale_of(psi).shift == 0
        phi = psi * np.float32(0.75)
        assert exact_infidelity(psi, phi) <= Fraction(certified(psi, phi))


def test_an_exact_copy_has_no_infidelity():
    psi = random(np.random.default_rng(6), 5000, np.complex64)
    sums = overlap(psi, psi)
    assert sums.infidelity() == 0
    assert sums.fidelity == 1
    assert sums.ee == 0
    assert sums.f == 0
    assert sums.pp == sums.rr == pytest.approx(float(np.vdot(psi, psi).real), rel=1e-6)


@pytest.mark.parametrize("margin", [1e-12, 1e-6, 1e-2])
def test_the_margin_covers_another_decoder(margin):
    rng = np.random.default_rng(7)
    psi = random(rng, 30, np.complex128)
    for eps in (0.0, 1e-12, 1e-4):
        phi = psi + np.sqrt(eps) * random(rng, 30, np.complex128)
        bound = Fraction(overlap(psi, phi).infidelity(margin))
        away = phi - psi * np.vdot(psi, phi) / np.vdot(psi, psi)  # the worst direction, and others
        for direction in (away, random(rng, 30, np.complex128), random(rng, 30, np.complex128)):
            if np.linalg.norm(direction):
                step = direction / np.linalg.norm(direction) * np.linalg.norm(phi) * margin * (1 - 1e-6)
                assert exact_infidelity(psi, phi + step) <= bound
        assert bound <= 1
    assert overlap(psi, psi).infidelity(1.5) == 1


def test_blocks_merge_in_order_to_the_same():
    rng = np.random.default_rng(8)
    psi, error = random(rng, 10000, np.complex128), random(rng, 10000, np.complex128)
    phi = psi + 1e-3 * error
    total, other = Overlap(), Overlap()
    total.add(psi[:4000], phi[:4000])
    other.add(psi[4000:], phi[4000:])
    total.merge(other)
    again = Overlap()
    again.add(psi[:4000], phi[:4000])
    again.add(psi[4000:], phi[4000:])
    assert total.infidelity() == again.infidelity()
    with pytest.raises(ValueError, match="alike"):
        total.merge(Overlap(1))
    with pytest.raises(ValueError, match="length"):
        total.add(psi, phi[1:])
    with pytest.raises(ValueError, match="length"):
        overlap(psi, phi[1:])


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_a_state_is_refused(dtype, bad):
    psi = np.ones(2**18, dtype)
    psi[2**17 + 5] = bad
    with pytest.raises(InvalidStateError, match="NaN or an infinity"):
        scale_of(psi)
    with pytest.raises(InvalidStateError), np.errstate(invalid="ignore"):
        overlap(psi, psi).infidelity()
    with pytest.raises(InvalidStateError, match="zero"):
        scale_of(np.zeros(7, dtype))


@pytest.mark.parametrize("phi", [0.0, np.inf, np.nan, 1e300, 1e-177])
def test_what_is_far_from_a_state_has_infidelity_one(phi):
    assert overlap(np.ones(9), np.full(9, phi)).infidelity() == 1
    psi = np.array([5.3e101, 0])
    assert overlap(psi, psi * 1e-177).infidelity() == 1


def test_scales():
    rng = np.random.default_rng(9)
    for dtype, factor in ((np.float64, 1e300), (np.float64, 1e-300), (np.float32, 1e37), (np.float32, 1e-37)):
        psi = (random(rng, 9000, np.float64) * factor).astype(dtype)
        scale = scale_of(psi)
        assert scale.largest == np.abs(psi).max()
        assert scale.rms == pytest.approx(factor, rel=0.05)


def make(**changes):
    psi = np.arange(4.0)
    return {
        **Certificate(1e-5, 1e-4, array_digest(psi).hex()).to_json(),
        **changes,
    }


def test_a_certificate_is_written_and_read():
    for requested in (1e-4, None):
        one = Certificate(0.1 + 0.2 - 0.2, requested and 0.5, "ab" * 32)
        text = json.dumps(one.to_json())
        assert Certificate.from_json(json.loads(text)) == one
        assert "0.1" in text
        assert DEFINITION in text
    assert one.fidelity == pytest.approx(0.9)
    assert Certificate(1e-4, None, "ab" * 32).observable_error == pytest.approx(2e-2)


@pytest.mark.parametrize(
    "values",
    [
        None,
        [],
        "text",
        {},
        make(more=1),
        make(infidelity=None),
        make(infidelity=1e-5),
        make(infidelity={"hex": "nan", "decimal": "nan"}),
        make(infidelity={"hex": (2.0).hex(), "decimal": "2.0"}),
        make(infidelity={"hex": (-0.5).hex(), "decimal": "-0.5"}),
        make(infidelity={"hex": (0.5).hex(), "decimal": "0.25"}),
        make(infidelity={"hex": 7, "decimal": "7"}),
        make(infidelity={"hex": "0x1p99999", "decimal": "inf"}),
        make(infidelity={"hex": "0" * 10**6, "decimal": "0.0"}),
        make(infidelity={"hex": (0.5).hex(), "decimal": "0.5"}),  # more than was asked for
        make(requested=True),
        make(original="AB" * 32),
        make(original="ab" * 31),
        make(original=["ab"]),
        make(definition="F = |<psi|phi>|"),
        make(definition=None),
    ],
)
def test_a_certificate_that_is_none_is_refused(values):
    with pytest.raises(IntegrityError):
        Certificate.from_json(values)
