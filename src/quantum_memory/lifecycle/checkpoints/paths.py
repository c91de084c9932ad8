"""Places in a tree, and what does not fit there."""

from __future__ import annotations

from typing import Any

from quantum_memory.errors import InvalidStateError

Path = tuple[Any, ...]
"""Keys and indices on the way to a place."""

_SHOWN = 60


def spelled(path: Path) -> str:
    """Return a place as a reader would write it: ``model.head.weight``, ``log[3].text``."""
    text = "".join(
        f".{key}" if isinstance(key, str) and key and key.isprintable() else f"[{key!r:.{_SHOWN}}]" for key in path
    )
    return text.removeprefix(".") or "the whole"


def misfit(message: str) -> InvalidStateError:
    """Return the error that a checkpoint and a target do not fit, with what to do about it."""
    return InvalidStateError(
        message,
        next_step="give the target that was saved; what may change its form goes into Functions(save, load)",
    )


def different(path: Path, saved: str, now: str) -> InvalidStateError:
    """Return the error that what stands at a place is one thing in the checkpoint and another in the target."""
    return misfit(f"{spelled(path)} {saved} in the checkpoint and {now} in the target")


def check_keys(saved: Any, now: Any, path: Path) -> None:
    """Compare the keys of two mappings that stand at one place.

    Raises
    ------
    InvalidStateError
        One has a key that the other has not.
    """
    for key in now:
        if key not in saved:
            raise misfit(f"{spelled((*path, key))} is in the target and not in the checkpoint")
    for key in saved:
        if key not in now:
            raise misfit(f"{spelled((*path, key))} is in the checkpoint and not in the target")


def check_items(saved: Any, now: Any, path: Path) -> None:
    """Compare shape and dtype of two arrays, or of two tensors, that stand at one place.

    Raises
    ------
    InvalidStateError
        They differ.
    """
    if tuple(saved.shape) != tuple(now.shape):
        raise different(path, f"has shape {tuple(saved.shape)}", str(tuple(now.shape)))
    if saved.dtype != now.dtype:
        raise different(path, f"has dtype {saved.dtype}", str(now.dtype))
