"""What differs between a document and what it was migrated to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from quantum_memory.lifecycle.versions.tree import ABSENT, leaves, same

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from quantum_memory.lifecycle.versions.step import Loss
    from quantum_memory.lifecycle.versions.tree import Document


@dataclass(frozen=True)
class Difference:
    """A value that is not the same in both documents, or not as the steps make it.

    Attributes
    ----------
    path
        Where, as a JSON Pointer (RFC 6901).
    before, after
        What was there, and what is there now; `ABSENT` for nothing. An empty object or list is a value.
    expected
        What the steps put there.
    explained
        Whether it is what the steps put there.
    why
        Which steps explain it, or why it was lost; a phrase.
    """

    path: str
    before: Any
    after: Any
    expected: Any
    explained: bool
    why: str

    def __str__(self) -> str:
        return f"{self.path}: {self.before!r:.60} -> {self.after!r:.60} ({self.why})"


@dataclass(frozen=True)
class MigrationReport:
    """Every difference between a document and what it was migrated to; true when nothing is lost or unexplained.

    Attributes
    ----------
    source, target
        The versions.
    differences
        All of them, in the order of the original.
    losses
        What the steps say that they lose.
    """

    source: str
    target: str
    differences: tuple[Difference, ...]
    losses: tuple[Loss, ...]

    @property
    def unexplained(self) -> tuple[Difference, ...]:
        """The differences that no step explains."""
        return tuple(one for one in self.differences if not one.explained)

    def __bool__(self) -> bool:
        return not self.losses and not self.unexplained

    def __str__(self) -> str:
        unexplained = self.unexplained
        counted = (
            f"{self.source} -> {self.target}: {len(self.differences)} differences, {len(unexplained)} of them not "
            f"explained, {len(self.losses)} losses"
        )
        return "\n".join([counted, *map(str, unexplained), *(f"{one.path}: lost, {one.why}" for one in self.losses)])


def compared(
    versions: Sequence[str], original: Document, migrated: Document, expected: Document, losses: Iterable[Loss]
) -> MigrationReport:
    """Compare all values of an original, of what it was migrated to, and of what the steps make of it.

    Parameters
    ----------
    versions
        Those of the way, the first and the last included.
    """
    before, after, made = dict(leaves(original)), dict(leaves(migrated)), dict(leaves(expected))
    lost = {one.path: one.why for one in losses}
    steps = " -> ".join(versions)
    found: list[Difference] = []
    for path in dict.fromkeys([*before, *made, *after]):
        old, new, right = (tree.get(path, ABSENT) for tree in (before, after, made))
        explained = same(new, right)
        if explained and same(old, new):
            continue
        why = lost.get(path, f"the steps {steps}") if explained else f"the steps {steps} give {right!r:.60}"
        found.append(Difference(path, old, new, right, explained, why))
    return MigrationReport(versions[0], versions[-1], tuple(found), tuple(losses))
