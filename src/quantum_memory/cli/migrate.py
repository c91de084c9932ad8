"""``qmem migrate``: files of the first implementation become files of the current version."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from quantum_memory.cli.failures import PARTIAL
from quantum_memory.cli.output import column_table, console, fact_sheet, plain, print_json, progress, short, size_text

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import Executor

    from quantum_memory.lifecycle.migration.plan import Plan

_SHOWN = 20

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

    with _workers(jobs) as executor:
        made = qm.MigrationUtilities().generate_migration_plan(
            folder, out, allow_pickle=allow_pickle, executor=executor
        )
    if as_json:
        print_json(made.to_dict())
        return 0
    _show_plan(made, out)
    return 0


def _show_plan(made: Plan, out: str) -> None:
    totals = made.totals
    shown = console()
    sheet = fact_sheet()
    sheet.add_row("to migrate", f"{totals.migrate:,} files, {size_text(totals.source_bytes)}")
    sheet.add_row("left alone", f"{totals.leave:,}, and {totals.others:,} of other programs")
    sheet.add_row("damaged", f"{totals.damaged:,}")
    sheet.add_row(
        "space",
        f"about {size_text(totals.needed_bytes)} needed beside the originals, {size_text(totals.free_bytes)} free",
    )
    sheet.add_row("plan id", short(made.id))
    shown.print(sheet)
    count = 0
    for _, entry in made.entries():
        if entry.action == "damaged":
            count += 1
            if count <= _SHOWN:
                shown.print(f"damaged: {plain(entry.path)}: {plain(entry.reason)}", soft_wrap=True)
    if count > _SHOWN:
        shown.print(f"and {count - _SHOWN:,} more, which are in the plan")
    shown.print(f"next: qmem migrate apply {plain(out)}", soft_wrap=True)


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
    with _workers(jobs) as executor, progress("migrate", made.totals.migrate, unit="items") as advance:
        done = qm.MigrationUtilities().apply_migration_plan(
            made,
            executor=executor,
            dry_run=dry_run,
            continue_on_error=continue_on_error,
            progress=advance,
        )
    code = PARTIAL if done.failed else 0
    if as_json:
        print_json(done.to_dict())
        return code
    out = console()
    before = f", {done.already:,} were before" if done.already else ""
    what = "could be migrated; nothing was written" if dry_run else f"migrated{before}"
    out.print(f"{plain(done.root)}: {done.migrated:,} files {what}", soft_wrap=True)
    for one in done.failed:
        then = f" Next: {plain(one['next_step'])}." if one["next_step"] else ""
        out.print(f"failed: {plain(one['path'])}: {plain(one['message'])}.{then}", soft_wrap=True)
    if done.migrated and not dry_run:
        out.print("next: qmem migrate rollback or qmem migrate commit, in that folder")
    return code


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
    numbers = ("planned", "done", "failed", "pending", "rolled back", "changed", "left alone", "kept")
    table = column_table("migration", *numbers, "state", right=numbers)
    for one in found:
        counts = (one.planned, one.done, one.failed, one.pending, one.rolled_back, one.changed, one.left_alone)
        state = "final" if one.committed else "can be rolled back" if one.can_roll_back else "nothing to roll back"
        table.add_row(short(one.plan_id), *(f"{count:,}" for count in counts), size_text(one.kept_bytes), state)
    out.print(table)
    return 0


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

    done = qm.MigrationUtilities().rollback_migration(folder, plan_id)
    code = PARTIAL if done.left else 0
    if as_json:
        print_json(done.to_dict())
        return code
    out = console()
    out.print(f"{plain(done.root)}: {done.restored:,} originals have their names again", soft_wrap=True)
    for one in done.left:
        out.print(f"left: {plain(one['path'])}: {plain(one['reason'])}", soft_wrap=True)
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
    if not yes:
        kept = [
            one
            for one in utils.migration_status(folder)
            if (one.plan_id.startswith(plan_id) if plan_id else one.kept_bytes)
        ]
        size = size_text(sum(one.kept_bytes for one in kept))
        click.confirm(f"Remove originals of {size}? They cannot be brought back", abort=True, err=True)
    done = utils.commit_migration(folder, plan_id)
    if as_json:
        print_json(done.to_dict())
        return 0
    freed = size_text(done.freed_bytes)
    console().print(f"{plain(done.root)}: {done.removed:,} originals removed, {freed} freed", soft_wrap=True)
    return 0


@contextmanager
def _workers(jobs: int) -> Iterator[Executor | None]:
    """Yield the processes that work, for a block; None where one is enough, which is this."""
    if jobs == 1:
        yield None
        return
    from quantum_memory.lifecycle.migration.pool import worker_pool

    with worker_pool(jobs) as pool:
        yield pool
