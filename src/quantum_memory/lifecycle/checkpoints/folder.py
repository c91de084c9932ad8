"""A folder of checkpoints: `Repository`, with manifests of memories."""

from __future__ import annotations

import contextlib
import warnings
from typing import TYPE_CHECKING, Any

from quantum_memory.errors import IntegrityError, MissingError, QuantumMemoryError, StorageError, UnsafeError
from quantum_memory.formats.reader import read_memory
from quantum_memory.lifecycle.checkpoints import manifest as manifests
from quantum_memory.lifecycle.checkpoints.manifest import Checkpoint, Manifest
from quantum_memory.lifecycle.checkpoints.reader import CheckpointReader
from quantum_memory.lifecycle.repository.folder import Repository

if TYPE_CHECKING:
    from collections.abc import Iterator

    from quantum_memory.durability.files import Readable
    from quantum_memory.state.memory_state import MemoryState


class CheckpointFolder(Repository[Checkpoint]):
    """A folder of checkpoints on disk."""

    kind = manifests.KIND
    suffix = ".qmcp"

    def read_head(self, source: Readable, one: str) -> Checkpoint:  # noqa: ARG002 - others are sealed under it
        return manifests.read_checkpoint(source)

    def manifest(self, checkpoint: str) -> Manifest:
        """Return a manifest, every byte of it checked.

        Raises
        ------
        MissingError
            There is no such checkpoint.
        IntegrityError, UnsafeError, UnsupportedVersionError, StorageError
        """
        with self.opened(checkpoint) as source:
            made = manifests.read_manifest(source)
            self.check_id(made.checkpoint, source.name)
        return made

    @contextlib.contextmanager
    def reading(self, checkpoint: str) -> Iterator[CheckpointReader]:
        """Give a reader of a checkpoint; nothing is collected meanwhile."""
        with self.store.shared():
            made = self.manifest(checkpoint)
            size = made.checkpoint.raw_bytes
            yield CheckpointReader(made, self.store, self.manifest_path(checkpoint), size)

    def first_readable(self, ids: list[str]) -> tuple[Checkpoint, MemoryState] | None:
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
                with self.reading(one) as reader:
                    return reader.manifest.checkpoint, read_memory(reader)
            except (IntegrityError, MissingError, StorageError, UnsafeError) as error:
                failure = failure or error
                if len(ids) > 1:
                    warnings.warn(f"checkpoint {one} is passed over: {error}", stacklevel=4)
                    self.note("passed over", checkpoint=one, why=str(error))
        if failure is not None:
            failure.next_step = "qmem checkpoint verify shows which are whole; restore one of them by its id"
            raise failure
        return None

    def nothing(self) -> MissingError:
        """Return the error of somebody who wants a checkpoint where there is none."""
        return MissingError("there is no checkpoint", path=self.path, next_step="save one first")

    def verify(self, checkpoint: str) -> int:
        """Check every byte of a checkpoint, and return how many chunks it has."""
        with self.reading(checkpoint) as reader:
            return reader.check_everything()

    def named(self, one: str) -> dict[str, Any]:
        name = self._heads[one].name if one in self._heads else ""
        return {**super().named(one), **({"name": name} if name else {})}
