"""What can be had of a pack of which neither the list at its end nor the copy of that is whole.

Each record of a list says where a chunk is, which checksum its bytes have and what it is called, and so proves itself:
those that the damage has left are found one by one. Of a pack that has lost its whole list, the chunks follow one
another; what zstd has packed says how long it is, and what was stored as it is has the length of a file or of a whole
chunk.
"""

from __future__ import annotations

import bisect
import contextlib
import hashlib
from typing import TYPE_CHECKING

import numpy as np

from quantum_memory.compression.codecs import NONE, Zstd
from quantum_memory.durability import pack
from quantum_memory.durability.files import ReadableFile
from quantum_memory.durability.pack import ALIGNMENT, HEADER_BYTES, MAX_STORED, RECORD, RECORD_BYTES, Place
from quantum_memory.errors import IntegrityError, MissingFileError, UnsafeError
from quantum_memory.lifecycle.backups.cuts import LONGEST

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Proof = Callable[[bytes, Place, memoryview], bool]

_WINDOW = 64 << 20
_MOST_IN_VAIN = 1 << 30
"""Bytes that are hashed without finding anything before the rest of a pack is given up."""


def salvaged(at: str, copy_at: str, missing: dict[bytes, int], is_right: Proof) -> dict[bytes, Place]:
    """Return the chunks that are found in a pack, in the order in which they stand.

    Parameters
    ----------
    at, copy_at
        Where the pack is, and the copy of its list.
    missing
        Names of chunks, each the SHA-256 of what it holds, that are in no other pack, and their lengths; 0 where that
        is not known.
    is_right
        Tells whether stored bytes are those of the chunk of a name, for all that a record says of it.

    Raises
    ------
    StorageError, UnsupportedVersionError
    """
    with ReadableFile(at) as source:
        found = _by_records(source, source, is_right)
        with contextlib.suppress(MissingFileError, UnsafeError), ReadableFile(copy_at) as copy:
            with contextlib.suppress(IntegrityError, UnsafeError):
                return pack.read_index_copy(copy)  # the second time that it is read
            found = _by_records(source, copy, is_right) | found
        if lost := {name: length for name, length in missing.items() if name not in found}:
            found |= _by_walking(source, lost, found)
    return dict(sorted(found.items(), key=lambda one: one[1].offset))


def _by_records(source: ReadableFile, listed: ReadableFile, is_right: Proof) -> dict[bytes, Place]:
    """Find chunks by what looks like a record of the list of a pack, from the end on."""
    found: dict[bytes, Place] = {}
    in_vain = 0
    for name, place in _records(listed, source.size):
        stored = memoryview(source.read(place.offset, place.stored))
        if pack.checksum(stored) == place.check and is_right(name, place, stored):
            found[name] = place
        elif (in_vain := in_vain + place.stored) > MAX_STORED + source.size:
            break
    return found


def _records(listed: ReadableFile, size: int) -> Iterator[tuple[bytes, Place]]:
    stop = listed.size // RECORD_BYTES * RECORD_BYTES
    while stop > 0:
        start = max(0, stop - _WINDOW)
        rows = np.frombuffer(listed.read(start, stop - start), RECORD)
        ends = rows["offset"] + rows["stored"]
        likely = (
            (rows["offset"] % ALIGNMENT == 0)
            & (rows["offset"] >= HEADER_BYTES)
            & (rows["offset"] < size)
            & (rows["stored"] > 0)
            & (rows["stored"] <= MAX_STORED)
            & (rows["raw"] <= MAX_STORED)
            & (ends <= size)
            & (rows["zero"] == np.zeros((), "V7"))
        )
        for row in rows[likely][::-1]:
            numbers = (int(row[one]) for one in ("offset", "stored", "check", "codec", "raw"))
            yield row["name"].tobytes(), Place(*numbers)
        stop = start


def _by_walking(source: ReadableFile, missing: dict[bytes, int], known: dict[bytes, Place]) -> dict[bytes, Place]:
    """Find chunks by what they hold, one behind another."""
    found: dict[bytes, Place] = {}
    ends = {place.offset: place.offset + place.stored for place in known.values()}
    starts = sorted(ends)
    lengths = sorted({length for length in missing.values() if length})
    position, in_vain = HEADER_BYTES, 0
    window, begun = memoryview(b""), 0
    while position < source.size and in_vain < _MOST_IN_VAIN:
        end = ends.get(position, 0)
        if not end:
            if position + LONGEST > begun + len(window) < source.size:
                begun = position
                window = memoryview(source.read(begun, min(4 * LONGEST, source.size - begun)))
            following = bisect.bisect(starts, position)
            free = (starts[following] if following < len(starts) else source.size) - position
            block = window[position - begun : position - begun + min(LONGEST, free)]
            name, place, tried = _packed(block, position) or _as_it_is(block, position, lengths, missing)
            in_vain += 0 if place else tried + ALIGNMENT
            if place is not None:
                end = place.offset + place.stored
                if name in missing:
                    found[name] = place
        position = pack.aligned(max(end, position + 1))
    return found


def _packed(block: memoryview, position: int) -> tuple[bytes, Place | None, int] | None:
    """Return a chunk that zstd has packed, if there is one at the beginning of a block."""
    if (frame := Zstd().frame(block, LONGEST)) is None:
        return None
    raw, length = frame
    place = Place(position, length, pack.checksum(block[:length]), Zstd.id, len(raw))
    return hashlib.sha256(raw).digest(), place, 0


def _as_it_is(
    block: memoryview, position: int, lengths: list[int], missing: dict[bytes, int]
) -> tuple[bytes, Place | None, int]:
    """Return a chunk that is missing, if there is one of these lengths at the beginning of a block."""
    hashed, done = hashlib.sha256(), 0
    for length in lengths:
        if length > len(block):
            break
        hashed.update(block[done:length])
        done = length
        if (name := hashed.digest()) in missing:
            return name, Place(position, length, pack.checksum(block[:length]), NONE.id, length), 0
    return b"", None, done
