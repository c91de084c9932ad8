"""``qmem checkpoint diff``: what differs between two checkpoints, in words and as a picture."""

from __future__ import annotations

import click

from quantum_memory.cli.checkpoint_folder import folder_option, opened
from quantum_memory.cli.folders import as_json_option
from quantum_memory.cli.output import console, plain, print_json


@click.command()
@click.argument("first", metavar="A")
@click.argument("second", metavar="B")
@folder_option
@click.option("--plot", metavar="FILE", help="Draw it, too, as a PNG file.")
@as_json_option
def diff(first: str, second: str, *, folder: str | None, plot: str | None, as_json: bool) -> int:
    """Say what differs between two checkpoints, and by how much. The exit code is 0 whether they agree or not.

    Chunks that both have are not read.

    With --json: first, second, same_content, content_ids, states (name, kinds, same, fidelity, trace_distance,
    bures_distance, bures_angle, norms, bloch, bloch_change, entropies, entropy_change, left_out), states_left_out, tree
    (leaves, added, removed, changed, changed_bytes, added_bytes, removed_bytes, first_added, first_removed,
    most_changed: name, old, new, nbytes, changed_bytes, max_delta), emotion (pad_distance, pad, recent_emotions,
    trajectory_points), said, shared (bytes, first_bytes, second_bytes, first_share, second_share).
    """
    if plot is not None:
        from quantum_memory.cli.plot import check_png

        check_png(plot)
    found = opened(folder).compare_checkpoints(first, second)
    if plot is not None:
        from quantum_memory.cli.checkpoint_plot import draw

        draw(plot, found)
    if as_json:
        print_json(found.to_dict())
        return 0
    console().print(str(found), soft_wrap=True)
    if plot is not None:
        console().print(f"picture: {plain(plot)}", soft_wrap=True)
    return 0
