"""A path through PAD space as curves over its points: in the terminal, or as a PNG file."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np

from quantum_memory.durability.atomic import DurableFile
from quantum_memory.errors import InvalidStateError, MissingError
from quantum_memory.state.pad import AXES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from matplotlib.figure import Figure
    from numpy.typing import NDArray
    from rich.text import Text

COLOURS = {"pleasure": "yellow", "arousal": "red", "dominance": "cyan"}
_PNG_COLOURS = {"pleasure": "tab:orange", "arousal": "tab:red", "dominance": "tab:blue"}

_DOTS = np.array([[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]])
"""Bits of the dots of a braille character, by row and column (Unicode block U+2800)."""

_SAMPLES = 8  # per column of dots, and more where points are closer, so that neighbouring columns join


def braille(values: NDArray[np.float64], width: int, height: int, low: float, high: float) -> list[str]:
    """Draw a curve as `height` lines of `width` braille characters, each of 2 × 4 dots.

    Parameters
    ----------
    values
        The curve at equally spaced points, shape (T,), T >= 1, from `low` (bottom) to `high` (top).
    """
    columns, rows = 2 * width, 4 * height
    fine = _SAMPLES * -(-len(values) // columns)
    places = np.linspace(0, len(values) - 1, columns * fine)
    levels = np.interp(places, np.arange(len(values)), values).reshape(columns, fine)
    row = np.rint((high - levels) / (high - low) * (rows - 1)).astype(int).clip(0, rows - 1)
    inside = np.arange(rows)[:, None]
    dots = (row.min(axis=1) <= inside) & (inside <= row.max(axis=1))
    cells = (dots.reshape(height, 4, width, 2) * _DOTS[None, :, None, :]).sum(axis=(1, 3))
    return ["".join(chr(0x2800 + cell) for cell in line) for line in cells.tolist()]


def check_matplotlib() -> None:
    """Say what to install where a picture cannot be drawn.

    Raises
    ------
    MissingError
    """
    try:
        import matplotlib  # noqa: F401 - whether it can be
    except ImportError:
        raise MissingError(
            "a picture needs matplotlib, which is not installed", next_step="pip install 'quantum-memory[plot]'"
        ) from None


def check_png(path: str) -> None:
    """Refuse, before anything takes time, what cannot be drawn.

    Raises
    ------
    MissingError
        matplotlib is not installed.
    InvalidStateError
        The name is not one of a PNG file.
    """
    if not path.lower().endswith(".png"):
        raise InvalidStateError("the plot is a PNG file", path=path, next_step="end its name with .png")
    check_matplotlib()


def save_figure(figure: Figure, path: str) -> None:
    """Save a figure as a PNG file, durably."""
    image = io.BytesIO()
    figure.savefig(image, format="png")
    with DurableFile(path) as sink:
        sink.write(image.getbuffer())


def draw(values: NDArray[np.float64], marks: Mapping[int, str], *, width: int, height: int = 4) -> Text:
    """Draw the three curves of a path one below the other, which needs no colours to be told apart.

    They share one range, from the least to the greatest value of the three.

    Parameters
    ----------
    values
        Shape (T, 3).
    marks
        What to write below the curves, by the point where it starts; what finds no room is left out.
    width, height
        Characters of the whole, and lines of each curve.
    """
    from rich.text import Text

    margin = 19
    inner = max(10, width - margin)
    text = Text(no_wrap=True)
    low, high = float(values.min()), float(values.max())
    if low == high:
        low, high = low - 1, high + 1
    for axis, name in enumerate(AXES):
        for number, line in enumerate(braille(values[:, axis], inner, height, low, high)):
            tick = {0: f"{high:+.2f}", height - 1: f"{low:+.2f}"}.get(number, "")
            text.append(f"  {name if number == 0 else '':<10}{tick:>5} ", style="dim")
            text.append("│", style="dim").append(line, style=COLOURS[name]).append("\n")
    text.append(" " * (margin - 1) + _below(marks, len(values), inner), style="dim")
    return text


def _below(marks: Mapping[int, str], points: int, width: int) -> str:
    line = ""
    for point, mark in sorted(marks.items()):
        column = round(point / max(1, points - 1) * (width - 1))
        column = min(column, width - len(mark))  # the last ones end where the curve ends
        if column >= len(line) + (2 if line else 0):
            line = line.ljust(column) + mark
    return line


def save_png(path: str, values: NDArray[np.float64], marks: Mapping[int, str], *, title: str, scale: str) -> None:
    """Draw the three curves with matplotlib and save them durably.

    Raises
    ------
    MissingError
        matplotlib is not installed.
    """
    check_matplotlib()
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4.2), dpi=150, layout="constrained")
    axes = figure.subplots()
    for axis, name in enumerate(AXES):
        axes.plot(values[:, axis], label=name, color=_PNG_COLOURS[name], linewidth=1.8)
    axes.set_xlim(0, max(1, len(values) - 1))
    axes.set_xticks(list(marks), list(marks.values()), parse_math=False)
    axes.set_ylabel(f"{scale} scale")
    axes.grid(visible=True, alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(title, loc="left", parse_math=False)
    figure.legend(loc="outside lower center", ncols=len(AXES), frameon=False)
    save_figure(figure, path)
