"""What the verbs of ``qmem checkpoint`` share: which folder, and whether it is one of checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from quantum_memory.cli.folders import check_folder, meant
from quantum_memory.cli.output import plain
from quantum_memory.errors import MissingError, shell_word
from quantum_memory.formats.urls import is_url

if TYPE_CHECKING:
    from quantum_memory.lifecycle.checkpoint_manager import CheckpointManager

folder_option = click.option(
    "-C", "--folder", metavar="DIR", help='The folder, or an address; by default "checkpoints".'
)

_DEFAULT = "checkpoints"
_OLD_REGISTRY = "checkpoint_registry.json"


def opened(folder: str | None, *, may_be_new: bool = False, **options: Any) -> CheckpointManager:
    """Return a manager of a folder, in which nothing was made.

    Parameters
    ----------
    folder
        As it was given to the verb; None for that of the group.
    may_be_new
        Whether it may be a folder that is not there, or empty.
    options
        See `CheckpointManager`.

    Raises
    ------
    MissingError
        It is no folder of checkpoints.
    """
    from quantum_memory.lifecycle.checkpoint_manager import CheckpointManager

    manager = CheckpointManager(meant(folder) or _DEFAULT, signals=False, **options)
    if is_url(manager.folder.path):
        if not may_be_new and not manager.folder.is_there:
            raise MissingError(
                "there is no repository", path=manager.folder.path, next_step="check the address, or save to it first"
            )
        return manager
    path = Path(manager.folder.path)
    if not manager.folder.is_there and (path / _OLD_REGISTRY).is_file():
        raise MissingError(
            "it holds checkpoints of the first implementation",
            path=manager.folder.path,
            next_step=f"qmem migrate plan {plain(shell_word(str(path)))} --out plan.json",
        )
    check_folder(manager.folder, may_be_new=may_be_new, new="say which folder it is: -C DIR")
    return manager
