"""Form ``mps``: a state vector of low entanglement as a matrix product state of few integers.

The state is split across its middle bond, both halves are split further into one tensor for each qubit, and the tensors
are brought into a gauge in which half of their numbers are 0 and 1; the others are rounded to multiples of a step. What
is unpacked is the contraction, a product of matrices whose last bits depend on the machine; the certificate leaves a
margin for that.
"""

from __future__ import annotations

import math
import operator
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from quantum_memory.compression.certificate import scale_of
from quantum_memory.compression.forms.base import Packed, malformed
from quantum_memory.compression.forms.chain import LARGEST_BOND, interpolation, quantise, unpack_tensors
from quantum_memory.compression.forms.contraction import MOST_QUBITS, Contraction, is_too_large
from quantum_memory.compression.forms.splitting import chain_of, matrix_of, sketch, split
from quantum_memory.compression.lossy import Certified

if TYPE_CHECKING:
    from collections.abc import Mapping

    from quantum_memory.compression.forms.base import Effort, Json, Part
    from quantum_memory.compression.forms.chain import Interpolation
    from quantum_memory.compression.forms.products import Array
    from quantum_memory.compression.forms.splitting import Split
    from quantum_memory.compression.forms.views import View

_ROWS: dict[Effort, int] = {"fast": 128, "balanced": 256, "max": 512}
"""Rows of the sketch, which bound the rank that is found."""

_SHARES: dict[Effort, tuple[float, ...]] = {"fast": (0.3,), "balanced": (0.1, 0.4), "max": (0.03, 0.1, 0.25, 0.5)}
"""Shares of the allowed infidelity for what is left out at the bonds; the rest is for the rounding of numbers."""

_FEWEST = 6
"""Qubits of the smallest state that is tried."""

_WORTH_IT = 0.5
"""A chain is kept if it takes at most this share of what a uniform quantiser would take."""

_LESS = 0.8
"""Share of the numbers that a rank says a chain has which it must be expected to have: other bonds may be smaller."""

_SINGLE_ENOUGH = 1e-9
"""Down to this infidelity, arrays of single precision are multiplied in single precision while they are split."""

_MARGIN = 0.03
"""Unpacking in single precision is good enough if it may add this share to the norm of the error."""

_SMALL = 22
"""Up to so many qubits, a step is looked for that uses up the allowed infidelity; above, one that keeps it."""

_TRIES = 6
_USED, _AIM, _EXACT = 0.94, 0.98, 1e-6
"""Shares of the allowed infidelity: enough, what is aimed at, and what only states that are kept exactly are below."""

_RANGE = {4: (1e-12, 1e12), 8: (1e-150, 1e150)}
"""Squared norms that are summed without loss, by the bytes of a real component."""


class MatrixProduct:
    """A matrix product state in the interpolative gauge, quantised; see `chain` and `contraction`."""

    name: ClassVar[str] = "mps"
    exact: ClassVar[bool] = False

    def pack(self, array: Array, infidelity: float, effort: Effort) -> Certified | None:
        """Return a state vector of qubits that has low entanglement; see `LossyForm`."""
        qubits = array.size.bit_length() - 1
        if array.ndim != 1 or array.size != 1 << qubits or qubits < _FEWEST:
            return None
        matrix = matrix_of(array)
        seen = sketch(matrix, infidelity / (2 * qubits), _ROWS[effort], glance=effort != "max")
        real_bytes = array.real.itemsize
        least, most = _RANGE[real_bytes]
        if not least <= seen.weight <= most:
            scale_of(array)  # refuses a state that is zero or not finite
            return None
        precision = np.float32 if real_bytes == 4 and infidelity > _SINGLE_ENOUGH else np.float64
        # The sketch may have seen too little.
        for rank, real in ((seen.rank, seen.real), (2 * seen.rank, not np.iscomplexobj(array))):
            if not 0 < rank <= LARGEST_BOND or _too_many(
                _numbers(qubits, rank, real=real), array, infidelity, real=real
            ):
                return None
            work = precision if real else np.result_type(precision, np.complex64)
            halves = split(matrix, rank, min(_SHARES[effort]) * infidelity * seen.weight / qubits, work)
            plans = [_planned(halves, array, infidelity, share) for share in _SHARES[effort]]
            plan = min(filter(None, plans), key=lambda one: one.size, default=None)
            if plan is None:
                return None
            if found := _certified(plan, array, infidelity):
                return found if 8 * found.packed.nbytes < _most(array, infidelity, real=real) else None
        return None

    def view(
        self, facts: Mapping[str, Json], parts: Mapping[str, Part], dtype: np.dtype[Any], shape: tuple[int, ...]
    ) -> View:
        if len(shape) != 1:
            raise malformed("a chain of tensors is no matrix")
        return contraction_of(facts, parts, shape[0], dtype)


