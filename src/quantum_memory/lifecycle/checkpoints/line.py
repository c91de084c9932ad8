"""The line of checkpoints that a run goes on with: a branch, and which checkpoint the next one continues."""

from __future__ import annotations

import dataclasses
import threading
from typing import TYPE_CHECKING

from quantum_memory.durability import forks
from quantum_memory.lifecycle.checkpoints.choosing import nothing
from quantum_memory.lifecycle.repository.folder import check_name

if TYPE_CHECKING:
    from collections.abc import Collection

    from quantum_memory.lifecycle.checkpoints.home import CheckpointHome
    from quantum_memory.lifecycle.checkpoints.saving import Said, Saver


class Line:
    """Where a run is among the checkpoints of a folder.

    Parameters
    ----------
    folder
        The folder.
    branch
        Name of the branch.

    Attributes
    ----------
    branch
        Name of the branch now.
    last
        Id of the checkpoint that the next one continues; None stands for the newest of the branch.
    """

    def __init__(self, folder: CheckpointHome, branch: str) -> None:
        self.branch = check_name(branch, "branch")
        self.last: str | None = None
        self._folder = folder
        self._guard = threading.Lock()
        forks.tell(self)

    def forked(self) -> None:
        """Let go of the lock of the process that this one was forked from."""
        self._guard = threading.Lock()

    def placed(self, said: Said, saver: Saver) -> Said:
        """Return what is said of a checkpoint with its place in the order of saving; the next one continues it."""
        with self._guard:
            parent = self.last or self.newest()
            said = dataclasses.replace(saver.numbered(said), parent=parent)
            self.last = said.id
        return said

    def give_up(self, said: Said) -> None:
        """Take back the place of a checkpoint that was not saved."""
        with self._guard:
            if self.last == said.id:
                self.last = said.parent

    def go_on_from(self, one: str) -> None:
        """Have the next checkpoint continue this one."""
        with self._guard:
            self.last = one

    def change(self, branch: str, start: str | None) -> None:
        """Go on in another branch; see `CheckpointManager.branch`."""
        start = start or self.newest(check_name(branch, "branch"))
        with self._guard:
            self.last = start or self.last or self.newest()
            self.branch = branch

    def forget(self, ids: Collection[str]) -> None:
        """Continue none of these checkpoints, which are gone."""
        with self._guard:
            if self.last in ids:
                self.last = None

    def newest(self, branch: str | None = None) -> str | None:
        """Return the id of the newest checkpoint of a branch, by default this one; None where it has none."""
        listed = [one for one in self._folder.listed()[0] if one.branch == (branch or self.branch)]
        return listed[-1].id if listed else None

    def newest_first(self, branch: str | None = None) -> list[str]:
        """Return the ids of a branch, the newest first, and between them those of which nobody knows the branch.

        These cannot be read: they come up, and are named, where they may be what was saved last. Ids begin with the
        time, which is all that is known of them.
        """
        listed, bad = self._folder.listed()
        ids = [one.id for one in reversed(listed) if one.branch == (branch or self.branch)]
        for one in sorted(bad, reverse=True):
            ids.insert(next((place for place, id_ in enumerate(ids) if id_ < one), len(ids)), one)
        return ids

    def back_from(self, one: str | None) -> list[str]:
        """Return an id, by default the newest, and those that were saved before it, the newest first.

        Raises
        ------
        MissingError
            There is none.
        """
        if one is None:
            ids = self.newest_first()
            if not ids:
                raise nothing(self._folder)
            return ids
        listed = {head.id: head for head in self._folder.listed()[0]}
        ids = self.newest_first(listed[one].branch if one in listed else None)
        return [one, *ids[ids.index(one) + 1 :]] if one in ids else [one, *ids]
