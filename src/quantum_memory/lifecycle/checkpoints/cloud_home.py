"""Checkpoints at an address: versions in a repository, each kept by a tag that is its id; see `home.CheckpointHome`.

What is said of a checkpoint is noted with its version, signed, so that a list needs nothing else. Tags and pins of
people, and the log, are small notes beside the repository.
"""

from __future__ import annotations

import contextlib
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from quantum_memory.cloud.errors import told
from quantum_memory.cloud.kept_versions import KeptVersions
from quantum_memory.cloud.reader import SnapshotReader
from quantum_memory.cloud.repository import MAIN
from quantum_memory.cloud.writer import SnapshotWriter, clear
from quantum_memory.cloud.zarr_format import before_of
from quantum_memory.durability import forks
from quantum_memory.durability.chunk_collection import Collected
from quantum_memory.errors import (
    ConflictError,
    IntegrityError,
    InvalidStateError,
    MissingError,
    MissingFileError,
    QuantumMemoryError,
    StorageError,
    shell_word,
)
from quantum_memory.formats.prepared import Prepared
from quantum_memory.formats.reader import damaged
from quantum_memory.formats.urls import S3
from quantum_memory.lifecycle.checkpoints import manifest as manifests
from quantum_memory.lifecycle.checkpoints.choosing import nothing
from quantum_memory.lifecycle.checkpoints.cloud_notes import CloudLog, changed_refs, refs_in
from quantum_memory.lifecycle.checkpoints.cloud_purging import purge
from quantum_memory.lifecycle.repository.folder import Refs, now, order

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from quantum_memory.formats.urls import URL
    from quantum_memory.lifecycle.checkpoints.manifest import Checkpoint
    from quantum_memory.lifecycle.checkpoints.saving import Flat, Said
    from quantum_memory.lifecycle.repository.purging import Purged

_ID = re.compile(r"[0-9]{8}_[0-9]{6}_[0-9]{6}_[0-9a-f]{6}")
_REFS, _COLLECTED = "refs", "collected"
_LOOKUPS = 16
_LONGEST_NAME = 200  # in messages
_PAUSE = 3600.0
"""Seconds between collections that nobody has asked for: what is younger stays in any case."""


class CloudCheckpoint(SnapshotReader):
    """An open checkpoint; see `home.OpenCheckpoint`."""

    format = "checkpoint"
    on_close: Callable[[], object] | None = None

    def __init__(self, repository: KeptVersions, snapshot: str, checkpoint: Checkpoint) -> None:
        name = str(repository.url.at(checkpoint.id))
        super().__init__(repository.store(snapshot), name, str(repository.url.at(snapshot)))
        self.checkpoint = checkpoint
        if (self.version_name, self.content) != (checkpoint.id, checkpoint.content_id):
            raise damaged("it holds something else than what is said of it", name)

    def facts(self, path: str) -> dict[str, Any]:
        # Chunks of zeros alone take nothing; which these are is known to the digests, and not worth a request.
        return {**super().facts(path), "stored_bytes": self.entries[path].nbytes}

    def close(self) -> None:
        super().close()
        if self.on_close is not None:
            self.on_close()


