"""Stabiliser states, which take some n**2 bits: what Clifford circuits make of a basis state.

The amplitudes of such a state are zero outside an affine subspace of the indices and, in it, a reference amplitude
times a power of i whose exponent is a quadratic form (Dehaene and De Moor, Phys. Rev. A 68, 042318, 2003). With an
origin o, a basis b_1 .. b_k and coordinates y_1 .. y_k in {0, 1},

    v[o ^ sum y_j b_j] = r * i ** (sum_j l_j y_j + 2 sum_{i<j} q_ij y_i y_j).

What a simulator leaves in memory has signs of zero besides. They are covered by a table with the bit pattern of each
power of i, once where no term of the form is non-zero and once where one is: in (x + 0i)(-1 + 0i), the zero may get
another sign in a second product than it has from the start. Zeros whose sign is still another are marked one by one,
which takes little, as they follow patterns too; and a few amplitudes may differ in any other way.
"""

from __future__ import annotations

import math
import string
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from quantum_memory.compression.forms.base import Effort, Packed, malformed, part_of
from quantum_memory.compression.forms.dictionary import Bytes, ByteWriter
from quantum_memory.compression.forms.plain import PIECE, bits_of, reals_in, reals_of, sample, whole_number
from quantum_memory.compression.forms.quadratic_form import CLASSES, Blocks, QuadraticForm
from quantum_memory.compression.forms.views import View

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from quantum_memory.compression.forms.base import Json, Part
    from quantum_memory.state.arrays import AnyArray

MOST_CORRECTIONS = 256
"""Amplitudes that may differ from what the form says."""

_CORRECTED = 1 / 64
_STRAY_IN_SAMPLE = 0.02
_SAMPLED = 1 << 12
_MOST_WORDS = 16


