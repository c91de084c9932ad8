"""What is expected of a migration after a power cut, and real cuts of one."""

from quantum_memory.durability.files import RealFiles
from quantum_memory.testing.faults import PassingFiles, in_child, killed_at
from quantum_memory.testing.power_cuts import PowerCutFiles

from ..loop_disk import CuttingFiles
from .batches import UNCHANGING, AtChanges, Batch, work_with


class Apply:
    """What is to be seen after a cut of `apply`."""

    def __init__(self, batch):
        self.batch, self.do = batch, batch.apply

    def check_cut(self):
        self.batch.check_old_or_new()

    def go_on(self, *, anew):
        if anew:
            self.batch.apply()
            self.batch.check_new()
        self.batch.roll_back()
        self.batch.check_taken_back()

    def check_done(self):
        self.batch.check_new()


class RollBack(Apply):
    """What is to be seen after a cut of `rollback`."""

    def __init__(self, batch):
        super().__init__(batch)
        batch.apply()
        batch.keep()
        self.do = batch.roll_back

    def check_done(self):
        self.batch.check_taken_back()


class Commit(Apply):
    """What is to be seen after a cut of `commit`."""

    def __init__(self, batch):
        super().__init__(batch)
        batch.apply()
        batch.keep()
        self.do = batch.commit

    def check_cut(self):
        self.batch.check_new()

    def go_on(self, *, anew):
        self.batch.commit()
        self.batch.check_committed()

    def check_done(self):
        self.batch.check_committed()


WORKS = {"apply": Apply, "rollback": RollBack, "commit": Commit}


class RealCut(AtChanges, CuttingFiles):
    """Cuts the power at the k-th call that may change something."""


class Unsynced(PassingFiles):
    """Leaves out every ``fsync``."""

    def fsync(self, fd):
        pass


class ModelCut(AtChanges, PowerCutFiles):
    """Cuts the power of the model of a disk at the k-th call that may change something."""


def cut_on_the_model(work, k, seed, *, anew):
    """Cut at the k-th call, look, and go on; False when the work ends before. See `RealCuts.at`."""
    batch = work.batch
    batch.again()
    real = Unsynced()  # the model alone counts, and the real disk only takes time
    if not killed_at(k, lambda cutting: work_with(cutting, work.do), lambda k: ModelCut(k, batch.tree, seed, real)):
        return False
    work.check_cut()
    work_with(real, lambda: work.go_on(anew=anew))
    return True


class Counting(PassingFiles):
    """Counts the calls at which the power can be cut."""

    count = 0

    def call(self, name, *arguments):
        self.count += name not in UNCHANGING
        return super().call(name, *arguments)


class RealCuts:
    """Power cuts of a migration on a disk, which is brought back to where it was before each.

    Parameters
    ----------
    disk
        The `LoopDisk`.
    name
        Of the work, in `WORKS`.
    """

    def __init__(self, disk, name):
        self._disk, self._batch = disk, Batch(disk.mount)
        self.work = WORKS[name](self._batch)
        counting = Counting()
        self._batch.again()
        work_with(counting, self.work.do)
        self.count = counting.count

    def _begin(self):
        self._batch.again()
        self._disk.again()  # which syncs it

    def at(self, k, *, commit, anew):
        """Cut at the k-th call, right after the journal was committed if so told; look, and go on.

        With `anew` it is done once more before it is taken back.
        """
        self._begin()
        assert killed_at(
            k, lambda cutting: work_with(cutting, self.work.do), lambda k: RealCut(k, self._disk, commit=commit)
        )
        self._disk.again()
        self.work.check_cut()
        self.work.go_on(anew=anew)

    def after_the_end(self, system=None):
        """Cut when the work is done: it stays done."""
        self._begin()
        assert in_child(lambda: work_with(system or RealFiles(), self.work.do)) == 0
        self._disk.cut(commit=True)
        self._disk.again()
        self.work.check_done()