def contraction_of(
    facts: Mapping[str, Json], parts: Mapping[str, Part], size: int, dtype: np.dtype[Any]
) -> Contraction:
    """Return what computes a vector of `size` items that was packed.

    Raises
    ------
    IntegrityError
        The facts and parts are not those of such a vector.
    """
    qubits = size.bit_length() - 1
    if not _FEWEST <= qubits <= MOST_QUBITS or size != 1 << qubits or type(facts.get("single")) is not bool:
        raise malformed("a chain of tensors is no state of so many items")
    tensors, real = unpack_tensors(facts, parts, qubits)
    if not real and dtype.kind != "c":
        raise malformed("a chain of complex tensors is no real state")
    if is_too_large(tensors):
        raise malformed("a chain of tensors is larger than any that is made")
    contraction = Contraction(tensors, dtype, single=facts["single"])
    if not contraction.finite:
        raise malformed("a chain of tensors is not finite")
    return contraction


def _numbers(qubits: int, rank: int, *, real: bool) -> float:
    """Return about how many numbers a chain has of which the middle bond has a rank, or a few less."""
    bonds = [min(1 << site, 1 << (qubits - site), rank) for site in range(qubits + 1)]
    return _LESS * float(sum(map(operator.mul, bonds, bonds[1:]))) * (1 if real else 2)


def _too_many(numbers: float, array: Array, infidelity: float, *, real: bool) -> bool:
    """Tell whether a chain takes too much, with one bit more for each number than the uniform quantiser has."""
    return numbers * (0.5 * math.log2(1 / infidelity) + 1) > _most(array, infidelity, real=real)


def _most(array: Array, infidelity: float, *, real: bool) -> float:
    """Return how many bits a chain may take."""
    return _WORTH_IT * array.size * (1 if real else 2) * (0.5 * math.log2(1 / infidelity) + 0.3)


class _Plan(NamedTuple):
    """A chain of tensors, and how well its numbers are to be kept."""

    state: Interpolation
    weight: float
    """The squared norm of the state."""
    lost: float
    """The share of it that was left out at the bonds."""
    budget: float
    """The share of it that rounding may add."""
    single: bool
    """Whether to unpack in single precision."""
    size: int
    """Bytes it takes about."""


def _planned(halves: Split, array: Array, infidelity: float, share: float) -> _Plan | None:
    """Return a plan that leaves out a share of the allowed infidelity at the bonds; None where that takes too much."""
    weight = float(np.square(halves.values).sum())
    qubits = array.size.bit_length() - 1
    chain = chain_of(halves, share * infidelity * weight / qubits)
    real = not np.iscomplexobj(halves.left)
    numbers = sum(tensor.size for tensor in chain.tensors) / 2 * (1 if real else 2)
    if max(map(len, chain.tensors)) > LARGEST_BOND or _too_many(numbers, array, infidelity, real=real):
        return None
    state = interpolation(chain)
    if is_too_large(state.tensors):
        return None
    for single in (True, False) if array.real.itemsize == 4 else (False,):
        margin = Contraction(state.tensors, array.dtype, single=single).margin()
        if not single or margin < _MARGIN * math.sqrt(infidelity):
            break
    lost = chain.lost / weight
    budget = _AIM * max(math.sqrt(infidelity) - margin, 0.0) ** 2 - lost
    quantised = quantise(state, budget * weight) if budget > 0 else None
    if quantised is None:
        return None
    size = Packed(MatrixProduct.name, quantised.facts, quantised.parts).nbytes
    if array.size > 1 << _SMALL:
        budget /= 1 + 6 / math.sqrt(numbers)  # errors of few numbers do not average out
    return _Plan(state, weight, lost, budget, single, size)


def _certified(plan: _Plan, array: Array, infidelity: float) -> Certified | None:
    """Return the state with numbers as coarse as is allowed; None where more is missing than the plan says."""
    best: Certified | None = None
    budget = plan.budget
    for _ in range(_TRIES):
        quantised = quantise(plan.state, budget * plan.weight)
        if quantised is None:
            break
        contraction = Contraction(quantised.tensors, array.dtype, single=plan.single)
        reached = contraction.overlap(array).infidelity(contraction.margin())
        if reached <= infidelity:
            if best is None or reached > best.infidelity:
                facts = {"single": plan.single, **quantised.facts}
                best = Certified(Packed(MatrixProduct.name, facts, quantised.parts), reached)
            if reached > _USED * infidelity or reached < _EXACT * infidelity or array.size > 1 << _SMALL:
                break
        budget *= min(max((_AIM * infidelity - plan.lost) / max(reached - plan.lost, _EXACT * infidelity), 0.2), 5.0)
        if budget < (1 - _AIM) * plan.budget:
            break
    return best
