"""A run that saves its steps, and removes old ones."""

from pathlib import Path

import numpy as np

from quantum_memory.lifecycle.checkpoint_manager import CheckpointManager
from quantum_memory.lifecycle.due import Always
from quantum_memory.lifecycle.retention import KeepLast
from quantum_memory.testing.loops import Acknowledge

SHARED = np.arange(4000)
"""What every checkpoint holds."""


def state(version: int) -> dict[str, object]:
    return {"w": np.full(700, version), "k": version, "shared": SHARED, "sometimes": np.full(300, version // 4)}


class Checkpoints:
    """It waits for each to be saved."""

    def __init__(self, place: Path) -> None:
        self.folder = place / "run"
        with self._manager() as cm:
            self._save(cm, 0)

    def _manager(self, kept: int = 3, *, durable: bool = False) -> CheckpointManager:
        return CheckpointManager(self.folder, signals=False, save=Always(), keep=KeepLast(kept), durable=durable)

    def _save(self, cm: CheckpointManager, version: int) -> None:
        cm.create_checkpoint(state(version), progress=version)

    def run(self, version: int, acknowledge: Acknowledge, *, durable: bool) -> None:
        with self._manager(durable=durable) as cm:
            while True:
                version += 1
                self._save(cm, version)
                acknowledge(version)

    def check(self, acknowledged: int) -> int:
        with self._manager() as cm:
            found = cm.verify()
            assert set(found.values()) == {None}, found
            resumed = cm.resume()
            version = resumed.progress
            assert resumed.state["k"] == version
            assert (resumed.state["w"] == version).all()
            assert np.array_equal(resumed.state["shared"], SHARED)
            return int(version)

    def end(self, version: int) -> None:
        with self._manager(1) as cm:
            last = cm.create_checkpoint(state(version + 1), progress=version + 1)
            with cm.folder.store.alone():
                cm.folder.sweep()
                cm.folder.collect()
            assert cm.verify() == {last: None}
            assert not cm.folder.store.damaged
            assert [one["progress"] for one in cm.list_checkpoints()] == [version + 1]
        assert list(self.folder.rglob(".*")) == []
        needed = cm.folder.manifest(last).chunks()
        with cm.folder.store.shared():
            assert needed <= set(cm.folder.store._where)
            assert cm.folder.store.nbytes < 2 * SHARED.nbytes


class InBackground(Checkpoints):
    """It goes on while they are saved."""

    def _save(self, cm: CheckpointManager, version: int) -> None:
        cm.step(state(version), version)
        cm.wait()
