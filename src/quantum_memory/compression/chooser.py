"""Which codec an array gets when the caller leaves the choice to us."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quantum_memory.compression.codecs import NONE, Codec, codec_named, encode_if_smaller
from quantum_memory.state.arrays import chunk_bytes, chunk_count

if TYPE_CHECKING:
    from quantum_memory.state.arrays import AnyArray

_SAMPLE_BYTES = 1 << 16
_SAMPLES = 5


def choose(array: AnyArray, compression: str) -> Codec:
    """Return the codec for `array`.

    Parameters
    ----------
    compression
        The name of a codec, or ``"auto"``: zstd where a few samples of the array shrink, none where none of them does.
        An incompressible state of 1 GiB then costs five samples of 64 KiB and not a pass of the encoder over it.
    """
    if compression != "auto":
        return codec_named(compression)
    zstd = codec_named("zstd")
    chunks = chunk_count(array.nbytes)
    for index in sorted({chunks * k // _SAMPLES for k in range(_SAMPLES)} if chunks else ()):
        if encode_if_smaller(zstd, chunk_bytes(array, index)[:_SAMPLE_BYTES])[0] is not NONE:
            return zstd
    return NONE
