"""Remove chunks that nobody needs any more: with their packs, or by copying what is needed into a new one."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from quantum_memory.errors import IntegrityError, StorageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Set

    from quantum_memory.durability.chunk_store import ChunkStore
    from quantum_memory.durability.pack import Place
    from quantum_memory.durability.pack_writer import PackWriter

WASTE = 0.2
"""How much of the store may be chunks that nobody needs, beside others in their packs that somebody does."""


@dataclass
class Collected:
    """What a collection did.

    Attributes
    ----------
    packs_removed, packs_written
        How many packs went, and how many were made of what was needed of them.
    chunks_removed, bytes_removed
        How many chunks went, and how many bytes their packs have lost altogether.
    bytes_kept
        Bytes of the packs that are there now.
    """

    packs_removed: int = 0
    packs_written: int = 0
    chunks_removed: int = 0
    bytes_removed: int = 0
    bytes_kept: int = 0

    def to_dict(self) -> dict[str, int]:
        """Return it as a plain dict."""
        return asdict(self)


def collect(store: ChunkStore, needed: Set[bytes], waste: float = WASTE) -> Collected:
    """Remove what nobody needs of a store that is held alone.

    Packs of which nothing is needed are removed, and those that cannot be read, where all that is needed is elsewhere.
    When what is not needed in the others is more than `waste` of the store, those with the most of it are written anew,
    without it. The new pack is durable before an old one goes. One that has the only copy of something needed, and
    cannot be read there, stays as it is, with all that is in it, and nothing is copied from it: that frees no byte, and
    what is damaged may be mended by hand.

    Parameters
    ----------
    needed
        Names of chunks; others go.
    waste
        See there; with 0 nothing that is not needed is left in a pack that can be read.
    """
    done = Collected()
    before = store.nbytes
    useless: list[str] = []
    wasteful: list[tuple[int, str]] = []
    for name in store.packs:
        chunks = store.chunks_of(name)
        kept = [place.stored for _, place in _kept(store, name, needed)]
        if not kept:
            done.chunks_removed += len(chunks)
            useless.append(name)
        elif len(kept) < len(chunks):
            wasteful.append((sum(place.stored for place in chunks.values()) - sum(kept), name))
    if all(chunk in store for chunk in needed):
        useless += [name for name, error in store.damaged.items() if isinstance(error, IntegrityError)]
    done.packs_removed += len(useless)
    store.remove(useless)
    if sum(nbytes for nbytes, _ in wasteful) > waste * store.nbytes:
        _rewrite(store, wasteful, needed, waste / 2 * store.nbytes, done)
    done.bytes_kept = store.nbytes
    done.bytes_removed = before - done.bytes_kept
    return done


def stuck(store: ChunkStore, needed: Set[bytes]) -> list[str]:
    """Return the packs that keep what nobody needs, since something in them that is needed cannot be read."""
    return [
        name
        for name in store.packs
        if 0 < sum(1 for _ in _kept(store, name, needed)) < len(store.chunks_of(name))
        and not _can_be_read(store, name, needed)
    ]


def _rewrite(
    store: ChunkStore, wasteful: list[tuple[int, str]], needed: Set[bytes], allowed: float, done: Collected
) -> None:
    left = sum(nbytes for nbytes, _ in wasteful)
    old: list[str] = []
    with store.writer() as writer:
        for dead, name in sorted(wasteful, reverse=True):
            if left <= allowed:
                break
            left -= dead  # also where it has to stay: copying others instead would not make it less
            if _can_be_read(store, name, needed):
                done.chunks_removed += _copy(store, name, needed, writer)
                old.append(name)
    done.packs_written += writer.chunks > 0
    done.packs_removed += len(old)
    store.remove(old)


def _can_be_read(store: ChunkStore, name: str, needed: Set[bytes]) -> bool:
    """Tell whether all that is needed of a pack can be read, there or elsewhere."""
    try:
        for chunk, place in _kept(store, name, needed):
            store.read_into(chunk, _room(place))
    except (IntegrityError, StorageError):
        return False
    return True


def _copy(store: ChunkStore, name: str, needed: Set[bytes], writer: PackWriter) -> int:
    """Copy what is needed of a pack, and return how many chunks are not."""
    kept = 0
    for chunk, place in _kept(store, name, needed):
        stored = _room(place)
        found = store.read_into(chunk, stored)
        writer.copy(chunk, found, stored[: found.stored])
        kept += 1
    return len(store.chunks_of(name)) - kept


def _kept(store: ChunkStore, name: str, needed: Set[bytes]) -> Iterator[tuple[bytes, Place]]:
    """Give what is needed of a pack and not read from another one."""
    return ((chunk, at) for chunk, at in store.chunks_of(name).items() if chunk in needed and store.prefer(name, chunk))


def _room(place: Place) -> memoryview:
    """Return a buffer for a chunk, or for a copy of it that is packed in another way."""
    return memoryview(bytearray(max(place.stored, place.raw)))
