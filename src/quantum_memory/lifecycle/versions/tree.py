"""Documents as trees of plain values: copied, named by a SHA-256, and taken apart into leaves with their paths."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any, Final

from quantum_memory.errors import InvalidStateError
from quantum_memory.formats.legacy.found import check_depth

if TYPE_CHECKING:
    from collections.abc import Iterator

Document = dict[str, Any]

# Files of the first implementation may hold NaN and Infinity, which Python reads and writes as bare words. Without them
# the text is that of `state.json_text`.
_CANONICAL = json.JSONEncoder(separators=(",", ":"), sort_keys=True)
_SCALARS = (str, int, float, bool, type(None))


class _Absent:
    def __repr__(self) -> str:
        return "absent"


ABSENT: Final = _Absent()
"""Stands for the value at a path that a document does not have."""


def copied(document: Document) -> Document:
    """Return a copy of what JSON gave, that shares nothing with it and nothing within itself.

    Raises
    ------
    InvalidStateError
        It is no object, or holds what JSON does not give.
    UnsafeError
        It is nested too deeply.
    """
    if not isinstance(document, dict):
        raise InvalidStateError(
            f"a document is a dict, not a {type(document).__name__}", next_step="give what json.load returns of a file"
        )
    check_depth(document)
    made: Document = _copied(document, "")
    return made


def _copied(node: Any, path: str) -> Any:
    if isinstance(node, dict):
        if not all(type(key) is str for key in node):
            raise InvalidStateError(f"an object at {path or '/'!r:.200} has a key that is not text")
        return {key: _copied(value, child(path, key)) for key, value in node.items()}
    if isinstance(node, list):
        return [_copied(value, f"{path}/{index}") for index, value in enumerate(node)]
    if type(node) not in _SCALARS:
        raise InvalidStateError(
            f"the value at {path!r:.200} is a {type(node).__name__}, which JSON does not have",
            next_step="give what json.load returns of a file",
        )
    return node


def sha256_of(document: Document) -> str:
    """Return the SHA-256 of the canonical JSON of a document, in hexadecimal digits.

    Canonical is: ASCII, keys sorted, no spaces, the shortest decimals that read back the same; ``NaN``, ``Infinity``
    and ``-Infinity`` as words. It does not depend on the layout of the file, nor on the order of its keys.
    """
    return hashlib.sha256(_CANONICAL.encode(document).encode("ascii")).hexdigest()


def child(path: str, key: str) -> str:
    """Return the path of a member of the object at `path`, as JSON Pointer (RFC 6901) writes it."""
    return f"{path}/{key.replace('~', '~0').replace('/', '~1')}"


def leaves(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the path and the value of whatever is no object and no list, or an empty one."""
    if isinstance(node, dict) and node:
        for key, value in node.items():
            yield from leaves(value, child(path, key))
    elif isinstance(node, list) and node:
        for index, value in enumerate(node):
            yield from leaves(value, f"{path}/{index}")
    else:
        yield path, node


def same(one: Any, other: Any) -> bool:
    """Tell whether two leaves agree to the bit: 1 is not 1.0, 0.0 is not -0.0, and NaN is NaN."""
    return type(one) is type(other) and (one is other or repr(one) == repr(other))
