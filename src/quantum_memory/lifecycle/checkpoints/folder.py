"""A folder of checkpoints: manifests over one store of chunks, names for some of them, and a log of what was done.

::

    lock                    held by whoever saves, reads or collects (`durability.chunk_store`)
    chunks/*.qmpack         the chunks
    checkpoints/ID.qmcp     a manifest each
    refs.json               tags and pins
    log.jsonl               what was done, a line each

Which checkpoint is the newest follows from the manifests alone, so that nothing can point to one that is not there.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import json
import os
import secrets
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from quantum_memory.durability.atomic import DurableFile, remove_leftovers, sync_folder
from quantum_memory.durability.chunk_store import ChunkStore, make_folder
from quantum_memory.durability.files import ReadableFile, close_quietly, current
from quantum_memory.errors import (
    IntegrityError,
    InvalidStateError,
    MissingError,
    MissingFileError,
    QuantumMemoryError,
    StorageError,
    UnsafeError,
)
from quantum_memory.lifecycle.checkpoints import manifest as manifests
from quantum_memory.lifecycle.checkpoints.manifest import ID, Checkpoint, Manifest
from quantum_memory.lifecycle.checkpoints.reader import CheckpointReader
from quantum_memory.state.document import well_formed
from quantum_memory.state.json_text import from_json, max_nodes, to_json

if TYPE_CHECKING:
    from collections.abc import Iterator

    from quantum_memory.durability.chunk_collection import Collected

SUFFIX = ".qmcp"
_MAX_REFS_BYTES = 16 << 20
_MAX_LOG_BYTES = 64 << 20


@dataclass
class Refs:
    """Names that people have given to checkpoints.

    Attributes
    ----------
    tags
        Id of a checkpoint by the name of the tag.
    pins
        Ids of checkpoints that are never removed.
    """

    tags: dict[str, str] = field(default_factory=dict)
    pins: set[str] = field(default_factory=set)

    def tags_of(self, checkpoint: str) -> list[str]:
        """Return the tags of a checkpoint."""
        return sorted(tag for tag, one in self.tags.items() if one == checkpoint)


class CheckpointFolder:
    """A folder of checkpoints on disk; everything that is done to its files is done here.

    Parameters
    ----------
    path
        The folder; it is made when something is first saved.
    durable
        Whether to ``fsync``.
    """

    def __init__(self, path: str | os.PathLike[str], *, durable: bool = True) -> None:
        self.path = os.path.abspath(path)
        self.store = ChunkStore(self.path, durable=durable)
        self.durable = durable
        self._manifests_at = os.path.join(self.path, "checkpoints")
        self._refs_at = os.path.join(self.path, "refs.json")
        self._log_at = os.path.join(self.path, "log.jsonl")
        self._heads: dict[str, Checkpoint] = {}
        self._listed: tuple[list[str], list[Checkpoint]] = ([], [])

    # --- what is there

    @property
    def is_there(self) -> bool:
        """Whether anything was ever saved in it."""
        return os.path.exists(os.path.join(self.path, "lock"))

    def ids(self) -> list[str]:
        """Return the ids of all checkpoints, in no order."""
        return _ids(self._names())

    def _names(self) -> list[str]:
        try:
            return current().names(self._manifests_at)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise StorageError.from_os_error(error, "list", self._manifests_at) from error

    def listed(self) -> tuple[list[Checkpoint], dict[str, QuantumMemoryError]]:
        """Return all checkpoints in the order of saving, and what is wrong with those whose head cannot be read."""
        names = self._names()
        known, order = self._listed
        if names != known:
            order, bad = self._looked_at(_ids(names))
            if bad:
                return order, bad
            self._listed = names, order
        return list(order), {}

    def _looked_at(self, there: list[str]) -> tuple[list[Checkpoint], dict[str, QuantumMemoryError]]:
        good: list[Checkpoint] = []
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
        return sorted(good, key=lambda one: (one.number, one.created_at, one.id)), bad

    def _head(self, checkpoint: str) -> Checkpoint:
        known = self._heads.get(checkpoint)
        if known is None:  # manifests are never changed, and no id is given twice
            path = self.manifest_path(checkpoint)
            with contextlib.closing(ReadableFile(path)) as source:
                known = self._heads[checkpoint] = self._checked(manifests.read_checkpoint(source), path)
        return known

    def _checked(self, checkpoint: Checkpoint, path: str) -> Checkpoint:
        if os.path.basename(path) != checkpoint.id + SUFFIX:
            raise IntegrityError(
                f"it says that it is the checkpoint {checkpoint.id}", path=path, next_step="give it that name again"
            )
        return checkpoint

    def manifest_path(self, checkpoint: str) -> str:
        """Return the path of a manifest.

        Raises
        ------
        MissingError
            No checkpoint can have this id.
        """
        if not ID.fullmatch(checkpoint):
            raise MissingError(f"no checkpoint has the id {checkpoint!r:.80}", path=self.path, next_step=_LIST)
        return os.path.join(self._manifests_at, checkpoint + SUFFIX)

    def manifest(self, checkpoint: str) -> Manifest:
        """Return a manifest, every byte of it checked.

        Raises
        ------
        MissingError
            There is no such checkpoint.
        IntegrityError, UnsafeError, UnsupportedVersionError, StorageError
        """
        path = self.manifest_path(checkpoint)
        try:
            with contextlib.closing(ReadableFile(path)) as source:
                made = manifests.read_manifest(source)
        except MissingFileError:
            raise MissingError(f"there is no checkpoint {checkpoint!r}", path=self.path, next_step=_LIST) from None
        self._checked(made.checkpoint, path)
        return made

    @contextlib.contextmanager
    def reading(self, checkpoint: str) -> Iterator[CheckpointReader]:
        """Give a reader of a checkpoint; nothing is collected meanwhile."""
        with self.store.shared():
            made = self.manifest(checkpoint)
            size = made.checkpoint.raw_bytes
            yield CheckpointReader(made, self.store, self.manifest_path(checkpoint), size)

    def verify(self, checkpoint: str) -> int:
        """Check every byte of a checkpoint, and return how many chunks it has."""
        with self.reading(checkpoint) as reader:
            return reader.check_everything()

    # --- save and remove

    def new_id(self, when: datetime.datetime) -> str:
        """Return an id that nobody else gives."""
        return f"{when:%Y%m%d_%H%M%S_%f}_{secrets.token_hex(3)}"

    def make(self) -> None:
        """Make the folder, where it is not there."""
        self.store.make()
        make_folder(self._manifests_at, durable=self.durable)

    def publish(self, made: Manifest) -> None:
        """Give a manifest its name, when all of its chunks are durable; the store has to be held.

        Raises
        ------
        ConflictError
            There is a checkpoint of this id.
        """
        path = self.manifest_path(made.checkpoint.id)
        data = manifests.written(made)
        with DurableFile(path, overwrite=False, durable=self.durable) as sink:
            sink.write(data)
        self._heads[made.checkpoint.id] = made.checkpoint

    def remove(self, checkpoints: list[str]) -> None:
        """Remove manifests, durably; their chunks go with the next collection. The store has to be held alone."""
        files = current()
        for one in checkpoints:
            path = self.manifest_path(one)
            try:
                files.unlink(path)
            except FileNotFoundError:
                raise MissingError(f"there is no checkpoint {one!r}", path=self.path, next_step=_LIST) from None
            except OSError as error:
                raise StorageError.from_os_error(error, "remove", path) from error
        if checkpoints and self.durable:
            # Before any chunk goes: a power cut must not bring a manifest back without them.
            try:
                sync_folder(files, self._manifests_at)
            except OSError as error:
                raise StorageError.from_os_error(error, "make the names durable in", self._manifests_at) from error

    def collect(self) -> Collected:
        """Remove chunks that no manifest needs; the store has to be held alone.

        Raises
        ------
        IntegrityError
            A manifest is damaged, so that nobody knows which chunks it needs: nothing is removed.
        """
        needed: set[bytes] = set()
        for one in self.ids():
            path = self.manifest_path(one)
            try:
                with contextlib.closing(ReadableFile(path)) as source:
                    needed |= manifests.read_chunk_names(source)
            except QuantumMemoryError as error:
                error.next_step = f"restore it from a copy, or remove it: qmem checkpoint delete {one}"
                raise
        return self.store.collect(needed)

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
        try:
            with contextlib.closing(ReadableFile(self._refs_at)) as source:
                if source.size > _MAX_REFS_BYTES:
                    raise IntegrityError("it is longer than any that is written", path=self._refs_at)
                text = source.read(0, source.size)
        except MissingFileError:
            return Refs()
        with well_formed(self._refs_at):
            said = from_json(text, max_nodes=max_nodes(len(text)))
            digest = said.pop("sha256")
            if digest != _digest(said) or set(said) != {"version", "tags", "pins"} or said["version"] != 1:
                raise IntegrityError("it does not match its SHA-256")
            if not all(isinstance(name, str) for name in (*said["tags"].values(), *said["pins"])):
                raise IntegrityError("its tags and pins are no ids")
            return Refs(dict(said["tags"]), set(said["pins"]))

    def write_refs(self, refs: Refs) -> None:
        """Replace tags and pins; the store has to be held alone."""
        if os.path.islink(self._refs_at):
            raise UnsafeError("it is a symbolic link", path=self._refs_at, next_step="put the file itself there")
        said = {"version": 1, "tags": dict(sorted(refs.tags.items())), "pins": sorted(refs.pins)}
        with DurableFile(self._refs_at, durable=self.durable) as sink:
            sink.write(to_json({**said, "sha256": _digest(said)}))

    # --- the log

    def note(self, action: str, **facts: Any) -> None:
        """Write a line into the log. It is for people: what is in it is not relied on, and it is not synced."""
        line = {
            "when": stamp(now()),
            "action": action,
            **{name: fact for name, fact in facts.items() if fact is not None},
        }
        files = current()
        with contextlib.suppress(OSError):
            # Neither through a link, nor into a pipe that nobody reads: the folder may be somebody else's.
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NONBLOCK | getattr(os, "O_NOFOLLOW", 0)
            fd = files.open(self._log_at, flags)
            try:
                if stat.S_ISREG(files.fstat(fd).st_mode):
                    files.write(fd, to_json(line) + b"\n")
            finally:
                close_quietly(files, fd)

    def log(self) -> list[dict[str, Any]]:
        """Return what was done, the oldest first; lines that were cut short are left out."""
        if os.path.islink(self._log_at):
            return []
        try:
            with contextlib.closing(ReadableFile(self._log_at)) as source:
                start = max(0, source.size - _MAX_LOG_BYTES)  # what is older is not shown
                lines = source.read(start, source.size - start).splitlines()
        except MissingFileError:
            return []
        made = []
        for line in lines:
            with contextlib.suppress(ValueError):
                if isinstance(one := json.loads(line), dict):
                    made.append(one)
        return made


_LIST = "qmem checkpoint list shows those that there are"


def now() -> datetime.datetime:
    """Return the time, in UTC."""
    return datetime.datetime.now(datetime.UTC)


def stamp(when: datetime.datetime) -> str:
    """Return a time in UTC as text, ISO 8601."""
    return when.isoformat(timespec="microseconds").replace("+00:00", "Z")


def _ids(names: list[str]) -> list[str]:
    found = [name.removesuffix(SUFFIX) for name in names if name.endswith(SUFFIX)]
    return [one for one in found if ID.fullmatch(one)]


def _digest(said: dict[str, Any]) -> str:
    return hashlib.sha256(to_json(said, canonical=True)).hexdigest()


def check_name(name: str, what: str) -> str:
    """Return a name that somebody gives, or say why it is none."""
    if not isinstance(name, str) or not ID.fullmatch(name.lower()):
        raise InvalidStateError(
            f"{name!r:.80} cannot be the name of a {what}",
            next_step="give up to 128 letters, digits, dots, underscores and hyphens, a letter or digit first",
        )
    return name
