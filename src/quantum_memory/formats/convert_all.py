"""Move many files, or repositories, to addresses, with the help of others.

What has been moved is at its address, with its content: so a run that was cut off begins where it ended, without a
journal.
"""

from __future__ import annotations

import os
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from quantum_memory.errors import InvalidStateError, MissingFileError, QuantumMemoryError
from quantum_memory.formats.convert import convert
from quantum_memory.formats.reader import identities
from quantum_memory.formats.registry import OpenOptions, open_reader
from quantum_memory.formats.urls import URL, is_url, local_path, storage
from quantum_memory.formats.verify_all import in_folder
from quantum_memory.state.document import content_id, well_formed
from quantum_memory.state.products import shared_out

if TYPE_CHECKING:
    from collections.abc import Iterator

    from quantum_memory.formats.registry import Path, Progress

_MOST_FILES, _MOST_BYTES = 50, 256 << 20
"""Of a task."""


@dataclass(frozen=True)
class Moved:
    """What became of one file, or of one repository.

    Attributes
    ----------
    source, path
        From where, and to which address.
    content_id
        The name of its content; None where it was not moved.
    bytes
        That were written.
    before
        Whether it was there already.
    error
        Why it was not moved; None where it was.
    exit_code
        Of the error; 0 where there is none.
    """

    source: str
    path: str
    content_id: str | None
    bytes: int
    before: bool = False
    error: str | None = None
    exit_code: int = 0


def convert_all(
    source: Path,
    target: str,
    *,
    executor: Any = None,
    overwrite: bool = False,
    progress: Progress | None = None,
    max_bytes: int | None = None,
    allow_pickle: bool = False,
) -> Iterator[Moved]:
    """Convert each saved state in a folder, or each repository below an address, and yield what became of each.

    Each goes to an address of its own, the one of `target` and its path in the folder, with its suffix:
    ``results/a/7.qms`` to ``s3://bucket/prefix/a/7.qms``. See `quantum_memory.convert` for how. One that cannot be
    moved does not keep the others from it. One whose content its address has already is not moved again, so that this
    is done once more where it was cut off.

    Parameters
    ----------
    source
        A folder, of which the same files are meant as of `quantum_memory.verify_all`, or an address below which there
        are repositories, of which the newest versions are.
    target
        An address below which they go.
    executor
        A `concurrent.futures.Executor`, or a client of Dask, whose tasks convert some of them each.
    overwrite
        Whether another content at an address becomes an older version there.
    progress
        Called with the bytes that were written.
    max_bytes, allow_pickle
        See `quantum_memory.load`.

    Raises
    ------
    InvalidStateError
        The target is no address.
    StorageError
        The folder cannot be listed; or a process of the executor has died.
    """
    if not is_url(target):
        raise InvalidStateError(
            "many are moved to addresses", path=target, next_step="give an address, or convert one after the other"
        )
    pairs = dict(_pairs(os.fspath(local_path(source)), URL.parse(target)))
    options = OpenOptions(max_bytes, allow_pickle)
    tasks = _batches(list(pairs.items()))
    for batch in shared_out(_moved_batch, ((task, options, overwrite) for task in tasks), executor):
        for one in batch:
            if progress is not None:
                progress(one.bytes)
            yield one


def _pairs(source: str, target: URL) -> Iterator[tuple[str, str]]:
    """Yield each thing that is moved, and its address."""
    if is_url(source):
        above = URL.parse(source)
        for each in storage().below(above) or [source]:
            below = URL.parse(each).key.removeprefix(above.key).strip("/")
            yield each, _below(target, below)
        return
    for path in in_folder(source):
        yield path, _below(target, os.path.relpath(path, source).replace(os.sep, "/"))


def _below(url: URL, path: str) -> str:
    parts = [part for part in (url.key, path) if part]
    return str(URL(url.scheme, url.bucket, "/".join(parts), None, url.endpoint))


def _batches(pairs: list[tuple[str, str]]) -> Iterator[list[tuple[str, str]]]:
    """Yield what each task moves: some small files, or one that is large."""
    batch: list[tuple[str, str]] = []
    size = 0
    for source, target in pairs:
        length = _length(source)
        if batch and (len(batch) >= _MOST_FILES or size + length > _MOST_BYTES):
            yield batch
            batch, size = [], 0
        batch.append((source, target))
        size += length
    if batch:
        yield batch


def _length(path: str) -> int:
    if is_url(path):
        return _MOST_BYTES  # a task of its own
    try:
        return os.stat(path).st_size  # noqa: PTH116
    except OSError:
        return 0


def _moved_batch(pairs: list[tuple[str, str]], options: OpenOptions, overwrite: bool) -> list[Moved]:
    return [_moved(source, target, options, overwrite=overwrite) for source, target in pairs]


def _moved(source: str, target: str, options: OpenOptions, *, overwrite: bool) -> Moved:
    try:
        content = _content_of(source, options)
        try:
            there = _content_of(target, OpenOptions())
        except MissingFileError:
            there = None
        if there == content:
            return Moved(source, target, content, 0, before=True)
        done = convert(
            source, target, overwrite=overwrite, max_bytes=options.max_bytes, allow_pickle=options.allow_pickle
        )
    except QuantumMemoryError as error:
        return Moved(source, target, None, 0, error=str(error), exit_code=error.exit_code)
    return Moved(source, target, done.content_id, done.bytes)


def _content_of(path: str, options: OpenOptions) -> str:
    """Return the name of a content, from what a file says of itself."""
    with closing(open_reader(path, options)) as reader, well_formed(reader.name):
        return content_id(reader.document, identities(reader))
