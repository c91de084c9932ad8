"""Trees with objects in them: the plain tree of their states, and beside it a table that says where objects stood.

The table keeps the tree as the caller made it: no key of a dict can be taken for a mark, the arrays have the paths that
one would look for, and whoever reads the tree without the table has the states in the places of the objects.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from quantum_memory.errors import IntegrityError, InvalidStateError, UnsupportedVersionError
from quantum_memory.lifecycle.checkpoints.objects import KINDS, PLAIN, is_leaf, kind_of
from quantum_memory.lifecycle.checkpoints.paths import Path, spelled
from quantum_memory.state.document import MAX_DEPTH

Table = list[list[Any]]
"""Pairs of a path, as a list of keys and indices, and the name of a kind; the outer one first where two have a path."""

_DICTS = frozenset({dict, OrderedDict})
_SEQUENCES = frozenset({list, tuple})


@dataclass(frozen=True)
class Stored:
    """Stands in a tree for an object."""

    kind: str
    state: Any


def taken(target: object) -> tuple[Any, Table]:
    """Return a tree with the states of its objects in their places, and the table of them.

    Raises
    ------
    InvalidStateError
        A value that is not kept, named by its path.
    """
    table: Table = []
    return _taken(target, (), None, table), table


def _taken(value: Any, path: Path, owner: Path | None, table: Table) -> Any:
    """Return the plain tree of `value`, which belongs to the state of the object at `owner`."""
    if len(path) > MAX_DEPTH:
        raise InvalidStateError(
            f"the tree is nested deeper than {MAX_DEPTH} levels at {spelled(path[:4])}...",
            next_step="give a tree that does not hold itself",
        )
    if type(value) in PLAIN or is_leaf(value):  # the first is quick, and most of a long log
        return value
    if type(value) in _DICTS:
        return _with_items(value, {key: _taken(item, (*path, key), owner, table) for key, item in value.items()})
    if type(value) in _SEQUENCES:
        return type(value)(_taken(item, (*path, index), owner, table) for index, item in enumerate(value))
    kind = kind_of(value)
    if kind is None or (kind.made is None and owner is not None):
        name = f"{type(value).__module__}.{type(value).__qualname__}"
        inside = "" if owner is None else f", in the state of the object at {spelled(owner)}"
        raise InvalidStateError(
            f"{spelled(path)} is a {name}, which a checkpoint does not keep{inside}",
            next_step="give plain values, arrays, tensors, objects with a state_dict, or Functions(save, load)",
        )
    table.append([list(path), kind.name])
    try:
        state = kind.plain(value)
    except Exception as error:
        raise InvalidStateError(
            f"{spelled(path)} did not give its state: {error}", next_step=f"see what its {type(value).__name__} needs"
        ) from error
    return _taken(state, path, path, table) if kind.made is None else state


def joined(plain: Any, table: Table) -> Any:
    """Return the tree of `taken`, with a `Stored` for each object.

    Raises
    ------
    UnsupportedVersionError
        It holds objects of a kind that this release does not know.
    LookupError, TypeError, ValueError, IntegrityError
        Whatever goes wrong with a table that `taken` did not give; see `quantum_memory.state.document.well_formed`.
    """
    return _joined(plain, [(tuple(path), name) for path, name in table])


def _joined(value: Any, entries: list[tuple[Path, str]]) -> Any:
    within: dict[Any, list[tuple[Path, str]]] = {}
    for path, name in entries:
        if path:
            within.setdefault(path[0], []).append((path[1:], name))
    if within and isinstance(value, dict):
        value = _with_items(value, {**value, **{key: _joined(value[key], inner) for key, inner in within.items()}})
    elif within and type(value) in _SEQUENCES:
        items = list(value)
        for index, inner in within.items():
            items[index] = _joined(items[index], inner)
        value = type(value)(items)
    elif within:
        raise IntegrityError("its table of objects names a place that the tree does not have")
    for path, name in reversed(entries):
        if not path and name not in KINDS:
            raise UnsupportedVersionError(
                f"it holds an object of kind {str(name)[:40]!r}, which this release does not know",
                next_step="read it with a newer release of quantum-memory",
            )
        if not path:
            value = Stored(name, value)
    return value


def rebuilt_tree(node: Any) -> Any:
    """Return a tree with the objects that can be made without a target, and plain states in the places of others."""
    if isinstance(node, Stored):
        state, made = rebuilt_tree(node.state), KINDS[node.kind].made
        return state if made is None else made(state)
    if type(node) in _DICTS:
        return _with_items(node, {key: rebuilt_tree(item) for key, item in node.items()})
    if type(node) in _SEQUENCES:
        return type(node)(map(rebuilt_tree, node))
    return node


def _with_items(original: Any, items: dict[Any, Any]) -> Any:
    """Return `items` as a dictionary of the type of another, with the attributes that a state of torch has."""
    if type(original) is dict:
        return items
    made = OrderedDict(items)
    vars(made).update(copy.copy(vars(original)))
    return made
