"""``qmem backup``: copies of files and folders, checked, rotated and given back."""

from __future__ import annotations

import datetime
import os
import sys
from typing import TYPE_CHECKING, Any

import click

from quantum_memory.cli.backup_checking import drill, orphans, repair, verify
from quantum_memory.cli.backup_folder import (
    backup_options,
    collected,
    complain_of,
    folder_option,
    opened,
    raw_bytes,
    resolved,
)
from quantum_memory.cli.backup_keys import key
from quantum_memory.cli.backup_moving import export, history, import_
from quantum_memory.cli.backup_pushing import check, pull, push
from quantum_memory.cli.backup_upkeep import delete, keep_options, log, policy_of, prune, statistics
from quantum_memory.cli.failures import PARTIAL, complain, describe, exit_code
from quantum_memory.cli.folders import naming
from quantum_memory.cli.output import bars, column_table, console, fact_sheet, plain, print_json, size_text
from quantum_memory.errors import QuantumMemoryError, shell_word

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from quantum_memory.lifecycle.backups.manifest import Entry

_ROWS = 20


@click.group()
@folder_option
@click.pass_context
def backup(context: click.Context, *, folder: str | None) -> None:
    """Back up files and folders, check them, and give them back.

    ID is the id of a backup, the beginning of one that no other begins with, a tag, or a path with a slash in it: the
    newest backup of that. The folder of backups is that of -C, or $QMEM_BACKUPS, or quantum-memory/backups among your
    data. Nothing is made by looking.
    """
    context.obj = folder


@backup.command()
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@backup_options
@click.option("--description", default="", metavar="TEXT", help="What you say of it.")
@click.option("--tag", "tags", multiple=True, metavar="NAME", help="A tag, which keeps it from being removed.")
@click.option("--reread", is_flag=True, help="Read also what looks as it did at the last backup.")
@click.option(
    "--compression", type=click.Choice(["zstd", "zlib", "lz4", "none"]), default="zstd", help="By default zstd."
)
@click.option("--encrypt", is_flag=True, help="Encrypt the folder, if it is new; asks for a passphrase, if need be.")
@click.option("--no-rotate", is_flag=True, help="Remove no older backups.")
@keep_options
def create(
    paths: tuple[str, ...],
    *,
    description: str,
    tags: tuple[str, ...],
    reread: bool,
    compression: str,
    encrypt: bool,
    no_rotate: bool,
    as_json: bool,
    folder: str | None,
    key_file: str | None,
    passphrase_file: str | None,
    **keep: Any,
) -> int:
    """Back up files and folders.

    Others may be writing to them. The folder of backups is made where there is none; it is encrypted if it is made with
    a key, by option or by the environment. Afterwards, what the --keep options do not keep of each PATH is removed;
    without any, all but the last 10, and what is more than 30 days older than the newest.

    Exit code 3 when files in a folder could not be read (show lists them), when older backups could not be removed, or
    when some of several PATHs failed.

    With --json: folder, encrypted, backups (what list gives of each), failed (path, error), warnings.
    """
    paths = tuple(dict.fromkeys(paths))
    if tags and len(paths) > 1:
        raise click.UsageError("a tag is a name of one backup: give one PATH with --tag")
    policy = policy_of(**keep)
    if no_rotate and policy is not None:
        raise click.UsageError("--no-rotate excludes the --keep options")
    rules: dict[str, Any] = {"max_backups": None, "max_age_days": None} if no_rotate else {"keep": policy}
    where: dict[str, Any] = {"folder": folder, "key_file": key_file, "passphrase_file": passphrase_file}
    manager = opened(may_be_new=True, encrypt=encrypt, compression=compression, **where, **rules)
    made: list[dict[str, Any]] = []
    failed: list[tuple[str, QuantumMemoryError]] = []
    with collected() as warned, bars({path: _size(path) for path in paths}) as advances:
        for path, advance in zip(paths, advances, strict=True):
            try:
                one = manager.create_backup(path, description, tags=tags, reread=reread, progress=advance)
            except QuantumMemoryError as error:
                if len(paths) == 1:
                    raise
                failed.append((path, error))
            else:
                made += [known for known in manager.list_backups(path) if known["id"] == one]
    codes = {exit_code(error) for _, error in failed}
    code = codes.pop() if len(codes) == 1 and not made else PARTIAL if failed or warned else 0
    sealed = bool(made) and manager.folder.config.cipher is not None
    if as_json:
        print_json(
            {
                "folder": manager.folder.path,
                "encrypted": sealed,
                "backups": made,
                "failed": [{"path": path, "error": describe(error)} for path, error in failed],
                "warnings": warned,
            }
        )
        return code
    out = console()
    for known in made:
        out.print(plain(f"{known['id']}  {known['source']}"), soft_wrap=True)
        written = f"{size_text(known['new_bytes'])} written"
        out.print(f"  {_content(known)}, {written}{', encrypted' * sealed}", style="dim", soft_wrap=True)
        if known["problems"]:
            then = manager.folder.command(f"show {known['id']}")
            out.print(f"  next, to see what was not read: {plain(then)}", soft_wrap=True)
    complain_of(warned)
    for _, why in failed:
        complain(why)
    return code


