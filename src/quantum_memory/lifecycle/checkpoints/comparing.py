"""What differs between two checkpoints, or any two memories that are open, and by how much.

Chunks of one name are the same, and are not read; those that differ are read a few at a time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from quantum_memory.formats.info import of_reader
from quantum_memory.formats.select import ARRAYS_OF_STATES, named
from quantum_memory.lifecycle.checkpoints.comparing_arrays import change, comparable, kept_array, order_of_delta
from quantum_memory.lifecycle.checkpoints.comparing_states import StateDifference, between
from quantum_memory.lifecycle.checkpoints.manifest import Chunked
from quantum_memory.state.arrays import CHUNK_BYTES
from quantum_memory.state.document import unflatten, well_formed
from quantum_memory.state.json_text import to_json

if TYPE_CHECKING:
    from quantum_memory.formats.reader import Reader
    from quantum_memory.lifecycle.checkpoints.comparing_arrays import Kept
    from quantum_memory.lifecycle.checkpoints.manifest import Checkpoint
    from quantum_memory.state.document import Json

_MOST = 20
_MOST_STATES = 8
_TEXT = 80
_SAID = ("kind", "branch", "name", "description", "finished", "progress")


@dataclass(frozen=True)
class LeafDifference:
    """A leaf of the memory that both have, and that differs.

    Attributes
    ----------
    name
        As `quantum_memory.load` selects by.
    old, new
        What it was and is: a plain value, or the type and shape of an array, or other values as Python writes them.
    nbytes
        Bytes of the new array; 0 for a value.
    changed_bytes
        Bytes of the items of which any bit differs; all of an array of another type or shape.
    max_delta
        Largest absolute difference of two items or numbers; NaN where one of two is. None where there are no two
        numbers.
    """

    name: str
    old: Any
    new: Any
    nbytes: int = 0
    changed_bytes: int = 0
    max_delta: float | None = None


@dataclass(frozen=True)
class TreeDifference:
    """Which leaves of two memories differ; an empty dict or list is no leaf.

    Attributes
    ----------
    leaves
        How many the first and the second have.
    added, removed, changed
        How many only the second has, only the first, and both, but differently.
    changed_bytes, added_bytes, removed_bytes
        Bytes of these, of the changed ones those that differ.
    first_added, first_removed
        Names of the first of them.
    most_changed
        The changed ones with the largest `LeafDifference.max_delta` first, as many as were asked for.
    """

    leaves: tuple[int, int]
    added: int
    removed: int
    changed: int
    changed_bytes: int
    added_bytes: int
    removed_bytes: int
    first_added: tuple[str, ...]
    first_removed: tuple[str, ...]
    most_changed: tuple[LeafDifference, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return it as a plain dict."""
        return {**vars(self), "most_changed": [vars(one) for one in self.most_changed]}


