"""Numbers as integer multiples of a step, such that the errors of all of them add up to what is allowed."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from quantum_memory.compression.forms.base import malformed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from quantum_memory.compression.forms.base import Json
    from quantum_memory.compression.forms.products import Array

_INTEGERS = {"i2": 2.0**15 - 1, "i4": 2.0**31 - 1, "i8": 2.0**52}
"""Types of integers, and the largest that is stored in each."""

_ROUNDS = 8
_USED = 0.97
"""A step that makes an error of this share of what is allowed is large enough."""


class Rounded(NamedTuple):
    """Numbers, each an integer times ``step`` and its own factor."""

    step: float
    integers: Array


def rounded(values: Array, factors: Array | float, gains: Array | float, budget: float) -> Rounded | None:
    """Round numbers to multiples of the largest step found for which the weighted squares of the errors keep a budget.

    Parameters
    ----------
    values
        Of float64, one axis, not empty.
    factors
        For each number, what the step is multiplied by.
    gains
        For each, what the square of its error is multiplied by.
    budget
        The largest sum of those products.

    Returns
    -------
    Rounded or None
        None where the integers would be too large.
    """
    step = math.sqrt(12 * budget / float(np.sum(np.broadcast_to(np.square(factors) * gains, values.shape))))
    largest = float((np.abs(values) / factors).max())
    best: tuple[float, Array] | None = None
    for _ in range(_ROUNDS):
        if largest > step / 2:
            step = largest / math.ceil(largest / step)  # what is made of 0 and one other number becomes exact
        if not (0 < step < math.inf and largest / step < _INTEGERS["i8"]):
            break
        units = step * factors
        integers = np.rint(values / units)
        error = float((np.square(integers * units - values) * gains).sum())
        if error <= budget and (best is None or step > best[0]):
            best = step, integers
        if error == 0 or _USED * budget <= error <= budget:
            break
        step *= min(max(math.sqrt((1 + _USED) / 2 * budget / error), 0.25), 4.0)
    if best is None:
        return None
    step, integers = best
    most = float(np.abs(integers).max())
    return Rounded(step, integers.astype(next(f"<{name}" for name, limit in _INTEGERS.items() if most <= limit)))


def step_of(facts: Mapping[str, Json]) -> float:
    """Return the step of rounded numbers, finite and above 0.

    Raises
    ------
    IntegrityError
        The facts have none.
    """
    text = facts.get("step")
    try:
        step = float.fromhex(text) if type(text) is str and len(text) < 32 else 0.0
    except (ValueError, OverflowError):
        step = 0.0
    if not 0 < step < math.inf:
        raise malformed("rounded numbers without a step")
    return step


def integers_of(facts: Mapping[str, Json]) -> np.dtype[Any]:
    """Return the type of the integers of rounded numbers.

    Raises
    ------
    IntegrityError
        The facts do not say it.
    """
    name = facts.get("type")
    if type(name) is not str or name not in _INTEGERS:
        raise malformed("rounded numbers of an unknown type")
    return np.dtype(f"<{name}")
