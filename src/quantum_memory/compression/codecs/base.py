"""What a codec is."""

from __future__ import annotations

from typing import Protocol

from quantum_memory.errors import RESTORE, IntegrityError

Buffer = bytes | bytearray | memoryview


class Codec(Protocol):
    """How one chunk is encoded and decoded."""

    @property
    def id(self) -> int:
        """Its number in files."""

    @property
    def name(self) -> str:
        """Its name for callers; one name may have several codecs."""

    def encode(self, raw: Buffer) -> Buffer:
        """Return the encoded form of `raw`."""

    def decode(self, stored: Buffer, raw_length: int) -> Buffer:
        """Return exactly `raw_length` decoded bytes, or raise `IntegrityError`."""


def not_written(codec: str) -> IntegrityError:
    """Return the error for a chunk that an encoder would not have made."""
    return IntegrityError(f"a chunk is not what the {codec} encoder would have written", next_step=RESTORE)
