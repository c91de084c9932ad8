"""Old versions expire, and what no version needs any more is removed, beside those who are writing.

Icechunk removes what is older than a moment that it is told. What has been written for a version that is not committed
yet belongs to no version, and would go: the commit would succeed, and every read of it fail. So nobody is asked for the
moment. It is an hour before the oldest version that somebody is writing was begun, which the names of their branches
say, or an hour ago.

Who has been writing for longer than a week is taken for dead: the branch is removed, so that the commit is refused, and
what it has written stays for another hour, in case that commit was being made just then.
"""

from __future__ import annotations

import datetime
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import icechunk

from quantum_memory.cloud.errors import told
from quantum_memory.cloud.others_first import TRIES, pause
from quantum_memory.errors import ConflictError, IntegrityError, InvalidStateError, StorageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from quantum_memory.cloud.notes import Notes
    from quantum_memory.cloud.places import Place

_HOUR = datetime.timedelta(hours=1)
"""By how much clocks of writers and of the storage may differ."""

LONGEST_WRITING = datetime.timedelta(days=7)
WRITING = re.compile(r"writing-([0-9a-f]{12})-[0-9a-f]{16}")
"""The name of a branch to which a version is written, with the second since 1970 in which it was begun."""

UNFINISHED = "quantum-memory: unfinished"
"""What a commit says that only prepares another one."""

_GIVEN_UP = "given-up"
_T = TypeVar("_T")


@dataclass(frozen=True)
class Pruned:
    """What was removed of a repository.

    Attributes
    ----------
    versions
        The snapshots that are in no history any more.
    objects, bytes
        What no version needs any more, and was removed, or would be.
    before
        Nothing younger than this was looked at.
    writing
        How many versions were being written meanwhile.
    given_up
        How many of them were given up for dead.
    """

    versions: tuple[str, ...]
    objects: int
    bytes: int
    before: datetime.datetime
    writing: int
    given_up: int


def prune(
    repository: icechunk.Repository,
    place: Place,
    expires: Callable[[datetime.datetime], datetime.datetime | None],
    *,
    strangers: bool,
    dry_run: bool,
) -> Pruned:
    """Remove old versions, and what no version needs; see `Repository.prune`.

    Parameters
    ----------
    expires
        Returns, at a time, the moment before which what has no name is to be in no history any more; None: all stays.
    """
    expired: set[str] = set()

    def removed() -> Pruned:
        now = datetime.datetime.now(datetime.UTC)
        _check_tags(repository, place)
        moment = expires(now)
        if moment is not None and not dry_run:
            with place.expiring():
                expired.update(repository.expire_snapshots(moment))
        names = _written_to(place)
        dead = [name for name in names if now - _begun(name) > LONGEST_WRITING]
        begun = [_begun(name) for name in names] + _given_up(place.notes, now)
        before = min([now - (LONGEST_WRITING if strangers else _HOUR), *(one - _HOUR for one in begun)])
        if not dry_run:
            for name in dead:
                place.notes.write(f"{_GIVEN_UP}/{name}", now.isoformat().encode())
                repository.delete_branch(name)
                place.end(repository, name)
        found = repository.garbage_collect(before, dry_run=dry_run)
        objects = (
            found.chunks_deleted
            + found.manifests_deleted
            + found.snapshots_deleted
            + found.attributes_deleted
            + found.transaction_logs_deleted
        )
        return Pruned(tuple(sorted(expired)), objects, found.bytes_deleted, before, len(names) - len(dead), len(dead))

    with place.cleaning():
        try:
            return while_others_write(removed)
        except icechunk.IcechunkError:
            if not _end_unreadable(repository, place):
                raise
        return while_others_write(removed)


def while_others_write(work: Callable[[], _T]) -> _T:
    """Do what reads all references, and fails where one of them has gone since they were listed.

    Raises
    ------
    ConflictError
        One of them has, all the time.
    """
    for attempt in range(TRIES):
        try:
            return work()
        except icechunk.IcechunkError as error:
            if "ref not found" not in str(error):
                raise
        pause(attempt)
    raise ConflictError("others begin and end versions all the time", next_step="try again")


