"""Which of several checkpoints is read: the first that can be."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from quantum_memory.errors import IntegrityError, MissingError, QuantumMemoryError, StorageError, UnsafeError
from quantum_memory.formats.reader import read_memory

if TYPE_CHECKING:
    from quantum_memory.lifecycle.checkpoints.home import CheckpointHome
    from quantum_memory.lifecycle.checkpoints.manifest import Checkpoint
    from quantum_memory.state.memory_state import MemoryState


def first_readable(folder: CheckpointHome, ids: list[str]) -> tuple[Checkpoint, MemoryState] | None:
    """Return the first of some checkpoints that can be read, and what it holds; None where there are none.

    Those before it are passed over, with a warning.

    Raises
    ------
    IntegrityError, MissingError, UnsafeError, StorageError
        None of them can be read; the error is that of the first.
    """
    failure: QuantumMemoryError | None = None
    for one in ids:
        try:
            with folder.reading(one) as reader:
                return reader.checkpoint, read_memory(reader)
        except (IntegrityError, MissingError, StorageError, UnsafeError) as error:
            failure = failure or error
            if len(ids) > 1:
                warnings.warn(f"checkpoint {one} is passed over: {error}", stacklevel=4)
                folder.note("passed over", checkpoint=one, why=str(error))
    if failure is not None:
        failure.next_step = "qmem checkpoint verify shows which are whole; restore one of them by its id"
        raise failure
    return None


def nothing(folder: CheckpointHome) -> MissingError:
    """Return the error of somebody who wants a checkpoint where there is none."""
    return MissingError("there is no checkpoint", path=folder.path, next_step="save one first")
