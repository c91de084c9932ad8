"""Run the benchmarks: ``python -m benchmarks [--quick] [--write docs/performance.md] [NAME ...]``."""

from __future__ import annotations

import argparse
import datetime
import platform
import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from quantum_memory import __version__
from quantum_memory.state.arrays import worker_count

if TYPE_CHECKING:
    from benchmarks.harness import Row

NAMES = ("pad_memory", "small_states", "large_states", "formats", "startup")
_BEGIN, _END = "<!-- table: begin -->", "<!-- table: end -->"


def main() -> int:
    """Run them; exit 1 when a figure is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"some of {', '.join(NAMES)}; all by default")
    parser.add_argument("--quick", action="store_true", help="fewer rounds, smaller states")
    parser.add_argument("--write", type=Path, help="put the table into this file, between its two marks")
    arguments = parser.parse_args()
    rows: list[Row] = []
    for name in arguments.names or NAMES:
        for row in import_module(f"benchmarks.{name}").run(arguments.quick):
            rows.append(row)
            print(f"{'  ' if row.holds else '! '}{row.what:<100} {row.measured:>16}  {row.reach}", flush=True)
    if arguments.write:
        _put(arguments.write, rows)
    return 0 if all(row.holds for row in rows) else 1


def _put(path: Path, rows: list[Row]) -> None:
    """Replace what stands between the marks of a file by the table."""
    text = path.read_text()
    begin, end = text.index(_BEGIN) + len(_BEGIN), text.index(_END)
    today = f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}"
    versions = f"Python {platform.python_version()}, NumPy {np.__version__}"
    lines = [
        "",
        f"Measured {today} with release {__version__}, {versions}, {worker_count()} cores ({platform.machine()}).",
        "",
        "| what | measured | to reach | |",
        "|---|---|---|---|",
        *(
            f"| {r.what} | {r.measured} | {r.reach} | {'' if not r.reach else 'holds' if r.holds else '**missed**'} |"
            for r in rows
        ),
        "",
    ]
    path.write_text(text[:begin] + "\n".join(lines) + text[end:])


if __name__ == "__main__":
    sys.exit(main())
