"""``qmem backup export``, ``import`` and ``history``: backups as one file, on their way to another machine."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import click

from quantum_memory.cli.backup_folder import backup_options, collected, complain_of, opened, resolved, to_read
from quantum_memory.cli.folders import done
from quantum_memory.cli.keys import named_key, opening_folder
from quantum_memory.cli.output import bars, console, plain, print_json, size_text
from quantum_memory.errors import QuantumMemoryError, WrongKeyError

if TYPE_CHECKING:
    from quantum_memory.encryption.keys import Key
    from quantum_memory.lifecycle.backup_manager import BackupManager

_overwrite = click.option("--overwrite", is_flag=True, help="Replace the file where it exists.")


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="[ID]... FILE")
@backup_options
@click.option("--all", "everything", is_flag=True, help="All backups.")
@_overwrite
def export(names: tuple[str, ...], *, everything: bool, overwrite: bool, as_json: bool, **where: Any) -> int:
    """Write backups to one file, for import.

    Any machine can take it back. What several backups share is in it once, and so are their tags and pins. It is as
    private as the folder: where that is encrypted, it is, and opens with the same keys. Every byte is checked.

    With --json: path, backups (ids), chunks, nbytes, encrypted.
    """
    *ids, path = names
    if everything == bool(ids):
        raise click.UsageError("give IDs and a FILE, or --all and a FILE")
    manager = opened(**where)
    wanted = None if everything else [resolved(manager, one) for one in ids]
    with bars({"export": to_read(manager, wanted)}) as (advance,):
        made = manager.export_backup(wanted, path, overwrite=overwrite, progress=advance)
    if as_json:
        print_json(made.to_dict())
        return 0
    count = f"{len(made.backups):,} backup{'s' * (len(made.backups) != 1)}"
    sealed = ", encrypted" * made.encrypted
    console().print(f"{plain(made.path)}: {count}, {size_text(made.nbytes)} written{sealed}", soft_wrap=True)
    return 0


@click.command("import")
@click.argument("path", metavar="FILE")
@backup_options
@click.option("--from-key-file", metavar="FILE", help="The key of FILE, where it is not that of the folder.")
@click.option("--from-passphrase-file", metavar="FILE", help="A file with the passphrase of FILE, in the same case.")
def import_(
    path: str,
    *,
    from_key_file: str | None,
    from_passphrase_file: str | None,
    as_json: bool,
    key_file: str | None,
    passphrase_file: str | None,
    folder: str | None,
) -> int:
    """Take the backups of FILE into the folder.

    Every byte is checked before anything is taken. The folder is made where there is none; it is encrypted if FILE is,
    or if it is made with a key.

    With --json: folder, ids, warnings.
    """
    named: dict[str, Any] = {"key_file": key_file, "passphrase_file": passphrase_file}
    other = named_key(from_key_file, from_passphrase_file, "from-")
    sealed = _is_sealed(path)
    key: Key | None = other or (opening_folder(path, sealed=True, **named) if sealed else None)
    manager = opened(folder=folder, may_be_new=True, new_key=key, named=not sealed, **named)
    if other is None and manager.folder.key is not None:
        key = None  # one and the same, or there would be two questions
    with collected() as warned, bars({"import": _to_read(manager, path, key)}) as (advance,):
        ids = manager.import_backup(path, key=key, progress=advance)
    if as_json:
        print_json({"folder": manager.folder.path, "ids": ids, "warnings": warned})
        return 0
    out = console()
    for one in ids:
        out.print(f"imported {plain(one)}", soft_wrap=True)
    complain_of(warned)
    return 0


def _is_sealed(path: str) -> bool:
    """Tell whether a file takes a key to import it; what else is wrong with it, importing it says."""
    from quantum_memory.durability.files import ReadableFile
    from quantum_memory.lifecycle.backups.export_file import ExportFile

    try:
        with ReadableFile(path) as source:
            ExportFile(source, None)
    except WrongKeyError:
        return True
    except QuantumMemoryError:
        return False
    return False


def _to_read(manager: BackupManager, path: str, key: Key | None) -> int | None:
    """Return how many bytes importing a file reports, where a bar is shown."""
    from quantum_memory.durability.files import ReadableFile
    from quantum_memory.lifecycle.backups.export_file import ExportFile

    if not sys.stderr.isatty():
        return None
    with suppress(QuantumMemoryError), ReadableFile(path) as source:  # whatever is wrong, importing says it
        nbytes = ExportFile(source, manager.folder.key if key is None else key).raw_bytes
        return nbytes if manager.folder.is_there else 2 * nbytes  # all is checked before a folder is made
    return None


@click.command()
@click.argument("path", metavar="FILE")
@backup_options
@_overwrite
def history(path: str, *, overwrite: bool, as_json: bool, **where: Any) -> int:
    """Write the list of the backups to a file, as JSON.

    It is not encrypted.

    With --json: folder, path.
    """
    manager = opened(**where)
    manager.export_backup_history(path, overwrite=overwrite)
    return done({"folder": manager.folder.path, "path": path}, f"{path} written", as_json=as_json)
