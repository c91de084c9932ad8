"""Any stretch of an array of few values, of zeros or of a Clifford circuit can be read without the rest of it."""

from __future__ import annotations

import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantum_memory.compression.forms import quadratic_form
from quantum_memory.compression.forms.dictionary import BYTES_BLOCK, Bytes, ByteWriter, Dictionary
from quantum_memory.compression.forms.flip_fold import FlipFold
from quantum_memory.compression.forms.plain import Plain, bits_of, reals_of
from quantum_memory.compression.forms.quadratic_form import BLOCK_QUBITS, CLASSES, Blocks, QuadraticForm
from quantum_memory.compression.forms.registry import form_named, view_of
from quantum_memory.compression.forms.sparse import Sparse
from quantum_memory.compression.forms.stabilizer import Stabilizer
from quantum_memory.compression.forms.views import scan
from quantum_memory.errors import IntegrityError
from quantum_memory.state.arrays import CHUNK_BYTES, same_bits

from .test_lossless_forms import Lazy, generator, graph, haar, specials

if TYPE_CHECKING:
    from collections.abc import Callable

    from quantum_memory.compression.forms.base import Form, Packed, Unpacks
    from quantum_memory.compression.forms.views import View

    Array = np.ndarray[Any, Any]

SIZE = 2**19


