"""`CheckpointManager`: save a run on the way, and go on from there."""

from __future__ import annotations

import contextlib
import copy
import threading
import time
import warnings
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from quantum_memory.durability import forks
from quantum_memory.durability.interrupts import holding
from quantum_memory.formats.lazy import StateFile
from quantum_memory.formats.reader import read_memory
from quantum_memory.formats.urls import whole_path
from quantum_memory.lifecycle.checkpoints import transfer
from quantum_memory.lifecycle.checkpoints.background import Background
from quantum_memory.lifecycle.checkpoints.catalogue import Catalogue
from quantum_memory.lifecycle.checkpoints.choosing import first_readable, nothing
from quantum_memory.lifecycle.checkpoints.line import Line
from quantum_memory.lifecycle.checkpoints.pace import Pace
from quantum_memory.lifecycle.checkpoints.recording import Recorder
from quantum_memory.lifecycle.checkpoints.signals import Stopped, StopSignals
from quantum_memory.lifecycle.checkpoints.targets import rebuilt, restore_into
from quantum_memory.lifecycle.checkpoints.timer import Automatic
from quantum_memory.lifecycle.due import Never, SavePolicy
from quantum_memory.state.json_text import check_record

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Collection, Mapping
    from types import TracebackType

    from quantum_memory.lifecycle.checkpoints.manifest import Checkpoint
    from quantum_memory.lifecycle.retention import KeepPolicy

_IMPORTED = "imported"


class Resumed(NamedTuple):
    """What a run goes on from.

    Attributes
    ----------
    state
        What was saved: the target that was given, or what was rebuilt.
    progress
        What was said of the progress of the run.
    """

    state: Any
    progress: Any


