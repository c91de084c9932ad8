"""What the benchmarks of the compression share: states of the families, and how goals are told."""

from __future__ import annotations

import math
import sys
import time
from typing import TYPE_CHECKING

import quantum_memory as qm
from benchmarks.families import is_density_matrix, state
from benchmarks.harness import Row
from quantum_memory.cli import bench_peers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from numpy.typing import DTypeLike

    Dense = qm.StateVector | qm.DensityMatrix


def states(names: Sequence[str], n: int, dtype: DTypeLike) -> Iterator[tuple[str, Dense]]:
    """Yield a state of each family; say on standard error how long it and what is done with it take."""
    for name in names:
        start = time.perf_counter()
        array = state(name, n, dtype)
        made = time.perf_counter() - start
        if is_density_matrix(name):
            yield name, qm.DensityMatrix(array.reshape(1 << n // 2, -1), qubit_order="little")
        else:
            yield name, qm.StateVector(array, qubit_order="little")
        whole = time.perf_counter() - start
        print(f"  {name}: made in {made:.1f} s, all in {whole:.1f} s", file=sys.stderr, flush=True)


def best_of(others: Mapping[str, int], reals: int) -> str:
    """Return the name of the codec that packs a state into the fewest bytes, and bits per real."""
    best = min(others, key=others.__getitem__, default=None)
    return "" if best is None else f"{8 * others[best] / reals:.4g} {best}"


def gain(others: Mapping[str, int], nbytes: int) -> float:
    """Return how many times shorter than the shortest of others something is; NaN where there are no others."""
    return min(others.values(), default=math.nan) / nbytes


def absent() -> Row:
    """Return which codecs could not be compared with."""
    return Row("codecs of others that are not installed", ", ".join(bench_peers.absent()) or "none", "", True)


def at_least(what: str, values: Mapping[str, float], limit: float, unit: str = "x") -> Row:
    """Return whether each of several values is large enough, and the smallest or those that are too small."""
    missed = {name: value for name, value in values.items() if not value >= limit}
    return Row(what, _told(missed or values, unit, missed, min), f">= {limit:g} {unit}", not missed)


def at_most(what: str, values: Mapping[str, float], limit: float, unit: str) -> Row:
    """Return whether each of several values is small enough, and the largest or those that are too large."""
    missed = {name: value for name, value in values.items() if not value <= limit}
    return Row(what, _told(missed or values, unit, missed, max), f"<= {limit:g} {unit}", not missed)


def _told(values: Mapping[str, float], unit: str, missed: Mapping[str, float], worst: Callable[..., str]) -> str:
    names = list(missed) or [worst(values, key=values.__getitem__)]
    return ", ".join(f"{values[name]:.4g} {unit} ({name})" for name in names)