def drawn(values: int, count: int, dtype: Any) -> Array:
    """Return numbers from a few, special ones among them."""
    real = np.empty(0, dtype).real.dtype
    pool = np.concatenate([specials(dtype), np.sqrt(np.arange(1, 70_000, dtype=real))])[:values]
    return pool[generator(values).integers(len(pool), size=count * np.dtype(dtype).itemsize // real.itemsize)].view(
        dtype
    )


def where(marked: Array, dtype: Any) -> Array:
    return np.where(marked, haar(20, dtype)[: len(marked)], np.zeros(1, dtype)).astype(dtype)


def signed_graph() -> Array:
    """Return a graph state of which some zeros are negative and some amplitudes are others."""
    state, x = graph(19, np.complex64), np.arange(SIZE)
    state.imag = np.where(x >> 3 & x >> 11 & x >> 18 & 1, -0.0, 0.0)
    state[[7, 2**17 - 1, 2**17 + 7, SIZE - 1]] = [0.5, np.inf, -0.25j, 3]
    return state


def half_graph() -> Array:
    """Return a state whose support is in each block, but not all of it."""
    state = graph(19)
    state[np.bitwise_count(np.arange(SIZE) & 0b1010_0000_0000_0110_1001) % 2 == 1] = 0
    return state * np.sqrt(2)


def far_apart() -> Array:
    state = np.zeros(2 * SIZE, np.complex64)
    state[[1, 7 << 17]] = np.sqrt(0.5)
    return state


def mirrored(half: Array, sign: int = 1) -> Array:
    """Return a half and the same backwards."""
    return np.concatenate([half, sign * half[::-1]])


def scattered(share: float, count: int) -> Array:
    return generator(5).random(count) < share


ARRAYS: dict[str, tuple[Form, Callable[[], Array], dict[str, Any]]] = {
    "one value": (Dictionary(), lambda: np.full(SIZE + 3, -0.0), {"bits": 0}),
    "1 bit": (Dictionary(), lambda: drawn(2, 2 * SIZE - 5, np.float32), {"bits": 1}),
    "2 bits": (Dictionary(), lambda: drawn(3, SIZE + 1, np.float64), {"bits": 2}),
    "4 bits": (Dictionary(), lambda: drawn(9, SIZE // 2 + 3, np.complex64), {"bits": 4}),
    "8 bits": (Dictionary(), lambda: drawn(200, SIZE + 3, np.float32), {"bits": 8}),
    "16 bits": (Dictionary(), lambda: drawn(3000, SIZE // 2, np.complex128), {"bits": 16, "coder": "numbers"}),
    "16 bits that repeat": (
        Dictionary(),
        lambda: np.resize(drawn(300, 1000, np.float64), SIZE + 7),
        {"bits": 16, "coder": "zstd"},
    ),
    "zeros": (Sparse(), lambda: np.zeros(SIZE + 1, np.complex64), {"nonzero": 0}),
    "few numbers": (Sparse(), lambda: where(scattered(0.0001, SIZE // 2), np.complex128), {"places": "gaps"}),
    "many numbers": (Sparse(), lambda: where(scattered(0.03, SIZE - 3), np.complex64), {"places": "gaps"}),
    "an end": (Sparse(), lambda: where(np.arange(SIZE + 9) >= SIZE - 999, np.float64), {"places": "mask"}),
    "every other": (Sparse(), lambda: where(np.arange(2 * SIZE - 3) % 2 == 1, np.float32), {"places": "mask"}),
    "a random half": (Sparse(), lambda: where(scattered(0.5, SIZE // 2 + 1), np.complex64), {"places": "mask"}),
    "graph state": (Stabilizer(), lambda: graph(19), {"signs": False}),
    "signed graph state": (Stabilizer(), signed_graph, {"signs": True, "corrections": 4}),
    "half of a graph state": (Stabilizer(), half_graph, {}),
    "general state": (Plain(), lambda: haar(19, np.complex64)[:-3], {}),
    "general numbers": (Plain(), lambda: reals_of(haar(18))[1:], {}),
    "mirrored": (FlipFold(), lambda: mirrored(haar(18, np.complex128)[:-5]), {"negated": False, "half": None}),
    "mirrored, odd": (FlipFold(), lambda: np.delete(mirrored(haar(18, np.complex64)), 1 << 18), {}),
    "mirrored, negated": (FlipFold(), lambda: mirrored(drawn(9, SIZE, np.float32), -1), {"negated": True}),
    "two amplitudes": (Stabilizer(), far_apart, {"corrections": 0}),
}
each_array = pytest.mark.parametrize("name", ARRAYS)


@cache
def packed(name: str) -> tuple[Packed, Array]:
    form, make, facts = ARRAYS[name]
    array = make()
    made = form.pack(array, "fast")
    assert made is not None
    assert made.facts.items() >= facts.items()
    return made, array


@cache
def viewed(name: str) -> View:
    made, array = packed(name)
    return view_of(made, array.dtype, array.shape)


def stretch(view: View, start: int, count: int) -> Array:
    out: Array = np.frombuffer(b"\xa5" * count * view.dtype.itemsize, view.dtype).copy()
    view.read(start, out)
    return out


@each_array
def test_the_whole_is_what_was_packed(name: str) -> None:
    array, view = packed(name)[1], viewed(name)
    assert (view.dtype, view.size) == (array.dtype, array.size)
    out = np.full_like(array, 7)
    view.fill(out)
    assert same_bits(out, array)
    chunks: dict[int, bytes] = {}
    for _ in scan(view, lambda index, items: chunks.update({index: items.tobytes()})):
        pass
    assert b"".join(chunks[index] for index in range(len(chunks))) == array.tobytes()


@each_array
def test_windows_are_of_a_mebibyte_or_two(name: str) -> None:
    view = viewed(name)
    assert isinstance(view.starts, range)
    assert CHUNK_BYTES // 2 <= view.starts.step * view.dtype.itemsize <= 2 * CHUNK_BYTES
    assert len(view.starts) > 1


@settings(max_examples=300)
@given(st.data())
def test_any_stretch_is_that_of_the_whole(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(ARRAYS)))
    array, view = packed(name)[1], viewed(name)
    edges = st.sampled_from(view.starts).flatmap(lambda edge: st.integers(max(0, edge - 9), min(edge + 9, array.size)))
    start, stop = sorted(data.draw(st.tuples(*[edges | st.integers(0, array.size)] * 2)))
    assert same_bits(stretch(view, start, stop - start), array[start:stop])


@each_array
def test_threads_read_stretches_at_the_same_time(name: str) -> None:
    made, array = packed(name)
    view = view_of(made, array.dtype, array.shape)
    random = generator(1)
    starts = random.integers(array.size, size=40).tolist()

    def same(start: int) -> bool:
        stop = min(start + 200_000, array.size)
        return same_bits(stretch(view, start, stop - start), array[start:stop])

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(same, starts))


def test_a_row_of_bytes_is_read_across_its_blocks() -> None:
    row = np.frombuffer(generator(2).bytes(99), np.uint8).repeat(100_000)[: 2 * BYTES_BLOCK + 1001]
    for dtype in ("u1", "<u2"):
        items = row[: len(row) // 2 * 2].view(dtype)
        writer = ByteWriter("fast")
        writer.append(items)
        view = Bytes(writer.parts("row"), "row", len(items), dtype)
        edge = view.starts[1]
        for start, stop in ((0, 0), (edge - 3, edge + 3), (edge, 2 * edge), (5, len(items)), (2 * edge, len(items))):
            assert same_bits(stretch(view, start, stop - start), items[start:stop])


@st.composite
def quadratic_forms(draw: st.DrawFn) -> tuple[QuadraticForm, int]:
    """Return a form whose basis is reduced, and for how many qubits."""
    n = draw(st.integers(1, 8))
    tops = sorted(draw(st.sets(st.integers(0, n - 1))))
    free = sum(1 << qubit for qubit in range(n) if qubit not in tops)
    below = st.integers(0, 2**n - 1)
    basis = tuple(1 << top | draw(below) & free & ((1 << top) - 1) for top in tops)
    coupled = [0] * len(tops)
    for j in range(len(tops)):
        for i in range(j):
            both = draw(st.booleans())
            coupled[i] |= both << j
            coupled[j] |= both << i
    linear = tuple(draw(st.integers(0, 3)) for _ in tops)
    return QuadraticForm(draw(below) & free, basis, linear, tuple(coupled)), n


@settings(max_examples=200)
@given(quadratic_forms(), st.integers(0, 8))
def test_each_block_of_a_stabilizer_state_is_what_its_form_says(made: tuple[QuadraticForm, int], qubits: int) -> None:
    form, n = made
    assert form.is_reduced()
    patterns = np.arange(CLASSES + 1.0)
    expected = np.full(2**n, patterns[CLASSES])
    y = np.arange(2 ** len(form.basis))
    expected[form.indices(y)] = patterns[form.classes(y)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quadratic_form, "BLOCK_QUBITS", qubits)
        blocks = Blocks(form, patterns, 2**n)
    for number, start in enumerate(blocks.starts):
        block = np.empty(blocks.starts.step)
        blocks.fill(number, block)
        assert block.tolist() == expected[start : start + len(block)].tolist()


# What is touched


class Counted(Lazy):
    """A part in a file of which is counted what is read."""

    read = 0

    def __getitem__(self, items: slice) -> Array:
        taken = super().__getitem__(items)
        self.read += taken.nbytes
        return taken


@pytest.mark.parametrize(
    ("name", "part", "share"),
    [("16 bits", "symbols", 0.51), ("many numbers", "values", 1), ("every other", "values", 0.51)],
)
def test_a_slice_reads_only_the_blocks_that_it_is_in(name: str, part: str, share: float) -> None:
    made, array = packed(name)
    parts = {name: Counted(stored) for name, stored in made.parts.items()}
    view = form_named(made.form).view(made.facts, parts, array.dtype, array.shape)
    assert parts[part].read == 0
    assert same_bits(stretch(view, 1000, 500), array[1000:1500])
    assert 0 < parts[part].read <= share * made.parts[part].nbytes
    assert same_bits(stretch(view, 1500, 500), array[1500:2000])
    assert 0 < parts[part].read <= share * made.parts[part].nbytes  # what was unpacked is kept


def test_a_few_amplitudes_of_a_stabilizer_state_are_had_without_the_others() -> None:
    n = 50
    facts: dict[str, Any] = {
        "origin": 1, "basis": [6, 2**n - 8], "linear": "02", "quadratic": "1", "signs": False, "corrections": 0,
        "words": ["0" * 16, "3fe0000000000000", "bfe0000000000000"], "patterns": "100020001000200000",
    }  # fmt: skip
    tracemalloc.start()
    try:
        view = Stabilizer().view(facts, {}, np.dtype(np.complex128), (2**n,))
        first, middle, last = (stretch(view, place, 8) for place in (0, 2**40, 2**n - 8))
        assert tracemalloc.get_traced_memory()[1] < 32 << 20
    finally:
        tracemalloc.stop()
    assert first.tolist() == [0, 0.5, 0, 0, 0, 0, 0, 0.5]
    assert not middle.any()
    assert last.tolist() == [0, -0.5, 0, 0, 0, 0, 0, 0.5]


# What nobody wrote


def refused(form: Unpacks, facts: dict[str, Any], parts: dict[str, Any], dtype: Any, size: int) -> bool:
    """Tell whether a view is refused before any window is computed: of some sizes there are more than can be."""
    try:
        form.view(facts, parts, np.dtype(dtype), (size,))
    except IntegrityError:
        return True
    return False


@pytest.mark.parametrize("name", ["1 bit", "8 bits", "16 bits", "16 bits that repeat", "every other", "an end"])
def test_a_size_that_the_parts_do_not_have_is_refused_at_once(name: str) -> None:
    made, array = packed(name)
    assert refused(form_named(made.form), made.facts, made.parts, array.dtype, 2**56)


def test_blocks_of_nothing_are_refused_before_they_are_counted() -> None:
    count = 1 << 22
    parts = {"numbers": np.zeros(0, np.uint8), "numbers.lengths": np.zeros(count, np.uint32)}
    tracemalloc.start()
    try:
        assert refused(Plain(), {}, parts, np.float64, count << 18)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_places_out_of_all_proportion_are_refused_at_once() -> None:
    row = np.zeros(1 << 20, np.uint8)
    for places in ("mask", "gaps"):
        facts = {"nonzero": 1 << 38, "places": places}
        assert refused(Sparse(), facts, {places: row, f"{places}.lengths": row, "values": row}, np.float64, 1 << 42)


def test_places_that_do_not_fit_are_refused_at_once() -> None:
    made, array = packed("many numbers")
    last = int(np.flatnonzero(bits_of(array))[-1])
    form, dtype = Sparse(), np.dtype(np.float32)
    assert refused(form, made.facts, made.parts, dtype, last)
    assert not refused(form, made.facts, made.parts, dtype, last + 1)

    made, array = packed("a random half")
    count = made.facts["nonzero"]
    for other in (count - 1, count + 1):
        assert refused(form, made.facts | {"nonzero": other}, made.parts, array.dtype, array.size)
    assert refused(form, made.facts, made.parts, array.dtype, array.size - 1)


def test_a_mask_that_marks_what_is_beyond_the_end_is_refused() -> None:
    array = where(np.arange(1001) % 2 == 0, np.float64)
    made = Sparse().pack(array, "fast")
    assert made is not None
    writer = ByteWriter("fast")
    writer.append(np.packbits(np.append(bits_of(array) != 0, np.ones(1, np.bool_)), bitorder="little"))
    assert refused(Sparse(), made.facts, made.parts | writer.parts("mask"), array.dtype, array.size)


def damaged(part: Array, place: int) -> Array:
    changed: Array = part.copy()
    changed[place : place + 64] ^= 0x5A
    return changed


@pytest.mark.parametrize("name", ["16 bits", "every other"])
def test_damage_in_a_block_shows_where_the_block_is_needed(name: str) -> None:
    made, array = packed(name)
    part = {"dictionary": "symbols", "sparse": "values"}[made.form]
    end = int(made.parts[f"{part}.lengths"][0])
    parts = made.parts | {part: damaged(made.parts[part], end)}
    view = form_named(made.form).view(made.facts, parts, array.dtype, array.shape)
    assert same_bits(stretch(view, 0, 1000), array[:1000])
    for _ in range(2):
        with pytest.raises(IntegrityError):
            stretch(view, array.size - 1000, 1000)
    with pytest.raises(IntegrityError):
        view.fill(np.empty_like(array))


@pytest.mark.parametrize("name", ["2 bits", "4 bits", "8 bits", "16 bits", "16 bits that repeat"])
def test_a_symbol_that_is_not_in_the_table_shows_where_it_is(name: str) -> None:
    made, array = packed(name)
    table = made.parts["table"]
    bits = bits_of(array).copy()
    place = len(bits) - 5
    bits[bits == table[-1]] = table[0]
    bits[place] = table[-1]
    again = Dictionary().pack(bits.view(array.dtype), "fast")
    assert again is not None
    assert len(again.parts["table"]) == len(table)
    parts = again.parts | {"table": table[:-1]}
    view = Dictionary().view(again.facts, parts, array.dtype, array.shape)
    assert same_bits(stretch(view, 0, 1000), bits.view(array.dtype)[:1000])
    with pytest.raises(IntegrityError):
        stretch(view, array.size - 10, 10)


def test_signs_and_corrections_of_a_stabilizer_state_are_checked() -> None:
    made, array = packed("signed graph state")
    places, signs = made.parts["places"], made.parts["signs"]
    assert array.size > 1 << BLOCK_QUBITS
    for other in (places[::-1], places + np.uint64(2**63), np.full_like(places, 5)):
        assert refused(Stabilizer(), made.facts, made.parts | {"places": other}, array.dtype, array.size)
    for other in (signs[:-1], damaged(signs, 9)):
        view = Stabilizer().view(made.facts, made.parts | {"signs": other}, array.dtype, array.shape)
        with pytest.raises(IntegrityError):
            stretch(view, 0, 1)
