"""What is done to a folder of backups: of a folder and of a file, twice each."""

import errno
import os
import shutil
import warnings
from contextlib import suppress

import quantum_memory as qm
from quantum_memory.durability.files import ReadableFile
from quantum_memory.errors import ConflictError, MissingError, StorageError
from quantum_memory.lifecycle.backups.export_file import ExportFile
from quantum_memory.testing.faults import PassingFiles
from quantum_memory.testing.invariants import ANY, check_store, contents

from ...lifecycle.backups.trees import seen
from .alike import Alike

SAVED = 2
KEYS = [qm.Key(bytes([number]) * 32, "hkdf-sha256") for number in range(2)]
CONFIGS = ("config.json", "config-copy.json")


class OfBackups(Alike):
    """Something that is done to a folder of backups, or with it.

    Attributes
    ----------
    goes
        How many of them, the oldest first, are removed.
    damaged
        Whether tags, and a copy of a list, are damaged until it is done.
    """

    saved, goes, key, pending = SAVED, 0, None, {}
    damaged = False
    # The one is for people, and not synced; the other may be lost.
    may_break = ("log.jsonl was closed with unsynced bytes", "checks.json got its name")

    def __init__(self, place):
        super().__init__(place)
        self.at, self.tree, self.file = self.folder / "backups", self.folder / "tree", self.folder / "file"
        (self.tree / "inner").mkdir(parents=True)
        (self.tree / "inner" / "b").write_bytes(b"b" * 2000)
        self.ids, self.versions = [], []
        for k in range(self.saved):
            self._write(k)
            with self.manager() as bm:
                self.ids += [bm.create_backup(self.tree, f"{k}"), bm.create_backup(self.file, f"{k}")]
            self.versions += [seen(self.tree), seen(self.file)]
        if self.ids:
            with self.manager() as bm:
                bm.tag(self.ids[-1], "kept")
                bm.pin(self.ids[-1])
        self._write(SAVED)
        self.prepare()
        self.old = contents(self.at, key=self.key)
        self.keep()

    def _write(self, k):
        (self.tree / "a").write_bytes(b"%d" % k * 3000)
        self.file.write_bytes(b"file %d" % k)

    def prepare(self):
        """Make what else there is before."""

    def manager(self, **options):
        return qm.BackupManager(self.at, **{"max_backups": None, "key": self.key, **options})

    def check(self, *, done):
        gone = self.ids[: self.goes]
        wanted = {one: content for one, content in self.old.items() if not done or one not in gone}
        check_store(self.at, wanted, pending=self.pending, removed=gone, key=self.key)
        if not list(self.at.glob("config*.json")):
            assert not done
            assert not self.ids
            return
        with self.manager() as bm:
            if self.ids and (done or not self.damaged):
                refs = bm.folder.refs()
                assert refs.tags["kept"] == self.ids[-1]
                assert self.ids[-1] in refs.pins
                self.check_copies(done=done)
            self.check_more(bm, done=done)

    def check_copies(self, *, done):
        """See that no pack is without the copy of its list, which goes with it."""
        packs, copies = ({one.stem for one in self.at.glob(f"chunks/*.{what}")} for what in ("qmpack", "qmindex"))
        assert packs <= copies
        assert packs == copies or not (done and self.goes)

    def check_more(self, bm, *, done):
        """See that the newest of what has to be there gives back what it is of."""
        self.check_restored(bm, self.ids[-1], self.versions[-1])

    def check_restored(self, bm, one, version):
        target = self.folder / "looked at"
        bm.restore_backup(one, target)
        assert seen(target) == version
        shutil.rmtree(target) if target.is_dir() else target.unlink()

    def do_again(self):
        with suppress(MissingError):  # it was removed before the accident
            self.act()
        with self.manager() as bm:  # a second name of the lock goes with the orphans
            bm.cleanup_orphaned_backups(grace=0)


