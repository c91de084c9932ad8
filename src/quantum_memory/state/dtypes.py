"""NumPy dtypes that no format stores directly, as ones that every format does.

The fourteen types of `quantum_memory.state.arrays.STORABLE` are stored as they are. Strings, dates, structured types
and the small floats of ``ml_dtypes`` are stored as their bytes, with the dtype written beside them.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from quantum_memory.errors import IntegrityError, InvalidStateError, UnsupportedVersionError
from quantum_memory.state.arrays import STORABLE, dtype_name

if TYPE_CHECKING:
    from collections.abc import Iterator

    from quantum_memory.state.arrays import AnyArray

SMALL_FLOATS = {
    "bfloat16": "u2", "float8_e4m3fn": "u1", "float8_e5m2": "u1", "float8_e4m3fnuz": "u1", "float8_e5m2fnuz": "u1",
}  # fmt: skip
"""Floats that NumPy does not have, by the name that ``ml_dtypes`` and torch give them, and the unsigned integers that
hold them."""

_LAST_CHARACTER = 0x10FFFF
_SPELLED = re.compile(r"[<>|][?bBiufcmMSUVO]\d*(\[\d*[a-zA-Z]+\])?")  # numpy.dtype.str
_OF_ANOTHER_PACKAGE = 2  # numpy.dtype.isbuiltin of a dtype that NumPy does not define


def to_stored(array: AnyArray, where: str) -> tuple[AnyArray, dict[str, Any]]:
    """Return an array of a storable dtype with the same bytes, and what says how to get `array` back.

    Raises
    ------
    InvalidStateError
        For objects, and for floats of more than 64 bits, whose layout differs from machine to machine.
    """
    dtype = array.dtype
    if dtype.metadata:
        raise InvalidStateError(
            f"{where} has a dtype with metadata, which would be lost", next_step=f"give array.astype({dtype.str!r})"
        )
    if dtype.hasobject or any(
        leaf.kind in "fc" and dtype_name(leaf) is None and leaf.name not in SMALL_FLOATS for leaf in _leaves(dtype)
    ):
        raise InvalidStateError(
            f"{where} has dtype {dtype}, which cannot be kept exactly on every machine",
            next_step="convert it to float64 or complex128, or to plain lists, before saving",
        )
    if dtype_name(dtype) is not None:
        return array, {"order": ">"} if dtype.str[0] == ">" else {}
    if dtype.name in SMALL_FLOATS:
        return _contiguous(array).view(SMALL_FLOATS[dtype.name]), {"dtype": dtype.name}
    described = _described(dtype)
    if described is None or dtype.type is np.record or dtype.isalignedstruct or _has_padding(dtype):
        raise InvalidStateError(
            f"{where} has dtype {dtype}, which cannot be described exactly",
            next_step="repack it (numpy.lib.recfunctions.repack_fields), or save its fields as arrays of their own",
        )
    shape = (*array.shape, dtype.itemsize)
    if dtype.itemsize == 0:  # NumPy has no view of items of no bytes
        return np.empty(shape, np.uint8), {"dtype": described}
    return _contiguous(array).reshape(-1).view(np.uint8).reshape(shape), {"dtype": described}


def from_stored(stored: AnyArray, facts: dict[str, Any]) -> AnyArray:
    """Return the array that `to_stored` was given."""
    described = facts.get("dtype")
    if described is None:
        return stored.astype(stored.dtype.newbyteorder(">")) if facts.get("order") == ">" else stored
    if isinstance(described, str) and described in SMALL_FLOATS:
        if stored.dtype != SMALL_FLOATS[described]:
            raise IntegrityError("its document gives an array a dtype that its bytes do not fit")
        return stored.view(_small_float(described))
    dtype = _dtype(described)
    if any(leaf.kind in "fc" and dtype_name(leaf) is None for leaf in _leaves(dtype)):
        raise IntegrityError("its document gives an array a dtype that no release writes")
    if dtype.hasobject or stored.dtype != np.uint8 or stored.ndim == 0 or stored.shape[-1] != dtype.itemsize:
        raise IntegrityError("its document gives an array a dtype that its bytes do not fit")
    if dtype.itemsize == 0:
        return np.ndarray(stored.shape[:-1], dtype)  # np.empty would make items of one byte of it
    built = np.ascontiguousarray(stored).view(dtype).reshape(stored.shape[:-1])
    if dtype.kind == "U" and built.size and int(built.reshape(-1).view(f"{dtype.str[0]}u4").max()) > _LAST_CHARACTER:
        raise IntegrityError("its document gives an array characters that there are not")
    return built


def scalar(described: Any, data: bytes) -> np.generic:
    """Return a NumPy scalar from its dtype and its bytes."""
    name = described if isinstance(described, str) else ""
    if name in STORABLE:
        made: Any = np.frombuffer(data, STORABLE[name]).reshape(()).astype(np.dtype(STORABLE[name]).newbyteorder("="))
    elif name in SMALL_FLOATS:
        made = from_stored(np.frombuffer(data, SMALL_FLOATS[name]).reshape(()), {"dtype": name})
    else:
        made = from_stored(np.frombuffer(data, np.uint8), {"dtype": described})
    item: np.generic = made[()]
    return item


def _has_padding(dtype: np.dtype[Any]) -> bool:
    """Tell whether there are bytes between the fields: nobody gave them a value, and they would count as content."""
    if dtype.subdtype is not None:
        return _has_padding(dtype.subdtype[0])
    if dtype.fields is None:
        return False
    inner = [dtype.fields[name][0] for name in dtype.names or ()]
    return dtype.itemsize != sum(field.itemsize for field in inner) or any(map(_has_padding, inner))


def _leaves(dtype: np.dtype[Any]) -> Iterator[np.dtype[Any]]:
    """Yield the dtypes of the plain items that a dtype is made of."""
    if dtype.subdtype is not None:
        yield from _leaves(dtype.subdtype[0])
    elif dtype.fields is not None:
        for field in dtype.fields.values():
            yield from _leaves(field[0])
    else:
        yield dtype


def _described(dtype: np.dtype[Any]) -> Any:
    """Return what a dtype is described by in a document, or None when nothing there describes it exactly."""
    if any(leaf.isbuiltin == _OF_ANOTHER_PACKAGE for leaf in _leaves(dtype)):
        return None
    try:
        described = _as_json(np.lib.format.dtype_to_descr(dtype))
        return described if _dtype(described) == dtype else None
    except (TypeError, ValueError):
        return None


def _contiguous(array: AnyArray) -> AnyArray:
    return array if array.flags.c_contiguous else np.ascontiguousarray(array)


def _as_json(described: Any) -> Any:
    return [_as_json(part) for part in described] if isinstance(described, (list, tuple)) else described


def _dtype(described: Any) -> np.dtype[Any]:
    """Return the dtype of a description in which JSON has made lists of the tuples."""
    dtype: np.dtype[Any] = np.lib.format.descr_to_dtype(_with_tuples(described))
    return dtype


def _with_tuples(described: Any) -> Any:
    """Return a description with its fields, their titles and their shapes as the tuples that NumPy wants."""
    if isinstance(described, str):
        if not _SPELLED.fullmatch(described):  # NumPy knows more spellings, some of which it warns of
            raise IntegrityError("its document gives an array a dtype that no release writes")
        return described
    return [
        (tuple(name) if isinstance(name, list) else name, _with_tuples(inner), *map(tuple, shape))
        for name, inner, *shape in described
    ]


def _small_float(name: str) -> np.dtype[Any]:
    try:
        import ml_dtypes  # noqa: PLC0415 - only for those who use these types
    except ImportError:
        raise UnsupportedVersionError(
            f"it holds an array of {name}, which NumPy has only with the package ml_dtypes",
            next_step="pip install ml_dtypes",
        ) from None
    dtype: np.dtype[Any] = np.dtype(getattr(ml_dtypes, name))
    return dtype
