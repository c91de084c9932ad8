"""States of each family with a certified fidelity, beside codecs of others with the same infidelity."""

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

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.compression.corpus import Dense
    from quantum_memory.state.arrays import AnyArray

INFIDELITIES = (1e-4, 1e-8)
LOSSY_EFFORTS = ("balanced", "max")
_FIFTY_TIMES = ("product", "hea3c", "quench", "qft_product", "tfim", "rqc4")
_SYMMETRIC = ("qaoa1", "qaoa2", "qaoa3")
_SAVING = 0.68

_ROUND_OFF = 1e-13
"""Of the fidelity of Uhlmann in double precision, for each row of a matrix."""


@dataclass(frozen=True)
class Measured:
    """What was made of a state within an infidelity.

    Attributes
    ----------
    reals
        How many real numbers the state has.
    ours
        By effort.
    true
        The infidelity of what is loaded, computed independently of the certificate.
    doubt
        What that may be wrong by.
    others
        Bytes by codec.
    """

    reals: int
    ours: dict[str, Point]
    true: dict[str, float]
    doubt: float
    others: dict[str, int]


def run(quick: bool) -> list[Row | Table]:
    """Measure in double precision."""
    qubits = 14 if quick else 18
    return [absent(), *report(measure(tuple(FAMILIES), qubits), f"complex128, n = {qubits}")]


def measure(names: Sequence[str], qubits: int) -> dict[tuple[str, float], Measured]:
    """Save a state of each family within each infidelity, load it again, and let others try the same."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "state.qms")
        for name, state in states(names, qubits, np.complex128):
            array = array_of(state)
            for asked in INFIDELITIES:
                points, true = {}, {}
                for effort in LOSSY_EFFORTS:
                    points[effort] = ours(state, path, effort, asked)
                    true[effort] = true_infidelity(array, array_of(_dense(qm.load(path).quantum)))
                doubt = 0.0 if array.ndim == 1 else _ROUND_OFF * len(array)
                others = {codec: one.nbytes for codec, one in bench_peers.lossy(array, asked).items()}
                found[name, asked] = Measured(reals_of(array), points, true, doubt, others)
    return found


def true_infidelity(psi: AnyArray, phi: AnyArray) -> float:
    """Return 1 - F without the certificate: in long double; for density matrices in double, by singular values."""
    if psi.ndim == 2:
        factors = []
        for matrix in (psi, phi):
            values, vectors = np.linalg.eigh(matrix / np.trace(matrix).real)
            factors.append(vectors * np.sqrt(np.maximum(values, 0)))
        singular = np.linalg.svd(factors[0].conj().T @ factors[1], compute_uv=False)
        return float(1 - min(1.0, singular.sum() ** 2))
    x, y = (row.astype(np.clongdouble) for row in (psi, phi))
    e = y - x
    pp, ee, rr = ((row.real**2 + row.imag**2).sum() for row in (x, e, y))
    return float((ee * pp - abs((x.conj() * e).sum()) ** 2) / (pp * rr))


def _dense(state: Any) -> Dense:
    if not isinstance(state, qm.StateVector | qm.DensityMatrix):
        raise TypeError(f"a {type(state).__name__} was loaded")
    return state


def report(found: dict[tuple[str, float], Measured], what: str) -> list[Row | Table]:
    """Return a table for each infidelity, and what was to be reached."""
    items: list[Row | Table] = []
    for asked in INFIDELITIES:
        lines = []
        for name, one in _of(found, asked).items():
            most = one.ours["max"]
            lines.append(
                [
                    name,
                    *(f"{one.ours[effort].bits_per_real:.4g}" for effort in LOSSY_EFFORTS),
                    f"{most.nbytes:,}",
                    str(most.form),
                    f"{most.infidelity:.3g}" if most.infidelity else "every bit",
                    best_of(one.others, one.reals),
                    f"{gain(one.others, most.nbytes):.2f}",
                ]
            )
        columns = ("family", *LOSSY_EFFORTS, "bytes, max", "form, max", "certified 1-F", "best of others", "gain")
        items.append(Table(f"lossy {asked:.0e}", columns, lines))
    return [*items, *_goals(found, what)]


def _goals(found: dict[tuple[str, float], Measured], what: str) -> list[Row]:
    loose, tight = (_of(found, asked) for asked in INFIDELITIES)
    broken = [
        f"{name} at {asked:.0e}, {effort}"
        for (name, asked), one in found.items()
        for effort, point in one.ours.items()
        if not one.true[effort] - one.doubt <= point.infidelity <= asked * (1 + 1e-6)  # 1 - F was asked for as F
    ]
    bits = {name: max(point.bits_per_real for point in one.ours.values()) for name, one in loose.items()}
    gains = {name: gain(one.others, one.ours["max"].nbytes) for name, one in tight.items()}
    return [
        Row(
            f"{what}: true infidelity <= certified <= asked for",
            f"{2 * len(found) - len(broken)} of {2 * len(found)} files" + (f", not {', '.join(broken)}" * bool(broken)),
            "all",
            not broken,
        ),
        at_most(f"{what}, 1-F = 1e-4: {_SAVING:.0%} less than complex128", bits, 64 * (1 - _SAVING), "b/real"),
        at_least(f"{what}, 1-F = 1e-8: smaller than SZ3, ZFP, SPERR: every family", gains, 1),
        at_least(f"{what}, 1-F = 1e-8: the same: {', '.join(_FIFTY_TIMES)}", _some(gains, _FIFTY_TIMES), 50),
        at_least(f"{what}, 1-F = 1e-8: the same: {', '.join(_SYMMETRIC)}", _some(gains, _SYMMETRIC), 1.6),
    ]


def _of(found: dict[tuple[str, float], Measured], asked: float) -> dict[str, Measured]:
    return {name: one for (name, infidelity), one in found.items() if infidelity == asked}


def _some(gains: dict[str, float], names: tuple[str, ...]) -> dict[str, float]:
    return {name: gains[name] for name in names}
