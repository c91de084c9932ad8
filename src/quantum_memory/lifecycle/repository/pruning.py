"""Remove what a policy does not keep of a folder of manifests, and the chunks that nobody needs then."""

from __future__ import annotations

import datetime
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from quantum_memory.errors import ConflictError, IntegrityError, MissingError, QuantumMemoryError, UnsafeError
from quantum_memory.lifecycle.repository.folder import Head, now
from quantum_memory.lifecycle.retention import plan_removal

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from quantum_memory.durability.chunk_collection import Collected
    from quantum_memory.lifecycle.repository.home import Home
    from quantum_memory.lifecycle.retention import KeepPolicy, Removal

H = TypeVar("H", bound=Head)

PATIENCE = 5.0
"""Seconds to wait for others before they are left to remove what can go."""


@dataclass(frozen=True)
class Item(Generic[H]):
    """A manifest as a policy sees it (`retention.Kept`)."""

    head: H
    source: str
    automatic: bool
    pinned: bool
    tags: frozenset[str]
    verified: bool
    metrics: Mapping[str, float] = field(default_factory=dict)

    @property
    def id(self) -> str:
        return self.head.id

    @property
    def number(self) -> int:
        return self.head.number

    @property
    def created_at(self) -> datetime.datetime:
        return datetime.datetime.fromisoformat(self.head.created_at)


