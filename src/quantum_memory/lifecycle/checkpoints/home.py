"""Where checkpoints are kept: a folder on a disk, or an address in object storage."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from quantum_memory.formats.reader import Reader
from quantum_memory.formats.urls import URL, is_url, local_path, storage
from quantum_memory.lifecycle.checkpoints.manifest import Checkpoint
from quantum_memory.lifecycle.repository.home import Home

if TYPE_CHECKING:
    import contextlib
    import os
    from collections.abc import Callable

    from quantum_memory.lifecycle.checkpoints.saving import Flat, Said
    from quantum_memory.lifecycle.repository.purging import Purged


class OpenCheckpoint(Reader, Protocol):
    """A checkpoint that is open.

    Attributes
    ----------
    on_close
        Called when it is closed.
    """

    on_close: Callable[[], object] | None

    @property
    def checkpoint(self) -> Checkpoint:
        """What is said of it."""


class CheckpointHome(Home[Checkpoint], Protocol):
    """Where checkpoints are.

    Attributes
    ----------
    durable
        Whether what is acknowledged survives a power cut.
    """

    durable: bool

    # --- what is there

    def head(self, checkpoint: str) -> Checkpoint:
        """Return what is said of a checkpoint, which can be read, but for its chunks.

        Raises
        ------
        MissingError
            There is no such checkpoint.
        IntegrityError, UnsafeError, UnsupportedVersionError, StorageError
        """

    def reading(self, checkpoint: str) -> contextlib.AbstractContextManager[OpenCheckpoint]:
        """Give a reader of a checkpoint; nothing that it needs is removed meanwhile."""

    def check(
        self,
        checkpoint: str,
        progress: Callable[[int], object] | None = None,
        known: dict[bytes, int] | None = None,
    ) -> int:
        """Check every byte of a checkpoint, and return how many chunks it has.

        Parameters
        ----------
        progress
            Called with the raw bytes of each chunk that is done.
        known
            Raw bytes of each chunk that was found whole a moment ago, where several checkpoints have one.
        """

    def stored(self) -> tuple[int | None, int]:
        """Return how many chunks there are, where that is known, and how many bytes they take."""

    # --- save and remove

    def write(
        self,
        flat: Flat,
        said: Said,
        compression: str,
        taken: Callable[[], object] | None,
        progress: Callable[[int], object] | None,
    ) -> Checkpoint:
        """Save a checkpoint, durably; see `Saver.save`."""

    def sweep(self) -> list[str]:
        """Remove what dead processes left half-written, and return the paths."""

    def purge(self, content_id: str | None, done: Purged) -> list[str]:
        """Remove what has this content, for good, and return the ids; see `quantum_memory.purge`."""

    def close(self) -> None:
        """Let go of files."""


def home_of(path: str | os.PathLike[str], *, durable: bool = True) -> CheckpointHome:
    """Return where checkpoints are; nothing is made.

    Parameters
    ----------
    path
        A folder, or an address.
    durable
        Whether to ``fsync``.

    Raises
    ------
    InvalidStateError
        It is an address of something else, or names a version.
    MissingError
        It is an address, and the extra ``cloud`` is not installed.
    """
    if not is_url(path):
        from quantum_memory.lifecycle.checkpoints.folder import CheckpointFolder  # noqa: PLC0415 - one of the two

        return CheckpointFolder(local_path(path), durable=durable)
    url = URL.parse(path)
    storage()
    from quantum_memory.lifecycle.checkpoints.cloud_home import CloudHome  # noqa: PLC0415 - after it is known to be

    return CloudHome(url, durable=durable)
