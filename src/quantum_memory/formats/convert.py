"""Write a saved memory in another format, and check what was written before it gets its name."""

from __future__ import annotations

import os
from contextlib import closing
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, cast

from quantum_memory.durability.files import Files, current, using
from quantum_memory.errors import ConflictError, IntegrityError, InvalidStateError
from quantum_memory.formats.reader import WholeReader, identities, read_memory
from quantum_memory.formats.registry import OpenOptions, format_of_suffix, open_reader
from quantum_memory.formats.verbs import save
from quantum_memory.formats.verify import verify
from quantum_memory.state.document import content_id, well_formed

if TYPE_CHECKING:
    from collections.abc import Callable

    from quantum_memory.formats.reader import Reader
    from quantum_memory.formats.registry import Path, Progress
    from quantum_memory.state.memory_state import MemoryState


@dataclass(frozen=True)
class Converted:
    """What `convert` did.

    Attributes
    ----------
    source, source_format, source_bytes
        What was read.
    path, format, bytes
        What was written.
    content_id
        Of both.
    notes
        What is odd about the source, which was read all the same.
    """

    source: str
    source_format: str
    source_bytes: int
    path: str
    format: str
    bytes: int
    content_id: str
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return it as a plain dict."""
        return asdict(self)


def convert(
    source: Path,
    target: Path,
    *,
    compression: str = "auto",
    overwrite: bool = False,
    durable: bool = True,
    progress: Progress | None = None,
    check_progress: Progress | None = None,
    max_bytes: int | None = None,
    max_text_bytes: int | None = None,
    allow_pickle: bool = False,
    state_id: str | None = None,
) -> Converted:
    """Write a saved memory to another file, in the format that its suffix says.

    The new file is checked byte by byte, and gets its name only when its content is that of the source, bit for bit.
    Whatever goes wrong before leaves the target as it was. The source is only read; what of it is stored as it is is
    mapped, so that a state may be larger than the memory of the machine.

    Parameters
    ----------
    source, target
        From where, and where to.
    overwrite
        Whether a target that exists is replaced.
    progress
        Called with the raw bytes of each chunk that was read, and again with those of each that was written.
    check_progress
        Called with the raw bytes of each chunk of the new file that was checked.
    max_bytes, allow_pickle, state_id
        See `quantum_memory.load`, for the source; what is mapped does not count.
    compression, durable, max_text_bytes
        See `quantum_memory.save`, for the target.

    Raises
    ------
    IntegrityError
        The source is damaged; or what was written is not what was read, and was removed.
    ConflictError
        The target exists, and `overwrite` is False.
    InvalidStateError
        The target cannot hold the memory, or is the source.
    BudgetError, MissingError, MissingFileError, StorageError, UnsafeError, UnsupportedVersionError
    """
    name = os.fspath(target)
    format_of_suffix(name)  # before anything is read
    with closing(open_reader(source, OpenOptions(max_bytes, allow_pickle, state_id))) as reader:
        _check_target(reader.name, name, overwrite=overwrite)
        with well_formed(reader.name):
            content = content_id(reader.document, identities(reader))
        memory = _read(reader, max_bytes, progress)
        checking = _CheckingFiles(current(), lambda written: _check(written, name, content, check_progress))
        with using(cast("Files", checking)):
            saved = save(
                memory,
                name,
                compression=compression,
                overwrite=overwrite,
                durable=durable,
                progress=progress,
                max_text_bytes=max_text_bytes,
            )
        if not checking.done:
            raise AssertionError("the file got its name without having been checked")
        return Converted(
            reader.name, reader.format, reader.size, saved.path, saved.format, saved.bytes, content, reader.notes
        )


class _PassingFiles:
    """Passes every call on to another implementation of the operating system."""

    def __init__(self, inner: Files) -> None:
        self._inner = inner

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


def _check_target(source: str, target: str, *, overwrite: bool) -> None:
    """Refuse a target that must not be replaced before the work begins; saving decides it once more."""
    try:
        here, there = current().stat(source), current().stat(target)
    except (OSError, ValueError):
        return  # it does not exist, or saving says what is wrong with it
    if os.path.samestat(here, there):
        raise InvalidStateError(
            "it is the file that is to be converted", path=target, next_step="give another name for the new one"
        )
    if not overwrite:
        raise ConflictError(
            "the file exists already", path=target, next_step="choose another name, or say overwrite (--overwrite)"
        )


def _read(reader: Reader, max_bytes: int | None, progress: Progress | None) -> MemoryState:
    """Return the memory, mapped where it is stored as it is."""
    if isinstance(reader, WholeReader):  # it is in memory already
        return read_memory(reader, max_bytes=max_bytes, progress=progress)
    return read_memory(reader, mmap=True, max_bytes=max_bytes, progress=progress)


def _check(written: str, target: str, content: str, progress: Progress | None) -> None:
    """Refuse a file that was written when it is not whole, or has another content."""
    try:
        found: str | None = verify(written, progress=progress, allow_pickle=True).content_id  # we have written it
    except IntegrityError:
        found = None
    if found != content:
        raise IntegrityError(
            "what was written is not what was read, and was removed",
            path=target,
            next_step="check the memory and the disk of this machine, and convert again",
        )
