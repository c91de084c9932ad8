"""``qmem migrate``: files of the first implementation become files of the current version."""

from __future__ import annotations

import itertools
import os
from collections import Counter
from typing import TYPE_CHECKING, Any

import click

from quantum_memory.cli.failures import PARTIAL
from quantum_memory.cli.output import console, fact_sheet, plain, print_json, progress, short, size_text
from quantum_memory.cli.workers import workers
from quantum_memory.errors import shell_word

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rich.console import Console

    from quantum_memory.lifecycle.migration.entries import Entry
    from quantum_memory.lifecycle.migration.plan import Plan
    from quantum_memory.lifecycle.migration.undo import Status

_SHOWN = 20
_SENTENCES = 1000
"""How many different ones are counted; there are more only where each names its file."""

_as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
_folder = click.argument("folder", default=".", metavar="[DIR]")
_id = click.option("--id", "plan_id", metavar="ID", help="Which migration, where DIR had several.")
_jobs = click.option("--jobs", type=click.IntRange(1, 256), default=1, metavar="N", help="Work in N processes.")


@click.group()
def migrate() -> None:
    """Make files of the first implementation files of the current version.

    First a plan, which only reads; then `apply`, which keeps every original in .qmem-migration. `rollback` gives the
    originals their names again, until `commit` removes them.
    """


@migrate.command()
@click.argument("folder", metavar="DIR")
@click.option("--out", required=True, metavar="FILE", help="Where the plan goes.")
@click.option("--allow-pickle", is_flag=True, help="Migrate pickles, too; nothing in them is run.")
@_jobs
@_as_json
def plan(folder: str, *, out: str, allow_pickle: bool, jobs: int, as_json: bool) -> int:
    """Look at every file of DIR, and write down what is to be done with it.

    The plan is text: a header, a line of JSON for each file, and a last line with totals. Look at it before you apply
    it.

    With --json: id, root, created, release, allow_pickle, migrate, leave, damaged, others, source_bytes,
    needed_bytes, free_bytes.
    """
    import quantum_memory as qm
    from quantum_memory.lifecycle.migration.survey import count_entries

    with workers(jobs) as executor, progress("plan", count_entries(folder), unit="items") as advance:
        made = qm.MigrationUtilities().generate_migration_plan(
            folder, out, allow_pickle=allow_pickle, executor=executor, progress=advance
        )
    if as_json:
        print_json(made.to_dict())
        return 0
    _show_plan(made, out)
    return 0


def _show_plan(made: Plan, out: str) -> None:
    totals, summary = made.totals, _Summary(entry for _, entry in made.entries())
    shown = console()
    sheet = fact_sheet()
    sheet.add_row("to migrate", f"{totals.migrate:,} files, {size_text(totals.source_bytes)}")
    for kind, count in summary.kinds.most_common():
        sheet.add_row("", f"{count:,} {plain(kind)}")
    sheet.add_row("left alone", f"{totals.leave:,}, and {totals.others:,} of other programs")
    sheet.add_row("damaged", f"{totals.damaged:,}")
    sheet.add_row(
        "space",
        f"about {size_text(totals.needed_bytes)} needed beside the originals, {size_text(totals.free_bytes)} free",
    )
    sheet.add_row("plan id", short(made.id))
    shown.print(sheet)
    for label, sentences in (("left alone", summary.left), ("note", summary.warnings)):
        _show_all(shown, sentences.lines(label), sentences.different, "which the plan has")
    _show_all(shown, summary.damaged, totals.damaged, "which the plan has")
    then = f"next: qmem migrate apply {plain(out)}" if totals.migrate else "there is nothing to migrate"
    shown.print(then, soft_wrap=True)


