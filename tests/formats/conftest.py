import numpy as np
import pytest

import quantum_memory as qm

FORMATS = [("qms", "none"), ("qms", "lz4"), ("qms", "zlib"), ("qms", "zstd"), ("json", "auto"), ("json.zlib", "auto")]


@pytest.fixture
def small():
    """Five qubits in a GHZ state, with a few plain things around it: every codec shrinks it."""
    amplitudes = np.zeros(32, np.complex128)
    amplitudes[[0, -1]] = 2**-0.5
    tree = {"weights": np.ones((3, 5), np.float32), "step": 7}
    return qm.MemoryState(qm.StateVector(amplitudes, qubit_order="little"), tree, metadata={"run": "a"})
