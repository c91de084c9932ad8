"""One version of a state vector, written by many: each writes its own amplitudes, and one commits.

A `Part` is handed to a task, a thread or a rank of MPI, pickled or not (it is about a kilobyte long), writes whole
chunks, and is handed back. What it has to say of them, their digests and their norms, it carries along: nothing is read
again to commit.
"""

from __future__ import annotations

import contextlib
import operator
import pickle
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from quantum_memory.cloud.chunks import (
    Rows,
    at_once,
    digests_of,
    is_zero,
    read_digests,
    squares_of,
    zero_digests,
)
from quantum_memory.cloud.errors import told
from quantum_memory.cloud.layout import DIGEST_BYTES, MOST_CHUNK, Place
from quantum_memory.cloud.ranks import among
from quantum_memory.cloud.repository import Repository, Writing
from quantum_memory.cloud.writer import SnapshotWriter, clear, forget_digests, settled
from quantum_memory.cloud.zarr_format import already_there, before_of, call, line_and_tag
from quantum_memory.errors import IntegrityError, InvalidStateError
from quantum_memory.formats.prepared import Prepared
from quantum_memory.formats.reader import AMPLITUDES, outline
from quantum_memory.formats.registry import Saved
from quantum_memory.state.arrays import CHUNK_BYTES, dtype_name, is_elsewhere
from quantum_memory.state.memory_state import MemoryState
from quantum_memory.state.products import CARRIED, part_of, ranges, shared_out
from quantum_memory.state.quantum_state import StateVector
from quantum_memory.state.windows import DaskRow, InMemory

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from types import TracebackType

    import icechunk

    from quantum_memory.cloud.ranks import Communicator
    from quantum_memory.cloud.reader import SnapshotReader
    from quantum_memory.formats.registry import SaveOptions
    from quantum_memory.formats.urls import URL
    from quantum_memory.state.arrays import AnyArray, Windows


@dataclass(frozen=True)
class _Chunk:
    """What is said of a chunk that was written: rows of digests, and the squared norm of each MiB, as float64."""

    digests: bytes
    squares: bytes


