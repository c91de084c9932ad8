"""SHA-256 and checksums of files, and whether they are what a list of the first implementation says of them."""

from __future__ import annotations

import hashlib
import os
from contextlib import closing
from typing import TYPE_CHECKING, Any

import xxhash

from quantum_memory.durability.files import ReadableFile
from quantum_memory.errors import MissingFileError, QuantumMemoryError
from quantum_memory.formats.legacy import lists
from quantum_memory.formats.legacy.verbs import HEAD_BYTES, recognise, text_of
from quantum_memory.formats.registry import OpenOptions, format_of_head, open_reader

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from quantum_memory.durability.files import Readable

_PIECE = 1 << 18
_SHOWN = 8


def _pieces(source: Readable) -> Iterator[memoryview]:
    # The same memory for every piece: new memory takes longer than the SHA-256 of what is in it.
    buffer = memoryview(bytearray(min(_PIECE, source.size)))
    for start in range(0, source.size, _PIECE):
        piece = buffer[: min(_PIECE, source.size - start)]
        source.read_into(piece, start)
        yield piece


def digest_of(source: Readable) -> str:
    """Return the SHA-256 of a file."""
    digest = hashlib.sha256()
    for piece in _pieces(source):
        digest.update(piece)
    return digest.hexdigest()


def checksum_of(source: Readable) -> str:
    """Return the XXH3 of a file, 128 bits: it tells the file from all others that are not made to deceive.

    A tenth of the time of a SHA-256, which new files have inside.
    """
    checksum = xxhash.xxh3_128()
    for piece in _pieces(source):
        checksum.update(piece)
    return checksum.hexdigest()


def checksum_at(path: str) -> str:
    """Return the checksum of the file at a path."""
    with ReadableFile(path) as source:
        return checksum_of(source)


def digest_at(path: str) -> str:
    """Return the SHA-256 of the file at a path."""
    with ReadableFile(path) as source:
        return digest_of(source)


def check_named(document: dict[str, Any], kind: str, path: str) -> list[str]:
    """Compare the files that a list names with what it says of them, and return what is odd, a few sentences.

    Parameters
    ----------
    document, kind
        The list; see `formats.legacy.lists`.
    path
        Where it is.
    """
    folder, own_name = os.path.split(path)
    odd = []
    for name, digest in lists.named_by(document, kind, own_name):
        there = os.path.join(folder, name)
        try:
            if os.path.islink(there):
                odd.append(f"{name:.200}, which it names, is a symbolic link, which is not followed")
                continue
            found = _known_as(there)
        except MissingFileError:
            odd.append(f"{name:.200}, which it names, is not beside it")
            continue
        except QuantumMemoryError as error:
            odd.append(f"{name:.200}, which it names, cannot be compared with it: {error.message}")
            continue
        if digest not in found:
            odd.append(f"{name:.200} is not what it was when this list was written: its SHA-256 is another")
    return limited(odd)


def limited(sentences: Iterable[str]) -> list[str]:
    """Return a few of some sentences, and how many more there are."""
    there = list(sentences)
    if len(there) <= _SHOWN:
        return there
    return [*there[: _SHOWN - 1], f"and {len(there) - _SHOWN + 1:,} more like these"]


def _known_as(path: str) -> set[Any]:
    """Return each SHA-256 by which the first implementation may know a file: of its bytes, or of the text in it.

    A file of today knows those of the original that it was made from.
    """
    with ReadableFile(path) as source:
        head = source.read(0, min(HEAD_BYTES, source.size))
        found = format_of_head(head)
        if found is None or found.is_legacy(head):
            if recognise(head, path, source.size) == "interface-json-zlib":
                return {hashlib.sha256(text_of(source, "interface-json-zlib")).hexdigest()}
            return {digest_of(source)}
    with closing(open_reader(path, OpenOptions(allow_pickle=True))) as reader:
        noted = [reader.record.get(part) for part in ("migration", "legacy")]
        return {one.get(key) for one in noted if isinstance(one, dict) for key in ("sha256", "text_sha256")}
