"""Form ``uniform``: every real component as an integer multiple of one step.

For a given infidelity one step for all components is the best there is with a scalar quantiser (it is reverse
water-filling; Cover and Thomas, *Elements of Information Theory*, section 10.3), and costs 0.25 bits per real more than
the rate-distortion bound of a Gaussian. What is unpacked is ``integer * step``, one multiplication in float64, rounded
once more where the array is of float32: the same bits everywhere. Of complex numbers without imaginary parts the real
ones are stored.

The integers are packed by pcodec, or in a hurry split: their low bits, which are as good as random, as they are, and a
Huffman code of what is left. That is ten times as fast, and up to 0.04 bits per real larger.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import numpy as np

from quantum_memory.compression import numbers
from quantum_memory.compression.certificate import Overlap, scale_of
from quantum_memory.compression.codecs import Zstd
from quantum_memory.compression.cores import on_all_cores
from quantum_memory.compression.forms.base import Packed, RowBlocks, Stream, malformed, part_of, row_parts
from quantum_memory.compression.forms.plain import real_type, reals_in
from quantum_memory.compression.forms.views import View
from quantum_memory.compression.lossy import ENOUGH, MARGIN, Certified, find_step, short
from quantum_memory.errors import InvalidStateError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from numpy.typing import NDArray

    from quantum_memory.compression.certificate import Scale
    from quantum_memory.compression.codecs import Buffer
    from quantum_memory.compression.forms.base import Effort, Json, Part
    from quantum_memory.state.arrays import AnyArray

    Kept = TypeVar("Kept")

_KINDS = {"i2": 2.0**15 - 8, "i4": 2.0**31 - 2.0**8, "i8": 2.0**52}
"""Types of integers, and up to how many steps they hold; beyond that float64 has no integers."""

_LEVEL = 10
"""How hard pcodec tries where there is time: 0.02 bits per real less, in up to half as much time again."""

_FACTS = {"step", "integers", "real", "low"}

_LOW_BITS = {"i2": 8, "i4": 24}
"""Up to so many low bits are split off for fast packing; what is left must be an i8."""

FASTEST = Zstd(1)
"""Of bytes in which nothing repeats it makes a Huffman code, at 1 ns a byte."""


@dataclass(frozen=True)
class Source:
    """What is quantised: a row of reals.

    Attributes
    ----------
    reals
        All components of an array, or of one without imaginary parts the real ones.
    real
        Whether they are real parts only.
    scale
        How large they are.
    """

    reals: AnyArray
    real: bool
    scale: Scale

    @property
    def sample(self) -> NDArray[np.float64]:
        """About 2**16 of the reals, spread evenly, in float64."""
        return self.reals[:: len(self.reals) >> 16 | 1].astype(np.float64)


class Uniform:
    """Multiples of one step, each the nearest to its component.

    Attributes
    ----------
    gain
        The step, relative to the one that rounding to the nearest multiple would have for the same error.
    block
        Reals that are quantised at a time.
    """

    name: ClassVar[str] = "uniform"
    exact: ClassVar[bool] = True
    gain: ClassVar[float] = 1.0
    block: ClassVar[int] = numbers.BLOCK

    def integers(self, reals: AnyArray, step: float, kind: np.dtype[Any]) -> AnyArray:
        """Return what is stored for a block of float32 or float64, as integers of type `kind`."""
        exact = kind.itemsize > 2  # that many digits float32 does not have
        steps = np.multiply(reals, 1 / step, dtype=np.float64 if exact else reals.dtype)
        return np.rint(steps, out=steps).astype(kind)

    def points(self, integers: AnyArray) -> AnyArray:
        """Return how many steps stored integers stand for."""
        return integers

    def pack(self, array: AnyArray, infidelity: float, effort: Effort) -> Certified | None:
        """Return the array within an infidelity; see `LossyForm`."""
        if not 0 < infidelity < 1:
            raise InvalidStateError(
                f"an infidelity of {infidelity} cannot be asked for", next_step="choose one between 0 and 1"
            )
        real = _is_real(array)
        reals = stored_reals(array, real)
        source = Source(reals, real, scale_of(reals))
        guess = self.first_step(source, infidelity)
        if guess is None:
            return None
        step, sure = guess
        done = self._attempt(source, step, effort, sure) if sure else None
        if done is None or not ENOUGH * infidelity <= done.infidelity <= infidelity:
            found = find_step(step, lambda step: self.infidelity(source, step), infidelity)
            done = found and self._attempt(source, found[0], effort, sure)
        if done is None or done.infidelity > infidelity or done.packed.nbytes >= array.nbytes:
            return None
        return done

    def view(
        self, facts: Mapping[str, Json], parts: Mapping[str, Part], dtype: np.dtype[Any], shape: tuple[int, ...]
    ) -> View:
        kind, real, low = facts.get("integers"), facts.get("real"), facts.get("low")
        if not isinstance(kind, str) or kind not in _KINDS or not isinstance(real, bool) or not facts.keys() <= _FACTS:
            raise malformed("there are other facts about quantised numbers")
        if real and dtype.kind != "c":
            raise malformed("numbers that are real anyway are said to be")
        each = 1 if real else reals_in(dtype)
        count = each * math.prod(shape)
        step = _step_from_json(facts.get("step"), real_type(dtype))
        integers: View
        if low is None:
            integers = numbers.Numbers(parts, "integers", f"<{kind}", count)
        elif isinstance(low, bool) or not isinstance(low, int) or not 0 <= low <= _LOW_BITS.get(kind, -1):
            raise malformed("numbers are not split into as many bits as that")
        else:
            integers = _Halves(parts, low, kind, count)
        return _Multiples(integers, dtype, each, lambda row, out: self.restore(row, step, out), real=real)

    def first_step(self, source: Source, allowed: float) -> tuple[float, bool] | None:
        """Return the step to start with, and whether to expect that it will do; None where the form does not pay.

        It will where components are much larger than the step, so that errors are spread evenly, which a sample tells.
        """
        aim = allowed * (1 - min(MARGIN, 4 / math.sqrt(len(source.reals))))
        step = short(source.scale.rms * math.sqrt(12 * aim / (1 - aim)))
        if not _is_step(step, source.reals.dtype):
            return None
        sample = source.sample / step
        sample -= np.rint(sample)
        return step, abs(12 * float(np.vecdot(sample, sample)) / len(sample) - 1) < 0.02

    def infidelity(self, source: Source, step: float) -> float:
        """Return what is certified for a step, without keeping anything."""
        kind = kind_of(source, step)
        if kind is None:
            return 1.0
        total = Overlap(source.scale.shift)
        for _, overlap in self._quantised(source, step, kind, lambda _: None):
            total.merge(overlap)
        return total.infidelity()

    def _attempt(self, source: Source, step: float, effort: Effort, sure: bool) -> Certified | None:
        """Quantise, certify and pack in one pass."""
        kind = kind_of(source, step)
        if kind is None:
            return None
        facts: dict[str, Json] = {"step": step.hex(), "integers": kind, "real": source.real}
        level = numbers.LEVEL if effort == "fast" else _LEVEL
        total = Overlap(source.scale.shift)
        low = low_bits(source, step / self.gain, kind) if sure and effort == "fast" else None
        if low is not None:
            facts["low"] = low
            parts = self._pack_halves(source, step, kind, low, total)
        else:
            with numbers.NumberWriter(f"<{kind}", level) as writer:
                for integers, overlap in self._quantised(source, step, kind, lambda integers: integers):
                    writer.append(integers)
                    total.merge(overlap)
                parts = writer.parts("integers")
        return Certified(Packed(self.name, facts, parts), total.infidelity())

    def _pack_halves(self, source: Source, step: float, kind: str, low: int, total: Overlap) -> dict[str, AnyArray]:
        """Pack integers as the low bits, which are nearly random, and a Huffman code of what is left: fast.

        Block by block there is a zstd frame in one stream, and in the other a plane for each bit, from the lowest.
        """

        def halves(integers: NDArray[Any]) -> list[tuple[Buffer, bytes]]:
            blocks = [integers[start : start + numbers.BLOCK] for start in range(0, len(integers), numbers.BLOCK)]
            return [(FASTEST.encode(high_part(block, low).data), low_planes(block, low)) for block in blocks]

        high, planes, lengths = Stream(), Stream(), list[int]()
        for blocks, overlap in self._quantised(source, step, kind, halves):
            total.merge(overlap)
            for frame, bits in blocks:
                high.append(memoryview(frame))
                lengths.append(len(frame))
                planes.append(bits)
        return row_parts("high", high, lengths) | {"low": planes.array()}

    def _quantised(
        self, source: Source, step: float, kind: str, keep: Callable[[AnyArray], Kept]
    ) -> Iterator[tuple[Kept, Overlap]]:
        """Yield what is kept of the integers of each block, and the sums that say how far they are from it.

        The vectors are taken as real ones, of twice the length, which overstates the infidelity if anything: the
        imaginary part of their inner product, which rounding hardly gives any, is left out.
        """

        def one(start: int) -> tuple[Kept, Overlap]:
            block = source.reals[start : start + self.block]
            integers = self.integers(block, step, np.dtype(kind))
            overlap = Overlap(source.scale.shift)
            restored = np.empty(min(len(block), numbers.BLOCK), block.dtype)
            for low in range(0, len(block), numbers.BLOCK):
                piece = block[low : low + numbers.BLOCK]
                self.restore(integers[low : low + numbers.BLOCK], step, restored[: len(piece)])
                overlap.add(piece, restored[: len(piece)])
            return keep(integers), overlap

        yield from on_all_cores(one, range(0, len(source.reals), self.block))

    def restore(self, integers: AnyArray, step: float, out: AnyArray) -> None:
        """Multiply. For float32 that is done in float64 and rounded; small integers have the same product at once."""
        narrow = out.dtype.itemsize == 4 and integers.itemsize == 2
        with np.errstate(over="ignore"):  # an infinity fails the certificate
            reals = self.points(integers).astype(np.float32 if narrow else np.float64)
            np.multiply(reals, step, out=out, casting="same_kind", dtype=reals.dtype)


class _Multiples(View):
    """Items made of blocks of integers.

    Parameters
    ----------
    each
        Integers of an item.
    restore
        Fills a row of reals from integers.
    real
        Whether there are none for the imaginary parts.
    """

    def __init__(
        self,
        integers: View,
        dtype: np.dtype[Any],
        each: int,
        restore: Callable[[AnyArray, AnyArray], object],
        *,
        real: bool,
    ) -> None:
        size = integers.size // each
        super().__init__(dtype, size, range(0, size, numbers.BLOCK // each))
        self._integers = integers
        self._restore = restore
        self._real = real

    def window(self, index: int, out: AnyArray) -> None:
        if self._real:
            out.imag[...] = 0
        reals = stored_reals(out, self._real)
        row: AnyArray = np.empty(len(reals), self._integers.dtype)
        self._integers.window(index, row)
        self._restore(row, reals)


class _Halves(View):
    """Integers of which the low bits were split off: see `Uniform._pack_halves`."""

    def __init__(self, parts: Mapping[str, Part], low: int, kind: str, count: int) -> None:
        super().__init__(np.dtype(f"<{kind}"), count, range(0, count, numbers.BLOCK))
        self._frames = RowBlocks(parts, "high", len(self.starts), 2 * numbers.BLOCK)
        self._stride = numbers.BLOCK // 8 * low  # bytes of a whole block
        last = -(-(count % numbers.BLOCK) // 8) * low
        self._planes = part_of(parts, "low", np.uint8, count // numbers.BLOCK * self._stride + last)
        self._low = low
        self._kind = kind

    def window(self, index: int, out: AnyArray) -> None:
        high = np.frombuffer(FASTEST.decode(self._frames[index].data, len(out)), np.int8)
        bits = self._planes[index * self._stride : (index + 1) * self._stride].view(np.uint8)
        out[...] = joined(high, bits, self._low, self._kind)


def kind_of(source: Source, step: float) -> str | None:
    """Return the type for integers of this step; None where the step itself, or they, are out of range."""
    if not _is_step(step, source.reals.dtype):
        return None
    return next((kind for kind, most in _KINDS.items() if source.scale.largest / step < most), None)


def low_bits(source: Source, step: float, kind: str) -> int | None:
    """Return how many low bits to split off, so that a Huffman code of the rest is good: of 4 to 16 for the rms.

    None is returned where it would not be good, or the rest may not be an i8.
    """
    steps = source.scale.rms / step
    low = min(max(math.frexp(steps)[1] - 3, 0), _LOW_BITS.get(kind, 0))
    return low if steps > 2 and source.scale.largest / step < 120 * 2.0**low else None


def high_part(integers: NDArray[np.signedinteger], low: int) -> NDArray[np.int8]:
    """Return what is left without the low bits."""
    high: NDArray[np.int8] = (integers >> low).astype(np.int8)
    return high


def low_planes(integers: NDArray[np.signedinteger], low: int) -> bytes:
    """Return the low bits, a plane for each."""
    planes = []
    for first in range(0, low, 8):
        byte = (integers >> first if first else integers).astype(np.uint8)
        planes += [np.packbits(byte & (1 << plane)).tobytes() for plane in range(min(8, low - first))]
    return b"".join(planes)


def joined(high: NDArray[np.int8], planes: NDArray[np.uint8], low: int, kind: str) -> NDArray[np.signedinteger]:
    """Return the integers of which `_high` and `_low` made these.

    Bits are moved by sums and products: shifts to the left are three times as slow.
    """
    integers = high.astype(kind)
    rows = planes.reshape(low, -1) if low else planes
    for last in range(low, 0, -8):
        first = max(0, last - 8)
        byte = np.unpackbits(rows[last - 1], count=len(high))
        for row in rows[first : last - 1][::-1]:
            byte += byte
            byte |= np.unpackbits(row, count=len(high))
        integers *= 1 << (last - first)
        integers |= byte.astype(kind)
    return integers


def _is_step(step: float, dtype: np.dtype[Any]) -> bool:
    """Tell whether multiples of a step are safe: subnormal ones would be flushed to zero on some machines."""
    most = 126 if dtype.itemsize == 4 else 1022
    return 2.0**-most <= step <= 2.0**most and step == short(step)


def _step_from_json(value: Json, dtype: np.dtype[Any]) -> float:
    try:
        step = float.fromhex(value) if isinstance(value, str) and len(value) < 40 else math.nan
    except (ValueError, OverflowError):
        step = math.nan
    if not _is_step(step, dtype):
        raise malformed("a quantisation step is not a positive number of 24 binary digits")
    return step


def _is_real(array: AnyArray) -> bool:
    """Tell whether complex numbers have no imaginary parts."""
    row = array.reshape(-1)
    starts = range(0, len(row), numbers.BLOCK)
    return row.dtype.kind == "c" and not any(row[start : start + numbers.BLOCK].imag.any() for start in starts)


def stored_reals(array: AnyArray, real: bool) -> AnyArray:
    """View what is stored of an array as one row of reals: all components, or for `real` the real ones."""
    row = array.reshape(-1)
    return row.real if real else row.view(row.real.dtype)
