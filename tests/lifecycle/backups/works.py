"""What is done to backups when something fails, and what must be there then."""

import contextlib
import errno
import itertools
import os
import shutil
import warnings

from quantum_memory.durability import atomic, files
from quantum_memory.errors import MissingError, QuantumMemoryError
from quantum_memory.lifecycle.backup_manager import BackupManager
from quantum_memory.testing.faults import FaultyFiles, PassingFiles, killed_at

from ..batches import KillingWrites
from ..power_cuts import ModelCut, Unsynced
from .trees import looked_at

SAVED = 2


def seen(top):
    """Return what is in a file or folder, without the times of folders: the model of a disk does not follow these."""
    return {
        path: thing._replace(modified=0) if thing.kind == "folder" else thing for path, thing in looked_at(top).items()
    }


class Work:
    """Something that is done to a folder with three backups of a folder and a file, again and again."""

    def __init__(self, place, name):
        self.top, self._fresh = place / "top", place / "fresh"
        self.tree, self.file, self.out = self.top / "tree", self.top / "file", self.top / "out"
        self.tree.mkdir(parents=True)
        (self.tree / "inner").mkdir()
        (self.tree / "inner" / "b").write_bytes(b"b" * 2000)
        self.ids, self.versions = [], {}
        with self.manager(durable=False) as bm:
            for k in range(SAVED if name != "first" else 0):
                self._write(k)
                self.ids += [bm.create_backup(self.tree, f"{k}"), bm.create_backup(self.file, f"{k}")]
                self.versions |= zip(self.ids[-2:], (seen(self.tree), seen(self.file)), strict=True)
        self._write(SAVED)
        if name in {"tree over another", "tree without exchange"}:
            shutil.copytree(self.tree, self.out)
            (self.out / "mine").write_bytes(b"mine")
        elif name == "file over another":
            shutil.copy2(self.file, self.out)
        self.there = seen(self.out) if self.out.exists() else None
        shutil.copytree(self.top, self._fresh, symlinks=True)
        self.name = name
        self.do = getattr(self, "_" + name.replace(" ", "_"))
        self.goes = {"delete": self.ids[:1], "prune": self.ids[:2]}.get(name, [])

    def _write(self, k):
        (self.tree / "a").write_bytes(b"%d" % k * 3000)
        self.file.write_bytes(b"file %d" % k)

    def manager(self, **options):
        return BackupManager(self.top / "backups", **{"max_backups": None, **options})

    def again(self):
        shutil.rmtree(self.top)
        shutil.copytree(self._fresh, self.top, symlinks=True)
        atomic._swept.clear()

    def _first(self):
        with self.manager() as bm:
            bm.create_backup(self.tree, f"{SAVED}")

    _create = _first

    def _create_a_file(self):
        with self.manager() as bm:
            bm.create_backup(self.file, f"{SAVED}", tags=["tagged"])

    def _restore(self, one):
        with self.manager() as bm:
            bm.restore_backup(one, self.out)

    def _tree(self):
        self._restore(self.ids[0])

    _tree_over_another = _tree_without_exchange = _tree

    def _a_file(self):
        self._restore(self.ids[1])

    _file_over_another = _a_file

    def _delete(self):
        with self.manager() as bm:
            bm.delete_backup(self.ids[0])

    def _prune(self):
        with self.manager(max_backups=1) as bm:
            bm.prune()

    # --- what is to be seen then

    def look(self, *, done):
        """Whatever happened: all is there, but for what was to go, and restores; the target is old or new, whole."""
        atomic._swept.clear()
        if not list((self.top / "backups").glob("config*.json")):
            assert not done
            assert not self.ids
            return
        with self.manager(durable=False) as bm:
            assert bm.verify().damaged == []
            listed = {one["id"]: one for one in bm.list_backups()}
            assert set(self.ids) - set(self.goes) <= set(listed)
            if done:
                assert not set(self.goes) & set(listed)
            for one in [*listed][:: max(1, len(listed) - 1)]:  # the newest and the oldest
                self._look_at_backup(bm, listed[one])
            if done and self.name in {"first", "create", "create a file"}:
                assert len(listed) == len(self.ids) + 1
        self.look_at_target(done=done)

    def _look_at_backup(self, bm, known):
        one, target = known["id"], self.top / "looked at"
        bm.restore_backup(one, target)
        found = seen(target)
        if one in self.versions:
            assert found == self.versions[one]
        elif known["description"] == f"{SAVED}":
            wanted = seen(self.tree if target.is_dir() else self.file)
            for path, _ in bm.get_backup(one)["problem_files"]:
                del wanted[path.encode()]
            assert found == wanted
        else:  # what was backed up before it was replaced
            assert found in (self.there, self.versions[self.ids[1]])
        shutil.rmtree(target) if target.is_dir() else target.unlink()

    def look_at_target(self, *, done):
        wanted = {"tree": 0, "tree over another": 0, "tree without exchange": 0, "a file": 1, "file over another": 1}
        if self.name not in wanted:
            assert seen(self.tree)[b"a"].content == b"%d" % SAVED * 3000
            return
        new = self.versions[self.ids[wanted[self.name]]]
        outs = [seen(one) for one in self.top.iterdir() if one.name.startswith("out")]
        if self.there is not None and "file" not in self.name:
            assert self.there in outs  # wherever it is: it is whole
        at_target = seen(self.out) if os.path.lexists(self.out) else None
        if done:
            assert at_target == new
        elif self.name == "tree without exchange":
            assert at_target in (self.there, new, None)
        else:
            assert at_target in (self.there, new)

    def leftovers(self):
        return [one for one in self.top.rglob("*") if atomic.is_leftover(one.name)]


