"""Which versions and steps there are, and the shortest way from one version to another."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

from quantum_memory.errors import InvalidStateError, UnsupportedVersionError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from quantum_memory.lifecycle.versions.step import Step


def number_of(version: str) -> tuple[int, ...]:
    """Return a version as numbers, which have an order."""
    return tuple(map(int, version.split(".")))


class Registry:
    """Steps between versions.

    Parameters
    ----------
    steps
        Those that are there from the beginning.
    """

    def __init__(self, steps: Iterable[Step] = ()) -> None:
        self._steps: dict[tuple[str, str], Step] = {}
        for step in steps:
            self.add(step)

    @property
    def versions(self) -> list[str]:
        """All versions that a step leads from or to, the oldest first."""
        return sorted({version for ends in self._steps for version in ends}, key=number_of)

    def add(self, step: Step) -> None:
        """Add a step.

        Raises
        ------
        InvalidStateError
            It leads nowhere, its versions are not numbers with points between them, or there is such a step.
        """
        ends = (step.source, step.target)
        for version in ends:
            if not all(part.isascii() and part.isdigit() for part in version.split(".")):
                raise InvalidStateError(
                    f"{version!r:.40} is no version", next_step='give numbers with points between them, such as "3.0"'
                )
        if step.source == step.target or ends in self._steps:
            raise InvalidStateError(
                f"a step {step} cannot be added: it is there already, or leads nowhere",
                next_step="register it with another VersionManager",
            )
        self._steps[ends] = step

    def way(self, source: str, target: str) -> list[Step]:
        """Return the steps from one version to another: as few that lose something as can be, then as few as can be.

        Of several such ways it is the one whose versions come first in their order.

        Raises
        ------
        UnsupportedVersionError
            No steps lead there.
        """
        queue: list[tuple[int, int, tuple[tuple[int, ...], ...], str, list[Step]]] = [(0, 0, (), source, [])]
        seen: set[str] = set()
        while queue:
            lossy, length, order, version, steps = heapq.heappop(queue)
            if version == target:
                return steps
            if version in seen:
                continue
            seen.add(version)
            for step in self._steps.values():
                if step.source == version:
                    key = (lossy + step.lossy, length + 1, (*order, number_of(step.target)), step.target)
                    heapq.heappush(queue, (*key, [*steps, step]))
        raise UnsupportedVersionError(
            f"no steps lead from version {source!s:.40} to version {target!s:.40}; there are "
            f"{', '.join(map(str, self._steps.values()))}",
            next_step="register the steps that are missing, or use a release that has them",
        )
