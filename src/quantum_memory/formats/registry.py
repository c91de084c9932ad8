"""The formats: their names, how their files begin, and where the code of each is.

A format is a `Handler` in a module of its own, imported when a file of it is first touched. Adding one takes that
module, a line in `FORMATS`, and a class of three lines in the tests (`quantum_memory.testing.conformance`).
"""

from __future__ import annotations

import os
from contextlib import closing
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from quantum_memory.durability.atomic import DurableFile
from quantum_memory.durability.files import Buffer, ReadableFile
from quantum_memory.errors import (
    RESTORE,
    IntegrityError,
    InvalidStateError,
    MissingError,
    MissingFileError,
    QuantumMemoryError,
    UnsafeError,
)
from quantum_memory.formats.foreign import foreign
from quantum_memory.formats.names import STORE, Named, checkpoints, named_in
from quantum_memory.formats.urls import URL, is_url, local_path, storage

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from quantum_memory.compression.forms.base import Effort
    from quantum_memory.durability.files import Readable
    from quantum_memory.encryption.envelope import Lock
    from quantum_memory.encryption.keys import Key, OneKey
    from quantum_memory.formats.prepared import Prepared
    from quantum_memory.formats.reader import Reader

    Path = str | os.PathLike[str]
    Progress = Callable[[int], object]


class Sink(Protocol):
    """Where the bytes go: a `DurableFile`, a socket's file, an ``io.BytesIO``. It is never asked to seek."""

    def write(self, data: Buffer, /) -> object:
        """Take all of `data`."""


@dataclass(frozen=True)
class Saved:
    """What `save` did.

    Attributes
    ----------
    path, format, bytes, content_id
        Where to, how, how many bytes the file has, and the name of its content.
    raw_bytes
        Of the arrays, as plain binary numbers.
    infidelity
        What is certified of a state that was packed with loss: 1 - F is at most this. None: every bit was kept.
    """

    path: str
    format: str
    bytes: int
    content_id: str
    raw_bytes: int
    infidelity: float | None = None

    @property
    def ratio(self) -> float | None:
        """Raw bytes of the arrays for each byte of the file; None where there are none, or none is stored."""
        return self.raw_bytes / self.bytes if self.raw_bytes and self.bytes else None


@dataclass(frozen=True)
class SaveOptions:
    """How to save; see `quantum_memory.save`."""

    compression: str = "auto"
    overwrite: bool = True
    durable: bool = True
    progress: Progress | None = None
    max_text_bytes: int | None = None
    readable: bool = False
    effort: Effort = "fast"
    encrypt: Sequence[Key] | Lock | None = None
    executor: Any = None


@dataclass(frozen=True)
class OpenOptions:
    """How to open; see `quantum_memory.load`."""

    max_bytes: int | None = None
    allow_pickle: bool = False
    state_id: str | None = None
    key: OneKey | None = None


