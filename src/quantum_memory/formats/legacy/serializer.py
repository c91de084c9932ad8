"""Blobs of the serializer: a tree in which arrays are dicts, as JSON, MessagePack, base64, a pickle or an archive."""

from __future__ import annotations

import base64
import binascii
import math
import struct
from typing import TYPE_CHECKING, Any

import numpy as np

from quantum_memory.errors import RESTORE, IntegrityError, UnsafeError
from quantum_memory.formats import unpickler
from quantum_memory.formats.json_format import MAX_TEXT_BYTES
from quantum_memory.formats.legacy.archive import read_members
from quantum_memory.formats.legacy.found import MAX_LEVELS, NO_CHECKSUM, Found, check_depth, flat_list
from quantum_memory.formats.legacy.text import check_length
from quantum_memory.state.arrays import STORABLE
from quantum_memory.state.json_text import max_nodes

if TYPE_CHECKING:
    from quantum_memory.durability.files import Readable
    from quantum_memory.formats.legacy.found import Legacy

TAG = "_tensor_type"
"""The key that a dict has that stands for an array."""

_DTYPES = {np.dtype(code).name: np.dtype(code) for code in STORABLE.values()}
_DISTRUST = "do not trust this file: no release writes one like it"
_SIZES = {
    0xC4: ">B", 0xC5: ">H", 0xC6: ">I", 0xD9: ">B", 0xDA: ">H", 0xDB: ">I", 0xDC: ">H", 0xDD: ">I", 0xDE: ">H",
    0xDF: ">I",
}  # fmt: skip
_NUMBERS = {
    0xCA: ">f", 0xCB: ">d", 0xCC: ">B", 0xCD: ">H", 0xCE: ">I", 0xCF: ">Q", 0xD0: ">b", 0xD1: ">h", 0xD2: ">i",
    0xD3: ">q",
}  # fmt: skip
_CONSTANTS = {0xC0: None, 0xC2: False, 0xC3: True}


def has_arrays(tree: Any) -> bool:
    """Tell whether a dict stands for an array anywhere in a tree."""
    stack = [tree]
    while stack:
        top = stack.pop()
        if isinstance(top, dict):
            if TAG in top:
                return True
            stack.extend(top.values())
        elif isinstance(top, list):
            stack.extend(top)
    return False


def _of_blob(tree: Any, kind: str) -> Legacy:
    """Return the memory in a blob, which has no signature: arrays as the serializer wrote them are what it is known by.

    Without this a file of today would be taken for a blob, which has no checksum, when its signature is damaged.
    """
    if not has_arrays(tree):
        raise IntegrityError(
            "its first bytes are damaged, or it is no state: it has no arrays as the first implementation wrote them",
            next_step=RESTORE,
        )
    return of_tree(tree, kind)


def of_tree(tree: Any, kind: str) -> Legacy:
    """Return the memory that a tree of the serializer is: its ``state_vector`` or ``mps_tensors``, and the rest."""
    if not isinstance(tree, dict) or not all(type(key) is str for key in tree):
        raise IntegrityError("it holds no dict, and so no state", next_step=RESTORE)
    check_depth(tree)
    found = Found(notes=[NO_CHECKSUM])
    restored = {name: _restored(value, name, found) for name, value in tree.items()}
    vector, tensors = restored.pop("state_vector", None), restored.pop("mps_tensors", None)
    metadata = restored.pop("metadata", {})
    for name, value in restored.items():
        found.keep(name, value)
    found.keep_metadata(metadata)
    if isinstance(vector, np.ndarray):
        found.take_vector(vector)
    elif vector is not None:
        found.keep("state_vector", vector)
    if isinstance(tensors, list) and tensors and all(isinstance(one, np.ndarray) for one in tensors):
        found.take_tensors(tensors)
    elif tensors is not None:
        found.keep("mps_tensors", tensors)
    return found.legacy(kind, None)


def _restored(value: Any, where: str, found: Found) -> Any:
    """Return a tree with arrays in the place of the dicts that stand for them."""
    if isinstance(value, (list, tuple)):
        return type(value)(_restored(item, f"{where}/{index}", found) for index, item in enumerate(value))
    if not isinstance(value, dict):
        return value
    if value.get(TAG) not in {"numpy", "torch"}:
        return {key: _restored(item, f"{where}/{key}", found) for key, item in value.items()}
    name = str(value.get("dtype")).removeprefix("torch.")
    if name not in _DTYPES or not isinstance(value.get("shape"), (list, tuple)):
        found.notes.append(f"{where:.80} is kept as it is, for it is an array of dtype {name:.40}")
        return value
    if value[TAG] == "torch":
        facts = {key: item for key, item in value.items() if key in {"device", "requires_grad"}}
        found.classical.setdefault("torch_tensors", {})[where] = facts
        found.notes.append(f"{where:.80} was a torch tensor and is an array now; classical['torch_tensors'] says more")
    return _array(value.get("data"), _DTYPES[name], tuple(value["shape"]), where)


