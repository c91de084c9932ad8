"""A comparison as a page of text that a terminal of 80 columns shows well; nothing in it can steer the terminal."""

from __future__ import annotations

import math
import textwrap
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from quantum_memory.lifecycle.checkpoints.comparing import Comparison, LeafDifference, TreeDifference
    from quantum_memory.lifecycle.checkpoints.comparing_states import StateDifference

_WIDTH = 80
_LABEL = 17
_SHOWN = 8
_CALLED = {"fidelity": "distances", "norms": "norms", "bloch": "Bloch vectors", "entropies": "entropies"}


def page(found: Comparison) -> str:
    """Return the page."""
    lines = ["identical content" if found.same_content else "different content"]
    lines += [_row("first", found.first), _row("second", found.second)]
    if found.shared is not None:
        lines.append(_row("shared chunks", _shared(found.shared)))
    lines += [_row(name, f"{_number(old)} -> {_number(new)}") for name, (old, new) in found.said.items()]
    for state in found.states:
        lines += _state(state)
    if found.states_left_out:
        lines += ["", f"and {found.states_left_out:,} more quantum states"]
    if found.emotion is not None:
        lines += ["", "emotion", *_emotion(found.emotion)]
    return "\n".join([*lines, "", *_tree(found.tree)])


def _shared(shared: dict[str, Any]) -> str:
    shares = [_percent(shared[f"{which}_share"]) for which in ("first", "second")]
    sizes = [f"{shared[f'{which}_bytes']:,} B" for which in ("first", "second")]
    return f"{shared['bytes']:,} B: {shares[0]} of {sizes[0]}, {shares[1]} of {sizes[1]}"


def _percent(share: float | None) -> str:
    return "none" if share is None else f"{100 * share:.3g} %"


def _state(state: StateDifference) -> Iterator[str]:
    yield ""
    kinds = state.kinds[0] if len(set(state.kinds)) == 1 else " and ".join(state.kinds)
    yield _cut(f"{state.name}: {kinds}{', the same in every bit' if state.same else ''}", _WIDTH)
    if state.fidelity is not None:
        yield _row("fidelity", _number(state.fidelity))
        yield _row("trace distance", _number(state.trace_distance))
        yield _row("Bures", f"distance {_number(state.bures_distance)}, angle {_number(state.bures_angle)} rad")
    if state.norms != (None, None):
        yield _row("norms", " and ".join(map(_number, state.norms)))
    yield from _bloch(state)
    yield from _entropies(state)
    if state.same:
        return
    for what, why in state.left_out.items():
        yield _row(f"no {_CALLED[what]}" if getattr(state, what) in {None, (None, None)} else "left out", why)


def _bloch(state: StateDifference) -> Iterator[str]:
    moved = [(math.hypot(*one), site, one) for site, one in enumerate(state.bloch_change or ()) if one is not None]
    if not moved:
        return
    length, site, (x, y, z) = max(moved, key=lambda one: one[0])
    if length == 0:
        yield _row("Bloch vectors", "all as they were")
        return
    many = f", {sum(one[0] > 1e-12 for one in moved)} of {len(moved)} changed"
    yield _row("Bloch vectors", f"by {length:.4g} at qubit {site} ({x:+.3f} {y:+.3f} {z:+.3f}){many}")


def _entropies(state: StateDifference) -> Iterator[str]:
    first, second = state.entropies
    moved = [(abs(one), cut) for cut, one in enumerate(state.entropy_change or (), 1) if one is not None]
    if not moved or first is None or second is None:
        return
    change, cut = max(moved, key=lambda one: one[0])
    values = f"{_bits(first[cut - 1])} -> {_bits(second[cut - 1])}"
    yield _row("entropies", f"by {change:.4g} bits at most, at cut {cut}: {values}")


def _bits(value: float | None) -> str:
    return "?" if value is None else f"{value:.4g}"


def _emotion(emotion: dict[str, Any]) -> Iterator[str]:
    old, new = emotion["pad"]
    if old is not None or new is not None:
        yield _row("PAD", f"{_point(old)} -> {_point(new)}")
    if emotion["pad_distance"] is not None:
        yield _row("PAD distance", _number(emotion["pad_distance"]))
    for label, name in (("recent emotions", "recent_emotions"), ("trajectory", "trajectory_points")):
        old, new = emotion[name]
        if old or new:
            yield _row(label, f"{_number(old)} -> {_number(new)}")


def _point(pad: Sequence[float] | None) -> str:
    return "none" if pad is None else " ".join(f"{value:+.3f}" for value in pad)


def _tree(tree: TreeDifference) -> Iterator[str]:
    counts = f"{tree.changed:,} changed, {tree.added:,} added, {tree.removed:,} removed"
    yield f"leaves: {tree.leaves[0]:,} and {tree.leaves[1]:,}: {counts}"
    for leaf in tree.most_changed[:_SHOWN]:
        yield from _leaf(leaf)
    yield from _more(tree.changed, "changed", tree.changed_bytes)
    for label, names, count, nbytes in (
        ("added", tree.first_added, tree.added, tree.added_bytes),
        ("removed", tree.first_removed, tree.removed, tree.removed_bytes),
    ):
        yield from (_cut(f"  {label}: {name}", _WIDTH) for name in names[:_SHOWN])
        yield from _more(count, label, nbytes)


def _leaf(leaf: LeafDifference) -> Iterator[str]:
    yield _cut(f"  {leaf.name}", _WIDTH)
    if leaf.nbytes and leaf.old == leaf.new:
        delta = "" if leaf.max_delta is None else f", by {_number(leaf.max_delta)} at most"
        yield _cut(f"    {leaf.new}, {leaf.changed_bytes:,} B of {leaf.nbytes:,} B{delta}", _WIDTH)
        return
    text = _printable(f"{_number(leaf.old)} -> {_number(leaf.new)}")
    yield from textwrap.wrap(text, _WIDTH, initial_indent="    ", subsequent_indent="    ", break_on_hyphens=False)


def _more(count: int, what: str, nbytes: int) -> Iterator[str]:
    if count > _SHOWN:
        yield f"  and {count - _SHOWN:,} more {what}; {nbytes:,} B {what} altogether"


def _row(label: str, text: str) -> str:
    label = _cut(label, _WIDTH // 2)
    indent = " " * (_LABEL + 2)
    first = f"  {label:<{_LABEL}}" if len(label) < _LABEL else f"  {label}  "
    return "\n".join(
        textwrap.wrap(_printable(text), _WIDTH, initial_indent=first, subsequent_indent=indent, break_on_hyphens=False)
    )


def _number(value: Any) -> str:
    """Return a value as people read it: numbers with ten digits, text as Python writes it."""
    if value is None:
        return "none"
    return f"{value:.10g}" if isinstance(value, float) else value if isinstance(value, str) else repr(value)


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _cut(text: str, width: int) -> str:
    text = _printable(text)
    return text if len(text) <= width else f"{text[: width - 3]}..."
