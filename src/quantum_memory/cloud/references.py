"""The tags and branches of a repository, as the names of the objects under ``refs/`` say them.

Icechunk reads every tag to list them, with two requests for each, those that were removed included; and it leaves out
those that it cannot read, as if they had been removed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

REFS = "refs"
FILE, REMOVED = "ref.json", "ref.json.deleted"
EMPTY = "1CECHNKREP0F1RSTCMT0"
"""The snapshot that every repository begins with."""


@dataclass(frozen=True)
class References:
    """What there is.

    Attributes
    ----------
    tags
        Names of the tags, whether they can be read or not.
    removed
        Names of tags that were removed, of which something is left.
    branches
        Names of the branches.
    """

    tags: frozenset[str]
    removed: frozenset[str]
    branches: frozenset[str]


def references_in(paths: Iterable[tuple[str, str]]) -> References:
    """Return the references of which there are these files: each a folder below ``refs/``, and what it is called."""
    tags, removed, branches = set[str](), set[str](), set[str]()
    for folder, file in paths:
        kind, _, name = folder.partition(".")
        if kind == "branch" and file == FILE:
            branches.add(name)
        elif kind == "tag" and file in {FILE, REMOVED}:
            (tags if file == FILE else removed).add(name)
    return References(frozenset(tags - removed), frozenset(removed), frozenset(branches))
