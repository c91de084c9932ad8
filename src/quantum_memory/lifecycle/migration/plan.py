"""Plans: a header, a line of JSON for each file, and a last line with totals and a SHA-256 over all of it.

They are written and read line by line, so that a folder may have any number of files.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import os
from collections import Counter
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from quantum_memory.durability.files import ReadableFile
from quantum_memory.errors import InvalidStateError, QuantumMemoryError, UnsafeError, UnsupportedVersionError
from quantum_memory.formats.stream import Stream
from quantum_memory.lifecycle.migration.entries import Entry
from quantum_memory.state.json_text import from_json, to_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from quantum_memory.durability.files import Buffer
    from quantum_memory.formats.registry import Path, Sink

FORMAT, VERSION = "quantum-memory migration plan", "1.0"
HEAD = to_json({"format": FORMAT})[:-1]
"""How a plan begins."""

_LONGEST_LINE = 1 << 20
_MOST_VALUES = 1 << 14
_BUFFERED = 1 << 18
_MAKE_ANEW = "make it again: qmem migrate plan"


@dataclass(frozen=True)
class Header:
    """What stands at the beginning of a plan.

    Attributes
    ----------
    root
        The folder, as an absolute path without symbolic links.
    created
        When the plan was made, UTC.
    release
        Of quantum-memory.
    allow_pickle
        Whether pickles are read and migrated.
    """

    root: str
    created: str
    release: str
    allow_pickle: bool = False


@dataclass(frozen=True)
class Totals:
    """What stands at the end of a plan.

    Attributes
    ----------
    migrate, leave, damaged
        How many files there are of each.
    others
        Files of other programs, which are only counted.
    source_bytes
        Of the files to be migrated.
    needed_bytes, free_bytes
        Space that the new files need beside the originals, which are kept; and what was free.
    """

    migrate: int
    leave: int
    damaged: int
    others: int
    source_bytes: int
    needed_bytes: int
    free_bytes: int


class Plan:
    """A plan that was written: what is to be migrated in a folder, and how.

    Parameters
    ----------
    opened
        Opens its text from the beginning, as a context manager.
    name
        What errors call it.

    Attributes
    ----------
    header : Header
    totals : Totals
    id : str
        SHA-256 over all that it says, 64 hexadecimal digits.

    Raises
    ------
    InvalidStateError
        It is no plan, or was changed since it was written.
    UnsupportedVersionError
    UnsafeError
        It leads out of the folder, or is none that a release writes.
    """

    def __init__(self, opened: Callable[[], Any], name: str = "the plan") -> None:
        self._opened = opened
        self.name = name
        try:
            self.header, self.totals, self.id = self._checked()
        except QuantumMemoryError as error:
            raise error.at(name) from error.__cause__

    @classmethod
    def open(cls, path: Path) -> Plan:
        """Open a plan in a file, and check it."""
        name = os.fspath(path)

        @contextmanager
        def opened() -> Iterator[BinaryIO]:
            with ReadableFile(name) as source:
                yield cast("BinaryIO", io.BufferedReader(Stream(source), _BUFFERED))

        return cls(opened, name)

    def entries(self) -> Iterator[tuple[int, Entry]]:
        """Yield the files with their numbers, from 0."""
        with self._opened() as text:
            text.readline(_LONGEST_LINE)
            yield from enumerate(_entry(line) for line in itertools.islice(_lines(text), self.count))

    @property
    def count(self) -> int:
        """How many entries there are."""
        return self.totals.migrate + self.totals.leave + self.totals.damaged

    def copy_to(self, sink: Sink) -> None:
        """Write its text."""
        with self._opened() as text:
            while piece := text.read(_BUFFERED):
                sink.write(piece)

    def to_dict(self) -> dict[str, Any]:
        """Return header, totals and id as a plain dict."""
        return {"id": self.id, **asdict(self.header), **asdict(self.totals)}

    def _checked(self) -> tuple[Header, Totals, str]:
        """Read it once, and compare its digest and its totals with what there is."""
        digest, seen = hashlib.sha256(), Counter[str]()
        with self._opened() as text:
            first = text.readline(_LONGEST_LINE)
            header = _header(first)
            digest.update(first)
            last: dict[str, Any] = {}
            for line in _lines(text):
                if last:
                    raise _changed()
                if line.startswith(b'{"id":'):
                    last = _object(line)
                    continue
                digest.update(line)
                seen[_entry(line).action] += 1
        try:
            name, totals = str(last.pop("id")), Totals(**last)
        except (KeyError, TypeError):
            raise _changed() from None
        digest.update(to_json(last))
        if digest.hexdigest() != name or any(seen[what] != last[what] for what in ("migrate", "leave", "damaged")):
            raise _changed()
        return header, totals, name


def write_plan(
    sink: Sink, header: Header, entries: Iterable[Entry], others: Callable[[], int], free_bytes: int
) -> None:
    """Write a plan.

    Parameters
    ----------
    entries
        The files, which are asked for while it is written.
    others
        Asked when they are done: how many files of other programs there were.
    """
    out = _Digesting(sink)
    out.line({"format": FORMAT, "version": VERSION, **asdict(header)})
    counts = Counter[str]()
    source_bytes = needed = 0
    for entry in entries:
        out.line(entry.to_json())
        counts[entry.action] += 1
        source_bytes += sum(source.bytes for source in entry.sources)
        needed += entry.expected_bytes
    totals = Totals(counts["migrate"], counts["leave"], counts["damaged"], others(), source_bytes, needed, free_bytes)
    out.end(asdict(totals))


class _Digesting:
    """Lines on their way to a sink, with their SHA-256."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._digest = hashlib.sha256()
        self._buffer = bytearray()

    def line(self, node: dict[str, Any]) -> None:
        text = to_json(node) + b"\n"
        self._digest.update(text)
        self._write(text)

    def end(self, totals: dict[str, Any]) -> None:
        self._digest.update(to_json(totals))
        self._write(to_json({"id": self._digest.hexdigest(), **totals}) + b"\n")
        self._sink.write(self._buffer)

    def _write(self, text: Buffer) -> None:
        self._buffer += text
        if len(self._buffer) >= _BUFFERED:
            self._sink.write(self._buffer)
            self._buffer = bytearray()


def _lines(text: BinaryIO) -> Iterator[bytes]:
    while line := text.readline(_LONGEST_LINE):
        if not line.endswith(b"\n"):
            raise _changed()
        yield line


def _object(line: bytes) -> dict[str, Any]:
    try:
        node = from_json(line, max_nodes=_MOST_VALUES)
    except UnsafeError:
        raise
    except QuantumMemoryError as error:
        raise _changed() from error
    if not isinstance(node, dict):
        raise _changed()
    return node


def _entry(line: bytes) -> Entry:
    return Entry.from_json(_object(line))


def _header(line: bytes) -> Header:
    if not line.startswith(HEAD):
        raise InvalidStateError("this is no plan of a migration", next_step=_MAKE_ANEW)
    fields = _object(line)
    if fields.pop("version", None) != VERSION or fields.pop("format") != FORMAT:
        raise UnsupportedVersionError(
            f"it is a plan of another version than {VERSION}", next_step="apply it with the release that wrote it"
        )
    try:
        made = Header(**fields)
    except TypeError:
        raise _changed() from None
    texts = (made.root, made.created, made.release)
    if not all(isinstance(text, str) for text in texts) or not made.root.startswith("/"):
        raise _changed()
    return made


def _changed() -> InvalidStateError:
    return InvalidStateError("the plan was changed since it was written, or is cut short", next_step=_MAKE_ANEW)
