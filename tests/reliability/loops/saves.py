"""Files that are saved again and again."""

from pathlib import Path

import numpy as np

import quantum_memory as qm
from quantum_memory.durability import atomic
from quantum_memory.errors import MissingFileError
from quantum_memory.testing.loops import Acknowledge


def strangers(folder: Path, *known: str) -> list[str]:
    """Return what is in a folder beside what is known, and beside what dead processes leave there."""
    return [one.name for one in folder.iterdir() if one.name not in known and not atomic.is_leftover(one.name)]


class Saves:
    """One file, which is replaced."""

    def __init__(self, place: Path, suffix: str, length: int = 200) -> None:
        self.folder, self.path, self._length = place, place / f"state.{suffix}", length
        self._save(0, durable=False)  # imports what it takes
        self.path.unlink()

    def _save(self, version: int, *, durable: bool) -> None:
        content = {"version": version, "payload": np.full(self._length, version)}
        qm.save(qm.MemoryState(classical=content), self.path, durable=durable)

    def run(self, version: int, acknowledge: Acknowledge, *, durable: bool) -> None:
        while True:
            version += 1
            self._save(version, durable=durable)
            acknowledge(version)

    def check(self, acknowledged: int) -> int:
        assert strangers(self.folder, self.path.name) == []
        try:
            content = qm.load(self.path).classical
        except MissingFileError:
            return 0
        assert len(content["payload"]) == self._length
        assert (content["payload"] == content["version"]).all()
        return int(content["version"])

    def end(self, version: int) -> None:
        self._save(version + 1, durable=False)
        assert self.check(version + 1) == version + 1
        assert [one.name for one in self.folder.iterdir()] == [self.path.name]


class Background(Saves):
    """One file, which is compressed in the background each time."""

    def __init__(self, place: Path) -> None:
        super().__init__(place, "qms", 4096)
        with qm.BackgroundCompressor():
            pass  # it is imported now

    def run(self, version: int, acknowledge: Acknowledge, *, durable: bool) -> None:
        with qm.BackgroundCompressor() as background:
            while True:
                version += 1
                content = {"version": version, "payload": np.full(self._length, version)}
                background.save(qm.MemoryState(classical=content), self.path, durable=durable)
                acknowledge(version)
                if version % 3:  # every third is saved over while it is being compressed
                    background.wait()
