"""States of the interface from version 2.0 to 1.0: what 1.0 has no place for is left out; what that loses is listed.

What was computed from the measurements is not lost: upgrading computes it again.
"""

from __future__ import annotations

from typing import Any

from quantum_memory.lifecycle.steps.upgrade_1_0_to_2_0 import CARRIED, HISTORY, UNRECOGNISED, upgrade
from quantum_memory.lifecycle.versions.step import Loss, Step
from quantum_memory.lifecycle.versions.tree import ABSENT, Document, child, leaves, same

_WHY = {
    "metadata": "version 1.0 has no metadata",
    "compression_metrics": "version 1.0 has no compression metrics, and they follow from nothing that it has",
    "fidelity_metrics": "version 1.0 has no fidelity metrics, and its measurements give none like it",
    "emotional_context": "version 1.0 has no emotional context, and its measurements give none like it",
    "tensor_memory_stats": "version 1.0 has no figures of the tensor memory, and they follow from nothing that it has",
    UNRECOGNISED: "at the top of the document it would be taken for something else",
}
_KNOWN = {*CARRIED, *_WHY, "version"}


def downgrade(document: Document) -> Document:
    """Return a document of version 1.0 with what one of version 2.0 holds that 1.0 has a place for.

    Members that 2.0 does not know stay where they are, and those under ``unrecognised`` return to the top.
    """
    others = {name: value for name, value in document.items() if name not in _KNOWN}
    made = {name: document[name] for name in CARRIED if name in document}
    made |= _returned(document.get(UNRECOGNISED), {*CARRIED, *others, "version"}) | others
    metadata = document.get("metadata")
    if isinstance(metadata, dict) and HISTORY in metadata:
        made["metadata"] = {**made.get("metadata", {}), HISTORY: metadata[HISTORY]}
    return made


def losses(document: Document) -> list[Loss]:
    """Return what is neither in the document of version 1.0, nor there again when that is upgraded."""
    lower = downgrade(document)
    kept = dict(leaves(upgrade(lower)))
    kept |= {path: value for name in set(lower) - set(_WHY) for path, value in leaves(lower[name], child("", name))}
    return [
        Loss(path, _WHY[name])
        for name in _WHY
        for path, value in leaves(document.get(name, {}), child("", name))
        if value not in ({}, []) and not same(kept.get(path, ABSENT), value)
    ]


def _returned(branch: Any, taken: set[str]) -> Document:
    """Return what was unrecognised when a document was upgraded, but for what would be taken for something else."""
    made = {name: value for name, value in branch.items() if name not in taken} if isinstance(branch, dict) else {}
    metadata = made.pop("metadata", None)
    if isinstance(metadata, dict):
        made["metadata"] = {name: value for name, value in metadata.items() if name not in {"version", HISTORY}}
    return made


STEP = Step("2.0", "1.0", downgrade, losses)
