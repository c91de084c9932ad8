"""What a push has done."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from quantum_memory.errors import QuantumMemoryError


@dataclass
class Sent:
    """What a push has done, or would do.

    Attributes
    ----------
    target
        The address.
    backups
        Ids of those that were sent, the newest first.
    there
        How many were there already.
    objects, nbytes
        How many objects were written, and their bytes.
    removed
        Ids of the backups that were removed there.
    bytes_removed
        What was freed by that, and by removing packs.
    mended
        Keys of the objects that were found damaged there, and written anew.
    problems
        What was not sent, and why: it is damaged here.
    """

    target: str
    backups: list[str] = field(default_factory=list)
    there: int = 0
    objects: int = 0
    nbytes: int = 0
    removed: list[str] = field(default_factory=list)
    bytes_removed: int = 0
    mended: list[str] = field(default_factory=list)
    problems: list[QuantumMemoryError] = field(default_factory=list)

    def __bool__(self) -> bool:
        return not self.problems

    def to_dict(self) -> dict[str, Any]:
        """Return it as a plain dict."""
        return {**vars(self), "problems": [str(one) for one in self.problems]}
