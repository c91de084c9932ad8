"""The certificate of a lossy form: an upper bound of the infidelity between a state and what is decoded in its place.

With ``e = phi - psi`` the infidelity is a Gram determinant,

    1 - F  =  1 - |<psi|phi>|^2 / (<psi|psi> <phi|phi>)  =  (<psi|psi> <e|e> - |<psi|e>|^2) / (<psi|psi> <phi|phi>),

which, unlike the left side, loses no digits when `phi` is close to `psi`. What its sums may be wrong by is bounded
(Higham, *Accuracy and Stability of Numerical Algorithms*, 2nd ed., section 3.1) and added, so the number that is stated
holds.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from quantum_memory.compression.cores import on_all_cores
from quantum_memory.compression.forms.base import malformed
from quantum_memory.errors import InvalidStateError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from quantum_memory.compression.forms.base import Json, Part
    from quantum_memory.state.arrays import AnyArray

    Item = TypeVar("Item")
    Result = TypeVar("Result")

DEFINITION = "F = |<psi|phi>|^2 / (<psi|psi> <phi|phi>)"
"""The fidelity that is certified of a state vector."""

UHLMANN = "F = (tr sqrt(sqrt(rho) sigma sqrt(rho)))^2 / (tr rho tr sigma)"
"""The fidelity that is certified of a density matrix."""

BLOCK = 1 << 17
"""Items that one core takes at a time."""

_PIECE = 1 << 17
"""Items that are widened at a time: few enough for the cache, enough that cores do not wait for one another."""

_ROW = 1 << 7
"""Items that are multiplied and summed at a time. NumPy lets go of its lock only for products of more than 500 rows."""

_ROUNDINGS = 2 * _ROW + _PIECE // _ROW + 8
"""Of the sum over a piece; those of pieces are added without rounding (`math.fsum`)."""
_GAMMA = _ROUNDINGS * 2.0**-53 / (1 - _ROUNDINGS * 2.0**-53)

_LEAST, _MOST = 2.0**-500, 2.0**1000
"""Squared norms between these are summed safely: products that underflow add up to less than `_LEAST` of them."""

_FARTHEST = 1e9
"""Where <e|e> is more than this times <phi|phi> there is nothing to certify."""


class Overlap:
    """The sums over two vectors, `psi` (the original) and `phi` (what is decoded), that their fidelity follows from.

    Use one for each block, on any core, and merge them: in whatever blocks and order that is done, the bound holds, and
    in the same blocks the result is the same.

    Parameters
    ----------
    shift
        Both vectors are multiplied by ``2**shift``, which is exact and leaves the fidelity as it is. See `scale_of`.
    """

    def __init__(self, shift: int = 0) -> None:
        self._shift = shift
        self._pp: list[float] = []
        self._ee: list[float] = []
        self._rr: list[float] = []
        self._fr: list[float] = []
        self._fi: list[float] = []
        self._vanished = False

    def add(self, psi: AnyArray, phi: AnyArray) -> None:
        """Add a block.

        Parameters
        ----------
        psi, phi
            Equally long, of one axis: float32, float64, complex64 or complex128.
        """
        if psi.shape != phi.shape or psi.ndim != 1:
            raise ValueError("psi and phi are not two rows of the same length")
        wide = np.result_type(psi.dtype, phi.dtype, np.float64)
        buffers = np.empty((3, min(len(psi), _PIECE)), wide)
        rows: list[list[float]] = [[], [], [], [], []]
        with np.errstate(all="ignore"):  # what overflows shows in the sums
            for start in range(0, len(psi), _PIECE):
                x, y, e = buffers[:, : len(psi) - start]
                self._widen(psi[start : start + _PIECE], x)
                self._widen(phi[start : start + _PIECE], y)
                np.subtract(y, x, out=e)
                whole = len(x) - len(x) % _ROW
                if whole:
                    self._add_rows(rows, *(items[:whole].reshape(-1, _ROW) for items in (x, y, e)))
                if whole < len(x):
                    self._add_rows(rows, x[None, whole:], y[None, whole:], e[None, whole:])
        for sums, row in zip((self._pp, self._ee, self._rr, self._fr, self._fi), rows, strict=True):
            sums.append(_sum(row))

    def merge(self, other: Overlap) -> None:
        """Add what another one holds, which has the same `shift`."""
        if self._shift != other._shift:
            raise ValueError("the two were not scaled alike")
        self._pp += other._pp
        self._ee += other._ee
        self._rr += other._rr
        self._fr += other._fr
        self._fi += other._fi
        self._vanished |= other._vanished

    def condense(self) -> None:
        """Write the same sums down in a few numbers, without rounding, before this is sent elsewhere."""
        self._pp, self._ee, self._rr, self._fr, self._fi = map(
            exact_sum, (self._pp, self._ee, self._rr, self._fr, self._fi)
        )

    @property
    def pp(self) -> float:
        """<psi|psi>, times ``4**shift`` like the others."""
        return _sum(self._pp)

    @property
    def ee(self) -> float:
        """<e|e> of the error ``e = phi - psi``."""
        return _sum(self._ee)

    @property
    def rr(self) -> float:
        """<phi|phi>."""
        return _sum(self._rr)

    @property
    def f(self) -> complex:
        """<psi|e>."""
        return complex(_sum(self._fr), _sum(self._fi))

    def infidelity(self, margin: float = 0.0) -> float:
        """Return an upper bound of 1 - F, between 0 and 1.

        A sum of k real products is wrong by at most ``gamma = k u / (1 - k u)``, u = 2**-53, times the sum of their
        absolute values, in whatever order it is added up and whether or not products are fused. So the squared norms
        are within a share gamma, <psi|e> is within ``gamma |psi| |e|`` in each component, the determinant within
        ``(2 + 2 sqrt 2) gamma <psi|psi> <e|e>``, the denominator within a share 2 gamma; and the determinant is at
        most ``<psi|psi> <e|e>``. Eight times ``gamma <e|e> / <phi|phi>`` covers them all, and terms of second order.

        Parameters
        ----------
        margin
            ``delta``, where a decoder may return any phi' with ``|phi' - phi| <= delta |phi|``: on another machine,
            say. The angle between phi and phi' is then at most ``arcsin delta``; angles between rays obey the triangle
            inequality, and ``sqrt(1 - F)`` is the sine of one, so ``sqrt(1 - F') <= sqrt(1 - F) + delta``.

        Raises
        ------
        InvalidStateError
            `psi` is zero or not finite, or so large or small that it needs another `shift`.
        """
        pp, ee, rr, f = self.pp, self.ee, self.rr, self.f
        if not _LEAST <= pp <= _MOST:
            raise InvalidStateError(
                "the fidelity to this state cannot be certified: it is zero, not finite, or out of range",
                next_step="store it without loss",
            )
        if not (_LEAST <= rr <= _MOST and ee <= _FARTHEST * rr):
            return 1.0  # phi is zero, not finite or far away
        bound = 0.0
        if ee or self._vanished or self._shift < 0:  # a shift down may have made small errors vanish as well
            share = ee / rr
            along = abs(f) / (math.sqrt(pp) * math.sqrt(rr))
            bound = max(share - along * along, 0.0) + 8 * _GAMMA * share + _LEAST
        if margin:
            bound = (math.sqrt(bound) + margin) ** 2 if 0 < margin < 1 else 1.0
        return min(bound and math.nextafter(bound * (1 + 2.0**-48), math.inf), 1.0)

    def least_infidelity(self) -> float:
        """Return a lower bound of 1 - F: what `infidelity` adds for rounding, taken off as well."""
        if not (_LEAST <= self.pp <= _MOST and _LEAST <= self.rr <= _MOST):
            return 0.0
        return max(0.0, self.infidelity() * (1 - 2.0**-40) - 16 * _GAMMA * self.ee / self.rr - 2 * _LEAST)

    @property
    def fidelity(self) -> float:
        """F, for people: not less than ``1 - infidelity()``, up to rounding."""
        return 1.0 - self.infidelity()

    def _widen(self, items: AnyArray, out: AnyArray) -> None:
        np.copyto(out, items)  # an assignment that converts keeps NumPy's lock
        if self._shift:
            np.ldexp(_reals(out), self._shift, out=_reals(out))

    def _add_rows(self, sums: list[list[float]], x: AnyArray, y: AnyArray, e: AnyArray) -> None:
        """Append the sums over all items, of two axes."""
        squares = [np.vecdot(row, row) for row in (_reals(x), _reals(e), _reals(y))]
        inner = np.vecdot(x, e)
        self._vanished |= bool(not squares[1].all() and e.any())
        for one, values in zip(sums, (*squares, inner.real, inner.imag), strict=True):
            one.append(float(values.sum()))


def _reals(items: AnyArray) -> AnyArray:
    """View the parts of complex items, real and imaginary, as items."""
    return items.view(items.real.dtype)


def exact_sum(values: list[float]) -> list[float]:
    """Return a few numbers with exactly the same sum; of what is not finite, the values as they are."""
    parts: list[float] = []
    for _ in values:
        rest = _sum([*values, *(-part for part in parts)])
        if rest == 0:
            return parts
        if not math.isfinite(rest):
            break
        parts.append(rest)
    return values


def _sum(values: list[float]) -> float:
    try:
        return math.fsum(values)
    except (OverflowError, ValueError):  # too large; infinities of both signs
        return math.nan


@dataclass(frozen=True)
class Scale:
    """How large the items of a vector are.

    Attributes
    ----------
    largest
        The largest absolute value of a real component.
    rms
        The root of the mean square of the real components (for choosing a step; it is not certified).
    shift
        For `Overlap`: with it nothing overflows or is lost. 0 for vectors of common size.
    """

    largest: float
    rms: float
    shift: int


def scale_of(psi: AnyArray) -> Scale:
    """Return how large the items of a vector, of one axis and contiguous, are.

    Raises
    ------
    InvalidStateError
        One of them is not finite, or all are zero.
    """
    reals = _reals(psi)

    def extents(power: int) -> tuple[float, float]:
        def one(start: int) -> tuple[float, float]:
            return extent(reals[start : start + BLOCK], power)

        found = np.array(list(on_all_cores(one, range(0, len(reals), BLOCK)))).reshape(-1, 2)
        return float(found[:, 0].max(initial=0.0)), _sum(found[:, 1].tolist())

    return scale_from(extents, len(reals))


def scale_from(extents: Callable[[int], tuple[float, float]], count: int) -> Scale:
    """Return how large `count` real components are; see `scale_of`.

    Parameters
    ----------
    extents
        Returns the largest of the absolute values times ``2**power``, or NaN, and the sum of the squares. It is called
        once more, with another power, where that sum is not to be trusted.
    """
    largest, squares = extents(0)
    if not 0 < largest < math.inf:  # a NaN is not
        what = "is zero" if largest == 0 else "holds a NaN or an infinity"
        raise InvalidStateError(f"a state that {what} has no fidelity to another", next_step="store it without loss")
    exponent = math.frexp(largest)[1]
    power = 0 if -40 < exponent < 40 else -exponent  # squares in float32 may overflow or vanish
    if power:
        squares = extents(power)[1]
    rms = math.ldexp(math.sqrt(squares / count), -power)
    return Scale(largest, rms, 0 if -200 < exponent < 400 else -exponent)


def extent(block: AnyArray, power: int = 0) -> tuple[float, float]:
    """Return the largest absolute value times ``2**power``, or NaN, and the sum of the squares to some digits."""
    block = np.ldexp(block, power) if power else block
    whole = len(block) - len(block) % _ROW  # in rows, since float32 adds up badly
    with np.errstate(all="ignore"):
        rows, rest = block[:whole].reshape(-1, _ROW), block[whole:]
        squares = float(np.vecdot(rows, rows).sum(dtype=np.float64) + np.vecdot(rest, rest))
        return float(np.maximum(block.max(), -block.min())), squares


def overlap(psi: AnyArray, phi: Part, shift: int = 0) -> Overlap:
    """Return the sums over two rows of the same length, computed block by block on all cores."""
    if psi.shape != phi.shape:
        raise ValueError("psi and phi are not two rows of the same length")

    def one(start: int) -> Overlap:
        block = Overlap(shift)
        block.add(psi[start : start + BLOCK], phi[start : start + BLOCK])
        return block

    total = Overlap(shift)
    for block in on_all_cores(one, range(0, len(psi), BLOCK)):
        total.merge(block)
    return total


@dataclass(frozen=True)
class Certificate:
    """What is known of an array that was packed with loss.

    Attributes
    ----------
    infidelity
        1 - F is at most this, for what is unpacked on any machine.
    requested
        What was asked for, or None where nothing was.
    original
        SHA-256 that identifies the array that was packed (`quantum_memory.state.arrays.array_digest`), in hexadecimal.
    definition
        Of F.
    """

    infidelity: float
    requested: float | None
    original: str
    definition: str = DEFINITION

    @property
    def fidelity(self) -> float:
        """F is at least this, up to rounding."""
        return 1.0 - self.infidelity

    @property
    def observable_error(self) -> float:
        """The expectation value of an observable O is wrong by at most this times its operator norm |O|.

        It is ``2 sqrt(1 - F)``, for normalised state vectors.
        """
        return 2 * math.sqrt(self.infidelity)

    def to_dict(self) -> dict[str, Json]:
        """Return it for people and programs, with what follows from it."""
        return {
            "infidelity": self.infidelity,
            "fidelity": self.fidelity,
            "requested_infidelity": self.requested,
            "observable_error": self.observable_error,
            "definition": self.definition,
            "original_sha256": self.original,
        }

    def to_json(self) -> dict[str, Json]:
        """Return it as plain values; numbers both exactly, in hexadecimal, and for people."""
        return {
            "infidelity": _number_to_json(self.infidelity),
            "requested": None if self.requested is None else _number_to_json(self.requested),
            "original": self.original,
            "definition": self.definition,
        }

    @classmethod
    def from_json(cls, values: Json) -> Certificate:
        """Return what `to_json` made the plain values of.

        Raises
        ------
        IntegrityError
            It made no such values.
        """
        if not isinstance(values, dict) or set(values) != {"infidelity", "requested", "original", "definition"}:
            raise malformed("a certificate has other entries")
        infidelity, requested = (
            None if values[name] is None else _number_from_json(values[name]) for name in ("infidelity", "requested")
        )
        original, definition = values["original"], values["definition"]
        if infidelity is None or (requested is not None and requested < infidelity):
            raise malformed("a certificate does not state what was asked for")
        if not isinstance(original, str) or not re.fullmatch("[0-9a-f]{64}", original):
            raise malformed("a certificate does not name the original")
        if definition not in {DEFINITION, UHLMANN}:
            raise malformed("a certificate is about another fidelity")
        return cls(infidelity, requested, original, definition)


def _number_to_json(number: float) -> Json:
    return {"decimal": repr(number), "hex": number.hex()}


def _number_from_json(value: Mapping[str, Json]) -> float:
    """Return a number between 0 and 1."""
    exact = value.get("hex") if isinstance(value, dict) else None
    try:
        number = float.fromhex(exact) if isinstance(exact, str) and len(exact) < 40 else math.nan
    except (ValueError, OverflowError):
        number = math.nan
    if not 0 <= number <= 1 or value != _number_to_json(number):
        raise malformed("a number in a certificate is not one")
    return number
