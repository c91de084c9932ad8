"""Versions of a repository, one after another, in a folder or in object storage.

What works there has threads of its own, which a fork does not have: so all of it is done in children, and nothing by
the process that forks them.
"""

import contextlib
import json
import os
import shutil
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy.ma  # noqa: F401 - which zarr would import in each child

import quantum_memory as qm
from quantum_memory.durability import atomic
from quantum_memory.durability.write_back import sync_file_system
from quantum_memory.errors import MissingFileError
from quantum_memory.testing.loops import Acknowledge

from ...cloud.numbered import SAVES, history, number_of, numbered, numbers
from ...cloud.servers import BUCKET
from .saves import strangers

ROOM = 24 << 20
"""The bytes of states after which a folder begins anew: a disk for tests is small, and what is young is not removed."""

LATEST, MOST = 2, 50
"""So many versions are read each time, and at the end; of those before only the names are looked at."""


def answer(work: Callable[[], Any]) -> Any:
    """Do some work in a child, and return what comes out of it, which JSON can say.

    Raises
    ------
    AssertionError
        It has raised an error.
    """
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            warnings.simplefilter("error")
            os.write(writing, json.dumps(work()).encode())
            status = 0
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
        finally:
            os._exit(status)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        said = pipe.read()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0, "see the traceback of the child"
    return json.loads(said)


class Versions:
    """A repository whose versions are counted.

    Parameters
    ----------
    place
        An empty folder; in object storage only its name is used.
    way
        How they are written: see `tests.cloud.numbered`.
    url
        Where; by default in the folder.
    tags
        Whether each has a name.
    qubits
        Size of the state.
    """

    longest = 0.5  # seconds, within which the first one is made

    def __init__(
        self, place: Path, way: str = "save", url: str | None = None, *, tags: bool = False, qubits: int = 6
    ) -> None:
        self.folder, self._way, self._tags, self._qubits = place, way, tags, qubits
        self._in_folder = url is None
        self._url = url or f"icechunk+file://{place}/run"
        self._before = 0  # how many versions other ones had of which nothing is there any more
        self._unnamed: set[int] = set()
        self._contents: list[str] = []
        path = place / "first.qms"  # imports what it takes
        qm.save(numbered(0, 0, qubits), path, durable=False)
        assert qm.load(path).content_id == qm.verify(path).content_id
        path.unlink()

    def _save(self, version: int, *, durable: bool) -> None:
        at = f"{self._url}@v{version}" if self._tags else self._url
        SAVES[self._way](numbered(0, version, self._qubits), at, durable=durable)

    def run(self, version: int, acknowledge: Acknowledge, *, durable: bool) -> None:
        while True:
            version += 1
            self._save(version, durable=durable)
            acknowledge(version)

    def _know(self, version: int) -> None:
        """Learn what there may be, with one more than that, which nobody has acknowledged."""
        for number in range(len(self._contents), version + 1):
            self._contents.append(numbered(0, number + 1, self._qubits).content_id)

    def check(self, acknowledged: int) -> int:
        self._know(acknowledged)
        found: int = answer(lambda: self._found(LATEST, acknowledged))
        self._unnamed |= set(range(acknowledged + 1, found + 1))
        if self._in_folder and (found - self._before) << (self._qubits + 4) > ROOM:
            shutil.rmtree(self.folder / "run")
            sync_file_system(str(self.folder))
            self._before = found
        return found

    def _found(self, latest: int, acknowledged: int) -> int:
        """Return how many versions there are, having seen that they are what was written, in turn."""
        if self._in_folder:
            # Of a folder that was being made there may be another one, with nothing in it.
            assert [one for one in strangers(self.folder, "run") if not one.startswith(".run.")] == []
        try:
            versions = history(self._url)
        except MissingFileError:
            return self._before
        last = self._before + len(versions)
        contents = [version.metadata["content_id"] for version in versions]
        assert contents == self._contents[self._before : last]
        there = dict(enumerate(versions, self._before + 1))
        read = [number for number in there if number > last - latest]
        assert numbers(self._url, [there[number] for number in read]) == [(0, number) for number in read]
        if versions:
            assert qm.verify(self._url).content_id == contents[-1]
        if self._tags:
            tags = qm.repository(self._url).tags()
            named = {f"v{number}": version.id for number, version in there.items()}
            assert tags.items() <= named.items()
            missing = {int(name[1:]) for name in named.keys() - tags.keys()}
            assert all(number in self._unnamed or number > acknowledged for number in missing), missing
        return last

    def end(self, version: int) -> None:
        answer(lambda: self._save(version + 1, durable=False))
        self._know(version + 1)
        assert answer(lambda: self._found(MOST, version + 1)) == version + 1
        answer(lambda: qm.repository(self._url).prune().writing)  # whatever those have left who were ended
        if self._in_folder:
            assert not [path for path in (self.folder / "run").rglob("*") if atomic.is_leftover(path.name)]


class AtAddress(Versions):
    """Checkpoints at an address: a version that is kept by a tag is one, whatever the main line ends with."""

    def _save(self, version: int, *, durable: bool) -> None:
        with qm.CheckpointManager(self._url, keep=qm.KeepAll(), signals=False, durable=durable) as cm:
            cm.create_checkpoint(numbered(0, version, self._qubits), progress=version)

    def _found(self, latest: int, acknowledged: int) -> int:
        if self._in_folder:
            assert [one for one in strangers(self.folder, "run") if not one.startswith(".run.")] == []
        with qm.CheckpointManager(self._url, signals=False) as cm:
            listed = cm.list_checkpoints()[::-1]
            last = self._before + len(listed)
            assert [one["content_id"] for one in listed] == self._contents[self._before : last]
            for one in listed[-latest:]:
                assert number_of(cm.restore(one["id"])) == (0, one["progress"])
                assert cm.verify(one["id"]) == {one["id"]: None}
            if listed:
                # Who was ended after the tag was made has not let the main line end there.
                end = 0
                with contextlib.suppress(MissingFileError):
                    end = self._contents.index(qm.load(self._url).content_id) + 1
                after = range(end + 1, last + 1)
                assert all(number in self._unnamed or number > acknowledged for number in after), (end, last)
        return last


class OfServer(Versions):
    """A repository of the server that the environment says, under a prefix that is called as the place."""

    def __init__(self, place: Path, way: str = "save", *, tags: bool = False, qubits: int = 6) -> None:
        super().__init__(place, way, f"s3://{BUCKET}{place}", tags=tags, qubits=qubits)


class AtServer(AtAddress, OfServer):
    """Checkpoints on that server."""
