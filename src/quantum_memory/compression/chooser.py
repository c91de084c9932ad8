"""Which codec an array gets when the caller leaves the choice to us."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quantum_memory.compression.codecs import MINIMUM_GAIN, NONE, Codec, codec_named
from quantum_memory.state.arrays import chunk_bytes, chunk_count

if TYPE_CHECKING:
    from quantum_memory.compression.forms.base import Effort
    from quantum_memory.state.arrays import AnyArray

_SAMPLE_BYTES = 1 << 16
_SAMPLES = 5
_WORTH_IT = 0.15


def choose(array: AnyArray, compression: str, effort: Effort = "fast") -> Codec:
    """Return the codec for `array`.

    Parameters
    ----------
    compression
        The name of a codec, or ``"auto"``: zstd where one of a few samples of the array shrinks by 15 %; with more
        effort than "fast", pcodec where a sample shrinks by 3 %; otherwise none. A general state shrinks by 13 %, in
        its exponents, for several times the time of the save.
    """
    if compression != "auto":
        return codec_named(compression, array.dtype)
    zstd = codec_named("zstd")
    pcodec = NONE if effort == "fast" else codec_named("pcodec", array.dtype)
    chunks = chunk_count(array.nbytes)
    for index in sorted({chunks * k // _SAMPLES for k in range(_SAMPLES)} if chunks else ()):
        sample = chunk_bytes(array, index)[:_SAMPLE_BYTES]
        packed = {codec: len(codec.encode(sample)) for codec in (zstd, pcodec)}
        shortest = min(packed, key=packed.__getitem__)
        if packed[shortest] <= (1 - (_WORTH_IT if shortest is zstd else MINIMUM_GAIN)) * len(sample):
            return shortest
    return NONE
