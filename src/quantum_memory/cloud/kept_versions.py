"""Versions of which each is kept by a tag of its own, and goes when that goes: what checkpoints are at an address.

The branch on which they are made ends with the newest of them. Versions of others, that have no such tag, may stand
between them: they are in the history of the branch, and stay in it.
"""

from __future__ import annotations

import contextlib
import datetime
from typing import TYPE_CHECKING, Any

from quantum_memory.cloud.cleaning import WRITING, Pruned, prepares, while_others_write
from quantum_memory.cloud.errors import told
from quantum_memory.cloud.others_first import TRIES, pause, too_often
from quantum_memory.cloud.references import EMPTY
from quantum_memory.cloud.repository import MAIN, Repository, checked_name
from quantum_memory.errors import ConflictError, IntegrityError, StorageError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator

    from quantum_memory.cloud.notes import Notes
    from quantum_memory.cloud.repository import Writing

UNREADABLE = "unreadable-"
"""How a branch is called that keeps a snapshot which nobody can read, and whatever is in its history."""


class KeptVersions(Repository):
    """A repository of versions that tags keep.

    See `Repository` for the parameters. What is said of a version under the key ``name`` in its metadata is the tag
    that keeps it.
    """

    @property
    def notes(self) -> Notes:
        """The small files beside it."""
        return self._place.notes

    def names(self) -> frozenset[str]:
        """Return all tags, whether they can be read or not."""
        with told(self.url, "list its tags"):
            return self._place.references().tags

    def tagged(self, name: str) -> str | None:
        """Return the snapshot that a tag names; None where there is no such tag."""
        with told(self.url.at(name), "look it up"):
            return self._tagged(name)

    def end_of(self, line: str) -> str:
        """Return the snapshot that a branch ends with, and where there is none yet, that of the main line."""
        with told(self.url, "look up its end"):
            return self._end_of(line) or self._end_of(MAIN) or EMPTY

    def check_line(self, line: str) -> None:
        """See that a branch can be called so.

        Raises
        ------
        ConflictError, InvalidStateError
        """
        checked_name(line)
        with told(self.url, f"look up {line}"):
            if self._end_of(line) is None and self._tagged(line) is not None:
                raise ConflictError(f"there is a tag {line!r:.80}", next_step="choose another name for the branch")

    @contextlib.contextmanager
    def following(self, line: str, *, apart: bool = False, durable: bool = True) -> Iterator[Writing]:
        """Begin a version that follows what a branch ends with, or the empty one where nobody can read that.

        What it follows stays meanwhile: whoever collects sees the branch that it is written to, or is in time to see
        that the line still ends there.

        Parameters
        ----------
        apart
            Follow the empty one in any case.
        durable
            See `writing`.
        """
        for attempt in range(TRIES):
            seen = self.end_of(line)
            begin = EMPTY if apart or self._noted(seen) is None else seen
            with contextlib.ExitStack() as stack:
                try:
                    writing = stack.enter_context(self.writing(line, begin, durable=durable))
                except IntegrityError:
                    if self.end_of(line) == seen:
                        raise
                    continue  # it has gone just now
                if begin == EMPTY or self.end_of(line) == seen:
                    yield writing
                    return
            pause(attempt)
        raise too_often(self.url)

    def add(self, writing: Writing, message: str, metadata: dict[str, Any], name: str, *, durable: bool) -> str:
        """Commit what was written, and keep it by a tag; return its snapshot.

        Raises
        ------
        ConflictError
            There is a tag of that name; or it took so long that the parts of it were cleaned away.
        """
        with told(self.url, "commit a version"):
            snapshot = self._committed(writing, message, {**metadata, "name": name})
            self._place.tag(self._repository, name, snapshot, durable=durable, written=writing.back)
            return snapshot

    def let_end(
        self, line: str, snapshot: str, begun: str, is_newer: Callable[[dict[str, Any]], bool], *, durable: bool
    ) -> None:
        """Let a branch end with a version, unless it ends with a newer one, or with one that nothing else would keep.

        Parameters
        ----------
        line
            The branch; it is made where it is not there.
        snapshot
            The version, whose history goes on from `begun`.
        begun
            What the branch ended with when the version was begun, and what this follows.
        is_newer
            Tells whether the version is newer than one with this metadata.
        """
        with told(self.url, f"let {line} end with the new version"):
            for attempt in range(TRIES):
                try:
                    end = self._end_of(line)
                    if end is None:
                        self._place.branch(self._repository, line, snapshot)
                    elif self._may_leave(end, begun, is_newer):
                        self._place.move(self._repository, line, snapshot, seen=end, durable=durable)
                    return
                except ConflictError:
                    pause(attempt)
        raise too_often(self.url)

    def _may_leave(self, end: str, begun: str, is_newer: Callable[[dict[str, Any]], bool]) -> bool:
        """Tell whether all that a branch has had since then is older, and kept by a tag."""
        try:
            with told(self.url, "look at what was written meanwhile"):
                if not is_newer(dict(self._info(end).metadata)):
                    return False
                for one in self._repository.ancestry(snapshot_id=end):
                    if one.id == begun or one.parent_id is None:
                        return True
                    if "name" not in one.metadata and not prepares(one):
                        return False
        except IntegrityError:
            self._hold(end)
        return True

    def _hold(self, snapshot: str) -> None:
        """Keep what a branch is about to leave, and of which nobody can read what versions of others are in it."""
        if snapshot in self._tags(bad=lambda _: None).values():
            return
        with contextlib.suppress(ConflictError):  # it is kept already
            self._place.branch(self._repository, f"{UNREADABLE}{snapshot}", snapshot)

    def remove(self, names: Collection[str], newest: Callable[[str], str | None], *, durable: bool) -> None:
        """Take versions away that tags keep, durably; what they need goes when it is collected.

        A branch that ends with one of them ends with the newest in its history then that is kept.

        Parameters
        ----------
        newest
            Returns what else a branch may end with, where there is no such version.
        """
        with told(self.url, "remove versions"):
            self._place.check_writable()
            references = self._place.references()
            there = references.tags
            gone = {self._tagged_or_none(name) for name in names if name in there}
            for line in sorted(name for name in references.branches if not WRITING.fullmatch(name)):
                for attempt in range(TRIES):
                    try:
                        self._leave(line, gone, names, newest, durable=durable)
                        break
                    except ConflictError:
                        pause(attempt)
                else:
                    raise too_often(self.url)
            for name in names:
                if name in there:
                    self._place.untag(name)
            if durable:
                self._place.keep()

    def bring_back(self, names: Iterable[str]) -> None:
        """Take back that versions were removed, just now, durably."""
        with told(self.url, "bring versions back"):
            for name in names:
                self._place.tag_again(name)

    def can_be_followed(self, snapshot: str) -> bool:
        """Tell whether what others need of a version that follow it can be read, as far as that can be told."""
        try:
            with told(self.url, "read a version"):
                self._repository.readonly_session(snapshot_id=snapshot).all_virtual_chunk_locations()
        except IntegrityError:
            return False
        except StorageError:
            return True
        return True

    def _leave(
        self,
        line: str,
        gone: set[str | None],
        names: Collection[str],
        newest: Callable[[str], str | None],
        *,
        durable: bool,
    ) -> None:
        """Let a branch end with something else, if it ends with what goes."""
        end = self._end_of(line)
        if end is not None and (end in gone or (self._noted(end) or {}).get("name") in names):
            to = self._newest_kept(end, names) or newest(line) or EMPTY
            self._place.move(self._repository, line, to, seen=end, durable=durable)

    def _newest_kept(self, end: str, without: Collection[str]) -> str | None:
        there = self._place.references().tags.difference(without)
        try:
            with told(self.url, "read its history"):
                for one in self._repository.ancestry(snapshot_id=end):
                    if one.parent_id is None or prepares(one):
                        continue
                    name = one.metadata.get("name")
                    if name is None or name in there:
                        return str(one.id)
        except IntegrityError:
            pass
        return None

    def _noted(self, snapshot: str) -> dict[str, Any] | None:
        """Return what is noted of a version; None where nobody can read it."""
        try:
            return self.noted_of(snapshot)
        except IntegrityError:
            return None

    def _tagged_or_none(self, name: str) -> str | None:
        """Return the snapshot that a tag names; None where nobody can read that."""
        try:
            return self.tagged(name)
        except IntegrityError:
            return None

    def collect(self, is_ours: Callable[[str], bool]) -> Pruned:
        """Remove versions that no tag keeps any more, and what no version needs; see `Repository.prune`.

        Versions of others stay, and so does what is in the history of these, or between them and the end of the branch.

        Parameters
        ----------
        is_ours
            Tells whether a tag is one that nobody gives again once it was removed; what is left of those goes, too.

        Raises
        ------
        ConflictError
            Somebody else is removing something.
        """
        done = self._pruned(lambda _: self._moment())
        with told(self.url, "remove what is left of tags"):
            self._place.forget([name for name in self._place.references().removed if is_ours(name)])
        return done

    def _moment(self) -> datetime.datetime | None:
        """Return the moment before which no version is needed that is not named: just after the newest that can go.

        Icechunk cuts each history off at the first version in it that is older. No version of others may be below that,
        whatever the clocks of those say who wrote the versions above it.
        """
        references = self._place.references()
        there = references.tags
        ends = [end for name in references.branches if (end := self._end_of(name)) is not None]
        tagged = (self._tagged(name) for name in there)
        goes, others, seen = list[datetime.datetime](), list[datetime.datetime](), set[str]()
        joined = list[datetime.datetime]()
        for start in [*ends, *(one for one in tagged if one is not None)]:
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
            return int(while_others_write(self._repository.chunk_storage_stats).native_bytes)
