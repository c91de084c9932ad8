"""A look at a folder: which files the first implementation wrote, and what becomes of each."""

from __future__ import annotations

import os
from collections import deque
from concurrent.futures import BrokenExecutor, Executor, Future, wait
from contextlib import closing
from typing import TYPE_CHECKING, Any

from quantum_memory.durability.files import ReadableFile, current, physical_memory
from quantum_memory.errors import (
    IntegrityError,
    InvalidStateError,
    MissingFileError,
    QuantumMemoryError,
    StorageError,
    UnsafeError,
)
from quantum_memory.formats import hdf5_guard, legacy
from quantum_memory.formats.foreign import foreign
from quantum_memory.formats.legacy import interface, lists, serializer
from quantum_memory.formats.legacy.found import NO_CHECKSUM, Found
from quantum_memory.formats.legacy.verbs import HEAD_BYTES, document_of, recognise, text_of
from quantum_memory.formats.registry import format_of_head
from quantum_memory.lifecycle.migration.digests import check_named, digest_of, limited
from quantum_memory.lifecycle.migration.entries import WORKPLACE, Entry, Source, left, sidecar_of, state_of
from quantum_memory.lifecycle.migration.names import kept_copy_of, may_be_ours, new_ids, target_of
from quantum_memory.lifecycle.migration.plan import HEAD as PLAN_HEAD
from quantum_memory.lifecycle.migration.workplace import explained, real_root

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from quantum_memory.formats.registry import Path

PICKLES = "a pickle is read only where that is allowed: plan again with allow_pickle=True (--allow-pickle)"

_MAX_LEVELS = 200
"""Levels of folders: each is an open descriptor while what is in it is looked at."""

_AT_ONCE, _AHEAD = 32, 8
_SPARE_BYTES = 16 << 10
_OTHERS = "it is a file of another program"
_JSON = {"interface-json", "interface-json-zlib", "serializer-json"}
_NO_ARCHIVE = "there is no archive of tensors beside it, so that it has no quantum state"


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


def count_entries(folder: Path) -> int:
    """Return how many files of a folder a plan will have, as far as their names tell."""
    return sum(1 for _ in Survey(real_root(folder), executor=Inline()).found())


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
    progress
        Called with how many files are done, after each group.

    Attributes
    ----------
    others
        How many files of other programs there were so far.
    """

    def __init__(
        self,
        root: str,
        *,
        allow_pickle: bool = False,
        executor: Executor,
        progress: Callable[[int], object] | None = None,
    ) -> None:
        self.others = 0
        self._root = root
        self._allow_pickle = allow_pickle
        self._executor = executor
        self._progress = progress

    def entries(self) -> Iterator[Entry]:
        """Yield an entry for each file that may be one of ours."""
        for group in in_groups(self._executor, look_at_all, self.found(), self._root, self._allow_pickle):
            yield from group
            if self._progress is not None:
                self._progress(len(group))

    def found(self) -> Iterator[str | Entry]:
        """Walk the folder; what can be said of a file without opening it is said here."""
        device = current().stat(self._root).st_dev
        with explained("list", self._root):
            walks = [("", os.scandir(self._root))]
        try:
            while walks:
                prefix, walk = walks[-1]
                with explained("list", os.path.join(self._root, prefix)):
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
                elif not may_be_ours(item.name):
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
        full = os.path.join(self._root, path)
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
        return state is not None and os.path.isfile(os.path.join(self._root, state))


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
        with ReadableFile(os.path.join(root, path)) as source:
            return _looked(source, root, path, allow_pickle)
    except MissingFileError:
        return left(path, "it was removed while the plan was made")
    except InvalidStateError as error:
        return left(path, error.message)
    except QuantumMemoryError as error:
        return Entry(path, "damaged", error.message)


def seen(root: str, path: str) -> Source:
    """Return what a file is now."""
    full = os.path.join(root, path)
    with ReadableFile(full) as source:
        try:
            facts = current().stat(full)
        except OSError as error:
            raise StorageError.from_os_error(error, "look at", full) from error
        return Source(path, digest_of(source), source.size, facts.st_mtime_ns)


def _looked(source: ReadableFile, root: str, path: str, allow_pickle: bool) -> Entry:
    head = source.read(0, min(HEAD_BYTES, source.size))
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
    target = target_of(path)
    if kind == "serializer-pickle" and not allow_pickle:
        return left(path, PICKLES, kind)
    sidecars, warnings = _beside(root, path, kind), list[str]()
    if kind in _JSON:
        kind, version, warnings = _json(source, kind)
        if not kind:
            return left(path, _OTHERS)
    elif kind == "hdf5-store":
        version, warnings = _store(source, target)
    else:
        one = legacy.read(source, allow_pickle=allow_pickle)
        version, warnings = one.version, one.notes
    if kind.startswith("interface-json") and not sidecars:
        warnings.append(_no_archive(root, path))
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
    full = os.path.join(root, path)
    elsewhere = full.replace(".json", interface.SIDECAR)
    here = os.path.join(root, beside)
    if os.path.islink(here):
        raise UnsafeError("the archive beside it is a symbolic link", next_step="put the archive itself there")
    if not os.path.exists(here):
        if os.path.exists(elsewhere):
            raise IntegrityError(f"its archive of tensors is in another folder, {elsewhere}: move it beside it")
        return []
    with ReadableFile(here) as source:
        interface.take_sidecar(Found(), source, physical_memory())
    return [seen(root, beside)]


def _no_archive(root: str, path: str) -> str:
    """Say why a state has no quantum state."""
    first = kept_copy_of(path)
    archive = first and sidecar_of(first)
    if first and archive and os.path.isfile(os.path.join(root, archive)):
        return f"{_NO_ARCHIVE}: {archive} goes with {first}"
    return _NO_ARCHIVE


def _json(source: ReadableFile, kind: str) -> tuple[str, str | None, list[str]]:
    """Return what JSON is, its version, and what is odd; the kind is "" where it is that of another program.

    Keys that stand twice are found. What its floats are takes most of the time, and does not matter here.
    """
    document = document_of(text_of(source, kind), source.size, numbers=False)
    if interface.is_interface(document):
        version = interface.stated_version(document)
        if version not in interface.VERSIONS:
            raise IntegrityError(f"it is of version {version}, which the first implementation never wrote")
        return kind.replace("serializer", "interface"), version, [NO_CHECKSUM]
    if (list_kind := lists.kind_of(document)) is not None:
        return list_kind, None, [NO_CHECKSUM, *check_named(document, list_kind, source.name)]
    if serializer.has_arrays(document):
        return "serializer-json", None, legacy.read(source).notes
    return "", None, []


def _store(source: ReadableFile, target: str) -> tuple[str | None, list[str]]:
    """Read every state of a store, and return its version and what is odd about the states."""
    with closing(legacy.Store(source)) as store:
        if target != "h5":
            raise InvalidStateError(f"it is a store of {len(store.ids)} states, and its suffix is not .h5")
        renamed = [f"its state {old!r:.200} gets the id {new}" for old, new in new_ids(store.ids).items() if new != old]
        notes = [f"{name}: {note}" for name in store.ids for note in store.read(name).notes]
    return "1.0", [*limited(renamed), *limited(notes)]