class _Sentences:
    """Sentences that are said of files: how often each, and of which first."""

    def __init__(self) -> None:
        self.different = 0
        self._counts = Counter[str]()
        self._first: dict[str, str] = {}

    def add(self, sentence: str, path: str) -> None:
        if sentence not in self._counts:
            self.different += 1
            if len(self._counts) >= _SENTENCES:
                return
            self._first[sentence] = path
        self._counts[sentence] += 1

    def lines(self, label: str) -> Iterator[str]:
        for sentence, count in self._counts.most_common(_SHOWN):
            of = f"{count:,} files" if count > 1 else plain(self._first[sentence])
            yield f"{label}: {of}: {plain(sentence)}"


class _Summary:
    """What a plan says, for people."""

    def __init__(self, entries: Iterable[Entry]) -> None:
        self.kinds, self.damaged = Counter[str](), list[str]()
        self.left, self.warnings = _Sentences(), _Sentences()
        for entry in entries:
            if entry.action == "migrate":
                self.kinds[f"{entry.kind} {entry.version or ''}".rstrip()] += 1
            elif entry.action == "leave":
                self.left.add(entry.reason, entry.path)
            elif len(self.damaged) < _SHOWN:
                self.damaged.append(f"damaged: {plain(entry.path)}: {plain(entry.reason)}")
            for warning in entry.warnings:
                self.warnings.add(warning, entry.path)


def _show_all(out: Console, lines: Iterable[str], count: int, where: str) -> None:
    """Print the first of some lines, and how many more there are."""
    for line in itertools.islice(lines, _SHOWN):
        out.print(line, soft_wrap=True)
    if count > _SHOWN:
        out.print(f"and {count - _SHOWN:,} more, {where}")


@migrate.command()
@click.argument("plan_file", metavar="PLAN")
@_jobs
@click.option("--dry-run", is_flag=True, help="Read everything, and write nothing.")
@click.option("--continue-on-error", is_flag=True, help="Go on with the other files; exit code 3 if one failed.")
@_as_json
def apply(plan_file: str, *, jobs: int, dry_run: bool, continue_on_error: bool, as_json: bool) -> int:
    """Migrate the files of a plan, or go on with that where it was interrupted.

    Every new file is read again and compared with the old one before it takes its name.

    With --json: plan_id, root, dry_run, migrated, already, failed (path, error, message, next_step, exit_code).
    """
    import quantum_memory as qm
    from quantum_memory.lifecycle.migration.plan import Plan

    made = Plan.open(plan_file)
    try:
        with workers(jobs) as executor, progress("migrate", made.totals.migrate, unit="items") as advance:
            done = qm.MigrationUtilities().apply_migration_plan(
                made,
                executor=executor,
                dry_run=dry_run,
                continue_on_error=continue_on_error,
                progress=advance,
            )
    except qm.StorageError:
        raise
    except qm.QuantumMemoryError as error:
        if (error.path or "").startswith(made.header.root + os.sep):
            again = f"qmem migrate apply {plain(shell_word(plan_file))} --continue-on-error"
            click.echo(f"It stops at this file. To go on with the others: {again}", err=True)
        raise
    code = PARTIAL if done.failed else 0
    if as_json:
        print_json(done.to_dict())
        return code
    out = console()
    before = f", {done.already:,} were before" if done.already else ""
    what = "could be migrated; nothing was written" if dry_run else f"migrated{before}"
    out.print(f"{plain(done.root)}: {done.migrated:,} files {what}", soft_wrap=True)
    totals = made.totals
    if alone := totals.leave + totals.damaged:
        out.print(f"left alone: {alone:,}, {totals.damaged:,} of them damaged: the plan says why")
    _show_all(out, map(_failure, done.failed), len(done.failed), "which --json lists")
    if done.migrated and not dry_run:
        where = plain(shell_word(done.root))
        out.print(f"next: qmem migrate commit {where}, or qmem migrate rollback {where}", soft_wrap=True)
    return code


def _failure(one: dict[str, Any]) -> str:
    then = f" Next: {plain(one['next_step'])}." if one["next_step"] else ""
    return f"failed: {plain(one['path'])}: {plain(one['message'])}.{then}"


