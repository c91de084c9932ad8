"""Memories as pickles (``.pkl``) of plain values, for programs that speak nothing else; with out-of-band buffers.

A pickle is a program, and reading one runs it. Ours is written without the pickler, in one fixed spelling of seven
operations that build a dict of text, integers and bytes; it is read by comparing it with that spelling, so that there
is no machine that a pickle could drive, and no name that one could ask for. Any other pickle is refused unread.
``docs/serializer_formats.md`` is the specification.
"""

from __future__ import annotations

import io
from contextlib import closing
from pickle import PickleBuffer
from typing import TYPE_CHECKING, Any

from quantum_memory.durability.files import ReadableBytes
from quantum_memory.errors import IntegrityError, UnsafeError
from quantum_memory.formats.prepared import Prepared
from quantum_memory.formats.reader import read_memory
from quantum_memory.formats.registry import Handler, OpenOptions
from quantum_memory.formats.tree_file import Cursor, Encoding, Form, is_sealed_whole, read_tree, write_tree
from quantum_memory.state.arrays import bytes_of
from quantum_memory.state.memory_state import as_memory_state

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from quantum_memory.durability.files import Buffer, Readable
    from quantum_memory.formats.reader import Reader
    from quantum_memory.formats.registry import Progress, SaveOptions, Sink
    from quantum_memory.formats.seal import Incoming, Outgoing, SealedSink
    from quantum_memory.state.memory_state import MemoryState

_OUT_OF_BAND = b"\x97\x98"  # NEXT_BUFFER READONLY_BUFFER
_DICT, _SETITEMS, _MARK, _TUPLE = b"}(", b"u", b"(", b"t"


class PickleEncoding(Encoding):
    """How the operations of protocol 5 spell the values of the tree.

    Parameters
    ----------
    callback
        Asked where each array goes when it is written: see `to_pickle`.
    buffers
        The arrays that were written elsewhere, in order.
    """

    name = "pkl"
    begin = b"\x80\x05"
    end = b"."
    close_map = _SETITEMS
    close_list = _TUPLE
    text = (Form(b"\x8c", (1 << 8) - 1, "<B"), Form(b"X", (1 << 32) - 1, "<I"))
    data = (Form(b"C", (1 << 8) - 1, "<B"), Form(b"B", (1 << 32) - 1, "<I"), Form(b"\x8e", (1 << 63) - 1, "<Q"))
    number = (
        Form(b"K", (1 << 8) - 1, "<B"),
        Form(b"M", (1 << 16) - 1, "<H"),
        Form(b"J", (1 << 31) - 1, "<i"),
        Form(b"\x8a\x08", (1 << 63) - 1, "<q"),
    )

    def __init__(
        self, callback: Callable[[PickleBuffer], object] | None = None, buffers: Iterable[Any] | None = None
    ) -> None:
        self._callback = callback
        self._buffers = iter(() if buffers is None else buffers)

    def open_map(self, count: int) -> bytes:  # noqa: ARG002 - pickle does not say how many there are
        return _DICT

    def open_list(self, count: int) -> bytes:  # noqa: ARG002
        return _MARK

    def map_items(self, cursor: Cursor) -> Iterator[None]:
        return _until(cursor, _DICT, _SETITEMS)

    def list_items(self, cursor: Cursor) -> Iterator[None]:
        return _until(cursor, _MARK, _TUPLE)

    def write_data(self, sealed: SealedSink, head: bytes, outgoing: Outgoing, path: str) -> None:
        if self._callback is not None:
            array = outgoing.arrays[path]
            little = array.astype(array.dtype.newbyteorder("<"), order="C", copy=False)
            if not self._callback(PickleBuffer(bytes_of(little.reshape(-1)))):
                outgoing.write(path, len)
                sealed.write(head + _OUT_OF_BAND)
                return
        super().write_data(sealed, head, outgoing, path)

    def read_data(self, cursor: Cursor, incoming: Incoming, path: str, dtype: str, shape: tuple[int, ...]) -> None:
        if cursor.peek(1) != _OUT_OF_BAND[:1]:
            super().read_data(cursor, incoming, path, dtype, shape)
            return
        cursor.expect(_OUT_OF_BAND)
        buffer = next(self._buffers, None)
        if buffer is None:
            raise IntegrityError("it has fewer buffers than it names", next_step="give all, in order")
        incoming.lend(path, dtype, shape, buffer)


def _until(cursor: Cursor, begin: bytes, end: bytes) -> Iterator[None]:
    """Pass `begin`, yield until `end` follows, and pass that."""
    cursor.expect(begin)
    while cursor.peek(len(end)) != end:
        yield
    cursor.expect(end)


class Pickle(Handler):
    """The ``.pkl`` file, for the registry."""

    def write(self, sink: Sink, memory: Prepared, options: SaveOptions) -> str:
        return write_tree(sink, memory, PickleEncoding(), options.progress)

    def open(self, source: Readable, options: OpenOptions) -> Reader:
        with closing(source):
            return _read(source, PickleEncoding(), options)

    def check_bytes(self, source: Readable, options: OpenOptions, progress: Progress | None = None) -> str | None:  # noqa: ARG002
        # Nothing of it is read as a pickle, so that nobody has to allow it.
        return PickleEncoding.name if is_sealed_whole(source, progress) else None


def _read(source: Readable, encoding: PickleEncoding, options: OpenOptions) -> Reader:
    if not options.allow_pickle:
        raise UnsafeError(
            "it is a pickle, and pickles are read when that is asked for",
            path=source.name,
            next_step="pass allow_pickle=True (qmem: --allow-pickle); nothing in it is run",
        )
    return read_tree(source, encoding, options)


def to_pickle(state: object, buffer_callback: Callable[[PickleBuffer], object] | None = None) -> bytes:
    """Return a state as a pickle, which plain `pickle.loads` reads as a dict of Python's own values.

    Parameters
    ----------
    state
        Anything that `quantum_memory.save` takes.
    buffer_callback
        Called with the bytes of each array as a `pickle.PickleBuffer`, without a copy where they are contiguous and
        little-endian; where it returns a false value they are left out, and given to `from_pickle` beside the pickle
        (PEP 574). They must not change meanwhile.
    """
    sink = io.BytesIO()
    write_tree(sink, Prepared.plain(as_memory_state(state)), PickleEncoding(buffer_callback))
    return sink.getvalue()


def from_pickle(
    data: Buffer,
    buffers: Iterable[Any] | None = None,
    *,
    allow_pickle: bool = False,
    max_bytes: int | None = None,
) -> MemoryState:
    """Read what `to_pickle` returned, checking every byte of it and of the buffers.

    Parameters
    ----------
    buffers
        What `buffer_callback` was given, in order. The arrays are views of them.
    allow_pickle
        Say that you mean it.
    max_bytes
        What the arrays may take.

    Raises
    ------
    UnsafeError
        Without `allow_pickle`.
    IntegrityError
        It is damaged, or a pickle that this package did not write.
    """
    options = OpenOptions(max_bytes, allow_pickle)
    with closing(ReadableBytes(data, "<pickle>")) as source:
        return read_memory(_read(source, PickleEncoding(buffers=buffers), options), max_bytes=max_bytes)
