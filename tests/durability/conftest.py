from pathlib import Path

import numpy as np
import pytest

import quantum_memory as qm
from quantum_memory.durability import atomic

SUFFIXES = ["qms", "json", "json.zlib"]


@pytest.fixture
def old():
    return qm.MemoryState(qm.StateVector(np.array([1, 0], np.complex128), qubit_order="big"), metadata={"which": "old"})


@pytest.fixture
def new():
    rng = np.random.default_rng(1)
    tree = {"weights": rng.normal(size=50), "name": "new"}
    return qm.MemoryState(qm.StateVector(rng.normal(size=64).view(np.complex128), qubit_order="little"), tree)


@pytest.fixture(autouse=True)
def _not_swept_yet():
    """Every test is a new process, as far as the sweep of leftovers is concerned."""
    atomic.forget_sweeps()
    yield
    atomic.forget_sweeps()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def leftovers(folder: Path) -> list[str]:
    return [name for name in names(folder) if name.endswith(".qmtmp")]
