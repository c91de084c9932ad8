"""Tables in Markdown, between marks in a file that are named after them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


@dataclass(frozen=True)
class Table:
    """A table of many columns, which a benchmark returns beside its rows.

    Attributes
    ----------
    mark
        Which marks it belongs between.
    columns
        The headings.
    lines
        The cells of each line.
    """

    mark: str
    columns: Sequence[str]
    lines: Sequence[Sequence[str]]


def markdown(columns: Sequence[str], lines: Iterable[Sequence[str]]) -> list[str]:
    """Return a table as lines of text."""
    head, *body = (f"| {' | '.join(cells)} |" for cells in (columns, *lines))
    return [head, f"|{'---|' * len(columns)}", *body]


def has_marks(text: str, mark: str) -> bool:
    """Tell whether there is a place for a table."""
    return _begin(mark) in text


def put(text: str, mark: str, lines: Sequence[str]) -> str:
    """Return a text with what stands between two marks replaced."""
    begin, end = text.index(_begin(mark)) + len(_begin(mark)), text.index(f"<!-- {mark}: end -->")
    return "\n".join([text[:begin], *lines, text[end:]])


def _begin(mark: str) -> str:
    return f"<!-- {mark}: begin -->"
