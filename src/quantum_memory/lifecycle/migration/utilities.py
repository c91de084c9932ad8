"""`MigrationUtilities`: plan, apply, check, take back and make final the migration of a folder."""

from __future__ import annotations

import os
import tempfile
import weakref
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from quantum_memory._version import __version__
from quantum_memory.durability.atomic import DurableFile
from quantum_memory.durability.files import ReadableFile
from quantum_memory.formats import legacy
from quantum_memory.formats.hdf5_guard import SIGNATURE
from quantum_memory.formats.legacy import stores
from quantum_memory.lifecycle.migration import undo
from quantum_memory.lifecycle.migration.apply import Applied, apply
from quantum_memory.lifecycle.migration.names import new_ids
from quantum_memory.lifecycle.migration.plan import Header, Plan, write_plan
from quantum_memory.lifecycle.migration.survey import Inline, Survey
from quantum_memory.lifecycle.migration.workplace import real_root
from quantum_memory.lifecycle.repository.folder import now

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Executor

    from quantum_memory.formats.registry import Path

_IN_MEMORY = 16 << 20


@dataclass(frozen=True)
class MigrationCheck:
    """What `MigrationUtilities.verify_migration` found. It is true when nothing was lost.

    Attributes
    ----------
    original, migrated
        The files.
    states
        How many states were compared.
    differences
        What differs, a sentence each.
    """

    original: str
    migrated: str
    states: int
    differences: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return not self.differences

    def to_dict(self) -> dict[str, Any]:
        """Return it as a plain dict."""
        return asdict(self)


class MigrationUtilities:
    """Migrate folders of files of the first implementation.

    Every file becomes one of the current version, in the format of its suffix and under its name. Originals are kept in
    ``.qmem-migration`` inside the folder, until the migration is made final.

    Examples
    --------
    >>> utils = MigrationUtilities()
    >>> plan = utils.generate_migration_plan("states/", "plan.json")  # doctest: +SKIP
    >>> utils.apply_migration_plan(plan)  # doctest: +SKIP
    >>> utils.rollback_migration("states/")  # doctest: +SKIP
    """

    def generate_migration_plan(
        self,
        folder: Path,
        out: Path | None = None,
        *,
        allow_pickle: bool = False,
        executor: Executor | None = None,
        progress: Callable[[int], object] | None = None,
    ) -> Plan:
        """Look at every file of a folder, and write down what is to be done with it. The files are only read.

        Parameters
        ----------
        folder
            Which; symbolic links in it are not followed.
        out
            Where the plan goes; by default into memory, and past 16 MiB into a temporary file.
        allow_pickle
            Whether pickles are read, by a reader that runs nothing, and migrated.
        executor
            What looks into the files; by default this thread.
        progress
            Called with how many files are done, after each group.

        Raises
        ------
        MissingError
            There is no such folder.
        StorageError
            The folder cannot be read, or the plan not be written.
        """
        root = real_root(folder)
        header = Header(root, now().isoformat(timespec="seconds"), __version__, allow_pickle)
        survey = Survey(root, allow_pickle=allow_pickle, executor=executor or Inline(), progress=progress)
        there = os.statvfs(root)
        free = there.f_bavail * there.f_frsize
        if out is not None:
            with DurableFile(out) as sink:
                write_plan(sink, header, survey.entries(), lambda: survey.others, free)
            return Plan.open(out)
        text = tempfile.SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115 - it lives as long as the plan

        @contextmanager
        def opened() -> Iterator[BinaryIO]:
            text.seek(0)
            yield cast("BinaryIO", text)

        try:
            write_plan(text, header, survey.entries(), lambda: survey.others, free)
            plan = Plan(opened)
        except BaseException:
            text.close()
            raise
        weakref.finalize(plan, text.close)
        return plan

    def apply_migration_plan(
        self,
        plan: Plan | Path,
        *,
        executor: Executor | None = None,
        dry_run: bool = False,
        continue_on_error: bool = False,
        progress: Callable[[int], object] | None = None,
    ) -> Applied:
        """Migrate the files of a plan, or go on with that where it was interrupted; see `migration.apply.apply`."""
        made = plan if isinstance(plan, Plan) else Plan.open(plan)
        return apply(
            made,
            when=now().isoformat(timespec="seconds"),
            executor=executor,
            dry_run=dry_run,
            continue_on_error=continue_on_error,
            progress=progress,
        )

    def batch_migrate_directory(
        self,
        folder: Path,
        *,
        dry_run: bool = False,
        continue_on_error: bool = False,
        allow_pickle: bool = False,
        executor: Executor | None = None,
    ) -> Applied:
        """Plan and apply in one go; see `generate_migration_plan` and `apply_migration_plan`.

        With `dry_run` everything is read, and nothing is written.
        """
        plan = self.generate_migration_plan(folder, allow_pickle=allow_pickle, executor=executor)
        return self.apply_migration_plan(plan, executor=executor, dry_run=dry_run, continue_on_error=continue_on_error)

    def verify_migration(self, original: Path, migrated: Path, *, allow_pickle: bool = False) -> MigrationCheck:
        """Read an original and what it became, every byte checked, and say what differs.

        Parameters
        ----------
        original
            The old file. The archive of tensors that belongs to it has to be beside it, as it is where originals are
            kept.
        migrated
            The new one.
        allow_pickle
            See `quantum_memory.load`.

        Raises
        ------
        IntegrityError, InvalidStateError, MissingFileError, UnsafeError, UnsupportedVersionError
            One of them cannot be read.
        """
        from quantum_memory.formats.compare import compare  # noqa: PLC0415 - what it needs is heavy

        old, new = os.fspath(original), os.fspath(migrated)
        here, there = (_ids(path) for path in (old, new))
        names = sorted({*here, *there}, key=str)
        differences = [f"{name}: only in the original" for name in names if name not in there]
        differences += [f"{name}: only in the new file" for name in names if name not in here]
        for name in (name for name in names if name in here and name in there):
            found = compare(old, new, state_id_a=here[name], state_id_b=there[name], allow_pickle=allow_pickle)
            shown = "" if name is None else f"{name}: "
            differences += [f"{shown}{one}" for one in found.differences]
            if not found.same_content and not found.differences:
                raise AssertionError("two contents differ, and nothing in them does")
        return MigrationCheck(old, new, len(names), differences)

    def migration_status(self, folder: Path) -> list[undo.Status]:
        """Return how far each migration of a folder is, the oldest first."""
        return undo.statuses(folder)

    def rollback_migration(
        self, folder: Path, plan_id: str | None = None, *, progress: Callable[[int], object] | None = None
    ) -> undo.RolledBack:
        """Give the originals their names again; see `migration.undo.rollback`."""
        return undo.rollback(folder, plan_id, progress=progress)

    def commit_migration(self, folder: Path, plan_id: str | None = None) -> undo.Committed:
        """Remove the originals, for good; see `migration.undo.commit`."""
        return undo.commit(folder, plan_id)


def _ids(path: str) -> dict[str | None, str | None]:
    """Return the ids of the states in a store, by those that they get in one of today; of one state, None."""
    from quantum_memory.formats.hdf5_storage import HDF5QuantumStorage  # noqa: PLC0415 - only for HDF5

    with ReadableFile(path) as source:
        head = source.read(0, min(len(SIGNATURE), source.size))
        if not head.startswith(SIGNATURE):
            return {None: None}
        if stores.is_store(source):
            return {new: old for old, new in new_ids(legacy.ids(source)).items()}
    return {state["id"]: state["id"] for state in HDF5QuantumStorage(path).list_states()}