def _size(path: str) -> int | None:
    """Return how many bytes there are, where a bar is shown; what cannot be listed is not counted."""
    if not sys.stderr.isatty():
        return None
    total = os.path.getsize(path) if os.path.isfile(path) else 0  # noqa: PTH113, PTH202
    for above, _, names in os.walk(path):
        for name in names:
            try:
                total += os.lstat(os.path.join(above, name)).st_size  # noqa: PTH118
            except OSError:
                continue
    return total


def _content(known: dict[str, Any]) -> str:
    """Return what a backup is of, in a few words."""
    if not known["is_folder"]:
        return f"a file of {size_text(known['raw_bytes'])}"
    counts = [
        f"{known[what]:,} {what[:-1] if known[what] == 1 else what}" for what in ("files", "links") if known[what]
    ]
    return f"a folder of {' and '.join(counts) or 'nothing'}, {size_text(known['raw_bytes'])}"


@backup.command("list")
@click.argument("path", required=False, metavar="[PATH]")
@backup_options
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Only the newest N.")
def list_(path: str | None, *, limit: int | None, as_json: bool, **where: Any) -> int:
    """List the backups, or those of PATH, the newest first.

    Only the beginning of each is read: verify reads all. Exit code 3 when some are damaged.

    With --json: folder, backups (id, number, source, created_at, description, automatic, is_folder, files, folders,
    links, raw_bytes, new_bytes, problems, imported, writer, tags, pinned, verified), left_out, damaged (id, error).
    """
    manager = opened(**where)
    found = manager.list_backups(path)
    bad = manager.folder.listed()[1]
    shown = found[:limit]
    code = PARTIAL if bad else 0
    if as_json:
        damaged = [{"id": one, "error": describe(error)} for one, error in sorted(bad.items())]
        listed = {"backups": shown, "left_out": len(found) - len(shown), "damaged": damaged}
        print_json({"folder": manager.folder.path, **listed})
        return code
    out = console()
    for known in shown:
        sizes = f"{size_text(known['new_bytes'])} new of {size_text(known['raw_bytes'])}"
        headline = f"{known['number']:>4}  {known['id']}  {_minute(known['created_at'])}  {sizes}"
        out.print(plain(headline), soft_wrap=True)
        out.print(f"      {plain(_details(known))}", style="dim", soft_wrap=True)
    if not found:
        out.print("no backups" if path is None else f"no backups of {plain(os.path.abspath(path))}")  # noqa: PTH100
    if len(found) > len(shown):
        out.print(f"and {len(found) - len(shown):,} older ones")
    for _, error in sorted(bad.items()):
        complain(error)
    return code


def _minute(when: str) -> str:
    return plain(when[:16].replace("T", " "))


def _details(known: dict[str, Any]) -> str:
    said = [known["source"], *(f"tag {tag}" for tag in known["tags"])]
    said += [name for name in ("pinned", "automatic", "imported") if known[name]]
    said += [f"{known['problems']:,} files not read"] if known["problems"] else []
    said.append("not read back yet" if known["verified"] is None else f"verified {known['verified'][:10]}")
    return ", ".join([*said, known["description"]] if known["description"] else said)


@backup.command()
@click.argument("backup_id", metavar="ID")
@backup_options
@click.option("--all", "everything", is_flag=True, help=f"Show all that it holds, not the first {_ROWS}.")
def show(backup_id: str, *, everything: bool, as_json: bool, **where: Any) -> int:
    """Say everything that is known of a backup.

    Its data are not read.

    With --json: what list gives of it, entries (path, type, mode, modified_ns, size, chunks, target), problem_files
    (path, why) and skipped (paths of what is never copied: pipes, sockets, devices).
    """
    manager = opened(**where)
    known = manager.get_backup(resolved(manager, backup_id))
    entries: list[Entry] = known.pop("entries")
    problems: list[tuple[str, str]] = known.pop("problem_files")
    if as_json:
        print_json(
            {
                **known,
                "entries": [_entry(one) for one in entries],
                "problem_files": [{"path": path, "why": why} for path, why in problems],
            }
        )
        return 0
    out = console()
    _show_facts(out, known)
    rows = None if everything else _ROWS
    table = column_table("path", "mode", "modified", "bytes", right=("bytes",))
    for one in entries[:rows]:
        table.add_row(
            plain(one.path or ".") + {"folder": "/", "link": f" -> {plain(one.target)}"}.get(one.type, ""),
            f"{one.mode:04o}",
            _time(one.modified_ns),
            size_text(one.size) if one.type == "file" else "",
        )
    out.print(table)
    _more(out, len(entries), rows)
    _listing(out, "not read", [f"{path}: {why}" for path, why in problems], rows)
    _listing(out, "never copied", known["skipped"], rows)
    then = manager.folder.command(f"restore {known['id']} --to {shell_word(known['source'] + '.restored')}")
    out.print(f"to have it beside what is there:\n  {plain(then)}", soft_wrap=True)
    return 0


