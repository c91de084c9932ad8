"""The factor of a density matrix as integers: multiples of one step, column by column.

An error in an entry of A changes the vector that A is, as a purification, by as much wherever it is, so one step for
all takes the fewest bits. Columns get smaller from the first to the last; those that differ much are packed apart.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from quantum_memory.compression.forms.base import malformed, part_of
from quantum_memory.compression.forms.rounding import integers_of, rounded, step_of
from quantum_memory.compression.numbers import Numbers, pack_numbers

if TYPE_CHECKING:
    from collections.abc import Mapping

    from quantum_memory.compression.forms.base import Json, Part
    from quantum_memory.compression.forms.cholesky import Factor
    from quantum_memory.compression.forms.products import Array

_GROUP = 1 << 13
"""Numbers that are packed together at least: fewer do not pay for a description of how they are distributed."""

_APART = 0.5
"""A column that is smaller than the first of a group by this factor belongs to the next."""


class Quantised(NamedTuple):
    """A factor as integers."""

    facts: dict[str, Json]
    parts: dict[str, Array]
    columns: Array
    """As they are unpacked, to the bit."""


def quantise(factor: Factor, budget: float) -> Quantised | None:
    """Round a factor so that the squared norm of the error is at most `budget`; None if that is too small.

    Columns at the end of which nothing is left are left out.
    """
    stored = _stored(factor.pivots, len(factor.columns))
    entries = factor.columns.T[stored]
    real = not np.iscomplexobj(entries)
    found = rounded(entries if real else entries.view(np.float64), 1.0, 1.0, budget)
    if found is None:
        return None
    integers = found.integers.reshape(len(entries), -1)
    ends = np.cumsum(stored.sum(axis=1))
    last = int(np.flatnonzero(integers.any(axis=1)).max(initial=0))
    rank = int(np.searchsorted(ends, last, "right")) + 1
    starts = _groups(integers, [0, *ends[:rank].tolist()])
    pivots = factor.pivots[:rank].astype(np.uint32)
    parts: dict[str, Array] = {"pivots": pivots}
    for index, (start, stop) in enumerate(zip(starts, [*starts[1:], rank], strict=True)):
        rows = slice(ends[start - 1] if start else 0, ends[stop - 1])
        parts |= pack_numbers(f"group{index}", integers[rows].T.reshape(-1))
    facts = {"real": real, "step": found.step.hex(), "type": integers.dtype.str[1:], "groups": starts}
    kept = integers[: ends[rank - 1]]
    return Quantised(facts, parts, _columns(kept * found.step, stored[:rank], real=real))


def unpack_columns(facts: Mapping[str, Json], parts: Mapping[str, Part], height: int, most: int) -> Array:
    """Return the columns that were quantised, of `height` rows and at most `most` of them.

    Raises
    ------
    IntegrityError
        The facts and parts are not those of such a factor.
    """
    part = part_of(parts, "pivots", np.uint32)
    real, starts, rank = facts.get("real"), facts.get("groups"), part.shape[0]
    if type(real) is not bool or not 0 < rank <= min(most, height):
        raise malformed("a factor without columns, or with too many")
    if type(starts) is not list or not all(type(x) is int for x in starts) or len(starts) > rank:
        raise malformed("the groups of the columns of a factor are no numbers")
    stops = [*starts[1:], rank]
    if starts[:1] != [0] or not all(start < stop for start, stop in zip(starts, stops, strict=True)):
        raise malformed("the groups of the columns of a factor are not in order")
    pivots = part[:].astype(np.int64)
    if pivots.max() >= height or len(np.unique(pivots)) != rank:
        raise malformed("the pivots of a factor are not rows of it")
    step, kind = step_of(facts), integers_of(facts)
    stored = _stored(pivots, height)
    counts = stored.sum(axis=1)
    integers = []
    for index, (start, stop) in enumerate(zip(starts, stops, strict=True)):
        count = int(counts[start:stop].sum())
        numbers = Numbers(parts, f"group{index}", kind, count * (1 if real else 2)).all()
        integers.append(numbers.reshape(-1, count).T.astype(np.float64))
    with np.errstate(all="ignore"):  # the step may be anything
        return _columns(np.concatenate(integers) * step, stored, real=real)


def _stored(pivots: Array, height: int) -> Array:
    """Return, for each column, the rows that are stored: all but the pivots of the columns before, where it is zero."""
    first = np.full(height, len(pivots))
    first[pivots] = np.arange(len(pivots))
    return np.arange(len(pivots))[:, None] <= first


def _columns(values: Array, stored: Array, *, real: bool) -> Array:
    """Return a factor from its stored entries, a row of one or two real numbers for each."""
    columns = np.zeros(stored.shape, np.float64 if real else np.complex128)
    columns[stored] = values[:, 0] if real else np.ascontiguousarray(values).view(np.complex128)[:, 0]
    return columns.T


def _groups(integers: Array, bounds: list[int]) -> list[int]:
    """Return the first column of each group; `bounds` are the ends of the columns among their entries, after a 0."""
    starts: list[int] = []
    first = 0.0
    for column, (low, high) in enumerate(pairwise(bounds)):
        size = float(np.sqrt(np.mean(np.square(integers[low:high].astype(np.float64)))))
        if not starts or (size < _APART * first and (low - bounds[starts[-1]]) * integers.shape[1] >= _GROUP):
            starts.append(column)
            first = size
    return starts
