"""Whatever fails or dies, and wherever: what was acknowledged is there and whole, and the run goes on from it."""

import contextlib
import errno
import itertools
import os
import shutil
import warnings

import pytest

import quantum_memory as qm
from quantum_memory.durability import atomic, files
from quantum_memory.errors import QuantumMemoryError
from quantum_memory.lifecycle.retention import KeepLast
from quantum_memory.testing.faults import FaultyFiles, killed_at

from ...loop_disk import EXT4, EXT4_LEAST, LoopDisk, can_cut_power
from ..batches import FullDisk, KillingWrites
from ..power_cuts import ModelCut, Unsynced
from .crashes import check, check_going_on, cut_at_random, kill_at_random, manager, state

SAVED = 3


class Work:
    """Something that is done to a folder with three checkpoints, again and again."""

    def __init__(self, place, name):
        self.top, self._fresh, self._file = place / "top", place / "fresh", place / "in.qms"
        self.run = self.top / "run"
        self.top.mkdir()
        if name != "first":
            with manager(self.run, durable=False) as cm:
                self.ids = [cm.create_checkpoint(state(k), progress=k) for k in range(1, SAVED + 1)]
        qm.save({"metadata": {"a": 1}}, self._file)
        shutil.copytree(self.top, self._fresh)
        self.do = getattr(self, f"_{name}")
        self.acknowledged = 0 if name == "first" else SAVED
        self.goes = {"create": 1, "delete": 1, "step": 2}.get(name, 0)

    def again(self):
        shutil.rmtree(self.top)
        shutil.copytree(self._fresh, self.top)
        atomic._swept.clear()

    def _first(self):
        with manager(self.run) as cm:
            cm.create_checkpoint(state(self.acknowledged + 1), progress=self.acknowledged + 1)

    _create = _first

    def _step(self):
        """Save and remove in the background."""
        with manager(self.run, keep=KeepLast(2)) as cm:
            assert cm.step(state(SAVED + 1), SAVED + 1)
            cm.wait()

    def _delete(self):
        with manager(self.run) as cm:
            cm.delete_checkpoint(self.ids[0])

    def _tag(self):
        with manager(self.run) as cm:
            cm.tag(self.ids[0], "paper")
            cm.pin(self.ids[1])

    def _import(self):
        with manager(self.run) as cm:
            cm.import_checkpoint(self._file, "imported")

    def look(self):
        """Whatever happened: three are there, but for those that were to go; all are whole; it goes on."""
        with manager(self.run, durable=False) as cm:
            found = cm.verify()
            assert set(found.values()) <= {None}, found
            if self.acknowledged:
                assert set(self.ids[self.goes :]) <= set(found)
                assert cm.resolve(self.ids[-1]) == self.ids[-1]
            refs = cm.folder.refs()
            for one in refs.pins:
                cm.unpin(one)
            for tag in refs.tags:
                cm.untag(tag)
            for one in cm.list_checkpoints():
                if one["progress"] is None:
                    assert cm.restore(one["id"]).metadata == {"a": 1}
                    cm.delete_checkpoint(one["id"])
        check_going_on(self.run, check(self.run, self.acknowledged))


WORKS = ("first", "create", "step", "delete", "tag", "import")


@pytest.mark.parametrize("error", ["EIO", "ENOSPC"])
@pytest.mark.parametrize("name", WORKS)
def test_every_call_fails_once(tmp_path, name, error):
    work = Work(tmp_path, name)
    seen = set()
    for k in itertools.count():
        work.again()
        faulty = FullDisk(k, Unsynced()) if error == "ENOSPC" else FaultyFiles(k, errno.EIO, inner=Unsynced())
        with files.using(faulty), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                work.do()
            except QuantumMemoryError as failure:
                assert failure.exit_code in {4, 6, 7, 8}, failure  # noqa: PT017
                seen.add(type(failure))
        work.look()
        if not faulty.failed:
            break
    assert seen
    assert k > (10 if error == "ENOSPC" else 25)


@pytest.mark.parametrize("name", WORKS)
def test_everything_fails_from_a_call_on(tmp_path, name):
    """As on a disk that is gone, and comes again."""
    work = Work(tmp_path, name)
    for k in itertools.count(0):
        work.again()
        faulty = FaultyFiles(2 * k, errno.EIO, sticky=True, inner=Unsynced())
        with files.using(faulty), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with contextlib.suppress(QuantumMemoryError):
                work.do()
        work.look()
        if not faulty.failed:
            break
    assert k > 12


@pytest.mark.parametrize("name", WORKS)
def test_a_kill_at_every_call_that_changes_something(tmp_path, name):
    work = Work(tmp_path, name)

    def do(dying):
        with files.using(dying):
            work.do()

    for k in itertools.count():
        work.again()
        if not killed_at(k, do, lambda k: KillingWrites(k, Unsynced())):
            break
        work.look()
    work.look()
    assert k > 10


@pytest.mark.parametrize("name", WORKS)
def test_a_power_cut_at_every_call_on_the_model_of_a_disk(tmp_path, name):
    work = Work(tmp_path, name)

    def do(cutting):
        with files.using(cutting):
            work.do()

    cuts = 0
    for k in itertools.count():
        work.again()
        cuts += (cut := killed_at(k, do, lambda k: ModelCut(k, work.top, k, Unsynced())))
        work.look()
        if not cut:
            break
    assert cuts > 10


def test_a_power_cut_at_any_call_of_a_loop_on_the_model_of_a_disk(tmp_path):
    """What was acknowledged before the call is there after it, old ones removed in between."""
    top = tmp_path / "top"

    def do(cutting):
        with files.using(cutting), manager(top / "run", keep=KeepLast(2)) as cm:
            for k in range(1, 6):
                cm.create_checkpoint(state(k), progress=k)
                (tmp_path / "said").write_text(str(k))

    for k in itertools.count(0):
        shutil.rmtree(top, ignore_errors=True)
        top.mkdir()
        atomic._swept.clear()
        (tmp_path / "said").write_text("0")
        cut = killed_at(3 * k, do, lambda k: ModelCut(k, top, k, Unsynced()))
        check_going_on(top / "run", check(top / "run", int((tmp_path / "said").read_text())))
        if not cut:
            break
    assert k > 20


def test_kills_at_random_instants(tmp_path):
    assert kill_at_random(tmp_path / "run", 200) > 20


def test_these_tests_are_not_left_out_unseen():
    assert can_cut_power() or not os.environ.get("QMS_REQUIRE_POWERCUT")


@pytest.mark.skipif(not can_cut_power(), reason="needs root, a loop device and mkfs.ext4")
@pytest.mark.parametrize("kind", [EXT4, EXT4_LEAST], ids=" ".join)
def test_real_power_cuts(tmp_path, kind):
    with LoopDisk(tmp_path, *kind) as disk:
        assert cut_at_random(disk, kind, 20) > 5
