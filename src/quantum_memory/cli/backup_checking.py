"""``qmem backup verify``, ``drill``, ``repair``, ``orphans``: whether backups would restore, and what to do if not."""

from __future__ import annotations

import os
import re
import sys
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from quantum_memory.cli.backup_folder import (
    backup_options,
    opened,
    raw_bytes,
    resolved,
    to_read,
)
from quantum_memory.cli.failures import PARTIAL
from quantum_memory.cli.output import bars, console, plain, print_json, size_text
from quantum_memory.errors import IntegrityError, QuantumMemoryError, shell_word

if TYPE_CHECKING:
    from rich.console import Console

    from quantum_memory.lifecycle.backup_manager import BackupManager
    from quantum_memory.lifecycle.backups.checking import Depth, Report
    from quantum_memory.lifecycle.backups.repairs import Repaired

_FILES, _STEPS = 20, 8


class _Share(click.ParamType):  # type: ignore[type-arg]  # generic from one release of click on
    """A share of all bytes, as "5%"."""

    name = "share"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        found = re.fullmatch(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+) ?%", str(value), re.ASCII)
        if found is None or not 0 < float(found[1]) <= 100:
            self.fail(f"{value!r:.40} is no share above 0 % and up to 100 %: give one such as 5%", param, ctx)
        return float(found[1]) / 100


@click.command()
@click.argument("backup_id", required=False, metavar="[ID]")
@backup_options
@click.option("--quick", is_flag=True, help="Only whether all is there, and fits.")
@click.option("--sample", "share", type=_Share(), metavar="5%", help="Read so much, from where the last one left off.")
@click.option("--full", is_flag=True, help="Read every byte; so it does by default.")
def verify(backup_id: str | None, *, quick: bool, share: float | None, full: bool, as_json: bool, **where: Any) -> int:
    """Check a backup, or all.

    What is damaged is noted: the next backup of its source writes it anew, if the source still has it. Exit code 4 when
    anything is damaged.

    With --json: folder, depth (quick, sample or full), backups (what is wrong, or null, by id), files (paths that
    cannot be restored, by id), others (what is wrong with files of the folder that no backup suffers from, by path),
    chunks, nbytes, of_chunks, of_bytes (what was read, of how much), next_steps.
    """
    if quick + full + (share is not None) > 1:
        raise click.UsageError("--quick, --sample and --full exclude each other")
    if share is not None and backup_id is not None:
        raise click.UsageError("--sample is of all backups: leave out the ID")
    depth: Depth = "sample" if share is not None else "quick" if quick else "full"
    manager = opened(**where)
    one = None if backup_id is None else resolved(manager, backup_id)
    wanted = None if one is None else [one]
    total = None if depth == "quick" else to_read(manager, wanted, share or 1.0)
    with bars({"verify": total}) as (advance,):
        if one is None:
            report = manager.verify(depth=depth, share=share or 1.0, progress=advance)
        else:
            report = manager.verify_backup(one, depth=depth, progress=advance)
    steps = _steps(manager, report)
    code = 0 if report else IntegrityError.exit_code
    if as_json:
        print_json({"folder": manager.folder.path, **report.to_dict(), "next_steps": steps})
        return code
    _show(console(), manager, report, steps)
    return code


def _show(out: Console, manager: BackupManager, report: Report, steps: list[str]) -> None:
    sources = {one.id: one.source for one in reversed(manager.folder.listed()[0])}
    for one in [*sources, *(report.backups.keys() - sources.keys())]:
        wrong = report.backups.get(one)
        said = f"{one}  {sources.get(one, '')}".rstrip()
        if wrong is None:
            if report.depth == "full" and one in report.backups:
                out.print(f"OK       {plain(said)}", style="green", soft_wrap=True)
            continue
        out.print(f"DAMAGED  {plain(said)}", style="bold red", soft_wrap=True)
        out.print(f"  {plain(wrong)}", soft_wrap=True)
        others = report.files.get(one, [])[1:]  # the first one is in the sentence
        for path in others[:_FILES]:
            out.print(f"  nor can be restored: {plain(path)}", soft_wrap=True)
        if len(others) > _FILES:
            out.print(f"  ... nor {len(others) - _FILES:,} more, which --json lists")
    for path, wrong in report.others.items():
        out.print(f"DAMAGED  {plain(path)}", style="bold red", soft_wrap=True)
        out.print(f"  {plain(wrong)}", soft_wrap=True)
    whole, bad = len(report.backups) - len(report.damaged), len(report.damaged)
    read = {
        "quick": "their structure was looked at, not their bytes",
        "sample": f"{size_text(report.nbytes)} of {size_text(report.of_bytes)} read",
        "full": f"every byte read, {size_text(report.nbytes)}",
    }[report.depth]
    out.print(f"{whole:,} {'whole' if report.depth == 'full' else 'without a fault'}, {bad:,} damaged; {read}")
    if report.depth == "sample":
        out.print(_round(manager), soft_wrap=True)
    if not report.backups and len(manager.folder.store):
        out.print(f"{len(manager.folder.store):,} chunks are there that no backup needs", style="yellow")
    show_steps(out, steps)


