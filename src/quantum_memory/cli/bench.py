"""``qmem bench``: what our forms make of states, and what it costs to keep them, beside what others do."""

from __future__ import annotations

import json
import platform
import tempfile
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from quantum_memory.cli.bench_states import FAMILIES
from quantum_memory.cli.keys import opening
from quantum_memory.cli.options import reading_options
from quantum_memory.cli.output import column_table, console, last_part, plain, print_json, progress, size_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console

    from quantum_memory.cli.bench_measure import Report
    from quantum_memory.state.quantum_state import DensityMatrix, StateVector

    Named = tuple[str, StateVector | DensityMatrix]

_QUBITS, _QUICK_QUBITS = 16, 12
_SIZES, _QUICK_SIZES = (5, 10, 15, 20, 24), (5, 10, 15)
_KEPT = ("haar", "circuit", "mps", "ghz")
_INFIDELITIES = (1e-2, 1e-4, 1e-6, 1e-8, 1e-10, 1e-12)
_QUICK_INFIDELITIES = (1e-4, 1e-8)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def bench() -> None:
    """Measure what compression makes of states, and what it costs to keep them, beside what others do."""


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


@bench.command()
@click.option("--qubits", "-n", "sizes", multiple=True, type=click.IntRange(2, 30), help="Several times for several.")
@click.option(
    "--family",
    "families",
    multiple=True,
    type=click.Choice(list(FAMILIES)),
    help=f"A state to make; several times for several. Default: {', '.join(_KEPT)}.",
)
@click.option("--folder", metavar="FOLDER", help="Where the files are made, on the disk that is meant. Default: here.")
@click.option("--html", "page", metavar="FILE.html", help="Write a page with all tables and a picture (matplotlib).")
@click.option("--png", metavar="FILE.png", help="Draw how costs grow with the qubits (matplotlib).")
@click.option("--output", metavar="FILE.json", help="Write what was measured, of each round.")
@click.option("--quick", is_flag=True, help=f"{', '.join(map(str, _QUICK_SIZES))} qubits, one family.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def files(
    sizes: tuple[int, ...],
    *,
    families: tuple[str, ...],
    folder: str | None,
    page: str | None,
    png: str | None,
    output: str | None,
    quick: bool,
    as_json: bool,
) -> int:
    """Measure saves, loads, checks, partial reads and checkpoints of a state, and what a flipped bit does to it.

    Beside ours: np.save, np.savez_compressed, h5py, pickle, torch.save, safetensors, zarr, and what QuTiP, TeNPy and
    PennyLane write; of these those that are installed (pip install 'quantum-memory[bench]'). All have their turn in
    each round; medians are shown. Default: 5, 10, 15, 20 and 24 qubits in complex128.

    With --json: made, sheets, each with family, qubits, raw and costs (way, ours, synced, nbytes, seconds, memory,
    flips, added); not_installed. A failure: {"error": {"type", "message", "path", "next_step", "exit_code"}}.
    """
    from quantum_memory.cli import bench_page
    from quantum_memory.cli.bench_files import measure as measure_files
    from quantum_memory.cli.bench_states import make
    from quantum_memory.cli.bench_ways import absent, ways
    from quantum_memory.cli.plot import check_matplotlib, check_png

    if png is not None:
        check_png(png)
    if page is not None:
        check_matplotlib()
    chosen = sizes or (_QUICK_SIZES if quick else _SIZES)
    made = families or (_KEPT[:1] if quick else _KEPT)
    out, sheets = console(quiet=as_json), []
    with (
        tempfile.TemporaryDirectory(dir=folder or Path.cwd(), prefix="qmem-bench-") as place,
        progress("measure", len(chosen) * len(made) * len(ways()), unit="items") as step,
    ):
        for family, qubits in product(made, chosen):
            sheets.append(measure_files(family, qubits, make(family, qubits).amplitudes, Path(place), step))
    for sheet in sheets:
        table = column_table("", *bench_page.SHOWN, right=bench_page.SHOWN)
        for cost in sheet.costs:
            cells = dict(zip(bench_page.COLUMNS, bench_page.cells(cost, sheet.raw), strict=True))
            shown = [cells[name] for name in bench_page.SHOWN]
            table.add_row(cost.way, *shown, style="bold" if cost.ours else None)
        out.print(f"  {sheet.family}, {sheet.qubits} qubits: {size_text(sheet.raw)}")
        out.print(table)
    missing, said = absent(), _where()
    if missing:
        out.print(f"  Not installed: {', '.join(missing)} (pip install 'quantum-memory[bench]').", style="dim")
    facts = {"made": said, "sheets": [sheet.to_dict() for sheet in sheets], "not_installed": missing}
    if output is not None:
        bench_page.write(output, json.dumps(facts, indent=1) + "\n")
    if page is not None or png is not None:
        image = bench_page.draw(sheets)
        if png is not None:
            bench_page.write(png, image)
        if page is not None:
            bench_page.write(page, bench_page.page(sheets, image, missing, said))
    for written in filter(None, (output, page, png)):
        out.print(f"  Written: {plain(written)}")
    if as_json:
        print_json(facts)
    return 0


def _where() -> str:
    """Say when, where and with what it was measured."""
    import numpy as np

    from quantum_memory._version import __version__
    from quantum_memory.state.arrays import worker_count

    return (
        f"{datetime.now(UTC):%Y-%m-%d}, quantum-memory {__version__}, Python {platform.python_version()}, "
        f"NumPy {np.__version__}, {platform.system()} on {platform.machine()}, {worker_count()} cores"
    )


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
        yield last_part(path), state.gather() if isinstance(state, qm.ShardedStateVector) else state


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
