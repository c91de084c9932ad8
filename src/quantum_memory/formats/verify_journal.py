"""What of many files has been checked already: a journal, so that a run that was cut off begins where it ended."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from quantum_memory.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from quantum_memory.formats.registry import Path
    from quantum_memory.formats.verify import Depth

_BEGIN, _KEY_LETTERS, _THEN = b'["', 64, b'", '


@dataclass(frozen=True)
class Checked:
    """What was found of one file.

    Attributes
    ----------
    path
        Of the file, or its address.
    content_id
        The name of its content, where it is whole, and more was looked at than its bytes.
    bytes
        How long it is.
    problems
        What is odd about the data in it; nothing is known of that where only the bytes were looked at.
    error
        What is wrong with it; None where it is whole.
    exit_code
        Of the error; 0 where there is none.
    depth
        How deep was looked: see `quantum_memory.verify`.
    """

    path: str
    content_id: str | None
    bytes: int
    problems: tuple[str, ...] = ()
    error: str | None = None
    exit_code: int = 0
    depth: Depth = "full"


Found = int | Checked
"""What travels, and is written down, of a file. A number stands for one whose bytes are whole: it has so many."""


def spelled_out(paths: Sequence[str], found: Sequence[Found]) -> list[Checked]:
    """Return what was found of some files, each in full."""
    return [
        Checked(path, None, one, depth="bytes") if type(one) is int else one  # type: ignore[misc]
        for path, one in zip(paths, found, strict=True)
    ]


class Journal:
    """What has been checked: a line of JSON for each batch of files, ``[key, [...]]``.

    Of a long one only the places of its lines are kept in memory, and a line is read when its batch comes.

    Parameters
    ----------
    path
        The file. None: nothing is written down, and nothing is known.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = None if path is None else os.fspath(path)
        self._file: Any = None
        self._places: dict[bytes, tuple[int, int]] = {}
        if self._path is None:
            return
        try:
            self._file = open(self._path, "a+b")  # noqa: PTH123, SIM115 - closed below
            try:
                self._list()
            except BaseException:
                self._file.close()
                raise
        except OSError as error:
            raise StorageError.from_os_error(error, "open the journal", self._path) from error

    @property
    def is_kept(self) -> bool:
        """Whether there is a journal."""
        return self._file is not None

    def _list(self) -> None:
        self._file.seek(0)
        at = 0
        for line in self._file:
            end = len(_BEGIN) + _KEY_LETTERS
            if line.startswith(_BEGIN) and line[end : end + len(_THEN)] == _THEN:
                self._places[line[len(_BEGIN) : end]] = (at, len(line))
            at += len(line)
        if at:
            self._file.write(b"\n")  # the last line may be torn
            self._file.flush()

    def known(self, key: str, paths: Sequence[str]) -> list[Found] | None:
        """Return what is known of files, of which there is a key that says that they have not changed."""
        place = self._places.get(key.encode())
        if place is None:
            return None
        try:
            line = os.pread(self._file.fileno(), place[1], place[0])
            said, found = json.loads(line)
            each = [_read(one, path) for one, path in zip(found, paths, strict=True)]
        except (ValueError, TypeError, KeyError, RecursionError, OSError):
            return None  # torn, or nothing that was written here: it is checked again
        return each if said == key else None

    def note(self, key: str, found: Sequence[Found]) -> None:
        """Write down what was found of a batch; what cannot be reached is tried again the next time."""
        if self._file is None or any(type(one) is Checked and one.exit_code == StorageError.exit_code for one in found):
            return
        plain = [one if type(one) is int else vars(one) for one in found]
        self._file.write(json.dumps([key, plain]).encode() + b"\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()


def _read(one: Any, path: str) -> Found:
    if type(one) is int and one >= 0:
        return one
    made = Checked(**one | {"problems": tuple(one["problems"])})
    if made.path != path or type(made.bytes) is not int:
        raise ValueError("it is nothing that was written here")
    return made
