"""Memories as Zarr arrays in versions of a repository, for the verbs."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING

from quantum_memory.cloud.places import repositories_below
from quantum_memory.cloud.reader import SnapshotReader
from quantum_memory.cloud.repository import MAIN, Repository, checked_name
from quantum_memory.cloud.writer import SnapshotWriter
from quantum_memory.durability.files import ReadableBytes
from quantum_memory.errors import ConflictError, InvalidStateError, MissingFileError
from quantum_memory.formats.form_reader import with_forms
from quantum_memory.formats.reader import damaged
from quantum_memory.formats.registry import Handler, Saved

if TYPE_CHECKING:
    from collections.abc import Callable

    from quantum_memory.durability.files import Readable
    from quantum_memory.formats.prepared import Fidelity, Prepared
    from quantum_memory.formats.reader import Reader
    from quantum_memory.formats.registry import OpenOptions, SaveOptions
    from quantum_memory.formats.urls import URL

_TRIES = 100
_LONGEST_PAUSE = 1.0


class Zarr(Handler):
    """What reads the memory at an address."""

    def __init__(self, url: URL) -> None:
        self._url = url

    def open(self, source: Readable, options: OpenOptions) -> Reader:
        repository = Repository(self._url)
        snapshot = repository.find(self._url.name)
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

            memory = packed(memory, asked, options.progress)
        if options.executor is not None:
            from quantum_memory.cloud.transaction import saved_by  # noqa: PLC0415 - it imports this

            return saved_by(options.executor, url, memory, options)
        repository = Repository(url, create=True)
        line, tag = line_and_tag(repository, url)
        for attempt in range(_TRIES):
            try:
                snapshot, writer, content = _written(repository, line, memory, options, check)
                break
            except _Behind:
                time.sleep(random.random() * min(_LONGEST_PAUSE, 0.01 * 2 ** min(attempt, 7)))  # noqa: S311 - a pause
        else:
            raise ConflictError(
                f"others were quicker {_TRIES} times in a row",
                path=str(url),
                next_step="write less often, or elsewhere",
            )
        if tag is not None:
            repository.tag(tag, snapshot)
        return Saved(str(url), "zarr", writer.stored, content, memory.raw_bytes, memory.forms.infidelity)


class _Behind(Exception):  # noqa: N818 - no error
    """Somebody else has written a version meanwhile."""


def _written(
    repository: Repository,
    line: str,
    memory: Prepared,
    options: SaveOptions,
    check: Callable[[str], object] | None,
) -> tuple[str, SnapshotWriter, str]:
    """Write a memory as the next version, and return its snapshot, what wrote it, and the `content_id`."""
    with repository.writing(line) as writing:
        before = before_of(repository, writing.seen)
        if before is not None and not options.overwrite:
            raise already_there(repository.url)
        writer = SnapshotWriter(writing.session.store, before, progress=options.progress)
        content = writer.write(memory)
        if not writing.session.has_uncommitted_changes:
            return writing.seen, writer, content
        try:
            snapshot = repository.commit(
                writing, f"save {content[:16]}", {"content_id": content}, durable=options.durable, check=check
            )
        except ConflictError as error:
            raise _Behind from error
    return snapshot, writer, content


def already_there(url: URL) -> ConflictError:
    """Return what is said where nothing is to be written over."""
    return ConflictError(
        "there is a memory already",
        path=str(url),
        next_step="say overwrite: the one that is there stays as an older version",
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
    noted = repository.content_of(snapshot)
    try:
        reader = SnapshotReader(repository.store(snapshot), name, str(repository.url.at(snapshot)))
    except MissingFileError as error:
        if noted is None:
            raise
        raise damaged("its history says that there is a memory in it, and there is none", name) from error
    if noted is not None and noted != reader.content:
        raise damaged("the memory in it is not the one that its history says there is", name)
    return reader


def before_of(repository: Repository, snapshot: str) -> SnapshotReader | None:
    """Return a reader of a version that another one follows; None where it holds no memory."""
    try:
        return reader_of(repository, snapshot, str(repository.url.at(snapshot)))
    except MissingFileError:
        return None


def line_and_tag(repository: Repository, url: URL) -> tuple[str, str | None]:
    """Return which branch an address is to be written to, and how the version is to be called."""
    if url.name is None or url.name == MAIN:
        return MAIN, None
    if url.name in repository.branches():
        return url.name, None
    if url.name in repository.tags():
        raise ConflictError(
            f"there is a version {url.name!r} already", path=str(url), next_step="tags stay; choose another name"
        )
    return MAIN, checked_name(url.name)


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
    if asked is not None and options.executor is not None:
        raise InvalidStateError(
            "an executor writes amplitudes as they are",
            path=str(url),
            next_step="leave fidelity and effort out, or the executor",
        )
