"""A look at a folder: which files the first implementation wrote, and what becomes of each."""

from __future__ import annotations

import hashlib
import json
import os
from collections import deque
from concurrent.futures import BrokenExecutor, Executor, Future, wait
from typing import TYPE_CHECKING, Any

from quantum_memory.durability.files import ReadableFile, current, physical_memory
from quantum_memory.errors import (
    RESTORE,
    IntegrityError,
    InvalidStateError,
    MissingFileError,
    QuantumMemoryError,
    StorageError,
    UnsafeError,
)
from quantum_memory.formats import hdf5_guard, legacy
from quantum_memory.formats.foreign import foreign
from quantum_memory.formats.json_format import MAX_TEXT_BYTES
from quantum_memory.formats.legacy import interface, serializer
from quantum_memory.formats.legacy.found import NO_CHECKSUM, Found
from quantum_memory.formats.legacy.text import check_length, most_text, unpacked_text
from quantum_memory.formats.legacy.verbs import HEAD_BYTES, recognise
from quantum_memory.formats.registry import FORMATS, format_of_head, format_of_suffix
from quantum_memory.lifecycle.migration.entries import WORKPLACE, Entry, Source, left, sidecar_of, state_of
from quantum_memory.lifecycle.migration.plan import HEAD as PLAN_HEAD
from quantum_memory.state.json_text import count_nodes, max_nodes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from quantum_memory.durability.files import Readable

PICKLES = "a pickle is read only where that is allowed: plan again with allow_pickle=True (--allow-pickle)"

_MAX_LEVELS = 200
"""Levels of folders: each is an open descriptor while what is in it is looked at."""

_AT_ONCE, _AHEAD = 32, 8
_PIECE = 1 << 20
_SPARE_BYTES = 16 << 10
_SUFFIXES = (*(f".{one.name}" for one in FORMATS), ".pickle", ".npz.zlib")
_OTHERS = "it is a file of another program"
_KEPT = ".json.backup_"
_JSON = {"interface-json", "interface-json-zlib", "serializer-json"}
_WARNED = (
    "the checksums in it are of the originals, which are kept until the migration is made final (qmem migrate commit)"
)


class Inline(Executor):
    """Does the work at once, in the thread that asks for it."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Do it and return what came of it."""
        made: Future[Any] = Future()
        try:
            made.set_result(fn(*args, **kwargs))
        except Exception as error:
            made.set_exception(error)
        return made


def in_groups(
    executor: Executor, work: Callable[..., Any], items: Iterable[Any], *given: Any, at_once: int = _AT_ONCE
) -> Iterator[Any]:
    """Yield what ``work(group, *given)`` makes of groups of items, in order; a few groups are worked on ahead.

    Raises
    ------
    StorageError
        The executor is broken.
    """
    ahead: deque[Future[Any]] = deque()
    group: list[Any] = []
    try:
        for item in items:
            group.append(item)
            if len(group) == at_once:
                ahead.append(executor.submit(work, group, *given))
                group = []
                if len(ahead) > _AHEAD or isinstance(executor, Inline):
                    yield ahead.popleft().result()
        if group:
            ahead.append(executor.submit(work, group, *given))
        while ahead:
            yield ahead.popleft().result()
    except BrokenExecutor as error:
        raise StorageError(
            "a process that worked on files has ended", next_step="try again, with fewer jobs if memory was short"
        ) from error
    finally:
        for one in ahead:
            one.cancel()
        wait(ahead)  # what is being done when an error ends this


