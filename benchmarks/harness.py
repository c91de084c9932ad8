"""Interleaved rounds, medians, and peak memory of a child process."""

from __future__ import annotations

import gc
import json
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from quantum_memory.cli.bench_memory import peak, reset_peak

__all__ = ["Row", "extra_memory", "medians", "peak", "repeated", "reset_peak", "rounds"]

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


@dataclass(frozen=True)
class Row:
    """One line of the table: what was measured, and what was to be reached."""

    what: str
    measured: str
    reach: str
    holds: bool


def rounds(
    cases: Mapping[str, Callable[[], object]], count: int, before: Mapping[str, Callable[[], object]] | None = None
) -> dict[str, list[float]]:
    """Run every case once per round, in turn, and return the seconds of each.

    What is to be done `before` a case, such as removing the file that it makes, is not counted.

    Interleaving lets a slow phase of the machine fall on all cases alike, so that ratios of medians mean something
    where times alone do not. The first round warms up and is not counted.
    """
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for turn in range(count + 1):
        for name, run in cases.items():
            gc.collect()
            if before and name in before:
                before[name]()
            start = time.perf_counter()
            run()
            if turn:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def medians(seconds: Mapping[str, list[float]]) -> dict[str, float]:
    """Return the median of each case."""
    return {name: statistics.median(values) for name, values in seconds.items()}


def repeated(run: Callable[[], object], times: int) -> Callable[[], None]:
    """Return a case that runs something short many times."""

    def case() -> None:
        for _ in range(times):
            run()

    return case


def extra_memory(code: str) -> int:
    """Return by how many bytes a child process's peak memory grows while it runs `code` after ``setup()`` in it.

    Parameters
    ----------
    code
        Python text that defines ``setup()`` and ``work(prepared)``.
    """
    child = f"""{code}
import benchmarks.harness as h
prepared = setup()
before = h.reset_peak()
work(prepared)
print(h.peak() - before)
"""
    done = subprocess.run([sys.executable, "-c", child], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return int(json.loads(done.stdout.split()[-1]))
