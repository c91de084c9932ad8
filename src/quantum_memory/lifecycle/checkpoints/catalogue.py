"""What there is in a folder of checkpoints, and the names that people give them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from quantum_memory.errors import (
    ConflictError,
    IntegrityError,
    MissingError,
    StorageError,
    UnsafeError,
    UnsupportedVersionError,
)
from quantum_memory.formats.urls import whole_path
from quantum_memory.lifecycle.checkpoints import transfer
from quantum_memory.lifecycle.checkpoints.comparing import compare
from quantum_memory.lifecycle.checkpoints.home import home_of
from quantum_memory.lifecycle.checkpoints.manifest import Checkpoint
from quantum_memory.lifecycle.repository.names import Names

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Collection, Iterator

    from quantum_memory.errors import QuantumMemoryError
    from quantum_memory.formats.verbs import Saved
    from quantum_memory.lifecycle.checkpoints.comparing import Comparison


class Catalogue(Names[Checkpoint]):
    """The checkpoints of a folder.

    Parameters
    ----------
    checkpoint_dir
        The folder.
    durable
        Whether to ``fsync``.
    """

    def __init__(self, checkpoint_dir: str | os.PathLike[str], *, durable: bool = True) -> None:
        self.folder = home_of(checkpoint_dir, durable=durable)
        super().__init__(self.folder)
        self._verified: set[str] = set()

    def is_called(self, one: Checkpoint, name: str) -> bool:
        return one.name == name

    def list_checkpoints(self) -> list[dict[str, Any]]:
        """Return what is known of each checkpoint, the newest first, with ``tags`` and ``pinned``."""
        refs = self.folder.refs()
        return [self.described(one, refs) for one in reversed(self.folder.listed()[0])]

    def get_checkpoint(self, checkpoint_id: str) -> dict[str, Any]:
        """Return what is known of a checkpoint; see `list_checkpoints`."""
        return self.described(self.folder.head(self.resolve(checkpoint_id)), self.folder.refs())

    def compare_checkpoints(self, first: str, second: str) -> Comparison:
        """Return what differs between two checkpoints, and by how much; each is named as `resolve` takes it."""
        ids = self.resolve(first), self.resolve(second)
        with self.folder.reading(ids[0]) as old, self.folder.reading(ids[1]) as new:
            return compare(old, new)

    def get_statistics(self) -> dict[str, Any]:
        """Return figures of the folder: checkpoints, bytes that they hold, and bytes that they take."""
        listed, bad = self.folder.listed()
        chunks, stored = self.folder.stored()
        raw = sum(one.raw_bytes for one in listed)
        return {
            "checkpoints": len(listed),
            "automatic": sum(one.automatic for one in listed),
            "manual": sum(not one.automatic for one in listed),
            "damaged": len(bad),
            "branches": sorted({one.branch for one in listed}),
            "latest": listed[-1].id if listed else None,
            "raw_bytes": raw,
            "stored_bytes": stored,
            "chunks": chunks,
            "ratio": raw / stored if stored else None,
        }

    def verify(self, checkpoint_id: str | None = None) -> dict[str, str | None]:
        """Check every byte of a checkpoint, or of all, and return what is wrong with each; None for nothing."""
        bad = self.folder.listed()[1] if checkpoint_id is None else {}
        found: dict[str, str | None] = {one: str(error) for one, error in bad.items()}
        for one, error in self.verifying(None if checkpoint_id is None else self.resolve(checkpoint_id)):
            if not isinstance(error, IntegrityError | MissingError | None):
                raise error
            found[one] = None if error is None else str(error)
        return found

    def verifying(
        self, one: str | None = None, progress: Callable[[int], object] | None = None
    ) -> Iterator[tuple[str, QuantumMemoryError | None]]:
        """Check every byte of a checkpoint, or of all that are listed, and give what is wrong, the newest first.

        A chunk that several have is read once, unless something is wrong with it.

        Parameters
        ----------
        one
            Its id.
        progress
            Called with the raw bytes of each chunk that is done.
        """
        known: dict[bytes, int] = {}
        for each in [head.id for head in reversed(self.folder.listed()[0])] if one is None else [one]:
            try:
                self.folder.check(each, progress, known)
            except (IntegrityError, MissingError, StorageError, UnsafeError, UnsupportedVersionError) as error:
                if one is not None or not isinstance(error, MissingError) or each in self.folder.ids():
                    yield each, error
                # otherwise others have removed it meanwhile
            else:
                self._verified.add(each)
                yield each, None

    def delete_checkpoint(self, checkpoint_id: str) -> None:
        """Remove a checkpoint, and the chunks that no other one needs.

        Raises
        ------
        ConflictError
            It is pinned or has a tag, or others are at work in the folder all the time.
        """
        one = self.resolve(checkpoint_id)
        with self.folder.alone():
            refs = self.folder.refs()
            if one in refs.pins or refs.tags_of(one):
                raise ConflictError(
                    "it is pinned or has a tag", path=self.folder.manifest_path(one), next_step="take that away first"
                )
            self.folder.remove([one])
            self.folder.note("deleted", checkpoint=one)
            self.folder.collect()
        self.forget([one])

    def forget(self, ids: Collection[str]) -> None:
        """Take note that these checkpoints are gone."""
        self._verified.difference_update(ids)

    def export_checkpoint(self, checkpoint_id: str, path: str | os.PathLike[str], **options: Any) -> Saved:
        """Save what a checkpoint holds as a file of its own, whose suffix says the format, or at an address.

        Parameters
        ----------
        options
            See `quantum_memory.save`.
        """
        one = self.resolve(checkpoint_id)
        with self.folder.reading(one) as reader:
            made = transfer.export(reader, path, options)
        self.folder.note("exported", checkpoint=one, path=whole_path(made.path))
        return made
