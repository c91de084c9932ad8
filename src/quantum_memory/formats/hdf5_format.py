"""The ``.h5`` file, for the registry: a store of many states, or of one, as `quantum_memory.save` writes it."""

from __future__ import annotations

import os
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Any

from quantum_memory.errors import ConflictError, IntegrityError, InvalidStateError, MissingError
from quantum_memory.formats import hdf5_guard as guard
from quantum_memory.formats.form_reader import with_forms
from quantum_memory.formats.hdf5_index import add_state, described, index_rows, intact_rows, says
from quantum_memory.formats.hdf5_layout import COMPRESSIONS, compression_arguments
from quantum_memory.formats.hdf5_series import Series
from quantum_memory.formats.hdf5_state_reader import StateReader
from quantum_memory.formats.hdf5_state_writer import StateWriter
from quantum_memory.formats.hdf5_store import (
    SERIES,
    VERSION,
    is_free,
    reading,
    replacing,
    saying_how_to_go_on,
)
from quantum_memory.formats.names import some_of
from quantum_memory.formats.registry import Handler

if TYPE_CHECKING:
    from collections.abc import Generator

    from quantum_memory.durability.files import Readable
    from quantum_memory.formats.prepared import Prepared
    from quantum_memory.formats.reader import Reader
    from quantum_memory.formats.registry import OpenOptions, Progress, SaveOptions

    Path = str | os.PathLike[str]

_ALONE = "state"
"""The id of the state of a file that holds one state, as `quantum_memory.save` writes it."""


class HDF5(Handler):
    """A store; `save` writes one that holds one state."""

    compressions = frozenset({"auto", *COMPRESSIONS, "zstd", "bitshuffle"})
    holds_many = True

    def save(self, path: Path, memory: Prepared, options: SaveOptions) -> tuple[str, int, str]:
        name = os.fspath(path)
        arguments = compression_arguments(options.compression)

        def write(progress: Progress | None) -> tuple[str, int, str]:
            with replacing(name, durable=options.durable, overwrite=options.overwrite) as store:
                # Only now, when nobody writes to it until it is replaced.
                if options.overwrite and not is_free(name):
                    _refuse_to_replace(name)
                writer = StateWriter(store, arguments, progress)
                facts = add_state(store, _ALONE, 0, lambda group: writer.write(group, memory))
            return name, store.file.size, str(facts["content_id"])

        return guard.passing(options.progress, write)

    def open(self, source: Readable, options: OpenOptions) -> Reader:
        source.close()
        with ExitStack() as stack:
            store = stack.enter_context(reading(source.name))
            names = [options.state_id] if options.state_id is not None else list(store.states)
            if len(names) != 1:
                raise InvalidStateError(
                    f"it is a store of {len(names)} states",
                    path=source.name,
                    next_step="say which with state_id= (--state); qmem info lists them",
                )
            if not guard.has(store.states, names[0]):
                raise MissingError(
                    f"there is no state {names[0]!r:.80}",
                    path=source.name,
                    next_step=f"it has {some_of(store.states)}; qmem info lists them",
                )
            reader = StateReader(store.file, store.state(names[0]))
            reader.on_close = stack.pop_all().close
            return with_forms(reader, options.max_bytes)

    def contents(self, source: Readable) -> dict[str, Any] | None:
        with reading(source.name) as store:
            rows = index_rows(store, 0, len(store.index))
            states = [described(row) for row in rows[::-1] if row["id"]]
            series = [Series(store, name).summary() for name in guard.child(store.root, SERIES)]
            if len(states) == 1 and not series:
                return None
            facts = {"path": source.name, "format": "h5", "version": VERSION, "bytes": store.file.size}
            return facts | {"states": states, "time_series": series}

    def each(self, source: Readable, options: OpenOptions) -> Generator[Reader]:
        if options.state_id is not None:
            with closing(self.open(source, options)) as one:
                yield one
            return
        source.close()
        with reading(source.name) as store:
            indexed = sorted(row["id"].decode() for row in index_rows(store, 0, len(store.index)) if row["id"])
            if indexed != sorted(store.states):
                raise IntegrityError(
                    "its index and its states do not fit together",
                    path=source.name,
                    next_step="HDF5QuantumStorage(path).optimize_storage()",
                )
            rows = intact_rows(store)
            for name in store.states:
                reader = StateReader(store.file, store.state(name))
                if not says(rows[name][0], reader.summary()):
                    raise IntegrityError(
                        f"its index says of the state {name!r} what does not hold",
                        path=source.name,
                        next_step="HDF5QuantumStorage(path).optimize_storage()",
                    )
                yield with_forms(reader, options.max_bytes)
            for name in guard.child(store.root, SERIES):
                Series(store, name).check()


def _refuse_to_replace(path: str) -> None:
    """Refuse to write one state over a store of many, or over what is no store."""
    with saying_how_to_go_on(), reading(path) as store:
        names: list[str] = list(store.states)
        if names != [_ALONE] or len(guard.child(store.root, SERIES)):
            raise ConflictError(
                f"it is a store of {len(names)} states, which one state would replace",
                path=path,
                next_step="append with HDF5QuantumStorage(path).save_quantum_state(state), or choose another name",
            )
