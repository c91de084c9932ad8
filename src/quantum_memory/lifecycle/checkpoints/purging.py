"""Remove all checkpoints of one content."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from quantum_memory.lifecycle.checkpoints.manifest import Checkpoint
from quantum_memory.lifecycle.repository.manifest_file import read_whole
from quantum_memory.lifecycle.repository.purging import Change, Purging

if TYPE_CHECKING:
    from quantum_memory.lifecycle.checkpoints.folder import CheckpointFolder
    from quantum_memory.lifecycle.repository.purging import Purged


class CheckpointPurging(Purging[Checkpoint, Change]):
    """Removes checkpoints.

    Parameters
    ----------
    folder
        Of the checkpoints.
    content_id
        Of those that go; None where it is not known, and none does.
    done
        Where it is said what went.
    """

    def __init__(self, folder: CheckpointFolder, content_id: str | None, done: Purged) -> None:
        super().__init__(folder, done)
        self._folder = folder
        self._content_id = content_id

    def look(self) -> tuple[list[Change], list[str]]:
        folder = self._folder
        listed, bad = folder.listed()
        changes = []
        for head in listed:
            if head.content_id == self._content_id:
                with folder.opened(head.id) as source:
                    changes.append(Change(head.id, read_whole(source, folder.kind)[1].chunk_names()))
        return changes, [f"the damaged checkpoint {one} in {folder.path}: {error}" for one, error in bad.items()]

    def say(self, change: Change, facts: dict[str, Any]) -> None:
        self.done.checkpoints.append({"folder": self._folder.path, "id": change.id, **facts})
