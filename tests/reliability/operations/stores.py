"""What is done to an HDF5 store of several states and a series of samples."""

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

import quantum_memory as qm
from quantum_memory.durability import atomic
from quantum_memory.testing.invariants import check_store, contents

from .alike import Alike
from .backups import OfBackups
from .saves import noise

NEW = noise(7, "new", 1000)  # of more than is stored in one piece
SAMPLES = [0.0, 1.0]


class OfStore(Alike):
    """Something that is done to a store with states and samples.

    Attributes
    ----------
    pending, goes
        What is there when it is done, beside what was there before; and what is not.
    """

    pending: Mapping[str, str] = MappingProxyType({})
    goes: tuple[str, ...] = ()
    compression, with_samples = None, True
    # A change that failed is undone, or was committed and is finished by whoever comes next.
    may_break = ("store.h5 was closed with unsynced bytes",)

    def __init__(self, place):
        super().__init__(place)
        self.path = self.folder / "store.h5"
        self._make()
        self.old = contents(self.path)
        self.keep()

    def _make(self):
        storage = self.storage(durable=False)
        for number in range(2):
            storage.save_quantum_state(noise(number, f"{number}"), f"s{number}")
        with storage.time_series("x") as series:
            for sample in SAMPLES:
                series.append(sample)

    def storage(self, **options):
        return qm.HDF5QuantumStorage(self.path, self.compression, **options)

    def check(self, *, done):
        wanted, pending = self.old, {name: [content] for name, content in self.pending.items()}
        if done:
            wanted = {name: content for name, content in self.old.items() if name not in self.goes} | dict(self.pending)
        check_store(self.path, wanted, pending=pending, removed=self.goes)
        if self.with_samples:
            self.check_samples(self.storage().read_series("x").values.tolist(), done=done)

    def check_samples(self, samples, *, done):
        assert samples == SAMPLES


class Append(OfStore):
    """A state is appended."""

    pending = MappingProxyType({"new": NEW.content_id})

    def act(self):
        self.storage().save_quantum_state(NEW, "new")

    def do_again(self):
        if "new" not in {one["id"] for one in self.storage().list_states()}:
            self.act()


class AppendPacked(Append):
    """A state is appended, packed."""

    compression = "gzip"


class Begin(Append):
    """A state is the first of a store."""

    with_samples = False

    def _make(self):
        pass

    def do_again(self):
        if not self.path.exists() or not contents(self.path):
            self.act()
        atomic.remove_leftovers(self.folder)  # which the next file that is made there does


class Delete(OfStore):
    """A state is removed."""

    goes = ("s1",)

    def act(self):
        self.storage().delete_state("s1")

    def do_again(self):
        if "s1" in {one["id"] for one in self.storage().list_states()}:
            self.act()


class Optimize(OfStore):
    """A store with a hole is written anew."""

    def _make(self):
        super()._make()
        storage = self.storage(durable=False)
        storage.save_quantum_state(np.ones(1 << 10, complex) / 32, "hole")
        storage.delete_state("hole")

    def act(self):
        self.storage().optimize_storage()


class Samples(OfStore):
    """Samples are appended to a series."""

    new = (2.0, 3.0)

    def act(self):
        with self.storage().time_series("x") as series:
            for sample in self.new:
                series.append(sample)

    def check_samples(self, samples, *, done):
        assert samples in ([[*SAMPLES, *self.new]] if done else [SAMPLES, [*SAMPLES, *self.new]])

    def do_again(self):
        if self.storage().read_series("x").values.tolist() == SAMPLES:
            self.act()


class AppendWithBackup(Append):
    """The store is backed up before a state is appended."""

    with_samples, going_on = False, 4
    may_break = (*OfStore.may_break, *OfBackups.may_break)

    def _make(self):
        self.storage(durable=False).save_quantum_state(noise(0, "0"), "s0")

    def act(self):
        with self._backups() as backups:
            self.storage(backup_before_write=backups).save_quantum_state(NEW, "new")

    def _backups(self):
        return qm.BackupManager(self.folder / "backups", max_backups=None)

    def check(self, *, done):
        super().check(done=done)
        if not list(self.folder.glob("backups/config*.json")):
            assert not done
            return
        with self._backups() as backups:
            assert not backups.verify().damaged
            assert not done or backups.list_backups()

    def do_again(self):
        super().do_again()
        with self._backups() as backups:
            backups.cleanup_orphaned_backups(grace=0)


class Import(Append):
    """A file is appended as a state."""

    def __init__(self, place):
        super().__init__(place)
        self._source = place / "in.qms"
        qm.save(NEW, self._source, durable=False)

    def act(self):
        self.storage().import_from_binary(self._source, "new")


class Export(OfStore):
    """A state is written to a file of its own."""

    def act(self):
        self.storage().export_to_binary("s0", self.folder / "out.qms")

    def check(self, *, done):
        super().check(done=done)
        content = self.old["s0"]
        check_store(self.folder / "out.qms", {"": content} if done else {}, pending={"": [content]})
