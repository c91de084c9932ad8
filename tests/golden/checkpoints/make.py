"""Write the golden folder of checkpoints (``python tests/golden/checkpoints/make.py``), once for each version.

A folder of an old version stays as it is for ever. What is written is the same each time: the clock stands still, and
what is random elsewhere is counted.
"""

import contextlib
import datetime
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

import quantum_memory as qm
from quantum_memory.lifecycle.checkpoint_manager import CheckpointManager

HERE = Path(__file__).parent
WHEN = datetime.datetime(2026, 1, 31, 12, 30, 15, 250000, datetime.UTC)
FIRST, SECOND = "20260131_123015_250000_000001", "20260131_123015_250000_000002"


def contents() -> list[Any]:
    """Return what is saved, one after the other; the second shares an array with the first."""
    ghz = np.zeros(8, np.complex64)
    ghz[[0, -1]] = 0.5, -0.5j
    weights = np.arange(12, dtype=np.float16).reshape(3, 4) / np.float16(8)
    steps = [np.arange(3, dtype=">i4"), {"done": (True, None, -0.0, "ü")}]
    first = {"weights": weights, "state": qm.StateVector(ghz, qubit_order="big"), "steps": steps, "empty": np.zeros(0)}
    return [first, {**first, "steps": [], "flag": np.array([True, False])}]


@contextlib.contextmanager
def still() -> Iterator[None]:
    """Have the clock stand still, names counted, and no release named, for a block."""
    # Ids and packs are counted, and temporary names, which are longer than the former, have numbers of their own.
    counters = {3: itertools.count(1), 16: itertools.count(1), 8: itertools.count()}
    lifecycle = "quantum_memory.lifecycle"
    with (
        mock.patch("secrets.token_hex", lambda n: f"{next(counters[n]):0{2 * n}x}"),
        mock.patch(f"{lifecycle}.repository.folder.now", return_value=WHEN),
        mock.patch(f"{lifecycle}.checkpoints.saving.now", return_value=WHEN),
        mock.patch(f"{lifecycle}.checkpoints.saving.__version__", "0"),
    ):
        yield


def write(path: Path) -> None:
    """Write the folder."""
    first, second = contents()
    with still(), CheckpointManager(path, parameters={"bond_dimension": 4}, signals=False) as manager:
        manager.create_checkpoint(first, "begin", "a first one", progress=1, metrics={"energy": -1.5, "gap": np.nan})
        manager.create_checkpoint(second, progress={"step": 2}, metrics={"energy": -np.inf}, finished=True)
        manager.tag(FIRST, "paper")
        manager.pin(SECOND)


if __name__ == "__main__":
    if not (HERE / "v1").exists():
        write(HERE / "v1")
