"""Lists of the first implementation: registries of checkpoints, lists of backups, reports. JSON that names states."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from quantum_memory.errors import IntegrityError, InvalidStateError
from quantum_memory.formats.legacy.found import NO_CHECKSUM, Found

if TYPE_CHECKING:
    from collections.abc import Iterator

    from quantum_memory.formats.legacy.found import Legacy

_KINDS = {
    "checkpoint-registry": (
        frozenset({"checkpoints", "checkpoint_history"}), "the registry of a folder of checkpoints"
    ),
    "backup-registry": (frozenset({"backups", "rotation_history"}), "the list of a folder of backups"),
    "migration-report": (frozenset({"files_processed", "files_migrated"}), "the report of a migration"),
    "checkpoint-entry": (frozenset({"state_hash", "file_path"}), "what is noted about a checkpoint"),
}  # fmt: skip
"""Kinds of lists: the keys that each has, and what it is."""

_CUT_REGISTRY = re.compile(rb'\{\s*"checkpoints":\s*\{\s*"')
_BEFORE_A_TIME = b'"timestamp": '


def kind_of(document: Any) -> str | None:
    """Return which kind of list JSON is, None where it is none."""
    if not isinstance(document, dict) or "interface_config" in document:
        return None
    return next((kind for kind, (keys, _) in _KINDS.items() if keys.issubset(document)), None)


def refuse_lists(document: dict[str, Any]) -> None:
    """Say which list a document is that should be one of a state.

    Raises
    ------
    InvalidStateError
    """
    kind = kind_of(document)
    if kind is not None:
        raise InvalidStateError(
            f"this is {_KINDS[kind][1]}, not a state", next_step="give one of the files that it names"
        )


def of_document(document: dict[str, Any], kind: str) -> Legacy:
    """Return the memory that a list is: all of it is classical, under its own names."""
    found = Found(notes=[NO_CHECKSUM, f"it is {_KINDS[kind][1]}, and has no quantum state"])
    for name, value in document.items():
        found.keep(name, value)
    return found.legacy(kind, None)


def explain_cut_short(text: bytes | bytearray) -> None:
    """Say of damaged JSON that it ends where the first implementation could not go on writing its registry.

    Raises
    ------
    IntegrityError
    """
    if text.endswith(_BEFORE_A_TIME) and _CUT_REGISTRY.match(text):
        raise IntegrityError(
            "it is a registry of checkpoints that ends before its first time, which the first implementation could not "
            "write: what it would have named are the other .json files of the folder, each of which is read by itself",
            next_step="use the .json files beside it: nothing is lost but names and descriptions",
        )


def named_by(document: dict[str, Any], kind: str, own_name: str) -> Iterator[tuple[str, str]]:
    """Yield the files that a list names, each with the SHA-256 that it gives of it.

    Paths in it may be those of another machine, or of somebody who wishes us ill: their last parts count, for files
    beside it.

    Parameters
    ----------
    own_name
        Of the file that the list is in, without folders.
    """
    if kind == "checkpoint-entry":
        yield from _checked(own_name.removesuffix("_metadata.json") + ".json", document.get("state_hash"))
    table = document.get({"checkpoint-registry": "checkpoints", "backup-registry": "backups"}.get(kind, ""))
    for name, facts in table.items() if isinstance(table, dict) else ():
        if not isinstance(facts, dict):
            continue
        if kind == "backup-registry":
            yield from _checked(name, facts.get("checksum"))
        else:
            yield from _checked(facts.get("file_path"), facts.get("state_hash"))


def _checked(path: Any, digest: Any) -> Iterator[tuple[str, str]]:
    if not isinstance(path, str) or not isinstance(digest, str):
        return
    name = re.split(r"[/\\]", path)[-1]
    if name not in {"", ".", ".."} and "\0" not in name:
        yield name, digest.lower()
