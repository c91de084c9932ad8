"""Names after the last @ of a path on this machine: of a state in a store, or of a checkpoint in a folder of them."""

from __future__ import annotations

import os
import stat
from importlib import import_module
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from quantum_memory.durability.files import current

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from quantum_memory.durability.files import Readable
    from quantum_memory.formats.registry import Handler, OpenOptions, Path
    from quantum_memory.formats.urls import URL

STORE = ".h5"
"""How stores of several states end."""

_SHOWN = 8


class Named(NamedTuple):
    """What a path with a name means.

    Attributes
    ----------
    said
        The path, as it was given.
    path
        Of the store or the folder.
    name
        Of what is meant in it.
    in_folder
        Whether it is a folder.
    """

    said: str
    path: str
    name: str
    in_folder: bool


def named_in(path: Path) -> Named | None:
    """Return what a path with a name means; None of one that is there itself, or names nothing in what is there.

    A store that is gone is one whose suffix says so: what may be recovered of it is a state as well.
    """
    said = os.fspath(path)
    if not isinstance(said, str) or "@" not in said or _mode(said) is not None:
        return None
    first = said.rfind("/") + 1
    splits = [(said[:at], said[at + 1 :]) for at in range(len(said) - 1, first - 1, -1) if said[at] == "@"]
    splits = [(path, name) for path, name in splits if path and name]
    for where, name in splits:
        if (mode := _mode(where)) is not None:
            return Named(said, where, name, stat.S_ISDIR(mode))
    return next((Named(said, where, name, False) for where, name in splits if where.lower().endswith(STORE)), None)


def some_of(names: Collection[str]) -> str:
    """Return the first of the names that there are, for a sentence."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(f"{name:.80}" for name in islice(names, _SHOWN)) + more if names else "none"


def _mode(path: str) -> int | None:
    """Return what kind of file there is; None where there is none."""
    try:
        return current().stat(path).st_mode
    except (OSError, ValueError):
        return None


class Checkpoints(Protocol):
    """What opens checkpoints by name: it is above this, and no format knows it."""

    def open(self, named: Named, options: OpenOptions) -> tuple[Readable, Handler] | None:
        """Return what stands for a file, and what reads the checkpoint; None where it is no folder of checkpoints.

        Raises
        ------
        MissingFileError
            There is none of that name.
        """

    def at(self, url: URL) -> str | None:
        """Return the id of the checkpoint that the name of an address means by a tag, a name, or how an id begins.

        None where there is no such one, or several.
        """

    def record(self, noted: Mapping[str, Any]) -> dict[str, Any]:
        """Return what is to be in the record of a version of which something is noted, where it is a checkpoint."""


_CHECKPOINTS = ("quantum_memory.lifecycle.checkpoints.named", "NamedCheckpoints")


def checkpoints() -> Checkpoints:
    """Return what opens checkpoints by name."""
    module, name = _CHECKPOINTS
    made: Checkpoints = getattr(import_module(module), name)()
    return made
