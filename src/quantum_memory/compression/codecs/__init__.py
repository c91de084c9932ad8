"""Lossless codecs for one chunk of bytes: none, zlib, LZ4 and zstd.

Every decoder is bounded: it is told how many bytes must come out, and neither memory nor time goes past that, whatever
the input says. The libraries are imported when first used.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, ClassVar, Protocol

from quantum_memory.errors import RESTORE, IntegrityError, InvalidStateError, UnsupportedVersionError

if TYPE_CHECKING:
    from types import ModuleType

Buffer = bytes | bytearray | memoryview

MINIMUM_GAIN = 0.03
"""A chunk that shrinks by less than this share is stored as it is: reading it back costs nothing."""


JSON_DICTIONARY = (
    b'"labels":["q0","q1"],"dtype":"<U","order":">","canonical_form":"right","orthogonality_center":0,"log'
    b'_scale":{"$state":{"kind":"density_matrix","dims":[2,2],"qubit_order":"little","matrix":{"$array":"q'
    b'uantum/matrix"}}}{"$state":{"kind":"matrix_product_state","sites":[{"$array":"quantum/site/0"},{"$ar'
    b'ray":"quantum/site/1"}]}}{"$torch":{"$array":"classical/","dtype":"float32","requires_grad":true}}{"'
    b'$dict":[[0,{"$ordered":[["$float":"7ff8000000000000"}"standard_error":{"$tuple":[0.,"keys":{"$tuple"'
    b':["recent_emotions","average_confidence","emotional_stability"]},"trajectory":{"pad":{"$array":"emot'
    b'ion/trajectory/pad"}},"recent_emotions":[{"pad":{"$tuple":[0.,-0.]},"timestamp":"2026-01-01T00:00:00'
    b'.000000Z"}],"stability":0.,"confidence":0.9,"scale":"bipolar","pad":{"$tuple":[0."interface_config":'
    b'{"encoding":{"name":"PAD-Ry","version":1,"n_qubits":27,"registers":[9,9,9]},"measurement_cache":[],"'
    b'pad_values":[0.{"document":{"quantum_data":{"$state":{"kind":"state_vector","dims":[2,2,2,2,2],"qubi'
    b't_order":"big","amplitudes":{"$array":"quantum/amplitudes"}}},"classical_data":{},"emotional_context'
    b'":{},"metadata":{"version":"2.0","n_qubits":5}},"record":{"writer":"quantum-memory 0.1.0","norm":1.0'
    b'}}'
)  # fmt: skip
"""What the documents of most memories are made of. It is part of the format, and never changes."""


class Codec(Protocol):
    """How one chunk is encoded and decoded."""

    id: ClassVar[int]
    name: ClassVar[str]

    def encode(self, raw: Buffer) -> Buffer:
        """Return the encoded form of `raw`."""

    def decode(self, stored: Buffer, raw_length: int) -> Buffer:
        """Return exactly `raw_length` decoded bytes, or raise `IntegrityError`."""


_WINDOW_LOG = 23
"""A zstd decoder may be asked for a window of 8 MiB and no more; RFC 8878 recommends to support so much."""


def _not(codec: str) -> IntegrityError:
    return IntegrityError(f"a chunk is not what the {codec} encoder would have written", next_step=RESTORE)


@dataclass(frozen=True)
class Stored:
    """The bytes as they are."""

    id: ClassVar[int] = 0
    name: ClassVar[str] = "none"

    def encode(self, raw: Buffer) -> Buffer:
        return raw

    def decode(self, stored: Buffer, raw_length: int) -> Buffer:
        if len(stored) != raw_length:
            raise _not(self.name)
        return stored


@dataclass(frozen=True)
class Zlib:
    """A zlib stream (RFC 1950)."""

    id: ClassVar[int] = 1
    name: ClassVar[str] = "zlib"
    level: int = 6

    def encode(self, raw: Buffer) -> Buffer:
        encoder = self._encoder()
        return encoder.compress(raw) + encoder.flush()

    def decode(self, stored: Buffer, raw_length: int) -> Buffer:
        decoder = self._decoder()
        try:
            # One byte more than there may be: a longer stream then shows itself, and goes no further.
            raw = decoder.decompress(stored, raw_length + 1)
        except zlib.error as error:
            raise _not(self.name) from error
        if len(raw) != raw_length or not decoder.eof or decoder.unused_data:
            raise _not(self.name)
        return raw

    def _encoder(self) -> zlib._Compress:
        return zlib.compressobj(self.level)

    def _decoder(self) -> zlib._Decompress:
        return zlib.decompressobj()


@dataclass(frozen=True)
class ZlibJson(Zlib):
    """A zlib stream with `JSON_DICTIONARY` as its preset dictionary: for documents."""

    id: ClassVar[int] = 4
    name: ClassVar[str] = "zlib-json"

    def _encoder(self) -> zlib._Compress:
        return zlib.compressobj(self.level, zdict=JSON_DICTIONARY)

    def _decoder(self) -> zlib._Decompress:
        return zlib.decompressobj(zdict=JSON_DICTIONARY)


@dataclass(frozen=True)
class LZ4:
    """One LZ4 block, without a frame: its length is in the table."""

    id: ClassVar[int] = 2
    name: ClassVar[str] = "lz4"

    def encode(self, raw: Buffer) -> Buffer:
        import lz4.block  # noqa: PLC0415 - when first used

        encoded: bytes = lz4.block.compress(raw, store_size=False)
        return encoded

    def decode(self, stored: Buffer, raw_length: int) -> Buffer:
        import lz4.block  # noqa: PLC0415 - when first used

        try:
            raw: bytes = lz4.block.decompress(stored, uncompressed_size=raw_length)
        except lz4.block.LZ4BlockError as error:
            raise _not(self.name) from error
        if len(raw) != raw_length:
            raise _not(self.name)
        return raw


@dataclass(frozen=True)
class Zstd:
    """One zstd frame (RFC 8878)."""

    id: ClassVar[int] = 3
    name: ClassVar[str] = "zstd"
    level: int = 3

    def encode(self, raw: Buffer) -> Buffer:
        encoded: bytes = _zstd().compress(raw, self.level)
        return encoded

    def decode(self, stored: Buffer, raw_length: int) -> Buffer:
        library = _zstd()
        decoder = library.ZstdDecompressor(options={library.DecompressionParameter.window_log_max: _WINDOW_LOG})
        try:
            raw: bytes = decoder.decompress(stored, raw_length + 1)
        except library.ZstdError as error:
            raise _not(self.name) from error
        if len(raw) != raw_length or not decoder.eof or decoder.unused_data:
            raise _not(self.name)
        return raw


@cache  # a failed import is looked for again each time, which takes longer than saving a small state
def _zstd() -> ModuleType:
    try:
        from compression import zstd  # type: ignore[import-not-found]  # noqa: PLC0415 - Python 3.14 and later
    except ImportError:
        from backports import zstd  # noqa: PLC0415
    module: ModuleType = zstd
    return module


NONE = Stored()
ZLIB_JSON = ZlibJson()
CODECS: tuple[Codec, ...] = (NONE, Zlib(), LZ4(), Zstd())
"""Those that a caller may name."""

_BY_NAME = {codec.name: codec for codec in CODECS}
_BY_ID = {codec.id: codec for codec in (*CODECS, ZLIB_JSON)}


def codec_named(name: str) -> Codec:
    """Return the codec of that name, or say which names there are."""
    try:
        return _BY_NAME[name]
    except KeyError:
        raise InvalidStateError(
            f"there is no compression {name!r}", next_step=f"choose one of auto, {', '.join(_BY_NAME)}"
        ) from None


def codec_with_id(number: int) -> Codec:
    """Return the codec that a file names by number."""
    try:
        return _BY_ID[number]
    except KeyError:
        raise UnsupportedVersionError(
            f"a chunk is written with codec {number}, which this release does not know",
            next_step="read it with a newer release of quantum-memory",
        ) from None


def encode_if_smaller(codec: Codec, raw: Buffer) -> tuple[Codec, Buffer]:
    """Encode a chunk, or keep it raw when it does not shrink by `MINIMUM_GAIN`."""
    if codec is NONE or not len(raw):
        return NONE, raw
    encoded = codec.encode(raw)
    return (codec, encoded) if len(encoded) <= (1 - MINIMUM_GAIN) * len(raw) else (NONE, raw)
