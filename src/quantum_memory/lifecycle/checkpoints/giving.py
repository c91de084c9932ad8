"""A target gets back what a tree holds: first all of it is compared, then it is given; all of it or nothing."""

from __future__ import annotations

import copy
import sys
from collections import OrderedDict
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from quantum_memory.errors import InvalidStateError
from quantum_memory.lifecycle.checkpoints.objects import KINDS, PLAIN, Kind, kind_of
from quantum_memory.lifecycle.checkpoints.paths import Path, check_items, check_keys, different, spelled
from quantum_memory.lifecycle.checkpoints.trees import Stored, rebuilt_tree
from quantum_memory.state import tensors
from quantum_memory.state.document import QuantumState, well_formed

if TYPE_CHECKING:
    from collections.abc import Callable

_NUMBERS = (bool, int, float, complex, np.generic)
_CONTAINERS = {dict, OrderedDict, list, tuple}


@dataclass(frozen=True)
class _Step:
    """Something that is altered: how, and how what it was is kept and given back."""

    path: Path
    do: Callable[[], object]
    keep: Callable[[], Any]
    undo: Callable[[Any], object]


class Giving:
    """What is to be done so that a target holds what a tree does.

    Parameters
    ----------
    target
        What is altered, later.
    node
        The tree, as of `trees.joined`.

    Attributes
    ----------
    value
        The target; where it cannot be altered, what takes its place.

    Raises
    ------
    InvalidStateError
        They do not fit; the error names the place.
    IntegrityError
        The tree holds a state that no object gives.
    """

    def __init__(self, target: Any, node: Any) -> None:
        self._steps: list[_Step] = []
        self._owned: dict[int, Any] = {}
        self.value = self._fit(target, node, ())

    def do(self) -> None:
        """Alter the target; when anything fails, all of it gets back what it had.

        Raises
        ------
        InvalidStateError
            An object did not take its state, or what it has now cannot be kept.
        """
        kept = []
        for step in self._steps:
            try:
                kept.append(step.keep())
            except Exception as error:
                raise InvalidStateError(
                    f"what {spelled(step.path)} holds now cannot be kept for the case that something fails: {error}",
                    next_step="give a state_dict of plain values, arrays and tensors",
                ) from error
        begun, path = 0, ()
        try:
            for begun, step in enumerate(self._steps, 1):  # noqa: B007 - an interrupt may come between two steps
                path = step.path
                step.do()
        except BaseException as error:
            self._undo(kept[:begun], error)
            if not isinstance(error, Exception):
                raise
            raise InvalidStateError(
                f"{spelled(path)} did not take its state: {error}; everything is as it was",
                next_step="give the target that was saved",
            ) from error

    def _undo(self, kept: list[Any], cause: BaseException) -> None:
        for step, before in reversed(list(zip(self._steps, kept, strict=False))):
            try:
                step.undo(before)
            except BaseException as error:
                cause.add_note(f"{spelled(step.path)} did not take back what it had: {error!r}")

    def _fit(self, target: Any, node: Any, path: Path) -> Any:
        """Note what makes `target` what `node` is, and return what stands in its place then."""
        if type(target) in PLAIN and type(node) is type(target):
            return node
        kind = kind_of(target)
        if kind is not None or isinstance(node, Stored):
            return self._fit_object(target, kind, node, path)
        nothing = target is None or node is None
        if nothing and not _holds(target, _stays) and not _holds(node, _needs_target):
            return self._own(node)
        if nothing or _family(target) != _family(node):
            raise different(path, f"is {_family(node)}", _family(target))
        if isinstance(target, np.ndarray):
            return self._fit_array(target, node, path)
        if tensors.is_tensor(target):
            return self._fit_tensor(target, node, path)
        if isinstance(target, dict):
            return self._fit_dict(target, node, path)
        if isinstance(target, (list, tuple)):
            return self._fit_sequence(target, node, path)
        return node

    def _fit_object(self, target: Any, kind: Kind | None, node: Any, path: Path) -> Any:
        saved = KINDS[node.kind] if isinstance(node, Stored) else None
        if target is None and saved is not None and saved.made is not None:
            return self._own(node)
        if node is None and kind is not None and kind.give is None:
            return None
        if kind is None or kind is not saved:
            now = _family(target) if kind is None else kind.called
            raise different(path, f"is {_family(node) if saved is None else saved.called}", now)
        with well_formed():
            state = rebuilt_tree(node.state)
            if kind.made is not None:
                kind.made(state)
        if kind.give is None:
            return self._own(node)
        kind.check(target, state, path)
        give = partial(kind.give, target)
        self._steps.append(_Step(path, partial(give, state), lambda: copy.deepcopy(kind.plain(target)), give))
        return target

    def _fit_array(self, target: Any, node: Any, path: Path) -> Any:
        check_items(node, target, path)
        if not target.flags.writeable:
            return node.copy()
        give = partial(np.copyto, target)
        self._steps.append(_Step(path, partial(give, node), target.copy, give))
        return target

    def _fit_tensor(self, target: Any, node: Any, path: Path) -> Any:
        check_items(node, target, path)
        give = partial(_copy_tensor, target)
        self._steps.append(_Step(path, partial(give, node), lambda: target.detach().clone(), give))
        return target

    def _fit_dict(self, target: dict[Any, Any], node: dict[Any, Any], path: Path) -> Any:
        if not target and not _holds(node, _needs_target):
            items = self._own(node)
        else:
            check_keys(node, target, path)
            items = {key: self._fit(target[key], item, (*path, key)) for key, item in node.items()}
        if any(key not in target or target[key] is not item for key, item in items.items()):
            self._steps.append(_Step(path, partial(target.update, items), target.copy, partial(_refill_dict, target)))
        return target

    def _fit_sequence(self, target: Any, node: Any, path: Path) -> Any:
        """Fit a list or a tuple item by item; what need not stay where it is may be replaced instead."""
        mark = len(self._steps)
        try:
            if len(target) != len(node):
                raise different(path, f"has {len(node)} items", str(len(target)))
            items = [
                self._fit(one, item, (*path, index)) for index, (one, item) in enumerate(zip(target, node, strict=True))
            ]
        except InvalidStateError:
            fixed = _stays if len(target) != len(node) else _is_filled
            if _holds(target, fixed) or _holds(node, fixed):
                raise
            del self._steps[mark:]
            items = list(self._own(node))
        same = len(target) == len(items) and all(one is item for one, item in zip(target, items, strict=True))
        if same or isinstance(target, tuple):
            return target if same else tuple(items)
        give = partial(target.__setitem__, slice(None))
        self._steps.append(_Step(path, partial(give, items), target.copy, give))
        return target

    def _own(self, node: Any) -> Any:
        """Return what a tree holds, in memory of its own; arrays that parts of it share are shared again."""
        with well_formed():
            return rebuilt_tree(copy.deepcopy(node, self._owned))


