"""Every error that Quantum Memory raises, in one hierarchy.

An error says what is wrong, with which file, and what to do next. Each class knows the exit code with which
``qmem`` ends (``docs/errors.md`` lists them), and most are also the built-in error that a caller would expect:
``except ValueError`` and ``except OSError`` keep working.
"""

from __future__ import annotations

import errno
import os
import shlex
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from os import PathLike

RESTORE = "restore the file from a copy"
"""The next step when a file is damaged."""

UPGRADE = "pip install --upgrade quantum-memory"
"""The next step when a file is of a later release."""

_ESCAPED = {"\\": r"\\", "'": r"\'", "\n": r"\n", "\t": r"\t"}


def shell_word(text: str) -> str:
    r"""Return a word of a command that is said as a shell takes it, with line breaks and bytes that are no text, too.

    Examples
    --------
    >>> print(shell_word("a file"), shell_word("a\nline"))
    'a file' $'a\nline'
    """
    if text.isprintable():
        return shlex.quote(text)
    return f"$'{''.join(map(_escaped, text))}'"


def _escaped(letter: str) -> str:
    if letter in _ESCAPED or letter.isprintable():
        return _ESCAPED.get(letter, letter)
    return "".join(f"\\x{byte:02x}" for byte in os.fsencode(letter))


class QuantumMemoryError(Exception):
    """Base of every error raised by this package.

    Parameters
    ----------
    message
        What is wrong, as a sentence without a full stop.
    path
        The file it is wrong with, when there is one.
    next_step
        What the reader can do about it.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, path: str | PathLike[str] | None = None, next_step: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.path = None if path is None else str(path)
        self.next_step = next_step

    def __str__(self) -> str:
        where = "" if self.path is None else f"{self.path}: "
        then = "" if self.next_step is None else f". Next: {self.next_step}"
        return f"{where}{self.message}{then}"

    def at(self, path: str | PathLike[str]) -> QuantumMemoryError:
        """Name the file, if nothing deeper has done so, and return the error itself."""
        if self.path is None:
            self.path = str(path)
        return self


class InvalidStateError(QuantumMemoryError, ValueError):
    """The caller gave something that is not a state, or that cannot be kept exactly."""

    exit_code = 2


class IntegrityError(QuantumMemoryError, ValueError):
    """A file is damaged: truncated, altered, or not what it says it is."""

    exit_code = 4


class UnsupportedVersionError(QuantumMemoryError, ValueError):
    """A whole file of a version, format or codec that this release does not read."""

    exit_code = 5


class MissingError(QuantumMemoryError, KeyError):
    """There is no such file, array or part."""

    exit_code = 6

    # KeyError shows the repr of its argument; a sentence is wanted.
    __str__ = QuantumMemoryError.__str__


class MissingFileError(MissingError, FileNotFoundError):
    """There is no file of that name."""


class ConflictError(QuantumMemoryError, OSError):
    """Somebody else holds it, or it exists already."""

    exit_code = 7


class StorageError(QuantumMemoryError, OSError):
    """The operating system could not read or write: no space, an I/O error, no permission."""

    exit_code = 8

    @classmethod
    def from_os_error(cls, error: OSError, doing: str, path: str | PathLike[str]) -> StorageError:
        """Say in a sentence what the operating system refused while `doing` something to `path`."""
        next_step = {
            errno.ENOSPC: "free some space and save again; the previous version is untouched",
            errno.EDQUOT: "raise the quota or free some space; the previous version is untouched",
            errno.EROFS: "choose a folder that can be written to",
            errno.EACCES: "check the permissions of the file and of its folder",
            errno.EPERM: "check the permissions of the file and of its folder",
            errno.EIO: "check the disk (dmesg, smartctl) before you rely on it",
        }.get(error.errno or 0, "check the path and the disk, and try again")
        made = cls(f"could not {doing}: {error.strerror or error}", path=path, next_step=next_step)
        made.errno = error.errno
        return made


class UnsafeError(QuantumMemoryError, ValueError):
    """Refused because it could do harm: past a limit, or able to run code."""

    exit_code = 9


class BudgetError(UnsafeError, MemoryError):
    """It would need more memory than the caller allowed."""


class WrongKeyError(QuantumMemoryError, ValueError):
    """It is encrypted, and cannot be opened with the key that was given, or none was given."""

    exit_code = 10
