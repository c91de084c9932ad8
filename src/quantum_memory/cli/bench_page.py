"""What `qmem bench files` has measured, as a picture and as a page that needs nothing else."""

from __future__ import annotations

import base64
import html
import io
from typing import TYPE_CHECKING, Any

from quantum_memory.cli.output import size_text, time_text
from quantum_memory.durability.atomic import DurableFile

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from quantum_memory.cli.bench_files import Cost, Sheet

COLUMNS = (
    "save", "load", "check", "part", "checkpoint", "bytes", "of raw", "added", "memory, save", "memory, load",
    "a flipped bit",
)  # fmt: skip
"""Of a table, after the name of the way."""

SHOWN = tuple(name for name in COLUMNS if name != "of raw" and not name.startswith("memory"))
"""Those for which a terminal has room."""

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 92rem; padding: 0 1rem; color: #222; }
table { border-collapse: collapse; margin: 0.6rem 0 2rem; width: 100%; font-size: 13.5px; }
th, td { padding: 0.25rem 0.4rem; text-align: right; border-bottom: 1px solid #ddd; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; white-space: normal; min-width: 9rem; }
td:last-child { white-space: normal; min-width: 7rem; }
tr.ours { background: #eef5fb; }
td.bad { color: #b00020; font-weight: 600; }
td span { color: #888; font-size: 85%; }
img { max-width: 100%; }
"""
_ABOUT = """Medians of rounds in which every way has its turn; below them the least and the greatest. Memory is what
the peak of the process grows by; of a load the state itself is in it. A checkpoint keeps the next state of a run, in
which one of sixteen amplitudes is another one, beside those before: in a history of ours, which is checked, named and
kept by rules, and elsewhere as one more file; <em>added</em> is by how much the disk is fuller then. Bits are flipped
one at a time, at places drawn with a seed: <em>not noticed</em> means that a wrong state was returned without a word.
Ours are synced to the disk before they return, unless the name says otherwise; none of the others is."""
_LINES = ["-", "--", "-.", ":"]
_OURS = ["#08306b", "#2171b5", "#6baed6", "#41ab5d"]
_OTHERS = ["tab:orange", "tab:red", "tab:brown", "tab:pink", "tab:purple", "tab:olive", "tab:gray", "black",
           "goldenrod", "salmon"]  # fmt: skip


def cells(cost: Cost, raw: int) -> list[str]:
    """Return the cells of a way, for `COLUMNS`."""
    times = ["" if (one := cost.median(name)) is None else time_text(one) for name in COLUMNS[:5]]
    memory = ["" if (one := cost.memory.get(name)) is None else size_text(one) for name in ("save", "load")]
    sizes = [size_text(cost.nbytes), f"{cost.nbytes / raw:.3g}", size_text(cost.added)]
    return [*times, *sizes, *memory, said_of_flips(cost.flips)]


def said_of_flips(flips: dict[str, int]) -> str:
    """Say what became of a state of which bits were flipped."""
    if not flips:
        return ""
    words = {"found": "found", "wrong": "not noticed", "nothing": "no effect"}
    return ", ".join(f"{flips[name]} {said}" for name, said in words.items() if flips[name])


def draw(sheets: Sequence[Sheet]) -> bytes:
    """Return how costs grow with the qubits, as a PNG image: a row of panels for each family."""
    from matplotlib.figure import Figure

    families = list(dict.fromkeys(sheet.family for sheet in sheets))
    figure: Figure = Figure(figsize=(15, 1.4 + 3.2 * len(families)), dpi=100, layout="constrained")
    panels = figure.subplots(len(families), 4, squeeze=False)
    for row, family in zip(panels, families, strict=True):
        _row(row, family, sorted((one for one in sheets if one.family == family), key=lambda one: one.qubits))
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=5, frameon=False)
    image = io.BytesIO()
    figure.savefig(image, format="png")
    return image.getvalue()


def _row(panels: Sequence[Axes], family: str, sheets: Sequence[Sheet]) -> None:
    what: dict[str, Any] = {
        "save, s": lambda cost, _: cost.median("save"),
        "load, s": lambda cost, _: cost.median("load"),
        "bytes of the file / bytes of the state": lambda cost, raw: cost.nbytes / raw,
        "extra memory of a save, MiB (from 1)": lambda cost, _: max(1, (cost.memory.get("save") or 0) / 2**20),
    }
    names = list(dict.fromkeys((cost.way, cost.ours) for sheet in sheets for cost in sheet.costs))
    colours = {True: iter(_OURS * 3), False: iter(_OTHERS * 3)}
    style = {name: (next(colours[ours]), 2.2 if ours else 1.1) for name, ours in names}
    for axes, (title, value) in zip(panels, what.items(), strict=True):
        for position, (name, _) in enumerate(names):
            points = [(s.qubits, value(c, s.raw)) for s in sheets for c in s.costs if c.way == name]
            points = [point for point in points if point[1]]
            colour, width = style[name]
            axes.plot(
                [x for x, _ in points], [y for _, y in points], label=name, color=colour, linewidth=width, marker="o",
                markersize=3, linestyle=_LINES[position % len(_LINES)] if width < 2 else "-",
            )  # fmt: skip
        axes.set_yscale("log")
        axes.set_xlabel("qubits")
        axes.set_title(f"{family}: {title}", loc="left", fontsize=9.5)
        axes.grid(visible=True, alpha=0.25)


def page(sheets: Sequence[Sheet], image: bytes, absent: Sequence[str], made: str) -> str:
    """Return a page in HTML.

    Parameters
    ----------
    image
        What `draw` returns.
    absent
        The names of ways that are not installed.
    made
        When, where and with what it was measured.
    """
    out = [
        "<!doctype html>", '<html lang="en">', "<head>", '<meta charset="utf-8">',
        "<title>What it costs to keep a quantum state</title>", f"<style>{_STYLE}</style>", "</head>", "<body>",
        "<h1>What it costs to keep a quantum state</h1>", f"<p>{html.escape(made)}</p>",
        f"<p>{_ABOUT}</p>",
        f'<img alt="costs against qubits" src="data:image/png;base64,{base64.b64encode(image).decode()}">',
    ]  # fmt: skip
    for sheet in sheets:
        out += [f"<h2>{html.escape(sheet.family)}, {sheet.qubits} qubits: {size_text(sheet.raw)}</h2>", *_table(sheet)]
    if absent:
        out.append(f"<p>Not installed, and so not measured: {html.escape(', '.join(absent))}.</p>")
    return "\n".join([*out, "</body>", "</html>", ""])


def _table(sheet: Sheet) -> list[str]:
    head = "".join(f"<th>{html.escape(name)}</th>" for name in ("", *COLUMNS))
    out = ["<table>", f"<tr>{head}</tr>"]
    for cost in sheet.costs:
        row = [f"<td>{html.escape(cost.way)}</td>"]
        for name, cell in zip(COLUMNS, cells(cost, sheet.raw), strict=True):
            spread = cost.spread(name)
            more = "" if spread is None else f"<br><span>{time_text(spread[0])} – {time_text(spread[1])}</span>"
            bad = ' class="bad"' if name == COLUMNS[-1] and cost.flips.get("wrong") else ""
            row.append(f"<td{bad}>{html.escape(cell)}{more}</td>")
        out.append(f"<tr{' class=ours' if cost.ours else ''}>{''.join(row)}</tr>")
    return [*out, "</table>"]


def write(path: str, text: str | bytes) -> None:
    """Write a page or a picture, durably."""
    with DurableFile(path) as sink:
        sink.write(text.encode() if isinstance(text, str) else text)
