"""What ``prune`` of checkpoints and of backups shares: options, and what is said of what goes and what stays."""

from __future__ import annotations

import operator
from functools import reduce
from typing import TYPE_CHECKING, Any

import click

from quantum_memory.cli.output import console, plain, print_json, size_text
from quantum_memory.errors import (
    ConflictError,
    IntegrityError,
    MissingError,
    UnsafeError,
    UnsupportedVersionError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from quantum_memory.lifecycle.repository.home import Home
    from quantum_memory.lifecycle.retention import KeepPolicy

number = click.IntRange(min=1)
keep_last_option = click.option("--keep-last", type=number, metavar="N", help="Keep the last N.")
keep_within_option = click.option(
    "--keep-within", metavar="7d", help="Keep what is at most so much older than the newest."
)
dry_run_option = click.option("--dry-run", is_flag=True, help="Say what would go, and remove nothing.")


def any_of(policies: Sequence[KeepPolicy]) -> KeepPolicy | None:
    """Return what keeps whatever one of these keeps; None where there are none."""
    return reduce(operator.or_, policies) if policies else None


def check_manifests(folder: Home[Any], read: Callable[[str], object], then: Callable[[str], str] | None = None) -> None:
    """Look for what would stop pruning halfway, so that a rehearsal fails where it would.

    Parameters
    ----------
    read
        Reads a manifest.
    then
        Returns what to do about one; by default, what helps with any manifest.

    Raises
    ------
    IntegrityError, UnsafeError, UnsupportedVersionError
        A manifest cannot be read.
    """
    for one in folder.ids():
        try:
            read(one)
        except MissingError:
            continue  # somebody removed it
        except (IntegrityError, UnsafeError, UnsupportedVersionError) as error:
            error.message += ": nobody knows what it needs, and nothing is removed"
            gone = f"qmem {folder.kind.what} delete {one}, or restore it from a copy"
            error.next_step = gone if then is None else then(one)
            raise


def show_pruned(
    folder: Home[Any],
    done: dict[str, Any],
    series: Mapping[str, str] | None = None,
    *,
    dry_run: bool,
    as_json: bool,
) -> int:
    """Show what goes and what stays, with the reasons.

    Parameters
    ----------
    done
        What ``prune`` of the manager has returned.
    series
        What each of them is a copy of, by id, where they are shown under headings.

    Raises
    ------
    ConflictError
        Nothing was removed.
    """
    if done["removed"] and done["collection"] is None and not dry_run:
        raise ConflictError(
            "nothing was removed, since others are at work in the folder", path=folder.path, next_step="try again"
        )
    if as_json:
        print_json({"folder": folder.path, "dry_run": dry_run, **done})
        return 0
    out = console()
    verb = "would go" if dry_run else "removed"
    lines: dict[str, list[tuple[str, str, str | None]]] = {}
    for what, style, reasons in ((verb, "yellow", done["removed"]), ("stays", None, done["kept"])):
        for one, why in reasons.items():
            heading = "" if series is None else series.get(one, "")
            lines.setdefault(heading, []).append((f"{what:<8} {plain(one)}", plain(why), style))
    for heading, some in sorted(lines.items()):
        if heading:
            out.print(plain(heading), style="bold", soft_wrap=True)
        for said, why, style in some:
            # A reason that does not fit beside it goes below, where most do.
            if len(said) + 2 + len(why) <= out.width:
                out.print(f"{said}  {why}", style=style, soft_wrap=True)
            else:
                out.print(f"{said}\n{' ' * 9}{why}", style=style, soft_wrap=True)
    freed = "" if done["collection"] is None else f", {size_text(done['collection']['bytes_removed'])} freed"
    out.print(f"{len(done['removed']):,} {verb}, {len(done['kept']):,} stay{freed}")
    return 0
