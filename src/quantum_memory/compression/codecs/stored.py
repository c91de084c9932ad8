"""The bytes of a chunk as they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from quantum_memory.compression.codecs.base import Buffer, not_written


@dataclass(frozen=True)
class Stored:
    """The bytes as they are."""

    id: ClassVar[int] = 0
    name: ClassVar[str] = "none"

    def encode(self, raw: Buffer) -> Buffer:
        return raw

    def decode(self, stored: Buffer, raw_length: int) -> Buffer:
        if len(stored) != raw_length:
            raise not_written(self.name)
        return stored
