"""What disks, cables and transfers do to files: every way to damage a short one."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


def flip_bit(data: bytes, bit: int) -> bytes:
    r"""Return `data` with one bit flipped.

    Parameters
    ----------
    bit
        Which, from 0: bit ``bit % 8`` of byte ``bit // 8``, the least significant being 0.

    Examples
    --------
    >>> flip_bit(b"\x00\x00", 9)
    b'\x00\x02'
    """
    damaged = bytearray(data)
    damaged[bit // 8] ^= 1 << bit % 8
    return bytes(damaged)


def flips(data: bytes) -> Iterator[bytes]:
    """Yield `data` with each of its bits flipped, one at a time."""
    for bit in range(8 * len(data)):
        yield flip_bit(data, bit)


def truncations(data: bytes) -> Iterator[bytes]:
    """Yield the beginnings of `data` of every length from 0 to one byte less than all."""
    for length in range(len(data)):
        yield data[:length]


def extensions(data: bytes, most: int = 64) -> Iterator[bytes]:
    """Yield `data` with 1 to `most` zero bytes appended, with as many of its own last bytes, and twice over."""
    for length in range(1, most + 1):
        yield data + bytes(length)
        yield data + data[-length:]
    yield data + data
