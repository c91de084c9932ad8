"""Codecs of others, as a user would call them: what ``qmem bench`` and the benchmarks compare with.

Each is optional: one that is not installed takes no part, and is named by `absent`. Lossy ones are given the real parts
followed by the imaginary parts, and the largest tolerance that keeps within an infidelity.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np

from quantum_memory.compression.certificate import overlap, scale_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from quantum_memory.state.arrays import AnyArray

    Lossy = Callable[[AnyArray, float], tuple[int, AnyArray] | None]

_TRIES = 20
_AIM, _ENOUGH, _CLOSE = 0.985, 0.97, 1.005
"""Of the allowed infidelity: where a tolerance is aimed, and which share ends the search. It ends as well when it is
known between which two tolerances, so close to one another, the limit lies: some codecs know only powers of two."""

_FEWEST = 16
"""Rows and columns that SPERR needs: with very few its filter ends the process."""


@dataclass(frozen=True)
class Coded:
    """What a codec made of a state: how long it is, and how far what is decoded is from the state."""

    nbytes: int
    infidelity: float


def lossless(array: AnyArray) -> dict[str, int]:
    """Return the length in bytes that each codec without loss packs an array into, for those that are installed."""
    reals = np.ascontiguousarray(array).reshape(-1).view(array.real.dtype)
    return {name: pack(reals) for name, pack in _LOSSLESS.items() if _installed(name)}


def lossy(array: AnyArray, infidelity: float) -> dict[str, Coded]:
    """Return what each lossy codec that is installed makes of an array within an infidelity.

    Parameters
    ----------
    array
        A state vector, or any array, the elements of which are taken as one.
    infidelity
        The largest 1 - F that is allowed, between 0 and 1.
    """
    found = {}
    for name, settings in _LOSSY.items():
        if _installed(name):
            coded = [one for codec in settings if (one := tuned(codec, array, infidelity)) is not None]
            if coded:
                found[name] = min(coded, key=lambda one: one.nbytes)
    return found


def casts(array: AnyArray) -> dict[str, Coded]:
    """Return what casts to shorter floats make of an array: they have the fidelity that they have."""
    reals = _planar(array)
    return {
        name: Coded(len(reals) * bits // 8, _infidelity(array, cast(reals)))
        for name, (bits, cast) in _CASTS.items()
        if bits < 8 * array.real.itemsize
    }


def absent() -> list[str]:
    """Return the names of the codecs that are not installed."""
    return [name for name in (*_LOSSLESS, *_LOSSY) if not _installed(name)]


def tuned(codec: Lossy, array: AnyArray, allowed: float) -> Coded | None:
    """Return the shortest of what a codec makes of an array within an infidelity; None where it finds nothing.

    Parameters
    ----------
    codec
        Called with a row of reals and the largest error that each of them may have; returns how many bytes that makes,
        and what they are decoded to, or None for a row that it cannot take.
    array, allowed
        See `lossy`.
    """
    reals = _planar(array)
    tolerance = float(np.linalg.norm(reals)) * math.sqrt(3 * allowed / len(reals))  # that of rounding to a step
    best: Coded | None = None
    low, high = 0.0, math.inf
    for tries in range(_TRIES):
        made = codec(reals, tolerance)
        if made is None:
            break
        one = Coded(made[0], _infidelity(array, made[1]))
        if one.infidelity <= allowed:
            low = tolerance
            best = one if best is None or one.nbytes < best.nbytes else best
            if one.infidelity >= _ENOUGH * allowed:
                break
        else:
            high = tolerance
        if low and high <= _CLOSE * low:
            break
        tolerance *= min(max(math.sqrt(_AIM * allowed / max(one.infidelity, 1e-300)), 0.1), 10.0)
        if low and high < math.inf and (tries > 5 or not low < tolerance < high):
            tolerance = math.sqrt(low * high)
    return best


def _installed(name: str) -> bool:
    return all(find_spec(module) is not None for module in _MODULES.get(name, ()))


def _planar(array: AnyArray) -> AnyArray:
    flat = array.reshape(-1)
    if np.iscomplexobj(flat):
        return np.concatenate([flat.real, flat.imag])
    return flat.astype(np.result_type(flat.dtype, np.float32), copy=False)  # none of them knows float16


def _infidelity(array: AnyArray, decoded: AnyArray) -> float:
    """Return 1 - F between an array and the planar reals that were decoded in its place."""
    psi = np.ascontiguousarray(array).reshape(-1)
    phi = np.empty_like(psi)
    if np.iscomplexobj(psi):
        phi.real, phi.imag = decoded.reshape(2, -1)
    else:
        phi[:] = decoded
    return overlap(psi, phi, scale_of(psi).shift).infidelity()


def _two_axes(reals: AnyArray) -> AnyArray:
    """Return a row as the most nearly square matrix of which the number of rows is a power of two."""
    rows = 1
    while len(reals) % (2 * rows) == 0 and 4 * rows * rows <= len(reals):
        rows *= 2
    return reals.reshape(rows, -1)


# ---- without loss


def _zstd(reals: AnyArray) -> int:
    from quantum_memory.compression.codecs import Zstd

    return len(Zstd(9).encode(reals.view(np.uint8).data))


def _blosc2(reals: AnyArray) -> int:
    blosc2 = import_module("blosc2")
    zstd, size = blosc2.Codec.ZSTD, reals.itemsize
    shuffles = (blosc2.Filter.SHUFFLE, blosc2.Filter.BITSHUFFLE)
    return min(len(blosc2.compress2(reals, codec=zstd, clevel=9, filters=[one], typesize=size)) for one in shuffles)


def _pcodec(reals: AnyArray) -> int:
    pcodec = import_module("pcodec")
    return len(pcodec.standalone.simple_compress(reals, pcodec.ChunkConfig(compression_level=8)))


def _openzl(reals: AnyArray) -> int:
    openzl = import_module("openzl.ext")
    data = openzl.Input(openzl.Type.Numeric, reals.view(f"u{reals.itemsize}"))
    lengths = []
    for graph in (openzl.graphs.FieldLz, openzl.graphs.Compress):
        compressor, context = openzl.Compressor(), openzl.CCtx()
        compressor.set_parameter(openzl.CParam.FormatVersion, openzl.MAX_FORMAT_VERSION)
        compressor.set_parameter(openzl.CParam.CompressionLevel, 9)
        compressor.select_starting_graph(graph()(compressor))
        context.ref_compressor(compressor)
        lengths.append(len(context.compress([data])))
    return min(lengths)


def _npz(reals: AnyArray) -> int:
    file = io.BytesIO()
    np.savez_compressed(file, psi=reals)
    return len(file.getbuffer())


def _hdf5(reals: AnyArray) -> int:
    h5py = import_module("h5py")
    file = io.BytesIO()
    with h5py.File(file, "w") as store:
        store.create_dataset("psi", data=reals, compression="gzip", shuffle=True)
    return len(file.getbuffer())


# ---- with loss


def _sz3(reals: AnyArray, tolerance: float, *, algorithm: str, two_axes: bool = False) -> tuple[int, AnyArray]:
    pysz = import_module("pysz")
    config = pysz.szConfig()
    config.errorBoundMode = pysz.szErrorBoundMode.ABS
    config.absErrorBound = tolerance
    config.cmprAlgo = getattr(pysz.szAlgorithm, algorithm)
    given = _two_axes(reals) if two_axes else reals
    data, _ = pysz.sz.compress(given, config)
    decoded, _ = pysz.sz.decompress(data, given.dtype, given.shape)
    return data.size, decoded.reshape(-1)


def _zfp(reals: AnyArray, tolerance: float, *, two_axes: bool) -> tuple[int, AnyArray]:
    zfpy = import_module("zfpy")
    data = zfpy.compress_numpy(_two_axes(reals) if two_axes else reals, tolerance=tolerance)
    return len(data), zfpy.decompress_numpy(data).reshape(-1)


def _sperr(reals: AnyArray, tolerance: float) -> tuple[int, AnyArray] | None:
    h5py, plugin = import_module("h5py"), import_module("hdf5plugin")
    given = _two_axes(reals)
    if min(given.shape) < _FEWEST:
        return None
    file = io.BytesIO()
    with h5py.File(file, "w") as store:
        store.create_dataset("psi", data=given, chunks=given.shape, **plugin.Sperr(absolute=tolerance))
    with h5py.File(file, "r") as store:
        return int(store["psi"].id.get_storage_size()), store["psi"][()].reshape(-1)


def _bfloat16(reals: AnyArray) -> AnyArray:
    """Round to the nearest float32 of which the last 16 bits are zero, ties to even."""
    bits = reals.astype(np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000).view(np.float32)


def _float16(reals: AnyArray) -> AnyArray:
    """Round what was divided by the largest: amplitudes of many qubits are among the subnormals of a float16."""
    rounded: AnyArray = (reals / np.abs(reals).max()).astype(np.float16)
    return rounded.astype(np.float64)


_LOSSLESS: Mapping[str, Callable[[AnyArray], int]] = {
    "zstd": _zstd,
    "blosc2": _blosc2,
    "pcodec": _pcodec,
    "OpenZL": _openzl,
    "npz": _npz,
    "HDF5 gzip": _hdf5,
}
_LOSSY: Mapping[str, tuple[Lossy, ...]] = {
    "SZ3": (
        partial(_sz3, algorithm="INTERP_LORENZO"),
        partial(_sz3, algorithm="NOPRED"),
        partial(_sz3, algorithm="LORENZO_REG", two_axes=True),
    ),
    "ZFP": (partial(_zfp, two_axes=False), partial(_zfp, two_axes=True)),
    "SPERR": (_sperr,),
}
_CASTS: Mapping[str, tuple[int, Callable[[AnyArray], Any]]] = {
    "float32": (32, lambda reals: reals.astype(np.float32)),
    "float16": (16, _float16),
    "bfloat16": (16, _bfloat16),
}
_MODULES = {"blosc2": ("blosc2",), "OpenZL": ("openzl",), "SZ3": ("pysz",), "ZFP": ("zfpy",), "SPERR": ("hdf5plugin",)}
