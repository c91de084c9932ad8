"""Quantise a state vector of which a run is read at a time, by an executor or here; see `uniform_blocks`.

It takes three passes over the amplitudes. The first sees how large they are, from which follows the step. The second
packs every block, unpacks it, and adds up how far that is from the original, which is the certificate; of what was
packed it keeps how long it is, and a checksum. The third packs once more what is written, by whoever writes it, and
compares it with that. Here, where nobody else writes, the second keeps what it has packed in temporary files.
"""

from __future__ import annotations

import math
from array import array
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, nullcontext
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
from xxhash import xxh3_64, xxh3_64_intdigest

from quantum_memory.compression.certificate import Certificate, Overlap, scale_from
from quantum_memory.compression.forms.base import Packed, Stream, row_parts
from quantum_memory.compression.forms.plain import real_type, reals_in, reals_of
from quantum_memory.compression.forms.uniform_blocks import FORM, FarSource, Looked, Quantiser
from quantum_memory.compression.lossy import ENOUGH, find_step
from quantum_memory.errors import InvalidStateError
from quantum_memory.formats.form_nodes import ChecksumsInOrder
from quantum_memory.formats.packed_rows import PackedRow, runs, unit_of
from quantum_memory.formats.record import squared_norm
from quantum_memory.state.arrays import CHUNK_BYTES, bytes_of, worker_count
from quantum_memory.state.products import CARRIED, part_of, ranges, shared_out, workers_of
from quantum_memory.state.windows import carries, released

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from quantum_memory.state.arrays import AnyArray, Windows

_THREADS = 4
"""Of this process, where there is no executor: each has a run of amplitudes in memory."""


@dataclass(frozen=True)
class Quantised:
    """A state vector in the form ``uniform``.

    Attributes
    ----------
    packed
        Its parts may be `Windows`, which an executor writes.
    certificate
        How faithful it is.
    checksum, digest
        Of what is unpacked; see `form_nodes.Checksums`.
    squares
        The squared norms of its chunks.
    """

    packed: Packed
    certificate: Certificate
    checksum: bytes
    digest: bytes
    squares: list[float]


def quantised(source: Windows, infidelity: float, executor: Any = None) -> Quantised | None:
    """Return a state vector within an infidelity, as `Uniform` packs it in a hurry; None where that does not pay.

    Parameters
    ----------
    executor
        Who does the work: its tasks read what they work on. None: a few threads of this process do.

    Raises
    ------
    InvalidStateError
        It is zero or not finite; or it was changed meanwhile.
    """
    return _Quantising(source, executor).within(infidelity)


@dataclass
class _Seen:
    """What the first pass sees of a run."""

    parts: dict[bool, Looked]  # of all components, and of the real parts of what has no others
    stamp: int | None


class _Measured:
    """What the second pass sees of a run, or of several.

    Attributes
    ----------
    lengths, frames, planes
        Of each block: how long it is packed, and the checksums of what is stored of it.
    squares
        The squared norms of the chunks that are unpacked.
    overlap, unpacked, original
        Sums and checksums.
    kept
        What is stored of each block.
    """

    def __init__(self, shift: int) -> None:
        self.lengths = array("I")
        self.frames = array("Q")
        self.planes = array("Q")
        self.squares = array("d")
        self.overlap = Overlap(shift)
        self.unpacked = ChecksumsInOrder()
        self.original = ChecksumsInOrder()
        self.stamp: int | None = None
        self.kept: list[tuple[bytes, bytes]] = []

    def extend(self, other: _Measured) -> None:
        """Take what was seen of the next run, without what is stored of it."""
        self.lengths += other.lengths
        self.frames += other.frames
        self.planes += other.planes
        self.squares += other.squares
        self.overlap.merge(other.overlap)
        self.unpacked.extend(other.unpacked)
        self.original.extend(other.original)


