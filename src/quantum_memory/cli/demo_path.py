"""The path through PAD space that the demo follows: between built-in anchors, or from a CSV file."""

from __future__ import annotations

import csv
import math
import re
from collections import defaultdict
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from quantum_memory.encoding.trajectory import pad_geodesic
from quantum_memory.errors import InvalidStateError, MissingFileError, StorageError
from quantum_memory.state.pad import ANCHORS, AXES, PAD, PADScale

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

_ANCHORS = ("joy", "surprise", "fear", "anger", "disgust", "sadness")
_STEPS = 8
_COLUMNS = {"pleasure": {"p", "v", "valence"}, "arousal": {"a"}, "dominance": {"d"}}
_ID = re.compile(r"(.+)_(\d+)_\d+")
"""``<document>_<start>_<end>``, as in EmoBank."""


@dataclass(frozen=True)
class PADPath:
    """Points of PAD space in order.

    Parameters
    ----------
    title
        Where they are from.
    scale
        The scale that `values` are on.
    values
        float64, shape (T, 3).
    labels, texts
        What each point is called, and what was said at it, if anything.
    marks
        What to write below a plot, by point.
    notes
        What was decided when it was read, in sentences.
    """

    title: str
    scale: PADScale
    values: NDArray[np.float64]
    labels: tuple[str, ...]
    texts: tuple[str | None, ...]
    marks: Mapping[int, str]
    notes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.values)

    def point(self, index: int) -> PAD:
        """Return one point, bipolar."""
        return PAD.of(self.values[index], self.scale)

    def first(self, limit: int) -> PADPath:
        """Return the path as far as its point number `limit`."""
        if limit >= len(self):
            return self
        cut = {name: getattr(self, name)[:limit] for name in ("values", "labels", "texts")}
        notes = (*self.notes, f"The first {limit} of {len(self)} points are taken (--limit).")
        marks = {at: mark for at, mark in self.marks.items() if at < limit - 1} | {limit - 1: self.labels[limit - 1]}
        return replace(self, **cut, marks=marks, notes=notes)


def anchor_path() -> PADPath:
    """Return the path by straight lines through the six built-in anchors."""
    points, labels, marks = [ANCHORS[_ANCHORS[0]]], [_ANCHORS[0]], {0: _ANCHORS[0]}
    for start, end in pairwise(_ANCHORS):
        points += pad_geodesic(ANCHORS[start], ANCHORS[end], _STEPS)[1:]
        labels += [f"{start} to {end}, {step} of {_STEPS - 1}" for step in range(1, _STEPS - 1)] + [end]
        marks[len(points) - 1] = end
    title = "six built-in anchors, joined by straight lines"
    return PADPath(title, PADScale.BIPOLAR, np.array(points), tuple(labels), (None,) * len(points), marks, ())


def csv_path(path: str, scale: PADScale | None) -> PADPath:
    """Read a path from a CSV file with a header.

    Parameters
    ----------
    path
        The file: columns V (or pleasure, valence, P), A (or arousal) and D (or dominance), in any case and order. Where
        a column ``id`` has the form ``<document>_<start>_<end>``, the longest document is taken, in the order of start.
    scale
        Of the values; None takes the first of [-1, 1], [1, 5] and [1, 9] that holds all of them.

    Raises
    ------
    InvalidStateError
        A column is missing, or a row is bad; it says which line.
    MissingFileError, StorageError
    """
    rows = list(_rows(path))
    if not rows:
        raise InvalidStateError("it has no rows", path=path, next_step="give at least one row below the header")
    chosen, notes = _scale(rows, path) if scale is None else (scale, ())
    for row in rows:
        _check(row, chosen, path)
    kept, title = _longest_document(rows)
    return PADPath(
        title=f"{title} of {Path(path).name}",
        scale=chosen,
        values=np.array([row.values for row in kept]),
        labels=tuple(row.label for row in kept),
        texts=tuple(row.text for row in kept),
        marks={at: kept[at].label for at in (0, len(kept) - 1)},
        notes=notes,
    )


