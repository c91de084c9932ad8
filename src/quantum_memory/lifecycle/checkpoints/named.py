"""A checkpoint in the place of a file: ``folder@name``, for the verbs that read memories."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from quantum_memory.durability.files import ReadableBytes
from quantum_memory.errors import ConflictError, InvalidStateError, MissingError, MissingFileError, shell_word
from quantum_memory.formats.names import some_of
from quantum_memory.formats.registry import Handler
from quantum_memory.lifecycle.checkpoints.catalogue import Catalogue
from quantum_memory.lifecycle.checkpoints.manifest import as_json, noted_head
from quantum_memory.lifecycle.checkpoints.transfer import RECORD

if TYPE_CHECKING:
    from collections.abc import Mapping

    from quantum_memory.durability.files import Readable
    from quantum_memory.formats.names import Named
    from quantum_memory.formats.reader import Reader
    from quantum_memory.formats.registry import OpenOptions
    from quantum_memory.formats.urls import URL


class NamedCheckpoints:
    """See `formats.names.Checkpoints`."""

    def open(self, named: Named, options: OpenOptions) -> tuple[Readable, Handler] | None:
        catalogue = Catalogue(named.path)
        if not catalogue.folder.is_there:
            return None
        if options.key is not None:
            raise InvalidStateError(
                "it is not encrypted, and a key was given to open it", path=named.said, next_step="leave the key out"
            )
        if options.state_id is not None:
            raise InvalidStateError(
                "a checkpoint holds one state, which has no id", path=named.said, next_step="leave state_id out"
            )
        return ReadableBytes(b"", named.said), _OneCheckpoint(catalogue, named)

    def at(self, url: URL) -> str | None:
        if url.name is None:
            return None
        catalogue = Catalogue(str(url.at(None)))
        try:
            one = catalogue.resolve(url.name)
        except (MissingError, ConflictError):
            return None
        return one if one in catalogue.folder.ids() else None

    def record(self, noted: Mapping[str, Any]) -> dict[str, Any]:
        head = noted_head(noted)
        return {} if head is None else {RECORD: as_json(head)}


class _OneCheckpoint(Handler):
    """What reads one checkpoint, as what it was exported to would be read; nothing is collected until it is closed."""

    def __init__(self, catalogue: Catalogue, named: Named) -> None:
        self._catalogue, self._named = catalogue, named

    def open(self, source: Readable, options: OpenOptions) -> Reader:  # noqa: ARG002 - chunks know their lengths
        with ExitStack() as stack:
            stack.callback(self._catalogue.folder.close)
            stack.enter_context(self._catalogue.held())  # nobody removes it between the choice and the reading
            reader = stack.enter_context(self._catalogue.folder.reading(self._meant()))
            reader.name = self._named.said
            reader.record = reader.record | {RECORD: as_json(reader.checkpoint)}
            reader.on_close = stack.pop_all().close
            return reader

    def _meant(self) -> str:
        """Return the id that is meant by an id, the beginning of one, a tag, a name, or a branch: its newest.

        Raises
        ------
        MissingFileError
            There is none. It says which names there are.
        """
        folder, name = self._catalogue.folder, self._named.name
        listed = folder.listed()[0]
        try:
            one = self._catalogue.resolve(name)
        except MissingError:
            one = next((head.id for head in reversed(listed) if head.branch == name), "")
        there = folder.ids()
        if one in there:
            return one
        tags = sorted(tag for tag, tagged in folder.refs().tags.items() if tagged in there)
        branches = sorted({head.branch for head in listed})
        names = dict.fromkeys([*tags, *branches, *(head.name for head in reversed(listed) if head.name)])
        raise MissingFileError(
            f"there is no checkpoint {name!r:.80}",
            path=self._named.path,
            next_step=f"it has {some_of(names)}; qmem checkpoint -C {shell_word(self._named.path)} list shows all",
        )
