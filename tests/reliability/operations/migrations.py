"""What is done to a batch of legacy files."""

from contextlib import suppress

from quantum_memory.durability import atomic
from quantum_memory.errors import ConflictError

from ...lifecycle.batches import Batch
from .alike import Alike


class OfBatch(Batch, Alike):
    """Something that is done to it; empty folders may be left over, until it is done again.

    After an accident it is done once more, or all of it is taken back at once: by turns.
    """

    turn = 0

    def is_timed(self, path, content):
        """An old file has its old time; a new one has any."""
        return content is not None and self.old.get(path.removeprefix("tree/"), (None,))[0] == content


class Apply(OfBatch):
    """They are migrated."""

    may_break = ("/staged",)  # new files that wait for names are synced together, when all of a group are there

    def act(self):
        self.apply()

    def check(self, *, done):
        self.check_new() if done else self.check_old_or_new()

    def go_on(self):
        self.turn += 1
        if self.turn % 2:
            super().go_on()
        self.roll_back()
        self.check_taken_back()


class RollBack(OfBatch):
    """They are taken back."""

    def __init__(self, place):
        super().__init__(place)
        self.apply()
        self.keep()

    def act(self):
        self.roll_back()

    def check(self, *, done):
        self.check_old() if done else self.check_old_or_new()

    def go_on(self):
        self.turn += 1
        if self.turn % 2:
            self.apply()
            self.check_new()
        super().go_on()
        self.check_taken_back()


class Commit(OfBatch):
    """What is kept of the old ones goes; what was not begun can be taken back."""

    def __init__(self, place):
        super().__init__(place)
        self.apply()
        self.keep()

    def act(self):
        self.commit()

    def check(self, *, done):
        self.check_new()
        if done:
            self.check_kept_no_more()

    def go_on(self):
        self.turn += 1
        if self.turn % 2:
            atomic.forget_sweeps()
            with suppress(ConflictError):  # which says that it was begun
                self.roll_back()
                self.check_taken_back()
                return
        super().go_on()
        self.check_committed()
