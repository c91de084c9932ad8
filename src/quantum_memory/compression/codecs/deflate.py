"""zlib, and zlib with a dictionary for documents."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import ClassVar

from quantum_memory.compression.codecs.base import Buffer, not_written

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
            raise not_written(self.name) from error
        if len(raw) != raw_length or not decoder.eof or decoder.unused_data:
            raise not_written(self.name)
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
