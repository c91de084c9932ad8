"""Things to be kept that are easily lost: every odd bit pattern in every layout, and files that are nothing of ours."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np

import quantum_memory as qm
from quantum_memory.state.arrays import STORABLE

DTYPES = (*STORABLE.values(), "bfloat16")
"""Element types that must come back in every layout and every bit."""

FOREIGN = {
    "empty": b"",
    "PNG": b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(64),
    "web page": b"<!DOCTYPE html><html><body>404</body></html>",
    "git-LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n",
    "random": np.random.default_rng(0).bytes(1000),
    "text": b"hello\n",
    "zeros": bytes(300),
}
"""Files that are nothing of ours."""


def patterns(code: str) -> np.ndarray[Any, Any]:
    """Return twelve items of a dtype with every odd bit pattern it has: NaN payloads, -0.0, subnormals, extremes."""
    dtype = np.dtype(getattr(ml_dtypes, code) if hasattr(ml_dtypes, code) else code)
    if dtype.kind == "b":
        return np.arange(12).astype(bool)
    width = dtype.itemsize // 2 if dtype.kind == "c" else dtype.itemsize
    bits = 8 * width
    words = [0, 1, (1 << bits) - 1, 1 << (bits - 1), (1 << (bits - 1)) + 1, (1 << (bits - 1)) - 1]
    mantissa = {"float16": 10, "bfloat16": 7, "float32": 23, "float64": 52, "complex64": 23, "complex128": 52}
    if dtype.name in mantissa:
        high = 1 << mantissa[dtype.name]
        infinite = (1 << (bits - 1)) - high  # all bits of the exponent
        # Infinity, a quiet and a signalling NaN with a payload, the latter negative, the largest subnormal, and 1/3.
        words += [infinite, infinite + high // 2 + 5, infinite + 3, (1 << (bits - 1)) + infinite + 3, high - 1]
    words = (words * 4)[: 24 if dtype.kind == "c" else 12]
    made: np.ndarray[Any, Any] = np.array(words, f"<u{width}").view(dtype)
    return made


def layouts(items: np.ndarray[Any, Any]) -> dict[str, np.ndarray[Any, Any]]:
    """Return twelve items as arrays of every shape and memory order."""
    cube = items.reshape(2, 3, 2)
    spread = np.repeat(items, 2).reshape(4, 6)[:, ::2]
    read_only = cube.copy()
    read_only.flags.writeable = False
    arrays = {
        "0-d": items[7:8].reshape(()),
        "empty": items[:0],
        "empty, of three axes": items[:0].reshape(0, 3, 2),
        "Fortran": np.asfortranarray(cube),
        "strided": spread,
        "reversed": cube[::-1, :, ::-1],
        "read-only": read_only,
        "broadcast": np.broadcast_to(items, (2, 12)),
    }
    if items.dtype.isbuiltin == 1 and items.dtype.itemsize > 1:
        arrays["big-endian"] = cube.astype(items.dtype.newbyteorder(">"))
        arrays["big-endian, of its bits"] = items.byteswap().view(items.dtype.newbyteorder(">"))
    return arrays


def small_memory() -> qm.MemoryState:
    """Return a memory of a few hundred bytes with a little of everything."""
    state = qm.StateVector(np.array([0.6, 0, 0, 0.8j], np.complex64), qubit_order="little")
    return qm.MemoryState(state, {"w": np.arange(3, dtype=np.int16), "step": 7}, metadata={"run": "a"})
