"""Memories as NumPy archives (``.npz``): plain ``numpy.load(path)`` opens them and gives the arrays by path.

A zip archive of ``.npy`` members: first what the file is, then the arrays, then the document and the name of the
content. The seal is the comment of the archive. ``docs/serializer_formats.md`` is the specification.
"""

from __future__ import annotations

import io
import re
import struct
import zipfile
import zlib
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from quantum_memory.errors import IntegrityError, InvalidStateError
from quantum_memory.formats.registry import Handler, OpenOptions
from quantum_memory.formats.seal import (
    FORMAT,
    VERSION,
    Incoming,
    Outgoing,
    SealedSink,
    check_document,
    check_format,
    check_seal,
    digest_of,
)
from quantum_memory.formats.stream import Stream
from quantum_memory.state.arrays import CHUNK_BYTES, STORABLE
from quantum_memory.state.document import well_formed

if TYPE_CHECKING:
    from collections.abc import Callable

    from quantum_memory.durability.files import Readable
    from quantum_memory.formats.prepared import Prepared
    from quantum_memory.formats.reader import Reader
    from quantum_memory.formats.registry import Progress, SaveOptions, Sink
    from quantum_memory.state.arrays import AnyArray

SIGN, DOCUMENT, NAME = "quantum-memory", "document", "content_id"
"""Members that are no arrays of the memory: format and version, JSON text, and 64 hexadecimal digits."""

MAX_DIRECTORY_BYTES = 4 << 20
"""How long the directory of an archive may be: `zipfile` takes ten times as much memory for it."""

_COMMENT = re.compile(rb"sha256:([0-9a-f]{64})")
_COMMENT_BYTES = len("sha256:") + 64
_END = struct.Struct("<4s4H2IH")  # signature, disks, entries, bytes and offset of the directory, bytes of the comment
_END64 = struct.Struct("<4sQ2H2I4Q")
_LOCATOR_BYTES = 20
_MEMBER_BYTES = 46 + 28 + len(".npy")  # of the directory, with the lengths that ZIP64 adds
_LOCAL_BYTES = 30
_HEADER = re.compile(
    r"\{'descr': '([<|][a-zA-Z]\d{1,4})', 'fortran_order': False, 'shape': \(((?:\d{1,19}, ?)*(?:\d{1,19})?)\), \} *\n"
)
_PREFIX = b"\x93NUMPY\x01\x00"
_MAX_HEADER_BYTES = 1024
_NAME_OF = {np.dtype(code).str: name for name, code in STORABLE.items()}
_METHODS = {"auto": zipfile.ZIP_STORED, "none": zipfile.ZIP_STORED, "zlib": zipfile.ZIP_DEFLATED}
_DESCRIPTOR, _UTF_8 = 0x08, 0x800  # flags: lengths follow the data; the name is UTF-8


class NPZ(Handler):
    """The ``.npz`` file, for the registry."""

    compressions = frozenset(_METHODS)

    def write(self, sink: Sink, memory: Prepared, options: SaveOptions) -> str:
        outgoing = Outgoing(memory, options.progress)
        names = [*map(member_name, outgoing.arrays), SIGN, DOCUMENT, NAME]
        directory = sum(len(name.encode()) + _MEMBER_BYTES for name in names)
        if directory > MAX_DIRECTORY_BYTES:
            raise InvalidStateError(
                f"its {len(outgoing.arrays)} arrays make a directory of {directory} bytes, and that of an .npz file "
                f"has up to {MAX_DIRECTORY_BYTES}",
                next_step="save it as .qms or .h5",
            )
        sealed, method = SealedSink(sink, held=_COMMENT_BYTES), _METHODS[options.compression]
        # zipfile asks where it is; a sink that cannot say is one that it does not seek in.
        with zipfile.ZipFile(cast("Any", sealed), "w") as archive:
            _write_bytes(archive, SIGN, f"{FORMAT} {VERSION}".encode())
            for path, array in outgoing.arrays.items():
                _write(archive, path, array, method, partial(outgoing.write, path))
            _write_bytes(archive, DOCUMENT, outgoing.document(sealed.length))
            name = outgoing.content_id()
            _write_bytes(archive, NAME, name.encode())
            archive.comment = bytes(_COMMENT_BYTES)
        sealed.seal(lambda digest: b"sha256:" + digest.hex().encode())
        return name

    def open(self, source: Readable, options: OpenOptions) -> Reader:
        with closing(source), well_formed(source.name):
            return _read(source, options)

    def check_bytes(self, source: Readable, options: OpenOptions, progress: Progress | None = None) -> str | None:  # noqa: ARG002
        end, seal = _seal(source)
        return "npz" if seal is not None and digest_of(source, 0, end, progress) == seal else None


def member_name(path: str) -> str:
    """Return the name of the member that holds an array, without ``.npy``: its path, but no step up or aside.

    A component of one or two dots gets a ``~`` before it, which no path has there.
    """
    return re.sub(r"(?<![^/])(\.\.?)(?![^/])", r"~\1", path)


