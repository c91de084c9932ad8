"""Keep writers to a folder apart, where its file system has locks."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from quantum_memory.durability.locks import only_one

if TYPE_CHECKING:
    from collections.abc import Iterator

_WAIT = 60.0
SINGLE_WRITER = "QMEM_SINGLE_WRITER"
"""Set to 1 by who knows that nobody else writes there, where the storage cannot keep writers apart."""


@contextlib.contextmanager
def locked(folder: str) -> Iterator[None]:
    """Be the only writer in a folder, for a block.

    Raises
    ------
    ConflictError
        Somebody else is, all the time.
    StorageError
        There are no locks.
    """
    if os.environ.get(SINGLE_WRITER) == "1":
        yield
        return
    with only_one(folder, _WAIT):
        yield
