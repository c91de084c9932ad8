"""``qmem backup key``: which keys open a folder of backups."""

from __future__ import annotations

from typing import Any, TypeVar

import click

from quantum_memory.cli.backup_folder import backup_options, opened
from quantum_memory.cli.folders import done
from quantum_memory.cli.keys import another_key
from quantum_memory.cli.output import column_table, console, plain, print_json

F = TypeVar("F", bound="Any")


def _new_key_options(command: F) -> F:
    key_file = click.option("--new-key-file", metavar="FILE", help="The new key; otherwise a passphrase is asked for.")
    passphrase = click.option("--new-passphrase-file", metavar="FILE", help="A file with the new passphrase.")
    made: F = key_file(passphrase(command))
    return made


@click.group()
def key() -> None:
    """Say which keys open the backups, add one, take one away.

    Nothing is encrypted anew: what one of the keys opens is the key of the data. Whoever has a copy of the folder from
    before, and a key of then, still opens that copy.
    """


@key.command("list")
@backup_options
def list_(*, as_json: bool, **where: Any) -> int:
    """List the keys that open the backups.

    With --json: folder, keys (number, label, kind, created_at).
    """
    manager = opened(**where)
    keys = manager.list_keys()
    if as_json:
        print_json({"folder": manager.folder.path, "keys": keys})
        return 0
    if not keys:
        console().print("these backups are not encrypted")
        return 0
    table = column_table("number", "label", "kind", "added", right=("number",))
    for one in keys:
        added = one["created_at"][:16].replace("T", " ")
        table.add_row(f"{one['number']}", plain(one["label"]), plain(one["kind"]), plain(added))
    console().print(table)
    return 0


@key.command()
@backup_options
@_new_key_options
@click.option("--label", default="", metavar="TEXT", help="What it is called; not secret.")
def add(*, new_key_file: str | None, new_passphrase_file: str | None, label: str, as_json: bool, **where: Any) -> int:
    """Let one more key open the backups.

    With --json: folder, added (the label).
    """
    manager = opened(**where)
    manager.add_key(another_key(new_key_file, new_passphrase_file), label)
    facts = {"folder": manager.folder.path, "added": label}
    return done(facts, f"one more key opens {manager.folder.path}", as_json=as_json)


@key.command()
@click.argument("which", metavar="LABEL|NUMBER")
@backup_options
def remove(which: str, *, as_json: bool, **where: Any) -> int:
    """Take a key away; never the last one.

    It opens the folder no more, but the master key stays the same: whoever knows the key and has a copy of the folder,
    or of its config.json, from before still opens that copy, and with it what is saved from now on.

    With --json: folder, removed.
    """
    manager = opened(**where)
    manager.remove_key(which)
    facts = {"folder": manager.folder.path, "removed": which}
    said = f"the key {which} opens {manager.folder.path} no more; whoever knows it and has a copy of the folder, or of"
    return done(facts, f"{said} its config.json, still opens that copy, and with it what is new here", as_json=as_json)


@key.command()
@backup_options
@_new_key_options
def change(*, new_key_file: str | None, new_passphrase_file: str | None, as_json: bool, **where: Any) -> int:
    """Put another key in the place of the one that is given.

    With --json: folder, changed.
    """
    manager = opened(**where)
    manager.change_key(another_key(new_key_file, new_passphrase_file))
    facts = {"folder": manager.folder.path, "changed": True}
    return done(facts, f"another key opens {manager.folder.path} now", as_json=as_json)
