"""What the verbs of ``qmem checkpoint`` and ``qmem backup`` share: a folder, names for what is in it, and its log."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from quantum_memory.cli.output import console, plain, print_json
from quantum_memory.durability.atomic import is_leftover
from quantum_memory.errors import MissingError

if TYPE_CHECKING:
    from collections.abc import Callable

    from quantum_memory.lifecycle.repository.home import Home
    from quantum_memory.lifecycle.repository.names import Names

_FIRST_FILES = {"config.json", "config-copy.json", "not-durable"}

as_json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")


def meant(folder: str | None) -> str | None:
    """Return the folder that was given to the verb, or to the group above it; None where none was."""
    return folder or click.get_current_context().find_object(str)


def check_folder(folder: Home[Any], *, may_be_new: bool, new: str) -> None:
    """Refuse a folder in which nothing was saved, so that nothing is made by looking.

    Parameters
    ----------
    may_be_new
        Whether it may be a folder that is not there, or empty.
    new
        What to do where it is not there.

    Raises
    ------
    MissingError
        It is no folder of checkpoints, or of backups.
    """
    path = Path(folder.path)
    if folder.is_there or (may_be_new and (not path.exists() or _is_new(folder))):
        return
    if not path.exists():
        raise MissingError("there is no such folder", path=folder.path, next_step=new)
    raise MissingError(
        f"it is no folder of {folder.kind.what}s", path=folder.path, next_step="say which folder it is: -C DIR"
    )


def _is_new(folder: Home[Any]) -> bool:
    """Tell whether a folder is empty, or has what whoever was making one has left who died: no file of anybody else."""
    at = Path(folder.path)
    if not at.is_dir():
        return False
    inner = {"chunks", f"{folder.kind.what}s"}
    begun = (
        path.name in _FIRST_FILES or is_leftover(path.name) or (path.name in inner and _is_empty(path))
        for path in at.iterdir()
    )
    return all(begun)


def _is_empty(at: Path) -> bool:
    return at.is_dir() and all(is_leftover(path.name) for path in at.iterdir())


def done(facts: dict[str, Any], sentence: str, *, as_json: bool) -> int:
    """Say what was done."""
    if as_json:
        print_json(facts)
    else:
        console().print(plain(sentence), soft_wrap=True)
    return 0


def naming(
    what: str,
    options: Callable[[Callable[..., int]], Callable[..., int]],
    opened: Callable[..., Names[Any]],
    resolve: Callable[[Any, str], str] = lambda manager, said: manager.resolve(said),
) -> list[click.Command]:
    """Return the verbs tag, untag, pin and unpin.

    Parameters
    ----------
    what
        "checkpoint" or "backup".
    options
        Adds the options that say which folder it is.
    opened
        Makes a manager of these options.
    resolve
        Finds the id that is meant.
    """
    which, name = click.argument("which", metavar="ID"), click.argument("name")

    @click.command(
        help=f"Give a {what} the tag NAME.\n\nAnother that had it loses it. What has a tag is kept by every policy.\n\n"
        "With --json: id, tag."
    )
    @which
    @name
    @options
    def tag(which: str, name: str, *, as_json: bool, **where: Any) -> int:
        manager = opened(**where)
        one = resolve(manager, which)
        manager.tag(one, name)
        return done({"id": one, "tag": name}, f"{one} has the tag {name}", as_json=as_json)

    @click.command(help="Take the tag NAME away.\n\nWith --json: untagged.")
    @name
    @options
    def untag(name: str, *, as_json: bool, **where: Any) -> int:
        opened(**where).untag(name)
        return done({"untagged": name}, f"the tag {name} is gone", as_json=as_json)

    @click.command(help=f"Keep a {what} whatever a policy says.\n\nWith --json: id, pinned.")
    @which
    @options
    def pin(which: str, *, as_json: bool, **where: Any) -> int:
        manager = opened(**where)
        one = resolve(manager, which)
        manager.pin(one)
        return done({"id": one, "pinned": True}, f"{one} is pinned", as_json=as_json)

    @click.command(help=f"Leave a {what} to the policy again.\n\nWith --json: id, pinned.")
    @which
    @options
    def unpin(which: str, *, as_json: bool, **where: Any) -> int:
        manager = opened(**where)
        one = resolve(manager, which)
        manager.unpin(one)
        return done({"id": one, "pinned": False}, f"{one} is not pinned", as_json=as_json)

    return [tag, untag, pin, unpin]


def show_log(folder: Home[Any], entries: list[dict[str, Any]], *, as_json: bool) -> int:
    """Show what was done in a folder, a line for each."""
    if as_json:
        print_json({"folder": folder.path, "entries": entries})
        return 0
    out = console()
    for entry in entries:
        when = str(entry.get("when", ""))[:19].replace("T", " ")
        what = folder.kind.what
        rest = {name: value for name, value in entry.items() if name not in {"when", "action", what, "parent"}}
        facts = ", ".join(f"{name} {value}" for name, value in rest.items() if value is not None)
        said = f"{when}  {entry.get('action', '')} {entry.get(what, '')}"
        out.print(plain(f"{said}: {facts}" if facts else said), soft_wrap=True)
    return 0
