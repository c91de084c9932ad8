"""A sealed file gives back what was written, at any place, and whatever was done to it is seen."""

import contextlib
import hashlib
import io
import itertools
import json
import random
import struct
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import quantum_memory as qm
from quantum_memory.durability import files
from quantum_memory.durability.files import ReadableBytes, ReadableFile
from quantum_memory.encryption import envelope, sealed_file
from quantum_memory.encryption.envelope import SEGMENT_BYTES, SIGNATURE, STORED_BYTES, Lock
from quantum_memory.encryption.keys import new_slot
from quantum_memory.encryption.primitives import CIPHERS
from quantum_memory.encryption.sealed_file import SealedReadable, SealingSink, lock_of
from quantum_memory.errors import (
    IntegrityError,
    QuantumMemoryError,
    UnsafeError,
    UnsupportedVersionError,
    WrongKeyError,
)
from quantum_memory.formats.registry import SEALED
from quantum_memory.testing.damage import extensions, flips, truncations
from quantum_memory.testing.faults import RecordingFiles

from .conftest import sealed

BORDERS = [0, 1, SEGMENT_BYTES, 2 * SEGMENT_BYTES, 16 * SEGMENT_BYTES, 17 * SEGMENT_BYTES]
LENGTHS = st.builds(lambda border, step: max(0, border + step), st.sampled_from(BORDERS), st.integers(-17, 17))
NOISE = random.Random(0).randbytes(18 * SEGMENT_BYTES)
KEY = qm.Key(bytes(range(32)), "hkdf-sha256")
LOCKS = [Lock.new([KEY], cipher) for cipher in CIPHERS]
LARGER = sealed(NOISE[: 4 * SEGMENT_BYTES], LOCKS[0])
HEADER = len(LARGER) - 4 * STORED_BYTES


def opened(data):
    return SealedReadable(ReadableBytes(data), KEY)


def everything(data):
    inside = opened(data)
    return inside.read(0, inside.size)


