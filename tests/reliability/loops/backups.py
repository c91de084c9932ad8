"""A folder that is backed up and restored, where only a few backups are kept."""

import shutil
from pathlib import Path

from quantum_memory.durability import atomic
from quantum_memory.lifecycle.backup_manager import BackupManager
from quantum_memory.testing.loops import Acknowledge

from ...lifecycle.backups.trees import looked_at

SHARED = bytes(range(256)) * 40


def content_of(version: int) -> dict[str, bytes]:
    return {"k": b"%d" % version, "w": b"%06d" % version * 500, "shared": SHARED}


def version_of(folder: Path) -> int:
    """Return which version a folder is of, whole."""
    found = {path.decode(): thing.content for path, thing in looked_at(folder).items() if path}
    version = int(found["k"])
    assert found == content_of(version)
    return version


class Backups:
    """One version after another is backed up, and every other one restored over the last."""

    def __init__(self, place: Path) -> None:
        self.folder, self._source, self._out = place, place / "source", place / "out"
        with self._manager() as bm:
            self._back_up(bm, 0)

    def _manager(self, *, durable: bool = False) -> BackupManager:
        return BackupManager(self.folder / "backups", 3, durable=durable)

    def _back_up(self, bm: BackupManager, version: int) -> str:
        shutil.rmtree(self._source, ignore_errors=True)
        self._source.mkdir()
        for name, content in content_of(version).items():
            (self._source / name).write_bytes(content)
        return bm.create_backup(self._source, f"{version}")

    def run(self, version: int, acknowledge: Acknowledge, *, durable: bool) -> None:
        with self._manager(durable=durable) as bm:
            while True:
                version += 1
                one = self._back_up(bm, version)
                acknowledge(version)
                if version % 2:
                    done = bm.restore_backup(one, self._out)
                    if done.replaced:
                        Path(done.replaced).rename(self.folder / "rubbish")  # what keeps its name is whole
                        shutil.rmtree(self.folder / "rubbish")

    def check(self, acknowledged: int) -> int:
        shutil.rmtree(self.folder / "rubbish", ignore_errors=True)
        with self._manager() as bm:
            report = bm.verify()
            assert report.damaged == [], report
            last = bm.list_backups()[0]
            bm.restore_backup(last["id"], self.folder / "looked at")
            version = int(last["description"])
            assert version_of(self.folder / "looked at") == version
        shutil.rmtree(self.folder / "looked at")
        for one in self.folder.iterdir():
            if one.name.startswith("out"):
                version_of(one)  # a whole folder, or none
            if ".before-" in one.name:
                shutil.rmtree(one)
        return version

    def end(self, version: int) -> None:
        with self._manager() as bm:
            bm.restore_backup(self._back_up(bm, version + 1), self._out)
            with bm.folder.store.alone():
                bm.folder.sweep()
                bm.folder.collect()
            bm.cleanup_orphaned_backups(grace=0)
            bm.repair()  # of the two copies of config.json one may be missing, after a cut while the folder was made
            assert bm.verify(), bm.verify()
        assert version_of(self._out) == version + 1
        assert [one for one in self.folder.rglob("*") if atomic.is_leftover(one.name)] == []
