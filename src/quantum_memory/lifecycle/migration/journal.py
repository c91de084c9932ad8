"""The journal of a migration: a line for each stage of each file, with a checksum, appended durably.

A line is there before what it announces is done, or after what it reports is durable. Lines that are appended together
say where the first of them begins: of the last ones a kill or a power cut may have left any part, which ends before the
first that is no line. A bad one anywhere else is damage.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from array import array
from enum import IntEnum
from typing import TYPE_CHECKING, Any

from quantum_memory.durability.atomic import DurableFile
from quantum_memory.durability.files import ReadableFile, current, write_all_at
from quantum_memory.errors import RESTORE, IntegrityError, QuantumMemoryError
from quantum_memory.lifecycle.migration.workplace import explained
from quantum_memory.state.json_text import from_json, to_json

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable

_CHECK_DIGITS = 16
_LONGEST_LINE = 1 << 20
_PIECE, _ONE_LINE = 1 << 18, 1 << 12
_MOST_VALUES = 1 << 12


class Stage(IntEnum):
    """How far a file is."""

    PENDING = 0
    REPLACING = 1
    DONE = 2
    FAILED = 3
    ROLLED_BACK = 4
    LEFT = 5


_STAGES = {
    "replacing": Stage.REPLACING,
    "rolling back": Stage.REPLACING,  # as far from both ends
    "done": Stage.DONE,
    "failed": Stage.FAILED,
    "rolled back": Stage.ROLLED_BACK,
    "left": Stage.LEFT,
}


class Progress:
    """How far each file of a plan is, in a few bytes for each.

    Parameters
    ----------
    count
        How many files the plan has.

    Attributes
    ----------
    stages
        The `Stage` of each file.
    committing, committed
        Whether the originals are being removed, and whether that is done.
    """

    def __init__(self, count: int) -> None:
        self.stages = bytearray(count)
        self.committing = self.committed = False
        self._lines = array("q", bytes(8 * count))

    def take(self, line: dict[str, Any], offset: int) -> None:
        """Take note of a line of the journal, which begins at `offset`."""
        event, number = line.get("event"), line.get("n")
        if not isinstance(event, str):
            return
        if event in _STAGES and type(number) is int and 0 <= number < len(self.stages):
            self.stages[number] = _STAGES[event]
            if event not in {"done", "rolled back"}:
                self._lines[number] = offset
        self.committing |= event in {"committing", "committed"}
        self.committed |= event == "committed"

    def line_of(self, number: int) -> int:
        """Return where the line begins that says most about the stage of a file."""
        return self._lines[number]


class Journal:
    """The journal, open for appending; use it as a context manager.

    What is there is copied first: a line whose ``fsync`` failed may be in memory only, and none may stay after it that
    was cut short.

    Parameters
    ----------
    path
        The file.
    count
        How many files the plan has.
    """

    def __init__(self, path: str, count: int) -> None:
        self.path = path
        self.progress = Progress(count)
        self._files = current()
        self._length = 0
        self._fd = -1

    def __enter__(self) -> Journal:
        with DurableFile(self.path) as sink:
            if os.path.exists(self.path):
                for offset, text, line in _lines(self.path):
                    self.progress.take(line, offset)
                    sink.write(text)
        self._length = sink.length
        with explained("open", self.path):
            self._fd = self._files.open(self.path, os.O_RDWR)
        return self

    def __exit__(self, *_: object) -> None:
        fd, self._fd = self._fd, -1
        self._files.closerange(fd, fd + 1)

    def append(self, lines: Iterable[dict[str, Any]]) -> None:
        """Append lines; they are durable when this returns."""
        text = bytearray()
        taken = []
        for facts in lines:
            line = {**facts, "from": self._length}
            taken.append((line, self._length + len(text)))
            text += _sealed(line)
        if not text:
            return
        with explained("write into", self.path):
            write_all_at(self._files, self._fd, memoryview(text), self._length)
            self._files.fsync(self._fd)
        self._length += len(text)
        for line, offset in taken:
            self.progress.take(line, offset)

    def line(self, number: int) -> dict[str, Any]:
        """Return the line that says most about the stage of a file."""
        return line_at(self.path, self.progress.line_of(number))


def read_progress(path: str, count: int) -> Progress:
    """Return how far a migration is, from its journal.

    Raises
    ------
    IntegrityError
        The journal is damaged.
    """
    progress = Progress(count)
    for offset, _, line in _lines(path):
        progress.take(line, offset)
    return progress


def line_at(path: str, offset: int) -> dict[str, Any]:
    """Return the line of a journal that begins at `offset`."""
    with contextlib.closing(_lines(path, offset, _ONE_LINE)) as lines:
        return next(line for _, _, line in lines)


def _sealed(line: dict[str, Any]) -> bytes:
    check = hashlib.sha256(to_json(line)).hexdigest()[:_CHECK_DIGITS]
    return to_json({"check": check, **line}) + b"\n"


def _lines(path: str, start: int = 0, piece: int = _PIECE) -> Generator[tuple[int, bytes, dict[str, Any]], None, None]:
    """Yield offset, text and content of each line, up to where the lines that were appended last are torn."""
    torn = None
    with ReadableFile(path) as source:
        offset, rest = start, b""
        while offset + len(rest) < source.size:
            at = offset + len(rest)
            texts = (rest + source.read(at, min(piece, source.size - at))).split(b"\n")
            rest = texts.pop()
            for text in texts:
                line = _unsealed(text)
                if line is None:
                    torn = offset if torn is None else torn
                elif torn is None:
                    yield offset, text + b"\n", line
                elif _first(line, offset) > torn:
                    raise IntegrityError(f"it is damaged at byte {torn}", path=path, next_step=RESTORE)
                offset += len(text) + 1
            if len(rest) > _LONGEST_LINE:
                raise IntegrityError(f"it has no lines from byte {offset} on", path=path, next_step=RESTORE)


def _first(line: dict[str, Any], offset: int) -> int:
    """Return where the first of the lines begins that were appended with this one, which is at `offset`."""
    first = line.get("from")
    return first if type(first) is int else offset


def _unsealed(text: bytes) -> dict[str, Any] | None:
    try:
        line: dict[str, Any] = from_json(text, max_nodes=_MOST_VALUES)
        check = line.pop("check")
    except (QuantumMemoryError, AttributeError, KeyError, TypeError):
        return None
    return line if check == hashlib.sha256(to_json(line)).hexdigest()[:_CHECK_DIGITS] else None
