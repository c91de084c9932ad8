"""Find leaves of a document by name: the arrays and states of a memory that a pattern means."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from quantum_memory.errors import MissingError
from quantum_memory.state.document import MAX_DEPTH

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

Json = Any

_PREFIX = {
    "classical_data": "classical.",
    "quantum_data": "quantum.",
    "emotional_context": "emotion.",
    "metadata": "metadata.",
}


def leaves(document: Mapping[str, Json]) -> Iterator[tuple[str, Json]]:
    """Yield the name and the node of every leaf of a document that is or holds an array.

    The name of a leaf is the keys and indices on the way to it, joined by dots, after the name of its part. A tensor
    that stands in two places is yielded twice.
    """
    for part, prefix in _PREFIX.items():
        if part in document:
            yield from _under(document[part], prefix, 0)


def select(document: Mapping[str, Json], pattern: str, name: str) -> dict[str, Json]:
    """Return the nodes of the leaves whose name matches a pattern, by name.

    Parameters
    ----------
    pattern
        As a shell has it (``*``, ``?``, ``[...]``); ``*`` also matches dots. ``classical.`` may be left out.
    name
        Of the file, for the error.

    Raises
    ------
    MissingError
        There is none.
    """
    found = {}
    names = []
    for full, node in leaves(document):
        short = full.removeprefix(_PREFIX["classical_data"])
        names.append(short)
        if fnmatchcase(short, pattern) or fnmatchcase(full, pattern):
            found[short] = node
    if not found:
        some = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
        raise MissingError(
            f"nothing in it is called {pattern[:80]!r}", path=name, next_step=f"it has: {some or 'no arrays'}"
        )
    return found


def _under(node: Json, name: str, depth: int) -> Iterator[tuple[str, Json]]:
    if depth > MAX_DEPTH:
        return  # no release writes it, and putting it together would be refused
    dot = "" if name.endswith(".") else "."
    items: Any = ()
    if isinstance(node, list):
        items = enumerate(node)
    elif isinstance(node, dict):
        marker = next((key for key in node if key.startswith("$")), None)
        match marker:
            case None:
                items = node.items()
            case "$array" | "$torch":
                yield name, node
            case "$bytes" if isinstance(node["$bytes"], dict):
                yield name, node
            case "$tuple":
                items = enumerate(node["$tuple"])
            case "$dict" | "$ordered":
                items = node[marker]
            case "$state_dict":
                items = node["$state_dict"]["items"]
            case "$state":
                yield name.removesuffix("."), node
                items = _arrays_of_state(node["$state"])
    for key, item in items:
        if isinstance(item, (dict, list)):
            yield from _under(item, f"{name}{dot}{_spelled(key)}", depth + 1)


def _arrays_of_state(state: dict[str, Json]) -> Iterator[tuple[str, Json]]:
    """Yield what of a quantum state is an array, or a list of them."""
    return ((key, item) for key, item in state.items() if key in {"amplitudes", "matrix", "sites"})


def _spelled(key: Json) -> str:
    """Return a key as it stands in a name; one that JSON does not have is spelled as its node."""
    return key if isinstance(key, str) else str(key)
