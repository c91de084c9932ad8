"""Write the golden files (``python tests/golden/make.py``), once for each version of a format.

Files of an old version stay as they are for ever; a change of what is written for these memories needs a new version.
"""

from pathlib import Path

import numpy as np

import quantum_memory as qm

HERE = Path(__file__).parent


def memories() -> dict[str, qm.MemoryState]:
    """Return the memories that the golden files hold, without a random number or a function of the machine's own."""
    ghz = np.zeros(32, np.complex128)
    ghz[[0, -1]] = 0.5, -0.5j
    steps = np.arange(32, dtype=np.float32).view(np.complex64) / np.float32(64)
    chain = [np.array([[[1.0, 0.0], [0.0, 1.0]]]), np.array([[[0.5], [0.0]], [[0.0], [0.5]]])]
    tree = {
        "weights": np.arange(6, dtype=np.float16).reshape(2, 3),
        "scalars": (1, 2**70, -0.0, float("inf"), None, True, b"\0\xff", "ü", np.float32(0.1)),
        7: np.array(["a", "bc"]),
        "big-endian": np.arange(3, dtype=">i4"),
    }
    emotion = {"pad": [0.76, 0.48, 0.35], "recent_emotions": [[0.1, 0.2, 0.3]], "stability": 0.5}
    return {
        "vector": qm.MemoryState(qm.StateVector(ghz, qubit_order="big"), tree, emotion, {"experiment": "golden"}),
        "single": qm.MemoryState(qm.StateVector(steps, qubit_order="little", labels=["a", "b", "c", "d"])),
        "density": qm.MemoryState(qm.DensityMatrix(np.diag([0.5, 0.25, 0.25]), qubit_order="unstated", dims=(3,))),
        "mps": qm.MemoryState(qm.MatrixProductState(chain, log_scale=0.25)),
    }


if __name__ == "__main__":
    for name, memory in memories().items():
        qm.save(memory, HERE / f"{name}.v2.qms", compression="none")
        qm.save(memory, HERE / f"{name}.v2.0.json")
        qm.save(memory, HERE / f"{name}.v2.0.json.zlib")
    for codec in ("zlib", "lz4", "zstd"):
        qm.save(qm.MemoryState(classical=np.zeros(1000)), HERE / f"zeros-{codec}.v2.qms", compression=codec)
