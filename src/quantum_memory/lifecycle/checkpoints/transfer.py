"""Checkpoints to and from files of their own."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from quantum_memory.formats.reader import read_memory
from quantum_memory.formats.verbs import Saved, load, save
from quantum_memory.lifecycle.checkpoints.manifest import as_json, metrics_of
from quantum_memory.lifecycle.checkpoints.saving import Flat, Said, flat_of
from quantum_memory.state.document import well_formed

if TYPE_CHECKING:
    from quantum_memory.lifecycle.checkpoints.home import OpenCheckpoint

RECORD = "checkpoint"
"""Where in the record of a file stands which checkpoint it was."""

_KINDS = ("memory", "quantum", "tree")


def export(reader: OpenCheckpoint, path: str | os.PathLike[str], options: dict[str, Any]) -> Saved:
    """Save what a checkpoint holds as a file of its own; what was said of it is in its record."""
    memory = read_memory(reader)
    memory.record[RECORD] = as_json(reader.checkpoint)
    return save(memory, path, **options)


def imported(path: str | os.PathLike[str], name: str, branch: str, state_id: str | None) -> tuple[Flat, Said]:
    """Return what a file holds, every byte of it checked, and what is said of it."""
    memory = load(path, verify="full", state_id=state_id)
    found = memory.record.pop(RECORD, None)
    said = found if isinstance(found, dict) else {}
    kind = said.get("kind")
    with well_formed(os.fspath(path)):
        described = Said(
            name=name or str(said.get("name", "")),
            description=str(said.get("description", "")) or f"imported from {os.fspath(path)}",
            progress=said.get("progress"),
            metrics=metrics_of(said.get("metrics") or {}),
            parameters=dict(said.get("parameters") or {}),
            finished=bool(said.get("finished")),
            branch=branch,
        )
    return flat_of(kind if kind in _KINDS else "memory", memory), described
