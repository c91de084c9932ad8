"""A folder of manifests over one store of chunks, with names for some of them and a log of what was done.

::

    lock                    held by whoever saves, reads or collects (`durability.store_lock`)
    chunks/*.qmpack         the chunks
    WHAT/ID.SUFFIX          a manifest each
    refs.json               tags and pins
    log.jsonl               what was done, a line each

Which is the newest follows from the manifests alone, so that nothing can point to one that is not there.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import re
import secrets
import stat
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, TypeVar

from quantum_memory.durability.atomic import DurableFile, remove_leftovers
from quantum_memory.durability.chunk_collection import WASTE
from quantum_memory.durability.chunk_store import ChunkStore
from quantum_memory.durability.files import ReadableFile, current
from quantum_memory.durability.folders import make_folder, sync_names
from quantum_memory.durability.store_lock import LOCK_TIMEOUT
from quantum_memory.errors import (
    IntegrityError,
    InvalidStateError,
    MissingError,
    MissingFileError,
    QuantumMemoryError,
    StorageError,
)
from quantum_memory.lifecycle.repository.manifest_file import read_whole
from quantum_memory.lifecycle.repository.signed_json import SEALED, read_signed, sealed, unsealed, write_signed
from quantum_memory.state.document import well_formed
from quantum_memory.state.json_text import to_json

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator

    from quantum_memory.durability.chunk_collection import Collected
    from quantum_memory.durability.files import Readable
    from quantum_memory.encryption.sealing import Sealer
    from quantum_memory.lifecycle.repository.manifest_file import Kind

ID = re.compile(r"[a-z0-9][a-z0-9._-]{0,127}")
REFS = b"tags and pins"
"""What tags and pins are sealed as."""

_LINE = b"line of a log"
_MAX_LOG_BYTES = 64 << 20


class Head(Protocol):
    """What a list shows of a manifest."""

    @property
    def id(self) -> str: ...
    @property
    def number(self) -> int: ...
    @property
    def created_at(self) -> str: ...


H = TypeVar("H", bound=Head)


@dataclass
class Refs:
    """Names that people have given to checkpoints or backups.

    Attributes
    ----------
    tags
        Id of one by the name of the tag.
    pins
        Ids of those that are never removed.
    """

    tags: dict[str, str] = field(default_factory=dict)
    pins: set[str] = field(default_factory=set)

    def tags_of(self, one: str) -> list[str]:
        """Return the tags of a checkpoint or backup."""
        return sorted(tag for tag, tagged in self.tags.items() if tagged == one)

    def missing(self, there: Collection[str]) -> list[str]:
        """Say which tags and pins are of something that is gone: what has one is never removed by us."""
        tags = [f"the tag {tag!r} is of {one}, which is gone" for tag, one in self.tags.items() if one not in there]
        return [*tags, *(f"{one} is pinned, and gone" for one in sorted(self.pins) if one not in there)]


class Repository(ABC, Generic[H]):
    """A folder of manifests on disk; everything that is done to its files is done here.

    Parameters
    ----------
    path
        The folder; it is made when something is first saved.
    durable
        Whether to ``fsync``.

    Attributes
    ----------
    kind
        Of its manifests.
    suffix
        Of their files.
    private
        Whether only this user may read what is made.
    index_copies
        See `ChunkStore`.
    """

    kind: ClassVar[Kind]
    suffix: ClassVar[str]
    private: ClassVar[bool] = False
    index_copies: ClassVar[bool] = False

    def __init__(self, path: str | os.PathLike[str], *, durable: bool = True) -> None:
        self.path = os.path.abspath(path)
        self.store = ChunkStore(self.path, durable=durable, private=self.private, index_copies=self.index_copies)
        self.durable = durable
        self._manifests_at = os.path.join(self.path, f"{self.kind.what}s")
        self._refs_at = os.path.join(self.path, "refs.json")
        self._log_at = os.path.join(self.path, "log.jsonl")
        self._heads: dict[str, H] = {}
        self._listed: tuple[list[str], list[H]] = ([], [])

    @property
    def sealer(self) -> Sealer | None:
        """What names and the log are sealed with; None where nothing is."""
        return None

    # --- what is there

    @property
    def is_there(self) -> bool:
        """Whether anything was ever saved in it."""
        # Where the lock is lost, the manifests tell; a folder of their name may be one in which a folder like this is.
        return os.path.exists(os.path.join(self.path, "lock")) or bool(self.ids())

    def ids(self) -> list[str]:
        """Return the ids of all manifests, in no order."""
        return self._ids(self._names())

    def _ids(self, names: list[str]) -> list[str]:
        found = [name.removesuffix(self.suffix) for name in names if name.endswith(self.suffix)]
        return [one for one in found if ID.fullmatch(one)]

    def _names(self) -> list[str]:
        try:
            return current().names(self._manifests_at)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise StorageError.from_os_error(error, "list", self._manifests_at) from error

    def listed(self) -> tuple[list[H], dict[str, QuantumMemoryError]]:
        """Return all heads in the order of saving, and what is wrong with those whose head cannot be read."""
        names = self._names()
        known, order = self._listed
        if names != known:
            order, bad = self._looked_at(self._ids(names))
            if bad:
                return order, bad
            self._listed = names, order
        return list(order), {}

    def _looked_at(self, there: list[str]) -> tuple[list[H], dict[str, QuantumMemoryError]]:
        good: list[H] = []
        bad: dict[str, QuantumMemoryError] = {}
        for one in there:
            try:
                good.append(self._head(one))
            except MissingFileError:
                continue  # removed meanwhile
            except QuantumMemoryError as error:
                bad[one] = error
        for gone in set(self._heads) - set(there):
            self._heads.pop(gone, None)
        return sorted(good, key=order), bad

    def _head(self, one: str) -> H:
        known = self._heads.get(one)
        if known is None:  # manifests are never changed, and no id is given twice
            path = f"{self._manifests_at}/{one}{self.suffix}"  # of an id that was listed: long lists should be quick
            with ReadableFile(path) as source:
                known = self.read_head(source, one)
            if known.id != one:
                self.check_id(known, path)
            self._heads[one] = known
        return known

    @abstractmethod
    def read_head(self, source: Readable, one: str) -> H:
        """Return what a list shows of a manifest, of which the file has the name `one`."""

    def check_id(self, head: H, path: str) -> None:
        """Refuse a manifest that has the name of another one.

        Raises
        ------
        IntegrityError
        """
        if os.path.basename(path) != head.id + self.suffix:
            raise IntegrityError(
                f"it says that it is the {self.kind.what} {head.id}", path=path, next_step="give it that name again"
            )

    def manifest_path(self, one: str) -> str:
        """Return the path of a manifest.

        Raises
        ------
        MissingError
            None can have this id.
        """
        if not ID.fullmatch(one):
            raise MissingError(f"no {self.kind.what} has the id {one!r:.80}", path=self.path, next_step=self.list_hint)
        return os.path.join(self._manifests_at, one + self.suffix)

    def named(self, one: str) -> dict[str, Any]:
        """Return how the log names a manifest."""
        return {self.kind.what: one}

    @property
    def list_hint(self) -> str:
        """What to do when there is no such manifest."""
        return f"qmem {self.kind.what} list shows those that there are"

    def missing(self, one: str) -> MissingError:
        """Return the error of a manifest that is not there."""
        return MissingError(f"there is no {self.kind.what} {one!r:.80}", path=self.path, next_step=self.list_hint)

    @contextlib.contextmanager
    def opened(self, one: str) -> Iterator[ReadableFile]:
        """Give the file of a manifest.

        Raises
        ------
        MissingError
        """
        try:
            source = ReadableFile(self.manifest_path(one))
        except MissingFileError:
            raise self.missing(one) from None
        with source:
            yield source

    # --- together with others

    def held(self) -> contextlib.AbstractContextManager[None]:
        """Hold the folder together with others, where it is there: nothing is removed meanwhile."""
        return self.store.shared() if self.is_there else contextlib.nullcontext()

    def alone(self, timeout: float = LOCK_TIMEOUT) -> contextlib.AbstractContextManager[None]:
        """Hold the folder alone for a block; see `ChunkStore.alone`."""
        return self.store.alone(timeout=timeout)

    # --- save and remove

    def make(self) -> None:
        """Make the folder, where it is not there."""
        self.store.make()
        make_folder(self._manifests_at, durable=self.durable, mode=0o700 if self.private else 0o777)

    def publish(self, head: H, data: bytes, *, overwrite: bool = False) -> None:
        """Give a manifest its name, when all of its chunks are durable; the store has to be held.

        Parameters
        ----------
        data
            The bytes of the manifest.
        overwrite
            Whether one of this id is replaced, which is damaged; the store has to be held alone.

        Raises
        ------
        ConflictError
            There is one of this id.
        """
        with DurableFile(
            self.manifest_path(head.id), overwrite=overwrite, durable=self.durable, mode=self.store.file_mode
        ) as sink:
            sink.write(data)
        self._heads[head.id] = head

    def remove(self, ids: list[str]) -> None:
        """Remove manifests, durably; their chunks go with the next collection. The store has to be held alone."""
        files = current()
        for one in ids:
            path = self.manifest_path(one)
            try:
                files.unlink(path)
            except FileNotFoundError:
                raise self.missing(one) from None
            except OSError as error:
                raise StorageError.from_os_error(error, "remove", path) from error
        if ids and self.durable:
            # Before any chunk goes: a power cut must not bring a manifest back without them.
            sync_names(self._manifests_at)

    def settle(self) -> None:
        """Make durable what somebody has renamed or removed who was killed right then; the store has to be held."""
        self.store.settle(set(), written=False)
        for folder in (self.path, self._manifests_at):
            if self.durable and os.path.isdir(folder):
                sync_names(folder)

    def collect(self, waste: float = WASTE, *, needed: set[bytes] | None = None) -> Collected:
        """Remove chunks that no manifest needs; the store has to be held alone.

        Parameters
        ----------
        waste
            How much of them may stay in packs with others that are needed.
        needed
            What `needed` gives now, for who has asked already.

        Raises
        ------
        IntegrityError
            A manifest is damaged, so that nobody knows which chunks it needs: nothing is removed.
        """
        return self.store.collect(self.needed() if needed is None else needed, waste)

    def needed(self, without: Iterable[str] = ()) -> set[bytes]:
        """Return the names of the chunks that any manifest needs.

        Parameters
        ----------
        without
            Ids of those that are about to go.

        Raises
        ------
        IntegrityError
            A manifest is damaged.
        """
        needed: set[bytes] = set()
        for one in set(self.ids()).difference(without):
            try:
                with ReadableFile(self.manifest_path(one)) as source:
                    needed |= read_whole(source, self.kind)[1].chunk_names()
            except QuantumMemoryError as error:
                error.next_step = f"restore it from a copy, or remove it: qmem {self.kind.what} delete {one}"
                raise
        return needed

    def sweep(self) -> list[str]:
        """Remove what dead processes left half-written, and return the paths."""
        found: list[str] = []
        for folder in (self._manifests_at, os.path.join(self.path, "chunks"), self.path):
            with contextlib.suppress(MissingFileError):
                found += remove_leftovers(folder)
        return found + self._second_names()

    def _second_names(self) -> list[str]:
        """Remove names of the file that is locked but its own, which look as if somebody were still writing it."""
        files, lock = current(), os.path.join(self.path, "lock")
        removed = []
        with contextlib.suppress(OSError):
            first = files.stat(lock).st_ino
            for name in files.names(self.path):
                path = os.path.join(self.path, name)
                if name.startswith(".lock.") and files.stat(path).st_ino == first:
                    files.unlink(path)
                    removed.append(path)
        return removed

    # --- names

    def refs(self) -> Refs:
        """Return tags and pins.

        Raises
        ------
        IntegrityError, StorageError
        """
        sealer = self.sealer  # first: a wrong key is that, and neither damage nor a folder without names
        said = read_signed(self._refs_at, {"tags", "pins"}, {SEALED})
        if said is None:
            return Refs()
        with well_formed(self._refs_at):
            said = unsealed(said, sealer, REFS)
            if not all(isinstance(name, str) for name in (*said["tags"].values(), *said["pins"])):
                raise IntegrityError("its tags and pins are no ids")
            return Refs(dict(said["tags"]), set(said["pins"]))

    def write_refs(self, refs: Refs) -> None:
        """Replace tags and pins; the store has to be held alone."""
        said = {"tags": dict(sorted(refs.tags.items())), "pins": sorted(refs.pins)}
        said = sealed(said, self.sealer, REFS)
        write_signed(self._refs_at, said, durable=self.durable, mode=self.store.file_mode)

    def change_refs(self, change: Callable[[Refs], object]) -> None:
        """Change tags and pins, which nobody else changes meanwhile."""
        with self.store.alone():
            refs = self.refs()
            change(refs)
            self.write_refs(refs)

    # --- the log

    def note(self, action: str, **facts: Any) -> None:
        """Write a line into the log. It is for people: what is in it is not relied on, and it is not synced."""
        line = {
            "when": stamp(now()),
            "action": action,
            **{name: fact for name, fact in facts.items() if fact is not None},
        }
        text = to_json(sealed(line, self.sealer, _LINE)) + b"\n"
        files = current()
        with contextlib.suppress(OSError):
            # Neither through a link, nor into a pipe that nobody reads: the folder may be somebody else's.
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NONBLOCK | getattr(os, "O_NOFOLLOW", 0)
            fd = files.open(self._log_at, flags, self.store.file_mode)
            try:
                if stat.S_ISREG(files.fstat(fd).st_mode):
                    files.write(fd, text)
            finally:
                files.closerange(fd, fd + 1)

    def log(self) -> list[dict[str, Any]]:
        """Return what was done, the oldest first; lines that are cut short or damaged are left out."""
        if os.path.islink(self._log_at):
            return []
        try:
            with contextlib.closing(ReadableFile(self._log_at)) as source:
                start = max(0, source.size - _MAX_LOG_BYTES)  # what is older is not shown
                lines = source.read(start, source.size - start).splitlines()
        except MissingFileError:
            return []
        made = []
        sealer = self.sealer if lines else None
        begin = b'{"when":' if sealer is None else b'{"%s":' % SEALED.encode()
        for line in lines:
            start = max(0, line.rfind(begin))  # behind what was cut short, as on a full disk, stands the next line
            with contextlib.suppress(ValueError, TypeError, RecursionError):
                if isinstance(one := json.loads(line[start:]), dict):
                    made.append(unsealed(one, sealer, _LINE))
        return made


def new_id(when: datetime.datetime) -> str:
    """Return an id that nobody else gives."""
    return f"{when:%Y%m%d_%H%M%S_%f}_{secrets.token_hex(3)}"


def order(head: Head) -> tuple[int, str, str]:
    """Return the place of a head in the order of saving; two that were saved at once may have one number."""
    return head.number, head.created_at, head.id


def now() -> datetime.datetime:
    """Return the time, in UTC."""
    return datetime.datetime.now(datetime.UTC)


def stamp(when: datetime.datetime) -> str:
    """Return a time in UTC as text, ISO 8601."""
    return when.isoformat(timespec="microseconds").replace("+00:00", "Z")


def check_name(name: str, what: str) -> str:
    """Return a name that somebody gives, or say why it is none."""
    if not isinstance(name, str) or not ID.fullmatch(name.lower()):
        raise InvalidStateError(
            f"{name!r:.80} cannot be the name of a {what}",
            next_step="give up to 128 letters, digits, dots, underscores and hyphens, a letter or digit first",
        )
    return name