def _round(manager: BackupManager) -> str:
    """Say how far the samples are that read everything together."""
    checks = manager.checker.remembered()
    if not checks.round_begun and checks.rounds:
        return "with this one, every byte was read; the next begins anew"
    last = f"; the last was done {plain(checks.rounds[-1][:10])}" if checks.rounds else ""
    return f"the next goes on from there; this round was begun {plain(checks.round_begun[:10])}{last}"


def _steps(manager: BackupManager, report: Report) -> list[str]:
    """Return the commands that come next where something is damaged, or all lists of files are gone."""
    if report:
        alone = not report.backups and len(manager.folder.store)
        orphans = manager.folder.command("orphans  # lists them; or put back what was in backups/")
        return [orphans] if alone else []
    damaged = [one for one in reversed(manager.folder.listed()[0]) if one.id in report.damaged]
    sources = dict.fromkeys(one.source for one in damaged if os.path.lexists(one.source))
    steps = [f"create {shell_word(source)}  # writes anew what it still has" for source in sources]
    others = set(report.others)
    with suppress(QuantumMemoryError):
        manager.checker.read_checks()
        others.discard("checks.json")  # it was damaged, and what was found has been written anew
    if others or manager.checker.remembered().bad or set(report.damaged) - report.files.keys():
        steps.append("repair  # saves what can be read from what is damaged")
    if salvage := next((one for one in damaged if one.is_folder), None):
        beside = shell_word(salvage.source + ".restored")
        steps.append(f"restore {salvage.id} --to {beside} --salvage  # without what is damaged")
    return [manager.folder.command(step) for step in steps]


def show_steps(out: Console, steps: list[str]) -> None:
    """Show the commands that come next, in their order."""
    if steps:
        out.print("next, in this order:" if len(steps) > 1 else "next:")
    for step in steps[:_STEPS]:
        out.print(f"  {plain(step)}", soft_wrap=True)
    if len(steps) > _STEPS:
        out.print(f"  ... and {len(steps) - _STEPS:,} more, which --json lists")


@click.command()
@click.argument("backup_id", required=False, metavar="[ID]")
@backup_options
@click.option("--at", metavar="DIR", help="Where to, for the time being; by default where temporary files go.")
@click.option("--seed", type=int, metavar="N", help="Which backup it takes, where none is named.")
def drill(backup_id: str | None, *, at: str | None, seed: int | None, as_json: bool, **where: Any) -> int:
    """Restore a backup into a temporary folder, and prove it equal.

    By default one that is taken at random. What was restored is read again from the disk, and compared with what was
    saved, and with the source where that is still as it was. Exit code 4 when it is not equal.

    With --json: folder, backup, source, seed, files, nbytes, compared, problems (why, by path), left_out.
    """
    from quantum_memory.lifecycle.backups.drill import new_seed, picked

    manager = opened(**where)
    seed = new_seed() if seed is None else seed
    one = picked(manager.folder, seed) if backup_id is None else resolved(manager, backup_id)
    raw = raw_bytes(manager, one)
    with bars({"drill": None if raw is None else 2 * raw}) as (advance,):
        found = manager.drill(one, at=at, seed=seed, progress=advance)
    code = 0 if found else IntegrityError.exit_code
    if as_json:
        print_json({"folder": manager.folder.path, **found.to_dict()})
        return code
    out = console()
    said = f"{found.backup}  {found.source}"
    out.print(
        f"{'EQUAL' if found else 'FAILED':<8} {plain(said)}", style="green" if found else "bold red", soft_wrap=True
    )
    for path, why in found.problems.items():
        out.print(f"  {plain(f'{path}: {why}' if path else why)}", soft_wrap=True)
    for path in found.left_out:
        out.print(f"  not restored, as it leads out of what was imported: {plain(path)}", soft_wrap=True)
    files = f"{found.files:,} file{'s' * (found.files != 1)}, {size_text(found.nbytes)}"
    out.print(f"{files} restored and read again; {found.compared:,} compared with the source as well")
    if backup_id is None:
        again = f"drill --seed {found.seed}" + (f" --at {shell_word(at)}" if at else "")
        out.print(f"the same once more: {plain(manager.folder.command(again))}", soft_wrap=True)
    show_steps(out, [] if found else [manager.folder.command("verify --full")])
    return code


