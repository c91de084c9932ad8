"""``qmem compare``: what differs between two memories."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import click

from quantum_memory.cli.keys import opening_either
from quantum_memory.cli.options import reading_options_of_two
from quantum_memory.cli.output import (
    console,
    fact_sheet,
    last_part,
    natural,
    plain,
    print_json,
    progress,
    raw_bytes,
    short,
)

if TYPE_CHECKING:
    from quantum_memory.formats.compare import Comparison
    from quantum_memory.state.memory_state import MemoryState

_ROWS = 20


@click.command()
@click.argument("first", metavar="A")
@click.argument("second", metavar="B")
@click.option("--all", "everything", is_flag=True, help=f"Show every difference, not the first {_ROWS}.")
@reading_options_of_two
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def compare(
    first: str,
    second: str,
    *,
    everything: bool,
    state_a: str | None,
    state_b: str | None,
    as_json: bool,
    **reading: Any,
) -> int:
    """Say what differs between two memories, and by how much.

    Both files are checked and loaded. Their formats may differ: the same content has the same content id in each. The
    exit code is 0 whether they agree or not.

    A and B may also be addresses, s3://bucket/run@tag or icechunk+file:///folder@tag, or end with the name of a
    checkpoint or a state: run@tag, store.h5@state.

    With --json: first, second, same_content, content_ids, differences, fidelity, trace_distance, bures_distance,
    max_difference, norms, global_phase, pad_distance, why_not, and definitions. A failure: {"error": {"type",
    "message", "path", "next_step", "exit_code"}}.
    """
    import quantum_memory as qm
    from quantum_memory.formats.compare import named

    found = dataclasses.replace(
        qm.compare(_load(first, state_id=state_a, **reading), _load(second, state_id=state_b, **reading)),
        first=named(first, state_a),
        second=named(second, state_b),
    )
    if as_json:
        print_json(found.to_dict())
    else:
        _show(found, everything=everything)
    return 0


def _load(path: str, **reading: Any) -> MemoryState:
    import quantum_memory as qm

    reading = opening_either(path, reading)
    with progress(f"load {last_part(path)}", raw_bytes(path, **reading)) as advance:
        memory: MemoryState = qm.load(path, progress=advance, **reading)
        return memory


def _show(found: Comparison, *, everything: bool) -> None:
    out = console()
    verdict, style = ("identical content", "bold green") if found.same_content else ("different content", "bold yellow")
    out.print(verdict, style=style)
    sheet = fact_sheet()
    for label, path, name in zip(("first", "second"), (found.first, found.second), found.content_ids, strict=True):
        sheet.add_row(label, f"{plain(path)}  (content id {short(name)})")
    for label, name in (
        ("fidelity", "fidelity"),
        ("trace distance", "trace_distance"),
        ("Bures distance", "bures_distance"),
    ):
        value = getattr(found, name)
        if value is not None:
            sheet.add_row(label, f"{value!r}  is  {found.definitions[name]}")
    for label, number in _numbers(found):
        sheet.add_row(label, number)
    if found.why_not is not None:
        sheet.add_row("no fidelity", plain(found.why_not))
    differences = sorted(found.differences, key=natural)
    shown = differences if everything else differences[:_ROWS]
    for position, difference in enumerate(shown):
        sheet.add_row("differing" if position == 0 else "", plain(difference))
    if len(shown) < len(differences):
        sheet.add_row("", f"... and {len(differences) - len(shown)} more (--all)")
    out.print(sheet)


def _numbers(found: Comparison) -> list[tuple[str, str]]:
    rows: list[tuple[str, Any]] = []
    if found.norms != (None, None):
        rows.append(("norms", " and ".join(map(repr, found.norms))))
    if found.global_phase is not None:
        rows.append(("global phase", f"{found.global_phase!r} rad"))
    if found.max_difference is not None:
        rows.append(("max difference", f"{found.max_difference!r}, of two entries"))
    if found.pad_distance is not None:
        rows.append(("PAD distance", repr(found.pad_distance)))
    return rows
