"""Files give the same bits with another NumPy: with the oldest that is supported, which `make test` puts aside."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

import quantum_memory as qm

ROOT = Path(__file__).parents[1]
GOLDEN = ROOT / "tests" / "golden"
OLDEST = Path(sys.prefix) / "oldest-numpy"


def digests() -> dict[str, str]:
    """Return the SHA-256 of the state of every golden file that gives the same bits everywhere."""
    found = {}
    for path in sorted([*GOLDEN.glob("*.qms"), *(GOLDEN / "forms").glob("*.qms")]):
        memory = qm.load(path, verify="full")
        array = getattr(memory.quantum, "amplitudes", getattr(memory.quantum, "matrix", None))
        if array is not None and not path.name.startswith(("mps.", "low_rank_density.")):
            found[path.name] = hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
    return found


def test_golden_files_give_the_same_bits_with_the_oldest_numpy() -> None:
    assert (OLDEST / "numpy").is_dir(), "it is not there: make test"
    code = "import json, numpy, tests.test_other_numpy as t; print(json.dumps([numpy.__version__, t.digests()]))"
    paths = os.pathsep.join([str(OLDEST), str(ROOT)])
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, check=True
    )
    version, found = json.loads(done.stdout)
    assert version != np.__version__
    assert len(found) > 10
    assert found == digests()
