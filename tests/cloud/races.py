"""Processes that commit to one repository of Icechunk at once: one of them is ``python -m tests.cloud.races WHO``.

There is nothing between them and Icechunk. Each commit adds an item to a list; who meets a conflict reads the new list,
and tries again at once. A pause would hide most of what is lost.
"""

from __future__ import annotations

import functools
import itertools
import json
import select
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import icechunk
import zarr

if TYPE_CHECKING:
    from typing import Self

ROOT = Path(__file__).parents[2]
PATIENCE = 60.0
"""Seconds that one process may take for a race, or for its start."""

_TRIES = 200


class Place(NamedTuple):
    """Where a repository is: in a folder, or below a prefix of a bucket.

    Attributes
    ----------
    path
        The folder, or the prefix.
    endpoint, bucket, access_key_id, secret_access_key
        Of the server; empty for a folder.
    """

    path: str
    endpoint: str = ""
    bucket: str = ""
    access_key_id: str = ""
    secret_access_key: str = ""

    def storage(self) -> icechunk.Storage:
        """Return it as Icechunk knows it."""
        if not self.endpoint:
            return icechunk.local_filesystem_storage(self.path)
        return icechunk.s3_storage(
            bucket=self.bucket,
            prefix=self.path,
            region="us-east-1",
            endpoint_url=self.endpoint,
            allow_http=True,
            force_path_style=True,
            access_key_id=self.access_key_id,
            secret_access_key=self.secret_access_key,
        )


class Outcome(NamedTuple):
    """What has come out of a race.

    Attributes
    ----------
    acknowledged
        What was said to be committed: who, and which of its own.
    kept
        What is there; nothing if the repository cannot be read any more.
    """

    acknowledged: set[tuple[int, int]]
    kept: set[tuple[int, int]]

    @property
    def lost(self) -> set[tuple[int, int]]:
        """What was said to be committed, and is not there."""
        return self.acknowledged - self.kept


class Racers:
    """So many processes, which race as often as they are told to, until the block ends."""

    def __init__(self, number: int = 4) -> None:
        command = [sys.executable, "-m", __name__]
        self._processes: list[subprocess.Popen[str]] = []
        try:
            for who in range(number):
                self._processes.append(
                    subprocess.Popen(
                        [*command, str(who)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
                    )
                )
            self._answers()  # they have imported what they need, and begin at once
        except BaseException:
            self.__exit__()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.kill()
            process.communicate()

    def race(self, place: Place, each: int) -> Outcome:
        """Let each commit so often to a new repository."""
        repository = icechunk.Repository.create(place.storage())
        session = repository.writable_session("main")
        zarr.create_group(session.store, attributes={"list": []})
        session.commit("the start")
        for process in self._processes:
            assert process.stdin
            process.stdin.write(json.dumps([place, each]) + "\n")
            process.stdin.flush()
        acknowledged = {(who, number) for who, numbers in enumerate(self._answers()) for number in numbers}
        return Outcome(acknowledged, _kept(place))

    def _answers(self) -> list[list[int]]:
        answers = []
        for process in self._processes:
            assert process.stdout
            ready, _, _ = select.select([process.stdout], [], [], PATIENCE)
            line = process.stdout.readline() if ready else ""
            assert line, f"{process.args!r} has said nothing, and its status is {process.poll()}"
            answers.append(json.loads(line))
        return answers


def _kept(place: Place) -> set[tuple[int, int]]:
    try:
        store = icechunk.Repository.open(place.storage()).readonly_session("main").store
        kept: Any = zarr.open_group(store, mode="r").attrs["list"]
    except icechunk.IcechunkError:
        return set()
    return {(who, number) for who, number in kept}


def main() -> None:
    """Race, as often as told to by the parent, and tell it what was acknowledged."""
    icechunk.set_logs_filter("error")  # it warns, rightly, where the answers go
    who = int(sys.argv[1])
    print("[]", flush=True)  # noqa: T201 - for who started it
    for line in sys.stdin:
        place, each = json.loads(line)
        repository = icechunk.Repository.open(Place(*place).storage())
        # Where nothing is committed any more, the next item is not either.
        done = list(itertools.takewhile(functools.partial(_added, repository, who), range(each)))
        print(json.dumps(done), flush=True)  # noqa: T201


def _added(repository: icechunk.Repository, who: int, number: int) -> bool:
    """Commit an item, and tell whether that was acknowledged in the end."""
    for _ in range(_TRIES):
        try:
            session = repository.writable_session("main")
            group = zarr.open_group(session.store, mode="r+")
            seen: Any = group.attrs["list"]
            group.attrs["list"] = [*seen, [who, number]]
            session.commit(f"{who} {number}")
        except (
            icechunk.ConflictError,
            icechunk.IcechunkError,
        ):  # the second, when what another one writes is read half
            continue
        return True
    return False


if __name__ == "__main__":
    main()