class Create(OfBackups):
    """One more, of the folder."""

    of = "tree"

    def act(self):
        with self.manager() as bm:
            bm.create_backup(getattr(self, self.of), f"{SAVED}")

    def prepare(self):
        with qm.BackupManager(self.folder.parent / "known", key=self.key) as bm:
            bm.create_backup(getattr(self, self.of))
        self._whole = list(contents(self.folder.parent / "known", key=self.key).values())

    def check(self, *, done):
        self.pending = {ANY: self._whole}
        if list(self.at.glob("config*.json")):
            with self.manager() as bm:  # what could not be read of a folder is left out, and it says so
                made = [one["id"] for one in bm.list_backups() if one["problems"]]
            there = contents(self.at, key=self.key) if made else {}
            self.pending |= {one: [there[one]] for one in made}
        super().check(done=done)

    def check_more(self, bm, *, done):
        made = [one for one in bm.list_backups() if one["id"] not in self.ids]
        assert made or not done
        for one in made[:1]:
            version = seen(getattr(self, self.of))
            for path, _ in bm.get_backup(one["id"])["problem_files"]:
                del version[path.encode()]
            self.check_restored(bm, one["id"], version)


class CreateOfFile(Create):
    """One more, of the file, with a tag."""

    of = "file"

    def act(self):
        with self.manager() as bm:
            bm.create_backup(self.file, f"{SAVED}", tags=["tagged"])


class First(Create):
    """The first, which makes the folder."""

    saved = 0


class FirstEncrypted(First):
    """The first, which makes a folder that is encrypted."""

    key = KEYS[0]


class Restore(OfBackups):
    """The oldest of the folder is given back.

    Attributes
    ----------
    which
        Which backup.
    """

    which = 0
    may_break = (*OfBackups.may_break, ".qmtmp/")  # what is in a folder is removed with it

    def is_timed(self, path, content):
        return path.startswith(("out", ".out"))

    def prepare(self):
        self.out, self.there = self.folder / "out", None

    def act(self):
        with self.manager() as bm:
            bm.restore_backup(self.ids[self.which], self.out)

    def check(self, *, done):
        super().check(done=done)
        new = self.versions[self.which]
        at_target = seen(self.out) if os.path.lexists(self.out) else None
        assert at_target in self.allowed(new, done=done)

    def allowed(self, new, *, done):
        return [new] if done else [self.there, new]


class RestoreOverFolder(Restore):
    """The oldest of the folder is given back over another one, which is kept beside it."""

    def prepare(self):
        super().prepare()
        shutil.copytree(self.tree, self.out)
        (self.out / "mine").write_bytes(b"mine")
        self.there = seen(self.out)

    def check(self, *, done):
        super().check(done=done)
        # Wherever what was there is: it is whole.
        assert self.there in [seen(one) for one in self.folder.iterdir() if one.name.startswith("out")]


class WithoutExchange(PassingFiles):
    """A file system that cannot give two folders each other's name."""

    def exchange(self, one, other):
        raise OSError(errno.EINVAL, "not here")


class RestoreWithoutExchange(RestoreOverFolder):
    """The same where two folders cannot be given each other's name at once."""

    system = WithoutExchange()

    def allowed(self, new, *, done):
        return [new] if done else [self.there, new, None]


class RestoreFile(Restore):
    """The oldest of the file is given back; done once more, a backup of what is there then is made first."""

    which = 1

    def prepare(self):
        super().prepare()
        self.pending = {ANY: [contents(self.at)[self.ids[1]]]}


class RestoreOverFile(RestoreFile):
    """The oldest of the file is given back over another one, which is backed up first."""

    going_on = 4

    def prepare(self):
        super().prepare()
        shutil.copy2(self.file, self.out)
        self.there = seen(self.out)
        with qm.BackupManager(self.folder.parent / "known") as bm:
            bm.create_backup(self.out)
        self.pending[ANY] += contents(self.folder.parent / "known").values()


class Delete(OfBackups):
    """The oldest goes."""

    goes = 1

    def act(self):
        with self.manager() as bm:
            bm.delete_backup(self.ids[0])


