"""``qmem checkpoint``: what is in a folder of checkpoints, and what can be done with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from quantum_memory.cli.checkpoint_diff import diff
from quantum_memory.cli.checkpoint_folder import folder_option, opened
from quantum_memory.cli.checkpoint_upkeep import gc, log, prune, verify
from quantum_memory.cli.failures import PARTIAL, complain, describe
from quantum_memory.cli.folders import as_json_option, done, naming
from quantum_memory.cli.output import column_table, console, fact_sheet, natural, plain, print_json, short, size_text

if TYPE_CHECKING:
    from rich.console import Console

_ROWS = 20
_TEXT = 100


@click.group()
@folder_option
@click.pass_context
def checkpoint(context: click.Context, *, folder: str | None) -> None:
    """Look at checkpoints, compare them, and keep their folder in order.

    ID is the id of a checkpoint, the beginning of one that no other begins with, a tag, or a name. The folder is
    "checkpoints" unless -C says another. Nothing is made by looking.
    """
    context.obj = folder


_naming = naming("checkpoint", lambda command: folder_option(as_json_option(command)), opened)
for _command in (diff, prune, verify, log, gc, *_naming):
    checkpoint.add_command(_command)


@checkpoint.command("list")
@folder_option
@click.option("--branch", metavar="NAME", help="Only this line of checkpoints.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Only the newest N.")
@as_json_option
def list_(*, folder: str | None, branch: str | None, limit: int | None, as_json: bool) -> int:
    """List the checkpoints, the newest first.

    Only the beginning of each is read: verify reads all. Exit code 3 when some are damaged.

    With --json: folder, checkpoints (id, number, parent, branch, created_at, name, description, automatic, kind,
    progress, metrics, parameters, finished, content_id, arrays, raw_bytes, new_bytes, writer, tags, pinned), left_out,
    damaged (id, error).
    """
    catalogue = opened(folder)
    found = [one for one in catalogue.list_checkpoints() if branch is None or one["branch"] == branch]
    bad = catalogue.folder.listed()[1]
    shown = found[:limit]
    code = PARTIAL if bad else 0
    if as_json:
        damaged = [{"id": one, "error": describe(error)} for one, error in sorted(bad.items())]
        print_json(
            {
                "folder": catalogue.folder.path,
                "checkpoints": shown,
                "left_out": len(found) - len(shown),
                "damaged": damaged,
            }
        )
        return code
    out = console()
    for one in shown:
        out.print(_headline(one), soft_wrap=True)
        out.print(_details(one), style="dim", soft_wrap=True)
    if not found:
        out.print("no checkpoints" if branch is None else f"no checkpoints of the branch {plain(branch)}")
    if len(found) > len(shown):
        out.print(f"and {len(found) - len(shown):,} older ones")
    for _, error in sorted(bad.items()):
        complain(error)
    return code


def _headline(one: dict[str, Any]) -> str:
    when = one["created_at"][:16].replace("T", " ")
    sizes = f"{size_text(one['new_bytes'])} new of {size_text(one['raw_bytes'])}"
    return plain(f"{one['number']:>4}  {one['id']}  {when}  {sizes}")


def _details(one: dict[str, Any]) -> str:
    said = [one["branch"], one["name"], *(f"tag {tag}" for tag in one["tags"])]
    said += ["pinned"] * one["pinned"] + ["automatic"] * one["automatic"] + ["finished"] * one["finished"]
    said += [] if one["progress"] is None else [f"progress {_cut(one['progress'])}"]
    said += [f"{name} {value:.6g}" for name, value in one["metrics"].items()]
    return " " * 6 + plain(", ".join(part for part in said if part))


def _cut(value: object) -> str:
    text = str(value)
    return text if len(text) <= _TEXT else f"{text[: _TEXT - 3]}..."


@checkpoint.command()
@click.argument("checkpoint_id", metavar="ID")
@folder_option
@click.option("--all", "everything", is_flag=True, help=f"Show every array, not the first {_ROWS}.")
@as_json_option
def show(checkpoint_id: str, *, folder: str | None, everything: bool, as_json: bool) -> int:
    """Say everything that is known of a checkpoint.

    Its data are not read.

    With --json: what list gives of it, and compression (codecs, raw_bytes, stored_bytes, ...), quantum, emotion,
    record, shared_with_parent (bytes, first_bytes, second_bytes, first_share, second_share; the first is the parent;
    null where it is not there), and sections, with path, dtype, shape, raw_bytes, stored_bytes, chunks and sha256 of
    each array.
    """
    from quantum_memory.formats.info import of_reader
    from quantum_memory.lifecycle.checkpoints.comparing import shared_chunks

    catalogue = opened(folder)
    known = catalogue.get_checkpoint(checkpoint_id)
    parent = known["parent"] if known["parent"] in catalogue.folder.ids() else None
    with catalogue.folder.reading(known["id"]) as reader:
        facts = of_reader(reader)
        shared = None
        if parent is not None:
            with catalogue.folder.reading(parent) as before:
                shared = shared_chunks(before, reader)
    parts = {name: facts[name] for name in ("compression", "quantum", "emotion", "record", "sections")}
    if as_json:
        print_json({**known, **parts, "shared_with_parent": shared})
        return 0
    _show(console(), known, facts, shared, parent, everything=everything)
    return 0


def _show(
    out: Console,
    known: dict[str, Any],
    facts: dict[str, Any],
    shared: dict[str, Any] | None,
    parent: str | None,
    *,
    everything: bool,
) -> None:
    out.print(plain(known["id"]), style="bold", overflow="fold")
    sheet = fact_sheet()
    for label, name in (
        ("number", "number"), ("name", "name"), ("description", "description"), ("branch", "branch"),
        ("created", "created_at"), ("written by", "writer"), ("kind", "kind"), ("progress", "progress"),
    ):  # fmt: skip
        if known[name] is not None and known[name] != "":
            sheet.add_row(label, plain(_cut(known[name])))
    marks = [f"tag {tag}" for tag in known["tags"]]
    marks += [name for name in ("pinned", "automatic", "finished") if known[name]]
    if marks:
        sheet.add_row("marks", plain(", ".join(marks)))
    gone = "" if known["parent"] in {None, parent} else ", which is not there any more"
    sheet.add_row("parent", "none" if known["parent"] is None else plain(known["parent"]) + gone)
    if shared is not None:
        share = "" if shared["second_share"] is None else f", {100 * shared['second_share']:.3g} % of its data"
        sheet.add_row("shared with it", f"{size_text(shared['bytes'])}{share}")
    for part in ("metrics", "parameters"):
        for position, (name, value) in enumerate(known[part].items()):
            sheet.add_row(part if position == 0 else "", plain(f"{name} = {_cut(value)}"))
    sheet.add_row(
        "data",
        f"{size_text(known['raw_bytes'])} in {known['arrays']:,} arrays; {size_text(known['new_bytes'])} were new",
    )
    sheet.add_row("content id", short(known["content_id"]))
    out.print(sheet)
    sections = sorted(facts["sections"], key=lambda section: natural(section["path"]))
    table = column_table("array", "type", "shape", "raw", "stored", "sha256", right=("raw", "stored"))
    for section in sections if everything else sections[:_ROWS]:
        table.add_row(
            plain(section["path"]),
            section["dtype"],
            " × ".join(map(str, section["shape"])) or "scalar",
            size_text(section["raw_bytes"]),
            size_text(section["stored_bytes"]),
            short(section["sha256"]),
        )
    if sections:
        out.print(table)
    if len(sections) > _ROWS and not everything:
        out.print(f"  ... and {len(sections) - _ROWS:,} more (--all)", style="dim")


def _exported(checkpoint_id: str, path: str, *, folder: str | None, overwrite: bool, as_json: bool) -> int:
    made = opened(folder).export_checkpoint(checkpoint_id, path, overwrite=overwrite)
    if as_json:
        print_json(vars(made))
    else:
        console().print(f"{plain(made.path)}: {size_text(made.bytes)} written, {made.format}", soft_wrap=True)
    return 0


_overwrite = click.option("--overwrite", is_flag=True, help="Replace the file where it exists.")


@checkpoint.command()
@click.argument("checkpoint_id", metavar="ID")
@click.option("--to", "path", required=True, metavar="FILE", help="The file; its suffix says the format.")
@folder_option
@_overwrite
@as_json_option
def restore(checkpoint_id: str, path: str, *, folder: str | None, overwrite: bool, as_json: bool) -> int:
    """Write what a checkpoint holds to a file.

    It is what export does, and quantum_memory.load reads it. A run that is to go on needs none:
    CheckpointManager.resume gives it its state.

    With --json: path, format, bytes, content_id, raw_bytes, infidelity (null).
    """
    return _exported(checkpoint_id, path, folder=folder, overwrite=overwrite, as_json=as_json)


@checkpoint.command()
@click.argument("checkpoint_id", metavar="ID")
@click.argument("path", metavar="FILE")
@folder_option
@_overwrite
@as_json_option
def export(checkpoint_id: str, path: str, *, folder: str | None, overwrite: bool, as_json: bool) -> int:
    """Write a checkpoint to a file of its own.

    The suffix of FILE says the format, and import takes the file back. It may also be an address (qmem convert).

    With --json: path, format, bytes, content_id, raw_bytes, infidelity (null).
    """
    return _exported(checkpoint_id, path, folder=folder, overwrite=overwrite, as_json=as_json)


@checkpoint.command("import")
@click.argument("path", metavar="FILE")
@click.option("--name", default="", metavar="NAME", help="What it is called; by default as it was.")
@click.option("--state", "state_id", metavar="ID", help="Which state of a store that holds several.")
@folder_option
@as_json_option
def import_(path: str, *, name: str, state_id: str | None, folder: str | None, as_json: bool) -> int:
    """Save what FILE holds as a checkpoint.

    Every byte of it is checked. The folder is made where there is none. FILE may also be an address (qmem convert).

    With --json: id.
    """
    made = opened(folder, may_be_new=True).import_checkpoint(path, name, state_id=state_id)
    return done({"id": made}, f"{made} saved", as_json=as_json)


@checkpoint.command()
@click.argument("checkpoint_id", metavar="ID")
@folder_option
@as_json_option
def delete(checkpoint_id: str, *, folder: str | None, as_json: bool) -> int:
    """Remove a checkpoint, and the chunks that no other needs.

    One that has a tag or a pin stays; exit code 7.

    With --json: deleted.
    """
    manager = opened(folder)
    one = manager.resolve(checkpoint_id)
    manager.delete_checkpoint(one)
    return done({"deleted": one}, f"{one} removed", as_json=as_json)
