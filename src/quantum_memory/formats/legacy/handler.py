"""The files of the first implementation, for the registry: they are read, and nothing is written like them."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any

from quantum_memory.formats.legacy.verbs import HEAD_BYTES, ids, read, recognise
from quantum_memory.formats.reader import WholeReader, whole_reader
from quantum_memory.formats.registry import Handler, OpenOptions

if TYPE_CHECKING:
    from collections.abc import Generator

    from quantum_memory.durability.files import Readable


class LegacyFile(Handler):
    """A file of the first implementation."""

    holds_many = True

    def open(self, source: Readable, options: OpenOptions) -> WholeReader:
        with closing(source):
            return _reader(source, options, options.state_id)

    def contents(self, source: Readable) -> dict[str, Any] | None:
        names = _members(source)
        if len(names) < 2:  # one is shown itself
            return None
        states = [{"id": name} for name in names]
        facts = {"path": source.name, "format": "legacy hdf5-store", "version": "1.0", "bytes": source.size}
        return facts | {"states": states, "time_series": []}

    def each(self, source: Readable, options: OpenOptions) -> Generator[WholeReader]:
        with closing(source):
            members: list[str | None] = [options.state_id]
            if options.state_id is None:
                members = [*_members(source)] or members
            for member in members:
                yield _reader(source, options, member)


def _members(source: Readable) -> list[str]:
    """Return the ids of the states in a store; none of a file that is not one."""
    head = source.read(0, min(HEAD_BYTES, source.size))
    return ids(source) if recognise(head, source.name, source.size) == "hdf5-store" else []


def _reader(source: Readable, options: OpenOptions, state_id: str | None) -> WholeReader:
    found = read(source, allow_pickle=options.allow_pickle, max_bytes=options.max_bytes, state_id=state_id)
    return whole_reader(
        found.memory,
        format=f"legacy {found.kind}",
        version=found.version or "unstated",
        name=source.name,
        size=source.size,
        notes=found.notes,
        member=state_id or "",
    )
