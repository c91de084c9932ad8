"""Arrays that read the same backwards: flipping every qubit does not change the state, but perhaps for its sign.

Where ``v[~x] == v[x]``, bit for bit, half of the amplitudes is all there is; the same where ``v[~x] == -v[x]``.
Circuits and Hamiltonians with a global spin flip leave such states exactly.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from quantum_memory.compression.forms.base import Effort, Packed, malformed
from quantum_memory.compression.forms.plain import PIECE, bits_of
from quantum_memory.compression.forms.views import View

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from quantum_memory.compression.forms.base import Json, Part
    from quantum_memory.state.arrays import AnyArray

NOT_WITHIN = frozenset({"flip_fold", "hermitian_fold"})
"""A half is not folded again."""


@dataclass(frozen=True)
class FlipFold:
    """The first half, with the middle item where the number of items is odd, in any other form.

    Facts: whether the other half is ``negated``, and how the ``half`` is packed: a form and its facts, or null. Parts:
    those of the half, or the part ``half``.
    """

    name: ClassVar[str] = "flip_fold"

    def pack(self, array: AnyArray, effort: Effort) -> Packed | None:
        from quantum_memory.compression.forms.registry import pack_within  # noqa: PLC0415 - it imports this module

        if array.size < 2:
            return None
        negated = next((sign for sign in (False, True) if _mirrored(array, negated=sign)), None)
        if negated is None:
            return None
        how, parts = pack_within("half", array.reshape(-1)[: (array.size + 1) // 2], effort, NOT_WITHIN)
        return Packed(self.name, {"negated": negated, "half": how}, parts)

    def view(
        self, facts: Mapping[str, Json], parts: Mapping[str, Part], dtype: np.dtype[Any], shape: tuple[int, ...]
    ) -> View:
        from quantum_memory.compression.forms.registry import view_within  # noqa: PLC0415 - it imports this module

        negated, size = facts.get("negated"), math.prod(shape)
        if type(negated) is not bool:
            raise malformed("'negated' is to be true or false")
        half = view_within("half", facts.get("half"), parts, dtype, ((size + 1) // 2,), exclude=NOT_WITHIN)
        return _Unfolded(half, size, negated=negated)


class _Unfolded(View):
    """A half, and the same backwards."""

    def __init__(self, half: View, size: int, *, negated: bool) -> None:
        super().__init__(half.dtype, size, range(0, size, PIECE * 4 // half.dtype.itemsize))
        self._half = half
        self._negated = negated

    def window(self, index: int, out: AnyArray) -> None:
        start = self.starts[index]
        here = min(max(0, self._half.size - start), len(out))
        self._half.read(start, out[:here])
        if here == len(out):
            return
        mirrored: AnyArray = np.empty(len(out) - here, self.dtype)
        self._half.read(self.size - start - len(out), mirrored)
        _items(out[here:])[:] = _flipped(_items(mirrored), negated=self._negated)


def _items(array: AnyArray) -> NDArray[Any]:
    """Return the bit patterns as a table with a row for each item."""
    return bits_of(array).reshape(array.size, -1)


def _flipped(items: NDArray[Any], *, negated: bool) -> NDArray[Any]:
    backwards = items[::-1]
    sign = items.dtype.type(1 << (8 * items.itemsize - 1))
    return backwards ^ sign if negated else backwards


def _mirrored(array: AnyArray, *, negated: bool) -> bool:
    """Tell whether the second half, or the first negated, is the first backwards; most arrays show that at once."""
    items = _items(array)
    half, step = (len(items) + 1) // 2, 1 << 6
    start = 0
    while start < half:
        stop = min(start + step, half)
        if not np.array_equal(
            items[len(items) - stop : len(items) - start], _flipped(items[start:stop], negated=negated)
        ):
            return False
        start, step = stop, PIECE
    return True
