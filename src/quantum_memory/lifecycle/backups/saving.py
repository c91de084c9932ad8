"""Make a backup: read what changed, on all cores, and write the chunks that are not there yet into one pack."""

from __future__ import annotations

import contextlib
import datetime
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from quantum_memory._version import __version__
from quantum_memory.compression.codecs import NONE, Zstd, codec_named, encode_if_smaller
from quantum_memory.compression.cores import on_all_cores
from quantum_memory.durability.atomic import real_path
from quantum_memory.errors import (
    ConflictError,
    IntegrityError,
    InvalidStateError,
    MissingError,
    MissingFileError,
    QuantumMemoryError,
    StorageError,
    UnsafeError,
)
from quantum_memory.lifecycle.backups.cuts import pieces
from quantum_memory.lifecycle.backups.manifest import FILE, FOLDER, LINK, Backup, BackupManifest, Entry
from quantum_memory.lifecycle.backups.sources import Changed, opened, survey
from quantum_memory.lifecycle.repository.buffers import Buffers
from quantum_memory.lifecycle.repository.chunks import prepared
from quantum_memory.lifecycle.repository.folder import new_id, now, stamp

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from quantum_memory.compression.codecs import Codec
    from quantum_memory.durability.pack_writer import PackWriter
    from quantum_memory.lifecycle.backups.folder import BackupFolder
    from quantum_memory.lifecycle.backups.sources import OpenSource
    from quantum_memory.lifecycle.repository.chunks import Chunk

_ATTEMPTS = 3
_LARGE = 4 << 20
"""Files from this length on are read by all cores together, others by one each."""

_TASK_BYTES, _TASK_FILES = 1 << 20, 32
_RACY = datetime.timedelta(seconds=2)
"""How coarse the times of a file system may be: what changed so shortly before it was read may have changed since."""

_SAMPLE = 1 << 13
_CODECS = {"zstd": Zstd(1)}
"""Those that have another level than elsewhere: the third takes twice the time, for 1 % of the bytes."""

_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)


@dataclass(frozen=True)
class Wanted:
    """What is asked of a backup.

    Attributes
    ----------
    description
        What somebody says of it.
    automatic
        Whether nobody asked for it by name.
    reread
        Whether files are read that look as they did when they were last read.
    """

    description: str = ""
    automatic: bool = False
    reread: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.description, str):
            raise InvalidStateError("a description is text", next_step="give a str")


def save(
    folder: BackupFolder,
    source: str,
    wanted: Wanted,
    compression: str,
    *,
    distrusted: Iterable[bytes] = (),
    progress: Callable[[int], object] | None = None,
) -> BackupManifest:
    """Make a backup of a file or folder, durably.

    Parameters
    ----------
    source
        From the root on.
    compression
        Name of a codec for the chunks, where it pays.
    distrusted
        Names of chunks that were found damaged: they are written anew, where the source still has what they held.
    progress
        Called with the bytes of each chunk that is done, and of each file that need not be read.

    Raises
    ------
    MissingFileError, UnsafeError, StorageError, ConflictError
        The source is not there, or is one file that cannot be read. Of a folder, such files are in `problems`.
    """
    folder.make()
    with contextlib.ExitStack() as held:
        held.enter_context(folder.store.shared())
        folder.store.distrust(distrusted)
        begun = now()
        found = survey(real_path(source), held, folder.path)
        known = {} if wanted.reread else _untouched(folder, source)
        with folder.store.writer() as writer:
            reader = _Reader(folder, writer, _CODECS.get(compression) or codec_named(compression), known, progress)
            files = reader.read(found.files)
        entries = tuple(sorted([*found.others, *files], key=lambda entry: entry.path))
        problems = tuple(sorted([*found.problems, *reader.problems]))
        listed, _ = folder.listed()
        made = BackupManifest(
            Backup(
                id=new_id(begun),
                number=max((one.number for one in listed), default=0) + 1,
                source=source,
                created_at=stamp(begun),
                description=wanted.description,
                automatic=wanted.automatic,
                is_folder=entries[0].type == FOLDER,
                files=len(files),
                folders=sum(entry.type == FOLDER for entry in entries),
                links=sum(entry.type == LINK for entry in entries),
                raw_bytes=sum(entry.size for entry in files),
                new_bytes=writer.new_bytes,
                problems=len(problems),
                imported=False,
                writer=f"quantum-memory {__version__}",
            ),
            entries,
            problems,
            tuple(found.skipped),
        )
        folder.store.settle(made.chunks(), written=writer.chunks > 0)
        folder.publish_manifest(made)
    return made


