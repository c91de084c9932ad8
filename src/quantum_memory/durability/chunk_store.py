"""A store of chunks in a folder, each under a name of 32 bytes, for any number of threads and processes.

What is saved in one go is one pack (`pack`), written front to back; a chunk that is there is not written again. Packs
are never changed: what nobody needs any more goes with its pack, or by copying what is needed into a new one.

Locks: whoever saves or reads holds the store together with others (`shared`), whoever collects holds it `alone`. So
between the look that finds a chunk there and the manifest that needs it, no collector can come. A lock ends with the
process that has it. The file that is locked counts the collections: a store that was collected since the last look is
read anew.

The names mean nothing here. Those who use the store name chunks by the SHA-256 of what they hold, and compare it when
they read.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import struct
import threading
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from quantum_memory.durability import forks, pack
from quantum_memory.durability.atomic import DurableFile, sync_folder
from quantum_memory.durability.files import ReadableFile, close_quietly, current, read_up_to, write_all_at
from quantum_memory.durability.locks import open_locked
from quantum_memory.durability.pack_writer import PackWriter
from quantum_memory.errors import (
    RESTORE,
    ConflictError,
    IntegrityError,
    MissingError,
    MissingFileError,
    StorageError,
    UnsafeError,
    UnsupportedVersionError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from quantum_memory.durability.pack import Place

LOCK_TIMEOUT = 30.0
"""Seconds to wait for a lock."""

WASTE = 0.2
"""How much of the store may be chunks that nobody needs, beside others in their packs that somebody does."""

_SUFFIX = ".qmpack"
_NAME = re.compile(r"[0-9a-f]{32}\.qmpack")
_OPEN_FILES = 64
_UNKNOWN = -1
_LOCK = struct.Struct("<8sIIQ")
_LOCK_SIGNATURE = b"\x89QML\r\n\x1a\n"


@dataclass
class Collected:
    """What a collection did.

    Attributes
    ----------
    packs_removed, packs_written
        How many packs went, and how many were made of what was needed of them.
    chunks_removed, bytes_removed
        How many chunks went, and how many bytes their packs have lost altogether.
    bytes_kept
        Bytes of the packs that are there now.
    """

    packs_removed: int = 0
    packs_written: int = 0
    chunks_removed: int = 0
    bytes_removed: int = 0
    bytes_kept: int = 0

    def to_dict(self) -> dict[str, int]:
        """Return it as a plain dict."""
        return asdict(self)


class ChunkStore:
    """The chunks of a folder.

    Parameters
    ----------
    folder
        Where the packs are; it is made when something is first saved.
    durable
        Whether to ``fsync``.

    Raises
    ------
    StorageError, IntegrityError, UnsupportedVersionError
        As its methods do.
    """

    def __init__(self, folder: str | os.PathLike[str], *, durable: bool = True) -> None:
        # Whole, so that it stays the same one wherever the process goes.
        self.folder = os.path.abspath(folder)
        self._packs_at = os.path.join(self.folder, "chunks")
        self._lock_at = os.path.join(self.folder, "lock")
        self._durable = durable
        self._packs: dict[str, dict[bytes, Place]] = {}
        self._where: dict[bytes, str] = {}
        self._open: dict[str, ReadableFile] = {}
        self._generation = _UNKNOWN
        self._guard = threading.RLock()
        self._held: set[int] = set()
        self._bad: set[bytes] = set()
        self.damaged: dict[str, IntegrityError | UnsafeError] = {}
        forks.tell(self)

    def forked(self) -> None:
        """Let go of the locks of the process that this one was forked from, of which it has copies."""
        for fd in self._held:
            with contextlib.suppress(OSError):
                os.close(fd)
        self._held = set()
        self._guard = threading.RLock()
        self._generation = _UNKNOWN  # another thread may have been about to change what is known

    # --- locks

    @contextlib.contextmanager
    def shared(self, *, timeout: float = LOCK_TIMEOUT) -> Iterator[None]:
        """Hold the store together with others, and know all that is in it: nothing is removed meanwhile.

        Raises
        ------
        ConflictError
            It is being collected.
        """
        fd = self._locked(write=False, timeout=timeout)
        try:
            self._refresh(self._generation_of(fd))
            yield
        finally:
            self._let_go(fd)

    @contextlib.contextmanager
    def alone(self, *, timeout: float = LOCK_TIMEOUT) -> Iterator[None]:
        """Hold the store alone, and know all that is in it.

        Raises
        ------
        ConflictError
            Others hold it.
        """
        fd = self._locked(write=True, timeout=timeout)
        try:
            generation = self._generation_of(fd) + 1
            # Written before anything is removed, so that whoever remembers what was there looks again.
            self._write_generation(fd, generation)
            self._refresh(generation)
            yield
        finally:
            self._let_go(fd)

    def _locked(self, *, write: bool, timeout: float) -> int:
        try:
            fd = open_locked(current(), self._lock_at, self.folder, write=write, timeout=timeout)
        except MissingFileError:
            self.make()
            fd = open_locked(current(), self._lock_at, self.folder, write=write, timeout=timeout)
        self._held.add(fd)
        return fd

    def _let_go(self, fd: int) -> None:
        if fd in self._held:  # otherwise this process was forked within the block
            self._held.discard(fd)
            close_quietly(current(), fd)

    def make(self) -> None:
        """Make the folders and the file that is locked, durably, where they are not there."""
        for folder in (self.folder, self._packs_at):
            make_folder(folder, durable=self._durable)
        lock = DurableFile(self._lock_at, overwrite=False, durable=self._durable)
        with contextlib.suppress(ConflictError), lock as sink:  # another may have just made it
            sink.write(_LOCK.pack(_LOCK_SIGNATURE, pack.VERSION, pack.MINIMUM_READER, 0))

    def _generation_of(self, fd: int) -> int:
        """Return how often the store was collected, having checked that the file which is locked is that of a store."""
        buffer = bytearray(_LOCK.size)
        try:
            read_up_to(current(), fd, memoryview(buffer), 0)
        except OSError as error:
            raise StorageError.from_os_error(error, "read", self._lock_at) from error
        signature, version, minimum, generation = _LOCK.unpack(buffer)
        if signature != _LOCK_SIGNATURE:
            raise IntegrityError(
                "this is not the lock of a folder of checkpoints or backups",
                path=self._lock_at,
                next_step="give another folder, or remove this file if nobody uses the folder",
            )
        if minimum > pack.VERSION:
            raise UnsupportedVersionError(
                f"the folder has version {version} and needs a release that reads version {minimum}",
                path=self.folder,
                next_step="pip install --upgrade quantum-memory",
            )
        return int(generation)

    def _write_generation(self, fd: int, generation: int) -> None:
        data = memoryview(_LOCK.pack(_LOCK_SIGNATURE, pack.VERSION, pack.MINIMUM_READER, generation))
        try:
            write_all_at(current(), fd, data, 0)
            if self._durable:
                current().fsync(fd)
        except OSError as error:
            raise StorageError.from_os_error(error, "write to", self._lock_at) from error

    # --- what is there

    def _refresh(self, generation: int) -> None:
        """Take note of packs that others have made, and, after a collection, of those that are gone."""
        with self._guard:
            names = {name for name in self._names() if _NAME.fullmatch(name)}
            if self._generation == _UNKNOWN:
                self.close()
                self._packs.clear()
                self._where.clear()
            if generation != self._generation:
                for name in set(self._packs) - names:
                    self._forget(name)
                self._generation = generation
            for name in sorted(names - set(self._packs) - set(self.damaged)):
                try:
                    with self._file(name) as file:
                        self._note(name, pack.read_index(file))
                except (IntegrityError, UnsafeError) as error:
                    self.damaged[name] = error

    def _names(self) -> list[str]:
        try:
            return current().names(self._packs_at)
        except OSError as error:
            raise StorageError.from_os_error(error, "list", self._packs_at) from error

    def _note(self, name: str, chunks: dict[bytes, Place]) -> None:
        self._packs[name] = chunks
        for chunk in chunks:
            self._where.setdefault(chunk, name)

    def _forget(self, name: str) -> None:
        for chunk in self._packs.pop(name):
            if self._where.get(chunk) == name:
                del self._where[chunk]
        for other, chunks in self._packs.items():  # what was there twice is still there
            for chunk in chunks:
                self._where.setdefault(chunk, other)
        if (file := self._open.pop(name, None)) is not None:
            file.close()

    @contextlib.contextmanager
    def _file(self, name: str) -> Iterator[ReadableFile]:
        """Give an open pack. A few stay open, until a collection or `close`, when nobody reads them."""
        with self._guard:
            file = self._open.get(name)
            if file is None and len(self._open) < _OPEN_FILES:
                file = self._open[name] = ReadableFile(self._path(name))
        if file is not None:
            yield file
            return
        with contextlib.closing(ReadableFile(self._path(name))) as file:
            yield file

    def _path(self, name: str) -> str:
        return os.path.join(self._packs_at, name)

    def __contains__(self, chunk: bytes) -> bool:
        return chunk in self._where and chunk not in self._bad

    def __len__(self) -> int:
        return len(self._where)

    @property
    def nbytes(self) -> int:
        """Bytes of all packs."""
        with self._guard:
            return sum(map(pack.length, self._packs.values()))

    def place(self, chunk: bytes) -> tuple[str, Place]:
        """Return the pack that a chunk is in, and where.

        Raises
        ------
        MissingError
            It is in none.
        """
        with self._guard:
            try:
                name = self._where[chunk]
            except KeyError:
                raise MissingError(
                    f"its chunk {chunk.hex()[:16]} is in none of the packs", path=self._packs_at, next_step=RESTORE
                ) from None
            return name, self._packs[name][chunk]

    # --- read

    def read_into(self, chunk: bytes, buffer: memoryview) -> Place:
        """Read the stored bytes of a chunk, compared with their checksum, into the beginning of a buffer.

        Another copy, which may be packed in another way, takes the place of a damaged one, if it fits the buffer; what
        is returned is what was read.

        Raises
        ------
        MissingError, IntegrityError, StorageError
        """
        name, place = self.place(chunk)
        if not self._read(name, place, buffer):
            others = [other for other in self.packs if other != name and chunk in self._packs[other]]
            for other in others:  # it was written twice, by two at the same time, or since it was found damaged
                copy = self._packs[other][chunk]
                if self._read(other, copy, buffer):
                    self._where[chunk] = other
                    return copy
            self._bad.add(chunk)  # whoever saves it the next time writes it anew
            raise pack.damaged_chunk(self._path(name), place)
        return place

    def _read(self, name: str, place: Place, buffer: memoryview) -> bool:
        """Read the stored bytes of a chunk, and tell whether they fit the buffer and match their checksum."""
        if place.stored > len(buffer):
            return False
        view = buffer[: place.stored]
        with self._file(name) as file:
            file.read_into(view, place.offset)
        return pack.checksum(view) == place.check

    def map(self, name: str, offset: int, length: int) -> memoryview:
        """Return bytes of a pack as private memory; nothing is checked."""
        with contextlib.closing(ReadableFile(self._path(name))) as file:
            return file.map(offset, length)

    def check(self, name: str, look: Callable[[bytes, Place, memoryview], object] | None = None) -> int:
        """Check every byte of a pack, and return how many chunks it has.

        Parameters
        ----------
        look
            Called with the name, the place and the stored bytes of each.
        """
        with contextlib.closing(ReadableFile(self._path(name))) as file:
            return pack.check_everything(file, look)

    @property
    def packs(self) -> list[str]:
        """Names of the packs that can be read."""
        with self._guard:
            return sorted(self._packs)

    # --- write

    def writer(self) -> PackWriter:
        """Return a writer of one pack; the store has to be held while it is used."""
        return PackWriter(self, self._path(secrets.token_hex(16) + _SUFFIX), self._durable)

    def added(self, path: str, chunks: dict[bytes, Place]) -> None:
        """Take note of a pack that was written."""
        with self._guard:
            name = os.path.basename(path)
            self._note(name, chunks)
            for chunk in self._bad.intersection(chunks):
                self._where[chunk] = name
            self._bad.difference_update(chunks)

    # --- collect

    def collect(self, needed: Collection[bytes]) -> Collected:
        """Remove what nobody needs; the store has to be held alone.

        Packs of which nothing is needed are removed. When what is not needed in the others is more than `WASTE` of the
        store, those with the most of it are written anew, without it. The new pack is durable before an old one goes.

        Parameters
        ----------
        needed
            Names of chunks; others go.
        """
        done = Collected()
        before = self.nbytes
        waste: list[tuple[int, str]] = []
        with self._guard:
            for name in self.packs:
                chunks = self._packs[name]
                dead = [place.stored for chunk, place in chunks.items() if not self._is_needed(chunk, name, needed)]
                if len(dead) == len(chunks):
                    done.chunks_removed += len(dead)
                    self._remove(name, done)
                elif dead:
                    waste.append((sum(dead), name))
            if sum(bytes_ for bytes_, _ in waste) > WASTE * self.nbytes:
                self._rewrite(waste, needed, done)
        if done.packs_removed and self._durable:
            _sync(self._packs_at)
        done.bytes_kept = self.nbytes
        done.bytes_removed = before - done.bytes_kept
        return done

    def _is_needed(self, chunk: bytes, name: str, needed: Collection[bytes]) -> bool:
        """Tell whether a chunk of a pack is needed, and not whole in another pack, too."""
        if chunk not in needed:
            return False
        other, place = self.place(chunk)
        if other != name and not self._read(other, place, memoryview(bytearray(place.stored))):
            self._where[chunk] = name
        return self._where[chunk] == name

    def _remove(self, name: str, done: Collected) -> None:
        try:
            current().unlink(self._path(name))
        except OSError as error:
            raise StorageError.from_os_error(error, "remove", self._path(name)) from error
        self._forget(name)
        done.packs_removed += 1

    def _rewrite(self, waste: list[tuple[int, str]], needed: Collection[bytes], done: Collected) -> None:
        allowed, left = WASTE / 2 * self.nbytes, sum(bytes_ for bytes_, _ in waste)
        old: list[str] = []
        with self.writer() as writer:
            for dead, name in sorted(waste, reverse=True):
                if left <= allowed:
                    break
                left -= dead
                old.append(name)
                for chunk, place in self._packs[name].items():
                    if self._is_needed(chunk, name, needed):
                        stored = memoryview(bytearray(max(place.stored, place.raw)))
                        found = self.read_into(chunk, stored)
                        writer.copy(chunk, found, stored[: found.stored])
                    else:
                        done.chunks_removed += 1
        done.packs_written += writer.chunks > 0
        for name in old:
            self._remove(name, done)

    def close(self) -> None:
        """Close the packs."""
        with self._guard:
            while self._open:
                self._open.popitem()[1].close()


def make_folder(folder: str, *, durable: bool = True) -> None:
    """Make a folder where there is none, and those above it, and make their names durable.

    Raises
    ------
    StorageError
    """
    files, there, above = current(), False, os.path.dirname(os.path.abspath(folder))
    if not os.path.isdir(above):
        make_folder(above, durable=durable)
    try:
        files.mkdir(folder)
    except FileExistsError:
        there = True  # but whoever made it may have died before its name was durable, or be about to make it so
    except OSError as error:
        raise StorageError.from_os_error(error, "make the folder", folder) from error
    if durable:
        _sync(above, must=not there)


def _sync(folder: str, *, must: bool = True) -> None:
    """Make the names in a folder durable; unless one `must`, only where this user may open it."""
    try:
        sync_folder(current(), folder)
    except OSError as error:
        if not must and error.errno in {errno.EACCES, errno.EPERM}:
            return
        raise StorageError.from_os_error(error, "make the names durable in", folder) from error