@migrate.command()
@_folder
@_as_json
def status(folder: str, *, as_json: bool) -> int:
    """Say how far the migrations of DIR are.

    With --json: migrations, each with plan_id, root, planned, done, failed, pending, rolled_back, changed, left_alone,
    kept_bytes, can_roll_back, committed.
    """
    import quantum_memory as qm

    found = qm.MigrationUtilities().migration_status(folder)
    if as_json:
        print_json({"migrations": [one.to_dict() for one in found]})
        return 0
    out = console()
    if not found:
        out.print("no plan was applied to this folder")
        return 0
    for one in found:
        _show_status(out, one)
    return 0


def _show_status(out: Console, one: Status) -> None:
    from quantum_memory.lifecycle.migration.entries import WORKPLACE

    state = "final" if one.committed else "can be rolled back" if one.can_roll_back else "nothing to roll back"
    counts = {
        "failed": one.failed, "pending": one.pending, "rolled back": one.rolled_back,
        "changed since, and left": one.changed,
    }  # fmt: skip
    others = "".join(f", {count:,} {what}" for what, count in counts.items() if count)
    sheet = fact_sheet()
    sheet.add_row("migration", f"{short(one.plan_id)}, {state}")
    sheet.add_row("files", f"{one.done:,} of {one.planned:,} migrated{others}")
    sheet.add_row("left alone", f"{one.left_alone:,}")
    sheet.add_row("originals", f"{size_text(one.kept_bytes)} kept")
    out.print(sheet)
    if (one.failed or one.pending) and not one.committed and not one.rolled_back:
        kept = os.path.join(one.root, WORKPLACE, one.plan_id, "plan.json")  # noqa: PTH118
        out.print(f"to go on: qmem migrate apply {plain(shell_word(kept))}", soft_wrap=True)


@migrate.command()
@_folder
@_id
@_as_json
def rollback(folder: str, *, plan_id: str | None, as_json: bool) -> int:
    """Give the originals in DIR their names again.

    New files that were changed since they were written stay; exit code 3.

    With --json: plan_id, root, restored, left (path, reason).
    """
    import quantum_memory as qm

    utils = qm.MigrationUtilities()
    count = sum(one.done + one.changed for one in _kept(utils.migration_status(folder), plan_id))
    with progress("roll back", count, unit="items") as advance:
        done = utils.rollback_migration(folder, plan_id, progress=advance)
    code = PARTIAL if done.left else 0
    if as_json:
        print_json(done.to_dict())
        return code
    out = console()
    out.print(f"{plain(done.root)}: {done.restored:,} originals have their names again", soft_wrap=True)
    lines = (f"left: {plain(one['path'])}: {plain(one['reason'])}" for one in done.left)
    _show_all(out, lines, len(done.left), "which --json lists")
    return code


@migrate.command()
@_folder
@_id
@click.option("--yes", is_flag=True, help="Do not ask.")
@_as_json
def commit(folder: str, *, plan_id: str | None, yes: bool, as_json: bool) -> int:
    """Remove the originals that are kept in DIR, for good.

    With --json: plan_id, root, removed, freed_bytes.
    """
    import quantum_memory as qm

    utils = qm.MigrationUtilities()
    kept = _kept(utils.migration_status(folder), plan_id)
    if kept and not yes:
        size = size_text(sum(one.kept_bytes for one in kept))
        click.confirm(f"Remove originals of {size}? They cannot be brought back", abort=True, err=True)
    done = utils.commit_migration(folder, plan_id)
    if as_json:
        print_json(done.to_dict())
        return 0
    freed = size_text(done.freed_bytes)
    console().print(f"{plain(done.root)}: {done.removed:,} originals removed, {freed} freed", soft_wrap=True)
    return 0


def _kept(statuses: list[Status], plan_id: str | None) -> list[Status]:
    """Return the migrations whose originals are kept, of those that are meant."""
    return [one for one in statuses if one.kept_bytes and one.plan_id.startswith(plan_id or "")]