@dataclass(frozen=True)
class _Row:
    line: int
    values: tuple[float, ...]
    label: str
    text: str | None


def _rows(path: str) -> Iterator[_Row]:
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:  # noqa: PTH123 - a name as it was typed
            reader = csv.reader(file, strict=True)
            header = [name.strip().lower() for name in next(reader, [])]
            columns = [_column(axis, header) for axis in AXES]
            for cells in reader:
                if cells:
                    yield _row(cells, reader.line_num, header, columns)
    except InvalidStateError as error:
        raise error.at(path) from None
    except FileNotFoundError:
        raise MissingFileError("there is no such file", path=path, next_step="give --data a CSV file") from None
    except OSError as error:
        raise StorageError.from_os_error(error, "read it", path) from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise InvalidStateError(f"it is not CSV in UTF-8: {error}", path=path, next_step="export it again") from error


def _column(axis: str, header: Sequence[str]) -> int:
    found = [index for index, name in enumerate(header) if name in {axis, *_COLUMNS[axis]}]
    if len(found) != 1:
        raise InvalidStateError(
            f"it has {'no column' if not found else f'{len(found)} columns'} for {axis}",
            next_step="name the columns V, A, D (or pleasure, arousal, dominance) in the first line, each once",
        )
    return found[0]


def _row(cells: Sequence[str], line: int, header: Sequence[str], columns: Sequence[int]) -> _Row:
    if len(cells) != len(header):
        raise InvalidStateError(
            f"line {line} has {len(cells)} columns, the header {len(header)}", next_step="correct that line"
        )
    named = dict(zip(header, cells, strict=True))
    values = tuple(_number(cells[column], axis, line) for axis, column in zip(AXES, columns, strict=True))
    return _Row(line, values, named.get("id") or f"line {line}", named.get("text"))


def _number(cell: str, axis: str, line: int) -> float:
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InvalidStateError(
            f"line {line} has the {axis} {cell!r:.40}, which is not a number", next_step="correct or remove that line"
        )
    return value


def _scale(rows: Sequence[_Row], path: str) -> tuple[PADScale, tuple[str, ...]]:
    """Return the first of [-1, 1], [1, 5] and [1, 9] that holds every value, and the sentence that says so.

    Values within [0, 1] could be on the unit scale too; they are taken for bipolar, as everywhere unless it is said.
    """
    low = min(min(row.values) for row in rows)
    high = max(max(row.values) for row in rows)
    for scale in (PADScale.BIPOLAR, PADScale.LIKERT5, PADScale.LIKERT9):
        least, greatest = scale.bounds[0]  # the same of all three axes
        if least <= low and high <= greatest:
            note = f"The scale {scale.value} [{least:g}, {greatest:g}] is the first that holds every value, "
            return scale, (f"{note}{low:g} to {high:g}; if they are on another one, say so with --scale.",)
    raise InvalidStateError(
        f"no PAD scale holds its values, {low:g} to {high:g}",
        path=path,
        next_step="bring them to [-1, 1], [0, 1], [1, 5] or [1, 9]",
    )


def _check(row: _Row, scale: PADScale, path: str) -> None:
    try:
        scale.check(row.values)
    except InvalidStateError as error:
        raise InvalidStateError(f"line {row.line}: {error.message}", path=path, next_step=error.next_step) from None


def _longest_document(rows: list[_Row]) -> tuple[list[_Row], str]:
    """Return the rows of the longest document in its order, or all rows when ids name no documents."""
    documents: dict[str, list[tuple[int, _Row]]] = defaultdict(list)
    for row in rows:
        if match := _ID.fullmatch(row.label):
            documents[match[1]].append((int(match[2]), row))
    if not documents:
        return rows, f"{len(rows)} rows"
    name, longest = max(documents.items(), key=lambda item: len(item[1]))
    return [row for _, row in sorted(longest, key=lambda item: item[0])], f"document {name}, {len(longest)} rows"
