"""``qmem demo``: the whole story in a minute, on real input, with every number measured."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from quantum_memory.cli.output import console, print_json

if TYPE_CHECKING:
    from quantum_memory.cli.demo_folder import DemoFolder
    from quantum_memory.cli.demo_path import PADPath
    from quantum_memory.cli.demo_story import DemoStory


@click.command()
@click.option("--data", metavar="FILE.csv", help="A path of your own: a CSV file with columns V, A, D.")
@click.option(
    "--scale",
    type=click.Choice(["auto", "bipolar", "unit", "likert5", "likert9", "mixed"]),
    default="auto",
    show_default=True,
    help="The scale of its values: [-1, 1], [0, 1], [1, 5], [1, 9]; mixed: V in [-1, 1], A and D in [0, 1]; or auto: "
    "the first of [-1, 1], [1, 5], [1, 9] that holds all.",
)
@click.option(
    "--limit", type=click.IntRange(1), default=200, show_default=True, help="How many points to take at most."
)
@click.option("--folder", metavar="DIR", help="Where the files go: a new or an empty folder. Default: a new qmem-demo.")
@click.option("--dense/--no-dense", default=None, help="With or without the 1 GiB state vector; default: if it fits.")
@click.option("--png", metavar="FILE.png", help="Draw the path into a PNG file (needs matplotlib).")
@click.option("--keep", is_flag=True, help="Leave the files where they are.")
@click.option("--json", "as_json", is_flag=True, help="Print the numbers as one JSON object.")
def demo(
    *,
    data: str | None,
    scale: str,
    limit: int,
    folder: str | None,
    dense: bool | None,
    png: str | None,
    keep: bool,
    as_json: bool,
) -> int:
    """Tell the whole story in a minute, on a path through PAD space.

    Each point of the path becomes an entangled state of 27 qubits, saved durably with its emotional context. All files
    are verified; one bit is flipped, caught and mended; everything is read back and decoded. Then the same memory once
    more as 2^27 amplitudes, if memory (3 GiB) and disk (2 GiB) allow.

    A CSV file has a header; V may be called pleasure or valence, A arousal, D dominance. Where its column id has the
    form <document>_<start>_<end>, the longest document is taken, in order. What the demo makes is removed at the end.

    With --json: path, damage, numbers (times in ms are medians), dense (or null, and why_no_dense), folder, files,
    png. A failure: {"error": {"type", "message", "path", "next_step", "exit_code"}}.
    """
    from quantum_memory.cli.demo_folder import DemoFolder
    from quantum_memory.cli.demo_story import DemoStory

    path = _path(data, scale).first(limit)
    story = DemoStory(console(quiet=as_json))
    story.path(path)
    if png is not None:
        _save_png(path, png)
        story.tell(f"Drawn into {png}.", after=1)
    with DemoFolder(folder, keep=keep) as place:
        report = _run(story, path, place, dense)
        if keep:
            story.tell(f"The files stay in {place.path}: try qmem info {place.path / '0001.qms'}")
    if as_json:
        print_json({**report, "folder": str(place.path) if keep else None, "png": png})
    return 0


def _path(data: str | None, scale: str) -> PADPath:
    from quantum_memory.cli.demo_path import anchor_path, csv_path
    from quantum_memory.state.pad import PADScale

    if data is None:
        return anchor_path()
    return csv_path(data, None if scale == "auto" else PADScale(scale))


def _run(story: DemoStory, path: PADPath, place: DemoFolder, dense: bool | None) -> dict[str, Any]:
    """Do the steps, telling each one when it is done, and return what `--json` prints."""
    from quantum_memory.cli import demo_steps as steps

    kept = steps.remember(path, place)
    story.remembered(kept, place)
    checked = steps.verify(kept)
    middle = len(kept) // 2
    damage = steps.damage_and_restore(kept[middle], place)
    story.mended(kept, checked, damage)
    found = steps.read_back(kept)
    story.read_back(kept[middle], found[middle])
    why_not = "it was not asked for (--no-dense)" if dense is False else None
    if dense is None:
        why_not = steps.no_room_for_dense(place)
    big = None if why_not else steps.dense(kept[middle], place)
    story.dense(kept[middle], big, why_not)
    numbers = steps.numbers(kept, found)
    story.numbers(numbers)
    return {
        "path": {"title": path.title, "scale": path.scale.value, "points": len(path), "notes": path.notes},
        "files": [one.file for one in kept],
        "damage": asdict(damage),
        "numbers": numbers,
        "dense": None if big is None else big.to_dict(),
        "why_no_dense": why_not,
    }


def _save_png(path: PADPath, png: str) -> None:
    from quantum_memory.cli.plot import save_png
    from quantum_memory.errors import InvalidStateError

    if not png.lower().endswith(".png"):
        raise InvalidStateError("the plot is a PNG file", path=png, next_step="end its name with .png")
    save_png(png, path.values, path.marks, title=f"{len(path)} points: {path.title}", scale=path.scale.value)
