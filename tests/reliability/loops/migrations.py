"""Legacy files that are migrated and taken back, in turn."""

from pathlib import Path

from quantum_memory.testing.loops import Acknowledge

from ..operations.migrations import Apply


class Migrations:
    """Of four versions one is that they are migrated, and the third that they are as before.

    The ones between say that this ends now: whoever dies then has each file old or new, and has them taken back.
    """

    def __init__(self, place: Path) -> None:
        self._batch = Apply(place)
        self.folder = self._batch.folder

    def _go_on(self, version: int) -> None:
        if version % 4 == 1:
            self._batch.apply()
        elif version % 4 == 3:
            self._batch.roll_back()

    def run(self, version: int, acknowledge: Acknowledge, *, durable: bool) -> None:
        while True:
            version += 1
            self._go_on(version)
            acknowledge(version)

    def check(self, acknowledged: int) -> int:
        if acknowledged % 4 == 1:
            self._batch.check_new()
        elif acknowledged % 4 == 3:
            self._batch.check_old()
        else:
            self._batch.check_old_or_new()
            self._batch.roll_back()
            self._batch.check_taken_back()
            return acknowledged + -acknowledged % 4
        return acknowledged

    def end(self, version: int) -> None:
        self._go_on(version + 1)
        if self.check(version + 1) % 4 != 1:
            self._batch.check_taken_back()
