"""Density matrices: the fidelity of Uhlmann that is certified, sizes, and what a hostile file can do."""

import functools
import math

import numpy as np
import pytest
import qutip
from hypothesis import given, settings
from hypothesis import strategies as st

from quantum_memory import DensityMatrix, metrics
from quantum_memory.compression.forms import cholesky
from quantum_memory.compression.forms.density import LowRankDensity
from quantum_memory.compression.forms.hermitian_fold import HermitianFold
from quantum_memory.compression.forms.views import unpack
from quantum_memory.errors import IntegrityError, InvalidStateError

from .test_mps_form import ghz, random_mps, shallow_circuit
from .test_quantisers import STRETCHES, check_stretch, check_threads, unpacked

FORM = LowRankDensity()


def ginibre(rows, rank, seed=1, decay=1.0, real=False):
    """A random state of some rank, of which the eigenvalues decay."""
    rng = np.random.default_rng(seed)
    G = rng.normal(size=(rows, rank)) + (0 if real else 1j * rng.normal(size=(rows, rank)))
    G = G * decay ** np.arange(rank)
    rho = G @ G.conj().T
    return rho / np.trace(rho).real


def projector(vector):
    return np.outer(vector, vector.conj())


def thermal(qubits, beta):
    """The thermal state of an Ising chain in a transverse field."""
    x = np.arange(2**qubits)
    H = np.diag(2.0 * np.bitwise_count((x ^ (x >> 1)) & (2 ** (qubits - 1) - 1)) - (qubits - 1))
    for site in range(qubits):
        H[x, x ^ (1 << site)] -= 1
    energies, V = np.linalg.eigh(H)
    weights = np.exp(-beta * (energies - energies[0]))
    return (V * (weights / weights.sum())) @ V.T


def infidelity(rho, sigma):
    """1 - F, of the positive parts, by singular values."""
    factors = []
    for matrix in (rho, sigma):
        values, vectors = np.linalg.eigh(matrix.astype(np.complex128) / np.trace(matrix).real)
        factors.append(vectors * np.sqrt(np.maximum(values, 0)))
    return 1 - min(1.0, np.linalg.svd(factors[0].conj().T @ factors[1], compute_uv=False).sum() ** 2)


def checked(matrix, allowed, effort="balanced"):
    """Pack, and assert what is promised; return the bits per real, or None where the form has nothing to offer."""
    done = FORM.pack(matrix, allowed, effort)
    if done is None:
        return None
    out = unpacked(FORM, done.packed, matrix)
    assert np.array_equal(out, out.conj().T)
    assert 0 <= done.infidelity <= allowed
    assert infidelity(matrix, out) <= done.infidelity + 1e-13 * len(matrix)
    bits = 8 * sum(part.nbytes for part in done.packed.parts.values())
    return bits / (matrix.size * (2 if matrix.dtype.kind == "c" else 1))


STATES = {
    "pure": projector(shallow_circuit(6, 8)),
    "rank 3": ginibre(64, 3),
    "rank 20": ginibre(96, 20),
    "full rank": ginibre(64, 64),
    "decaying": ginibre(64, 64, decay=0.7),
    "noisy ghz": 0.9 * projector(ghz(6)) + 0.1 * np.eye(64) / 64,
    "thermal": thermal(6, 1.0).astype(complex),
    "product": projector(random_mps(7, 1)),
}


@pytest.mark.parametrize("name", STATES)
@pytest.mark.parametrize("allowed", [1e-2, 1e-4, 1e-6, 1e-8, 1e-10])
def test_certified_fidelities_hold_in_double_precision(name, allowed):
    bits = checked(STATES[name], allowed)
    assert bits is not None
    assert bits <= 0.6 * (0.5 * math.log2(1 / allowed) + 1.4)


@pytest.mark.parametrize("name", STATES)
def test_and_in_single_precision(name):
    matrix = STATES[name].astype(np.complex64)
    assert checked(matrix, 1e-2) is not None
    assert checked(matrix, 1e-4) is not None
    assert checked(matrix, 1e-8) is None  # the matrix is not known to that


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("allowed", [1e-2, 1e-4])
def test_real_matrices(dtype, allowed):
    for matrix in (thermal(6, 0.5), ginibre(50, 4, real=True), ginibre(48, 48, real=True)):
        assert checked(np.ascontiguousarray(matrix.real).astype(dtype), allowed) is not None


def test_infidelities_below_round_off_are_refused():
    for matrix in STATES.values():
        for allowed in (1e-12, 1e-14, 1e-16):
            done = FORM.pack(matrix, allowed, "balanced")
            assert done is None or infidelity(matrix, unpacked(FORM, done.packed, matrix)) <= allowed + 1e-13


