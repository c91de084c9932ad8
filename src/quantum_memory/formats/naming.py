"""A look at every file that is written before it gets its name, and at the file that it replaces."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from quantum_memory.durability.files import Files, current, using
from quantum_memory.errors import ConflictError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class FileFacts(NamedTuple):
    """What tells a file from one that has taken its name, and from itself when it was changed."""

    device: int
    inode: int
    length: int
    changed: int

    @classmethod
    def of(cls, path: str) -> FileFacts:
        """Look at a file. It raises `OSError` as the operating system does."""
        facts = current().stat(path)
        return cls(facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns)


def refuse_existing(path: str | os.PathLike[str]) -> None:
    """Refuse a file that exists before long work begins; saving decides it once more.

    Raises
    ------
    ConflictError
    """
    try:
        current().stat(os.fspath(path))
    except (OSError, ValueError):
        return  # it does not exist, or saving says what is wrong with it
    raise ConflictError(
        "the file exists already", path=path, next_step="choose another name, or say overwrite (--overwrite)"
    )


@contextmanager
def before_naming(check: Callable[[str], object]) -> Iterator[None]:
    """Call `check` with the path of every file that a block writes, before it is renamed; what it raises prevents that.

    Raises
    ------
    AssertionError
        The block has ended, and no file got a name.
    """
    checking = _CheckingFiles(current(), check)
    with using(cast("Files", checking)):
        yield
    if not checking.done:
        raise AssertionError("the file got its name without having been checked")


class _PassingFiles:
    """Passes every call on to another implementation of the operating system."""

    def __init__(self, inner: Files) -> None:
        self._inner = inner
        # Found without a function of Python, in whose place an interrupt could come: see `RealFiles`.
        self.close, self.closerange = inner.close, inner.closerange

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class _HeldFiles(_PassingFiles):
    """Gives every lock: who reads here is the one who holds that of the file."""

    def try_lock(self, fd: int, shared: bool = False) -> bool:  # noqa: ARG002
        return True


class _CheckingFiles(_PassingFiles):
    """Looks at every file before it gets its name.

    Parameters
    ----------
    check
        Called with the path of the file; what it raises keeps the file from its name.
    """

    def __init__(self, inner: Files, check: Callable[[str], object]) -> None:
        super().__init__(inner)
        self.done = False
        self._check = check

    def rename(self, source: str, target: str) -> None:
        self._look(source)
        self._inner.rename(source, target)

    def link(self, source: str, target: str) -> None:
        self._look(source)
        self._inner.link(source, target)

    def _look(self, path: str) -> None:
        with using(cast("Files", _HeldFiles(self._inner))):
            self._check(path)
        self.done = True
