"""``qmem backup delete``, ``prune``, ``statistics`` and ``log``: keep a folder of backups in order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import click

from quantum_memory.cli.backup_folder import backup_options, opened, resolved
from quantum_memory.cli.folders import done, show_log
from quantum_memory.cli.output import bars, console, fact_sheet, plain, print_json, size_text
from quantum_memory.cli.pruning import (
    any_of,
    check_manifests,
    dry_run_option,
    keep_last_option,
    keep_within_option,
    number,
    show_pruned,
)
from quantum_memory.errors import IntegrityError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from quantum_memory.lifecycle.backup_manager import BackupManager
    from quantum_memory.lifecycle.retention import KeepPolicy

F = TypeVar("F", bound="Callable[..., Any]")

_PERIODS = {"hourly": "hours", "daily": "days", "weekly": "weeks", "monthly": "months", "yearly": "years"}


def keep_options(command: F) -> F:
    """Add the options that say what to keep; `policy_of` makes of them what the library is given."""
    command = click.option(
        "--timezone", metavar="ZONE", help="Where days and weeks hang, as Europe/Berlin; by default UTC."
    )(command)
    command = click.option("--keep-tag", multiple=True, metavar="NAME", help="Keep what has this tag.")(command)
    command = keep_within_option(command)
    for period, name in reversed(_PERIODS.items()):
        words = f"Keep the last of each of the last N {name} that have any."
        command = click.option(f"--keep-{period}", type=number, metavar="N", help=words)(command)
    return keep_last_option(command)


def policy_of(
    *,
    keep_last: int | None,
    keep_within: str | None,
    keep_tag: Sequence[str],
    timezone: str | None,
    **periods: int | None,
) -> KeepPolicy | None:
    """Return what keeps what any of the options keeps; None where there are none."""
    from quantum_memory.lifecycle import retention

    policies: list[KeepPolicy] = [] if keep_last is None else [retention.KeepLast(keep_last)]
    for period in _PERIODS:
        if (count := periods[f"keep_{period}"]) is not None:
            kind = getattr(retention, f"Keep{period.capitalize()}")
            policies.append(kind(count, timezone=timezone or "UTC"))
    policies += [] if keep_within is None else [retention.KeepWithin(keep_within)]
    policies += [retention.KeepTagged(*keep_tag)] if keep_tag else []
    if timezone is not None and all(count is None for count in periods.values()):
        raise click.UsageError("--timezone is for --keep-hourly, --keep-daily and the like")
    return any_of(policies)


@click.command()
@click.argument("backup_id", metavar="ID")
@backup_options
def delete(backup_id: str, *, as_json: bool, **where: Any) -> int:
    """Remove a backup, and the chunks that no other needs.

    One that has a tag or a pin stays; exit code 7.

    With --json: deleted.
    """
    manager = opened(**where)
    one = resolved(manager, backup_id)
    manager.delete_backup(one)
    return done({"deleted": one}, f"{one} removed", as_json=as_json)


@click.command()
@backup_options
@keep_options
@dry_run_option
def prune(
    *,
    dry_run: bool,
    as_json: bool,
    folder: str | None,
    key_file: str | None,
    passphrase_file: str | None,
    **keep: Any,
) -> int:
    """Remove what none of the options keeps.

    The backups of each source are a series of their own. Of each backup it is said why it stays or goes. What is pinned
    or has a tag stays, and so does the newest of a source that was read back whole. Before anything goes, the newest of
    its source is read back, every byte of it, unless that was done within a day. Exit code 4, and nothing goes, when
    that is damaged, or the list of files of any backup. Without options: all but the last 10 go, and what is more than
    30 days older than the newest.

    With --json: folder, dry_run, removed and kept (why, by id), collection (packs_removed, packs_written,
    chunks_removed, bytes_removed, bytes_kept; null when nothing was removed).
    """
    where: dict[str, Any] = {"folder": folder, "key_file": key_file, "passphrase_file": passphrase_file}
    manager = opened(keep=policy_of(**keep), **where)
    sources = {one.id: one.source for one in manager.folder.listed()[0]}
    if manager.prune(dry_run=True)["removed"]:
        _check(manager, remember=not dry_run)
    return show_pruned(manager.folder, manager.prune(dry_run=dry_run), sources, dry_run=dry_run, as_json=as_json)


def _check(manager: BackupManager, *, remember: bool) -> None:
    """Look for what would stop pruning halfway, so that a rehearsal fails where it would and gives the same reasons.

    Parameters
    ----------
    remember
        Whether it may be noted what was read back.
    """
    from quantum_memory.lifecycle.backups.pruning import BackupPruner

    folder = manager.folder
    repair = folder.command("repair  # saves what can be read of it; or give it up")
    check_manifests(folder, folder.manifest, lambda one: f"{repair}: {folder.command(f'delete {one}')}")
    ids = BackupPruner(folder, manager.checker).unread(manager.keep, None)
    unread = [one for one in folder.listed()[0] if one.id in ids]
    with bars({"verify": sum(one.raw_bytes for one in unread)}) as (advance,):
        for one in unread:
            try:
                manager.checker.full(one.id, advance, remember=remember)
            except IntegrityError as error:
                error.message += ": nothing older is given up for it"
                raise


@click.command()
@backup_options
def statistics(*, as_json: bool, **where: Any) -> int:
    """Say how many backups there are, and how much they take.

    With --json: folder, backups, sources, damaged, verified, last_verified, latest, oldest, raw_bytes, stored_bytes,
    chunks, ratio, encrypted.
    """
    manager = opened(**where)
    found = manager.get_backup_statistics()
    if as_json:
        print_json({"folder": manager.folder.path, **found})
        return 0
    sheet = fact_sheet()
    sheet.add_row("folder", plain(manager.folder.path))
    sheet.add_row("backups", f"{found['backups']:,} of {found['sources']:,} sources")
    if found["damaged"]:
        sheet.add_row("damaged", f"{found['damaged']:,}")
    for label, which in (("oldest", "oldest"), ("newest", "latest")):
        if found[which] is not None:
            sheet.add_row(label, plain(found[which]))
    last = "" if found["last_verified"] is None else f", the last at {plain(found['last_verified'][:16])}"
    sheet.add_row("read back", f"{found['verified']:,} of {found['backups']:,}{last.replace('T', ' ')}")
    sheet.add_row("hold", size_text(found["raw_bytes"]))
    packed = "" if found["ratio"] is None else f", {found['ratio']:.3g} times smaller"
    sheet.add_row("take", f"{size_text(found['stored_bytes'])} in {found['chunks']:,} chunks{packed}")
    sheet.add_row("encrypted", "yes" if found["encrypted"] else "no")
    console().print(sheet)
    return 0


@click.command()
@backup_options
def log(*, as_json: bool, **where: Any) -> int:
    """Say what was done in the folder, the oldest first.

    With --json: folder, entries, each with when, action, and what else is known: backup, source, to, tag, why, path.
    """
    manager = opened(**where)
    return show_log(manager.folder, manager.folder.log(), as_json=as_json)