def _array(data: Any, dtype: np.dtype[Any], shape: tuple[Any, ...], where: str) -> Any:
    """Return the array that nested lists of numbers are, every one of which its dtype holds exactly."""
    wrong = IntegrityError(f"the data of {where:.80} do not fit its dtype and shape", next_step=RESTORE)
    flat, counted = flat_list(data if isinstance(data, list) else [data])
    if not all(type(length) is int and length >= 0 for length in shape) or flat is None:
        raise wrong
    if len(flat) != math.prod(shape) or (flat and counted != (shape or (1,))):
        raise wrong
    numbers = [_number(item) for item in flat]
    kinds = {"c": (complex, float, int), "f": (float, int), "i": (int,), "u": (int,), "b": (bool,)}[dtype.kind]
    if not all(type(number) in kinds for number in numbers):
        raise wrong
    with np.errstate(over="ignore"):
        try:
            array = np.array(numbers, dtype).reshape(shape)
        except (OverflowError, ValueError) as error:
            raise wrong from error
    exact = np.array(numbers, np.result_type(dtype, np.float64)) if dtype.kind in "cf" else array.reshape(-1)
    if not np.array_equal(array.reshape(-1), exact, equal_nan=dtype.kind in "cf"):
        raise wrong
    return array


def _number(item: Any) -> Any:
    if isinstance(item, dict) and item.keys() == {"real", "imag"}:
        real, imaginary = item["real"], item["imag"]
        if type(real) in {int, float} and type(imaginary) in {int, float}:
            return complex(real, imaginary)
    return item


def read_msgpack(source: Readable, kind: str) -> Legacy:
    """Return the memory in a blob of MessagePack."""
    check_length(source.size, MAX_TEXT_BYTES)
    return _of_blob(_Unpacker(source.read(0, source.size)).whole(), kind)


def read_base64(source: Readable, kind: str) -> Legacy:
    """Return the memory in a blob of MessagePack in base64."""
    check_length(source.size, MAX_TEXT_BYTES)
    try:
        data = base64.b64decode(source.read(0, source.size), validate=True)
    except binascii.Error as error:
        raise IntegrityError(f"its base64 is damaged: {error}", next_step=RESTORE) from error
    return _of_blob(_Unpacker(data).whole(), kind)


def read_pickle(source: Readable, kind: str, *, allow_pickle: bool) -> Legacy:
    """Return the memory in a pickle, if that is allowed.

    Raises
    ------
    UnsafeError
        It is not, or the pickle asks for anything but complex numbers.
    """
    if allow_pickle:
        return _of_blob(unpickler.loads(source, unpickler.NUMBERS, max_bytes=MAX_TEXT_BYTES), kind)
    raise UnsafeError(
        "it is a pickle, and these are only read when asked for",
        next_step="pass allow_pickle=True; nothing in it is run, and all but plain data is refused",
    )


def read_archive(source: Readable, kind: str, max_bytes: int) -> Legacy:
    """Return the memory in an archive that has a member for each key."""
    return of_tree(read_members(source, {**unpickler.ARRAYS, **unpickler.NUMBERS}, max_bytes), kind)


def read_simple(source: Readable, kind: str, max_bytes: int) -> Legacy:
    """Return the memory in an archive of ``state``, ``n_qubits`` and ``metadata``."""
    found = Found(notes=["it has the CRC-32 of the zip archive, and no other checksum"])
    members = read_members(source, unpickler.ARRAYS, max_bytes)
    state = members.pop("state", None)
    if not isinstance(state, np.ndarray):
        raise IntegrityError("it has no array of amplitudes", next_step=RESTORE)
    found.keep_metadata(members.pop("metadata", {}))
    for name, value in members.items():
        found.keep(name, value)
    found.take_vector(state)
    return found.legacy(kind, None)


class _Unpacker:
    """Read MessagePack: what it makes is bounded by how many values the text of such a file may hold."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 0
        self._left = max_nodes(len(data))

    def whole(self) -> Any:
        """Return the one value that the data are."""
        try:
            value = self._value(0)
        except (IndexError, struct.error) as error:
            raise IntegrityError("its MessagePack is cut short", next_step=RESTORE) from error
        if self._position != len(self._data):
            raise IntegrityError("something follows its MessagePack", next_step=RESTORE)
        return value

    def _value(self, level: int) -> Any:
        self._left -= 1
        if level > MAX_LEVELS or self._left < 0:
            raise UnsafeError("its MessagePack holds too many values, or is nested too deeply", next_step=_DISTRUST)
        code = self._data[self._position]
        self._position += 1
        if code < 0x80 or code >= 0xE0:
            return code if code < 0x80 else code - 0x100
        if code in _CONSTANTS:
            return _CONSTANTS[code]
        if code in _NUMBERS:
            return self._unpacked(_NUMBERS[code])
        if code < 0xC0:
            count = code & 0x1F if code >= 0xA0 else code & 0x0F
        elif code in _SIZES:
            count = self._unpacked(_SIZES[code])
        else:
            raise UnsafeError(f"its MessagePack has a value of type {code:#x}", next_step=_DISTRUST)
        if code < 0x90 or code in {0xDE, 0xDF}:
            return self._dict(count, level)
        if code < 0xA0 or code in {0xDC, 0xDD}:
            return [self._value(level + 1) for _ in range(count)]
        data = self._data[self._position : self._position + count]
        if len(data) != count:
            raise IntegrityError("its MessagePack is cut short", next_step=RESTORE)
        self._position += count
        return data if code in {0xC4, 0xC5, 0xC6} else data.decode("utf-8")

    def _dict(self, count: int, level: int) -> dict[str, Any]:
        made: dict[str, Any] = {}
        for _ in range(count):
            key = self._value(level + 1)
            if type(key) is not str or key in made:
                raise IntegrityError("its MessagePack has a key that is no text, or one twice", next_step=RESTORE)
            made[key] = self._value(level + 1)
        return made

    def _unpacked(self, layout: str) -> Any:
        (value,) = struct.unpack_from(layout, self._data, self._position)
        self._position += struct.calcsize(layout)
        return value
