"""Versions of which each is kept by a tag of its own, and goes when that goes: what checkpoints are at an address.

The branch on which they are made ends with the newest of them. Versions of others, that have no such tag, may stand
between them: they are in the history of the branch, and stay in it.
"""

from __future__ import annotations

import datetime
import random
import time
from typing import TYPE_CHECKING, Any

from quantum_memory.cloud.cleaning import Pruned, prepares, prune
from quantum_memory.cloud.errors import told
from quantum_memory.cloud.repository import MAIN, Repository
from quantum_memory.errors import ConflictError, IntegrityError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from quantum_memory.cloud.notes import Notes
    from quantum_memory.cloud.repository import Writing

_TRIES = 100
_LONGEST_PAUSE = 0.5
EMPTY = "1CECHNKREP0F1RSTCMT0"
"""The snapshot that every repository begins with."""


class KeptVersions(Repository):
    """A repository of versions that tags keep.

    See `Repository` for the parameters. What is said of a version under the key ``name`` in its metadata is the tag
    that keeps it.
    """

    @property
    def notes(self) -> Notes:
        """The small files beside it."""
        return self._place.notes

    def names(self) -> set[str]:
        """Return all tags."""
        with told(self.url, "list its tags"):
            return set(self._repository.list_tags())

    def tagged(self, name: str) -> str | None:
        """Return the snapshot that a tag names; None where there is no such tag."""
        with told(self.url.at(name), "look it up"):
            return self._tagged(name)

    def end_of(self, line: str) -> str:
        """Return the snapshot that a branch ends with, and where there is none yet, that of the main line."""
        with told(self.url, "look up its end"):
            return self._end_of(line) or self._end_of(MAIN) or EMPTY

    def add(self, writing: Writing, message: str, metadata: dict[str, Any], name: str, *, durable: bool) -> str:
        """Commit what was written, and keep it by a tag; return its snapshot.

        Raises
        ------
        ConflictError
            There is a tag of that name; or it took so long that the parts of it were cleaned away.
        """
        with told(self.url, "commit a version"):
            snapshot = self._committed(writing, message, {**metadata, "name": name})
            self._place.tag(self._repository, name, snapshot, durable=durable)
            return snapshot

    def let_end(
        self, line: str, snapshot: str, seen: str, is_newer: Callable[[dict[str, Any]], bool], *, durable: bool
    ) -> None:
        """Let a branch end with a version, unless it ends with a newer one, or with one that nothing else would keep.

        Parameters
        ----------
        line
            The branch; it is made where it is not there.
        snapshot
            The version, whose history goes on from `seen`.
        seen
            What the branch ended with when the version was begun.
        is_newer
            Tells whether the version is newer than one with this metadata.
        """
        with told(self.url, f"let {line} end with the new version"):
            for attempt in range(_TRIES):
                try:
                    end = self._end_of(line)
                    if end is None:
                        self._place.branch(self._repository, line, snapshot)
                    elif end == seen or self._may_leave(end, seen, is_newer):
                        self._place.move(self._repository, line, snapshot, seen=end, durable=durable)
                    return
                except ConflictError:
                    time.sleep(random.random() * min(_LONGEST_PAUSE, 0.01 * 2 ** min(attempt, 6)))  # noqa: S311 - a pause
        raise ConflictError(f"others were quicker {_TRIES} times in a row", path=str(self.url))

    def _may_leave(self, end: str, seen: str, is_newer: Callable[[dict[str, Any]], bool]) -> bool:
        """Tell whether all that a branch has had since it was seen is older, and kept by a tag."""
        try:
            if not is_newer(dict(self._info(end).metadata)):
                return False
            for one in self._repository.ancestry(snapshot_id=end):
                if one.id == seen:
                    return True
                if "name" not in one.metadata and not prepares(one):
                    return False
        except IntegrityError:
            pass  # nobody can read what it ends with
        return True

    def remove(self, names: Collection[str], *, durable: bool) -> None:
        """Take versions away that tags keep, durably; what they need goes when it is collected.

        A branch that ends with one of them ends with the newest in its history then that is kept.
        """
        with told(self.url, "remove versions"):
            self._place.check_writable()
            for line in self._branches():
                end = self._end_of(line)
                if end is not None and self._info(end).metadata.get("name") in names:
                    to = self._newest_kept(end, names)
                    self._place.move(self._repository, line, to, seen=end, durable=durable)
            for name in names:
                if self._tagged(name) is not None:
                    self._repository.delete_tag(name)
            if durable:
                self._place.keep()

    def _newest_kept(self, end: str, without: Collection[str]) -> str:
        there = self._repository.list_tags() - set(without)
        for one in self._repository.ancestry(snapshot_id=end):
            name = one.metadata.get("name")
            if not prepares(one) and (name in there if name is not None else True):
                return str(one.id)
        return EMPTY

    def collect(self) -> Pruned:
        """Remove versions that no tag keeps any more, and what no version needs; see `Repository.prune`.

        Versions of others stay, and so does what is older than these.

        Raises
        ------
        ConflictError
            Somebody else is removing something.
        """
        with told(self.url, "remove what is not needed"):
            self._place.check_writable()
            return prune(self._repository, self._place, lambda _: self._moment(), strangers=False, dry_run=False)

    def _moment(self) -> datetime.datetime | None:
        """Return the moment before which no version is needed that is not named: just after the newest that can go.

        Icechunk cuts each history off at the first version in it that is older. No version of others may be below that,
        whatever the clocks of those say who wrote the versions above it.
        """
        there = self._repository.list_tags()
        ends = [self._repository.lookup_branch(name) for name in self._repository.list_branches()]
        goes, others, seen = list[datetime.datetime](), list[datetime.datetime](), set[str]()
        joined = list[datetime.datetime]()
        for start in [*ends, *(self._repository.lookup_tag(name) for name in there)]:
            oldest = datetime.datetime.max.replace(tzinfo=datetime.UTC)
            for one in () if start in seen else self._repository.ancestry(snapshot_id=start):
                if one.id in seen:
                    joined.append(oldest)  # there may be versions of others from here on
                    break
                seen.add(one.id)
                oldest = min(oldest, one.written_at)
                if one.parent_id is None or prepares(one):
                    continue
                name = one.metadata.get("name")
                if name is None:
                    others.append(oldest)
                elif name not in there:
                    goes.append(one.written_at)
        first = min([*others, *joined]) if others else None
        old = [one for one in goes if first is None or one < first]
        return max(old) + datetime.timedelta(microseconds=1) if old else None

    def sweep(self) -> list[str]:
        """Remove small files that were being written by who has died, and return their paths."""
        with told(self.url, "remove leftovers"):
            return self._place.sweep()

    def nbytes(self) -> int:
        """Return the bytes of all chunks."""
        with told(self.url, "count its bytes"):
            return int(self._repository.chunk_storage_stats().native_bytes)
