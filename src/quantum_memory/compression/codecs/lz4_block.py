"""LZ4."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from quantum_memory.compression.codecs.base import Buffer, not_written


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
            raise not_written(self.name) from error
        if len(raw) != raw_length:
            raise not_written(self.name)
        return raw