class _Quantising:
    """A state vector that is being quantised."""

    def __init__(self, source: Windows, executor: Any) -> None:
        self._source = source
        self._executor = executor
        self._dtype = source.dtype.newbyteorder("<")
        self._size = source.shape[0]
        self._unit = unit_of(source)
        self._workers = None if carries(source) else workers_of(executor)  # once: each pass has the same runs
        self._known: bytes | None = getattr(source, "digest", None)  # what is read is compared with it
        self._stamps: list[int | None] = []

    def within(self, infidelity: float) -> Quantised | None:
        far = self._looked()
        guess = FORM.first_step(far, infidelity)
        if guess is None:
            return None
        step, sure = guess
        done = self._attempt(far, step, infidelity, sure=sure) if sure else None
        if done is None or not ENOUGH * infidelity <= done.certificate.infidelity <= infidelity:
            found = find_step(step, lambda step: self._distance(far, step), infidelity)
            done = found and self._attempt(far, found[0], infidelity, sure=sure)
        if done is None or done.certificate.infidelity > infidelity:
            return None
        return None if done.packed.nbytes >= self._size * self._dtype.itemsize else done

    def _passed(self, task: Callable[..., Any], *more: Any) -> Generator[Any]:
        """Yield what a task returns for each run."""
        mine = None if self._executor is not None else ThreadPoolExecutor(min(_THREADS, worker_count()))
        each = ranges(self._size, self._unit, self._workers)
        if mine is not None:
            each = ((low, min(low + self._unit, self._size)) for low in range(0, self._size, self._unit))
        tasks = ((_Run(part_of(self._source, *one), self._unit, *one), *more) for one in each)
        most = 2 * _THREADS if mine is not None else CARRIED if carries(self._source) else None
        with nullcontext() if mine is None else mine:
            yield from shared_out(task, tasks, self._executor or mine, most=most)

    def _looked(self) -> FarSource:
        """Make the first pass, and return what is known of the components."""
        found: list[_Seen] = list(self._passed(_look, 0))
        self._stamps = [one.stamp for one in found]
        real = all(True in one.parts for one in found)
        parts = [one.parts[real] for one in found]
        count = self._size * (1 if real else reals_in(self._dtype))

        def extents(power: int) -> tuple[float, float]:
            again = self._passed(_look, power)
            some = parts if not power else [one.parts[real] for one in again]
            return float(np.max([one.largest for one in some])), _sum(chain(*(one.squares for one in some)))

        sampled = np.concatenate(list(chain(*(one.sampled for one in parts))))
        return FarSource.known(count, real_type(self._dtype), scale_from(extents, count), sampled, real=real)

    def _distance(self, far: FarSource, step: float) -> float:
        """Return what is certified for a step, without packing anything."""
        quantiser = Quantiser.chosen(far, self._dtype, step, sure=False)
        if quantiser is None:
            return 1.0
        total = Overlap(quantiser.shift)
        for one in self._passed(_compare, quantiser):
            total.merge(one)
        return total.infidelity()

    def _attempt(self, far: FarSource, step: float, requested: float, *, sure: bool) -> Quantised | None:
        """Make the second pass, and return what it makes of the state."""
        quantiser = Quantiser.chosen(far, self._dtype, step, sure=sure)
        if quantiser is None:
            return None
        keep = self._executor is None
        whole, high, low = _Measured(quantiser.shift), Stream(), Stream()
        with closing(self._passed(_measure, quantiser, keep)) as results:
            for index, one in enumerate(results):
                if one.stamp != self._stamps[index]:
                    raise InvalidStateError(
                        "the state was changed while it was being packed",
                        next_step="save a copy, or when nobody writes to it",
                    )
                whole.extend(one)
                for frame, planes in one.kept:
                    high.append(frame)
                    low.append(planes)
        if keep:
            parts: dict[str, Any] = dict(row_parts(quantiser.name, high, whole.lengths))
            parts |= {} if quantiser.low is None else {"low": low.array()}
        else:
            parts = self._parts(quantiser, whole)
        original = self._known or whole.original.digest
        certificate = Certificate(whole.overlap.infidelity(), requested, original.hex())
        packed, unpacked = Packed(FORM.name, quantiser.facts, parts), whole.unpacked
        return Quantised(packed, certificate, unpacked.checksum, unpacked.digest, whole.squares.tolist())

    def _parts(self, quantiser: Quantiser, found: _Measured) -> dict[str, Any]:
        """Return the parts as rows that are packed once more by whoever writes them."""
        lengths, frames, planes = (np.array(one) for one in (found.lengths, found.frames, found.planes))
        row = PackedRow.of(self._source, quantiser, lengths, frames, planes=False)
        parts: dict[str, Any] = {quantiser.name: row}
        if len(lengths) > 1:
            parts[f"{quantiser.name}.lengths"] = lengths.astype(np.uint32)
        if quantiser.low:
            long = np.full(len(lengths), quantiser.planes_bytes(quantiser.block))
            long[-1] = quantiser.planes_bytes(self._size - quantiser.block * (len(lengths) - 1))
            parts["low"] = PackedRow.of(self._source, quantiser, long, planes, planes=True)
        elif quantiser.low == 0:
            parts["low"] = np.empty(0, np.uint8)
        return parts