@dataclass
class Part:
    """What one writer writes of a state vector. It can be pickled.

    Attributes
    ----------
    chunk
        Amplitudes in a chunk: what is written begins at a multiple of it, and ends at one or at the end of the state.
    size
        Amplitudes of the state.
    """

    _fork: icechunk.session.ForkSession = field(repr=False)
    _place: Place
    _name: str
    _of: str  # which transaction
    _has_old: bool
    _done: dict[int, _Chunk] = field(default_factory=dict, repr=False)
    _taken: bool = False

    @property
    def chunk(self) -> int:
        """Amplitudes in a chunk."""
        return self._place.chunk

    @property
    def size(self) -> int:
        """Amplitudes of the state."""
        return self._place.size

    @property
    def nbytes(self) -> int:
        """Bytes of the amplitudes that were written."""
        parts = map(self._place.items, self._done)
        return int(self._place.itemsize * sum(part.stop - part.start for part in parts))

    def write(self, where: int | slice, amplitudes: AnyArray) -> None:
        """Write amplitudes, chunk by chunk; chunks that are as they were in the version before are not written again.

        Parameters
        ----------
        where
            Index of the first amplitude, or the slice of all.
        amplitudes
            1-D array, of the dtype of the state.

        Raises
        ------
        InvalidStateError
            They are of another dtype, do not fit, or do not begin and end where chunks do; or a chunk of them has been
            written already, or the part has been taken back.
        StorageError
            The storage cannot be reached, or refuses; then none of them counts as written, and may be written again.
        """
        start, stop = self._checked(where, amplitudes)
        if self._taken:
            raise InvalidStateError(
                "this part has been taken back, and what is written to it now would be lost",
                path=self._name,
                next_step="ask the transaction for another one: fork()",
            )
        indices = range(start // self.chunk, -(-stop // self.chunk))
        if done := [index for index in indices if index in self._done]:
            raise InvalidStateError(
                f"amplitudes from {done[0] * self.chunk} on have been written already",
                path=self._name,
                next_step="write each chunk once",
            )
        rows = Rows(self._fork.store, AMPLITUDES, self._place)
        written: dict[int, _Chunk] = {}
        with told(self._name, "write amplitudes"):
            old = self._old(indices)
            little = amplitudes.dtype.newbyteorder("<")

            def write(index: int) -> None:
                part = self._place.items(index)
                items = np.array(amplitudes[part.start - start : part.stop - start], dtype=little, order="C", copy=True)
                zero = is_zero(items)
                digests = zero_digests(items.nbytes) if zero else digests_of(items)
                if digests != old.get(index) and not (zero and not self._has_old):
                    rows.write(index, items, zero=zero)
                written[index] = _Chunk(digests, np.array(squares_of(items)).tobytes())

            at_once(write, indices)
        self._done |= written

    def _old(self, indices: range) -> dict[int, bytes]:
        """Return the digests that chunks have in the version before, where they are kept in the store."""
        if not self._has_old or not indices or self._place.mebibytes <= 1:
            return {}
        first, last = self._place.row_slice(indices[0]), self._place.row_slice(indices[-1])
        try:
            with told(self._name, "read digests"):
                rows = read_digests(self._fork.store, AMPLITUDES, slice(first.start, last.stop))
        except IntegrityError:
            return {}  # so that all is written
        found = {}
        for index in indices:
            part = self._place.row_slice(index)
            found[index] = rows[(part.start - first.start) * DIGEST_BYTES : (part.stop - first.start) * DIGEST_BYTES]
        return found

    def _checked(self, where: int | slice, amplitudes: AnyArray) -> tuple[int, int]:
        if type(amplitudes) not in {np.ndarray, np.memmap} or amplitudes.ndim != 1:
            raise InvalidStateError(
                "amplitudes are a plain array of one axis", path=self._name, next_step="give np.asarray of it, reshaped"
            )
        if dtype_name(amplitudes.dtype) != self._place.dtype:
            raise InvalidStateError(
                f"the amplitudes are {amplitudes.dtype}, and the state is {self._place.dtype}",
                path=self._name,
                next_step="convert explicitly, or begin a transaction with this dtype",
            )
        if isinstance(where, slice):
            start, stop, step = where.indices(self.size)
            if step != 1 or stop - start != len(amplitudes):
                raise InvalidStateError(
                    f"{len(amplitudes)} amplitudes are no {where}",
                    path=self._name,
                    next_step="give as many as there are",
                )
        else:
            try:
                start = operator.index(where)
            except TypeError:
                raise InvalidStateError(
                    f"{where!r:.40} says no place", path=self._name, next_step="give an index, or a slice"
                ) from None
            stop = start + len(amplitudes)
        whole = start % self.chunk == 0 and (stop % self.chunk == 0 or stop == self.size)
        if not 0 <= start <= stop <= self.size or not whole:
            raise InvalidStateError(
                f"amplitudes {start} to {stop} are not whole chunks of {self.chunk} of a state of {self.size}",
                path=self._name,
                next_step=f"begin at a multiple of {self.chunk}, and end at one, or begin with another chunk_bytes",
            )
        return start, stop


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
    ) -> None:
        self._url = url
        self._given = given
        self._replaced = dict(replaced or {})
        self._chunk_bytes = chunk_bytes
        self._partial = partial
        self._durable = durable
        self._message = message
        self._stack = contextlib.ExitStack()
        self._done: dict[int, _Chunk] = {}
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
            self._writing: Writing = stack.enter_context(self._repository.writing(line))
            self._before: SnapshotReader | None
            self._before, self._damaged = before_of(self._repository, self._writing.seen)
            self._memory = self._described()
            array = self._memory.arrays[AMPLITUDES]
            self._place = Place.cut(dtype_name(array.dtype) or "", array.shape, self._chunk_bytes)
            old = None if self._before is None else self._before.entries.get(AMPLITUDES)
            cut = (self._place.dtype, self._place.shape, self._place.chunk, self._place.rows)
            self._has_old = old is not None and (old.dtype, old.shape, old.chunk, old.rows) == cut
            if self._partial and not self._has_old:
                raise InvalidStateError(
                    "there is no state of this dtype, size and chunk before it, of which parts could stay",
                    path=str(self._url),
                    next_step="leave partial out, and write all of it",
                )
            with told(self._url, "begin a transaction"):
                store = self._writing.session.store
                if self._damaged:
                    clear(store)
                if not self._has_old:
                    Rows(store, AMPLITUDES, self._place).create()
                    forget_digests(store, AMPLITUDES)
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
        return self._place.chunk

    @property
    def size(self) -> int:
        """Amplitudes of the state."""
        return self._place.size

    @property
    def follows(self) -> bool:
        """Whether there is a version before this one."""
        return self._before is not None or self._damaged

    def fork(self) -> Part:
        """Return a part, for one writer."""
        self._check_open()
        self._handed += 1
        with told(self._url, "hand out a part"):
            # Icechunk hands out none once it has taken one back; a copy of one that nobody has written to is as good.
            fork = pickle.loads(pickle.dumps(self._writing.origin))  # noqa: S301 - it has just been made here
            return Part(fork, self._place, str(self._url), self._writing.branch, self._has_old)

    def merge(self, *parts: Part) -> None:
        """Take parts back that were written. They cannot be written to any more.

        Raises
        ------
        InvalidStateError
            A chunk was written by two of them, or one is a part of another transaction; then none was taken back.
        """
        self._check_open()
        done = dict(self._done)
        for part in parts:
            if not isinstance(part, Part) or part._of != self._writing.branch:
                raise InvalidStateError(
                    f"{part!r:.60} is no part of this transaction",
                    path=str(self._url),
                    next_step="give the parts that its fork() has returned, after they were written",
                )
            if twice := done.keys() & part._done.keys():
                raise InvalidStateError(
                    f"amplitudes from {min(twice) * self.chunk} on were written by two parts",
                    path=str(self._url),
                    next_step="give each chunk to one of them",
                )
            done |= part._done
        self._is = "broken"
        with told(self._url, "take parts back"):
            self._writing.session.merge(*(part._fork for part in parts))
        self._is, self._done = "open", done
        for part in parts:
            part._taken = True

    def _check_open(self) -> None:
        if self._is != "open":
            raise InvalidStateError(
                f"the transaction is {self._is}",
                path=str(self._url),
                next_step="hand out parts and take them back in its with block",
            )

    def _commit(self) -> None:
        place, store = self._place, self._writing.session.store
        rows, squares = self._rows()
        others = {path: array for path, array in self._memory.arrays.items() if path != AMPLITUDES}
        writer = SnapshotWriter(store, str(self._url), self._before, chunk_bytes=self._chunk_bytes)
        writer.make_room(self._memory.arrays)
        places = writer.write_arrays(others)
        with told(self._url, "write the digests of the state"):
            places[AMPLITUDES] = settled(store, AMPLITUDES, place, rows, self._old_rows())
        content = writer.describe(self._memory, places, squares)
        snapshot = self._writing.seen
        if self._writing.session.has_uncommitted_changes:
            snapshot = self._repository.commit(
                self._writing,
                self._message or f"save {content[:16]}",
                {"content_id": content},
                durable=self._durable,
            )
        else:
            self._repository.keep(snapshot, durable=self._durable)
        if self._tag is not None:
            call(self._repository, self._tag, snapshot)
        stored = sum(
            self._place.itemsize * (part.stop - part.start)
            for part, chunk in ((self._place.items(index), chunk) for index, chunk in self._done.items())
            if chunk.digests != zero_digests(self._place.itemsize * (part.stop - part.start))
        )
        self.saved = Saved(str(self._url), "zarr", stored + writer.stored, content, self._memory.raw_bytes)

    def _old_rows(self) -> bytes | None:
        """Return the digests of the version before; None where there are none, or they cannot be read."""
        try:
            return self._before.rows(AMPLITUDES) if self._before is not None and self._has_old else None
        except IntegrityError:
            return None

    def _rows(self) -> tuple[bytes, list[float]]:
        """Return all digests and squared norms, of chunks that were not written those of the version before."""
        missing = [index for index in range(self._place.chunks) if index not in self._done]
        if missing and not self._partial:
            raise InvalidStateError(
                f"{len(missing)} of {self._place.chunks} chunks were not written, the first from amplitude "
                f"{missing[0] * self.chunk} on",
                path=str(self._url),
                next_step="write all of them, or begin with partial=True to keep what the version before has there",
            )
        if self._handed and not self._done:
            raise InvalidStateError(
                "parts were handed out, and none that was taken back has written anything",
                path=str(self._url),
                next_step="merge the parts that the writers return: one that was pickled comes back as another one",
            )
        for index in missing:
            self._done[index] = self._kept(index)
        done = [self._done[index] for index in range(self._place.chunks)]
        squares = np.frombuffer(b"".join(one.squares for one in done), np.float64)
        return b"".join(one.digests for one in done), squares.tolist()

    def _kept(self, index: int) -> _Chunk:
        """Return what is said of a chunk of the version before; its norm is computed from it."""
        assert self._before is not None  # noqa: S101 - `__enter__` has seen to it
        part = self._place.row_slice(index)
        digests = self._before.rows(AMPLITUDES)[part.start * DIGEST_BYTES : part.stop * DIGEST_BYTES]
        return _Chunk(digests, np.array(squares_of(self._before.chunk(AMPLITUDES, index))).tobytes())

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