class Survey:
    """The files of a folder.

    Parameters
    ----------
    root
        The folder, without symbolic links.
    allow_pickle
        Whether pickles are to be migrated.
    executor
        What looks into the files.

    Attributes
    ----------
    others
        How many files of other programs there were so far.
    """

    def __init__(self, root: str, *, allow_pickle: bool, executor: Executor) -> None:
        self.others = 0
        self._root = root
        self._allow_pickle = allow_pickle
        self._executor = executor

    def entries(self) -> Iterator[Entry]:
        """Yield an entry for each file that may be one of ours."""
        for group in in_groups(self._executor, look_at_all, self._found(), self._root, self._allow_pickle):
            yield from group

    def _found(self) -> Iterator[str | Entry]:
        """Walk the folder; what can be said of a file without opening it is said here."""
        device = current().stat(self._root).st_dev
        walks = [("", os.scandir(self._root))]
        try:
            while walks:
                prefix, walk = walks[-1]
                item = next(walk, None)
                if item is None:
                    walk.close()
                    walks.pop()
                    continue
                path = prefix + item.name
                if item.is_dir(follow_symlinks=False):
                    if item.name == WORKPLACE:
                        continue
                    reason = self._entered(walks, path, device)
                    if reason:
                        yield left(path, reason)
                elif not _may_be_ours(item.name):
                    self.others += 1
                elif item.is_symlink():
                    yield left(path, "it is a symbolic link, which is not followed")
                elif not item.is_file(follow_symlinks=False):
                    self.others += 1
                elif not self._belongs_to_a_state(path):
                    yield path
        finally:
            for _, walk in walks:
                walk.close()

    def _entered(self, walks: list[tuple[str, Any]], path: str, device: int) -> str:
        """Go into a folder, or return why not."""
        full = os.path.join(self._root, path)  # noqa: PTH118
        try:
            if current().stat(full).st_dev != device:
                return "it is on another file system: plan it by itself"
            if len(walks) >= _MAX_LEVELS:
                return f"it is below {_MAX_LEVELS} levels of folders: plan it by itself"
            walks.append((f"{path}/", os.scandir(full)))
        except OSError as error:
            return f"this folder cannot be read: {error.strerror}"
        return ""

    def _belongs_to_a_state(self, path: str) -> bool:
        state = state_of(path)
        return state is not None and os.path.isfile(os.path.join(self._root, state))  # noqa: PTH113, PTH118


class _NoState(Exception):  # noqa: N818 - no error
    """It is a list or a report that the first implementation wrote beside its states."""


def look_at_all(paths: list[str | Entry], root: str, allow_pickle: bool) -> list[Entry]:
    """Look into files, and say of each what is to be done; entries among them are returned as they are."""
    return [path if isinstance(path, Entry) else look(root, path, allow_pickle=allow_pickle) for path in paths]


def look(root: str, path: str, *, allow_pickle: bool = False) -> Entry:
    """Look into a file, and say what is to be done with it.

    Binary files are read as they will be when they are migrated; JSON is parsed, and its arrays are not made.

    Parameters
    ----------
    root, path
        The folder, and the path in it.
    """
    try:
        with ReadableFile(os.path.join(root, path)) as source:  # noqa: PTH118
            return _looked(source, root, path, allow_pickle)
    except MissingFileError:
        return left(path, "it was removed while the plan was made")
    except _NoState as list_or_report:
        return left(path, str(list_or_report), "", _WARNED)
    except InvalidStateError as error:
        return left(path, error.message)
    except QuantumMemoryError as error:
        return Entry(path, "damaged", error.message)


def digest_of(source: Readable) -> str:
    """Return the SHA-256 of a file."""
    digest = hashlib.sha256()
    for start in range(0, source.size, _PIECE):
        digest.update(source.read(start, min(_PIECE, source.size - start)))
    return digest.hexdigest()


def digest_at(path: str) -> str:
    """Return the SHA-256 of the file at a path."""
    with ReadableFile(path) as source:
        return digest_of(source)


def seen(root: str, path: str) -> Source:
    """Return what a file is now."""
    full = os.path.join(root, path)  # noqa: PTH118
    with ReadableFile(full) as source:
        try:
            facts = current().stat(full)
        except OSError as error:
            raise StorageError.from_os_error(error, "look at", full) from error
        return Source(path, digest_of(source), source.size, facts.st_mtime_ns)


def _may_be_ours(name: str) -> bool:
    return name.lower().endswith(_SUFFIXES) or _KEPT in name


