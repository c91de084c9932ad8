"""A store of chunks in a folder, each under a name of 32 bytes, for any number of threads and processes.

What is saved in one go is one pack (`pack`), written front to back; a chunk that is there is not written again. Packs
are never changed: what nobody needs any more goes with its pack, or by copying what is needed into a new one.

Whoever saves or reads holds the store together with others (`shared`), whoever collects holds it `alone` (see
`store_lock`). So between the look that finds a chunk there and the manifest that needs it, no collector can come.

The names mean nothing here. Those who use the store name chunks by the SHA-256 of what they hold, and compare it when
they read.
"""

from __future__ import annotations

import contextlib
import os
import threading
from typing import TYPE_CHECKING

from quantum_memory.durability import forks, pack
from quantum_memory.durability.atomic import DurableFile
from quantum_memory.durability.chunk_collection import WASTE, Collected, collect
from quantum_memory.durability.files import ReadableFile, current
from quantum_memory.durability.folders import sync_names
from quantum_memory.durability.pack_files import PackFiles
from quantum_memory.durability.pack_writer import PackWriter
from quantum_memory.durability.store_lock import LOCK_TIMEOUT, SHARED_TIMEOUT, StoreLock
from quantum_memory.errors import (
    RESTORE,
    ConflictError,
    IntegrityError,
    MissingError,
    MissingFileError,
    QuantumMemoryError,
    StorageError,
    UnsafeError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Set

    from quantum_memory.durability.pack import Place

_UNKNOWN = -1


class ChunkStore:
    """The chunks of a folder.

    Parameters
    ----------
    folder
        Where the packs are; it is made when something is first saved.
    durable
        Whether to ``fsync``.
    private
        Whether only this user may read what is made.
    index_copies
        Whether the list of the chunks of a pack is written once more beside it, so that a pack whose end is damaged or
        cut off gives what is left of it. It costs two syncs a pack.

    Raises
    ------
    StorageError, IntegrityError, UnsupportedVersionError
        As its methods do.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        durable: bool = True,
        private: bool = False,
        index_copies: bool = False,
    ) -> None:
        # Whole, so that it stays the same one wherever the process goes.
        self.folder = os.path.abspath(folder)
        self._mixed_at = os.path.join(self.folder, "not-durable")  # is there when somebody has left out syncs
        self._durable = durable
        folder_mode, self.file_mode = (0o700, 0o600) if private else (0o777, 0o666)
        self._files = PackFiles(os.path.join(self.folder, "chunks"))
        self._lock = StoreLock(
            self.folder, self._files.folder, durable=durable, folder_mode=folder_mode, file_mode=self.file_mode
        )
        self._index_copies = index_copies
        self._packs: dict[str, dict[bytes, Place]] = {}
        self._where: dict[bytes, str] = {}
        self._generation = _UNKNOWN
        self._guard = threading.RLock()
        self._bad: set[bytes] = set()
        self._mixed = False
        self._settled: set[str] = set()
        self.damaged: dict[str, QuantumMemoryError] = {}
        self.injured: dict[str, QuantumMemoryError] = {}
        forks.tell(self)

    def forked(self) -> None:
        """Forget what another thread of the process that this one was forked from may have been about to change."""
        self._guard = threading.RLock()
        self._generation = _UNKNOWN

    # --- locks

    @contextlib.contextmanager
    def shared(self, *, timeout: float = SHARED_TIMEOUT) -> Iterator[None]:
        """Hold the store together with others, and know all that is in it: nothing is removed meanwhile.

        Raises
        ------
        ConflictError
            It is being collected.
        """
        with self._lock.shared(timeout=timeout) as generation:
            self._refresh(generation)
            yield

    @contextlib.contextmanager
    def alone(self, *, timeout: float = LOCK_TIMEOUT) -> Iterator[None]:
        """Hold the store alone, and know all that is in it.

        Raises
        ------
        ConflictError
            Others hold it.
        """
        with self._lock.alone(timeout=timeout) as generation:
            try:
                self._refresh(generation)
                yield
            except BaseException:
                self._generation = _UNKNOWN
                raise

    @contextlib.contextmanager
    def mending(self, *, dry_run: bool, timeout: float = LOCK_TIMEOUT) -> Iterator[str | None]:
        """Hold the store alone even where its lock is damaged or gone, and give what is wrong with that, or None.

        See `StoreLock.mending`.

        Raises
        ------
        ConflictError
            Others hold it.
        """
        with self._lock.mending(dry_run=dry_run, timeout=timeout) as (generation, wrong):
            try:
                self._refresh(generation)
                yield wrong
            finally:
                self._generation = _UNKNOWN

    def make(self) -> None:
        """Make the folders and the file that is locked, durably, where they are not there."""
        self._lock.make()

    # --- what is there

    def _refresh(self, generation: int) -> None:
        """Take note of packs that others have made, and of those that are gone."""
        with self._guard:
            names = self._files.names()
            self._mixed = os.path.exists(self._mixed_at)
            if self._generation == _UNKNOWN:
                self.close()
                self._packs.clear()
                self._where.clear()
            self._generation = _UNKNOWN  # should this be interrupted
            self._forget(set(self._packs) - names)
            for known in (self.damaged, self.injured):
                for name in set(known) - names:
                    del known[name]
            # Those that the operating system could not read are tried again: it may have been a moment's trouble.
            settled = {name for name, error in self.damaged.items() if not isinstance(error, StorageError)}
            for name in sorted(names - set(self._packs) - settled):
                try:
                    with self._files.opened(name) as file:
                        self._note(name, pack.read_index(file))
                except (IntegrityError, UnsafeError, MissingFileError, StorageError) as error:
                    self._files.shut(name)
                    if not self._note_copy(name, error):
                        self.damaged[name] = error
                else:
                    self.damaged.pop(name, None)
            self._generation = generation

    def _note_copy(self, name: str, error: QuantumMemoryError) -> bool:
        """Take note of a pack whose list cannot be read from the copy of it, if there is one."""
        if isinstance(error, MissingFileError):
            return False
        try:
            with contextlib.closing(ReadableFile(self._files.copy_path(name))) as file:
                self._note(name, pack.read_index_copy(file))
        except (IntegrityError, UnsafeError, MissingFileError, StorageError):
            return False
        self.injured[name] = error
        self._bad.update(self._packs[name])  # nobody knows what is left of it: whoever saves that writes it anew
        return True

    def _note(self, name: str, chunks: dict[bytes, Place]) -> None:
        self._packs[name] = chunks
        for chunk in chunks:
            self._where.setdefault(chunk, name)

    def _forget(self, names: set[str]) -> None:
        gone: set[bytes] = set()
        for name in names & set(self._packs):
            gone.update(chunk for chunk in self._packs.pop(name) if self._where.get(chunk) == name)
            self._files.shut(name)
        for chunk in gone:
            del self._where[chunk]
        for name, chunks in self._packs.items() if gone else ():  # what was there twice is still there
            for chunk in chunks.keys() & gone:
                self._where.setdefault(chunk, name)

    def __contains__(self, chunk: bytes) -> bool:
        return chunk in self._where and chunk not in self._bad

    @property
    def known(self) -> Set[bytes]:
        """Names of the chunks that are in any pack, damaged or not."""
        return self._where.keys()

    def __len__(self) -> int:
        return len(self._where)

    @property
    def nbytes(self) -> int:
        """Bytes of all packs that can be read."""
        with self._guard:
            return sum(map(pack.length, self._packs.values()))

    def place(self, chunk: bytes) -> tuple[str, Place]:
        """Return the pack that a chunk is in, and where.

        Raises
        ------
        MissingError
            It is in none.
        StorageError
            It may be in one that the operating system could not read.
        """
        with self._guard:
            try:
                name = self._where[chunk]
            except KeyError:
                what = f"its chunk {chunk.hex()[:16]} is in none of the packs"
                for error in self.damaged.values():
                    if isinstance(error, StorageError):
                        unread = StorageError(
                            f"{what} that can be read; of another it is not known: {error.message}",
                            path=error.path, next_step=error.next_step,
                        )  # fmt: skip
                        unread.errno = error.errno
                        raise unread from error
                raise MissingError(what, path=self._files.folder, next_step=RESTORE) from None
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
        unreadable: StorageError | None = None
        try:
            if self._files.read(name, place, buffer):
                return place
        except StorageError as error:
            unreadable = error
        for other in [one for one in self.packs if one != name and chunk in self._packs[one]]:
            copy = self._packs[other][chunk]  # written by two at the same time, or since the first was found damaged
            with contextlib.suppress(StorageError):
                if self._files.read(other, copy, buffer):
                    self._where[chunk] = other
                    return copy
        self._bad.add(chunk)  # whoever saves it the next time writes it anew
        raise unreadable or pack.damaged_chunk(self._files.path(name), place)

    def stored(self, name: str, chunk: bytes) -> memoryview | None:
        """Return the stored bytes of a chunk in this pack, whatever others there are; None where they are damaged.

        Raises
        ------
        StorageError, MissingFileError
        """
        place = self._packs[name][chunk]
        buffer = memoryview(bytearray(place.stored))
        return buffer if self._files.read(name, place, buffer) else None

    def distrust(self, chunks: Iterable[bytes]) -> None:
        """Have chunks written anew by whoever saves them the next time."""
        self._bad.update(chunks)

    @property
    def distrusted(self) -> frozenset[bytes]:
        """Names of the chunks that were found damaged, or that somebody has said so of."""
        return frozenset(self._bad)

    def map(self, name: str) -> memoryview:
        """Return a pack as private memory; nothing is checked."""
        with contextlib.closing(ReadableFile(self._files.path(name))) as file:
            return file.map(0, file.size)

    def check(self, name: str, look: Callable[[bytes, Place, memoryview], object] | None = None) -> int:
        """Check every byte of a pack, and return how many chunks it has.

        Parameters
        ----------
        look
            Called with the name, the place and the stored bytes of each.
        """
        with contextlib.closing(ReadableFile(self._files.path(name))) as file:
            return pack.check_everything(file, look)

    def check_frame(self, name: str) -> None:
        """Check every byte of a pack but those of its chunks."""
        with contextlib.closing(ReadableFile(self._files.path(name))) as file:
            pack.check_frame(file)

    def check_copy(self, name: str) -> None:
        """Check the copy of the list of a pack, every byte of it.

        Raises
        ------
        IntegrityError, UnsafeError, UnsupportedVersionError, MissingFileError, StorageError
        """
        with contextlib.closing(ReadableFile(self._files.copy_path(name))) as file:
            if pack.read_index_copy(file) != self._packs[name]:
                raise IntegrityError("it lists other chunks than its pack", path=file.name, next_step=RESTORE)

    def chunks_of(self, name: str) -> dict[bytes, Place]:
        """Return the chunks of a pack, and where they are in it."""
        return self._packs[name]

    @property
    def packs(self) -> list[str]:
        """Names of the packs that can be read."""
        with self._guard:
            return sorted(self._packs)

    # --- write

    def writer(self) -> PackWriter:
        """Return a writer of one pack; the store has to be held while it is used."""
        if not self._durable and not self._mixed:
            with (
                contextlib.suppress(ConflictError),
                DurableFile(self._mixed_at, overwrite=False, durable=False, mode=self.file_mode),
            ):
                pass
            self._mixed = True
        path = self._files.new_path()
        return PackWriter(self, path, self._durable, mode=self.file_mode, index_copy=self._index_copies)

    def settle(self, chunks: Set[bytes], *, written: bool) -> None:
        """Make durable what a manifest is about to lean on, and others have written.

        Somebody may have given a pack its name a moment ago, and not synced it yet, or not meant to.

        Parameters
        ----------
        chunks
            What the manifest needs.
        written
            Whether a pack was just written, so that the names are durable.
        """
        if not self._durable:
            return
        with self._guard:
            packs = {self.place(chunk)[0] for chunk in chunks} - self._settled if self._mixed else set()
        for name in packs:
            with self._files.opened(name) as file:
                file.sync()
            self._settled.add(name)
        if not written:
            sync_names(self._files.folder)

    def added(self, path: str, chunks: dict[bytes, Place]) -> None:
        """Take note of a pack that was written."""
        with self._guard:
            name = os.path.basename(path)
            self._note(name, chunks)
            self._settled.add(name)
            for chunk in self._bad.intersection(chunks):
                self._where[chunk] = name
            self._bad.difference_update(chunks)

    # --- collect

    def collect(self, needed: Set[bytes], waste: float = WASTE) -> Collected:
        """Remove what nobody needs (see `chunk_collection`); the store has to be held alone.

        Parameters
        ----------
        needed
            Names of chunks; others go.
        waste
            How much may stay of the others, beside what is needed in their packs.
        """
        with self._guard:
            return collect(self, needed, waste)

    def remove(self, names: Iterable[str]) -> None:
        """Remove packs; the store has to be held alone."""
        gone = set()
        try:
            for name in names:
                current().unlink(self._files.path(name))
                gone.add(name)
                with contextlib.suppress(FileNotFoundError):
                    current().unlink(self._files.copy_path(name))
        except OSError as error:
            raise StorageError.from_os_error(error, "remove a pack from", self._files.folder) from error
        finally:
            self._forget(gone)
        if gone and self._durable:
            sync_names(self._files.folder)

    def write_copy(self, name: str) -> None:
        """Write the copy of the list of a pack anew; the store has to be held alone."""
        listed = pack.index(self._packs[name])
        end = pack.trailer(listed, pack.length(self._packs[name]) - len(listed) - pack.TRAILER_BYTES)
        with DurableFile(self._files.copy_path(name), durable=self._durable, mode=self.file_mode) as copy:
            copy.write(pack.copy_header() + listed + end)

    def found(self, name: str, chunks: dict[bytes, Place]) -> None:
        """Take note of chunks in a pack of which the list cannot be read, until the store is looked at anew."""
        with self._guard:
            self._note(name, chunks)
            self.injured[name] = self.damaged.pop(name)

    def pack_paths(self, name: str) -> tuple[str, str]:
        """Return where a pack is, and the copy of its list."""
        return self._files.path(name), self._files.copy_path(name)

    def forget(self, names: Iterable[str]) -> None:
        """Take note that packs were moved elsewhere; the store has to be held alone."""
        with self._guard:
            self._forget(set(names))
            for name in names:
                self.damaged.pop(name, None)
                self.injured.pop(name, None)

    def prefer(self, name: str, chunk: bytes) -> bool:
        """Tell whether a chunk of a pack is read from there, and see to it that it is, where no other copy is whole."""
        other, _ = self.place(chunk)
        if other != name:
            whole = False
            with contextlib.suppress(StorageError):
                whole = self.stored(other, chunk) is not None
            if not whole:
                self._where[chunk] = name
        return self._where[chunk] == name

    def close(self) -> None:
        """Close the packs."""
        self._files.close()
