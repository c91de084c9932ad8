"""NumPy archives (``.npz``): zip files of arrays, some of which are pickles of plain data."""

from __future__ import annotations

import math
import re
import zipfile
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np

from quantum_memory.errors import RESTORE, BudgetError, IntegrityError, UnsafeError
from quantum_memory.formats import unpickler
from quantum_memory.formats.stream import Stream

if TYPE_CHECKING:
    from collections.abc import Mapping

    from quantum_memory.durability.files import Readable

MAX_MEMBERS = 1000
MAX_PICKLE_BYTES = 16 << 20
"""How long the pickle in a member may be."""

_DIRECTORY_BYTES = 1 << 20
_PIECE = 1 << 20
_END_BYTES = 22
_COMMENT_BYTES = 1 << 16
_HEADER = re.compile(
    r"\{'descr': '([<|][a-zA-Z]\d*)', 'fortran_order': (True|False), "
    r"'shape': \((|\d{1,18},|\d{1,18}(?:, \d{1,18}){1,31})\), \} *\n"
)
_NUMBERS = frozenset(
    {"|b1", "|i1", "|u1", "<i2", "<u2", "<i4", "<u4", "<i8", "<u8", "<f2", "<f4", "<f8", "<c8", "<c16"}
)
_TEXT = re.compile(r"<U\d{1,7}")
_PYTHON = frozenset({"|b1", "<i8", "<f8", "<c16"})
_DISTRUST = "do not trust this file: no release writes one like it"


def read_members(source: Readable, allowed: Mapping[unpickler.Name, Any], max_bytes: int) -> dict[str, Any]:
    """Return what the members of an archive hold, by their names without ``.npy``.

    Arrays without axes become the Python values that were saved; pickled ones what `unpickler.loads` makes of them.

    Parameters
    ----------
    source
        The archive.
    allowed
        The names that may stand in its pickles.
    max_bytes
        What its arrays may take in memory.

    Raises
    ------
    IntegrityError, UnsafeError, BudgetError, StorageError
    """
    _check_directory(source)
    stream = Stream(source)
    try:
        with zipfile.ZipFile(stream) as archive:
            return _members(archive, allowed, max_bytes)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, OSError) as error:
        if stream.failure is not None:
            raise stream.failure from None
        raise IntegrityError(f"it is no whole zip archive: {error!s:.200}", next_step=RESTORE) from error


def _check_directory(source: Readable) -> None:
    """Refuse a directory that is longer than one of `MAX_MEMBERS` arrays, before it is read."""
    length = min(source.size, _END_BYTES + _COMMENT_BYTES)
    end = source.read(source.size - length, length)
    at = end.rfind(b"PK\x05\x06")
    if at < 0 or len(end) - at < _END_BYTES:
        raise IntegrityError("it does not end like a zip archive: it is cut short", next_step=RESTORE)
    if int.from_bytes(end[at + 12 : at + 16], "little") > _DIRECTORY_BYTES:
        raise UnsafeError("it has more members than an archive of a state", next_step=_DISTRUST)


def _members(archive: zipfile.ZipFile, allowed: Mapping[unpickler.Name, Any], max_bytes: int) -> dict[str, Any]:
    infos = archive.infolist()
    names = [info.filename for info in infos]
    if len(infos) > MAX_MEMBERS or len(set(names)) != len(names):
        raise UnsafeError("it has more members than an archive of a state, or one of them twice", next_step=_DISTRUST)
    total = sum(info.file_size for info in infos)
    if total > max_bytes:
        raise BudgetError(
            f"its arrays need {total} bytes, {max_bytes} are allowed",
            next_step=f"pass max_bytes={total} if they are there",
        )
    made = {}
    for info in infos:
        if not info.filename.endswith(".npy") or info.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
            raise IntegrityError(f"it has a member {info.filename!r:.80}, which is no array", next_step=RESTORE)
        with archive.open(info) as member:
            made[info.filename.removesuffix(".npy")] = _array(member, info, allowed)
    return made


def _array(member: Any, info: zipfile.ZipInfo, allowed: Mapping[unpickler.Name, Any]) -> Any:
    start = member.read(10)
    if start[:8] != b"\x93NUMPY\x01\0":
        raise IntegrityError(f"its member {info.filename!r:.80} is no NumPy array", next_step=RESTORE)
    length = int.from_bytes(start[8:10], "little")
    header = _HEADER.fullmatch(member.read(length).decode("latin-1"))
    if header is None:
        raise IntegrityError(f"its member {info.filename!r:.80} has a damaged header", next_step=RESTORE)
    described, fortran, axes = header.groups()
    shape = tuple(int(digits) for digits in re.findall(r"\d+", axes))
    rest = info.file_size - 10 - length
    if described == "|O":
        if rest > MAX_PICKLE_BYTES or len(shape) > 1:
            raise UnsafeError(f"its member {info.filename!r:.80} is too large a pickle", next_step=_DISTRUST)
        return _pickled(_whole(member, rest), shape, allowed)
    if described not in _NUMBERS and not _TEXT.fullmatch(described):
        raise UnsafeError(f"its member {info.filename!r:.80} has the dtype {described}", next_step=_DISTRUST)
    dtype = np.dtype(described)
    # 1100: a little more than zlib can make of anything
    if math.prod(shape) * dtype.itemsize != rest or rest > 1100 * (info.compress_size + 1):
        raise IntegrityError(f"the shape of its member {info.filename!r:.80} does not fit its data", next_step=RESTORE)
    array = np.frombuffer(_whole(member, rest), dtype).reshape(shape, order="F" if fortran == "True" else "C")
    if shape == () and (described in _PYTHON or dtype.kind == "U"):
        return array.item()
    return array[()]


def _whole(member: Any, length: int) -> bytearray:
    """Return the rest of a member, whose checksum has then been checked."""
    data = bytearray(length)
    done = 0
    while done < length and (got := member.readinto(memoryview(data)[done : done + _PIECE])):
        done += got
    if done != length or member.read(1):
        raise IntegrityError("a member has another length than the archive says", next_step=RESTORE)
    return data


def _pickled(data: bytearray, shape: tuple[int, ...], allowed: Mapping[unpickler.Name, Any]) -> Any:
    value = unpickler.loads(bytes(data), allowed, max_bytes=MAX_PICKLE_BYTES)
    if shape and (not isinstance(value, list) or len(value) != shape[0]):
        raise IntegrityError("a pickled member has another shape than its header says", next_step=RESTORE)
    return value
