"""Writers of versions are killed, and workers, and the server: what was acknowledged is there, once, and whole."""

from __future__ import annotations

import json
import os
import random
import select
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

import quantum_memory as qm

from ..reliability.figures import TIMES, figure
from ..reliability.loops import ROOT, tried
from . import servers
from .numbered import check_all, history, numbered
from .operations import OPERATIONS

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Self

KILLS = {
    "versions": 24,
    "versions with tags": 20,
    "versions of parts": 12,
    "checkpoints at an address": 14,
    "versions of a server": 9,
    "checkpoints of a server": 7,
    "versions of parts, of a server": 7,
}
WORKERS = {"folder": 10, "s3": 5}
SERVERS = 8
PATIENCE = 60.0


@pytest.mark.timeout(300 * TIMES)
@pytest.mark.parametrize("name", KILLS)
def test_writers_are_killed_at_random_instants(s3: servers.Server, tmp_path: Path, name: str) -> None:
    with figure("cloud kills") as made:
        made.count += tried("kill", name, KILLS[name] * TIMES, tmp_path).count


@pytest.mark.timeout(300 * TIMES)
def test_a_kill_at_each_call(tmp_path: Path) -> None:
    step = ("--step", "17" if TIMES == 1 else "1")
    command = [sys.executable, "-m", "tests.cloud.operations", "kill", str(tmp_path), *OPERATIONS, *step]
    with figure("cloud kills") as made:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=280 * TIMES)
        assert done.returncode == 0, done.stderr
        made.count += int(done.stdout)


@pytest.mark.timeout(300 * TIMES)
@pytest.mark.parametrize("url", WORKERS, indirect=True)
def test_workers_are_killed_while_they_write(url: str) -> None:
    times = WORKERS["s3" if url.startswith("s3") else "folder"] * TIMES
    command = [sys.executable, "-m", "tests.cloud.killed_workers", url, str(times)]
    with figure("cloud kills") as made:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=280 * TIMES)
        assert done.returncode == 0, done.stderr
        assert int(done.stdout) > times / 3, f"in {done.stdout} of {times} something was missing, which shows little"
        made.count += times


class Writer:
    """A process that saves for as long as a block lasts; see `writer`.

    Attributes
    ----------
    tried, done
        Which versions it has begun, and which were acknowledged.
    failed
        What it was told in the place of that.
    """

    def __init__(self, url: str) -> None:
        self.tried: list[int] = []
        self.done: list[int] = []
        self.failed: list[str] = []
        self._text = b""
        command = [sys.executable, "-m", "tests.cloud.writer", url]
        self._process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE)
        self.who = self._process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        assert self._process.stdout
        self._process.stdout.close()

    def listen(self, seconds: float) -> None:
        """Take what it says within so many seconds, or what it has said."""
        assert self._process.stdout
        end = time.monotonic() + seconds
        while select.select([self._process.stdout], [], [], max(0.0, end - time.monotonic()))[0]:
            more = os.read(self._process.stdout.fileno(), 1 << 16)
            assert more, f"it has ended, with status {self._process.wait()}"
            *lines, self._text = (self._text + more).split(b"\n")
            for what, number, *error in map(json.loads, lines):
                {"try": self.tried, "done": self.done}.get(what, []).append(number)
                self.failed += error

    def wait_for(self, done: int) -> None:
        """Wait until so many versions were acknowledged."""
        end = time.monotonic() + PATIENCE
        while len(self.done) < done:
            assert time.monotonic() < end, f"nothing was acknowledged for {PATIENCE} s; errors: {self.failed[-3:]}"
            self.listen(0.02)


@pytest.mark.timeout(300 * TIMES)
def test_the_server_is_killed_while_somebody_commits(
    s3: servers.Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The writer lives, and goes on with the next version when the server is back."""
    rng = random.Random(f"{os.environ.get('QMEM_SEED', '0')}")
    url = f"s3://{servers.BUCKET}/killed"
    with figure("cloud kills") as made, servers.seaweed(tmp_path / "home") as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.endpoint)
        with Writer(url) as writer:
            for kill in range(SERVERS * TIMES):
                writer.wait_for(len(writer.done) + 1)
                writer.listen(rng.uniform(0, 0.3))
                server.kill()
                server.restart()
                writer.listen(0)
                acknowledged = [(writer.who, number) for number in writer.done]
                contents = [version.metadata["content_id"] for version in history(url)]
                assert len(set(contents)) == len(contents)
                lost = {numbered(*one).content_id for one in acknowledged} - set(contents)
                assert not lost, f"lost after kill {kill}"
                assert qm.verify(url).content_id
                made.count += 1
            writer.wait_for(len(writer.done) + 1)
        check_all(url, *([(writer.who, number) for number in numbers] for numbers in (writer.done, writer.tried)))
