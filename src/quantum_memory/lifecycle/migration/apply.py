"""Apply a plan: new files are made, take the names of the old ones, and those are kept.

For a group of files at a time, each step with the accident that it is there for:

1. The new files are made and compared where they wait for names, and are durable (`staging`).
2. A line of the journal for each says which file is about to get the name. After a kill it tells a new file from one
   that somebody else has put there.
3. The originals, and what belongs to them, get a second name in the folder of originals, which is made durable. The
   files themselves are what is kept, with their modes and times, and not copies.
4. The new files are renamed over the old names, each looked at right before: what somebody has written meanwhile is
   left to him. There is a file of each name at every instant.
5. What belonged to the originals loses its first name.
6. A line of the journal for each says that it is done.

A kill in between leaves files whose line says "replacing". The next `apply` sees from their content which step they
have reached, and `rollback` too.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from quantum_memory._version import __version__
from quantum_memory.durability.atomic import DurableFile
from quantum_memory.durability.files import current
from quantum_memory.errors import ConflictError, QuantumMemoryError, StorageError
from quantum_memory.lifecycle.migration.digests import checksum_at
from quantum_memory.lifecycle.migration.entries import WORKPLACE, Entry, Source
from quantum_memory.lifecycle.migration.journal import Journal, Stage, read_progress
from quantum_memory.lifecycle.migration.staging import Made, Task, make_all
from quantum_memory.lifecycle.migration.survey import Inline, in_groups
from quantum_memory.lifecycle.migration.workplace import (
    Workplace,
    check_inside,
    exists,
    explained,
    link,
    real_root,
    same_file,
    sync_folders,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Executor

    from quantum_memory.lifecycle.migration.plan import Plan

_AT_ONCE = 8


@dataclass
class Applied:
    """What `apply` did.

    Attributes
    ----------
    plan_id, root
        Which plan, and where.
    dry_run
        Whether nothing was written.
    migrated
        How many files were migrated now; with `dry_run`, how many could be.
    already
        How many had been before.
    failed
        Path and error of each that was not.
    """

    plan_id: str
    root: str
    dry_run: bool = False
    migrated: int = 0
    already: int = 0
    failed: list[dict[str, Any]] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return it as a plain dict."""
        return asdict(self)


def apply(
    plan: Plan,
    *,
    when: str,
    executor: Executor | None = None,
    dry_run: bool = False,
    continue_on_error: bool = False,
    progress: Callable[[int], object] | None = None,
) -> Applied:
    """Migrate the files of a plan, or go on with that.

    Parameters
    ----------
    plan
        The plan.
    when
        What is noted as the time, UTC.
    executor
        What makes the new files; by default this thread.
    dry_run
        Read everything, and write nothing.
    continue_on_error
        Go on with the other files when one cannot be migrated.
    progress
        Called with how many files are done, after each group.

    Raises
    ------
    ConflictError
        A file was changed since the plan was made; or the plan was made final; or another migration is running.
    IntegrityError, InvalidStateError, MissingFileError, UnsafeError
        A file cannot be migrated. It is as it was, and the others can be: with `continue_on_error`.
    StorageError
        The operating system refused. `apply` goes on where this one ended.
    """
    root = real_root(plan.header.root)
    place = Workplace(root, plan.id)
    done = Applied(plan.id, root, dry_run)
    job = _Job(plan, place, done, when, executor or Inline(), continue_on_error, progress)
    if dry_run:
        job.rehearse()
        return done
    if not plan.totals.migrate:
        return done
    _check_space(plan, root)
    with place.locked():
        _prepare(plan, place)
        with Journal(place.journal, plan.count) as journal:
            job.run(journal)
    return done


def _check_space(plan: Plan, root: str) -> None:
    """Refuse to begin what will not fit."""
    there = os.statvfs(root)
    free = there.f_bavail * there.f_frsize
    if free < plan.totals.needed_bytes and not os.path.isdir(os.path.join(root, WORKPLACE, plan.id)):
        raise StorageError(
            f"the new files need about {plan.totals.needed_bytes} bytes, and {free} are free",
            path=root,
            next_step="free some space, or plan a part of the folder: originals are kept until commit",
        )


def _prepare(plan: Plan, place: Workplace) -> None:
    """Make the folders, keep a copy of the plan, and remove new files that a killed `apply` left without names."""
    for folder in (place.place, place.staged):
        place.make_folder(folder)
    if not os.path.exists(place.plan):
        with DurableFile(place.plan) as sink:
            plan.copy_to(sink)
    place.remove_unfinished()