@settings(max_examples=60)
@given(length=LENGTHS, pieces=st.integers(1, 5), lock=st.sampled_from(LOCKS), data=st.data())
def test_what_was_written_in_any_pieces_is_read_at_any_place(length, pieces, lock, data):
    cuts = sorted([0, length, *(data.draw(st.integers(0, length)) for _ in range(pieces - 1))])
    sink = io.BytesIO()
    with SealingSink(sink, lock) as inside:
        for start, stop in itertools.pairwise(cuts):
            assert inside.write(memoryview(NOISE)[start:stop]) == stop - start
    written = sink.getvalue()
    assert len(written) == HEADER + length + 16 * max(1, -(-length // SEGMENT_BYTES))
    with_key = opened(written)
    assert (with_key.size, with_key.stored_size, with_key.name) == (length, len(written), "<bytes>")
    assert with_key.read(0, length) == NOISE[:length]
    start = data.draw(st.integers(0, length))
    stop = data.draw(st.integers(start, length))
    assert with_key.read(start, stop - start) == NOISE[start:stop]
    mapped = with_key.map(start, stop - start)
    assert mapped == NOISE[start:stop]
    if mapped:
        mapped[0] ^= 1
        assert with_key.read(start, 1) == NOISE[start : start + 1]
    with pytest.raises(IntegrityError):
        with_key.read_into(memoryview(bytearray(stop - start + 1)), length - (stop - start))


def test_two_files_of_one_lock_have_nothing_in_common(tmp_path):
    first, second = (sealed(bytes(100), LOCKS[0]) for _ in range(2))
    same = sum(a == b for a, b in zip(first[-116:], second[-116:], strict=True))
    assert same < 10
    assert everything(first) == everything(second) == bytes(100)


@pytest.mark.parametrize("data", [b"", b"something private"])
def test_every_bit_and_every_length_counts(data):
    written = sealed(data, LOCKS[0])
    assert everything(written) == data
    assert SIGNATURE.startswith(SEALED)
    for changed in itertools.chain(flips(written), truncations(written), extensions(written)):
        with pytest.raises(IntegrityError) as caught:
            everything(changed)
        assert caught.value.path == "<bytes>"


def test_a_larger_file_that_is_cut_anywhere_is_not_opened():
    for length in range(HEADER, len(LARGER), 4093):
        with pytest.raises(IntegrityError):
            opened(LARGER[:length])
    for count in range(4):  # at the borders of segments, where nothing else would tell
        for odd in (-17, -16, -1, 0, 1, 15, 16, 17):
            with pytest.raises(IntegrityError):
                opened(LARGER[: HEADER + count * STORED_BYTES + odd])


def segments_of(data):
    return [data[at : at + STORED_BYTES] for at in range(HEADER, len(data), STORED_BYTES)]


def test_segments_that_were_moved_doubled_left_out_or_taken_from_another_file_are_seen():
    mine, foreign = segments_of(LARGER), segments_of(sealed(NOISE[: 4 * SEGMENT_BYTES], LOCKS[0]))
    orders = [order for count in range(6) for order in itertools.product(range(4), repeat=count)]
    orders = [order for order in orders if order != (0, 1, 2, 3)]
    for order in random.Random(1).sample(orders, 120):
        with pytest.raises(IntegrityError):
            everything(LARGER[:HEADER] + b"".join(mine[number] for number in order))
    for number in range(4):
        mixed = [foreign[at] if at == number else mine[at] for at in range(4)]
        with pytest.raises(IntegrityError):
            everything(LARGER[:HEADER] + b"".join(mixed))


def test_damage_is_said_where_it_is_and_the_rest_can_be_read():
    damaged = bytearray(LARGER)
    damaged[HEADER + STORED_BYTES + 100] ^= 1
    inside = opened(damaged)
    assert inside.read(0, SEGMENT_BYTES) == NOISE[:SEGMENT_BYTES]
    assert inside.read(2 * SEGMENT_BYTES, SEGMENT_BYTES) == NOISE[2 * SEGMENT_BYTES : 3 * SEGMENT_BYTES]
    first = HEADER + STORED_BYTES
    for start, length in ((SEGMENT_BYTES, 1), (SEGMENT_BYTES - 1, 2), (0, 4 * SEGMENT_BYTES)):
        with pytest.raises(IntegrityError, match=f"bytes {first} to {first + STORED_BYTES - 1} "):
            inside.read(start, length)


def forged(data, facts=None, slots=None):
    """Return a file with another header, as well formed as somebody without the key can make it."""
    (length,) = struct.unpack_from("<I", data, 20)
    text = data[40 : 40 + length] if slots is None else slots
    front = bytearray(data[:40])
    for offset, number in (facts or {}).items():
        struct.pack_into("<H", front, offset, number)
    struct.pack_into("<I", front, 20, len(text))
    front += text
    return bytes(front) + hashlib.sha256(front).digest() + data[40 + length + 32 :]


SMALL = sealed(b"something private", LOCKS[0])
SLOTS = json.loads(SMALL[40 : 40 + struct.unpack_from("<I", SMALL, 20)[0]])


@pytest.mark.parametrize(
    ("facts", "error"),
    [
        ({}, None),
        ({8: 2}, IntegrityError),  # a later version that this release may read would have been written so
        ({8: 9, 10: 9}, UnsupportedVersionError),
        ({12: 0}, UnsupportedVersionError),
        ({12: 2}, IntegrityError),
        ({12: 3}, UnsupportedVersionError),
        ({14: 1}, IntegrityError),
        ({16: 1}, IntegrityError),
        ({24: 7}, IntegrityError),
    ],
)
def test_a_header_that_somebody_else_has_written_is_refused(facts, error):
    data = forged(SMALL, facts)
    if error is None:
        assert everything(data) == b"something private"
        return
    with pytest.raises(error) as caught:
        everything(data)
    assert caught.value.path == "<bytes>"


@pytest.mark.parametrize(
    ("slots", "error"),
    [
        (b"", IntegrityError),
        (b"{}", IntegrityError),
        (b"[" * 60000, IntegrityError),
        (b"\xff", IntegrityError),
        (b"[" + b"1" * 5000 + b"]", IntegrityError),
        (b"[NaN]", IntegrityError),
        (b"[]", UnsafeError),
        (json.dumps([{}] * 17).encode(), UnsafeError),
        (json.dumps(SLOTS, indent=1).encode(), IntegrityError),  # they say the same, and were not written so
        (json.dumps(SLOTS * 2).encode(), IntegrityError),
        (json.dumps([SLOTS[0] | {"kdf": "scrypt", "n": 1 << 40, "r": 8, "p": 1}]).encode(), UnsafeError),
        (json.dumps([SLOTS[0] | {"label": "x"}]).encode(), WrongKeyError),
        (b" " * 70000, IntegrityError),
    ],
)
def test_slots_that_somebody_else_has_written_are_refused(slots, error):
    with pytest.raises(error):
        everything(forged(SMALL, slots=slots))


def test_one_header_cannot_give_two_people_two_master_keys():
    theirs = qm.Key(b"t" * 32, "hkdf-sha256")
    other = new_slot(b"m" * 32, theirs, envelope._CONTEXT)
    both = Lock(LOCKS[0].master, (*LOCKS[0].slots, other), LOCKS[0].cipher)
    written = sealed(b"something private", both)
    assert everything(written) == b"something private"
    with pytest.raises(IntegrityError, match="not what was written with this key"):
        SealedReadable(ReadableBytes(written), theirs)


def test_the_wrong_key_and_no_key_are_told_apart_and_nothing_else_is(other_key):
    said = {}
    for name, key in (("none", None), ("file", other_key), ("passphrase", qm.Key.from_passphrase("x"))):
        with pytest.raises(WrongKeyError) as caught:
            SealedReadable(ReadableBytes(SMALL), key)
        said[name] = str(caught.value)
    assert (
        said["file"]
        == said["passphrase"]
        == ("<bytes>: it cannot be opened with this key. Next: give the key it was encrypted with")
    )
    assert said["none"].startswith("<bytes>: it is encrypted, and no key was given")


def test_any_of_several_keys_opens(key, other_key):
    written = sealed(b"ours", Lock.new([key, qm.Key.from_passphrase("words"), other_key]))
    for one in (key, other_key, qm.Key.from_passphrase("words")):
        with_key = SealedReadable(ReadableBytes(written), one)
        assert with_key.read(0, 4) == b"ours"
        with_key.close()


def test_only_what_is_needed_is_read(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(LARGER)
    recording = RecordingFiles()
    with files.using(recording):
        inside = SealedReadable(ReadableFile(str(path)), KEY)
        assert recording.bytes_read == HEADER + STORED_BYTES  # header and last segment
        assert inside.read(SEGMENT_BYTES + 5, 10) == NOISE[SEGMENT_BYTES + 5 : SEGMENT_BYTES + 15]
        inside.read(SEGMENT_BYTES + 100, 10)
        assert recording.bytes_read == HEADER + 2 * STORED_BYTES
        inside.close()
    assert lock_of(str(path), KEY).slots == LOCKS[0].slots


def test_many_threads_read_one():
    data = NOISE[: 17 * SEGMENT_BYTES + 1]
    inside = opened(sealed(data, LOCKS[0]))
    start = threading.Barrier(8)

    def read(seed):
        chosen = random.Random(seed)
        start.wait(60)
        for _ in range(60):
            at = chosen.randrange(len(data))
            length = min(chosen.choice([1, 100, SEGMENT_BYTES, 3 * SEGMENT_BYTES]), len(data) - at)
            assert inside.read(at, length) == data[at : at + length]

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(read, range(8)))
    assert len(inside._kept) <= sealed_file._KEPT


def test_a_file_that_was_not_ended_is_not_opened():
    sink = io.BytesIO()
    with contextlib.suppress(KeyError), SealingSink(sink, LOCKS[0]) as inside:
        inside.write(NOISE)
        raise KeyError
    with pytest.raises(QuantumMemoryError):
        opened(sink.getvalue())
