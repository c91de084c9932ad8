"""Run the benchmarks: ``python -m benchmarks [--quick] [--write docs/performance.md] [NAME ...]``.

``python -m benchmarks compression --write docs/compression.md`` runs those of the compression, which take longer; so do
``migration --write docs/migration.md``, ``checkpoints --write docs/checkpoints.md``, ``backups --write docs/backups.md`` and
``scale scale_links scale_model --write docs/scale.md``.
"""

from __future__ import annotations

import argparse
import datetime
import platform
import sys
from importlib import import_module
from pathlib import Path

import numpy as np

from benchmarks.harness import Row
from benchmarks.tables import Table, has_marks, markdown, put
from quantum_memory import __version__
from quantum_memory.state.arrays import worker_count

NAMES = ("pad_memory", "small_states", "large_states", "formats", "startup")
COMPRESSION = ("compression.lossless", "compression.lossy", "compression.rate", "compression.large")
"""Those that run when they are named, alone or as ``compression``, all of them."""

_MARK = "table"
"""Where rows go in a file without marks for the benchmark that they are from."""


def main() -> int:
    """Run them; exit 1 when a figure is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help=f"some of {', '.join(NAMES)}, which is the default, and of {', '.join(COMPRESSION)}; compression for the latter; or migration, checkpoints, backups, scale, scale_links, scale_model",
    )
    parser.add_argument("--quick", action="store_true", help="fewer rounds, smaller states")
    parser.add_argument("--write", type=Path, help="put the tables into this file, between their marks")
    arguments = parser.parse_args()
    found: dict[str, list[Row | Table]] = {}
    for given in arguments.names or NAMES:
        for name in COMPRESSION if given == "compression" else (given,):
            found[name] = []
            for item in import_module(f"benchmarks.{name}").run(arguments.quick):
                found[name].append(item)
                _show(item)
    if arguments.write:
        arguments.write.write_text(written(arguments.write.read_text(), found))
    return 0 if all(item.holds for items in found.values() for item in items if isinstance(item, Row)) else 1


def _show(item: Row | Table) -> None:
    if isinstance(item, Row):
        print(f"{'  ' if item.holds else '! '}{item.what:<100} {item.measured:>16}  {item.reach}", flush=True)
    else:
        print(*markdown(item.columns, item.lines), sep="\n", flush=True)


def written(text: str, found: dict[str, list[Row | Table]]) -> str:
    """Return the text of a file with what stands between its marks replaced by what was found."""
    today = f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}"
    versions = f"Python {platform.python_version()}, NumPy {np.__version__}"
    measured = (
        f"Measured {today} with release {__version__}, {versions}, {worker_count()} cores ({platform.machine()})."
    )
    rows: dict[str, list[Row]] = {}
    for name, items in found.items():
        for item in items:
            if isinstance(item, Table):
                text = put(text, item.mark, [measured, "", *markdown(item.columns, item.lines)])
            else:
                rows.setdefault(name if has_marks(text, name) else _MARK, []).append(item)
    for mark, some in rows.items():
        lines = [
            (r.what, r.measured, r.reach, "" if not r.reach else "holds" if r.holds else "**missed**") for r in some
        ]
        text = put(text, mark, [measured, "", *markdown(("what", "measured", "to reach", ""), lines)])
    return text


if __name__ == "__main__":
    sys.exit(main())
