"""Remove checkpoints that a policy does not keep."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quantum_memory.lifecycle.checkpoints.manifest import Checkpoint
from quantum_memory.lifecycle.repository.pruning import Item, Pruner

if TYPE_CHECKING:
    from quantum_memory.lifecycle.checkpoints.home import CheckpointHome


class CheckpointPruner(Pruner[Checkpoint]):
    """Removes checkpoints; each branch is a series of its own.

    Parameters
    ----------
    folder
        Of the checkpoints.
    verified
        Ids of those that were read back whole; it is kept up to date.
    """

    folder: CheckpointHome

    def source_of(self, head: Checkpoint) -> str:
        return head.branch

    def item(self, head: Checkpoint, *, pinned: bool, tags: frozenset[str], verified: bool) -> Item[Checkpoint]:
        metrics = {name: float(value) for name, value in head.metrics.items()}
        return Item(head, head.branch, head.automatic, pinned, tags, verified, metrics)

    def verify(self, one: str) -> object:
        return self.folder.check(one)
