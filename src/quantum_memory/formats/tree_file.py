"""A memory as one tree of plain values: the layout that MessagePack files and pickles have in common.

``{"format", "version", "arrays": {path: {"dtype", "shape", "data"}}, "document", "content_id"}``, in this order, the
arrays sorted by path. Every value has one spelling, so that the reader takes exactly what the writer writes, and is no
decoder of everything that MessagePack or pickle can say: there is nothing in it that could be made to do anything else.
"""

from __future__ import annotations

import struct
from itertools import islice
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from quantum_memory.errors import IntegrityError
from quantum_memory.formats.seal import (
    FORMAT,
    SEAL_BYTES,
    VERSION,
    Incoming,
    Outgoing,
    SealedSink,
    check_document,
    check_format,
    check_seal,
    digest_of,
)
from quantum_memory.state.arrays import dtype_name
from quantum_memory.state.document import MAX_DIMENSIONS, well_formed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from quantum_memory.formats.prepared import Prepared
    from quantum_memory.formats.reader import Reader
    from quantum_memory.formats.registry import OpenOptions, Progress, Sink
    from quantum_memory.formats.seal import Source

_BLOCK_BYTES = 1 << 16


class Form(NamedTuple):
    """A way to write a number, or the length of something.

    Attributes
    ----------
    mark
        The bytes that it begins with. Without a `layout`, the number is added to the last of them.
    most
        The largest number that it holds.
    layout
        How the number follows, for `struct`.
    """

    mark: bytes
    most: int
    layout: str = ""

    def spell(self, number: int) -> bytes:
        """Return a number in this form."""
        if not self.layout:
            return self.mark[:-1] + bytes([self.mark[-1] + number])
        return self.mark + struct.pack(self.layout, number)


class Cursor:
    """The place in a file up to which it has been read.

    Parameters
    ----------
    source
        The file.
    end
        Where it ends, for the cursor.
    """

    def __init__(self, source: Source, end: int) -> None:
        self._source = source
        self._end = end
        self._position = 0
        self._block = b""
        self._start = 0  # of the block, in the file

    def peek(self, length: int) -> bytes:
        """Return the next few bytes, without passing them; fewer at the end."""
        first = self._position - self._start
        if first + length > len(self._block):
            block = bytearray(min(_BLOCK_BYTES, self._end - self._position))
            self._source.read_into(memoryview(block), self._position)
            self._block, self._start, first = bytes(block), self._position, 0
        return self._block[first : first + length]

    def take(self, length: int) -> bytes | bytearray:
        """Return the next bytes, and pass them."""
        if length > self._end - self._position:
            raise IntegrityError("it says that it holds more bytes than it has")
        if length > _BLOCK_BYTES:
            taken = bytearray(length)
            self.fill(memoryview(taken))
            return taken
        few = self.peek(length)
        self._position += length
        return few

    def fill(self, buffer: memoryview) -> None:
        """Read the next bytes into `buffer`, and pass them."""
        if len(buffer) > self._end - self._position:
            raise IntegrityError("it says that it holds more bytes than it has")
        if len(buffer) > _BLOCK_BYTES:
            self._source.read_into(buffer, self._position)
            self._position += len(buffer)
        else:
            buffer[:] = self.take(len(buffer))

    def expect(self, wanted: bytes) -> None:
        """Pass bytes that must be these."""
        if self.take(len(wanted)) != wanted:
            raise IntegrityError("it is not laid out as any release writes it")

    def at_end(self) -> bool:
        """Tell whether everything has been read."""
        return self._position == self._end


class Encoding:
    """How the values of the tree are spelled. A subclass gives the forms, and how maps and lists begin and end.

    Attributes
    ----------
    name
        The suffix of the files.
    fields
        How many items the tree has.
    begin, end
        What comes before and after the tree; the seal follows.
    last
        The end of its last item, where that is the seal.
    close_map, close_list
        What comes after the last item of a map or a list.
    text, data, number
        The forms of the length of text and of bytes, and of numbers, the shortest first.
    """

    name: ClassVar[str]
    fields: ClassVar[int] = 5
    begin: ClassVar[bytes] = b""
    end: ClassVar[bytes] = b""
    last: ClassVar[bytes] = b""
    close_map: ClassVar[bytes] = b""
    close_list: ClassVar[bytes] = b""
    text: ClassVar[tuple[Form, ...]]
    data: ClassVar[tuple[Form, ...]]
    number: ClassVar[tuple[Form, ...]]

    def open_map(self, count: int) -> bytes:
        """Return how a map of so many items begins."""
        raise NotImplementedError

    def open_list(self, count: int) -> bytes:
        """Return how a list of so many items begins."""
        raise NotImplementedError

    def map_items(self, cursor: Cursor) -> Iterator[None]:
        """Pass the beginning and the end of a map, and yield at each of its items."""
        raise NotImplementedError

    def list_items(self, cursor: Cursor) -> Iterator[None]:
        """Pass the beginning and the end of a list, and yield at each of its items."""
        raise NotImplementedError

    def write_data(self, sealed: SealedSink, head: bytes, outgoing: Outgoing, path: str) -> None:
        """Write `head`, and the data of an array after it."""
        sealed.write(head + spell(outgoing.arrays[path].nbytes, self.data))
        outgoing.write(path, sealed.write)

    def read_data(self, cursor: Cursor, incoming: Incoming, path: str, dtype: str, shape: tuple[int, ...]) -> None:
        """Read the data of an array into memory that `incoming` gives for it."""
        cursor.fill(incoming.new(path, dtype, shape, read_number(cursor, self.data)))


