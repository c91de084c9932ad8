"""Form ``natural_basis``: the qubits of a state vector turned, half of it left out by symmetry, and the rest rounded.

Each qubit is turned into the basis in which its reduced density matrix is diagonal (its natural basis). There a
symmetry of the state under a flip of all qubits about some axis shows as a parity: all amplitudes with an odd, or an
even, number of ones are zero, and the other half is stored. A symmetry under the flip of all bits can also be used as
it is, without turns: an amplitude then is that of the complement, up to a sign. What is left is rounded in another
form, and everything is undone in single operations, so the same bits come out everywhere.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from quantum_memory.compression.certificate import BLOCK, overlap, scale_of
from quantum_memory.compression.forms.base import Packed, malformed, nested, part_of, under
from quantum_memory.compression.forms.rotations import natural_bases, turn
from quantum_memory.compression.forms.trellis import Trellis
from quantum_memory.compression.forms.uniform import Uniform
from quantum_memory.compression.forms.views import WholeView, scratch, unpack
from quantum_memory.compression.lossy import Certified

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from quantum_memory.compression.forms.base import Effort, Json, Part
    from quantum_memory.compression.forms.products import Array
    from quantum_memory.compression.forms.views import View
    from quantum_memory.compression.lossy import LossyForm

_FEWEST, _MOST = 8, 24
"""Qubits of states that are tried: a copy of the state is made."""

_RESTS: dict[str, LossyForm] = {form.name: form for form in (Trellis(), Uniform())}
"""Forms in which what is left is rounded."""

_SAMPLE = 1 << 13
"""Amplitudes from which a symmetry, and how many bits are needed, is told; an odd number of places apart."""

_CLEAR = 1e-3
"""A symmetry shows in a sample of which no more than this share breaks it."""

_GAIN: dict[Effort, float] = {"balanced": 0.1, "max": 0.0}
"""Bits per real that turning must promise, apart from symmetries, which show only when it is done."""

_WORTH_IT = 0.95
"""Turns and symmetries are used if they leave at most this share of the bits."""

_COARSEST = 1e-3
"""Infidelity at which bits are counted from a sample, unless more is allowed: below, the differences stay the same."""

_BROKEN = 1e-3
"""Share of the allowed infidelity that what a symmetry leaves out may take."""

_AIM, _TRIES = 0.98, 3
_ROUNDING = 1e-9


class NaturalBasis:
    """Qubits turned into their natural bases, and one half left out."""

    name: ClassVar[str] = "natural_basis"
    exact: ClassVar[bool] = True

    def pack(self, array: Array, infidelity: float, effort: Effort) -> Certified | None:
        """Return a state vector of qubits that has biases or a symmetry; see `LossyForm`."""
        qubits = max(0, array.size.bit_length() - 1)
        if effort == "fast" or array.ndim != 1 or array.size != 1 << qubits or not _FEWEST <= qubits <= _MOST:
            return None
        scale = scale_of(array)
        plan = _plan(array, infidelity, _GAIN[effort])
        if plan is None:
            return None
        rest = plan.half.kept(plan.vector) if plan.half else plan.vector
        facts: dict[str, Json] = {"turned": plan.turns is not None, "half": plan.half and list(plan.half)}
        parts = {} if plan.turns is None else {"turns": np.array(plan.turns, np.complex128).view(np.float64)}
        decoded = scratch(array.dtype, array.shape)
        allowed = (1 - 2 * _BROKEN) * infidelity
        for _ in range(_TRIES):
            found = next(filter(None, (form.pack(rest, allowed, effort) for form in _RESTS.values())), None)
            if found is None:
                return None
            how = {"form": found.packed.form, "facts": found.packed.facts}
            packed = Packed(self.name, {**facts, "rest": how}, {**parts, **dict(under("rest", found.packed.parts))})
            unpack(self, packed.facts, packed.parts, decoded)
            reached = overlap(array, decoded, scale.shift).infidelity()
            if reached <= infidelity:
                return Certified(packed, reached)
            allowed *= _AIM * infidelity / reached
        return None

    def view(
        self, facts: Mapping[str, Json], parts: Mapping[str, Part], dtype: np.dtype[Any], shape: tuple[int, ...]
    ) -> View:
        qubits = max(0, math.prod(shape).bit_length() - 1)
        if shape != (1 << qubits,) or qubits < _FEWEST:
            raise malformed("turned qubits are no state of so many items")
        half, turned, how = _half_of(facts.get("half")), facts.get("turned"), facts.get("rest")
        if type(how) is not dict or type(how.get("facts")) is not dict or type(turned) is not bool:
            raise malformed("turned qubits do not say how what is left of them is rounded")
        name = how.get("form")
        if type(name) is not str or name not in _RESTS:
            raise malformed("what is left of a state is rounded in no form that is known")
        turns = _turns_of(parts, qubits, dtype) if turned else None
        kept = (1 << (qubits - 1 if half else qubits),)
        rest = _RESTS[name].view(how["facts"], nested(parts, "rest"), _double(dtype) if turned else dtype, kept)
        return WholeView(dtype, shape, lambda out: _restore(rest, half, turns, out))


def _restore(rest: View, half: _Half | None, turns: list[complex] | None, out: Array) -> None:
    """Fill a vector from what was rounded."""
    vector = out if turns is None else scratch(rest.dtype, out.shape)
    rest.fill(vector[: rest.size])
    if half:
        half.restore(vector)
    if turns is not None:
        with np.errstate(all="ignore"):  # numbers may be anything
            turn(vector, turns, back=True)
            for rows in _blocks(out.size):
                out[rows] = vector[rows]


class _Half(NamedTuple):
    """Which half of a vector is kept, and how the other follows from it."""

    flip: bool
    """The other half is that of the complements; else it is zero, and the kept half that of a parity."""
    odd: bool
    """Complements have the other sign; or the parity that is kept is that of an odd number of ones."""

    def shares(self, vector: Array, index: Array) -> tuple[float, float]:
        """Return the weight that is left out, and all there is, of the amplitudes in the first half at an index."""
        here = vector[index].astype(_double(vector.dtype))
        there = vector[len(vector) - 1 - index if self.flip else index + len(vector) // 2].astype(here.dtype)
        if self.flip:
            left_out = (here + there if self.odd else here - there) * math.sqrt(0.5)
        else:
            left_out = np.where(_parity(index) == self.odd, there, here)
        norms = [float(np.vecdot(x, x).real) for x in (left_out, here, there)]
        return norms[0], norms[1] + norms[2]

    def kept(self, vector: Array) -> Array:
        """Return the kept half of a vector, which has the top bit of the index left out."""
        half = len(vector) // 2
        kept = scratch(vector.dtype, (half,))
        for rows in _blocks(half):
            low = vector[rows]
            if self.flip:
                other = vector[len(vector) - rows.stop : len(vector) - rows.start][::-1]
                kept[rows] = (low - other if self.odd else low + other) * low.real.dtype.type(0.5)
            else:
                kept[rows] = np.where(_parity(np.arange(rows.start, rows.stop)) == self.odd, low, vector[half:][rows])
        return kept

    def restore(self, vector: Array) -> None:
        """Fill a vector of which the first half is the kept one."""
        half = len(vector) // 2
        for rows in _blocks(half):
            kept = vector[rows]
            if self.flip:
                other = kept[::-1]
                vector[len(vector) - rows.stop : len(vector) - rows.start] = -other if self.odd else other
            else:
                here = _parity(np.arange(rows.start, rows.stop)) == self.odd
                vector[half:][rows] = np.where(here, 0, kept)
                vector[rows] = np.where(here, kept, 0)


class _Plan(NamedTuple):
    """What to do with a state before it is rounded."""

    bits: float
    """About how many bits per real of the state it leaves."""
    turns: list[complex] | None
    half: _Half | None
    vector: Array
    """The state, after the turns."""


def _plan(array: Array, infidelity: float, gain: float) -> _Plan | None:
    """Return the best plan; None where nothing helps, or turns do not promise the gain."""
    every = len(array) >> 20 | 1
    plain = _Plan(_bits(array, infidelity), None, None, array)
    plans = [plain, *(plain._replace(bits=one[0], half=one[1]) for one in _halves(array, infidelity))]
    sample = natural_bases(array, every)
    promised = float(np.log2(_spread(sample.before) / _spread(sample.biases)).sum()) / 4
    if promised > gain or any(plan.half and plan.half.flip for plan in plans):
        turns = natural_bases(array).turns
        vector = scratch(_double(array.dtype), array.shape)
        vector[...] = array
        turn(vector, turns)
        turned = _Plan(_bits(vector, infidelity), turns, None, vector)
        plans += [turned, *(turned._replace(bits=one[0], half=one[1]) for one in _halves(vector, infidelity))]
    best = min(plans, key=lambda plan: plan.bits)
    return best if best.bits < _WORTH_IT * plain.bits else None


def _spread(biases: Array) -> Array:
    """Return four times the product of the probabilities of the two values of a qubit, 1 where there is no bias."""
    spread: Array = np.maximum(1 - np.square(biases), 1e-3)
    return spread


def _halves(vector: Array, infidelity: float) -> Iterator[tuple[float, _Half]]:
    """Yield halves that can be left out, each with the bits that are needed for the other one."""
    count = len(vector) // 2
    sample = np.arange(0, count, count // _SAMPLE | 1)
    for half in (_Half(flip, odd) for flip in (True, False) for odd in (False, True)):
        left_out, total = half.shares(vector, sample)
        if left_out <= _CLEAR * total:
            shares = [half.shares(vector, np.arange(rows.start, rows.stop)) for rows in _blocks(count)]
            left_out, total = (math.fsum(column) for column in zip(*shares, strict=True))
            if left_out <= _BROKEN * infidelity * total:
                yield _bits(half.kept(vector), infidelity) / 2, half


def _bits(vector: Array, infidelity: float) -> float:
    """Return about how many bits per real a vector takes when it is rounded: the entropy of a sample."""
    sample = np.ascontiguousarray(vector[:: len(vector) // _SAMPLE | 1])
    reals = sample.view(sample.real.dtype).astype(np.float64)
    reals /= np.abs(reals).max() or 1.0  # their squares are to be neither too large nor too small
    step = math.sqrt(12 * max(infidelity, _COARSEST) * float(np.mean(np.square(reals)))) or 1.0
    _, counts = np.unique(np.rint(reals / step), return_counts=True)
    shares = counts / len(reals)
    return -float((shares * np.log2(shares)).sum())


def _double(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the dtype, real or complex, in which an array is turned."""
    return np.dtype(np.complex128 if dtype.kind == "c" else np.float64)


def _blocks(count: int) -> Iterator[slice]:
    yield from (slice(start, min(start + BLOCK, count)) for start in range(0, count, BLOCK))


def _parity(index: Array) -> Array:
    """Return whether indices have an odd number of ones."""
    odd: Array = (np.bitwise_count(index) & 1).astype(bool)
    return odd


def _half_of(value: Json) -> _Half | None:
    if value is None:
        return None
    if type(value) is not list or len(value) != 2 or not all(type(one) is bool for one in value):
        raise malformed("there is no such half of a state")
    return _Half(*value)


def _turns_of(parts: Mapping[str, Part], qubits: int, dtype: np.dtype[Any]) -> list[complex]:
    turns = np.array(part_of(parts, "turns", np.float64, 2 * qubits)[:], np.float64).view(np.complex128)
    if not (np.abs(turns) <= 1 + _ROUNDING).all() or (turns.imag.any() and dtype.kind != "c"):
        raise malformed("qubits are turned by more than there is")
    return [complex(w) for w in turns]
