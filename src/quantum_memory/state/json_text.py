"""JSON text: written canonically, read strictly and within bounds."""

from __future__ import annotations

import json
import math
import re
from typing import TYPE_CHECKING, Any

from quantum_memory.errors import IntegrityError, InvalidStateError, UnsafeError

if TYPE_CHECKING:
    from collections.abc import Mapping

Json = Any

_RESTORE = "restore the file from a copy"
_FEW_NODES = 1 << 18
_MARKS = (b"[", b"{", b",")
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"')


def to_json(node: Json, *, canonical: bool = False) -> bytes:
    """Write a node as JSON text without spaces, in ASCII; canonical text has its keys sorted."""
    text = json.dumps(node, separators=(",", ":"), sort_keys=canonical, allow_nan=False)
    return text.encode("ascii")


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
    try:
        return json.loads(
            text.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant, parse_float=_finite
        )
    except RecursionError:
        raise UnsafeError("its JSON text is nested too deeply", next_step="do not trust this file") from None
    except IntegrityError:
        raise
    except ValueError as error:
        raise IntegrityError(f"its JSON text is damaged: {error}", next_step=_RESTORE) from error


def check_record(record: Mapping[str, Any]) -> None:
    """Refuse a record that could not be read back: it must be JSON, with each key once as text.

    Raises
    ------
    InvalidStateError
    """
    try:
        text = to_json(record)
        from_json(text, max_nodes=max_nodes(0))
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidStateError(
            f"the record cannot be written as JSON: {getattr(error, 'message', error)}",
            next_step="put into it what JSON has, or save it as metadata",
        ) from error


def count_nodes(text: bytes | bytearray) -> int:
    """Return an upper bound of how many values JSON text holds, without parsing it."""
    bound = sum(text.count(mark) for mark in _MARKS)
    if bound > _FEW_NODES and b'"' in text:
        # What stands in strings does not count; taking them out is worth it only where it may matter.
        text = _STRING.sub(b"", text)
        bound = sum(text.count(mark) for mark in _MARKS)
    return bound


def max_nodes(nbytes: int) -> int:
    """Return how many values the document of a file of `nbytes` may hold; writers and readers both keep to it."""
    return _FEW_NODES + nbytes // 8


def _unique(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    made = dict(pairs)
    if len(made) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise IntegrityError(f"its JSON text has the key {twice[:80]!r} twice", next_step=_RESTORE)
    return made


def _no_constant(name: str) -> Json:
    raise IntegrityError(f"its JSON text has the constant {name}, which is not JSON", next_step=_RESTORE)


def _finite(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise IntegrityError(f"its JSON text has the number {digits:.40}, which no float64 is", next_step=_RESTORE)
    return value
