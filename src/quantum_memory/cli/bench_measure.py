"""What it costs to keep a state, without loss and at several fidelities: by ours, by codecs of others, by a cast."""

from __future__ import annotations

import math
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import quantum_memory as qm
from quantum_memory.cli import bench_peers
from quantum_memory.compression.forms.base import EFFORTS

if TYPE_CHECKING:
    from collections.abc import Callable

    from quantum_memory.state.arrays import AnyArray
    from quantum_memory.state.quantum_state import DensityMatrix, StateVector


@dataclass(frozen=True)
class Point:
    """A state in one form.

    Attributes
    ----------
    method
        The effort, the name of a codec, or the type that it is cast to.
    kind
        "ours", "peer" or "cast".
    requested
        The infidelity that was asked for: 0 for every bit, None for a cast, which has the one that it has.
    infidelity
        1 - F: of ours as it is certified, of the others as it is measured.
    nbytes
        Of ours the whole file, of others their stream alone.
    form
        Of ours: the representation.
    """

    method: str
    kind: str
    requested: float | None
    infidelity: float
    nbytes: int
    bits_per_real: float
    form: str | None = None


@dataclass(frozen=True)
class Report:
    """All that was measured of a state."""

    name: str
    dtype: str
    reals: int
    points: list[Point]

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values."""
        return asdict(self)


def shannon(infidelity: float) -> float:
    """Return the bits per real that a general state needs at least."""
    return 0.5 * math.log2(1 / infidelity)


def array_of(state: StateVector | DensityMatrix) -> AnyArray:
    """Return the elements of a dense state."""
    return state.amplitudes if isinstance(state, qm.StateVector) else state.matrix


def reals_of(array: AnyArray) -> int:
    """Return how many real numbers an array holds."""
    return array.nbytes // array.real.itemsize


def ours(state: StateVector | DensityMatrix, path: Path, effort: str, infidelity: float = 0.0) -> Point:
    """Save a state, and return what became of it.

    Parameters
    ----------
    path
        The file, which is replaced.
    infidelity
        What is asked for, 0 for every bit.
    """
    fidelity = 1 - infidelity if infidelity else None
    saved = qm.save(state, path, effort=effort, durable=False, fidelity=fidelity)
    facts = qm.info(path)["compression"]
    certified = facts.get("certificate", {"infidelity": 0.0})["infidelity"]
    bits = 8 * saved.bytes / reals_of(array_of(state))
    return Point(effort, "ours", infidelity, certified, saved.bytes, bits, facts["representation"])


def measure(
    name: str,
    state: StateVector | DensityMatrix,
    infidelities: tuple[float, ...],
    step: Callable[[int], object] | None = None,
) -> Report:
    """Measure everything.

    Parameters
    ----------
    infidelities
        Those to be asked for, besides every bit.
    step
        Called with 1 after each of them, and after what is without loss.
    """
    array = array_of(state)
    reals = reals_of(array)
    points = []
    with tempfile.TemporaryDirectory() as folder:
        for asked in (0.0, *infidelities):
            points += [ours(state, Path(folder, "state.qms"), effort, asked) for effort in EFFORTS]
            others = (
                bench_peers.lossy(array, asked)
                if asked
                else {one: bench_peers.Coded(nbytes, 0.0) for one, nbytes in bench_peers.lossless(array).items()}
            )
            points += [_other(one, "peer", asked, coded, reals) for one, coded in others.items()]
            if step is not None:
                step(1)
    points += [_other(one, "cast", None, made, reals) for one, made in bench_peers.casts(array).items()]
    return Report(name, array.dtype.name, reals, points)


def _other(name: str, kind: str, asked: float | None, coded: bench_peers.Coded, reals: int) -> Point:
    return Point(name, kind, asked, coded.infidelity, coded.nbytes, 8 * coded.nbytes / reals)
