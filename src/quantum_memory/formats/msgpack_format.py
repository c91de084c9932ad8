"""Memories as MessagePack (``.msgpack``): compact, and readable from fifty languages.

``docs/serializer_formats.md`` is the specification. The reader takes what the writer writes and nothing else, so that
extension types, keys that come twice and nesting do not occur in it.
"""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from quantum_memory.errors import InvalidStateError
from quantum_memory.formats.registry import Handler
from quantum_memory.formats.tree_file import (
    Cursor,
    Encoding,
    Form,
    is_sealed_whole,
    read_number,
    read_tree,
    spell,
    write_tree,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from quantum_memory.durability.files import Readable
    from quantum_memory.formats.prepared import Prepared
    from quantum_memory.formats.reader import Reader
    from quantum_memory.formats.registry import OpenOptions, Progress, SaveOptions, Sink
    from quantum_memory.formats.seal import Outgoing, SealedSink

MAX_ARRAY_BYTES = (1 << 32) - 1
"""The most bytes that one value may have in MessagePack."""


class MessagePackEncoding(Encoding):
    """How MessagePack spells the values of the tree: big-endian, each in its shortest form."""

    name = "msgpack"
    fields = 6
    last = b"\xa6sha256\xc4\x20"  # the key, and the length of the seal
    text = (
        Form(b"\xa0", 31),
        Form(b"\xd9", (1 << 8) - 1, ">B"),
        Form(b"\xda", (1 << 16) - 1, ">H"),
        Form(b"\xdb", (1 << 32) - 1, ">I"),
    )
    data = (
        Form(b"\xc4", (1 << 8) - 1, ">B"),
        Form(b"\xc5", (1 << 16) - 1, ">H"),
        Form(b"\xc6", MAX_ARRAY_BYTES, ">I"),
    )
    number = (
        Form(b"\x00", 127),
        Form(b"\xcc", (1 << 8) - 1, ">B"),
        Form(b"\xcd", (1 << 16) - 1, ">H"),
        Form(b"\xce", (1 << 32) - 1, ">I"),
        Form(b"\xcf", (1 << 64) - 1, ">Q"),
    )
    maps = (Form(b"\x80", 15), Form(b"\xde", (1 << 16) - 1, ">H"), Form(b"\xdf", (1 << 32) - 1, ">I"))
    lists = (Form(b"\x90", 15), Form(b"\xdc", (1 << 16) - 1, ">H"))

    def open_map(self, count: int) -> bytes:
        return spell(count, self.maps)

    def open_list(self, count: int) -> bytes:
        return spell(count, self.lists)

    def map_items(self, cursor: Cursor) -> Iterator[None]:
        for _ in range(read_number(cursor, self.maps)):
            yield

    def list_items(self, cursor: Cursor) -> Iterator[None]:
        for _ in range(read_number(cursor, self.lists)):
            yield

    def write_data(self, sealed: SealedSink, head: bytes, outgoing: Outgoing, path: str) -> None:
        if outgoing.arrays[path].nbytes > MAX_ARRAY_BYTES:
            raise InvalidStateError(
                f"its array {path!r} has {outgoing.arrays[path].nbytes} bytes, and MessagePack holds up to "
                f"{MAX_ARRAY_BYTES} in one value",
                next_step="save it as .qms or .h5",
            )
        super().write_data(sealed, head, outgoing, path)


class MessagePack(Handler):
    """The ``.msgpack`` file, for the registry."""

    def write(self, sink: Sink, memory: Prepared, options: SaveOptions) -> str:
        return write_tree(sink, memory, MessagePackEncoding(), options.progress)

    def open(self, source: Readable, options: OpenOptions) -> Reader:
        with closing(source):
            return read_tree(source, MessagePackEncoding(), options)

    def check_bytes(self, source: Readable, options: OpenOptions, progress: Progress | None = None) -> str | None:  # noqa: ARG002
        return MessagePackEncoding.name if is_sealed_whole(source, progress) else None
