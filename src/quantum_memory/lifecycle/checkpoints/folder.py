"""A folder of checkpoints on a disk: `Repository`, with manifests of memories; see `home.CheckpointHome`."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from quantum_memory.lifecycle.checkpoints import manifest as manifests
from quantum_memory.lifecycle.checkpoints.manifest import Checkpoint, Manifest
from quantum_memory.lifecycle.checkpoints.purging import CheckpointPurging
from quantum_memory.lifecycle.checkpoints.reader import CheckpointReader
from quantum_memory.lifecycle.checkpoints.writer import write_arrays
from quantum_memory.lifecycle.repository.folder import Repository
from quantum_memory.state.document import content_id

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator

    from quantum_memory.durability.files import Readable
    from quantum_memory.lifecycle.checkpoints.saving import Flat, Said
    from quantum_memory.lifecycle.repository.purging import Purged


class CheckpointFolder(Repository[Checkpoint]):
    """A folder of checkpoints on disk."""

    kind = manifests.KIND
    suffix = ".qmcp"

    def __init__(self, path: str | os.PathLike[str], *, durable: bool = True) -> None:
        super().__init__(path, durable=durable)
        self._made = False

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

    def head(self, checkpoint: str) -> Checkpoint:
        return self.manifest(checkpoint).checkpoint

    @contextlib.contextmanager
    def reading(self, checkpoint: str) -> Iterator[CheckpointReader]:
        """Give a reader of a checkpoint; nothing is collected meanwhile."""
        with self.store.shared():
            made = self.manifest(checkpoint)
            size = made.checkpoint.raw_bytes
            yield CheckpointReader(made, self.store, self.manifest_path(checkpoint), size)

    def check(
        self,
        checkpoint: str,
        progress: Callable[[int], object] | None = None,
        known: dict[bytes, int] | None = None,
    ) -> int:
        with self.reading(checkpoint) as reader:
            return reader.check_everything(progress, known=known)

    def stored(self) -> tuple[int | None, int]:
        with self.held():
            return len(self.store), self.store.nbytes

    def write(
        self,
        flat: Flat,
        said: Said,
        compression: str,
        taken: Callable[[], object] | None,
        progress: Callable[[int], object] | None,
    ) -> Checkpoint:
        if not self._made:
            self.make()
            self._made = True
        with self.store.shared():
            with self.store.writer() as writer:
                arrays = write_arrays(writer, flat.arrays, compression, progress)
                if taken is not None:
                    taken()
            identities = {path: array.identity for path, array in arrays.items()}
            raw_bytes = sum(array.nbytes for array in arrays.values())
            checkpoint = said.head(flat, content_id(flat.document, identities), raw_bytes, writer.new_bytes)
            made = Manifest(checkpoint, flat.document, dict(flat.record), arrays)
            self.store.settle(made.chunks(), written=writer.chunks > 0)
            self.publish(checkpoint, manifests.written(made))
        return checkpoint

    def purge(self, content_id: str | None, done: Purged) -> list[str]:
        return CheckpointPurging(self, content_id, done).purge()

    def close(self) -> None:
        self.store.close()

    def named(self, one: str) -> dict[str, Any]:
        name = self._heads[one].name if one in self._heads else ""
        return {**super().named(one), **({"name": name} if name else {})}
