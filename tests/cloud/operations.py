"""What is done to a repository in a folder, and accidents at calls: ``python -m tests.cloud.operations kill DIR tag``.

It prints how many accidents there were. What uses a repository is done in children: see `reliability.loops.versions`.
"""

from __future__ import annotations

import argparse
import contextlib
from pathlib import Path
from typing import Any, ClassVar

import quantum_memory as qm
from quantum_memory.durability import files
from quantum_memory.errors import ConflictError, MissingError
from quantum_memory.testing import loop_disk
from quantum_memory.testing.accidents import kill_at_each
from quantum_memory.testing.loop_disk import LoopDisk, cut_disk_at_each
from quantum_memory.testing.operations import FromCopy, Unsynced, leftovers, state_of

from ..reliability.loops.versions import answer
from .numbered import history, number_of, numbered, save_in_parts

View = dict[str, Any]


class OnVersions(FromCopy):
    """Something that is done to a repository with two versions, the first of which is called "one"."""

    def __init__(self, place: Path) -> None:
        super().__init__(place)
        self.url = f"icechunk+file://{self.folder}/run"
        answer(self.begin)
        self.keep()

    old: ClassVar[View] = {"versions": [0, 1], "tags": {"one": 0}, "branches": {"main": 1}}
    new: ClassVar[View]
    between: ClassVar[tuple[View, ...]] = ()
    also: ClassVar[tuple[View, ...]] = ()
    """What may be there beside `new` when it was done once more."""

    def begin(self) -> None:
        qm.save(numbered(0, 0), f"{self.url}@one")
        qm.save(numbered(0, 1), self.url)

    def check(self, *, done: bool) -> None:
        found = answer(self.look)
        assert found in ([self.new] if done else [self.old, *self.between, self.new]), found

    def look(self) -> View:
        """Return what is there, having read all of it."""
        try:
            repository = qm.repository(self.url)
        except MissingError:
            return {}
        contents = {one.id: number_of(qm.load(f"{self.url}@{one.id}"))[1] for one in history(self.url)}
        if contents:
            assert qm.verify(self.url).content_id == numbered(0, [*contents.values()][-1]).content_id
        names = {"tags": repository.tags(), "branches": repository.branches()}
        return {
            "versions": [*contents.values()],
            **{what: {name: contents.get(end) for name, end in ends.items()} for what, ends in names.items()},
        }

    def go_on(self) -> None:
        answer(self._again)
        found = answer(self.look)
        assert found in [self.new, *self.also], found
        left = leftovers(state_of(self.folder))
        assert not left, f"left over: {left}"

    def _again(self) -> None:
        with files.using(Unsynced(self.system)):
            self.do_again()


class First(OnVersions):
    """The first save, which makes the repository."""

    old: ClassVar[View] = {}
    new: ClassVar[View] = {"versions": [0], "tags": {}, "branches": {"main": 0}}
    between = ({"versions": [], "tags": {}, "branches": {"main": None}},)

    def begin(self) -> None:
        pass

    def do(self) -> None:
        qm.save(numbered(0, 0), self.url)


class Next(OnVersions):
    """A version after others."""

    new: ClassVar[View] = {"versions": [0, 1, 2], "tags": {"one": 0}, "branches": {"main": 2}}

    def do(self) -> None:
        qm.save(numbered(0, 2), self.url)


class Parts(Next):
    """A version in a transaction."""

    def do(self) -> None:
        save_in_parts(numbered(0, 2), self.url)

    def do_again(self) -> None:
        if self.look() != self.new:  # else there would be another version of the same content
            self.do()


class Named(OnVersions):
    """A version with a tag."""

    new: ClassVar[View] = {"versions": [0, 1, 2], "tags": {"one": 0, "two": 2}, "branches": {"main": 2}}
    between = (Next.new,)

    def do(self) -> None:
        qm.save(numbered(0, 2), f"{self.url}@two")

    def do_again(self) -> None:
        try:
            self.do()
        except ConflictError:
            assert self.look() == self.new


class Rollback(OnVersions):
    """Back to the first version."""

    new: ClassVar[View] = {"versions": [0], "tags": {"one": 0}, "branches": {"main": 0}}

    def do(self) -> None:
        repository = qm.repository(self.url)
        repository.rollback(repository.find("one"))


class Tag(Named):
    """The second version gets a name."""

    new: ClassVar[View] = {"versions": [0, 1], "tags": {"one": 0, "two": 1}, "branches": {"main": 1}}
    between = ()

    def do(self) -> None:
        repository = qm.repository(self.url)
        repository.tag("two", repository.find())


class Untag(OnVersions):
    """The first version loses its name."""

    new: ClassVar[View] = {"versions": [0, 1], "tags": {}, "branches": {"main": 1}}

    def do(self) -> None:
        qm.repository(self.url).untag("one")

    def do_again(self) -> None:
        try:
            self.do()
        except MissingError:
            assert self.look() == self.new


class Branch(Named):
    """A branch begins at the first version."""

    new: ClassVar[View] = {"versions": [0, 1], "tags": {"one": 0}, "branches": {"main": 1, "trial": 0}}
    between = ()

    def do(self) -> None:
        repository = qm.repository(self.url)
        repository.branch("trial", repository.find("one"))


