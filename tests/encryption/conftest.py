import io

import numpy as np
import pytest

import quantum_memory as qm
from quantum_memory.durability import atomic
from quantum_memory.encryption import keys
from quantum_memory.encryption.envelope import Lock
from quantum_memory.encryption.sealed_file import SealingSink


@pytest.fixture(autouse=True)
def _cheap_passphrases(monkeypatch):
    """A passphrase that takes half a second is tested where that is the point."""
    monkeypatch.setattr(keys, "_COST", (1 << 4, 8, 1))


@pytest.fixture(autouse=True)
def _no_key_around(monkeypatch):
    monkeypatch.delenv("QMEM_KEY_FILE", raising=False)
    monkeypatch.delenv("QMEM_PASSPHRASE", raising=False)


@pytest.fixture(autouse=True)
def _not_swept_yet():
    atomic.forget_sweeps()


@pytest.fixture
def key(tmp_path):
    return qm.Key.new_file(tmp_path / "key")


@pytest.fixture
def other_key(tmp_path):
    return qm.Key.new_file(tmp_path / "other-key")


@pytest.fixture
def memory():
    """What would be seen in a file that is not encrypted."""
    amplitudes = np.random.default_rng(0).normal(size=64).view(np.complex128)
    state = qm.StateVector(amplitudes / np.linalg.norm(amplitudes), qubit_order="big")
    return qm.MemoryState(state, {"weights": np.arange(50.0), "mood": "afraid"}, metadata={"who": "somebody"})


def sealed(data, lock):
    """Return bytes in an envelope."""
    sink = io.BytesIO()
    with SealingSink(sink, lock if isinstance(lock, Lock) else Lock.new([lock])) as inside:
        inside.write(data)
    return sink.getvalue()
