"""``qmem checkpoint prune``, ``verify``, ``log`` and ``gc``: keep a folder of checkpoints in order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from quantum_memory.cli.checkpoint_folder import folder_option, opened
from quantum_memory.cli.failures import describe, sentence
from quantum_memory.cli.folders import as_json_option, show_log
from quantum_memory.cli.output import bars, console, plain, print_json, size_text
from quantum_memory.cli.pruning import (
    any_of,
    check_manifests,
    dry_run_option,
    keep_last_option,
    keep_within_option,
    number,
    show_pruned,
)
from quantum_memory.errors import IntegrityError, StorageError
from quantum_memory.formats.urls import is_url

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from quantum_memory.errors import QuantumMemoryError
    from quantum_memory.lifecycle.checkpoint_manager import CheckpointManager
    from quantum_memory.lifecycle.checkpoints.manifest import Checkpoint
    from quantum_memory.lifecycle.retention import KeepPolicy


@click.command()
@folder_option
@keep_last_option
@click.option("--keep-every", multiple=True, metavar="1d", help="Keep the last of each day, or of 12h, 1w, ...")
@keep_within_option
@click.option("--keep-best", multiple=True, metavar="METRIC[:max]", help="Keep the one with the lowest, or highest.")
@click.option("--at-most", type=number, metavar="N", help="Leave at most N, automatic ones go first.")
@dry_run_option
@as_json_option
def prune(*, folder: str | None, at_most: int | None, dry_run: bool, as_json: bool, **keep: Any) -> int:
    """Remove what none of the options keeps.

    Of each checkpoint it is said why it stays or goes. What is pinned or has a tag stays, and so does the newest.
    Before anything goes, the newest is read back, every byte of it; and where any is damaged, nothing goes. With
    --at-most alone, everything is kept up to N.

    With --json: folder, dry_run, removed and kept (why, by id), collection (packs_removed, packs_written,
    chunks_removed, bytes_removed, bytes_kept; null when nothing was removed).
    """
    policy = _policy(**keep)
    if policy is None and at_most is None:
        raise click.UsageError("say what to keep: --keep-last 5, --keep-every 1d, --at-most 20, ...")
    manager = opened(folder, keep=policy, max_checkpoints=at_most)
    if manager.prune(dry_run=True)["removed"]:
        _check(manager)
    return show_pruned(manager.folder, manager.prune(dry_run=dry_run), dry_run=dry_run, as_json=as_json)


def _policy(
    *, keep_last: int | None, keep_every: Sequence[str], keep_within: str | None, keep_best: Sequence[str]
) -> KeepPolicy | None:
    """Return what keeps what any of the options keeps."""
    from quantum_memory.lifecycle.retention import KeepBest, KeepEvery, KeepLast, KeepWithin

    policies: list[KeepPolicy] = [] if keep_last is None else [KeepLast(keep_last)]
    policies += map(KeepEvery, keep_every)
    policies += [] if keep_within is None else [KeepWithin(keep_within)]
    for one in keep_best:
        metric, colon, mode = one.rpartition(":")
        if mode in {"min", "max"} and colon:
            policies.append(KeepBest(metric, mode=mode))  # type: ignore[arg-type]
        else:
            policies.append(KeepBest(one))
    return any_of(policies)


def _check(manager: CheckpointManager) -> None:
    """Look for what would stop pruning halfway, so that a rehearsal fails where it would and gives the same reasons."""
    newest = manager.folder.listed()[0][-1].id
    wrong = manager.verify(newest)[newest]
    if wrong is not None:
        raise IntegrityError(
            f"the newest checkpoint is damaged, and nothing older is given up for it: {wrong}",
            next_step=f"qmem checkpoint delete {newest}, or restore it from a copy",
        )
    check_manifests(manager.folder, manager.folder.head)


@click.command()
@click.argument("checkpoint_id", required=False, metavar="[ID]")
@folder_option
@as_json_option
def verify(checkpoint_id: str | None, *, folder: str | None, as_json: bool) -> int:
    """Check every byte of a checkpoint, or of all.

    Exit code 4 when one is damaged, and 8 when one could not be read.

    With --json: folder, good (ids, the newest first), damaged (id, error).
    """
    manager = opened(folder)
    good: list[str] = []
    damaged: dict[str, QuantumMemoryError] = {}
    listed, bad = manager.folder.listed()
    wanted = None if checkpoint_id is None else manager.resolve(checkpoint_id)
    if wanted is None:
        damaged |= bad
    with bars({"verify": sum(one.raw_bytes for one in listed if wanted in {None, one.id})}) as (advance,):
        for one, error in manager.verifying(wanted, advance):
            if error is None:
                good.append(one)
            else:
                damaged[one] = error
    unreadable = all(isinstance(why, StorageError) for why in damaged.values())
    code = 0 if not damaged else StorageError.exit_code if unreadable else IntegrityError.exit_code
    if as_json:
        wrong = [{"id": one, "error": describe(why)} for one, why in damaged.items()]
        print_json({"folder": manager.folder.path, "good": good, "damaged": wrong})
        return code
    out = console()
    for one in good:
        out.print(f"OK       {plain(one)}", style="green", soft_wrap=True)
    for one, why in damaged.items():
        verdict = "FAILED" if isinstance(why, StorageError) else "DAMAGED"
        out.print(f"{verdict:<8} {plain(one)}", style="bold red", soft_wrap=True)
        out.print(f"  {sentence(why)}", soft_wrap=True)
    out.print(f"{len(good):,} whole, {len(damaged):,} {'not readable' if damaged and unreadable else 'damaged'}")
    return code


@click.command()
@folder_option
@click.option("--graph", is_flag=True, help="Draw which checkpoint continues which, the newest first.")
@as_json_option
def log(*, folder: str | None, graph: bool, as_json: bool) -> int:
    """Say what was done in the folder, the oldest first.

    What was saved is known from the checkpoints that are there, the rest from the log.

    With --json: entries, each with when, action, and what else is known: checkpoint, number, branch, parent, name,
    progress, why, path, tag.
    """
    manager = opened(folder)
    listed = manager.folder.listed()[0]
    if graph and not as_json:
        out = console()
        for line in drawn(listed):
            out.print(plain(line), soft_wrap=True)
        return 0
    saved = [
        {
            "when": one.created_at, "action": "saved", "checkpoint": one.id, "number": one.number,
            "branch": one.branch, "parent": one.parent, "name": one.name or None, "progress": one.progress,
        }
        for one in listed
    ]  # fmt: skip
    entries = sorted([*saved, *manager.folder.log()], key=lambda one: str(one.get("when", "")))
    return show_log(manager.folder, entries, as_json=as_json)


def drawn(listed: Sequence[Checkpoint]) -> Iterator[str]:
    """Yield the lines of a graph of checkpoints, the newest first.

    A column stands for a line of checkpoints that waits for the one that it continues; where two wait for the same, the
    right one ends in the left one.
    """
    there = {one.id for one in listed}
    columns: list[str] = []
    for one in reversed(listed):
        waiting = [place for place, parent in enumerate(columns) if parent == one.id]
        for place in reversed(waiting[1:]):
            yield "| " * waiting[0] + "|" + "_|" * (place - waiting[0] - 1) + "/" + " /" * (len(columns) - place - 1)
            del columns[place]
        if not waiting:
            columns.append(one.id)
        here = columns.index(one.id)
        marks = " ".join("*" if place == here else "|" for place in range(len(columns)))
        facts = [one.branch, one.name, "" if one.progress is None else f"progress {one.progress}"]
        gone = "" if one.parent is None or one.parent in there else " (what it continues is gone)"
        yield f"{marks}  {one.number} {one.id}  {', '.join(fact for fact in facts if fact)}{gone}"
        if one.parent in there:
            columns[here] = str(one.parent)
        else:
            del columns[here]


@click.command()
@folder_option
@as_json_option
def gc(*, folder: str | None, as_json: bool) -> int:
    """Remove leftovers, and chunks that nothing needs.

    Leftovers are what processes left half-written that are no more.

    With --json: folder, leftovers (paths), collection (packs_removed, packs_written, chunks_removed, bytes_removed,
    bytes_kept).
    """
    manager = opened(folder)
    with manager.folder.alone():
        leftovers = manager.folder.sweep()
        done = manager.folder.collect()
    if as_json:
        print_json({"folder": manager.folder.path, "leftovers": leftovers, "collection": done.to_dict()})
        return 0
    out = console()
    for path in leftovers:
        out.print(f"removed: {plain(path)}", soft_wrap=True)
    removed = f"{len(leftovers):,} leftovers and {done.chunks_removed:,} chunks removed"
    out.print(f"{removed}, {size_text(done.bytes_removed)} freed, {size_text(done.bytes_kept)} kept", soft_wrap=True)
    if is_url(manager.folder.path):
        out.print(
            "what is younger than an hour, or than a version that is being written, stays for now", soft_wrap=True
        )
    return 0