class Pruner(ABC, Generic[H]):
    """Removes from a folder.

    Parameters
    ----------
    folder
        The folder.
    verified
        Ids of what was read back whole, not too long ago; it is kept up to date.
    """

    def __init__(self, folder: Home[H], verified: set[str]) -> None:
        self.folder = folder
        self.verified = verified

    @abstractmethod
    def source_of(self, head: H) -> str:
        """Return what something is one of a series of, so that series take no place of one another."""

    def is_whole(self, head: H) -> bool:  # noqa: ARG002 - some can be without a part
        """Tell whether something has all that it was to have when it was saved."""
        return True

    @abstractmethod
    def item(self, head: H, *, pinned: bool, tags: frozenset[str], verified: bool) -> Item[H]:
        """Return something as a policy sees it."""

    @abstractmethod
    def verify(self, one: str) -> object:
        """Read something back, every byte of it."""

    def planned(self, policy: KeepPolicy, at_most: int | None) -> Removal[Item[H]]:
        """Return what `prune` removes and keeps, each with the reason, if all that it reads back first is whole."""
        return self._ahead(policy, at_most)[0]

    def unread(self, policy: KeepPolicy, at_most: int | None) -> set[str]:
        """Return the ids of what `prune` reads back before it removes anything."""
        return self._ahead(policy, at_most)[1] - self.verified

    def _ahead(self, policy: KeepPolicy, at_most: int | None) -> tuple[Removal[Item[H]], set[str]]:
        """Return the plan if all that is read back is whole, and what that is."""
        guards, read = self.guards(), set[str]()

        def as_whole(source: str) -> set[str]:
            found = guards.get(source, set())  # others may have begun a series since
            read.update(found)
            return found

        return self._settled(policy, at_most, as_whole)[0], read

    def _settled(
        self, policy: KeepPolicy, at_most: int | None, read_back: Callable[[str], set[str]]
    ) -> tuple[Removal[Item[H]], set[str]]:
        """Plan, and read back the series that something goes of, until these are all read back: a plan changes by it.

        Parameters
        ----------
        read_back
            Reads back the `guards` of a series, and returns them.

        Returns
        -------
        The plan, and the series that were read back.
        """
        # What would go if all were read back that can be: the one that guards a series now may be among it.
        listed = self.folder.listed()[0]  # once, as long as nothing takes time: at an address that is a request
        plan = self._plan(policy, at_most, self.verified.union(*self.guards(listed).values()), listed)
        verified, read = set(self.verified), set[str]()
        while True:
            losing = {item.source for item in plan.goes} - read
            verified = verified.union(*map(read_back, sorted(losing)))
            read |= losing
            plan = self._plan(policy, at_most, verified, None if losing else listed)
            if {item.source for item in plan.goes} <= read:
                return plan, read

    def _plan(
        self, policy: KeepPolicy, at_most: int | None, verified: set[str], listed: Sequence[H] | None = None
    ) -> Removal[Item[H]]:
        refs = self.folder.refs()
        items = [
            self.item(
                one, pinned=one.id in refs.pins, tags=frozenset(refs.tags_of(one.id)), verified=one.id in verified
            )
            for one in (self.folder.listed()[0] if listed is None else listed)
        ]
        return plan_removal(items, policy, at_most=at_most, now=now())

    def guards(self, listed: Sequence[H] | None = None) -> dict[str, set[str]]:
        """Return of each series what is read back before anything of it goes: its newest, and the newest whole one.

        Parameters
        ----------
        listed
            What is there, where that is known.
        """
        newest: dict[str, str] = {}
        whole: dict[str, str] = {}
        for one in self.folder.listed()[0] if listed is None else listed:
            source = self.source_of(one)
            newest[source] = one.id
            if self.is_whole(one):
                whole[source] = one.id
        return {source: {one, whole.get(source, one)} for source, one in newest.items()}

    def prune(
        self, policy: KeepPolicy, at_most: int | None, *, timeout: float = PATIENCE
    ) -> tuple[Removal[Item[H]], Collected | None]:
        """Remove what a policy does not keep, and the chunks that nobody needs then.

        Before anything of a series goes, its newest is read back, every byte of it, and the newest that is whole: an
        old one is not given up for one that cannot be read. When others are at work in the folder all the time, nothing
        is removed.

        Returns
        -------
        What was planned, and what came of it; None for that when nothing was removed.

        Raises
        ------
        IntegrityError, MissingError, UnsafeError
            The newest of a series cannot be read. What goes of other series is gone by then.
        IntegrityError, UnsafeError, UnsupportedVersionError
            A manifest cannot be read, so that nobody knows which chunks it needs. Nothing was removed.
        """
        failed: dict[str, QuantumMemoryError] = {}

        def read_back(source: str) -> set[str]:
            try:
                return self.read_back(source)
            except (IntegrityError, MissingError, UnsafeError) as error:
                failed[source] = error
                return set()

        plan, read = self._settled(policy, at_most, read_back)
        if not plan.goes and not failed:
            return plan, None
        try:
            with self.folder.alone(timeout):
                plan = self._plan(policy, at_most, self.verified)
                gone = [item for item in plan.goes if item.source in read and item.source not in failed]
                ids = [item.id for item in gone]
                needed = self.folder.needed(ids)  # first: if nobody knows that, nothing goes
                self.folder.remove(ids)
                self.verified.difference_update(ids)
                for item in gone:
                    self.folder.note("removed", why=plan.reasons.get(item.id), **self.folder.named(item.id))
                done = self.folder.collect(needed=needed)
        except ConflictError:
            return plan, None
        for failure in failed.values():
            raise failure
        return plan, done

    def pruned(self, policy: KeepPolicy, at_most: int | None, *, dry_run: bool) -> dict[str, Any]:
        """Do what `prune` does, unless this is a `dry_run`, and say so in plain values.

        Returns
        -------
        dict
            ``removed`` and ``kept``, ids with the reasons, and, unless `dry_run`, what the ``collection`` did.
        """
        plan, done = (self.planned(policy, at_most), None) if dry_run else self.prune(policy, at_most)
        return {
            "removed": {item.id: plan.reasons[item.id] for item in plan.goes},
            "kept": {item.id: plan.reasons[item.id] for item in plan.stays},
            "collection": None if done is None else done.to_dict(),
        }

    def read_back(self, source: str) -> set[str]:
        """Read the `guards` of a series, every byte of them, unless that was done, and return them."""
        while unread := (guards := self.guards().get(source, set())) - self.verified:
            one = max(unread)  # they are two at the most
            try:
                self.verify(one)
            except MissingError:
                if one in self.folder.ids():
                    raise
                continue  # others have saved a newer one, and removed it
            self.verified.add(one)
        return guards
