"""Purge one memory: from the folders of checkpoints and backups that are given, whatever policies and tags say.

What holds it alone goes. A backup of a folder is replaced by one without the file. Packs are written anew without the
chunks that nobody else needs, however few these are. What cannot be reached from here is said.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from quantum_memory.lifecycle.backups.purging import BackupPurging
from quantum_memory.lifecycle.repository.purging import Purged
from quantum_memory.lifecycle.wanted import Wanted

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable

    from quantum_memory.encryption.keys import OneKey
    from quantum_memory.lifecycle.backup_manager import BackupManager
    from quantum_memory.lifecycle.checkpoint_manager import CheckpointManager

    AnyPath = str | os.PathLike[str]

__all__ = ["Purged", "purge"]

DISK = "what was removed may still be on the disk: in snapshots and copies of the file system, and in cells of an SSD"


def purge(
    what: AnyPath,
    *,
    backups: Iterable[BackupManager] = (),
    checkpoints: Iterable[CheckpointManager] = (),
    key: OneKey | None = None,
    dry_run: bool = False,
) -> Purged:
    """Remove a memory from checkpoints and backups, for good; interrupted, it is simply called again.

    The file itself stays, and is named in the result, with all else that may hold it.

    Parameters
    ----------
    what
        The file of it, or what `quantum_memory.load` takes in its place, or its `content_id`. What has the same content
        goes, in whatever format, and of the backups what has the same bytes as the file, too.
    backups, checkpoints
        From where.
    key
        What opens encrypted files of it.
    dry_run
        Only say what would be done.

    Raises
    ------
    InvalidStateError
        The file is a store of several states.
    MissingFileError, WrongKeyError
    ConflictError
        Others are at work in a folder all the time.
    StorageError
    """
    wanted = Wanted.of(what, key)
    done = Purged(wanted.content_id, dry_run)
    for each in checkpoints:
        each.wait()
        gone = each.folder.purge(wanted.content_id, done)
        if not dry_run:
            each.forget(gone)
    for manager in backups:
        BackupPurging(manager.folder, wanted, done).purge()
    if wanted.path is not None:
        done.unreached.append(f"the file itself, {wanted.path}: remove it when you need it no more")
    done.unreached += [wanted.unknown] if wanted.unknown else []
    done.unreached = [*dict.fromkeys(done.unreached), DISK]
    return done
