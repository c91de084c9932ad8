"""What the verbs of ``qmem checkpoint`` share: which folder, and whether it is one of checkpoints."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from quantum_memory.cli.output import plain
from quantum_memory.errors import MissingError

if TYPE_CHECKING:
    from quantum_memory.lifecycle.checkpoint_manager import CheckpointManager

folder_option = click.option("-C", "--folder", metavar="DIR", help='The folder; by default "checkpoints".')
as_json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")

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

    manager = CheckpointManager(_meant(folder), signals=False, **options)
    path = Path(manager.folder.path)
    if manager.folder.is_there or (may_be_new and (not path.exists() or (path.is_dir() and not any(path.iterdir())))):
        return manager
    if not path.exists():
        raise MissingError(
            "there is no such folder", path=manager.folder.path, next_step="say which folder it is: -C DIR"
        )
    if (path / _OLD_REGISTRY).is_file():
        raise MissingError(
            "it holds checkpoints of the first implementation",
            path=manager.folder.path,
            next_step=f"qmem migrate plan {plain(shlex.quote(str(path)))} --out plan.json",
        )
    raise MissingError(
        "it is no folder of checkpoints", path=manager.folder.path, next_step="say which folder it is: -C DIR"
    )


def _meant(folder: str | None) -> str:
    above = click.get_current_context().find_object(str)
    return folder or above or _DEFAULT
