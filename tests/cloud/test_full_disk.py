"""A disk with too little room for a version in a folder, for every page and every name that is missing.

What was there before stays and is read, the error says that there is no room, and with room it can be done.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np
import pytest

import quantum_memory as qm
from quantum_memory.errors import MissingFileError, StorageError
from quantum_memory.testing.loop_disk import PAGE, SmallDisk, can_mount, fill_at_each
from quantum_memory.testing.operations import FromCopy

from ..reliability.figures import TIMES, figure
from .numbered import numbered, save_in_parts

if TYPE_CHECKING:
    from pathlib import Path


def long(number: int) -> qm.MemoryState:
    """Return a memory of some pages."""
    memory = numbered(0, number, 8)
    return qm.MemoryState(memory.quantum, {"number": number, "payload": np.full(4_000 * TIMES, number)})


class Save(FromCopy):
    """A version is saved, the first or the second one."""

    first = False

    def __init__(self, place: Path) -> None:
        super().__init__(place)
        self.url = f"icechunk+file://{self.folder}/run"
        if not self.first:
            qm.save(long(1), f"{self.url}@one")
        self.keep()

    def do(self) -> None:
        qm.save(long(2), self.url)

    def check(self, *, done: bool) -> None:
        try:
            number = qm.load(self.url).classical["number"]
        except MissingFileError:
            assert self.first
            assert not done
            return
        assert number in ({2} if done or self.first else {1, 2})
        assert qm.verify(self.url).content_id == long(number).content_id
        if not self.first:
            assert qm.load(f"{self.url}@one") == long(1)


class First(Save):
    first = True


class Named(Save):
    """With a name, which may lack when the version is there."""

    def do(self) -> None:
        qm.save(long(2), f"{self.url}@two")

    def check(self, *, done: bool) -> None:
        super().check(done=done)
        named = "two" in qm.repository(self.url).tags()
        assert named or not done
        assert not named or qm.load(f"{self.url}@two") == long(2)


class InParts(Save):
    """In a transaction."""

    def do(self) -> None:
        save_in_parts(long(2), self.url)


def test_these_tests_are_not_left_out_unseen() -> None:
    assert can_mount() or not os.environ.get("QMS_REQUIRE_ROOT")


@pytest.mark.skipif(not can_mount(), reason="only root can mount")
@pytest.mark.timeout(300 * TIMES)
@pytest.mark.parametrize("kind", [First, Save, Named, InParts])
def test_too_little_room(tmp_path: Path, kind: type[Save]) -> None:
    with figure("full") as made, SmallDisk(tmp_path) as disk:
        operation = kind(disk.mount / "place")
        for what in ("nbytes", "names"):
            made.count += fill_at_each(operation, disk, what)


@pytest.mark.skipif(not can_mount(), reason="only root can mount")
def test_the_error_of_a_full_disk_says_so(tmp_path: Path) -> None:
    with SmallDisk(tmp_path) as disk:
        operation = Save(disk.mount / "place")
        disk.leave(nbytes=4 * PAGE)
        with pytest.raises(StorageError, match=r"No space left on device.*Next: free some space") as caught:
            operation.do()
        assert caught.value.exit_code == 8
        assert str(caught.value).startswith(operation.url)
        operation.check(done=False)
        disk.leave()
        operation.do()
        operation.check(done=True)
