"""``qmem versions``: the versions at an address, their names, and the way back to one."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

import click

from quantum_memory.cli.folders import as_json_option, done
from quantum_memory.cli.output import console, plain, print_json, short

if TYPE_CHECKING:
    from collections.abc import Mapping

    from quantum_memory.cloud.repository import Version

_address = click.argument("address")


class _ListedByDefault(click.Group):
    """Takes an address in the place of a verb: its versions are listed then."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        first = args[0] if args else ""
        if "://" in first or (first.startswith("-") and first not in ctx.help_option_names):
            args = ["list", *args]
        return super().parse_args(ctx, args)


@click.group(cls=_ListedByDefault)
def versions() -> None:
    """List the versions at an address, name them, and go back to one.

    An ADDRESS is s3://bucket/prefix or icechunk+file:///folder. What is behind an @ at its end says which version is
    meant: a tag, a branch, or an id; without it the newest. qmem versions ADDRESS lists them.
    """


@versions.command("list")
@_address
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Only the newest N.")
@as_json_option
def list_(address: str, *, limit: int | None, as_json: bool) -> int:
    """List versions, the newest first.

    It begins with the one that ADDRESS says, or with the newest, and goes back. Their data are not read: verify does
    that, of one.

    With --json: address, versions (id, written_at, message, content_id, parent, tags, branches), more (whether there
    are older ones), branches (the id of the version that each ends with).
    """
    import quantum_memory as qm

    repository = qm.repository(address)
    branches = repository.branches()
    found = list(islice(repository.history(_name(address)), None if limit is None else limit + 1))
    shown = found[:limit]
    more = len(found) > len(shown)
    if as_json:
        each = [_described(one, branches) for one in shown]
        print_json({"address": str(repository.url), "versions": each, "more": more, "branches": branches})
        return 0
    out = console()
    for one in shown:
        when = f"{one.written_at:%Y-%m-%d %H:%M}"
        out.print(plain(f"{one.id}  {when}  {one.message}"), soft_wrap=True)
        out.print(plain(f"  {_details(_described(one, branches))}"), style="dim", soft_wrap=True)
    if not found:
        out.print("no versions")
    if more:
        out.print("and older ones")
    return 0


def _described(one: Version, branches: Mapping[str, str]) -> dict[str, Any]:
    return {
        "id": one.id,
        "written_at": one.written_at.isoformat(),
        "message": one.message,
        "content_id": one.metadata.get("content_id"),
        "parent": one.parent,
        "tags": list(one.tags),
        "branches": [name for name, end in branches.items() if end == one.id],
    }


def _details(one: dict[str, Any]) -> str:
    said = [f"tag {tag}" for tag in one["tags"]] + [f"end of {name}" for name in one["branches"]]
    if one["content_id"] is not None:
        said.append(f"content id {short(str(one['content_id']))}")
    return ", ".join(said)


def _name(address: str) -> str | None:
    from quantum_memory.formats.urls import URL

    return URL.parse(address).name


@versions.command()
@_address
@click.argument("name")
@as_json_option
def tag(address: str, name: str, *, as_json: bool) -> int:
    """Give a version the tag NAME.

    A tag stays where it is: the same name is never given again, even when the tag is taken away.

    With --json: id, tag.
    """
    import quantum_memory as qm

    repository = qm.repository(address)
    one = repository.find(_name(address))
    repository.tag(name, one)
    return done({"id": one, "tag": name}, f"{one} has the tag {name}", as_json=as_json)


@versions.command()
@_address
@click.argument("name")
@as_json_option
def untag(address: str, name: str, *, as_json: bool) -> int:
    """Take the tag NAME away. The version stays.

    With --json: untagged.
    """
    import quantum_memory as qm

    qm.repository(address).untag(name)
    return done({"untagged": name}, f"the tag {name} is gone", as_json=as_json)


@versions.command()
@_address
@click.option("--branch", default="main", show_default=True, metavar="NAME", help="Which line of versions.")
@as_json_option
def rollback(address: str, *, branch: str, as_json: bool) -> int:
    """Go back to an older version, the one that ADDRESS says.

    The line of versions ends with it then. Those after it can still be had by their ids and tags, until they are
    cleaned away.

    With --json: id, branch, was (the id that it ended with).
    """
    import quantum_memory as qm

    name = _name(address)
    if name is None:
        raise click.UsageError("say which version: ADDRESS@NAME")
    repository = qm.repository(address)
    one, was = repository.find(name), repository.branches().get(branch)
    repository.rollback(one, branch)
    return done(
        {"id": one, "branch": branch, "was": was},
        f"{branch} ends with {one}; it ended with {was}",
        as_json=as_json,
    )
