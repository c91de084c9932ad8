"""Memories as one line of Base64 text (``.b64``), for channels that carry nothing but text.

It is the text of exactly the bytes of the ``.msgpack`` file, in the standard alphabet of RFC 4648, without line breaks;
``docs/serializer_formats.md`` is the specification.
"""

from __future__ import annotations

import binascii
from contextlib import closing
from typing import TYPE_CHECKING

from quantum_memory.formats.msgpack_format import MessagePackEncoding
from quantum_memory.formats.reader import damaged
from quantum_memory.formats.registry import Handler
from quantum_memory.formats.tree_file import is_sealed_whole, read_tree, write_tree

if TYPE_CHECKING:
    from quantum_memory.durability.files import Buffer, Readable
    from quantum_memory.formats.prepared import Prepared
    from quantum_memory.formats.reader import Reader
    from quantum_memory.formats.registry import OpenOptions, Progress, SaveOptions, Sink

_PIECE = 3 << 18
"""Bytes that are decoded at a time."""


class Base64Encoding(MessagePackEncoding):
    """The tree as MessagePack spells it, under another suffix."""

    name = "b64"


class Base64(Handler):
    """The ``.b64`` file, for the registry."""

    def write(self, sink: Sink, memory: Prepared, options: SaveOptions) -> str:
        encoder = _Encoder(sink)
        name = write_tree(encoder, memory, Base64Encoding(), options.progress)
        encoder.finish()
        return name

    def open(self, source: Readable, options: OpenOptions) -> Reader:
        with closing(source):
            return read_tree(_Decoded(source), Base64Encoding(), options, source.size)

    def check_bytes(self, source: Readable, options: OpenOptions, progress: Progress | None = None) -> str | None:  # noqa: ARG002
        return Base64Encoding.name if is_sealed_whole(_Decoded(source), progress) else None


class _Encoder:
    """A sink that passes bytes on as Base64."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._rest = b""  # up to two bytes that make no whole group yet

    def write(self, data: Buffer) -> None:
        joined = self._rest + memoryview(data).cast("B")
        whole = len(joined) // 3 * 3
        self._rest = joined[whole:]
        if whole:
            self._sink.write(binascii.b2a_base64(memoryview(joined)[:whole], newline=False))

    def finish(self) -> None:
        if self._rest:
            self._sink.write(binascii.b2a_base64(self._rest, newline=False))


class _Decoded:
    """What the text of a file decodes to, read at any offset.

    There is one text for any bytes: one that is spelled in another way is refused where it is read.
    """

    def __init__(self, text: Readable) -> None:
        self._text = text
        self.name = text.name
        if text.size % 4 or not text.size:
            raise damaged("it is not whole Base64 text without line breaks", text.name)
        self.size = text.size // 4 * 3 - text.read(text.size - 2, 2).count(b"=")

    def read_into(self, buffer: memoryview, offset: int) -> None:
        """Fill `buffer` with the bytes from `offset` on."""
        end = offset + len(buffer)
        for start in range(offset // 3 * 3, end, _PIECE):
            piece = self._piece(start, min(start + _PIECE, self.size, -(-end // 3) * 3))
            low, high = max(start, offset), min(start + len(piece), end)
            buffer[low - offset : high - offset] = memoryview(piece)[low - start : high - start]

    def _piece(self, start: int, stop: int) -> bytes:
        """Return bytes ``start:stop``, which begin and end with a group."""
        text = self._text.read(start // 3 * 4, -(-(stop - start) // 3) * 4)
        try:
            piece = binascii.a2b_base64(text)
        except binascii.Error:
            piece = b""
        if binascii.b2a_base64(piece, newline=False) != text:
            raise damaged("it is not Base64 text as any release writes it: it is damaged or added to", self.name)
        return piece
