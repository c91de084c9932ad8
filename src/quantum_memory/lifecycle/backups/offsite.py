"""What `BackupManager` does with a second place: push, pull, and check what is there."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from quantum_memory.errors import InvalidStateError, QuantumMemoryError
from quantum_memory.lifecycle.backups.targets import FolderTarget, target_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from quantum_memory.lifecycle.backups.folder import BackupFolder
    from quantum_memory.lifecycle.backups.pulling import Pulled
    from quantum_memory.lifecycle.backups.pushed_checking import Checked
    from quantum_memory.lifecycle.backups.sent import Sent
    from quantum_memory.lifecycle.backups.targets import Target

    Address = str | os.PathLike[str]
    Progress = Callable[[int], object]


class Offsite:
    """A folder of backups that is copied elsewhere, as it is, and comes back from there.

    Attributes
    ----------
    folder
        The folder.
    """

    folder: BackupFolder

    def push(
        self,
        target: Address,
        *,
        prune: bool = False,
        verify: bool = False,
        dry_run: bool = False,
        progress: Progress | None = None,
    ) -> Sent:
        """Copy the folder to a second place, encrypted or not exactly as it is; what is there is not sent again.

        No key is needed. Interrupted at any instant, it leaves a copy from which all can be pulled that was there
        before, and goes on the next time. The folder is held meanwhile: backups can be made, and nothing is removed.

        Parameters
        ----------
        target
            ``s3://bucket/prefix``, or the path of another folder, as on a disk that is taken elsewhere. It takes one
            folder of backups, which any number of machines may push.
        prune
            Remove there what this folder had when it was pushed or pulled, and has no more; and what nobody needs then.
        verify
            Read every byte back, and send anew what is damaged there.
        dry_run
            Say what would be sent and removed, and do neither.
        progress
            Called with the bytes of each part of a file that was sent, or was there.

        Returns
        -------
        Sent
            True when nothing was damaged, here or there; its ``problems`` say what was.

        Raises
        ------
        MissingFileError
            There is no such folder of backups.
        ConflictError
            The target has another folder, or something else; or, to prune, others are at work there.
        UnsafeError
            The storage does not keep two writers apart.
        StorageError
        """
        from quantum_memory.lifecycle.backups.pushed_mending import verify as verified  # noqa: PLC0415 - few need it
        from quantum_memory.lifecycle.backups.pushed_pruning import prune as pruned  # noqa: PLC0415 - as above
        from quantum_memory.lifecycle.backups.pushing import Pusher  # noqa: PLC0415 - as above

        place = self._elsewhere(target)
        pusher = Pusher(self.folder, place, dry_run=dry_run, progress=progress)
        done = pusher.push()
        if verify and not dry_run:
            verified(pusher, None)
        if prune:
            pruned(self.folder, place, done, dry_run=dry_run)
        if not dry_run:
            self._note("pushed", to=place.name, backups=done.backups or None, removed=done.removed or None)
        return done

    def pull(self, target: Address, *, salvage: bool = False, progress: Progress | None = None) -> Pulled:
        """Take what was pushed to a second place into the folder: all backups that are there, and not here.

        No key is needed. The folder may be one that is not there, an empty one, or an older state of the same. Nothing
        that is here is changed, but tags and pins that are older than those there.

        Parameters
        ----------
        target
            See `push`.
        salvage
            Take packs of which a part is damaged or gone there, too, and the backups that need them: what is whole of
            these can be restored (``salvage=True``, there as well).
        progress
            Called with the bytes of each part of a pack that came.

        Returns
        -------
        Pulled
            True when all came; its ``problems`` say what did not.

        Raises
        ------
        MissingFileError
            Nothing was pushed there.
        ConflictError
            The folder is another one, or none of backups.
        StorageError
            The storage cannot be reached, or the disk is full: what has come stays, and the next pull goes on.
        """
        from quantum_memory.lifecycle.backups.pulling import Puller  # noqa: PLC0415 - as above

        place = self._elsewhere(target)
        done = Puller(self.folder, place, salvage=salvage, progress=progress).pull()
        self._note("pulled", path=place.name, backups=done.backups or None)
        return done

    @staticmethod
    def check_pushed(target: Address, *, progress: Progress | None = None) -> Checked:
        """Read back every byte of what was pushed to a place, without the folder; see `pushed_checking.check`."""
        from quantum_memory.lifecycle.backups.pushed_checking import check  # noqa: PLC0415 - as above

        return check(target_of(target), progress)

    def _elsewhere(self, address: Address) -> Target:
        target = target_of(address)
        if isinstance(target, FolderTarget):
            own, other = os.path.realpath(self.folder.path), os.path.realpath(target.name)
            if os.path.join(own, "").startswith(os.path.join(other, "")) or other.startswith(os.path.join(own, "")):
                raise InvalidStateError(
                    "it is in the folder of the backups itself, or around it",
                    path=target.name,
                    next_step="choose a folder beside it, best on another disk",
                )
        return target

    def _note(self, action: str, **facts: object) -> None:
        with contextlib.suppress(QuantumMemoryError):  # without the key, nothing is noted in a folder that is encrypted
            self.folder.note(action, **facts)
