"""Check many files, or one that is large, with the help of others.

Small files go to a worker by the hundred: a task of its own for each would take longer to hand out than to do. What is
done can be written down in a journal as it is done, so that a run that was cut off begins where it ended.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from quantum_memory.durability.files import ReadableFile
from quantum_memory.errors import RESTORE, IntegrityError, MissingFileError, QuantumMemoryError, StorageError
from quantum_memory.formats.registry import FORMATS, HEAD_BYTES, SUFFIXES, OpenOptions, format_of_head, open_reader
from quantum_memory.formats.stored_amplitudes import reader_of
from quantum_memory.formats.urls import URL, is_url, storage
from quantum_memory.formats.verify import Seen, VerifyReport, look_at, verify_one
from quantum_memory.state.products import AHEAD, share, shared_out, workers_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from quantum_memory.encryption.keys import OneKey
    from quantum_memory.formats.reader import Reader
    from quantum_memory.formats.registry import Path, Progress

_MOST_FILES, _MOST_BYTES = 500, 256 << 20
"""Of a task."""

_SHOWN = 3


@dataclass(frozen=True)
class Checked:
    """What was found of one file.

    Attributes
    ----------
    path
        Of the file, or its address.
    content_id
        The name of its content, where it is whole.
    bytes
        How long it is.
    problems
        What is odd about the data in it.
    error
        What is wrong with it; None where it is whole.
    exit_code
        Of the error; 0 where there is none.
    """

    path: str
    content_id: str | None
    bytes: int
    problems: tuple[str, ...] = ()
    error: str | None = None
    exit_code: int = 0


def verify(
    path: Path,
    *,
    progress: Progress | None = None,
    max_bytes: int | None = None,
    allow_pickle: bool = False,
    state_id: str | None = None,
    key: OneKey | None = None,
    executor: Any = None,
) -> VerifyReport:
    """Check every byte of a file against its checksum and its SHA-256, needing at most 64 MiB of memory.

    Of a folder, or of an address below which there are repositories, everything in it is checked: see `verify_all`. The
    report is of all together, and so is the error, which has the damaged ones in its attribute ``damaged``.

    Whether the parts of the memory fit together is seen by putting it together, up to 32 MiB; in a larger one it is
    seen of the quantum state only, from shapes. Values that are not finite are always counted, and the norm of state
    vectors is always computed. Other states are looked at (norm, trace, eigenvalues, canonical form) where that is
    quick: density matrices up to dimension 512, stabiliser states up to 2048 qubits, and matrix product states up to
    2**21 numbers, and 2**28 products of two numbers in their norm, all of memories that are put together.

    Parameters
    ----------
    path
        The file, the folder, or an address or a name that `quantum_memory.load` takes.
    progress
        Called with the raw bytes of each chunk that is done.
    executor
        A `concurrent.futures.Executor`, or a client of Dask, which does the work for a folder, or at an address.
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
        return _together(path, options, executor, progress)
    if executor is None or not is_url(path):
        return verify_one(path, options, progress)
    return verify_one(path, options, None, lambda reader: _shared_look(reader, executor, progress))


def verify_all(
    paths: Iterable[Path],
    *,
    executor: Any = None,
    journal: Path | None = None,
    progress: Progress | None = None,
    options: OpenOptions | None = None,
) -> Iterator[Checked]:
    """Check files, and yield what was found of each, in their order.

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
    options
        See `quantum_memory.verify`.
    """
    done = _Journal(journal)
    with closing(done):
        batches = list(_batches(_listed(paths)))
        known = [done.known(batch) for batch in batches]
        todo = [batch for batch, found in zip(batches, known, strict=True) if found is None]
        work = shared_out(_checked_batch, ((batch, options or OpenOptions()) for batch in todo), executor)
        for batch, found in zip(batches, known, strict=True):
            each = found if found is not None else done.noted(batch, next(work))
            for one in each:
                if progress is not None:
                    progress(one.bytes)
                yield one


def is_several(path: object) -> bool:
    """Tell whether a path means several files, or repositories."""
    if isinstance(path, str) and is_url(path):
        url = URL.parse(path)
        return url.name is None and storage().below(url) is not None
    return isinstance(path, (str, os.PathLike)) and os.path.isdir(path)  # noqa: PTH112 - of any kind of path


def _together(path: Path, options: OpenOptions, executor: Any, progress: Progress | None) -> VerifyReport:
    """Check everything in a folder or below an address, and report on all together."""
    found = list(verify_all([path], executor=executor, progress=progress, options=options))
    name = os.fspath(path)
    if not found and not is_url(path):
        return verify_one(path, options)  # which says what it is, if it is no file
    if not found:
        raise MissingFileError("there is no saved state in it", path=name, next_step="give the path of one")
    bad = {one.path: one.error for one in found if one.error is not None}
    if bad:
        some = ", ".join(list(bad)[:_SHOWN]) + (", ..." if len(bad) > _SHOWN else "")
        damaged = IntegrityError(f"{len(bad)} of {len(found)} are not whole: {some}", path=name, next_step=RESTORE)
        damaged.damaged = bad  # type: ignore[attr-defined]
        raise damaged
    content = hashlib.sha256("".join(sorted(str(one.content_id) for one in found)).encode()).hexdigest()
    problems = [f"{one.path}: {problem}" for one in found for problem in one.problems]
    return VerifyReport(name, "several", sum(one.bytes for one in found), content, len(found), len(found), problems)


