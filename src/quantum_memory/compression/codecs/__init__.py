"""Lossless codecs for one chunk of bytes, one in each module: none, zlib, LZ4, zstd and pcodec.

Every decoder is bounded: it is told how many bytes must come out, and neither memory nor time goes past that, whatever
the input says. The libraries are imported when first used.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from quantum_memory.compression.codecs.base import Buffer, Codec
from quantum_memory.compression.codecs.deflate import Zlib, ZlibJson
from quantum_memory.compression.codecs.lz4_block import LZ4
from quantum_memory.compression.codecs.pco import Pcodec
from quantum_memory.compression.codecs.stored import Stored
from quantum_memory.compression.codecs.zstandard import Zstd
from quantum_memory.errors import UPGRADE, InvalidStateError, UnsupportedVersionError

__all__ = [
    "CODECS", "LZ4", "MINIMUM_GAIN", "NAMES", "NONE", "ZLIB_JSON", "Buffer", "Codec", "Zlib", "Zstd", "codec_named",
    "codec_with_id", "encode_if_smaller", "is_known", "name_of",
]  # fmt: skip

MINIMUM_GAIN = 0.03
"""A chunk that shrinks by less than this share is stored as it is: reading it back costs nothing."""

NONE = Stored()
ZLIB_JSON = ZlibJson()
CODECS: tuple[Codec, ...] = (NONE, Zlib(), LZ4(), Zstd())
"""Those that take any bytes."""

_PCODECS = {
    np.dtype(code): Pcodec(number, code)
    for number, code in enumerate(("<f4", "<f8", "<u2", "<u4", "<u8", "<i2", "<i4", "<i8"), 5)
}

NAMES = (*(codec.name for codec in CODECS), Pcodec.name)
"""What a caller may ask for."""

_BY_NAME = {codec.name: codec for codec in CODECS}
_BY_ID: dict[int, Codec] = {codec.id: codec for codec in (*CODECS, ZLIB_JSON, *_PCODECS.values())}


def codec_named(name: str, dtype: np.dtype[Any] | None = None) -> Codec:
    """Return the codec of that name for items of `dtype`, or say which names there are.

    Items that pcodec does not take, being no numbers of 2 to 8 bytes, get none.
    """
    if name == Pcodec.name:
        kind = np.dtype("V0") if dtype is None else dtype.newbyteorder("<")
        real = np.dtype(f"<f{kind.itemsize // 2}") if kind.kind == "c" else kind
        return _PCODECS.get(real, NONE)
    try:
        return _BY_NAME[name]
    except KeyError:
        raise InvalidStateError(
            f"there is no compression {name!r}", next_step=f"choose one of auto, {', '.join(NAMES)}"
        ) from None


def codec_with_id(number: int) -> Codec:
    """Return the codec that a file names by number."""
    try:
        return _BY_ID[number]
    except KeyError:
        raise UnsupportedVersionError(
            f"a chunk is written with codec {number}, which this release does not know",
            next_step=UPGRADE,
        ) from None


def is_known(number: int) -> bool:
    """Tell whether there is a codec of that number."""
    return number in _BY_ID


def name_of(number: int) -> str:
    """Return what the codec of that number is called, known or not."""
    return _BY_ID[number].name if is_known(number) else f"unknown codec {number}"


def encode_if_smaller(codec: Codec, raw: Buffer) -> tuple[Codec, Buffer]:
    """Encode a chunk, or keep it raw when it does not shrink by `MINIMUM_GAIN`."""
    if codec is NONE or not len(raw):
        return NONE, raw
    encoded = codec.encode(raw)
    return (codec, encoded) if len(encoded) <= (1 - MINIMUM_GAIN) * len(raw) else (NONE, raw)