def _copy_tensor(target: Any, items: Any) -> None:
    with sys.modules["torch"].no_grad():
        target.copy_(items)


def _refill_dict(target: dict[Any, Any], items: dict[Any, Any]) -> None:
    target.clear()
    target.update(items)


def _family(value: Any) -> str:
    """Return what a value is called, the same for those that may take each other's place."""
    if isinstance(value, _NUMBERS):
        return "a number"
    if isinstance(value, QuantumState):
        return "a quantum state"
    if isinstance(value, np.ndarray):
        return "an array"
    return "a tensor" if tensors.is_tensor(value) else f"a {type(value).__name__}"


def _holds(tree: Any, wanted: Callable[[Any], bool]) -> bool:
    """Tell whether anything in a tree, which may hold itself, is as wanted."""
    seen: set[int] = set()
    stack = [tree]
    while stack:
        top = stack.pop()
        if wanted(top):
            return True
        if type(top) in _CONTAINERS and id(top) not in seen:
            seen.add(id(top))
            stack.extend(top.values() if isinstance(top, dict) else top)
    return False


def _needs_target(node: Any) -> bool:
    return isinstance(node, Stored) and KINDS[node.kind].made is None


def _stays(value: Any) -> bool:
    """Tell whether a value is an object that gets its state in place, or the state of one that cannot be made."""
    kind = kind_of(value)
    return _needs_target(value) or (kind is not None and kind.give is not None)


def _is_filled(value: Any) -> bool:
    return isinstance(value, np.ndarray) or tensors.is_tensor(value) or _stays(value)