class CheckpointManager(Catalogue):
    """Checkpoints of a run in a folder.

    Any number of threads and processes may use one folder at once. What was acknowledged survives a kill or a power
    cut.

    Parameters
    ----------
    checkpoint_dir
        The folder; it is made when something is first saved.
    auto_checkpoint_interval
        Seconds between the checkpoints that `start_auto_checkpoint` makes.
    max_checkpoints
        How many to keep at most: automatic ones go before others, the oldest first. By default 20, or, where `keep` is
        given, as many as that keeps.
    save
        When `step` saves (see `due`), such as ``EverySeconds(600) | EverySteps(100)``. By default never.
    keep
        What to keep (see `retention`), such as ``KeepLast(3) | KeepEvery("1d")``. By default all, up to
        `max_checkpoints`.
    branch
        The line of checkpoints to go on with.
    parameters
        What the run is started with; saved with each checkpoint, and changed by ``resume(update=...)``.
    compression
        Name of a codec for the chunks, such as "zstd"; by default they are stored as they are, and can be mapped.
    durable
        False leaves out every ``fsync``: as safe against a kill, but not against a power cut.
    share
        The share of the time that saving may take; intervals grow when it takes more. None: they never do.
    background
        Whether `step` saves in a thread, from a copy of the state, which takes its memory once more.
    signals
        Whether, inside ``with``, SIGINT, SIGTERM and SIGUSR1 make the next `step` save and stop the program.
    on_error
        Called with what goes wrong in the background. It is raised by the next call as well.

    Attributes
    ----------
    parameters : dict
    lock : threading.RLock
        Held while a target is looked at or gets its state back; another thread that changes it holds it, too.

    Examples
    --------
    >>> with CheckpointManager("run/", save=EverySteps(100)) as cm:  # doctest: +SKIP
    ...     state, progress = cm.resume() or (initial_state(), 0)
    ...     for step in range(progress, 1000):
    ...         state = evolve(state)
    ...         cm.step(state, progress=step + 1)
    """

    def __init__(
        self,
        checkpoint_dir: str | os.PathLike[str] = "checkpoints",
        *,
        auto_checkpoint_interval: float | None = None,
        max_checkpoints: int | None = None,
        save: SavePolicy | None = None,
        keep: KeepPolicy | None = None,
        branch: str = "main",
        parameters: Mapping[str, Any] | None = None,
        compression: str = "none",
        durable: bool = True,
        share: float | None = 0.1,
        background: bool = True,
        signals: bool = True,
        on_error: Callable[[BaseException], object] | None = None,
    ) -> None:
        super().__init__(checkpoint_dir, durable=durable)
        self.parameters = dict(parameters or {})
        self.lock = threading.RLock()
        self._line = Line(self.folder, branch)
        self._pace = Pace(Never() if save is None else save, auto_checkpoint_interval, share)
        self._in_background = background
        self._background = Background("checkpoint", on_error)
        self._recorder = Recorder(
            self.folder, self._line, self._pace, self._background, self._verified,
            keep=keep, max_checkpoints=max_checkpoints, compression=compression,
        )  # fmt: skip
        self._signals = StopSignals() if signals else None
        self._automatic = Automatic(self._pace, self._background)
        forks.tell(self)

    def forked(self) -> None:
        """Let go of the lock of the process that this one was forked from."""
        self.lock = threading.RLock()

    # --- save

    def create_checkpoint(
        self,
        target: Any,
        name: str = "",
        description: str = "",
        *,
        progress: Any = None,
        metrics: Mapping[str, float] | None = None,
        automatic: bool = False,
        finished: bool = False,
    ) -> str:
        """Save a checkpoint now, and return its id when it is durable.

        Parameters
        ----------
        target
            A `QuantumClassicalInterface`, a state or memory, anything with ``state_dict`` and ``load_state_dict``, or a
            tree of such things and of plain values and arrays (see `targets.captured`).
        name, description
            What people call it, and say of it.
        progress
            How far the run is: a number, or whatever JSON has.
        metrics
            Figures by name, which policies look at.
        automatic
            Whether it goes before those that were asked for.
        finished
            Whether the run has ended.

        Raises
        ------
        InvalidStateError
            Something in the target cannot be kept exactly.
        StorageError
            The operating system refused; what was there before is untouched.
        QuantumMemoryError
            What went wrong in the background since the last call; this checkpoint was saved all the same.
        """
        earlier = self._background.failure()
        try:
            with contextlib.ExitStack() as held:
                held.enter_context(holding(self.lock))
                flat, said = self._recorder.taken(
                    target, name=name, description=description, automatic=automatic, progress=progress,
                    metrics=metrics or {}, finished=finished, parameters=self.parameters,
                )  # fmt: skip
                made = self._recorder.save(flat, said, held.close).id
        except BaseException as error:
            if earlier is not None:
                error.add_note(f"Before that, in the background: {earlier}")
            raise
        if earlier is not None:
            earlier.add_note(f"Checkpoint {made} was saved all the same.")
            raise earlier
        return made

    def step(self, target: Any, progress: Any = None, **metrics: float) -> bool:
        """Save a checkpoint if one is due, and tell whether it is being saved.

        When nothing is due this takes microseconds. When something is, the caller is stopped while the state is copied,
        and a thread saves the copy. While it is at it nothing else is due.

        Parameters
        ----------
        target
            See `create_checkpoint`.
        progress
            How far the run is; policies that count steps need a whole number.
        metrics
            Figures by name.

        Raises
        ------
        Stopped
            A signal asked to stop: the state was saved, and is durable.
        QuantumMemoryError
            What went wrong in the background since the last call, as well as what `create_checkpoint` raises.
        """
        if self._signals is not None and self._signals.asked:
            self._stop(target, progress, metrics)
        self._background.check()
        if self._background.busy or not self._pace.is_due(progress, metrics):
            return False
        facts = {"automatic": True, "progress": progress, "metrics": metrics}
        if self._in_background:
            return self._begin(target, facts)
        start = time.monotonic()
        with contextlib.ExitStack() as held:
            held.enter_context(holding(self.lock))
            flat, said = self._recorder.taken(target, **facts, parameters=self.parameters)
            self._recorder.save_timed(flat, said, start, held.close)
        return True

    def finish(self, target: Any, progress: Any = None, **metrics: float) -> str:
        """Save the end of a run, and return the id; `resume` gives it back, and the run can be extended from there.

        It raises what `create_checkpoint` and, when a signal asked to stop, `step` raise; the end is saved by then.
        """
        self._background.rest()
        made = self.create_checkpoint(target, progress=progress, metrics=metrics, finished=True)
        if self._signals is not None and self._signals.asked:
            number, self._signals.asked = self._signals.asked, 0
            raise Stopped(number, made)
        return made

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until what is being saved is durable, and tell whether it is.

        Raises
        ------
        QuantumMemoryError
            What went wrong in the background.
        """
        return self._background.wait(timeout)

    def _begin(self, target: Any, facts: dict[str, Any]) -> bool:
        """Copy the state, and save the copy in the background; tell whether nothing else was being saved."""
        start = time.monotonic()
        with self.lock:
            if self._background.busy:  # another thread was here first, and what it copied is where this would go
                return False
            return self._recorder.begin(*self._recorder.taken(target, **facts, parameters=self.parameters), start)

    def _stop(self, target: Any, progress: Any, metrics: Mapping[str, float]) -> None:
        number = 0 if self._signals is None else self._signals.asked
        self._background.rest()
        failure = self._background.failure()
        if failure is not None:  # all the more reason to save
            warnings.warn(f"an earlier checkpoint could not be saved: {failure}", stacklevel=3)
        made = self.create_checkpoint(
            target, description=f"stopped by signal {number}", progress=progress, metrics=metrics, automatic=True
        )
        if self._signals is not None:
            self._signals.asked = 0
        raise Stopped(number, made) from failure

    # --- go back

    def resume(self, target: Any = None, *, update: Mapping[str, Any] | None = None) -> Resumed | None:
        """Return the newest checkpoint of the branch that can be read, or None where there is none.

        A damaged one is passed over with a warning.

        Parameters
        ----------
        target
            What gets its state back, in place; without it the state is rebuilt.
        update
            Parameters to go on with in the place of those that were saved.

        Raises
        ------
        IntegrityError
            There are checkpoints, and none of them can be read.
        """
        self.wait()
        changed = copy.deepcopy(dict(update or {}))
        check_record(changed)
        found = self._good(target, self._line.newest_first)
        if found is None:
            self.parameters.update(changed)
            return None
        checkpoint, state = found
        self.parameters = {**self.parameters, **checkpoint.parameters, **changed}
        self._take_up(checkpoint)
        self.folder.note("resumed", checkpoint=checkpoint.id, update=changed or None)
        return Resumed(state, checkpoint.progress)

    def restore_checkpoint(self, target: Any, checkpoint_id: str | None = None, *, fallback: bool = False) -> Any:
        """Give a target back the state of a checkpoint, in place, and return it.

        All of the checkpoint is read and checked before the target is touched; when anything fails, it is as it was.

        Parameters
        ----------
        target
            What was saved, or something of the same shape.
        checkpoint_id
            Which: an id, the beginning of one, a tag, or a name. By default the newest of the branch.
        fallback
            When that is damaged, take the newest before it that is not, with a warning. The default is to do so only
            where no checkpoint was asked for by name.

        Raises
        ------
        MissingError
            There is no such checkpoint.
        IntegrityError
            It is damaged.
        InvalidStateError
            It does not fit the target.
        """
        self.wait()
        several = fallback or checkpoint_id is None
        found = self._good(target, lambda: self._back_from(checkpoint_id)[: None if several else 1])
        if found is None:
            raise nothing(self.folder)
        self._take_up(found[0])
        self.folder.note("restored", checkpoint=found[0].id, name=found[0].name or None)
        return found[1]

    def restore(self, checkpoint_id: str | None = None, *, only: str | None = None, mmap: bool = False) -> Any:
        """Return what a checkpoint holds, without a target.

        Parameters
        ----------
        checkpoint_id
            See `restore_checkpoint`.
        only
            A pattern of names, such as ``encoder.layer.3.*``: nothing else is read; the result is a dict by name (see
            `quantum_memory.load`).
        mmap
            Map arrays into memory, where they are in one piece and not compressed, instead of copying them.
        """
        self.wait()
        with self.held(), self.folder.reading(self._back_from(checkpoint_id)[0]) as reader:
            if only is not None:
                return StateFile(reader).select(only, mmap=mmap)
            return rebuilt(reader.checkpoint.kind, read_memory(reader, mmap=mmap))

    def _back_from(self, checkpoint_id: str | None) -> list[str]:
        """Return the id that is meant, and those that were saved before it, the newest first."""
        return self._line.back_from(None if checkpoint_id is None else self.resolve(checkpoint_id))

    def _good(self, target: Any, choose: Callable[[], list[str]]) -> tuple[Checkpoint, Any] | None:
        """Return the first of those chosen that can be read, and its state, given to the target."""
        with self.held():  # nobody removes one between the choice and the reading
            found = first_readable(self.folder, choose())
        if found is None:
            return None
        checkpoint, memory = found
        self._verified.add(checkpoint.id)
        if target is None:
            return checkpoint, rebuilt(checkpoint.kind, memory)
        with self.lock:
            return checkpoint, restore_into(target, checkpoint.kind, memory)

    def _take_up(self, checkpoint: Checkpoint) -> None:
        """Go on from a checkpoint."""
        self._line.go_on_from(checkpoint.id)
        self._pace.resumed(checkpoint.progress, (one.metrics for one in self.folder.listed()[0]))

    # --- lines of checkpoints, and what goes

    def branch(self, name: str, at: str | None = None) -> None:
        """Go on in another line of checkpoints.

        Parameters
        ----------
        name
            Of the branch, a new one or one that there is.
        at
            The checkpoint that the next one continues; by default the newest of that branch, or, of a new branch, the
            last of this manager.
        """
        self._line.change(name, None if at is None else self.resolve(at))

    def forget(self, ids: Collection[str]) -> None:
        super().forget(ids)
        self._line.forget(ids)

    def prune(self, *, dry_run: bool = False) -> dict[str, Any]:
        """Remove what the policy of this manager does not keep; see `retention.plan_removal`.

        Returns
        -------
        dict
            ``removed`` and ``kept``, ids with the reasons, and, unless `dry_run`, what the `collection` did.
        """
        return self._recorder.prune(dry_run=dry_run)

    # --- from other files

    def import_checkpoint(
        self,
        path: str | os.PathLike[str],
        name: str = "",
        *,
        state_id: str | None = None,
        branch: str | None = None,
    ) -> str:
        """Save what a file holds as a checkpoint, and return its id; every byte of the file is checked.

        What `quantum_memory.load` takes is taken here, too: an address, or a name in a folder or a store.

        A file that was exported has its name, progress, metrics and parameters again; its id is a new one.

        Parameters
        ----------
        name
            What people call it.
        state_id
            Which state of an HDF5 store.
        branch
            The line of checkpoints that it is the newest of then. By default that of this manager where it has none
            yet, and otherwise "imported", so that `resume` does not take it for the run.
        """
        if branch is None:
            branch = _IMPORTED if self._line.newest() else self._line.branch
        made = self._recorder.saver.save(*transfer.imported(path, name, branch, state_id))
        self.folder.note("imported", checkpoint=made.id, path=whole_path(path))
        return made.id

    # --- automatically

    def start_auto_checkpoint(self, target: Any) -> None:
        """Save a target every `auto_checkpoint_interval` seconds, in a thread, until `stop_auto_checkpoint`.

        The state is copied under `lock`; whoever changes the target in pieces holds that meanwhile.

        Raises
        ------
        InvalidStateError
            The manager was given no interval, or is at it already.
        """
        self._automatic.start(lambda: self._begin(target, {"automatic": True}))

    def stop_auto_checkpoint(self) -> None:
        """Stop that, and wait for a save that is on its way.

        Raises
        ------
        QuantumMemoryError
            What went wrong in the background.
        """
        try:
            self._automatic.stop()
        finally:
            self.wait()

    # --- its life

    def close(self) -> None:
        """Wait for what is being saved, and let go of files and signals.

        Raises
        ------
        QuantumMemoryError
            What went wrong in the background.
        """
        try:
            self.stop_auto_checkpoint()
        finally:
            if self._signals is not None:
                self._signals.restore()
            self.folder.close()

    def __enter__(self) -> Self:
        if self._signals is not None:
            self._signals.install()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asked = self._signals.asked if self._signals is not None and self._signals.in_force else 0
        try:
            self.close()
        except Exception as failure:
            if error is None:
                raise
            error.add_note(f"a checkpoint could not be saved either: {failure}")
        if asked and error is None:  # after the last step, which would have seen to it
            raise Stopped(asked, self._line.last)
