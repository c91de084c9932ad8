"""Write the golden files (``python tests/golden/make.py``), once for each version of a format.

Files of an old version stay as they are for ever; a change of what is written for these memories needs a new version.
So only files that are not there are written.
"""

import datetime
import json
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

import quantum_memory as qm

HERE = Path(__file__).parent
FORMS, MIGRATIONS = HERE / "forms", HERE / "migrations"
SUFFIXES = ("v2.qms", "v2.0.h5", "v2.0.json", "v2.0.json.zlib", "v2.0.msgpack", "v2.0.npz", "v2.0.pkl", "v2.0.b64")
CODECS = ("zlib", "lz4", "zstd", "pcodec")
WHEN = datetime.datetime(2026, 1, 31, 12, tzinfo=datetime.UTC)


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
    bell = np.array([[0, 0, 1, 0, 0], [0, 1, 0, 0, 1], [1, 1, 0, 0, 1], [0, 0, 1, 1, 0]], bool)
    lowering = np.array([[0, 1, 0], [0, 0, 0.5j], [-0.25, 0, 0]])
    observables = {"lowering": qm.Operator(lowering, qubit_order="big", dims=(3,), labels=["mode"])}
    emotion = {"pad": [0.76, 0.48, 0.35], "recent_emotions": [[0.1, 0.2, 0.3]], "stability": 0.5}
    return {
        "vector": qm.MemoryState(qm.StateVector(ghz, qubit_order="big"), tree, emotion, {"experiment": "golden"}),
        "single": qm.MemoryState(qm.StateVector(steps, qubit_order="little", labels=["a", "b", "c", "d"])),
        "density": qm.MemoryState(qm.DensityMatrix(np.diag([0.5, 0.25, 0.25]), qubit_order="unstated", dims=(3,))),
        "mps": qm.MemoryState(qm.MatrixProductState(chain, log_scale=0.25)),
        "tableau": qm.MemoryState(qm.StabilizerState(bell, labels=["a", "b"]), observables),
    }


def states() -> dict[str, tuple[qm.StateVector | qm.DensityMatrix, dict]]:
    """Return a state for each form, which is best at it, and how it is saved; the same bits on every machine.

    Integers are multiplied and added, which is exact, and divided once.
    """
    state = 20260131

    def whole(*shape: int, most: int = 1 << 20) -> np.ndarray:
        """Return integers from -most to most, by the linear congruences of Knuth's MMIX."""
        nonlocal state
        made = np.empty(math.prod(shape))
        for index in range(len(made)):
            state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
            made[index] = (state >> 32) % (2 * most + 1) - most
        return made.reshape(shape)

    def gaussian(count: int) -> np.ndarray:
        return whole(12, count).sum(axis=0)

    def vector(numbers: np.ndarray) -> qm.StateVector:
        norm = math.sqrt(math.fsum((numbers * numbers).tolist()))
        return qm.StateVector((numbers / norm).view(np.complex128), qubit_order="big")

    def density(real: np.ndarray, imaginary: np.ndarray) -> qm.DensityMatrix:
        rho = np.empty((*real.shape, 2))
        rho[..., 0], rho[..., 1] = real, imaginary
        return qm.DensityMatrix((rho / real.trace()).view(np.complex128)[..., 0], qubit_order="big")

    ghz = np.zeros(2 * 2**8)
    ghz[[0, -2]] = 1, -1
    sparse = np.zeros(2 * 2**11)
    sparse[whole(50, most=2**11 - 1).astype(int)] = gaussian(50)  # some of them counted from the end
    mirrored = gaussian(2 * 2**7).reshape(-1, 2)
    few = np.array([-0.3, 0.75, 1.0])[whole(2 * 2**9, most=1).astype(int) + 1]
    rows = whole(3, 64, most=1000)
    rank = np.stack([whole(64, 3, most=1000) @ rows, whole(64, 3, most=1000) @ rows], axis=-1).reshape(-1)
    chain = np.ones((1, 1))
    for _ in range(11):
        chain = np.einsum("al,lpr->apr", chain, whole(chain.shape[1], 2, 2, most=3)).reshape(-1, 2)
    bits = chain[:, 0]
    hermitian = whole(16, 16), whole(16, 16)
    pure = whole(16, 2, most=1000), whole(16, 2, most=1000)
    mixed = pure[0] @ pure[0].T + pure[1] @ pure[1].T, pure[1] @ pure[0].T - pure[0] @ pure[1].T
    rough = {"fidelity": 0.99}
    return {
        "stabilizer": (vector(ghz), {}),
        "sparse": (vector(sparse), {}),
        "dictionary": (vector(few), {}),
        "flip_fold": (vector(np.concatenate([mirrored, mirrored[::-1]]).reshape(-1)), {}),
        "hermitian_fold": (density(hermitian[0] + hermitian[0].T, hermitian[1] - hermitian[1].T), {}),
        "low_rank": (vector(rank), {"effort": "max"}),
        "numbers": (vector(gaussian(2 * 2**8)), {"effort": "max"}),
        "uniform": (vector(gaussian(2 * 2**9)), rough),
        "trellis": (vector(gaussian(2 * 2**9)), {**rough, "effort": "max"}),
        "natural_basis": (vector(np.concatenate([mirrored, -mirrored[::-1]]).reshape(-1)), {**rough, "effort": "max"}),
        "mps": (vector(np.column_stack([bits, np.zeros(len(bits))]).reshape(-1)), {"fidelity": 0.9999}),
        "low_rank_density": (density(*mixed), {"fidelity": 0.9999}),
    }


