"""What differs between two checkpoints, as a PNG file."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from quantum_memory.cli.output import plain
from quantum_memory.cli.plot import save_figure
from quantum_memory.state.pad import AXES

if TYPE_CHECKING:
    from collections.abc import Callable

    from matplotlib.axes import Axes

    from quantum_memory.lifecycle.checkpoints.comparing import Comparison, LeafDifference
    from quantum_memory.lifecycle.checkpoints.comparing_states import StateDifference

_FIRST, _SECOND = "tab:gray", "tab:blue"
_AXES = {"X": "tab:orange", "Y": "tab:red", "Z": "tab:blue"}
_LEAVES = 10
_NAME = 28
_COLUMNS = 2


def draw(path: str, found: Comparison) -> None:
    """Draw a panel for each thing that there is to see, and save them durably: Bloch vectors and entropies of the first
    state, leaves, PAD.
    """  # noqa: D205
    from matplotlib.figure import Figure

    panels = _panels(found)
    columns = min(_COLUMNS, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(1 + 5.4 * columns, 0.9 + 3.3 * rows), dpi=150, layout="constrained")
    places = figure.subplots(rows, columns, squeeze=False).reshape(-1)
    for axes, panel in zip(places, panels, strict=False):
        panel(axes)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in places[len(panels) :]:
        axes.set_axis_off()
    figure.suptitle(f"{plain(found.first)}  →  {plain(found.second)}", fontsize=9, parse_math=False)
    save_figure(figure, path)


def _panels(found: Comparison) -> list[Callable[[Axes], None]]:
    panels: list[Callable[[Axes], None]] = []
    state = next((one for one in found.states if not one.same), None)
    if state is not None:
        if any(one is not None for one in state.bloch_change or ()):
            panels.append(lambda axes: _bloch(axes, state))
        if any(some and any(one is not None for one in some) for some in state.entropies):
            panels.append(lambda axes: _entropies(axes, state))
    leaves = [one for one in found.tree.most_changed if one.max_delta is not None and math.isfinite(one.max_delta)]
    if any(one.max_delta for one in leaves):
        panels.append(lambda axes: _leaves(axes, leaves[:_LEAVES]))
    if found.emotion is not None and any(found.emotion["pad"]):
        panels.append(lambda axes: _pad(axes, found))
    return panels or [lambda axes: _nothing(axes, found)]


def _bloch(axes: Axes, state: StateDifference) -> None:
    moved = [(site, one) for site, one in enumerate(state.bloch_change or ()) if one is not None]
    sites = np.array([site for site, _ in moved])
    for place, (name, colour) in enumerate(_AXES.items()):
        axes.bar(sites + 0.27 * (place - 1), [one[place] for _, one in moved], 0.25, label=f"⟨{name}⟩", color=colour)
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set_xlabel("qubit")
    _whole_numbers(axes)
    _headed(axes, f"{state.name}: change of the Bloch vectors")
    _legend(axes)


def _entropies(axes: Axes, state: StateDifference) -> None:
    for label, values, colour, marker, size in (
        ("first", state.entropies[0], _FIRST, "s", 6),
        ("second", state.entropies[1], _SECOND, "o", 3.5),
    ):
        if values is not None:
            cuts = range(1, len(values) + 1)
            known = [math.nan if one is None else one for one in values]
            axes.plot(cuts, known, marker=marker, markersize=size, label=label, color=colour, linewidth=1.5)
    axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]), top=max(0.1, axes.get_ylim()[1]))
    axes.set_xlabel("cut: sites on its left")
    axes.set_ylabel("bits")
    _whole_numbers(axes)
    _headed(axes, f"{state.name}: entropy of each cut")
    _legend(axes)


def _leaves(axes: Axes, leaves: list[LeafDifference]) -> None:
    shown = [one for one in leaves if one.max_delta][::-1]
    names = [plain(one.name) for one in shown]
    places = range(len(shown))
    axes.barh(places, [one.max_delta or 0 for one in shown], color=_SECOND, height=0.6)
    cut = [name if len(name) <= _NAME else f"…{name[1 - _NAME :]}" for name in names]
    axes.set_yticks(places, cut, fontsize=7, parse_math=False)
    axes.set_xscale("log")
    _few_ticks(axes)
    axes.set_xlabel("largest |Δ|")
    _headed(axes, "leaves that changed most")


def _pad(axes: Axes, found: Comparison) -> None:
    points = found.emotion["pad"] if found.emotion else ()
    places = np.arange(len(AXES))
    for label, point, colour, shift in zip(("first", "second"), points, (_FIRST, _SECOND), (-0.19, 0.19), strict=True):
        if point is not None:
            axes.bar(places + shift, point, 0.36, label=label, color=colour)
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set_xticks(places, AXES)
    axes.set_ylim(-1, 1)
    distance = found.emotion["pad_distance"] if found.emotion else None
    _headed(axes, "PAD" if distance is None else f"PAD, {distance:.3g} apart")
    _legend(axes)


def _nothing(axes: Axes, found: Comparison) -> None:
    axes.set_axis_off()
    said = "identical content" if found.same_content else "nothing that differs can be drawn"
    axes.text(0.5, 0.5, said, ha="center", va="center")


def _headed(axes: Axes, title: str) -> None:
    axes.set_title(plain(title), loc="left", fontsize=10, parse_math=False)
    axes.grid(visible=True, alpha=0.25)
    axes.set_axisbelow(True)


def _legend(axes: Axes) -> None:
    """Put the legend above the panel, where no data are."""
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), borderaxespad=0.2, frameon=False, ncols=3, fontsize=8)


def _few_ticks(axes: Axes) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    low, high = axes.get_xlim()
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low < 500 else (1,)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _whole_numbers(axes: Axes) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