@dataclass
class _Job:
    plan: Plan
    place: Workplace
    done: Applied
    when: str
    executor: Executor
    continue_on_error: bool
    progress: Callable[[int], object] | None

    def rehearse(self) -> None:
        stages = self._stages()

        def tasks() -> Iterator[Task]:
            for number, entry in self._wanted():
                if stages[number] in {Stage.REPLACING, Stage.DONE, Stage.LEFT}:
                    self.done.already += 1
                else:
                    yield self._task(number, entry, "")

        for made in self._made(tasks()):
            for one in made:
                if one.error is None:
                    self.done.migrated += 1
                else:
                    self._failed(one.error)
            self._advance(made)

    def run(self, journal: Journal) -> None:
        if journal.progress.committing:
            raise ConflictError(
                "this migration was made final", path=self.place.root, next_step="make a new plan of what is left"
            )
        journal.append([{"event": "begun", "when": self.when, "release": __version__}])
        entries: dict[int, Entry] = {}  # of the groups that are being worked on

        def tasks() -> Iterator[Task]:
            for number, entry in self._wanted():
                stage = journal.progress.stages[number]
                try:
                    if stage == Stage.REPLACING and finished(self.place, entry, journal.line(number)):
                        journal.append([{"event": "done", "n": number}])
                        stage = Stage.DONE
                except ConflictError as error:
                    self._failed(error)
                    continue
                if stage in {Stage.DONE, Stage.LEFT}:
                    self.done.already += 1
                    continue
                entries[number] = entry
                yield self._task(number, entry, self.place.new(number, entry.target))

        for made in self._made(tasks()):
            self._take(journal, [(one, entries.pop(one.number)) for one in made])
            self._advance(made)
        self.place.remove_empty()

    def _stages(self) -> bytearray:
        """Return how far an `apply` before this one has come."""
        if not os.path.exists(self.place.journal):
            return bytearray(self.plan.count)
        return read_progress(self.place.journal, self.plan.count).stages

    def _wanted(self) -> Iterator[tuple[int, Entry]]:
        return ((number, entry) for number, entry in self.plan.entries() if entry.action == "migrate")

    def _task(self, number: int, entry: Entry, new: str) -> Task:
        return Task(self.place.root, number, entry, new, self.when, self.plan.header.allow_pickle)

    def _made(self, tasks: Iterator[Task]) -> Iterator[list[Made]]:
        return in_groups(self.executor, make_all, tasks, at_once=_AT_ONCE)

    def _take(self, journal: Journal, group: list[tuple[Made, Entry]]) -> None:
        """Give the new files of a group their names, up to the first that failed unless one is to go on."""
        good = []
        for made, entry in group:
            if made.error is None:
                good.append((made, entry))
            elif not self.continue_on_error:
                break
        _replace(self.place, journal, good)
        self.done.migrated += len(good)
        for made, _ in group:
            if made.error is not None:
                journal.append([{"event": "failed", "n": made.number, "error": made.error.message}])
                self._failed(made.error)

    def _failed(self, error: QuantumMemoryError) -> None:
        if not self.continue_on_error:
            raise error
        facts = {"path": error.path, "error": type(error).__name__, "message": error.message}
        self.done.failed.append(facts | {"next_step": error.next_step, "exit_code": error.exit_code})

    def _advance(self, made: list[Made]) -> None:
        if self.progress is not None:
            self.progress(len(made))


def _replace(place: Workplace, journal: Journal, group: list[tuple[Made, Entry]]) -> None:
    """Give new files their names; see the steps at the beginning."""
    files = current()
    journal.append(made.to_line(entry.path) for made, entry in group)
    sources = [source for _, entry in group for source in entry.sources]
    for source in sources:
        kept, here = place.kept(source), place.at(source)
        check_inside(place.root, source.path)
        place.make_folder(os.path.dirname(kept))
        with explained("keep the original of", here):
            if not same_file(files, here, kept):
                link(here, kept)
        _check_untouched(place, source)
    sync_folders(place.kept(source) for source in sources)
    for made, entry in group:
        for source in entry.sources:  # once more, since the sync takes as long as the disk does
            _check_untouched(place, source)
        new, here = place.new(made.number, entry.target), place.at(entry.sources[0])
        with explained("give its name to the new file of", here):
            files.rename(new, here)
    sync_folders(place.at(source) for source in sources)
    let_go(place, [entry for _, entry in group])
    journal.append({"event": "done", "n": made.number} for made, _ in group)


def _check_untouched(place: Workplace, source: Source) -> None:
    """Refuse a file that is not the one that is kept, or was written to since the plan was made, and keep it no more.

    Raises
    ------
    ConflictError
    """
    files = current()
    kept, here = place.kept(source), place.at(source)
    with explained("look at", here):
        facts = files.stat(kept)
        same = same_file(files, here, kept)
    if not same or (facts.st_size, facts.st_mtime_ns) != (source.bytes, source.mtime_ns):
        with explained("let go of", kept):
            files.unlink(kept)
        raise ConflictError("it was changed while it was migrated", path=here, next_step="make a new plan")


def let_go(place: Workplace, entries: list[Entry]) -> None:
    """Remove the first names of what belonged to originals, and is kept."""
    files = current()
    gone = []
    for entry in entries:
        for sidecar in entry.sidecars:
            here = place.at(sidecar)
            with explained("move", here):
                if same_file(files, here, place.kept(sidecar)):
                    files.unlink(here)
                    gone.append(here)
    sync_folders(gone)


def finished(place: Workplace, entry: Entry, line: dict[str, Any]) -> bool:
    """End the replacement of a file that was begun; False when the original is still there, and it is made again.

    Parameters
    ----------
    line
        What the journal says of the replacement.

    Raises
    ------
    ConflictError
        It is neither the original nor the new file.
    """
    files = current()
    source = entry.sources[0]
    check_inside(place.root, entry.path)
    here, kept = place.at(source), place.kept(source)
    if not exists(files, kept) or same_file(files, here, kept):
        for one in entry.sources:
            with explained("let go of", place.kept(one)):
                if same_file(files, place.at(one), place.kept(one)):
                    files.unlink(place.kept(one))
        return False
    if not exists(files, here):
        raise ConflictError("it was removed while it was migrated", path=here, next_step="qmem migrate rollback")
    if checksum_at(here) != line["xxh3"]:
        raise ConflictError(
            "somebody else has written it while it was migrated",
            path=here,
            next_step="look at it: move it away and roll the migration back, which gives the original its name",
        )
    sync_folders([here])
    let_go(place, [entry])
    return True
