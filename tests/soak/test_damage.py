"""A bit of every byte of an HDF5 store."""

import pytest

import quantum_memory as qm

from ..formats.test_hdf5 import flip_bytes

pytestmark = pytest.mark.soak


def test_any_flipped_byte_is_found_or_changes_nothing(tmp_path):
    path = tmp_path / "store.h5"
    print(f"\n{flip_bytes(qm.HDF5QuantumStorage(path), path, step=1)} bytes, 0 undetected")
