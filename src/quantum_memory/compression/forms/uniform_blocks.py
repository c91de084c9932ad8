"""Form ``uniform`` of an array that is elsewhere: block by block, by many, and the same bits as of one in memory.

A block of integers is packed by itself, so that whoever knows the step packs any of them. What has to be known of the
whole array before is how large its components are, whether they are real, and a sample: see `Looked`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from quantum_memory.compression import numbers
from quantum_memory.compression.certificate import BLOCK, Overlap, exact_sum, extent
from quantum_memory.compression.forms.plain import reals_in
from quantum_memory.compression.forms.uniform import (
    FASTEST,
    Source,
    Uniform,
    high_part,
    joined,
    kind_of,
    low_bits,
    low_planes,
    stored_reals,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from quantum_memory.compression.certificate import Scale
    from quantum_memory.compression.forms.base import Json
    from quantum_memory.state.arrays import AnyArray

    Integers = NDArray[np.signedinteger[Any]]

FORM = Uniform()
UNIT = numbers.BLOCK
"""Items of which whole runs make whole blocks, and whole chunks, whatever the type of the array."""


@dataclass(frozen=True)
class FarSource(Source):
    """What is known of a row of reals that is elsewhere.

    Attributes
    ----------
    reals
        As many as there are, in no memory; what is in them means nothing.
    sampled
        See `Source.sample`.
    """

    sampled: NDArray[np.float64]

    @classmethod
    def known(
        cls, count: int, dtype: np.dtype[Any], scale: Scale, sampled: NDArray[np.float64], *, real: bool
    ) -> FarSource:
        """Return it, for so many reals of a type."""
        return cls(np.broadcast_to(np.zeros((), dtype), (count,)), real, scale, sampled)

    @property
    def sample(self) -> NDArray[np.float64]:
        return self.sampled


class Looked:
    """What is seen of a run of the components of an array: of all, or of the real parts.

    Parameters
    ----------
    first, count
        Which of how many reals it begins with.
    power
        They are multiplied by ``2**power`` before they are squared.
    """

    def __init__(self, first: int, count: int, power: int) -> None:
        self._at = first
        self._stride = count >> 16 | 1
        self._power = power
        self.largest = 0.0
        self.squares: list[float] = []
        self.sampled: list[AnyArray] = []

    def add(self, reals: AnyArray) -> None:
        """Look at the next ones: whole blocks, but at the end of the array."""
        for start in range(0, len(reals), BLOCK):
            largest, square = extent(reals[start : start + BLOCK], self._power)
            self.largest = float(np.maximum(self.largest, largest))  # which is NaN if one is
            self.squares.append(square)
        self.sampled.append(reals[-self._at % self._stride :: self._stride].astype(np.float64))
        self._at += len(reals)

    def condense(self) -> Looked:
        """Return the same in less memory."""
        self.squares = exact_sum(self.squares)
        self.sampled = [np.concatenate(self.sampled)]
        return self


@dataclass(frozen=True)
class Quantiser:
    """How any block of an array is quantised, packed, and unpacked.

    Attributes
    ----------
    dtype
        Of the array.
    real
        Whether only real parts are stored.
    step, kind, low
        As the facts of the form have them; without `low` integers are packed by pcodec.
    shift
        For `Overlap`.
    """

    dtype: np.dtype[Any]
    real: bool
    step: float
    kind: str
    low: int | None
    shift: int

    @classmethod
    def chosen(cls, source: FarSource, dtype: np.dtype[Any], step: float, *, sure: bool) -> Quantiser | None:
        """Return how an array is quantised with a step, as fast as it goes; None where it cannot be.

        Parameters
        ----------
        sure
            See `Uniform.first_step`.
        """
        kind = kind_of(source, step)
        if kind is None:
            return None
        low = low_bits(source, step, kind) if sure else None
        return cls(dtype, source.real, step, kind, low, source.scale.shift)

    @property
    def facts(self) -> dict[str, Json]:
        """Plain values of the form."""
        facts: dict[str, Json] = {"step": self.step.hex(), "integers": self.kind, "real": self.real}
        return facts if self.low is None else facts | {"low": self.low}

    @property
    def name(self) -> str:
        """Of the part that has the blocks of integers, or of what is left of them."""
        return "integers" if self.low is None else "high"

    @property
    def block(self) -> int:
        """Items of a block."""
        return numbers.BLOCK // (1 if self.real else reals_in(self.dtype))

    def planes_bytes(self, items: int) -> int:
        """Return how long the low bits of so many items are."""
        whole, rest = divmod(items * numbers.BLOCK // self.block, numbers.BLOCK)
        return (self.low or 0) * (whole * numbers.BLOCK // 8 + -(-rest // 8))

    def integers(self, items: AnyArray) -> AnyArray:
        """Return what is stored for the items of a block."""
        return FORM.integers(stored_reals(items, self.real), self.step, np.dtype(f"<{self.kind}"))

    def frame(self, integers: AnyArray) -> bytes:
        """Return the integers of a block packed, without their low bits if those are split off."""
        if self.low is None:
            return numbers.pack_block(integers, numbers.LEVEL)
        return bytes(FASTEST.encode(high_part(cast("Integers", integers), self.low).data))

    def planes(self, integers: AnyArray) -> bytes:
        """Return the low bits of a block."""
        return b"" if self.low is None else low_planes(cast("Integers", integers), self.low)

    def decoded(self, frame: bytes, planes: bytes, count: int) -> AnyArray:
        """Return the integers of a block of `count` items from what is stored."""
        count *= numbers.BLOCK // self.block
        if self.low is not None:
            high = np.frombuffer(FASTEST.decode(frame, count), np.int8)
            return joined(high, np.frombuffer(planes, np.uint8), self.low, self.kind)
        integers: AnyArray = np.empty(count, f"<{self.kind}")
        numbers.unpack_block(np.frombuffer(frame, np.uint8), integers)
        return integers

    def restored(self, integers: AnyArray) -> AnyArray:
        """Return the items of a block as they are unpacked."""
        items: AnyArray = np.zeros(len(integers) * self.block // numbers.BLOCK, self.dtype)
        FORM.restore(integers, self.step, stored_reals(items, self.real))
        return items

    def overlap(self, items: AnyArray, unpacked: AnyArray) -> Overlap:
        """Return the sums over a block that say how far what is unpacked is from it, as `Uniform` has them."""
        one = Overlap(self.shift)
        one.add(stored_reals(items, self.real), stored_reals(unpacked, self.real))
        return one
