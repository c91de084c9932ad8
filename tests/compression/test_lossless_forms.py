"""Every lossless form gives back every bit, makes structured states small, and takes nothing that it did not write."""

from __future__ import annotations

import contextlib
import json
import math
import tracemalloc
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantum_memory.compression.forms import views
from quantum_memory.compression.forms.dictionary import Dictionary
from quantum_memory.compression.forms.flip_fold import FlipFold
from quantum_memory.compression.forms.hermitian_fold import HermitianFold
from quantum_memory.compression.forms.plain import Plain, bits_of
from quantum_memory.compression.forms.registry import FORMS, best, form_named
from quantum_memory.compression.forms.sparse import Sparse
from quantum_memory.compression.forms.stabilizer import Stabilizer
from quantum_memory.compression.forms.views import WholeView, unpack
from quantum_memory.errors import IntegrityError, UnsupportedVersionError
from quantum_memory.state.arrays import same_bits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from quantum_memory.compression.forms.base import Form, Packed

    Array = np.ndarray[Any, Any]

OURS: tuple[Form, ...] = (Stabilizer(), Sparse(), Dictionary(), FlipFold(), HermitianFold(), Plain())
REALS = (np.float32, np.float64)
TYPES = (*REALS, np.complex64, np.complex128)


def generator(*seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def real_of(dtype: Any) -> np.dtype[Any]:
    return np.empty(0, dtype).real.dtype


def haar(n: int, dtype: Any = np.complex128) -> Array:
    numbers = generator(n).standard_normal(2**n * np.dtype(dtype).itemsize // real_of(dtype).itemsize)
    return (numbers / np.linalg.norm(numbers)).astype(real_of(dtype)).view(dtype)


def equal(support: list[int] | Array, n: int, dtype: Any = np.complex128) -> Array:
    v = np.zeros(2**n, dtype)
    v[support] = len(support) ** -0.5
    return v


def ghz(n: int, dtype: Any = np.complex128) -> Array:
    return equal([0, 2**n - 1], n, dtype)


def w_state(n: int, dtype: Any = np.complex128) -> Array:
    return equal([2**k for k in range(n)], n, dtype)


def dicke(n: int, dtype: Any = np.complex128) -> Array:
    return equal(np.flatnonzero(np.bitwise_count(np.arange(2**n)) == n // 4), n, dtype)


def uniform(n: int, dtype: Any = np.complex128) -> Array:
    return equal(np.arange(2**n), n, dtype)


def grover(n: int, dtype: Any = np.complex128) -> Array:
    v = np.full(2**n, 0.7 * 2 ** (-n / 2), dtype)
    v[2**n // 3] = 0.7
    return v


def times(v: Array, where: Array, factor: complex) -> None:
    """Multiply in the way that simulators do, which gives zeros one sign or the other."""
    a, b = v.real[where], v.imag[where]
    f = np.asarray(factor, v.dtype)
    v.real[where], v.imag[where] = f.real * a - f.imag * b, f.real * b + f.imag * a


def graph(n: int, dtype: Any = np.complex128) -> Array:
    v, x = uniform(n, dtype), np.arange(2**n)
    edges = generator(n, 1).random((n, n)) < 0.5
    for i in range(n):
        for j in range(i):
            if edges[i, j]:
                times(v, (x >> i & x >> j & 1).astype(bool), -1)
    return v


def clifford(n: int, dtype: Any = np.complex128, seed: int = 0, gates: str = "hscz") -> Array:
    """Run random gates: h Hadamard, s phase, c CX, z CZ, x NOT."""
    random, x = generator(n, seed), np.arange(2**n)
    v = equal([0], n, dtype)
    for _ in range(8 * n):
        a, b = random.permutation(n)[:2].tolist() if n > 1 else (0, 0)
        one = (x >> a & 1).astype(bool)
        gate = gates[random.integers(len(gates))]
        if gate == "h":
            zero, ones, h = v[~one], v[one], real_of(dtype).type(math.sqrt(0.5))
            v[~one], v[one] = h * zero + h * ones, h * zero - h * ones
        elif gate == "s":
            times(v, one, 1j)
        elif gate == "x":
            v = v[x ^ 1 << a]
        elif n > 1 and gate == "c":
            v = v[np.where(one, x ^ 1 << b, x)]
        elif n > 1:
            times(v, one & (x >> b & 1).astype(bool), -1)
    return v


def hermitian(size: int, dtype: Any, noise: float = 0.0) -> Array:
    numbers = generator(size).standard_normal((2, size, size))
    a = (numbers[0] + 1j * numbers[1]) if np.dtype(dtype).kind == "c" else numbers[0]
    a = (a + a.conj().T).astype(dtype)
    return a if not noise else (a * (1 + noise * generator(size, 1).standard_normal((size, size)))).astype(dtype)


def ghz_matrix(q: int, dtype: Any = np.complex128) -> Array:
    v = ghz(q, dtype)
    return (0.9 * np.outer(v, v.conj()) + 0.1 * np.eye(2**q) / 2**q).astype(dtype)


def flipped(n: int, dtype: Any, sign: int = 1) -> Array:
    half = haar(n - 1, dtype)
    return np.concatenate([half, sign * half[::-1]])


def specials(dtype: Any) -> Array:
    """NaNs with and without a payload, quiet and signalling; infinities; zeros; subnormals; the largest number."""
    bits = 8 * real_of(dtype).itemsize
    mantissa = 52 if bits == 64 else 23
    exponent = ((1 << bits - 1 - mantissa) - 1) << mantissa
    low = [0, 1, 2, (1 << mantissa) - 1, 1 << mantissa, exponent - 1, exponent]
    low += [exponent | 1 << mantissa - 1, exponent | 1 << mantissa - 1 | 12345, exponent | 77]
    return np.array([one | sign << bits - 1 for one in low for sign in (0, 1)], f"u{bits // 8}").view(real_of(dtype))


def random_bits(count: int, dtype: Any, pool: Array | None = None, seed: int = 0) -> Array:
    width = count * np.dtype(dtype).itemsize // real_of(dtype).itemsize
    if pool is None:
        return np.frombuffer(generator(seed).bytes(width * real_of(dtype).itemsize), real_of(dtype)).view(dtype)
    return pool[generator(seed).integers(len(pool), size=width)].view(dtype)


def restored(packed: Packed, like: Array) -> Array:
    """Unpack from what a file would give back of the facts."""
    out = np.frombuffer(b"\xa5" * like.nbytes, like.dtype).reshape(like.shape).copy()
    unpack(form_named(packed.form), json.loads(json.dumps(packed.facts)), packed.parts, out)
    return out


def assert_lossless(array: Array, form: Form, effort: Any = "balanced") -> Packed | None:
    before = array.tobytes()
    packed = form.pack(array, effort)
    assert array.tobytes() == before
    if packed is not None:
        assert packed.form == form.name
        assert all(part.ndim == 1 for part in packed.parts.values())
        assert same_bits(restored(packed, array), array)
        again = form.pack(array.copy(), effort)
        assert again is not None
        assert again.facts == packed.facts
        assert {name: part.tobytes() for name, part in again.parts.items()} == {
            name: part.tobytes() for name, part in packed.parts.items()
        }
    return packed


def vectors(dtype: Any) -> Iterator[Array]:
    yield from (ghz(7, dtype), w_state(7, dtype), dicke(9, dtype), uniform(8, dtype), grover(9, dtype), haar(9, dtype))
    yield from (flipped(8, dtype), flipped(8, dtype, -1))
    yield from (np.zeros(300, dtype), -np.zeros(300, dtype), np.zeros(0, dtype), np.ones(1, dtype), np.ones(2, dtype))
    if np.dtype(dtype).kind == "c":
        yield from (graph(8, dtype), *(clifford(n, dtype, seed) for n in (1, 2, 5, 8) for seed in range(4)))
        yield np.full(512, complex(-0.0, -0.0), dtype)
    for count in (1, 2, 3, 4, 5, 27, 64, 81, 128, 3**6, 1000):  # qutrits too
        yield random_bits(count, dtype)
        yield random_bits(count, dtype, specials(dtype))
        yield random_bits(count, dtype, specials(dtype)[:2])
        yield np.where(np.arange(count) % 7 == 3, random_bits(count, dtype), np.zeros(count, dtype))
        yield np.where(
            np.arange(count) == count // 2, random_bits(count, dtype, specials(dtype)), np.ones(count, dtype)
        )


def matrices(dtype: Any) -> Iterator[Array]:
    for size in (1, 2, 3, 9, 32, 65):
        yield hermitian(size, dtype)
        yield hermitian(size, dtype, 1e-6)
        yield random_bits(size * size, dtype).reshape(size, size)
        yield random_bits(size * size, dtype, specials(dtype)).reshape(size, size)
        yield np.zeros((size, size), dtype)
    symmetric = hermitian(40, dtype)
    symmetric[3, 5], symmetric[5, 3] = np.nan, -np.nan
    symmetric[8, 8] = -np.inf
    yield from (ghz_matrix(4, dtype), hermitian(40, real_of(dtype)).astype(dtype), symmetric)
    yield np.zeros((0, 0), dtype)
    yield random_bits(15, dtype).reshape(3, 5)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("form", OURS, ids=lambda form: form.name)
def test_a_form_gives_back_every_bit_or_declines(form: Form, dtype: Any) -> None:
    for array in (*vectors(dtype), *matrices(dtype)):
        assert_lossless(array, form)


@pytest.mark.parametrize("effort", ["fast", "balanced", "max"])
@pytest.mark.parametrize("dtype", TYPES)
def test_the_best_form_gives_back_every_bit_and_is_smaller(dtype: Any, effort: Any) -> None:
    for array in (*vectors(dtype), *matrices(dtype)):
        packed = best(array, effort)
        if packed is not None:
            assert same_bits(restored(packed, array), array)
            assert packed.nbytes <= 0.97 * array.nbytes


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("n", [14, 15, 16])
@pytest.mark.parametrize("make", [ghz, w_state, dicke, uniform, grover])
def test_states_of_few_numbers_take_some_hundred_bytes(make: Callable[..., Array], n: int, dtype: Any) -> None:
    packed = best(make(n, dtype), "fast")
    assert packed is not None
    assert packed.nbytes < 700


@pytest.mark.parametrize("dtype", [np.complex64, np.complex128])
@pytest.mark.parametrize("n", [14, 16])
def test_stabilizer_states_take_some_hundred_bytes(n: int, dtype: Any) -> None:
    for array in (graph(n, dtype), clifford(n, dtype, gates="hhsscc"), clifford(n, dtype, 5, gates="hhsscc")):
        packed = best(array, "fast")
        assert packed is not None
        assert packed.form == "stabilizer"
        assert packed.nbytes < 700


@pytest.mark.parametrize("gates", ["hz", "hsczx", "hcx", "sz"])
@pytest.mark.parametrize("seed", range(4))
def test_whatever_signs_of_zero_a_clifford_circuit_leaves_it_is_a_stabilizer_state(gates: str, seed: int) -> None:
    array = clifford(12, seed=seed, gates=gates)
    packed = assert_lossless(array, Stabilizer())
    assert packed is not None
    assert packed.nbytes < 1500


def test_a_stabilizer_state_may_lie_in_several_blocks_and_be_damaged_a_little() -> None:
    array = graph(18)
    array[[5, 1 << 17, (1 << 18) - 1]] = [np.inf, 0.1, 0.2j]
    packed = assert_lossless(array, Stabilizer())
    assert packed is not None
    assert packed.facts["corrections"] == 3


def test_a_sign_that_is_no_quadratic_form_is_not_a_stabilizer_state() -> None:
    array, x = uniform(12), np.arange(2**12)
    array[(x & 7) == 7] *= -1
    assert Stabilizer().pack(array, "max") is None


@pytest.mark.parametrize("dtype", TYPES)
def test_a_state_with_a_flip_symmetry_is_halved(dtype: Any) -> None:
    half = haar(12, dtype)
    for array in (flipped(13, dtype), flipped(13, dtype, -1), np.concatenate([half, half[-2::-1]])):
        packed = best(array, "fast")
        assert packed is not None
        assert packed.form == "flip_fold"
        assert packed.nbytes < 0.5 * array.nbytes + 300
        slower = best(array, "balanced")
        assert slower is not None
        assert slower.nbytes < 0.46 * array.nbytes
    assert best(np.concatenate([half, -half[-2::-1]]), "fast") is None


@pytest.mark.parametrize("dtype", TYPES)
def test_a_hermitian_matrix_is_halved(dtype: Any) -> None:
    array = hermitian(128, dtype)
    packed = best(array, "balanced")
    assert packed is not None
    assert packed.form == "hermitian_fold"
    assert packed.nbytes < 0.47 * array.nbytes


def test_round_off_in_a_hermitian_matrix_takes_little() -> None:
    packed = assert_lossless(hermitian(256, np.complex128, 1e-15), HermitianFold())
    assert packed is not None
    assert packed.nbytes < 0.55 * 256 * 256 * 16


def test_a_real_state_in_complex_numbers_takes_half() -> None:
    array = haar(13, np.float64).astype(np.complex128)
    packed = best(array, "balanced")
    assert packed is not None
    assert packed.nbytes < 0.46 * array.nbytes


def test_more_than_256_values_are_wide_symbols() -> None:
    for pool, repeats in ((np.arange(300.0), 100), (np.arange(5000.0), 80)):
        array = np.sqrt(generator(3).choice(pool, len(pool) * repeats))
        packed = assert_lossless(array, Dictionary())
        assert packed is not None
        assert packed.facts["bits"] == 16
        assert packed.nbytes < 0.3 * array.nbytes


def test_symbols_that_repeat_go_through_zstd_whatever_their_width() -> None:
    for count in (1, 2, 3, 5, 16, 17, 256, 300):
        packed = assert_lossless(np.tile(np.sqrt(np.arange(count, dtype=np.float64)), 40000 // count), Dictionary())
        assert packed is not None
        assert packed.facts.get("coder", "zstd") == "zstd"
        assert packed.nbytes < 1000 + 8 * count


def test_a_general_state_is_packed_by_its_exponents_but_not_in_a_hurry() -> None:
    array = haar(14)
    packed = best(array, "balanced")
    assert packed is not None
    assert packed.form == "numbers"
    assert packed.nbytes < 0.875 * array.nbytes
    assert best(array, "fast") is None
    assert best(random_bits(2**14, np.complex128), "balanced") is None
    assert best(array, "balanced", exclude=frozenset({"numbers"})) is None


def test_what_was_tried_is_told() -> None:
    tried: dict[str, int | None] = {}
    packed = best(dicke(12), "max", tried=tried)
    assert packed is not None
    assert tried == {"stabilizer": None, "sparse": packed.nbytes}


def test_arrays_beyond_memory_go_through_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(views, "IN_MEMORY_BYTES", 1000)
    for array in (hermitian(64, np.complex128), flipped(10, np.complex64)):
        packed = best(array, "fast")
        assert packed is not None
        assert same_bits(restored(packed, array), array)


def test_a_form_that_fails_its_proof_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    array = np.where(np.arange(4096) % 8, 0, haar(12))
    assert best(array, "fast").form == "sparse"  # type: ignore[union-attr]

    def fill(out: Array) -> None:
        out.fill(0)

    def refuse(*_: object) -> None:
        raise IntegrityError("no")

    for what in (fill, refuse):
        monkeypatch.setattr(
            Sparse, "view", lambda self, facts, parts, dtype, shape, what=what: WholeView(dtype, shape, what)
        )
        assert best(array, "fast") is None
    monkeypatch.setattr(Sparse, "view", refuse)
    assert best(array, "fast") is None
    assert best(array, "balanced").form != "sparse"  # type: ignore[union-attr]


def test_a_form_of_a_newer_release_is_named() -> None:
    with pytest.raises(UnsupportedVersionError, match="'tensor_train'"):
        form_named("tensor_train")
    assert all(form_named(name).name == name for name in FORMS)


# Arbitrary arrays


def bit_patterns(dtype: Any) -> st.SearchStrategy[int]:
    unsigned = f"u{real_of(dtype).itemsize}"
    known = st.sampled_from(specials(dtype).view(unsigned).tolist())
    return known | st.integers(0, 2 ** (8 * real_of(dtype).itemsize) - 1)


@st.composite
def structured(draw: st.DrawFn) -> Array:
    """An array of few values, sparse, mirrored or hermitian, and not quite so."""
    dtype = np.dtype(draw(st.sampled_from(TYPES)))
    per_item = dtype.itemsize // real_of(dtype).itemsize
    pool = draw(st.lists(bit_patterns(dtype), min_size=1, max_size=draw(st.sampled_from([1, 3, 20]))))
    size = draw(st.sampled_from([1, 2, 3, 4, 8, 9, 64, 81, 100, 256, 1024]))
    random = generator(draw(st.integers(0, 2**32)))
    bits = np.array(pool, f"u{real_of(dtype).itemsize}")[random.integers(len(pool), size=size * per_item)]
    bits[random.random(size * per_item) < draw(st.sampled_from([0, 0.3, 0.9, 0.99]))] = 0
    array = bits.view(dtype)
    kind = draw(st.sampled_from(["plain", "mirrored", "negated", "hermitian"]))
    sign = bits.dtype.type(1 << (8 * bits.itemsize - 1))
    if kind in {"mirrored", "negated"}:
        rows = bits.reshape(size, per_item)
        rows[size - size // 2 :] = rows[: size // 2][::-1] ^ (sign if kind == "negated" else 0)
    elif kind == "hermitian":
        side = math.isqrt(size)
        array = array[: side * side].reshape(side, side).copy()
        lower = np.tril_indices(side, -1)
        array[lower] = array.T[lower].conj() if draw(st.booleans()) else array.T[lower]
    for _ in range(draw(st.integers(0, 2))):
        flat = bits_of(array)
        flat[draw(st.integers(0, len(flat) - 1))] ^= sign
    return array


@settings(max_examples=300)
@given(structured())
def test_any_structured_array_comes_back(array: Array) -> None:
    for form in OURS:
        assert_lossless(array, form)
    packed = best(array, "balanced")
    assert packed is None or same_bits(restored(packed, array), array)


@settings(max_examples=60)
@given(st.integers(1, 9), st.integers(0, 2**32), st.text("hsczx", min_size=1, max_size=5), st.sampled_from(TYPES[2:]))
def test_any_clifford_circuit_leaves_a_stabilizer_state(n: int, seed: int, gates: str, dtype: Any) -> None:
    assert assert_lossless(clifford(n, dtype, seed, gates), Stabilizer()) is not None


# Parts and facts that nobody wrote


class Lazy:
    """A part that is still in a file."""

    def __init__(self, array: Array) -> None:
        self._array = array
        self.shape, self.dtype = array.shape, array.dtype

    def __getitem__(self, items: slice) -> Array:
        assert isinstance(items, slice)
        return self._array[items].copy()


def examples() -> list[tuple[Packed, Array]]:
    damaged = clifford(8, gates="hszcx", seed=1)
    damaged[[3, 200]] = 0.3
    arrays: list[tuple[Form, Array]] = [
        (Stabilizer(), damaged),
        (Stabilizer(), graph(6)),
        (Stabilizer(), ghz(5, np.float32)),
        (Sparse(), w_state(8)),
        (Sparse(), np.where(np.arange(2000) % 3, 0, haar(11)[:2000])),
        (Sparse(), np.zeros(50)),
        (Dictionary(), grover(9)),
        (Dictionary(), np.sqrt(generator(1).integers(0, 5, 1000)).astype(np.float32)),
        (Dictionary(), np.tile(np.sqrt(np.arange(300.0)), 40)),
        (Dictionary(), np.sqrt(generator(2).integers(0, 300, 40000))),
        (Dictionary(), np.full(80, -0.0)),
        (FlipFold(), flipped(9, np.complex128, -1)),
        (FlipFold(), dicke(12)[::-1] + dicke(12)),
        (HermitianFold(), hermitian(24, np.complex64, 1e-6)),
        (HermitianFold(), ghz_matrix(5)),
        (HermitianFold(), hermitian(24, np.float64)),
        (Plain(), haar(8)),
    ]
    found = [(form.pack(array, "balanced"), array) for form, array in arrays]
    return [(packed, array) for packed, array in found if packed is not None]


EXAMPLES = examples()

VALUES: tuple[Any, ...] = (
    None, True, False, -1, 0, 1, 2, 3, 16, 255, 256, 2**31, 2**53, 2**64, 10**40, 0.5, math.nan,
    "", "0", "mask", "gaps", "zstd", "numbers", "f" * 9, "0" * 4000, "é",
    [], [0], [1, 1], [2, 1], [-1], [2**70], ["0" * 16], [None], list(range(300)),
    {}, {"form": "flip_fold", "facts": {"negated": False, "half": None}}, {"form": "sparse", "facts": {"nonzero": 0}},
    {"form": "sparse"}, {"form": 3, "facts": {}}, {"form": "sparse", "facts": []}, {"form": "newer", "facts": {}},
)  # fmt: skip


def changed_facts(facts: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for key, value in facts.items():
        yield {other: facts[other] for other in facts if other != key}
        yield from (facts | {key: other} for other in VALUES)
        if isinstance(value, dict):
            yield from (facts | {key: inner} for inner in changed_facts(value))
        if isinstance(value, list):
            yield from (
                facts | {key: [*value[:place], one, *value[place + 1 :]]} for place in (0, -1) for one in VALUES
            )
        if isinstance(value, str) and value:
            yield from (facts | {key: value[:-1]}, facts | {key: value + "0"}, facts | {key: "z" + value[1:]})


def changed_parts(parts: dict[str, Array]) -> Iterator[dict[str, Any]]:
    for name, part in parts.items():
        yield {other: parts[other] for other in parts if other != name}
        for other in (
            part[:-1],
            part[:0],
            np.concatenate([part, part[:1]]),
            part[::-1],
            part.reshape(1, -1),
            part.astype(np.complex128),
            part.view(part.dtype.newbyteorder()),
            part.view(np.uint8),
            np.full(len(part), 0xFF, np.uint8).astype(part.dtype),
            np.full(part.nbytes, 0xFF, np.uint8).view(part.dtype),
            np.zeros_like(part),
        ):
            yield parts | {name: other}
        for seed in range(25):
            random = generator(seed)
            noise = np.frombuffer(random.bytes(part.nbytes), np.uint8)
            damaged = part.copy().view(np.uint8)
            if len(damaged):
                where = slice(None) if seed % 2 else random.integers(len(damaged), size=1 + seed // 8)
                damaged[where] = noise[where]
            yield parts | {name: damaged.view(part.dtype)}


def attempts() -> Iterator[tuple[str, dict[str, Any], dict[str, Any], Array]]:
    for packed, array in EXAMPLES:
        yield from ((packed.form, facts, packed.parts, array) for facts in changed_facts(packed.facts))
        yield from ((packed.form, packed.facts, parts, array) for parts in changed_parts(packed.parts))
        for _, other in EXAMPLES:
            yield packed.form, packed.facts, packed.parts, other
        for name in FORMS:
            yield name, packed.facts, packed.parts, array


def test_facts_and_parts_that_nobody_wrote_do_nothing_but_raise_our_error() -> None:
    tracemalloc.start()
    try:
        for form, facts, parts, array in attempts():
            out = np.empty_like(array)
            lazy = {name: Lazy(part) for name, part in parts.items()}
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            with contextlib.suppress(IntegrityError, UnsupportedVersionError):
                unpack(form_named(form), facts, lazy, out)
            assert tracemalloc.get_traced_memory()[1] - before < 64 << 20
    finally:
        tracemalloc.stop()


def test_parts_are_read_in_slices() -> None:
    for packed, array in EXAMPLES:
        out = np.empty_like(array)
        unpack(form_named(packed.form), packed.facts, {name: Lazy(part) for name, part in packed.parts.items()}, out)
        assert same_bits(out, array)


def test_folds_do_not_nest_without_end() -> None:
    facts: dict[str, Any] = {"negated": False, "half": None}
    for _ in range(5000):
        facts = {"negated": False, "half": {"form": "flip_fold", "facts": facts}}
    with pytest.raises(IntegrityError):
        unpack(FlipFold(), facts, {}, np.empty(2**10))