class WithoutExchange(PassingFiles):
    """A file system that cannot give two folders each other's name."""

    def exchange(self, one, other):
        raise OSError(errno.EINVAL, "not here")


WORKS = (
    "first", "create", "create a file", "tree", "tree over another", "tree without exchange", "a file",
    "file over another", "delete", "prune",
)  # fmt: skip


def inner(work):
    """Return the operating system of a work, which does not wait for the disk."""
    return WithoutExchange(Unsynced()) if work.name == "tree without exchange" else Unsynced()


def quietly(work, system):
    """Do a work with files in force."""
    with files.using(system), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        work.do()


def fail_once(place, name, first, step):
    """Have one of so many calls fail, each in turn, and return how many there were, and how those failures ended."""
    work, codes = Work(place, name), set()
    errors = itertools.cycle([errno.EIO, errno.ENOSPC, errno.EDQUOT])
    k = first
    while True:
        work.again()
        faulty = FaultyFiles(k, next(errors), inner=inner(work))
        done = False
        try:
            quietly(work, faulty)
            done = True
        except QuantumMemoryError as failure:
            codes.add(failure.exit_code)
        # A leftover stays only where it could not be removed, and goes the next time.
        if faulty.failed and faulty.failed[0] not in {"unlink", "close"} and not done:
            assert work.leftovers() == [], (k, faulty.failed)
        work.look(done=done and name != "prune")
        if not faulty.failed:
            return k, codes
        k += step


def fail_from_then_on(place, name, first, step):
    """Have all calls fail from one on, as on a disk that is gone and comes again; return how many there were."""
    work = Work(place, name)
    k = first
    while True:
        work.again()
        faulty = FaultyFiles(k, errno.EIO, sticky=True, inner=inner(work))
        with contextlib.suppress(QuantumMemoryError):
            quietly(work, faulty)
        work.look(done=False)
        if not faulty.failed:
            return k
        k += step


def kill_at_each(place, name, first, step):
    """Kill it at one of so many calls that change something, each in turn; return how many there were."""
    work = Work(place, name)
    k = first
    while True:
        work.again()
        killed = killed_at(k, lambda dying: quietly(work, dying), lambda k: KillingWrites(k, inner(work)))
        work.look(done=not killed)
        if not killed:
            return k
        with contextlib.suppress(MissingError):  # it was removed before the kill
            work.do()  # once more, as whoever was interrupted does
        work.look(done=False)
        with work.manager(durable=False) as bm:  # a second name of the lock goes with the orphans
            bm.cleanup_orphaned_backups(grace=0)
        assert work.leftovers() == []
        k += step


def cut_at_each(place, name, first, step):
    """Cut the power of the model of a disk at one of so many calls, each in turn; return how many there were."""
    work = Work(place, name)
    k = first
    while True:
        work.again()
        cut = killed_at(k, lambda cutting: quietly(work, cutting), lambda k: ModelCut(k, work.top, k, inner(work)))
        work.look(done=not cut)
        if not cut:
            return k
        k += step
