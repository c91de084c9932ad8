"""Lossy forms: they keep a state to within an infidelity that is asked for, and certify the one they reach.

A form with one parameter, a step, finds the largest that will do with `find_step`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol

from quantum_memory.compression.forms.base import Unpacks

if TYPE_CHECKING:
    from collections.abc import Callable

    from quantum_memory.compression.forms.base import Effort, Packed
    from quantum_memory.state.arrays import AnyArray

_PASSES = 8

MARGIN, _EXACT = 0.007, 1e-6
"""Shares of the allowed infidelity: how far below it a step is aimed, and what is reached only by components that are
multiples of one another, which no larger step would change much."""

_WHERE_MOST_IS_LOST = 0.7
"""How a step changes where most components are rounded to zero, so that the infidelity says little of the next."""

ENOUGH = 0.985
"""What share of the allowed infidelity is to be used."""


@dataclass(frozen=True)
class Certified:
    """An array in a lossy form.

    Attributes
    ----------
    packed
        What is stored.
    infidelity
        1 - F between the array and what is unpacked, on any machine, is at most this (see `certificate.Overlap`).
    """

    packed: Packed
    infidelity: float


class LossyForm(Unpacks, Protocol):
    """How an array is packed with loss, and unpacked.

    Attributes
    ----------
    name
        As files have it; it never changes.
    exact
        Whether what is unpacked has the same bits on every machine.
    """

    name: ClassVar[str]
    exact: ClassVar[bool]

    def pack(self, array: AnyArray, infidelity: float, effort: Effort) -> Certified | None:
        """Return the array in this form, or None where it cannot be had within `infidelity` or has nothing to offer.

        Parameters
        ----------
        array
            C-contiguous, little-endian: float32, float64, complex64 or complex128, of one axis (a state vector) or two
            (a density matrix, the elements of which are taken as one vector). It need not be normalised.
        infidelity
            The largest 1 - F that is allowed, between 0 and 1. The certified one is never above it, and is computed
            from what is unpacked.
        effort
            How long to try.

        Raises
        ------
        InvalidStateError
            The array is zero, or holds a NaN or an infinity; or `infidelity` is not between 0 and 1.
        """


def find_step(first: float, infidelity_of: Callable[[float], float], allowed: float) -> tuple[float, float] | None:
    """Return a step with nearly, and not more than, the infidelity that is allowed, and its infidelity.

    None is returned where no step was found. It may be far from the best where many components are below it, since
    then the infidelity does not grow evenly.

    Parameters
    ----------
    first
        Where to start.
    infidelity_of
        Certifies a step.
    allowed
        The largest infidelity.
    """
    below: tuple[float, float] | None = None  # the step within what is allowed, and the one beyond it, that are closest
    above: tuple[float, float] | None = None
    step = first
    for tries in range(_PASSES):
        step = short(step)
        found = infidelity_of(step)
        if found > allowed:
            above = step, found
        else:
            below = step, found
            if found >= ENOUGH * allowed or found <= _EXACT * allowed:
                break
        if below and above:
            step = _between(below, above, (1 - MARGIN) * allowed, tries)
            if not below[0] < step < above[0]:
                break
        else:
            change = min(max(math.sqrt((1 - MARGIN) * allowed / found), 0.25), 4.0)
            step *= min(change, _WHERE_MOST_IS_LOST) if above and found > 1 / 2 else change
    return below


def _between(below: tuple[float, float], above: tuple[float, float], aim: float, tries: int) -> float:
    """Return a step between two: by interpolation in logarithms, or if that has not helped in the middle."""
    width = math.log(above[0] / below[0])
    rise = math.log(above[1] / below[1])
    share = math.log(aim / below[1]) / rise if tries < 4 and below[1] < aim else 0.5
    return below[0] * math.exp(width * min(max(share, 0.02), 0.98))


def short(step: float) -> float:
    """Return a step of 24 binary digits, so that multiples of it up to 2**29 are exact."""
    mantissa, exponent = math.frexp(min(step, 2.0**1022))
    return math.ldexp(round(mantissa * 2**24), exponent - 24)
