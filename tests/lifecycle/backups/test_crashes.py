"""Whatever fails or dies, and wherever: what was acknowledged restores, and what was there before is untouched."""

import contextlib
import errno

import pytest

from quantum_memory.durability import files
from quantum_memory.errors import QuantumMemoryError
from quantum_memory.testing.operations import Unsynced, leftovers, state_of

from ...reliability.operations.backups import RestoreOverFolder, RestoreWithoutExchange
from .trees import seen


def test_an_exchange_that_says_that_it_failed_and_did_not(tmp_path):
    """As an answer that is lost on the way from a server: the old folder is not taken for the new one."""

    class Lying(Unsynced):
        def exchange(self, one, other):
            super().exchange(one, other)
            raise OSError(errno.EIO, "lost")

    restore = RestoreOverFolder(tmp_path)
    with files.using(Lying()), pytest.raises(QuantumMemoryError):
        restore.do()
    assert leftovers(state_of(restore.folder)) == []
    restore.check(done=False)


@pytest.mark.parametrize("failing", [1, 2, 3])
def test_the_old_folder_comes_back_where_there_is_no_exchange(tmp_path, failing):
    class Failing(Unsynced):
        renames = 0

        def exchange(self, one, other):
            raise OSError(errno.ENOSYS, "not here")

        def rename(self, source, target):
            self.renames += source.endswith("out") or target.endswith("out")
            if self.renames == failing and not source.endswith(".qmbk"):
                self.renames += 1
                raise OSError(errno.EIO, "no")
            super().rename(source, target)

    restore = RestoreWithoutExchange(tmp_path)
    with files.using(Failing()), contextlib.suppress(QuantumMemoryError):
        restore.do()
    assert seen(restore.out) in (restore.there, restore.versions[0])
    restore.check(done=False)