@click.command()
@backup_options
@click.option("--dry-run", is_flag=True, help="Say what would be done, and change nothing.")
def repair(*, dry_run: bool, as_json: bool, **where: Any) -> int:
    """Save what can be read of a folder that is damaged.

    Nothing is removed: what can be read of a file that is damaged is written anew, and the file goes into the folder
    "quarantine" of the backups. Exit code 3 when something is lost, or could not be mended.

    With --json: folder, dry_run, problems, mended and left (by path), quarantined (paths), chunks_saved, bytes_saved,
    chunks_lost, lost (paths that cannot be restored, by id), manifests (what is known of each that is lost, by id),
    next_steps.
    """
    manager = opened(damaged=True, **where)
    with bars({"repair": _stored(manager.folder.path)}) as (advance,):
        found = manager.repair(dry_run=dry_run, progress=advance)
    code = 0 if found else PARTIAL
    if as_json:
        print_json({"folder": manager.folder.path, **found.to_dict()})
        return code
    _show_repaired(console(), found)
    return code


def _stored(path: str) -> int | None:
    """Return how many bytes a folder has, where a bar is shown."""
    packs = Path(path, "chunks").glob("*.qmpack") if sys.stderr.isatty() else None
    return None if packs is None else sum(pack.lstat().st_size for pack in packs)


def _show_repaired(out: Console, found: Repaired) -> None:
    for path, wrong in sorted(found.problems.items()):
        out.print(f"DAMAGED  {plain(path)}", style="bold red", soft_wrap=True)
        out.print(f"  {plain(wrong)}", soft_wrap=True)
        if path in found.mended:
            out.print(f"  {'would be ' if found.dry_run else ''}{plain(found.mended[path])}", soft_wrap=True)
    lost = Counter(path for paths in found.lost.values() for path in paths)
    for path, count in sorted(lost.items())[:_FILES]:
        out.print(f"lost: {plain(path)}, in {count:,} backup{'s' * (count > 1)}", style="yellow", soft_wrap=True)
    if len(lost) > _FILES:
        out.print(f"  ... and {len(lost) - _FILES:,} more, which --json lists")
    for one, known in sorted(found.manifests.items()):
        of = f", of {known['source']}" if "source" in known else ""
        out.print(f"lost: the list of files of {plain(one + of)}", style="yellow", soft_wrap=True)
    if not found.problems:
        out.print("nothing else is wrong" if found.lost else "nothing is wrong")
        show_steps(out, found.next_steps)
        return
    verb = "would be saved" if found.dry_run else "saved"
    saved = f"{found.chunks_saved:,} chunks ({size_text(found.bytes_saved)}) {verb}, {found.chunks_lost:,} lost"
    count = len(found.quarantined)
    verb = "would go" if found.dry_run else "is" if count == 1 else "are"
    aside = f"{count:,} file{'s' * (count != 1)} {verb} in quarantine"
    out.print(f"{saved}; {aside}")
    show_steps(out, found.next_steps)


@click.command()
@backup_options
@click.option("--clean", is_flag=True, help="Remove what would go, or move it to quarantine.")
@click.option("--grace", default="1h", metavar="1h", help="How old it has to be to go; by default an hour.")
def orphans(*, clean: bool, grace: str, as_json: bool, **where: Any) -> int:
    """List what belongs to nothing.

    Chunks that no backup needs, backups of which chunks are gone, and what dead processes have left half-written. Exit
    code 3 when a backup is so damaged that nobody knows which chunks it needs.

    With --json: folder, dry_run, found (path, what, nbytes, goes, why), chunks and nbytes (that nobody needs), why_not.
    """
    manager = opened(**where)
    found = manager.cleanup_orphaned_backups(
        grace=0 if re.fullmatch(r"0+[smhdw]?", grace) else grace, dry_run=not clean
    )
    code = PARTIAL if found.why_not else 0
    if as_json:
        print_json({"folder": manager.folder.path, **found.to_dict()})
        return code
    out = console()
    for one in found.found:
        verb = "stays" if not one.goes else "cleaned" if clean else "would go"
        style = "yellow" if one.goes else None
        out.print(f"{verb:<8} {plain(one.path)}, {size_text(one.nbytes)}", style=style, soft_wrap=True)
        out.print(f"         {plain(one.why)}", style="dim", soft_wrap=True)
    if found.why_not:
        out.print(f"no chunk goes: {plain(found.why_not)}", style="yellow", soft_wrap=True)
    going = len(found.cleaned)
    verb = "cleaned" if clean else "would go"
    out.print(
        f"{going:,} {verb}, {len(found.left):,} stay; {found.chunks:,} chunks ({size_text(found.nbytes)}) nobody needs"
    )
    steps = ["repair"] if found.why_not else ["orphans --clean"] if going and not clean else []
    show_steps(out, [manager.folder.command(step) for step in steps])
    return code