def _untouched(folder: BackupFolder, source: str) -> dict[str, Entry]:
    """Return the files of the newest backup of a source that were at rest when it was made."""
    for newest in reversed(folder.listed()[0]):
        if newest.source == source and not newest.imported:
            try:
                return {entry.path: entry for entry in at_rest_before(folder.manifest(newest.id))}
            except QuantumMemoryError:
                return {}  # it is damaged, and all is read
    return {}


def at_rest_before(made: BackupManifest) -> list[Entry]:
    """Return the files that were at rest when a backup was made: their times tell whether they were touched since."""
    since = datetime.datetime.fromisoformat(made.backup.created_at) - _RACY - _EPOCH
    limit = since // datetime.timedelta(microseconds=1) * 1000
    return [entry for entry in made.entries if entry.type == FILE and max(entry.modified_ns, entry.changed_ns) < limit]


class _Reader:
    """Reads files, and writes their chunks.

    Attributes
    ----------
    problems
        Which files could not be read, and why.
    """

    def __init__(
        self,
        folder: BackupFolder,
        writer: PackWriter,
        codec: Codec,
        known: dict[str, Entry],
        progress: Callable[[int], object] | None,
    ) -> None:
        self.problems: list[tuple[str, str]] = []
        self._store = folder.store
        self._sealer = folder.sealer
        self._writer = writer
        self._codec = codec
        self._known = known
        self._progress = progress or (lambda _: None)
        self._buffers = Buffers()

    def read(self, files: list[tuple[str, str]]) -> list[Entry]:
        """Return the entries of files, given as path in the source and path on this machine."""
        alone = [path for path, _ in files] == [""]
        entries: list[Entry] = []
        small: list[tuple[str, str, int]] = []
        large: list[tuple[str, str]] = []
        for path, at in files:
            try:
                facts = os.lstat(at)
            except OSError as error:
                self._failed(path, StorageError.from_os_error(error, "look at", at), alone=alone)
                continue
            if (same := self._same(path, facts)) is not None:
                entries.append(same)
                self._progress(same.size)
            elif facts.st_size < _LARGE:
                small.append((path, at, facts.st_size))
            else:
                large.append((path, at))
        for task in on_all_cores(lambda task: [self._small(*one) for one in task], _tasks(small)):
            entries += [entry for result in task if (entry := self._written(*result, alone=alone)) is not None]
        entries += [entry for path, at in large if (entry := self._large(path, at, alone=alone)) is not None]
        return entries

    def _same(self, path: str, facts: os.stat_result) -> Entry | None:
        """Return what the last backup has of a file, if nothing says that it was touched since."""
        known = self._known.get(path)
        if known is None or (known.size, known.modified_ns, known.inode, known.changed_ns) != (
            facts.st_size, facts.st_mtime_ns, facts.st_ino, facts.st_ctime_ns,
        ):  # fmt: skip
            return None
        return known if all(name in self._store for name in known.chunk_names()) else None

    def _small(self, path: str, at: str) -> tuple[str, Entry | None, list[Chunk], QuantumMemoryError | None]:
        """Read a file in the thread that this is called in."""
        try:
            for _ in range(_ATTEMPTS):
                with contextlib.suppress(Changed), _reading(at) as source:
                    chunks = [self._prepared(source, *piece) for piece in pieces(source.file)]
                    source.check()
                    return path, source.entry(path, b"".join(chunk.name for chunk in chunks)), chunks, None
        except (StorageError, ConflictError, UnsafeError, MissingError) as error:
            return path, None, [], error
        return path, None, [], _changing(at)

    def _written(
        self, path: str, entry: Entry | None, chunks: list[Chunk], error: QuantumMemoryError | None, *, alone: bool
    ) -> Entry | None:
        if error is not None:
            self._failed(path, error, alone=alone)
        for chunk in chunks:
            self._write(chunk)
        return entry

    def _large(self, path: str, at: str, *, alone: bool) -> Entry | None:
        """Read a file on all cores."""
        try:
            for _ in range(_ATTEMPTS):
                with contextlib.suppress(Changed), _reading(at) as source:
                    names = []
                    for chunks in on_all_cores(_of(self._prepared, source), _together(pieces(source.file))):
                        names += [chunk.name for chunk in chunks]
                        for chunk in chunks:
                            self._write(chunk)
                    source.check()
                    return source.entry(path, b"".join(names))
        except (StorageError, ConflictError, UnsafeError, MissingError) as error:
            self._failed(path, error, alone=alone)
            return None
        self._failed(path, _changing(at), alone=alone)
        return None

    def _prepared(self, source: OpenSource, offset: int, length: int) -> Chunk:
        raw = self._buffers.take(length)
        source.file.read_into(raw, offset)
        codec = self._codec if _pays(self._codec, raw) else NONE
        chunk = prepared(self._writer, raw, codec, self._sealer)
        if chunk.stored is not raw:
            self._buffers.give(raw)
        return chunk

    def _write(self, chunk: Chunk) -> None:
        if chunk.stored is not None:
            self._writer.add(chunk.name, chunk.stored, check=chunk.check, codec=chunk.codec, raw=chunk.raw)
            self._buffers.give(chunk.stored)
        self._progress(chunk.raw)

    def _failed(self, path: str, error: QuantumMemoryError, *, alone: bool) -> None:
        if alone:
            raise error
        if not isinstance(error, MissingFileError):  # which was removed since it was listed
            self.problems.append((path, error.message))