@pytest.mark.parametrize("effort", ["fast", "balanced", "max"])
def test_structure_is_found(effort):
    most = {"fast": (0.5, 6, 1), "balanced": (0.5, 0.5, 0.2), "max": (0.5, 0.5, 0.2)}[effort]
    assert checked(projector(random_mps(7, 8)), 1e-8, effort) < most[0]
    assert checked(thermal(7, 1.0), 1e-8, effort) < most[1]
    assert checked(0.9 * projector(ghz(7)) + 0.1 * np.eye(128) / 128, 1e-8, effort) < most[2]


def test_half_of_a_full_matrix_is_enough():
    bits = checked(ginibre(128, 128), 1e-6)
    assert bits < 0.5 * (0.5 * math.log2(1e6) + 0.75)


def test_large_matrices_of_low_rank():
    rng = np.random.default_rng(2)
    A = rng.normal(size=(1500, 2)).astype(np.float32)
    rho = A @ A.T
    done = FORM.pack(rho / np.trace(rho), 1e-3, "balanced")
    assert done is not None
    assert done.packed.nbytes < 5000
    assert FORM.pack(np.eye(1500), 1e-3, "balanced") is None  # of a large matrix, no square factor is made


def test_norms_do_not_matter_and_fidelity_agrees_with_others():
    rho = ginibre(16, 16)
    done = FORM.pack(1e3 * rho, 1e-3, "balanced")
    out = unpacked(FORM, done.packed, rho)
    assert np.trace(out).real == pytest.approx(1e3, rel=0.05)
    ours = metrics.fidelity(*(DensityMatrix(x / np.trace(x), qubit_order="big") for x in (rho, out)))
    theirs = qutip.fidelity(*(qutip.Qobj(x / np.trace(x)) for x in (rho, out))) ** 2
    assert 1 - ours <= done.infidelity
    assert theirs == pytest.approx(ours, abs=1e-6)


def test_matrices_that_are_no_states_are_left_to_others():
    rng = np.random.default_rng(4)
    square = rng.normal(size=(64, 64))
    symmetric = square + square.T
    assert FORM.pack(square, 1e-2, "balanced") is None
    assert FORM.pack(symmetric, 1e-2, "balanced") is None
    assert FORM.pack(-(square @ square.T), 1e-2, "balanced") is None
    assert FORM.pack(ginibre(64, 3) - 0.01 * np.eye(64), 1e-4, "balanced") is None
    assert FORM.pack(np.eye(8), 1e-2, "balanced") is None
    assert FORM.pack(np.ones((64, 32)), 1e-2, "balanced") is None
    assert FORM.pack(np.ones(64), 1e-2, "balanced") is None


@pytest.mark.parametrize("bad", [0.0, math.nan, math.inf])
def test_matrices_without_a_fidelity_are_refused(bad):
    for dtype in (np.float32, np.complex128):
        with pytest.raises(InvalidStateError):
            FORM.pack(np.full((32, 32), bad, dtype), 1e-2, "balanced")


def test_negative_eigenvalues_count():
    """A matrix that is positive but for a little is certified for its positive part, with what that adds."""
    rho = ginibre(64, 2)
    for shift in (1e-17, 1e-12, 1e-9):
        matrix = rho - shift * np.eye(64)
        for allowed in (1e-3, 1e-6, 1e-9):
            checked(matrix, allowed)


@settings(max_examples=40)
@given(
    rows=st.integers(16, 48),
    rank=st.integers(1, 48),
    seed=st.integers(0, 99),
    decay=st.floats(0.3, 1),
    power=st.floats(-11, -1),
)
def test_what_is_certified_holds(rows, rank, seed, decay, power):
    matrix = ginibre(rows, rank, seed, decay)
    for dtype in (np.complex64, np.complex128):
        checked(matrix.astype(dtype), 10**power)


@settings(max_examples=30)
@given(rows=st.integers(2, 60), rank=st.integers(1, 60), seed=st.integers(0, 99))
def test_factors_and_products_are_within_their_bounds(rows, rank, seed):
    matrix = ginibre(rows, rank, seed)
    factor = cholesky.factor_of(matrix, rows, real=False)
    A = factor.columns.astype(np.clongdouble)
    exact = A @ A.conj().T
    out = np.empty_like(matrix)
    cholesky.fill(factor.columns, out)
    assert np.linalg.norm((out - exact).astype(complex)) <= cholesky.rounding(factor.columns)
    assert np.linalg.norm((matrix - exact).astype(complex)) <= cholesky.distance(factor.columns, matrix)
    assert cholesky.distance(factor.columns, matrix) < 1e-13 * math.sqrt(rows)
    for index, row in enumerate(factor.pivots):
        assert not factor.columns[row, index + 1 :].any()
        assert factor.columns[row, index].imag == 0


