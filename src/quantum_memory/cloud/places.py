"""Where a repository is: a prefix in object storage, or a folder, and how a change of it is made to last.

What differs between the two is in `object_place` and `folder_place`, and nowhere else. Object storage orders those who
commit by conditional writes, and an object is durable when the request is answered. A folder has neither: who commits
holds its lock, everything that the commit names is made durable before a reference names it, and the reference is
replaced by a durable write.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from quantum_memory.cloud.errors import told
from quantum_memory.cloud.folder_place import FolderPlace
from quantum_memory.cloud.object_place import ObjectPlace
from quantum_memory.formats.urls import S3, URL

if TYPE_CHECKING:
    import contextlib
    from collections.abc import Collection

    import icechunk

    from quantum_memory.cloud.notes import Notes
    from quantum_memory.cloud.references import References
    from quantum_memory.durability.write_back import WriteBack


class Place(Protocol):
    """A place for a repository.

    Attributes
    ----------
    notes
        The small files beside it.
    """

    @property
    def notes(self) -> Notes: ...

    def storage(self) -> icechunk.Storage:
        """Return where it is, for Icechunk."""

    def exists(self) -> bool:
        """Tell whether there is a repository; nothing is made."""

    def create(self) -> None:
        """Make an empty repository; where somebody else has just made one, that is it.

        Raises
        ------
        ConflictError
            There is something else.
        """

    def check_writable(self) -> None:
        """Refuse a place that cannot keep two writers apart.

        Raises
        ------
        UnsafeError
        """

    def write_back(self) -> contextlib.AbstractContextManager[WriteBack | None]:
        """Return what makes durable what is written in a block; nothing where all of it is at once."""

    def move(
        self,
        repository: icechunk.Repository,
        branch: str,
        to: str,
        *,
        seen: str,
        durable: bool = True,
        written: WriteBack | None = None,
    ) -> None:
        """Let a branch end at a snapshot, durably, if it still ends where it was seen to.

        Parameters
        ----------
        written
            Of `write_back`, since before the snapshot was written; otherwise that is durable already.

        Raises
        ------
        ConflictError
            It does not.
        """

    def mend(self) -> None:
        """Bring back what was being changed when somebody was cut off."""

    def cleaning(self) -> contextlib.AbstractContextManager[None]:
        """Be the only one who removes something, for a block.

        Raises
        ------
        ConflictError
            Somebody else is.
        """

    def expiring(self) -> contextlib.AbstractContextManager[None]:
        """Let Icechunk write over snapshots in a block, after which they are durable, or as they were before."""

    def keep(self) -> None:
        """Make durable what others may have written without that."""

    def tag(
        self,
        repository: icechunk.Repository,
        name: str,
        snapshot: str,
        *,
        durable: bool = True,
        written: WriteBack | None = None,
    ) -> None:
        """Name a snapshot, durably; see `move`.

        Raises
        ------
        ConflictError
            There is a tag of that name, or has been one.
        """

    def branch(self, repository: icechunk.Repository, name: str, snapshot: str) -> None:
        """Begin a branch at a snapshot, durably.

        Raises
        ------
        ConflictError
            There is a branch of that name.
        """

    def untag(self, name: str) -> None:
        """Remove a tag, whether it can be read or not; `keep` makes that last."""

    def tag_again(self, name: str) -> None:
        """Take `untag` back, durably."""

    def references(self) -> References:
        """Return the tags and branches that there are."""

    def forget(self, tags: Collection[str]) -> None:
        """Remove what is left of tags that were removed, whose names nobody gives again."""

    def sweep(self) -> list[str]:
        """Remove small files that were being written by who has died, and return their paths."""

    def end(self, repository: icechunk.Repository, branch: str) -> None:
        """Remove a branch on which somebody has written; what goes wrong is left to whoever cleans up."""


def place_of(url: URL) -> Place:
    """Return the place that an address means."""
    return ObjectPlace(url) if url.scheme == S3 else FolderPlace(url)


def repositories_below(url: URL) -> list[str] | None:
    """Return the addresses of the repositories below an address; None where there is one at the address itself.

    Raises
    ------
    StorageError
        The storage cannot be reached, or refuses.
    """
    with told(url, "look for repositories"):
        if url.name is not None or place_of(url).exists():
            return None
        if url.scheme == S3:
            keys = ObjectPlace(url).repositories_below()
        else:
            keys = sorted(folder for folder, parts, _ in os.walk(url.key) if {"refs", "snapshots"} <= set(parts))
    return [str(replace(url, key=key)) for key in keys]