def _shared_look(reader: Reader, executor: Any, progress: Progress | None) -> Seen:
    """Let an executor look at all chunks of a version; one that is packed is small, and looked at here."""
    if not hasattr(reader, "check_chunks"):
        return look_at(lambda look: reader.check_everything(progress, look))
    address: str = reader.address  # type: ignore[attr-defined]
    tasks = []
    workers = workers_of(executor)
    for path in reader.entries:
        chunks: int = reader.facts(path)["chunks"]
        each = share(chunks, workers)
        tasks += [(address, path, first, min(first + each, chunks)) for first in range(0, max(1, chunks), each)]
        reader.rows(path)  # type: ignore[attr-defined] # which are what identifies the array
    total = Seen(sum(-(-entry.nbytes // (1 << 20)) for entry in reader.entries.values()), Counter(), [])
    for one, nbytes in shared_out(_looked_at, tasks, executor):
        total.odd.update(one.odd)
        total.squares.extend(one.squares)
        if progress is not None:
            progress(nbytes)
    return total


def _looked_at(address: str, path: str, first: int, last: int) -> tuple[Seen, int]:
    reader: Any = reader_of(address)
    done: list[int] = []

    def check(look: Callable[[str, Any], object]) -> int:
        reader.check_chunks(path, first, last, done.append, look, most=AHEAD)
        return last - first

    return look_at(check), sum(done)


def _checked_batch(paths: list[str], options: OpenOptions) -> list[Checked]:
    return [_checked(path, options) for path in paths]


def _checked(path: str, options: OpenOptions) -> Checked:
    try:
        report = verify_one(path, options)
    except QuantumMemoryError as error:
        return Checked(path, None, _length(path), error=str(error), exit_code=error.exit_code)
    return Checked(path, report.content_id, report.bytes, tuple(report.problems))


def _listed(paths: Iterable[Path]) -> Iterator[str]:
    for path in paths:
        name = os.fspath(path)
        if is_url(name):
            url = URL.parse(name)
            below = storage().below(url) if url.name is None else None
            yield from [name] if below is None else below
        elif os.path.isdir(name):  # noqa: PTH112
            yield from _in_folder(name)
        else:
            yield name


def _in_folder(folder: str) -> Iterator[str]:
    def failed(error: OSError) -> None:
        raise StorageError.from_os_error(error, "list the folder", error.filename or folder) from error

    for here, below, names in os.walk(folder, onerror=failed):
        below.sort()
        yield from filter(_is_one_of_ours, (os.path.join(here, name) for name in sorted(names)))  # noqa: PTH118


def _is_one_of_ours(path: str) -> bool:
    """Tell whether a file is a saved state, whole or not; other programs have files with the suffixes of ours, too."""
    if not path.lower().endswith(SUFFIXES) or path.lower().endswith(f".{FORMATS[0].name}"):
        return path.lower().endswith(SUFFIXES)
    try:
        with ReadableFile(path) as source:
            head = source.read(0, min(HEAD_BYTES, source.size))
            found = format_of_head(head)
            return found is not None and not found.is_legacy(head)
    except QuantumMemoryError:
        return True  # checking it says what is wrong


def _batches(paths: Iterable[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    size = 0
    for path in paths:
        length = _length(path)
        if batch and (len(batch) >= _MOST_FILES or size + length > _MOST_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(path)
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


class _Journal:
    """What has been checked: a line of JSON for each batch, ``[key, [...]]``."""

    def __init__(self, path: Path | None) -> None:
        self._path = None if path is None else os.fspath(path)
        self._file: Any = None
        self._known: dict[str, list[Checked]] = {}
        if self._path is None:
            return
        try:
            with open(self._path, encoding="utf-8") as file:  # noqa: PTH123
                for line in file:
                    self._take(line)
            self._file = open(self._path, "a", encoding="utf-8")  # noqa: PTH123, SIM115 - closed below
            self._file.write("\n")  # the last line may be torn
        except FileNotFoundError:
            self._file = open(self._path, "a", encoding="utf-8")  # noqa: PTH123, SIM115
        except OSError as error:
            raise StorageError.from_os_error(error, "open the journal", self._path) from error

    def _take(self, line: str) -> None:
        try:
            key, found = json.loads(line)
            self._known[key] = [Checked(**one | {"problems": tuple(one["problems"])}) for one in found]
        except (ValueError, TypeError, KeyError, RecursionError):
            return  # torn, or nothing that was written here: it is checked again

    def known(self, batch: list[str]) -> list[Checked] | None:
        """Return what is known of a batch that has not changed."""
        return None if self._file is None else self._known.get(_key(batch))

    def noted(self, batch: list[str], found: list[Checked]) -> list[Checked]:
        """Write down what was found of a batch, and return it; what cannot be reached is tried again the next time."""
        if self._file is not None and not any(one.exit_code == StorageError.exit_code for one in found):
            self._file.write(json.dumps([_key(batch), [vars(one) for one in found]]) + "\n")
            self._file.flush()
        return found

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()


def _key(batch: list[str]) -> str:
    return hashlib.sha256(json.dumps([(path, *_stamp(path)) for path in batch]).encode()).hexdigest()


def _stamp(path: str) -> tuple[object, ...]:
    if is_url(path):
        with closing(open_reader(path, OpenOptions())) as reader:
            return (getattr(reader, "address", path),)
    try:
        facts = os.stat(path)  # noqa: PTH116
    except OSError as error:
        return (error.errno,)
    return (facts.st_size, facts.st_mtime_ns)
