"""Files that nobody but their owner can read from the moment they are there."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

from quantum_memory.durability.files import Files, current, using

if TYPE_CHECKING:
    from collections.abc import Iterator

_PRIVATE = 0o600


@contextmanager
def private_files() -> Iterator[None]:
    """Create every file of a block with mode 0600; one that replaces another takes over the mode of that, as always."""
    with using(cast("Files", _PrivateFiles(current()))):
        yield


class _PrivateFiles:
    """Passes every call on to another implementation of the operating system, opening files for their owner only."""

    def __init__(self, inner: Files) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def open(self, path: str, flags: int, mode: int = _PRIVATE) -> int:
        return self._inner.open(path, flags, mode & _PRIVATE)
