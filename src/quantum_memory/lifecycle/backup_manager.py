"""`BackupManager`: copies of files and folders that are known to restore."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from quantum_memory.errors import ConflictError, InvalidStateError, QuantumMemoryError
from quantum_memory.formats.urls import is_url
from quantum_memory.lifecycle.backups import keys
from quantum_memory.lifecycle.backups.arguments import (
    absolute,
    codec_of,
    depth_of,
    key_of,
    policy_of,
    policy_of_numbers,
)
from quantum_memory.lifecycle.backups.checking import Checker, Depth, Report
from quantum_memory.lifecycle.backups.folder import BackupFolder, default_folder
from quantum_memory.lifecycle.backups.manifest import Backup
from quantum_memory.lifecycle.backups.offsite import Offsite
from quantum_memory.lifecycle.backups.pruning import BackupPruner
from quantum_memory.lifecycle.backups.restoring import Restored, Restorer
from quantum_memory.lifecycle.backups.saving import Wanted, save
from quantum_memory.lifecycle.policy import duration
from quantum_memory.lifecycle.repository.folder import check_name
from quantum_memory.lifecycle.repository.names import Names

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import TracebackType

    from quantum_memory.encryption.keys import OneKey
    from quantum_memory.lifecycle.backups.drill import Drill
    from quantum_memory.lifecycle.backups.manifest import BackupManifest
    from quantum_memory.lifecycle.backups.orphans import Orphans
    from quantum_memory.lifecycle.backups.repairs import Repaired
    from quantum_memory.lifecycle.backups.transfer import Exported
    from quantum_memory.lifecycle.retention import KeepPolicy

    AnyPath = str | os.PathLike[str]
    Progress = Callable[[int], object]

_OVER = " was restored over it"
"""How the description ends of what `BackupManager.restore_backup` makes of a file that it is about to replace."""


class BackupManager(Offsite, Names[Backup]):
    """Backups of files and folders, in a folder.

    Any number of threads and processes may use one folder at once. What was acknowledged survives a kill or a power
    cut.

    Parameters
    ----------
    backup_dir
        The folder; it is made, for this user alone, when something is first saved. By default ``$QMEM_BACKUPS``, or
        ``quantum-memory/backups`` among the data of this user.
    max_backups
        How many to keep of each source. None: any number.
    max_age_days
        By how many days a backup may be older than the newest of its source. None: by any number.
    compression
        Whether chunks are packed where that pays, with zstd; or the name of a codec: "zstd", "zlib", "lz4", "none".
    keep
        What to keep (see `retention`), such as ``KeepDaily(7) | KeepWeekly(4)``, in the place of the two numbers.
    key
        What opens it, where it is encrypted: a `Key`, or a passphrase as text. A folder that is made with a key is.
    durable
        False leaves out every ``fsync``: as safe against a kill, but not against a power cut.

    Attributes
    ----------
    keep
        The policy.

    Examples
    --------
    >>> with BackupManager("backups/") as manager:  # doctest: +SKIP
    ...     b = manager.create_backup("run/")
    ...     assert manager.verify_backup(b)
    ...     manager.restore_backup(b, "run-again/")
    """

    def __init__(
        self,
        backup_dir: AnyPath | None = None,
        max_backups: int | None = 10,
        max_age_days: float | None = 30,
        compression: bool | str = True,
        *,
        keep: KeepPolicy | None = None,
        key: OneKey | None = None,
        durable: bool = True,
    ) -> None:
        place = default_folder() if backup_dir is None else absolute(backup_dir)
        self.folder = BackupFolder(place, key=None if key is None else key_of(key), durable=durable)
        super().__init__(self.folder)
        self.checker = Checker(self.folder)
        self.keep = policy_of_numbers(max_backups, max_age_days) if keep is None else policy_of(keep)
        self._compression = codec_of(compression)

    # --- create

    def create_backup(
        self,
        path: AnyPath,
        description: str = "",
        *,
        tags: Iterable[str] = (),
        automatic: bool = False,
        reread: bool = False,
        progress: Progress | None = None,
    ) -> str:
        """Back up a file or a folder now, and return the id of the backup when it is durable.

        Then what the policy does not keep of this source is removed. What could not be read of a folder is said in a
        warning, and in the list of backups.

        Parameters
        ----------
        path
            A file of any kind, or a folder: of checkpoints, of backups, or any other. Others may be writing to it
            (see `backups.sources`).
        description
            What people say of it.
        tags
            Names for it, which keep it from being removed.
        automatic
            Whether it goes before those that were asked for.
        reread
            Read everything. Otherwise a file is taken for what it was at the last backup when its size, its number and
            its times, to the nanosecond, are those of then, and were at rest.
        progress
            Called with the bytes of each part of the source that is done.

        Raises
        ------
        MissingFileError, UnsafeError, StorageError, ConflictError
            There is nothing to back up, or it cannot be read; or the backup cannot be written.
        """
        if is_url(path):
            raise InvalidStateError(
                "it is an address, and backups are of files and folders",
                path=path,
                next_step="what has a tag stays there; qmem convert ADDRESS FILE.qms makes a file of it",
            )
        if isinstance(tags, str):  # of which each letter would be one
            raise InvalidStateError("tags is text", next_step="give a list of tags, also of one")
        tags = [check_name(tag, "tag") for tag in tags]
        made = self._saved(path, Wanted(description, automatic, reread), progress)
        one = made.backup.id
        for tag in tags:
            self.tag(one, tag)
        if made.problems:
            (first, why), count = made.problems[0], len(made.problems)
            warnings.warn(f"backup {one} is without {count} of the files: {first}: {why}", stacklevel=2)
        self._rotate(made)
        return one

    def _saved(self, path: AnyPath, wanted: Wanted, progress: Progress | None = None) -> BackupManifest:
        source = absolute(path)
        bad = self.checker.remembered().bad
        made = save(self.folder, source, wanted, self._compression, distrusted=bad, progress=progress)
        self.checker.written_anew(bad - self.folder.store.distrusted)
        self.folder.note("created", backup=made.backup.id, source=source)
        return made

    def before_write(self, path: AnyPath) -> None:
        """Back up a file that is about to be changed; nothing where it is not there yet."""
        if Path(absolute(path)).exists():
            self.create_backup(path, "before it was changed", automatic=True)

    def _rotate(self, made: BackupManifest) -> None:
        why = "others are at work in the folder all the time"
        try:
            plan, done = self._pruner().prune(self.keep, None)
            if done is not None or not plan.goes:
                return
        except QuantumMemoryError as error:
            why = str(error)
            if made.backup.id not in self.checker.verified() and made.backup.id in self.folder.ids():
                self.checker.full(made.backup.id)  # which raises what is wrong, if that is the new one
        warnings.warn(f"backup {made.backup.id} was made, but others were not removed: {why}", stacklevel=3)
        self.folder.note("not removed", why=why)

    def _pruner(self) -> BackupPruner:
        return BackupPruner(self.folder, self.checker)

    # --- look

    def list_backups(self, path: AnyPath | None = None) -> list[dict[str, Any]]:
        """Return what is known of each backup, or of each of a source, the newest first.

        Each has what `Backup` has, ``tags``, ``pinned``, and ``verified``: when it was last read whole and found good.
        """
        if not self.folder.is_there:
            return []
        refs, verified = self.folder.refs(), self.checker.remembered().verified
        source = None if path is None else absolute(path)
        return [
            {**self.described(one, refs), "verified": verified.get(one.id)}
            for one in reversed(self.folder.listed()[0])
            if source in {None, one.source}
        ]

    def get_backup(self, backup: str) -> dict[str, Any]:
        """Return what is known of a backup (see `list_backups`), its ``entries``, ``problem_files`` and ``skipped``."""
        made = self.folder.manifest(self.resolve(backup))
        known = self.described(made.backup, self.folder.refs())
        verified = self.checker.remembered().verified.get(made.backup.id)
        return {
            **known,
            "verified": verified,
            "entries": list(made.entries),
            "problem_files": list(made.problems),
            "skipped": list(made.skipped),
        }

    def get_latest_backup(self, path: AnyPath) -> dict[str, Any] | None:
        """Return what is known of the newest backup of a file or folder; None where there is none.

        Backups that were made of a file because another one was restored over it do not count, unless there are no
        others: who restores it once more does not want back what was replaced.
        """
        listed = self.list_backups(path)
        wanted = (one for one in listed if not (one["automatic"] and one["description"].endswith(_OVER)))
        return next(wanted, next(iter(listed), None))

    def get_backup_statistics(self) -> dict[str, Any]:
        """Return figures of the folder: backups, bytes that they hold, and bytes that they take."""
        listed, bad = self.folder.listed()
        with self.held():
            chunks, stored = len(self.folder.store), self.folder.store.nbytes
        raw = sum(one.raw_bytes for one in listed)
        checks = self.checker.remembered()
        return {
            "backups": len(listed),
            "sources": len({one.source for one in listed}),
            "damaged": len(bad),
            "verified": len(checks.verified),
            "last_verified": max(checks.verified.values(), default=None),
            "latest": listed[-1].id if listed else None,
            "oldest": listed[0].id if listed else None,
            "raw_bytes": raw,
            "stored_bytes": stored,
            "chunks": chunks,
            "ratio": raw / stored if stored else None,
            "encrypted": self.folder.is_there and self.folder.config.cipher is not None,
        }

    # --- check and restore

    def verify_backup(self, backup: str, *, depth: Depth = "full", progress: Progress | None = None) -> Report:
        """Check a backup, and return what was found: true when nothing is wrong. See `Checker.check`."""
        return self.checker.check([self.resolve(backup)], depth=depth_of(depth), progress=progress)

    def verify(self, *, depth: Depth = "full", share: float = 1.0, progress: Progress | None = None) -> Report:
        """Check all backups; see `Checker.check`."""
        return self.checker.check(depth=depth_of(depth), share=share, progress=progress)

    def restore_backup(
        self,
        backup: str,
        target_path: AnyPath | None = None,
        *,
        overwrite: bool = True,
        backup_first: bool = True,
        salvage: bool = False,
        progress: Progress | None = None,
    ) -> Restored:
        """Give back what a backup holds.

        Everything is read and compared first, and nothing at the target is touched when something is wrong. A file
        that is there is backed up before it is replaced; a folder that is there is kept beside the new one.

        Parameters
        ----------
        target_path
            Where to; by default where it came from, unless it was imported: then somebody else has said where that is.
        overwrite
            False: what is there already is a `ConflictError`.
        backup_first
            False: a file that is there is replaced without a backup of it, which it may be too damaged for.
        salvage
            Of a folder, leave out the files that are damaged, and give back the others.
        progress
            Called with the bytes of each part that is done.

        Raises
        ------
        IntegrityError, MissingError
            A part of it is damaged, or gone, or there is no such backup.
        ConflictError, UnsafeError, StorageError
        """
        one = self.resolve(backup)
        with self.folder.store.shared():
            made = self.folder.manifest(one)
            if target_path is None and made.backup.imported:
                raise ConflictError(
                    f"the backup {one} was imported, and says itself where it goes",
                    path=self.folder.path,
                    next_step=f"say where to, with --to; it came from {made.backup.source!r:.200}",
                )
            target = absolute(made.backup.source if target_path is None else target_path)
            writer = Restorer(self.folder, made, durable=self.folder.durable, salvage=salvage, progress=progress)
            saved_as = None
            if overwrite and backup_first and not made.backup.is_folder and Path(target).is_file():
                saved_as = self._save_first(target, one)
            done = writer.restore(target, overwrite=overwrite)
            done.saved_as = saved_as
        self.folder.note("restored", backup=one, to=target)
        return done

    def _save_first(self, target: str, one: str) -> str:
        try:
            return self._saved(target, Wanted(f"before {one}{_OVER}", automatic=True)).backup.id
        except QuantumMemoryError as error:
            error.message = f"what is to be replaced could not be backed up first: {error.message}"
            error.next_step = "restore to another path, or with backup_first=False (--no-backup-first)"
            raise

    # --- remove

    def delete_backup(self, backup: str) -> None:
        """Remove a backup, and the chunks that no other one needs.

        Raises
        ------
        ConflictError
            It has a tag or a pin.
        """
        with self.folder.store.alone():
            one = self.resolve(backup)
            refs = self.folder.refs()
            tags = refs.tags_of(one)
            if tags or one in refs.pins:
                raise ConflictError(
                    f"the backup {one} has a tag or a pin",
                    path=self.folder.path,
                    next_step=self.folder.command(f"{f'untag {tags[0]}' if tags else f'unpin {one}'}  # first"),
                )
            self.folder.remove([one])
            self.folder.note("deleted", backup=one)
            self.folder.collect()

    def prune(self, *, dry_run: bool = False) -> dict[str, Any]:
        """Remove what the policy of this manager does not keep; see `retention.plan_removal`.

        Returns
        -------
        dict
            ``removed`` and ``kept``, ids with the reasons, and, unless `dry_run`, what the `collection` did.
        """
        return self._pruner().pruned(self.keep, None, dry_run=dry_run)

    # --- upkeep

    def cleanup_orphaned_backups(self, *, grace: str | float = "1h", dry_run: bool = False) -> Orphans:
        """Clean what belongs to no backup, and list backups of which chunks are gone; see `backups.orphans`.

        Parameters
        ----------
        grace
            How old it has to be, such as "1h" or a number of seconds.

        Raises
        ------
        ConflictError
            Others are saving or reading.
        """
        from quantum_memory.lifecycle.backups.orphans import find_orphans  # noqa: PLC0415 - few need it

        seconds = duration(grace).total_seconds() if grace else 0.0
        return find_orphans(self.folder, seconds, dry_run=dry_run)

    def drill(
        self,
        backup: str | None = None,
        *,
        at: AnyPath | None = None,
        seed: int | None = None,
        progress: Progress | None = None,
    ) -> Drill:
        """Restore a backup, by default any, into a folder that is removed again, and prove it equal; see `drill.drill`.

        Parameters
        ----------
        at
            The folder in which the temporary one is made; by default that of the system.
        seed
            What picks one of the backups: the same among the same picks the same.
        """
        from quantum_memory.lifecycle.backups.drill import drill  # noqa: PLC0415 - as above

        one = None if backup is None else self.resolve(backup)
        place = None if at is None else os.fspath(at)
        return drill(self.folder, self.checker, one, at=place, seed=seed, progress=progress)

    def repair(self, *, dry_run: bool = False, progress: Progress | None = None) -> Repaired:
        """Save all that can be read out of damaged files, and move these aside; see `backups.repairing`.

        Parameters
        ----------
        dry_run
            Whether to say what would be done, and do nothing.
        progress
            Called with the stored bytes of each chunk that is read.
        """
        from quantum_memory.lifecycle.backups.repairing import Repairer  # noqa: PLC0415 - as above

        return Repairer(self.folder, self.checker, dry_run=dry_run, progress=progress).repair()

    # --- to and from one file

    def export_backup(
        self,
        backup: str | Iterable[str] | None,
        path: AnyPath,
        *,
        overwrite: bool = False,
        progress: Progress | None = None,
    ) -> Exported:
        """Write backups into one file, which `import_backup` takes back on any machine; see `transfer.export`.

        Of an encrypted folder it is encrypted, and opens with the same keys.

        Parameters
        ----------
        backup
            An id, several, or None for all.
        """
        from quantum_memory.lifecycle.backups import transfer  # noqa: PLC0415 - as above

        said = [backup] if isinstance(backup, str) else backup
        ids = None if said is None else [self.resolve(one) for one in said]
        return transfer.export(self.folder, ids, path, overwrite=overwrite, progress=progress)

    def import_backup(self, path: AnyPath, *, key: OneKey | None = None, progress: Progress | None = None) -> list[str]:
        """Take the backups of a file into the folder, and return their ids here; see `transfer.import_`.

        Parameters
        ----------
        key
            What opens the file, where that is not what opens the folder.
        """
        from quantum_memory.lifecycle.backups import transfer  # noqa: PLC0415 - as above

        opener = None if key is None else key_of(key)
        return transfer.import_(self.folder, path, key=opener, progress=progress)

    def export_backup_history(self, path: AnyPath, *, overwrite: bool = False) -> None:
        """Write `list_backups` to a file, as JSON. It is not encrypted."""
        from quantum_memory.lifecycle.backups import transfer  # noqa: PLC0415 - as above

        transfer.export_history(self.list_backups(), path, overwrite=overwrite, durable=self.folder.durable)

    # --- keys

    def list_keys(self) -> list[dict[str, Any]]:
        """Return what is known of each key that opens the backups, none where they are not encrypted."""
        return keys.listed(self.folder)

    def add_key(self, key: OneKey, label: str = "") -> None:
        """Let another key open the backups; see `keys.add`."""
        keys.add(self.folder, key_of(key), label)

    def remove_key(self, which: str) -> None:
        """Have a key, given by its label or number, open nothing any more; see `keys.remove`."""
        keys.remove(self.folder, which)

    def change_key(self, key: OneKey) -> None:
        """Put a key in the place of the one that this manager was given; see `keys.change`."""
        keys.change(self.folder, key_of(key))

    # --- its life

    def close(self) -> None:
        """Let go of files."""
        self.folder.store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
