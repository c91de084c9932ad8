"""Copies of files in backups, for a moment: some formats are read from files only."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from typing import TYPE_CHECKING

from quantum_memory.errors import QuantumMemoryError, StorageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from quantum_memory.durability.files import Buffer

_MEMORY = "/dev/shm"  # noqa: S108 - a folder of our own is made in it


@contextlib.contextmanager
def copied(chunks: Iterable[Buffer], name: str, nbytes: int) -> Iterator[str]:
    """Give the path of a copy that nobody else can read, and that is gone afterwards.

    It is in memory where there is room, since what is encrypted in a backup is not so in the copy.

    Parameters
    ----------
    chunks
        Its bytes.
    name
        What it is called.
    nbytes
        How many bytes it has.

    Raises
    ------
    StorageError
        There is no room.
    """
    with tempfile.TemporaryDirectory(prefix="qmem-", dir=_place(nbytes), ignore_cleanup_errors=True) as place:
        path = os.path.join(place, name)
        try:
            with open(path, "xb") as sink:
                sink.writelines(chunks)
        except OSError as error:
            if isinstance(error, QuantumMemoryError):
                raise
            raise StorageError.from_os_error(error, "write a copy to", place) from error
        yield path


def _place(nbytes: int) -> str | None:
    """Return a folder in memory, or None for that of temporary files."""
    try:
        return _MEMORY if nbytes < shutil.disk_usage(_MEMORY).free // 2 else None
    except OSError:
        return None
