"""Versions of a memory, one after another: an Icechunk repository, as this package uses it.

Everything that is written goes to a branch of its own, which nobody reads; at its end the main line is let end there.
What that branch is called says when it was begun, so that whoever cleans up knows who is still writing.
"""

from __future__ import annotations

import contextlib
import re
import secrets
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import icechunk

from quantum_memory.cloud.cleaning import UNFINISHED, WRITING, Pruned, oldest_kept, prepares, prune
from quantum_memory.cloud.errors import branch_exists, tag_exists, told
from quantum_memory.cloud.places import Place, place_of
from quantum_memory.errors import (
    ConflictError,
    IntegrityError,
    InvalidStateError,
    MissingError,
    MissingFileError,
    shell_word,
)
from quantum_memory.formats.names import some_of
from quantum_memory.formats.reader import damaged

if TYPE_CHECKING:
    import datetime
    from collections.abc import Callable, Iterator

    import zarr.abc.store

    from quantum_memory.durability.write_back import WriteBack
    from quantum_memory.formats.urls import URL

MAIN = "main"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+=:,-]{0,127}")
_SNAPSHOT = re.compile(r"[0-9A-Z]{20}")
_LOOKUPS = 16


@dataclass(frozen=True)
class Version:
    """One version of a memory.

    Attributes
    ----------
    id
        Of its snapshot.
    parent
        Of the version before; None of the first.
    written_at
        When, by the clock of who wrote it.
    message, metadata
        What was said of it when it was written.
    tags
        Its names.
    """

    id: str
    parent: str | None
    written_at: datetime.datetime
    message: str
    metadata: dict[str, Any]
    tags: tuple[str, ...] = ()


@dataclass
class Writing:
    """A version that is being written.

    Attributes
    ----------
    line
        The branch that is to end with it.
    seen
        The snapshot that the branch ended with when this began.
    branch
        Where it is written meanwhile.
    session
        The Icechunk session.
    back
        What makes durable what is written; None where all of it is at once, or need not be.
    origin
        What its parts are copies of, once it has been prepared.
    """

    line: str
    seen: str
    branch: str
    session: icechunk.Session = field(repr=False)
    back: WriteBack | None = field(default=None, repr=False)
    origin: icechunk.session.ForkSession | None = field(default=None, repr=False)


