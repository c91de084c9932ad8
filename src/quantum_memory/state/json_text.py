"""JSON text: written canonically, read strictly and within bounds."""

from __future__ import annotations

import json
import math
import re
from typing import TYPE_CHECKING, Any, NamedTuple

from quantum_memory.errors import RESTORE, IntegrityError, InvalidStateError, UnsafeError

if TYPE_CHECKING:
    from collections.abc import Mapping

Json = Any

_PLAIN = json.JSONEncoder(separators=(",", ":"), allow_nan=False)
_CANONICAL = json.JSONEncoder(separators=(",", ":"), allow_nan=False, sort_keys=True)
_FEW_NODES = 1 << 17
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"')
_TOKEN = re.compile(_STRING.pattern + rb"|[\[\]{}]")
MAX_DOCUMENT_BYTES = 64 << 20
"""How long the document of a memory may be, in every format."""

MAX_LEVELS = 400
"""Levels of brackets in JSON text: a little more than the deepest tree makes."""


def is_unicode(value: str) -> bool:
    """Tell whether a string has no lone surrogates, which JSON would join or other readers refuse."""
    return value.isascii() or value.encode("utf-8", "replace").decode("utf-8") == value


def to_json(node: Json, *, canonical: bool = False) -> bytes:
    """Write a node as JSON text without spaces, in ASCII; canonical text has its keys sorted."""
    return (_CANONICAL if canonical else _PLAIN).encode(node).encode("ascii")


def from_json(text: bytes | bytearray, *, max_nodes: int) -> Json:
    """Read JSON text strictly: no duplicate keys, no NaN, bounded size and depth.

    Parameters
    ----------
    max_nodes
        How many values there may be. A few bytes of text make a list of sixty, so the text's length is no bound.

    Raises
    ------
    IntegrityError, UnsafeError
    """
    if count_nodes(text) > max_nodes:
        raise UnsafeError(f"its JSON text holds more than {max_nodes} values", next_step="do not trust this file")
    if _depth(text) > MAX_LEVELS:
        raise UnsafeError("its JSON text is nested too deeply", next_step="do not trust this file")
    try:
        return _STRICT.decode(text.decode("utf-8"))
    except RecursionError:
        raise UnsafeError(
            "its JSON text is nested more deeply than Python's stack has room for",
            next_step="call from a function that is less deep, or raise sys.setrecursionlimit",
        ) from None
    except IntegrityError:
        raise
    except ValueError as error:
        raise IntegrityError(f"its JSON text is damaged or cut short: {error}", next_step=RESTORE) from error


def check_record(record: Mapping[str, Any]) -> None:
    """Refuse a record that would not be read back as it is: it must be JSON, and its keys text.

    Raises
    ------
    InvalidStateError
    """
    try:
        text = to_json(record)
        if from_json(text, max_nodes=max_nodes(0)) != dict(record):
            raise ValueError("keys that are not text, tuples and NaN do not come back as they are")
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidStateError(
            f"the record cannot be written as JSON: {getattr(error, 'message', error)}",
            next_step="put into it what JSON has, or save it as metadata",
        ) from error


def document_text(parts: Mapping[str, Json], nbytes: int) -> bytes:
    """Return the JSON text of what a file says of a memory, refusing what no reader would take.

    Parameters
    ----------
    parts
        The document, the record, and what else the format says.
    nbytes
        Bytes of the file beside the text.

    Raises
    ------
    InvalidStateError
    """
    text = to_json(parts)
    if len(text) > MAX_DOCUMENT_BYTES:
        raise InvalidStateError(
            f"the plain values of the tree make {len(text)} bytes of JSON, and a document may hold "
            f"{MAX_DOCUMENT_BYTES}",
            next_step="give long lists of numbers as arrays",
        )
    check_values(text, nbytes)
    return text


def check_values(text: bytes, file_bytes: int) -> None:
    """Refuse text of more values than a reader takes from a file of this length.

    Raises
    ------
    InvalidStateError
    """
    count, most = count_nodes(text), max_nodes(file_bytes)
    if count > most:
        raise InvalidStateError(
            f"the plain values of the tree make {count} values, and a file of {file_bytes} bytes may hold {most}",
            next_step="give long lists of numbers as arrays",
        )


class DocumentParts(NamedTuple):
    """What a file says of a memory: its document, its record, and which of its arrays are packed (None: none)."""

    document: dict[str, Json]
    record: dict[str, Json]
    forms: Json = None


def parts_of_document(text: bytes | bytearray, file_bytes: int) -> DocumentParts:
    """Return what the JSON text in a file says of a memory.

    Raises
    ------
    IntegrityError, UnsafeError
    """
    content = from_json(text, max_nodes=max_nodes(file_bytes))
    if (
        not isinstance(content, dict)
        or not {"document", "record"} <= set(content) <= {"document", "record", "forms"}
        or not all(isinstance(part, dict) for part in content.values())
    ):
        raise IntegrityError("its document is not well formed", next_step=RESTORE)
    return DocumentParts(**content)


def count_nodes(text: bytes | bytearray) -> int:
    """Return an upper bound of how many values JSON text holds, without parsing it."""
    bound = _marks(text)
    # What stands in strings does not count. They are looked through only where that may matter, and where there are not
    # more of them than there may be values.
    if bound > _FEW_NODES and text.count(b'"') <= max_nodes(len(text)):
        bound -= sum(_marks(string[0]) for string in _STRING.finditer(text))
    return bound


def _depth(text: bytes | bytearray) -> int:
    """Return how deeply brackets are nested."""
    if text.count(b"[") + text.count(b"{") <= MAX_LEVELS:
        return 0  # no need to look
    deepest = depth = 0
    for token in _TOKEN.finditer(text):  # a string or a bracket
        if token[0] in {b"[", b"{"}:
            depth += 1
            deepest = max(deepest, depth)
            if deepest > MAX_LEVELS:
                break
        elif token[0] in {b"]", b"}"}:
            depth -= 1
    return deepest


def _marks(text: bytes | bytearray) -> int:
    """Return how many brackets that open, and commas, there are."""
    return sum(text.count(mark) for mark in (b"[", b"{", b","))


def max_nodes(nbytes: int) -> int:
    """Return how many values the document of a file of `nbytes` may hold; writers and readers both keep to it."""
    return _FEW_NODES + nbytes // 8


def _unique(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    made = dict(pairs)
    if len(made) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise IntegrityError(f"its JSON text has the key {twice[:80]!r} twice", next_step=RESTORE)
    return made


def _no_constant(name: str) -> Json:
    raise IntegrityError(f"its JSON text has the constant {name}, which is not JSON", next_step=RESTORE)


def _finite(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise IntegrityError(f"its JSON text has the number {digits:.40}, which no float64 is", next_step=RESTORE)
    return value


_STRICT = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_constant, parse_float=_finite)
