"""Check many files, or one that is large, with the help of others.

Small files go to a worker by the hundred: a task of its own for each would take longer to hand out than to do. What is
done can be written down in a journal as it is done, so that a run that was cut off begins where it ended.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import deque
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from quantum_memory.durability.files import ReadableFile
from quantum_memory.errors import RESTORE, IntegrityError, MissingFileError, QuantumMemoryError, StorageError
from quantum_memory.formats.qms_bytes import length_of_whole
from quantum_memory.formats.registry import FORMATS, SUFFIXES, OpenOptions, format_of_head, open_reader
from quantum_memory.formats.shared_looks import shared_look
from quantum_memory.formats.urls import URL, is_url, storage
from quantum_memory.formats.verify import Depth, VerifyReport, depth_of, verify_one
from quantum_memory.formats.verify_journal import Checked, Found, Journal, spelled_out
from quantum_memory.state.products import as_executor

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from concurrent.futures import Future

    from quantum_memory.encryption.keys import OneKey
    from quantum_memory.formats.registry import Path, Progress

_MOST_FILES: dict[Depth, int] = {"bytes": 2000, "full": 500}
_MOST_BYTES = 256 << 20
"""Of a task."""

_AHEAD = 128
"""Tasks that are handed out before the first of them has ended: of a million files, most are not listed yet."""

_HEAD_BYTES = 4096
"""What tells files of ours from those of the first implementation that begin like them."""

_QMS = FORMATS[0].suffixes[0]

_SHOWN = 3


@dataclass(frozen=True)
class _Task:
    """What is sent to who does the work. Of a list, Dask would look at every item, and send each by itself."""

    paths: list[str]
    options: OpenOptions
    depth: Depth


@dataclass(frozen=True)
class _Answer:
    """What is sent back."""

    found: list[Found]


class _Batch(NamedTuple):
    """What one task checks.

    Attributes
    ----------
    paths
        Files that follow one another.
    key
        Of the journal: it changes when one of them does. Without a journal it is empty.
    """

    paths: list[str]
    key: str


def verify(
    path: Path,
    *,
    progress: Progress | None = None,
    max_bytes: int | None = None,
    allow_pickle: bool = False,
    state_id: str | None = None,
    key: OneKey | None = None,
    executor: Any = None,
    depth: Depth = "full",
) -> VerifyReport:
    """Check every byte of a file against its checksum and its SHA-256, needing at most 64 MiB of memory.

    Of a folder, or of an address below which there are repositories, everything in it is checked: see `verify_all`. The
    report is of all together, and so is the error, which has the damaged ones in its attribute ``damaged``.

    Whether the parts of the memory fit together is seen by putting it together, up to 32 MiB; in a larger one it is
    seen of the quantum state only, from shapes. Values that are not finite are always counted, and the norm of state
    vectors is always computed. Other states are looked at (norm, trace, eigenvalues, canonical form) where that is
    quick: density matrices up to dimension 512, stabiliser states up to 2048 qubits, and matrix product states up to
    2**21 numbers, and 2**28 products of two numbers in their norm, all of memories that are put together.

    With ``depth="bytes"`` nothing is decoded and nothing put together: every byte of the file is compared with the
    checksums of what is stored, which finds whatever has become of it since it was written, and takes a twentieth of
    the time of a small file. Whether what was written fits together and has odd values, and which `content_id` it has,
    is not seen. Of HDF5, files of the first implementation, checkpoints by name and addresses there is no such check,
    and the full one is made.

    Parameters
    ----------
    path
        The file, the folder, or an address or a name that `quantum_memory.load` takes.
    progress
        Called with the raw bytes of each chunk that is done.
    executor
        A `concurrent.futures.Executor`, or a client of Dask, which does the work for a folder, or at an address.
    depth
        "bytes" or "full".
    max_bytes, allow_pickle, state_id, key
        See `quantum_memory.load`.

    Raises
    ------
    IntegrityError
        The file is damaged. It says where.
    WrongKeyError
        It is encrypted, and not with this key, or none was given.
    UnsupportedVersionError, MissingFileError, StorageError, UnsafeError
    """
    options = OpenOptions(max_bytes, allow_pickle, state_id, key)
    if is_several(path):
        return _together(path, options, executor, progress, depth_of(depth))
    if executor is None or not is_url(path):
        return verify_one(path, options, progress, depth=depth_of(depth))
    return verify_one(path, options, None, lambda reader: shared_look(reader, executor, progress))


def verify_all(
    paths: Iterable[Path],
    *,
    executor: Any = None,
    journal: Path | None = None,
    progress: Progress | None = None,
    options: OpenOptions | None = None,
    depth: Depth = "full",
) -> Iterator[Checked]:
    """Check files, and yield what was found of each, in their order.

    They are listed while they are checked, so that of a million only some are in memory.

    Parameters
    ----------
    paths
        Files, folders and addresses. Of a folder every ``.qms`` file in it and below, and of the other suffixes the
        files that begin as ours do: other programs have such files, too. Files of the first implementation are left
        out, of which ``qmem migrate plan`` says what it makes of them.
    executor
        A `concurrent.futures.Executor`, or a client of Dask, which does the work. Its tasks open the files, which must
        be there for them as well.
    journal
        A file to which is written what is done. What is in it already, and has not changed since, is not checked again.
    progress
        Called with the bytes of files that are done.
    options, depth
        See `quantum_memory.verify`.
    """
    depth = depth_of(depth)
    options = options or OpenOptions()
    with closing(Journal(journal)) as done:
        for batch, found in _found(_batches(_listed(paths), depth, keyed=done.is_kept), executor, done, options, depth):
            for one in spelled_out(batch.paths, found):
                if progress is not None:
                    progress(one.bytes)
                yield one


def _found(
    batches: Iterable[_Batch], executor: Any, done: Journal, options: OpenOptions, depth: Depth
) -> Iterator[tuple[_Batch, list[Found]]]:
    """Yield what is found of each batch, in their order, as soon as it and those before it are done."""
    pool = None if executor is None else as_executor(executor)
    waiting: deque[tuple[_Batch, Future[_Answer] | list[Found]]] = deque()

    def first() -> tuple[_Batch, list[Found]]:
        batch, found = waiting[0]
        if not isinstance(found, list):
            found = found.result().found
            done.note(batch.key, found)
        waiting.popleft()
        return batch, found

    try:
        for batch in batches:
            known = done.known(batch.key, batch.paths)
            task = _Task(batch.paths, options, depth)
            if known is not None:
                waiting.append((batch, known))
            elif pool is not None:
                waiting.append((batch, pool.submit(_checked_batch, task)))
            else:
                found = _checked_batch(task).found
                done.note(batch.key, found)
                waiting.append((batch, found))
            while waiting and (len(waiting) > _AHEAD or isinstance(waiting[0][1], list) or waiting[0][1].done()):
                yield first()
        while waiting:
            yield first()
    finally:
        for _, rest in waiting:
            if not isinstance(rest, list):
                rest.cancel()


def is_several(path: object) -> bool:
    """Tell whether a path means several files, or repositories."""
    if isinstance(path, str) and is_url(path):
        url = URL.parse(path)
        return url.name is None and storage().below(url) is not None
    return isinstance(path, (str, os.PathLike)) and os.path.isdir(path)  # noqa: PTH112 - of any kind of path


def _together(path: Path, options: OpenOptions, executor: Any, progress: Progress | None, depth: Depth) -> VerifyReport:
    """Check everything in a folder or below an address, and report on all together."""
    name, count, size = os.fspath(path), 0, 0
    bad: dict[str, str] = {}
    names: list[str] = []
    problems: list[str] = []
    for one in verify_all([path], executor=executor, progress=progress, options=options, depth=depth):
        count, size = count + 1, size + one.bytes
        if one.error is not None:
            bad[one.path] = one.error
        elif one.content_id is not None:
            names.append(one.content_id)
        problems.extend(f"{one.path}: {problem}" for problem in one.problems)
    if not count and not is_url(path):
        return verify_one(path, options)  # which says what it is, if it is no file
    if not count:
        raise MissingFileError("there is no saved state in it", path=name, next_step="give the path of one")
    if bad:
        some = ", ".join(list(bad)[:_SHOWN]) + (", ..." if len(bad) > _SHOWN else "")
        damaged = IntegrityError(f"{len(bad)} of {count} are not whole: {some}", path=name, next_step=RESTORE)
        damaged.damaged = bad  # type: ignore[attr-defined]
        raise damaged
    content = hashlib.sha256("".join(sorted(names)).encode()).hexdigest() if depth == "full" else None
    return VerifyReport(name, "several", size, content, count, count, problems, depth)


def _checked_batch(task: _Task) -> _Answer:
    if task.depth == "bytes" and task.options == OpenOptions():
        return _Answer([_quickly_checked(path, task.options) for path in task.paths])
    return _Answer([_checked(path, task.options, task.depth) for path in task.paths])


def _quickly_checked(path: str, options: OpenOptions) -> Found:
    """Return what is found of a file, of one that is small, whole and named as most are without more ado."""
    plain = path.endswith(_QMS) and "@" not in path and "://" not in path
    length = length_of_whole(path) if plain else None
    return _checked(path, options, "bytes") if length is None else length


def _checked(path: str, options: OpenOptions, depth: Depth) -> Found:
    try:
        report = verify_one(path, options, depth=depth)
    except QuantumMemoryError as error:
        length = 0 if is_url(path) else _facts(path)[0]
        return Checked(path, None, length, error=str(error), exit_code=error.exit_code, depth=depth)
    if report.depth == "bytes":
        return report.bytes
    return Checked(path, report.content_id, report.bytes, tuple(report.problems))


def _listed(paths: Iterable[Path]) -> Iterator[str]:
    for path in paths:
        name = os.fspath(path)
        if is_url(name):
            url = URL.parse(name)
            below = storage().below(url) if url.name is None else None
            yield from [name] if below is None else below
        elif os.path.isdir(name):  # noqa: PTH112
            yield from in_folder(name)
        else:
            yield name


def in_folder(folder: str) -> Iterator[str]:
    """Yield the saved states in a folder and below."""

    def failed(error: OSError) -> None:
        raise StorageError.from_os_error(error, "list the folder", error.filename or folder) from error

    for here, below, names in os.walk(folder, onerror=failed):
        below.sort()
        yield from filter(_is_one_of_ours, (os.path.join(here, name) for name in sorted(names)))  # noqa: PTH118


def _is_one_of_ours(path: str) -> bool:
    """Tell whether a file is a saved state, whole or not; other programs have files with the suffixes of ours, too."""
    name = path.lower()
    if name.endswith(_QMS) or not name.endswith(SUFFIXES):
        return name.endswith(_QMS)
    try:
        with ReadableFile(path) as source:
            head = source.read(0, min(_HEAD_BYTES, source.size))
            found = format_of_head(head)
            return found is not None and not found.is_legacy(head)
    except QuantumMemoryError:
        return True  # checking it says what is wrong


def _batches(paths: Iterable[str], depth: Depth, *, keyed: bool) -> Iterator[_Batch]:
    """Put files together that one task checks; each is looked at once, before it is checked."""
    batch: list[str] = []
    stamps: list[object] = []
    size = 0

    def made() -> _Batch:
        key = hashlib.sha256(json.dumps([depth, batch, stamps]).encode()).hexdigest() if keyed else ""
        return _Batch(batch, key)

    for path in paths:
        length, changed = _facts(path)
        if batch and (len(batch) >= _MOST_FILES[depth] or size + length > _MOST_BYTES):
            yield made()
            batch, stamps, size = [], [], 0
        batch.append(path)
        if keyed:
            stamps += _version(path) if is_url(path) else (length, changed)
        size += length
    if batch:
        yield made()


def _facts(path: str) -> tuple[int, int]:
    """Return how long a file is, and when it was changed; where there is none, why."""
    if is_url(path):
        return _MOST_BYTES, 0  # a task of its own
    try:
        facts = os.stat(path)  # noqa: PTH116
    except (OSError, ValueError) as error:
        return 0, -(getattr(error, "errno", None) or 1)
    return facts.st_size, facts.st_mtime_ns


def _version(path: str) -> tuple[str]:
    """Return which version an address means now."""
    with closing(open_reader(path, OpenOptions())) as reader:
        return (getattr(reader, "address", path),)