@dataclass(frozen=True)
class Stabilizer:
    """A quadratic form, the bit patterns of its amplitudes, and corrections.

    Facts: ``origin``; ``basis``, a list; ``linear``, a string of digits; ``quadratic``, the q_ij in the order 12, 13,
    23, 14 .., the first in the lowest bit of a hexadecimal number; ``words``, bit patterns of numbers in hexadecimal;
    ``patterns``, a string with a hexadecimal digit for each number of each item: which word it is; ``signs``, whether
    some zeros have another sign; ``corrections``, how many. Parts, where there are signs: the row ``signs`` of bytes
    with a bit for each number, the first in the lowest bit, set where the sign is another. Where there are corrections:
    ``places``, ascending indices, and ``items``, which come last.
    """

    name: ClassVar[str] = "stabilizer"

    def pack(self, array: AnyArray, effort: Effort) -> Packed | None:
        items = array.reshape(-1)
        if not len(items) or len(items) & (len(items) - 1):
            return None
        modulus = _modulus(items)
        form = None if modulus is None else _form(items, modulus)
        if modulus is None or form is None:
            return None
        patterns = _patterns(items, form, modulus)
        words = np.unique(bits_of(patterns))
        most = min(MOST_CORRECTIONS, int(_CORRECTED * 2 ** len(form.basis)))
        if len(words) > _MOST_WORDS:
            return None
        signs, any_signs = ByteWriter(effort), False
        wrong: list[int] = []
        blocks = Blocks(form, patterns, len(items))
        block: AnyArray = np.empty(blocks.starts.step, items.dtype)
        for number, start in enumerate(blocks.starts):
            blocks.fill(number, block)
            flipped, differing = _differences(block, items[start : start + len(block)])
            any_signs = any_signs or bool(flipped.any())
            signs.append(np.packbits(flipped, bitorder="little"))
            wrong += (start + differing).tolist()
            if len(wrong) > most:
                return None
        facts = {
            **_facts_of(form),
            "words": [f"{word:0{2 * words.itemsize}x}" for word in words.tolist()],
            "patterns": "".join(f"{word:x}" for word in np.searchsorted(words, bits_of(patterns)).tolist()),
            "signs": any_signs,
            "corrections": len(wrong),
        }
        corrections = {"places": np.array(wrong, "<u8"), "items": items[wrong]} if wrong else {}
        return Packed(self.name, facts, {**(signs.parts("signs") if any_signs else {}), **corrections})

    def view(
        self, facts: Mapping[str, Json], parts: Mapping[str, Part], dtype: np.dtype[Any], shape: tuple[int, ...]
    ) -> View:
        size = math.prod(shape)
        if not size or size & (size - 1):
            raise malformed("the number of amplitudes is not a power of two")
        blocks = Blocks(_form_in(facts, size), _patterns_in(facts, dtype), size)
        signs, corrections = facts.get("signs"), whole_number(facts, "corrections", MOST_CORRECTIONS)
        if type(signs) is not bool:
            raise malformed("'signs' is to be true or false")
        each = reals_in(dtype)
        marks = Bytes(parts, "signs", -(-size * each // 8)) if signs else None
        places, items = np.empty(0, np.int64), np.empty(0, dtype)
        if corrections:
            places = part_of(parts, "places", "<u8", corrections)[:].astype(np.int64)
            items = part_of(parts, "items", dtype, corrections)[:]
            if places.min() < 0 or places.max() >= size or (np.diff(places) <= 0).any():
                raise malformed("corrections are not at ascending places")
        return _Amplitudes(blocks, dtype, marks, places, items)


class _Amplitudes(View):
    """Blocks of amplitudes with other signs where those are marked, and corrections: `items` at ascending `places`."""

    def __init__(
        self, blocks: Blocks, dtype: np.dtype[Any], signs: Bytes | None, places: NDArray[np.int64], items: AnyArray
    ) -> None:
        super().__init__(dtype, blocks.starts.stop, blocks.starts)
        self._blocks = blocks
        self._signs = signs
        self._places = places
        self._items = items

    def window(self, index: int, out: AnyArray) -> None:
        self._blocks.fill(index, out)
        start = self.starts[index]
        if self._signs is not None:
            bits = bits_of(out)
            marks = np.empty(-(-len(bits) // 8), np.uint8)
            self._signs.read(start * (len(bits) // len(out)) // 8, marks)
            marked = np.unpackbits(marks, count=len(bits), bitorder="little").astype(bits.dtype)
            bits ^= marked << (8 * bits.itemsize - 1)
        first, last = np.searchsorted(self._places, (start, start + len(out)))
        out[self._places[first:last] - start] = self._items[first:last]


def _magnitudes(items: AnyArray) -> NDArray[Any]:
    """Return the larger of the absolute real and imaginary part, which a power of i does not change."""
    numbers = np.abs(reals_of(items))
    larger: NDArray[Any] = np.maximum(numbers[::2], numbers[1::2]) if items.dtype.kind == "c" else numbers
    return larger


def _modulus(items: AnyArray) -> Any:
    """Return the commonest magnitude that is not zero, or None when a sample shows that too many differ from it."""
    some = _magnitudes(sample(items))
    values, counts = np.unique(some[some > 0], return_counts=True)
    if not len(values):
        largest = max(_magnitudes(items[start : start + PIECE]).max() for start in range(0, len(items), PIECE))
        return largest if 0 < largest < np.inf else None
    modulus = values[counts.argmax()]
    stray = counts[(values > modulus / 2) & (values != modulus)].sum()
    return modulus if modulus < np.inf and stray <= _STRAY_IN_SAMPLE * len(some) else None


def _support(items: AnyArray, modulus: Any) -> tuple[int, list[int]]:
    """Return how many amplitudes are in the support, and the places of its numbers 0, 1, 2, 4, 8 and so on."""
    count, found, rank = 0, list[int](), 0
    for start in range(0, len(items), PIECE):
        here = _magnitudes(items[start : start + PIECE]) > modulus / 2
        many = int(np.count_nonzero(here))
        if rank < count + many:
            places = np.flatnonzero(here)
            while rank < count + many:
                found.append(start + int(places[rank - count]))
                rank = 2 * rank or 1
        count += many
    return count, found


def _form(items: AnyArray, modulus: Any) -> QuadraticForm | None:
    """Return the form that the amplitudes with one or two coordinates show, if any."""
    count, (origin, *found) = _support(items, modulus)
    if count & (count - 1):
        return None
    basis = [place ^ origin for place in found[: count.bit_length() - 1]]

    def exponent(*vectors: int) -> int | None:
        place = origin
        for vector in vectors:
            place ^= vector
        value = complex(items[place]) / float(modulus)
        turned = value * reference.conjugate()
        turns = [turned.real, turned.imag, -turned.real, -turned.imag]
        return turns.index(max(turns)) if max(abs(value.real), abs(value.imag)) > 0.5 else None

    reference = complex(items[origin]) / float(modulus)
    linear = [exponent(vector) for vector in basis]
    coupled = [0] * len(basis)
    for i, j in combinations(range(len(basis)), 2):
        both, one, other = exponent(basis[i], basis[j]), linear[i], linear[j]
        if both is None or one is None or other is None or (both - one - other) % 2:
            return None
        if (both - one - other) % 4:
            coupled[i] |= 1 << j
            coupled[j] |= 1 << i
    form = QuadraticForm(origin, tuple(basis), tuple(one or 0 for one in linear), tuple(coupled))
    return form if form.is_reduced() else None


def _commonest(items: AnyArray) -> AnyArray:
    """Return the item with the commonest bit pattern, as an array; of nothing, the item of which all bits are 0."""
    if not len(items):
        return np.zeros(1, items.dtype)
    rows, counts = np.unique(bits_of(items).reshape(len(items), -1), axis=0, return_counts=True)
    commonest: AnyArray = rows[counts.argmax()].view(items.dtype)
    return commonest


def _patterns(items: AnyArray, form: QuadraticForm, modulus: Any) -> AnyArray:
    """Return the items that are commonest in each class and outside the support, in samples."""
    size = 1 << len(form.basis)
    pairs = [1 << i | 1 << j for i in range(len(form.basis)) for j in range(i + 1)]
    y = np.unique(np.concatenate([np.arange(_SAMPLED) * size // _SAMPLED, np.array([0, *pairs])]))
    classes, sampled = form.classes(y), items[form.indices(y)]
    patterns: NDArray[Any] = np.empty(CLASSES + 1, items.dtype)
    for one in range(CLASSES):
        # A class without samples is taken to be like the other of its phase.
        like = sampled[classes == one] if (classes == one).any() else sampled[classes & 3 == one & 3]
        patterns[one : one + 1] = _commonest(like)
    some = sample(items)
    patterns[CLASSES:] = _commonest(some[~(_magnitudes(some) > modulus / 2)])
    return patterns


def _differences(made: AnyArray, items: AnyArray) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Return which numbers are zeros of the other sign than was made, and the places of items that differ otherwise."""
    bits = bits_of(made)
    sign = bits.dtype.type(1 << (8 * bits.itemsize - 1))
    differences = bits ^ bits_of(items)
    flipped = (differences == sign) & ((bits | sign) == sign)
    differences[flipped] = 0
    if not differences.any():
        return flipped, np.empty(0, np.int64)
    return flipped, np.flatnonzero(differences.reshape(len(items), -1).any(1))


def _facts_of(form: QuadraticForm) -> dict[str, Json]:
    terms = [form.coupled[j] >> i & 1 for j in range(len(form.basis)) for i in range(j)]
    quadratic = sum(term << place for place, term in enumerate(terms))
    return {
        "origin": form.origin,
        "basis": list(form.basis),
        "linear": "".join(map(str, form.linear)),
        "quadratic": f"{quadratic:0{-(-len(terms) // 4)}x}" if terms else "",
    }


def _digits(text: Json, count: int, digits: str) -> str:
    if not isinstance(text, str) or len(text) != count or not set(text) <= set(digits):
        raise malformed("a stabiliser state is not described like this")
    return text


def _form_in(facts: Mapping[str, Json], size: int) -> QuadraticForm:
    """Return the form that facts describe, checked."""
    origin, basis = whole_number(facts, "origin", size - 1), facts.get("basis")
    if not isinstance(basis, list) or len(basis) >= size.bit_length():
        raise malformed("'basis' is to be a list with a vector for each dimension")
    if not all(type(vector) is int and 0 < vector < size for vector in basis):
        raise malformed("a basis vector is not an index")
    linear = _digits(facts.get("linear"), len(basis), "0123")
    pairs = len(basis) * (len(basis) - 1) // 2
    quadratic = int("0" + _digits(facts.get("quadratic"), -(-pairs // 4), "0123456789abcdef"), 16)
    coupled = [0] * len(basis)
    for j in range(len(basis)):
        for i in range(j):
            if quadratic >> (j * (j - 1) // 2 + i) & 1:
                coupled[i] |= 1 << j
                coupled[j] |= 1 << i
    form = QuadraticForm(origin, tuple(basis), tuple(map(int, linear)), tuple(coupled))
    if not form.is_reduced():
        raise malformed("a basis is not in reduced echelon form")
    return form


def _patterns_in(facts: Mapping[str, Json], dtype: np.dtype[Any]) -> AnyArray:
    """Return the items that facts describe, checked."""
    patterns, stated = np.empty(CLASSES + 1, dtype), facts.get("words")
    words = bits_of(patterns)
    if not isinstance(stated, list) or not 1 <= len(stated) <= _MOST_WORDS:
        raise malformed("'words' is to be a list of a few bit patterns")
    values = [int(_digits(word, 2 * words.itemsize, string.hexdigits), 16) for word in stated]
    chosen = [int(digit, 16) for digit in _digits(facts.get("patterns"), len(words), "0123456789abcdef")]
    if max(chosen) >= len(values):
        raise malformed("a pattern refers to a word that is not there")
    words[:] = [values[word] for word in chosen]
    return patterns
