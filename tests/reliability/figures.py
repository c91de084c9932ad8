"""What was tried how often, in how many seconds, and what failed: counted by the tests, held against what has to be.

``make test`` ends with ``python -m tests.reliability.figures``, which fails when a part is missing or too small; with
``--write FILE`` it writes the table into a page.
"""

import argparse
import contextlib
import json
import os
import platform
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from benchmarks.tables import markdown, put

TIMES = int(os.environ.get("QMEM_TIMES", "1"))
"""How many times as much is tried as in each run of the tests."""

_LINES = "QMEM_FIGURES"
"""The variable that names the file to which each test adds its line."""


class Part(NamedTuple):
    """A part of the table.

    Attributes
    ----------
    what
        What is tried.
    unit
        What is counted.
    least
        How many there have to be.
    expected
        What has to come out of it, where that is more than that nothing fails.
    grows
        Whether there are `TIMES` as many in a soak; of other things all are tried in each run.
    """

    what: str
    unit: str
    least: int
    expected: str = "0 lost, 0 torn"
    grows: bool = False

    @property
    def wanted(self) -> int:
        return self.least * TIMES if self.grows else self.least


PARTS = {
    "fails": Part("calls of every operation fail, in turn: once, and for good; seven errors", "failures", 12_000),
    "killed": Part("every operation is killed at every call that changes something", "kills", 2_000),
    "interrupted": Part("calls of every operation are interrupted, in turn, as by Ctrl-C", "interrupts", 2_000,
                        "0 leftovers, 0 held locks"),
    "kills": Part("kill -9 at random instants", "kills", 10_000, grows=True),
    "signals": Part("SIGINT and SIGTERM at random instants", "signals", 200,
                    "0 torn, 0 leftovers, others go on", grows=True),
    "crash states": Part("what a power cut may leave, on the model of a disk", "states", 50_000, grows=True),
    "cuts": Part("real power cuts: ext4, ext4 with writeback, XFS", "cuts", 2_000, grows=True),
    "full": Part("a full disk, at every 4 KiB", "sizes", 700, "the old version whole, the new one once there is room"),
    "writers": Part("8 processes that count together", "commits", 3_400, "exactly as many as were made", grows=True),
    "bits": Part("every bit of golden files is flipped", "flips", 380_000, "all found"),
    "lengths": Part("golden files are cut at every length, or go on after their end", "lengths", 50_000, "all found"),
    "hdf5 bits": Part("bits of HDF5 stores are flipped", "flips", 5_000, "none changes a number, 0 hang"),
    "hostile": Part("hostile files", "files", 480,
                    "our errors, within 2 s and 64 MiB, nothing else touched"),
    "fuzzed": Part("inputs of a fuzzer that mends checksums", "executions", 2_000_000,
                   "0 errors that are not ours", grows=True),
    "cloud commits": Part("4 processes that commit versions of one repository: a folder, object storage", "commits",
                          400, "each there once, 0 lost, 0 torn", grows=True),
    "cloud kills": Part("kill -9 of writers of versions, of workers, of the S3 server", "kills", 120,
                         grows=True),
    "cloud cuts": Part("real power cuts under versions in a folder: ext4, ext4 with writeback, XFS", "cuts", 150,
                        grows=True),
    "cloud flips": Part("objects that a version needs: bits are flipped, they are cut short, or gone", "changes", 800,
                        "an error of ours, or exactly what was saved"),
    "cloud logs": Part("the same of objects that no version needs: Icechunk's logs of transactions", "changes", 30,
                       "nothing that was saved changes"),
    "teeth": Part("variants of the I/O layer that are broken on purpose", "variants", 12, "all caught"),
}  # fmt: skip


@dataclass
class Figure:
    """What one test adds to a part."""

    count: int = 0


@contextlib.contextmanager
def figure(part: str) -> Iterator[Figure]:
    """Count what is tried in a block, for a part of the table."""
    assert part in PARTS
    made, start, failed = Figure(), time.perf_counter(), True
    try:
        yield made
        failed = False
    finally:
        if path := os.environ.get(_LINES):
            line = {
                "part": part,
                "count": made.count,
                "failures": int(failed),
                "seconds": round(time.perf_counter() - start, 3),
                "test": os.environ.get("PYTEST_CURRENT_TEST", "").removesuffix(" (call)"),
            }
            with Path(path).open("a", encoding="utf-8") as lines:  # in one write, which others do not tear
                lines.write(json.dumps(line) + "\n")


def total(lines: Path) -> dict[str, dict[str, float]]:
    """Return the sums of each part."""
    sums = {part: {"count": 0, "failures": 0, "seconds": 0.0} for part in PARTS}
    for line in lines.read_text(encoding="utf-8").splitlines() if lines.exists() else ():
        said = json.loads(line)
        for name in ("count", "failures", "seconds"):
            sums[said["part"]][name] += said[name]
    return sums


def problems(sums: dict[str, dict[str, float]]) -> list[str]:
    """Say which parts are missing, too small, or have failed."""
    found = []
    for name, part in PARTS.items():
        said = sums[name]
        if said["failures"]:
            found.append(f"{name}: {said['failures']:.0f} tests have failed")
        elif said["count"] < part.wanted:
            found.append(f"{name}: {said['count']:,.0f} {part.unit}, and {part.wanted:,} are to be")
    return found


def table(sums: dict[str, dict[str, float]]) -> list[str]:
    """Return the table, as lines of Markdown."""
    rows = [
        (
            part.what,
            f"{sums[name]['count']:,.0f} {part.unit}",
            part.expected,
            f"{sums[name]['failures']:.0f}",
            f"{sums[name]['seconds']:.0f}",
        )
        for name, part in PARTS.items()
    ]
    made = (
        f"Written by the tests on {datetime.now(UTC):%Y-%m-%d}, release {version('quantum-memory')}, "
        f"Python {platform.python_version()}, {os.cpu_count()} cores ({platform.machine()})."
    )
    return ["", made, "", *markdown(("what", "how many", "to come out", "failures", "seconds of one core"), rows)]


def main() -> None:
    """Check the figures, show them, and write them where that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("lines", type=Path, help="the file that the tests have written")
    parser.add_argument("--write", type=Path, help="a page with marks for the table")
    options = parser.parse_args()
    sums = total(options.lines)
    lines = table(sums)
    sys.stdout.write("\n".join(lines) + "\n")
    if options.write:
        text = options.write.read_text(encoding="utf-8")
        options.write.write_text(put(text, "figures" if TIMES == 1 else "soak", lines), encoding="utf-8")
    if found := problems(sums):
        sys.exit("\n".join(["the figures are not what they have to be:", *found]))


if __name__ == "__main__":
    main()
