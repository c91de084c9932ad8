"""Remove what a policy does not keep of a folder of manifests, and the chunks that nobody needs then."""

from __future__ import annotations

import datetime
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, TypeVar

from quantum_memory.errors import ConflictError, IntegrityError, MissingError, QuantumMemoryError, UnsafeError
from quantum_memory.lifecycle.repository.folder import Head, now
from quantum_memory.lifecycle.retention import plan_removal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from quantum_memory.durability.chunk_collection import Collected
    from quantum_memory.lifecycle.repository.folder import Repository
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
        Ids of what was read back whole; it is kept up to date.
    """

    def __init__(self, folder: Repository[H], verified: set[str]) -> None:
        self.folder = folder
        self.verified = verified

    @abstractmethod
    def source_of(self, head: H) -> str:
        """Return what something is one of a series of, so that series take no place of one another."""

    @abstractmethod
    def item(self, head: H, *, pinned: bool, tags: frozenset[str], verified: bool) -> Item[H]:
        """Return something as a policy sees it."""

    @abstractmethod
    def verify(self, one: str) -> object:
        """Read something back, every byte of it."""

    def planned(self, policy: KeepPolicy, at_most: int | None, *, ahead: bool = False) -> Removal[Item[H]]:
        """Return what would go and what would stay, each with the reason.

        Parameters
        ----------
        ahead
            Whether the newest of a series that something goes of counts as read back, as `prune` does that first.
        """
        listed, _ = self.folder.listed()
        refs = self.folder.refs()

        def plan(read: set[str]) -> Removal[Item[H]]:
            items = [
                self.item(
                    one, pinned=one.id in refs.pins, tags=frozenset(refs.tags_of(one.id)), verified=one.id in read
                )
                for one in listed
            ]
            return plan_removal(items, policy, at_most=at_most, now=now())

        if not ahead:
            return plan(self.verified)
        newest = {self.source_of(one): one.id for one in listed}
        losing = {item.source for item in plan(self.verified | set(newest.values())).goes}
        return plan(self.verified | {newest[source] for source in losing})

    def prune(
        self, policy: KeepPolicy, at_most: int | None, *, timeout: float = PATIENCE
    ) -> tuple[Removal[Item[H]], Collected | None]:
        """Remove what a policy does not keep, and the chunks that nobody needs then.

        Before anything of a series goes, its newest is read back, every byte of it: an old one is not given up for one
        that cannot be read. When others are at work in the folder all the time, nothing is removed.

        Returns
        -------
        What was planned, and what came of it; None for that when nothing was removed.

        Raises
        ------
        IntegrityError, MissingError, UnsafeError
            The newest of a series cannot be read. What goes of other series is gone by then.
        """
        plan = self.planned(policy, at_most, ahead=True)
        if not plan.goes:
            return plan, None
        failed: dict[str, QuantumMemoryError] = {}
        try:
            for source in sorted({item.source for item in plan.goes}):
                try:
                    self.read_back(source)
                except (IntegrityError, MissingError, UnsafeError) as error:
                    failed[source] = error
            with self.folder.store.alone(timeout=timeout):
                plan = self.planned(policy, at_most)
                gone = [item for item in plan.goes if item.source not in failed]
                self.folder.remove([item.id for item in gone])
                self.verified.difference_update(item.id for item in gone)
                for item in gone:
                    self.folder.note("removed", why=plan.reasons.get(item.id), **self.folder.named(item.id))
                done = self.folder.collect()
        except ConflictError:
            return plan, None
        for failure in failed.values():
            raise failure
        return plan, done

    def read_back(self, source: str) -> str | None:
        """Read the newest of a series, every byte of it, unless that was done; return its id."""
        while newest := next(
            (one.id for one in reversed(self.folder.listed()[0]) if self.source_of(one) == source), None
        ):
            if newest in self.verified:
                break
            try:
                self.verify(newest)
            except MissingError:
                if newest in self.folder.ids():
                    raise
                continue  # others have saved a newer one, and removed it
            self.verified.add(newest)
        return newest
