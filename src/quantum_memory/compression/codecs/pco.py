"""pcodec, which packs numbers as numbers: in bins of an adapted entropy code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from quantum_memory.compression import numbers
from quantum_memory.compression.codecs.base import Buffer, not_written
from quantum_memory.errors import IntegrityError


@dataclass(frozen=True)
class Pcodec:
    """One block of numbers of one type: see `numbers.pack_block`. Complex numbers are pairs of reals.

    Parameters
    ----------
    id
        There is one for each type of number, so that a chunk needs nothing beside it to be decoded.
    type
        NumPy's name of the type.
    """

    id: int
    type: str
    name: ClassVar[str] = "pcodec"

    def encode(self, raw: Buffer) -> Buffer:
        return numbers.pack_block(np.frombuffer(raw, self.type))

    def decode(self, stored: Buffer, raw_length: int) -> Buffer:
        dtype = np.dtype(self.type)
        if raw_length % dtype.itemsize:
            raise not_written(self.name)
        out = np.empty(raw_length // dtype.itemsize, dtype)
        try:
            numbers.unpack_block(np.frombuffer(stored, np.uint8), out)
        except IntegrityError as error:
            raise not_written(self.name) from error
        return out.view(np.uint8).data