def _entry(one: Entry) -> dict[str, Any]:
    facts = {"path": one.path, "type": one.type, "mode": f"{one.mode:04o}", "modified_ns": one.modified_ns}
    is_file = one.type == "file"
    return {
        **facts,
        "size": one.size if is_file else None,
        "chunks": one.count if is_file else None,
        "target": one.target or None,
    }


def _time(nanoseconds: int) -> str:
    try:
        when = datetime.datetime.fromtimestamp(nanoseconds // 10**9, datetime.UTC)
    except (OverflowError, ValueError, OSError):
        return "far away"
    return f"{when:%Y-%m-%d %H:%M}"


def _show_facts(out: Console, known: dict[str, Any]) -> None:
    out.print(plain(known["id"]), style="bold", overflow="fold")
    sheet = fact_sheet()
    sheet.add_row("number", f"{known['number']:,}")
    sheet.add_row("of", plain(known["source"]))
    if known["description"]:
        sheet.add_row("description", plain(known["description"]))
    sheet.add_row("created", f"{_minute(known['created_at'])} UTC, by {plain(known['writer'])}")
    sheet.add_row("content", _content(known))
    sheet.add_row("written", size_text(known["new_bytes"]))
    marks = [f"tag {tag}" for tag in known["tags"]]
    marks += [name for name in ("pinned", "automatic", "imported") if known[name]]
    if marks:
        sheet.add_row("marks", plain(", ".join(marks)))
    read = "not yet" if known["verified"] is None else f"{_minute(known['verified'])} UTC, every byte, and whole"
    sheet.add_row("read back", read)
    out.print(sheet)


def _more(out: Console, count: int, rows: int | None) -> None:
    if rows is not None and count > rows:
        out.print(f"  ... and {count - rows:,} more (--all)", style="dim")


def _listing(out: Console, label: str, lines: Sequence[str], rows: int | None) -> None:
    for line in lines[:rows]:
        out.print(f"{label}: {plain(line)}", style="yellow", soft_wrap=True)
    _more(out, len(lines), rows)


@backup.command()
@click.argument("backup_id", metavar="ID")
@backup_options
@click.option("--to", "path", metavar="PATH", help="Where to; by default where it came from.")
@click.option("--no-overwrite", is_flag=True, help="Refuse when something is there; exit code 7.")
@click.option("--no-backup-first", is_flag=True, help="Replace a file that is there without a backup of it.")
@click.option("--salvage", is_flag=True, help="Leave out what is damaged of a folder; exit code 3 if anything is.")
def restore(
    backup_id: str,
    *,
    path: str | None,
    no_overwrite: bool,
    no_backup_first: bool,
    salvage: bool,
    as_json: bool,
    **where: Any,
) -> int:
    """Give back what a backup holds, with its mode and times.

    Every byte is compared with what was saved before anything is replaced. A file that is there is backed up first; a
    folder that is there is kept beside the new one, as PATH.before-ID.

    By a path, the newest backup of it is meant that was not made by a restore over it.

    With --json: backup, path, files, nbytes, replaced (where a folder is now that was there, or null), saved_as (the
    backup of a file that was there, or null), left_out (path, why).
    """
    manager = opened(**where)
    one = resolved(manager, backup_id)
    with bars({"restore": raw_bytes(manager, one)}) as (advance,):
        given = manager.restore_backup(
            one,
            path,
            overwrite=not no_overwrite,
            backup_first=not no_backup_first,
            salvage=salvage,
            progress=advance,
        )
    code = PARTIAL if given.left_out else 0
    if as_json:
        left_out = [{"path": name, "why": why} for name, why in given.left_out]
        print_json({**vars(given), "left_out": left_out})
        return code
    out = console()
    files = f"{given.files:,} file{'s' * (given.files != 1)}, {size_text(given.nbytes)}"
    out.print(f"{plain(given.path)}: {files} restored from {plain(one)}, every byte compared", soft_wrap=True)
    if given.saved_as is not None:
        out.print(f"what was there is backup {plain(given.saved_as)}", soft_wrap=True)
    if given.replaced is not None:
        kept = plain(shell_word(given.replaced))
        out.print(f"what was there is kept: {kept}", soft_wrap=True)
        out.print(f"  next: look whether you need it, and rm -r {kept}", soft_wrap=True)
    _listing(out, "left out", [f"{name}: {why}" for name, why in given.left_out], None)
    return code


_naming = naming("backup", backup_options, opened, resolved)
_others = (
    verify,
    drill,
    repair,
    orphans,
    delete,
    prune,
    statistics,
    log,
    export,
    import_,
    history,
    key,
    push,
    pull,
    check,
)
for _command in (*_naming, *_others):
    backup.add_command(_command)
