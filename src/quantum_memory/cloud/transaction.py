"""One version of a state vector, written by many: each writes its own amplitudes, and one commits."""

from __future__ import annotations

import contextlib
import pickle
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from quantum_memory.cloud.chunks import (
    Rows,
    squares_of,
    zero_digests,
)
from quantum_memory.cloud.errors import told
from quantum_memory.cloud.layout import DIGEST_BYTES, MOST_CHUNK, Place, node_names
from quantum_memory.cloud.parts import Part, Written
from quantum_memory.cloud.ranks import among
from quantum_memory.cloud.repository import Repository, Writing
from quantum_memory.cloud.writer import SnapshotWriter, clear, forget_digests, settled
from quantum_memory.cloud.zarr_format import before_of, call, line_and_tag
from quantum_memory.errors import IntegrityError, InvalidStateError
from quantum_memory.formats.form_reader import with_forms
from quantum_memory.formats.prepared import Prepared
from quantum_memory.formats.reader import AMPLITUDES, outline
from quantum_memory.formats.registry import Saved
from quantum_memory.state.arrays import CHUNK_BYTES, dtype_name, is_elsewhere
from quantum_memory.state.memory_state import MemoryState
from quantum_memory.state.quantum_state import StateVector

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

    from quantum_memory.cloud.ranks import Communicator
    from quantum_memory.cloud.reader import SnapshotReader
    from quantum_memory.formats.urls import URL
    from quantum_memory.state.arrays import AnyArray


@dataclass
class _Array:
    """An array that parts write: where it is, whether the version before has it, cut alike, and what is written."""

    path: str
    node: str
    place: Place
    has_old: bool
    done: dict[int, Written] = field(default_factory=dict)

    @property
    def stored(self) -> int:
        """Bytes of the chunks that are not all zero."""
        sizes = {index: part.stop - part.start for index, part in ((k, self.place.items(k)) for k in self.done)}
        each = {index: self.place.itemsize * size for index, size in sizes.items()}
        return sum(nbytes for index, nbytes in each.items() if self.done[index].digests != zero_digests(nbytes))


