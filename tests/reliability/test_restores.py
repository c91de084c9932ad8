"""Where a call fails while two folders change places, the old one has its name again, and nothing stands beside it."""

import errno
import itertools

import pytest

from quantum_memory.errors import QuantumMemoryError
from quantum_memory.testing.accidents import done_with
from quantum_memory.testing.faults import FaultyFiles

from ..lifecycle.backups.trees import seen
from .catalogue import CATALOGUE


@pytest.mark.parametrize(
    ("name", "beside"), [("backups: restore over a folder", []), ("backups: restore without exchange", ["rename"])]
)
def test_a_failure_while_folders_change_places_is_taken_back(tmp_path, name, beside):
    """But where that fails itself: then the new one stands beside the old one."""
    operation = CATALOGUE[name](tmp_path)
    old, new, found = operation.there, operation.versions[operation.which], []
    for k in itertools.count():
        operation.again()
        faulty = FaultyFiles(k, errno.EIO, inner=operation.system, at_changes=True)
        try:
            done_with(operation, faulty)
        except QuantumMemoryError:
            both, there = len(list(operation.folder.glob("out*"))) > 1, seen(operation.out)
            assert there == old or (both and there == new), f"call {k} fails: {faulty.failed}"
            found += faulty.failed if both and there == old else []
        if not faulty.failed:
            break
    assert found == beside
    assert k > 20