def _sum(values: Iterator[float]) -> float:
    try:
        return math.fsum(values)
    except (OverflowError, ValueError):  # which no norm is
        return math.nan


class _Run:
    """A run of amplitudes that a task works on.

    Attributes
    ----------
    known
        Whether all that is read is compared with a digest of the state.
    stamp
        A checksum of what was read; None where that is known.
    """

    def __init__(self, source: Windows, unit: int, start: int, stop: int) -> None:
        self._source = source
        self._unit = unit
        self._stop = stop
        self.start = start
        self.whole: int = source.shape[0]
        self.dtype = source.dtype.newbyteorder("<")
        self.known = getattr(source, "digest", None) is not None
        self.stamp: int | None = None

    def pieces(self) -> Iterator[AnyArray]:
        """Yield the amplitudes, a unit at a time."""
        stamp = xxh3_64()
        with released(self._source):
            for items in runs(self._source, self._unit, self.start, self._stop):
                if not self.known:
                    stamp.update(bytes_of(items))
                yield items
        self.stamp = None if self.known else stamp.intdigest()

    def blocks(self, length: int) -> Iterator[AnyArray]:
        """Yield them, so many at a time."""
        for items in self.pieces():
            yield from (items[low : low + length] for low in range(0, len(items), length))


def _look(run: _Run, power: int) -> _Seen:
    """Make the first pass over a run."""
    each = reals_in(run.dtype)
    parts = {False: Looked(run.start * each, run.whole * each, power)}
    if run.dtype.kind == "c":
        parts[True] = Looked(run.start, run.whole, power)
    for items in run.pieces():
        parts[False].add(reals_of(items))
        if True in parts and items.imag.any():
            del parts[True]
        elif True in parts:
            parts[True].add(items.real)
    return _Seen({real: one.condense() for real, one in parts.items()}, run.stamp)


def _compare(run: _Run, quantiser: Quantiser) -> Overlap:
    """Return how far a run is from what would be unpacked of it."""
    total = Overlap(quantiser.shift)
    for block in run.blocks(quantiser.block):
        total.merge(quantiser.overlap(block, quantiser.restored(quantiser.integers(block))))
    total.condense()
    return total


def _measure(run: _Run, quantiser: Quantiser, keep: bool) -> _Measured:
    """Make the second pass over a run: what is compared with it was unpacked from what is stored."""
    found = _Measured(quantiser.shift)
    for block in run.blocks(quantiser.block):
        integers = quantiser.integers(block)
        frame, planes = quantiser.frame(integers), quantiser.planes(integers)
        unpacked = quantiser.restored(quantiser.decoded(frame, planes, len(block)))
        found.overlap.merge(quantiser.overlap(block, unpacked))
        found.lengths.append(len(frame))
        found.frames.append(xxh3_64_intdigest(frame))
        found.planes.append(xxh3_64_intdigest(planes))
        if keep:
            found.kept.append((frame, planes))
        for chunk in _chunks(unpacked):
            found.unpacked.add(chunk)
            found.squares.append(squared_norm(chunk))
        for chunk in () if run.known else _chunks(block):
            found.original.add(chunk)
    found.overlap.condense()
    found.stamp = run.stamp
    return found


def _chunks(items: AnyArray) -> Iterator[AnyArray]:
    step = CHUNK_BYTES // items.itemsize
    return (items[start : start + step] for start in range(0, len(items), step))
