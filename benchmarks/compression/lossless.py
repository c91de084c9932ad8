"""Every bit of a state of each family: our files at each effort, beside codecs of others."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import quantum_memory as qm
from benchmarks.compression.corpus import absent, at_least, at_most, best_of, gain, states
from benchmarks.families import FAMILIES
from benchmarks.harness import Row
from benchmarks.tables import Table
from quantum_memory.cli import bench_peers
from quantum_memory.cli.bench_measure import Point, array_of, ours, reals_of
from quantum_memory.compression.forms.base import EFFORTS

if TYPE_CHECKING:
    from collections.abc import Sequence

_RIVALS = ("zstd", "blosc2", "pcodec", "OpenZL")
"""Those that the goals name; the table has the best of all."""

_FEW_BYTES = ("ghz", "w", "uniform", "grover", "graph", "clifford")
_SIX_TIMES = ("product", "hea3c", "rqc4", "rqc8", "mps16")
_THREE_TIMES = ("quench", "mps64", "qft_product")
_ENTROPY = {"complex128": 55.6, "complex64": 26.7}
"""Bits per real that a general state may take: what its exponents cannot save is as good as random."""


@dataclass(frozen=True)
class Measured:
    """What was made of a state: by ours at each effort, and by others in bytes."""

    raw: int
    reals: int
    ours: dict[str, Point]
    others: dict[str, int]
    exact: bool


def run(quick: bool) -> list[Row | Table]:
    """Measure in double and in single precision."""
    items: list[Row | Table] = [absent()]
    for dtype in (np.dtype(np.complex128), np.dtype(np.complex64)):
        qubits = 14 if quick else 20
        items += report(measure(tuple(FAMILIES), qubits, dtype), f"{dtype}, n = {qubits}", dtype)
    return items


def measure(names: Sequence[str], qubits: int, dtype: np.dtype[Any]) -> dict[str, Measured]:
    """Save a state of each family at each effort, load it again, and let others pack it."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "state.qms")
        for name, state in states(names, qubits, dtype):
            points, exact = dict[str, Point](), True
            for effort in EFFORTS:
                points[effort] = ours(state, path, effort)
                exact &= qm.load(path).quantum == state
            array = array_of(state)
            found[name] = Measured(array.nbytes, reals_of(array), points, bench_peers.lossless(array), exact)
    return found


def report(found: dict[str, Measured], what: str, dtype: np.dtype[Any]) -> list[Row | Table]:
    """Return the table, and what was to be reached."""
    lines = []
    for name, one in found.items():
        lines.append(
            [
                name,
                *(f"{one.ours[effort].bits_per_real:.4g}" for effort in EFFORTS),
                f"{one.ours['max'].nbytes:,}",
                str(one.ours["max"].form),
                best_of(one.others, one.reals),
                f"{gain(one.others, one.ours['max'].nbytes):.2f}",
            ]
        )
    columns = ("family", *EFFORTS, "bytes, max", "form, max", "best of others", "gain")
    haar = {effort: one.bits_per_real for effort, one in found["haar"].ours.items() if effort != "fast"}
    beyond = {
        f"{name}, {effort}": point.nbytes - one.raw for name, one in found.items() for effort, point in one.ours.items()
    }
    rows = [
        Row(
            f"{what}: files that give back every bit",
            f"{sum(one.exact for one in found.values())} of {len(found)} families",
            "all",
            all(one.exact for one in found.values()),
        ),
        at_most(f"{what}: a Haar state", haar, _ENTROPY[dtype.name], "b/real"),
        at_most(f"{what}: longer than the amplitudes as they are", beyond, 4096, "bytes"),
        at_most(
            f"{what}: {', '.join(_FEW_BYTES)}",
            {f"{name}, {effort}": found[name].ours[effort].nbytes for name in _FEW_BYTES for effort in EFFORTS},
            1024,
            "bytes",
        ),
    ]
    if dtype == np.complex128:
        for names, least in ((_SIX_TIMES, 6), (_THREE_TIMES, 3)):
            gains = {name: gain(_rivals(found[name]), found[name].ours["max"].nbytes) for name in names}
            rows.append(at_least(f"{what}: smaller than {', '.join(_RIVALS)}: {', '.join(names)}", gains, least))
    return [Table(f"lossless {dtype}", columns, lines), *rows]


def _rivals(one: Measured) -> dict[str, int]:
    return {name: one.others[name] for name in _RIVALS if name in one.others}
