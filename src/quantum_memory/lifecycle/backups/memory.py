"""Which backups a folder has had when it was pushed or pulled (``pushed.json``).

What was pushed and is not here any more was removed here; what is at a target and was never here is somebody else's.
Only the first may go there. It is no harm to lose it: then nothing does.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from quantum_memory.durability.files import current
from quantum_memory.durability.locks import locked_folder
from quantum_memory.durability.store_lock import LOCK_TIMEOUT
from quantum_memory.errors import ConflictError, IntegrityError, StorageError, UnsafeError, UnsupportedVersionError
from quantum_memory.lifecycle.repository.signed_json import read_signed, write_signed

if TYPE_CHECKING:
    from collections.abc import Iterable

    from quantum_memory.lifecycle.backups.folder import BackupFolder

_NAME = "pushed.json"


def remembered_pushed(folder: BackupFolder) -> set[str]:
    """Return the ids of the backups that the folder has had when it was pushed or pulled."""
    try:
        said = read_signed(os.path.join(folder.path, _NAME), {"ids"})
    except (IntegrityError, UnsafeError, UnsupportedVersionError):
        return set()
    return set() if said is None else {one for one in said["ids"] if isinstance(one, str)}


def remember_pushed(folder: BackupFolder, ids: Iterable[str], without: Iterable[str] = ()) -> None:
    """Note that the folder has these backups; on a disk that cannot be written to, nothing is noted.

    Parameters
    ----------
    without
        Ids of those that are gone everywhere, and need not be remembered any more.
    """
    path = os.path.join(folder.path, _NAME)
    with (
        contextlib.suppress(StorageError, ConflictError),
        locked_folder(current(), folder.path, path, timeout=LOCK_TIMEOUT),
    ):
        before = remembered_pushed(folder)
        if (now := before.union(ids).difference(without)) != before:
            write_signed(path, {"ids": sorted(now)}, durable=folder.durable, mode=folder.store.file_mode)
