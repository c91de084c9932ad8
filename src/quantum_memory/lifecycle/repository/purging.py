"""Remove something from a folder of manifests for good: no chunk stays on the disk that nobody else needs."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from quantum_memory.durability.chunk_collection import stuck
from quantum_memory.errors import IntegrityError, QuantumMemoryError, StorageError
from quantum_memory.formats.names import named_in
from quantum_memory.formats.urls import is_url
from quantum_memory.lifecycle.repository.folder import H, Refs

if TYPE_CHECKING:
    from quantum_memory.lifecycle.repository.folder import Repository
    from quantum_memory.lifecycle.repository.home import Home

_MOVED = {"exported", "restored", "imported", "pushed", "pulled"}


@dataclass
class Purged:
    """What was purged, or, of a dry run, would be.

    Attributes
    ----------
    content_id
        Name of what was looked for; None where only its bytes are known.
    dry_run
        Whether nothing was done.
    checkpoints
        Of each that went: ``folder``, ``id``, ``tags``, ``pinned``.
    backups
        Of each that held it: ``folder``, ``id``, ``files``, ``tags``, ``pinned``, and ``becomes``: the id of the one
        without the files that took its place, None where nothing was left of it.
    chunks, nbytes
        Chunks that are gone from the disk, since nobody needs them any more, and their bytes.
    shared
        Chunks of it that stay, since others need them, too.
    unreached
        What may still hold it, each a sentence.
    """

    content_id: str | None
    dry_run: bool
    checkpoints: list[dict[str, Any]] = field(default_factory=list)
    backups: list[dict[str, Any]] = field(default_factory=list)
    chunks: int = 0
    nbytes: int = 0
    shared: int = 0
    unreached: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return it as a plain dict."""
        return asdict(self)


@dataclass
class Change:
    """What is done to one manifest.

    Attributes
    ----------
    id
        Of it.
    loses
        Names of the chunks of what goes.
    becomes, needs
        Id of the one that takes its place, None where none does, and the names of the chunks of that.
    """

    id: str
    loses: set[bytes]
    becomes: str | None = None
    needs: set[bytes] = field(default_factory=set)


C = TypeVar("C", bound=Change)


class Purging(ABC, Generic[H, C]):
    """Removes what is wanted from one folder.

    Parameters
    ----------
    folder
        The folder.
    done
        Where it is said what went.
    """

    def __init__(self, folder: Repository[H], done: Purged) -> None:
        self._of, self.done = folder, done

    @abstractmethod
    def look(self) -> tuple[list[C], list[str]]:
        """Return what there is to do, the oldest first, and what may hold it and is not reached."""

    @abstractmethod
    def say(self, change: C, facts: dict[str, Any]) -> None:
        """Take something down that goes."""

    def purge(self) -> list[str]:
        """Remove it, unless this is a dry run, and return the ids of what went."""
        folder = self._of
        if not folder.is_there:
            return []
        with folder.store.shared():
            changes, unreached = self.look()  # which may take long, and is quick the second time
            if self.done.dry_run:
                self._say(changes, unreached)
                return [one.id for one in changes]
        with folder.store.alone():
            folder.settle()
            changes, unreached = self.look()
            known = self._say(changes, unreached)
            self._change(changes)
            # Even where nothing was found: it may have been interrupted here the last time.
            if known is not None:
                needed, stays = known
                folder.store.collect(needed, 0.0)
                if folder.store.known - needed - stays:
                    raise StorageError(
                        "a pack could be read just now, and not when it was to be written anew without what goes",
                        path=folder.path,
                        next_step="check the disk, and purge it again",
                    )
        return [one.id for one in changes]

    def _say(self, changes: list[C], unreached: list[str]) -> tuple[set[bytes], set[bytes]] | None:
        """Say what goes and what does not, and return the chunks that are needed then, and others that stay.

        None where nobody knows.
        """
        folder, done = self._of, self.done
        refs, gone = folder.refs(), {one.id for one in changes}
        for one in changes:
            self.say(one, {"tags": refs.tags_of(one.id), "pinned": one.id in refs.pins})
        done.unreached += [*unreached, *elsewhere(folder, gone)]
        try:
            needed = folder.needed(gone)
        except QuantumMemoryError as error:
            done.unreached.append(
                f"the chunks of it in {folder.path}, none of which goes before this is mended: {error}"
            )
            return None
        needed |= {name for one in changes for name in one.needs}
        store = folder.store
        kept = set().union(*(one.loses for one in changes)) & needed
        packs = stuck(store, needed)
        stays = {name for pack in packs for name in store.chunks_of(pack)}
        goes = store.known - needed - stays
        done.shared += len(kept)
        done.chunks += len(goes)
        done.nbytes += sum(store.place(name)[1].stored for name in goes)
        is_whole = all(name in store for name in needed)
        packs += [name for name, error in store.damaged.items() if not (is_whole and isinstance(error, IntegrityError))]
        done.unreached += [
            f"the pack {os.path.join(folder.path, 'chunks', pack)}, which is damaged and has what others need"
            for pack in packs
        ]
        return needed, stays

    def _change(self, changes: list[C]) -> None:
        """Do it: what takes the place of something is there before that goes, and has its tags by then."""
        folder = self._of
        refs, ids = folder.refs(), set(folder.ids())
        new = {one.id: one.becomes for one in changes}
        for change in changes:
            if change.becomes is not None and change.becomes not in ids:
                self.publish(change)
        tags = {tag: new.get(one, one) for tag, one in refs.tags.items()}
        pins = {new.get(one, one) for one in refs.pins}
        named = Refs(
            {tag: one for tag, one in tags.items() if one is not None}, {one for one in pins if one is not None}
        )
        if named != refs:
            folder.write_refs(named)
        folder.remove([one.id for one in changes])
        for one in changes:
            folder.note("purged", **folder.named(one.id), becomes=new[one.id])

    def publish(self, change: C) -> None:
        """Write what takes the place of something that goes."""


def elsewhere(folder: Home[H], gone: set[str]) -> list[str]:
    """Return what the log says was taken elsewhere of what goes, and of what went before."""
    there = set(folder.ids()) - gone
    found = []
    for line in folder.log():
        path = line.get("path", line.get("to"))
        said = line.get("backups", line.get(folder.kind.what))
        ids = [one for one in (said if isinstance(said, list) else [said]) if isinstance(one, str)]
        if line.get("action") in _MOVED and isinstance(path, str) and not there.issuperset(ids):
            if is_url(path):
                state = "was not looked at"
            else:
                there_still = os.path.lexists(path) or named_in(path) is not None
                state = "is still there" if there_still else "is there no more"
            direction = "from" if line["action"] in {"imported", "pulled"} else "to"
            found.append(f"what was {line['action']} {direction} {path}, which {state}")
    return found
