"""The formats: their names, how their files begin, and where the code of each is.

A format is a `Handler` in a module of its own, imported when a file of it is first touched. Adding one takes that
module, a line in `FORMATS`, and a class of three lines in the tests (`quantum_memory.testing.conformance`).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib import import_module
from pathlib import PurePath
from typing import TYPE_CHECKING, ClassVar, Protocol

from quantum_memory.durability.atomic import DurableFile
from quantum_memory.durability.files import Buffer, ReadableFile
from quantum_memory.errors import IntegrityError, InvalidStateError
from quantum_memory.formats.foreign import foreign

if TYPE_CHECKING:
    from collections.abc import Callable

    from quantum_memory.durability.files import Readable
    from quantum_memory.formats.reader import Reader
    from quantum_memory.state.memory_state import MemoryState

    Path = str | os.PathLike[str]
    Progress = Callable[[int], object]


class Sink(Protocol):
    """Where the bytes go: a `DurableFile`, a socket's file, an ``io.BytesIO``. It is never asked to seek."""

    def write(self, data: Buffer, /) -> object:
        """Take all of `data`."""


@dataclass(frozen=True)
class Saved:
    """What `save` did."""

    path: str
    format: str
    bytes: int
    content_id: str


@dataclass(frozen=True)
class SaveOptions:
    """How to save; see `quantum_memory.save`."""

    compression: str = "auto"
    overwrite: bool = True
    durable: bool = True
    progress: Progress | None = None
    max_text_bytes: int | None = None
    readable: bool = False


@dataclass(frozen=True)
class OpenOptions:
    """How to open; see `quantum_memory.load`."""

    max_bytes: int | None = None
    allow_pickle: bool = False
    state_id: str | None = None


class Handler:
    """What a format does. A subclass writes to a sink front to back, and opens what it wrote."""

    compressions: ClassVar[frozenset[str]] = frozenset({"auto", "none"})
    """Names of the compressions that it has."""

    def write(self, sink: Sink, memory: MemoryState, options: SaveOptions) -> str:
        """Write a memory and return its `content_id`."""
        raise NotImplementedError

    def open(self, source: Readable, options: OpenOptions) -> Reader:
        """Return a reader of a file, which then belongs to the reader."""
        raise NotImplementedError

    def save(self, path: Path, memory: MemoryState, options: SaveOptions) -> tuple[str, int, str]:
        """Save a memory durably and return the path, the bytes and the `content_id`."""
        with DurableFile(path, overwrite=options.overwrite, durable=options.durable) as sink:
            name = self.write(sink, memory, options)
        return sink.name, sink.length, name


@dataclass(frozen=True)
class Format:
    """A format.

    Attributes
    ----------
    name
        Its suffix, without the first dot.
    home
        Module and class of its `Handler`.
    signs
        Bytes that its files have at an offset.
    """

    name: str
    home: tuple[str, str]
    signs: tuple[tuple[int, bytes], ...]

    def begins(self, head: bytes) -> bool:
        """Tell whether a file that begins with `head` is one of this format."""
        return any(head[offset:].startswith(sign) for offset, sign in self.signs)

    @property
    def handler(self) -> Handler:
        """The code."""
        module, name = self.home
        made: Handler = getattr(import_module(f"quantum_memory.formats.{module}"), name)()
        return made


FORMATS = (
    Format("qms", ("binary_format", "QMS"), ((0, b"\x89QMS"),)),
    Format("json.zlib", ("json_format", "PackedJSON"), ((4, b'{"original_size": '),)),
    Format("json", ("json_format", "JSON"), ((0, b'{"format":"quantum-memory"'),)),
)
"""All formats. A suffix that ends with another comes before it."""

HEAD_BYTES = 64
"""How much of a file is looked at to tell its format."""


def format_named(name: str) -> Format:
    """Return a format by its name, or say which there are."""
    for one in FORMATS:
        if one.name == name:
            return one
    raise InvalidStateError(f"there is no format {name!r:.40}", next_step=f"use one of {suffixes()}")


def format_of_suffix(path: Path) -> Format:
    """Return the format that the suffix of a path asks for."""
    name = PurePath(path).name.lower()
    for one in FORMATS:
        if name.endswith(f".{one.name}"):
            return one
    raise InvalidStateError(
        "its suffix does not say a format", path=path, next_step=f"end the name with one of {suffixes()}"
    )


def suffixes() -> str:
    """Return the suffixes, for a sentence."""
    return ", ".join(f".{one.name}" for one in FORMATS)


def format_of_head(head: bytes) -> Format | None:
    """Return the format of a file that begins with `head`, None when it is none of ours."""
    return next((one for one in FORMATS if one.begins(head)), None)


def open_reader(path: Path, options: OpenOptions) -> Reader:
    """Open a file and tell its format from its first bytes; where they show none, the suffix decides.

    Raises
    ------
    IntegrityError
        Neither shows one.
    """
    source = ReadableFile(os.fspath(path))
    try:
        return _open(source, options)
    except BaseException:
        source.close()
        raise


def _open(source: ReadableFile, options: OpenOptions) -> Reader:
    head = source.read(0, min(HEAD_BYTES, source.size))
    found = format_of_head(head)
    if found is None:
        try:
            found = format_of_suffix(source.name)
        except InvalidStateError:
            unknown = IntegrityError(
                "neither its first bytes nor its suffix are those of a saved state", next_step="give the path of one"
            )
            raise (foreign(head) or unknown).at(source.name) from None
    return found.handler.open(source, options)