class Transaction:
    """A version of a state vector that is being written; see `transaction`.

    Attributes
    ----------
    chunk
        Amplitudes in a chunk.
    size
        Amplitudes of the state.
    saved
        What was saved, after the block has ended; otherwise None.
    """

    def __init__(
        self,
        url: URL,
        given: Prepared | None,
        *,
        replaced: Mapping[str, Any] | None = None,
        chunk_bytes: int | None = None,
        partial: bool = False,
        durable: bool = True,
        message: str | None = None,
        check: Callable[[str], object] | None = None,
    ) -> None:
        self._url = url
        self._given = given
        self._replaced = dict(replaced or {})
        self._chunk_bytes = chunk_bytes
        self._partial = partial
        self._durable = durable
        self._message = message
        self._check = check
        self._stack = contextlib.ExitStack()
        self._arrays: dict[str, _Array] = {}
        self._handed = 0
        self._is = "not begun"
        self.saved: Saved | None = None

    def __enter__(self) -> Transaction:
        if self._is != "not begun":
            raise InvalidStateError(
                "a transaction is begun once", path=str(self._url), next_step="make another one for the next version"
            )
        with contextlib.ExitStack() as stack:
            self._repository = Repository(self._url, create=True)
            line, self._tag = line_and_tag(self._repository, self._url)
            self._writing: Writing = stack.enter_context(self._repository.writing(line, durable=self._durable))
            self._before: SnapshotReader | None
            self._before, self._damaged = before_of(self._repository, self._writing.seen)
            self._memory = self._described()
            self._arrays = self._cut()
            if self._partial and not self._arrays[AMPLITUDES].has_old:
                raise InvalidStateError(
                    "there is no state of this dtype, size and chunk before it, of which parts could stay",
                    path=str(self._url),
                    next_step="leave partial out, and write all of it",
                )
            with told(self._url, "begin a transaction"):
                store = self._writing.session.store
                if self._damaged:
                    clear(store)
                for one in self._arrays.values():
                    if not one.has_old:
                        Rows(store, one.node, one.place).create()
                        forget_digests(store, one.node)
                self._repository.prepare(self._writing)
            self._stack = stack.pop_all()
        self._is = "open"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._stack:
            was, self._is = self._is, "over"
            if kind is None:
                if was != "open":
                    raise InvalidStateError(
                        "not all parts that it was given could be taken back",
                        path=str(self._url),
                        next_step="write the version again",
                    )
                self._commit()

    def among(self, comm: Communicator) -> contextlib.AbstractContextManager[Part]:
        """Give each rank of an MPI job a part, for a block; the first rank commits when all have ended theirs.

        Every rank makes the same transaction and calls this, and none enters it otherwise. Where one fails all raise an
        error, and nothing has happened.

        Parameters
        ----------
        comm
            A communicator of mpi4py.
        """
        return among(self, comm)

    @property
    def name(self) -> str:
        """The address."""
        return str(self._url)

    @property
    def chunk(self) -> int:
        """Amplitudes in a chunk."""
        return self._arrays[AMPLITUDES].place.chunk

    @property
    def size(self) -> int:
        """Amplitudes of the state."""
        return self._arrays[AMPLITUDES].place.size

    def place(self, path: str) -> Place:
        """Return how an array is cut that parts write."""
        return self._arrays[path].place

    @property
    def follows(self) -> bool:
        """Whether there is a version before this one."""
        return self._before is not None or self._damaged

    def fork(self, path: str = AMPLITUDES) -> Part:
        """Return a part, for one writer.

        Parameters
        ----------
        path
            The array that it writes: the amplitudes, or another one that is not in memory.
        """
        self._check_open()
        self._handed += 1
        with told(self._url, "hand out a part"):
            # Icechunk hands out none once it has taken one back; a copy of one that nobody has written to is as good.
            fork = pickle.loads(pickle.dumps(self._writing.origin))  # noqa: S301 - it has just been made here
            one = self._arrays[path]
            name = str(self._url)
            return Part(fork, one.place, name, self._writing.branch, one.has_old, _path=path, _node=one.node)

    def merge(self, *parts: Part) -> None:
        """Take parts back that were written. They cannot be written to any more.

        Raises
        ------
        InvalidStateError
            A chunk was written by two of them, or one is a part of another transaction; then none was taken back.
        """
        self._check_open()
        done = {path: dict(one.done) for path, one in self._arrays.items()}
        for part in parts:
            if not isinstance(part, Part) or part._of != self._writing.branch:
                raise InvalidStateError(
                    f"{part!r:.60} is no part of this transaction",
                    path=str(self._url),
                    next_step="give the parts that its fork() has returned, after they were written",
                )
            if twice := done[part._path].keys() & part._done.keys():
                raise InvalidStateError(
                    f"amplitudes from {min(twice) * part.chunk} on were written by two parts",
                    path=str(self._url),
                    next_step="give each chunk to one of them",
                )
            done[part._path] |= part._done
        self._is = "broken"
        with told(self._url, "take parts back"):
            self._writing.session.merge(*(part._fork for part in parts))
        self._is = "open"
        for path, one in self._arrays.items():
            one.done = done[path]
        for part in parts:
            part._taken = True
        if self._writing.back is not None:
            self._writing.back.more(sum(part.nbytes for part in parts))

    def _check_open(self) -> None:
        if self._is != "open":
            raise InvalidStateError(
                f"the transaction is {self._is}",
                path=str(self._url),
                next_step="hand out parts and take them back in its with block",
            )

    def _commit(self) -> None:
        store = self._writing.session.store
        found = {path: self._rows(one) for path, one in self._arrays.items()}
        others = {path: array for path, array in self._memory.arrays.items() if path not in self._arrays}
        writer = SnapshotWriter(store, str(self._url), self._before, chunk_bytes=self._chunk_bytes)
        writer.make_room(self._memory.arrays)
        places = writer.write_arrays(others)
        with told(self._url, "write the digests of the state"):
            for path, one in self._arrays.items():
                places[path] = settled(store, one.node, one.place, found[path][0], self._old_rows(one))
        content = writer.describe(self._memory, places, found[AMPLITUDES][1] if AMPLITUDES in found else None)
        snapshot = self._writing.seen
        if self._writing.session.has_uncommitted_changes:
            snapshot = self._repository.commit(
                self._writing,
                self._message or f"save {content[:16]}",
                {"content_id": content},
                durable=self._durable,
                check=self._check,
            )
        else:
            self._repository.keep(snapshot, durable=self._durable, check=self._check)
        if self._tag is not None:
            call(self._repository, self._tag, snapshot)
        stored = writer.stored + sum(one.stored for one in self._arrays.values())
        memory = self._memory
        self.saved = Saved(str(self._url), "zarr", stored, content, memory.raw_bytes, memory.forms.infidelity)

    def _cut(self) -> dict[str, _Array]:
        """Return the arrays that parts write: the amplitudes, and what is not in memory."""
        arrays = self._memory.arrays
        nodes = node_names(arrays)
        made = {}
        for path in sorted(path for path in arrays if path == AMPLITUDES or is_elsewhere(arrays[path])):
            place = Place.cut(dtype_name(arrays[path].dtype) or "", tuple(arrays[path].shape), self._chunk_bytes)
            old = None if self._before is None else self._before.entries.get(path)
            cut = (place.dtype, place.shape, place.chunk, place.rows)
            has_old = old is not None and (old.dtype, old.shape, old.chunk, old.rows) == cut
            made[path] = _Array(path, nodes[path], place, has_old)
        return made

    def _old_rows(self, one: _Array) -> bytes | None:
        """Return the digests of the version before; None where there are none, or they cannot be read."""
        try:
            return self._before.rows(one.path) if self._before is not None and one.has_old else None
        except IntegrityError:
            return None

    def _rows(self, one: _Array) -> tuple[bytes, list[float]]:
        """Return all digests and squared norms, of chunks that were not written those of the version before."""
        place = one.place
        missing = [index for index in range(place.chunks) if index not in one.done]
        if missing and not self._partial:
            raise InvalidStateError(
                f"{len(missing)} of {place.chunks} chunks were not written, the first from amplitude "
                f"{missing[0] * place.chunk} on",
                path=str(self._url),
                next_step="write all of them, or begin with partial=True to keep what the version before has there",
            )
        if self._handed and not any(each.done for each in self._arrays.values()):
            raise InvalidStateError(
                "parts were handed out, and none that was taken back has written anything",
                path=str(self._url),
                next_step="merge the parts that the writers return: one that was pickled comes back as another one",
            )
        for index in missing:
            one.done[index] = self._kept(one, index)
        done = [one.done[index] for index in range(place.chunks)]
        squares = np.frombuffer(b"".join(one.squares for one in done), np.float64)
        return b"".join(one.digests for one in done), squares.tolist()

    def _kept(self, one: _Array, index: int) -> Written:
        """Return what is said of a chunk of the version before; its norm is computed from it."""
        assert self._before is not None  # noqa: S101 - `__enter__` has seen to it
        part = one.place.row_slice(index)
        digests = self._before.rows(one.path)[part.start * DIGEST_BYTES : part.stop * DIGEST_BYTES]
        squares = squares_of(self._before.chunk(one.path, index)) if one.path == AMPLITUDES else []
        return Written(digests, np.array(squares).tobytes())

    def _described(self) -> Prepared:
        """Return the memory that is written, with amplitudes that take no memory in the place of those to come."""
        if self._given is None:
            if self._before is None:
                raise InvalidStateError(
                    "there is no state yet, and nobody has said of what kind it is",
                    path=str(self._url),
                    next_step='say it: transaction(url, n_qubits=33, dtype="complex64", qubit_order="little")',
                )
            return Prepared.plain(_like(self._before, self._replaced))
        return self._given