def spell(number: int, forms: tuple[Form, ...]) -> bytes:
    """Return a number, or a length, in the shortest form."""
    return next(form for form in forms if number <= form.most).spell(number)


def read_number(cursor: Cursor, forms: tuple[Form, ...]) -> int:
    """Read what `spell` wrote."""
    first = cursor.peek(1)[0]
    for form in forms:
        low = form.mark[0]
        if form.layout and first == low:
            (number,) = struct.unpack(form.layout, cursor.peek(len(form.spell(0)))[len(form.mark) :])
        elif not form.layout and low <= first <= low + form.most:
            number = first - low
        else:
            continue
        if number >= 0:
            cursor.expect(spell(number, forms))
            return int(number)
    raise IntegrityError("it is not laid out as any release writes it")


def write_tree(sink: Sink, memory: Prepared, encoding: Encoding, progress: Progress | None = None) -> str:
    """Write a memory and return its `content_id`."""
    outgoing = Outgoing(memory, progress)
    sealed = SealedSink(sink)

    def text(value: str) -> bytes:
        encoded = value.encode()
        return spell(len(encoded), encoding.text) + encoded

    def pair(key: str, value: str) -> bytes:
        return text(key) + text(value)

    pending = encoding.begin + encoding.open_map(encoding.fields) + pair("format", FORMAT) + pair("version", VERSION)
    pending += text("arrays") + encoding.open_map(len(outgoing.arrays))
    for path, array in outgoing.arrays.items():
        shape = b"".join(spell(n, encoding.number) for n in array.shape)
        pending += text(path) + encoding.open_map(3) + pair("dtype", dtype_name(array.dtype) or "")
        pending += text("shape") + encoding.open_list(array.ndim) + shape + encoding.close_list + text("data")
        encoding.write_data(sealed, pending, outgoing, path)
        pending = encoding.close_map
    document = outgoing.document(sealed.length)
    name = outgoing.content_id()
    sealed.write(pending + encoding.close_map + text("document") + spell(len(document), encoding.text))
    sealed.write(document)
    sealed.write(pair("content_id", name) + encoding.last + encoding.close_map + encoding.end)
    sealed.seal()
    return name


def read_tree(source: Source, encoding: Encoding, options: OpenOptions, file_bytes: int | None = None) -> Reader:
    """Read what `write_tree` wrote, checking every byte; the seal comes first.

    Parameters
    ----------
    file_bytes
        Length of the file, where it is not that of the source.

    Raises
    ------
    IntegrityError, UnsupportedVersionError, UnsafeError
    """
    with well_formed(source.name):
        end = source.size - SEAL_BYTES
        if end < 0:
            raise IntegrityError("it is cut short")
        seal = bytearray(SEAL_BYTES)
        source.read_into(memoryview(seal), end)
        check_seal(source, end, bytes(seal))
        return _Tree(Cursor(source, end), encoding).read(Incoming(source, options, file_bytes))


def is_sealed_whole(source: Source, progress: Progress | None = None) -> bool:
    """Tell whether the seal at the end of what `write_tree` wrote is that of all bytes before it."""
    end = source.size - SEAL_BYTES
    if end < 0:
        return False
    seal = bytearray(SEAL_BYTES)
    source.read_into(memoryview(seal), end)
    return digest_of(source, 0, end, progress) == seal


class _Tree:
    """The tree in a file, read front to back."""

    def __init__(self, cursor: Cursor, encoding: Encoding) -> None:
        self._cursor = cursor
        self._encoding = encoding

    def read(self, incoming: Incoming) -> Reader:
        cursor, encoding = self._cursor, self._encoding
        cursor.expect(encoding.begin)
        items = encoding.map_items(cursor)
        check_format(self._field(items, "format"), self._field(items, "version"))
        self._key(items, "arrays")
        before = None
        for _ in encoding.map_items(cursor):
            path = self._text()
            if before is not None and path <= before:
                raise IntegrityError("its arrays are not in the order of their paths")
            before = path
            self._array(path, incoming)
        self._key(items, "document")
        length = read_number(cursor, encoding.text)
        check_document(length)
        document = cursor.take(length)
        name = self._field(items, "content_id")
        if encoding.last:
            next(items)
            cursor.expect(encoding.last)
        self._no_more(items)
        cursor.expect(encoding.end)
        if not cursor.at_end():
            raise IntegrityError("something follows after its last part")
        return incoming.reader(encoding.name, document, name)

    def _array(self, path: str, incoming: Incoming) -> None:
        items = self._encoding.map_items(self._cursor)
        dtype = self._field(items, "dtype")
        self._key(items, "shape")
        axes = islice(self._encoding.list_items(self._cursor), MAX_DIMENSIONS + 1)
        shape = tuple(read_number(self._cursor, self._encoding.number) for _ in axes)
        self._key(items, "data")
        self._encoding.read_data(self._cursor, incoming, path, dtype, shape)
        self._no_more(items)

    def _text(self) -> str:
        return self._cursor.take(read_number(self._cursor, self._encoding.text)).decode("utf-8")

    def _key(self, items: Iterator[None], name: str) -> None:
        if next(items, name) == name or self._text() != name:
            raise IntegrityError(f"it has no part {name!r} where every release writes it")

    def _field(self, items: Iterator[None], name: str) -> str:
        self._key(items, name)
        return self._text()

    def _no_more(self, items: Iterator[None]) -> None:
        for _ in items:
            raise IntegrityError(f"it has a part that version {VERSION} does not have")
