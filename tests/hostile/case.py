"""A hostile file: what it is, how it is made, and what becomes of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

DAMAGED, UNSAFE, LATER = "IntegrityError", "UnsafeError", "UnsupportedVersionError"
READ = "read"
"""Of a file that is strange and does no harm: it is read as what it is."""


@dataclass(frozen=True)
class Case:
    """One hostile file, or folder.

    Attributes
    ----------
    title, naive
        What it is, and what a naive reader does.
    error
        What the first of the verbs gives here.
    build
        Returns its bytes.
    suffix
        Of its name.
    verbs
        What opens it: a key of `child.VERBS`.
    at_path
        Whether `build` makes it at a path that it is given: what is no file, or a folder.
    """

    title: str
    naive: str
    error: str
    build: Callable[..., Any]
    suffix: str = "qms"
    verbs: str = "state"
    at_path: bool = False

    def write(self, path: Path) -> None:
        """Make it."""
        if self.at_path:
            self.build(path)
        else:
            path.write_bytes(self.build())
