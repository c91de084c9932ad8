"""What torch does not look at, or not exactly, when a module or an optimiser takes a state. It is not imported."""

from __future__ import annotations

import sys
from itertools import chain
from typing import TYPE_CHECKING, Any

from quantum_memory.lifecycle.checkpoints.paths import Path, check_items, check_keys, different
from quantum_memory.state.document import well_formed

if TYPE_CHECKING:
    from collections.abc import Mapping


def is_module(value: object) -> bool:
    """Tell whether `value` is a torch module."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.nn.Module)


def check_state(target: Any, state: Mapping[str, Any], path: Path) -> None:
    """Compare a state with the module or the optimiser that is to take it; of other objects nothing is known.

    Raises
    ------
    InvalidStateError
        Keys, shapes or dtypes of a module differ, or the groups of parameters of an optimiser.
    """
    if is_module(target):
        now = target.state_dict()
        check_keys(state, now, path)
        for name, item in now.items():
            saved = state[name]
            # A parameter that has no shape yet takes any.
            if _is_tensor(item) and _is_tensor(saved) and not hasattr(item, "materialize"):
                check_items(saved, item, (*path, name))
            elif _is_tensor(item) != _is_tensor(saved):
                raise different((*path, name), f"is a {type(saved).__name__}", f"a {type(item).__name__}")
    elif _is_optimizer(target) and isinstance(groups := state.get("param_groups"), list):
        with well_formed():
            sizes = [len(group["params"]) for group in groups]
        now_sizes = [len(group["params"]) for group in target.param_groups]
        if sizes != now_sizes:
            raise different(path, f"has groups of {sizes} parameters", f"of {now_sizes}")


def load_state(target: Any, state: Any) -> None:
    """Give an object its state; an optimiser of torch gets its numbers in the types in which they were.

    torch casts the state of a parameter to the type of the parameter, integers and float64 included, and makes the text
    of a generator of a text.
    """
    target.load_state_dict(state)
    if not _is_optimizer(target) or not {"state", "param_groups"}.issubset(state):
        return
    if target._optimizer_load_state_dict_pre_hooks:  # which may have made another state of it
        return
    saved_ids = chain.from_iterable(group["params"] for group in state["param_groups"])
    parameters = chain.from_iterable(group["params"] for group in target.param_groups)
    for number, parameter in zip(saved_ids, parameters, strict=True):
        if number in state["state"] and parameter in target.state:
            target.state[parameter] = _exact(target.state[parameter], state["state"][number])


def _exact(loaded: Any, saved: Any) -> Any:
    """Return what was saved, with its tensors where torch has put them."""
    if _is_tensor(saved):
        return loaded if loaded.dtype == saved.dtype else saved.to(loaded.device)
    if type(saved) is dict:
        return {key: _exact(loaded[key], item) for key, item in saved.items()}
    if type(saved) in {list, tuple}:
        return type(saved)(_exact(one, item) for one, item in zip(loaded, saved, strict=True))
    return saved


def _is_tensor(value: object) -> bool:
    return isinstance(value, sys.modules["torch"].Tensor)


def _is_optimizer(value: object) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.optim.Optimizer)