class Handler:
    """What a format does. A subclass writes to a sink front to back, and opens what it wrote."""

    compressions: ClassVar[frozenset[str]] = frozenset({"auto", "none"})
    """Names of the compressions that it has."""

    packs: ClassVar[bool] = False
    """Whether quantum states are written in a form without being asked, where that keeps every bit and is quick."""

    holds_many: ClassVar[bool] = False
    """Whether a file may hold several memories, each with an id."""

    encrypts: ClassVar[bool] = False
    """Whether a file may be encrypted."""

    def write(self, sink: Sink, memory: Prepared, options: SaveOptions) -> str:
        """Write a memory and return its `content_id`."""
        raise NotImplementedError

    def open(self, source: Readable, options: OpenOptions) -> Reader:
        """Return a reader of a file, which then belongs to the reader."""
        raise NotImplementedError

    def check_bytes(self, source: Readable, options: OpenOptions, progress: Progress | None = None) -> str | None:  # noqa: ARG002
        """Compare every byte of a file with the checksums of what is stored, decode nothing, and return the format.

        None: it is damaged, or that cannot be told so. The source stays open for the full check, which says.

        Parameters
        ----------
        progress
            Called with the bytes of the file that are done.
        """
        return None

    def contents(self, source: Readable) -> dict[str, Any] | None:  # noqa: ARG002
        """Return what a file lists that holds not just one memory: ``states`` and ``time_series``. None for others."""
        return None

    def each(self, source: Readable, options: OpenOptions) -> Generator[Reader]:
        """Yield a reader of every memory in a file; it is closed when the next is asked for."""
        with closing(self.open(source, options)) as reader:
            yield reader

    def save(self, path: Path, memory: Prepared, options: SaveOptions) -> tuple[str, int, str]:
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
    legacy
        Tells files of the first implementation, where those begin like ours.
    others
        Other suffixes that ask for it.
    """

    name: str
    home: tuple[str, str]
    signs: tuple[tuple[int, bytes], ...]
    legacy: Callable[[bytes], bool] | None = None
    others: tuple[str, ...] = ()

    def begins(self, head: bytes) -> bool:
        """Tell whether a file that begins with `head` is one of this format."""
        return any(head[offset:].startswith(sign) for offset, sign in self.signs)

    def is_legacy(self, head: bytes) -> bool:
        """Tell whether a file that begins as ours do is one of the first implementation, which had the same suffix."""
        return self.legacy is not None and self.legacy(head)

    @property
    def suffixes(self) -> tuple[str, ...]:
        """The suffixes that ask for it, with their dots; the first is the one that is recommended."""
        return tuple(f".{name}" for name in (self.name, *self.others))

    @property
    def handler(self) -> Handler:
        """The code."""
        module, name = self.home
        made: Handler = getattr(import_module(f"quantum_memory.formats.{module}"), name)()
        return made


SEALED = b"\x89QME"
"""How a file begins that is encrypted."""

FORMATS = (
    Format("qms", ("binary_format", "QMS"), ((0, b"\x89QMS"), (0, SEALED))),
    Format(
        "json.zlib", ("json_format", "PackedJSON"), ((4, b'{"original_size": '),), lambda head: b'"sha256"' not in head
    ),
    # Version 3 of the superblock is the one that stores are kept in.
    Format("h5", ("hdf5_format", "HDF5"), ((0, b"\x89HDF\r\n\x1a\n"),), lambda head: head[8:9] < b"\x02"),
    Format("json", ("json_format", "JSON"), ((0, b'{"format":"quantum-memory"'),)),
    Format("msgpack", ("msgpack_format", "MessagePack"), ((1, b"\xa6format\xaequantum-memory"),)),
    Format("npz", ("npz_format", "NPZ"), ((30, b"quantum-memory.npy"),)),
    Format("pkl", ("pickle_format", "Pickle"), ((2, b"}(\x8c\x06format\x8c\x0equantum-memory"),), others=("pickle",)),
    Format("b64", ("base64_format", "Base64"), ((4, b"b3JtYXSucXVhbnR1bS1tZW1v"),)),
)
"""All formats. A suffix that ends with another comes before it."""

SUFFIXES = tuple(suffix for one in FORMATS for suffix in one.suffixes)
"""All suffixes, with their dots."""

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
        if name.endswith(one.suffixes):
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
    source, handler = opened(path, options)
    try:
        return handler.open(source, options)
    except BaseException:
        source.close()
        raise


def opened(path: Path, options: OpenOptions) -> tuple[Readable, Handler]:
    """Return an open file, or what stands for one, and the handler of its format; see `open_reader`.

    An address is that of a version. What is after an @ in a path that is not there itself is the name of a checkpoint
    in the folder before it, or the id of a state in the store before it.
    """
    if is_url(path):
        return storage().open(URL.parse(path), options)
    path = os.fspath(local_path(path))
    named = named_in(path)
    if named is None:
        try:
            return _opened_file(path, options)
        except UnsafeError as error:
            if os.path.isdir(path):  # noqa: PTH112 - of any kind of path
                error.message = "this is a folder"
                error.next_step = "give the path of a saved state in it; one of its checkpoints is FOLDER@NAME"
            raise
    if named.in_folder:
        return checkpoints().open(named, options) or _opened_file(path, options)
    return _opened_state(named, options)


def _opened_state(named: Named, options: OpenOptions) -> tuple[Readable, Handler]:
    """Return an open store, and what reads one state of it."""
    if options.state_id is not None:
        raise InvalidStateError(
            f"the name after the @ and state_id={options.state_id!r:.80} both say which state",
            path=named.said,
            next_step="leave one of them out",
        )
    try:
        source, handler = _opened_file(named.path, options)
    except QuantumMemoryError:
        if named.path.lower().endswith(STORE):
            raise
        return _opened_file(named.said, options)  # what is before the @ has nothing to do with it
    if not handler.holds_many:
        source.close()
        raise MissingFileError(
            "there is no such file",
            path=named.said,
            next_step=f"check the path; {named.path} is there, and holds one state, which has no name",
        )
    return source, _OneState(handler, named)


class _OneState(Handler):
    """What reads one state of a store that holds several."""

    def __init__(self, handler: Handler, named: Named) -> None:
        self._handler, self._named = handler, named

    def open(self, source: Readable, options: OpenOptions) -> Reader:
        try:
            reader = self._handler.open(source, replace(options, state_id=self._named.name))
        except MissingError as error:
            raise MissingFileError(error.message, path=self._named.path, next_step=error.next_step) from error
        reader.name = self._named.said
        return reader


def _opened_file(path: str, options: OpenOptions) -> tuple[Readable, Handler]:
    source = ReadableFile(path)
    try:
        head = source.read(0, min(HEAD_BYTES, source.size))
        handler = _handler_of(head, source)
        if options.key is not None and not head.startswith(SEALED):
            # Were it read, whoever can write to the folder could give his own file for one that is encrypted.
            raise _not_sealed(source.name, head)
        if options.state_id is not None and not handler.holds_many:
            raise InvalidStateError(
                "it holds one state, which has no id", path=source.name, next_step="leave state_id out"
            )
        return source, handler
    except BaseException:
        source.close()
        raise


def _not_sealed(name: str, head: bytes) -> QuantumMemoryError:
    # What has no signature may look like an old file by chance; the suffix says what it was.
    if format_of_head(head) is None and _encrypts(name):
        damaged = IntegrityError("it does not begin like an encrypted file: it is damaged", next_step=RESTORE)
        return (foreign(head) or damaged).at(name)
    return InvalidStateError(
        "it is not encrypted, and a key was given to open it",
        path=name,
        next_step="leave the key out, if it is meant to be so",
    )


def _encrypts(name: str) -> bool:
    try:
        return format_of_suffix(name).handler.encrypts
    except InvalidStateError:
        return False


def is_sealed(path: Path) -> bool:
    """Tell whether a file is encrypted; False of one that cannot be read, of which reading it says what is wrong."""
    if is_url(path):
        return False
    try:
        with ReadableFile(os.fspath(local_path(path))) as source:
            return source.read(0, min(len(SEALED), source.size)) == SEALED
    except QuantumMemoryError:
        return False


def _handler_of(head: bytes, source: ReadableFile) -> Handler:
    found = format_of_head(head)
    if found is not None and found.legacy is None:
        return found.handler
    from quantum_memory.formats.legacy.handler import LegacyFile  # noqa: PLC0415 - few files are
    from quantum_memory.formats.legacy.verbs import HEAD_BYTES as MORE  # noqa: PLC0415
    from quantum_memory.formats.legacy.verbs import recognise  # noqa: PLC0415

    head = source.read(0, min(MORE, source.size))
    if found is not None and not found.is_legacy(head):
        return found.handler
    if found is not None or recognise(head, source.name, source.size) is not None:
        return LegacyFile()
    return _format_of_name(source.name, head).handler


def _format_of_name(name: str, head: bytes) -> Format:
    try:
        return format_of_suffix(name)
    except InvalidStateError:
        unknown = IntegrityError(
            "neither its first bytes nor its suffix are those of a saved state", next_step="give the path of one"
        )
        raise (foreign(head) or unknown).at(name) from None
