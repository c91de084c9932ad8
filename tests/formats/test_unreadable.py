"""A disk that cannot be read is said to be that, and not a damaged file, whatever reads it."""

import contextlib
import errno
import shutil
from pathlib import Path

import numpy as np
import pytest

import quantum_memory as qm
from quantum_memory.durability import files
from quantum_memory.errors import StorageError
from quantum_memory.testing.faults import FaultyFiles

LEGACY = Path(__file__).parents[1] / "data" / "legacy"


class Unreadable(FaultyFiles):
    """Fails at the k-th read, and at every later one."""

    def is_next(self, name):
        return name == "read_into" and super().is_next(name)


def loaded_or_unreadable(path, **options):
    """Fail every read in turn, and return how many there are."""
    k = 0
    while True:
        faulty = Unreadable(k, errno.EIO, sticky=True)
        with files.using(faulty), contextlib.suppress(StorageError):
            qm.load(path, **options)
            assert not faulty.failed
        if not faulty.failed:
            return k
        k += 1


@pytest.mark.parametrize("name", ["json_v1/v1_n3_mps.json", "npz_simple/simple_n3.npz", "qms/q_n3_none.qms"])
def test_of_the_first_implementation(tmp_path, name):
    for path in (LEGACY / name).parent.glob(f"{Path(name).stem}*"):
        shutil.copyfile(path, tmp_path / path.name)
    assert loaded_or_unreadable(tmp_path / Path(name).name) > 1


@pytest.mark.parametrize("suffix", ["qms", "json", "json.zlib", "msgpack", "npz", "pkl", "b64"])
def test_of_this_version(tmp_path, suffix):
    path = tmp_path / f"state.{suffix}"
    qm.save(qm.MemoryState(np.array([0.6, 0.8j]), {"weights": np.arange(4000)}), path)
    assert loaded_or_unreadable(path, allow_pickle=True) > 1
