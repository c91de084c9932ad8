"""Find leaves of a document by name: the values, arrays and states of a memory that a pattern means."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from quantum_memory.errors import MissingError
from quantum_memory.state.document import MAX_DEPTH, unflatten, well_formed

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

Json = Any

_PREFIX = {
    "classical_data": "classical",
    "quantum_data": "quantum",
    "emotional_context": "emotion",
    "metadata": "metadata",
}
_CLASSICAL = "classical."
ARRAYS_OF_STATES = ("amplitudes", "matrix", "sites", "tableau")


def leaves(document: Mapping[str, Json]) -> Iterator[tuple[str, Json]]:
    """Yield the name and the node of every leaf of a document.

    The name of a leaf is the keys and indices on the way to it, joined by dots, after the name of its part. A tensor
    that stands in two places is yielded twice; a quantum state is a leaf, and so is each of its arrays.
    """
    for part, name in _PREFIX.items():
        if part in document:
            yield from _under(document[part], name, 0)


def named(document: Mapping[str, Json], name: str) -> dict[str, Json]:
    """Return the node of every leaf under a name of its own.

    ``classical.`` is left out. Where keys are spelled alike (``{1: ..., "1": ...}``), the names of the later ones end
    with ``~2``, ``~3``, ...

    Parameters
    ----------
    name
        Of the file, for the error.
    """
    return {unique: node for unique, _, node in _named(document, name)}


def select(document: Mapping[str, Json], pattern: str, name: str) -> dict[str, Json]:
    """Return the nodes of the leaves whose name matches a pattern, by name; see `named`.

    Parameters
    ----------
    pattern
        A name, or a pattern as a shell has it (``*``, ``?``, ``[...]``), in which ``*`` also matches dots.
        ``classical.`` may be left out.
    name
        Of the file, for the error.

    Raises
    ------
    MissingError
        There is none.
    """
    every: list[str] = []
    found: dict[str, Json] = {}
    for unique, full, node in _named(document, name):
        every.append(unique)
        short = full.removeprefix(_CLASSICAL)
        if any(pattern == one or fnmatchcase(one, pattern) for one in (short, unique, full)):
            found[unique] = node
    if not found:
        some = ", ".join(every[:5]) + (", ..." if len(every) > 5 else "")
        raise MissingError(
            f"nothing in it is called {pattern[:80]!r}", path=name, next_step=f"it has: {some or 'nothing'}"
        )
    return found


def _named(document: Mapping[str, Json], name: str) -> Iterator[tuple[str, str, Json]]:
    """Yield of every leaf the name that it alone has, its whole name, and its node."""
    with well_formed(name):
        every = list(leaves(document))
    taken: set[str] = set()
    for full, node in every:
        short = unique = full.removeprefix(_CLASSICAL)
        count = 1
        while unique in taken:
            count += 1
            unique = f"{short}~{count}"
        taken.add(unique)
        yield unique, full, node


def _under(node: Json, name: str, depth: int) -> Iterator[tuple[str, Json]]:
    if depth > MAX_DEPTH:
        return  # no release writes it, and putting it together would be refused
    items = _items(node)
    if items is None:
        yield name, node
    else:
        if isinstance(node, dict) and "$state" in node:
            yield name, node
        for key, item in items:
            yield from _under(item, f"{name}.{_spelled(key)}", depth + 1)


def _items(node: Json) -> Iterable[tuple[Json, Json]] | None:
    """Return what a node holds, by key or index; None for a leaf."""
    items: Iterable[tuple[Json, Json]] | None = None
    if isinstance(node, list):
        return enumerate(node)
    if not isinstance(node, dict):
        return None
    match next((key for key in node if key.startswith("$")), None):
        case None:
            items = node.items()
        case "$tuple":
            items = enumerate(node["$tuple"])
        case "$dict" | "$ordered" as marker:
            items = node[marker]
        case "$state_dict":
            items = node["$state_dict"]["items"]
        case "$state":
            items = [(key, item) for key, item in node["$state"].items() if key in ARRAYS_OF_STATES]
    return items


def _spelled(key: Json) -> str:
    """Return a key as it stands in a name: as Python writes it."""
    if isinstance(key, dict | list):
        key = unflatten(key, {})
    try:
        return str(key)
    except ValueError:  # Python writes no integer of more than 4300 digits
        return format(key, "x")