def saved_by(executor: Any, url: URL, memory: Prepared, options: SaveOptions) -> Saved:
    """Save a memory whose state vector an executor writes; see `quantum_memory.save`.

    Raises
    ------
    InvalidStateError
        It holds no state vector.
    """
    array: Any = memory.arrays.get(AMPLITUDES)
    if array is None:
        raise InvalidStateError(
            "an executor writes the amplitudes of a state vector, and there is none",
            path=str(url),
            next_step="leave the executor out",
        )
    shards: Windows = array if is_elsewhere(array) else InMemory(array)
    with Transaction(url, memory, durable=options.durable) as tx:
        if tx.follows and not options.overwrite:
            raise already_there(url)
        for part in _written_parts(executor, tx, shards):
            tx.merge(part)
            if options.progress is not None:
                options.progress(part.nbytes)
    assert tx.saved is not None  # noqa: S101 - the block has ended
    return tx.saved


def _written_parts(executor: Any, tx: Transaction, shards: Windows) -> Iterator[Part]:
    if isinstance(shards, DaskRow) and hasattr(executor, "get_executor"):
        # Its blocks go from where they are to who writes them, and past nobody else.
        from dask.delayed import delayed  # noqa: PLC0415 - who has a client of it has it

        write = delayed(_write_block, pure=False)
        blocks = shards.blocks(tx.chunk)
        futures = executor.compute([write(tx.fork(), k * tx.chunk, block) for k, block in enumerate(blocks)])
        yield from (future.result() for future in futures)
        return
    tasks = ((tx.fork(), part_of(shards, low, high), low, high) for low, high in ranges(tx.size, tx.chunk))
    yield from shared_out(_write_run, tasks, executor, most=CARRIED if isinstance(shards, InMemory) else None)


def _write_run(part: Part, shards: Windows, start: int, stop: int) -> Part:
    """Write a run of amplitudes, one chunk after the other, and return the part."""
    for low in range(start, stop, part.chunk):
        part.write(low, shards.items(low, min(low + part.chunk, stop)))
    return part


def _write_block(part: Part, start: int, amplitudes: AnyArray) -> Part:
    part.write(start, np.asarray(amplitudes))
    return part


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
    state = outline(before)
    if not isinstance(state, StateVector):
        raise InvalidStateError(
            "the version before holds no state vector",
            path=before.name,
            next_step="say what the next one is: n_qubits, dtype, qubit_order",
        )
    entry = before.entries[AMPLITUDES]
    arrays: dict[str, AnyArray] = {path: before.read(path) for path in before.entries if path != AMPLITUDES}
    arrays[AMPLITUDES] = np.broadcast_to(np.zeros((), state.dtype), entry.shape)
    memory = MemoryState.unflatten(before.document, arrays, before.record)
    parts = {name: getattr(memory, name) for name in ("classical", "emotion", "metadata")}
    return MemoryState(memory.quantum, **(parts | dict(replaced)), record=memory.record)
