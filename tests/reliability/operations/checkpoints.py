"""What is done to a folder of three checkpoints."""

from contextlib import suppress

import numpy as np

import quantum_memory as qm
from quantum_memory.errors import MissingError
from quantum_memory.lifecycle.checkpoint_manager import CheckpointManager
from quantum_memory.lifecycle.due import Always
from quantum_memory.lifecycle.retention import KeepLast
from quantum_memory.testing.invariants import ANY, check_store, contents

from .alike import Alike

SAVED = 3
SHARED = np.arange(2000)
"""What every checkpoint holds."""


def state(step):
    return {"w": np.full(700, step), "k": step, "shared": SHARED}


def manager(run, **options):
    return CheckpointManager(run, **{"signals": False, "save": Always(), "keep": KeepLast(5), **options})


class OfCheckpoints(Alike):
    """Something that is done to a run with checkpoints.

    Attributes
    ----------
    goes
        How many of them, the oldest first, are removed.
    later
        Whether they may go later, when it is acknowledged.
    adds
        Which step is saved.
    """

    saved, goes, later, adds = SAVED, 0, False, 0
    may_break = ("log.jsonl was closed with unsynced bytes",)  # it is for people, and is not synced

    def __init__(self, place):
        super().__init__(place)
        self.run = self.folder / "run"
        self.old, self.pending = {}, {}
        if self.saved:
            with manager(self.run) as cm:
                self.ids = [cm.create_checkpoint(state(k), progress=k) for k in range(1, self.saved + 1)]
                cm.tag(self.ids[-1], "kept")
                cm.pin(self.ids[-1])
            self.old = contents(self.run)
        if self.adds:
            with manager(place / "known") as cm:
                cm.create_checkpoint(state(self.adds), progress=self.adds)
            (content,) = contents(place / "known").values()
            self.pending = {ANY: [content]}
        self.keep()

    def check(self, *, done):
        gone = self.ids[: self.goes] if self.goes else ()
        wanted = {one: content for one, content in self.old.items() if self.later or not done or one not in gone}
        check_store(self.run, wanted, pending=self.pending, removed=gone)
        if not self.run.exists():
            assert not done
            assert not self.saved
            return
        with manager(self.run) as cm:
            resumed = cm.resume()
            last = resumed.progress if resumed else 0
            assert last in {self.adds} if done and self.adds else last in {self.saved, self.adds}
            assert resumed is None or resumed.state["k"] == last
            if self.saved:
                refs = cm.folder.refs()
                assert refs.tags["kept"] == self.ids[-1]
                assert self.ids[-1] in refs.pins
            self.check_more(cm, done=done)

    def check_more(self, cm, *, done):
        pass

    def do_again(self):
        with suppress(MissingError):  # it was removed before the accident
            if self.adds not in self._steps():
                self.act()
        with manager(self.run) as cm, cm.folder.store.alone():
            cm.folder.sweep()
            cm.folder.collect()

    def _steps(self):
        with manager(self.run) as cm:
            return {one["progress"] for one in cm.list_checkpoints()}


class Create(OfCheckpoints):
    """One more."""

    adds = SAVED + 1

    def act(self):
        with manager(self.run) as cm:
            cm.create_checkpoint(state(self.adds), progress=self.adds)


class First(Create):
    """The first, which makes the folder."""

    saved, adds = 0, 1


class Step(OfCheckpoints):
    """Saves one and removes two, in a thread that writes through the same files."""

    goes, later, adds = 2, True, SAVED + 1
    may_break = (*OfCheckpoints.may_break, "/lock was closed with unsynced bytes")  # by a removal that has failed

    def act(self):
        with manager(self.run, keep=KeepLast(2)) as cm:
            assert cm.step(state(self.adds), self.adds)
            cm.wait()

    def do_again(self):
        super().do_again()
        with manager(self.run, keep=KeepLast(2)) as cm:  # which the next step would do
            cm.prune()


class Delete(OfCheckpoints):
    """The oldest goes."""

    goes = 1

    def act(self):
        with manager(self.run) as cm:
            cm.delete_checkpoint(self.ids[0])


class Prune(OfCheckpoints):
    """All but the newest go."""

    goes = 2

    def act(self):
        with manager(self.run, keep=KeepLast(1)) as cm:
            cm.prune()


class Tag(OfCheckpoints):
    """One gets a tag, and another a pin."""

    def act(self):
        with manager(self.run) as cm:
            cm.tag(self.ids[0], "paper")
            cm.pin(self.ids[1])

    def check_more(self, cm, *, done):
        refs = cm.folder.refs()
        kept = {"kept": self.ids[-1]}
        tagged, pinned = kept | {"paper": self.ids[0]}, set(self.ids[1:])
        assert refs.tags in ([tagged] if done else [kept, tagged])
        assert refs.pins in ([pinned] if done else [{self.ids[-1]}, pinned])


class Import(OfCheckpoints):
    """A file is taken in, and the run goes on from where it was."""

    def __init__(self, place):
        self._source = place / "in.qms"
        super().__init__(place)
        self.pending = {ANY: [qm.save({"metadata": {"a": 1}}, self._source, durable=False).content_id]}

    def act(self):
        with manager(self.run) as cm:
            cm.import_checkpoint(self._source, "imported")

    def do_again(self):
        if None not in self._steps():
            self.act()
        self.adds = None
        super().do_again()
        self.adds = 0


class Export(OfCheckpoints):
    """One becomes a file."""

    def act(self):
        with manager(self.run) as cm:
            cm.export_checkpoint(self.ids[0], self.folder / "out.qms", overwrite=True)

    def check_more(self, cm, *, done):
        content = self.old[self.ids[0]]
        check_store(self.folder / "out.qms", {"": content} if done else {}, pending={"": [content]})
