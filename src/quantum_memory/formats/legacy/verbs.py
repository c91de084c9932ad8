"""The verbs for legacy files: tell which format a file has, list what a store holds, and read a state."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from typing import TYPE_CHECKING, Any

from quantum_memory.durability.files import ReadableFile, physical_memory
from quantum_memory.errors import RESTORE, IntegrityError, InvalidStateError, MissingFileError, QuantumMemoryError
from quantum_memory.formats import hdf5_guard, json_format
from quantum_memory.formats.foreign import foreign
from quantum_memory.formats.legacy import containers, interface, lists, serializer, stores
from quantum_memory.formats.legacy.found import Found
from quantum_memory.formats.legacy.text import check_length, from_text, unpacked_text
from quantum_memory.formats.seal import FORMAT
from quantum_memory.state.document import well_formed

if TYPE_CHECKING:
    from quantum_memory.durability.files import Readable
    from quantum_memory.formats.legacy.found import Legacy

HEAD_BYTES = 4096
"""How much of a file `recognise` wants to see."""

_ZIP = b"PK\x03\x04"
_FIRST_MEMBER = 30
_MAP_WITH_TEXT = re.compile(rb"(?:[\x81-\x8f]|\xde..|\xdf....)[\xa1-\xbf\xd9]", re.DOTALL)


def recognise(head: bytes, name: str, size: int) -> str | None:
    """Return which of the first implementation's formats a file has, None if it is none of them.

    JSON without a sign of what wrote it is taken for a state of the interface; reading it shows.

    Parameters
    ----------
    head
        The first `HEAD_BYTES` of the file, or all of it.
    name
        Its path: an HDF5 file is opened to see whether it is a store.
    size
        Its length.
    """
    if head.startswith(containers.MAGIC):
        return "qms-1"
    if head[4:].startswith(containers.EXPORT_HEAD):
        return "qms-export"
    if head.startswith(hdf5_guard.SIGNATURE):
        return stores.KIND if _is_store(name) else None
    if head.startswith(_ZIP):
        return _kind_of_archive(head, name)
    if head[4:6] in {b"\x78\xda", b"\x78\x9c", b"\x78\x01"} and name.endswith(".npz.zlib"):
        return "interface-npz"
    if head[4:].startswith(json_format.ZLIB_HEAD):
        header = head[4 : 4 + int.from_bytes(head[:4], "little")]
        return None if b'"sha256"' in header else "interface-json-zlib"
    if re.match(rb"\x80[\x02-\x05]", head) or (name.endswith((".pkl", ".pickle")) and size):
        return "serializer-pickle"
    if _MAP_WITH_TEXT.match(head):
        return "serializer-msgpack"
    if head.startswith(b"{") and f'"{FORMAT}"'.encode() not in head[:64]:
        return "serializer-json" if f'"{serializer.TAG}"'.encode() in head else "interface-json"
    return "serializer-base64" if _is_base64(head) else None


def ids(source: Readable) -> list[str]:
    """Return the ids of the states in an HDF5 store.

    Raises
    ------
    IntegrityError, UnsafeError, UnsupportedVersionError
    """
    return stores.ids(source)


def read(
    source: Readable, *, allow_pickle: bool = False, max_bytes: int | None = None, state_id: str | None = None
) -> Legacy:
    """Read a file of the first implementation.

    Parameters
    ----------
    source
        The file. Of a state of the interface, the archive of tensors is looked for beside it.
    allow_pickle
        Read a pickle of the serializer, too. Nothing in it is run, and nothing imported.
    max_bytes
        What its arrays may take in memory; by default all the memory of the machine. Text is bounded already.
    state_id
        Which state of a store; not needed where there is but one.

    Raises
    ------
    IntegrityError, UnsafeError, UnsupportedVersionError, BudgetError
    InvalidStateError
        It is not a state, or a store of several and no `state_id` was given.
    MissingError
        The store has no such state.
    """
    head = source.read(0, min(HEAD_BYTES, source.size))
    most = physical_memory() if max_bytes is None else max_bytes
    if head.startswith(hdf5_guard.SIGNATURE):
        return stores.read_store(source, state_id, most)
    kind = recognise(head, source.name, source.size)
    if state_id is not None:
        raise InvalidStateError("only a store has states by id", path=source.name, next_step="leave state_id out")
    if kind is None:
        unknown = IntegrityError("it does not begin like a file of the first implementation", next_step=RESTORE)
        raise (foreign(head) or unknown).at(source.name)
    if kind in {"interface-json", "interface-json-zlib", "serializer-json"}:
        return _read_json(source, kind, most)
    with well_formed(source.name):
        return _read(source, kind, most, allow_pickle=allow_pickle)


def _read(source: Readable, kind: str, max_bytes: int, *, allow_pickle: bool) -> Legacy:
    match kind:
        case "qms-1":
            return containers.read_sections(source, kind, max_bytes)
        case "qms-export":
            return containers.read_export(source, kind, max_bytes)
        case "interface-npz":
            found = Found()
            interface.take_sidecar(found, source, max_bytes)
            return found.legacy(kind, None)
        case "simple-npz":
            return serializer.read_simple(source, kind, max_bytes)
        case "serializer-npz":
            return serializer.read_archive(source, kind, max_bytes)
        case "serializer-pickle":
            return serializer.read_pickle(source, kind, allow_pickle=allow_pickle)
        case "serializer-msgpack":
            return serializer.read_msgpack(source, kind)
    return serializer.read_base64(source, kind)


def _read_json(source: Readable, kind: str, max_bytes: int) -> Legacy:
    with well_formed(source.name):
        text = text_of(source, kind)
        document = document_of(text, source.size)
        made = _of_document(document, kind, source, max_bytes)
    # What registries of checkpoints and lists of backups know a file by.
    made.memory.record["legacy"]["text_sha256"] = hashlib.sha256(text).hexdigest()
    return made


def _of_document(document: Any, kind: str, source: Readable, max_bytes: int) -> Legacy:
    if interface.is_interface(document):
        return interface.of_document(document, kind.replace("serializer", "interface"), source, max_bytes)
    if (list_kind := lists.kind_of(document)) is not None:
        return lists.of_document(document, list_kind)
    if serializer.has_arrays(document):
        return serializer.of_tree(document, "serializer-json")
    raise IntegrityError("it is JSON, but not that of a memory", next_step="give the path of one")


def text_of(source: Readable, kind: str) -> bytes | bytearray:
    """Return the JSON text of a file, unpacked where its kind is that of packed text.

    Raises
    ------
    IntegrityError, UnsafeError
    """
    check_length(source.size, json_format.MAX_TEXT_BYTES)
    data = source.read(0, source.size)
    return unpacked_text(data) if kind == "interface-json-zlib" else data


def document_of(text: bytes | bytearray, file_bytes: int, *, numbers: bool = True) -> Any:
    """Return what JSON text says; see `text.from_text`.

    Raises
    ------
    IntegrityError, UnsafeError
    """
    try:
        return from_text(text, file_bytes=file_bytes, numbers=numbers)
    except IntegrityError:
        lists.explain_cut_short(text)
        raise


def _is_store(name: str) -> bool:
    try:
        source = ReadableFile(name)
    except (MissingFileError, QuantumMemoryError):
        return False
    with source:
        return stores.is_store(source)


def _kind_of_archive(head: bytes, name: str) -> str | None:
    length = int.from_bytes(head[26:28], "little")
    first = head[_FIRST_MEMBER : _FIRST_MEMBER + length]
    if not first.endswith(b".npy"):
        return None
    if name.endswith(interface.SIDECAR):
        return "interface-npz"
    return "simple-npz" if first == b"state.npy" else "serializer-npz"


def _is_base64(head: bytes) -> bool:
    whole = head[: len(head) // 4 * 4]
    try:
        return bool(_MAP_WITH_TEXT.match(base64.b64decode(whole, validate=True)))
    except binascii.Error:
        return False
