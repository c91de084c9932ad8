"""NumPy dtypes that no format stores directly, as ones that every format does.

The fourteen types of `quantum_memory.state.arrays.STORABLE` are stored as they are. Strings, dates, structured types and
the small floats of ``ml_dtypes`` are stored as their bytes, with the dtype written beside them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from quantum_memory.errors import IntegrityError, InvalidStateError, UnsupportedVersionError
from quantum_memory.state.arrays import STORABLE, dtype_name

if TYPE_CHECKING:
    from quantum_memory.state.arrays import AnyArray

SMALL_FLOATS = {
    "bfloat16": "u2", "float8_e4m3fn": "u1", "float8_e5m2": "u1", "float8_e4m3fnuz": "u1", "float8_e5m2fnuz": "u1",
}  # fmt: skip
"""Floats that NumPy does not have, by the name that ``ml_dtypes`` and torch give them, and the unsigned integers that hold them."""


def to_stored(array: AnyArray, where: str) -> tuple[AnyArray, dict[str, Any]]:
    """Return an array of a storable dtype with the same bytes, and what says how to get `array` back.

    Raises
    ------
    InvalidStateError
        For objects, and for floats of more than 64 bits, whose layout differs from machine to machine.
    """
    dtype = array.dtype
    if dtype_name(dtype) is not None:
        return array, {"order": ">"} if dtype.str[0] == ">" else {}
    if dtype.name in SMALL_FLOATS:
        return _contiguous(array).view(SMALL_FLOATS[dtype.name]), {"dtype": dtype.name}
    if dtype.hasobject or dtype.kind in "fc":
        raise InvalidStateError(
            f"{where} has dtype {dtype}, which cannot be kept exactly on every machine",
            next_step="convert it to float64 or complex128, or to plain lists, before saving",
        )
    described: Any = np.lib.format.dtype_to_descr(dtype)
    if _dtype(_as_json(described)) != dtype:
        raise InvalidStateError(f"{where} has the structured dtype {dtype}, which cannot be described exactly")
    # A trailing axis of bytes; by way of a buffer, since NumPy has no view from items of no bytes at all.
    stored = np.frombuffer(_contiguous(array).tobytes(), np.uint8).reshape(*array.shape, dtype.itemsize)
    return stored, {"dtype": _as_json(described)}


def from_stored(stored: AnyArray, facts: dict[str, Any]) -> AnyArray:
    """Return the array that `to_stored` was given."""
    described = facts.get("dtype")
    if described is None:
        return stored.astype(stored.dtype.newbyteorder(">")) if facts.get("order") == ">" else stored
    if isinstance(described, str) and described in SMALL_FLOATS:
        return stored.view(_small_float(described))
    dtype = _dtype(described)
    if dtype.hasobject or stored.dtype != np.uint8 or stored.ndim == 0 or stored.shape[-1] != dtype.itemsize:
        raise IntegrityError("its document gives an array a dtype that its bytes do not fit")
    if dtype.itemsize == 0:
        return np.zeros(stored.shape[:-1], dtype)
    return np.ascontiguousarray(stored).view(dtype).reshape(stored.shape[:-1])


def scalar(described: Any, data: bytes) -> np.generic:  # noqa: ANN401 - as the document has it
    """Return a NumPy scalar from its dtype and its bytes."""
    if isinstance(described, str) and described in STORABLE:
        made = np.frombuffer(data, STORABLE[described]).reshape(())
        return made.astype(made.dtype.newbyteorder("="))[()]
    stored = SMALL_FLOATS.get(described, "u1") if isinstance(described, str) else "u1"
    flat = np.frombuffer(data, stored)
    shaped = flat.reshape(()) if stored == "u2" or described in SMALL_FLOATS else flat
    item: np.generic = from_stored(shaped, {"dtype": described})[()]
    return item


def _contiguous(array: AnyArray) -> AnyArray:
    return array if array.flags.c_contiguous else np.ascontiguousarray(array)


def _as_json(described: Any) -> Any:  # noqa: ANN401
    return [_as_json(part) for part in described] if isinstance(described, (list, tuple)) else described


def _dtype(described: Any) -> np.dtype[Any]:  # noqa: ANN401
    """Return the dtype of a description in which JSON has made lists of the tuples."""
    if isinstance(described, str):
        return np.dtype(described)
    fields: list[Any] = []
    for field in described:
        name = tuple(field[0]) if isinstance(field[0], list) else field[0]
        inner = field[1] if isinstance(field[1], str) else _dtype(field[1])
        fields.append((name, inner, tuple(field[2])) if len(field) == 3 else (name, inner))
    return np.lib.format.descr_to_dtype(fields)


def _small_float(name: str) -> np.dtype[Any]:
    try:
        import ml_dtypes  # noqa: PLC0415 - only for those who use these types
    except ImportError:
        raise UnsupportedVersionError(
            f"it holds an array of {name}, which NumPy has only with the package ml_dtypes",
            next_step="pip install ml_dtypes",
        ) from None
    return np.dtype(getattr(ml_dtypes, name))