@functools.cache
def packed(name="rank 20"):
    return FORM.pack(STATES[name], 1e-4, "balanced").packed, np.empty_like(STATES[name])


BAD_FACTS = {
    "real": [1, None],
    "step": ["nan", "inf", "0x0p0", "-0x1p0", 3, None],
    "type": ["f8", None, 8, []],
    "groups": [[], [1], [0, 0], [0, 10**9], [0, 5, 3], [-1], [0.0], [True], None, {}, [0] * 10**5],
    "chain": [{}, [], 1, {"center": 0}],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in BAD_FACTS.items() for value in values])
def test_wrong_facts_are_refused(name, value):
    one, out = packed()
    with pytest.raises(IntegrityError):
        unpack(FORM, {**one.facts, name: value}, one.parts, out)


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("pivots", np.zeros(20, np.uint32)),
        ("pivots", np.arange(80, 100, dtype=np.uint32)),
        ("pivots", np.arange(0, dtype=np.uint32)),
        ("pivots", np.arange(97, dtype=np.uint32)),
        ("pivots", np.arange(20, dtype=np.int64)),
        ("group0", np.zeros(9, np.uint8)),
        ("group0", np.zeros(10**6, np.uint8)),
    ],
)
def test_wrong_parts_are_refused(name, part):
    one, out = packed()
    with pytest.raises(IntegrityError):
        unpack(FORM, one.facts, {**one.parts, name: part}, out)
    with pytest.raises(IntegrityError):
        unpack(FORM, one.facts, {}, out)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("columns", 10**9),
        ("columns", 0),
        ("columns", 64.0),
        ("columns", 32),
        ("columns", None),
        ("interleaved", 1),
        ("interleaved", False),
        ("chain", {}),
    ],
)
def test_wrong_chains_are_refused(name, value):
    one, out = packed("thermal")
    assert one.facts["interleaved"]
    with pytest.raises(IntegrityError):
        unpack(FORM, {**one.facts, name: value}, one.parts, out)
    unpack(FORM, one.facts, one.parts, out)


@pytest.mark.parametrize("shape", [(64, 64), (96,), (96, 95), (2000, 2000)])
def test_arrays_of_another_kind_are_refused(shape):
    one, _ = packed()
    with pytest.raises(IntegrityError):
        unpack(FORM, one.facts, one.parts, np.empty(shape, complex))
    with pytest.raises(IntegrityError):
        unpack(FORM, one.facts, one.parts, np.empty((96, 96)))


@settings(max_examples=100)
@given(data=st.data())
def test_damaged_parts_are_refused_or_give_some_numbers(data):
    one, out = packed(data.draw(st.sampled_from(["rank 3", "thermal", "decaying"])))
    parts = {name: part.copy() for name, part in one.parts.items()}
    part = parts[data.draw(st.sampled_from(sorted(parts)))].view(np.uint8)
    for _ in range(data.draw(st.integers(1, 3))):
        part[data.draw(st.integers(0, len(part) - 1))] ^= data.draw(st.integers(1, 255))
    facts = (
        one.facts
        if "step" not in one.facts
        else {**one.facts, "step": data.draw(st.sampled_from(["0x1p900", one.facts["step"]]))}
    )
    try:
        unpack(FORM, facts, parts, out)
    except IntegrityError:
        return


@functools.cache
def large(form, dtype):
    """Return a matrix of several windows, packed, and what comes out."""
    matrix = ginibre(720, 2).astype(dtype)
    matrix *= 1 + np.finfo(dtype).eps * np.random.default_rng(1).integers(-1, 2, matrix.shape)
    if form.name == FORM.name:
        packed = form.pack(matrix, 1e-3, "balanced").packed
    else:
        packed = form.pack(matrix, "fast")
        assert packed.facts["exact"] is False
    return packed, unpacked(form, packed, matrix)


@pytest.mark.parametrize("form", [FORM, HermitianFold()], ids=lambda form: form.name)
@pytest.mark.parametrize("dtype", [np.complex64, np.complex128])
@settings(max_examples=5)
@given(stretches=st.lists(STRETCHES, min_size=1, max_size=5))
def test_any_stretch_is_that_of_the_whole(form, dtype, stretches):
    packed, whole = large(form, dtype)
    view = form.view(packed.facts, packed.parts, whole.dtype, whole.shape)
    for stretch in stretches:
        check_stretch(view, whole, stretch)


@pytest.mark.parametrize("form", [FORM, HermitianFold()], ids=lambda form: form.name)
def test_stretches_are_read_by_several_threads(form):
    packed, whole = large(form, np.complex64)
    check_threads(form.view(packed.facts, packed.parts, whole.dtype, whole.shape), whole)