def _looked(source: ReadableFile, root: str, path: str, allow_pickle: bool) -> Entry:
    head = source.read(0, min(HEAD_BYTES, source.size))
    if _KEPT in path.rpartition("/")[2]:
        return left(path, "it is a copy that an earlier migration kept")
    if head.startswith(PLAN_HEAD):
        return left(path, "it is the plan of a migration")
    found = format_of_head(head)
    if found is not None and not found.is_legacy(head):
        return left(path, "nothing to do: it is a file of the current version", found.name)
    kind = recognise(head, source.name, source.size)
    if kind is None:
        if head.startswith(hdf5_guard.SIGNATURE):
            with hdf5_guard.opened(source):  # it may be a store that is cut short
                pass
        return Entry(path, "damaged", error.message) if (error := foreign(head)) else left(path, _OTHERS)
    target = format_of_suffix(path).name
    if kind == "serializer-pickle" and not allow_pickle:
        return left(path, PICKLES, kind)
    sidecars, warnings = _beside(root, path, kind), list[str]()
    if kind in _JSON:
        warnings.append(NO_CHECKSUM)
        kind, version = _kind_of_json(source, kind)
        if not kind:
            return left(path, _OTHERS)
    elif kind == "hdf5-store":
        version, notes = _store(source, target)
        warnings += notes
    else:
        one = legacy.read(source, allow_pickle=allow_pickle)
        version = one.version
        warnings += one.notes
    if kind.startswith("interface-json") and not sidecars:
        warnings.append("there is no archive of tensors beside it, so that it has no quantum state")
    if (links := current().stat(source.name).st_nlink) > 1:
        warnings.append(f"it has {links} names; those outside of this plan stay with the old file")
    old = seen(root, path)
    return Entry(
        path, "migrate", "", kind, version, old, tuple(sidecars), target,
        sum(one.bytes for one in (old, *sidecars)) + _SPARE_BYTES,
        (
            f"{kind} {version or ''}".rstrip() + f" is read{' with ' + sidecars[0].path if sidecars else ''}",
            f"{target} is written, read again and compared",
            "the original is kept",
        ),
        tuple(warnings),
    )  # fmt: skip


def _beside(root: str, path: str, kind: str) -> list[Source]:
    """Return the archive of tensors of a state; it is read, to see that it is whole."""
    beside = sidecar_of(path)
    if not kind.startswith("interface-json") or beside is None:
        return []
    full = os.path.join(root, path)  # noqa: PTH118
    elsewhere = full.replace(".json", interface.SIDECAR)
    here = os.path.join(root, beside)  # noqa: PTH118
    if os.path.islink(here):  # noqa: PTH114
        raise UnsafeError("the archive beside it is a symbolic link", next_step="put the archive itself there")
    if not os.path.exists(here):  # noqa: PTH110
        if os.path.exists(elsewhere):  # noqa: PTH110
            raise IntegrityError(f"its archive of tensors is in another folder, {elsewhere}: move it beside it")
        return []
    with ReadableFile(here) as source:
        interface.take_sidecar(Found(), source, physical_memory())
    return [seen(root, beside)]


def _kind_of_json(source: ReadableFile, kind: str) -> tuple[str, str | None]:
    """Return what JSON is, and its version; "" where it is that of another program."""
    check_length(source.size, MAX_TEXT_BYTES)
    data = source.read(0, source.size)
    text = unpacked_text(data) if kind == "interface-json-zlib" else data
    check_length(len(text), most_text(source.size))
    if count_nodes(text) > max_nodes(source.size):
        raise UnsafeError("its JSON text holds more values than a state has")
    try:
        # Not as strictly as when it is read: this is to tell which file it is. What its numbers are does not matter for
        # that, and takes most of the time.
        document = json.loads(text, parse_float=bool)
    except RecursionError:
        raise UnsafeError("its JSON text is nested too deeply") from None
    except ValueError as error:
        raise IntegrityError(f"its JSON text is damaged or cut short: {error}", next_step=RESTORE) from error
    try:
        interface.refuse_others(document, None)
    except InvalidStateError as error:
        raise _NoState(error.message) from None
    if interface.is_interface(document):
        version = interface.stated_version(document)
        if version not in interface.VERSIONS:
            raise IntegrityError(f"it is of version {version}, which the first implementation never wrote")
        return kind.replace("serializer", "interface"), version
    return ("serializer-json", None) if serializer.has_arrays(document) else ("", None)


def _store(source: ReadableFile, target: str) -> tuple[str | None, list[str]]:
    """Read every state of a store, and return its version and what is odd about the states."""
    names = legacy.ids(source)
    if target != "h5":
        raise InvalidStateError(f"it is a store of {len(names)} states, and its suffix is not .h5")
    notes: list[str] = []
    for name in names:
        notes += [f"{name}: {note}" for note in legacy.read(source, state_id=name).notes]
    return "1.0", notes[:_AT_ONCE]
