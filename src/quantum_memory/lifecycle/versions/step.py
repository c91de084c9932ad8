"""A step between two versions, and what it loses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from quantum_memory.lifecycle.versions.tree import Document


@dataclass(frozen=True)
class Loss:
    """What a step cannot keep.

    Attributes
    ----------
    path
        Where it was, as a JSON Pointer (RFC 6901); everything below it is meant.
    why
        A sentence without a full stop.
    """

    path: str
    why: str

    def to_json(self) -> dict[str, Any]:
        """Return what is written."""
        return {"path": self.path, "why": self.why}


def loses_nothing(_: Document) -> list[Loss]:
    """Return the losses of a step that keeps everything."""
    return []


@dataclass(frozen=True)
class Step:
    """A step from one version of a document to another.

    Parameters
    ----------
    source, target
        The versions.
    apply
        Returns the document of the target version, which may share parts with the one that it is given. It must be pure
        and deterministic: no clock, no file, no random number.
    losses
        Returns what `apply` does not keep of a document. A step that may lose something is only taken where there is
        no way without.
    """

    source: str
    target: str
    apply: Callable[[Document], Document]
    losses: Callable[[Document], list[Loss]] = loses_nothing

    @property
    def lossy(self) -> bool:
        """Whether the step may lose something."""
        return self.losses is not loses_nothing

    def __str__(self) -> str:
        return f"{self.source} -> {self.target}"