def migrations() -> dict[str, tuple[dict, str]]:
    """Return a document for each step, and the version that it is brought to."""
    noise = {"depolarizing_rate": 0.01, "dephasing_rate": 0.02, "measurement_error": 0.005, "thermal_factor": 0.001}
    config = {"n_qubits": 2, "device": "cpu", "error_mitigation": True, "noise_model": noise, "calibrated": None}
    points = [[0.5, 0.25, 0.75], [-0.5, 0.5, 0.5], *([[k / 16, 1.0, 0.0] for k in range(10)])]
    cache = [
        {
            "state": {
                "pad_values": point,
                "confidence": 0.25 + k / 64,
                "timestamp": f"2025-06-30T12:34:{k:02}",
                "metadata": {"shots": 8, "seed": 7} if k else {},
                "measurement_fidelity": 1 - k / 128,
            },
            "measurements": {"11": 5, "00": 3},
        }
        for k, point in enumerate(points)
    ]
    both = {"interface_config": config, "measurement_cache": cache, "classical_network_state": {"0.bias": [0.5, -0.0]}}
    old = {**both, "version": "1.0", "notes": "keep me", "metadata": {"owner": "me"}, "a/b~c": [None, {}, []]}
    new = {
        "metadata": {
            "version": "2.0",
            "timestamp": "2025-06-30T12:34:56.789012",
            "save_timestamp_unix": 1751279696.789012,
            "quantum_state_checksum": None,
            "n_measurements_cached": len(cache),
            "device": "cpu",
            "cuda_available": False,
            "migration_info": {"migrated_from": "1.0", "migration_date": "2025-06-30T12:34:56.789012"},
        },
        "compression_metrics": {"original_size_bytes": 64, "compressed_size_bytes": 48, "compression_ratio": 0.25},
        "fidelity_metrics": {
            "measurement_fidelities": [item["state"]["measurement_fidelity"] for item in cache[-10:]],
            "average_fidelity": 0.95703125,
            "min_fidelity": 0.9140625,
            "max_fidelity": 0.99,
        },
        "emotional_context": {
            "recent_emotions": [
                {key: item["state"][key] for key in ("pad_values", "timestamp", "confidence")} for item in cache[-10:]
            ],
            "average_confidence": 0.3515625,
            "emotional_stability": 0.0,
        },
        **both,
        "tensor_memory_stats": {"total_memories": 0, "average_importance": 0, "capacity_usage": 0},
        "unrecognised": {"notes": "keep me", "interface_config": "taken"},
        "of others": 1,
    }
    return {"1.0-to-2.0": (old, "2.0"), "2.0-to-1.0": (new, "1.0")}


def write(path: Path, save: Callable[[Path], object]) -> None:
    """Write a file that is not there."""
    path.parent.mkdir(exist_ok=True)
    if not path.exists():
        save(path)


def write_json(path: Path, document: dict) -> None:
    """Write a document that is not there."""
    write(path, lambda path: path.write_text(json.dumps(document, indent=1) + "\n"))


if __name__ == "__main__":
    for name, memory in memories().items():
        for suffix in SUFFIXES:
            options = {"compression": "none"} if suffix == "v2.qms" else {}
            write(HERE / f"{name}.{suffix}", partial(qm.save, memory, **options))
    for codec in CODECS:
        zeros = qm.MemoryState(classical=np.zeros(1000))
        write(HERE / f"zeros-{codec}.v2.qms", partial(qm.save, zeros, compression=codec))
    for name, (state, options) in states().items():
        write(FORMS / f"{name}.v2.qms", partial(qm.save, state, **options))
    for name, options in {"stabilizer": {"effort": "fast"}, "mps": {"fidelity": 0.9999}}.items():
        for suffix in SUFFIXES[1:]:
            write(FORMS / f"{name}.{suffix}", partial(qm.save, states()[name][0], **options))
    for name, (document, target) in migrations().items():
        write_json(MIGRATIONS / f"{name}.input.json", document)
        write_json(MIGRATIONS / f"{name}.output.json", qm.VersionManager().migrate(document, target, when=WHEN))
