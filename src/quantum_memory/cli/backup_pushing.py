"""``qmem backup push``, ``pull`` and ``check``: a second place for a folder of backups."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from quantum_memory.cli.backup_folder import folder_option
from quantum_memory.cli.failures import PARTIAL, complain, describe
from quantum_memory.cli.folders import as_json_option, meant
from quantum_memory.cli.output import bars, console, plain, print_json, size_text
from quantum_memory.cli.pruning import dry_run_option
from quantum_memory.errors import IntegrityError

if TYPE_CHECKING:
    from quantum_memory.lifecycle.backup_manager import BackupManager
    from quantum_memory.lifecycle.backups.pulling import Pulled
    from quantum_memory.lifecycle.backups.pushed_checking import Checked
    from quantum_memory.lifecycle.backups.sent import Sent

_address = click.argument("address")
_TAGS = {
    "taken": "tags and pins are those that are there",
    "kept": "tags and pins were changed here, and are left as they are",
}


@click.command()
@_address
@folder_option
@click.option("--prune", is_flag=True, help="Remove there what was removed here since it was pushed.")
@click.option("--verify", is_flag=True, help="Read every byte back, and send anew what is damaged there.")
@dry_run_option
@as_json_option
def push(address: str, *, folder: str | None, prune: bool, verify: bool, dry_run: bool, as_json: bool) -> int:
    """Copy the folder to a second place, as it is: s3://bucket/prefix, or another folder.

    What is there is not sent again. Whenever it is interrupted, what was there can be pulled, and the next push goes
    on. No key is needed: what is encrypted stays so. ADDRESS is for one folder of backups, from any number of machines.

    Exit code 3 when something is damaged, here or there; all else was sent.

    With --json: target, dry_run, backups (ids of those that were sent), there (how many were there), objects, nbytes,
    removed (ids), bytes_removed, mended (keys), problems (errors).
    """
    manager = _manager(folder)
    with bars({"push": _size(manager)}) as (advance,):
        done = manager.push(address, prune=prune, verify=verify, dry_run=dry_run, progress=advance)
    code = 0 if done else PARTIAL
    if as_json:
        print_json({**done.to_dict(), "dry_run": dry_run, "problems": [describe(one) for one in done.problems]})
        return code
    _show_sent(done, dry_run=dry_run)
    for error in done.problems:
        complain(error)
    return code


def _show_sent(done: Sent, *, dry_run: bool) -> None:
    out = console()
    would = "would be " * dry_run
    for one in done.backups:
        out.print(f"{plain(one)}  {would}sent", soft_wrap=True)
    for one in done.removed:
        out.print(f"{plain(one)}  {would}removed there", soft_wrap=True)
    count = f"{len(done.backups):,} backups {would}sent, {done.there:,} there already"
    out.print(f"{plain(done.target)}: {count}, {size_text(done.nbytes)} in {done.objects:,} objects", soft_wrap=True)
    if done.bytes_removed:
        out.print(f"{size_text(done.bytes_removed)} {would}removed there", soft_wrap=True)
    if done.mended:
        out.print(f"{len(done.mended):,} objects were damaged there, and sent anew", soft_wrap=True)


@click.command()
@_address
@folder_option
@click.option("--salvage", is_flag=True, help="Take packs that are damaged there, too, for what is whole of them.")
@as_json_option
def pull(address: str, *, folder: str | None, salvage: bool, as_json: bool) -> int:
    """Take what was pushed to ADDRESS into the folder: all backups that are there, and not here.

    The folder is made where there is none. It may be an older state of the one that was pushed. Every byte is compared
    with what was sent. No key is needed.

    Exit code 3 when something is damaged there; all else came.

    With --json: folder, target, backups (ids of those that came), there (how many were here), nbytes, tags (taken,
    kept, same or none), problems (errors).
    """
    manager = _manager(folder)
    done: Pulled = manager.pull(address, salvage=salvage)
    code = 0 if done else PARTIAL
    if as_json:
        facts = {**done.to_dict(), "problems": [describe(one) for one in done.problems]}
        print_json({"folder": manager.folder.path, **facts})
        return code
    out = console()
    for one in done.backups:
        out.print(f"pulled {plain(one)}", soft_wrap=True)
    count = f"{len(done.backups):,} backups pulled, {done.there:,} here already, {size_text(done.nbytes)}"
    out.print(f"{plain(manager.folder.path)}: {count}, every byte compared", soft_wrap=True)
    if done.tags in _TAGS:
        out.print(_TAGS[done.tags])
    for error in done.problems:
        complain(error)
    return code


@click.command()
@_address
@as_json_option
def check(address: str, *, as_json: bool) -> int:
    """Read back every byte of what was pushed to ADDRESS, without the folder.

    Each object is compared with what was sent, and each backup with the chunks that are there. No key is needed.

    Exit code 4 when something is damaged.

    With --json: target, objects, nbytes, backups (ids of those that are whole), damaged (why, by key), broken (why, by
    id), others (how many objects are there that no push makes).
    """
    from quantum_memory.lifecycle.backup_manager import BackupManager

    done: Checked = BackupManager.check_pushed(address)
    code = 0 if done else IntegrityError.exit_code
    if as_json:
        print_json(done.to_dict())
        return code
    out = console()
    for what, why in (done.damaged | done.broken).items():
        out.print(f"{plain(what)}: {plain(why)}", style="yellow", soft_wrap=True)
    read = f"{done.objects:,} objects, {size_text(done.nbytes)} read"
    whole = f"{len(done.backups):,} of {len(done.backups) + len(done.broken):,} backups are whole"
    out.print(f"{plain(done.target)}: {read}, {whole}", soft_wrap=True)
    if not done:
        out.print(f"  next: qmem backup push {plain(done.target)} --verify  # from where the backups are whole")
    return code


def _manager(folder: str | None) -> BackupManager:
    """Return a manager of a folder without its key: what is encrypted is moved as it is."""
    from quantum_memory.lifecycle.backup_manager import BackupManager

    said = meant(folder)
    return BackupManager(None if said is None else os.path.abspath(said))  # noqa: PTH100 - links and all


def _size(manager: BackupManager) -> int | None:
    """Return how many bytes a push reports, where a bar is shown."""
    if not sys.stderr.isatty():
        return None
    at = Path(manager.folder.path)
    kinds = ("chunks/*.qmpack", "chunks/*.qmindex", "backups/*.qmbk")
    return sum(one.stat().st_size for kind in kinds for one in at.glob(kind))