class CloudHome:
    """Checkpoints at an address.

    Parameters
    ----------
    url
        Of the repository, which is made when something is first saved.
    durable
        Whether what is acknowledged is made durable, where that is up to us: in a folder.

    Attributes
    ----------
    url
        The address.
    path
        The same, as it is written.
    """

    kind = manifests.KIND

    def __init__(self, url: URL, *, durable: bool = True) -> None:
        if url.name is not None:
            raise InvalidStateError(
                "it is the address of one version", path=str(url), next_step=f"give that of all: {url.at(None)}"
            )
        self.url, self.path, self.durable = url, str(url), durable
        self._guard = threading.Lock()
        self._found: KeptVersions | None = None
        self._heads: dict[str, tuple[str, Checkpoint]] = {}
        self._distrusted = self._apart = False
        forks.tell(self)

    def forked(self) -> None:
        """Let go of the lock of the process that this one was forked from."""
        self._guard = threading.Lock()

    # --- what is there

    @property
    def repository(self) -> KeptVersions | None:
        """The repository; None where there is none yet."""
        with self._guard:
            if self._found is None:
                with contextlib.suppress(MissingFileError):
                    self._found = KeptVersions(self.url)
            return self._found

    def _made(self) -> KeptVersions:
        with self._guard:
            if self._found is None:
                self._found = KeptVersions(self.url, create=True)
            return self._found

    @property
    def is_there(self) -> bool:
        """Whether there is a repository."""
        return self.repository is not None

    def ids(self) -> list[str]:
        repository = self.repository
        return [] if repository is None else [one for one in repository.names() if _ID.fullmatch(one)]

    def listed(self) -> tuple[list[Checkpoint], dict[str, QuantumMemoryError]]:
        there = self.ids()
        for gone in set(self._heads) - set(there):
            self._heads.pop(gone, None)
        bad: dict[str, QuantumMemoryError] = {}

        def head(one: str) -> Checkpoint | None:
            try:
                return self._head(one)[1]
            except MissingError:
                return None  # removed meanwhile
            except StorageError as error:
                if self.url.scheme == S3:
                    raise  # it is not reached, which says nothing of this one: how many there are, nobody knows
                bad[one] = error
                return None
            except QuantumMemoryError as error:
                bad[one] = error
                return None

        new = [one for one in there if one not in self._heads]
        if len(new) > 1:
            with ThreadPoolExecutor(_LOOKUPS) as pool:  # two requests for each
                list(pool.map(head, new))
        good = [found for one in there if one not in bad and (found := head(one)) is not None]
        return sorted(good, key=order), bad

    def _head(self, one: str) -> tuple[str, Checkpoint]:
        """Return the snapshot of a checkpoint, and what is said of it.

        Raises
        ------
        MissingError, IntegrityError, StorageError
        """
        known = self._heads.get(one)
        if known is None:
            repository = self.repository
            snapshot = repository.tagged(one) if repository is not None and _ID.fullmatch(one) else None
            if repository is None or snapshot is None:
                raise self.missing(one)
            where = self.manifest_path(one)
            head = manifests.noted_head(repository.noted_of(snapshot), where)
            if head is None or head.id != one:
                said = "nothing is said of it" if head is None else f"it says that it is the checkpoint {head.id}"
                raise damaged(said, where)
            known = self._heads[one] = snapshot, head
        return known

    def head(self, checkpoint: str) -> Checkpoint:
        with self.reading(checkpoint) as reader:
            return reader.checkpoint

    @contextlib.contextmanager
    def reading(self, checkpoint: str) -> Iterator[CloudCheckpoint]:
        """Give a reader of a checkpoint, which may be removed meanwhile: then whoever reads is told so."""
        try:
            snapshot, head = self._head(checkpoint)
            yield CloudCheckpoint(self._made(), snapshot, head)
        except IntegrityError as error:
            if checkpoint not in self.ids():
                raise self.missing(checkpoint) from error  # it was removed, and collected, meanwhile
            raise

    def check(
        self,
        checkpoint: str,
        progress: Callable[[int], object] | None = None,
        known: dict[bytes, int] | None = None,  # noqa: ARG002 - two chunks of one content are two objects
    ) -> int:
        try:
            with self.reading(checkpoint) as reader:
                return reader.check_everything(progress)
        except IntegrityError:
            self._distrusted = True  # the next one relies on nothing that was there before it
            raise

    def stored(self) -> tuple[int | None, int]:
        repository = self.repository
        return (0, 0) if repository is None else (None, repository.nbytes())

    def manifest_path(self, one: str) -> str:
        return str(self.url.at(one))

    def named(self, one: str) -> dict[str, Any]:
        name = self._heads[one][1].name if one in self._heads else ""
        return {self.kind.what: one, **({"name": name} if name else {})}

    @property
    def list_hint(self) -> str:
        """What to do when there is no such checkpoint."""
        return f"qmem checkpoint -C {shell_word(self.path)} list shows those that there are"

    def missing(self, one: str) -> MissingError:
        return MissingError(f"there is no checkpoint {one!r:.80}", path=self.path, next_step=self.list_hint)

    # --- together with others

    def held(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def alone(self, timeout: float = 0.0) -> contextlib.AbstractContextManager[None]:  # noqa: ARG002 - nobody is in the way
        return contextlib.nullcontext()

    # --- save and remove

    def write(
        self,
        flat: Flat,
        said: Said,
        compression: str,
        taken: Callable[[], object] | None,
        progress: Callable[[int], object] | None,
    ) -> Checkpoint:
        if compression != "none":
            raise InvalidStateError(
                f"there is no compression {compression!r:.40} for it", path=self.path, next_step='use "none"'
            )
        repository = self._made()
        memory = Prepared(flat.document, dict(flat.arrays), flat.record)
        _check_branch(repository, said.branch)
        with repository.following(said.branch, apart=self._apart, durable=self.durable) as writing:
            store = writing.session.store
            before, is_damaged = before_of(repository, writing.seen)
            if is_damaged:
                with told(self.url, "remove what is damaged"):
                    clear(store)
            writer = SnapshotWriter(
                store, self.path, before, progress=progress, anew=self._distrusted, back=writing.back
            )
            writer.make_room(memory.arrays)
            places = writer.write_arrays(memory.arrays)
            if taken is not None:
                taken()
            content = writer.describe(memory, places, None, said.id)
            raw_bytes = sum(place.nbytes for place in places.values())
            head = said.head(flat, content, raw_bytes, writer.written)
            facts = {"content_id": content, **manifests.noting(head)}
            try:
                snapshot = repository.add(writing, _message(head), facts, head.id, durable=self.durable)
            except (IntegrityError, StorageError):
                self._apart = not repository.can_be_followed(writing.seen)
                raise
            self._heads[head.id] = snapshot, head
            self._distrusted = self._apart = False
            repository.let_end(
                said.branch, snapshot, writing.seen, lambda noted: _is_newer(head, noted), durable=self.durable
            )
        return head

    def remove(self, ids: list[str]) -> None:
        repository = self.repository
        if repository is not None and ids:

            def newest(line: str) -> str | None:
                stay = [one for one in self.listed()[0] if one.branch == line and one.id not in ids]
                return self._head(stay[-1].id)[0] if stay else None

            repository.remove(ids, newest, durable=self.durable)
            refs = self.refs()  # nobody who has tagged one meanwhile could know that it goes
            if back := [one for one in ids if one in refs.pins or refs.tags_of(one)]:
                repository.bring_back(back)
        for one in ids:
            self._heads.pop(one, None)

    def needed(self, without: Iterable[str] = ()) -> set[bytes]:  # noqa: ARG002 - the storage knows it
        return set()

    def collect(self, *, needed: set[bytes] | None = None) -> Collected:
        """Remove versions that nothing keeps, and what none needs, but for what is younger than an hour.

        After something has been removed that is done once in an hour, since there is nothing to be gained before.
        """
        repository = self.repository
        if repository is None or (needed is not None and not self._is_due(repository)):
            return Collected()
        try:
            done = repository.collect(lambda tag: _ID.fullmatch(tag) is not None)
        except ConflictError:
            return Collected()  # somebody else is at it
        except IntegrityError as error:
            error.message = f"nobody knows what may go, since something is damaged: {error.message}"
            error.next_step = f"qmem checkpoint -C {shell_word(self.path)} verify shows which; delete those"
            raise
        with told(self.url, "take down that it was collected"):
            repository.notes.write(_COLLECTED, now().isoformat().encode())
        kept = 0
        with contextlib.suppress(ConflictError, IntegrityError):  # others are at it, and nothing depends on it
            kept = repository.nbytes()
        return Collected(chunks_removed=done.objects, bytes_removed=done.bytes, bytes_kept=kept)

    def _is_due(self, repository: KeptVersions) -> bool:
        with told(self.url, "look up when it was collected"):
            noted = repository.notes.read(_COLLECTED)
        try:
            return noted is None or abs((now() - type(now()).fromisoformat(noted.decode())).total_seconds()) > _PAUSE
        except (ValueError, TypeError):
            return True

    def sweep(self) -> list[str]:
        repository = self.repository
        return [] if repository is None else repository.sweep()

    def purge(self, content_id: str | None, done: Purged) -> list[str]:
        return purge(self, content_id, done)

    def close(self) -> None:
        pass

    # --- names, and the log

    def refs(self) -> Refs:
        repository = self.repository
        if repository is None:
            return Refs()
        with told(self.url, "read its tags and pins"):
            return refs_in(repository.notes.read(_REFS), self.path)

    def change_refs(self, change: Callable[[Refs], object]) -> None:
        repository = self.repository
        if repository is None:
            raise nothing(self)
        with told(self.url, "change its tags and pins"):
            repository.notes.change(_REFS, lambda text: changed_refs(text, self.path, change))

    def note(self, action: str, **facts: Any) -> None:
        repository = self.repository
        if repository is not None:
            # It is for people: what is in it is not relied on.
            with contextlib.suppress(StorageError), told(self.url, "write its log"):
                CloudLog(repository.notes).add(action, facts)

    def log(self) -> list[dict[str, Any]]:
        repository = self.repository
        if repository is None:
            return []
        with told(self.url, "read its log"):
            return CloudLog(repository.notes).lines()


def _check_branch(repository: KeptVersions, branch: str) -> None:
    """See that a branch of the repository can be called as one of checkpoints is.

    Raises
    ------
    ConflictError, InvalidStateError
    """
    if branch != MAIN:
        if _ID.fullmatch(branch):
            raise InvalidStateError(
                f"a branch cannot be called {branch!r:.60}, as checkpoints are", next_step="choose another name"
            )
        repository.check_line(branch)


def _message(head: Checkpoint) -> str:
    """Return what the history says of a checkpoint: a line, of what Icechunk takes."""
    name = " ".join(head.name[:_LONGEST_NAME].encode("utf-8", "backslashreplace").decode().split())
    return f"checkpoint {head.number}" + (f": {name}" if name else "")


def _is_newer(head: Checkpoint, noted: dict[str, Any]) -> bool:
    """Tell whether a checkpoint is newer than a version of which this was noted."""
    try:
        other = manifests.noted_head(noted)
    except QuantumMemoryError:
        return True  # nobody knows which
    return other is None or order(head) > order(other)
