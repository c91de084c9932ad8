"""Names of what is migrated: which format a file of a name becomes, and which id a state gets."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING

from quantum_memory.errors import InvalidStateError
from quantum_memory.formats.registry import format_of_suffix

if TYPE_CHECKING:
    from collections.abc import Iterable

KEPT_COPY = ".json.backup_"
"""What stands in the name of a copy that the first implementation kept when it migrated a file in its place."""

_PACKED_ARCHIVE = ".npz.zlib"
_ESCAPED, _HASHED = "id=", "sha256="
_UNSAFE = re.compile(rb"[^A-Za-z0-9._+@-]")


def target_of(path: str) -> str:
    """Return the format that a file becomes. It keeps its name.

    Two kinds of names of the first implementation end with no suffix of today's; their files are told by their first
    bytes.

    Raises
    ------
    InvalidStateError
        Its name says none.
    """
    name = path.rpartition("/")[2]
    if KEPT_COPY in name:
        return "json"
    return "npz" if name.lower().endswith(_PACKED_ARCHIVE) else format_of_suffix(name).name


def may_be_ours(name: str) -> bool:
    """Tell whether a file of this name may be migrated."""
    try:
        target_of(name)
    except InvalidStateError:
        return False
    return True


def kept_copy_of(path: str) -> str | None:
    """Return which file a path was a copy of, when the first implementation migrated that; None for any other."""
    folder, slash, name = path.rpartition("/")
    stem, mark, _ = name.partition(KEPT_COPY)
    return f"{folder}{slash}{stem}.json" if mark else None


def new_ids(ids: Iterable[str]) -> dict[str, str]:
    """Return the id that each state of an old store gets in the new one: its own, where that may be one.

    In another, each byte that no id may have, and each ``=``, becomes ``=`` and two hexadecimal digits, with ``id=`` in
    front. Where that is longer than an id may be, it is ``sha256=`` and as much of the SHA-256 of the old id as fits.

    Raises
    ------
    InvalidStateError
        Two states would have one id.
    """
    from quantum_memory.formats.hdf5_storage import ID_LENGTH, is_state_id  # noqa: PLC0415 - only for HDF5

    made: dict[str, str] = {}
    for old in ids:
        data = old.encode(errors="surrogateescape")
        new = old if is_state_id(old) else _ESCAPED + _UNSAFE.sub(_escape, data).decode("ascii")
        made[old] = new if len(new) <= ID_LENGTH else (_HASHED + hashlib.sha256(data).hexdigest())[:ID_LENGTH]
    if len(set(made.values())) != len(made):
        raise InvalidStateError("two of its states would have one id: ids are of letters, digits and ._+@=-")
    return made


def _escape(byte: re.Match[bytes]) -> bytes:
    return b"=%02X" % byte[0][0]
