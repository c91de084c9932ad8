"""Which lossless forms there are, and which makes least of an array."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from quantum_memory.compression.codecs import MINIMUM_GAIN
from quantum_memory.compression.forms.base import (
    Effort,
    Form,
    Packed,
    Stream,
    malformed,
    nested,
    part_of,
    temporary_file,
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
from quantum_memory.errors import IntegrityError, UnsupportedVersionError
from quantum_memory.state.arrays import same_bits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from numpy.typing import NDArray

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

IN_MEMORY_BYTES = 16 << 20
"""An array that is needed for a while is kept in a temporary file when it is larger."""

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
    look: Callable[[AnyArray], object] | None = None,
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
        Called with what was unpacked, once every bit of it has been compared with the array.

    Returns
    -------
    Packed or None
        It was unpacked, and gave back every bit. Its parts may be views of `array`.
    """
    return proved(candidates(array, effort, exclude, {} if tried is None else tried), array, look)


def proved(
    packed: Iterable[Packed], array: AnyArray, look: Callable[[AnyArray], object] | None = None
) -> Packed | None:
    """Return the first of several forms that gives back every bit of an array; see `best`."""
    for one in packed:
        try:
            out = unpacked(one, array)
        except IntegrityError:
            continue
        if same_bits(array, out):
            if look is not None:
                look(out)
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
        packed = form.pack(array, effort)
        tried[form.name] = None if packed is None else packed.nbytes
        if packed is None or packed.nbytes > (1 - MINIMUM_GAIN) * array.nbytes:
            continue
        found.append(packed)
        # Whatever else packs a state vector that was folded packs its half as well.
        if packed.nbytes * _CLEAR_WIN <= array.nbytes or (form.name == FlipFold.name and array.ndim == 1):
            break
    return sorted(found, key=lambda one: one.nbytes)


def unpacked(packed: Packed, like: AnyArray) -> AnyArray:
    """Return what an array of the dtype and shape of `like` was packed into, in memory or in a temporary file."""
    out = scratch(like.dtype, like.shape)
    form_named(packed.form).unpack(packed.facts, packed.parts, out)
    return out


def scratch(dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """Return an array to be filled, which is a temporary file without a name when it is large.

    Raises
    ------
    StorageError
        There is no room for it.
    """
    nbytes = dtype.itemsize * math.prod(shape)
    if nbytes <= IN_MEMORY_BYTES:
        return np.empty(shape, dtype)
    with temporary_file(nbytes) as file:
        return np.memmap(file, dtype, "r+", shape=shape)


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


def unpack_within(name: str, how: Json, parts: Mapping[str, Part], out: AnyArray, exclude: frozenset[str]) -> None:
    """Fill `out` with what `pack_within` packed.

    Raises
    ------
    IntegrityError
    UnsupportedVersionError
        This release does not have its form.
    """
    if how is None:
        stored = part_of(parts, name, out.dtype, len(out))
        for start in range(0, len(out), PIECE):
            bits_of(out[start : start + PIECE])[:] = bits_of(stored[start : start + PIECE])
        return
    form, facts = (how.get("form"), how.get("facts")) if isinstance(how, dict) else (None, None)
    if not isinstance(form, str) or not isinstance(facts, dict) or form in exclude or form in _LOSSY:
        raise malformed(f"{name!r} is not packed in a form without loss")
    form_named(form).unpack(facts, nested(parts, name), out)
