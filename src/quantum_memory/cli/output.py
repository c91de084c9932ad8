"""What the verbs write: tables, numbers and progress for people, JSON for programs.

Whatever comes from a file is shown through `plain`, so that nothing in it can steer the terminal.
"""

from __future__ import annotations

import json
import math
import os
import re
import sys
from contextlib import contextmanager
from functools import partial
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from rich.console import Console
    from rich.table import Table

    Advance = Callable[[int], object]

_WORTH_A_BAR = 32 << 20
_PIPED_WIDTH = 120
_LABEL_WIDTH, _BAR_WIDTH = 30, 20


def console(*, quiet: bool = False) -> Console:
    """Return what tables are printed on: standard output, colours only on a terminal, text never taken for markup."""
    from rich.console import Console

    class Output(Console):
        def on_broken_pipe(self) -> None:
            """Let `main.run` end the command, instead of ending it here."""
            raise BrokenPipeError

    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else _PIPED_WIDTH
    return Output(width=width, markup=False, highlight=False, emoji=False, quiet=quiet)


def fact_sheet() -> Table:
    """Return an empty table of two columns: what is said of it, and the value."""
    from rich.table import Table

    sheet = Table.grid(padding=(0, 0, 0, 2), pad_edge=True)
    sheet.add_column(style="dim", no_wrap=True)
    sheet.add_column(overflow="fold")
    return sheet


def column_table(*columns: str, right: tuple[str, ...] = ()) -> Table:
    """Return an empty table with headings; the columns named in `right` hold numbers."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 0, 0, 1), header_style="dim", border_style="dim")
    for name in columns:
        table.add_column(name, justify="right" if name in right else "left", overflow="fold")
    return table


@contextmanager
def progress(label: str, total: int | None, *, unit: str = "bytes") -> Iterator[Advance | None]:
    """Show a bar on standard error while the block runs, and yield what advances it; None when there is no bar.

    Parameters
    ----------
    label
        What is going on.
    total
        How much there is to do; None when it is not known, and then there is no bar, as for less than 32 MiB.
    unit
        "bytes" or "items".
    """
    with bars({label: total}, unit=unit) as (advance,):
        yield advance


@contextmanager
def bars(totals: Mapping[str, int | None], *, unit: str = "bytes") -> Iterator[list[Advance | None]]:
    """Show a bar for each of several things that are done one after another; see `progress`."""
    known = [total for total in totals.values() if total is not None]
    if not sys.stderr.isatty() or len(known) < len(totals) or (unit == "bytes" and max(known) < _WORTH_A_BAR):
        yield [None] * len(totals)
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn, TransferSpeedColumn
    from rich.table import Column

    amount = [DownloadColumn(binary_units=True), TransferSpeedColumn()] if unit == "bytes" else [MofNCompleteColumn()]
    label = Column(no_wrap=True, overflow="ellipsis", max_width=_LABEL_WIDTH)  # a bar fits beside it in 80 columns
    text = TextColumn("{task.description}", markup=False, table_column=label)
    with Progress(text, BarColumn(bar_width=_BAR_WIDTH), *amount, console=Console(stderr=True), transient=True) as bar:
        tasks = [bar.add_task(plain(label), total=total) for label, total in totals.items()]
        yield [partial(bar.advance, task) for task in tasks]


def raw_bytes(path: str, **reading: Any) -> int | None:
    """Return how many bytes checking or loading a file will report; None where only the work itself can tell.

    Raises
    ------
    StorageError
        It is an address that cannot be reached. To find that out takes half a minute, which is enough once.
    """
    import quantum_memory as qm
    from quantum_memory.errors import StorageError
    from quantum_memory.formats.urls import is_url

    try:
        with qm.open(path, **reading) as file:
            return sum(array.nbytes for array in file.arrays.values())
    except qm.QuantumMemoryError as error:
        if is_url(path) and isinstance(error, StorageError):
            raise
        return None  # whatever is wrong with it, the work itself says it


def last_part(path: str) -> str:
    """Return the last part of a path or of an address, with the name of the version, and without where it is."""
    from quantum_memory.formats.urls import is_url

    where = path.partition("?")[0] if is_url(path) else path
    return PurePath(where).name or path


def print_json(value: dict[str, Any]) -> None:
    """Print one JSON object, ASCII only; numbers that JSON does not have are written as text."""
    click.echo(json.dumps(_jsonable(value), indent=2, allow_nan=False))


def _jsonable(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_jsonable(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def plain(value: object) -> str:
    """Return text with every character that does not print written as an escape."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(value))


def size_text(count: float) -> str:
    """Return a number of bytes as people write it: exactly while it is short, then in KiB, MiB, GiB or TiB."""
    if count < 10_000:
        return f"{count:,.0f} B"
    for unit in ("KiB", "MiB", "GiB"):
        count /= 1024
        if count < 1024:
            return f"{count:.3g} {unit}" if count < 1000 else f"{count:.0f} {unit}"
    return f"{count / 1024:,.3g} TiB"


def time_text(seconds: float) -> str:
    """Return a duration with three digits, in the unit that suits it."""
    for factor, unit in ((1e6, "µs"), (1e3, "ms")):
        if seconds * factor < 1000:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds:.3g} s"


def speed_text(count: float, seconds: float) -> str:
    """Return bytes per second, in GB (10^9 bytes) or MB."""
    rate = count / max(seconds, 1e-9)
    return f"{rate / 1e9:.2f} GB/s" if rate >= 1e8 else f"{rate / 1e6:.3g} MB/s"


def short(digest: str, *, full: bool = False) -> str:
    """Return a digest as it is shown: its first twelve digits, or all."""
    return digest if full else digest[:12]


def natural(name: str) -> list[tuple[int, str]]:
    """Return a sort key that puts site/2 before site/10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]