class Prune(OnVersions):
    """The first version, which has no name here, expires."""

    old: ClassVar[View] = {"versions": [0, 1], "tags": {}, "branches": {"main": 1}}
    new: ClassVar[View] = {"versions": [1], "tags": {}, "branches": {"main": 1}}

    def begin(self) -> None:
        qm.save(numbered(0, 0), self.url)
        qm.save(numbered(0, 1), self.url)

    def do(self) -> None:
        qm.repository(self.url).prune(keep=1)


class Checkpoint(OnVersions):
    """A checkpoint after two others, the first of which has a tag; the manager keeps two beside what has a tag."""

    old: ClassVar[View] = {"checkpoints": [0, 1], "tags": {"one": 0}, "end": 1}
    new: ClassVar[View] = {"checkpoints": [0, 1, 2], "tags": {"one": 0}, "end": 2}
    between = ({**new, "end": 1},)
    also = between  # what the main line ends with is the next one's to say

    def begin(self) -> None:
        with self.manager() as cm:
            cm.tag(cm.create_checkpoint(numbered(0, 0)), "one")
            cm.create_checkpoint(numbered(0, 1))

    def manager(self) -> qm.CheckpointManager:
        return qm.CheckpointManager(self.url, keep=qm.KeepLast(2), signals=False)

    def do(self) -> None:
        with self.manager() as cm:
            cm.create_checkpoint(numbered(0, 2))

    def do_again(self) -> None:
        if self.look()["checkpoints"][-1] != self.new["checkpoints"][-1]:
            self.do()
        self.tidied()

    def tidied(self) -> None:
        """Do what ``qmem checkpoint prune`` and ``gc`` do."""
        with self.manager() as cm:
            cm.prune()
            cm.folder.sweep()

    def look(self) -> View:
        with self.manager() as cm:
            listed = cm.list_checkpoints()[::-1]
            assert set(cm.verify().values()) <= {None}
            there = {one["id"]: number_of(cm.restore(one["id"]))[1] for one in listed}
            tags = {tag: there.get(one) for tag, one in cm.folder.refs().tags.items()}
        return {"checkpoints": [*there.values()], "tags": tags, "end": number_of(qm.load(self.url))[1]}


class Removed(Checkpoint):
    """One more, for which another one goes."""

    old: ClassVar[View] = {"checkpoints": [0, 1, 2], "tags": {"one": 0}, "end": 2}
    new: ClassVar[View] = {"checkpoints": [0, 2, 3], "tags": {"one": 0}, "end": 3}
    between = (
        {"checkpoints": [0, 1, 2, 3], "tags": {"one": 0}, "end": 2},
        {"checkpoints": [0, 1, 2, 3], "tags": {"one": 0}, "end": 3},
    )
    also = ({**new, "end": 2},)

    def begin(self) -> None:
        super().begin()
        super().do()

    def do(self) -> None:
        with self.manager() as cm:
            cm.create_checkpoint(numbered(0, 3))


class Deleted(Checkpoint):
    """The newest is deleted, with which the main line ends."""

    new: ClassVar[View] = {"checkpoints": [0], "tags": {"one": 0}, "end": 0}
    between = ({"checkpoints": [0, 1], "tags": {"one": 0}, "end": 0},)
    also = ()

    def do(self) -> None:
        with self.manager() as cm:
            cm.delete_checkpoint(cm.list_checkpoints()[0]["id"])

    def do_again(self) -> None:
        if len(self.look()["checkpoints"]) > 1:
            self.do()
        self.tidied()


class Tagged(Checkpoint):
    """A tag of people moves to the newest."""

    new: ClassVar[View] = {"checkpoints": [0, 1], "tags": {"one": 1}, "end": 1}
    between = also = ()

    def do(self) -> None:
        with self.manager() as cm:
            cm.tag(cm.list_checkpoints()[0]["id"], "one")

    def do_again(self) -> None:
        self.do()
        self.tidied()


OPERATIONS = {
    kind.__name__.lower(): kind
    for kind in (
        First, Next, Parts, Named, Rollback, Tag, Untag, Branch, Prune, Checkpoint, Removed, Deleted, Tagged,
    )
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("how", choices=["kill", "EXT4", "EXT4_LEAST", "XFS"])
    parser.add_argument("place", type=Path, help="an empty folder")
    parser.add_argument("names", nargs="+", choices=OPERATIONS)
    parser.add_argument("--step", type=int, default=1, help="at one of how many calls; at which differs")
    options = parser.parse_args()
    print(tried(options.how, options.place, options.names, options.step))  # noqa: T201


def tried(how: str, place: Path, names: list[str], step: int) -> int:
    """Kill, or cut the power, at calls of operations, and return how often."""
    with contextlib.ExitStack() as stack:
        disk = None if how == "kill" else stack.enter_context(LoopDisk(place, getattr(loop_disk, how)))
        count = 0
        for number, name in enumerate(names):
            operation = OPERATIONS[name]((disk.mount if disk else place) / name)
            if disk is None:
                count += kill_at_each(operation, first=number % step, step=step)
            else:
                count += cut_disk_at_each(operation, disk, first=number % step, step=step)
        return count


if __name__ == "__main__":
    main()
