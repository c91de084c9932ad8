"""Memories as Zarr arrays in versions of a repository, for the verbs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from quantum_memory.cloud.errors import told
from quantum_memory.cloud.others_first import TRIES, pause, too_often
from quantum_memory.cloud.places import repositories_below
from quantum_memory.cloud.reader import SnapshotReader
from quantum_memory.cloud.repository import MAIN, Repository, checked_name
from quantum_memory.cloud.writer import SnapshotWriter, clear
from quantum_memory.durability.files import ReadableBytes
from quantum_memory.errors import ConflictError, IntegrityError, InvalidStateError, MissingFileError, QuantumMemoryError
from quantum_memory.formats.form_reader import with_forms
from quantum_memory.formats.names import checkpoints
from quantum_memory.formats.progress import Once
from quantum_memory.formats.reader import damaged
from quantum_memory.formats.registry import Handler, Saved

if TYPE_CHECKING:
    from collections.abc import Callable

    from quantum_memory.durability.files import Readable
    from quantum_memory.formats.prepared import Fidelity, Prepared
    from quantum_memory.formats.reader import Reader
    from quantum_memory.formats.registry import OpenOptions, Progress, SaveOptions
    from quantum_memory.formats.urls import URL


class Zarr(Handler):
    """What reads the memory at an address."""

    def __init__(self, url: URL) -> None:
        self._url = url

    def open(self, source: Readable, options: OpenOptions) -> Reader:
        repository = Repository(self._url)
        try:
            snapshot = repository.find(self._url.name)
        except MissingFileError:
            one = checkpoints().at(self._url)
            if one is None:
                raise
            snapshot = repository.find(one)
        return with_forms(reader_of(repository, snapshot, source.name), options.max_bytes)


class ZarrStorage:
    """See `formats.urls.Storage`."""

    def below(self, url: URL) -> list[str] | None:
        return repositories_below(url)

    def open(self, url: URL, options: OpenOptions) -> tuple[Readable, Handler]:
        if options.key is not None:
            raise InvalidStateError(
                "it is not encrypted, and a key was given to open it", path=str(url), next_step="leave the key out"
            )
        if options.state_id is not None:
            raise InvalidStateError(
                "a version holds one state, which has no id",
                path=str(url),
                next_step=f"give the version as {url.at(options.state_id)}",
            )
        return ReadableBytes(b"", str(url)), Zarr(url)

    def save(
        self,
        url: URL,
        memory: Prepared,
        options: SaveOptions,
        asked: Fidelity | None,
        check: Callable[[str], object] | None = None,
    ) -> Saved:
        _check_options(url, options, asked)
        if asked is not None:
            from quantum_memory.formats.packing import packed  # noqa: PLC0415 - as in `formats.verbs`

            memory = packed(memory, asked, options.progress, options.executor)
        if options.executor is not None:
            from quantum_memory.cloud.shared_saving import large_arrays, saved_by  # noqa: PLC0415 - it imports this

            if large_arrays(memory):
                return saved_by(options.executor, url, memory, options, check)
        repository = Repository(url, create=True)
        line, tag = line_and_tag(repository, url)
        progress = Once(options.progress)
        for attempt in range(TRIES):
            try:
                snapshot, writer, content = _Save(repository, line, memory, options, check).written(progress)
                break
            except _Behind:
                pause(attempt)
        else:
            raise too_often(url)
        if tag is not None:
            call(repository, tag, snapshot)
        return Saved(str(url), "zarr", writer.stored, content, memory.raw_bytes, memory.forms.infidelity)


class _Behind(Exception):  # noqa: N818 - no error
    """Somebody else has written a version meanwhile."""


@dataclass(frozen=True)
class _Save:
    """A memory that is to be the next version of a branch."""

    repository: Repository
    line: str
    memory: Prepared
    options: SaveOptions
    check: Callable[[str], object] | None

    def written(self, progress: Once) -> tuple[str, SnapshotWriter, str]:
        """Write it, and return its snapshot, what wrote it, and the `content_id`.

        What has not changed is not written again. Where nothing has, it is looked at whether it is all there: who saves
        it once more may have been told to restore it from a copy.
        """
        for anew in (False, True):
            found = self._attempt(progress.again(), anew=anew)
            if found is not None:
                return found
        raise AssertionError("what is written anew is a new version")

    def _attempt(self, progress: Progress | None, *, anew: bool) -> tuple[str, SnapshotWriter, str] | None:
        """Do what `written` does; return None where all of it is there already, and damaged."""
        repository = self.repository
        with repository.writing(self.line, durable=self.options.durable) as writing:
            before, damaged_before = before_of(repository, writing.seen)
            if (before is not None or damaged_before) and not self.options.overwrite:
                raise already_there(repository.url)
            store, name = writing.session.store, str(repository.url)
            if damaged_before:
                with told(name, "remove what is damaged"):
                    clear(store)
            writer = SnapshotWriter(store, name, before, progress=progress, anew=anew, back=writing.back)
            content = writer.write(self.memory)
            if before is not None and not writing.session.has_uncommitted_changes:
                if not before.is_whole():
                    return None
                repository.keep(writing.seen, durable=self.options.durable, check=self.check)
                return writing.seen, writer, content
            try:
                snapshot = repository.commit(
                    writing,
                    f"save {content[:16]}",
                    {"content_id": content},
                    durable=self.options.durable,
                    check=self.check,
                )
            except ConflictError as error:
                if repository.find(self.line) == writing.seen:
                    raise
                raise _Behind from error
        return snapshot, writer, content


def call(repository: Repository, tag: str, snapshot: str) -> None:
    """Give a version that was just written its name; where that fails, it is said that it was written."""
    try:
        repository.tag(tag, snapshot)
    except QuantumMemoryError as error:
        error.message = f"it was written as version {snapshot}, which could not be called {tag!r}: {error.message}"
        raise


def already_there(url: URL) -> ConflictError:
    """Return what is said where nothing is to be written over."""
    return ConflictError(
        "there is a memory already",
        path=str(url),
        next_step="say overwrite (--overwrite): the one that is there stays as an older version",
    )


def reader_of(repository: Repository, snapshot: str, name: str) -> SnapshotReader:
    """Return a reader of a version.

    Parameters
    ----------
    name
        What errors call it.

    Raises
    ------
    MissingFileError
        There is no memory in it.
    IntegrityError
        There is none, or another one, where the history says that there is one.
    """
    facts = repository.noted_of(snapshot)
    noted = facts.get("content_id")
    try:
        reader = SnapshotReader(repository.store(snapshot), name, str(repository.url.at(snapshot)))
    except MissingFileError as error:
        if noted is None:
            raise
        raise damaged("its history says that there is a memory in it, and there is none", name) from error
    if noted is not None and noted != reader.content:
        raise damaged("the memory in it is not the one that its history says there is", name)
    if reader.version_name is not None:
        reader.record = reader.record | checkpoints().record(facts)
    return reader


def before_of(repository: Repository, snapshot: str) -> tuple[SnapshotReader | None, bool]:
    """Return a reader of a version that another one follows; None where it holds no memory, or one that is damaged.

    Returns
    -------
    reader, damaged

    Raises
    ------
    IntegrityError
        Nothing can follow it: its snapshot cannot be read.
    """
    name = str(repository.url.at(snapshot))
    try:
        repository.store(snapshot)
    except IntegrityError as error:
        error.next_step = "go back to an older version first: quantum_memory.repository(url).rollback(snapshot)"
        raise
    try:
        return reader_of(repository, snapshot, name), False
    except MissingFileError:
        return None, False
    except IntegrityError:
        return None, True


def line_and_tag(repository: Repository, url: URL) -> tuple[str, str | None]:
    """Return which branch an address is to be written to, and how the version is to be called."""
    if url.name is None or url.name == MAIN:
        return MAIN, None
    name = checked_name(url.name)
    if repository.has_branch(name):
        return name, None
    if repository.has_tag(name):
        raise ConflictError(
            f"there is a version {name!r} already", path=str(url), next_step="tags stay; choose another name"
        )
    return MAIN, name


def _check_options(url: URL, options: SaveOptions, asked: Fidelity | None) -> None:
    if options.encrypt is not None:
        raise InvalidStateError(
            "what is saved there cannot be encrypted",
            path=str(url),
            next_step="save it as .qms with a key, and copy that there",
        )
    if options.compression not in {"auto", "none"}:
        raise InvalidStateError(
            f"there is no compression {options.compression!r:.40} for it", path=str(url), next_step='use "none"'
        )
    if asked is not None and asked.max_bytes is not None:
        raise InvalidStateError(
            "max_bytes is for files, whose length is known", path=str(url), next_step="give fidelity instead"
        )
    if asked is not None and options.executor is not None and asked.effort != "fast":
        raise InvalidStateError(
            "an executor writes amplitudes as they are, or quantised, and looks for no other form",
            path=str(url),
            next_step="leave effort out, or the executor",
        )