class Repository:
    """A repository at an address.

    Parameters
    ----------
    url
        The address; what version it names does not matter here.
    create
        Make it where there is none.

    Raises
    ------
    MissingFileError
        There is none, and none is to be made.
    StorageError
        The storage cannot be reached, or refuses.
    """

    def __init__(self, url: URL, *, create: bool = False) -> None:
        self.url = url.at(None)
        with told(self.url, "open it"):
            self._place: Place = place_of(url)
            self._place.mend()
            if not self._place.exists():
                if not create:
                    raise MissingFileError("there is no repository", next_step="check the address, or save to it first")
                self._place.create()
            self._repository = icechunk.Repository.open(self._place.storage())

    # What is there

    def find(self, name: str | None = None) -> str:
        """Return the snapshot of a version: the newest, or that of a tag, of a branch or of the snapshot itself.

        Raises
        ------
        MissingFileError
            There is none.
        """
        with told(self.url.at(name), "look it up"):
            found = self._tagged(name) if name is not None else None
            found = found or self._end_of(MAIN if name is None else name)
            if found is None and name is not None and _SNAPSHOT.fullmatch(name):
                found = self._snapshot(name)
            if found is None:
                names = [*sorted(self._place.references().tags), *self._branches()]
                raise MissingFileError(
                    f"there is no tag, branch or snapshot {name!r}",
                    path=str(self.url),
                    next_step=f"it has {some_of(names)}; {self._listing}",
                )
        return found

    def store(self, snapshot: str) -> zarr.abc.store.Store:
        """Return a version as Zarr reads it."""
        with told(self.url, "open a version of it"):
            # Zarr is told of a snapshot that cannot be read that there is nothing in it.
            self._info(snapshot)
            return self._repository.readonly_session(snapshot_id=snapshot).store

    def noted_of(self, snapshot: str) -> dict[str, Any]:
        """Return what was noted of a version when it was committed: its ``content_id``, where it holds a memory."""
        with told(self.url, "look up a version"):
            return dict(self._info(snapshot).metadata)

    def tags(self) -> dict[str, str]:
        """Return the snapshot of each tag."""
        return self._tags()

    def _tags(self, bad: Callable[[IntegrityError], object] | None = None) -> dict[str, str]:
        """Return the snapshot of each tag, but for those that cannot be read, where somebody is told of these."""

        def tagged(name: str) -> str | None:
            try:
                with told(self.url.at(name), "look it up"):
                    return self._tagged(name)
            except IntegrityError as error:
                if bad is None:
                    raise
                bad(error)
                return None

        with told(self.url, "list its tags"):
            names = sorted(self._place.references().tags)
            with ThreadPoolExecutor(_LOOKUPS) as pool:  # one request for each
                found = zip(names, pool.map(tagged, names), strict=True)
                return {name: snapshot for name, snapshot in found if snapshot is not None}

    def has_tag(self, name: str) -> bool:
        """Tell whether there is a tag of that name."""
        with told(self.url.at(name), "look it up"):
            return self._tagged(name) is not None

    def has_branch(self, name: str) -> bool:
        """Tell whether there is a branch of that name."""
        with told(self.url.at(name), "look it up"):
            return self._end_of(name) is not None

    def branches(self) -> dict[str, str]:
        """Return the snapshot that each branch ends with."""
        with told(self.url, "list its branches"):
            found = ((name, self._end_of(name)) for name in self._branches())
            return {name: snapshot for name, snapshot in found if snapshot is not None}

    def history(self, name: str | None = None) -> Iterator[Version]:
        """Yield versions, the newest first, back from one of them; each is read when it is asked for."""
        names: dict[str, list[str]] = {}
        for tag, snapshot in self._tags(bad=_warned).items():
            names.setdefault(snapshot, []).append(tag)
        start = self.find(name)
        after: icechunk.SnapshotInfo | None = None  # yielded when it is known what was before it
        expected: str | None = start
        with told(self.url, "read its history"):
            for one in self._repository.ancestry(snapshot_id=start):
                self._check_id(one, expected)
                expected = one.parent_id
                if prepares(one):
                    continue
                first = one.parent_id is None  # the empty one that every repository begins with
                if after is not None:
                    facts = after.written_at, after.message, dict(after.metadata), tuple(names.get(after.id, ()))
                    yield Version(after.id, None if first else one.id, *facts)
                after = one

    # What is changed

    @contextlib.contextmanager
    def writing(self, line: str = MAIN, seen: str | None = None, *, durable: bool = True) -> Iterator[Writing]:
        """Begin a version for a block, in which it is committed, or is gone.

        Parameters
        ----------
        line
            The branch that is to end with it.
        seen
            The snapshot that it follows, where that is known already.
        durable
            Whether it is to be made durable when it is committed.
        """
        with contextlib.ExitStack() as stack:
            with told(self.url, "begin a version"):
                self._place.check_writable()
                back = stack.enter_context(self._place.write_back()) if durable else None
                seen = self._repository.lookup_branch(line) if seen is None else seen
                branch = f"writing-{int(time.time()):012x}-{secrets.token_hex(8)}"
                self._repository.create_branch(branch, seen)
                stack.callback(self._place.end, self._repository, branch)
                session = self._repository.writable_session(branch)
            yield Writing(line, seen, branch, session, back)

    def prepare(self, writing: Writing) -> None:
        """Commit what a version begins with, where nobody reads it, so that its session can be handed out in parts."""
        with told(self.url, "prepare a version"):
            if writing.session.has_uncommitted_changes:
                self._committed(writing, UNFINISHED, {"unfinished": True})
            writing.session = self._repository.writable_session(writing.branch)
            # Of another session: one that has taken parts back hands out none, and one that has handed out some warns.
            writing.origin = self._repository.writable_session(writing.branch).fork()

    def commit(
        self,
        writing: Writing,
        message: str,
        metadata: dict[str, Any] | None = None,
        *,
        durable: bool = True,
        check: Callable[[str], object] | None = None,
    ) -> str:
        """Let a branch end with a version that was written, durably, and return its snapshot.

        Parameters
        ----------
        check
            Called with the address of the version before anybody else sees it; what it raises undoes it.

        Raises
        ------
        ConflictError
            Somebody else has written a version meanwhile; or it took so long that the parts of it were cleaned away.
        """
        with told(self.url, "commit a version"):
            snapshot = self._committed(writing, message, metadata)
            if check is not None:
                check(str(self.url.at(snapshot)))
            self._place.move(
                self._repository, writing.line, snapshot, seen=writing.seen, durable=durable, written=writing.back
            )
        return snapshot

    def _committed(self, writing: Writing, message: str, metadata: dict[str, Any] | None = None) -> str:
        """Commit to the branch to which a version is written, and return the snapshot."""
        begun = writing.session.snapshot_id
        try:
            return writing.session.commit(message, metadata)
        except icechunk.ConflictError as error:
            # Nobody else writes to that branch: where it has an end that is new, only the answer was lost.
            end = self._end_of(writing.branch)
            if end is None or end == begun:
                raise ConflictError(
                    "its writing took so long that it was given up for dead", next_step="write it again, in less time"
                ) from error
            return end

    def keep(self, snapshot: str, *, durable: bool, check: Callable[[str], object] | None = None) -> None:
        """Do for a version that is there already what `commit` does for a new one."""
        with told(self.url, "make a version durable"):
            if check is not None:
                check(str(self.url.at(snapshot)))
            if durable:
                self._place.keep()

    def tag(self, name: str, snapshot: str) -> None:
        """Name a version.

        Raises
        ------
        ConflictError
            There is a tag or a branch of that name, or has been a tag.
        InvalidStateError
            It is no name.
        """
        checked_name(name)
        with told(self.url, f"tag a version as {name}"):
            if self._end_of(name) is not None:
                raise ConflictError(f"there is a branch {name!r}", next_step="choose another name")
            if self._tagged(name) is not None:
                raise tag_exists(name)
            self._check(snapshot)
            self._place.tag(self._repository, name, snapshot)

    def untag(self, name: str) -> None:
        """Remove a tag, durably; the name is not free again.

        Raises
        ------
        MissingError
            There is none.
        """
        with told(self.url, f"remove the tag {name}"):
            if name not in self._place.references().tags:
                raise MissingError(f"there is no tag {name!r:.60}", next_step=self._listing)
            self._place.untag(name)
            self._place.keep()

    def branch(self, name: str, snapshot: str) -> None:
        """Begin a branch at a version.

        Raises
        ------
        ConflictError
            There is a tag or a branch of that name.
        InvalidStateError
            It is no name.
        """
        checked_name(name)
        with told(self.url, f"make the branch {name}"):
            if self._end_of(name) is not None or self._tagged(name) is not None:
                raise branch_exists(name)
            self._check(snapshot)
            self._place.branch(self._repository, name, snapshot)

    def rollback(self, snapshot: str, line: str = MAIN) -> None:
        """Let a branch end with another version, durably; those after it are kept until they are cleaned away.

        Raises
        ------
        MissingError
            There is no such branch.
        ConflictError
            Somebody else has written a version meanwhile.
        """
        with told(self.url, "go back to a version"):
            self._place.check_writable()
            self._check(snapshot)
            seen = self._end_of(line)
            if seen is None:
                raise MissingError(f"there is no branch {line!r:.60}", next_step=self._listing)
            self._place.move(self._repository, line, snapshot, seen=seen)

    def _branches(self) -> list[str]:
        return sorted(name for name in self._place.references().branches if not WRITING.fullmatch(name))

    @property
    def _listing(self) -> str:
        return f"qmem versions {shell_word(str(self.url))} lists the versions"

    def prune(
        self,
        keep: int | None = None,
        within: datetime.timedelta | None = None,
        *,
        line: str = MAIN,
        strangers: bool = False,
        dry_run: bool = False,
    ) -> Pruned:
        """Remove old versions, and what no version needs any more, while others read and write.

        Versions with a tag, and those that a branch ends with, always stay. What was written within the last hour
        stays, and so does what was written since an hour before the oldest version that is being written was begun.

        Parameters
        ----------
        keep
            How many of the newest versions stay. With neither this nor `within` all do.
        within
            How old a version may be to stay.
        line
            The branch whose history is shortened.
        strangers
            Whether programs write there that do so without this package, so that nobody knows of what they have not
            committed: then what was written within the last week stays.
        dry_run
            Say what would be removed of what is not needed even now; no version expires.

        Raises
        ------
        ConflictError
            Somebody else is removing something.
        """
        expires = partial(oldest_kept, self._repository, keep, within, line)
        return self._pruned(expires, strangers=strangers, dry_run=dry_run)

    def _pruned(
        self,
        expires: Callable[[datetime.datetime], datetime.datetime | None],
        *,
        strangers: bool = False,
        dry_run: bool = False,
    ) -> Pruned:
        """Remove what is not needed; see `cleaning.prune`."""
        with told(self.url, "remove what is not needed"):
            self._place.check_writable()
            return prune(self._repository, self._place, expires, strangers=strangers, dry_run=dry_run)

    def _info(self, snapshot: str) -> icechunk.SnapshotInfo:
        """Return what a snapshot says of itself."""
        found = self._repository.lookup_snapshot(snapshot)
        self._check_id(found, snapshot)
        return found

    def _check_id(self, found: icechunk.SnapshotInfo, snapshot: str | None) -> None:
        """See that a snapshot is the one that was asked for, which Icechunk does not compare.

        Raises
        ------
        IntegrityError
        """
        if found.id != snapshot:
            raise damaged(f"snapshot {snapshot} says that it is {found.id}", str(self.url))

    def _check(self, snapshot: str) -> None:
        """See that there is a snapshot, which a reference is to name: in a folder nobody else does.

        Raises
        ------
        MissingFileError
        """
        if self._snapshot(snapshot) is None:
            raise MissingFileError(f"there is no snapshot {snapshot!r:.60}", next_step="see history()")

    def _tagged(self, name: str) -> str | None:
        return self._looked_up(self._repository.lookup_tag, name)

    def _end_of(self, name: str) -> str | None:
        return self._looked_up(self._repository.lookup_branch, name)

    def _snapshot(self, name: str) -> str | None:
        try:
            return str(self._info(name).id)
        except icechunk.IcechunkError as error:
            if any(sign in str(error) for sign in ("not found", "NoSuchKey", "invalid snapshot id")):
                return None
            raise

    @staticmethod
    def _looked_up(look: Any, name: str) -> str | None:
        if not _NAME.fullmatch(name):
            return None
        try:
            return str(look(name))
        except icechunk.IcechunkError as error:
            if "ref not found" in str(error):
                return None
            raise


def _warned(error: IntegrityError) -> None:
    warnings.warn(f"a tag cannot be read: {error}", stacklevel=4)


def checked_name(name: str) -> str:
    """Return a name that a version can have.

    Raises
    ------
    InvalidStateError
    """
    if not _NAME.fullmatch(name) or WRITING.fullmatch(name) or _SNAPSHOT.fullmatch(name):
        raise InvalidStateError(
            f"a version cannot be called {name!r:.60}",
            next_step="use letters, digits, and . _ - + = : , with a letter or a digit first",
        )
    return name
