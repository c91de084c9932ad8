"""Bits per real against infidelity, as a PNG file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from quantum_memory.cli.bench_measure import shannon
from quantum_memory.cli.plot import save_figure
from quantum_memory.compression.forms.base import EFFORTS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

    from quantum_memory.cli.bench_measure import Report

_OURS = {"fast": ("#9ecae1", 4.5), "balanced": ("#3182bd", 2.5), "max": ("#08306b", 1.0)}
"""Colours and widths: the wider one is drawn first, so that those that coincide are all seen."""

_PEERS = {"SZ3": "tab:orange", "ZFP": "tab:green", "SPERR": "tab:red"}
_CASTS = {"float32": "s", "float16": "D", "bfloat16": "^"}
_LOOSEST, _TIGHTEST = 1e-1, 1e-17
_COLUMNS = 3


def draw(path: str, reports: Sequence[Report]) -> None:
    """Draw a panel for each state, and save them durably."""
    from matplotlib.figure import Figure

    columns = min(_COLUMNS, len(reports))
    rows = -(-len(reports) // columns)
    figure = Figure(figsize=(1.2 + 4.4 * columns, 1.6 + 3.6 * rows), dpi=150, layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).reshape(-1)
    for axes, report in zip(panels, reports, strict=False):
        _panel(axes, report)
    for axes in panels[len(reports) :]:
        axes.set_axis_off()
    named: dict[str, Any] = {}
    for axes in panels:
        handles, labels = axes.get_legend_handles_labels()
        named |= {label: handle for handle, label in zip(handles, labels, strict=True) if label not in named}
    if len(panels) > len(reports):
        panels[-1].legend(named.values(), named.keys(), loc="center", frameon=False)
    else:
        figure.legend(named.values(), named.keys(), loc="outside lower center", ncols=2 * columns, frameon=False)
    save_figure(figure, path)


def _panel(axes: Axes, report: Report) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    exact = {point.method: point for point in report.points if point.requested == 0}
    for effort in EFFORTS:
        colour, width = _OURS[effort]
        axes.plot(*_curve(report, effort), label=f"ours, {effort}", color=colour, linewidth=width)
    for effort in EFFORTS:
        colour, width = _OURS[effort]
        axes.axhline(exact[effort].bits_per_real, label=f"ours, {effort}: every bit", color=colour,
                     linewidth=max(1.0, 0.7 * width), linestyle=(0, (3, 1.5)))  # fmt: skip
    for method, colour in _PEERS.items():
        if any(point.method == method for point in report.points):
            axes.plot(*_curve(report, method), label=method, color=colour, marker="o", markersize=3.5, linewidth=1.2)
    others = [point.bits_per_real for point in exact.values() if point.kind == "peer"]
    if others:
        axes.axhline(min(others), label="best of others: every bit", color="black", linewidth=1.2, linestyle=":")
    for point in report.points:
        if point.kind == "cast" and point.infidelity > _TIGHTEST:
            axes.plot(point.infidelity, point.bits_per_real, _CASTS[point.method], label=point.method, color="black",
                      markerfacecolor="white", markersize=6, linestyle="none")  # fmt: skip
    bound = np.geomspace(_LOOSEST, _TIGHTEST, 100)
    axes.plot(bound, [shannon(one) for one in bound], label="Shannon bound of a general state", color="tab:gray",
              linewidth=1.0, linestyle="--")  # fmt: skip
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(_LOOSEST, _TIGHTEST)
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("infidelity 1 − F, more faithful to the right")
    axes.set_ylabel("bits per real number")
    axes.set_title(f"{report.name}, {report.dtype}", loc="left", fontsize=10, parse_math=False)
    axes.grid(visible=True, alpha=0.25)


def _curve(report: Report, method: str) -> tuple[list[float], list[float]]:
    points = [point for point in report.points if point.method == method and point.requested and point.infidelity]
    return [point.infidelity for point in points], [point.bits_per_real for point in points]
