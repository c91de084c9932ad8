"""``qmem bench``: what our forms make of states, beside what others make of them."""

from __future__ import annotations

from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import click

from quantum_memory.cli.bench_states import FAMILIES
from quantum_memory.cli.keys import opening
from quantum_memory.cli.options import reading_options
from quantum_memory.cli.output import column_table, console, plain, print_json, progress

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console

    from quantum_memory.cli.bench_measure import Report
    from quantum_memory.state.quantum_state import DensityMatrix, StateVector

    Named = tuple[str, StateVector | DensityMatrix]

_QUBITS, _QUICK_QUBITS = 16, 12
_INFIDELITIES = (1e-2, 1e-4, 1e-6, 1e-8, 1e-10, 1e-12)
_QUICK_INFIDELITIES = (1e-4, 1e-8)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def bench() -> None:
    """Measure what compression makes of states, beside other codecs."""


@bench.command()
@click.argument("files", nargs=-1, metavar="[FILE]...")
@click.option(
    "--family",
    "families",
    multiple=True,
    type=click.Choice(list(FAMILIES)),
    help="A state to make; several times for several. Default: all of them where no FILE is given.",
)
@click.option("--plot", metavar="FILE.png", help="Draw bits per real against infidelity (needs matplotlib).")
@click.option("--quick", is_flag=True, help=f"States of {_QUICK_QUBITS} qubits, not {_QUBITS}; two infidelities.")
@reading_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def compression(
    files: tuple[str, ...],
    *,
    families: tuple[str, ...],
    plot: str | None,
    quick: bool,
    as_json: bool,
    **reading: Any,
) -> int:
    """How many bits each real number of a state takes, without loss and at several infidelities 1 - F.

    In our forms the whole file counts, and 1 - F is certified. Of others (those that are installed:
    pip install 'quantum-memory[bench]') the stream alone counts, with the tolerance as loose as 1 - F allows. FILE is
    whatever holds a state vector or a density matrix; for one of these, others are given its elements as a vector.

    With --json: states, each with name, dtype, reals and points (method, kind "ours", "peer" or "cast", requested
    infidelity, 0 for every bit, infidelity, nbytes, bits_per_real, form); not_installed; plot. A failure: {"error":
    {"type", "message", "path", "next_step", "exit_code"}}.
    """
    from quantum_memory.cli import bench_peers
    from quantum_memory.cli.bench_measure import measure

    if plot is not None:
        from quantum_memory.cli import bench_plot
        from quantum_memory.cli.plot import check_png

        check_png(plot)
    infidelities = _QUICK_INFIDELITIES if quick else _INFIDELITIES
    made = families or (() if files else tuple(FAMILIES))
    out = console(quiet=as_json)
    reports = []
    with progress("measure", (len(files) + len(made)) * (1 + len(infidelities)), unit="items") as step:
        for name, state in _states(files, made, _QUICK_QUBITS if quick else _QUBITS, reading):
            reports.append(measure(name, state, infidelities, step))
    for report in reports:
        _show(out, report, infidelities)
    missing = bench_peers.absent()
    if missing:
        out.print(f"  Not installed: {', '.join(missing)} (pip install 'quantum-memory[bench]').", style="dim")
    if plot is not None:
        bench_plot.draw(plot, reports)
        out.print(f"  Drawn into {plain(plot)}.")
    if as_json:
        print_json({"states": [one.to_dict() for one in reports], "not_installed": missing, "plot": plot})
    return 0


def _states(files: tuple[str, ...], families: tuple[str, ...], qubits: int, reading: dict[str, Any]) -> Iterator[Named]:
    """Yield what is to be measured, by name; each is made when its turn comes."""
    import quantum_memory as qm
    from quantum_memory.cli.bench_states import make

    for family in families:
        yield f"{family}, {qubits} qubits", make(family, qubits)
    for path in files:
        state = qm.load(path, **opening(path, reading)).quantum
        if not isinstance(state, qm.StateVector | qm.DensityMatrix):
            raise qm.InvalidStateError(
                "it holds no dense state",
                path=path,
                next_step="give a file with a state vector or a density matrix",
            )
        yield PurePath(path).name, state


def _show(out: Console, report: Report, infidelities: tuple[float, ...]) -> None:
    """Print a table: a row for each method, a column for each infidelity."""
    from quantum_memory.cli.bench_measure import shannon
    from quantum_memory.compression.forms.base import EFFORTS

    columns = {0.0: "every bit", **{asked: f"1-F <= {asked:.0e}" for asked in infidelities}}
    table = column_table("bits per real", *columns.values(), right=tuple(columns.values()))
    points = {(point.method, point.requested): point for point in report.points if point.kind != "cast"}
    for method in dict.fromkeys(method for method, _ in points):
        cells = (points.get((method, asked)) for asked in columns)
        table.add_row(method, *("" if one is None else f"{one.bits_per_real:.4g}" for one in cells))
    table.add_row("a general state", "", *(f"{shannon(asked):.4g}" for asked in infidelities), style="dim")
    out.print(f"  {plain(report.name)}: {report.reals:,} reals, {report.dtype}")
    out.print(table)
    for effort in EFFORTS:
        forms = dict.fromkeys(str(points[effort, asked].form) for asked in columns)
        out.print(f"  Forms, {effort}: {plain(', '.join(forms))}", style="dim")
    casts = (point for point in report.points if point.kind == "cast")
    told = (f"{one.method} {one.bits_per_real:.4g} at 1-F = {one.infidelity:.2g}" for one in casts)
    out.print(f"  Casts: {', '.join(told)}\n", style="dim")