def _write_bytes(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    _write(archive, name, np.frombuffer(data, np.uint8), zipfile.ZIP_STORED, lambda put: put(data))


def _write(
    archive: zipfile.ZipFile,
    name: str,
    array: AnyArray,
    method: int,
    fill: Callable[[Callable[[Any], object]], object],
) -> None:
    """Write one member, of the dtype and shape of `array`; `fill` is called with what takes its data."""
    header = io.BytesIO()
    described = {"descr": array.dtype.newbyteorder("<").str, "fortran_order": False, "shape": array.shape}
    np.lib.format.write_array_header_1_0(header, described)
    member = zipfile.ZipInfo(f"{member_name(name)}.npy")  # of 1980, so that the same memory makes the same bytes
    member.compress_type = method
    member.create_system = 3  # Unix, whose permissions follow
    member.external_attr = 0o644 << 16
    member.file_size = header.tell() + array.nbytes  # decides about ZIP64
    with archive.open(member, "w") as stream:
        stream.write(header.getvalue())
        fill(stream.write)


def _read(source: Readable, options: OpenOptions) -> Reader:
    start, seal = _seal(source)
    if seal is None:
        raise IntegrityError("it does not end with its SHA-256: it is cut short or added to, or not a saved state")
    check_seal(source, start, seal)
    if _directory_bytes(source, start) > MAX_DIRECTORY_BYTES:
        raise IntegrityError("the directory of its archive is past the limits of the format")
    stream = Stream(source)
    try:
        with zipfile.ZipFile(cast("Any", stream)) as archive:
            return _read_archive(archive, source, options)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        if stream.failure is not None:
            raise stream.failure from None
        raise IntegrityError(f"its archive is damaged: {error}") from error


def _seal(source: Readable) -> tuple[int, bytes | None]:
    """Return where the comment of the archive begins, and the SHA-256 in it; None where there is none."""
    start = source.size - _COMMENT_BYTES
    comment = _COMMENT.fullmatch(source.read(start, _COMMENT_BYTES)) if start >= _END.size else None
    return start, None if comment is None else bytes.fromhex(comment[1].decode())


def _directory_bytes(source: Readable, end: int) -> int:
    """Return the length of the directory of the archive, which the comment follows at `end`."""
    position = end - _END.size
    length: int = _END.unpack(source.read(position, _END.size))[5]
    position -= _LOCATOR_BYTES + _END64.size
    if length == 0xFFFFFFFF and position >= 0:
        length = _END64.unpack(source.read(position, _END64.size))[8]
    return length


def _read_archive(archive: zipfile.ZipFile, source: Readable, options: OpenOptions) -> Reader:
    members = _checked_members(archive)
    facts = Incoming(source, OpenOptions())

    def text(name: str) -> bytes:
        member = members.pop(f"{name}.npy")
        if member.compress_type != zipfile.ZIP_STORED:  # so that it is no longer than the file
            raise IntegrityError(f"its archive has {name}.npy compressed, as no release writes it")
        _fill(archive, member, name, facts)
        return facts.arrays.pop(name).tobytes()

    kind, _, version = text(SIGN).decode("ascii").partition(" ")
    check_format(kind, version)
    check_document(members[f"{DOCUMENT}.npy"].file_size)
    document, name = text(DOCUMENT), text(NAME).decode("ascii")
    incoming = Incoming(source, options)
    for member in members.values():
        stem = member.filename.removesuffix(".npy")
        path = re.sub(r"(?<![^/])~(\.\.?)(?![^/])", r"\1", stem)
        if f"{member_name(path)}.npy" != member.filename:
            raise IntegrityError(f"its archive has a member {member.filename[:80]!r}, which no release writes")
        _fill(archive, member, path, incoming)
    return incoming.reader("npz", document, name)


def _checked_members(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """Return the members by name; refuse any that lies over another or is packed in a way that no release packs."""
    position = 0
    for member in archive.infolist():
        if (
            member.header_offset < position
            or (position == 0 and member.header_offset)
            or member.compress_type not in _METHODS.values()
            or member.flag_bits & ~(_DESCRIPTOR | _UTF_8)
            or member.orig_filename != member.filename
        ):
            raise IntegrityError(f"its archive has a member {member.filename[:80]!r} that no release writes")
        position = member.header_offset + _LOCAL_BYTES + len(member.filename.encode()) + member.compress_size
    members = {member.filename: member for member in archive.infolist()}
    if len(members) != len(archive.infolist()):
        raise IntegrityError("its archive has a name twice")
    return members


def _fill(archive: zipfile.ZipFile, member: zipfile.ZipInfo, path: str, incoming: Incoming) -> None:
    """Read an array, its header strictly: nothing in it is evaluated."""
    with archive.open(member) as stream:
        begin = stream.read(len(_PREFIX) + 2)
        (length,) = struct.unpack("<H", begin[len(_PREFIX) :])
        if not begin.startswith(_PREFIX) or length > _MAX_HEADER_BYTES:
            raise IntegrityError(f"its member {path[:80]!r} is no array that any release writes")
        header = _HEADER.fullmatch(stream.read(length).decode("latin-1"))
        if header is None or header[1] not in _NAME_OF:
            raise IntegrityError(f"its member {path[:80]!r} is an array of a dtype or layout that no release writes")
        shape = tuple(int(number) for number in header[2].split(",") if number.strip())
        data = incoming.new(path, _NAME_OF[header[1]], shape, member.file_size - len(begin) - length)
        for start in range(0, len(data), CHUNK_BYTES):
            part = data[start : start + CHUNK_BYTES]
            part[:] = stream.read(len(part))
        if stream.read(1):  # at the end, zipfile compares the CRC-32
            raise IntegrityError(f"its member {path[:80]!r} has something after its data")
