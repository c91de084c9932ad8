"""Remove backups that a policy does not keep."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quantum_memory.lifecycle.backups.manifest import Backup
from quantum_memory.lifecycle.repository.pruning import Item, Pruner

if TYPE_CHECKING:
    from quantum_memory.lifecycle.backups.checking import Checker
    from quantum_memory.lifecycle.backups.folder import BackupFolder


class BackupPruner(Pruner[Backup]):
    """Removes backups; each source has a series of its own.

    Parameters
    ----------
    folder
        Of the backups.
    checker
        What reads them back, and knows which were.
    """

    def __init__(self, folder: BackupFolder, checker: Checker) -> None:
        super().__init__(folder, checker.lately_verified())
        self._checker = checker

    def source_of(self, head: Backup) -> str:
        return head.source

    def is_whole(self, head: Backup) -> bool:
        return not head.problems

    def item(self, head: Backup, *, pinned: bool, tags: frozenset[str], verified: bool) -> Item[Backup]:
        # One without some of the files is not what an older one that has them all is given up for.
        return Item(head, head.source, head.automatic, pinned, tags, verified and self.is_whole(head))

    def verify(self, one: str) -> object:
        return self._checker.full(one)
