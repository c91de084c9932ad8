"""Which representation an array gets: as it is, in a lossless form, or in a lossy one with its certificate.

What is asked for decides: every bit (the smallest lossless form that is quick to find), a fidelity (the smallest form
that is at least that faithful), or a length (the most faithful form that fits).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from xxhash import xxh3_64_intdigest

from quantum_memory.compression.certificate import DEFINITION, UHLMANN, Certificate
from quantum_memory.compression.cores import on_all_cores
from quantum_memory.compression.forms.plain import Plain
from quantum_memory.compression.forms.registry import (
    FORMS,
    best,
    candidates,
    is_mostly_zero,
    lossy_forms,
    lossy_named,
    proved,
    view_of,
)
from quantum_memory.compression.forms.sparse import Sparse
from quantum_memory.compression.forms.stabilizer import Stabilizer
from quantum_memory.compression.forms.views import scan
from quantum_memory.errors import InvalidStateError
from quantum_memory.state.arrays import array_digest, chunk_bytes, chunk_count

if TYPE_CHECKING:
    from collections.abc import Callable

    from quantum_memory.compression.forms.base import Effort, Packed
    from quantum_memory.compression.lossy import Certified
    from quantum_memory.state.arrays import AnyArray

    Look = Callable[[int, AnyArray], object]

_TINY = 4096
"""A lossless form of so few bytes ends the search: a lossy one would save nothing worth a loss."""

_CLEAR_WIN = 8
"""A lossy form that is so many times smaller than quantised numbers would be ends the search."""

_ROUNDS = 12
_LEAST, _GREATEST = -50.0, math.log2(0.95)
"""Infidelities that are tried to make an array fit, in log2."""
_CLOSE, _NEARLY_FULL = 0.01, 0.985
"""The search ends when the infidelity is known to this, in log2, or when this share of the bytes is used."""


@dataclass(frozen=True)
class Representation:
    """How an array is written down.

    Attributes
    ----------
    packed
        Its form; None: as it is.
    certificate
        Of a lossy form: how faithful it is.
    exact
        Whether it is unpacked to the same bits on every machine.
    tried
        Name and bytes of every form that was considered; None for one that had nothing to offer.
    """

    packed: Packed | None = None
    certificate: Certificate | None = None
    exact: bool = True
    tried: dict[str, int | None] = field(default_factory=dict)


def lossless(array: AnyArray, effort: Effort, look: Look) -> Representation:
    """Return the smallest lossless representation that `effort` finds.

    Parameters
    ----------
    look
        Called with the number and the items of each chunk of what is unpacked from it, which is what will be loaded, in
        any order and from any thread; a second time for all of them where a first form failed.
    """
    tried: dict[str, int | None] = {}
    return Representation(best(array, effort, tried=tried, look=look), tried=tried)


def faithful(array: AnyArray, infidelity: float, effort: Effort, look: Look) -> Representation:
    """Return the smallest representation whose certified infidelity is at most what is asked for.

    Parameters
    ----------
    array
        A state vector, or a density matrix of two axes.
    infidelity
        1 - F, from 0 (every bit) up to, but not, 1.
    look
        See `lossless`; called for a form that gives the same bits on every machine.

    Raises
    ------
    InvalidStateError
        It is zero or not finite, so that there is no fidelity.
    """
    if infidelity == 0:
        return lossless(array, effort, look)
    tried: dict[str, int | None] = {}
    original = _Original(array)
    # What keeps every bit and is tiny, then what loses some and is tiny; only then what takes time.
    quick = {Stabilizer.name, *({Sparse.name} if is_mostly_zero(array) else ())}
    exact = candidates(array, "fast", frozenset(FORMS) - quick, tried)
    found = None
    if not exact or exact[0].nbytes > _TINY:
        found = _smallest(array, infidelity, effort, tried, lambda: exact.extend(_others(array, effort, quick, tried)))
    exact.sort(key=lambda one: one.nbytes)
    if found is not None and (not exact or found.packed.nbytes < exact[0].nbytes):
        return _certified(original, found, infidelity, tried, look)
    return Representation(proved(exact, array, look), tried=tried)


def fitting(array: AnyArray, most: int, effort: Effort, look: Look) -> Representation | None:
    """Return the most faithful representation of at most `most` bytes, None where there is none.

    Raises
    ------
    InvalidStateError
        The array is zero or not finite.
    """
    original = _Original(array)
    exact = lossless(array, effort, look)
    size = array.nbytes if exact.packed is None else exact.packed.nbytes
    if size <= most:
        return exact
    # In log2 of the infidelity: a number takes half a bit less for each, so that one result leads close to the next.
    reals = max(1, array.nbytes // array.real.itemsize)
    at = min(max(-2 * max(8 * most / reals - 0.3, 0.5), _LEAST), _GREATEST)
    too_long, fits = _LEAST, _GREATEST
    found: Certified | None = None
    tried = dict(exact.tried)
    for _ in range(_ROUNDS):
        one = _smallest(array, 2.0**at, effort, tried)
        length = size if one is None else one.packed.nbytes
        if one is not None and length <= most:
            found = one if found is None or one.infidelity < found.infidelity else found
            fits = at
        elif at >= _GREATEST:
            break
        else:
            too_long = at
        if fits - too_long < _CLOSE or (one is not None and found is one and length >= _NEARLY_FULL * most):
            break
        # What could not be packed says nothing of how far to go.
        better = math.nan if one is None else at + 16 * (length - 0.995 * most) / reals
        at = better if too_long < better < fits else fits if found is None else (too_long + fits) / 2
    return None if found is None else _certified(original, found, None, tried, look)


class _Original:
    """An array that is being packed: a certificate about one that is changed meanwhile would be none."""

    def __init__(self, array: AnyArray) -> None:
        self.array = array
        self._stamp = self._checksums()

    def digest(self) -> bytes:
        """Return its digest, after it was packed.

        Raises
        ------
        InvalidStateError
            It is no longer what it was.
        """
        digest = array_digest(self.array)
        if self._checksums() != self._stamp:
            raise InvalidStateError(
                "the state was changed while it was being packed", next_step="save a copy, or when nobody writes to it"
            )
        return digest

    def _checksums(self) -> list[int]:
        chunks = range(chunk_count(self.array.nbytes))
        return list(on_all_cores(lambda index: xxh3_64_intdigest(chunk_bytes(self.array, index)), chunks))


def _certified(
    original: _Original, found: Certified, requested: float | None, tried: dict[str, int | None], look: Look
) -> Representation:
    array = original.array
    definition = DEFINITION if array.ndim == 1 else UHLMANN
    certificate = Certificate(found.infidelity, requested, original.digest().hex(), definition)
    form = lossy_named(found.packed.form)
    exact = form is not None and form.exact
    if exact:
        for _ in scan(view_of(found.packed, array.dtype, array.shape), look):
            pass
    return Representation(found.packed, certificate, exact, tried)


def _others(array: AnyArray, effort: Effort, known: set[str], tried: dict[str, int | None]) -> list[Packed]:
    """Return the other lossless forms that may be smaller than any lossy one."""
    return candidates(array, effort, frozenset({Plain.name, Sparse.name, *known}), tried)


def _smallest(
    array: AnyArray,
    infidelity: float,
    effort: Effort,
    tried: dict[str, int | None],
    meanwhile: Callable[[], object] | None = None,
) -> Certified | None:
    """Return the smallest lossy form within an infidelity.

    Parameters
    ----------
    meanwhile
        Called before the forms that take long, where the first one does not win clearly.
    """
    reals = array.nbytes // array.real.itemsize
    expected = reals * max(0.5 * math.log2(1 / infidelity) + 0.25, 0.1) / 8
    found: Certified | None = None
    for form in lossy_forms(array, effort):
        one = form.pack(array, infidelity, effort)
        tried[form.name] = None if one is None else one.packed.nbytes
        if one is not None and (found is None or one.packed.nbytes < found.packed.nbytes):
            found = one
        if found is not None and found.packed.nbytes * _CLEAR_WIN <= expected:
            break
        if meanwhile is not None:
            meanwhile()
            meanwhile = None
    return found