def prepares(snapshot: icechunk.SnapshotInfo) -> bool:
    """Tell whether a snapshot is no version, and only prepares another one: two signs, one of which may be damaged."""
    return snapshot.message == UNFINISHED or "unfinished" in snapshot.metadata


def _written_to(place: Place) -> list[str]:
    """Return the branches that versions are written to."""
    return sorted(name for name in place.references().branches if WRITING.fullmatch(name))


def _check_tags(repository: icechunk.Repository, place: Place) -> None:
    """See that Icechunk finds all tags: to it one that it cannot read is none, and what that names would go.

    Raises
    ------
    IntegrityError, StorageError
    """
    for name in sorted(place.references().tags - repository.list_tags()):
        with told(name, "read what this tag names"):
            try:
                repository.lookup_tag(name)
            except icechunk.IcechunkError as error:
                if "ref not found" not in str(error):  # else it was removed meanwhile
                    raise


def _end_unreadable(repository: icechunk.Repository, place: Place) -> bool:
    """Remove branches that were written to, and that nobody can read; tell whether there were any.

    A power cut may leave such a one, of which nothing was made durable yet. Icechunk, which reads the ends of all
    branches to know what is needed, would not remove anything any more. What is not of these branches alone, and cannot
    be read, is for others to see to.
    """
    names, there = _written_to(place), place.references()
    lines = [repository.lookup_branch(name) for name in there.branches - set(names)]
    lines += [repository.lookup_tag(name) for name in there.tags]
    known = {one.id for end in lines for one in repository.ancestry(snapshot_id=end)}
    damaged = [name for name in names if not _is_readable(repository, name, known)]
    for name in damaged:
        place.end(repository, name)
    return bool(damaged)


def _is_readable(repository: icechunk.Repository, branch: str, known: set[str]) -> bool:
    """Tell whether all can be read that a branch has beside snapshots that are known."""
    try:
        with told(branch, "read it"):
            end: str | None = repository.lookup_branch(branch)
            while end is not None and end not in known:
                repository.readonly_session(snapshot_id=end).all_virtual_chunk_locations()  # which reads every manifest
                end = repository.lookup_snapshot(end).parent_id
    except IntegrityError:
        return False
    except StorageError as error:
        if "ref not found" not in error.message:  # else who was writing has just ended
            raise
    return True


def _begun(name: str) -> datetime.datetime:
    found = WRITING.fullmatch(name)
    if found is None:
        raise ValueError(f"{name} is not the name of a branch that is written to")
    return datetime.datetime.fromtimestamp(int(found[1], 16), datetime.UTC)


def _given_up(notes: Notes, now: datetime.datetime) -> list[datetime.datetime]:
    """Return when those were begun that were given up within the last hour; older notes are removed."""
    found = []
    for name in notes.names(_GIVEN_UP):
        text = notes.read(name)
        if text is not None and now - datetime.datetime.fromisoformat(text.decode()) < _HOUR:
            found.append(_begun(name.rpartition("/")[2]))
        else:
            notes.remove(name)
    return found


def oldest_kept(
    repository: icechunk.Repository,
    keep: int | None,
    within: datetime.timedelta | None,
    line: str,
    now: datetime.datetime,
) -> datetime.datetime | None:
    """Return when the oldest version was written that stays; None where all stay. See `Repository.prune`."""
    if keep is None and within is None:
        return None
    if keep is not None and keep < 1:
        raise InvalidStateError(f"{keep} versions are to be kept", next_step="keep at least 1")
    with told(line, "read its history"):
        chain = [one for one in repository.ancestry(branch=line) if one.parent_id is not None and not prepares(one)]
    kept = [
        one
        for index, one in enumerate(chain)
        if (keep is not None and index < keep) or (within is not None and now - one.written_at <= within)
    ]
    return min((one.written_at for one in kept or chain[:1]), default=None)