def begin(
    url: URL,
    memory: MemoryState | None,
    replaced: Mapping[str, Any],
    *,
    chunk_bytes: int | None,
    partial: bool,
    durable: bool,
    message: str | None,
) -> Transaction:
    """Return a transaction; see `quantum_memory.transaction`.

    Parameters
    ----------
    memory
        What is written, over amplitudes that take no memory; None: like the version before.
    replaced
        Parts of the memory that are not like those of the version before.
    """
    if chunk_bytes is not None and (
        type(chunk_bytes) is not int or not CHUNK_BYTES <= chunk_bytes <= MOST_CHUNK or chunk_bytes % CHUNK_BYTES
    ):
        raise InvalidStateError(
            f"a chunk of {chunk_bytes!r:.40} bytes", next_step="give a multiple of 1 MiB (1048576), up to 1 GiB"
        )
    given = None if memory is None else Prepared.plain(memory)
    return Transaction(
        url, given, replaced=replaced, chunk_bytes=chunk_bytes, partial=partial, durable=durable, message=message
    )


def _like(before: SnapshotReader, replaced: Mapping[str, Any]) -> MemoryState:
    """Return the memory of the version before, over amplitudes that take no memory, with some parts replaced."""
    reader = with_forms(before)
    state = outline(reader)
    if not isinstance(state, StateVector):
        raise InvalidStateError(
            "the version before holds no state vector",
            path=before.name,
            next_step="say what the next one is: n_qubits, dtype, qubit_order",
        )
    entry = reader.entries[AMPLITUDES]
    arrays: dict[str, AnyArray] = {path: reader.read(path) for path in reader.entries if path != AMPLITUDES}
    arrays[AMPLITUDES] = np.broadcast_to(np.zeros((), state.dtype), entry.shape)
    memory = MemoryState.unflatten(before.document, arrays, before.record)
    parts = {name: getattr(memory, name) for name in ("classical", "emotion", "metadata")}
    return MemoryState(memory.quantum, **(parts | dict(replaced)), record=memory.record)
