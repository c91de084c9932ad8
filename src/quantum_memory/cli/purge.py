"""``qmem purge``: one memory removed from checkpoints and backups, and what may still hold it."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import click

from quantum_memory.cli import backup_folder, checkpoint_folder
from quantum_memory.cli.folders import as_json_option
from quantum_memory.cli.keys import beginning_folder, key_options, opening_folder
from quantum_memory.cli.output import console, plain, print_json, size_text
from quantum_memory.cli.pruning import dry_run_option
from quantum_memory.errors import MissingError

if TYPE_CHECKING:
    from rich.console import Console

    from quantum_memory.lifecycle.backup_manager import BackupManager
    from quantum_memory.lifecycle.purging import Purged


@click.command()
@click.argument("what")
@click.option("-C", "--folder", "folders", multiple=True, metavar="DIR", help="A folder of backups; also several.")
@click.option("--checkpoints", multiple=True, metavar="DIR", help="A folder of checkpoints; also several.")
@key_options
@dry_run_option
@click.option("--yes", is_flag=True, help="Do not ask.")
@as_json_option
def purge(
    what: str,
    *,
    folders: tuple[str, ...],
    checkpoints: tuple[str, ...],
    dry_run: bool,
    yes: bool,
    as_json: bool,
    **keys: Any,
) -> int:
    """Remove a memory from checkpoints and backups, chunks and all.

    WHAT is a file or an address, or the content_id of one (qmem info has it). Whatever has the same content goes, in
    any format, and whatever has a tag or a pin, too. A backup of a folder is replaced by one without the file. Without
    -C and --checkpoints: from the default folder of backups, and from "checkpoints", where they are there. It says what
    it would do, and asks. WHAT itself stays.

    Exit code 6 when nothing holds it.

    With --json: content_id, dry_run, checkpoints (folder, id, tags, pinned), backups (folder, id, becomes, files, tags,
    pinned), chunks and nbytes (that are gone), shared (chunks that others need, too), unreached (what may still hold
    it).
    """
    from quantum_memory.formats.registry import is_sealed
    from quantum_memory.lifecycle.purging import purge as purged

    key = opening_folder(what, sealed=True, **keys) if is_sealed(what) else beginning_folder(ask=False, **keys)
    places = _places(folders, checkpoints, keys)
    found = purged(what, **places, key=key, dry_run=True)
    nothing = not (found.backups or found.checkpoints)
    if not dry_run and not (nothing and not found.chunks):
        if not yes:
            _show(console(quiet=as_json), found)
            click.confirm("Remove it? It cannot be brought back", abort=True, err=True)
        found = purged(what, **places, key=key)
    code = MissingError.exit_code if nothing else 0
    if as_json:
        print_json(found.to_dict())
    else:
        _show(console(), found)
    return code


def _places(folders: tuple[str, ...], checkpoints: tuple[str, ...], keys: dict[str, Any]) -> dict[str, Any]:
    """Return the folders that are meant, by the names that the library has for them.

    Raises
    ------
    MissingError
        There is none.
    """
    if folders or checkpoints:
        return {
            "backups": [_backups(one, keys) for one in folders],
            "checkpoints": [checkpoint_folder.opened(one) for one in checkpoints],
        }
    found: dict[str, Any] = {"backups": [], "checkpoints": []}
    with suppress(MissingError):
        found["checkpoints"].append(checkpoint_folder.opened(None))
    try:
        found["backups"].append(_backups(None, keys))
    except MissingError:
        if not found["checkpoints"]:
            raise
    return found


def _backups(folder: str | None, keys: dict[str, Any]) -> BackupManager:
    return backup_folder.opened(folder=folder, named=False, **keys)


def _show(out: Console, found: Purged) -> None:
    verb = "would go" if found.dry_run else "removed"
    for one in found.checkpoints:
        marks = [f"tag {tag}" for tag in one["tags"]] + ["pinned"] * one["pinned"]
        said = ", ".join([f"checkpoint {one['id']} in {one['folder']}", *marks])
        out.print(f"{verb:<8} {plain(said)}", style="yellow", soft_wrap=True)
    for one in found.backups:
        marks = [f"tag {tag}" for tag in one["tags"]] + ["pinned"] * one["pinned"]
        said = ", ".join([f"backup {one['id']} in {one['folder']}", *marks])
        out.print(f"{verb:<8} {plain(said)}", style="yellow", soft_wrap=True)
        if one["becomes"] is not None:
            out.print(f"         without {plain(', '.join(one['files']))}, it becomes {one['becomes']}", soft_wrap=True)
    if not found.checkpoints and not found.backups:
        out.print("no checkpoint and no backup holds it")
    gone = f"{found.chunks:,} chunks ({size_text(found.nbytes)}) {verb}"
    out.print(f"{gone}, {found.shared:,} of it stay, which others need")
    for where in found.unreached:
        out.print(f"not reached: {plain(where)}", soft_wrap=True)
