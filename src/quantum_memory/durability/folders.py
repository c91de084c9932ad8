"""Make folders, and the names in them, durable."""

from __future__ import annotations

import os

from quantum_memory.durability.atomic import sync_folder
from quantum_memory.durability.files import current
from quantum_memory.errors import StorageError


def make_folder(folder: str, *, durable: bool = True, mode: int = 0o777) -> None:
    """Make a folder where there is none, and those above it, and make their names durable.

    Parameters
    ----------
    mode
        Permission bits of the folder, not of those above it.

    Raises
    ------
    StorageError
    """
    files, there, above = current(), False, os.path.dirname(os.path.abspath(folder))
    if not os.path.isdir(above):
        make_folder(above, durable=durable)
    try:
        files.mkdir(folder, mode)
    except FileExistsError:
        there = True  # but whoever made it may have died before its name was durable, or be about to make it so
    except OSError as error:
        raise StorageError.from_os_error(error, "make the folder", folder) from error
    if durable:
        sync_names(above, must=not there)


def sync_names(folder: str, *, must: bool = True) -> None:
    """Make the names in a folder durable; unless one `must`, only where this user may open it.

    Raises
    ------
    StorageError
    """
    try:
        sync_folder(current(), folder, must=must)
    except OSError as error:
        raise StorageError.from_os_error(error, "make the names durable in", folder) from error