class Prune(OfBackups):
    """The oldest of the folder and of the file go."""

    goes = 2

    def act(self):
        with self.manager(max_backups=1) as bm:
            bm.prune()


class Repair(OfBackups):
    """A bit of everything was damaged of which there is another copy, or which can be made anew."""

    damaged = True

    def prepare(self):
        with self.manager() as bm:
            bm.tag(self.ids[0], "good")
        for name in (*CONFIGS[:1], "refs.json"):
            self._flip(self.at / name)
        min((self.at / "chunks").glob("*.qmindex")).unlink()

    @staticmethod
    def _flip(path):
        data = bytearray(path.read_bytes())
        data[25] ^= 1
        path.write_bytes(data)

    def act(self):
        with self.manager() as bm:
            done = bm.repair()
        if not done:
            raise StorageError("something is left", path=self.at, next_step="repair it again")

    def check_more(self, bm, *, done):
        super().check_more(bm, done=done)
        assert not done or bm.verify()


class Export(OfBackups):
    """All of them become one file."""

    def act(self):
        with self.manager() as bm:
            bm.export_backup(None, self.folder / "out.qmb", overwrite=True)

    def check(self, *, done):
        super().check(done=done)
        path = self.folder / "out.qmb"
        assert path.exists() or not done
        if path.exists():
            with ReadableFile(str(path)) as source:
                assert sorted(one.id for one in ExportFile(source, None).backups) == sorted(self.ids)


class Import(OfBackups):
    """The backups in a file, which is encrypted, come to those that are there, with a tag and a pin."""

    def prepare(self):
        place = self.folder.parent
        self.exported = place / "in.qmb"
        with qm.BackupManager(place / "of", key=KEYS[0]) as bm:
            self.others = [bm.create_backup(self.file, f"other {number}") for number in range(2)]
            bm.tag(self.others[1], "Paper-1")
            bm.pin(self.others[0])
            bm.export_backup(None, self.exported)
        self.pending = {one: [content] for one, content in contents(place / "of", key=KEYS[0]).items()}

    def act(self):
        with self.manager() as bm, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            bm.import_backup(self.exported, key=KEYS[0])

    def check_more(self, bm, *, done):
        super().check_more(bm, done=done)
        if done:
            assert set(self.others) <= set(bm.folder.ids())
            assert bm.resolve("Paper-1") == self.others[1]
            assert self.others[0] in bm.folder.refs().pins


class OfKeys(OfBackups):
    """The keys of an encrypted folder change."""

    saved, key = 1, KEYS[0]
    expected = (True, True)

    def opens(self, key):
        try:
            with qm.BackupManager(self.at, key=key) as bm:
                return bool(bm.list_backups())
        except qm.QuantumMemoryError:
            return False

    def check(self, *, done):
        now = tuple(map(self.opens, KEYS))
        assert now == self.expected or (not done and any(now))
        self.key = KEYS[now.index(True)]
        super().check(done=done)
        self.key = KEYS[0]
        for name in CONFIGS:  # one of the two opens it, whichever of the two files is there
            if (self.at / name).exists():
                (self.at / name).rename(self.folder / "aside")
                opened = tuple(map(self.opens, KEYS))
                assert opened == self.expected if done else any(opened)
                (self.folder / "aside").rename(self.at / name)

    def do_again(self):
        if tuple(map(self.opens, KEYS)) != self.expected:
            self.act()


class AddKey(OfKeys):
    """One more."""

    def act(self):
        with self.manager() as bm:
            bm.add_key(KEYS[1])

    def do_again(self):
        with suppress(ConflictError):
            self.act()


class RemoveKey(OfKeys):
    """One less."""

    expected = (True, False)

    def prepare(self):
        with self.manager() as bm:
            bm.add_key(KEYS[1], "other")

    def act(self):
        with self.manager() as bm:
            bm.remove_key("other")


class ChangeKey(OfKeys):
    """Another one."""

    expected = (False, True)

    def act(self):
        with self.manager() as bm:
            bm.change_key(KEYS[1])
