"""Take a migration back, or make it final; and say how far it is.

Rolling back, for a group of files at a time: what belonged to an original gets its first name again, then the original
is renamed over the new file, unless somebody has changed that meanwhile, and only then do the second names go. A line
of the journal says that it is done. After a kill the files themselves show how far that was, and the next `rollback`
goes on.
"""

from __future__ import annotations

import itertools
import os
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from quantum_memory.durability.files import current
from quantum_memory.errors import ConflictError, QuantumMemoryError
from quantum_memory.lifecycle.migration.apply import let_go
from quantum_memory.lifecycle.migration.digests import checksum_at, digest_at
from quantum_memory.lifecycle.migration.journal import Journal, Progress, Stage, read_progress
from quantum_memory.lifecycle.migration.plan import Plan
from quantum_memory.lifecycle.migration.workplace import (
    Workplace,
    check_inside,
    exists,
    explained,
    link,
    migrations,
    real_root,
    same_file,
    sync_folders,
    the_migration,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from quantum_memory.formats.registry import Path
    from quantum_memory.lifecycle.migration.entries import Entry, Source

_Facts = tuple[int, int, int, int] | None
_CHANGED = "it was changed since the migration"
_KEPT = {Stage.REPLACING, Stage.DONE, Stage.LEFT}
_AT_ONCE = 64


@dataclass(frozen=True)
class Status:
    """How far a migration is.

    Attributes
    ----------
    plan_id, root
        Which, and where.
    planned
        How many files are to be migrated.
    done, failed, pending
        How many are; how many could not be; how many wait, those among them whose replacement was interrupted.
    rolled_back, changed
        How many have their originals again; how many have not, since the new file was changed.
    left_alone
        How many files the plan leaves alone, damaged ones among them.
    kept_bytes
        Of the originals that are kept, which `commit` would free.
    can_roll_back, committed
        Whether it can be taken back; whether it is final.
    """

    plan_id: str
    root: str
    planned: int
    done: int
    failed: int
    pending: int
    rolled_back: int
    changed: int
    left_alone: int
    kept_bytes: int
    can_roll_back: bool
    committed: bool

    def to_dict(self) -> dict[str, Any]:
        """Return it as a plain dict."""
        return asdict(self)


@dataclass
class RolledBack:
    """What `rollback` did.

    Attributes
    ----------
    plan_id, root
        Which migration, and where.
    restored
        How many originals have their names again.
    left
        Path and reason of each new file that stays, since it is not what the migration wrote.
    """

    plan_id: str
    root: str
    restored: int = 0
    left: list[dict[str, str]] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return it as a plain dict."""
        return asdict(self)


@dataclass(frozen=True)
class Committed:
    """What `commit` did.

    Attributes
    ----------
    plan_id, root
        Which migration, and where.
    removed, freed_bytes
        How many originals were removed, archives that belonged to them among them, and how many bytes they had.
    """

    plan_id: str
    root: str
    removed: int
    freed_bytes: int

    def to_dict(self) -> dict[str, Any]:
        """Return it as a plain dict."""
        return asdict(self)


def statuses(folder: Path) -> list[Status]:
    """Return how far each migration of a folder is, the oldest first. Nothing is locked or written."""
    root = real_root(folder)
    return [_status(Workplace(root, one)) for one in migrations(root)]


def rollback(
    folder: Path, plan_id: str | None = None, *, progress: Callable[[int], object] | None = None
) -> RolledBack:
    """Give originals their names again: their bytes, modes and times are what they were.

    A new file that was changed since it was written stays, and so does its original where it is kept.

    Parameters
    ----------
    folder
        That was migrated.
    plan_id
        Which migration, by its id or the beginning of that; by default the only one that can be rolled back.
    progress
        Called with how many files are done, after each group.

    Raises
    ------
    MissingError, ConflictError
        There is no such migration; it was made final; or another is running.
    StorageError
        The operating system refused. `rollback` goes on where this one ended.
    """
    place = _place(folder, plan_id)
    with place.locked():
        plan = Plan.open(place.plan)
        done = RolledBack(plan.id, place.root)
        with Journal(place.journal, plan.count) as journal:
            if journal.progress.committing:
                raise ConflictError(
                    "this migration was made final, and its originals were removed", path=place.root,
                    next_step="restore them from a copy",
                )  # fmt: skip
            place.remove_unfinished()
            for group in _groups(_with_stage(plan, journal.progress, _KEPT)):
                _roll_back(place, journal, group, done)
                if progress is not None:
                    progress(len(group))
        place.remove_empty()
    return done


def commit(folder: Path, plan_id: str | None = None) -> Committed:
    """Remove the originals that are kept. After that the migration cannot be taken back.

    Parameters
    ----------
    folder, plan_id
        See `rollback`.

    Raises
    ------
    ConflictError
        The replacement of a file was interrupted: apply the plan again, or roll it back, before.
    MissingError, StorageError
    """
    place = _place(folder, plan_id)
    files = current()
    removed = freed = 0
    with place.locked():
        plan = Plan.open(place.plan)
        with Journal(place.journal, plan.count) as journal:
            if Stage.REPLACING in journal.progress.stages:
                raise ConflictError(
                    "the replacement of a file was interrupted", path=place.root,
                    next_step=f"qmem migrate apply {place.plan}, or qmem migrate rollback",
                )  # fmt: skip
            journal.append([{"event": "committing"}])
            place.remove_unfinished()
            for _, entry in _with_stage(plan, journal.progress, {Stage.DONE, Stage.LEFT}):
                for source in entry.sources:
                    kept = place.kept(source)
                    with explained("remove", kept):
                        if exists(files, kept):
                            files.unlink(kept)
                            removed += 1
                            freed += source.bytes
            place.remove_empty()
            # Where something else keeps a folder, the names of originals could come back, with those of the folders in
            # it that one who was killed has removed and not synced.
            finished = _with_stage(plan, journal.progress, {Stage.DONE, Stage.LEFT})
            sync_folders(_gone(place, entry.sources[0]) for _, entry in finished)
            journal.append([{"event": "committed", "files": removed, "bytes": freed}])
    return Committed(plan.id, place.root, removed, freed)


def _place(folder: Path, plan_id: str | None) -> Workplace:
    root = real_root(folder)
    candidates = []
    if plan_id is None:
        candidates = [one.plan_id for one in statuses(root) if not one.committed and one.kept_bytes]
    return Workplace(root, the_migration(root, plan_id, candidates))


def _status(place: Workplace) -> Status:
    plan = Plan.open(place.plan)
    progress = read_progress(place.journal, plan.count)
    counts = Counter(progress.stages)
    kept = sum(source.bytes for _, entry in _with_stage(plan, progress, _KEPT) for source in entry.sources)
    total = plan.totals
    over = sum(counts[stage] for stage in (Stage.DONE, Stage.FAILED, Stage.ROLLED_BACK, Stage.LEFT))
    return Status(
        plan.id, place.root, total.migrate, counts[Stage.DONE], counts[Stage.FAILED], total.migrate - over,
        counts[Stage.ROLLED_BACK], counts[Stage.LEFT], total.leave + total.damaged,
        0 if progress.committed else kept, bool(kept) and not progress.committing, progress.committed,
    )  # fmt: skip


def _with_stage(plan: Plan, progress: Progress, stages: set[Stage]) -> Iterator[tuple[int, Entry]]:
    for number, entry in plan.entries():
        if progress.stages[number] in stages:
            yield number, entry


def _groups(items: Iterable[tuple[int, Entry]]) -> Iterator[list[tuple[int, Entry]]]:
    pending = iter(items)
    while group := list(itertools.islice(pending, _AT_ONCE)):
        yield group


def _roll_back(place: Workplace, journal: Journal, group: list[tuple[int, Entry]], done: RolledBack) -> None:
    lines: list[dict[str, Any]] = []
    good: list[tuple[int, Entry]] = []
    seen: dict[str, _Facts] = {}

    def leave(number: int, entry: Entry, reason: str) -> None:
        lines.append(_line("left", journal, number, reason=reason))
        done.left.append({"path": place.at(entry.sources[0]), "reason": reason})

    for number, entry in group:
        seen[entry.path] = _facts(place.at(entry.sources[0]))  # before it is compared
        reason = _why_not(place, entry, journal.line(number))
        if reason:
            leave(number, entry, reason)
        else:
            good.append((number, entry))
    journal.append([*lines, *(_line("rolling back", journal, number) for number, _ in good)])
    lines.clear()
    changed = _name_again(place, [entry for _, entry in good], seen)
    for number, entry in good:
        if entry.path in changed:
            leave(number, entry, _CHANGED)
    journal.append(lines)
    good = [(number, entry) for number, entry in good if entry.path not in changed]
    entries = [entry for _, entry in good]
    files = current()
    for entry in entries:
        for source in entry.sources:  # the second names, where the first are there again
            kept = place.kept(source)
            with explained("remove", kept):
                if same_file(files, kept, place.at(source)):
                    files.unlink(kept)
    sync_folders(_gone(place, source) for entry in entries for source in entry.sources)
    journal.append({"event": "rolled back", "n": number} for number, _ in good)
    done.restored += len(good)


def _line(event: str, journal: Journal, number: int, **more: str) -> dict[str, Any]:
    """Return a line that says once more what the new file is, for the next time."""
    return {"event": event, "n": number, "xxh3": journal.line(number)["xxh3"], **more}


def _why_not(place: Workplace, entry: Entry, line: dict[str, Any]) -> str:
    """Return why the original of a file does not get its name again, or "" if it can, or has it already."""
    files = current()
    here, kept = place.at(entry.sources[0]), place.kept(entry.sources[0])
    try:
        for source in entry.sources:
            check_inside(place.root, source.path)
        for sidecar in entry.sidecars:
            beside = place.at(sidecar)
            if not exists(files, beside) or same_file(files, beside, place.kept(sidecar)):
                continue
            if exists(files, place.kept(sidecar)) or digest_at(beside) != sidecar.sha256:
                return f"there is another file at {sidecar.path}"
        if not exists(files, kept):
            same = exists(files, here) and digest_at(here) == entry.sources[0].sha256
            return "" if same else "its original is not in the folder of originals"
        if not exists(files, here) or same_file(files, here, kept) or checksum_at(here) == line["xxh3"]:
            return ""
    except OSError as error:
        if isinstance(error, QuantumMemoryError):
            raise
        with explained("look at", here):
            raise
    return _CHANGED


def _facts(path: str) -> _Facts:
    """Return what tells a file from another one at its path, and from itself before a change; None where none is."""
    with explained("look at", path):
        try:
            facts = current().stat(path)
        except FileNotFoundError:
            return None
    return facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns


def _name_again(place: Workplace, entries: list[Entry], seen: dict[str, _Facts]) -> set[str]:
    """Give what belonged to originals its first names, and then originals theirs.

    Parameters
    ----------
    seen
        What was known of each new file when it was compared with what the migration wrote, by the path of the entry.

    Returns
    -------
    Paths of the entries of which the new file was changed since: it stays.
    """
    files = current()
    changed = set()
    sidecars = [sidecar for entry in entries for sidecar in entry.sidecars]
    for sidecar in sidecars:
        here, kept = place.at(sidecar), place.kept(sidecar)
        place.make_folder(os.path.dirname(here))
        with explained("give its name again to", here):
            if exists(files, kept) and not exists(files, here):
                link(kept, here)
    sync_folders(place.at(sidecar) for sidecar in sidecars)
    for entry in entries:
        here, kept = place.at(entry.sources[0]), place.kept(entry.sources[0])
        place.make_folder(os.path.dirname(here))
        with explained("give its name again to", here):
            if exists(files, kept) and not same_file(files, here, kept):
                if _facts(here) == seen[entry.path]:
                    files.rename(kept, here)
                else:
                    changed.add(entry.path)
                    let_go(place, [entry])
    sync_folders(place.at(entry.sources[0]) for entry in entries)
    return changed


def _gone(place: Workplace, source: Source) -> str:
    """Return what is gone from a folder that is there: the name of an original that was kept, or of a folder above."""
    path = place.kept(source)
    while not os.path.isdir(folder := os.path.dirname(path)):
        path = folder
    return path
