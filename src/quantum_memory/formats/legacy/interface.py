"""States of the interface: JSON of versions 1.0 and 2.0, with zlib or not, and the archive of tensors beside it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from quantum_memory.durability.files import ReadableBytes, ReadableFile
from quantum_memory.errors import (
    IntegrityError,
    InvalidStateError,
    MissingFileError,
    QuantumMemoryError,
    UnsupportedVersionError,
)
from quantum_memory.formats.json_format import MAX_PACKED_TEXT_BYTES
from quantum_memory.formats.legacy.archive import read_members
from quantum_memory.formats.legacy.found import NO_CHECKSUM, Found, as_array
from quantum_memory.formats.legacy.text import ZLIB, unpacked
from quantum_memory.formats.unpickler import ARRAYS
from quantum_memory.state.document import well_formed

if TYPE_CHECKING:
    from quantum_memory.durability.files import Readable
    from quantum_memory.formats.legacy.found import Legacy

SIDECAR = "_quantum.npz"
"""What stands in the name of the archive of tensors where the name of the state has ``.json``."""

VERSIONS = ("1.0", "2.0")
"""The versions that the first implementation wrote, in their order."""

_PACKED_SIDECAR_RATIO = 8


def is_interface(document: Any) -> bool:
    """Tell whether JSON is a state of the interface."""
    return isinstance(document, dict) and "interface_config" in document


def of_document(document: dict[str, Any], kind: str, source: Readable, max_bytes: int) -> Legacy:
    """Return the state that a document of version 1.0 or 2.0 is, with the archive beside its file."""
    found = Found(notes=[NO_CHECKSUM])
    version = _version(document)
    for name, value in document.items():
        if name == "metadata":
            found.keep_metadata(value)
        elif name == "classical_network_state" and isinstance(value, dict):
            found.keep(name, {key: as_array(weights) for key, weights in value.items()})
        else:
            found.keep(name, value)
    if found.metadata.get("quantum_state_checksum") is not None:
        found.notes.append("its quantum_state_checksum is that of a state vector that is not in the file")
    _take_beside(found, source, max_bytes)
    return found.legacy(kind, version)


def stated_version(document: Mapping[str, Any]) -> str:
    """Return the version that a document of the interface states, at its top or in its metadata; without one it is 1.0.

    Raises
    ------
    IntegrityError
        What it states is no version, or it states two.
    InvalidStateError
        It states none, and is no state of the interface.
    """
    places = (document, document.get("metadata"))
    stated = [place["version"] for place in places if isinstance(place, Mapping) and "version" in place]
    if not all(isinstance(one, str) and re.fullmatch(r"\d{1,6}(\.\d{1,6})*", one, re.ASCII) for one in stated):
        raise IntegrityError("it does not say which version it is")
    if len(set(stated)) > 1:
        raise IntegrityError(f"it says that it is of version {stated[0]}, and in its metadata of version {stated[1]}")
    if not stated and not is_interface(document):
        raise InvalidStateError(
            "it states no version and is no state of the interface", next_step="give the content of one of its files"
        )
    return str(stated[0]) if stated else VERSIONS[0]


def _version(document: dict[str, Any]) -> str:
    version = stated_version(document)
    if version not in VERSIONS:
        raise UnsupportedVersionError(
            f"it is a state of the interface of version {version}, which the first implementation never wrote",
            next_step="read it with the program that wrote it",
        )
    return version


def _take_beside(found: Found, source: Readable, max_bytes: int) -> None:
    """Take the tensors from the archive beside a file, if there is one."""
    beside = _open_beside(source)
    if beside is None:
        found.notes.append("there is no archive of tensors beside it, so that it has no quantum state")
        return
    with beside:
        take_sidecar(found, beside, max_bytes)
    config = found.classical.get("interface_config")
    expected = config.get("n_qubits") if isinstance(config, dict) else None
    held = getattr(found.quantum, "n_sites", None)
    if held is not None and expected != held:
        found.notes.append(f"its interface_config says {expected!r:.20} qubits, and the archive beside it has {held}")


def _open_beside(source: Readable) -> ReadableFile | None:
    if not isinstance(source, ReadableFile) or ".json" not in source.name:
        return None
    folder, name = os.path.split(source.name)
    # The first implementation replaced it in the whole path; a folder that was moved has it in the name alone.
    places = [os.path.join(folder, name.replace(".json", SIDECAR)), source.name.replace(".json", SIDECAR)]  # noqa: PTH118
    for path in dict.fromkeys(places):
        try:
            return ReadableFile(path)
        except MissingFileError:
            continue
    return None


def take_sidecar(found: Found, source: Readable, max_bytes: int) -> None:
    """Take the tensors and the facts from an archive of tensors, with zlib around it or not."""
    with well_formed(source.name):
        members = read_members(_unpacked(source), ARRAYS, max_bytes)
        tensors, count = members.pop("mps_tensors", None), members.get("n_qubits")
        if tensors is None:
            raise IntegrityError("it has no mps_tensors")
        if len(tensors) != count:
            raise IntegrityError(f"it has {len(tensors)} tensors and says that there are {count!r:.20}")
        found.take_tensors([tensor.copy() for tensor in tensors])
        found.keep(SIDECAR, members)


def _unpacked(source: Readable) -> Readable:
    if not is_packed(source):
        return source
    size = int.from_bytes(source.read(0, 4), "little")
    if size > MAX_PACKED_TEXT_BYTES + _PACKED_SIDECAR_RATIO * source.size:
        raise IntegrityError(f"it is said to hold {size} bytes, which it cannot hold")
    stream = source.read(4, source.size - 4)
    try:
        return ReadableBytes(unpacked(stream, size, ZLIB), source.name)
    except QuantumMemoryError as error:
        raise error.at(source.name) from error.__cause__


def is_packed(source: Readable) -> bool:
    """Tell whether an archive of tensors has zlib around it: its length comes first, then a stream begins."""
    return source.size >= 6 and source.read(0, 6)[4:] in {b"\x78\xda", b"\x78\x9c", b"\x78\x01"}