@dataclass(frozen=True)
class Comparison:
    """What `compare` found. ``str`` of it is a page of at most 80 columns.

    Attributes
    ----------
    first, second
        Ids of the checkpoints, or paths of the files.
    same_content
        They have one `content_id`: every bit of the two agrees.
    content_ids
        Those of both.
    states
        The quantum states that both have under one name, the first eight of them.
    states_left_out
        How many more there are.
    tree
        The leaves.
    emotion
        ``pad_distance`` (Euclidean, bipolar scale), and of both ``pad``, ``recent_emotions`` and
        ``trajectory_points``; None where neither has an emotional context.
    said
        What was said of the checkpoints and differs: by name ("progress", "metrics.energy", "parameters.lr", ...) the
        old value and the new one; None where there was none.
    shared
        ``bytes`` of the different chunks that both need, ``first_bytes`` and ``second_bytes`` of those that each needs,
        and the ``first_share`` and ``second_share`` that this is; None where one of the two has no chunks by name.
    """

    first: str
    second: str
    same_content: bool
    content_ids: tuple[str, str]
    states: tuple[StateDifference, ...]
    states_left_out: int
    tree: TreeDifference
    emotion: dict[str, Any] | None = None
    said: dict[str, tuple[Any, Any]] = field(default_factory=dict)
    shared: dict[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return it as a plain dict that is JSON; numbers that JSON does not have are text."""
        plain: dict[str, Any] = _as_json(
            {**vars(self), "states": [one.to_dict() for one in self.states], "tree": self.tree.to_dict()}
        )
        return plain

    def __str__(self) -> str:
        from quantum_memory.lifecycle.checkpoints.comparing_text import page  # noqa: PLC0415 - it needs this class

        return page(self)


def compare(first: Reader, second: Reader, *, most: int = _MOST, max_bytes: int = 1 << 30) -> Comparison:
    """Compare two memories.

    Parameters
    ----------
    first, second
        Open checkpoints, or other files that are open; what is shared is known of checkpoints alone.
    most
        How many leaves are listed of each kind. All are looked at.
    max_bytes
        What the quantum states of one name may take in memory, see `comparing_states.between`.

    Raises
    ------
    IntegrityError, StorageError
        As reading raises.
    """
    facts = of_reader(first), of_reader(second)
    leaves = named(first.document, first.name), named(second.document, second.name)
    states = [name for name in leaves[0] if all(_is_state(some.get(name)) for some in leaves)]
    return Comparison(
        first=_name(first),
        second=_name(second),
        same_content=facts[0]["content_id"] == facts[1]["content_id"],
        content_ids=(facts[0]["content_id"], facts[1]["content_id"]),
        states=tuple(
            between(name, (first, leaves[0][name]), (second, leaves[1][name]), max_bytes=max_bytes)
            for name in states[:_MOST_STATES]
        ),
        states_left_out=len(states[_MOST_STATES:]),
        tree=_tree(first, second, *leaves, most),
        emotion=_emotion(facts[0]["emotion"], facts[1]["emotion"]),
        said=_said(first, second),
        shared=shared_chunks(first, second),
    )


def shared_chunks(first: Reader, second: Reader) -> dict[str, Any] | None:
    """Return how many bytes of chunks two checkpoints share; None for what has no chunks by name."""
    chunks = _chunks(first), _chunks(second)
    if chunks[0] is None or chunks[1] is None:
        return None
    shared = sum(nbytes for chunk, nbytes in chunks[0].items() if chunk in chunks[1])
    sizes = [sum(some.values()) for some in chunks if some is not None]
    return {
        "bytes": shared,
        "first_bytes": sizes[0],
        "second_bytes": sizes[1],
        "first_share": shared / sizes[0] if sizes[0] else None,
        "second_share": shared / sizes[1] if sizes[1] else None,
    }


def _chunks(reader: Reader) -> dict[bytes, int] | None:
    """Return the bytes of each chunk by name."""
    found: dict[bytes, int] = {}
    for entry in reader.entries.values():
        if not isinstance(entry, Chunked):
            return None
        for index in range(entry.count):
            found[entry.chunk(index)] = min(CHUNK_BYTES, entry.nbytes - index * CHUNK_BYTES)
    return found


def _name(reader: Reader) -> str:
    checkpoint = _checkpoint(reader)
    return reader.name if checkpoint is None else checkpoint.id


def _checkpoint(reader: Reader) -> Checkpoint | None:
    """Return what is said of a checkpoint; None of what is none."""
    found: Checkpoint | None = getattr(reader, "checkpoint", None)
    return found


# --- leaves


def _is_state(node: Json) -> bool:
    return isinstance(node, dict) and "$state" in node


def _tree(first: Reader, second: Reader, old: dict[str, Json], new: dict[str, Json], most: int) -> TreeDifference:
    changed = [
        found
        for name in old
        if name in new and (found := _leaf(name, (first, old[name]), (second, new[name]))) is not None
    ]
    # Sorting keeps the order of the leaves where nothing else decides.
    changed.sort(key=lambda one: order_of_delta(one.max_delta), reverse=True)
    added, removed = [one for one in new if one not in old], [one for one in old if one not in new]
    return TreeDifference(
        leaves=(len(old), len(new)),
        added=len(added),
        removed=len(removed),
        changed=len(changed),
        changed_bytes=sum(one.changed_bytes for one in changed),
        added_bytes=sum(_nbytes(second, new[name]) for name in added),
        removed_bytes=sum(_nbytes(first, old[name]) for name in removed),
        first_added=tuple(added[:most]),
        first_removed=tuple(removed[:most]),
        most_changed=tuple(changed[:most]),
    )


def _nbytes(reader: Reader, node: Json) -> int:
    kept = kept_array(reader, node)
    return 0 if kept is None else kept.entry.nbytes


def _leaf(name: str, old: tuple[Reader, Json], new: tuple[Reader, Json]) -> LeafDifference | None:
    """Return how a leaf differs; None where it does not."""
    a, b = kept_array(*old), kept_array(*new)
    if a is not None and b is not None:
        return _array(name, a, b)
    if a is None and b is None:
        nodes = _without_arrays(old[1]), _without_arrays(new[1])
        if to_json(nodes[0], canonical=True) == to_json(nodes[1], canonical=True):
            return None
        before, after = map(_value, nodes)
        return LeafDifference(name, _short(before), _short(after), max_delta=_delta(before, after))
    before, after = (_short(_value(node)) if kept is None else str(kept) for kept, (_, node) in ((a, old), (b, new)))
    size = 0 if b is None else b.entry.nbytes
    return LeafDifference(name, before, after, size, size)


def _array(name: str, a: Kept, b: Kept) -> LeafDifference | None:
    if comparable(a, b):
        if a.entry.identity == b.entry.identity and a.facts == b.facts:
            return None
        return LeafDifference(name, str(a), str(b), b.entry.nbytes, *change(a, b))
    return LeafDifference(name, str(a), str(b), b.entry.nbytes, b.entry.nbytes)


def _without_arrays(node: Json) -> Json:
    """Return a state as what is said of it, and any other node as it is: the arrays of a state are leaves as well."""
    if not _is_state(node):
        return node
    return {key: value for key, value in node["$state"].items() if key not in ARRAYS_OF_STATES}


def _value(node: Json) -> Any:
    with well_formed():
        return unflatten(node, {})


def _short(value: Any) -> Any:
    """Return a value that JSON has and that is not long as it is, and any other as text."""
    if value is None or type(value) in {bool, int, float} or (isinstance(value, str) and len(value) <= _TEXT):
        return value
    try:
        text = repr(value)
    except ValueError:  # Python writes no integer of more than 4300 digits
        text = hex(value)
    return text if len(text) <= _TEXT else f"{text[: _TEXT - 3]}..."


def _delta(old: Any, new: Any) -> float | None:
    """Return the absolute difference of two numbers; None for what are none."""
    if any(type(value) not in {int, float, complex} for value in (old, new)):
        return None
    try:
        return float(abs(new - old))
    except OverflowError:
        return math.inf


# --- what was said, and felt


def _emotion(old: dict[str, Any] | None, new: dict[str, Any] | None) -> dict[str, Any] | None:
    if old is None and new is None:
        return None
    both = [one or {} for one in (old, new)]
    found: dict[str, Any] = {
        name: tuple(one.get(name) for one in both) for name in ("pad", "recent_emotions", "trajectory_points")
    }
    points = found["pad"]
    return {"pad_distance": None if None in points else math.dist(*points), **found}


def _said(first: Reader, second: Reader) -> dict[str, tuple[Any, Any]]:
    """Return what was said of two checkpoints and differs."""
    both = _checkpoint(first), _checkpoint(second)
    if both[0] is None or both[1] is None:
        return {}
    old, new = _facts(both[0]), _facts(both[1])
    return {
        name: (old.get(name), new.get(name))
        for name in {**old, **new}
        if to_json(_as_json(old.get(name)), canonical=True) != to_json(_as_json(new.get(name)), canonical=True)
    }


def _facts(checkpoint: Checkpoint) -> dict[str, Any]:
    said = checkpoint.to_dict()
    return {
        **{name: said[name] for name in _SAID},
        **{f"{part}.{name}": value for part in ("metrics", "parameters") for name, value in said[part].items()},
    }


def _as_json(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _as_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_as_json(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
