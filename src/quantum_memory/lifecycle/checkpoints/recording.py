"""Save the checkpoints of a run one after another, now or in the background, and keep no more than a policy says."""

from __future__ import annotations

import copy
import dataclasses
import time
import warnings
from typing import TYPE_CHECKING, Any

from quantum_memory.errors import QuantumMemoryError
from quantum_memory.lifecycle.checkpoints.pruning import CheckpointPruner
from quantum_memory.lifecycle.checkpoints.saving import Flat, Said, Saver, flat_of
from quantum_memory.lifecycle.checkpoints.snapshot import Staging
from quantum_memory.lifecycle.checkpoints.targets import captured
from quantum_memory.lifecycle.policy import whole
from quantum_memory.lifecycle.retention import KeepAll, KeepPolicy
from quantum_memory.state.json_text import check_record

if TYPE_CHECKING:
    from collections.abc import Callable

    from quantum_memory.lifecycle.checkpoints.background import Background
    from quantum_memory.lifecycle.checkpoints.home import CheckpointHome
    from quantum_memory.lifecycle.checkpoints.line import Line
    from quantum_memory.lifecycle.checkpoints.manifest import Checkpoint
    from quantum_memory.lifecycle.checkpoints.pace import Pace

_SEVERAL = 20
"""How many checkpoints are kept where nobody says what to keep."""


class Recorder:
    """Saves what a `CheckpointManager` is given.

    Parameters
    ----------
    folder
        Where to.
    line
        What the checkpoints continue.
    pace
        Is told of the saves that nobody asked for.
    background
        The thread in which copies are saved.
    verified
        Ids of those that were read back whole; it is kept up to date.
    keep, max_checkpoints, compression
        See `CheckpointManager`.

    Attributes
    ----------
    saver
        What writes.
    """

    def __init__(
        self,
        folder: CheckpointHome,
        line: Line,
        pace: Pace,
        background: Background,
        verified: set[str],
        *,
        keep: KeepPolicy | None,
        max_checkpoints: int | None,
        compression: str,
    ) -> None:
        self.saver = Saver(folder, compression)
        self._folder, self._line, self._pace, self._background = folder, line, pace, background
        self._pruner = CheckpointPruner(folder, verified)
        self._keep = KeepAll() if keep is None else keep
        self._at_most = _SEVERAL if keep is None and max_checkpoints is None else max_checkpoints
        if self._at_most is not None:
            whole(self._at_most, "max_checkpoints")
        self._staging = Staging()

    def taken(self, target: Any, **facts: Any) -> tuple[Flat, Said]:
        """Take a target apart, which nobody changes meanwhile, and give it its place in the order of saving."""
        held = captured(target)
        flat = flat_of(held.kind, held.memory)
        # Copies: the caller may change them before they are written.
        facts["progress"], facts["parameters"] = copy.deepcopy((facts.get("progress"), dict(facts["parameters"])))
        said = Said(**facts, branch=self._line.branch)
        if said.parameters or not isinstance(said.progress, int | str | None):
            check_record({"progress": said.progress, "parameters": said.parameters})
        return flat, self._line.placed(said, self.saver)

    def save(self, flat: Flat, said: Said, taken: Callable[[], object] | None = None) -> Checkpoint:
        """Save what was taken, and remove what is not kept any more; see `Saver.save`."""
        try:
            checkpoint = self.saver.save(flat, said, taken=taken)
        except BaseException:
            self._line.give_up(said)
            raise
        if not isinstance(self._keep, KeepAll) or self._at_most is not None:
            self._prune(checkpoint)
        return checkpoint

    def save_timed(self, flat: Flat, said: Said, start: float, taken: Callable[[], object] | None = None) -> None:
        """Save what was taken, and take note of how long that took.

        Parameters
        ----------
        start
            When it began, by `time.monotonic`.
        """
        self.save(flat, said, taken)
        self._pace.saved(said.progress, said.metrics, time.monotonic() - start)

    def begin(self, flat: Flat, said: Said, start: float) -> bool:
        """Copy what was taken, and save the copy in the background; tell whether nothing else was being saved."""
        begun = False
        try:
            still = dataclasses.replace(flat, arrays=self._staging.take(flat.arrays))
            begun = self._background.start(lambda: self.save_timed(still, said, start))
        finally:
            if not begun:
                self._line.give_up(said)
        return begun

    def prune(self, *, dry_run: bool) -> dict[str, Any]:
        """Remove what is not kept; see `CheckpointManager.prune`."""
        return self._pruner.pruned(self._keep, self._at_most, dry_run=dry_run)

    def _prune(self, saved: Checkpoint) -> None:
        why = "others are at work in the folder all the time"
        try:
            plan, done = self._pruner.prune(self._keep, self._at_most)
            if done is not None or not plan.goes:
                return
        except QuantumMemoryError as error:
            why = str(error)
            if saved.id not in self._pruner.verified and saved.id in self._folder.ids():
                self._folder.check(saved.id)  # which raises what is wrong, if that is the new one
        # It is there, and whoever called must not take it for lost.
        warnings.warn(f"checkpoint {saved.id} was saved, but others were not removed: {why}", stacklevel=4)
        self._folder.note("not removed", why=why)
