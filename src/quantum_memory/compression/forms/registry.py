"""Which lossless forms there are, and which makes least of an array."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from quantum_memory.compression.codecs import MINIMUM_GAIN
from quantum_memory.compression.forms.base import (
    EFFORTS,
    Effort,
    Form,
    Packed,
    Stream,
    malformed,
    nested,
    part_of,
    under,
)
from quantum_memory.compression.forms.density import LowRankDensity
from quantum_memory.compression.forms.dictionary import Dictionary
from quantum_memory.compression.forms.flip_fold import FlipFold
from quantum_memory.compression.forms.hermitian_fold import HermitianFold
from quantum_memory.compression.forms.low_rank import LowRank
from quantum_memory.compression.forms.mps import MatrixProduct
from quantum_memory.compression.forms.natural_basis import NaturalBasis
from quantum_memory.compression.forms.plain import PIECE, Plain, bits_of, reals_of, sample
from quantum_memory.compression.forms.sparse import Sparse
from quantum_memory.compression.forms.stabilizer import Stabilizer
from quantum_memory.compression.forms.trellis import Trellis
from quantum_memory.compression.forms.uniform import Uniform
from quantum_memory.compression.forms.views import View, scan
from quantum_memory.errors import IntegrityError, UnsupportedVersionError
from quantum_memory.state.arrays import chunk_items

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from quantum_memory.compression.forms.base import Json, Part
    from quantum_memory.compression.lossy import LossyForm
    from quantum_memory.state.arrays import AnyArray

_PLAIN = Plain()
_QUICK: tuple[Form, ...] = (Stabilizer(), Sparse(), Dictionary(), FlipFold(), HermitianFold())
"""Forms that test and pack about as fast as memory is read, in the order of what the test costs."""
_SLOW: tuple[Form, ...] = (LowRank(), _PLAIN)
FORMS: dict[str, Form] = {form.name: form for form in (*_QUICK, *_SLOW)}
"""The lossless forms by name."""
_LOSSY: dict[str, LossyForm] = {
    form.name: form for form in (MatrixProduct(), NaturalBasis(), Uniform(), Trellis(), LowRankDensity())
}

ARRAY_TYPES = frozenset(map(np.dtype, ("<f4", "<f8", "<c8", "<c16")))
"""What forms pack."""

_SMALLEST = 256
_CLEAR_WIN = 20
_HARDLY_ANY = 0.05


def lossy_forms(array: AnyArray, effort: Effort) -> list[LossyForm]:
    """Return the lossy forms to try for an array, the one that wins most clearly, where it does, first."""
    if array.dtype not in ARRAY_TYPES:
        return []
    if array.ndim == 2:
        return [LowRankDensity()]  # the others know nothing of the fidelity of density matrices
    slow: dict[Effort, list[LossyForm]] = {
        "fast": [],
        "balanced": [NaturalBasis()],
        "max": [NaturalBasis(), Trellis()],
    }
    return [MatrixProduct(), Uniform(), *slow[effort]]


def lossy_named(name: str) -> LossyForm | None:
    """Return the lossy form of that name, None where there is none."""
    return _LOSSY.get(name)


def form_named(name: str) -> Form | LossyForm:
    """Return the form that a file names.

    Raises
    ------
    UnsupportedVersionError
        This release has no such form.
    """
    try:
        return FORMS.get(name) or _LOSSY[name]
    except KeyError:
        raise UnsupportedVersionError(
            f"an array is packed in the form {name!r}, which this release does not know",
            next_step="read it with a newer release of quantum-memory",
        ) from None


def best(
    array: AnyArray,
    effort: Effort,
    exclude: frozenset[str] = frozenset(),
    tried: dict[str, int | None] | None = None,
    look: Callable[[int, AnyArray], object] | None = None,
) -> Packed | None:
    """Return an array in the form that makes least of it, or None where none makes it smaller by `MINIMUM_GAIN`.

    Parameters
    ----------
    array
        C-contiguous, of any shape.
    effort
        ``fast``: only forms that run about as fast as memory is read. Others try all forms.
    exclude
        Names of forms not to be tried.
    tried
        Is told of each form that was tried: its name, and its bytes, or None where it has nothing to offer.
    look
        Called with the number of each chunk and what was unpacked of it, once that has been compared with the array;
        in any order and from any thread. Of several forms that were unpacked, the last counts.

    Returns
    -------
    Packed or None
        It was unpacked, and gave back every bit. Its parts may be views of `array`.
    """
    return proved(candidates(array, effort, exclude, {} if tried is None else tried), array, look)


def proved(
    packed: Iterable[Packed], array: AnyArray, look: Callable[[int, AnyArray], object] | None = None
) -> Packed | None:
    """Return the first of several forms that gives back every bit of an array; see `best`."""
    row = array.reshape(-1)

    def compare(index: int, items: AnyArray) -> None:
        if not np.array_equal(bits_of(chunk_items(row, index)), bits_of(items)):
            raise malformed("another array")
        if look is not None:
            look(index, items)

    for one in packed:
        try:
            for _ in scan(view_of(one, array.dtype, array.shape), compare):
                pass
        except IntegrityError:
            continue
        return one
    return None


def is_mostly_zero(array: AnyArray) -> bool:
    """Tell, from a sample, whether hardly any number of an array is not zero."""
    numbers = sample(bits_of(reals_of(array.reshape(-1))))
    return int(np.count_nonzero(numbers)) < _HARDLY_ANY * len(numbers)


def candidates(array: AnyArray, effort: Effort, exclude: frozenset[str], tried: dict[str, int | None]) -> list[Packed]:
    """Return what each form makes of an array, up to the first that wins clearly, the smallest first; see `best`."""
    found: list[Packed] = []
    if array.nbytes < _SMALLEST or array.dtype not in ARRAY_TYPES or array.ndim > 2:
        return found
    # Positions of many numbers take long to pack, and few values, where there are, take less.
    quick = _QUICK if is_mostly_zero(array) else sorted(_QUICK, key=lambda form: form.name == Sparse.name)
    for form in quick if effort == "fast" else (*quick, *_SLOW):
        smallest = min((one.nbytes for one in found), default=array.nbytes)
        if form.name in exclude or (form is _PLAIN and found and _PLAIN.share(array) * array.nbytes > smallest):
            continue
        packed = _packed(form, array, effort)
        tried[form.name] = None if packed is None else packed.nbytes
        if packed is None or packed.nbytes > (1 - MINIMUM_GAIN) * array.nbytes:
            continue
        found.append(packed)
        # Whatever else packs a state vector that was folded packs its half as well.
        if packed.nbytes * _CLEAR_WIN <= array.nbytes or (form.name == FlipFold.name and array.ndim == 1):
            break
    return sorted(found, key=lambda one: one.nbytes)


def _packed(form: Form, array: AnyArray, effort: Effort) -> Packed | None:
    """Pack an array; trying harder sometimes makes more of it, so that trying less is tried as well."""
    found = filter(None, (form.pack(array, one) for one in EFFORTS[: EFFORTS.index(effort) + 1]))
    return min(found, key=lambda one: one.nbytes, default=None)


def view_of(packed: Packed, dtype: np.dtype[Any], shape: tuple[int, ...]) -> View:
    """Return what computes any stretch of the array of this dtype and shape that was packed."""
    return form_named(packed.form).view(packed.facts, packed.parts, dtype, shape)


def pack_within(
    name: str, array: AnyArray, effort: Effort, exclude: frozenset[str]
) -> tuple[Json, dict[str, AnyArray]]:
    """Return how a form packs an array that is left to it: a fact that says how, null for as it is, and its parts."""
    found = candidates(array, effort, exclude, {})
    if not found:
        stream = Stream()  # a copy: were the caller to change the array, what is stored would not be what was proved
        for start in range(0, array.size, PIECE):
            stream.append(bits_of(array.reshape(-1)[start : start + PIECE]).view(np.uint8).data)
        return None, {name: stream.array().view(array.dtype)}
    packed = found[0]
    return {"form": packed.form, "facts": packed.facts}, dict(under(name, packed.parts))


def view_within(
    name: str,
    how: Json,
    parts: Mapping[str, Part],
    dtype: np.dtype[Any],
    shape: tuple[int, ...],
    *,
    exclude: frozenset[str],
) -> View:
    """Return what computes what `pack_within` packed.

    Raises
    ------
    IntegrityError
    UnsupportedVersionError
        This release does not have its form.
    """
    if how is None:
        return _Stored(part_of(parts, name, dtype, math.prod(shape)))
    form, facts = (how.get("form"), how.get("facts")) if isinstance(how, dict) else (None, None)
    if not isinstance(form, str) or not isinstance(facts, dict) or form in exclude or form in _LOSSY:
        raise malformed(f"{name!r} is not packed in a form without loss")
    return form_named(form).view(facts, nested(parts, name), dtype, shape)


class _Stored(View):
    """An array that is stored as it is."""

    def __init__(self, part: Part) -> None:
        super().__init__(part.dtype, part.shape[0], range(0, part.shape[0], PIECE))
        self._part = part

    def window(self, index: int, out: AnyArray) -> None:
        start = self.starts[index]
        bits_of(out)[:] = bits_of(self._part[start : start + len(out)])
