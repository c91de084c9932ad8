"""zstd."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar

from quantum_memory.compression.codecs.base import Buffer, not_written

if TYPE_CHECKING:
    from types import ModuleType


_WINDOW_LOG = 23
"""A zstd decoder may be asked for a window of 8 MiB and no more; RFC 8878 recommends to support so much."""

_LIGHT = 3
"""Up to this level the tables of an encoder take a few MiB at most, and each thread keeps one."""


class _Kept(threading.local):
    """Encoders of a thread: to make one takes as long as to pack some KiB."""

    def __init__(self) -> None:
        self.encoders: dict[int, Any] = {}


_kept = _Kept()


@dataclass(frozen=True)
class Zstd:
    """One zstd frame (RFC 8878)."""

    id: ClassVar[int] = 3
    name: ClassVar[str] = "zstd"
    level: int = 3

    def encode(self, raw: Buffer) -> Buffer:
        encoder = _kept.encoders.get(self.level)
        if encoder is None:
            encoder = _zstd().ZstdCompressor(self.level)
            if self.level <= _LIGHT:
                _kept.encoders[self.level] = encoder
        try:
            encoded: bytes = encoder.compress(raw, encoder.FLUSH_FRAME)
        except BaseException:
            _kept.encoders.pop(self.level, None)  # it may be in the middle of a frame
            raise
        return encoded

    def decode(self, stored: Buffer, raw_length: int) -> Buffer:
        library = _zstd()
        decoder = library.ZstdDecompressor(options={library.DecompressionParameter.window_log_max: _WINDOW_LOG})
        try:
            raw: bytes = decoder.decompress(stored, raw_length + 1)
        except library.ZstdError as error:
            raise not_written(self.name) from error
        if len(raw) != raw_length or not decoder.eof or decoder.unused_data:
            raise not_written(self.name)
        return raw

    def frame(self, stored: Buffer, most: int) -> tuple[bytes, int] | None:
        """Return what the frame at the beginning of bytes holds, at most so much, and its length; None for none."""
        library = _zstd()
        decoder = library.ZstdDecompressor(options={library.DecompressionParameter.window_log_max: _WINDOW_LOG})
        try:
            raw: bytes = decoder.decompress(stored, most + 1)
        except library.ZstdError:
            return None
        return (raw, len(stored) - len(decoder.unused_data)) if decoder.eof and len(raw) <= most else None


@cache  # a failed import is looked for again each time, which takes longer than saving a small state
def _zstd() -> ModuleType:
    try:
        from compression import zstd  # type: ignore[import-not-found]  # noqa: PLC0415 - Python 3.14 and later
    except ImportError:
        from backports import zstd  # noqa: PLC0415
    module: ModuleType = zstd
    return module