def _of(
    work: Callable[[OpenSource, int, int], Chunk], source: OpenSource
) -> Callable[[list[tuple[int, int]]], list[Chunk]]:
    return lambda some: [work(source, *piece) for piece in some]


def _together(found: Iterable[tuple[int, int]]) -> Iterator[list[tuple[int, int]]]:
    """Give pieces of a file in lists that are worth handing to a thread."""
    some: list[tuple[int, int]] = []
    nbytes = 0
    for piece in found:
        some.append(piece)
        nbytes += piece[1]
        if nbytes >= _TASK_BYTES:
            yield some
            some, nbytes = [], 0
    if some:
        yield some


@contextlib.contextmanager
def _reading(at: str) -> Iterator[OpenSource]:
    with opened(at) as source:
        try:
            yield source
        except IntegrityError as error:  # it ends before it should
            raise Changed from error


def _tasks(files: list[tuple[str, str, int]]) -> Iterator[list[tuple[str, str]]]:
    """Give files in lists that are worth a thread."""
    task: list[tuple[str, str]] = []
    nbytes = 0
    for path, at, size in files:
        task.append((path, at))
        nbytes += size
        if nbytes >= _TASK_BYTES or len(task) == _TASK_FILES:
            yield task
            task, nbytes = [], 0
    if task:
        yield task


def _pays(codec: Codec, raw: memoryview) -> bool:
    """Tell whether some of a chunk shrinks, which costs a twentieth of packing all of it in vain."""
    if codec is NONE or len(raw) <= 4 * _SAMPLE:
        return True
    samples = (raw[start : start + _SAMPLE] for start in (0, len(raw) // 2, len(raw) - _SAMPLE))
    return any(encode_if_smaller(codec, sample)[0] is not NONE for sample in samples)


def _changing(at: str) -> ConflictError:
    return ConflictError(
        f"it changed each of the {_ATTEMPTS} times that it was read", path=at, next_step="stop who writes to it"
    )
